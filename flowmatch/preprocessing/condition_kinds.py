"""Which encoder suits a user's conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.preprocessing.column_conditions import MixedEncoder, NumberEncoder, is_numeric
from flowmatch.preprocessing.conditions import ConditionEncoder, LabelEncoder
from flowmatch.preprocessing.containers import Container
from flowmatch.preprocessing.grid_conditions import GridEncoder
from flowmatch.preprocessing.table_columns import missing_entries
from flowmatch.preprocessing.table_frames import as_numpy

_MANY_VALUES = 20


def fit_conditions(y: Any, weight: NDArray[np.float64] | None, sample_shape: tuple[int, ...] = ()) -> ConditionEncoder:
    """Choose an encoder for conditions and fit it.

    One-dimensional `y` are labels, unless they are floating point numbers with a fraction, or numbers of which more
    than 20 and more than a tenth of the rows are distinct. Columns of two-dimensional `y` are numbers, or labels where
    they hold text or categories. More dimensions are grids (n, channels, *grid) on the grid of the samples.

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
    if values.dtype.kind == "O" and missing_entries(values.ravel()).any():
        raise ValueError("Input y contains NaN or None.")
    if values.ndim == 2:
        if "category" in container.dtypes:
            return MixedEncoder.fit(values.astype(object), container, weight)
        if values.dtype.kind == "O" and is_numeric(values.ravel()):
            values = values.astype(np.float64)  # columns of several dtypes
        if values.dtype.kind not in "biuf":
            return MixedEncoder.fit(values, container, weight)
        return NumberEncoder.fit(values, container, weight)
    measured = _is_measurement(values) and "category" not in container.dtypes
    return (NumberEncoder if measured else LabelEncoder).fit(values, container, weight)


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
    if len(getattr(y, "shape", ())) > 2:
        return y
    if isinstance(y, torch.Tensor):
        return as_numpy(y)
    array = np.asarray(y)
    numeric = getattr(getattr(y, "dtype", None), "kind", "O") in "biuf"
    if numeric and array.dtype.kind == "O" and not missing_entries(array).any():
        array = array.astype(y.dtype.numpy_dtype)  # pandas before 2.2 makes objects of its nullable numbers
    if array.dtype.kind in "US" and isinstance(y, (list, tuple)):
        objects = np.asarray(y, dtype=object)  # numpy would turn the numbers of [2, "a", 0.3] into text
        return array if all(isinstance(entry, str) for entry in objects.ravel()) else objects
    return array


def _is_measurement(y: NDArray[Any]) -> bool:
    """Whether one-dimensional conditions are amounts rather than labels."""
    if y.dtype.kind not in "iuf":
        return False
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        return True
    n_distinct = len(np.unique(y))
    return n_distinct > _MANY_VALUES and n_distinct > len(y) / 10


def _fit_grids(
    y: Any, container: Container, weight: NDArray[np.float64] | None, sample_shape: tuple[int, ...]
) -> GridEncoder:
    shape = tuple(y.shape)
    if len(sample_shape) < 2 or shape[2:] != sample_shape[1:] or np.dtype(container.numpy_dtype).kind not in "biuf":
        raise ValueError(
            f"y has {len(shape)} dimensions {shape} of dtype {container.dtypes[0]}; expected labels (n,), columns "
            "(n, k), or numbers on the grid of X, (n, channels, *grid)"
            + (f" with grid {sample_shape[1:]}." if len(sample_shape) > 1 else ".")
        )
    return GridEncoder.fit(y, container, weight)
