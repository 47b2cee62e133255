"""Frames of pandas and polars, and what narwhals makes frames of: recognized, and made of columns."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from flowmatch.core.types import AnyArray, Array, Mask
from flowmatch.tables.dates import EXACT, localize
from flowmatch.tables.forms import form_of, formless
from flowmatch.tables.readable import as_numpy

_WHOLE = re.compile(r"(u?)int(\d+)")
"""Names of dtypes of integers."""


def as_dtype(values: AnyArray, dtype: str) -> AnyArray:
    """Cast, with rounding and saturation where the target is integer or boolean."""
    target = np.dtype(dtype)
    if values.dtype == target or target.kind not in "biuf":
        return values
    if target.kind == "b":
        return values >= 0.5
    if target.kind in "iu":
        if values.dtype.kind == "O":
            return within_limits(values, target.name).astype(target)
        limits = np.iinfo(target)
        return np.clip(np.round(values), limits.min, limits.max).astype(target)
    return values.astype(target)


def within_limits(entries: AnyArray, dtype: str) -> AnyArray:
    """Integers as objects, saturated where a dtype cannot hold them; None stays."""
    _, sign, bits, _ = _WHOLE.split(dtype)
    low, high = (0, 2 ** int(bits) - 1) if sign else (-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1)
    return objects([entry if entry is None else min(max(entry, low), high) for entry in entries.tolist()])


def is_real_dtype(dtype: str) -> bool:
    """Whether numpy knows a dtype of this name, of real numbers or booleans."""
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:  # an extension of pandas, or one of torch's
        return False


def is_polars(X: Any) -> bool:
    """Whether `X` is a DataFrame (Series) of polars, which need not be installed."""
    return type(X).__module__.partition(".")[0] == "polars" and hasattr(X, "to_numpy")


def native_frame(X: Any) -> Any:
    """Turn a table of another library or form, such as one of pyarrow, into a frame of pandas or an array.

    Parameters
    ----------
    X : Any
        Frames of narwhals become what they hold, and lazy ones of polars are collected; what is no frame, or one of
        pandas or polars, stays as it is.

    Returns
    -------
    Any
        A DataFrame of pandas or polars, an array, or `X` itself.

    Raises
    ------
    ImportError
        If narwhals, which reads them, is not installed.
    ValueError
        If it cannot, as with lazy frames of other libraries, and for forms that hold no table.
    """
    is_lazy = type(X).__module__.partition(".")[0] == "polars" and hasattr(X, "collect")
    X = formless(X.collect() if is_lazy else X)
    if not hasattr(type(X), "columns") or hasattr(X, "iloc") or is_polars(X):
        return X
    name = f"{type(X).__module__}.{type(X).__qualname__}"
    try:
        import narwhals.stable.v2 as nw
    except ImportError as error:
        raise ImportError(f"X is a {name}: such frames need narwhals, pip install 'flowmatch[frames]'.") from error
    try:
        frame = nw.from_native(X, eager_only=True)
    except TypeError as error:
        raise ValueError(f"X is a {name}; expected a table in memory, such as a DataFrame ({error}).") from error
    if isinstance(frame, nw.LazyFrame):
        return native_frame(frame.to_native())
    return frame.to_native() if is_polars(frame.to_native()) else frame.to_pandas()


def as_table(X: Any) -> Any:
    """A pandas or polars DataFrame, tensor or array (n, d) from whatever rows and columns came in.

    Raises
    ------
    ValueError
        If `X` does not have two dimensions.
    """
    X = native_frame(X)
    if not (isinstance(X, torch.Tensor) or hasattr(X, "iloc") or is_polars(X)):
        X = _as_array(X)
    if len(X.shape) != 2:
        raise ValueError(
            f"X has shape {tuple(X.shape)}; expected 2D array, rows and columns. Reshape your data using "
            "X.reshape(-1, 1) if it is one column, or X.reshape(1, -1) if it is one row."
        )
    return X


def holds_floats(table: Any) -> bool:
    """Whether `as_table` returned an array or tensor of real numbers which floats hold: no integers beyond 2^53."""
    array = as_numpy(table) if isinstance(table, torch.Tensor) and not table.is_complex() else table
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        return False
    return array.dtype.kind not in "iu" or not array.size or max(-int(array.min()), int(array.max())) <= EXACT


def dtypes_of(frame: Any) -> tuple[str, ...]:
    """Names of the dtypes of a frame of pandas or polars, with their parameters."""
    if is_polars(frame):
        return tuple(_polars_name(dtype) for dtype in frame.dtypes)
    return tuple(map(_pandas_name, frame.dtypes))


def pandas_dtype(name: str) -> Any:
    """The dtype of a name; those of decimals and dictionaries of pyarrow pandas does not look up."""
    if re.match(r"[<>|]?[SU]\d|\|O", name) or name in ("datetime64[D]", "<M8[D]"):  # of arrays
        return "datetime64[s]" if name.endswith("[D]") else "object"
    found = re.fullmatch(r"decimal(128|256)\((\d+), (-?\d+)\)\[pyarrow\]", name)
    coded = re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=([01])>\[pyarrow\]", name)
    is_text = name in ("utf8[pyarrow]", "string_view[pyarrow]")
    if not found and not coded and not is_text:
        return name
    import pandas as pd
    import pyarrow as pa

    if is_text:
        return pd.ArrowDtype(pa.string())
    if found:
        return pd.ArrowDtype(getattr(pa, f"decimal{found[1]}")(int(found[2]), int(found[3])))
    assert coded is not None
    values, indices = pa.type_for_alias(coded[1]), pa.type_for_alias(coded[2])
    return pd.ArrowDtype(pa.dictionary(indices, values, coded[3] == "1"))


def pandas_series(values: AnyArray, dtype: str, timezone: str = "", wall: bool = False) -> Any:
    """A Series of `dtype` from numbers with NaN, objects, or dates (on the clock of the time zone if `wall`)."""
    import pandas as pd

    if timezone:
        return pd.Series(localize(values, timezone, wall)).astype(dtype)
    plain = dtype.partition("[")[0].lower()
    if values.dtype.kind == "O" and _WHOLE.fullmatch(plain):
        values = within_limits(values, plain)
        if plain == dtype and None in values:  # which integers of numpy have no room for
            return pd.Series(values)
    if values.dtype.kind != "f":
        return pd.Series(values, dtype=pandas_dtype(dtype))
    plain = {"boolean": "bool", "float": "float32", "halffloat": "float16", "double": "float64"}.get(plain, plain)
    gaps = np.isnan(values)
    try:
        narrow = as_dtype(np.where(gaps, 0.0, values), plain)
    except TypeError:  # the dtype of an extension that numpy does not know by name
        return pd.Series(values).astype(pandas_dtype(dtype))
    if not gaps.any():
        return pd.Series(narrow, dtype=dtype)
    if plain != dtype:
        return pd.Series(narrow).astype(dtype).mask(gaps)
    if narrow.dtype.kind == "b":
        return pd.Series(np.where(gaps, None, narrow), dtype=object)  # type: ignore[call-overload]
    return pd.Series(values if narrow.dtype.kind in "iu" else values.astype(dtype))


def polars_series(values: AnyArray, dtype: str, name: str, levels: AnyArray | None = None) -> Any:
    """A Series of polars from numbers with NaN, objects, or dates in UTC; its dtype as `dtypes_of` names it.

    Without levels an Enum becomes a Categorical.
    """
    import polars as pl

    kind, *parameters = dtype.split("|")
    kind = "Categorical" if kind == "Enum" and levels is None else kind
    if values.dtype.kind == "O" and _WHOLE.fullmatch(kind.lower()):
        values = within_limits(values, kind.lower())
    special = {
        "Enum": [] if levels is None else [levels.tolist()],
        "Datetime": [parameter or None for parameter in parameters],
        "Decimal": map(int, parameters),
    }
    target: Any = getattr(pl, kind)(*special.get(kind, parameters))
    if values.dtype.kind == "f":
        gaps = np.isnan(values)
        if kind in ("Boolean", "Decimal") or kind.startswith("Float"):
            whole = values >= 0.5 if kind == "Boolean" else values
        else:
            whole = as_dtype(np.where(gaps, 0, values), kind.lower())
        return pl.Series(name, np.where(gaps, None, whole).tolist(), dtype=target, strict=False)  # type: ignore
    if values.dtype.kind == "O":
        return pl.Series(name, values.tolist(), dtype=target)
    series = pl.Series(name, values)  # dates
    zone = parameters[1] if kind == "Datetime" else ""
    return (series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else series).cast(target)


def objects(values: Any) -> AnyArray:
    """A flat array of Python objects; tuples and intervals do not become rows."""
    is_array = isinstance(values, np.ndarray)
    return values.astype(object) if is_array else np.fromiter(values, dtype=object, count=len(values))


def _as_array(X: Any) -> AnyArray:
    if isinstance(X, np.ndarray):
        return np.asarray(X)
    try:
        array = np.asarray(X)
        return np.array(X, dtype=object) if array.dtype.kind in "US" else array  # numbers beside text stay numbers
    except ValueError as error:
        raise ValueError(f"X is a {type(X).__name__} that is no table, rows of equal length: {error}.") from error


def _pandas_name(dtype: Any) -> str:
    """The name of a dtype of pandas; those that pandas calls by one name have two."""
    if hasattr(dtype, "pyarrow_dtype"):
        return str(dtype).replace("string[pyarrow]", "utf8[pyarrow]") if str(dtype)[0] == "s" else str(dtype)
    return f"string[{dtype.storage}]" if str(dtype) == "string" else str(dtype)  # it does not say how it is stored


def _polars_name(dtype: Any) -> str:
    """The name of a polars dtype with its parameters, such as "Datetime|us|UTC"."""
    name = type(dtype).__name__
    if name == "Decimal":
        return f"{name}|{dtype.precision}|{dtype.scale}"
    unit = getattr(dtype, "time_unit", None)
    zone = f"|{dtype.time_zone or ''}" if name == "Datetime" else ""
    return f"{name}|{unit}{zone}" if unit else name


# -- columns taken, replaced and appended -----------------------------------------------------------------------------


def take_columns(table: Any, chosen: Mask) -> Any:
    """Some columns of a table of any form."""
    kept, form = np.flatnonzero(chosen).tolist(), form_of(table)
    if form in ("dict", "rows", "records"):
        known = table.dtype.names if form == "records" else list(table[0] if form == "rows" else table)
        names = [known[j] for j in kept]
        if form == "rows":
            return [{name: row[name] for name in names} for row in table]
        return table[names] if form == "records" else {name: table[name] for name in names}
    if form == "arrow":
        return table.select(kept)
    return table.iloc[:, kept] if hasattr(table, "iloc") else table[:, kept]


def replace_columns(table: Any, chosen: Mask, columns: Any) -> Any:
    """A copy of what `as_table` returned, with other columns in place of the chosen ones."""
    if is_polars(table):
        return table.with_columns(list(columns))
    if isinstance(table, torch.Tensor):
        return table.index_copy(1, torch.as_tensor(np.flatnonzero(chosen), device=table.device), columns)
    table = table.copy()
    if not hasattr(table, "iloc"):
        table[:, chosen] = columns
        return table
    for j, position in enumerate(np.flatnonzero(chosen)):
        table.isetitem(position, columns.iloc[:, j])
    return table


def append_columns(table: Any, marks: Mask, names: AnyArray) -> Any:
    """A table with columns of booleans behind its own; in an array or tensor they are zeros and ones of its dtype."""
    if isinstance(table, torch.Tensor):
        return torch.cat([table, torch.as_tensor(marks, device=table.device).to(table.dtype)], dim=1)
    if isinstance(table, np.ndarray):
        return np.concatenate([table, marks.astype(table.dtype)], axis=1)
    new = dict(zip(names[len(names) - marks.shape[1] :], marks.T, strict=True))
    return table.with_columns(**new) if is_polars(table) else table.assign(**new)


def numbers_like(X: Any, numbers: Array) -> Any:
    """Numbers of the shape of X as a tensor or frame if X is one, with its index and columns."""
    if isinstance(X, torch.Tensor):
        return torch.as_tensor(numbers, dtype=X.dtype if X.is_floating_point() else torch.float32, device=X.device)
    if hasattr(X, "iloc"):
        import pandas as pd

        return pd.DataFrame(numbers, index=X.index, columns=X.columns)
    if is_polars(X):
        import polars as pl

        return pl.DataFrame(numbers, schema=X.columns)
    return numbers
