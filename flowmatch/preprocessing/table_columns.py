"""The cells of one column as numbers, and back: categories as positions, dates as whole days (seconds, ...)."""

from __future__ import annotations

import datetime
import decimal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require
from flowmatch.core.user_warnings import warn
from flowmatch.preprocessing.table_dates import OBJECTS, DateGrid, as_dates, date_text, moments_of
from flowmatch.preprocessing.table_frames import RawColumn, nearest_positions

Array = NDArray[np.float64]

MOST_SHOWN = 20
"""Errors list at most so many known categories."""

IDENTIFIER_LEVELS = 100
"""Text with more different values than this, and than half its rows, looks like an identifier."""

MANY_LEVELS = 1000
"""More categories than this are warned about."""


@dataclass(frozen=True)
class ColumnFormat:
    """What the numbers of a column stand for.

    Attributes
    ----------
    kind : {"number", "category", "boolean", "datetime", "timedelta"}
    levels : ndarray
        Values of a category by position; the numbers themselves, as float64, where numbers or dates were named
        categories. Empty for other kinds.
    level_dtype : str
        Of a categorical dtype's categories, "" for others.
    ordered : bool
        Of a categorical dtype.
    cell : str
        Type of the cells of an object column: "int", "float", "bool", "text", "date", "datetime" or "timedelta".
    mark : {"None", "nan", "NA", "NaT"}
        How such a column marks missing cells.
    dates : DateGrid, optional
        What dates and durations are counted on.
    """

    kind: str
    levels: NDArray[Any]
    level_dtype: str = ""
    ordered: bool = False
    cell: str = ""
    mark: str = "None"
    dates: DateGrid | None = None

    def check(self) -> None:
        """Raise a ValueError if these are no such numbers."""
        require(self.kind in ("number", "category", "boolean", "datetime", "timedelta"), "table")
        require(self.cell in ("", "int", "float", "bool", "text", *OBJECTS), "table")
        require(self.mark in ("", "None", "nan", "NA", "NaT") and self.levels.ndim == 1, "table")
        if self.dates:
            self.dates.check()
        require(self.kind not in ("datetime", "timedelta") or (self.dates and self.dates.kind == self.kind), "table")

    @property
    def is_coded(self) -> bool:
        """Whether the categories are numbers or dates that the user named as categories."""
        return self.kind == "category" and not self.level_dtype and self.levels.dtype.kind == "f"

    @property
    def uncoded(self) -> str:
        """The kind of what stands behind the categories of a coded column."""
        return self.dates.kind if self.dates else "number"


NUMBER = ColumnFormat("number", np.empty(0))
BOOLEAN = ColumnFormat("boolean", np.array([False, True]))


def fit_column(raw: RawColumn, where: str, named: bool = False, numbersonly: bool = False) -> ColumnFormat:
    """Find out what a column holds; `named` ones become categories, `numbersonly` refuses those that must be.

    Raises
    ------
    ValueError
        If nothing is in it, if it mixes types, if it looks like an identifier (unless named), or holds text with
        `numbersonly`. The message starts with `where`.
    TypeError
        If a cell holds a list, dict or another object.
    """
    values = _objects(raw.values) if raw.values.dtype.kind in "UST" else raw.values
    missing = missing_cells(values)
    if len(values) and missing.all():
        raise ValueError(f"{where} holds no value at all: leave it out.")
    if raw.levels is not None:
        found = ColumnFormat("category", raw.levels, level_dtype=raw.level_dtype, ordered=raw.ordered)
    elif values.dtype.kind == "O":
        found = _fit_objects(values, missing, where)
        if found.kind == "category" and not named and not numbersonly:
            _check_no_identifier(found.levels, int((~missing).sum()), where)
    elif values.dtype.kind in "mM":
        found = _dates_format(DateGrid.fit(values[~missing], raw.timezone))
    elif values.dtype.kind in "biuf":
        found = BOOLEAN if values.dtype.kind == "b" else NUMBER
    else:
        what = "Complex data not supported: " if values.dtype.kind == "c" else ""
        raise ValueError(f"{what}{where} has dtype {values.dtype}; numbers, text, booleans or dates are expected.")
    if numbersonly:
        found = _without_categories(found, raw, where)
    elif named and found.kind in ("number", "datetime", "timedelta"):
        if values.dtype.kind in "iu" and len(values) and max(abs(int(values.min())), int(values.max())) > 2**53:
            raise ValueError(f"{where} holds integers beyond 2^53, which floats cannot tell apart: convert it to text.")
        numbers = read_column(found, raw, where)
        found = replace(found, kind="category", levels=np.unique(numbers[~np.isnan(numbers)]))
    if found.kind == "category" and len(found.levels) > MANY_LEVELS:
        warn(
            f"{where} has {len(found.levels)} categories: rare ones cannot be learned, and training becomes slow. Join "
            "them to fewer, or leave the column out."
        )
    return found


def read_column(column: ColumnFormat, raw: RawColumn, where: str) -> Array:
    """Numbers of a column's cells, NaN for missing ones.

    Raises
    ------
    ValueError
        For a category that is not known, text where numbers are expected, and the like, with the first row of it.
    TypeError
        If a cell holds a list, dict or another object.
    """
    if column.is_coded:
        values = _read_numbers(replace(column, kind=column.uncoded), raw, where)
        return _positions_of_numbers(values, column, where)
    if column.kind in ("category", "boolean"):
        return _read_positions(column, raw, where)
    return _read_numbers(column, raw, where)


def write_column(column: ColumnFormat, numbers: Array) -> NDArray[Any]:
    """Undo `read_column`: float64 for numbers and booleans, dates as such, and objects where `cell` says so."""
    numbers = np.asarray(numbers, dtype=np.float64)
    gaps = np.isnan(numbers)
    if column.kind == "category":
        positions = nearest_positions(numbers, len(column.levels))
        if not column.is_coded:
            return _with_mark(_objects(column.levels)[positions], gaps, column.mark)
        numbers = np.where(gaps, np.nan, column.levels[positions])
    if column.dates:
        dates = column.dates.write(numbers)
        return _with_mark(_objects(dates), gaps, column.mark) if column.cell else dates
    if not column.cell:
        return numbers
    filled = np.where(gaps, 0.0, numbers)
    if column.cell == "bool":
        cells: NDArray[Any] = filled >= 0.5
    else:
        cells = np.clip(np.round(filled), -(2.0**62), 2.0**62).astype(np.int64) if column.cell == "int" else filled
    return _with_mark(cells.astype(object), gaps, column.mark)


def missing_cells(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which cells are NaN, None, pandas.NA or NaT."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        return np.asarray(pandas.isna(values))
    return (values == np.array(None)).astype(bool) | (values != values).astype(bool)


def list_levels(levels: NDArray[Any]) -> str:
    """Known categories for an error message."""
    shown = ", ".join(map(repr, levels[:MOST_SHOWN].tolist()))
    return shown + (f", ... ({len(levels)} in all)" if len(levels) > MOST_SHOWN else "")


def _group_of(cell_type: type) -> str:
    """What objects of a Python type count as; "" for what no table can hold."""
    if issubclass(cell_type, (bool, np.bool_)):
        return "booleans"
    if issubclass(cell_type, (Real, decimal.Decimal)):
        return "numbers"
    if issubclass(cell_type, (str, bytes)):
        return "text"
    if issubclass(cell_type, (datetime.datetime, np.datetime64)):
        return "datetimes"
    if issubclass(cell_type, datetime.date):
        return "dates"
    return "timedeltas" if issubclass(cell_type, (datetime.timedelta, np.timedelta64)) else ""


def _check_groups(values: NDArray[Any], missing: NDArray[np.bool_], where: str, expected: set[str]) -> set[str]:
    """Groups of the cells that are not missing; an error for the first cell that is of none of the expected ones."""
    types = set(map(type, values[~missing]))
    found = {_group_of(cell_type) for cell_type in types}
    if not found - expected:
        return found
    row = next(i for i, cell in enumerate(values) if not missing[i] and _group_of(type(cell)) not in expected)
    cell, name = values[row], type(values[row]).__name__
    if not _group_of(type(cell)):
        raise TypeError(f"{where}, row {row}: argument must be a string or a real number, not {name!r}.")
    wanted = "numbers" if "numbers" in expected else " or ".join(sorted(expected))
    raise ValueError(f"{where} holds {cell!r} ({name}) in row {row}; {wanted} are expected, as in training.")


_TOGETHER = ({"numbers", "booleans"}, {"text"}, {"dates"}, {"datetimes"}, {"timedeltas"})


def _fit_objects(values: NDArray[Any], missing: NDArray[np.bool_], where: str) -> ColumnFormat:
    """Judge a column of objects by the types of its cells."""
    present = values[~missing]
    groups = _check_groups(values, missing, where, set().union(*_TOGETHER))
    if not any(groups <= together for together in _TOGETHER):
        _raise_mixed(values, missing, where)
    mark = type(values[missing.argmax()]).__name__ if missing.any() else ""
    mark = {"NAType": "NA", "NaTType": "NaT", "NoneType": "None", "": ""}.get(mark, "nan")
    group = "numbers" if "numbers" in groups or not groups else groups.pop()  # booleans among numbers are numbers
    if group == "booleans":
        return replace(BOOLEAN, cell="bool", mark=mark or "None")
    if group == "text":
        try:
            levels = _objects(sorted(set(present)))
        except TypeError:  # bytes beside text
            raise ValueError(f"{where} mixes str and bytes: make them all str.") from None
        return ColumnFormat("category", levels, cell="text", mark=mark or "None")
    if group == "numbers":
        whole = all(issubclass(cell_type, Integral) for cell_type in set(map(type, present)))
        return replace(NUMBER, cell="int" if whole else "float", mark=mark or "nan")
    if any(getattr(cell, "tzinfo", None) for cell in present):
        raise ValueError(f"{where} holds objects of dates with time zones: convert them with pandas.to_datetime.")
    cell = group.removesuffix("s")
    grid = DateGrid.fit(as_dates(values, missing, OBJECTS[cell])[~missing])
    return replace(_dates_format(grid), cell=cell, mark=mark or "None")


def _dates_format(grid: DateGrid) -> ColumnFormat:
    return ColumnFormat(grid.kind, np.empty(0), dates=grid)


def _raise_mixed(values: NDArray[Any], missing: NDArray[np.bool_], where: str) -> None:
    """Name the first cell that is not of the group most cells are of."""
    groups = [None if gap else _group_of(type(cell)) for cell, gap in zip(values, missing, strict=True)]
    usual = Counter(group for group in groups if group is not None).most_common(1)[0][0]
    together = next(together for together in _TOGETHER if usual in together)
    row = next(i for i, group in enumerate(groups) if group is not None and group not in together)
    raise ValueError(
        f"{where} mixes types: row {row} holds {values[row]!r} ({type(values[row]).__name__}), but most rows hold "
        f"{usual}. Convert the column to one type."
    )


def _check_no_identifier(levels: NDArray[Any], n_present: int, where: str) -> None:
    if len(levels) > max(IDENTIFIER_LEVELS, n_present / 2):
        raise ValueError(
            f"{where} looks like an identifier: {len(levels)} different texts in {n_present} rows. Leave it out, or "
            "name it in categorical_features to keep it."
        )


def _without_categories(found: ColumnFormat, raw: RawColumn, where: str) -> ColumnFormat:
    """Booleans as numbers; an error for text and categories."""
    if found.kind == "category":
        example = f" (such as {found.levels[0]!r})" if len(found.levels) else ""
        what = "categories" if raw.levels is not None else "text"
        raise ValueError(
            f"{where} holds {what}{example}; with categorical_features=None, numbers are expected. Use "
            'categorical_features="auto", encode the column, or leave it out.'
        )
    return replace(found, kind="number", levels=NUMBER.levels) if found.kind == "boolean" else found


def _read_positions(column: ColumnFormat, raw: RawColumn, where: str) -> Array:
    """Positions of cells in a column's levels."""
    if column.kind == "boolean" and raw.levels is None and raw.values.dtype.kind == "b":
        return raw.values.astype(np.float64)
    lookup = {level: i for i, level in enumerate(column.levels.tolist())}
    find: Callable[[Any], int | None] = lookup.get
    if raw.levels is not None:
        missing = np.isnan(raw.values)
        known = np.array([*map(find, raw.levels.tolist()), None], dtype=np.float64)  # the last stands for missing cells
        rows = np.where(missing, -1, raw.values).astype(np.intp)
        positions = known[rows]
        cells = raw.levels
    else:
        cells = _objects(raw.values)
        missing = missing_cells(cells)
        try:
            positions = np.array(list(map(find, cells)), dtype=np.float64)
        except TypeError:  # a list or dict
            _check_groups(cells, missing, where, set().union(*_TOGETHER))
            raise
        _check_groups(cells, missing | ~np.isnan(positions), where, set().union(*_TOGETHER))
        rows = np.arange(len(cells))
    unseen = np.isnan(positions) & ~missing
    if unseen.any():
        row = int(unseen.argmax())
        raise _unseen(cells[rows[row]], row, list_levels(column.levels), where)
    return positions


def _positions_of_numbers(values: Array, column: ColumnFormat, where: str) -> Array:
    """Positions of numbers that stand for categories."""
    if not len(column.levels):
        return np.full(len(values), np.nan)
    positions = np.clip(np.searchsorted(column.levels, values), 0, len(column.levels) - 1)
    unseen = (column.levels[positions] != values) & ~np.isnan(values)
    if unseen.any():
        row = int(unseen.argmax())
        cell, *known = write_column(replace(column, kind=column.uncoded), np.array([values[row], *column.levels]))
        if column.dates:
            known, cell = [date_text(date, column.dates) for date in known], date_text(cell, column.dates)
        raise _unseen(cell, row, list_levels(_objects(known)), where)
    return np.where(np.isnan(values), np.nan, positions)


def _unseen(cell: Any, row: int, known: str, where: str) -> ValueError:
    cell = cell.item() if isinstance(cell, np.generic) else cell
    return ValueError(f"{where} holds {cell!r} in row {row}, a category that training has not seen. Known are {known}.")


def _read_numbers(column: ColumnFormat, raw: RawColumn, where: str) -> Array:
    """Cells of a column of numbers or dates."""
    values = raw.values if raw.levels is None else _from_levels(raw)
    values = _objects(values) if values.dtype.kind in "UST" else values
    missing = missing_cells(values)
    if missing.all():
        return np.full(len(values), np.nan)
    if column.dates:
        return _read_dates(column.dates, values, missing, raw.timezone, where)
    if values.dtype.kind == "O":
        _check_groups(values, missing, where, {"numbers", "booleans"})
        values = np.where(missing, None, values) if missing.any() else values  # type: ignore[call-overload]
    elif values.dtype.kind not in "biuf":
        raise ValueError(f"{where} has dtype {values.dtype}; numbers are expected, as in training.")
    return values.astype(np.float64)


def _from_levels(raw: RawColumn) -> NDArray[Any]:
    """Cells of a categorical column."""
    assert raw.levels is not None
    gaps = np.isnan(raw.values)
    levels = _objects([*raw.levels.tolist(), None])
    return levels[np.where(gaps, -1, raw.values).astype(np.intp)]


def _read_dates(grid: DateGrid, values: NDArray[Any], missing: NDArray[np.bool_], timezone: str, where: str) -> Array:
    """Cells of a column of dates or durations."""
    if values.dtype.kind == "O":
        _check_groups(values, missing, where, {"timedeltas"} if grid.kind == "timedelta" else {"dates", "datetimes"})
        zoned = [getattr(cell, "tzinfo", None) is not None for cell in values[~missing]]
        if all(zoned):
            values, timezone = moments_of(values), "UTC"
        elif any(zoned):
            raise ValueError(f"{where} mixes dates with time zones and dates without.")
        else:
            values = as_dates(values, missing, OBJECTS[grid.kind])
    elif values.dtype.kind != np.dtype(grid.tick).kind:
        raise ValueError(f"{where} has dtype {values.dtype}; {grid.kind}s are expected, as in training.")
    if bool(timezone) != bool(grid.timezone):
        names = [f"the time zone {name}" if name else "no time zone" for name in (timezone, grid.timezone)]
        raise ValueError(f"{where} has {names[0]}; training had {names[1]}.")
    return grid.read(values)


def _objects(values: Any) -> NDArray[Any]:
    """A flat array of Python objects."""
    if isinstance(values, np.ndarray):
        return values.astype(object)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _with_mark(cells: NDArray[Any], gaps: NDArray[np.bool_], mark: str) -> NDArray[Any]:
    """Put the column's own sign of a missing value into the gaps."""
    if gaps.any():
        if mark in ("NA", "NaT"):
            import pandas as pd

            cells[gaps] = pd.NA if mark == "NA" else pd.NaT
        else:
            cells[gaps] = np.nan if mark == "nan" else None
    return cells
