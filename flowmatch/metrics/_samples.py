"""What every measure does first: two float64 tables with the same columns, or an error that says why not."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Samples: TypeAlias = ArrayLike | torch.Tensor
"""Array-like, tensor or DataFrame of numbers, (n, d) or (n, ...)."""
RandomState: TypeAlias = int | np.random.Generator | np.random.RandomState | None


def as_samples(X: Samples, name: str = "X") -> FloatArray:
    """Return X as a finite float64 array (n, d); trailing dimensions are flattened.

    Raises
    ------
    ValueError
        If X is not numeric, has fewer than two dimensions, is empty, or holds NaN or infinity.
    """
    array = to_numpy(X, name)
    if array.ndim < 2:
        raise ValueError(
            f"{name} has {array.ndim} dimension(s) {array.shape}. Samples are (n, d) or (n, ...): "
            f"one column is {name}.reshape(-1, 1), one row {name}.reshape(1, -1)."
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}. Samples need at least one row and one column.")
    flat = array.reshape(len(array), -1)
    finite = np.isfinite(flat)
    if not finite.all():
        raise ValueError(
            f"{name} holds NaN or infinity in {(~finite.all(axis=1)).sum()} of its {len(flat)} rows. "
            f"Measures need finite numbers: impute or drop those rows first."
        )
    return flat


def as_pair(X: Samples, Y: Samples, names: tuple[str, str] = ("X", "Y")) -> tuple[FloatArray, FloatArray]:
    """Return X and Y as finite float64 arrays (n, d) and (m, d).

    Raises
    ------
    ValueError
        As `as_samples` does; also if the widths differ, or if both are DataFrames whose column names differ.
    """
    first, second = as_samples(X, names[0]), as_samples(Y, names[1])
    check_same_columns(X, Y, first.shape[1], second.shape[1], names)
    return first, second


def check_same_columns(X: Any, Y: Any, n_first: int, n_second: int, names: tuple[str, str]) -> None:
    """Raise a ValueError unless X and Y, of so many numbers a row, have the same columns."""
    if n_first != n_second:
        raise ValueError(
            f"{names[0]} has {n_first} columns and {names[1]} has {n_second} "
            f"(shapes {_shape(X)} and {_shape(Y)}). Both need the same columns."
        )
    if len(_shape(X)) > 2 and len(_shape(Y)) > 2 and _shape(X)[1:] != _shape(Y)[1:]:
        raise ValueError(
            f"{names[0]} is {_shape(X)} and {names[1]} is {_shape(Y)}: as many numbers a row, but laid out "
            f"differently. Both need the same shape after the first dimension."
        )
    _check_same_names(X, Y, names)


def column_names(X: Samples) -> list[str] | None:
    """Column names of a DataFrame (as strings); None for anything else."""
    return [str(column) for column in X.columns] if is_frame(X) else None  # type: ignore[union-attr]


def numpy_generator(random_state: RandomState) -> np.random.Generator:
    """Return a generator of its own for a seed, a Generator, a RandomState or None (fresh entropy).

    NumPy's global state is neither read nor advanced, not even for None.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    return np.random.default_rng(random_state)


def to_numpy(X: Any, name: str) -> FloatArray:
    """Return X as a float64 array of any shape, or raise a ValueError that says what is not a real number."""
    if isinstance(X, torch.Tensor):
        if X.is_complex():
            raise ValueError(f"{name} is complex ({X.dtype}). Measures need real numbers: torch.view_as_real({name}).")
        return np.asarray(X.detach().cpu().double())
    try:
        array = X.to_numpy() if is_frame(X) else np.asarray(X)
        if array.dtype.kind not in "biufO":
            raise TypeError(array.dtype)
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        where = f", in its columns {_text_columns(X)}" if is_frame(X) else ""
        raise ValueError(
            f"{name} holds something else than real numbers{where} ({error}). "
            f"Encode categories and dates as numbers, and impute missing values, before measuring; "
            f"flowmatch.metrics.report takes them as they are."
        ) from error


def is_frame(X: Any) -> bool:
    """Whether X is a DataFrame."""
    return hasattr(X, "columns") and hasattr(X, "to_numpy")


def _shape(X: Any) -> tuple[int, ...]:
    return tuple(X.shape) if hasattr(X, "shape") else np.shape(X)


def _text_columns(frame: Any) -> list[str]:
    """Names of the columns that float64 cannot hold."""
    names = []
    for column in frame.columns:
        try:
            frame[column].to_numpy().astype(np.float64)
        except (TypeError, ValueError):
            names.append(str(column))
    return names


def _check_same_names(X: Any, Y: Any, names: tuple[str, str]) -> None:
    """Two DataFrames named by strings must have the same names in the same order; others are compared by position."""
    if not all(is_frame(frame) and all(isinstance(column, str) for column in frame.columns) for frame in (X, Y)):
        return
    first, second = list(X.columns), list(Y.columns)
    if first == second:
        return
    if sorted(first) == sorted(second):
        raise ValueError(
            f"{names[0]} and {names[1]} have the same columns in another order, {first} and {second}: "
            f"pass {names[1]}[{names[0]}.columns]."
        )
    raise ValueError(f"{names[0]} has columns {first} and {names[1]} has {second}. Both need the same columns.")
