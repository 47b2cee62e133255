"""Grids as columns, one a channel, and back."""

from __future__ import annotations

import numpy as np

from flowmatch.core.types import Array

MOST_LEVELS = 256
"""A channel with at most so many distinct values counts as discrete."""


def find_levels(values: Array) -> Array:
    """The distinct values (n,) takes, in order, if there are at most 256 and each occurs 8 times on average.

    Missing ones are none.
    """
    values = values[~np.isnan(values)]
    few = np.unique(values[:10_000])
    levels = few if len(few) > MOST_LEVELS else np.unique(values)
    return levels if len(levels) <= min(MOST_LEVELS, len(values) // 8) else levels[:0]


def to_columns(X: Array) -> Array:
    """(n, C, *grid) as (n * grid points, C); a table passes."""
    return X if X.ndim == 2 else np.moveaxis(X, 1, -1).reshape(-1, X.shape[1])


def from_columns(columns: Array, shape: tuple[int, ...]) -> Array:
    """Undo `to_columns` for an array of `shape` (n, C, *grid)."""
    return np.moveaxis(columns.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
