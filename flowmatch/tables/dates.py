"""Dates and durations as whole numbers of days, hours, ... since the earliest one, and back."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowmatch.core.storable import require
from flowmatch.core.types import AnyArray, Array, Integers, Mask
from flowmatch.tables.dtype_names import check_dtypes, is_timezone

NANOSECONDS = {"D": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds in each unit of time, from the coarsest to the finest."""

EXACT = 2**53
"""Integers up to here are floating point numbers."""

OBJECTS = {
    "date": "datetime64[D]",
    "datetime": "datetime64[us]",
    "timedelta": "timedelta64[us]",
    "time": "timedelta64[us]",
}
"""Dtypes that Python's own dates and durations are converted to; the nanoseconds of pandas' are cut off."""


@dataclass(frozen=True, eq=False)
class DateGrid:
    """The grid that dates or durations lie on.

    Parameters
    ----------
    unit : {"D", "h", "m", "s", "ms", "us", "ns"}
        What they are counted in.
    tick : str
        Their dtype in numpy, such as "datetime64[ns]".
    origin : int
        What has the number 0, in the unit of that dtype (and since 1970 for dates).
    timezone : str, default=""
        Name of the time zone, "" without one; dates are then passed in UTC.
    wall : bool, default=False
        Whether dates are counted on the clock of their time zone and not in UTC: days have 23 to 25 hours.
    """

    unit: str
    tick: str
    origin: int
    timezone: str = ""
    wall: bool = False

    @classmethod
    def fit(cls, dates: AnyArray, timezone: str = "") -> DateGrid:
        """The earliest date as origin, and the coarsest unit that counts all from there in whole numbers.

        Where these would exceed 2^53, the finest unit that keeps them below: such dates are rounded. Dates with a
        time zone are counted on its clock if they are whole days there.
        """
        if timezone:
            wall = on_the_clock(dates, timezone)
            grid = cls.fit(wall)
            # days that clocks begin twice, or at one o'clock, are left to UTC
            if grid.unit == "D" and np.array_equal(in_utc(wall, timezone), dates):
                return replace(grid, timezone=timezone, wall=True)
            return replace(cls.fit(dates), timezone=timezone)
        name = np.datetime_data(dates.dtype)[0]
        name = name if name in NANOSECONDS else ("D" if name in ("Y", "M", "W") else "ns")
        tick = f"{np.dtype(dates.dtype.kind + '8').name}[{name}]"
        ticks = ticks_in(dates, tick)
        origin, last = (int(ticks.min()), int(ticks.max())) if len(ticks) else (0, 0)
        units = [unit for unit in NANOSECONDS if NANOSECONDS[unit] >= NANOSECONDS[name]]
        sizes = [NANOSECONDS[unit] // NANOSECONDS[name] for unit in units]
        chosen = next(i for i, size in enumerate(sizes) if np.all(ticks % size == origin % size))
        while (last - origin) // sizes[chosen] > EXACT and chosen > 0:
            chosen -= 1
        return cls(units[chosen], tick, origin)

    def check(self) -> None:
        """Raise a ValueError if this is no such grid."""
        check_dtypes("numpy", [self.tick])
        require(is_timezone(self.timezone), f"time zone {self.timezone[:50]!r}")
        dtype = np.dtype(self.tick)
        name, count = np.datetime_data(dtype)
        require(dtype.kind in "mM" and count == 1 and {name, self.unit} <= set(NANOSECONDS), "table")
        require(NANOSECONDS[self.unit] >= NANOSECONDS[name] and (self.timezone or not self.wall), "table")

    @property
    def kind(self) -> str:
        """What is on the grid: "datetime" or "timedelta"."""
        return "datetime" if np.dtype(self.tick).kind == "M" else "timedelta"

    def clock(self, numbers: Array) -> Integers:
        """What the clock of the time zone shows at dates, in units of `tick` since 1970."""
        dates = self.write(numbers)
        return ticks_in(dates if self.wall or not self.timezone else on_the_clock(dates, self.timezone), self.tick)

    def numbers_of_clock(self, clock: Integers) -> Array:
        """The inverse of `clock`."""
        dates = clock.view(self.tick)
        if self.wall:
            return DateGrid(self.unit, self.tick, self.origin).read(dates)
        return self.read(in_utc(dates, self.timezone) if self.timezone else dates)

    @property
    def ticks_in_day(self) -> int:
        """Units of the dtype in a day."""
        return NANOSECONDS["D"] // NANOSECONDS[np.datetime_data(self.tick)[0]]

    @property
    def ticks_in_unit(self) -> int:
        """Units of the dtype in one of the grid's."""
        return NANOSECONDS[self.unit] // NANOSECONDS[np.datetime_data(self.tick)[0]]

    def read(self, dates: AnyArray) -> Array:
        """Units since the origin; fractions for what lies between, NaN for NaT."""
        if self.wall:
            dates = on_the_clock(dates, self.timezone)
        ticks, size = ticks_in(dates, self.tick), self.ticks_in_unit
        whole = ticks // size - self.origin // size
        return np.where(np.isnat(dates), np.nan, whole + (ticks % size - self.origin % size) / size)

    def write(self, numbers: Array) -> AnyArray:
        """Dates of numbers, which are rounded; on the clock of the time zone if `wall`, else in UTC."""
        gaps, size = np.isnan(numbers), self.ticks_in_unit
        low = max(-EXACT, (1 - 2**63 - self.origin) // size + 1)
        high = min(EXACT, (2**63 - 1 - self.origin) // size)
        whole = np.clip(np.round(np.where(gaps, 0.0, numbers)), low, high).astype(np.int64)
        return np.where(gaps, np.iinfo(np.int64).min, self.origin + whole * size).view(self.tick)


def as_dates(objects: AnyArray, missing: Mask, tick: str) -> AnyArray:
    """Python's dates, datetimes, timedeltas or times of day, and numpy's, as an array of dtype `tick`."""
    dates = np.full(len(objects), "NaT", dtype=tick)
    dates[~missing] = np.array([_since_midnight(entry) for entry in objects[~missing].tolist()], dtype=tick)
    return dates


def _since_midnight(entry: Any) -> Any:
    """A time of day as a duration; all else as it is."""
    is_time = isinstance(entry, datetime.time)
    return datetime.datetime.combine(datetime.date.min, entry) - datetime.datetime.min if is_time else entry


def date_text(date: Any, grid: DateGrid) -> str:
    """A date or duration as errors show it."""
    return str(np.array(date, dtype=grid.tick).astype(f"{np.dtype(grid.tick).kind}8[{grid.unit}]"))


def moments_of(objects: AnyArray) -> AnyArray:
    """Python's and pandas' datetimes with time zones in UTC, by pandas."""
    import pandas as pd

    return pd.to_datetime(objects.tolist(), utc=True).tz_convert(None).to_numpy()


def parse_dates(values: AnyArray, grid: DateGrid, where: str) -> AnyArray:
    """Text, objects and datetime64 as dates, in UTC where those of the grid have a time zone; `where` is for errors."""
    zone = grid.timezone
    if values.dtype.kind == "M":
        return in_utc(values, zone) if zone else values
    try:
        if zone:
            import pandas as pd

            dates = [pd.Timestamp(value) for value in values.tolist()]
            dates = [date.tz_localize(zone) if date.tzinfo is None else date for date in dates]
            return np.array([date.tz_convert(None).to_datetime64() for date in dates], dtype=grid.tick)
        values = values.astype(object)
        text = np.array([isinstance(value, str) for value in values], dtype=bool)
        values[text] = list(values[text].astype(grid.tick))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is no date: {error}.") from error
    return values


def on_the_clock(dates: AnyArray, timezone: str) -> AnyArray:
    """What clocks in `timezone` show at moments in UTC."""
    import pandas as pd

    return pd.DatetimeIndex(dates).tz_localize("UTC").tz_convert(timezone).tz_localize(None).to_numpy()


def in_utc(dates: AnyArray, timezone: str) -> AnyArray:
    """The inverse of `on_the_clock`."""
    return localize(dates, timezone, wall=True).tz_convert(None).to_numpy()


def localize(dates: AnyArray, timezone: str, wall: bool) -> Any:
    """Dates with a time zone, as pandas has them, from its clock (`wall`) or UTC.

    Of an hour that clocks go through twice, it is the first; one that they leave out becomes the moment after it.
    """
    import pandas as pd

    index = pd.DatetimeIndex(dates)
    if not wall:
        return index.tz_localize("UTC").tz_convert(timezone)
    return index.tz_localize(timezone, ambiguous=np.ones(len(index), bool), nonexistent="shift_forward")


def ticks_in(dates: AnyArray, tick: str) -> Integers:
    """Dates as integers: units of a dtype, since 1970 for dates."""
    return np.ascontiguousarray(dates.astype(tick)).view(np.int64)
