"""The rules that the columns of a table keep: found, told, and kept by generated values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import time
from typing import Any

import numpy as np

from flowmatch.core.checks import listed
from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Mask
from flowmatch.rules.calendar import CalendarRule, find_calendar_rule, has_two_parts
from flowmatch.rules.numbers import NumberRule, find_number_rule
from flowmatch.tables.dates import DateGrid, date_text
from flowmatch.tables.table import TableContainer

_ROWS_JUDGED = 200_000
"""Most rows that rules are found from."""


@storable
@dataclass(frozen=True, eq=False)
class ColumnRules:
    """What the values of each column of a table keep to.

    Parameters
    ----------
    rules : tuple of NumberRule, CalendarRule or None
        One a column; None where there is no rule.
    is_split : ndarray of bool, shape (n_columns,)
        Which columns are dates that are learned as two columns, day and time of day.
    """

    rules: tuple[NumberRule | CalendarRule | None, ...]
    is_split: Mask

    @classmethod
    def find(cls, columns: Array, container: TableContainer, chosen: Mask, tolerance: Array) -> ColumnRules:
        """Find the rules of the columns of a table.

        Parameters
        ----------
        columns : ndarray of shape (n, d)
            The table as numbers, NaN where an entry is missing.
        container : TableContainer
            What the numbers stand for.
        chosen : ndarray of bool, shape (d,)
            The columns whose rules are wanted.
        tolerance : ndarray of shape (d,)
            Relative rounding error of each.

        Returns
        -------
        ColumnRules
            Rules of the chosen columns, as far as there are any.
        """
        rules: list[NumberRule | CalendarRule | None] = [None] * len(chosen)
        is_split = np.zeros(len(chosen), dtype=bool)
        for j in np.flatnonzero(chosen):
            column = columns[:_ROWS_JUDGED, j]
            present, grid = column[~np.isnan(column)], container.dates_of(int(j))
            if not len(present):
                continue
            if grid and grid.kind == "datetime":
                rule = rules[j] = find_calendar_rule(present, grid)
                is_split[j] = has_two_parts(present, grid, rule)
            else:
                rules[j] = find_number_rule(present, float(tolerance[j]))
        return cls(tuple(rules), is_split)

    def check(self) -> None:
        """Raise a ValueError if the fields of stored rules do not fit each other."""
        require(self.is_split.shape == (len(self.rules),), "rules")

    def without(self, columns: Mask) -> ColumnRules:
        """Leave out the rules of columns whose values are those of training anyway.

        Parameters
        ----------
        columns : ndarray of bool, shape (n_columns,)
            Which they are.

        Returns
        -------
        ColumnRules
            The others.
        """
        rules = (None if left_out else rule for rule, left_out in zip(self.rules, columns, strict=True))
        return replace(self, rules=tuple(rules))

    def snap(self, X: Array) -> Array:
        """Move values to near ones that keep the rules.

        Parameters
        ----------
        X : ndarray of shape (n, n_columns)
            Values; is changed.

        Returns
        -------
        ndarray of shape (n, n_columns)
            The same array.
        """
        for column, rule in zip(X.T, self.rules, strict=True):
            if rule is not None:
                present = ~np.isnan(column)
                column[present] = rule.snap(column[present])
        return X

    def describe(self, container: TableContainer, limits: Array) -> dict[Any, str]:
        """Say what was found about each column.

        Parameters
        ----------
        container : TableContainer
            What the numbers stand for.
        limits : ndarray of shape (2, n_columns)
            Smallest and largest number of each column.

        Returns
        -------
        dict of str
            A line for each column, by its name or number.
        """
        lines = {}
        for j, (label, kind, rule) in enumerate(zip(container.labels, container.kinds, self.rules, strict=True)):
            if container.categorical[j]:
                lines[label] = f"{kind}: {listed(container.levels[j].tolist())}"
                continue
            if kind == "identifier" or np.isnan(limits[0, j]):
                lines[label] = "keys" if kind == "identifier" else f"{kind} without a value"
                continue
            grid, ends = container.dates_of(j), container.entries(j, limits[:, j])
            low, high = (_text_of(entry, grid) for entry in ends)
            found = f"{rule} {grid.unit}" if grid and isinstance(rule, NumberRule) else str(rule or "")
            parts = [f"{kind} from {low} to {high}", found, "day and time of day apart" * bool(self.is_split[j])]
            lines[label] = "; ".join(filter(None, parts))
        return lines


def _text_of(entry: Any, grid: DateGrid | None) -> str:
    """A number, a date, or an object such as a time of day or a period, as users read it."""
    if grid and not isinstance(entry, time):
        return date_text(entry, grid)
    return f"{entry:g}" if isinstance(entry, float) else str(entry)
