"""Mixed tables as columns of numbers, for what reads rows as conditions and writes none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Index, Mask
from flowmatch.preprocessing.categories import points_at, points_of
from flowmatch.tables.table import TableContainer


@storable
@dataclass(frozen=True, eq=False)
class TableNumbers:
    """Columns of numbers that stand for the columns of a table, one or several for each.

    Numbers, booleans and dates are one column; a category has the coordinates of its point (`CategoryCodes`), and keys
    have none. A missing entry is the column's mean, or the middle between the points, and where entries were missing in
    training a further column says so with a 1.

    Parameters
    ----------
    container : TableContainer
        What the table came in.
    means : ndarray of shape (d,)
        Of the entries in training; 0 for categories.
    holed : ndarray of bool, shape (d,)
        Which columns had missing entries in training.
    """

    container: TableContainer
    means: Array
    holed: Mask

    @classmethod
    def fit(cls, container: TableContainer, values: Array) -> TableNumbers:
        """Learn what stands for missing entries.

        Parameters
        ----------
        container : TableContainer
            What the table came in.
        values : ndarray of shape (n, d)
            What it reads.

        Returns
        -------
        TableNumbers
            Fitted to the values.
        """
        missing = np.isnan(values)
        present = np.maximum((~missing).sum(axis=0), 1)
        means = np.where(missing, 0.0, values).sum(axis=0) / present
        holed = missing.any(axis=0) & ~container.is_key
        return cls(container, np.where(_has_points(container), 0.0, means), np.asarray(holed))

    def check(self) -> None:
        """Raise a ValueError if the fields of stored numbers do not fit each other."""
        shape = (len(self.container.kinds),)
        require(self.means.shape == shape and np.isfinite(self.means).all() and self.holed.shape == shape, "table")

    @property
    def widths(self) -> Index:
        """Columns of numbers for each column of the table, (d,)."""
        container = self.container
        sizes = [points_of(container.n_levels(j)).shape[1] if p else 1 for j, p in enumerate(_has_points(container))]
        return np.where(container.is_key, 0, np.array(sizes, dtype=np.intp) + self.holed)

    @property
    def names(self) -> tuple[Any, ...]:
        """Names of the columns of numbers; those of plain columns are their own."""
        found: list[Any] = []
        for j, (label, size) in enumerate(zip(self.container.labels, self.widths - self.holed, strict=True)):
            levels = self.container.levels[j].tolist()
            if not _has_points(self.container)[j]:
                found += [label] * int(size)
            elif size in (1, len(levels)):
                found += [f"{label}={level}" for level in (levels[1:] or [None] if size == 1 else levels)]
            else:
                found += [f"{label}=digit {i}" for i in range(size)]
            found += [f"{label} is missing"] * bool(self.holed[j])
        return tuple(found)

    @property
    def is_mixed(self) -> bool:
        """Whether there is anything but whole columns of numbers and booleans."""
        return bool(self.holed.any()) or not set(self.container.kinds) <= {"number", "boolean"}

    def positions(self, columns: Sequence[int]) -> list[int]:
        """Find the columns of numbers that stand for given columns.

        Parameters
        ----------
        columns : sequence of int
            Positions in the table.

        Returns
        -------
        list of int
            Positions among the columns of numbers, in the order of `columns`.
        """
        ends = np.cumsum(self.widths)
        return [int(i) for j in columns for i in range(ends[j] - self.widths[j], ends[j])]

    def numbers(self, values: Array, columns: Sequence[int] | None = None, whole: Sequence[int] = ()) -> Array:
        """Replace the entries of a table by their numbers.

        Parameters
        ----------
        values : ndarray of shape (n, k)
            What the container reads, or a part of its columns.
        columns : sequence of int or None, default=None
            Which columns those are; None for all.
        whole : sequence of int, default=()
            Columns whose missing entries stay NaN.

        Returns
        -------
        ndarray of shape (n, m)
            Numbers.
        """
        chosen = range(len(self.container.kinds)) if columns is None else columns
        has_points, parts = _has_points(self.container), [np.empty((len(values), 0))]
        for j, column in zip(chosen, values.T, strict=True):
            missing = np.isnan(column)
            if self.container.is_key[j]:
                continue
            if has_points[j]:
                parts.append(np.nan_to_num(points_at(self.container.n_levels(j), column)))
            else:
                parts.append(np.where(missing & (j not in whole), self.means[j], column)[:, None])
            if self.holed[j]:
                parts.append(missing[:, None])
        return np.concatenate(parts, axis=1)


def _has_points(container: TableContainer) -> Mask:
    return np.array([kind == "category" for kind in container.kinds], dtype=bool)
