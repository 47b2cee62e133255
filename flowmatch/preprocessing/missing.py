"""Which cells of a table's rows are missing together, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from flowmatch.preprocessing.conditions import systematic_sample

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_NEIGHBOURS = 10


@dataclass(frozen=True)
class MissingPatterns:
    """The patterns of missing cells in the training rows, with the rows' conditions and weights.

    Patterns are drawn as they occur there, so that columns which miss values together go on doing so. Where rows have
    conditions, a row's pattern is that of a training row of the same condition, or of one of the ten nearest.

    Attributes
    ----------
    patterns : ndarray of bool, shape (n_patterns, d)
        Which cells are missing.
    rows : ndarray of int, shape (n,)
        Pattern of each training row.
    shares : ndarray of shape (n,)
        Weights of the rows, with sum 1.
    vectors : ndarray of float32, shape (n, k)
        Vectors of their conditions; k is 0 without any.
    """

    patterns: Mask
    rows: NDArray[np.int64]
    shares: Array
    vectors: NDArray[np.float32]

    @classmethod
    def fit(cls, missing: Mask, vectors: NDArray[np.float32] | None, weight: Array | None) -> Self | None:
        """Learn the patterns of rows (n, d); None where no cell is missing."""
        if not missing.any():
            return None
        packed = np.ascontiguousarray(np.packbits(missing, axis=1))  # compared as bytes
        _, first, rows = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
        patterns = missing[first]
        shares = np.full(len(rows), 1 / len(rows)) if weight is None else weight / weight.sum()
        known = np.empty((len(rows), 0), dtype=np.float32) if vectors is None else vectors
        return cls(patterns, rows.reshape(-1).astype(np.int64), shares, known)

    def draw(
        self, n_samples: int, vectors: NDArray[np.float32] | None, present: Mask, rng: np.random.RandomState
    ) -> Mask:
        """Patterns (n_samples, d) for rows of which the columns `present` (d,) are there.

        Of the training rows those count that have these columns; if there are none, no cell is missing.
        """
        whole: Mask = ~np.any(self.patterns[:, present], axis=1)
        fits = whole[self.rows] & (self.shares > 0)
        if not fits.any():
            return np.zeros((n_samples, self.patterns.shape[1]), dtype=bool)
        rows, shares = self.rows[fits], self.shares[fits] / self.shares[fits].sum()
        if vectors is None or vectors.shape[1] == 0:
            chosen = rng.permutation(systematic_sample(shares, n_samples, rng))
        else:
            chosen = _of_like_condition(self.vectors[fits], shares, vectors, rng)
        return self.patterns[rows[chosen]]


def _of_like_condition(known: Any, shares: Array, wanted: Any, rng: np.random.RandomState) -> NDArray[np.intp]:
    """For each wanted vector the number of a row with that vector, drawn by weight, or of one of the nearest rows."""
    distinct, asked = np.unique(wanted, axis=0, return_inverse=True)
    values, groups = np.unique(known, axis=0, return_inverse=True)
    n_near = min(_NEIGHBOURS, len(values))
    distances, near = NearestNeighbors(n_neighbors=n_near).fit(values).kneighbors(distinct)
    chosen = np.empty(len(wanted), dtype=np.intp)
    order = np.argsort(groups.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(groups.reshape(-1)))
    for number in range(len(distinct)):
        same = near[number, :1] if distances[number, 0] == 0 else near[number]
        rows = np.concatenate([order[ends[group - 1] if group else 0 : ends[group]] for group in same])
        where = np.flatnonzero(asked.reshape(-1) == number)
        part = shares[rows] / shares[rows].sum()
        chosen[where] = rows[rng.permutation(systematic_sample(part, len(where), rng))]
    return chosen
