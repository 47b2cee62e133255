"""Dates with a time of day as two columns: days, and the time of day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from flowmatch.core.types import Array, Index, Mask
from flowmatch.preprocessing.scaling import ColumnTransform
from flowmatch.rules.columns import ColumnRules
from flowmatch.tables.dates import DateGrid
from flowmatch.tables.table import TableContainer


@dataclass(frozen=True)
class SplitDates(ColumnTransform):
    """A map of columns, some of which are dates that it has as two: day and time of day.

    The time of day has its own distribution and its own relations to other columns, which a network does not see in a
    count of seconds over years.

    Parameters
    ----------
    parts : ColumnTransform
        The map of the columns after splitting.
    grids : sequence of DateGrid or None
        For each column what its numbers count, if it is split.
    """

    parts: ColumnTransform
    grids: Sequence[DateGrid | None]

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        widths = self.code_counts(X.shape[1])
        tolerances = np.repeat(np.broadcast_to(tolerance, X.shape[1:]), widths)
        self.parts.fit(split_dates(X, self.grids), weight, tolerances)
        return self

    def code_counts(self, n_columns: int) -> Index:
        return np.array([1 if grid is None else 2 for grid in self.grids])

    def restores_seen(self, n_columns: int) -> Mask:
        widths = self.code_counts(n_columns)
        return (widths == 1) & self.parts.restores_seen(int(widths.sum()))[self._starts]

    def transform(self, X: Array) -> Array:
        return self.parts.transform(split_dates(X, self.grids))

    def inverse_transform(self, Z: Array) -> Array:
        return self._joined(self.parts.inverse_transform(Z))

    def restore(self, Z: Array) -> Array:
        return self._joined(self.parts.restore(Z))

    def log_slope(self, X: Array) -> Array:
        slopes = self.parts.log_slope(split_dates(X, self.grids))
        return np.add.reduceat(slopes, self._starts, axis=1)

    def training_bounds(self, X: Array) -> tuple[Array, Array | None]:
        return self.parts.training_bounds(split_dates(X, self.grids))

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        return self.parts.draw_codes(low, high, generator)

    @property
    def _starts(self) -> Index:
        widths = self.code_counts(len(self.grids))
        return np.cumsum(widths) - widths

    def _joined(self, parts: Array) -> Array:
        X = parts[:, self._starts]
        for j, (start, grid) in enumerate(zip(self._starts, self.grids, strict=True)):
            if grid:
                both = np.round(parts[:, start : start + 2])
                missing = np.isnan(both).any(axis=1)
                days, times = np.where(np.isnan(both), 0, both).astype(np.int64).T
                clock = days * grid.ticks_in_day + np.clip(times, 0, grid.ticks_in_day - 1)
                X[:, j] = np.where(missing, np.nan, grid.numbers_of_clock(clock))
        return X


def split_dates(X: Array, grids: Sequence[DateGrid | None]) -> Array:
    """Replace columns of dates by days since 1970 and time of day, on the clock of their time zone.

    Parameters
    ----------
    X : ndarray of shape (n, k)
        Columns of numbers.
    grids : sequence of DateGrid or None
        What the numbers of the columns to be split count.

    Returns
    -------
    ndarray of shape (n, m)
        One column or two for each; NaN where an entry is missing.
    """
    parts = []
    for column, grid in zip(X.T, grids, strict=True):
        if grid is None:
            parts.append(column)
            continue
        missing = np.isnan(column)
        days = np.divmod(grid.clock(np.where(missing, 0.0, column)), grid.ticks_in_day)
        parts += [np.where(missing, np.nan, part) for part in days]
    return np.column_stack(parts) if parts else X


def with_split_dates(
    transform: ColumnTransform, rules: ColumnRules, container: TableContainer, columns: Mask
) -> ColumnTransform:
    """A map of the columns of numbers, given that of their parts; it itself if none is split."""
    if not rules.is_split[columns].any():
        return transform
    grids = [container.dates_of(int(j)) if rules.is_split[j] else None for j in np.flatnonzero(columns)]
    return SplitDates(transform, grids)
