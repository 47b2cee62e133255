"""What the dtypes of the data ask of exported numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.preprocessing import Container, Identity, Log1pStandardize, QuantileNormal, SampleEncoder
from flowmatch.preprocessing.categories import first_parts

Array = NDArray[np.float64]

_EXACT = 2.0**24
"""Up to here float32 holds every whole number."""

_FINE = 1e-3
"""Continuous columns need a resolution of this part of their standard deviation."""


def whole_ranges(container: Container, n_columns: int) -> Array:
    """Smallest and largest value that each column's dtype holds, (n_columns, 2); NaN for columns of real numbers."""
    ranges = np.array([_whole_range(dtype.lower()) for dtype in container.dtypes])
    return np.broadcast_to(ranges, (n_columns, 2))


def _whole_range(dtype: str) -> tuple[float, float]:
    try:
        kind = np.dtype("bool" if dtype == "boolean" else dtype)
    except TypeError:  # one that numpy lacks
        return np.nan, np.nan
    if kind.kind == "b":
        return 0.0, 1.0
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return float(limits.min), float(limits.max)
    return np.nan, np.nan


def fits_float32(encoder: SampleEncoder) -> bool:
    """Whether float32 tells the values of every column apart, as it does not with long identifiers or time stamps."""
    magnitude, resolution = _magnitude(encoder), _resolution(encoder)
    whole = np.isfinite(whole_ranges(encoder.container, len(encoder.varying))[:, 0])
    resolution = np.where(whole, np.maximum(resolution, 1.0), resolution)
    resolution[encoder.container.tolerance(len(resolution)) > 0] = np.inf  # the data were no finer themselves
    return bool((magnitude <= _EXACT * resolution).all())


def _magnitude(encoder: SampleEncoder) -> Array:
    """Size of the numbers of each column."""
    transform: Any = encoder.transform
    if not encoder.is_table or isinstance(transform, Identity):
        return np.abs(encoder.limits).max(axis=0)
    size, numbers = np.abs(encoder.constants), encoder.varying & ~encoder.is_category
    if not numbers.any():
        return size
    if isinstance(transform, QuantileNormal):
        largest = np.maximum.reduceat(np.abs(transform.values_), transform.bounds_[:-1])
    else:
        largest = np.abs(transform.centre_) + 4 * transform.scale_
        largest = np.expm1(largest) if isinstance(transform, Log1pStandardize) else largest
    size[numbers] = largest[first_parts(encoder.columns, int(numbers.sum()))]
    if encoder.rules:
        split = encoder.rules.is_split
        size[split] = np.abs(encoder.limits[:, split]).max(axis=0)
    return size


def _resolution(encoder: SampleEncoder) -> Array:
    """Differences that matter in each column; infinite where any relative accuracy will do."""
    transform: Any = encoder.transform
    resolution = np.where(encoder.constants == np.round(encoder.constants), 1.0, np.inf)  # of the constant columns
    numbers = np.ones_like(encoder.varying)
    if encoder.is_table:
        resolution[encoder.is_category] = 1.0
        numbers = encoder.varying & ~encoder.is_category
    if isinstance(transform, (Identity, Log1pStandardize)):
        resolution[numbers] = np.inf
    elif numbers.any():
        fine = _FINE * transform.scale_
        if isinstance(transform, QuantileNormal):
            fine = np.where(transform.decimals_ >= 0, 10.0 ** -np.maximum(transform.decimals_, 0), fine)
        resolution[numbers] = fine[first_parts(encoder.columns, int(numbers.sum()))] if encoder.is_table else fine
    for j, rule in enumerate(encoder.rules.rules if encoder.rules else ()):
        if rule is not None:
            resolution[j] = min(resolution[j], rule.resolution)
    return resolution
