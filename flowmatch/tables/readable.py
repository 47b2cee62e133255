"""Data that cannot be read as they stand, refused by name before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse

from flowmatch.core.types import AnyArray, Array
from flowmatch.records import Record, Records

FLOAT32_MAX = float(np.finfo(np.float32).max)


def check_readable(data: Any, name: str) -> None:
    """Raise an error for data that numpy could not hold, or would read as something else.

    Parameters
    ----------
    data : Any
        What is neither a tensor nor an array passes.
    name : str
        What errors call it.

    Raises
    ------
    TypeError
        For sparse matrices, and for tensors that are not dense, without data, or of dtypes that numpy lacks.
    ValueError
        For arrays with masked entries, and for structured ones.
    """
    if issparse(data):
        raise TypeError(f"Sparse data was passed for {name}, but dense data is required: pass {name}.toarray().")
    if isinstance(data, torch.Tensor):
        _check_tensor(data, name)
    elif isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(data)} masked entries, which would be read as if they "
            f"were not: pass {name}.astype(float).filled(numpy.nan); NaN in a table is a missing entry."
        )
    elif isinstance(data, np.ndarray) and data.dtype.kind == "V":
        raise ValueError(
            f"{name} is a structured array of dtype {data.dtype}; expected one dtype for all entries, or a DataFrame: "
            f"pass pandas.DataFrame({name})."
        )


def check_samples_kind(X: Any) -> None:
    """Raise a TypeError for what holds no samples, such as generators, mappings and None; as `check_readable`."""
    check_readable(X, "X")
    if isinstance(X, (Record, Records)):
        raise TypeError(
            f"X is of class {type(X).__name__}, but estimators learn windows: X, conditions = records.windows(1024)."
        )
    rows = isinstance(X, Number) or hasattr(type(X), "__array__") or hasattr(type(X), "columns")
    rows = rows or (hasattr(X, "__len__") and hasattr(X, "__getitem__"))
    if isinstance(X, (str, bytes, Mapping)) or not rows:
        hint = ": pass list(X)" if hasattr(X, "__next__") else ""
        raise TypeError(
            f"X is a {type(X).__name__}; expected a table (n_samples, n_features) or grids (n_samples, n_channels, "
            f"*grid), such as an array, DataFrame, tensor or list{hint}."
        )


def as_numpy(tensor: torch.Tensor, name: str = "X") -> AnyArray:
    """Turn a tensor into an array.

    Parameters
    ----------
    tensor : Tensor
        On any device.
    name : str, default="X"
        What errors call it.

    Returns
    -------
    ndarray
        Of the same dtype, but float32 for bfloat16, which numpy lacks.

    Raises
    ------
    TypeError
        As `check_readable`.
    """
    _check_tensor(tensor, name)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def as_plain(data: Any, name: str) -> Any:
    """Tensors as arrays, and other data as they are; the errors of `check_readable`."""
    check_readable(data, name)
    return as_numpy(data, name) if isinstance(data, torch.Tensor) else data


def as_float64(values: Any, name: str = "X") -> Array:
    """An array or tensor as a float64 array, not copied if it is one.

    Raises
    ------
    ValueError
        For what is no number, and for numbers that no float holds.
    """
    array = np.asarray(as_plain(values, name))
    if array.dtype.kind == "c":  # numpy would drop the imaginary parts
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}; real numbers are expected.")
    try:
        return np.asarray(array, dtype=np.float64)
    except ArithmeticError as error:  # integers and fractions beyond all floats, signaling NaN
        raise ValueError(f"{name} holds a number that no float can hold: {error}.") from error


def unfit_entry(values: AnyArray) -> tuple[tuple[int, ...], str] | None:
    """Where the first entry is that no float32 holds, and what it is in words; None if there is none."""
    bad = np.argwhere(~(np.abs(values.astype(np.float64)) <= FLOAT32_MAX))
    if len(bad) == 0:
        return None
    place = tuple(bad[0].tolist())
    return place, unfit_in_words(float(values[place]))


def unfit_in_words(value: float) -> str:
    """What a value is that no float32 holds."""
    if np.isfinite(value):
        return f"{value:g}, a value too large for dtype('float32') (at most {FLOAT32_MAX:.3g})"
    return "NaN" if np.isnan(value) else "infinity"


def too_large_for_float(values: AnyArray) -> int | None:
    """The row of the first object that no float can hold, such as an integer of 400 digits."""
    for row, value in enumerate(values):
        try:
            float(value)
        except ArithmeticError:
            return row
    return None


def _check_tensor(tensor: torch.Tensor, name: str) -> None:
    plain = tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
    dtype = str(tensor.dtype)
    if plain and not dtype.startswith(("torch.float8", "torch.float4", "torch.complex32", "torch.bits")):
        return
    raise TypeError(
        f"{name} is a tensor of dtype {dtype} and layout {tensor.layout} on {tensor.device}; expected a dense one of "
        f"numbers in memory, such as {name}.to_dense() of a sparse one or {name}.float() of one in low precision."
    )
