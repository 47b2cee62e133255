"""Which rows a detector trains on, and which it holds out to find its threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.preprocessing import FITTED_ELEMENTS, SampleRows

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
Data = tuple[SampleRows, NDArray[Any] | None, Floats | None]
"""Rows, their classes and their weights."""

FEW_ROWS = 500
"""Below so many rows, "auto" trains on folds: every row then helps to find the threshold."""

FOLDS = 5
HELD_OUT = 0.2
MOST_HELD_OUT = 1000
"""With more rows than these the threshold hardly gets better."""


FOLD_STEPS = 200
"""Optimiser steps for each fold of so few rows: their mean makes up for short training."""


STEPS_WITH_OUTLIERS = 300
"""Optimiser steps on a table that holds outliers, which longer training learns too."""


_FEW_COPIES = 5


def choose_n_folds(n_folds: Any, shape: tuple[int, ...]) -> int:
    """What ``n_folds="auto"`` means for data of `shape`: 5 for tables of less than 500 rows, 1 for all else."""
    if isinstance(n_folds, str):
        return min(FOLDS, shape[0]) if len(shape) == 2 and shape[0] < FEW_ROWS else 1
    return int(n_folds)


def split_rows(
    rows: SampleRows, n_folds: int, y: NDArray[Any] | None, random: np.random.RandomState
) -> list[tuple[Index, Index]]:
    """Rows to train on and rows to hold out, one pair a fold; a single fold holds out a fifth, at most 1000.

    Copies of a row, which stand side by side in a table, stay together: a held-out row that was trained on would say
    nothing of new ones. Where rows repeat five times and more on average they are levels, which new rows repeat too.

    Raises
    ------
    ValueError
        If there are too few rows for so many folds.
    """
    n_rows = len(rows)
    first = _first_of_copies(rows, y)
    few_copies = max(3, n_folds) <= len(first) < n_rows <= _FEW_COPIES * len(first)
    if few_copies and (y is None or len(np.unique(y[first])) < len(first)):  # else every class is a single row
        parts = split_rows(rows.take(first), n_folds, None if y is None else y[first], random)
        copies = np.cumsum(np.isin(np.arange(n_rows), first)) - 1
        return [(np.flatnonzero(np.isin(copies, kept)), np.flatnonzero(np.isin(copies, held))) for kept, held in parts]
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
        n_held = int(np.clip(round(HELD_OUT * len(order)), 1, MOST_HELD_OUT))
        folds = [np.sort(order[np.linspace(0, len(order) - 1, n_held).round().astype(np.intp)])]
    else:
        folds = [np.sort(order[k::n_folds]) for k in range(n_folds)]
    return [(np.setdiff1d(np.arange(n_rows), fold), fold) for fold in folds]


def _first_of_copies(rows: SampleRows, y: NDArray[Any] | None) -> Index:
    """Numbers of the rows of a sorted table that differ from the row before them; all rows of grids."""
    if len(rows.sample_shape) > 1 or not rows.in_memory or len(rows) == 0:
        return np.arange(len(rows))
    X = rows.array()
    differs = ((X[1:] != X[:-1]) & ~(np.isnan(X[1:]) & np.isnan(X[:-1]))).any(axis=1)
    if y is not None:
        differs |= y[1:] != y[:-1]
    return np.flatnonzero(np.append(True, differs))


def in_order(samples: SampleRows, y: NDArray[Any] | None, weight: Floats | None, sample_weight: Any) -> Data:
    """Rows of positive weight; those of a table sorted, and repeated as often as weights that are counts say.

    Folds and batches so depend on the data alone, not on the order in which they come, and a weight of 3 is the same
    as three rows.
    """
    if weight is not None and not weight.all():
        kept = np.flatnonzero(weight)
        samples, y, weight = take(samples, y, weight, kept)
        sample_weight = np.asarray(sample_weight)[kept]
    if len(samples.sample_shape) > 1 or not samples.in_memory:
        return samples, y, weight
    X = samples.array()
    codes = np.zeros(len(X)) if y is None else np.unique(y, return_inverse=True)[1]
    order = np.lexsort([*X.T[::-1], codes])
    if weight is not None:
        counts = np.asarray(sample_weight, dtype=np.float64)
        if (counts == counts.round()).all() and counts.sum() * X.shape[1] <= FITTED_ELEMENTS:
            counts = counts / np.gcd.reduce(counts.astype(np.int64))
            order, weight = np.repeat(order, counts[order].astype(np.intp)), None
    return take(SampleRows(X), y, weight, order)


def take(rows: SampleRows, y: NDArray[Any] | None, weight: Floats | None, part: NDArray[np.intp]) -> Data:
    """A part of the training data."""
    return rows.take(part), None if y is None else y[part], None if weight is None else weight[part]


def percentile(scores: Floats, share: float, weight: Floats | None) -> float:
    """The score below which `share` of the rows, or of their weight, lies."""
    if weight is None:
        return float(np.percentile(scores, 100 * share))
    order = np.argsort(scores)
    below = np.cumsum(weight[order]) / weight.sum()
    return float(scores[order][min(int(np.searchsorted(below, share)), len(order) - 1)])
