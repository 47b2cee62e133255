"""Series come out of tables checked, are cut into the right windows, and the simulated ones obey their law."""

import numpy as np
import pytest

from flowmatch.datasets import make_seasonal_series, make_windows, read_series, seasonal_series_quantiles

pd = pytest.importorskip("pandas")

LAW = {"period": 12, "amplitude": 0.8, "memory": 0.7, "noise": 0.5}


def table(times, **columns):
    return pd.DataFrame({"time": times, **(columns or {"value": np.arange(len(times), dtype=float)})})


def test_a_csv_file_gives_back_the_groups_that_were_written(tmp_path):
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-02-27", periods=5, name="day")
    written = {
        site: pd.DataFrame(rng.normal(size=(n, 2)), days[:n], ["wind", "rain"]) for site, n in (("B", 5), ("A", 3))
    }
    written["A"].iloc[1, 0] = np.nan
    rows = pd.concat(written, names=["site"]).reset_index()
    rows.sort_values("day", kind="stable").to_csv(tmp_path / "weather.csv", index=False)  # groups take turns

    series = read_series(tmp_path / "weather.csv", time="day", group="site")

    assert [one.attrs["group"] for one in series] == ["B", "A"]
    for one in series:
        pd.testing.assert_frame_equal(one, written[one.attrs["group"]], check_freq=False, check_index_type=False)


def test_a_table_without_a_time_column_keeps_its_index_and_a_file_counts_its_rows(tmp_path):
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]}, index=pd.period_range("2020Q1", periods=3, freq="Q"))
    (one,) = read_series(frame, columns=["b"])
    assert list(one.columns) == ["b"]
    assert list(one.index) == list(pd.to_datetime(["2020-01-01", "2020-04-01", "2020-07-01"]))
    frame.to_csv(tmp_path / "plain.csv", index=False)
    (one,) = read_series(tmp_path / "plain.csv")
    assert one.index.tolist() == [0, 1, 2]
    assert one["a"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table([0, 1, 2], wind=["1", "n.a.", "x"]), r"Column 'wind' .* got 'n.a.' in row 1 \(2 such values"),
        (table([0, 1], seen=pd.to_datetime(["2024-01-01"] * 2)), "Column 'seen' holds times"),
        (table(["2024-01-01", "soon"]), "got 'soon' in row 1"),
        (table([0.0, np.nan, 2.0]), "got 'nan' in row 1"),
        (table([0, 1, 3, 2, 4]), "must increase, got 2 in row 3 after 3 in row 2.*sort=True"),
        (table([0, 1, 2, 1]), "Time 1 is in rows 1 and 3"),
        (table([0, 1, 2, 4, 5, 8]), "3 of 9 times are missing: 3, 6, 7.*fill"),
        (table([0.0, 1.0, 2.4, 3.0]), r"evenly spaced, but 2.4 is not one of"),
        (table([0.0, 1e-9, 5.0]), "evenly spaced, got steps from"),
        (table(["2024-01-01", "2024-02-01", "2024-03-01", "2024-05-01"]), "1 of 5 times are missing: 2024-04-01"),
        (pd.DataFrame({"time": []}), "no column of values"),
    ],
)
def test_an_error_names_the_row_and_what_is_wrong_with_it(frame, message):
    with pytest.raises(ValueError, match=message):
        read_series(frame, time="time")


def test_errors_of_a_group_count_the_rows_of_the_table():
    rows = pd.DataFrame({"t": [0, 0, 2, 1, 1, 2], "who": list("abbaba"), "v": range(6)})
    with pytest.raises(ValueError, match="Series 'b': .* got 1 in row 4 after 2 in row 2"):
        read_series(rows, time="t", group="who")
    first, second = read_series(rows, time="t", group="who", sort=True)
    assert first["v"].tolist() == [0, 3, 5]
    assert second["v"].tolist() == [1, 4, 2]
    with pytest.raises(ValueError, match="Series 'a': Time 0 is in rows 0 and 5"):
        read_series(rows.assign(t=[0, 0, 2, 1, 1, 0]), time="t", group="who", sort=True)
    with pytest.raises(ValueError, match=r"group names 'whom', which is not among \['t', 'who', 'v'\]"):
        read_series(rows, time="t", group="whom")
    with pytest.raises(ValueError, match="group column 'who' has no value in row 3"):
        read_series(rows.assign(who=["a", "b", "b", None, "b", "a"]), time="t", group="who")


@pytest.mark.parametrize("freq", ["D", "MS", pd.offsets.QuarterEnd(), "B", "15min", "W-SUN"], ids=str)
def test_calendar_steps_count_as_even_and_a_gap_is_found_and_filled(freq):
    times = pd.date_range("2023-01-02", periods=40, freq=freq)
    (whole,) = read_series(table(times), time="time")
    assert whole.index.equals(pd.DatetimeIndex(times))
    holes = table(times).drop([7, 8, 30])
    (filled,) = read_series(holes, time="time", gaps="fill")
    assert filled.index.equals(pd.DatetimeIndex(times))
    assert np.flatnonzero(filled["value"].isna()).tolist() == [7, 8, 30]
    with pytest.warns(UserWarning, match="3 of 40 times are missing"):
        (kept,) = read_series(holes, time="time", gaps="warn")
    assert len(kept) == 37


def test_series_are_cut_where_times_or_values_are_missing():
    times = pd.date_range("2023-01-02", periods=20, freq="B")
    whole = table(times).assign(who=["a"] * 12 + ["b"] * 8)
    holes = whole.drop([4, 5])
    holes.loc[[8, 13], "value"] = np.nan
    parts = read_series(holes, time="time", group="who", gaps="split")
    found = [(part.attrs["group"], times.get_indexer(part.index).tolist()) for part in parts]
    assert found == [
        ("a", [0, 1, 2, 3]),
        ("a", [6, 7]),
        ("a", [9, 10, 11]),
        ("b", [12]),
        ("b", [14, 15, 16, 17, 18, 19]),
    ]
    assert all(part.notna().all(axis=None) for part in parts)
    assert len(read_series(whole, time="time", group="who", gaps="split")) == 2
    (short,) = read_series(whole.head(2), time="time", columns=["value"], gaps="split")
    assert len(short) == 2


@pytest.mark.parametrize("times", [np.cumsum(np.full(1000, 0.1)), np.round(np.arange(1000) / 3, 3)])
def test_times_that_are_numbers_may_be_off_by_rounding(times):
    (one,) = read_series(table(times), time="time")
    assert one.index.tolist() == times.tolist()
    (filled,) = read_series(table(times).drop(500), time="time", gaps="fill")
    assert len(filled) == 1000
    assert filled.index[500] == pytest.approx(times[500], abs=1e-3)


def test_windows_are_those_of_a_loop_and_never_cross_series():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 2)) for n in (9, 5, 12)]
    X, y, series, start = make_windows(arrays, n_lags=3, horizon=2, stride=2)
    expected = [(k, i) for k, array in enumerate(arrays) for i in range(3, len(array) - 1, 2)]
    assert list(zip(series, start, strict=True)) == expected
    np.testing.assert_array_equal(X, [arrays[k][i - 3 : i] for k, i in expected])
    np.testing.assert_array_equal(y, [arrays[k][i : i + 2] for k, i in expected])
    of_frame = make_windows(pd.DataFrame(arrays[0]), 3, 2)
    np.testing.assert_array_equal(of_frame.X, make_windows(arrays[:1], 3, 2).X)
    assert len(of_frame.X) == 5


def test_windows_refuse_series_that_are_too_short_or_of_other_columns():
    with pytest.raises(ValueError, match=r"Series 1 has 4 steps, fewer than n_lags \+ horizon = 3 \+ 2 = 5"):
        make_windows([np.zeros(5), np.zeros(4)], 3, 2)
    frames = [pd.DataFrame(np.zeros((5, 2)), columns=list(names)) for names in ("ab", "ba")]
    with pytest.raises(ValueError, match=r"\['a', 'b'\] in series 0 and \['b', 'a'\] in series 1"):
        make_windows(frames, 1)
    with pytest.raises(ValueError, match="got 2 in series 0 and 1 in series 1"):
        make_windows([np.zeros((5, 2)), np.zeros(5)], 1)


def test_a_sixth_of_the_continuations_lies_between_neighbouring_quantiles_at_each_step_and_time_of_the_season():
    series = make_seasonal_series(60, n_series=1000, random_state=0, **LAW)
    X, y, _, start = make_windows(series, n_lags=2, horizon=5, stride=1)
    levels = np.arange(1, 6) / 6
    quantiles = seasonal_series_quantiles(X, start, levels, horizon=5, **LAW)
    assert quantiles.shape == (5, *y.shape)
    place = (y > quantiles).sum(axis=0)[..., 0]  # 0 ... 5
    for phase in range(LAW["period"]):
        shares = np.stack([(place[start % LAW["period"] == phase] == k).mean(axis=0) for k in range(6)])
        # SeriesWindows of one series a season apart: more than 4,000 independent ones, the horizon being shorter, so 4 standard errors.
        np.testing.assert_allclose(shares, 1 / 6, atol=4 * np.sqrt(5 / 36 / 4_000))


def test_a_series_begins_in_the_law_that_it_has_ever_after():
    slow = LAW | {"memory": 0.95}
    series = np.log(make_seasonal_series(25, n_series=20_000, random_state=1, **slow)[..., 0])
    np.testing.assert_allclose(series[:, 0].std(), series[:, 24].std(), rtol=0.03)
    np.testing.assert_allclose(series[:, 0].mean(), series[:, 24].mean(), atol=0.03)


def test_quantiles_are_those_of_the_recursion_in_the_docstring():
    last, now, normal = 1.7, 17, 1.2815515655446004  # the standard normal law's quantile at 90 %
    middle, variance = np.log(last) - 0.8 * np.sin(2 * np.pi * now / 12), 0.0
    expected = []
    for t in range(now + 1, now + 5):
        middle, variance = 0.7 * middle, 0.7**2 * variance + (0.5 * (1 + 0.5 * np.cos(2 * np.pi * t / 12))) ** 2
        expected.append(np.exp(0.8 * np.sin(2 * np.pi * t / 12) + middle + normal * variance**0.5))
    found = seasonal_series_quantiles([[[9.0], [last]]], now + 1, 0.9, horizon=4, **LAW)
    np.testing.assert_allclose(found[0, :, 0], expected)


def test_one_level_and_the_last_value_are_enough():
    series = make_seasonal_series(10, random_state=0, memory=0.0)
    X, _, _, start = make_windows(series, n_lags=4)
    one = seasonal_series_quantiles(X, start, 0.5, memory=0.0)
    np.testing.assert_allclose(one[:, 0, 0], np.exp(0.5 * np.sin(2 * np.pi * start / 24)))  # no memory: the median
    np.testing.assert_array_equal(one, seasonal_series_quantiles(X[:, -1:], start, [0.5], memory=0.0)[0])
    with pytest.raises(ValueError, match="quantiles must be numbers between 0 and 1"):
        seasonal_series_quantiles(X, start, 90)
    with pytest.raises(ValueError, match="X must be positive"):
        seasonal_series_quantiles(-X, start, 0.5)
