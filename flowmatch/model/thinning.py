"""Samples that keep as far from given rows as these keep from each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from flowmatch.model.rejection import Array, Mask, Places
from flowmatch.tables.table import TableContainer

Index = NDArray[np.intp]

JUDGED_BY = 1000
"""Samples, and rows, whose shares say how many near samples are kept."""

_MOST_LEVELS = 50
"""Levels of a column of categories that are told apart; the others count as one."""

_ROUNDING = 1e-7
"""Of distances."""


@dataclass(frozen=True)
class Space:
    """Where rows are compared: numbers in standard deviations, categories that differ at distance 1.

    A missing number is at the mean, and at distance 1 from one that is there (k-prototypes; Huang, 1998, weight 1).

    Attributes
    ----------
    container : TableContainer
    center, scale : ndarray of shape (d,)
        Of numbers; the scale of a constant column is infinite.
    levels : tuple of (ndarray or None)
        Of each column of categories; None for numbers.
    """

    container: TableContainer
    center: Array
    scale: Array
    levels: tuple[Array | None, ...]

    @classmethod
    def of(cls, rows: Array, container: TableContainer) -> Self:
        """The space of rows (n, d) of a table; keys count as constant columns."""
        rows = np.where(container.is_key, 0.0, rows)
        there = ~np.isnan(rows)
        count = np.maximum(there.sum(axis=0), 1)
        center = np.where(there, rows, 0.0).sum(axis=0) / count
        scale = np.sqrt((np.where(there, rows - center, 0.0) ** 2).sum(axis=0) / count)
        levels = [
            np.unique(column[~np.isnan(column)])[:_MOST_LEVELS] if is_category else None
            for column, is_category in zip(rows.T, container.categorical, strict=True)
        ]
        return cls(container, center, np.where(scale > 0, scale, np.inf), tuple(levels))

    def __call__(self, rows: Array) -> Array:
        """Rows (n, d) as points (n, k)."""
        columns, rows = [], np.where(self.container.is_key, 0.0, rows)
        for column, center, scale, levels in zip(rows.T, self.center, self.scale, self.levels, strict=True):
            missing = np.isnan(column)[:, None] * 0.5**0.5
            value = np.nan_to_num((column - center) / scale)[:, None]
            columns += [value if levels is None else (column[:, None] == levels) * 0.5**0.5, missing]
        return np.concatenate(columns, axis=1)


class Thinning:
    """Drops samples that are near to rows at random, until they are as frequent as among the rows themselves.

    A sample is near if it is nearer to its nearest row than that is to its own nearest other one; ties count half.

    Parameters
    ----------
    container : TableContainer
        Of the samples.
    rows : ndarray of shape (m, d)
        At least two.
    uniform : callable
        Random numbers in [0, 1) for places.
    """

    def __init__(self, container: TableContainer, rows: Array, uniform: Callable[[Places], Array]) -> None:
        self._uniform = uniform
        self._space = Space.of(rows, container)
        self._points = self._space(rows)
        self._neighbors = NearestNeighbors().fit(self._points)
        self._spacing = np.full(len(rows), np.nan)
        self.kept_share = 1.0

    def learn(self, samples: Array) -> Self:
        """Learn from samples (n, d) how many near ones are kept: near samples have the odds of near rows then."""
        share, natural = float(self.nearness(samples).mean()), self.natural_share()
        if share > natural:
            self.kept_share = natural * (1 - share) / (share * (1 - natural))
        return self

    def drops(self, samples: Array, places: Places) -> Mask:
        """Which of the samples (n, d) at some places are dropped."""
        return np.asarray(self._uniform(places) < self.nearness(samples) * (1 - self.kept_share))

    def nearness(self, samples: Array) -> Array:
        """Say of each of the samples (n, d) whether it is near to a row: 1, 0, or one half for a tie."""
        container = self._space.container
        held = container.read(container.wrap(samples))  # as they are given out
        distance, nearest = (found[:, 0] for found in self._neighbors.kneighbors(self._space(held), 1))
        asked = np.unique(nearest[np.isnan(self._spacing[nearest])])
        if len(asked):
            self._spacing[asked] = self._neighbors.kneighbors(self._points[asked], 2)[0][:, 1]
        return _nearer(distance, self._spacing[nearest])

    def natural_share(self) -> float:
        """Share of the rows that are near to another one, each left out in turn; of at most a thousand of them."""
        some = np.random.RandomState(0).permutation(len(self._points))[:JUDGED_BY]
        distance, nearest = self._to_others(some, some)
        return float(_nearer(distance, self._to_others(nearest, some)[0]).mean())

    def _to_others(self, asked: Index, left_out: Index) -> tuple[Array, Index]:
        """Distance from each row asked to the nearest of the others but one that is left out, and which that is."""
        distances, rows = self._neighbors.kneighbors(self._points[asked], min(3, len(self._points)))
        besides = (rows == asked[:, None]) | (rows == left_out[:, None])
        first = besides.argmin(axis=1)  # the last one if there is no other, which is at distance 0 or alone
        every = np.arange(len(asked))
        return np.where(besides.all(axis=1), np.inf, distances[every, first]), rows[every, first]


def _nearer(distance: Array, spacing: Array) -> Array:
    return np.where(np.isclose(distance, spacing, rtol=1e-9, atol=_ROUNDING), 0.5, distance < spacing)
