"""Mixed tables as columns of numbers, for what reads rows as conditions and writes none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable
from flowmatch.preprocessing.categories import points_of
from flowmatch.preprocessing.tables import TableContainer

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@storable
@dataclass(frozen=True, eq=False)
class TableNumbers:
    """Numbers that stand for the cells of a table, some columns of them for each of the table's.

    Numbers, booleans and dates are one column; a category has the coordinates of its point (`CategoryCodes`). A missing
    cell is the column's mean, or the middle between the points, and where training missed cells a further column says
    so with a 1.

    Attributes
    ----------
    container : TableContainer
        What the table came in.
    means : ndarray of shape (d,)
        Of the training cells; 0 for categories.
    holed : ndarray of bool, shape (d,)
        Which columns missed cells in training.
    """

    container: TableContainer
    means: Array
    holed: Mask

    @classmethod
    def fit(cls, container: TableContainer, values: Array) -> TableNumbers:
        """Learn from the cells (n, d) that the container reads."""
        missing = np.isnan(values)
        present = np.maximum((~missing).sum(axis=0), 1)
        means = np.where(missing, 0.0, values).sum(axis=0) / present
        return cls(container, np.where(_has_points(container), 0.0, means), np.asarray(missing.any(axis=0)))

    def check(self) -> None:
        """Raise a ValueError if the fields of stored numbers do not fit each other."""
        shape = (len(self.container.kinds),)
        require(self.means.shape == shape and np.isfinite(self.means).all() and self.holed.shape == shape, "table")

    @property
    def widths(self) -> NDArray[np.intp]:
        """Columns of numbers for each column of the table, (d,)."""
        points = _has_points(self.container)
        sizes = [points_of(len(levels)).shape[1] if p else 1 for levels, p in zip(self._levels, points, strict=True)]
        return np.array(sizes, dtype=np.intp) + self.holed

    @property
    def names(self) -> tuple[Any, ...]:
        """Names of the columns of numbers; those of plain columns are their own."""
        found: list[Any] = []
        labels = self.container.columns or tuple(range(len(self.container.kinds)))
        for name, width, levels, points, holed in zip(
            labels, self.widths, self._levels, _has_points(self.container), self.holed, strict=True
        ):
            size = width - holed
            if points:
                digits = [f"digit {i}" for i in range(size)]
                found += [
                    f"{name}={v}" for v in (levels[-1:] if size == 1 else levels if size == len(levels) else digits)
                ]
            else:
                found.append(name)
            found += [f"{name} is missing"] * bool(holed)
        return tuple(found)

    @property
    def is_mixed(self) -> bool:
        """Whether there is anything but whole columns of numbers and booleans."""
        return bool(self.holed.any()) or not set(self.container.kinds) <= {"number", "boolean"}

    def positions(self, columns: Sequence[int]) -> list[int]:
        """Positions of the columns of numbers that stand for the given columns, in their order."""
        ends = np.cumsum(self.widths)
        return [int(i) for j in columns for i in range(ends[j] - self.widths[j], ends[j])]

    def numbers(self, values: Array, columns: Sequence[int] | None = None, whole: Sequence[int] = ()) -> Array:
        """Columns of numbers (n, m) for cells (n, k) of the given columns, by default all.

        Those of `whole` are passed on as they are, NaN or not.
        """
        chosen = range(len(self.container.kinds)) if columns is None else columns
        points, parts = _has_points(self.container), []
        for j, cells in zip(chosen, values.T, strict=True):
            missing = np.isnan(cells)
            if points[j]:
                found = points_of(len(self._levels[j]))[np.where(missing, 0, cells).astype(np.intp)]
                found[missing] = 0.0
            else:
                found = np.where(missing & (j not in whole), self.means[j], cells)[:, None]
            parts.append(np.column_stack([found, missing]) if self.holed[j] else found)
        return np.concatenate(parts, axis=1) if parts else np.empty((len(values), 0))

    @property
    def _levels(self) -> tuple[Any, ...]:
        """Values of each category; one with a single value has a line to itself."""
        return tuple(list(levels) if len(levels) > 1 else [*levels, None] for levels in self.container.levels)


def _has_points(container: TableContainer) -> Mask:
    return np.array([kind == "category" for kind in container.kinds], dtype=bool)
