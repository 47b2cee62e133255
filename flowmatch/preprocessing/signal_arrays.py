"""Windows of signals as one array, checked: what measures and generators of signals read."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowmatch.core.types import Array
from flowmatch.tables.readable import as_float64

MIN_TIMES = 16
"""Shorter windows are taken for channels that come last."""


def as_signals(X: Any, name: str = "X") -> Array:
    """Read windows of signals.

    Parameters
    ----------
    X : array-like or tensor of shape (n_signals, n_channels, n_times)
        Windows of one length, of 16 values at least.
    name : str, default="X"
        What errors call it.

    Returns
    -------
    ndarray of float64, shape (n_signals, n_channels, n_times)

    Raises
    ------
    ValueError
        For another number of dimensions, channels that look as if they came last, and values that are not finite.
    """
    array = as_float64(X, name)
    if array.ndim != 3 or 0 in array.shape:
        hint = f" One-channel signals are {name}[:, None]." if array.ndim == 2 else ""
        raise ValueError(f"{name} has shape {array.shape}; signals are (n_signals, n_channels, n_times).{hint}")
    if array.shape[2] < MIN_TIMES:
        hint = f" If channels come last, pass {name}.transpose(0, 2, 1)." if array.shape[1] >= MIN_TIMES else ""
        raise ValueError(
            f"{name} has shape {array.shape}, (n_signals, n_channels, n_times): {array.shape[2]} values are no signal, "
            f"{MIN_TIMES} are the least.{hint}"
        )
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(np.argwhere(~finite)[0].tolist())
        raise ValueError(f"{name} holds NaN or infinity in {(~finite).sum()} of its values, first at {first}.")
    return array


def rms_of(signals: Array) -> Array:
    """Root mean square of each window over its channels and times, (n, 1, 1)."""
    return np.sqrt(np.mean(signals**2, axis=(1, 2), keepdims=True))
