"""What the numbers of a table's columns stand for, so that columns can be compared and computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from flowmatch.core.types import Array
from flowmatch.tables.dates import NANOSECONDS
from flowmatch.tables.table import TableContainer


@dataclass(frozen=True)
class Scales:
    """The columns of a table, as constraints see them.

    Parameters
    ----------
    container : TableContainer
        What the table came in.
    limits : ndarray of shape (2, d)
        Smallest and largest number of each column in training.
    """

    container: TableContainer
    limits: Array

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the columns hold."""
        return self.container.kinds

    def of(self, column: int) -> tuple[Fraction, Fraction]:
        """The size of a column's unit, and where it has the number 0: nanoseconds for dates and durations."""
        grid = self.container.dates_of(column)
        if grid is None:
            return Fraction(1), Fraction(0)
        size = Fraction(NANOSECONDS[grid.unit])
        return size, size * grid.origin / grid.ticks_in_unit

    def positions(self, constraint: Any, columns: Sequence[Any], at_least: int) -> tuple[int, ...]:
        """Where columns of a constraint stand.

        Raises
        ------
        ValueError
            For columns that there are not, that hold keys or come twice, and for fewer than there must be.
        """
        if isinstance(columns, str) or not hasattr(columns, "__len__"):
            raise ValueError(f"{constraint!r}: columns must be a list of names, got {columns!r}.")
        try:
            found = tuple(self.container.position(name) for name in columns)
        except ValueError as error:
            raise ValueError(f"{constraint!r}: {error}") from None
        for name, j in zip(columns, found, strict=True):
            if self.kinds[j] == "identifier":
                raise ValueError(f"{constraint!r}: column {name!r} holds keys, which are unique and not learned.")
        if len(set(found)) < len(found) or len(found) < at_least:
            raise ValueError(f"{constraint!r} needs at least {at_least} columns, each of them once.")
        return found

    def check_measured(self, constraint: Any, columns: Sequence[int], *, dates: bool = True) -> None:
        """Raise a ValueError unless columns are all numbers, or (if that is allowed) all dates or durations."""
        kinds = {self.kinds[j] for j in columns}
        if kinds == {"number"} or (dates and kinds <= {"datetime", "timedelta"} and self._one_clock(columns)):
            return
        labels = [self.container.labels[j] for j in columns]
        found = ", ".join(f"{label!r} ({self.kinds[j]})" for label, j in zip(labels, columns, strict=True))
        raise ValueError(
            f"{constraint!r}: columns of numbers{', or of dates and durations of one clock,' if dates else ''} are "
            f"expected, got {found}."
        )

    def _one_clock(self, columns: Sequence[int]) -> bool:
        """Whether dates are all in UTC, or all on the clock of one time zone."""
        grids = [grid for grid in map(self.container.dates_of, columns) if grid and grid.kind == "datetime"]
        return len({(bool(grid.timezone), grid.timezone if grid.wall else "") for grid in grids}) < 2

    def rounded(self, values: Array) -> Array:
        """Numbers as they are once they have their columns' dtypes."""
        container, rounded = self.container, values.copy()
        dtypes = np.broadcast_to(container.dtypes, len(self.kinds))
        for j, tolerance in enumerate(container.tolerance(len(self.kinds)).tolist()):
            if "int" in dtypes[j].lower() or container.cell_types[j] == "int" or self.kinds[j] != "number":
                rounded[:, j] = np.round(values[:, j])
            elif tolerance > 0:
                rounded[:, j] = values[:, j].astype(np.float32 if tolerance < 1e-4 else np.float16)
        return rounded
