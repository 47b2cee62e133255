"""Categories as points in space with noise around them, and back to the nearest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.storable import fields_to_store, require, storable
from flowmatch.preprocessing.scaling import Array, ColumnTransform, observed_columns

NOISE = 0.3
"""Standard deviation of the noise around a category's point; points are at least 2 apart."""

MOST_ONE_HOT = 64
"""Columns with more categories are coded by binary digits."""


@storable
@dataclass(frozen=True)
class CategoryCodes(ColumnTransform):
    """Positions of categories to points, and back.

    Two categories are the points -1 and 1 of a line. Up to 64 have an axis each, with 1 on their own and -1 on the
    others, so that no two are nearer to each other than any other two. More share axes: the binary digits of their
    positions ("analog bits"; Chen et al., 2022, "Analog Bits", section 2). In training normal noise of standard
    deviation 0.3 surrounds each point, so that the flow ends in clouds, not in points, which it could not reach. A
    generated code becomes the nearest point of a category that occurs in the data.

    Clouds hardly overlap, so the density of codes at a category's point over that of the noise there is the category's
    probability: that is what `log_slope` makes of a density. It takes the clouds that the flow has learned for those
    of training; where they are more peaked the probability comes out too large.

    Parameters
    ----------
    n_levels : tuple of int
        Categories of each column.
    """

    n_levels: tuple[int, ...] = ()
    shares_: Array = field(init=False, repr=False, compare=False)

    def check(self) -> None:
        """Raise a ValueError if the fields of stored codes do not fit each other."""
        require(all(n > 1 for n in self.n_levels), "categories")
        if "shares_" in fields_to_store(self):
            require(self.shares_.shape == (sum(self.n_levels),) and (self.shares_ >= 0).all(), "categories")

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        weight = np.full(len(X), 1.0 / len(X)) if weight is None else weight
        shares = [
            np.bincount(column.astype(np.intp), weights=share, minlength=n)
            for n, (column, share) in zip(self.n_levels, observed_columns(X, weight), strict=True)
        ]
        return self.set_state({"shares_": np.concatenate(shares)})

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in the code of each column."""
        return tuple(points_of(n).shape[1] for n in self.n_levels)

    def transform(self, X: Array) -> Array:
        """Points (n, sum of widths) of positions (n, k)."""
        parts = [_looked_up(points_of(n), column) for n, column in zip(self.n_levels, X.T, strict=True)]
        return np.concatenate(parts, axis=1)

    def inverse_transform(self, Z: Array) -> Array:
        """Positions (n, k) of the nearest points to codes (n, sum of widths)."""
        X = np.empty((len(Z), len(self.n_levels)))
        for j, codes, shares in self._columns(Z):
            points = points_of(self.n_levels[j])
            nearness = codes @ points.T - 0.5 * (points**2).sum(axis=1)
            nearness[:, shares == 0] = -np.inf
            X[:, j] = np.where(np.isnan(codes).any(axis=1), np.nan, nearness.argmax(axis=1))
        return X

    def log_slope(self, X: Array) -> Array:
        """What turns the log-density of codes into the log-probability of categories, (n, k)."""
        constant = np.array(self.widths) * 0.5 * math.log(2 * math.pi * NOISE**2)
        return np.broadcast_to(constant, X.shape)

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(low.shape, generator=generator, device=low.device, dtype=low.dtype)
        return torch.add(low, noise, alpha=NOISE)

    def _columns(self, Z: Array) -> Iterator[tuple[int, Array, Array]]:
        """Codes and shares of each column."""
        ends, borders = np.cumsum(self.widths), np.cumsum(self.n_levels)
        for j, (width, n) in enumerate(zip(self.widths, self.n_levels, strict=True)):
            yield j, Z[:, ends[j] - width : ends[j]], self.shares_[borders[j] - n : borders[j]]


@dataclass(frozen=True)
class MixedColumns(ColumnTransform):
    """The map of a table's numbers and that of its categories as one; both are fitted already.

    Codes stand in the order of the columns.

    Parameters
    ----------
    numbers : ColumnTransform
    categories : CategoryCodes
    is_category : ndarray of bool, shape (k,)
    """

    numbers: ColumnTransform
    categories: CategoryCodes
    is_category: NDArray[np.bool_]

    @property
    def columns_of_codes(self) -> NDArray[np.intp]:
        """The column that each code belongs to."""
        widths = np.ones(len(self.is_category), dtype=np.intp)
        widths[self.is_category] = self.categories.widths
        return np.repeat(np.arange(len(widths)), widths)

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        raise TypeError("the parts of MixedColumns are fitted on their own.")

    def transform(self, X: Array) -> Array:
        Z = np.empty((len(X), len(self.columns_of_codes)))
        for columns, codes, transform in self._parts():
            Z[:, codes] = transform.transform(X[:, columns])
        return Z

    def inverse_transform(self, Z: Array) -> Array:
        return self._undo("inverse_transform", Z)

    def restore(self, Z: Array) -> Array:
        return self._undo("restore", Z)

    def log_slope(self, X: Array) -> Array:
        slopes = np.empty_like(X)
        for columns, _, transform in self._parts():
            slopes[:, columns] = transform.log_slope(X[:, columns])
        return slopes

    def training_bounds(self, X: Array) -> tuple[Array, Array | None]:
        low = np.empty((len(X), len(self.columns_of_codes)))
        high = np.empty_like(low)
        for columns, codes, transform in self._parts():
            bottom, top = transform.training_bounds(X[:, columns])
            low[:, codes], high[:, codes] = bottom, bottom if top is None else top
        return low, high

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        assert high is not None
        drawn = torch.empty_like(low)
        for _, codes, transform in self._parts():
            chosen = torch.as_tensor(codes, device=low.device)
            drawn[:, chosen] = transform.draw_codes(low[:, chosen], high[:, chosen], generator)
        return drawn

    def _parts(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], ColumnTransform]]:
        """Columns, codes and map of the numbers, if there are any, and of the categories."""
        of_category = self.is_category[self.columns_of_codes]
        if not self.is_category.all():
            yield np.flatnonzero(~self.is_category), np.flatnonzero(~of_category), self.numbers
        yield np.flatnonzero(self.is_category), np.flatnonzero(of_category), self.categories

    def _undo(self, method: str, Z: Array) -> Array:
        X = np.empty((len(Z), len(self.is_category)))
        for columns, codes, transform in self._parts():
            X[:, columns] = getattr(transform, method)(Z[:, codes])
        return X


def points_of(n_levels: int) -> Array:
    """The points (n_levels, width) of a column's categories."""
    if n_levels == 2:
        return np.array([[-1.0], [1.0]])
    if n_levels <= MOST_ONE_HOT:
        return 2.0 * np.eye(n_levels) - 1.0
    digits = np.arange(n_levels)[:, None] >> np.arange(math.ceil(math.log2(n_levels)))
    return np.where(digits & 1, 1.0, -1.0)


def _looked_up(points: Array, positions: Array) -> Array:
    """Points at positions, NaN at NaN."""
    missing = np.isnan(positions)
    return np.where(missing[:, None], np.nan, points[np.where(missing, 0, positions).astype(np.intp)])
