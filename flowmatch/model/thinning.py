"""Samples that keep as far from given rows as these keep from each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from flowmatch.metrics.table_reader import Encoding, SampleTables
from flowmatch.model.rejection import Array, Mask, Places
from flowmatch.tables.table import TableContainer

Index = NDArray[np.intp]

JUDGED_BY = 1000
"""Samples, and rows, whose shares say how many near samples are kept."""

_ROUNDING = 1e-7
"""Of distances."""


class Space:
    """Where a report compares rows (`flowmatch.metrics.table_reader.Encoding`), of a table's numbers; without its keys.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Real rows, whose deviations numbers are measured in.
    container : TableContainer
        Says what their numbers stand for.
    """

    def __init__(self, rows: Array, container: TableContainer) -> None:
        self._columns = np.flatnonzero(~container.is_key)
        kinds = ["category" if container.categorical[column] else "number" for column in self._columns]
        self._places: dict[int, Array] = {}  # of categories: the most frequent first
        levels: list[list[str]] = [[] for _ in kinds]
        for j, column in enumerate(self._columns):
            if kinds[j] == "category":
                seen = rows[~np.isnan(rows[:, column]), column].astype(np.intp)
                counts = np.bincount(seen, minlength=container.n_levels(int(column)))
                self._places[j] = np.argsort(np.argsort(-counts, kind="stable")).astype(np.float64)
                levels[j] = [str(level) for level in range(len(counts))]
        names = [str(column) for column in self._columns]
        unknown = np.full((1, len(names)), np.nan)  # any entry may be missing among samples
        tables = SampleTables(names, kinds, levels, {"real": self._placed(rows), "samples": unknown})
        self._encoding = Encoding.of(tables)

    def __call__(self, rows: Array) -> Array:
        """Rows (n, d) as points (n, k)."""
        return self._encoding(self._placed(rows))

    def _placed(self, rows: Array) -> Array:
        rows = rows[:, self._columns]
        for j, places in self._places.items():
            there = ~np.isnan(rows[:, j])
            rows[there, j] = places[rows[there, j].astype(np.intp)]
        return rows


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
        self._container, self._uniform = container, uniform
        self._space = Space(rows, container)
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
        held = self._container.read(self._container.wrap(samples))  # as they are given out
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
