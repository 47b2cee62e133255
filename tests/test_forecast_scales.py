"""What a forecaster learns of series: unlike levels, drifting columns, grids, bounds and certain values."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from exact_forecasts import tiny

import flowmatch
from flowmatch import ConditionalForecaster
from flowmatch.forecasting import windows_like_fit
from flowmatch.forecasting.scales import DRIFTED, UNLIKE, fit_scale, unlike_columns
from flowmatch.preprocessing import QuantileNormal, TargetRules, WindowScale, certain_from, spikes_of
from flowmatch.preprocessing.target_rules import find_bounds

LEVELS = (1.0, 100.0, 10_000.0)


def shop(level, n=200, seed=0):
    """Daily sales with a week and shocks that last, in proportion to a level."""
    noise = 0.1 * np.random.default_rng(seed).normal(size=n)
    shocks = np.convolve(noise, 0.7 ** np.arange(20))[:n]
    return level * np.exp(0.3 * np.sin(2 * np.pi * np.arange(n) / 7) + shocks)[:, None]


def shops(**parameters):
    return tiny(n_lags=7, horizon=2, **parameters).fit([shop(level, seed=k) for k, level in enumerate(LEVELS)])


def encoder_of(forecaster):
    return forecaster.fitted_.window_encoder


def contexts_of(series, starts, n_lags, horizon):
    return (
        np.stack([series[s - n_lags : s] for s in starts]),
        np.stack([series[s : s + horizon] for s in starts]),
    )


def relative_error(forecaster, series, starts):
    """CRPS in units of the series' mean, and the share of the truth inside of 90 % intervals."""
    lags, truth = contexts_of(series, starts, forecaster.n_lags, forecaster.horizon)
    members = forecaster.sample(lags, 40, random_state=0).reshape(40, *truth.shape)
    inside = flowmatch.metrics.interval_coverage(truth, members, 0.9)
    return flowmatch.metrics.crps(truth, members) / np.abs(truth).mean(), inside


# -- which columns, and their scale ---------------------------------------------------------------------------------


@pytest.mark.parametrize("centered", [True, False])
def test_scales_follow_the_windows_units(centered):
    """What is multiplied, and moved where levels are subtracted, has scales that are multiplied, and moved, as well."""
    every = np.ones(2, dtype=bool)
    ones, expected = np.ones(2), np.array([[0.3, -0.2], [1.0, 1.0]])
    scale = WindowScale(every, every & centered, every, ones, 1e-9 * ones, expected, np.ones((4, 2, 2)))
    states = np.random.default_rng(0).lognormal(size=(30, 5, 2))
    level, spread = scale.of(states, np.zeros(2), ones)
    larger = scale.of(1000.0 * states, np.zeros(2), ones)
    np.testing.assert_allclose(larger[0], 1000.0 * level, rtol=1e-6)
    np.testing.assert_allclose(larger[1], 1000.0 * spread, rtol=1e-6)
    np.testing.assert_array_equal(level, np.median(states, axis=1) if centered else np.zeros((30, 2)))
    assert (spread > 0).all()


@pytest.mark.parametrize("constant", [0.0, 7.0, -3.0])
@pytest.mark.parametrize("n_lags", [1, 4])
def test_constant_windows_have_a_spread(constant, n_lags):
    series = [shop(level, seed=k) for k, level in enumerate(LEVELS)]
    forecaster = tiny(n_lags=n_lags).fit(series)
    windows = windows_like_fit(forecaster, series, None)
    lags = windows.contexts(np.arange(len(windows)))
    scale = fit_scale(windows, lags, np.ones(1, dtype=bool), np.zeros(1, dtype=bool))
    level, spread = scale.of(np.full((1, n_lags, 1), constant), np.zeros(1), np.ones(1))
    assert level == constant
    assert 0 < spread < 10 * max(1, abs(constant))
    assert np.isfinite(scale.described(level, spread)).all()


def test_columns_are_scaled_by_window_where_series_are_unlike_or_drift_and_nowhere_else():
    random, steps = np.random.default_rng(0), np.arange(120)[:, None]
    noise = random.normal(size=(3, 120, 2))
    forecaster = tiny(n_lags=3).fit(noise)

    def found(X):
        unlike, drifts = unlike_columns(windows_like_fit(forecaster, X, None))
        return unlike.tolist(), drifts.tolist()

    assert found(noise) == ([False, False], [False, False])
    assert found(noise * [[[1, 1]], [[1, 1]], [[1, 3 * UNLIKE]]]) == ([False, True], [False, False])
    assert found(noise + [[[0, 0]], [[1.5 * UNLIKE, 0]], [[0, 0]]]) == ([False, False], [False, False])  # not yet
    assert found(noise + [[[0, 0]], [[4 * UNLIKE, 0]], [[0, 0]]]) == ([True, False], [False, False])
    drift = np.concatenate([0 * steps, 6 * DRIFTED / 120 * steps], axis=1)
    assert found(noise + drift) == ([False, False], [False, True])
    assert encoder_of(forecaster).local is None


def test_series_alike_are_learned_as_ever():
    """Neither one series nor several alike have a scale by window: their contexts are lags and calendar alone."""
    noise = np.random.default_rng(0).normal(size=(3, 60, 2))
    for X in (noise, noise[0]):
        encoder = encoder_of(tiny(n_lags=3).fit(X))
        assert encoder.local is None
        assert encoder.n_columns == 6


def test_forecasts_come_back_exactly_from_the_scale_of_their_window():
    forecaster = shops()
    encoder = encoder_of(forecaster)
    assert encoder.local.columns.all()
    new = [shop(level, seed=9) for level in (0.01, 3.0, 1e7)]  # no such series was seen
    windows = windows_like_fit(forecaster, new, None)
    every = np.arange(len(windows))
    relative = encoder.relative(windows, every)
    scales = encoder.target_scales(windows.contexts(every))
    contexts = encoder.read_contexts(windows, every).double().numpy()
    back = encoder.restore(relative.reshape(len(every), 2, 1), scales, contexts)
    np.testing.assert_allclose(back, encoder.truth(windows), rtol=1e-12)
    assert np.abs(contexts).max() < 100


def test_forecasts_scale_with_the_series():
    """A series seen in other units has the same forecasts in those units, also beyond the levels of training."""
    forecaster = shops()
    lags = contexts_of(shop(2e6, seed=5), range(20, 60, 5), 7, 2)[0]
    ones, thousands = (forecaster.sample(scale * lags, 5, random_state=0) for scale in (1.0, 1000.0))
    np.testing.assert_allclose(thousands, 1000.0 * ones, rtol=1e-3)
    rolled = forecaster.rollout(lags, 20, 3, random_state=0)
    assert np.isfinite(rolled).all()
    assert 1e5 < np.median(rolled) < 1e7


def test_a_rollout_of_one_block_is_a_forecast_with_scales_by_window_too():
    forecaster = shops()
    lags = contexts_of(shop(100.0, seed=5), range(20, 40, 5), 7, 2)[0]
    np.testing.assert_array_equal(
        forecaster.rollout(lags, 2, 4, random_state=0), forecaster.sample(lags, 4, random_state=0)
    )


def test_a_file_keeps_scales_grids_and_spikes(tmp_path):
    counts = [np.random.default_rng(k).poisson(shop(level, seed=k)).astype(float) for k, level in enumerate(LEVELS)]
    forecaster = tiny(n_lags=7).fit(counts)
    assert encoder_of(forecaster).local is not None
    assert not encoder_of(forecaster).local.centered.any()  # zeros among them
    forecaster.save(tmp_path / "counts")
    drawn, loaded = (
        model.sample([counts[0], counts[2]], 20, random_state=0)
        for model in (forecaster, flowmatch.load(tmp_path / "counts"))
    )
    np.testing.assert_array_equal(drawn, loaded)
    np.testing.assert_array_equal(drawn, np.round(drawn))
    assert drawn.min() >= 0


@pytest.mark.parametrize("which", ["exogenous_columns", "known_columns"])
def test_columns_that_are_not_forecast_are_scaled_by_window_too(which):
    """Prices at several levels: one times the other has the same forecasts."""
    frames = [pd.DataFrame({"sold": shop(1.0, seed=k)[:, 0], "price": shop(level, seed=k + 5)[:, 0]}) for k, level in enumerate(LEVELS)]  # fmt: skip
    sold = [frame.assign(sold=frame["sold"] * level) for frame, level in zip(frames, LEVELS, strict=True)]
    forecaster = tiny(n_lags=7, **{which: "price"}).fit(sold)
    assert encoder_of(forecaster).local.columns.tolist() == [True, True]
    future = {"future": [sold[2][["price"]].iloc[:1]]} if which == "known_columns" else {}
    assert np.isfinite(forecaster.predict([sold[2]], **future)).all()


@pytest.mark.slow
def test_each_series_of_a_panel_is_forecast_about_as_well_as_by_a_model_of_its_own():
    def fitted(X):
        return ConditionalForecaster(n_lags=14, horizon=7, random_state=0).fit(X)

    series = [shop(level, 400, seed) for seed, level in enumerate((1.0, 10.0, 100.0, 1e3, 1e4))]
    together, starts = fitted([one[:320] for one in series]), range(320, 394, 3)
    for one in series:
        error, inside = relative_error(together, one, starts)
        assert error < 1.3 * relative_error(fitted([one[:320]]), one, starts)[0]
        assert inside > 0.8
    assert relative_error(together, shop(1e6, 400, 9), starts)[0] < 0.15  # a level that was not seen


# -- columns that drift ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_forecasts_of_a_trend_leave_the_training_range(horizon):
    noise = np.random.default_rng(0).normal(size=900)
    series = (0.02 * np.arange(900) + noise)[:, None]
    forecaster = ConditionalForecaster(n_lags=14, horizon=horizon, max_iter=200, random_state=0).fit([series[:600]])
    rolled = forecaster.rollout(series[None, 586:600], 300, 60, random_state=0)[:, 0]
    low, high = np.quantile(rolled, [0.05, 0.95], axis=0)
    assert ((low <= series[600:]) & (series[600:] <= high))[-100:].mean() > 0.8
    assert np.median(rolled[:, -1]) > series[:600].max()


# -- what forecasts keep to -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "bounds"),
    [
        (np.random.default_rng(0).poisson(3.0, 500), (0, np.inf)),
        (np.random.default_rng(0).poisson(300.0, 500), (-np.inf, np.inf)),
        (np.random.default_rng(0).lognormal(size=500), (0, np.inf)),
        (np.random.default_rng(0).normal(20.0, 5.0, 500), (-np.inf, np.inf)),
        (np.clip(np.random.default_rng(0).normal(size=500), -1, 1.5), (-1, 1.5)),
        (np.random.default_rng(0).integers(0, 2, 500), (0, 1)),
        (np.full(500, 4.0), (4, 4)),
    ],
    ids=["counts", "large counts", "positive", "normal", "clipped", "binary", "constant"],
)
def test_bounds_are_those_that_values_show(column, bounds):
    assert find_bounds(column.astype(float)) == bounds


def test_values_are_put_on_the_grid_and_within_the_bounds_of_their_column():
    random = np.random.default_rng(0)
    values = np.column_stack([random.poisson(3.0, 500), random.normal(size=500), 0.25 * random.integers(0, 50, 500)])
    rules = TargetRules.find(values, 0.0)
    drawn = random.normal(scale=20, size=(6, 2, 3))
    snapped = rules.snap(drawn)
    np.testing.assert_array_equal(snapped[..., 1], drawn[..., 1])
    np.testing.assert_array_equal(snapped[..., 0], np.maximum(np.round(drawn[..., 0]), 0))
    np.testing.assert_array_equal(snapped[..., 2] % 0.25, 0)
    assert snapped[..., 2].min() >= 0
    assert snapped[..., 2].max() > values[:, 2].max()  # its range is no bound
    np.testing.assert_array_equal(rules.of(np.zeros(3, dtype=bool)).snap(drawn), drawn)


@pytest.mark.parametrize("target", ["auto", "residual", "state"])
def test_counts_are_drawn_as_counts_whatever_is_learned(target):
    steps = np.arange(400)
    counts = np.random.default_rng(0).poisson(3 * np.exp(np.sin(2 * np.pi * steps / 12)))[:, None].astype(float)
    forecaster = tiny(n_lags=12, horizon=3, target=target).fit([counts])
    drawn = forecaster.sample([counts[: 100 + k] for k in range(20)], 20, random_state=0)
    np.testing.assert_array_equal(drawn, np.round(drawn))
    assert drawn.min() == 0


def sunny(n=1200, capacity=np.inf, seed=0):
    """Hours of a power plant: nothing at night, less under clouds, and no more than its capacity."""
    hours, random = np.arange(n), np.random.default_rng(seed)
    clear = np.maximum(np.sin(2 * np.pi * (hours % 24 - 6) / 24), 1e-12)
    clouds = np.repeat(random.uniform(0.2, 1.0, n // 24 + 1), 24)[:n] * random.uniform(0.8, 1.0, n)
    return np.minimum(np.where(clear > 1e-9, 100 * clear * clouds, 0.0), capacity)[:, None]


@pytest.mark.parametrize("target", ["auto", "residual", "state"])
def test_nights_stay_without_power(target):
    power = sunny(capacity=60.0)
    frame = pd.DataFrame({"power": power[:, 0]}, index=pd.date_range("2026-06-01", periods=1200, freq="h"))
    forecaster = tiny(n_lags=24, horizon=24, target=target).fit([frame.iloc[:960]])
    starts = range(960, 1176, 7)
    drawn = forecaster.sample([frame.iloc[:start] for start in starts], 10, random_state=0)
    truth = contexts_of(power, starts, 24, 24)[1]
    assert (drawn[:, truth == 0] == 0).mean() > 0.999
    assert (drawn[:, truth > 5] == 0).all(axis=0).mean() < 0.03  # of ten draws of the flow
    assert 0 == drawn.min() < drawn.max() <= 60.0


def test_a_spike_is_certain_from_where_no_row_is_without_it():
    shares = np.arange(100) / 100
    assert certain_from(shares, shares >= 0.4, 10.0) == pytest.approx(0.4)
    assert certain_from(shares, shares >= 0.4, 30.0) == np.inf  # there are not enough rows
    assert certain_from(shares, (np.arange(100) % 2).astype(bool), 5.0) == np.inf
    assert certain_from(np.zeros(100), shares >= 0.4, 1.0) == np.inf  # of one share, all or none


def test_spikes_are_values_that_many_rows_share():
    random = np.random.default_rng(0)
    rain = np.where(random.random(200) < 0.5, 0.0, random.lognormal(size=200))
    found = spikes_of(np.column_stack([rain, random.normal(size=200), np.full(200, 3.0)]))
    np.testing.assert_array_equal(found, [0.0, np.nan, np.nan])


def test_codes_are_moved_apart_beside_extremes_that_many_rows_share():
    random = np.random.default_rng(0)
    X = np.clip(random.normal(size=(500, 1)), -0.5, None)
    plain, opened = (QuantileNormal(open_gaps=False, open_spikes=flag).fit(X) for flag in (False, True))
    order = np.argsort(X[:, 0])
    first = np.searchsorted(X[order, 0], -0.5, side="right")
    jump = [np.diff(each.transform(X[order[[first - 1, first]]])[:, 0]).item() for each in (plain, opened)]
    assert jump[1] > jump[0] + 1.9
    for each in (plain, opened):
        np.testing.assert_allclose(each.inverse_transform(each.transform(X)), X, atol=1e-12)
    low, high = opened.training_bounds(X)
    codes = np.linspace(*opened.transform(X[order[[0, -1]]])[:, 0], 300)[:, None]
    assert (opened.restore(codes) >= -0.5).all()
    assert (low <= high).all()


# -- contexts that training has not seen ----------------------------------------------------------------------------


def test_contexts_beyond_the_training_range_are_warned_of_once_by_name():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 2)), columns=["load", "heat"])
    forecaster = tiny(n_lags=3).fit([frame])
    strange = frame.iloc[-3:].assign(heat=30.0)
    calls = (
        lambda X: forecaster.predict([X, X]),
        lambda X: forecaster.sample([X], 3),
        lambda X: forecaster.rollout([X], 4),
    )
    for call in calls:
        with pytest.warns(
            UserWarning, match=r"standard deviations beyond the training range of column 'heat'"
        ) as found:
            call(strange)
        assert [(one.filename, "load" in str(one.message)) for one in found] == [(__file__, False)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(frame.iloc[-3:])


def test_an_encoder_refuses_scales_of_other_columns():
    encoder = encoder_of(shops())
    with pytest.raises(ValueError, match="does not fit"):
        replace(encoder, local=replace(encoder.local, columns=np.ones(3, dtype=bool))).check()
