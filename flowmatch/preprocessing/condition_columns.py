"""Columns of conditions that are numbers to a network and more to the user: dates, decimals, large integers."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np

from flowmatch.core.types import AnyArray, Array
from flowmatch.tables.dates import EXACT, localize
from flowmatch.tables.entries import group_of, index_entries
from flowmatch.tables.frames import is_polars, objects
from flowmatch.tables.reading import missing_entries
from flowmatch.tables.table import TableContainer

Columns = tuple[TableContainer | None, ...]
"""What stands behind the numbers of each column, None where they are all there is; empty if that is so everywhere."""

_AMOUNTS = {"datetimes", "dates", "timedeltas", "times", "periods"}


def columns_of(y: Any, values: AnyArray) -> Columns:
    """What stands behind the numbers of the columns of conditions.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, k)
        Conditions as the user has them.
    values : ndarray of the same shape
        The same as an array.

    Returns
    -------
    tuple of TableContainer or None
        One a column.

    Raises
    ------
    ValueError
        For integers that are too far apart to be told apart as floats, mixed types, and the like.
    """
    parts = values.reshape(len(values), -1).T
    chosen = [_stands_for_more(part, values.ndim > 1) for part in parts]
    if not any(chosen):
        return ()
    return tuple(TableContainer.fit(_table_of(y, parts[j], j)) if more else None for j, more in enumerate(chosen))


def entries_in(column: TableContainer, numbers: Array) -> AnyArray:
    """What the numbers of one column stand for; dates with a time zone are objects."""
    entries, zone = column.entries(0, numbers), column.timezones[0]
    if not zone:
        return entries
    return objects(list(localize(entries, zone, bool(column.walls[0]))))


def as_objects(entries: AnyArray) -> AnyArray:
    """Entries as Python's objects; nanoseconds, of which it has none, as those of pandas."""
    if entries.dtype.kind in "mM" and np.datetime_data(entries.dtype)[0] == "ns":
        return index_entries(entries, "")
    return entries.astype(object)


def _stands_for_more(values: AnyArray, is_column: bool) -> bool:
    """Whether values are amounts that floats alone are not; integers as objects are labels if they are no column."""
    if values.dtype.kind in "iu" and len(values):
        return max(-int(values.min()), int(values.max())) > EXACT
    if values.dtype.kind != "O" or not len(values):
        return values.dtype.kind in "mM"
    present = values[~missing_entries(values)]
    types = set(map(type, present))
    if is_column and all(issubclass(kind, (int, np.integer)) for kind in types):
        return any(abs(entry) > EXACT for entry in present)
    return len(set(map(group_of, types))) == 1 and (decimal.Decimal in types or set(map(group_of, types)) <= _AMOUNTS)


def _table_of(y: Any, values: AnyArray, column: int) -> Any:
    """A column of conditions as a table."""
    if hasattr(y, "iloc"):
        return y.iloc[:, [column]] if y.ndim == 2 else y.to_frame("y" if y.name is None else y.name)
    if is_polars(y):
        return y.select(y.columns[column]) if hasattr(y, "columns") else y.to_frame()
    return values[:, None]
