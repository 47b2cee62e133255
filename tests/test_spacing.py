"""Spacings: what follows an instant is learned from series as they are, and what does not follow is told."""

import datetime

import numpy as np
import pandas as pd
import pytest

from flowmatch.core.storable import fields_to_store, rebuild
from flowmatch.preprocessing import Spacing, clock_of, instants_of, learn_spacing

HOURS = pd.date_range("2021-03-01", periods=24 * 120, freq="h")
"""From a Monday on."""


def days_of(every, day, years=10):
    months = pd.date_range("2010-01-01", periods=12 * years, freq="MS")[::every]
    return months + pd.Timedelta(days=day - 1)


def open_at(hours, days, index=HOURS):
    return index[np.isin(index.hour, hours) & np.isin(index.day_of_week, days)]


REGULAR = {
    **{
        freq: pd.date_range("2019-01-01 08:00", periods=60 if freq.startswith("Y") else 400, freq=freq)
        for freq in ("h", "15min", "7h", "10s", "D", "2D", "W-SUN", "B", "MS", "ME", "2MS", "QE-DEC", "BME", "YS-JUL", "WOM-3FRI")
    },
    "every 15th": days_of(1, 15),
    "quarters on the 10th": days_of(3, 10, 30),
    "every 4th of July": pd.DatetimeIndex([f"{year}-07-04" for year in range(1950, 2020)]),
    "office hours": open_at(range(9, 18), range(5)),
    "a shop": open_at(range(10, 19), range(1, 6)),
    "every night": open_at((22, 23, 0, 1, 2), range(7)),
    "two sessions": open_at((9, 16), range(5)),
    "around the clock on weekdays": open_at(range(24), range(5)),
    "Tuesday to Saturday": open_at((0,), range(1, 6)),
    "hours in Berlin": pd.date_range("2021-01-01", periods=24 * 200, freq="h", tz="Europe/Berlin"),
    "days in Berlin": pd.date_range("2021-01-01", periods=400, freq="D", tz="Europe/Berlin"),
    "office hours in Berlin": open_at(range(9, 18), range(5), HOURS.tz_localize("Europe/Berlin", nonexistent="shift_forward").unique()),
}  # fmt: skip


@pytest.mark.parametrize("case", REGULAR)
def test_series_go_on_as_they_did(case):
    """Learned from the first part, the spacing tells the instants of the rest, each from the one before, and all from the first."""
    index = pd.DatetimeIndex(REGULAR[case], freq=None)
    n = len(index) - 30
    spacing = learn_spacing([index[:n]], clock_of(index, "X"))
    assert not spacing.gaps(index).any()
    for step in (1, 2, 7, 20):
        assert list(spacing.after(index[n - 1 : n], step)) == list(index[n - 1 + step : n + step])
        assert list(spacing.after(index[n : n + 5], step)) == list(index[n + step : n + step + 5])
    assert rebuild(Spacing, fields_to_store(spacing)) == spacing


@pytest.mark.parametrize("case", [*REGULAR])
def test_what_does_not_follow_is_told(case):
    index = pd.DatetimeIndex(REGULAR[case], freq=None)
    spacing = learn_spacing([index], clock_of(index, "X"))
    for holed, at in (
        (index.delete(slice(30, 50)), 29),
        (index.delete([31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41]), 30),
    ):
        assert np.flatnonzero(spacing.gaps(holed)).tolist() == [at]
    assert spacing.gaps(index[::4]).all() or case == "W-SUN"
    assert spacing.gaps(
        index + pd.to_timedelta(np.random.default_rng(0).uniform(0, 9, len(index)) * 1e8, unit="s")
    ).all()


def test_holes_do_not_hide_the_spacing():
    for freq in ("h", "D", "MS", "W-SUN"):
        whole = pd.date_range("2020-01-01", periods=300, freq=freq)
        holed = whole.delete([20, 90, 91, 150])
        spacing = learn_spacing([holed], "naive")
        assert spacing.after(whole[-1:], 1) == whole[-1:] + whole.freq
        assert spacing.gaps(holed).sum() == 3
    few = pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-07"])
    assert learn_spacing([few], "naive").gaps(few).tolist() == [False, False, True]


def test_holidays_of_working_days_are_no_gaps_and_absent_hours_are():
    for index in (
        pd.date_range("2019-01-01", periods=500, freq="B"),
        REGULAR["office hours"],
        REGULAR["around the clock on weekdays"],
    ):
        days = index.normalize().unique()
        closed = index[~np.isin(index.normalize(), days[[20, 40, 41]])]
        spacing = learn_spacing([closed], "naive")
        assert spacing.closed_days >= 2
        assert not spacing.gaps(closed).any()
        follows, holidays = spacing.steps_of(closed)
        assert holidays.sum() == 2
        assert (follows | holidays).all()
        assert not learn_spacing([index], "naive").closed_days  # none in training: none later
        assert learn_spacing([index], "naive").gaps(closed).sum() == 2
        weeks_away = index[~np.isin(index.normalize(), days[20:45])]
        assert learn_spacing([weeks_away], "naive").gaps(weeks_away).sum() == 1
    office = REGULAR["office hours"]
    assert learn_spacing([office], "naive").gaps(office.delete([12, 13])).sum() == 1
    half = pd.date_range("2019-01-01", periods=500, freq="B")[np.random.default_rng(0).random(500) < 0.6]
    assert learn_spacing([half], "naive").gaps(half).mean() > 0.2  # too many for holidays


@pytest.mark.parametrize(
    ("n_days", "following"),
    [(4, "2021-03-05 09:00"), (5, "2021-03-08 09:00"), (9, "2021-03-10 09:00"), (12, "2021-03-15 09:00")],
)
def test_opening_hours_are_seen_within_days(n_days, following):
    index = REGULAR["office hours"]
    index = index[index < HOURS[0] + pd.Timedelta(days=n_days)]
    spacing = learn_spacing([index], "naive")
    assert spacing.after(index[-1:], 1) == pd.DatetimeIndex([following])


def test_days_in_a_zone_keep_the_hour_and_hours_go_on():
    before = pd.DatetimeIndex(["2021-03-27 12:00"]).tz_localize("Europe/Berlin")  # clocks go forward in the night
    assert Spacing("D", "Europe/Berlin").after(before, 1)[0] == pd.Timestamp("2021-03-28 12:00", tz="Europe/Berlin")
    assert Spacing("h", "Europe/Berlin").after(before, 24)[0] == pd.Timestamp("2021-03-28 13:00", tz="Europe/Berlin")


def test_indexes_are_read_as_instants():
    days = pd.date_range("2021-03-01", periods=40)
    for index in (
        days,
        days.to_period("D"),
        days.astype(str),
        days.strftime("%d %b %Y"),
        days.strftime("%Y%m%d"),
        pd.Index([day.date() for day in days]),
        pd.Index([day.to_pydatetime() for day in days], dtype=object),
        pd.CategoricalIndex(days.astype(str)),
    ):
        assert list(instants_of(index, "a")) == list(days)
    for index in (pd.RangeIndex(40), [f"row {i}" for i in range(40)], list("ab") * 20, [str(i) for i in range(40)]):
        assert instants_of(pd.Index(index), "a") is None
    seconds = instants_of(pd.to_timedelta(np.arange(40), unit="min"), "a")
    assert learn_spacing([seconds], "numbers") == Spacing(60.0, "numbers")
    assert instants_of(pd.RangeIndex(40)[::4], "a").tolist() == list(range(0, 40, 4))
    assert instants_of([].index, "a") is None


BAD_INDEXES = {
    "one word among dates": (["2021-03-01", "2021-03-02", "soon"], r"cannot all be read as dates: row 0 has '2021-03-01', but row 2 has 'soon'"),
    "no time": ([datetime.datetime(2021, 3, 1), pd.NaT, datetime.datetime(2021, 3, 3)], r"have a gap: row 1 has NaT"),
    "unsorted": (["2021-03-01", "2021-03-03", "2021-03-02"], r"must increase: row 2 has 2021-03-02 .*Sort the rows"),
    "unsorted numbers": ([2.0, 1.0, 3.0], r"must increase: row 1 has 1.0 after 2.0"),
    "repeated": (["2021-03-01", "2021-03-01", "2021-03-02"], r"must increase: row 1 .*tell series apart"),
    "offsets that differ": (["2021-03-28T00:00+01:00", "2021-03-28T03:00+02:00", "2021-03-28T04:00+02:00"], "cannot be read as dates"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_times_that_cannot_be_read_are_named(case):
    index, message = BAD_INDEXES[case]
    with pytest.raises(ValueError, match=f"the times of shop {message}"):
        instants_of(pd.Index(index), "shop")


def test_clocks_are_converted_or_refused():
    index, spacing = pd.date_range("2021-03-01", periods=5, freq="h"), Spacing("h", "Europe/Berlin")
    there = index.tz_localize("Asia/Tokyo")
    assert (spacing.in_own_clock(there, "X") == there).all()
    assert str(spacing.in_own_clock(there, "X").tz) == "Europe/Berlin"
    assert Spacing("h").in_own_clock(index, "X") is index  # files of earlier versions do not tell
    for other, own, message in (
        (index, "Europe/Berlin", "have no time zone, but those of the model are of Europe/Berlin"),
        (there, "naive", "are of the zone Asia/Tokyo, but those of the model have none"),
        (pd.Index([1.0, 2.0]), "naive", "are numbers, but those of the model are dates"),
        (there, "numbers", "are dates, but those of the model are numbers"),
    ):
        with pytest.raises(ValueError, match=f"the times of X {message}"):
            Spacing("h" if own != "numbers" else 1.0, own).in_own_clock(other, "X")
    with pytest.raises(ValueError, match="the times of X are of a zone without a name"):
        clock_of(index.tz_localize(datetime.timezone(datetime.timedelta(hours=1), "here")), "X")


@pytest.mark.parametrize(
    "damage",
    [
        {"step": "fortnight"},
        {"step": -1.0},
        {"slots": (5, 3)},
        {"slots": (7 * 86400,)},
        {"closed_days": -1},
        {"clock": 3},
    ],
    ids=str,
)
def test_spacings_that_do_not_fit_are_refused(damage):
    values = fields_to_store(Spacing("h", "naive", (0, 3600)))
    with pytest.raises(ValueError, match="fit|requency"):
        rebuild(Spacing, {**values, **damage})
