"""The rules that the columns of a table keep, found and told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import listed
from flowmatch.preprocessing.calendar_rules import CalendarRule, find_calendar_rule
from flowmatch.preprocessing.number_rules import Array, NumberRule, find_number_rule
from flowmatch.preprocessing.tables import TableContainer

ColumnRule = NumberRule | CalendarRule

_ROWS_JUDGED = 200_000
"""Most rows that rules are found from."""


def find_rules(
    columns: Array, container: TableContainer, chosen: NDArray[np.bool_], tolerance: Array
) -> tuple[ColumnRule | None, ...]:
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
    tuple of NumberRule, CalendarRule or None
        One a column; None for the others, and where there is no rule.
    """
    rules: list[ColumnRule | None] = [None] * len(chosen)
    for j in np.flatnonzero(chosen):
        column = columns[:_ROWS_JUDGED, j]
        present, grid = column[~np.isnan(column)], container.dates_of(int(j))
        if not len(present):
            continue
        if grid and grid.kind == "datetime":
            rules[j] = find_calendar_rule(present, grid)
        else:
            rules[j] = find_number_rule(present, float(tolerance[j]))
    return tuple(rules)


def describe_columns(container: TableContainer, limits: Array, rules: Sequence[ColumnRule | None]) -> dict[Any, str]:
    """Say what was found about each column.

    Parameters
    ----------
    container : TableContainer
        What the numbers stand for.
    limits : ndarray of shape (2, d)
        Smallest and largest number of each column.
    rules : sequence of NumberRule, CalendarRule or None
        One a column, or empty.

    Returns
    -------
    dict of str
        A line for each column, by its name or number.
    """
    lines = {}
    for j, label in enumerate(container.labels):
        kind, rule = container.kinds[j], rules[j] if rules else None
        if container.categorical[j]:
            lines[label] = f"{kind}: {listed(container.levels[j].tolist())}"
            continue
        low, high = (
            entry.item() if isinstance(entry, np.generic) else entry for entry in container.entries(j, limits[:, j])
        )
        found = f", {rule}" if rule else ""
        lines[label] = f"{kind} from {low} to {high}{found}"
    return lines
