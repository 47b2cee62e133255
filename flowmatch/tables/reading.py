"""Tables taken apart into columns of numpy arrays: their entries as they came, and which are missing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from flowmatch.core.types import AnyArray, Array, Mask
from flowmatch.tables.dates import EXACT
from flowmatch.tables.frames import is_polars, objects
from flowmatch.tables.readable import as_plain

_ARROW_OBJECTS = r"decimal|time\d|dictionary|null|(large_)?binary|string_view"
"""Types of pyarrow that are read as Python's objects."""


@dataclass(frozen=True)
class RawColumn:
    """The entries of one column, as they came.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Booleans, numbers, datetime64, timedelta64 or objects.
    levels : ndarray or None, default=None
        What a column of a categorical dtype can hold, in order.
    level_dtype : str, default=""
        Dtype of those.
    ordered : bool, default=False
        Whether they are in an order that means something.
    timezone : str, default=""
        Name of the time zone; datetime64 values are then in UTC.
    """

    values: AnyArray
    levels: AnyArray | None = None
    level_dtype: str = ""
    ordered: bool = False
    timezone: str = ""

    @classmethod
    def of(cls, values: AnyArray) -> RawColumn:
        """A column of an array, of which text counts as objects."""
        return cls(objects(values) if values.dtype.kind in "UST" else values)

    @cached_property
    def missing(self) -> Mask:
        """Which entries are missing."""
        return missing_entries(self.values)


def missing_entries(values: AnyArray) -> Mask:
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


T = TypeVar("T")


def each_column(table: Any, labels: Sequence[Any], use: Callable[[int, RawColumn, str], T]) -> list[T]:
    """What a function makes of the position, entries and name of each column of what `as_table` returned.

    Raises
    ------
    ValueError, TypeError
        Those of the function, for all columns in one.
    """
    found, errors = [], []
    for j, label in enumerate(labels):
        where = f"column {label!r} of X"
        try:
            found.append(use(j, raw_column(table, j, where), where))
        except (ValueError, TypeError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = TypeError if all(isinstance(error, TypeError) for error in errors) else ValueError
        raise kind("\n".join([f"{len(errors)} columns of X do not fit:", *map(str, errors)])) from errors[0]
    return found


def raw_column(table: Any, position: int, where: str) -> RawColumn:
    """One column of what `as_table` returned; as `raw_series`."""
    column = table.iloc[:, position] if hasattr(table, "iloc") else table[:, position]
    column = as_plain(column, where)
    return RawColumn.of(column) if isinstance(column, np.ndarray) else raw_series(column, where)


def raw_series(series: Any, where: str) -> RawColumn:
    """A Series of pandas or polars as numpy values; `where` names it in errors.

    Raises
    ------
    ValueError
        For dtypes that are neither numbers, categories, text, booleans nor dates.
    """
    if is_polars(series):
        return _from_polars(series, where)
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        is_plain = isinstance(dtype.categories.dtype, np.dtype) and dtype.categories.dtype.kind in "biuf"
        levels = dtype.categories.to_numpy() if is_plain else objects(list(dtype.categories))
        entries = objects([*levels.tolist(), None])[series.cat.codes.to_numpy()]  # -1, the last, is missing
        return RawColumn(entries, levels, str(dtype.categories.dtype), bool(dtype.ordered))
    if isinstance(dtype, pd.DatetimeTZDtype):
        return RawColumn(series.dt.tz_convert(None).to_numpy(), timezone=str(dtype).split(", ", 1)[1].removesuffix("]"))
    if isinstance(dtype, (np.dtype, pd.SparseDtype)):
        return RawColumn.of(series.to_numpy())
    if isinstance(dtype, pd.PeriodDtype):
        return RawColumn(series.to_numpy(object))
    if isinstance(dtype, pd.IntervalDtype):
        return RawColumn(series.to_numpy(object), objects(sorted(set(series.dropna()))), str(dtype), ordered=True)
    kind = getattr(dtype, "kind", "O")
    if kind == "b":
        return RawColumn(series.to_numpy(object, na_value=None) if series.isna().any() else series.to_numpy(bool))
    if kind in "iuf":
        numbers = series.to_numpy(np.float64, na_value=np.nan)
        if kind == "f" or not _too_large(numbers):
            return RawColumn(numbers)
        return RawColumn(series.to_numpy(object, na_value=None))
    arrow: Any = getattr(dtype, "pyarrow_dtype", None)
    if arrow is not None and (kind == "M" or re.match(_ARROW_OBJECTS, str(arrow))):
        import pyarrow as pa

        column = pa.array(series)
        if kind != "M":
            return RawColumn(objects(column.to_pylist()))
        bare = column.cast(pa.timestamp(getattr(arrow, "unit", "ms")))  # dates are cast to milliseconds
        return RawColumn(bare.to_pandas().to_numpy(), timezone=getattr(arrow, "tz", None) or "")
    if kind == "m":
        return RawColumn(series.to_numpy("m8[ns]"))
    if pd.api.types.is_string_dtype(dtype):
        return RawColumn(series.to_numpy(object, na_value=None))
    raise _unfit_dtype(where, dtype)


def raw_entries(values: Any, where: str) -> RawColumn:
    """One value or a sequence as a column."""
    if hasattr(values, "columns"):
        raise ValueError(f"{where} is a {type(values).__name__}; expected one value or a sequence, such as one column.")
    if hasattr(values, "iloc") or is_polars(values):
        return raw_series(values, where)
    values = as_plain(values, where)
    if isinstance(values, (np.ndarray, memoryview)):
        array = np.asarray(values)
        if array.shape[1:] not in ((), (1,)):
            raise ValueError(f"{where} has shape {array.shape}; expected one value or a sequence.")
        return RawColumn.of(array.reshape(-1))
    several = isinstance(values, Iterable) and not isinstance(values, (str, bytes, dict))
    return RawColumn(objects(list(values) if several else [values]))


def _too_large(numbers: Array) -> bool:
    """Whether whole numbers went beyond 2^53 when they became floats."""
    return bool((np.abs(numbers) >= EXACT).any())


def _from_polars(series: Any, where: str) -> RawColumn:
    kind = type(series.dtype).__name__
    if kind == "Enum":
        return RawColumn(objects(series.to_list()), objects(series.dtype.categories.to_list()), "str")
    if kind == "Decimal":
        numbers = series.cast(sys.modules["polars"].Float64).to_numpy()
        is_exact = _too_large(numbers * 10.0 ** (series.dtype.scale + 1))
        return RawColumn(objects(series.to_list()) if is_exact else numbers)
    ends = (series.min(), series.max()) if series.dtype.is_integer() else ()
    if kind in ("Time", "Binary", "Null") or any(end is not None and abs(end) > EXACT for end in ends):
        return RawColumn(objects(series.to_list()))
    values = series.to_numpy()
    if kind in ("List", "Array", "Struct", "Object") or values.dtype.kind not in "biufmMO":
        raise _unfit_dtype(where, series.dtype)
    return RawColumn(values, timezone=getattr(series.dtype, "time_zone", None) or "")


def _unfit_dtype(where: str, dtype: Any) -> ValueError:
    return ValueError(
        f"{where} has dtype {dtype}; numbers, text, categories, booleans or dates are expected. Convert it or leave it "
        "out."
    )
