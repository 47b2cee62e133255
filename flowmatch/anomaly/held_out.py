"""Which rows a detector trains on, and which it holds out to find its threshold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.fitting import Rows
from flowmatch.preprocessing import FITTED_ELEMENTS, SampleRows, as_numpy

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

HELD_OUT = 0.2
MOST_HELD_OUT = 1000
"""With more rows than these the threshold hardly gets better."""

_OFTEN = 10
"""Copies, in units of the median row's, that no single observation has."""


def split_rows(
    rows: SampleRows, n_folds: int, y: NDArray[Any] | None, random: np.random.RandomState, least_held: int = 1
) -> list[tuple[Index, Index]]:
    """Rows to train on and rows to hold out, one pair a fold; a single fold holds out a fifth, at most 1000.

    Copies of one observation stay together: a held-out row that was trained on would say nothing of new ones. Rows of
    levels are split at random, copies or not: whether a new row repeats one of training is as much a matter of chance.

    Parameters
    ----------
    rows : SampleRows
        Those of a table sorted.
    n_folds : int
    y : ndarray of shape (n,) or None
    random : RandomState
    least_held : int, default=1
        What a single fold holds out at least, as far as that is half.

    Raises
    ------
    ValueError
        If there are too few rows for so many folds.
    """
    n_rows = len(rows)
    observed = observations(rows, y)
    first = np.flatnonzero(np.diff(observed, prepend=-1))
    few = max(3, n_folds) <= len(first) < n_rows
    if few and (y is None or len(np.unique(y[first])) < len(first)):  # else every class is a single row
        parts = split_rows(rows.take(first), n_folds, None if y is None else y[first], random, least_held)
        return [
            (np.flatnonzero(np.isin(observed, kept)), np.flatnonzero(np.isin(observed, held))) for kept, held in parts
        ]
    if n_folds > n_rows or n_rows < 3:
        raise ValueError(
            f"X has {n_rows} rows with a positive weight: too few for {max(n_folds, 3)} folds, each of which holds "
            "rows out and trains on the others. Pass more rows, a smaller n_folds, or a float contamination, which "
            "holds none out."
        )
    order = random.permutation(n_rows)
    if y is not None:  # every fold gets its share of each class, and a class of one row stays in training
        _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        order = order[np.argsort(codes[order], kind="stable")]
        order = order[counts[codes[order]] > 1]
        if not len(order):
            raise ValueError("every class in y has a single row, so that none can be held out of training.")
    if n_folds == 1:
        least = max(1, min(least_held, len(order) // 2))
        n_held = int(np.clip(round(HELD_OUT * len(order)), least, MOST_HELD_OUT))
        folds = [np.sort(order[np.linspace(0, len(order) - 1, n_held).round().astype(np.intp)])]
    else:
        folds = [np.sort(order[k::n_folds]) for k in range(n_folds)]
    return [(np.setdiff1d(np.arange(n_rows), fold), fold) for fold in folds]


def observations(rows: SampleRows, y: NDArray[Any] | None) -> Index:
    """The number of each row's observation, (n,): those of a sorted table whose copies are one have the same.

    Copies come from weights and records that were entered twice, or from columns of few values, where new rows
    repeat what training had. The one is told from the other by the columns: a row is an observation of its own if it
    has a value that no other row has, in a column whose values lie anywhere, not on a grid.
    """
    starts, is_level = _copies(rows, y)
    return np.cumsum(starts | is_level) - 1


def repeats_levels(rows: SampleRows, y: NDArray[Any] | None) -> bool:
    """Whether a quarter of the rows of a sorted table and more are copies of others, but observations of their own."""
    starts, is_level = _copies(rows, y)
    is_copy = ~starts | np.append(~starts[1:], False)
    return bool(np.mean(is_copy & is_level) >= 0.25)


def _copies(rows: SampleRows, y: NDArray[Any] | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each row differs from the one before it, and whether it is one of levels rather than an observation."""
    starts, is_level = np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    if len(rows.sample_shape) > 1 or not rows.in_memory or len(rows) == 0:
        return starts, is_level
    X = rows.array()
    starts[1:] = ((X[1:] != X[:-1]) & ~(np.isnan(X[1:]) & np.isnan(X[:-1]))).any(axis=1)
    if y is not None:
        starts[1:] |= y[1:] != y[:-1]
    if starts.all():
        return starts, is_level
    copies = np.diff(np.append(np.flatnonzero(starts), len(X)))
    observed = np.logical_or.reduce([_is_unlike_others(column) for column in X[starts].T])
    return starts, np.repeat(~observed | (copies > _OFTEN * np.median(copies)), copies)


def _is_unlike_others(column: Floats) -> NDArray[np.bool_]:
    """Which values of a column no other row has; none if they lie on a grid, as integers and codes do."""
    values, which, counts = np.unique(column, return_inverse=True, return_counts=True)
    gaps = np.diff(values[~np.isnan(values)])
    if not len(gaps) or np.median(gaps) <= 2.001 * gaps.min():  # of values that lie anywhere, some are close by chance
        return np.zeros(len(column), dtype=bool)
    return np.asarray((counts[which] == 1) & ~np.isnan(column))


def in_order(rows: Rows, sample_weight: Any) -> tuple[Rows, Index]:
    """Rows of a table sorted, and repeated as often as weights that are counts say.

    Folds and batches so depend on the data alone, not on the order in which they come, and a weight of 3 is the same
    as three rows.

    Parameters
    ----------
    rows : Rows
        Those of positive weight.
    sample_weight : array-like or None
        As in `fit`.

    Returns
    -------
    rows : Rows
    order : ndarray of int
        Which of the rows each of these is.
    """
    samples = rows.samples
    if len(samples.sample_shape) > 1 or not samples.in_memory:
        return rows, np.arange(len(samples))
    X = samples.array()
    codes = np.zeros(len(X)) if rows.y is None else np.unique(rows.y, return_inverse=True)[1]
    order = np.lexsort([*X.T[::-1], codes])
    if rows.weight is not None:
        given = as_numpy(sample_weight) if isinstance(sample_weight, torch.Tensor) else sample_weight
        counts = np.asarray(given, dtype=np.float64)
        counts = counts[counts > 0]
        if (counts == counts.round()).all() and counts.sum() * X.shape[1] <= FITTED_ELEMENTS:
            counts = counts / np.gcd.reduce(counts.astype(np.int64))
            order, rows = np.repeat(order, counts[order].astype(np.intp)), replace(rows, weight=None)
    return take(replace(rows, samples=SampleRows(X)), order), order


def take(rows: Rows, part: Index) -> Rows:
    """A part of the rows; their classes are an array."""
    return Rows(
        rows.samples.take(part),
        rows.container,
        None if rows.y is None else rows.y[part],
        None if rows.weight is None else rows.weight[part],
    )


def percentile(scores: Floats, share: float, weight: Floats | None) -> float:
    """The score below which `share` of the rows, or of their weight, lies."""
    if weight is None:
        return float(np.percentile(scores, 100 * share))
    order = np.argsort(scores)
    below = np.cumsum(weight[order]) / weight.sum()
    return float(scores[order][min(int(np.searchsorted(below, share)), len(order) - 1)])
