"""Tables of series: columns of numbers, times in order and evenly spaced, one series a group."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flowmatch.core.user_warnings import warn

_SLACK = 1e-2  # of a step, by which times that are numbers may be off the grid: files round them
_MOST = 1000  # times as many points as there are times, and the smallest step is no series' step
_PARTS = 64  # parts of one size that are looked at
_HELP = "Bring the series to a grid with pandas' resample."


def read_table(source: Any, time: Any, columns: Any, keys: list[Hashable], sort: bool, gaps: str) -> list[pd.DataFrame]:
    """What `flowmatch.datasets.read_series` gives; `keys` are the columns that tell the series apart."""
    frame = source if isinstance(source, pd.DataFrame) else pd.read_csv(source)
    names = _columns(frame, time, columns, keys)
    if not len(frame):
        raise ValueError("source has no rows. A series needs at least one.")
    numbers = pd.DataFrame({name: _numbers(frame, name) for name in names})
    times, label = (frame.index, "the index") if time is None else (frame[time], repr(time))
    numbers.index = to_index(times, label)
    return [
        part
        for name, rows in _groups(frame, keys, len(frame)).items()
        for part in _series(numbers, rows, name, sort=sort, gaps=gaps)
    ]


def _columns(frame: pd.DataFrame, time: Any, columns: Any, keys: list[Hashable]) -> list[Hashable]:
    """Names of the variables, all names having been found in the table, once each."""
    if isinstance(columns, str):
        raise ValueError(f"columns must be a sequence of column names, got {columns!r}. Pass [{columns!r}].")
    others = keys if time is None else [time, *keys]
    names = [name for name in frame.columns if name not in others] if columns is None else list(columns)
    for parameter, wanted in (("time", [] if time is None else [time]), ("group", keys), ("columns", names)):
        for name in wanted:
            n_found = int((frame.columns == name).sum())
            if n_found != 1:
                how_often = f"{n_found} times" if n_found else "not"
                raise ValueError(f"{parameter} names {name!r}, which is {how_often} among {list(frame.columns)}.")
    if not names:
        raise ValueError(f"There is no column of values: source has {list(frame.columns)}, used for times and groups.")
    return names


def _numbers(frame: pd.DataFrame, name: Hashable) -> NDArray[np.float64]:
    """A column as float64; dates, text and whatever else is no number is an error that names the first of them."""
    column = frame[name].reset_index(drop=True)
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise ValueError(f"Column {name!r} holds times. Name it as time=, or leave it out of columns.")
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & column.notna())
    if len(wrong):
        raise ValueError(
            f"Column {name!r} must hold numbers, got {column[wrong[0]]!r} in row {wrong[0]} ({len(wrong)} such values "
            f"in all). Encode it as numbers, name it as group=, or leave it out of columns."
        )
    return numbers.to_numpy(np.float64, na_value=np.nan)


def _groups(frame: pd.DataFrame, keys: list[Hashable], n_rows: int) -> dict[Any, NDArray[np.intp]]:
    """Label -> positions of the rows, in the order in which the labels first appear."""
    if not keys:
        return {None: np.arange(n_rows)}
    for key in keys:
        missing = np.flatnonzero(frame[key].isna())
        if len(missing):
            raise ValueError(f"group column {key!r} has no value in row {missing[0]}: which series is that row of?")
    parts = frame[keys].reset_index(drop=True).groupby(keys[0] if len(keys) == 1 else keys, sort=False)
    return {label: part.index.to_numpy() for label, part in parts}


def _series(numbers: pd.DataFrame, rows: NDArray[np.intp], label: Any, *, sort: bool, gaps: str) -> list[pd.DataFrame]:
    """The rows of one group, checked, and cut at gaps if that is wanted."""
    where = "" if label is None else f"Series {label!r}: "
    part = numbers.iloc[rows]
    if sort:
        order = np.argsort(part.index.to_numpy(), kind="stable")
        part, rows = part.iloc[order], rows[order]
    check_order(part.index, rows, where)
    parts = check_spacing(part, gaps, where)
    for part in parts:
        part.attrs["group"] = label
    return parts


def to_index(times: Any, name: str) -> pd.Index:
    """Dates, periods or numbers as an index; an error names the first that cannot be read."""
    if isinstance(times, pd.MultiIndex):
        raise ValueError("The index has several levels. Call reset_index and name the columns as time= and group=.")
    index = pd.Index(times)
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex) or (
        pd.api.types.is_numeric_dtype(index) and not pd.api.types.is_bool_dtype(index)
    ):
        read = index
    else:
        try:
            read = pd.DatetimeIndex(pd.to_datetime(index, errors="coerce"), name=index.name)
        except ValueError as error:  # such as offsets from UTC that differ
            raise ValueError(
                f"Times ({name}) cannot be read as dates: {error} Convert them with pandas first."
            ) from error
    wrong = np.flatnonzero(read.isna() | np.isin(read, [np.inf, -np.inf]))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"Times ({name}) must be dates or numbers, got {str(index[row])!r} in row {row} ({len(wrong)} such values)."
        )
    return read


def check_order(index: pd.Index, rows: NDArray[np.intp], where: str) -> None:
    """Raise at a time that appears twice, or that is before the one in the row above."""
    twice = np.flatnonzero(index.duplicated())
    if len(twice):
        both = rows[np.flatnonzero(index == index[twice[0]])[:2]]
        raise ValueError(
            f"{where}Time {index[twice[0]]} is in rows {both[0]} and {both[1]} ({len(twice)} times more than once). "
            f"Drop or average such rows, or name what tells the series apart as group=."
        )
    back = np.flatnonzero(index[1:] < index[:-1])
    if len(back):
        k = back[0] + 1
        raise ValueError(
            f"{where}Times must increase, got {index[k]} in row {rows[k]} after {index[k - 1]} in row {rows[k - 1]}. "
            f"Pass sort=True to bring the rows in order."
        )


def check_spacing(frame: pd.DataFrame, gaps: str, where: str) -> list[pd.DataFrame]:
    """The frame, with rows of NaN at missing times or cut there if that is wanted; times off the grid are an error."""
    index = frame.index
    if len(index) < 3:
        return _complete_parts(frame, np.arange(len(index))) if gaps == "split" else [frame]
    grid = _grid(index)
    if grid is None:
        steps = index[1:] - index[:-1]
        raise ValueError(f"{where}Times must be evenly spaced, got steps from {steps.min()} to {steps.max()}. {_HELP}")
    off = np.flatnonzero(~index.isin(grid))
    if len(off):
        raise ValueError(
            f"{where}Times must be evenly spaced, but {index[off[0]]} is not one of {grid[0]}, {grid[1]}, ..., "
            f"{grid[-1]} ({len(off)} such times). {_HELP}"
        )
    if gaps == "split":
        return _complete_parts(frame, grid.get_indexer(index))
    missing = grid.difference(index)
    if not len(missing):
        return [frame]
    if gaps == "fill":
        return [frame.reindex(grid.rename(index.name))]
    shown = ", ".join(str(time) for time in missing[:3]) + (", ..." if len(missing) > 3 else "")
    message = f"{where}{len(missing)} of {len(grid)} times are missing: {shown}."
    if gaps == "raise":
        raise ValueError(
            f"{message} Pass gaps='split' to cut the series there, gaps='fill' for rows of NaN, or gaps='warn' to go "
            "on without."
        )
    warn(f"{message} Windows go over such gaps as if there were none.")
    return [frame]


def _complete_parts(frame: pd.DataFrame, position: NDArray[np.intp]) -> list[pd.DataFrame]:
    """The longest parts that lack no time and no value; `position` counts the steps from the first time."""
    whole = np.flatnonzero(frame.notna().all(axis=1).to_numpy())
    cuts = np.flatnonzero(np.diff(position[whole]) != 1) + 1
    return [frame.iloc[rows] for rows in np.split(whole, cuts) if len(rows)]


def _grid(index: pd.Index) -> pd.Index | None:
    """Evenly spaced times from the first to the last, None if that would be far more than there are times."""
    step = _step(index)
    if (index[-1] - index[0]) / (index[1:] - index[:-1]).min() > _MOST * len(index):
        return None
    if isinstance(index, pd.DatetimeIndex):
        return pd.date_range(index[0], index[-1], freq=step)
    values = index.to_numpy(np.float64)
    position = np.rint((values - values[0]) / step).astype(int)
    grid = values[0] + step * np.arange(position[-1] + 1)
    near = np.abs(values - grid[position]) <= _SLACK * step
    grid[position[near]] = values[near]  # bit by bit the same, so that equality finds them
    return pd.Index(grid.astype(index.dtype))


def _step(index: pd.Index) -> Any:
    """Step of the longest part that is evenly spaced itself: the whole, halves, quarters, ..., else the smallest step.

    A long part tells business days from days and quarters from multiples of 90 days.
    """
    if not isinstance(index, pd.DatetimeIndex):
        steps = np.diff(index.to_numpy(np.float64))
        counts = np.rint(steps / steps.min())
        if np.abs(steps / steps.min() - counts).max() < _SLACK:
            return steps.sum() / counts.sum()  # the mean, so that rounding does not add up
        return np.median(steps)  # the usual step, for times off its grid to be named
    size = len(index)
    while size >= 3:
        starts = range(0, len(index) - size + 1, max(size // 2, 1))
        for start in starts[:_PARTS]:
            step = pd.DatetimeIndex(index[start : start + size], freq="infer").freq
            if step is not None:
                return step
        size = max(size // 2, 3) if size > 3 else 0
    return (index[1:] - index[:-1]).min()
