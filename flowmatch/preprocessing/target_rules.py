"""What the values of forecast columns keep to, whatever was learned of them: their grid, and bounds that hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Mask
from flowmatch.preprocessing.quantile import SPIKE_SHARE
from flowmatch.rules.numbers import NumberRule, find_number_rule

_PILED, _PILED_SHARE = 5, 0.01
"""An extreme is a bound if so many rows, and this share of all, have it."""

_EXPECTED_BEYOND = 5.0
"""Zero is a bound if of so many values that a normal distribution would put below it there is none."""

_ROUNDING = 1e-3
"""Values of a grid are as near to it, in standard deviations."""

_EXCEPTIONS = 0.001
"""Share of rows without the spike among those where it is called certain."""


@storable
@dataclass(frozen=True, eq=False)
class TargetRules:
    """Grids and bounds of forecast columns.

    Parameters
    ----------
    grids : tuple of NumberRule or None
        Steps, decimals or endings of each column.
    bounds : ndarray of shape (2, n_targets)
        Smallest and largest value; infinite where there is no bound.
    """

    grids: tuple[NumberRule | None, ...]
    bounds: Array

    @classmethod
    def find(cls, values: Array, tolerance: float) -> TargetRules:
        """Find what columns keep to.

        Parameters
        ----------
        values : ndarray of shape (n, n_targets)
            Training values; missing ones are left out.
        tolerance : float
            Their relative rounding error.

        Returns
        -------
        TargetRules
            Of all columns.
        """
        columns = [column[~np.isnan(column)] for column in values.T]
        found = [_find_grid(column, tolerance) for column in columns]
        # forecasts may leave the training range, but for bounds
        free = (rule and replace(rule, limits=np.array([-np.inf, np.inf])) for rule in found)
        return cls(tuple(free), np.array([find_bounds(column) for column in columns]).T.reshape(2, -1))

    def check(self) -> None:
        """Raise a ValueError if the fields of stored rules do not fit each other."""
        require(self.bounds.shape == (2, len(self.grids)) and (self.bounds[0] <= self.bounds[1]).all(), "target rules")

    def of(self, columns: Mask) -> TargetRules:
        """Leave out the rules of other columns.

        Parameters
        ----------
        columns : ndarray of bool, shape (n_targets,)
            Those whose rules are kept.

        Returns
        -------
        TargetRules
            The others keep to nothing.
        """
        grids = tuple(grid if kept else None for grid, kept in zip(self.grids, columns, strict=True))
        return TargetRules(grids, np.where(columns, self.bounds, np.array([[-np.inf], [np.inf]])))

    def snap(self, values: Array) -> Array:
        """Move values to near ones that keep the rules.

        Parameters
        ----------
        values : ndarray of shape (..., n_targets)
            Forecasts.

        Returns
        -------
        ndarray of shape (..., n_targets)
            On the grids, and within the bounds.
        """
        moved = np.clip(values, *self.bounds)
        for j, grid in enumerate(self.grids):
            if grid is not None:
                moved[..., j] = np.clip(grid.snap(moved[..., j].ravel()).reshape(moved.shape[:-1]), *self.bounds[:, j])
        return moved


def _find_grid(column: Array, tolerance: float) -> NumberRule | None:
    """The rule of a column, unless it is one only by the rounding of values much larger than their differences."""
    rule = find_number_rule(column, tolerance)
    if rule is None or np.quantile(np.abs(rule.nearest(column) - column), 0.9) > _ROUNDING * column.std():
        return None
    return rule


def find_bounds(column: Array) -> tuple[float, float]:
    """Find the bounds that a column's values show.

    An extreme is a bound where more rows have it than the next value: values have piled up there, such as at the
    capacity of a plant. Zero is one where no value is negative though several of a normal distribution would be, or
    where zeros are among whole numbers that are no less than 0. Of two values both are bounds.

    Parameters
    ----------
    column : ndarray of shape (n,)
        Training values.

    Returns
    -------
    low, high : float
        Infinite where there is no bound.
    """
    values, counts = np.unique(column, return_counts=True)
    if len(values) <= 2:
        return float(values[0]), float(values[-1])
    least = max(_PILED, _PILED_SHARE * len(column))
    low, high = (
        float(values[end]) if counts[end] >= max(least, 2 * counts[beside]) else side
        for end, beside, side in ((0, 1, -np.inf), (-1, -2, np.inf))
    )
    if values[0] >= 0 and low < 0:
        whole = values[0] == 0 and bool((values == np.round(values)).all())
        if whole or len(column) * ndtr(-column.mean() / column.std()) >= _EXPECTED_BEYOND:
            low = 0.0
    return low, high


@storable
@dataclass(frozen=True, eq=False)
class CertainSpikes:
    """Frequent values of forecast columns, and a linear rule for contexts that allow nothing else, such as nights.

    Parameters
    ----------
    values : ndarray of shape (n_targets,)
        The value that most rows share; NaN where none has its share.
    weights, intercept : ndarray of shape (m, q) and (q,)
        From a context to the share of rows, at each of the ``q = horizon * n_targets`` elements, that have it.
    threshold : ndarray of shape (n_targets,)
        From this share on it is certain; infinite where it never is.
    """

    values: Array
    weights: Array
    intercept: Array
    threshold: Array

    def check(self) -> None:
        """Raise a ValueError if the fields of stored spikes do not fit each other."""
        n_targets, q = len(self.values), len(self.intercept)
        require(self.threshold.shape == (n_targets,) and n_targets > 0 and q % n_targets == 0, "spikes")
        require(self.weights.ndim == 2 and self.weights.shape[1] == q, "spikes")
        require(np.isfinite(self.weights).all() and np.isfinite(self.intercept).all(), "spikes")
        require(np.isfinite(self.values[np.isfinite(self.threshold)]).all(), "spikes")

    def put(self, forecasts: Array, contexts: Array) -> Array:
        """Put the spikes where they are certain.

        Parameters
        ----------
        forecasts : ndarray of shape (B, horizon, n_targets)
            In the data's units.
        contexts : ndarray of shape (B, m)
            What they are for.

        Returns
        -------
        ndarray of shape (B, horizon, n_targets)
            Forecasts with the spikes.
        """
        shares = (contexts[:, : len(self.weights)] @ self.weights + self.intercept).reshape(forecasts.shape)
        return np.where(shares >= self.threshold, self.values, forecasts)


def spikes_of(values: Array) -> Array:
    """Find the most frequent value of each column, if many rows share it.

    Parameters
    ----------
    values : ndarray of shape (n, n_targets)
        Training values; missing ones are left out.

    Returns
    -------
    ndarray of shape (n_targets,)
        NaN where there is none, and where there is no other.
    """
    found = np.full(values.shape[1], np.nan)
    for j, column in enumerate(values.T):
        distinct, counts = np.unique(column[~np.isnan(column)], return_counts=True)
        if len(distinct) > 1 and counts.max() >= SPIKE_SHARE * counts.sum():
            found[j] = distinct[counts.argmax()]
    return found


def certain_from(shares: Array, spiked: Mask, least: float) -> float:
    """Find the predicted share from which on rows have a spike without exception.

    Parameters
    ----------
    shares : ndarray of shape (n,)
        Predictions for rows that they have not seen.
    spiked : ndarray of bool, shape (n,)
        Which rows have the spike.
    least : float
        So many exceptions there would have to be among those rows by chance, at least.

    Returns
    -------
    float
        Infinite if there is no such share.
    """
    order = np.argsort(-shares, kind="stable")
    rows = np.arange(1, len(order) + 1)
    exceptions = np.cumsum(~spiked[order])
    fits = (exceptions <= _EXCEPTIONS * rows) & (rows * (1 - spiked.mean()) >= least)
    fits[:-1] &= shares[order][:-1] > shares[order][1:]  # rows of one share stand or fall together
    return float(shares[order][np.flatnonzero(fits)[-1]]) if fits.any() else np.inf
