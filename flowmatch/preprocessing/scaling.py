"""Invertible maps of numeric columns to the scale that a flow works on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.component import Component
from flowmatch.core.storable import fields_to_store, require, storable

Array = NDArray[np.float64]


class ColumnTransform(Component):
    """An increasing map of each column, fitted to data.

    Arrays are (n, k) in float64; for grids a row is one grid point and a column one channel. Fitted attributes end in
    an underscore and are numpy arrays, which is all that `flowmatch.save` needs to know.
    """

    @abstractmethod
    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        """Learn the map. `weight` (n,) has mean 1; `tolerance` (k,) is the relative rounding error of each column.

        Missing values (NaN) tell nothing; here as in the other methods they stay what they are.
        """

    @abstractmethod
    def transform(self, X: Array) -> Array:
        """Data to latent scale, deterministic."""

    @abstractmethod
    def inverse_transform(self, Z: Array) -> Array:
        """The exact inverse of `transform`."""

    @abstractmethod
    def log_slope(self, X: Array) -> Array:
        """Log dz/dx of every entry, (n, k); their sum over a row is the log-Jacobian."""

    def restore(self, Z: Array) -> Array:
        """Latent to data scale for generated rows, on the values that the data can take."""
        return self.inverse_transform(Z)

    def training_bounds(self, X: Array) -> tuple[Array, Array | None]:
        """What training draws from: codes, or lower and upper bounds of a cell of equally good codes."""
        return self.transform(X), None

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Codes of a batch, one drawn from each cell."""
        return low

    def get_state(self) -> dict[str, Any]:
        """Fitted attributes by name."""
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `get_state`."""
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def _set_fitted(self, **attributes: Array) -> Self:
        self.set_state(attributes)
        return self


@storable
@dataclass(frozen=True)
class Identity(ColumnTransform):
    """Leaves the data as they are. For data that are already standardised, or with ``source="matched"``."""

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
    """``z = (x - centre) / scale``; subclasses choose centre and scale."""

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
    """Zero mean and unit variance, column by column; constant columns are only centred."""

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        share = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
        if not np.isnan(X).any():  # grids have millions of rows
            mean = share @ X
            scale = np.where(np.ptp(X, axis=0) > 0, np.sqrt(share @ (X - mean) ** 2), 0.0)
        else:
            columns = list(observed_columns(X, share))
            mean = np.array([part @ column for column, part in columns])
            spread = [np.sqrt(part @ (column - part @ column) ** 2) for column, part in columns]
            scale = np.where([np.ptp(column) > 0 for column, _ in columns], spread, 0.0)
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


def observed_columns(X: Array, weight: Array) -> Iterator[tuple[Array, Array]]:
    """Each column's values without the missing ones, and their weights with sum 1."""
    for column in X.T:
        seen = ~np.isnan(column)
        if seen.all():
            yield column, weight / weight.sum()
        else:
            share = weight[seen]
            yield column[seen], share / share.sum() if share.sum() > 0 else np.full(seen.sum(), 1 / seen.sum())
