"""Times of a series: read, in order, evenly spaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.user_warnings import warn

if TYPE_CHECKING:
    import pandas as pd

_SLACK = 1e-2  # of a step, by which times that are numbers may be off the grid: files round them
_MOST = 1000  # times as many points as there are times, and the smallest step is no series' step
_PARTS = 64  # parts of one size that are looked at
_HELP = "Bring the series to a grid with pandas' resample."


def to_index(times: Any, name: str) -> pd.Index:
    """Dates, periods or numbers as an index; an error names the first that cannot be read."""
    import pandas as pd

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
    import pandas as pd

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
    import pandas as pd

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
