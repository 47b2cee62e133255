"""Missing values of forecasters: scattered in targets, in contexts, in fields; what is there is learned and scored."""

import warnings

import numpy as np
import pandas as pd
import pytest
from exact_forecasts import tiny

import flowmatch
from flowmatch import ConditionalForecaster, DistilledFlowMap
from flowmatch.forecasting.holes import crps_of_seen, determination_of_seen, energy_score_of_seen
from flowmatch.forecasting.ridge import penalty_of, ridge
from flowmatch.metrics import crps, energy_score
from flowmatch.preprocessing import fill_gaps, mean_of_seen

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
    import torch

    lags = torch.tensor([[[1.0, NAN], [NAN, NAN], [3.0, 5.0]], [[NAN, NAN], [2.0, NAN], [NAN, NAN]]])
    expected = [[[1.0, 5.0], [1.0, 5.0], [3.0, 5.0]], [[2.0, 9.0], [2.0, 9.0], [2.0, 9.0]]]
    np.testing.assert_array_equal(fill_gaps(lags, torch.tensor([7.0, 9.0])), expected)


@pytest.mark.parametrize("grid", [(9,), (6, 9), (4, 5, 6)])
def test_points_of_fields_are_filled_by_neighbors(grid):
    import torch

    field = torch.as_tensor(np.add.outer(np.zeros(grid[:-1]), np.arange(9.0)[: grid[-1]]))[None, None, None]
    at = (0, 0, 0, *[2] * len(grid))
    holed = field.clone()
    holed[at] = NAN
    assert fill_gaps(holed)[at] == pytest.approx(2.0)
    assert bool((fill_gaps(holed) == field)[~holed.isnan()].all())
    assert bool((fill_gaps(torch.full_like(field, NAN), 3.0) == 3.0).all())


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
        assert determination_of_seen(np.vstack([truth, truth * NAN]), np.vstack([members[0]] * 2), None, kind) == pytest.approx(known)
    assert np.isnan(determination_of_seen(truth * NAN, members[0], None, "uniform_average"))


# -- tables -----------------------------------------------------------------------------------------------------------


def joint(X, y, **parameters):
    return ConditionalForecaster(max_iter=300, random_state=0, **parameters).fit(X, y)


def test_targets_of_tables_may_lack_entries_and_stay_joint():
    """Each target is learned from the rows that have it, and both together from those that have both."""
    with pytest.warns(UserWarning, match=r"\d+ of 200 windows lack values: all to forecast.*They are left out\."):
        holed = joint(X_TABLE[:200], scattered(Y_TABLE, 0.3)[:200])
    whole = joint(X_TABLE[:200], Y_TABLE[:200])
    test = X_TABLE[200:], Y_TABLE[200:]
    assert holed.crps(*test) < 1.1 * whole.crps(*test)
    draws = holed.sample(X_TABLE[200:], 100, 0) - X_TABLE[200:, :2]
    assert np.mean([np.corrcoef(draws[:, i].T)[0, 1] for i in range(100)]) == pytest.approx(0.91, abs=0.12)  # of the noise
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
