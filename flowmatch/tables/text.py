"""Text that stands for something else: numbers and dates that were not converted, and values that a user writes."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from flowmatch.tables.dates import DateGrid, parse_dates
from flowmatch.tables.frames import objects
from flowmatch.tables.reading import RawColumn

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
    if name not in _PARSERS or not is_bare:
        return raw
    try:
        parse = _PARSERS[name](entry_type)
        return RawColumn(objects([parse(entry) if isinstance(entry, str) else entry for entry in raw.values.tolist()]))
    except ValueError as error:
        raise ValueError(f"{where} is no {name}: {error}.") from error


def _period_parser(entry_type: str) -> Callable[[str], Any]:
    import pandas as pd

    return lambda text: pd.Period(text, freq=entry_type[7:-1])


_PARSERS: dict[str, Callable[[str], Callable[[str], Any]]] = {
    "time": lambda _: datetime.time.fromisoformat,
    "uuid": lambda _: uuid.UUID,
    "period": _period_parser,
}
