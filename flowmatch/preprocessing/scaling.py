"""Invertible maps of numeric columns to the scale that a flow works on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from flowmatch.core.component import Component
from flowmatch.core.storable import fields_to_store, require, storable
from flowmatch.core.types import AnyArray, Array, Index, Mask


class ColumnTransform(Component):
    """An increasing map of each column, fitted to data.

    Arrays are (n, k) in float64; for grids a row is one grid point and a column one channel. Missing entries (NaN) stay
    NaN in all methods. What fitting adds are fields with ``init=False``, whose names end in an underscore; a subclass
    that is to be saved declares them and is registered with `flowmatch.core.storable.storable`.
    """

    @abstractmethod
    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        """Learn the map.

        Parameters
        ----------
        X : ndarray of shape (n, k)
            Data; missing entries are left out.
        weight : ndarray of shape (n,) or None, default=None
            Weights of the rows, with mean 1.
        tolerance : float or ndarray of shape (k,), default=0.0
            Relative rounding error of each column.

        Returns
        -------
        ColumnTransform
            The transform itself.
        """

    @abstractmethod
    def transform(self, X: Array) -> Array:
        """Map data to the latent scale, deterministically.

        Parameters
        ----------
        X : ndarray of shape (n, k)
            Data.

        Returns
        -------
        ndarray of shape (n, k)
            Codes.
        """

    @abstractmethod
    def inverse_transform(self, Z: Array) -> Array:
        """Undo `transform` exactly.

        Parameters
        ----------
        Z : ndarray of shape (n, k)
            Codes.

        Returns
        -------
        ndarray of shape (n, k)
            Data.
        """

    @abstractmethod
    def log_slope(self, X: Array) -> Array:
        """Compute log dz/dx of every entry; their sum over a row is the log-Jacobian.

        Parameters
        ----------
        X : ndarray of shape (n, k)
            Data.

        Returns
        -------
        ndarray of shape (n, k)
            Logarithms of the slopes.
        """

    def restore(self, Z: Array) -> Array:
        """Map generated codes to the values that the data can take; by default as `inverse_transform` does.

        Parameters
        ----------
        Z : ndarray of shape (n, k)
            Codes.

        Returns
        -------
        ndarray of shape (n, k)
            Data.
        """
        return self.inverse_transform(Z)

    def code_counts(self, n_columns: int) -> Index:
        """Count the codes of each column.

        Parameters
        ----------
        n_columns : int
            Number of columns.

        Returns
        -------
        ndarray of int, shape (n_columns,)
            One by default.
        """
        return np.ones(n_columns, dtype=np.intp)

    def restores_seen(self, n_columns: int) -> Mask:
        """Say of which columns `restore` gives values of training only.

        Parameters
        ----------
        n_columns : int
            Number of columns.

        Returns
        -------
        ndarray of bool, shape (n_columns,)
            None of them by default.
        """
        return np.zeros(n_columns, dtype=bool)

    def training_bounds(self, X: Array) -> tuple[Array, Array | None]:
        """Find what training draws from: codes, or bounds of an interval of equally good codes.

        Parameters
        ----------
        X : ndarray of shape (n, k)
            Data.

        Returns
        -------
        low : ndarray of shape (n, k)
            Codes, or lower bounds.
        high : ndarray of shape (n, k) or None
            Upper bounds; None where codes are fixed.
        """
        return self.transform(X), None

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Draw codes of a batch, one from each interval.

        Parameters
        ----------
        low, high : Tensor of shape (B, k)
            What `training_bounds` gave.
        generator : torch.Generator or None
            Where random numbers come from; None for the global generator.

        Returns
        -------
        Tensor of shape (B, k)
            Codes.
        """
        return low

    def _set_fitted(self, **fitted: AnyArray) -> Self:
        """Set what fitting adds."""
        for name, value in fitted.items():
            object.__setattr__(self, name, value)
        return self


@storable
@dataclass(frozen=True)
class Identity(ColumnTransform):
    """Leave the data as they are: for data that are already standardized, or with ``source="matched"``."""

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        return self

    def transform(self, X: Array) -> Array:
        return X

    def inverse_transform(self, Z: Array) -> Array:
        return Z

    def log_slope(self, X: Array) -> Array:
        return np.zeros_like(X)


@dataclass(frozen=True)
class AffineTransform(ColumnTransform):
    """``z = (x - center) / scale``; subclasses choose center and scale."""

    centre_: Array = field(init=False, repr=False, compare=False)
    scale_: Array = field(init=False, repr=False, compare=False)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored transform do not fit each other."""
        if fields_to_store(self):
            require(self.centre_.ndim == 1 and self.centre_.shape == self.scale_.shape, "scale_")
            require(np.isfinite(self.centre_).all() and (self.scale_ > 0).all(), "scale_")

    def transform(self, X: Array) -> Array:
        return (X - self.centre_) / self.scale_

    def inverse_transform(self, Z: Array) -> Array:
        return Z * self.scale_ + self.centre_

    def log_slope(self, X: Array) -> Array:
        return np.broadcast_to(-np.log(self.scale_), X.shape)


@storable
@dataclass(frozen=True)
class Standardize(AffineTransform):
    """Zero mean and unit variance, column by column; constant columns are only centered."""

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        share = row_shares(len(X), weight)
        if not np.isnan(X).any():  # grids have millions of rows
            mean = share @ X
            scale = np.where(np.ptp(X, axis=0) > 0, np.sqrt(share @ (X - mean) ** 2), 0.0)
        else:
            columns = list(observed_columns(X, share))
            mean = np.array([part @ column for column, part in columns])
            scale = np.array([deviation(column, part) for column, part in columns])
        return self._set_fitted(centre_=mean, scale_=np.where(scale > 0, scale, 1.0))


@storable
@dataclass(frozen=True)
class MinMax(AffineTransform):
    """The observed range of each column to [-1, 1]; generated values are clipped to that range."""

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        low, high = np.fmin.reduce(X), np.fmax.reduce(X)
        return self._set_fitted(centre_=0.5 * (low + high), scale_=np.where(high > low, 0.5 * (high - low), 1.0))

    def restore(self, Z: Array) -> Array:
        return self.inverse_transform(np.clip(Z, -1.0, 1.0))


@storable
@dataclass(frozen=True)
class Log1pStandardize(AffineTransform):
    """``log(1 + x)``, then zero mean and unit variance: for counts such as gene expression.

    Generated values are clipped at 0. Data must be non-negative.
    """

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        lowest = np.fmin.reduce(X)
        if lowest.min() < 0:
            column = int(np.argmin(lowest))
            raise ValueError(
                f"preprocessing='log1p' needs data >= 0, but column {column} of X holds {lowest[column]:g}. "
                "Use 'standardize' or 'quantile'."
            )
        fitted = Standardize().fit(np.log1p(X), weight)
        return self._set_fitted(centre_=fitted.centre_, scale_=fitted.scale_)

    def transform(self, X: Array) -> Array:
        if np.fmin.reduce(X, axis=None, initial=0.0) < 0:
            raise ValueError(f"preprocessing='log1p' needs data >= 0, but X holds {np.nanmin(X):g}.")
        return super().transform(np.log1p(X))

    def inverse_transform(self, Z: Array) -> Array:
        return np.expm1(super().inverse_transform(Z))

    def log_slope(self, X: Array) -> Array:
        return super().log_slope(X) - np.log1p(X)

    def restore(self, Z: Array) -> Array:
        return np.maximum(self.inverse_transform(Z), 0.0)


def row_shares(n_rows: int, weight: Array | None) -> Array:
    """Weights of the rows with sum 1, (n_rows,)."""
    return np.full(n_rows, 1 / n_rows) if weight is None else weight / weight.sum()


def observed_columns(X: Array, weight: Array) -> Iterator[tuple[Array, Array]]:
    """Each column's values without the missing ones, and their weights with sum 1."""
    for column in X.T:
        seen = ~np.isnan(column)
        if seen.all():
            yield column, weight / weight.sum()
        else:
            share = weight[seen]
            yield column[seen], share / share.sum() if share.sum() > 0 else np.full(seen.sum(), 1 / seen.sum())


def deviation(column: Array, share: Array) -> float:
    """Standard deviation of a column, 0 for equal values."""
    return float(np.sqrt(share @ (column - share @ column) ** 2)) if np.ptp(column) > 0 else 0.0
