"""Take tables apart into columns of numpy arrays, and put columns together to a table again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.preprocessing.containers import Container, _as_dtype
from flowmatch.preprocessing.rows import as_numpy
from flowmatch.preprocessing.table_dates import localize


@dataclass(frozen=True)
class RawColumn:
    """The cells of one column, as they came.

    Attributes
    ----------
    values : ndarray of shape (n,)
        Booleans, numbers, datetime64, timedelta64 or objects; positions in `levels` (NaN is missing) where those are
        given.
    levels : ndarray, optional
        What a column of a categorical dtype can hold, in order.
    level_dtype : str
        Dtype of those.
    ordered : bool
        Whether they are in an order that means something.
    timezone : str
        Name of the time zone; datetime64 values are then in UTC.
    """

    values: NDArray[Any]
    levels: NDArray[Any] | None = None
    level_dtype: str = ""
    ordered: bool = False
    timezone: str = ""


def is_polars(X: Any) -> bool:
    """Whether `X` is a DataFrame (Series) of polars, which need not be installed."""
    return type(X).__module__.partition(".")[0] == "polars" and hasattr(X, "to_numpy")


def native_frame(X: Any) -> Any:
    """A frame of another library, such as a table of pyarrow, as one of pandas; anything else as it is.

    Frames of narwhals become what they hold.

    Raises
    ------
    ImportError
        If narwhals, which reads them, is not installed.
    ValueError
        If it cannot, as with lazy frames.
    """
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


def describe(table: Any) -> tuple[str, tuple[str, ...], tuple[Any, ...], str]:
    """Kind, dtypes, column names and device of a table, as `Container` has them."""
    if is_polars(table):
        return "polars", tuple(_polars_name(dtype) for dtype in table.dtypes), tuple(table.columns), "cpu"
    plain = Container.of(table)
    dtypes = plain.dtypes
    if plain.kind == "dataframe":  # plain "string" says nothing about how it is stored
        dtypes = tuple(f"string[{t.storage}]" if str(t) == "string" else str(t) for t in table.dtypes)
    return plain.kind, dtypes, plain.columns, plain.device


def take_apart(table: Any) -> list[RawColumn]:
    """The columns of what `as_table` returned."""
    if isinstance(table, torch.Tensor):
        table = as_numpy(table)
    if isinstance(table, np.ndarray):
        return [RawColumn(column) for column in table.T]
    if is_polars(table):
        return [raw_series(series, f"column {series.name!r} of X") for series in table]
    return [raw_series(table.iloc[:, j], f"column {name!r} of X") for j, name in enumerate(table.columns)]


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
        codes = series.cat.codes.to_numpy(np.float64)
        levels = dtype.categories
        return RawColumn(
            np.where(codes < 0, np.nan, codes), _level_array(levels), str(levels.dtype), bool(dtype.ordered)
        )
    if isinstance(dtype, pd.DatetimeTZDtype):
        return RawColumn(series.dt.tz_convert(None).to_numpy(), timezone=str(dtype).split(", ", 1)[1].removesuffix("]"))
    if isinstance(dtype, np.dtype):
        return RawColumn(series.to_numpy())
    if isinstance(dtype, pd.SparseDtype):
        return RawColumn(series.sparse.to_dense().to_numpy())
    kind = getattr(dtype, "kind", "O")
    if kind == "b":
        return RawColumn(series.to_numpy(object, na_value=None) if series.isna().any() else series.to_numpy(bool))
    if kind in "iuf":
        return RawColumn(series.to_numpy(np.float64, na_value=np.nan))
    if kind in "mM" and getattr(getattr(dtype, "pyarrow_dtype", None), "tz", None) is None:
        return RawColumn(series.to_numpy(f"{kind}8[ns]"))
    if pd.api.types.is_string_dtype(dtype):
        return RawColumn(series.to_numpy(object, na_value=None))
    raise _unfit_dtype(where, dtype)


def nearest_positions(numbers: NDArray[np.float64], n_levels: int) -> NDArray[np.intp]:
    """Positions in so many levels; 0 for NaN."""
    return np.clip(np.round(np.nan_to_num(numbers)), 0, max(n_levels - 1, 0)).astype(np.intp)


def numbers_array(values: NDArray[Any], container: Container) -> NDArray[Any] | torch.Tensor:
    """Numbers (n, d) in an array or tensor of the container's dtype, or one that can hold NaN if there is any."""
    dtype = container.numpy_dtype
    if np.dtype(dtype).kind in "biu" and np.isnan(values).any():
        if dtype == "bool" and container.kind == "numpy":
            return np.where(np.isnan(values), None, values >= 0.5)  # type: ignore[call-overload]
        return (
            Container("torch", ("float64",), device=container.device).wrap(values)
            if container.kind == "torch"
            else values
        )
    if container.kind == "torch":
        return Container.wrap(container, values)
    return _as_dtype(values, dtype)


def pandas_series(values: NDArray[Any], dtype: str, timezone: str, wall: bool) -> Any:
    """A Series of `dtype` from numbers with NaN, objects, or dates (on the clock of the time zone if `wall`)."""
    import pandas as pd

    if timezone:
        return pd.Series(localize(values, timezone, wall)).astype(dtype)
    if values.dtype.kind == "f":
        plain = dtype.lower() if dtype.startswith(("Int", "UInt", "boolean", "Float")) else dtype.partition("[")[0]
        plain = {"boolean": "bool", "float": "float32", "double": "float64"}.get(plain, plain)
        gaps = np.isnan(values)
        try:
            narrow = _as_dtype(np.where(gaps, 0.0, values), plain)
        except TypeError:  # the dtype of an extension that numpy does not know by name
            return pd.Series(values).astype(dtype)
        if not gaps.any():
            return pd.Series(narrow, dtype=dtype)
        if plain == dtype and narrow.dtype.kind == "b":
            return pd.Series(np.where(gaps, None, narrow), dtype=object)  # type: ignore[call-overload]
        if plain == dtype:
            return pd.Series(values if narrow.dtype.kind in "iu" else values.astype(dtype))
        return pd.Series(narrow).astype(dtype).mask(gaps)
    return pd.Series(values, dtype=dtype)


def pandas_categories(positions: NDArray[np.float64], levels: NDArray[Any], dtype: str, ordered: bool) -> Any:
    """A Series of pandas' categorical dtype."""
    import pandas as pd

    codes = np.where(np.isnan(positions), -1, nearest_positions(positions, len(levels)))
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(levels, dtype=dtype), ordered=ordered))


def pandas_frame(columns: Sequence[Any], names: tuple[Any, ...]) -> Any:
    """A DataFrame of Series; names may occur twice."""
    import pandas as pd

    frame = pd.DataFrame(dict(enumerate(columns)))
    frame.columns = pd.Index(names)
    return frame


def polars_series(values: NDArray[Any], dtype: str, name: str, levels: NDArray[Any]) -> Any:
    """A Series of polars from numbers with NaN, objects, or dates in UTC; its dtype as `describe` wrote it."""
    import polars as pl

    kind, *parameters = dtype.split("|")
    if kind == "Enum":
        target = pl.Enum(levels.tolist())
    elif kind == "Decimal":
        target = pl.Decimal(*map(int, parameters))
    elif kind == "Datetime":
        target = pl.Datetime(parameters[0], parameters[1] or None)
    else:
        target = getattr(pl, kind)(*parameters)
    if values.dtype.kind == "f":
        gaps = np.isnan(values)
        if kind in ("Boolean", "Decimal") or kind.startswith("Float"):
            whole = values >= 0.5 if kind == "Boolean" else values
        else:
            whole = _as_dtype(np.where(gaps, 0, values), kind.lower())
        return pl.Series(name, np.where(gaps, None, whole).tolist(), dtype=target, strict=False)  # type: ignore
    if values.dtype.kind == "O":
        return pl.Series(name, values.tolist(), dtype=target)
    series = pl.Series(name, values)  # dates
    zone = parameters[1] if kind == "Datetime" else ""
    return (series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else series).cast(target)


def _as_array(X: Any) -> NDArray[Any]:
    if isinstance(X, np.ndarray):
        return np.asarray(X)
    try:
        array = np.asarray(X)
        return np.array(X, dtype=object) if array.dtype.kind in "US" else array  # numbers beside text stay numbers
    except ValueError as error:
        raise ValueError(f"X is a {type(X).__name__} that is no table, rows of equal length: {error}.") from error


def _level_array(levels: Any) -> NDArray[Any]:
    """Numbers and booleans as they are, everything else as objects."""
    if isinstance(levels.dtype, np.dtype) and levels.dtype.kind in "biuf":
        return levels.to_numpy()
    array = np.empty(len(levels), dtype=object)
    for i, level in enumerate(levels):  # intervals and tuples must not become rows
        array[i] = level
    return array


def _from_polars(series: Any, where: str) -> RawColumn:
    kind = type(series.dtype).__name__
    if kind == "Enum":
        levels = series.dtype.categories
        return RawColumn(series.to_physical().to_numpy().astype(np.float64), _level_array(levels.to_numpy()), "str")
    if kind == "Decimal":
        return RawColumn(series.cast(sys.modules["polars"].Float64).to_numpy())
    values = series.to_numpy()
    if kind in ("Time", "Binary", "List", "Array", "Struct", "Object", "Null") or values.dtype.kind not in "biufmMO":
        raise _unfit_dtype(where, series.dtype)
    return RawColumn(values, timezone=getattr(series.dtype, "time_zone", None) or "")


def _polars_name(dtype: Any) -> str:
    """The name of a polars dtype with its parameters, such as "Datetime|us|UTC"."""
    name = type(dtype).__name__
    if name == "Decimal":
        return f"{name}|{dtype.precision}|{dtype.scale}"
    unit = getattr(dtype, "time_unit", None)
    zone = f"|{dtype.time_zone or ''}" if name == "Datetime" else ""
    return f"{name}|{unit}{zone}" if unit else name


def _unfit_dtype(where: str, dtype: Any) -> ValueError:
    return ValueError(
        f"{where} has dtype {dtype}; numbers, text, categories, booleans or dates are expected. Convert it or leave it "
        "out."
    )
