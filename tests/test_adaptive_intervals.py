"""Adaptive conformal intervals: their share of misses has a bound for any sequence of outcomes whatever."""

import numpy as np
import pytest
from exact_forecasts import tiny

import flowmatch
from flowmatch.forecasting.adaptive import adaptive_shares, adaptive_threshold, order_of_time

T = 400
RNG = np.random.default_rng(0)
SEQUENCES = {
    "exchangeable": RNG.gamma(1.0, size=T),
    "ever larger": np.arange(T, dtype=float),
    "ever smaller": np.arange(T, dtype=float)[::-1],
    "equal": np.ones(T),
    "a change": np.concatenate([RNG.random(T // 2), 10 + RNG.random(T // 2)]),
    "in turns": np.tile([0.0, 9.0, 1.0, 1.0], T // 4),
}


@pytest.mark.parametrize("coverage", [0.5, 0.9])
@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("name", SEQUENCES)
def test_the_share_of_misses_is_within_the_bound_at_every_time(name, rate, coverage):
    scores, aim = SEQUENCES[name][:, None], 1 - coverage
    shares, missed = adaptive_shares(scores, coverage, rate)
    times = np.arange(1, T + 1)
    errors = np.abs(missed[:, 0].cumsum() / times - aim)
    assert (errors <= (max(aim, 1 - aim) + rate) / (rate * times) + 1e-12).all()
    assert (shares >= -rate).all()
    assert (shares <= 1 + rate).all()
    # and exactly: the update sums to what the shares have moved by (Gibbs and Candes, 2021, proof of Prop. 4.1)
    np.testing.assert_allclose(shares[-1] - aim, rate * (aim - missed[:, 0]).sum(), atol=1e-9)


def test_an_adversary_who_knows_the_interval_cannot_break_the_bound():
    scores, rate, aim = np.empty((0, 1)), 0.1, 0.1
    for _ in range(200):  # just outside of the interval as long as there is an outside
        threshold = adaptive_threshold(scores, 1 - aim, rate)
        scores = np.concatenate([scores, np.where(np.isfinite(threshold), threshold + 1, 0.0)[None]])
    missed = adaptive_shares(scores, 1 - aim, rate)[1]
    assert abs(missed.mean() - aim) <= (1 - aim + rate) / (rate * 200)


def test_what_is_missed_lies_beyond_the_threshold_before_it():
    scores = RNG.gamma(1.0, size=(60, 3)).round(1)  # with ties
    missed = adaptive_shares(scores, 0.8)[1]
    for t in range(1, 60):
        np.testing.assert_array_equal(missed[t], scores[t] > adaptive_threshold(scores[:t], 0.8))


def test_nothing_known_means_the_interval_of_calibrated_draws():
    np.testing.assert_array_equal(adaptive_threshold(np.empty((0, 2)), 0.9), [0.45, 0.45])


# -- forecasters ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def series():
    """Noise that becomes four times as strong."""
    strength = np.where(np.arange(700) < 350, 1.0, 4.0)
    return (strength * np.random.default_rng(1).normal(size=700))[:, None]


@pytest.fixture(scope="module")
def forecaster(series):
    return tiny(n_lags=2, horizon=2).fit([series[:200]]).calibrate([series[200:300]])


def test_updates_continue_the_scores_of_calibrate(forecaster, series, tmp_path):
    before, context = forecaster.fitted_, series[298:300][None]
    try:
        known = len(before.conformal.scores)
        narrow = forecaster.predict_interval(context, method="adaptive")
        forecaster.update([series[300:500]])
        assert len(forecaster.fitted_.conformal.scores) == known + 200 - 3
        wide = forecaster.predict_interval(context, method="adaptive")
        assert (wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])).all()
        forecaster.save(tmp_path / "updated.safetensors")
        again = flowmatch.load(tmp_path / "updated.safetensors")
        np.testing.assert_array_equal(again.predict_interval(context, method="adaptive"), wide)
    finally:
        forecaster.fitted_ = before


def test_backtests_adapt_to_a_change(forecaster, series):
    backtest = {way: forecaster.backtest([series], n_windows=150, method=way) for way in ("ensemble", "adaptive")}
    late = {way: inside(found)[-60:].mean() for way, found in backtest.items()}
    assert late["adaptive"] == pytest.approx(0.9, abs=0.05)
    assert late["ensemble"] < 0.8
    np.testing.assert_array_equal(backtest["adaptive"].mean, backtest["ensemble"].mean)


def test_a_backtest_reads_no_outcome_of_its_origin_or_later(forecaster, series):
    """Overlapping windows: the last origins are known in part only, and are not looked at."""
    changed = series.copy()
    changed[-3:] *= 100
    found = [forecaster.backtest([part], n_windows=20, step=1, method="adaptive") for part in (series, changed)]
    for end in ("lower", "upper"):
        np.testing.assert_array_equal(getattr(found[0], end)[:-1], getattr(found[1], end)[:-1])


def inside(found):
    return (found.lower <= found.truth) & (found.truth <= found.upper)


def test_series_that_end_together_are_taken_in_order_of_time(forecaster, series):
    windows = flowmatch.forecasting.windows_like_fit(forecaster, [series[:6], series[:8]], None)
    order = order_of_time(windows)
    assert windows.groups[order].tolist() == [1, 1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("call", ["interval", "update"])
def test_scores_in_order_are_asked_for(call, series):
    X = np.random.default_rng(0).normal(size=(30, 2))
    asks = {"interval": lambda f: f.predict_interval(X, method="adaptive"), "update": lambda f: f.update(X, X[:, 0])}
    forecaster = tiny().fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"call calibrate\(X, y\)"):
        asks[call](forecaster)
    forecaster.calibrate(X, X[:, 0], cv=2)
    with pytest.raises(ValueError, match="without cv"):
        asks[call](forecaster)
