"""Which columns of series each window scales by its own lags, and how."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flowmatch.preprocessing import Windows, WindowScale, mean_of_seen, sizes_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

UNLIKE = 10.0
"""Series are unlike if the standard deviation of all is so many times that of one of them."""

DRIFTED = 0.8
"""A column drifts if its last fifth lies so many standard deviations of the earlier values away from their mean."""

_FEW = 20
_SMALL = 0.05
_ALIKE = 0.9


def unlike_columns(windows: Windows) -> tuple[Mask, Mask]:
    """Which columns of states differ much between series, and which drift, by the states that windows forecast."""
    values, groups = windows.states_ahead(np.arange(len(windows)))[:, 0], windows.groups
    nowhere = np.zeros(values.shape[1], dtype=bool)
    first = np.flatnonzero(np.r_[True, np.diff(groups) != 0])
    counts = np.diff(np.r_[first, len(groups)])
    if len(values) < _FEW or counts.max() < _FEW // 2:  # pairs among them
        return nowhere, nowhere
    means, n_seen = _by_series(values, first)
    deviations = np.sqrt(_by_series(np.square(values - np.repeat(means, counts, axis=0)), first)[0])
    least = np.where((deviations > 0) & (n_seen >= _FEW // 2), deviations, np.inf).min(axis=0)
    age = (np.arange(len(groups)) - np.repeat(first, counts)) / np.repeat(counts, counts)
    late, early = values[age >= 0.8], values[age < 0.8]
    drift = np.abs(mean_of_seen(late, 0) - mean_of_seen(early, 0)) > DRIFTED * _spread_of(early)
    return np.asarray(_spread_of(values) > UNLIKE * least), np.asarray(drift & (least < np.inf))


def fit_scale(windows: Windows, lags: Array, columns: Mask, drifting: Mask) -> WindowScale:
    """The scale of columns by window; of those that drift networks are not told the level, which they will leave.

    `lags` are those of all windows, with something in the place of missing values.
    """
    ahead = windows.states_ahead(np.arange(len(windows)))
    nonnegative = (lags.min(axis=(0, 1)) == 0) & (np.nanmin(ahead, axis=(0, 1)) >= 0)
    centered = ~nonnegative
    level = np.where(centered, np.median(lags, axis=1), 0.0)
    size = mean_of_seen(np.abs(np.concatenate([lags, ahead], axis=1) - level[:, None]), 1)  # of what is told apart
    deviation = np.where(centered, mean_of_seen(np.abs(ahead - level[:, None]), 1), size)
    floor = np.array([_small(column) for column in size.T])
    expected = np.array(list(map(_expected, level.T, deviation.T, floor))).T
    spread = np.sqrt(mean_of_seen(np.square(ahead - level[:, None]), (0, 1)))
    n_columns = len(floor)
    scale = WindowScale(
        columns,
        centered,
        np.ones(n_columns, dtype=bool),
        np.where(spread > 0, spread, 1.0),
        floor,
        expected,
        np.ones((4, 2, n_columns)),
    )
    own = scale.of(lags, np.zeros(n_columns), np.ones(n_columns))
    scale = replace(scale, own_spread=nonnegative | _more_alike(deviation, own[1]))
    told = sizes_of(*scale.of(lags, np.zeros(n_columns), np.ones(n_columns)))
    mean, std = told.mean(axis=0), told.std(axis=0)
    low, high = told.min(axis=0), told.max(axis=0)
    low[1], high[1] = np.where(drifting, mean[1], low[1]), np.where(drifting, mean[1], high[1])
    return replace(scale, features=np.stack([mean, np.where(std > 1e-9, std, 1.0), low, high]))


def _small(sizes: Array) -> float:
    """A small one of the sizes that are not 0."""
    present = sizes[sizes > 0]
    return float(np.quantile(present, _SMALL)) if len(present) else 1.0


def _expected(level: Array, deviation: Array, floor: float) -> tuple[float, float]:
    """Logarithm a and slope b, between 0 and 1, of the deviation that a level lets expect."""
    seen = deviation > 0
    if not seen.any():
        return 0.0, 0.0
    x, y = np.log(np.abs(level[seen]) + floor), np.log(deviation[seen])
    variance = x.var()
    slope = float(np.clip(((x - x.mean()) * (y - y.mean())).mean() / variance, 0, 1)) if variance > 0 else 0.0
    return float(y.mean() - slope * x.mean()), slope


def _more_alike(deviation: Array, spread: Array) -> Mask:
    """Where deviations are clearly more alike, by the variance of their logarithms, once divided by a spread."""
    found = []
    for size, divisor in zip(deviation.T, spread.T, strict=True):
        seen = size > 0
        found.append(seen.any() and np.log(size[seen] / divisor[seen]).var() < _ALIKE * np.log(size[seen]).var())
    return np.array(found, dtype=bool)


def errors_by_series(left: Array, groups: NDArray[np.intp], n_targets: int) -> Array:
    """Root mean square (n_series, n_targets) of errors (n, horizon * n_targets)."""
    squares = mean_of_seen(np.square(left).reshape(len(left), -1, n_targets), 1)
    return np.sqrt(_by_series(squares, np.flatnonzero(np.r_[True, np.diff(groups) != 0]))[0])


def _by_series(values: Array, first: NDArray[np.intp]) -> tuple[Array, NDArray[np.intp]]:
    """Means (n_series, k) of what is there of values (n, k), 0 where nothing is, and how many these are."""
    seen = ~np.isnan(values)
    n_seen = np.add.reduceat(seen.astype(np.intp), first)
    return np.add.reduceat(np.where(seen, values, 0.0), first) / np.maximum(n_seen, 1), n_seen


def _spread_of(values: Array) -> Array:
    """Standard deviations (k,) of what is there of values (n, k)."""
    return np.sqrt(mean_of_seen(np.square(values - mean_of_seen(values, 0)), 0))
