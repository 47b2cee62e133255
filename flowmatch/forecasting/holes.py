"""Values that states and targets lack: which columns may, windows without any, and scores of what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import r2_score

from flowmatch import metrics
from flowmatch.core.user_warnings import warn
from flowmatch.preprocessing import SampleRows, WindowEncoder, Windows

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def holed_columns(frames: SampleRows) -> tuple[int, ...]:
    """Columns (channels) of states in which values are missing."""
    return tuple(np.flatnonzero(frames.summary.n_missing).tolist())


def names_in(columns: Sequence[int], names: tuple[Any, ...]) -> str:
    """Columns by their names, or positions, for errors."""
    return ", ".join(repr(names[j] if names else int(j)) for j in columns)


def with_values(
    windows: Windows,
    targets: Sequence[int],
    known: Sequence[int],
    holed: Sequence[int],
    of: Callable[[int], str],
    *,
    whole: bool = False,
) -> Windows:
    """Windows that have something to forecast from and something to forecast.

    Parameters
    ----------
    windows : Windows
    targets, known, holed : sequence of int
        Columns that are forecast (none: all of the windows' targets), that are known ahead, and that contexts may lack.
    of : callable
        From the number of a frame to what warnings call it.
    whole : bool
        Whether targets must not lack any value.

    Returns
    -------
    Windows
        Of the same frames; a warning counts those that are left out.

    Raises
    ------
    ValueError
        If none is left.
    """
    frames, ahead = windows.frames, windows.targets
    assert ahead is not None
    assert windows.target_index is not None
    if not (frames.summary.n_missing.any() or ahead.summary.n_missing.any()):
        return windows
    complete = [j for j in range(frames.sample_shape[0]) if j not in holed]
    needed = [*known, *(targets if len(targets) else range(ahead.sample_shape[0]))] if whole else known
    kept = np.array(_seen_in(frames)[windows.index].any(axis=(1, 2))) & ~_lacking_in(frames, complete)[
        windows.index
    ].any(axis=1)
    kept &= _seen_in(ahead, targets)[windows.target_index].any(axis=(1, 2))
    kept &= ~_lacking_in(ahead, needed)[windows.target_index].any(axis=1)
    if kept.all():
        return windows
    first = of(int(windows.target_index[np.argmin(kept), 0]))
    left = (
        f"{(~kept).sum()} of {len(kept)} windows lack values: all to forecast, all to forecast from, one that is known "
        f"ahead, or one of what must be complete (the first: the forecast of {first})"
    )
    if not kept.any():
        raise ValueError(f"{left}. None is left: fill gaps, or choose longer windows.")
    warn(f"{left}. They are left out.")
    return windows.take(np.flatnonzero(kept))


def check_each_has_values(windows: Windows, targets: Sequence[int], names: tuple[Any, ...]) -> None:
    """Raise a ValueError for a column that is to be forecast, and has no value at one of the lead times."""
    assert windows.targets is not None
    assert windows.target_index is not None
    if not windows.targets.summary.n_missing.any():
        return
    never = ~_seen_in(windows.targets, targets)[windows.target_index].any(axis=0)
    if never.any():
        lead, column = np.argwhere(never)[0]
        name = names_in([targets[column] if len(targets) else column], names)
        if not len(targets):  # pairs
            raise ValueError(f"column {name} of y has no value in any row, which nothing can be learned from.")
        raise ValueError(
            f"column {name} is to be forecast, but has no value {int(lead) + 1} step(s) ahead in any window: leave it "
            "out, or name it in exogenous_columns."
        )


def check_holes(states: Array, holed: Sequence[int], names: tuple[Any, ...], of: Callable[[int, int], str]) -> None:
    """Raise a ValueError for values that contexts lack where training has not shown such, and contexts without any.

    Parameters
    ----------
    states : ndarray of shape (n, n_lags, C, *grid)
        Contexts.
    holed : sequence of int
        Columns that lacked values in training.
    names : tuple
        Of all columns, if they have any.
    of : callable
        From the numbers of a context and of a state in it to what errors call it.
    """
    missing = np.isnan(states)
    if not missing.any():
        return
    strange = missing.copy()
    strange[:, :, list(holed)] = False
    if strange.any():
        row, lag, column, *point = map(int, np.argwhere(strange)[0])
        where = f"column {names_in([column], names)}" if names else f"position {(column, *point)} of the state"
        raise ValueError(
            f"X contains NaN: {of(row, lag)}, {where}. In training this column lacked no values, and a forecast from "
            "gaps is not learned: fill them, or fit to data that have such."
        )
    empty = np.flatnonzero(missing.reshape(len(missing), -1).all(axis=1))
    if len(empty):
        raise ValueError(f"X has no value at all in {of(int(empty[0]), 0)} and what follows: there is no context.")


def without_level(windows: Windows, encoder: WindowEncoder) -> Mask:
    """Which windows (n,) lack all lags of a column that is forecast relative to these."""
    if encoder.local is None or not len(encoder.holed):
        return np.zeros(len(windows), dtype=bool)
    columns = encoder.targets[encoder.local.columns[encoder.targets]]
    missing = np.isnan(windows.contexts(np.arange(len(windows)))[:, :, columns])
    return np.any(np.all(missing, axis=1), axis=1)


def determination_of_seen(truth: Array, mean: Array, weight: Array | None, multioutput: str) -> float:
    """R2 of means (n, q), each column by the rows that have it; NaN where no column has two."""
    if not np.isnan(truth).any():
        return float(r2_score(truth, mean, sample_weight=weight, multioutput=multioutput))
    scores, sizes = [], []
    for known, expected in zip(truth.T, mean.T, strict=True):
        seen = ~np.isnan(known)
        if seen.sum() > 1:
            share = None if weight is None else weight[seen]
            scores.append(r2_score(known[seen], expected[seen], sample_weight=share))
            level = np.average(known[seen], weights=share)
            sizes.append(float(np.average((known[seen] - level) ** 2, weights=share)))
    uniform = multioutput == "uniform_average" or not any(sizes)
    return float(np.average(scores, weights=None if uniform else sizes)) if scores else float("nan")


def crps_of_seen(truth: Array, members: NDArray[Any]) -> tuple[float, float]:
    """The CRPS of members (m, n, ...) for what is there of truth (n, ...), and how many rows that amounts to."""
    seen = ~np.isnan(truth)
    if seen.all():
        return float(metrics.crps(truth, members)), float(len(truth))
    return float(metrics.crps(truth[seen], members[:, seen])) if seen.any() else 0.0, seen.mean() * len(truth)


def energy_score_of_seen(truth: Array, members: NDArray[Any]) -> tuple[float, float]:
    """The energy score of what is there of each row, for as many elements, and how many rows have any."""
    seen = ~np.isnan(truth).reshape(len(truth), -1)
    if seen.all():
        return float(metrics.energy_score(truth, members)), float(len(truth))
    rows = seen.any(axis=1)
    if not rows.any():
        return 0.0, 0.0
    weight = seen[rows] / np.sqrt(seen[rows].mean(axis=1, keepdims=True))
    flat = np.nan_to_num(truth.reshape(len(truth), -1)[rows]) * weight
    drawn = members.reshape(len(members), len(truth), -1)[:, rows] * weight
    return float(metrics.energy_score(flat, drawn)), float(rows.sum())


def _seen_in(rows: SampleRows, columns: Sequence[int] = ()) -> Mask:
    """Which columns (n, C), or some of them, have a value in each state."""
    seen = np.concatenate([~np.isnan(part).reshape(*part.shape[:2], -1).all(axis=2) for _, part in rows.chunks()])
    return seen[:, list(columns)] if len(columns) else seen


def _lacking_in(rows: SampleRows, columns: Sequence[int]) -> Mask:
    """Which states (n,) lack a value in some of the columns."""
    if not rows.summary.n_missing[list(columns)].any():
        return np.zeros(len(rows), dtype=bool)
    return np.concatenate([np.isnan(p[:, list(columns)]).reshape(len(p), -1).any(axis=1) for _, p in rows.chunks()])
