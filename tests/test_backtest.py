"""Backtests: what they score, that nothing after an origin reaches its forecast, and that refits see the past alone."""

import numpy as np
import pandas as pd
import pytest
from exact_forecasts import tiny, tiny_fields
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from flowmatch import DistilledFlowMap, metrics
from flowmatch.networks import MLP

RNG = np.random.default_rng(0)
WALKS = RNG.normal(size=(3, 60, 2)).cumsum(axis=1)


def days(n=60, columns=("load", "wind"), seed=0):
    values = np.random.default_rng(seed).normal(size=(n, len(columns))).cumsum(axis=0)
    return pd.DataFrame(values, pd.date_range("2026-01-01", periods=n), list(columns))


@pytest.fixture(scope="module")
def forecaster():
    return tiny(n_lags=3, horizon=2).fit(WALKS)


def test_scores_are_those_of_the_forecasts_from_each_origin(forecaster):
    result = forecaster.backtest(WALKS, n_windows=4, step=3)
    assert result.origins.tolist() == [[series, origin] for origin in (49, 52, 55, 58) for series in range(3)]
    histories = [WALKS[series, :origin] for series, origin in result.origins]
    truth = np.stack([WALKS[series, origin : origin + 2] for series, origin in result.origins])
    np.testing.assert_array_equal(result.truth, truth)
    np.testing.assert_allclose(result.mean, forecaster.predict(histories))
    np.testing.assert_allclose([result.lower, result.upper], forecaster.predict_interval(histories))
    errors = result.mean - truth
    np.testing.assert_allclose(result.scores["mae"], np.abs(errors).mean(axis=0))
    np.testing.assert_allclose(result.scores["rmse"], np.sqrt((errors**2).mean(axis=0)))
    inside = (result.lower <= truth) & (truth <= result.upper)
    np.testing.assert_array_equal(result.scores["coverage"], inside.mean(axis=0))
    pairs = np.concatenate([histories[i][None, -3:] for i in range(12)])
    np.testing.assert_allclose(result.scores["crps"].mean(), forecaster.crps(pairs, truth))


def test_reference_is_persistence_or_the_last_season(forecaster):
    last = forecaster.backtest(WALKS, 4)
    for reference, (series, origin) in zip(last.reference, last.origins, strict=True):
        np.testing.assert_array_equal(reference, np.repeat(WALKS[series, origin - 1][None], 2, axis=0))
    longer, values = tiny(n_lags=3, horizon=5).fit(WALKS), WALKS[0]
    for season, rows in ((2, [-2, -1, -2, -1, -2]), (5, [-5, -4, -3, -2, -1]), (7, [-7, -6, -5, -4, -3])):
        result = longer.backtest(values, 1, season=season)
        np.testing.assert_array_equal(result.reference[0], values[55 + np.array(rows)])
        against = np.abs(result.reference - result.truth).mean(axis=0)
        np.testing.assert_allclose(result.scores["crps_skill"], 1 - result.scores["crps"] / against)


def test_a_perfect_reference_leaves_no_skill_to_speak_of():
    flat = np.column_stack([WALKS[0, :, 0], np.ones(60)])
    result = tiny(n_lags=3).fit(flat).backtest(flat, 5)
    assert np.isnan(result.scores["crps_skill"][:, 1]).all()
    assert np.isfinite(result.scores["crps_skill"][:, 0]).all()


@pytest.mark.parametrize("refit", [False, True])
def test_values_after_an_origin_do_not_change_its_forecast(refit):
    past, changed, known = days(seed=0), days(seed=0), tiny(n_lags=3, horizon=2)
    changed.iloc[56:] += 100.0
    changed.iloc[57:, 1] *= -3.0
    known = known if refit else known.fit(past[:50])
    before, after = known.backtest(past, 5, refit=refit, season=2), known.backtest(changed, 5, refit=refit, season=2)
    assert before.origins[:, 1].tolist() == [50, 52, 54, 56, 58]
    for name in ("mean", "lower", "upper", "reference"):
        np.testing.assert_array_equal(getattr(before, name)[:4], getattr(after, name)[:4])
        assert not np.array_equal(getattr(before, name)[4], getattr(after, name)[4])
    assert not np.array_equal(before.truth[3], after.truth[3])


def test_refits_see_what_precedes_their_origin_in_all_series():
    model = tiny(n_lags=3, network=MLP(width=8, depth=1), max_iter=10)
    series = [WALKS[0], WALKS[1, :50]]
    result = model.backtest(series, 2, refit=True)
    assert not hasattr(model, "fitted_")
    expected = [
        clone(model).fit([WALKS[0, : 58 + k], WALKS[1, : 48 + k]]).predict([WALKS[0, : 58 + k], WALKS[1, : 48 + k]])
        for k in range(2)
    ]
    np.testing.assert_allclose(result.mean[:, 0], np.concatenate(expected))
    seen = []
    result = model.backtest(series, 2, refit=lambda parts: seen.append([len(p) for p in parts]) or model.fit(parts))
    assert seen == [[58, 48], [59, 49]]


def test_columns_known_ahead_are_read_from_the_rows_to_come():
    series = days(columns=("price", "load"))
    model = tiny(n_lags=2, horizon=2, known_columns="price", max_iter=30).fit(series[:40])
    result = model.backtest(series, 1)
    expected = model.predict(series[:58], future=[series[["price"]][58:]])
    np.testing.assert_allclose(result.mean, expected)
    assert result.columns == ("load",)


def test_the_calendar_is_that_of_the_rows_to_come():
    series = days(n=70)
    model = tiny(n_lags=2, max_iter=30).fit(series)
    assert model.calendar_ == ("week",)
    np.testing.assert_allclose(
        model.backtest(series, 3).mean[:, 0], model.predict([series[:67], series[:68], series[:69]])
    )


def test_fields_are_averaged_over_their_points():
    fields = RNG.normal(size=(2, 12, 2, 8)).cumsum(axis=1)
    model = tiny_fields(horizon=2).fit(fields)
    result = model.backtest(fields, 2)
    assert result.scores["mae"].shape == (2, 2)
    np.testing.assert_allclose(result.scores["mae"], np.abs(result.mean - result.truth).mean(axis=(0, 3)))


def test_frames_and_text_tell_columns_and_lead_times():
    series = days()
    result = tiny(n_lags=3, horizon=2).fit(series).backtest(series, 5)
    frame = result.to_frame()
    assert frame.index.tolist() == [("load", 1), ("load", 2), ("wind", 1), ("wind", 2)]
    assert frame.loc[("wind", 2), "rmse"] == result.scores["rmse"][1, 1]
    first, names, load, wind = repr(result).splitlines()
    assert first == "5 forecasts of 2 steps; means over lead times"
    assert names.split() == ["column", *frame.columns]
    assert [load.split()[0], wind.split()[0]] == ["load", "wind"]
    assert float(load.split()[1]) == pytest.approx(result.scores["mae"][:, 0].mean(), rel=1e-3)


def test_crps_is_that_of_each_column_and_lead_time(forecaster):
    """Of draws with a spread of nothing it is the mean absolute error."""
    from exact_forecasts import deterministic

    model = deterministic(tiny_fields().fit(RNG.normal(size=(3, 12, 2, 4))), lambda lags: 0.5 * lags[:, 0] + 1)
    result = model.backtest(RNG.normal(size=(3, 12, 2, 4)), 4)
    np.testing.assert_allclose(result.scores["crps"], result.scores["mae"], rtol=1e-4)
    assert metrics.crps(result.truth, result.mean[None], fair=False) == pytest.approx(result.scores["mae"].mean())


def test_students_are_tested_and_fitted_again_with_their_teachers(forecaster):
    student = DistilledFlowMap(forecaster, max_iter=2, n_pairs=30, random_state=0).fit(WALKS)
    result = student.backtest(WALKS, 2)
    np.testing.assert_allclose(result.mean[:3], student.predict(WALKS[:, :56]))
    again = student.backtest(WALKS, 2, refit=True)
    np.testing.assert_allclose(again.mean[3:], clone(student).fit(WALKS[:, :58]).predict(WALKS[:, :58]))
    with pytest.raises(ValueError, match="frozen, and may know"):
        DistilledFlowMap(FrozenEstimator(forecaster), max_iter=2, n_pairs=30).fit(WALKS).backtest(WALKS, 2, refit=True)


def test_what_makes_no_sense_is_refused(forecaster):
    with pytest.raises(ValueError, match="series 1 of X has 19 rows, but 8 windows of 2 rows, 2 apart, .* take 21"):
        forecaster.backtest([WALKS[0], WALKS[1, :19]], 8, season=2)
    for name, value in (("n_windows", 0), ("step", 0), ("season", 0.5), ("coverage", 1.0)):
        with pytest.raises(ValueError, match=name):
            forecaster.backtest(WALKS, **{name: value})
    with pytest.raises(ValueError, match="needs ends beyond the outermost"):
        forecaster.backtest(WALKS, coverage=0.99)
