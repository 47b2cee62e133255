"""The calendar as numbers: where an instant stands in its year, week and day."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowmatch.core.types import Array

CYCLES = ("year", "week", "day")
HARMONICS = 2
_PARTS, _PART = 25, 8
_SECONDS = {"year": 365.2425 * 86400, "week": 7 * 86400, "day": 86400}


def find_cycles(times: tuple[Any, ...]) -> tuple[str, ...]:
    """Find the cycles that series of such instants show.

    Parameters
    ----------
    times : tuple of DatetimeIndex, Index of numbers, or None
        Anything but dates among them means no calendar.

    Returns
    -------
    tuple of {"year", "week", "day"}
        Cycles that are sampled at least three times each, for at least two of them.
    """
    if not times or any(index is None or index.dtype.kind != "M" for index in times):
        return ()
    longest = max((index[-1] - index[0]).total_seconds() for index in times)
    spacing = float(np.median(np.concatenate([seconds_between(index) for index in times])))
    return tuple(name for name in CYCLES if 3 * spacing <= _SECONDS[name] <= longest / 2)


def calendar_features(instants: Any, cycles: tuple[str, ...]) -> Array:
    """Compute sines and cosines of the phases of instants.

    Parameters
    ----------
    instants : DatetimeIndex
        Of n instants.
    cycles : tuple of {"year", "week", "day"}
        Whose phases.

    Returns
    -------
    ndarray of shape (n, 4 * len(cycles))
        The first two harmonics of each cycle.
    """
    day = (instants.hour * 3600 + instants.minute * 60 + instants.second) / 86400
    phases = {
        "year": (instants.day_of_year - 1 + day) / (365 + instants.is_leap_year),
        "week": (instants.day_of_week + day) / 7,
        "day": day,
    }
    columns = [
        wave(2 * np.pi * k * np.asarray(phases[name], dtype=np.float64))
        for name in cycles
        for k in range(1, HARMONICS + 1)
        for wave in (np.sin, np.cos)
    ]
    return np.column_stack(columns) if columns else np.empty((len(instants), 0))


def spacing_of(times: tuple[Any, ...]) -> Any:
    """Find the step from one instant to the next.

    Where instants are missing, such as holidays among business days, it is the offset of most short parts.

    Parameters
    ----------
    times : tuple of DatetimeIndex
        Of all series.

    Returns
    -------
    pandas offset or Timedelta
        An offset, such as a month, or the median time between instants.
    """
    import pandas as pd

    index = max(times, key=len)
    starts = np.linspace(0, max(0, len(index) - _PART), _PARTS).astype(int)
    for parts in ([index], [index[start : start + _PART] for start in starts]):
        offsets = [offset for part in parts if (offset := pd.DatetimeIndex(part, freq="infer").freq) is not None]
        # pandas takes any eight hours of a day for those from nine to five
        if offsets and not any(isinstance(offset, pd.offsets.BusinessHour) for offset in offsets):
            return max(offsets, key=offsets.count)
    if len(index) < 2:
        return pd.Timedelta(seconds=0)
    return pd.Timedelta(seconds=float(np.median(seconds_between(index))))


def seconds_between(index: Any) -> Array:
    """Compute the n - 1 times between the instants of a DatetimeIndex."""
    return np.diff(index.asi8) / {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[index.unit]
