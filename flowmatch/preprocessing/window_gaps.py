"""Values that windows lack: what stands in their place among the lags, and means of what is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowmatch.core.types import Array

_PASSES = 3
"""Gaps of fields are filled from their edges so many points inward; what is farther inside is the mean."""

_POOLS: tuple[Any, ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def fill_lags(lags: Tensor, mean: Tensor | float = 0.0) -> Tensor:
    """Put plausible values where lags are missing: what a network is told beside marks of them.

    The last value before it, else the next one; on grids, where a point has neither, the mean of its neighbors; else
    the column's mean. A value so depends on its own window alone.

    Parameters
    ----------
    lags : Tensor of shape (B, n_lags, C, *grid)
        States, NaN where they are missing.
    mean : Tensor that broadcasts to (C, *grid), or float, default=0.0
        Of the columns.

    Returns
    -------
    Tensor of shape (B, n_lags, C, *grid)
        Without NaN.
    """
    states = list(lags.unbind(1))
    for order in (range(1, len(states)), range(len(states) - 2, -1, -1)):
        for lag in order:
            before = states[lag - 1 if order.step > 0 else lag + 1]
            states[lag] = torch.where(states[lag].isnan(), before, states[lag])
    filled = torch.stack(states, dim=1)
    n_axes = lags.ndim - 3
    for _ in range(_PASSES if n_axes else 0):
        flat = filled.flatten(0, 1)
        share = _around((~flat.isnan()).to(flat.dtype), n_axes)
        near = torch.where(share > 0, _around(flat.nan_to_num(0.0), n_axes) / share, torch.nan)
        filled = torch.where(flat.isnan(), near, flat).reshape(lags.shape)
    return torch.where(filled.isnan(), torch.as_tensor(mean, dtype=lags.dtype, device=lags.device), filled)


def mean_of_seen(values: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Average what is not missing.

    Parameters
    ----------
    values : ndarray
        NaN where they are missing.
    axis : int, tuple of int or None, default=None
        As in `numpy.mean`.

    Returns
    -------
    ndarray
        NaN where everything is missing.
    """
    missing = np.isnan(values)
    if not missing.any():
        return np.asarray(values.mean(axis=axis))
    count = (~missing).sum(axis=axis)
    return np.where(count > 0, np.where(missing, 0.0, values).sum(axis=axis) / np.maximum(count, 1), np.nan)


def _around(fields: Tensor, n_axes: int) -> Tensor:
    """Means over a point and its neighbors, of fields (B, C, *grid)."""
    return _POOLS[n_axes - 1](fields, 3, stride=1, padding=1)
