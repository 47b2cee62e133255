"""Series as they come: panels and long tables, holes and missing values, clocks, and what is known ahead, by their times."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from exact_forecasts import tiny

import flowmatch
from flowmatch import DistilledFlowMap
from flowmatch.forecasting import contexts_like_fit, read_windows, windows_like_fit

RNG = np.random.default_rng(0)
HOURS = pd.date_range("2021-03-01", periods=24 * 20, freq="h")
FRAME = pd.DataFrame(RNG.normal(size=(len(HOURS), 2)), HOURS, ["y", "price"])
SHOPS = {"Linz": FRAME[:300], "Graz": FRAME[100:450] + 5}
LONG = pd.concat([part.assign(shop=name).rename_axis("date").reset_index() for name, part in SHOPS.items()])
OFFICE = FRAME[np.isin(FRAME.index.hour, range(9, 18)) & (FRAME.index.day_of_week < 5)]


def windows_of(X, parameters=None, **form):
    """The windows of a first fit, without one."""
    return read_windows(tiny(**(parameters or {})), X, None, **form).windows


def same_windows(found, expected):
    every = np.arange(len(expected))
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.contexts(every), expected.contexts(every))
    np.testing.assert_array_equal(found.states_ahead(every), expected.states_ahead(every))
    np.testing.assert_array_equal(found.calendar, expected.calendar)
    np.testing.assert_array_equal(found.groups, expected.groups)


@pytest.fixture(scope="module")
def hourly():
    return tiny(n_lags=3, horizon=2, known_columns="price").fit(FRAME[:400])


@pytest.fixture(scope="module")
def shops():
    return tiny(n_lags=3, known_columns="price").fit(LONG, time="date", groups="shop", value="y")


# -- forms ------------------------------------------------------------------------------------------------------------

FORMS = {
    "long": (LONG, {"time": "date", "groups": "shop"}),
    "long, rows mixed": (LONG.sort_values("date", kind="stable"), {"time": "date", "groups": ["shop"]}),
    "long, text": (LONG.astype({"date": str}), {"time": "date", "groups": "shop"}),
    "long, times as index": (LONG.set_index("date"), {"groups": "shop"}),
    "long, other columns": (LONG.assign(note="x"), {"time": "date", "groups": "shop", "value": ["y", "price"]}),
    "panel": (LONG.set_index(["shop", "date"]), {}),
    "panel, times first": (LONG.set_index(["date", "shop"]), {}),
    "panel of three levels": (LONG.assign(land="A").set_index(["land", "shop", "date"]), {}),
    "list of a panel": ([LONG.set_index(["shop", "date"])], {}),
    "frames": (list(SHOPS.values()), {}),
    "text dates": ([part.set_axis(part.index.astype(str)) for part in SHOPS.values()], {}),
    "periods": ([part.to_period("h") for part in SHOPS.values()], {}),
}


@pytest.mark.parametrize("case", FORMS)
def test_series_are_the_same_in_every_form(case):
    X, form = FORMS[case]
    expected = windows_of(list(SHOPS.values()), {"n_lags": 2})
    found = windows_of(X, {"n_lags": 2}, **form)
    if case == "long, rows mixed":  # Linz comes first there, too
        assert X["shop"].iloc[0] == "Linz"
    same_windows(found, expected)
    assert found.calendar.shape[1] == 8  # the week and the day


def test_frames_of_polars_are_read_with_a_column_of_times():
    pl = pytest.importorskip("polars")
    columns = {name: LONG[name].to_list() for name in LONG}
    frame = pl.DataFrame(columns)
    same_windows(windows_of(frame, time="date", groups="shop"), windows_of(list(SHOPS.values())))
    zoned = frame.with_columns(pl.col("date").dt.replace_time_zone("UTC"))
    aware = [part.tz_localize("UTC") for part in SHOPS.values()]
    same_windows(windows_of(zoned.lazy(), time="date", groups="shop"), windows_of(aware))
    with pytest.raises(ValueError, match="frame of polars, which has no index of times: .*time='date', groups='id'"):
        windows_of(frame)


def test_long_tables_are_taken_by_every_method(shops, tmp_path):
    past = LONG[LONG["date"] < HOURS[290]]
    frames = [part[part.index < HOURS[290]] for part in SHOPS.values()]
    future = [part[["price"]][part.index >= HOURS[290]] for part in SHOPS.values()]
    expected = shops.predict(frames, future=future)
    assert expected.shape == (2, 1)
    shops.save(tmp_path / "shops.safetensors")
    loaded = flowmatch.load(tmp_path / "shops.safetensors")
    panel = LONG.set_index(["shop", "date"])
    for forecaster in (shops, loaded):
        for ahead in (
            LONG,
            LONG[["date", "shop", "price"]],
            panel,
            panel[["price"]],
            LONG[::-1].sort_values("date"),
            future,
        ):
            np.testing.assert_array_equal(forecaster.predict(past, future=ahead), expected)
    assert shops.rollout(past, 5, 3, future=LONG).shape == (3, 2, 5, 1)
    assert shops.sample(past, 4, future=LONG).shape == (4, 2, 1)
    assert shops.predict_interval(past, future=LONG).shape == (2, 2, 1)
    assert shops.score(past) == shops.score(frames)
    assert shops.crps(past) == shops.crps(frames)
    student = DistilledFlowMap(shops, max_iter=1, n_pairs=10, random_state=0).fit(past)
    assert student.predict(past, future=LONG).shape == (2, 1)
    with pytest.raises(ValueError, match="future has no rows of series 'Graz'"):
        shops.predict(past, future=LONG[LONG["shop"] == "Linz"])


def test_forms_that_do_not_fit_are_refused_by_name(shops):
    for X, form, message in (
        (LONG, {"time": "day"}, r"time names the column 'day', but X has \['date', 'y', 'price', 'shop'\]"),
        (LONG, {"time": "date", "groups": ["shop", "town"]}, "groups names the column 'town'"),
        (LONG, {"time": "date", "value": "sold"}, "value names the column 'sold'"),
        (LONG, {"time": "date", "value": "y"}, "times of trajectory 0 must increase: row 300 .*groups="),
        (FRAME.to_numpy(), {"time": "date"}, "name columns of one DataFrame that holds all series, but X is a ndarray"),
        (list(SHOPS.values()), {"value": "y"}, "name columns of one DataFrame .* but X is a list"),
        (LONG.assign(shop=LONG["shop"].where(LONG["y"] < 6)), {"time": "date", "groups": "shop"}, "which series is it of"),
        (LONG.assign(date=LONG["date"].where(LONG["y"] < 6)), {"time": "date", "groups": "shop"}, "'date', the times, has no value in row"),
        (LONG.assign(note="x"), {"time": "date", "groups": "shop"}, "column 'note' of series 'Linz' has dtype"),
        (LONG, {"time": "shop"}, "column 'shop' should hold times, but its first entry is 'Linz'"),
        (LONG.assign(date=LONG["date"].astype(str).where(LONG["y"] < 6, "soon")), {"time": "date", "groups": "shop"}, "the times of column 'date' cannot all be read as dates: .* 'soon'"),
        (LONG[["date", "shop"]], {"time": "date", "groups": "shop"}, "no column of X is left"),
        (LONG.assign(date=RNG.permutation(len(LONG))), {"time": "date", "groups": "shop"}, "times of series 'Linz' must increase"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            windows_of(X, **form)
    with pytest.raises(ValueError, match="time, groups and value name columns of series"):
        tiny().fit(FRAME, FRAME["y"], time="date")
    with pytest.raises(ValueError, match=r"lacks the columns \['date', 'shop'\]: .* time='date' and groups=\['shop'\]"):
        shops.predict(LONG[["y", "price"]].reset_index(drop=True), future=LONG)


def test_dates_as_numbers_are_dates():
    days = pd.date_range("2021-01-01", periods=60)
    table = pd.DataFrame({"day": days.strftime("%Y%m%d").astype(int), "y": np.arange(60.0)})
    assert windows_of(table, time="day").calendar.shape == (59, 4)
    assert windows_of(table.assign(day=np.arange(60)), time="day").calendar.shape == (59, 0)


# -- gaps, missing values, short series -------------------------------------------------------------------------------


def naive_windows(frame, n_lags, horizon, step):
    """The windows that go over no gap, and have a value before and after the instant of the forecast, one by one."""
    span = n_lags + horizon
    for start in range(len(frame) - span + 1):
        part = frame.iloc[start : start + span]
        both = part[:n_lags].notna().any(axis=None) and part[n_lags:].notna().any(axis=None)
        if both and (np.diff(part.index) == np.timedelta64(step)).all():
            yield part.to_numpy()


GAPS = {
    "times": (FRAME.drop(HOURS[[40, 41, 300]]), r"X has 2 gap\(s\) in time \(the first: trajectory 0 between 2021-03-02 15:00:00 and 2021-03-02 18:00:00\): 8 of 473"),
    "values": (FRAME.mask(np.arange(len(FRAME))[:, None] % [211, 97] == 50), None),
    "both": (FRAME.drop(HOURS[[40]]).assign(y=lambda f: f["y"].where(f.index != HOURS[100])), r"X has 1 gap\(s\) in time"),
    "whole rows": (FRAME[["y"]].where(np.isin(HOURS, HOURS[31:-9])[:, None]), r"37 of 476 windows lack values: all to forecast, .* \(the first: the forecast of trajectory 0, 2021-03-01 03:00:00\)"),
    "price alone at the ends": (FRAME.assign(y=FRAME["y"].where((FRAME.index > HOURS[30]) & (FRAME.index < HOURS[-9]))), None),
}  # fmt: skip


@pytest.mark.parametrize("case", GAPS)
def test_windows_go_over_no_gap(case):
    X, message = GAPS[case]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        windows = windows_of(X, {"n_lags": 3, "horizon": 2})
    assert len(warned) == (message is not None)
    assert message is None or re.search(message, str(warned[0].message))
    expected = np.stack(list(naive_windows(X, 3, 2, pd.Timedelta(hours=1))))
    every = np.arange(len(windows))
    np.testing.assert_array_equal(
        np.concatenate([windows.contexts(every), windows.states_ahead(every)], axis=1), expected
    )


def test_series_that_lack_what_training_had_are_scored_without():
    array = RNG.normal(size=(3, 12, 2))
    forecaster = tiny().fit(array)
    array[1, 5, 0] = np.nan  # as a target it is left out of the score, as a context the window is
    with pytest.warns(
        UserWarning, match=r"1 of 33 windows .* must be complete \(the first: .* trajectory 1, frame 6\)"
    ):
        assert np.isfinite(forecaster.crps(array))
    with pytest.raises(ValueError, match="In training this column lacked no values"):
        forecaster.predict(array[:, 5])


def test_missing_targets_beside_columns_that_may_be_missing():
    """Holes of what is read are marked for the network, and cost no window."""
    price = FRAME["price"].where(RNG.random(len(FRAME)) < 0.8)
    X = FRAME.assign(price=price, y=FRAME["y"].where(FRAME.index != HOURS[50]))
    with pytest.warns(UserWarning, match=r"1 of 479 windows lack values"):
        forecaster = tiny(exogenous_columns="price").fit(X)
    assert forecaster.sample_shape_ == (1,)
    assert np.isfinite(forecaster.predict(X)).all()


def test_short_series_are_left_out_by_name():
    wels = FRAME[:4].assign(shop="Wels").rename_axis("date").reset_index()
    with pytest.warns(
        UserWarning, match=r"1 of 3 trajectories have fewer than the 5 states .* left out: series 'Wels' \(4\)\."
    ):
        found = windows_of(pd.concat([LONG, wels]), {"n_lags": 4}, time="date", groups="shop")
    same_windows(found, windows_of(list(SHOPS.values()), {"n_lags": 4}))
    many = [np.ones((2, 1))] * 9 + [RNG.normal(size=(30, 1))]
    with pytest.warns(UserWarning, match=r"9 of 10 .*: trajectory 0 \(2\), .*, trajectory 4 \(2\), \.\.\.\."):
        assert len(windows_of(many, {"n_lags": 3})) == 27


def test_series_of_nothing_but_gaps_are_refused():
    thin = FRAME[np.arange(len(FRAME)) % 5 != 4]  # four of five
    with pytest.raises(ValueError, match=r"95 gap\(s\) in time .*: no piece between .* 6 states; the longest has 4"):
        windows_of(thin, {"n_lags": 5})
    with pytest.raises(
        ValueError, match=r"trajectory 1 of X has 30 states, but a window of n_lags and horizon needs 41"
    ):
        windows_of([FRAME[:20], FRAME[:30]], {"n_lags": 40})


IRREGULAR = {
    "random times": (FRAME.set_axis(HOURS + pd.to_timedelta(RNG.uniform(0, 3500, len(HOURS)), unit="s")), "trajectory 0"),
    "random rows": (FRAME[RNG.random(len(FRAME)) < 0.3], "trajectory 0"),
    "another spacing in the panel": ([FRAME, FRAME[::4]], "trajectory 1"),
    "another day of the month": ([FRAME[:100].set_axis(pd.date_range("2000-01-01", periods=100, freq=freq)) for freq in ("MS", "ME")], "trajectory 1"),
    "numbers at random": (FRAME.set_axis(np.sort(RNG.uniform(size=len(FRAME)))), "trajectory 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", IRREGULAR)
def test_times_without_a_common_spacing_are_refused(case):
    X, name = IRREGULAR[case]
    with pytest.raises(
        ValueError, match=f"the times of {name} do not keep to the spacing of the series, .* is expected after"
    ):
        windows_of(X, {"calendar": None})


def test_whole_numbers_that_keep_to_no_spacing_name_rows():
    rows = FRAME.reset_index(drop=True)
    assert len(windows_of(rows[RNG.random(len(rows)) < 0.4])) > 100
    with pytest.warns(UserWarning, match=r"1 gap\(s\) in time \(the first: trajectory 0 between 4 and 7\): 1 of 477"):
        windows_of(rows.drop([5, 6]))


# -- histories --------------------------------------------------------------------------------------------------------

HISTORIES = {
    "a hole": (FRAME[:400].drop(HOURS[398]), "2021-03-17 14:00:00 is expected after 2021-03-17 13:00:00, but 2021-03-17 15:00:00"),
    "every fourth row": (FRAME[:400:4], r"'h': .* is expected after .* \(9 of 9 steps\)"),
    "random times": (FRAME[:400].set_axis(HOURS[:400] + pd.to_timedelta(RNG.uniform(0, 3500, 400), unit="s")), "is expected after"),
    "days": (FRAME[:40].set_axis(pd.date_range("2021-01-01", periods=40)), r"is expected after"),
    "unsorted": (FRAME[:400].iloc[::-1], "must increase"),
    "a zone": (FRAME[:400].tz_localize("UTC"), "are of the zone UTC, but those of the model have none"),
    "numbers": (FRAME[:400].set_axis(np.arange(0, 800, 2)), "are numbers, but those of the model are dates"),
}  # fmt: skip


@pytest.mark.parametrize("case", HISTORIES)
def test_histories_of_other_times_are_refused_by_name(hourly, case):
    X, message = HISTORIES[case]
    ahead = FRAME[["price"]][400:]
    for call in (
        lambda: hourly.predict([FRAME[:400], X], future=[ahead, ahead]),
        lambda: hourly.rollout([FRAME[:400], X], 3, future=[ahead, ahead]),
    ):
        with pytest.raises(ValueError, match=f"the times of history 1 .*{message}"):
            call()


def test_only_the_end_of_a_history_counts(hourly):
    """What is wrong before it, in values or times, changes nothing."""
    whole, ahead = FRAME[:400], FRAME[["price"]]
    expected = hourly.predict(whole, future=ahead)
    holed = whole.mask(np.arange(400)[:, None] < [397, 380])
    for history in (
        holed,
        whole.drop(HOURS[380]),
        pd.concat([whole[:10], whole[300:]]),
        whole[391:],
    ):
        np.testing.assert_array_equal(hourly.predict(history, future=ahead), expected)
    with pytest.raises(ValueError, match=r"X contains NaN: history 0, frame 398, column 'y'"):
        hourly.predict(whole.mask(np.arange(400)[:, None] == [398, -1]), future=ahead)


def test_other_zones_are_converted():
    zone, other = "Europe/Berlin", "Asia/Kolkata"
    aware = FRAME.tz_localize("UTC").tz_convert(zone)
    forecaster = tiny(n_lags=2).fit(aware)
    np.testing.assert_array_equal(forecaster.predict(aware.tz_convert(other)), forecaster.predict(aware))
    np.testing.assert_array_equal(
        forecaster.rollout(aware.tz_convert("UTC"), 5, random_state=0), forecaster.rollout(aware, 5, random_state=0)
    )
    assert forecaster.score(aware.tz_convert(other)) == forecaster.score(aware)
    same_windows(
        windows_like_fit(forecaster, [aware[:50].tz_convert(other)], None),
        windows_like_fit(forecaster, aware[:50], None),
    )
    for call in (forecaster.predict, forecaster.score):
        with pytest.raises(ValueError, match=f"have no time zone, .* of {zone}: .*tz_localize"):
            call(FRAME)
    with pytest.raises(ValueError, match="the times of trajectory 1 have no time zone"):
        windows_of([aware, FRAME])


def test_opening_hours_go_on_at_the_next_opening():
    forecaster = tiny(n_lags=3, calendar=["week", "day"]).fit(OFFICE)
    friday = OFFICE[OFFICE.index < "2021-03-13"]
    monday = OFFICE.index[OFFICE.index > "2021-03-13"]
    layout = forecaster.fitted_.layout
    assert list(layout.instants_ahead(friday.index, 12)) == list(monday[:12])
    windows, _ = contexts_like_fit(forecaster, friday, None, 1)
    every = windows_like_fit(forecaster, OFFICE, None)
    row = len(friday) - 3
    np.testing.assert_array_equal(windows.contexts(np.array([0])), every.contexts(np.array([row])))
    np.testing.assert_array_equal(windows.calendar[0], every.calendar[row])
    assert len(every) == len(OFFICE) - 3  # nights are no gaps
    with pytest.raises(ValueError, match="45 times a week, from Mon 9:00 to Fri 17:00: .*is expected after"):
        forecaster.predict(FRAME[:200])  # the whole day
    with pytest.raises(ValueError, match="is expected after"):
        forecaster.predict(OFFICE.iloc[::9])


def test_holidays_are_no_gaps_in_histories_if_training_had_some():
    days = pd.bdate_range("2020-01-01", periods=300)
    frame = pd.DataFrame({"a": RNG.normal(size=300)}, days)
    closed = frame.drop(days[[20, 100, 250]])
    assert np.isfinite(tiny(n_lags=5).fit(closed).predict(closed[:101])).all()
    with pytest.raises(ValueError, match="do not keep to the spacing of the series, 'B'"):
        tiny(n_lags=5).fit(frame).predict(closed[:101])


# -- what is known ahead ----------------------------------------------------------------------------------------------


def test_what_is_known_ahead_is_found_by_its_times(hourly):
    history, ahead = FRAME[:400], FRAME[["price"]]
    expected = hourly.rollout(history, 4, random_state=0, future=ahead[400:404].to_numpy()[None])
    assert not np.array_equal(hourly.rollout(history, 4, random_state=0, future=ahead[:4].to_numpy()[None]), expected)
    for future in (
        ahead,
        FRAME,
        ahead[398:],
        [ahead[400:404]],
        ahead.set_axis(HOURS.astype(str)),
        ahead.to_period("h"),
        ahead[400:].reset_index(drop=True),
        ahead[400:].drop(HOURS[420]),
    ):
        np.testing.assert_array_equal(hourly.rollout(history, 4, random_state=0, future=future), expected)


FUTURES = {
    "another start": (FRAME[["price"]][401:], "78|79 row"),
    "the past alone": (FRAME[["price"]][:400], r"400 row\(s\) from 2021-03-01 00:00:00 to 2021-03-17 15:00:00, but after 2021-03-17 15:00:00 come 2021-03-17 16:00:00 to 2021-03-17 17:00:00"),
    "a year off": (FRAME[["price"]].set_axis(HOURS + pd.DateOffset(years=1)), r"from 2022-03-01"),
    "too short": (FRAME[["price"]][:401], r"of which 2021-03-17 17:00:00 is missing \(1 in all\)"),
    "another spacing": (FRAME[["price"]][400:].iloc[::2], "of which 2021-03-17 17:00:00 is missing"),
    "a hole": (FRAME[["price"]].drop(HOURS[400]), "of which 2021-03-17 16:00:00 is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", FUTURES)
def test_what_does_not_follow_the_history_is_refused(hourly, case):
    future, message = FUTURES[case]
    with pytest.raises(ValueError, match=f"future 0 does not follow its history: it has .*{message}"):
        hourly.predict(FRAME[:400], future=future)
    with pytest.raises(ValueError, match="future 1 does not follow its history"):
        hourly.predict([FRAME[:400]] * 2, future=[FRAME, future])
    with pytest.raises(ValueError, match="the times of future 0 are of the zone UTC"):
        hourly.predict(FRAME[:400], future=FRAME.tz_localize("UTC"))


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_series_of_pandas_with_a_calendar_goes_through_a_file(tmp_path):
    forecaster = tiny().fit(FRAME["y"])
    assert forecaster.calendar_ == ("week", "day")
    forecaster.save(tmp_path / "series.safetensors")
    loaded = flowmatch.load(tmp_path / "series.safetensors")
    assert loaded.fitted_.layout == forecaster.fitted_.layout
    np.testing.assert_array_equal(loaded.predict(FRAME["y"]), forecaster.predict(FRAME["y"]))


def test_regular_series_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for X in (
            FRAME,
            list(SHOPS.values()),
            OFFICE,
            FRAME.to_numpy(),
            FRAME.tz_localize("Europe/Berlin", nonexistent="shift_forward").iloc[:500],
        ):
            windows_of(X)
