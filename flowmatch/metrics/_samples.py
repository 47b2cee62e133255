"""Input of every measure: finite floats, and two samples with the same columns, or an error that says why not."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Samples: TypeAlias = ArrayLike | torch.Tensor
"""Numeric array-like, tensor or DataFrame, (n, d) or (n, ...)."""
RandomState: TypeAlias = int | np.random.Generator | np.random.RandomState | None


def floats_of(X: Samples, name: str) -> NDArray[Any]:
    """X as a finite, non-empty array, float32 or float64 if it came so, else float64.

    Raises
    ------
    ValueError
        If X is not numeric, has no dimension, is empty, or holds NaN or infinity.
    """
    array = _to_numpy(X, name)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected at least one row and one column, not an empty one.")
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(np.argwhere(~finite)[0].tolist())
        raise ValueError(
            f"{name} holds NaN or infinity in {(~finite).sum()} of its {array.size} values, first at {first}. "
            f"Measures need finite values: impute them or leave out those rows, or the lead times from there on."
        )
    return array


def as_samples(X: Samples, name: str = "X") -> FloatArray:
    """X as a finite float64 array (n, d); trailing dimensions are flattened.

    Raises
    ------
    ValueError
        As `floats_of` does; also if X has fewer than two dimensions.
    """
    array = floats_of(X, name)
    if array.ndim < 2:
        raise ValueError(
            f"{name} has {array.ndim} dimension(s) {array.shape}. Samples are (n, d) or (n, ...): "
            f"one column is {name}.reshape(-1, 1), one row {name}.reshape(1, -1)."
        )
    return array.reshape(len(array), -1).astype(np.float64, copy=False)


def as_pair(X: Samples, Y: Samples, names: tuple[str, str] = ("X", "Y")) -> tuple[FloatArray, FloatArray]:
    """X and Y as finite float64 arrays (n, d) and (m, d).

    Raises
    ------
    ValueError
        As `as_samples` does; also if the widths differ, or if both are DataFrames whose column names differ.
    """
    first, second = as_samples(X, names[0]), as_samples(Y, names[1])
    check_same_columns(X, Y, first.shape[1], second.shape[1], names)
    return first, second


def check_same_columns(X: Any, Y: Any, n_first: int, n_second: int, names: tuple[str, str]) -> None:
    """Raise a ValueError unless X and Y, of so many values a row, have the same columns.

    Two DataFrames named by strings must have the same names in the same order; others are compared by position.
    """
    a, b = names
    shapes = [tuple(sample.shape) if hasattr(sample, "shape") else np.shape(sample) for sample in (X, Y)]
    if n_first != n_second:
        raise ValueError(f"{a} has {n_first} columns and {b} has {n_second} (shapes {shapes[0]} and {shapes[1]}).")
    if min(map(len, shapes)) > 2 and shapes[0][1:] != shapes[1][1:]:
        raise ValueError(f"{a} is {shapes[0]} and {b} {shapes[1]}: as many values a row, but laid out differently.")
    if not all(is_frame(frame) and all(isinstance(column, str) for column in frame.columns) for frame in (X, Y)):
        return
    first, second = list(X.columns), list(Y.columns)
    if first != second:
        hint = f", the same in another order: pass {b}[{a}.columns]" if sorted(first) == sorted(second) else ""
        raise ValueError(f"{a} has columns {first} and {b} has {second}{hint}.")


def is_frame(X: Any) -> bool:
    """Whether X is a DataFrame."""
    return hasattr(X, "columns") and hasattr(X, "to_numpy")


def _to_numpy(X: Any, name: str) -> NDArray[Any]:
    """X as an array of floats, or a ValueError that says what is not a real number."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()
        X = X.float() if X.is_floating_point() and X.element_size() < 4 else X  # NumPy has no bfloat16
    try:
        array = X.to_numpy() if is_frame(X) else np.asarray(X)
        if array.dtype.kind not in "biufO":
            raise TypeError(array.dtype)
        return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        texts = [str(name) for name in getattr(X, "columns", ()) if np.asarray(X[name]).dtype.kind not in "biuf"]
        where = f", in its columns {texts}" if texts else ""
        raise ValueError(
            f"{name} holds something else than real numbers{where} ({error}). Encode categories and dates, and impute "
            f"missing values, before measuring; flowmatch.metrics.report takes them as they are."
        ) from error
