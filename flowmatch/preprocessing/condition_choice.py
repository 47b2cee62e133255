"""Which encoder suits a user's conditions, and what stands behind their numbers: dates, decimals, large integers."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np

from flowmatch.core.types import AnyArray, Array
from flowmatch.preprocessing.column_conditions import Columns, MixedEncoder, NumberEncoder, is_numeric
from flowmatch.preprocessing.conditions import ConditionEncoder, LabelEncoder
from flowmatch.preprocessing.grid_conditions import GridEncoder
from flowmatch.tables.containers import Container
from flowmatch.tables.dates import EXACT
from flowmatch.tables.entries import group_of
from flowmatch.tables.frames import is_polars, objects
from flowmatch.tables.readable import as_float64, as_plain, check_readable
from flowmatch.tables.reading import missing_entries
from flowmatch.tables.table import TableContainer

_MANY_VALUES = 20

_AMOUNTS = {"datetimes", "dates", "timedeltas", "times", "periods"}


def fit_conditions(y: Any, weight: Array | None, sample_shape: tuple[int, ...] = ()) -> ConditionEncoder:
    """Choose an encoder for conditions and fit it.

    One-dimensional `y` are labels, unless they are floating point numbers with a fraction, numbers of which more than
    20 and more than a tenth of the rows are distinct, dates, durations or decimals. Columns of two-dimensional `y` are
    numbers, or labels where they hold text or categories. More dimensions are grids (n, channels, *grid) on the grid of
    the samples.

    Parameters
    ----------
    y : array-like
        Conditions.
    weight : ndarray of shape (n,) or None
        Weights of their rows.
    sample_shape : tuple of int, default=()
        Of the samples that they belong to.

    Returns
    -------
    ConditionEncoder
        Fitted to the conditions.

    Raises
    ------
    ValueError
        For NaN, infinities, or another number of dimensions.
    """
    values = plain_conditions(y)
    container = Container.of(y if hasattr(y, "dtype") or hasattr(y, "dtypes") else values)
    if len(values.shape) > 2:
        return _fit_grids(values, container, weight, sample_shape)
    if values.ndim == 2 and values.shape[1] == 0:
        raise ValueError(f"y has shape {values.shape}: there are no conditions in it.")
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind not in "biuf":
        values = values[:, 0]
    if values.ndim == 0:
        raise ValueError(f"y is {y!r}; expected labels (n,), columns (n, k), or grids.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("Input y contains NaN or infinity.")
    if values.dtype.kind in "OmM" and missing_entries(values.ravel()).any():
        raise ValueError("Input y contains NaN or None.")
    if values.ndim == 1 and values.dtype.kind in "iu" and not _is_measurement(values):
        return LabelEncoder.fit(values, container, weight)
    columns = _columns_of(y, values)
    if values.ndim == 2:
        if "category" in container.dtypes:
            return MixedEncoder.fit(values.astype(object), container, weight, columns)
        if values.dtype.kind == "O" and is_numeric(values.ravel()) and not columns:
            values = as_float64(values, "y")  # columns of several dtypes
        if values.dtype.kind not in "biuf" and not (columns and all(columns)):
            return MixedEncoder.fit(values, container, weight, columns)
        return NumberEncoder.fit(values, container, weight, columns)
    if "category" not in container.dtypes and (columns or _is_measurement(values)):
        return NumberEncoder.fit(values, container, weight, columns)
    return LabelEncoder.fit(values, container, weight)


def plain_conditions(y: Any) -> Any:
    """Turn conditions into an array; grids stay what they are.

    Parameters
    ----------
    y : array-like
        Conditions.

    Returns
    -------
    ndarray, or what `y` is
        Conditions.
    """
    check_readable(y, "y")
    if len(getattr(y, "shape", ())) > 2:
        return y
    zoned = getattr(getattr(y, "dtype", None), "time_zone", None)
    array = objects(y.to_list()) if zoned else np.asarray(as_plain(y, "y"))  # polars would leave the zone out
    numeric = getattr(getattr(y, "dtype", None), "kind", "O") in "biuf"
    if numeric and array.dtype.kind == "O" and not missing_entries(array).any():
        array = array.astype(y.dtype.numpy_dtype)  # pandas before 2.2 makes objects of its nullable numbers
    if array.dtype.kind in "US" and isinstance(y, (list, tuple)):
        entries = np.asarray(y, dtype=object)  # numpy would turn the numbers of [2, "a", 0.3] into text
        return array if all(isinstance(entry, str) for entry in entries.ravel()) else entries
    return array


def _is_measurement(y: AnyArray) -> bool:
    """Whether one-dimensional conditions are amounts rather than labels."""
    if y.dtype.kind not in "iuf":
        return False
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        return True
    n_distinct = len(np.unique(y))
    return n_distinct > _MANY_VALUES and n_distinct > len(y) / 10


def _fit_grids(y: Any, container: Container, weight: Array | None, sample_shape: tuple[int, ...]) -> GridEncoder:
    shape = tuple(y.shape)
    if len(sample_shape) < 2 or shape[2:] != sample_shape[1:] or np.dtype(container.numpy_dtype).kind not in "biuf":
        raise ValueError(
            f"y has {len(shape)} dimensions {shape} of dtype {container.dtypes[0]}; expected labels (n,), columns "
            "(n, k), or numbers on the grid of X, (n, channels, *grid)"
            + (f" with grid {sample_shape[1:]}." if len(sample_shape) > 1 else ".")
        )
    return GridEncoder.fit(y, container, weight)


def _columns_of(y: Any, values: AnyArray) -> Columns:
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
