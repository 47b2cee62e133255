"""Missing values of forecasters: scattered in targets, in contexts, in fields; what is there is learned and scored."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from exact_forecasts import tiny, tiny_fields

import flowmatch
from flowmatch import ConditionalForecaster, DistilledFlowMap
from flowmatch.flow import IndependentCoupling, LinearPath, NormalSource, UniformTimes
from flowmatch.forecasting import training_windows_of, windows_like_fit
from flowmatch.forecasting.holes import crps_of_seen, determination_of_seen, energy_score_of_seen
from flowmatch.forecasting.ridge import penalty_of, ridge
from flowmatch.metrics import crps, energy_score
from flowmatch.networks import UNet
from flowmatch.objectives import VelocityObjective
from flowmatch.preprocessing import fill_lags, find_boundaries, mean_of_seen

RNG = np.random.default_rng(0)
NAN = np.nan


def scattered(values, share, seed=0):
    return np.where(np.random.default_rng(seed).random(np.shape(values)) < share, NAN, values)


def walk(n, seed=0, spread=0.5):
    """Two columns, the first of which follows the second."""
    noise, states = np.random.default_rng(seed).normal(size=(n, 2)), np.zeros((n, 2))
    for t in range(1, n):
        states[t] = [0.7, 0.8] * states[t - 1] + [0.4, 0.0] * states[t - 1][::-1] + spread * noise[t]
    return states


SERIES, X_TABLE = walk(400), RNG.normal(size=(300, 3))
Y_TABLE = X_TABLE[:, :2] + 0.3 * RNG.normal(size=(300, 2)) @ [[1.0, 0.9], [0.0, 0.4]]

# -- the parts --------------------------------------------------------------------------------------------------------


def test_lags_are_filled_by_their_own_window():
    lags = torch.tensor([[[1.0, NAN], [NAN, NAN], [3.0, 5.0]], [[NAN, NAN], [2.0, NAN], [NAN, NAN]]])
    expected = [[[1.0, 5.0], [1.0, 5.0], [3.0, 5.0]], [[2.0, 9.0], [2.0, 9.0], [2.0, 9.0]]]
    np.testing.assert_array_equal(fill_lags(lags, torch.tensor([7.0, 9.0])), expected)


@pytest.mark.parametrize("grid", [(9,), (6, 9), (4, 5, 6)])
def test_points_of_fields_are_filled_by_neighbors(grid):
    field = torch.as_tensor(np.add.outer(np.zeros(grid[:-1]), np.arange(9.0)[: grid[-1]]))[None, None, None]
    at = (0, 0, 0, *[2] * len(grid))
    holed = field.clone()
    holed[at] = NAN
    assert fill_lags(holed)[at] == pytest.approx(2.0)
    assert bool((fill_lags(holed) == field)[~holed.isnan()].all())
    assert bool((fill_lags(torch.full_like(field, NAN), 3.0) == 3.0).all())


def test_means_leave_out_what_is_missing():
    values = scattered(RNG.normal(size=(20, 3, 4)), 0.4)
    values[:, 1, 2] = NAN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(mean_of_seen(values, (0, 1)), np.nanmean(values, axis=(0, 1)))
        np.testing.assert_allclose(mean_of_seen(values, 0), np.nanmean(values, axis=0))


def test_a_ridge_regression_uses_the_rows_that_each_column_has():
    holed = scattered(Y_TABLE, 0.4)
    weights, intercept = ridge(X_TABLE, holed, 0.01)
    for j in range(2):
        seen = ~np.isnan(holed[:, j])
        alone = ridge(X_TABLE[seen], holed[seen][:, [j]], 0.01)
        np.testing.assert_allclose(weights[:, [j]], alone[0])
        np.testing.assert_allclose(intercept[[j]], alone[1])
    assert penalty_of(X_TABLE, holed) == pytest.approx(penalty_of(X_TABLE, Y_TABLE), rel=20)
    assert ridge(X_TABLE, Y_TABLE * NAN, 0.01)[0].any() == 0


def test_scores_of_what_is_there():
    members, truth = RNG.normal(size=(7, 40, 3)), RNG.normal(size=(40, 3))
    holed = scattered(truth, 0.3)
    holed[5] = NAN
    seen = ~np.isnan(holed)
    assert crps_of_seen(holed, members)[0] == pytest.approx(crps(truth[seen], members[:, seen]))
    alone = [energy_score(truth[[i]][:, s], members[:, [i]][:, :, s]) for i, s in enumerate(seen) if s.any()]
    assert energy_score_of_seen(holed, members) == (pytest.approx(np.mean(alone)), seen.any(axis=1).sum())
    for kind in ("uniform_average", "variance_weighted"):
        known = determination_of_seen(truth, members[0], None, kind)
        assert determination_of_seen(
            np.vstack([truth, truth * NAN]), np.vstack([members[0]] * 2), None, kind
        ) == pytest.approx(known)
    assert np.isnan(determination_of_seen(truth * NAN, members[0], None, "uniform_average"))


# -- tables -----------------------------------------------------------------------------------------------------------


def joint(X, y, **parameters):
    return ConditionalForecaster(max_iter=300, random_state=0, **parameters).fit(X, y)


@pytest.mark.slow
def test_targets_of_tables_may_lack_entries_and_stay_joint():
    """Each target is learned from the rows that have it, and both together from those that have both."""
    with pytest.warns(UserWarning, match=r"\d+ of 200 windows lack values: all to forecast.*They are left out\."):
        holed = joint(X_TABLE[:200], scattered(Y_TABLE, 0.3)[:200])
    whole = joint(X_TABLE[:200], Y_TABLE[:200])
    test = X_TABLE[200:], Y_TABLE[200:]
    assert holed.crps(*test) < 1.1 * whole.crps(*test)
    draws = holed.sample(X_TABLE[200:], 100, 0) - X_TABLE[200:, :2]
    assert np.mean([np.corrcoef(draws[:, i].T)[0, 1] for i in range(100)]) == pytest.approx(
        0.91, abs=0.12
    )  # of the noise
    part = scattered(Y_TABLE[200:], 0.5, 1)
    assert np.isfinite([holed.crps(test[0], part), holed.energy_score(test[0], part), holed.score(test[0], part)]).all()


@pytest.fixture(scope="module")
def table():
    X, y = pd.DataFrame(X_TABLE, columns=list("abc")).mask(RNG.random(X_TABLE.shape) < 0.1), scattered(Y_TABLE, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny(n_samples=19).fit(X, pd.DataFrame(y, columns=["u", "v"])), X, y


def test_density_of_the_targets_that_are_there(table):
    forecaster, X, y = table
    part = np.where([[True, False]], Y_TABLE, NAN)
    assert np.isfinite(forecaster.score_samples(X[:20], part[:20])).all()
    assert np.isfinite(forecaster.score_samples(X[:20], Y_TABLE[:20])).all()
    whole = tiny().fit(X_TABLE, Y_TABLE)
    with pytest.raises(ValueError, match="what is to be scored lacks values"):
        whole.score_samples(X_TABLE, y)
    assert np.isfinite(whole.crps(X_TABLE, y))
    with pytest.warns(UserWarning, match="one of what must be complete"):
        whole.partial_fit(X_TABLE, y)


def test_models_of_holed_targets_go_on_come_back_and_teach(table, tmp_path):
    forecaster, X, y = table
    forecaster.save(tmp_path / "f.safetensors")
    again = flowmatch.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(again.predict(X), forecaster.predict(X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more = again.partial_fit(X, y)
        student = DistilledFlowMap(more, max_iter=5, random_state=0).fit(X, y)
    assert more.n_iter_ == 2 * forecaster.n_iter_
    assert np.isfinite(student.predict(X)).all()
    calibrated = again
    with pytest.warns(UserWarning, match="must be complete"):
        calibrated.calibrate(X, y)
    assert len(calibrated.fitted_.conformal.scores) == (~np.isnan(y)).all(axis=1).sum()


# -- series -----------------------------------------------------------------------------------------------------------

KINDS = {
    "array": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "frame": lambda X: pd.DataFrame(X, pd.date_range("2021-01-04", periods=len(X), freq="h"), ["a", "b"]),
    "nullable": lambda X: pd.DataFrame(X, columns=["a", "b"]).convert_dtypes(),
    "panel": lambda X: [X[:200], X[200:] + 3],
    "one column": lambda X: np.column_stack([X[:, 0], SERIES[:, 1]]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_lags", "horizon"), [(1, 1), (3, 2)])
@pytest.mark.filterwarnings("ignore:.*windows lack values")
def test_series_of_all_kinds_may_have_holes(kind, n_lags, horizon):
    X = KINDS[kind](scattered(SERIES, 0.2))
    forecaster = tiny(n_lags=n_lags, horizon=horizon).fit(X)
    n_columns = len(forecaster.fitted_.layout.holed)
    assert forecaster.fitted_.window_encoder.n_columns >= n_lags * (2 + n_columns)
    for values in (X, KINDS[kind](SERIES)):  # from contexts with holes and without
        last = values[-1][-5:] if isinstance(values, list) else values[-5:]
        last = last if hasattr(last, "iloc") else last[None, -n_lags:]
        assert np.isfinite(forecaster.predict(last)).all()
        assert np.isfinite(forecaster.rollout(last, 5, 2, random_state=0)).all()
        assert np.isfinite([forecaster.score(values), forecaster.crps(values), forecaster.energy_score(values)]).all()
        assert np.isfinite(forecaster.score_samples(values)).all()
    scores = forecaster.backtest(X, n_windows=3).scores
    assert np.isfinite(scores["coverage"]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*windows lack values")
def test_scattered_holes_cost_little():
    parameters = {"n_lags": 2, "random_state": 0, "max_iter": 300}
    whole = ConditionalForecaster(**parameters).fit(SERIES[:300])
    holed = ConditionalForecaster(**parameters).fit(scattered(SERIES, 0.2)[:300])
    assert len(holed.fitted_.window_encoder.holed) == 2
    assert holed.crps(SERIES[300:]) < 1.1 * whole.crps(SERIES[300:])
    assert holed.crps(scattered(SERIES, 0.2)[300:]) < 1.25 * whole.crps(SERIES[300:])  # from less


def test_a_whole_model_refuses_contexts_with_holes_by_name():
    frame = KINDS["frame"](SERIES)
    forecaster = tiny(n_lags=2).fit(frame.assign(a=frame["a"].where(frame["a"] > -1)))
    gap = frame.copy()
    gap.iloc[-1, 0] = NAN
    assert np.isfinite(forecaster.predict(gap)).all()
    gap.iloc[-1] = [0.0, NAN]
    with pytest.raises(ValueError, match=r"X contains NaN: history 0, frame 399, column 'b'\. In training"):
        forecaster.predict(gap)


def test_an_empty_context_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecaster = tiny(n_lags=2).fit(scattered(SERIES, 0.3))
    with pytest.raises(ValueError, match="X has no value at all in context 1"):
        forecaster.predict(np.stack([SERIES[:2], SERIES[:2] * NAN]))


@pytest.mark.filterwarnings("ignore:.*windows lack values")
def test_panels_of_unlike_levels_may_have_holes():
    """What is relative to its own level is learned where the level is known."""
    panel = [scattered(level * (10 + walk(60, seed)), 0.2, seed) for seed, level in enumerate((1.0, 1e3, 1e4))]
    forecaster = tiny(n_lags=3).fit(panel)
    assert forecaster.fitted_.window_encoder.local is not None
    assert np.isfinite(forecaster.crps(panel))
    lost = np.array([[[1.0, NAN], [2.0, NAN], [3.0, NAN]]])
    with pytest.raises(ValueError, match="lacks all 3 value"):
        forecaster.predict(lost)


# -- fields -----------------------------------------------------------------------------------------------------------


def waves(n, n_frames, n_points=8, seed=0, speed=1):
    """Two waves that travel by `speed` points a frame, (n, n_frames, 1, n_points)."""
    random, at = np.random.default_rng(seed), 2 * np.pi * np.arange(n_points) / n_points
    phases, sizes = random.uniform(0, 7, (2, n, 2)), random.uniform(0.5, 1.5, (n, 2))
    moved = at - speed * at[1] * np.arange(n_frames)[:, None]
    parts = [sizes[:, k, None, None] * np.sin((k + 1) * moved + phases[0, :, k, None, None]) for k in range(2)]
    return sum(parts)[:, :, None] + 0.05 * random.normal(size=(n, n_frames, 1, n_points))


FIELDS = waves(6, 10)


@pytest.fixture(scope="module")
def holed_fields():
    return tiny_fields(n_lags=2, horizon=2, n_samples=5).fit(scattered(FIELDS, 0.5))


def test_fields_may_lack_half_of_their_sensors(holed_fields, tmp_path):
    encoder = holed_fields.fitted_.window_encoder
    assert encoder.n_columns == 2 + 2 + 2  # lags, their marks, those of targets
    holed = scattered(FIELDS, 0.5, 1)
    for X in (FIELDS, holed):
        assert np.isfinite(holed_fields.predict(X[:, -2:])).all()
        assert np.isfinite(holed_fields.rollout(X[:, -2:], 5, 2, random_state=0)).all()
        assert np.isfinite([holed_fields.score(X), holed_fields.crps(X), holed_fields.energy_score(X)]).all()
    with pytest.raises(ValueError, match="what is to be scored lacks values"):
        holed_fields.score_samples(holed)
    holed_fields.save(tmp_path / "f.safetensors")
    again = flowmatch.load(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(again.predict(holed[:, -2:]), holed_fields.predict(holed[:, -2:]))
    assert again.partial_fit(holed).n_iter_ == 2 * holed_fields.n_iter_


def test_students_of_fields_learn_from_whole_states(holed_fields):
    with pytest.raises(ValueError, match="a student of fields needs whole states"):
        DistilledFlowMap(holed_fields, max_iter=2, random_state=0).fit(scattered(FIELDS, 0.5))
    student = DistilledFlowMap(holed_fields, max_iter=2, random_state=0).fit(FIELDS)
    assert np.isfinite(student.predict(scattered(FIELDS, 0.5)[:, -2:])).all()


def test_unseen_targets_of_fields_do_not_count():
    """Neither the loss nor what is learned depends on what stands where a target is missing."""
    forecaster = tiny_fields().fit(scattered(FIELDS, 0.3))
    rows = training_windows_of(forecaster.fitted_, windows_like_fit(forecaster, scattered(FIELDS, 0.3), None))
    codes, context = rows.draw(torch.arange(20))
    absent = codes.isnan()
    assert 0.2 < absent.float().mean() < 0.4
    np.testing.assert_array_equal(context[:, -absent[0].numel() :].reshape(absent.shape), absent)
    seen = []

    def network(x, t, condition):
        seen.append(x)
        return torch.where(absent, 1e9, 0.0)  # however wrong it is there

    parts = LinearPath(), NormalSource(), IndependentCoupling(), UniformTimes()
    objective = VelocityObjective(*parts, source_scale=torch.ones(codes.shape[1:]), has_gaps=True)
    loss = objective(network, codes, context, torch.Generator().manual_seed(0))
    assert bool(loss.isfinite().all())
    assert float(loss.max()) < 100
    assert bool(seen[0].isfinite().all())


def test_a_model_of_whole_fields_refuses_gaps_by_position():
    forecaster = tiny_fields().fit(FIELDS)
    gap = FIELDS[:, -1].copy()
    gap[2, 0, 3] = NAN
    with pytest.raises(ValueError, match=r"X contains NaN: context 2, lag -1, position \(0, 3\) of the state"):
        forecaster.predict(gap)
    assert np.isfinite(
        tiny_fields().fit(scattered(FIELDS[:, 0], 0.2), scattered(FIELDS[:, 1], 0.2)).predict(FIELDS[:, 0])
    ).all()


# -- conditions of fields ---------------------------------------------------------------------------------------------

LABELS = {
    "labels": ["left"] * 3 + ["right"] * 3,
    "numbers": np.array([[100.0], [200], [200], [300], [400], [400]], dtype=np.float32),
    "mixed": pd.DataFrame({"kind": list("aabbab"), "Re": [100, 200, 150, 300, 400, 250]}),
}


@pytest.mark.parametrize("kind", LABELS)
def test_fields_may_be_conditioned(kind, tmp_path):
    y = LABELS[kind]
    one = y[:1]
    forecaster = tiny_fields(n_samples=5).fit(FIELDS, conditions=y)
    X = FIELDS[:, -1]
    found = forecaster.predict(X, conditions=y)
    np.testing.assert_allclose(forecaster.predict(X[:1], conditions=one), found[:1], rtol=1e-4)
    assert forecaster.rollout(X, 3, 2, random_state=0, conditions=y).shape == (2, 6, 3, 1, 8)
    assert forecaster.sample(X, 2, 0, conditions=y).shape == (2, 6, 1, 8)
    assert np.isfinite([forecaster.crps(FIELDS, conditions=y), forecaster.score(FIELDS, conditions=y)]).all()
    assert np.isfinite(forecaster.score_samples(FIELDS, conditions=y, n_steps=2, n_probes=1)).all()
    forecaster.save(tmp_path / "f.safetensors")
    np.testing.assert_array_equal(flowmatch.load(tmp_path / "f.safetensors").predict(X, conditions=y), found)
    assert forecaster.partial_fit(FIELDS, conditions=y).predict(X, conditions=y).shape == found.shape
    with pytest.raises(ValueError, match="conditions is missing"):
        forecaster.predict(X)
    with pytest.raises(ValueError, match="conditions"):
        forecaster.crps(FIELDS, conditions=y[:4])


def test_conditions_are_refused_where_they_have_no_meaning():
    with pytest.raises(ValueError, match="conditions are for fields: of tables and series, name columns"):
        tiny().fit(SERIES, conditions=["a"])
    with pytest.raises(ValueError, match="conditions was given, but the model was fitted without"):
        tiny_fields().fit(FIELDS).predict(FIELDS[:, -1], conditions=["a"] * 6)
    with pytest.raises(ValueError, match="expected labels"):
        tiny_fields().fit(FIELDS, conditions=FIELDS)
    with pytest.raises(ValueError, match="conditions contains NaN"):
        tiny_fields().fit(FIELDS, conditions=[1.0, NAN, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="conditions has shape .* 6 trajectories"):
        tiny_fields().fit(FIELDS, conditions=list("abc"))
    with pytest.raises(ValueError, match="conditions"):
        tiny_fields().fit(FIELDS, conditions=LABELS["labels"]).predict(FIELDS[:, -1], conditions="up")


def test_labels_tell_opposite_dynamics_apart():
    X = np.concatenate([waves(8, 8, speed=1), waves(8, 8, seed=1, speed=-1)])
    y = np.repeat(["right", "left"], 8)
    unet = UNet(width=8, multipliers=(1,), boundary="periodic", context_width=16)
    told = ConditionalForecaster(unet, max_iter=200, random_state=0, n_samples=8, n_steps=2).fit(
        X[2:-2], conditions=y[2:-2]
    )
    parts, labels = [X[:2], X[-2:]], ["right", "left"]
    own = [told.crps(part, conditions=label) for part, label in zip(parts, labels, strict=True)]
    other = [told.crps(part, conditions=label) for part, label in zip(parts, labels[::-1], strict=True)]
    assert max(own) < 0.5 * min(other), (own, other)


def test_students_of_conditioned_fields():
    forecaster = tiny_fields(n_samples=5).fit(FIELDS, conditions=LABELS["labels"])
    student = DistilledFlowMap(forecaster, max_iter=2, random_state=0).fit(FIELDS, conditions=LABELS["labels"])
    assert np.isfinite(student.predict(FIELDS[:, -1], conditions="left")).all()
    with pytest.raises(ValueError, match="conditions is missing"):
        DistilledFlowMap(forecaster, max_iter=2, random_state=0).fit(FIELDS)


# -- walls that differ by axis ----------------------------------------------------------------------------------------


def closed_along(boundaries, n=12, n_points=8, seed=0):
    """Fields (n, 3, 1, *grid) of two frames and more that go on across periodic axes and end at walls."""
    random = np.random.default_rng(seed)
    fields = np.ones((n, 3, 1, *[1] * len(boundaries)))
    for axis, boundary in enumerate(boundaries):
        phase = random.uniform(0, 2 * np.pi, (n, 1, 1, 1))
        turns = 1.0 if boundary == "periodic" else 0.4
        wave = 1.5 + np.sin(
            2 * np.pi * turns * np.arange(n_points) / n_points + (phase if turns == 1 else 0.1 * phase - 1.3)
        )
        fields = fields * wave.reshape(n, 1, 1, *[n_points if k == axis else 1 for k in range(len(boundaries))])
    return fields * random.uniform(0.9, 1.1, fields.shape[:3] + (1,) * len(boundaries))


AXES = [b for k in (1, 2, 3) for b in itertools.product(("periodic", "wall"), repeat=k)]


@pytest.mark.parametrize("boundaries", AXES)
def test_each_axis_is_found_to_be_periodic_or_not(boundaries):
    fields = closed_along(boundaries)
    assert find_boundaries(fields[:, 0]) == boundaries
    assert find_boundaries(scattered(fields[:, 0], 0.3)) == boundaries  # by what is there


@pytest.mark.parametrize("boundary", ["auto", ("wall", "periodic"), ("periodic", "wall")])
def test_each_axis_of_a_plane_has_its_own_walls(boundary):
    asked = ("wall", "periodic") if boundary == "auto" else boundary
    check_walls(closed_along(asked), boundary, asked)


@pytest.mark.parametrize("boundary", ["auto", ("periodic", "wall", "periodic")])
def test_each_axis_of_a_box_has_its_own_walls(boundary):
    asked = ("wall", "periodic", "periodic") if boundary == "auto" else boundary
    check_walls(closed_along(asked, n=4), boundary, asked)


def check_walls(fields, boundary, asked):
    """A network that has learned commutes with shifts along periodic axes, and along no other."""
    forecaster = tiny_fields(network="unet", boundary=boundary, max_iter=3, batch_size=4).fit(fields)
    assert forecaster.boundary_ == asked
    network, context = forecaster.network_, torch.as_tensor(fields[:2, 0], dtype=torch.float32)
    x, t = torch.randn(context.shape, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    with torch.no_grad():
        for axis, kind in enumerate(asked):
            half = context.shape[2 + axis] // 2  # as far as the coarsest grid goes
            moved = [part.roll(half, 2 + axis) for part in (x, context)]
            there = network(moved[0], t, moved[1].flatten(1)).roll(-half, 2 + axis)
            same = torch.allclose(there, network(x, t, context.flatten(1)), atol=1e-5)
            assert same == (kind == "periodic"), (axis, kind)
