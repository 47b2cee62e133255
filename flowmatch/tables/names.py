"""Columns of tables found by their names or numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from flowmatch.core.checks import listed
from flowmatch.core.component import shown
from flowmatch.core.types import Mask


def named_columns(parameter: str, value: Any, names: tuple[Any, ...], d: int) -> Mask:
    """Which columns the value of a parameter names; "auto" and None name none."""
    if value is None or (isinstance(value, str) and value == "auto"):
        return np.zeros(d, dtype=bool)
    expected = "expected 'auto', None, or a list of column names, column indices, or one boolean a column"
    is_list = hasattr(value, "__iter__") and not isinstance(value, (str, bytes, dict))
    if not is_list or getattr(value, "ndim", 1) != 1:
        raise ValueError(f"{parameter}={shown(value)}; {expected}.")
    entries = list(value)
    if entries and all(isinstance(entry, (bool, np.bool_)) for entry in entries):
        if len(entries) != d:
            raise ValueError(f"{parameter} has {len(entries)} booleans, but X has {d} columns; {expected}.")
        return np.array(entries, dtype=bool)
    chosen, by_number = np.zeros(d, dtype=bool), not any(isinstance(name, Integral) for name in names)
    for entry in entries:
        found = positions_of_name(entry, names or range(d), by_number=by_number)
        if not found:
            there = f"the columns {listed(names)}" if names else f"columns 0 to {d - 1}, without names"
            raise ValueError(f"{parameter} holds {shown(entry)}, but X has {there}; {expected}.")
        chosen[found] = True
    return chosen


def positions_of_name(column: Any, names: Sequence[Any], *, by_number: bool) -> list[int]:
    """Positions of the columns of a name; if there are none, and that is wanted, the one of a number."""
    found = [j for j, name in enumerate(names) if isinstance(column, Hashable) and name == column]
    is_number = isinstance(column, Integral) and not isinstance(column, bool)
    if not found and by_number and is_number and -len(names) <= int(column) < len(names):
        found = [int(column) % len(names)]
    return found


def position_of(column: Any, names: Sequence[Any], n_columns: int) -> int:
    """The position of the one column of a name, or of a number where columns have no names.

    Raises
    ------
    ValueError
        If there is no such column, or more than one; lists those there are.
    """
    found = positions_of_name(column, names or range(n_columns), by_number=not names)
    if len(found) == 1:
        return found[0]
    if not names:
        raise ValueError(f"there is no column {column!r}; columns have the numbers 0 to {n_columns - 1}.")
    problem = f"{len(found)} columns are called {column!r}" if found else f"there is no column {column!r}"
    raise ValueError(f"{problem}; the columns are {listed(names)}.")
