"""output="pandas": the numbers of the arrays, under the times, rows and names of the data."""

import numpy as np
import pandas as pd
import pytest
from exact_forecasts import tiny, tiny_fields

import flowmatch
from flowmatch import DistilledFlowMap

RNG = np.random.default_rng(0)


def series(freq="D", n=40, columns=("load", "wind"), **dates):
    index = pd.date_range("2026-01-31", periods=n, freq=freq, **dates)
    return pd.DataFrame(RNG.normal(size=(n, len(columns))).cumsum(axis=0), index, list(columns))


DAYS = series()


@pytest.fixture(scope="module")
def forecaster():
    return tiny(n_lags=3, horizon=2).fit(DAYS)


@pytest.mark.parametrize("freq", ["D", "h", "15min", "ME", "QS", "B", "W"])
@pytest.mark.parametrize("calendar", ["auto", None])
def test_times_go_on_as_those_of_the_history(freq, calendar):
    known = series(freq)
    model = tiny(n_lags=3, horizon=4, calendar=calendar).fit(known[:36])
    frame = model.predict(known[:36], output="pandas")
    assert frame.index.tolist() == known.index[36:].tolist()
    assert (frame.index.name, list(frame.columns)) == ("time", ["load", "wind"])
    np.testing.assert_array_equal(frame.to_numpy(), model.predict(known[:36])[0])


def test_zones_periods_and_positions_go_on():
    known = series(tz="Europe/Berlin", freq="h")
    model = tiny(n_lags=3, calendar=None).fit(known)
    assert model.predict(known, output="pandas").index[0] == known.index[-1] + pd.Timedelta("1h")
    months = series("MS").to_period("M")
    assert tiny(n_lags=3, calendar=None).fit(months).predict(months, output="pandas").index.tolist() == [
        months.index[-1] + 1
    ]
    assert model.predict(known.reset_index(drop=True), output="pandas").index.tolist() == [40]
    every_second = known.set_axis(np.arange(10, 90, 2))
    assert tiny(n_lags=3, calendar=None).fit(every_second).rollout(every_second, 2, output="pandas").index.tolist() == [
        (0, 90),
        (0, 92),
    ]
    for contexts, times in (
        (known.to_numpy(), [40]),
        (known.to_numpy()[None], [(0, 40)]),
        ([known[:9].to_numpy()], [(0, 9)]),
    ):
        assert model.predict(contexts, output="pandas").index.tolist() == times
    assert model.predict(known.to_numpy()[None, -3:], output="pandas").index.tolist() == [(0, 3)]


@pytest.mark.filterwarnings("ignore:contexts reach")  # beyond the training range
def test_single_rows_of_arrays_are_positions_too():
    model = tiny().fit(RNG.normal(size=(4, 10, 2)))
    assert model.predict(np.zeros((2, 2)), output="pandas").index.tolist() == [(0, 1), (1, 1)]
    assert model.predict(DAYS[-1:].set_axis([7]).set_axis([0, 1], axis=1), output="pandas").index.tolist() == [8]


@pytest.mark.filterwarnings("ignore:contexts reach")  # beyond the training range
def test_a_history_that_does_not_tell_the_next_time_is_refused():
    model = tiny(calendar=None).fit(RNG.normal(size=(4, 10, 2)))
    with pytest.raises(ValueError, match="one row, which does not tell the time of the next"):
        model.predict(DAYS[-1:].set_axis([0, 1], axis=1), output="pandas")


def test_several_histories_are_told_apart(forecaster):
    histories = [DAYS, DAYS[:10]]
    frame = forecaster.predict(histories, output="pandas")
    assert frame.index.names == ["series", "time"]
    np.testing.assert_array_equal(frame.loc[1].to_numpy(), forecaster.predict(histories)[1])
    assert frame.loc[1].index[0] == DAYS.index[10]


def test_quantiles_and_bounds_are_columns(forecaster):
    quantiles, found = forecaster.predict_quantiles([DAYS] * 2, (0.1, 0.5), output="pandas"), (0.1, 0.5)
    expected = forecaster.predict_quantiles([DAYS] * 2, found)
    for i, level in enumerate(found):
        np.testing.assert_array_equal(quantiles["wind", level].to_numpy(), expected[i, :, :, 1].ravel())
    interval, (low, high) = forecaster.predict_interval(DAYS, output="pandas"), forecaster.predict_interval(DAYS)
    assert interval.columns.names == ["column", "bound"]
    np.testing.assert_array_equal(interval["load", "lower"].to_numpy(), low[0, :, 0])
    np.testing.assert_array_equal(interval["wind", "upper"].to_numpy(), high[0, :, 1])


def test_draws_are_rows(forecaster):
    for frame, array in (
        (forecaster.sample(DAYS, 3, 0, output="pandas"), forecaster.sample(DAYS, 3, 0)),
        (forecaster.rollout([DAYS] * 2, 5, 3, 0, output="pandas"), forecaster.rollout([DAYS] * 2, 5, 3, 0)),
    ):
        assert frame.index.names in (["sample", "time"], ["sample", "series", "time"])
        np.testing.assert_array_equal(frame.to_numpy(), array.reshape(-1, 2))
        np.testing.assert_array_equal(frame.loc[2].to_numpy(), array[2].reshape(-1, 2))


def test_only_forecast_columns_are_there():
    known = series(columns=("price", "load", "wind"))
    model = tiny(known_columns="price", exogenous_columns="wind", calendar=None).fit(known)
    frame = model.predict([known[:-1]], future=[known[-1:]], output="pandas")
    assert list(frame.columns) == ["load"]


def test_series_of_panels_and_long_tables_keep_their_labels():
    panel = pd.concat({"a": series(), "b": series()}, names=["site", "day"])
    model = tiny(calendar=None).fit(panel)
    frame = model.predict(panel, output="pandas")
    following = panel.index[-1][1] + pd.Timedelta("1D")
    assert frame.index.tolist() == [("a", following), ("b", following)]
    long = panel.reset_index()
    again = tiny(calendar=None).fit(long, time="day", groups="site")
    assert again.rollout(long, 2, output="pandas").index.get_level_values("series").unique().tolist() == ["a", "b"]
    assert len(again.backtest(long, n_windows=2).origins) == 4


def test_mixed_series_have_their_own_names():
    known = series().assign(shop=["a", "b"] * 20)
    model = tiny(exogenous_columns="shop", calendar=None).fit(known)
    assert list(model.predict(known, output="pandas").columns) == ["load", "wind"]


@pytest.mark.parametrize("mixed", [False, True])
def test_tables_keep_their_rows_and_the_names_of_their_targets(mixed, tmp_path):
    X = pd.DataFrame(RNG.normal(size=(30, 2)), [f"r{i}" for i in range(30)], ["u", "v"])
    X = X.assign(kind=["a", "b"] * 15) if mixed else X
    Y = pd.DataFrame(RNG.normal(size=(30, 2)), X.index, ["p", "q"])
    model = tiny().fit(X, Y)
    frame = model.predict(X[:3], output="pandas")
    assert (frame.index.tolist(), list(frame.columns)) == (["r0", "r1", "r2"], ["p", "q"])
    np.testing.assert_array_equal(frame.to_numpy(), model.predict(X[:3]))
    assert list(tiny().fit(X, Y["p"]).predict_interval(X[:3], output="pandas").columns) == [
        ("p", "lower"),
        ("p", "upper"),
    ]
    model.save(tmp_path / "model.safetensors")
    pd.testing.assert_frame_equal(flowmatch.load(tmp_path / "model.safetensors").predict(X[:3], output="pandas"), frame)


def test_arrays_have_positions_for_names():
    X, y = RNG.normal(size=(30, 2)), RNG.normal(size=(30, 2))
    assert list(tiny().fit(X, y).predict(X[:3], output="pandas").columns) == [0, 1]
    frame = tiny(horizon=2).fit(X, y).predict(X[:2], output="pandas")
    assert (list(frame.columns), frame.index.tolist()) == ([0], [(0, 1), (0, 2), (1, 1), (1, 2)])


def test_students_do_so_too(forecaster):
    student = DistilledFlowMap(forecaster, max_iter=2, n_pairs=30, random_state=0).fit(DAYS)
    frame = student.predict_interval(DAYS, output="pandas")
    np.testing.assert_array_equal(frame["load", "lower"].to_numpy(), student.predict_interval(DAYS)[0, 0, :, 0])


def test_fields_and_other_containers_are_refused(forecaster):
    fields = RNG.normal(size=(4, 10, 1, 8))
    with pytest.raises(ValueError, match=r"states here are fields of the grid \(8,\)"):
        tiny_fields().fit(fields).predict(fields[:, 0], output="pandas")
    for call in (
        forecaster.predict,
        forecaster.predict_interval,
        forecaster.sample,
        lambda X, **o: forecaster.rollout(X, 2, **o),
    ):
        with pytest.raises(ValueError, match="unknown output 'polars'. Choose one of 'numpy', 'pandas'"):
            call(DAYS, output="polars")
