"""Columns of tables: their entries as numbers, and back; found by name or number.

Categories become positions, and dates whole days (seconds, ...).
"""

from __future__ import annotations

import datetime
import decimal
import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import listed
from flowmatch.core.component import shown
from flowmatch.core.storable import require
from flowmatch.core.user_warnings import warn
from flowmatch.preprocessing.dtype_names import check_dtypes, check_timezone
from flowmatch.preprocessing.readable import too_large_for_float
from flowmatch.preprocessing.table_dates import OBJECTS, Array, DateGrid, as_dates, date_text, moments_of
from flowmatch.preprocessing.table_frames import RawColumn, objects

Mask = NDArray[np.bool_]

IDENTIFIER_LEVELS = 100
"""Text with more different values than this, and than half its rows, looks like an identifier."""

MANY_LEVELS = 1000
"""More categories than this are warned about."""

_GROUPS: dict[str, Any] = {
    "booleans": (bool, np.bool_),
    "numbers": (Real, decimal.Decimal),
    "text": (str, bytes),
    "datetimes": (datetime.datetime, np.datetime64),
    "dates": datetime.date,
    "timedeltas": (datetime.timedelta, np.timedelta64),
}
"""What Python's objects count as: the first that fits, since booleans are numbers, and datetimes dates, for Python."""

_TOGETHER = ({"numbers", "booleans"}, {"text"}, {"dates"}, {"datetimes"}, {"timedeltas"})
"""Groups that may stand in one column."""


@dataclass(frozen=True)
class ColumnFormat:
    """What the numbers of a column stand for.

    Parameters
    ----------
    kind : {"number", "category", "boolean", "datetime", "timedelta", "identifier"}
        What the column holds; keys, which are not learned, have the number 0.
    levels : ndarray
        Values of a category by position; the numbers themselves, as float64, where numbers or dates were named
        categories. Empty for other kinds.
    level_dtype : str, default=""
        Of a categorical dtype's categories, "" for others.
    ordered : bool, default=False
        Of a categorical dtype.
    entry_type : str, default=""
        Type of the entries of an object column: "int", "float", "bool", "text", "date", "datetime" or "timedelta".
    mark : {"None", "nan", "NA", "NaT"}, default="None"
        How such a column marks missing entries.
    dates : DateGrid or None, default=None
        What dates and durations are counted on.
    """

    kind: str
    levels: NDArray[Any]
    level_dtype: str = ""
    ordered: bool = False
    entry_type: str = ""
    mark: str = "None"
    dates: DateGrid | None = None

    def check(self) -> None:
        """Raise a ValueError if these are no such numbers."""
        require(self.kind in ("number", "category", "boolean", "datetime", "timedelta", "identifier"), "table")
        require(self.entry_type in ("", "int", "float", "bool", "text", *OBJECTS), "table")
        require(self.mark in ("", "None", "nan", "NA", "NaT") and self.levels.ndim == 1, "table")
        if self.level_dtype:
            check_dtypes("dataframe", [self.level_dtype])
        if self.dates:
            self.dates.check()
        require(self.kind not in ("datetime", "timedelta") or (self.dates and self.dates.kind == self.kind), "table")

    @property
    def is_coded(self) -> bool:
        """Whether the categories are numbers or dates that the user named as categories."""
        return self.kind == "category" and not self.level_dtype and self.levels.dtype.kind == "f"

    @property
    def uncoded(self) -> ColumnFormat:
        """What stands behind the categories of a coded column."""
        return replace(self, kind=self.dates.kind if self.dates else "number")


NUMBER = ColumnFormat("number", np.empty(0))
BOOLEAN = ColumnFormat("boolean", np.array([False, True]))
IDENTIFIER = ColumnFormat("identifier", np.empty(0))


def fit_column(raw: RawColumn, where: str, named: bool = False, numbersonly: bool = False) -> ColumnFormat:
    """Find out what a column holds; `named` ones become categories, `numbersonly` refuses those that must be.

    Raises
    ------
    ValueError
        If nothing is in it, if it mixes types, if it looks like an identifier (unless named), holds text with
        `numbersonly`, or has a time zone that is none of the IANA data base. The message starts with `where`.
    TypeError
        If an entry is a list, dict or another object.
    """
    values = objects(raw.values) if raw.values.dtype.kind in "UST" else raw.values
    missing = missing_entries(values)
    if len(values) and missing.all():
        raise ValueError(f"{where} holds no value at all: leave it out.")
    if raw.levels is not None:
        found = ColumnFormat("category", raw.levels, level_dtype=raw.level_dtype, ordered=raw.ordered)
    elif values.dtype.kind == "O":
        found = _fit_objects(values, missing, where)
        if found.kind == "category" and not named and not numbersonly:
            _check_no_identifier(found.levels, int((~missing).sum()), where)
    elif values.dtype.kind in "mM":
        try:
            check_timezone(raw.timezone)
        except ValueError as error:
            raise ValueError(
                f"{where} has the time zone {raw.timezone}, which is none of the IANA data base; expected one such as "
                "'Europe/Berlin': convert it with dt.tz_convert."
            ) from error
        grid = DateGrid.fit(values[~missing], raw.timezone)
        found = ColumnFormat(grid.kind, np.empty(0), dates=grid)
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
        numbers = _read_numbers(found, raw, where)
        found = replace(found, kind="category", levels=np.unique(numbers[~np.isnan(numbers)]))
    if found.kind == "category" and len(found.levels) > MANY_LEVELS:
        warn(
            f"{where} has {len(found.levels)} categories: rare ones cannot be learned, and training becomes slow. Join "
            "them to fewer, or leave the column out."
        )
    return found


def read_column(column: ColumnFormat, raw: RawColumn, where: str) -> Array:
    """Numbers of a column's entries, NaN for missing ones.

    Raises
    ------
    ValueError
        For a category that is not known, text where numbers are expected, and the like, with the first row of it.
    TypeError
        If an entry is a list, dict or another object.
    """
    if column.kind == "identifier":
        return np.where(missing_entries(raw.values), np.nan, 0.0)
    if column.is_coded:
        return _positions_of_numbers(_read_numbers(column.uncoded, raw, where), column, where)
    if column.kind in ("category", "boolean"):
        return _read_positions(column, raw, where)
    return _read_numbers(column, raw, where)


def write_column(column: ColumnFormat, numbers: Array) -> NDArray[Any]:
    """Undo `read_column`: float64 for numbers and booleans, dates as such, and objects where `entry_type` says so."""
    numbers = np.asarray(numbers, dtype=np.float64)
    gaps = np.isnan(numbers)
    if column.kind == "category":
        positions = column_positions(numbers, len(column.levels))
        if not column.is_coded:
            return _with_mark(objects(column.levels)[positions], gaps, column.mark)
        numbers = np.where(gaps, np.nan, column.levels[positions])
    if column.dates:
        dates = column.dates.write(numbers)
        return _with_mark(objects(dates), gaps, column.mark) if column.entry_type else dates
    if not column.entry_type:
        return numbers
    filled: NDArray[Any] = np.where(gaps, 0.0, numbers)
    if column.entry_type == "bool":
        filled = filled >= 0.5
    elif column.entry_type == "int":
        filled = np.clip(np.round(filled), -(2.0**62), 2.0**62).astype(np.int64)
    return _with_mark(filled.astype(object), gaps, column.mark)


def column_positions(numbers: Array, n_levels: int) -> NDArray[np.intp]:
    """The nearest positions in so many levels; 0 for NaN."""
    return np.clip(np.round(np.nan_to_num(numbers)), 0, max(n_levels - 1, 0)).astype(np.intp)


def missing_entries(values: NDArray[Any]) -> Mask:
    """Which entries are NaN, None, pandas.NA or NaT."""
    if values.dtype.kind in "fmM":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        try:
            return np.asarray(pandas.isna(values))
        except ArithmeticError as error:
            raise ValueError("a signaling NaN among the entries, which no comparison can find: pass NaN.") from error
    return (values == np.array(None)).astype(bool) | (values != values).astype(bool)


def _group_of(entry_type: type) -> str:
    """What objects of a Python type count as; "" for what no table can hold."""
    return next((group for group, types in _GROUPS.items() if issubclass(entry_type, types)), "")


def _check_groups(values: NDArray[Any], missing: Mask, where: str, expected: set[str] | None = None) -> set[str]:
    """Groups of the entries that are not missing; an error for the first entry that is of none of the expected ones."""
    expected = expected or set(_GROUPS)
    found = set(map(_group_of, set(map(type, values[~missing]))))
    if not found - expected:
        return found
    row = next(i for i, entry in enumerate(values) if not missing[i] and _group_of(type(entry)) not in expected)
    entry, name = values[row], type(values[row]).__name__
    if not _group_of(type(entry)):
        raise TypeError(f"{where}, row {row}: argument must be a string or a real number, not {name!r}.")
    wanted = "numbers" if "numbers" in expected else " or ".join(sorted(expected))
    raise ValueError(f"{where} holds {entry!r} ({name}) in row {row}; {wanted} are expected, as in training.")


def _fit_objects(values: NDArray[Any], missing: Mask, where: str) -> ColumnFormat:
    """Judge a column of objects by the types of its entries."""
    present = values[~missing]
    groups = _check_groups(values, missing, where)
    if not any(groups <= together for together in _TOGETHER):
        _raise_mixed(values, missing, where)
    mark = type(values[missing.argmax()]).__name__ if missing.any() else ""
    mark = {"NAType": "NA", "NaTType": "NaT", "NoneType": "None", "": ""}.get(mark, "nan")
    group = "numbers" if "numbers" in groups or not groups else groups.pop()  # booleans among numbers are numbers
    if group == "booleans":
        return replace(BOOLEAN, entry_type="bool", mark=mark or "None")
    if group == "text":
        try:
            levels = objects(sorted(set(present)))
        except TypeError:  # bytes beside text
            raise ValueError(f"{where} mixes str and bytes: make them all str.") from None
        return ColumnFormat("category", levels, entry_type="text", mark=mark or "None")
    if group == "numbers":
        whole = all(issubclass(kind, Integral) for kind in set(map(type, present)))
        return replace(NUMBER, entry_type="int" if whole else "float", mark=mark or "nan")
    if any(getattr(entry, "tzinfo", None) for entry in present):
        raise ValueError(f"{where} holds objects of dates with time zones: convert them with pandas.to_datetime.")
    entry_type = group.removesuffix("s")
    grid = DateGrid.fit(as_dates(values, missing, OBJECTS[entry_type])[~missing])
    return ColumnFormat(grid.kind, np.empty(0), entry_type=entry_type, mark=mark or "None", dates=grid)


def _raise_mixed(values: NDArray[Any], missing: Mask, where: str) -> None:
    """Name the first entry that is not of the group most entries are of."""
    groups = {i: _group_of(type(values[i])) for i in np.flatnonzero(~missing)}
    usual = Counter(groups.values()).most_common(1)[0][0]
    together = next(together for together in _TOGETHER if usual in together)
    row = next(i for i, group in groups.items() if group not in together)
    raise ValueError(
        f"{where} mixes types: row {row} holds {values[row]!r} ({type(values[row]).__name__}), but most rows hold "
        f"{usual}. Convert the column to one type."
    )


def _check_no_identifier(levels: NDArray[Any], n_present: int, where: str) -> None:
    if len(levels) > max(IDENTIFIER_LEVELS, n_present / 2):
        raise ValueError(
            f"{where} looks like an identifier: {len(levels)} different texts in {n_present} rows. Leave it out, or "
            "name it in categorical_features to keep it, or in identifier_columns where there is that parameter."
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
    """Positions of entries in a column's levels."""
    if column.kind == "boolean" and raw.values.dtype.kind == "b":
        return raw.values.astype(np.float64)
    entries = objects(raw.values)
    missing = missing_entries(entries)
    positions = {level: i for i, level in enumerate(column.levels.tolist())}
    try:
        found = np.array(list(map(positions.get, entries)), dtype=np.float64)
    except TypeError:  # a list or dict
        _check_groups(entries, missing, where)
        raise
    if raw.levels is None:
        _check_groups(entries, missing | ~np.isnan(found), where)
    _check_seen(np.isnan(found) & ~missing, entries, column.levels.tolist(), where)
    return found


def _positions_of_numbers(values: Array, column: ColumnFormat, where: str) -> Array:
    """Positions of numbers that stand for categories."""
    if not len(column.levels):
        return np.full(len(values), np.nan)
    positions = np.clip(np.searchsorted(column.levels, values), 0, len(column.levels) - 1)
    unseen = (column.levels[positions] != values) & ~np.isnan(values)
    if unseen.any():
        entries, known = (write_column(column.uncoded, numbers).tolist() for numbers in (values, column.levels))
        if column.dates:
            entries, known = ([date_text(date, column.dates) for date in dates] for dates in (entries, known))
        _check_seen(unseen, entries, known, where)
    return np.where(np.isnan(values), np.nan, positions)


def _check_seen(unseen: Mask, entries: Any, known: list[Any], where: str) -> None:
    """Raise an error that names the first entry that training has not seen, if there is any."""
    if not unseen.any():
        return
    row = int(unseen.argmax())
    entry = entries[row].item() if isinstance(entries[row], np.generic) else entries[row]
    raise ValueError(
        f"{where} holds {entry!r} in row {row}, a category that training has not seen. Known are {listed(known)}."
    )


def _read_numbers(column: ColumnFormat, raw: RawColumn, where: str) -> Array:
    """Entries of a column of numbers or dates."""
    values = objects(raw.values) if raw.values.dtype.kind in "UST" else raw.values
    missing = missing_entries(values)
    if missing.all():
        return np.full(len(values), np.nan)
    if column.dates:
        return _read_dates(column.dates, values, missing, raw.timezone, where)
    if values.dtype.kind == "O":
        _check_groups(values, missing, where, {"numbers", "booleans"})
        values = np.where(missing, None, values) if missing.any() else values  # type: ignore[call-overload]
    elif values.dtype.kind not in "biuf":
        raise ValueError(f"{where} has dtype {values.dtype}; numbers are expected, as in training.")
    try:
        return values.astype(np.float64)
    except ArithmeticError as error:
        row = too_large_for_float(np.where(missing, 0.0, values))
        raise ValueError(f"{where} holds a number in row {row} that no float can hold ({error}).") from error


def _read_dates(grid: DateGrid, values: NDArray[Any], missing: Mask, timezone: str, where: str) -> Array:
    """Entries of a column of dates or durations."""
    if values.dtype.kind == "O":
        _check_groups(values, missing, where, {"timedeltas"} if grid.kind == "timedelta" else {"dates", "datetimes"})
        zoned = [getattr(entry, "tzinfo", None) is not None for entry in values[~missing]]
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


def _with_mark(entries: NDArray[Any], gaps: Mask, mark: str) -> NDArray[Any]:
    """Put the column's own sign of a missing value into the gaps."""
    if mark in ("NA", "NaT") and gaps.any():
        import pandas as pd

        entries[gaps] = getattr(pd, mark)
    else:
        entries[gaps] = np.nan if mark == "nan" else None
    return entries


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
