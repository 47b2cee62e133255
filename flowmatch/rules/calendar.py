"""Rules that dates keep: steps of time, hours of the day, days of the week, days and months of the calendar."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from flowmatch.core.storable import require, storable
from flowmatch.core.types import AnyArray, Array, Integers, Mask
from flowmatch.rules.numbers import (
    CHANCE,
    LEAST_VALUES,
    NumberRule,
    common_step,
    evidence,
    frequent_exceptions,
    keeps,
    log_chance_of,
    most_frequent,
    nearest,
)
from flowmatch.tables.dates import NANOSECONDS, DateGrid

_NONE: Integers = np.empty(0, dtype=np.int64)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

LEAST_DAYS = 10
"""Times on fewer different days stay one column."""

_UNEVEN = 0.03
"""Largest distance from an even distribution over the day that is taken for one, beyond that of chance."""

_LONGEST = 400_000
"""Most days between the first and the last date for which days of the calendar are listed."""


@storable
@dataclass(frozen=True, eq=False)
class CalendarRule(DateGrid):
    """Dates on a step of time, at some hours, and on some days, as the clock of their time zone shows them.

    Parameters
    ----------
    unit, tick, origin, timezone, wall
        What numbers of dates count, as in `DateGrid`.
    step, offset : int
        Distance of the dates, and one of them modulo the step, in units of `tick` since 1970.
    hours : ndarray of int, shape (h,)
        Hours of the day at which there are dates; empty for all.
    weekdays : ndarray of int, shape (w,)
        Days of the week, 0 for Monday; empty for all.
    months : ndarray of int, shape (m,)
        Months of the year, from 1; empty for all.
    counted : {"start", "end", "business start", "business end"}, default="start"
        Which days of the month `days` counts, and from which end.
    days : ndarray of int, shape (k,)
        Days of the month, from 1 as counted; empty for all.
    exceptions : ndarray of int, shape (e,)
        Frequent dates that break the rule, in units of `tick` on the clock.
    limits : ndarray of int, shape (2,)
        First and last date that keeps it.
    """

    step: int = 1
    offset: int = 0
    hours: Integers = field(default_factory=lambda: _NONE)
    weekdays: Integers = field(default_factory=lambda: _NONE)
    months: Integers = field(default_factory=lambda: _NONE)
    counted: str = "start"
    days: Integers = field(default_factory=lambda: _NONE)
    exceptions: Integers = field(default_factory=lambda: _NONE)
    limits: Integers = field(default_factory=lambda: np.zeros(2, dtype=np.int64))

    def check(self) -> None:
        """Raise a ValueError if this is no such rule."""
        super().check()
        sizes = {"hours": (0, 23), "weekdays": (0, 6), "months": (1, 12), "days": (1, 31)}
        for name, (low, high) in sizes.items():
            chosen = getattr(self, name)
            require(chosen.ndim == 1 and (np.diff(chosen) > 0).all(), "rule")
            require(not len(chosen) or (low <= chosen[0] and chosen[-1] <= high), "rule")
        require(self.kind == "datetime" and self.counted in _COUNTED, "rule")
        require(self.step >= 1 and 0 <= self.offset < self.step, "rule")
        require(self.limits.shape == (2,) and self.limits[0] <= self.limits[1], "rule")
        span = int(self.limits[1]) // self.ticks_in_day - int(self.limits[0]) // self.ticks_in_day
        require(not self.has_sets or (span <= _LONGEST and len(self._days) > 0), "rule")

    @property
    def has_sets(self) -> bool:
        """Whether there are dates on some days only."""
        return bool(len(self.weekdays) or len(self.months) or len(self.days))

    @cached_property
    def _days(self) -> Integers:
        """Days since 1970 on which there are dates, in order."""
        first, last = (int(limit) // self.ticks_in_day for limit in self.limits)
        days = np.arange(first, last + 1)
        return days[_fits(days, self)]

    def snap(self, numbers: Array) -> Array:
        """Move dates to near ones that keep the rule.

        Parameters
        ----------
        numbers : ndarray of shape (n,)
            Numbers of dates.

        Returns
        -------
        ndarray of shape (n,)
            Those of dates that keep the rule, or are frequent exceptions to it.
        """
        clock = self.clock(numbers)
        return self.numbers_of_clock(np.where(np.isin(clock, self.exceptions), clock, self.nearest(clock)))

    def nearest(self, clock: Integers) -> Integers:
        """Find near times that keep the rule.

        Parameters
        ----------
        clock : ndarray of int, shape (n,)
            What the clock shows, in units of `tick`.

        Returns
        -------
        ndarray of int, shape (n,)
            Times between the first and the last that keep it.
        """
        clock = np.clip(clock, *self.limits)
        if len(self.hours):
            hour = self.ticks_in_day // 24
            day, time = np.divmod(clock, self.ticks_in_day)
            clock = day * self.ticks_in_day + nearest(self.hours, time // hour) * hour + time % hour
        else:  # what is rounded up may be in the next hour
            clock = clock + self.step // 2
        clock = clock - (clock - self.offset) % self.step
        if self.has_sets:
            day, time = np.divmod(clock, self.ticks_in_day)
            clock = nearest(self._days, day) * self.ticks_in_day + time
        return np.clip(clock, *self.limits)

    @property
    def resolution(self) -> float:
        """Difference between numbers that matters."""
        return 1.0

    @property
    def exception_numbers(self) -> Array:
        """Numbers of the exceptions, in order."""
        return self.numbers_of_clock(self.exceptions)

    @property
    def steps(self) -> NumberRule | None:
        """The step alone, as a rule of the dates' numbers; None for the clock of a time zone that is not counted on."""
        size = self.ticks_in_unit
        if self.step % size or (self.timezone and not self.wall):
            return None
        residue = np.array([((self.offset - self.origin) % self.step) / size])
        return NumberRule(0, self.step // size, residue, limits=self.numbers_of_clock(self.limits))

    def values(self, most: int) -> Array | None:
        """List the numbers of the dates that keep the rule, in order.

        Parameters
        ----------
        most : int
            Most values.

        Returns
        -------
        ndarray of shape (n,) or None
            None if there are more than `most`, or too many steps to look through.
        """
        low, high = map(int, self.limits)
        if (high - low) // self.step > 16 * most:
            return None
        clock = np.arange(low, high + 1, self.step, dtype=np.int64)
        clock = clock[self.nearest(clock) == clock]
        return self.numbers_of_clock(clock) if len(clock) <= most else None

    def parts(self, most: int) -> tuple[Integers | None, Integers | None]:
        """List the days and the times of day of the dates that keep the rule, both in order.

        Parameters
        ----------
        most : int
            Most times of day.

        Returns
        -------
        days : ndarray of int or None
            Days since 1970; None if there are dates on all.
        times : ndarray of int or None
            In units of `tick`; None if there are more than `most`, or others every day.
        """
        size = self.ticks_in_day
        times = None
        if size % self.step == 0 and size // self.step <= most:
            times = np.arange(self.offset, size, self.step)
            times = times[np.isin(times // (size // 24), self.hours)] if len(self.hours) else times
        return self._days if self.has_sets else None, times

    def __str__(self) -> str:
        parts = []
        if self.step % self.ticks_in_day == 0:
            parts.append(f"every {self.step // self.ticks_in_day} days" if self.step > self.ticks_in_day else "dates")
        elif self.step > 1:
            parts.append(f"steps of {_duration(self.step, np.datetime_data(self.tick)[0])}")
        if len(self.hours):
            parts.append(f"hours {_ranges(self.hours)}")
        if len(self.weekdays):
            parts.append(", ".join(DAYS[day] for day in self.weekdays))
        if len(self.days):
            which = {"start": "days", "end": "days before the end", "business start": "business days"}
            parts.append(f"{which.get(self.counted, 'business days before the end')} {_ranges(self.days)} of the month")
        if len(self.months):
            parts.append(f"months {_ranges(self.months)}")
        return "; ".join(parts) or "times"


_COUNTED = ("start", "end", "business start", "business end")

_MOST_DAYS = 10
"""Most days of the month that are a rule."""


def find_calendar_rule(column: Array, grid: DateGrid) -> CalendarRule | None:
    """Find the rule that all but a few dates of a column keep.

    Parameters
    ----------
    column : ndarray of shape (n,)
        Numbers of dates, none of them missing.
    grid : DateGrid
        What they count.

    Returns
    -------
    CalendarRule or None
        None if there is no rule.
    """
    clock, counts = np.unique(grid.clock(column), return_counts=True)
    judged = evidence(counts)
    step, offset = common_step(clock, judged)
    rule = CalendarRule(**vars(grid), step=step, offset=offset, limits=clock[[0, -1]])
    on_step = ((clock - offset) % step == 0) & (judged > 0)
    rule = _with_hours(rule, clock[on_step], judged[on_step])
    if rule.ticks_in_day % step == 0 and clock[-1] // rule.ticks_in_day - clock[0] // rule.ticks_in_day <= _LONGEST:
        rule = _with_days(rule, clock[on_step] // rule.ticks_in_day, judged[on_step])
    if rule.step == 1 and not rule.has_sets and not len(rule.hours):
        return None
    kept = rule.nearest(clock) == clock
    if not keeps(kept, judged):
        return None
    exceptions = frequent_exceptions(clock, counts, kept)
    return replace(rule, limits=clock[kept][[0, -1]], exceptions=exceptions.astype(np.int64))


def has_two_parts(column: Array, grid: DateGrid, rule: CalendarRule | None) -> bool:
    """Say whether the times of day of dates are worth a column of their own.

    Parameters
    ----------
    column : ndarray of shape (n,)
        Numbers of dates, none of them missing.
    grid : DateGrid
        What they count.
    rule : CalendarRule or None
        What they keep to.

    Returns
    -------
    bool
        Whether they are not spread evenly over the day, and on several days.
    """
    size = grid.ticks_in_day
    if rule and rule.step >= size:
        return False
    days, times = np.divmod(np.unique(grid.clock(column)), size)
    if len(np.unique(days)) < LEAST_DAYS or len(np.unique(times)) < 2:
        return False
    step = rule.step if rule else 1
    times = np.sort((times + 0.5 * step) / size)
    distance = np.abs(times - (np.arange(len(times)) + 0.5) / len(times)).max()
    return bool(distance > _UNEVEN + 1.6 / np.sqrt(len(times)))


def _with_hours(rule: CalendarRule, clock: Integers, counts: Integers) -> CalendarRule:
    hour = rule.ticks_in_day // 24
    if hour == 0 or rule.step >= rule.ticks_in_day:
        return rule
    rows = np.bincount(clock % rule.ticks_in_day // hour, weights=counts, minlength=24)
    n_possible = 24 if rule.step <= hour or rule.ticks_in_day % rule.step else rule.ticks_in_day // rule.step
    return replace(rule, hours=_chosen(rows, n_possible, len(clock)))


def _with_days(rule: CalendarRule, day: Integers, counts: Integers) -> CalendarRule:
    days, inverse = np.unique(day, return_inverse=True)
    if len(days) < LEAST_VALUES:
        return rule
    rows = np.bincount(inverse, weights=counts)

    def chosen(numbers: Integers, n_possible: int, n_values: int = len(days)) -> Integers:
        return _chosen(np.bincount(numbers, weights=rows), n_possible, n_values)

    months = chosen(_month(days), 12, len(np.unique(_months_since_1970(days))))
    rule = replace(rule, weekdays=chosen(_weekday(days), 7), months=months)
    ways = {how: chosen(_day_of_month(days, how), 23 if "business" in how else 31) for how in _COUNTED}
    few = [how for how, numbers in ways.items() if 0 < len(numbers) <= _MOST_DAYS and numbers[0] > 0]
    if not few:
        return rule
    counted = min(few, key=lambda how: len(ways[how]))
    return replace(rule, counted=counted, days=ways[counted])


def _chosen(rows: AnyArray, n_possible: int, n_values: int) -> Integers:
    """The few positions that hold nearly all rows; none if that may be chance."""
    chosen = most_frequent(rows)
    return chosen if log_chance_of(len(chosen), n_possible, n_values) < CHANCE else _NONE


def _fits(days: Integers, rule: CalendarRule) -> Mask:
    parts = {"weekdays": _weekday(days), "months": _month(days), "days": _day_of_month(days, rule.counted)}
    chosen = [np.isin(part, getattr(rule, name)) for name, part in parts.items() if len(getattr(rule, name))]
    return np.logical_and.reduce(chosen)


def _weekday(days: Integers) -> Integers:
    return (days + 3) % 7  # the first day of 1970 was a Thursday


def _months_since_1970(days: Integers) -> Integers:
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def _month(days: Integers) -> Integers:
    return _months_since_1970(days) % 12 + 1


def _day_of_month(days: Integers, counted: str) -> Integers:
    """Day of the month as counted from either end, from 1; 0 for a weekend where business days count."""
    months = _months_since_1970(days)
    first, end = (months + k for k in (0, 1))
    first, end = (month.astype("datetime64[M]").astype("datetime64[D]") for month in (first, end))
    dates = days.astype("datetime64[D]")
    if counted in ("start", "end"):
        return (dates - first).astype(np.int64) + 1 if counted == "start" else (end - dates).astype(np.int64)
    numbers = np.busday_count(first, dates) + 1 if counted == "business start" else np.busday_count(dates, end)
    return np.where(np.is_busday(dates), numbers, 0)


def _duration(step: int, unit: str) -> str:
    """A step of time as text, in the coarsest unit that is whole."""
    nanoseconds = step * NANOSECONDS[unit]
    for name, size in NANOSECONDS.items():
        if nanoseconds % size == 0:
            return f"{nanoseconds // size} {name}"
    return f"{step} {unit}"


def _ranges(numbers: Integers) -> str:
    """Whole numbers as text: "1, 5 to 8"."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts)
