"""A bounded number of rows that stand for many and are none of them, so that files hold nobody's own row."""

from __future__ import annotations

import hashlib

import numpy as np
from sklearn.neighbors import NearestNeighbors

from flowmatch.core.types import Array, Index, Mask
from flowmatch.preprocessing.conditions import systematic_sample
from flowmatch.rules.numbers import decimals_of, error_of

MOST_ROWS = 4096

_ENOUGH = 5
"""Rows that a value must come in to be nobody's own, and rows that one is blurred with, itself among them."""

_APART = 1e3
"""How far apart different levels are, in standard deviations of the columns."""


def blurred_rows(rows: Array, shares: Array, is_label: Mask) -> tuple[Array, Array]:
    """At most 4096 rows with about the joint distribution of many, and their shares.

    Labels and values that come in five rows or more are kept. All other values of a row are drawn anew, together, from
    the normal distribution with the mean and the covariance of the row and its nearest four, of the same labels and
    frequent values as far as there are so many; they are put on the column's decimals and into its range. Means,
    variances and correlations stay, and clusters stay apart.

    The draws are seeded by a digest of the rows: equal data give equal files, and who has not the rows cannot undo it.

    Parameters
    ----------
    rows : ndarray of shape (n, k)
    shares : ndarray of shape (n,)
        Their weights, with sum 1; rows of weight 0 are left out.
    is_label : ndarray of bool, shape (k,)
        Columns that hold labels.

    Returns
    -------
    rows : ndarray of shape (m, k)
    shares : ndarray of shape (m,)
        With sum 1.
    """
    rows, shares = rows[shares > 0], shares[shares > 0]
    levels = np.column_stack([_levels(*column) for column in zip(rows.T, is_label, strict=True)])
    low, high, decimals = (
        rows.min(axis=0),
        rows.max(axis=0),
        [decimals_of(column, error_of(column)) for column in rows.T],
    )
    rows, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    shares, levels = np.asarray(np.bincount(inverse.reshape(-1), weights=shares), dtype=np.float64), levels[first]
    random = np.random.RandomState(np.frombuffer(hashlib.sha256(rows.tobytes()).digest(), dtype=np.uint32))
    if len(rows) > MOST_ROWS:
        chosen = systematic_sample(shares, MOST_ROWS, random)
        rows, levels, shares = rows[chosen], levels[chosen], np.full(MOST_ROWS, 1 / MOST_ROWS)
    if (levels > 0).all():
        return rows, shares
    places = np.column_stack([(rows - low) / np.where(high > low, rows.std(axis=0), 1.0), _APART * levels])
    k = min(_ENOUGH, len(rows))
    near = rows[
        NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(places).kneighbors(places, return_distance=False)
    ]
    mean = near.mean(axis=1)
    drawn = mean + (random.normal(scale=k**-0.5, size=(len(rows), k, 1)) * (near - mean[:, None])).sum(axis=1)
    on_grid = [np.round(column, d) if d >= 0 else column for column, d in zip(drawn.T, decimals, strict=True)]
    return np.where(levels > 0, rows, np.column_stack(on_grid).clip(low, high)), shares


def _levels(column: Array, is_label: bool) -> Index:
    """A number from 1 for each label, or value that comes often; 0 for the values that are to be blurred."""
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    return np.where(is_label | (counts >= _ENOUGH), np.arange(1, len(counts) + 1), 0)[inverse.reshape(-1)]
