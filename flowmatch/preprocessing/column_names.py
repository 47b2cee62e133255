"""Columns of a table by their names or numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import listed


def named_categories(categorical_features: Any, names: tuple[Any, ...], d: int) -> NDArray[np.bool_]:
    """Which columns `categorical_features` names."""
    if categorical_features is None or (isinstance(categorical_features, str) and categorical_features == "auto"):
        return np.zeros(d, dtype=bool)
    expected = "expected 'auto', None, or a list of column names, column indices, or one boolean a column"
    is_list = hasattr(categorical_features, "__iter__") and not isinstance(categorical_features, (str, bytes, dict))
    if not is_list or getattr(categorical_features, "ndim", 1) != 1:
        raise ValueError(f"categorical_features={categorical_features!r}; {expected}.")
    entries = list(categorical_features)
    if entries and all(isinstance(entry, (bool, np.bool_)) for entry in entries):
        if len(entries) != d:
            raise ValueError(f"categorical_features has {len(entries)} booleans, but X has {d} columns; {expected}.")
        return np.array(entries, dtype=bool)
    chosen, by_number = np.zeros(d, dtype=bool), not any(isinstance(name, Integral) for name in names)
    for entry in entries:
        found = positions_of_name(entry, names or range(d), by_number=by_number)
        if not found:
            there = f"the columns {listed(names)}" if names else f"columns 0 to {d - 1}, without names"
            raise ValueError(f"categorical_features holds {entry!r}, but X has {there}; {expected}.")
        chosen[found] = True
    return chosen


def positions_of_name(column: Any, names: Sequence[Any], *, by_number: bool) -> list[int]:
    """Positions of the columns of a name; if there are none, and that is wanted, the one of a number."""
    found = [j for j, name in enumerate(names) if isinstance(column, Hashable) and name == column]
    is_number = isinstance(column, Integral) and not isinstance(column, bool)
    if not found and by_number and is_number and -len(names) <= int(column) < len(names):
        found = [int(column) % len(names)]
    return found
