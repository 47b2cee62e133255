"""Trajectories and series as users have them: lists, arrays, DataFrames; checked, and laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowmatch.core.types import AnyArray, Array, Index
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
        An index of instants (pandas.DatetimeIndex) for each trajectory, or None.
    """

    frames: SampleRows
    starts: Index
    lengths: Index
    columns: tuple[Any, ...]
    times: tuple[Any, ...]

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


def read_trajectories(X: Any) -> Trajectories:
    """Read trajectories and check them.

    Parameters
    ----------
    X : list of array or DataFrame, ndarray of shape (n, T, *state), or one series (T, d)
        As users have them.

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
    arrays = [_states_of(part, number) for number, part in enumerate(parts)]
    columns = _common_columns(parts)
    for number, array in enumerate(arrays):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"all trajectories must have states of one shape: trajectory 0 has {arrays[0].shape[1:]} and "
                f"trajectory {number} has {array.shape[1:]}."
            )
        if len(array) == 0 or array[0].size == 0:
            raise ValueError(f"trajectory {number} of X has shape {array.shape}: there are no numbers in it.")
    lengths = np.array([len(array) for array in arrays])
    whole = X if isinstance(X, np.ndarray) and X.ndim > 2 else None
    frames = np.concatenate(arrays) if whole is None else whole.reshape(-1, *whole.shape[2:])
    times = tuple(_instants_of(part, number) for number, part in enumerate(parts))
    found = Trajectories(SampleRows(frames), np.cumsum(lengths) - lengths, lengths, columns, times)
    _check_values(found)
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
    """Whether fields (n, C, ...) go on across the border of their last axis."""
    if fields.shape[-1] == 1:
        return False
    over = (0, *range(2, fields.ndim - 1))
    steps = np.square(np.diff(fields, axis=-1)).mean(axis=over)  # (C, points - 1)
    across = np.square(fields[..., 0] - fields[..., -1]).mean(axis=over)
    beside, everywhere = 0.5 * (steps[:, 0] + steps[:, -1]), steps.mean(axis=-1)
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
    if not isinstance(X, np.ndarray) or X.ndim == 0:
        raise ValueError(
            f"X is a {type(X).__name__}; expected trajectories: a list of arrays (T, *state) or DataFrames of pandas, "
            "or an array (n_trajectories, T, *state)."
        )
    return [X] if X.ndim <= 2 else list(X)


def _states_of(part: Any, number: int) -> AnyArray:
    """States (T, *state) of one trajectory; a bare sequence of numbers is a series of one variable."""
    part = as_plain(part, f"trajectory {number} of X")
    if is_polars(part):
        raise ValueError(f"trajectory {number} of X is a frame of polars, which has no index: pass its to_pandas().")
    if hasattr(part, "dtypes") and hasattr(part, "columns"):
        for name, dtype in zip(part.columns, part.dtypes, strict=True):
            if getattr(dtype, "kind", "O") not in "biuf":
                raise ValueError(
                    f"column {name!r} of trajectory {number} has dtype {dtype}; numbers are expected. Encode it, or "
                    "leave it out."
                )
        array = part.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        try:
            array = np.asarray(part)
        except ValueError as error:
            raise ValueError(f"trajectory {number} of X is a list of unequal parts: {error}.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"trajectory {number} of X has dtype {array.dtype}; real numbers are expected, and trajectories of unequal "
            "lengths in a list."
        )
    if array.ndim == 0:
        raise ValueError(f"trajectory {number} of X is the single number {array}; expected states (T, *state).")
    return array[:, None] if array.ndim == 1 else array


def _common_columns(parts: Sequence[Any]) -> tuple[Any, ...]:
    """Names of the columns, which all trajectories must share, in one order."""
    names = [tuple(part.columns) if hasattr(part, "columns") else () for part in parts]
    other = next((i for i, columns in enumerate(names) if columns != names[0]), None)
    if other is not None:
        raise ValueError(
            f"all trajectories must have the same columns in one order: trajectory 0 has {list(names[0])} and "
            f"trajectory {other} has {list(names[other])}."
        )
    return names[0]


def _instants_of(part: Any, number: int) -> Any:
    """The index of a DataFrame or Series if it holds instants, which must increase."""
    index: Any = getattr(part, "index", None)
    if not hasattr(index, "is_monotonic_increasing"):
        return None
    if hasattr(index, "to_timestamp"):  # months and quarters count from their first instant
        index = index.to_timestamp()
    is_time = getattr(index.dtype, "kind", "O") == "M"
    if is_time and index.hasnans:
        row = int(np.argmax(index.isna()))
        raise ValueError(f"the times of trajectory {number} have a gap: row {row} has {index[row]}.")
    if index.dtype.kind in "Mmif" and not (index.is_monotonic_increasing and index.is_unique):
        row = int(np.argmax(np.asarray(index[1:] <= index[:-1]))) + 1
        raise ValueError(
            f"the times of trajectory {number} must increase: row {row} has {index[row]} after {index[row - 1]}. Sort "
            "the rows and drop duplicates first."
        )
    return index if is_time else None


def _check_values(trajectories: Trajectories) -> None:
    """Name the first value that is not finite or too large for float32."""
    unfit = trajectories.frames.first_unfit()
    if unfit is None:
        return
    (row, *place), value = unfit
    trajectory, frame = trajectories.at(row)
    names = trajectories.columns
    where = f"column {names[place[0]]!r}" if names else f"position {tuple(place)} of the state"
    what = "NaN" if np.isnan(value) else f"{value:g}"
    raise ValueError(
        f"X contains {what}: trajectory {trajectory}, frame {frame}, {where}. Only finite values are expected; cut the "
        "trajectory there, or fill the gap."
    )
