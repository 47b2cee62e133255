"""Euclidean distances in blocks, so that memory stays bounded however many rows come in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowmatch.metrics._samples import FloatArray

BLOCK_ENTRIES = 2**22
"""Distances held at a time: 32 MB in float64."""


def distance_blocks(X: FloatArray, Y: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Yield (rows of X as a slice, their distances to every row of Y).

    From differences, not from the expansion |x|^2 - 2xy + |y|^2: equal rows are at distance 0 exactly, and d(x, y)
    is d(y, x) to the last bit. Neighbor counts and copies need that.
    """
    from scipy.spatial.distance import cdist

    n_rows = max(1, BLOCK_ENTRIES // len(Y))
    for start in range(0, len(X), n_rows):
        rows = slice(start, start + n_rows)
        yield rows, cdist(X[rows], Y)


def neighbor_distance(X: FloatArray, Y: FloatArray, k: int) -> FloatArray:
    """Distance of each row of X to the row of Y at position k, the nearest at 0, (n,); in Y itself that is the row."""
    return np.concatenate([np.partition(block, k, axis=1)[:, k] for _, block in distance_blocks(X, Y)])
