"""Categories as points in space with noise around them, and back to the nearest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from flowmatch.core.storable import fields_to_store, require, storable
from flowmatch.core.types import Array, Index, Mask
from flowmatch.preprocessing.scaling import ColumnTransform, observed_columns

NOISE = 0.3
"""Standard deviation of the noise around a category's point; points are at least 2 apart."""

MOST_ONE_HOT = 64
"""Columns with more categories are coded by binary digits."""


@storable
@dataclass(frozen=True)
class CategoryCodes(ColumnTransform):
    """Map positions of categories to points, and back.

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

    Attributes
    ----------
    shares_ : ndarray of shape (sum of n_levels,)
        How often each category occurs in training, one column after the other.
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
        return self._set_fitted(shares_=np.concatenate(shares))

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of elements in the code of each column."""
        return tuple(points_of(n).shape[1] for n in self.n_levels)

    def code_counts(self, n_columns: int) -> Index:
        return np.array(self.widths)

    @property
    def column_shares(self) -> list[Array]:
        """How often each category of each column occurs in training."""
        return np.split(self.shares_, np.cumsum(self.n_levels)[:-1])

    def transform(self, X: Array) -> Array:
        parts = [points_at(n, column) for n, column in zip(self.n_levels, X.T, strict=True)]
        return np.concatenate(parts, axis=1)

    def inverse_transform(self, Z: Array) -> Array:
        X = np.empty((len(Z), len(self.n_levels)))
        codes = np.split(Z, np.cumsum(self.widths)[:-1], axis=1)
        for j, (n, part, shares) in enumerate(zip(self.n_levels, codes, self.column_shares, strict=True)):
            points = points_of(n)
            nearness = part @ points.T - 0.5 * (points**2).sum(axis=1)
            nearness[:, shares == 0] = -np.inf
            X[:, j] = np.where(np.isnan(part).any(axis=1), np.nan, nearness.argmax(axis=1))
        return X

    def log_slope(self, X: Array) -> Array:
        """Compute what turns the log-density of codes into the log-probability of categories.

        Parameters
        ----------
        X : ndarray of shape (n, k)
            Positions.

        Returns
        -------
        ndarray of shape (n, k)
            To be added to log-densities.
        """
        constant = np.array(self.widths) * 0.5 * math.log(2 * math.pi * NOISE**2)
        return np.broadcast_to(constant, X.shape)

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(low.shape, generator=generator, device=low.device, dtype=low.dtype)
        return torch.add(low, noise, alpha=NOISE)


@dataclass(frozen=True)
class MixedColumns(ColumnTransform):
    """The map of a table's numbers and that of its categories as one; both are fitted already.

    Codes stand in the order of the columns.

    Parameters
    ----------
    numbers : ColumnTransform
        The map of the numbers.
    categories : CategoryCodes
        The map of the categories.
    is_category : ndarray of bool, shape (k,)
        Which columns are categories; at least one is.
    """

    numbers: ColumnTransform
    categories: CategoryCodes
    is_category: Mask

    def code_counts(self, n_columns: int) -> Index:
        counts = np.empty(n_columns, dtype=np.intp)
        counts[self.is_category] = self.categories.widths
        counts[~self.is_category] = self.numbers.code_counts(int((~self.is_category).sum()))
        return counts

    @property
    def columns_of_codes(self) -> Index:
        """The column that each code belongs to."""
        n_columns = len(self.is_category)
        return np.repeat(np.arange(n_columns), self.code_counts(n_columns))

    @property
    def _in_category(self) -> Mask:
        """Which codes are those of categories."""
        return self.is_category[self.columns_of_codes]

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        raise TypeError("the parts of MixedColumns are fitted on their own.")

    def transform(self, X: Array) -> Array:
        return self._both("transform", X, self.is_category, self._in_category)

    def inverse_transform(self, Z: Array) -> Array:
        return self._both("inverse_transform", Z, self._in_category, self.is_category)

    def restore(self, Z: Array) -> Array:
        return self._both("restore", Z, self._in_category, self.is_category)

    def log_slope(self, X: Array) -> Array:
        return self._both("log_slope", X, self.is_category, self.is_category)

    def training_bounds(self, X: Array) -> tuple[Array, Array | None]:
        coded, numeric = self._in_category, ~self.is_category
        low = np.empty((len(X), len(coded)))
        low[:, coded] = self.categories.transform(X[:, self.is_category])
        high = low.copy()
        if numeric.any():
            bottom, top = self.numbers.training_bounds(X[:, numeric])
            low[:, ~coded], high[:, ~coded] = bottom, bottom if top is None else top
        return low, high

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        assert high is not None
        drawn, coded = torch.empty_like(low), self._in_category
        for which, transform in ((~coded, self.numbers), (coded, self.categories)):
            if which.any():
                chosen = torch.as_tensor(np.flatnonzero(which), device=low.device)
                drawn[:, chosen] = transform.draw_codes(low[:, chosen], high[:, chosen], generator)
        return drawn

    def _both(self, method: str, A: Array, inputs: Mask, outputs: Mask) -> Array:
        """What the two maps make of their parts of `A`; the masks say which of its columns, and which of those that
        come out, are categories'.
        """
        out = np.empty((len(A), len(outputs)))
        if not inputs.all():
            out[:, ~outputs] = getattr(self.numbers, method)(A[:, ~inputs])
        out[:, outputs] = getattr(self.categories, method)(A[:, inputs])
        return out


def first_parts(columns: ColumnTransform, n_numbers: int) -> Index:
    """Where the parts of each of the `n_numbers` columns of numbers begin among all that their map is fitted to."""
    counts = (columns.numbers if isinstance(columns, MixedColumns) else columns).code_counts(n_numbers)
    return np.cumsum(counts) - counts


def points_of(n_levels: int) -> Array:
    """The points (n_levels, width) of a column's categories."""
    if n_levels == 2:
        return np.array([[-1.0], [1.0]])
    if n_levels <= MOST_ONE_HOT:
        return 2.0 * np.eye(n_levels) - 1.0
    digits = np.arange(n_levels)[:, None] >> np.arange(math.ceil(math.log2(n_levels)))
    return np.where(digits & 1, 1.0, -1.0)


def points_at(n_levels: int, positions: Array) -> Array:
    """The points (n, width) of categories at positions (n,), NaN at NaN."""
    missing = np.isnan(positions)
    return np.where(missing[:, None], np.nan, points_of(n_levels)[np.where(missing, 0, positions).astype(np.intp)])
