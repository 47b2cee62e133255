"""Trajectories and series as users have them: lists, arrays, DataFrames; checked, and laid end to end."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowmatch.core.types import AnyArray, Array, Index, Mask
from flowmatch.preprocessing.window_gaps import mean_of_seen
from flowmatch.tables.frames import is_polars
from flowmatch.tables.readable import as_plain
from flowmatch.tables.rows import SampleRows


@dataclass(frozen=True)
class Trajectories:
    """States of all trajectories, one after the other.

    Parameters
    ----------
    frames : SampleRows of shape (n_frames, *state)
        The states.
    starts, lengths : ndarray of int, shape (n_trajectories,)
        The first frame of each trajectory, and how many it has.
    columns : tuple
        Names of the state's columns, if they came in DataFrames.
    times : tuple
        An index of instants for each trajectory, dates (pandas.DatetimeIndex) or numbers, or None.
    names : tuple of str
        What errors and warnings call each trajectory.
    """

    frames: SampleRows
    starts: Index
    lengths: Index
    columns: tuple[Any, ...]
    times: tuple[Any, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of one state: (d,) for a series, (C, *grid) for a field."""
        return self.frames.sample_shape

    def at(self, frame: int) -> tuple[int, int]:
        """Find the trajectory that a frame belongs to.

        Parameters
        ----------
        frame : int
            Number of the frame.

        Returns
        -------
        trajectory : int
            Number of the trajectory.
        position : int
            Number of the frame in there.
        """
        trajectory = int(np.searchsorted(self.starts, frame, side="right")) - 1
        return trajectory, int(frame - self.starts[trajectory])

    def named(self, frame: int) -> str:
        """Name a frame, for errors and warnings.

        Parameters
        ----------
        frame : int
            Its number.

        Returns
        -------
        str
            Its trajectory, and its time or its number in there.
        """
        trajectory, position = self.at(frame)
        times = self.times[trajectory]
        return f"{self.names[trajectory]}, " + (f"frame {position}" if times is None else f"{times[position]}")

    def cut(self, before: Mask) -> Trajectories:
        """Cut trajectories into pieces.

        Parameters
        ----------
        before : ndarray of bool, shape (n_frames,)
            Frames that start a piece; the first ones of trajectories do anyway.

        Returns
        -------
        Trajectories
            The pieces, each with the name of its trajectory.
        """
        owner = np.repeat(np.arange(len(self)), self.lengths)
        starts = np.flatnonzero(before | np.append(True, owner[1:] != owner[:-1]))
        ends, owners = np.append(starts[1:], len(owner)), owner[starts]
        first = starts - self.starts[owners]
        spans = zip(owners.tolist(), first.tolist(), (ends - starts).tolist(), strict=True)
        times = [None if (own := self.times[i]) is None else own[a : a + size] for i, a, size in spans]
        names = tuple(self.names[i] for i in owners)
        return replace(self, starts=starts, lengths=ends - starts, times=tuple(times), names=names)


def read_trajectories(
    X: Any, names: Sequence[str] = (), *, missing: bool = False, skipped: Sequence[int] = ()
) -> Trajectories:
    """Read trajectories and check them.

    Parameters
    ----------
    X : list of array or DataFrame, ndarray of shape (n, T, *state), or one series (T, d)
        As users have them.
    names : sequence of str, default=()
        What errors call each trajectory; by default its number.
    missing : bool, default=False
        Whether states may lack values.
    skipped : sequence of int, default=()
        Frames before those of each trajectory that were left out, for errors to count them.

    Returns
    -------
    Trajectories
        Laid end to end.

    Raises
    ------
    ValueError
        For unequal states or columns, values that are not finite real numbers, and instants that do not increase; the
        message names the trajectory and the frame.
    """
    parts = parts_of(X)
    if not parts:
        raise ValueError("X holds no trajectories.")
    names = names or [f"trajectory {number}" for number in range(len(parts))]
    arrays = [_states_of(part, name) for part, name in zip(parts, names, strict=True)]
    columns = _common_columns(parts, names)
    for array, name in zip(arrays, names, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"all trajectories must have states of one shape: {names[0]} has {arrays[0].shape[1:]} and "
                f"{name} has {array.shape[1:]}."
            )
        if len(array) == 0 or array[0].size == 0:
            raise ValueError(f"{name} of X has shape {array.shape}: there are no numbers in it.")
    lengths = np.array([len(array) for array in arrays])
    whole = X if isinstance(X, np.ndarray) and X.ndim > 2 else None
    frames = np.concatenate(arrays) if whole is None else whole.reshape(-1, *whole.shape[2:])
    times = tuple(instants_of(getattr(part, "index", None), name) for part, name in zip(parts, names, strict=True))
    found = Trajectories(SampleRows(frames), np.cumsum(lengths) - lengths, lengths, columns, times, tuple(names))
    _check_values(found, missing, skipped)
    return found


def find_boundaries(states: Array) -> tuple[str, ...]:
    """Tell which axes of fields look periodic.

    Across a periodic border values differ as much as between any neighbors. An axis is taken for one if, in every
    channel, the mean squared difference between its two ends is 0.3 to 2 times that of neighbors all over the grid and
    of those beside the border; blank borders say nothing, so they count as walls.

    Parameters
    ----------
    states : ndarray of shape (n, C, *grid)
        Fields.

    Returns
    -------
    tuple of {"periodic", "wall"}
        One for each axis of the grid.
    """
    axes = range(2, states.ndim)
    return tuple("periodic" if _is_periodic(np.moveaxis(states, axis, -1)) else "wall" for axis in axes)


def _is_periodic(fields: Array) -> bool:
    """Whether fields (n, C, ...) go on across the border of their last axis; missing values say nothing."""
    if fields.shape[-1] == 1:
        return False
    over = (0, *range(2, fields.ndim - 1))
    steps = mean_of_seen(np.square(np.diff(fields, axis=-1)), over)  # (C, points - 1)
    across = mean_of_seen(np.square(fields[..., 0] - fields[..., -1]), over)
    beside, everywhere = 0.5 * (steps[:, 0] + steps[:, -1]), mean_of_seen(steps, -1)
    varies = everywhere > 0
    like = [(across >= 0.3 * other) & (across <= 2.0 * other) & (other > 0) for other in (beside, everywhere)]
    return bool(varies.any() and (like[0] & like[1])[varies].all())


def parts_of(X: Any) -> Sequence[Any]:
    """Tell trajectories apart, without looking into them.

    Parameters
    ----------
    X : list of array or DataFrame, ndarray of shape (n, T, *state), or one series (T, d)
        As users have them.

    Returns
    -------
    sequence
        Of one array or DataFrame a trajectory.

    Raises
    ------
    ValueError
        For anything else.
    """
    X = as_plain(X, "X")
    if hasattr(X, "iloc"):
        return [X]
    if isinstance(X, (list, tuple)):
        return [np.asarray(X)] if X and all(np.ndim(part) == 0 for part in X) else X
    if is_polars(X):
        return [X]
    if not isinstance(X, np.ndarray) or X.ndim == 0:
        raise ValueError(
            f"X is a {type(X).__name__}; expected trajectories: a list of arrays (T, *state) or DataFrames of pandas, "
            "or an array (n_trajectories, T, *state)."
        )
    return [X] if X.ndim <= 2 else list(X)


def _states_of(part: Any, name: str) -> AnyArray:
    """States (T, *state) of one trajectory; a bare sequence of numbers is a series of one variable."""
    part = as_plain(part, f"{name} of X")
    if is_polars(part):
        raise ValueError(
            f"{name} of X is a frame of polars, which has no index of times: pass one frame of all series and name its "
            "columns, as in fit(X, time='date', groups='id'), or its to_pandas()."
        )
    if hasattr(part, "dtypes") and hasattr(part, "columns"):
        for column, dtype in zip(part.columns, part.dtypes, strict=True):
            if getattr(dtype, "kind", "O") not in "biuf":
                raise ValueError(
                    f"column {column!r} of {name} has dtype {dtype}; numbers are expected. Encode it, or leave it out."
                )
        array = part.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        try:
            array = np.asarray(part)
        except ValueError as error:
            raise ValueError(f"{name} of X is a list of unequal parts: {error}.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} of X has dtype {array.dtype}; real numbers are expected, and trajectories of unequal "
            "lengths in a list."
        )
    if array.ndim == 0:
        raise ValueError(f"{name} of X is the single number {array}; expected states (T, *state).")
    return array[:, None] if array.ndim == 1 else array


def _common_columns(parts: Sequence[Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Names of the columns, which all trajectories must share, in one order."""
    found = [tuple(part.columns) if hasattr(part, "columns") else () for part in parts]
    other = next((i for i, columns in enumerate(found) if columns != found[0]), None)
    if other is not None:
        raise ValueError(
            f"all trajectories must have the same columns in one order: {names[0]} has {list(found[0])} and "
            f"{names[other]} has {list(found[other])}."
        )
    return found[0]


def instants_of(index: Any, name: str) -> Any:
    """Read the index of a DataFrame or Series as instants.

    Parameters
    ----------
    index : Any
        What has no order, such as None, has no instants.
    name : str
        What errors call the series.

    Returns
    -------
    DatetimeIndex, Index of numbers, or None
        Dates, also those that came as text, `datetime.date` or periods; numbers; None for whatever is no index, or one
        that counts rows or names them.

    Raises
    ------
    ValueError
        For instants that are missing, cannot be read, or do not increase.
    """
    if not hasattr(index, "is_monotonic_increasing"):
        return None
    given = index
    index = as_times(index, name)
    if index is None:
        return None
    if index.hasnans:
        row = int(np.argmax(index.isna()))
        raise ValueError(f"the times of {name} have a gap: row {row} has {given[row]}.")
    if not (index.is_monotonic_increasing and index.is_unique):
        row = int(np.argmax(np.asarray(index[1:] <= index[:-1]))) + 1
        raise ValueError(
            f"the times of {name} must increase: row {row} has {index[row]} after {index[row - 1]}. "
            + (
                "Sort the rows first."
                if index.is_unique
                else "Drop duplicates, or tell series apart: fit(X, groups=...)."
            )
        )
    return index


def as_times(index: Any, name: str) -> Any:
    """Read an index of pandas as `instants_of` does, in any order.

    Parameters
    ----------
    index : Index
        Dates, numbers, or text.
    name : str
        What errors call the series.

    Returns
    -------
    DatetimeIndex, Index of numbers, or None
        None for names of rows, and for what counts them by one.

    Raises
    ------
    ValueError
        For instants that cannot be read.
    """
    import pandas as pd

    if isinstance(index, pd.DatetimeIndex):
        return index
    if isinstance(index, pd.RangeIndex):
        return None if index.step == 1 else index.astype(np.int64)
    if isinstance(index, pd.PeriodIndex):
        return index.to_timestamp()  # months and quarters count from their first instant
    kind = getattr(index.dtype, "kind", "O")
    if kind == "m":
        return pd.Index(index.total_seconds())
    if kind in "iufb":
        return None if kind == "b" else index
    if kind == "M":
        return pd.DatetimeIndex(index)
    given = index.astype(object)
    first = str(given[0]) if len(given) else ""
    if not any(letter.isdigit() for letter in first) or (first.isdigit() and len(first) != 8):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that pandas does not recognize, and of offsets that differ
        try:
            read = [pd.DatetimeIndex(pd.to_datetime(given, errors="coerce", format=f)) for f in ("ISO8601", None)]
        except (ValueError, TypeError) as error:  # such as offsets from UTC that differ
            raise ValueError(f"the times of {name} cannot be read as dates: {error}") from error
    dates = min(read, key=lambda index: int(index.isna().sum()))
    if dates.isna().all():
        return None
    if dates.hasnans:
        row, other = int(np.argmax(dates.isna())), int(np.argmin(dates.isna()))
        raise ValueError(
            f"the times of {name} cannot all be read as dates: row {other} has {given[other]!r}, but row {row} has "
            f"{given[row]!r}. Convert them by pandas.to_datetime."
        )
    return dates


def _check_values(trajectories: Trajectories, missing: bool, skipped: Sequence[int]) -> None:
    """Name the first value that is not finite or too large for float32; NaN may be allowed."""
    unfit = trajectories.frames.first_unfit(missing=missing)
    if unfit is None:
        return
    (row, *place), value = unfit
    trajectory, frame = trajectories.at(row)
    frame += skipped[trajectory] if len(skipped) else 0
    columns = trajectories.columns
    where = f"column {columns[place[0]]!r}" if columns else f"position {tuple(place)} of the state"
    what = "NaN" if np.isnan(value) else f"{value:g}"
    raise ValueError(
        f"X contains {what}: {trajectories.names[trajectory]}, frame {frame}, {where}. Only finite values are "
        "expected; cut the trajectory there, or fill the gap."
    )
