"""Columns of tables: their entries as numbers, and back; found by name or number.

Categories become positions, and dates whole days (seconds, ...).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from flowmatch.core.checks import listed
from flowmatch.core.storable import require
from flowmatch.core.types import AnyArray, Array, Index, Mask
from flowmatch.core.user_warnings import warn
from flowmatch.tables.dates import OBJECTS, DateGrid, as_dates, date_text, moments_of
from flowmatch.tables.dtype_names import check_dtypes, is_timezone
from flowmatch.tables.entries import (
    check_groups,
    digits_of,
    from_zero,
    index_entries,
    level_entries,
    level_texts,
    number_type,
    one_group,
    ordinals_of,
    stands_for,
    times_of,
    whole_entries,
    zero_of,
)
from flowmatch.tables.frames import objects
from flowmatch.tables.readable import too_large_for_float
from flowmatch.tables.reading import RawColumn, missing_entries

IDENTIFIER_LEVELS = 100
"""Text with more different values than this, and than half its rows, looks like an identifier."""

MANY_LEVELS = 1000
"""More categories than this are warned about."""


@dataclass(frozen=True)
class ColumnFormat:
    """What the numbers of a column stand for.

    Parameters
    ----------
    kind : {"number", "category", "boolean", "datetime", "timedelta", "identifier", "empty"}
        What the column holds; keys, which are not learned, have the number 0; "empty" of objects that were all missing.
    levels : ndarray
        Values of a category by position, those of dates, intervals and other objects as text; the numbers themselves,
        as float64, where numbers or dates were named categories. Empty for other kinds.
    level_dtype : str, default=""
        Of a categorical dtype's categories, "" for others.
    ordered : bool, default=False
        Of a categorical dtype.
    entry_type : str, default=""
        Type of the entries of an object column: "int", "float", "bool", "text", "bytes", "uuid", "date", "datetime",
        "timedelta", "time", "decimal(2)" with the number of digits, or "period[M]" with the frequency.
    mark : {"None", "nan", "NA", "NaT"}, default="None"
        How such a column marks missing entries.
    dates : DateGrid or None, default=None
        What dates and durations are counted on.
    zero : int, default=0
        What has the number 0, of whole numbers beyond 2^53; of decimals in units of their last digit.
    """

    kind: str
    levels: AnyArray
    level_dtype: str = ""
    ordered: bool = False
    entry_type: str = ""
    mark: str = "None"
    dates: DateGrid | None = None
    zero: int = 0

    def check(self) -> None:
        """Raise a ValueError if these are no such numbers."""
        kinds = ("number", "category", "boolean", "datetime", "timedelta", "identifier", "empty")
        require(self.kind in kinds and re.fullmatch(_ENTRY_TYPES, self.entry_type), "table")
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

    @cached_property
    def entries(self) -> AnyArray:
        """The categories as the user has them."""
        return level_entries(self.levels, self.level_dtype, self.entry_type)

    @property
    def is_exact(self) -> bool:
        """Whether entries are whole numbers that floats cannot hold, decimals, or periods."""
        return self.zero != 0 or self.entry_type.startswith(("decimal(", "period["))

    @property
    def expected(self) -> tuple[str, set[str], str]:
        """What is read as the column's numbers or dates, in words; as groups of objects, and as kinds of dtypes."""
        if self.entry_type == "time" or self.entry_type.startswith("period["):
            groups = "times" if self.dates else "periods"
            return groups, {groups}, ""
        if self.dates:
            is_date = self.dates.kind == "datetime"
            return f"{self.dates.kind}s", {"dates", "datetimes"} if is_date else {"timedeltas"}, "M" if is_date else "m"
        return "numbers", {"numbers", "booleans"}, "biuf"

    @property
    def uncoded(self) -> ColumnFormat:
        """What stands behind the categories of a coded column."""
        return replace(self, kind=self.dates.kind if self.dates else "number")


NUMBER = ColumnFormat("number", np.empty(0))
BOOLEAN = ColumnFormat("boolean", np.array([False, True]))
IDENTIFIER = ColumnFormat("identifier", np.empty(0))

_ENTRY_TYPES = "|".join(
    ("", "int", "float", "bool", "text", "bytes", "uuid", *OBJECTS, r"decimal(\(\d{1,3}\))?", r"period\[[\w-]{1,20}\]")
)


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
    values, missing = raw.values, raw.missing
    if len(values) and missing.all() and values.dtype.kind == "O" and not (raw.levels is not None and len(raw.levels)):
        return ColumnFormat("empty", np.empty(0), raw.level_dtype, raw.ordered, mark=_mark_of(values, missing, "None"))
    if raw.levels is not None:
        levels, entry_type = level_texts(raw.levels, raw.level_dtype, where)
        found = ColumnFormat("category", levels, raw.level_dtype, raw.ordered, entry_type)
    elif values.dtype.kind == "O":
        found = _fit_objects(values, missing, where)
        if found.kind == "category" and not named and not numbersonly:
            _check_text(found.levels, int((~missing).sum()), where)
    elif values.dtype.kind in "mM":
        found = _fit_dates(values[~missing], raw.timezone, where)
    elif values.dtype.kind in "biuf":
        found = BOOLEAN if values.dtype.kind == "b" else NUMBER
        if values.dtype.kind in "iu" and len(values):
            found = replace(found, zero=zero_of(values, 0, where))
    else:
        what = "Complex data not supported: " if values.dtype.kind == "c" else ""
        raise ValueError(f"{what}{where} has dtype {values.dtype}; numbers, text, booleans or dates are expected.")
    if numbersonly:
        found = _without_categories(found, raw, where)
    elif named and found.kind in ("number", "datetime", "timedelta"):
        numbers = _read_numbers(found, raw, where)
        found = replace(found, kind="category", levels=np.unique(numbers[~np.isnan(numbers)]))
    if found.kind == "category" and len(found.levels) > MANY_LEVELS:
        warn(
            f"{where} has {len(found.levels)} categories: rare ones cannot be learned, and training becomes slow. Join "
            "them to fewer, or leave the column out."
        )
    return found


UNSEEN = -1.0
"""Stands for categories that training has not seen, where that is no error."""


def read_column(column: ColumnFormat, raw: RawColumn, where: str, unknown: str = "error") -> Array:
    """Numbers of a column's entries, NaN for missing ones.

    With ``unknown="flag"`` a category that is not known is -1.

    Raises
    ------
    ValueError
        For a category that is not known unless it is flagged, text where numbers are expected, and the like, with the
        first row of it.
    TypeError
        If an entry is a list, dict or another object.
    """
    if column.kind == "identifier":
        return np.where(raw.missing, np.nan, 0.0)
    if column.kind == "empty":
        return np.full(len(raw.values), np.nan)  # nothing was learned of what may stand there
    if column.is_coded:
        return _positions_of_numbers(_read_numbers(column.uncoded, raw, where), column, where, unknown)
    if column.kind in ("category", "boolean"):
        return _read_positions(column, raw, where, unknown)
    return _read_numbers(column, raw, where)


def write_column(column: ColumnFormat, numbers: Array) -> AnyArray:
    """Undo `read_column`: float64 for numbers and booleans, dates as such, and objects where `entry_type` says so."""
    numbers = np.asarray(numbers, dtype=np.float64)
    gaps = np.isnan(numbers)
    if column.kind == "empty":
        return _with_mark(np.empty(len(numbers), dtype=object), np.full(len(numbers), True), column.mark)
    if column.kind == "category":
        positions = column_positions(numbers, len(column.levels))
        if not column.is_coded:
            return _with_mark(objects(column.entries)[positions], gaps, column.mark)
        numbers = np.where(gaps, np.nan, column.levels[positions])
    if column.dates:
        dates = column.dates.write(numbers)
        dates = times_of(dates) if column.entry_type == "time" else dates
        return _with_mark(objects(dates), gaps, column.mark) if column.entry_type else dates
    filled: AnyArray = np.where(gaps, 0.0, numbers)
    if column.is_exact:
        return _with_mark(whole_entries(filled, column.zero, column.entry_type), gaps, column.mark)
    if not column.entry_type:
        return numbers
    if column.entry_type == "bool":
        filled = filled >= 0.5
    elif column.entry_type == "int":
        filled = np.clip(np.round(filled), -(2.0**62), 2.0**62).astype(np.int64)
    return _with_mark(filled.astype(object), gaps, column.mark)


def column_positions(numbers: Array, n_levels: int) -> Index:
    """The nearest positions in so many levels; 0 for NaN."""
    return np.clip(np.round(np.nan_to_num(numbers)), 0, max(n_levels - 1, 0)).astype(np.intp)


def _fit_objects(values: AnyArray, missing: Mask, where: str) -> ColumnFormat:
    """Judge a column of objects by the types of its entries."""
    present = values[~missing]
    group = one_group(values, missing, where)
    is_number = group in ("numbers", "periods")
    entry_type, mark = group.removesuffix("s"), _mark_of(values, missing, "nan" if is_number else "None")
    if group == "booleans":
        return replace(BOOLEAN, entry_type="bool", mark=mark)
    if group in ("text", "bytes", "uuids"):
        levels, of_objects = level_texts(objects(sorted(set(present))), "", where)
        return ColumnFormat("category", levels, entry_type=of_objects or "text", mark=mark)
    if is_number:
        entry_type = number_type(present, where)
        if group == "periods":
            present = ordinals_of(present, np.zeros(len(present), dtype=bool), entry_type, where)
        zero = zero_of(present, digits_of(entry_type), where) if entry_type != "float" and len(present) else 0
        return replace(NUMBER, entry_type=entry_type, mark=mark, zero=zero)
    if any(getattr(entry, "tzinfo", None) for entry in present):
        advice = "leave the zones out" if group == "times" else "convert them with pandas.to_datetime"
        raise ValueError(f"{where} holds objects of {group} with time zones: {advice}.")
    grid = DateGrid.fit(as_dates(values, missing, OBJECTS[entry_type])[~missing])
    return ColumnFormat(grid.kind, np.empty(0), entry_type=entry_type, mark=mark, dates=grid)


def _fit_dates(dates: AnyArray, timezone: str, where: str) -> ColumnFormat:
    """The format of dates or durations, none missing."""
    if not is_timezone(timezone):
        raise ValueError(
            f"{where} has the time zone {timezone}, which is none of the IANA data base; expected one such as "
            "'Europe/Berlin': convert it with dt.tz_convert."
        )
    grid = DateGrid.fit(dates, timezone)
    return ColumnFormat(grid.kind, np.empty(0), dates=grid)


def _mark_of(values: AnyArray, missing: Mask, default: str) -> str:
    """How a column of objects marks missing entries."""
    mark = type(values[missing.argmax()]).__name__ if missing.any() else ""
    return {"NAType": "NA", "NaTType": "NaT", "NoneType": "None", "": default}.get(mark, "nan")


def _check_text(levels: AnyArray, n_present: int, where: str) -> None:
    """Raise a ValueError for text of so many values that it is no category."""
    if len(levels) <= max(IDENTIFIER_LEVELS, n_present / 2):
        return
    what, function = stands_for(levels.tolist())
    if what:
        raise ValueError(
            f"{where} holds {what} as text, such as {levels[0]!r}: convert it with {function}, or name it in "
            "categorical_features to keep it as text."
        )
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


def _read_positions(column: ColumnFormat, raw: RawColumn, where: str, unknown: str) -> Array:
    """Positions of entries in a column's levels."""
    if column.kind == "boolean" and raw.values.dtype.kind == "b":
        return raw.values.astype(np.float64)
    is_dates = column.level_dtype and raw.values.dtype.kind in "mM"
    entries = index_entries(raw.values, raw.timezone) if is_dates else objects(raw.values)
    missing = missing_entries(entries)
    positions = {level: i for i, level in enumerate(column.entries.tolist())}
    try:
        found = np.array(list(map(positions.get, entries)), dtype=np.float64)
    except TypeError:  # a list or dict
        check_groups(entries, missing, where)
        raise
    if raw.levels is None:
        check_groups(entries, missing | ~np.isnan(found), where)
    unseen = np.isnan(found) & ~missing
    if unknown == "error":
        _check_seen(unseen, entries, column.entries.tolist(), where)
    return np.where(unseen, UNSEEN, found)


def _positions_of_numbers(values: Array, column: ColumnFormat, where: str, unknown: str) -> Array:
    """Positions of numbers that stand for categories."""
    if not len(column.levels):
        return np.full(len(values), np.nan)
    positions = np.clip(np.searchsorted(column.levels, values), 0, len(column.levels) - 1)
    unseen = (column.levels[positions] != values) & ~np.isnan(values)
    if unseen.any() and unknown == "error":
        entries, known = (write_column(column.uncoded, numbers).tolist() for numbers in (values, column.levels))
        if column.dates:
            entries, known = ([date_text(date, column.dates) for date in dates] for dates in (entries, known))
        _check_seen(unseen, entries, known, where)
    return np.where(np.isnan(values), np.nan, np.where(unseen, UNSEEN, positions))


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
    """Entries of a column of numbers, periods, dates, durations or times of day."""
    values, missing = raw.values, raw.missing
    if missing.all():
        return np.full(len(values), np.nan)
    expected, groups, kinds = column.expected
    if values.dtype.kind == "O":
        check_groups(values, missing, where, groups)
    elif values.dtype.kind not in kinds:
        raise ValueError(f"{where} has dtype {values.dtype}; {expected} are expected, as in training.")
    if column.dates:
        return _read_dates(column.dates, values, missing, raw.timezone, where)
    if expected == "periods":
        values = ordinals_of(values, missing, column.entry_type, where)
    if column.zero:
        return from_zero(values, missing, column.zero, digits_of(column.entry_type))
    if missing.any() and values.dtype.kind == "O":
        values = np.where(missing, None, values)  # type: ignore[call-overload]
    try:
        return values.astype(np.float64)
    except ArithmeticError as error:
        row = too_large_for_float(np.where(missing, 0.0, values))
        raise ValueError(f"{where} holds a number in row {row} that no float can hold ({error}).") from error


def _read_dates(grid: DateGrid, values: AnyArray, missing: Mask, timezone: str, where: str) -> Array:
    """Dates, durations or times of day on their grid."""
    if values.dtype.kind == "O":
        zoned = [getattr(entry, "tzinfo", None) is not None for entry in values[~missing]]
        if grid.kind == "datetime" and all(zoned):
            values, timezone = moments_of(values), "UTC"
        elif grid.kind == "datetime" and any(zoned):
            raise ValueError(f"{where} mixes dates with time zones and dates without.")
        else:
            values = as_dates(values, missing, OBJECTS[grid.kind])
    if bool(timezone) != bool(grid.timezone):
        names = [f"the time zone {name}" if name else "no time zone" for name in (timezone, grid.timezone)]
        raise ValueError(f"{where} has {names[0]}; training had {names[1]}.")
    return grid.read(values)


def _with_mark(entries: AnyArray, gaps: Mask, mark: str) -> AnyArray:
    """Put the column's own sign of a missing value into the gaps."""
    if mark in ("NA", "NaT") and gaps.any():
        import pandas as pd

        entries[gaps] = getattr(pd, mark)
    else:
        entries[gaps] = np.nan if mark == "nan" else None
    return entries
