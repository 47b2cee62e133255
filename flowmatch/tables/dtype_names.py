"""Names of dtypes and time zones that a file may hold: they come from lists, and are looked up nowhere else."""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Sequence

from flowmatch.core.storable import require

_NUMBER = r"u?int(8|16|32|64)|float(16|32|64|96|128)"
_UNIT = r"(ns|us|ms|s|m|h|D)"
_ZONE = r"(?P<zone>[^\]]+)"
_NUMPY = (
    rf"{_NUMBER}|bool|object|\|O|[<>][iuf][248]|[<>]?U\d{{1,7}}|\|?S\d{{1,7}}|[<>][mM]8\[{_UNIT}\]|"
    rf"(datetime64|timedelta64)\[{_UNIT}\]"
)
_PYARROW = (
    r"u?int(8|16|32|64)|halffloat|float|double|bool|(large_)?string|string_view|utf8|date(32\[day\]|64\[ms\])|"
    rf"duration\[{_UNIT}\]|"
    rf"timestamp\[{_UNIT}(, tz={_ZONE})?\]|decimal(128|256)\(\d{{1,3}}, -?\d{{1,3}}\)|time(32|64)\[{_UNIT}\]|null|"
    r"(large_)?binary|dictionary<values=\w{1,20}, indices=\w{1,20}, ordered=[01]>"
)
_SUBTYPE = rf"{_NUMBER}|(datetime64|timedelta64)\[{_UNIT}(, (?P<end_zone>[^\]]+))?\]"
_KNOWN = {
    "numpy": _NUMPY,
    "torch": rf"{_NUMBER}|bfloat16|bool",
    "polars": (
        r"U?Int(8|16|32|64|128)|Float(16|32|64)|Boolean|String|Categorical|Enum|Date|Time|Binary|Null|"
        rf"(Datetime\|{_UNIT}\|(?P<zone>[^|]*)|Duration\|{_UNIT}|Decimal\|\d{{1,3}}\|\d{{1,3}})"
    ),
    "dataframe": (
        rf"{_NUMPY}|category|str|string(\[(python|pyarrow|pyarrow_numpy)\])?|boolean|U?Int(8|16|32|64)|Float(32|64)|"
        rf"period\[[\w-]{{1,20}}\]|interval\[({_SUBTYPE}), (left|right|both|neither)\]|"
        rf"datetime64\[{_UNIT}, (?P<zone>[^\]]+)\]|Sparse\[({_NUMBER}|bool|object)(, [-\w.]+)?\]|"
        rf"({_PYARROW.replace('?P<zone>', '?P<pyarrow_zone>')})\[pyarrow\]"
    ),
}


def check_dtypes(kind: str, names: Sequence[str]) -> None:
    """Raise a ValueError unless all are names of dtypes of what is of this kind: an array, a tensor or a frame."""
    others = {"records": "numpy", "masked": "numpy", "polars_series": "polars"}
    known = _KNOWN[kind if kind in _KNOWN else others.get(kind, "dataframe")]
    for name in set(names):
        found = re.fullmatch(known, name)
        require(found, f"dtype {name[:50]!r}")
        assert found is not None
        for zone in filter(None, (found.groupdict().get(key) for key in ("zone", "pyarrow_zone", "end_zone"))):
            require(is_timezone(zone), f"time zone {zone[:50]!r}")


def is_timezone(name: str) -> bool:
    """Whether this is a time zone of the IANA data base or at a fixed distance from UTC."""
    is_fixed = name in ("", "UTC") or re.fullmatch(r"(UTC)?[+-]\d\d:\d\d", name)
    # a name that could be a path is not even compared with those that there are
    is_name = re.fullmatch(r"[A-Za-z][\w+-]*(/[A-Za-z][\w+-]*)*", name) and name in _timezones()
    return bool(is_fixed or is_name)


@functools.lru_cache(maxsize=1)
def _timezones() -> set[str]:
    return zoneinfo.available_timezones()
