"""The spacing of instants: which one follows which, where some are missing, and which come next."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Mask
from flowmatch.preprocessing.calendar import seconds_between, spacing_of

NUMBERS, NAIVE = "numbers", "naive"
CLOSED_DAYS = 5
"""Working days in a row that may be closed where training had such days at all."""

_MOST_CLOSED_DAYS = 10
_SLACK = 1e-2  # of a step, by which fixed steps may be off: files round times
_DAY, _WEEK = 86400, 7 * 86400
_SELDOM = 0.125  # share of steps that may go over closed days
_MONTHS = "months="


@storable
@dataclass(frozen=True)
class Spacing:
    """What leads from one instant of a series to the next.

    Parameters
    ----------
    step : str or float
        An offset of pandas by name, "months=3" for the same day three months on, or seconds; of numbers in their unit.
    clock : str, default=""
        What instants are: "numbers", "naive" (without time zone), or the name of their zone. Empty where that is not
        known, as in files of earlier versions: nothing is checked then.
    slots : tuple of int, default=()
        Where series keep to days and hours of the week: these, in seconds of wall time since Monday 0:00. The next
        instant is the next of them, whatever `step` is.
    closed_days : int, default=0
        Working days in a row that may be left out, such as holidays.
    """

    step: str | float
    clock: str = ""
    slots: tuple[int, ...] = ()
    closed_days: int = 0

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored spacing do not fit each other."""
        increasing = all(a < b for a, b in zip((-1, *self.slots), (*self.slots, _WEEK), strict=True))
        require(increasing and self.closed_days >= 0, "spacing")
        if isinstance(self.step, str):
            self._offset()  # raises for what pandas does not know
        else:
            require(self.step > 0 or not self.clock, "spacing")

    def __str__(self) -> str:
        if self.slots:
            return f"{len(self.slots)} times a week, from {_in_week(self.slots[0])} to {_in_week(self.slots[-1])}"
        if isinstance(self.step, str):
            n_months = self.step.removeprefix(_MONTHS)
            return f"the same day every {n_months} month(s)" if self.step != n_months else f"{self.step!r}"
        if self.clock == NUMBERS:
            return f"{self.step:g}"
        import pandas as pd

        return str(pd.Timedelta(seconds=self.step))

    @property
    def is_timed(self) -> bool:
        """Whether instants are dates, and known well enough to be checked."""
        return self.clock not in ("", NUMBERS)

    # -- which instants follow ----------------------------------------------------------------------------------------

    def after(self, instants: Any, steps: int) -> Any:
        """Find the instants that come so many steps later.

        Parameters
        ----------
        instants : DatetimeIndex, or Index of numbers, of length n
            Where to start from, in the zone of the spacing.
        steps : int
            How many steps to go.

        Returns
        -------
        Index of length n
            Of the same kind.
        """
        import pandas as pd

        if self.clock == NUMBERS:
            return instants + steps * float(self.step)
        if self._seconds is not None:
            return instants + pd.Timedelta(seconds=steps * self._seconds)
        wall = _wall(instants)
        if not self.slots:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pd.errors.PerformanceWarning)  # offsets such as third Fridays
                later = wall + steps * self._offset()
        else:
            slots, since = np.array(self.slots), _seconds_of_week(wall)
            weeks, place = np.divmod(np.searchsorted(slots, since, side="right") - 1 + steps, len(slots))
            later = wall + pd.to_timedelta(weeks * _WEEK + slots[place] - since, unit="s")
        if instants.tz is None:
            return later
        return later.tz_localize(instants.tz, nonexistent="shift_forward", ambiguous=np.ones(len(later), dtype=bool))

    def steps_of(self, index: Any) -> tuple[Mask, Mask]:
        """Tell how instants go on.

        Parameters
        ----------
        index : DatetimeIndex, or Index of numbers, of length n
            In order, in the zone of the spacing.

        Returns
        -------
        follows : ndarray of bool, shape (n - 1,)
            Where an instant is the next one.
        closed : ndarray of bool, shape (n - 1,)
            Where only closed days lie between.
        """
        fixed = float(self.step) if self.clock == NUMBERS else self._seconds
        if fixed is not None:
            steps = np.diff(index.to_numpy(np.float64)) if self.clock == NUMBERS else seconds_between(index)
            return np.abs(steps - fixed) <= _SLACK * fixed, np.zeros(len(steps), dtype=bool)
        wall = _wall(index)
        follows = np.asarray(self.after(wall[:-1], 1) == wall[1:])
        if self.slots:
            follows &= np.isin(_seconds_of_week(wall[:-1]), self.slots)
        n_days = self._closed_between(wall)
        return follows, ~follows & (n_days >= 0) & (n_days <= self.closed_days) & (self.closed_days > 0)

    def gaps(self, index: Any) -> Mask:
        """Tell where a series has gaps.

        Parameters
        ----------
        index : DatetimeIndex, or Index of numbers, of length n
            In order, in the zone of the spacing.

        Returns
        -------
        ndarray of bool, shape (n - 1,)
            Where neither the next instant comes nor closed days lie between.
        """
        follows, closed = self.steps_of(index)
        return ~(follows | closed)

    def with_closed_days_of(self, index: Any) -> Spacing:
        """Allow for as many closed days as a series has, where they are few among its steps.

        Parameters
        ----------
        index : DatetimeIndex
            Instants of the series.

        Returns
        -------
        Spacing
            The spacing itself, if there are none.
        """
        wide = replace(self, closed_days=_MOST_CLOSED_DAYS)
        _, closed = wide.steps_of(index)
        if not closed.any() or closed.mean() > _SELDOM:
            return self
        return replace(self, closed_days=max(CLOSED_DAYS, int(self._closed_between(_wall(index))[closed].max())))

    def _closed_between(self, wall: Any) -> Array:
        """Working days between instants and the next ones; -1 where anything but whole days or ends of days misses."""
        if not (self.slots or self.step == "B"):
            return np.full(len(wall) - 1, -1.0)
        days, ends, starts = np.arange(7) < 5, np.ones(len(wall), dtype=bool), np.ones(len(wall), dtype=bool)
        if self.slots:
            slots, since = np.array(self.slots), _seconds_of_week(wall)
            days, times = np.isin(np.arange(7), slots // _DAY), np.unique(slots % _DAY)
            ends = starts = np.isin(since, slots)
            if len(times) > 1 and _DAY - times[-1] + times[0] <= 1.5 * np.diff(times).max():  # open all night
                ends, starts = ends & (since % _DAY == times[-1]), starts & (since % _DAY == times[0])
        dates = wall.to_numpy().astype("datetime64[D]")
        between = np.busday_count(dates[:-1] + 1, dates[1:], weekmask=days.tolist())
        known = ends[:-1] & starts[1:] & (dates[1:] > dates[:-1])
        return np.where(known, between.astype(np.float64), -1.0)

    @property
    def _seconds(self) -> float | None:
        """Those of a step that is as long whatever the clocks do; None of days and longer, and of slots."""
        if self.slots:
            return None
        if not isinstance(self.step, str):
            return self.step
        import pandas as pd

        units, offset = pd.tseries.offsets, self._offset()
        short = (units.Hour, units.Minute, units.Second, units.Milli, units.Micro, units.Nano)
        return float(pd.Timedelta(offset).total_seconds()) if isinstance(offset, short) else None

    def _offset(self) -> Any:
        import pandas as pd

        step = str(self.step)
        if step.startswith(_MONTHS):
            return pd.DateOffset(months=int(step.removeprefix(_MONTHS)))
        return pd.tseries.frequencies.to_offset(step)

    # -- reading ------------------------------------------------------------------------------------------------------

    def in_own_clock(self, index: Any, name: str) -> Any:
        """Bring instants into the time zone of the spacing.

        Parameters
        ----------
        index : DatetimeIndex or Index of numbers
            Of a history.
        name : str
            What errors call the series.

        Returns
        -------
        Index
            Of the same instants.

        Raises
        ------
        ValueError
            For dates where training had numbers, times without a zone where it had one, and the reverse.
        """
        clock = clock_of(index, name)
        if self.clock in ("", clock):
            return index
        if NUMBERS in (self.clock, clock):
            raise ValueError(
                f"the times of {name} are {_KINDS.get(clock, 'dates')}, but those of the model are "
                f"{_KINDS.get(self.clock, 'dates')}. Pass the same kind, or rows without times: reset_index(drop=True)."
            )
        if clock == NAIVE:
            raise ValueError(
                f"the times of {name} have no time zone, but those of the model are of {self.clock}: say which "
                f"they are of, as in tz_localize({self.clock!r})."
            )
        if self.clock == NAIVE:
            raise ValueError(
                f"the times of {name} are of the zone {clock}, but those of the model have none: bring "
                "them to the clock of the training data by tz_convert, and take the zone off by tz_localize(None)."
            )
        return index.tz_convert(self.clock)


_KINDS = {NUMBERS: "numbers", NAIVE: "dates"}


def clock_of(index: Any, name: str) -> str:
    """Tell what instants are, as `Spacing` has it.

    Parameters
    ----------
    index : DatetimeIndex or Index of numbers
        The instants.
    name : str
        What errors call the series.

    Returns
    -------
    str
        "numbers", "naive", or the name of a time zone.

    Raises
    ------
    ValueError
        For a time zone without a name.
    """
    if index.dtype.kind != "M":
        return NUMBERS
    if index.tz is None:
        return NAIVE
    zone = str(index.tz)
    try:
        index[:0].tz_convert(zone)
    except (LookupError, ValueError, AttributeError) as error:
        raise ValueError(
            f"the times of {name} are of a zone without a name, {zone}: bring them to a named one, as in "
            "tz_convert('Europe/Berlin')."
        ) from error
    return zone


def learn_spacing(times: Sequence[Any], clock: str) -> Spacing:
    """Find the spacing of series.

    Parameters
    ----------
    times : sequence of DatetimeIndex, or of Index of numbers
        Of each series, in order; one of them has at least two.
    clock : str
        What they are, as `Spacing` has it.

    Returns
    -------
    Spacing
        That of the longest series: a fixed step, an offset of pandas, the same day of other months, or the days and
        hours of the week that come back.
    """
    longest = max(times, key=len)
    if clock == NUMBERS:
        return Spacing(_usual(np.diff(longest.to_numpy(np.float64))), clock)
    plain = Spacing(_step_of(longest), clock)
    follows, _ = plain.steps_of(longest)
    if follows.all():
        return plain
    weekly = _weekly(longest, clock)
    options = [option.with_closed_days_of(longest) for option in (plain, weekly) if option is not None]
    return min(options, key=lambda option: int(option.gaps(longest).sum()))  # of equals the first


def _step_of(index: Any) -> str | float:
    """A pandas offset by name, or seconds; "months=3" for a day of the month that pandas has no offset for."""
    offset = spacing_of((index,))
    if not hasattr(offset, "freqstr"):
        days, months = np.unique(index.day), np.diff(index.year * 12 + index.month)
        if len(days) == 1 and len(months) and months.min() > 0:
            return f"{_MONTHS}{int(_usual(months))}"
        return _usual(seconds_between(index))
    return str(offset.freqstr)


def _weekly(index: Any, clock: str) -> Spacing | None:
    """The days and hours of the week that come back in at least half of the weeks; None where that says nothing."""
    wall = _wall(index)
    since, n_days = _seconds_of_week(wall), (wall[-1] - wall[0]).days
    weeks = (wall.to_numpy().astype("datetime64[D]").astype(np.int64) + 3) // 7  # each from its Monday
    slots, counts = np.unique(since, return_counts=True)
    slots = slots[2 * counts >= len(np.unique(weeks))]
    if n_days < 14:  # too short to see hours of the week twice: hours of the day
        times, seen = np.unique(since % _DAY), np.unique(since // _DAY)
        likely = np.arange(5) if seen.max() < 5 else np.arange(7)
        slots = ((seen if n_days >= 7 else likely)[:, None] * _DAY + times).ravel()
        if 2 * len(times) > len(index):
            return None
    if len(slots) == 0 or (n_days >= 14 and 2 * len(slots) > len(index) + 1) or (wall.microsecond != 0).any():
        return None
    evenly = len(np.unique(np.diff(np.append(slots, slots[0] + _WEEK)))) == 1  # a fixed step
    return None if evenly else Spacing(_usual(seconds_between(index)), clock, tuple(slots.tolist()))


def _usual(steps: Any) -> float:
    """The step that half of all do not exceed."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def _wall(index: Any) -> Any:
    """What clocks on the wall show."""
    return index if index.tz is None else index.tz_localize(None)


def _seconds_of_week(wall: Any) -> Any:
    return np.asarray(wall.day_of_week * _DAY + wall.hour * 3600 + wall.minute * 60 + wall.second, dtype=np.int64)


def _in_week(slot: int) -> str:
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[slot // _DAY]
    return f"{day} {slot % _DAY // 3600}:{slot % 3600 // 60:02d}"
