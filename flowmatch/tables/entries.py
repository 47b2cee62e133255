"""Entries of columns: what objects count as, whole numbers beyond 2^53, categories as text, text that is none."""

from __future__ import annotations

import datetime
import decimal
import functools
import math
import re
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import numpy as np

from flowmatch.core.types import AnyArray, Array, Mask
from flowmatch.tables.dates import EXACT, DateGrid, localize, parse_dates
from flowmatch.tables.dtype_names import check_dtypes
from flowmatch.tables.frames import objects
from flowmatch.tables.reading import RawColumn

_GROUPS: dict[str, Any] = {
    "booleans": (bool, np.bool_),
    "numbers": (Real, decimal.Decimal),
    "text": str,
    "bytes": bytes,
    "datetimes": (datetime.datetime, np.datetime64),
    "dates": datetime.date,
    "timedeltas": (datetime.timedelta, np.timedelta64),
    "times": datetime.time,
    "uuids": uuid.UUID,
}
"""What Python's objects count as: the first that fits, since booleans are numbers, and datetimes dates, for Python."""


def group_of(entry_type: type) -> str:
    """What objects of a Python type count as; "" for what no table can hold."""
    if entry_type.__module__.partition(".")[0] == "pandas" and entry_type.__name__ == "Period":
        return "periods"
    return next((group for group, types in _GROUPS.items() if issubclass(entry_type, types)), "")


def check_groups(values: AnyArray, missing: Mask, where: str, expected: set[str] | None = None) -> set[str]:
    """Groups of the entries that are not missing; an error for the first entry that is of none of the expected ones."""
    expected = expected or {*_GROUPS, "periods"}
    found = set(map(group_of, set(map(type, values[~missing]))))
    if not found - expected:
        return found
    row = next(i for i, entry in enumerate(values) if not missing[i] and group_of(type(entry)) not in expected)
    entry, name = values[row], type(values[row]).__name__
    if not group_of(type(entry)):
        raise TypeError(f"{where}, row {row}: argument must be a string or a real number, not {name!r}.")
    wanted = "numbers" if "numbers" in expected else " or ".join(sorted(expected))
    raise ValueError(f"{where} holds {entry!r} ({name}) in row {row}; {wanted} are expected, as in training.")


def one_group(values: AnyArray, missing: Mask, where: str) -> str:
    """The group of all entries; numbers, if there is none.

    Raises
    ------
    ValueError
        That names the first entry that is not of the group most entries are of.
    """
    found = check_groups(values, missing, where)
    if found == {"text", "bytes"}:
        raise ValueError(f"{where} mixes str and bytes: make them all str.")
    if len(found) < 2 or found == {"numbers", "booleans"}:  # booleans among numbers are numbers
        return "numbers" if "numbers" in found or not found else found.pop()
    groups = {i: group_of(type(values[i])) for i in np.flatnonzero(~missing)}
    usual = Counter(groups.values()).most_common(1)[0][0]
    together = {"numbers", "booleans"} if usual in ("numbers", "booleans") else {usual}
    row = next(i for i, group in groups.items() if group not in together)
    raise ValueError(
        f"{where} mixes types: row {row} holds {values[row]!r} ({type(values[row]).__name__}), but most rows hold "
        f"{usual}. Convert the column to one type."
    )


# -- numbers ----------------------------------------------------------------------------------------------------------


def number_type(present: Iterable[Any], where: str) -> str:
    """The type of entries that are numbers or periods: "int", "float", "decimal(2)" or "period[M]"."""
    kinds = set(map(type, present))
    if all(issubclass(kind, Integral) for kind in kinds):
        return "int"
    if all(group_of(kind) == "periods" for kind in kinds):
        frequencies = {entry.freqstr for entry in present}
        if len(frequencies) > 1:
            raise ValueError(
                f"{where} mixes periods of the frequencies {', '.join(sorted(frequencies))}: convert them."
            )
        return f"period[{frequencies.pop()}]"
    if not all(issubclass(kind, (Integral, decimal.Decimal)) for kind in kinds):
        return "float"
    exponents = [entry.as_tuple().exponent for entry in present if isinstance(entry, decimal.Decimal)]
    return f"decimal({max(0, *(-exponent for exponent in exponents if isinstance(exponent, int)), 0)})"


def digits_of(entry_type: str) -> int:
    """Decimal places of entries of a type."""
    return int(entry_type[8:-1]) if entry_type.startswith("decimal(") else 0


def ordinals_of(values: AnyArray, missing: Mask, entry_type: str, where: str) -> AnyArray:
    """Periods as whole numbers since 1970.

    Raises
    ------
    ValueError
        For periods of another frequency.
    """
    frequency, ordinals = entry_type[7:-1], np.full(len(values), None, dtype=object)
    for row in np.flatnonzero(~missing):
        if values[row].freqstr != frequency:
            raise ValueError(f"{where} holds {values[row]!r} in row {row}; periods of {frequency!r} are expected.")
        ordinals[row] = values[row].ordinal
    return ordinals


def zero_of(values: AnyArray, digits: int, where: str) -> int:
    """What is to have the number 0, in units of the last digit, so that whole numbers are counted exactly.

    Parameters
    ----------
    values : ndarray
        Whole numbers, or decimals of so many digits, at least one and none missing.
    digits : int
        Decimal places.
    where : str
        Starts the message of errors.

    Returns
    -------
    int
        0 as long as no value exceeds 2^53 in size, and else the smallest one.

    Raises
    ------
    ValueError
        If there are values beyond, and the largest and the smallest are farther apart than 2^53.
    """
    ends = [end.item() if isinstance(end, np.generic) else end for end in (values.min(), values.max())]
    if not all(map(_is_finite, ends)):
        return 0
    low, high = (int(Fraction(end) * 10**digits) for end in ends)
    most = EXACT // 4 if digits else EXACT  # the division by a power of ten costs two bits
    if max(-low, high) <= most:
        return 0
    if high - low > most:
        raise ValueError(
            f"{where} holds {'numbers of more digits' if digits else 'integers'} beyond 2^53, from {ends[0]} to "
            f"{ends[1]}, which floats cannot tell apart. Convert it to float if it is an amount, convert it to "
            "text if it is a code, or name it in identifier_columns if it is a key."
        )
    return low


def from_zero(values: AnyArray, missing: Mask, zero: int, digits: int) -> Array:
    """Exact differences of numbers to `zero` units of the last digit."""
    origin, numbers = Fraction(zero, 10**digits), np.full(len(values), np.nan)
    for row, entry in zip(np.flatnonzero(~missing), values[~missing].tolist(), strict=True):
        entry = entry.item() if isinstance(entry, np.generic) else entry  # fractions of numpy's integers overflow
        numbers[row] = max(min(Fraction(entry) - origin, _FAR), -_FAR) if _is_finite(entry) else entry
    return numbers


def whole_entries(numbers: Array, zero: int, entry_type: str) -> AnyArray:
    """Undo `from_zero`: integers, decimals or periods as objects."""
    digits = digits_of(entry_type)
    most = 2.0**62 if entry_type.startswith("period[") else 1e300
    counts = np.clip(np.round(numbers * 10.0**digits), -most, most)
    units = [zero + int(count) for count in counts.tolist()]
    if digits or entry_type == "decimal(0)":
        return objects([decimal.Decimal(f"{unit}E-{digits}") for unit in units])
    if entry_type.startswith("period["):
        import pandas as pd

        return objects([pd.Period(ordinal=unit, freq=entry_type[7:-1]) for unit in units])
    return objects(units)


def times_of(spans: AnyArray) -> AnyArray:
    """Times of day of durations since midnight; those that are no time of day become the first or last one."""
    day = np.timedelta64(1, "D").astype("timedelta64[us]")
    inside = np.clip(np.where(np.isnat(spans), np.timedelta64(0, "us"), spans), 0, day - np.timedelta64(1, "us"))
    return objects([(datetime.datetime.min + span).time() for span in inside.tolist()])


def _is_finite(number: Any) -> bool:
    return isinstance(number, int) or math.isfinite(number)  # an integer may be too large for the question


_FAR = Fraction(sys.float_info.max)


# -- categories -------------------------------------------------------------------------------------------------------


def level_texts(levels: AnyArray, level_dtype: str, where: str) -> tuple[AnyArray, str]:
    """Categories as a file can hold them, and what they are if they are Python's objects.

    Raises
    ------
    ValueError
        For objects, such as tuples, that cannot be read back from text.
    """
    types = {type(level) for level in levels} if levels.dtype.kind == "O" else set()
    if all(issubclass(kind, (str, bool, int, float)) for kind in types):
        return levels, ""
    if level_dtype.startswith(_OF_PANDAS):
        return objects([str(level) for level in levels]), ""
    groups = {"decimal" if kind is decimal.Decimal else group_of(kind) for kind in types}
    entry_type = _TYPES.get(groups.pop(), "") if len(groups) == 1 else ""
    if entry_type not in _FROM_TEXT:
        kinds = ", ".join(sorted(kind.__name__ for kind in types))
        raise ValueError(
            f"{where} has categories such as {levels[0]!r} (of type {kinds}), which no file could hold: make them text."
        )
    return objects([e.decode("latin-1") if isinstance(e, bytes) else str(e) for e in levels]), entry_type


def level_entries(levels: AnyArray, level_dtype: str, entry_type: str) -> AnyArray:
    """Undo `level_texts`."""
    if entry_type in _FROM_TEXT:
        return objects([_FROM_TEXT[entry_type](text) for text in levels])
    return objects(list(_index_of(levels.tolist(), level_dtype))) if level_dtype.startswith(_OF_PANDAS) else levels


def index_entries(values: AnyArray, timezone: str) -> AnyArray:
    """Dates, in UTC if they have a time zone, or durations as the objects that categories of pandas are."""
    import pandas as pd

    return objects(list(localize(values, timezone, wall=False) if timezone else pd.Index(values)))


def _index_of(texts: list[str], dtype: str) -> Any:
    """Dates, durations, periods, intervals or the numbers at their ends as an Index of pandas."""
    import pandas as pd

    if dtype.startswith("interval["):
        subtype, closed = dtype[9:-1].rsplit(", ", 1)
        ends = [text[1:-1].rsplit(", ", 1) for text in texts]
        left, right = (_index_of([pair[side] for pair in ends], subtype) for side in (0, 1))
        return pd.IntervalIndex.from_arrays(left, right, closed=closed)
    if dtype.startswith("period["):
        return pd.PeriodIndex([text.partition("/")[0] for text in texts], dtype=dtype)
    if dtype.startswith(("timedelta64", "duration")):
        return pd.to_timedelta(texts).astype(dtype)
    if dtype.startswith(("datetime64", "timestamp")):
        return pd.to_datetime(texts, format="ISO8601", utc="," in dtype).astype(dtype)
    return pd.Index(np.array(texts).astype(dtype))


def label_texts(labels: AnyArray) -> tuple[list[str], str]:
    """Labels that are dates, intervals, bytes or other objects as text, and what they are.

    Raises
    ------
    ValueError
        For objects that cannot be read back from text.
    """
    if labels.dtype.kind in "mM":
        return [str(label) for label in labels.astype(np.int64)], labels.dtype.name
    dtype = ""
    if any(type(label).__module__.partition(".")[0] == "pandas" for label in labels):
        import pandas as pd

        dtype = str(pd.Index(labels.tolist()).dtype)
    texts, entry_type = level_texts(labels.astype(object), dtype, "y")
    return texts.tolist(), entry_type or dtype


def labels_of(texts: AnyArray, entry_type: str) -> AnyArray:
    """Undo `label_texts`; no name of a dtype is looked up that is not a known one."""
    if entry_type in _FROM_TEXT:
        entries = level_entries(texts, "", entry_type)
        return np.array(entries.tolist()) if entry_type == "bytes" else entries
    check_dtypes("dataframe", [entry_type])
    if all(re.fullmatch(r"-?\d{1,19}", text) for text in texts):
        return np.array(texts.tolist(), dtype=np.int64).view(entry_type)
    return level_entries(texts, entry_type, "")


_OF_PANDAS = ("datetime64", "timedelta64", "timestamp", "duration", "period[", "interval[")
"""How the names of the dtypes begin whose categories are text in files."""

_TYPES = {group: group if group == "bytes" else group.removesuffix("s") for group in (*_GROUPS, "decimal")}
"""The type of entries of a group, as files name it."""

_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "bytes": lambda text: text.encode("latin-1"),
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "time": datetime.time.fromisoformat,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}


# -- text that stands for something else ------------------------------------------------------------------------------

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = re.compile(
    rf"\s*(\d{{4}}([-/.])\d{{1,2}}\2\d{{1,2}}|\d{{1,2}}([-/.])\d{{1,2}}\3(\d{{4}}|\d\d)|"
    rf"\d{{1,2}}[- ]{_MONTH}[-, ]+\d{{4}}|{_MONTH} \d{{1,2}},? \d{{4}})([T ]+\d{{1,2}}:\d\d.*)?\s*",
    re.IGNORECASE,
)


def stands_for(texts: Sequence[Any]) -> tuple[str, str]:
    """What texts stand for, and the function of pandas that converts them; "" if they are just text.

    Digits alone are numbers only if some texts are shorter than others, and none begins with a zero: codes are
    padded.
    """
    if not all(isinstance(text, str) for text in texts):
        return "", ""
    if all(map(_DATE.fullmatch, texts)):
        return "dates", "pd.to_datetime"
    if all(map(_NUMBER.fullmatch, texts)):
        are_padded = len(set(map(len, texts))) == 1 or any(re.match(r"0\d", text) for text in texts)
        if not are_padded or any(map(re.compile(r"[-+.e]", re.IGNORECASE).search, texts)):
            return "numbers", "pd.to_numeric"
    return "", ""


def parse_text(raw: RawColumn, grid: DateGrid | None, entry_type: str, where: str) -> RawColumn:
    """Entries of which dates, times of day, periods and UUIDs may be text; `where` is for errors."""
    is_bare = raw.levels is None and not raw.timezone and raw.values.dtype.kind in "OUM"
    name = entry_type.partition("[")[0]
    if grid and grid.kind == "datetime" and is_bare:
        return RawColumn(parse_dates(raw.values, grid, where), timezone=grid.timezone)
    if name not in ("time", "uuid", "period") or not is_bare:
        return raw
    parse = _FROM_TEXT.get(name)
    if parse is None:
        import pandas as pd

        parse = functools.partial(pd.Period, freq=entry_type[7:-1])
    try:
        return RawColumn(objects([parse(entry) if isinstance(entry, str) else entry for entry in raw.values.tolist()]))
    except ValueError as error:
        raise ValueError(f"{where} is no {name}: {error}.") from error
