"""Level and spread of each window's own lags: the scale of columns whose series differ, or that drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Mask
from flowmatch.tables.rows import SampleRows

LEAST_SPREAD = 0.01
"""The deviation of lags counts as this share of what their level lets expect, at least: constant lags have a spread."""


@storable
@dataclass(frozen=True, eq=False)
class WindowScale:
    """How windows scale some columns by their own lags.

    A column is centered at the median of its lags, and divided by their mean absolute deviation. Since few lags
    tell little of their spread, that is drawn towards what the level lets expect, ``exp(a + b log(|level| + floor))``:
    their geometric mean, with the weight (n_lags - 1) / (n_lags + 1) for the lags. A column of nonnegative values with
    zeros among them is divided by the mean of its lags plus `floor` alone, so that zeros stay zeros.

    Parameters
    ----------
    columns : ndarray of bool, shape (n_columns,)
        Those that are scaled by window.
    centered : ndarray of bool, shape (n_columns,)
        Those whose level is subtracted.
    own_spread : ndarray of bool, shape (n_columns,)
        Those whose spread is the window's; others have the `spread` of all.
    spread, floor : ndarray of shape (n_columns,)
        A typical deviation from the level, and a small one.
    expected : ndarray of shape (2, n_columns)
        Logarithms a and slopes b.
    features : ndarray of shape (4, 2, n_columns)
        Mean, scale, smallest and largest value in training of ``log(spread)`` and ``arcsinh(level / spread)``, which
        networks are told.
    """

    columns: Mask
    centered: Mask
    own_spread: Mask
    spread: Array
    floor: Array
    expected: Array
    features: Array

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored scale do not fit each other."""
        shape = self.columns.shape
        require(len(shape) == 1 and self.columns.any(), "window scale")
        require(self.centered.shape == self.own_spread.shape == self.spread.shape == self.floor.shape == shape, "scale")
        require(self.expected.shape == (2, *shape) and self.features.shape == (4, 2, *shape), "window scale")
        require(np.isfinite(self.expected).all() and np.isfinite(self.features).all(), "window scale")
        require((np.stack([self.spread, self.floor, *self.features[1]]) > 0).all(), "window scale")
        require((self.features[2] <= self.features[3]).all(), "window scale")

    @property
    def n_features(self) -> int:
        """How many elements a context has more."""
        return 2 * int(self.columns.sum())

    def of(self, states: Array, mean: Array, scale: Array) -> tuple[Array, Array]:
        """Find level and spread of windows.

        Parameters
        ----------
        states : ndarray of shape (n, n_lags, n_columns)
            Lags, in the data's units.
        mean, scale : ndarray of shape (n_columns,)
            Of the columns that are not scaled by window.

        Returns
        -------
        level, spread : ndarray of shape (n, n_columns)
            What is to be subtracted, and divided by.
        """
        level = np.where(self.centered, np.median(states, axis=1), 0.0)
        deviation = np.abs(states - level[:, None]).mean(axis=1)
        expected = np.exp(self.expected[0] + self.expected[1] * np.log(np.abs(level) + self.floor))
        weight = (states.shape[1] - 1) / (states.shape[1] + 1)
        drawn = np.maximum(deviation, LEAST_SPREAD * expected) ** weight * expected ** (1 - weight)
        own = np.where(self.centered, drawn, deviation + self.floor)
        spread = np.where(self.own_spread, own, self.spread)
        return np.where(self.columns, level, mean), np.where(self.columns, spread, scale)

    def described(self, level: Array, spread: Array) -> Array:
        """Tell level and spread as elements of contexts, never beyond those of training.

        Parameters
        ----------
        level, spread : ndarray of shape (n, n_columns)
            Such as `of` gives them.

        Returns
        -------
        ndarray of shape (n, n_features)
            Standardized.
        """
        mean, scale, low, high = self.features[..., self.columns]
        told = sizes_of(level[:, self.columns], spread[:, self.columns])
        return ((np.clip(told, low, high) - mean) / scale).reshape(len(told), -1)


def sizes_of(level: Array, spread: Array) -> Array:
    """Describe windows by their sizes, whatever the order of magnitude.

    Parameters
    ----------
    level, spread : ndarray of shape (n, k)
        Of windows.

    Returns
    -------
    ndarray of shape (n, 2, k)
        ``log(spread)`` and ``arcsinh(level / spread)``.
    """
    return np.stack([np.log(spread), np.arcsinh(level / spread)], axis=1)


def column_scale(frames: SampleRows, numbers: int) -> tuple[Array, Array]:
    """Estimate mean and standard deviation of every column (channel).

    Parameters
    ----------
    frames : SampleRows
        States.
    numbers : int
        Elements of the random part that is looked at.

    Returns
    -------
    mean : ndarray of shape (n_columns,)
        Means.
    scale : ndarray of shape (n_columns,)
        Standard deviations; 1 for constant columns.
    """
    values = frames.read(frames.subset(numbers))
    axes = (0, *range(2, values.ndim))
    mean, scale = values.mean(axis=axes), values.std(axis=axes)
    varies = (frames.summary.high > frames.summary.low) & (scale > 0)
    return mean, np.where(varies, scale, 1.0)
