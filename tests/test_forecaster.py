"""ConditionalForecaster: what it forecasts, in which shapes, and laws that its draws and rollouts must obey."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from exact_forecasts import deterministic, follow_rule, tiny, tiny_fields
from scipy.stats import norm
from sklearn.base import clone, is_regressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flowmatch
from flowmatch import DistilledFlowMap, TrainingOptions, metrics
from flowmatch.forecasting import Ensemble
from flowmatch.forecasting.window_data import WindowRows
from flowmatch.model import Integration
from flowmatch.networks import MLP, UNet

RNG = np.random.default_rng(0)
SERIES = RNG.normal(size=(6, 15, 2)).cumsum(axis=1)
FIELDS = 3.0 + RNG.normal(size=(4, 10, 2, 8))
MIDPOINT = Integration("midpoint", 2)
X_TABLE, Y_TABLE = RNG.normal(size=(60, 3)), RNG.normal(size=(60, 2))


def days(n=40, columns="abc", seed=0, start="2021-03-01"):
    values = np.random.default_rng(seed).normal(size=(n, len(columns)))
    return pd.DataFrame(values, columns=list(columns), index=pd.date_range(start, periods=n))


@pytest.fixture(scope="module")
def series():
    return tiny().fit(SERIES)


@pytest.fixture(scope="module")
def fields():
    return tiny_fields().fit(FIELDS)


@pytest.fixture(scope="module")
def table():
    return tiny().fit(X_TABLE, Y_TABLE)


@pytest.fixture(scope="module")
def student(series):
    return DistilledFlowMap(series, max_iter=2, n_pairs=30, random_state=0).fit(SERIES)


def autoregressive(**changes):
    """Fields of four points, each with a law of its own, which `follow_rule` tells."""
    return tiny_fields(**changes).fit(2.0 + np.random.default_rng(0).normal(size=(5, 10, 1, 4)))


# -- shapes ---------------------------------------------------------------------------------------------------------

SHAPES = {
    "table": (lambda: tiny().fit(X_TABLE, Y_TABLE), X_TABLE[:5], (2,)),
    "one target": (lambda: tiny().fit(X_TABLE, Y_TABLE[:, 0]), X_TABLE[:5], ()),
    "pairs of two steps": (lambda: tiny(horizon=2).fit(X_TABLE, np.stack([Y_TABLE] * 2, 1)), X_TABLE[:5], (2, 2)),
    "pairs of one variable": (lambda: tiny(n_lags=15).fit(SERIES, SERIES[:, 0, 0]), SERIES[:5], ()),
    "pairs of fields": (lambda: tiny_fields().fit(list(FIELDS[0]), list(FIELDS[1, :, :1])), FIELDS[2, :5], (1, 8)),
    "series": (lambda: tiny().fit(SERIES), SERIES[:5, 3], (2,)),
    "windows": (lambda: tiny(n_lags=3, horizon=2).fit(SERIES), SERIES[:5, :3], (2, 2)),
    "fields": (lambda: tiny_fields().fit(FIELDS), FIELDS[2, :5], (2, 8)),
    "windows of fields": (lambda: tiny_fields(n_lags=2, horizon=3).fit(FIELDS), np.stack([FIELDS[:2, 1]] * 2, 1), (3, 2, 8)),
    "planes": (lambda: tiny_fields().fit(np.random.default_rng(0).normal(size=(2, 6, 1, 4, 4))), np.random.default_rng(0).normal(size=(3, 1, 4, 4)), (1, 4, 4)),
    "exogenous": (lambda: tiny(exogenous_columns=0).fit(SERIES), SERIES[:5, 0], (1,)),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_every_method_gives_the_shape_it_promises(case):
    fit, contexts, shape = SHAPES[case]
    forecaster, n = fit(), len(contexts)
    assert forecaster.sample_shape_ == shape
    assert forecaster.predict(contexts).shape == (n, *shape)
    assert forecaster.sample(contexts, 3, random_state=0).shape == (3, n, *shape)
    assert forecaster.predict_quantiles(contexts, (0.1, 0.5)).shape == (2, n, *shape)
    assert forecaster.predict_interval(contexts).shape == (2, n, *shape)


def test_single_precision_stays_single():
    forecaster = tiny_fields().fit(FIELDS.astype(np.float32))
    assert forecaster.predict(FIELDS[0]).dtype == np.float32
    assert forecaster.rollout(FIELDS[0], 2).dtype == np.float32


def test_histories_and_arrays_of_their_ends_are_one_thing():
    forecaster = tiny(n_lags=3).fit(SERIES)
    expected = forecaster.predict(SERIES[:, -3:])
    np.testing.assert_array_equal(forecaster.predict(list(SERIES)), expected)
    np.testing.assert_array_equal(forecaster.predict(SERIES), expected)
    np.testing.assert_array_equal(forecaster.predict([SERIES[0, 2:], *SERIES[1:]]), expected)
    np.testing.assert_array_equal(forecaster.predict(pd.DataFrame(SERIES[0])), expected[:1])
    np.testing.assert_array_equal(forecaster.predict(torch.tensor(SERIES).requires_grad_()), expected)


def test_contexts_of_one_variable_need_no_axis_for_it_as_in_fit():
    walks = SERIES[:, :, 0]
    forecaster = tiny(n_lags=3).fit(list(walks))
    expected = forecaster.predict(walks[:, -3:, None])
    for contexts in (walks[:, -3:], list(walks), [walks[0, 5:], *walks[1:]], list(walks[..., None])):
        np.testing.assert_array_equal(forecaster.predict(contexts), expected)
    for history in (walks[0], walks[0].tolist(), pd.Series(walks[0])):
        np.testing.assert_array_equal(forecaster.predict(history), expected[:1])


# -- laws of the draws ------------------------------------------------------------------------------------------------


def test_one_euler_step_from_noise_gives_the_conditional_mean_and_no_spread():
    forecaster = follow_rule(autoregressive(), lambda lags: 0.8 * lags[:, 0] + 0.3, 0.5)
    contexts = 2.0 + np.random.default_rng(0).normal(size=(3, 1, 4))
    drawn = forecaster.sample(contexts, 40, random_state=0, solver="euler", n_steps=1)
    np.testing.assert_allclose(drawn, np.broadcast_to(0.8 * contexts + 0.3, drawn.shape), rtol=0, atol=2e-6)
    more = forecaster.sample(contexts, 40, random_state=0, solver="euler", n_steps=2)
    assert more.std(axis=0).min() > 0.1


@pytest.mark.parametrize("n_samples", [19, 20])
def test_draws_behind_predictions_are_even(n_samples):
    """Of a normal law the mean is exact whatever the number of draws; tables get the quantiles k / (n + 1) of noise."""
    forecaster = follow_rule(autoregressive(), lambda lags: 0.8 * lags[:, 0] + 0.3, 0.5)
    forecaster.set_params(n_samples=n_samples, solver="rk4", n_steps=20)
    X = 2.0 + np.random.default_rng(0).normal(size=(3, 1, 4))
    np.testing.assert_allclose(forecaster.predict(X), 0.8 * X + 0.3, atol=1e-5)
    table = tiny().fit(X_TABLE, Y_TABLE).set_params(source="matched")  # frozen: the fitted source counts
    noise = (
        Ensemble(table.fitted_, MIDPOINT).paired_noise(n_samples, torch.Generator().manual_seed(0)).sort(dim=0).values
    )
    expected = norm.ppf(np.arange(1, n_samples + 1) / (n_samples + 1))
    noise /= table.model_.source.scale
    np.testing.assert_allclose(noise, np.broadcast_to(expected[:, None], noise.shape), atol=1e-5)


def test_draws_behind_predictions_of_fields_spread_as_far_as_the_normal_law(fields):
    """Numbers of smooth fields add up the noise of many points, so its variance must be 1."""
    ensemble = Ensemble(fields.fitted_, MIDPOINT)
    noise = torch.stack([ensemble.paired_noise(20, torch.Generator().manual_seed(seed)) for seed in range(40)])
    assert float(noise.square().mean()) == pytest.approx(1.0, abs=4 * np.sqrt(2 / (noise.numel() / 2)))


@pytest.mark.parametrize(("solver", "n_steps", "kept"), [("euler", 10, 0.87898), ("midpoint", 5, 0.99890)])
def test_solvers_keep_as_much_spread_as_is_known_of_them(solver, n_steps, kept):
    """Residuals as wide as the source: each solver multiplies the noise by a known factor."""
    forecaster = follow_rule(autoregressive(), lambda lags: 0.8 * lags[:, 0] + 0.3)
    units = float(forecaster.preprocessing_.scale_[0] * forecaster.model_.conditions.target_scale[0])
    contexts = np.full((1, 1, 4), 2.0)
    drawn = forecaster.sample(contexts, 5000, random_state=0, solver=solver, n_steps=n_steps)
    assert np.std(drawn / units, ddof=1) == pytest.approx(kept, abs=4 * kept / np.sqrt(2 * drawn.size))
    exact = forecaster.sample(contexts, 5000, random_state=0, solver="rk4", n_steps=20)
    slope = np.sum((drawn - 1.9) * (exact - 1.9)) / np.sum((exact - 1.9) ** 2)
    assert slope == pytest.approx(kept, abs=1e-4)


def test_members_of_a_rollout_follow_the_law_at_every_lead_each_on_its_own():
    """AR(1): after h steps the mean is ``a^h x + c (1 - a^h) / (1 - a)``, the variance ``s^2 (1 - a^2h) / (1 - a^2)``."""
    forecaster = follow_rule(autoregressive(), lambda lags: 0.8 * lags[:, 0] + 0.3, 0.5).set_params(n_steps=6)
    start, n = np.array([[[0.0, 1.0, 2.0, 3.0]], [[1.0, 1.0, 1.0, 1.0]]]), 1500
    states = forecaster.rollout(start, 5, n, random_state=0)[:, :, :, 0]
    for lead in range(1, 6):
        mean = 0.8**lead * start[:, 0] + 0.3 * (1 - 0.8**lead) / 0.2
        std = 0.5 * np.sqrt((1 - 0.8 ** (2 * lead)) / (1 - 0.8**2))
        drawn = states[:, :, lead - 1]
        np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4.5 * std / np.sqrt(n))
        np.testing.assert_allclose(drawn.std(axis=0), std, rtol=4.5 / np.sqrt(2 * n) + 1e-3)
    noise = (states[:, :, 1:] - 0.8 * states[:, :, :-1] - 0.3).transpose(1, 2, 3, 0).reshape(-1, n)  # each step's own
    correlations = np.corrcoef(noise)[~np.eye(len(noise), dtype=bool)]
    assert np.abs(correlations).max() < 5.0 / np.sqrt(n)


def test_the_mean_the_quantiles_and_the_intervals_are_of_one_set_of_draws(series):
    X, n = SERIES[:3, 4], series.n_samples
    draws = series.predict_quantiles(X, np.arange(1, n + 1) / (n + 1))  # at these levels, the ordered draws themselves
    np.testing.assert_allclose(series.predict(X), draws.mean(axis=0), rtol=1e-6, atol=1e-9)
    for coverage in (0.5, 0.9):
        expected = np.quantile(draws, [0.5 - coverage / 2, 0.5 + coverage / 2], axis=0, method="weibull")
        np.testing.assert_allclose(series.predict_interval(X, coverage), expected, rtol=1e-9)
    wide = series.predict_quantiles(X, (0.0, 1.0))
    np.testing.assert_allclose(wide, draws[[0, -1]], rtol=1e-9)


def test_predictions_are_the_same_at_every_call_and_for_rows_in_any_company(series, fields):
    order = [3, 0, 2]
    for forecaster, X in ((series, SERIES[:, 4]), (fields, FIELDS[:, 4])):
        for method, part in ((forecaster.predict, order), (forecaster.predict_interval, (slice(None), order))):
            together = method(X)
            np.testing.assert_array_equal(method(X), together)
            np.testing.assert_allclose(method(X[order]), together[part], rtol=1e-5, atol=1e-6)


def test_intervals_cover_as_often_as_they_promise():
    """The truth is normal, and so are the draws: their order statistics divide it into equal shares."""
    forecaster = follow_rule(
        tiny_fields(n_samples=50, n_steps=8).fit(np.random.default_rng(0).normal(size=(3, 6, 1, 256))),
        lambda lags: 0.5 * lags[:, 0],
        0.7,
    )
    X = np.random.default_rng(0).normal(size=(2, 1, 256))
    for coverage in (0.5, 0.9):
        low, high = (norm.cdf((edge - 0.5 * X) / 0.7) for edge in forecaster.predict_interval(X, coverage))
        # each point's share varies as a beta variable; pairs of opposite draws count once
        assert (high - low).mean() == pytest.approx(coverage, abs=4 * np.sqrt(coverage * (1 - coverage) / 26 / 256))


def test_scores_are_those_of_the_metrics(series):
    X, y = SERIES[:, :-1].reshape(-1, 2), SERIES[:, 1:].reshape(-1, 2)
    assert series.score(SERIES) == pytest.approx(r2_score(y, series.predict(X), multioutput="variance_weighted"))
    weight = np.arange(len(X)) % 3
    expected = r2_score(y, series.predict(X), sample_weight=weight, multioutput="variance_weighted")
    assert series.score(SERIES, sample_weight=weight) == pytest.approx(expected)
    members = series.sample(X, series.n_samples, random_state=0)
    assert series.crps(SERIES) == pytest.approx(metrics.crps(y, members), rel=1e-5)
    assert series.energy_score(SERIES) == pytest.approx(metrics.energy_score(y, members), rel=1e-5)
    assert series.crps(X, y) == pytest.approx(series.crps(SERIES))


def test_tables_are_scored_like_any_regressor(table):
    assert table.score(X_TABLE, Y_TABLE) == pytest.approx(r2_score(Y_TABLE, table.predict(X_TABLE)))


# -- rollouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_lags", "horizon", "n_steps"), [(1, 1, 4), (3, 1, 4), (1, 3, 7), (2, 3, 4), (4, 2, 7)])
def test_rollouts_of_a_known_rule_are_what_a_loop_makes(n_lags, horizon, n_steps):
    """Each state is half the last one, plus a tenth of the first in the window and the number of the step."""

    def rule(lags):
        return torch.cat([0.5 * lags[:, -1] + 0.1 * lags[:, 0] + 0.01 * step for step in range(horizon)], dim=1)

    forecaster = deterministic(tiny_fields(n_lags=n_lags, horizon=horizon).fit(FIELDS), rule)
    context = FIELDS[:3, :n_lags]
    states = torch.as_tensor(context)
    while states.shape[1] < n_lags + n_steps:
        states = torch.cat([states, rule(states[:, -n_lags:]).unflatten(1, (horizon, 2))], dim=1)
    expected = states[:, n_lags : n_lags + n_steps].numpy()
    found = forecaster.rollout(context[:, 0] if n_lags == 1 else context, n_steps, 2, random_state=0)
    assert found.shape == (2, 3, n_steps, 2, 8)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-4, atol=1e-5)


def test_series_of_any_scale_are_carried_on_in_their_own_units():
    """A rotation about a far point, which the regression knows exactly."""
    angles = 0.3 * np.arange(40) + np.arange(8)[:, None]
    circles = np.stack([100 + 5 * np.cos(angles), -3000 + 700 * np.sin(angles)], axis=-1)
    for n_lags, horizon in ((1, 1), (2, 3)):
        forecaster = tiny(n_lags=n_lags, horizon=horizon).fit(circles[:, :30])
        found = forecaster.rollout([circle[:30] for circle in circles], 10, random_state=0)[0]
        np.testing.assert_allclose((found - circles[:, 30:]) / [5, 700], 0.0, atol=0.03)


def test_small_changes_of_large_values_are_not_rounded_away():
    y = 10 * X_TABLE[:, 0]
    near, far = (tiny(target="residual").fit(X_TABLE, y + offset).predict(X_TABLE) - offset for offset in (0, 1e9))
    np.testing.assert_allclose(far, near, atol=1e-3)


def test_the_first_states_of_a_rollout_are_a_sample(series):
    X, far = SERIES[:, -1], 5e4 + SERIES
    np.testing.assert_array_equal(series.rollout(X, 1, 3, random_state=0)[:, :, 0], series.sample(X, 3, random_state=0))
    for forecaster, contexts in (
        (tiny(exogenous_columns=1, horizon=2).fit(far), far[:, -1]),
        (tiny(horizon=2).fit(far[:, 0], far[:, 1:3, :1]), far[:, 0]),
    ):
        drawn = forecaster.sample(contexts, 3, random_state=0)
        np.testing.assert_array_equal(forecaster.rollout(contexts, 2, 3, random_state=0), drawn)
    again = series.rollout(X, 4, 3, random_state=0)
    np.testing.assert_array_equal(series.rollout(X, 4, 3, random_state=0), again)
    assert not np.array_equal(series.rollout(X, 4, 3, random_state=1), again)


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_rollout_that_diverges_names_the_step_and_keeps_what_was_finite(horizon):
    forecaster = deterministic(
        autoregressive(horizon=horizon),
        lambda lags: torch.cat([40.0 ** (step + 1) * lags[:, 0] for step in range(horizon)], dim=1),
    )
    start = np.array([[[1.0] * 4], [[0.0] * 4]])
    with pytest.warns(UserWarning, match=r"the rollout diverged: 2 of 4 trajectories .* at step 2 of 5"):
        states = forecaster.rollout(start, 5, 2, random_state=0)
    np.testing.assert_allclose(states[:, 0, 0], 40.0, rtol=1e-4)
    assert np.isnan(states[:, 0, 1:]).all()
    assert np.isfinite(states[:, 1]).all()  # others go on


def test_a_model_that_gives_nan_is_called_diverged_at_once():
    forecaster = deterministic(autoregressive(), lambda lags: np.nan * lags[:, 0])
    with pytest.warns(UserWarning, match=r"diverged: 1 of 1 .* at step 1 of 3"):
        assert np.isnan(forecaster.rollout(np.zeros((1, 1, 4)), 3)).all()


# -- columns that are known ahead, and the calendar -------------------------------------------------------------------


def test_what_is_known_ahead_has_its_say_at_its_own_step():
    frame = days().assign(a=lambda f: f["c"])  # a is c of the same day
    forecaster = tiny(known_columns="c", exogenous_columns=None, calendar=None, target="residual").fit(frame)
    history, future = frame[:-4], frame[["c"]][-4:]
    found = forecaster.rollout(history, 4, 20, random_state=0, future=future)
    assert found.shape == (20, 1, 4, 2)
    np.testing.assert_allclose(found[:, 0, :, 0].mean(axis=0), future["c"], atol=0.2)
    for given in ([future], [future.assign(b=0.0)[["b", "c"]]], future.to_numpy()[None]):
        np.testing.assert_array_equal(forecaster.rollout(history, 4, 20, random_state=0, future=given), found)
    later = future.copy()
    later.iloc[2] += 1.0
    changed = forecaster.rollout(history, 4, 20, random_state=0, future=later) != found
    assert changed[:, 0].any(axis=(0, 2)).tolist() == [False, False, True, True]


def test_forecasts_of_histories_know_the_next_instant():
    """A series that is the day of the week, seen without the last state: only the calendar can tell."""
    frame = days(140, "a")
    frame["a"] = np.sin(2 * np.pi * frame.index.day_of_week / 7) + 1e-3 * frame["a"]
    forecaster = tiny(target="residual").fit(frame)
    assert forecaster.calendar_ == ("week",)
    truth = np.sin(2 * np.pi * np.arange(14) / 7)  # 2021-03-01 was a Monday
    histories = [frame[: n + 7] for n in range(14)]
    np.testing.assert_allclose(forecaster.predict(histories)[:, 0], truth, atol=0.02)
    np.testing.assert_allclose(forecaster.rollout(frame[:7], 14, random_state=0)[0, 0, :, 0], truth, atol=0.04)
    blocks = clone(forecaster).set_params(horizon=3).fit(frame)
    np.testing.assert_allclose(blocks.rollout(frame[:7], 14, random_state=0)[0, 0, :, 0], truth, atol=0.06)


def test_pandas_names_are_remembered():
    forecaster = tiny(calendar=None).fit([days(), days(20, seed=1)])
    assert forecaster.feature_names_in_.tolist() == ["a", "b", "c"]
    assert forecaster.n_features_in_ == 3
    assert not hasattr(tiny().fit(SERIES), "feature_names_in_")


# -- fits -------------------------------------------------------------------------------------------------------------


def test_a_warm_start_goes_on():
    forecaster = tiny(warm_start=True).fit(SERIES)
    forecaster.fit(SERIES[:3])
    assert forecaster.n_iter_ == 4


@pytest.mark.parametrize(("make", "data", "more"), [
    (tiny, (SERIES,), (2 * SERIES[:3],)),
    (tiny_fields, (FIELDS,), (FIELDS[:2],)),
    (tiny, (X_TABLE, Y_TABLE), (X_TABLE[:20], 3 * Y_TABLE[:20])),
], ids=["series", "fields", "table"])  # fmt: skip
def test_a_partial_fit_is_a_fit_at_first_and_then_goes_on(make, data, more):
    """As a warm start does: from the weights, scales and base that there are."""
    on, warm = make().partial_fit(*data), make(warm_start=True).fit(*data)
    contexts = data[0] if len(data) == 2 else data[0][:, 0]
    np.testing.assert_array_equal(on.predict(contexts), make().fit(*data).predict(contexts))
    first, base = on.predict(contexts), on.model_.conditions.weights
    on.partial_fit(*more)
    assert on.n_iter_ == 4
    np.testing.assert_array_equal(on.predict(contexts), warm.fit(*more).predict(contexts))
    assert not np.array_equal(on.predict(contexts), first)
    np.testing.assert_array_equal(on.model_.conditions.weights, base)


def test_a_partial_fit_to_one_window_is_refused(table, series):
    for forecaster, data in ((table, (X_TABLE[:1], Y_TABLE[:1])), (series, (SERIES[:1, :2],))):
        before = forecaster.network_
        with pytest.raises(ValueError, match=r"1 sample\(s\).* minimum of 2"):
            forecaster.partial_fit(*data)
        assert forecaster.network_ is before


def test_one_row_of_a_table_has_scores(table):
    assert np.isfinite(table.crps(X_TABLE[:1], Y_TABLE[:1]))


def test_early_stopping_holds_whole_trajectories_out(monkeypatch):
    seen, split = [], WindowRows.split

    def spy(self, *arguments):
        seen.append(split(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(WindowRows, "split", spy)
    options = TrainingOptions(early_stopping=True, validation_fraction=0.3)
    tiny(training=options).fit(SERIES)
    kept, held_out = seen[0]
    assert set(kept.groups.tolist()) | set(held_out.groups.tolist()) == set(range(6))
    assert not set(kept.groups.tolist()) & set(held_out.groups.tolist())
    assert len(held_out) == 2 * 14


def test_noise_on_contexts_changes_what_is_learned():
    for make, data in ((tiny, SERIES), (tiny_fields, FIELDS)):
        losses = [make(context_noise=noise).fit(data).history_["loss"][-1] for noise in (0.0, 0.5)]
        assert np.isfinite(losses).all()
        assert losses[0] != losses[1]


# -- scikit-learn -----------------------------------------------------------------------------------------------------


def test_trajectories_and_pairs_are_cross_validated():
    assert np.isfinite(cross_val_score(tiny(), SERIES, cv=2)).all()
    assert np.isfinite(cross_val_score(tiny(), [*SERIES[:3], SERIES[3, :9]], cv=2)).all()
    assert np.isfinite(cross_val_score(tiny(), X_TABLE, Y_TABLE, cv=2)).all()


def test_lags_and_parameters_of_networks_are_searched():
    search = GridSearchCV(tiny(), {"n_lags": [1, 2], "network__width": [4, 8]}, cv=2).fit(SERIES)
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.network.width == search.best_params_["network__width"]


def test_tables_go_through_a_pipeline():
    model = make_pipeline(StandardScaler(), tiny()).fit(X_TABLE, Y_TABLE)
    assert is_regressor(model)
    assert model.predict(X_TABLE).shape == Y_TABLE.shape


# -- students ---------------------------------------------------------------------------------------------------------


def test_a_student_offers_what_its_teacher_does(student, series):
    X = SERIES[:, -1]
    assert is_regressor(student)
    assert student.state_shape_ == (2,)
    assert student.predict(X).shape == (6, 2)
    assert student.sample(X, 3, random_state=0).shape == (3, 6, 2)
    assert student.rollout(X, 4, 3, random_state=0).shape == (3, 6, 4, 2)
    assert np.isfinite([student.score(SERIES), student.crps(SERIES), student.energy_score(SERIES)]).all()
    low, high = student.predict_interval(X)
    assert (low <= high).all()
    assert not hasattr(student, "encode")
    np.testing.assert_array_equal(student.predict(X), student.as_teacher().predict(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.array_equal(student.predict(X), series.predict(X))


def test_a_student_makes_as_many_evaluations_as_it_says(student):
    calls = []
    handle = student.network_.register_forward_hook(lambda *_: calls.append(1))
    student.sample(SERIES[:, -1], 2)
    assert len(calls) == 1
    student.sample(SERIES[:, -1], 2, n_steps=3)
    assert len(calls) == 4
    student.rollout(SERIES[:, -1], 5)
    assert len(calls) == 9
    handle.remove()


def test_students_are_cross_validated():
    model = DistilledFlowMap(tiny(), max_iter=1, n_pairs=10, random_state=0)
    assert np.isfinite(cross_val_score(model, SERIES, cv=2)).all()
    assert np.isfinite(cross_val_score(model, X_TABLE, Y_TABLE, cv=2)).all()


def test_a_student_is_distilled_from_other_trajectories_than_its_teacher(series):
    other = DistilledFlowMap(series, "lagrangian", max_iter=1, random_state=0).fit([SERIES[0], SERIES[1, :8]])
    assert other.predict(SERIES[:, 0]).shape == (6, 2)
    assert other.teacher_ is series


def test_networks_are_chosen_by_the_kind_of_data():
    assert "UNet" in type(tiny(network="auto", max_iter=1).fit(FIELDS[:2]).network_).__name__
    assert isinstance(tiny(network="auto").fit(SERIES).model_.blueprint.factory, MLP)


def test_u_nets_of_fields_that_are_chosen_by_name_have_a_gain_also_in_students_and_files(tmp_path):
    field = FIELDS[:2]
    forecasters = [tiny(network=network, max_iter=1).fit(field) for network in ("auto", "unet", UNet(width=4))]
    assert [forecaster.network_.gain for forecaster in forecasters] == [True, True, False]
    student = DistilledFlowMap(forecasters[0], max_iter=1, random_state=0).fit(field)
    student.save(tmp_path / "student.safetensors")
    loaded = flowmatch.load(tmp_path / "student.safetensors", device="cpu")
    assert loaded.network_.gain
    np.testing.assert_array_equal(loaded.predict(field[:, 0]), student.predict(field[:, 0]))
