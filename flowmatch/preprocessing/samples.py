"""From the user's rows to the tensors a flow is trained on, and back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowmatch.constraints.sets import ConstraintSet
from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Index, Mask
from flowmatch.preprocessing.categories import CategoryCodes, MixedColumns
from flowmatch.preprocessing.grid_columns import find_levels, from_columns, to_columns
from flowmatch.preprocessing.quantile import QuantileNormal
from flowmatch.preprocessing.scaling import ColumnTransform, Identity, Log1pStandardize, MinMax, Standardize
from flowmatch.preprocessing.split_dates import with_split_dates
from flowmatch.preprocessing.training_codes import StoredCodes, TrainingCodes
from flowmatch.rules.columns import ColumnRules
from flowmatch.rules.numbers import nearest
from flowmatch.tables.containers import Container
from flowmatch.tables.rows import SampleRows
from flowmatch.tables.table import TableContainer

TRANSFORMS: dict[str, type[ColumnTransform]] = {
    "standardize": Standardize,
    "quantile": QuantileNormal,
    "minmax": MinMax,
    "log1p": Log1pStandardize,
    "none": Identity,
}


FITTED_ELEMENTS = 2**22
"""Most elements that the scaling is fitted to."""

ENCODED_AT_ONCE = 2**26
"""Most elements that are encoded before training; larger data are encoded batch by batch."""


def choose_transform(sample_shape: tuple[int, ...]) -> ColumnTransform:
    """Choose a transform, as ``preprocessing="auto"`` does.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of a sample.

    Returns
    -------
    ColumnTransform
        `QuantileNormal` for tables, `Standardize` (per channel) for grids; not fitted.
    """
    return QuantileNormal() if len(sample_shape) == 1 else Standardize()


@storable
@dataclass(frozen=True, eq=False)
class SampleEncoder:
    """Fitted map between the user's samples and a flow's codes.

    Tables lose their constant columns on the way in and get them back exactly; missing entries are NaN among samples
    and codes. Grids are transformed per channel.

    Parameters
    ----------
    container : Container
        What the data came in.
    transform : ColumnTransform
        Fitted to the columns that vary and are numbers.
    varying : ndarray of bool, shape (n_columns,)
        Columns (channels) that vary, or miss some values, and hold no keys. Where none does, the first that has any
        values counts as varying.
    constants : ndarray of shape (n_columns,)
        Values of the columns that do not vary, 0 for the others; NaN where a column holds no value.
    sample_shape : tuple of int
        Shape of a sample.
    levels : tuple of ndarray, default=()
        For each channel of a grid the values it takes in training, if they are few (gray levels, counts): generated
        samples are put on the nearest of them. Empty for continuous channels. Of large data, values that the part
        drawn for the scaling lacks are left out.
    limits : ndarray of shape (2, n_columns)
        Smallest and largest value of each column or channel. Generated grids stay between them; tables leave that to
        their transform.
    categories : CategoryCodes or None, default=None
        Fitted to the columns of a table that vary and are categories.
    is_category : ndarray of bool, shape (n_columns,)
        Which columns of a table are.
    rules : ColumnRules or None, default=None
        What the values of each column of a table keep to; generated ones are put there.
    constraints : ConstraintSet or None, default=None
        What drawn rows are to keep.
    """

    container: Container
    transform: ColumnTransform
    varying: Mask
    constants: Array
    sample_shape: tuple[int, ...]
    levels: tuple[Array, ...] = ()
    limits: Array = field(default_factory=lambda: np.empty((2, 0)))
    categories: CategoryCodes | None = None
    is_category: Mask = field(default_factory=lambda: np.empty(0, dtype=bool))
    rules: ColumnRules | None = None
    constraints: ConstraintSet | None = None

    @classmethod
    def fit(
        cls, X: SampleRows | Array, container: Container, transform: ColumnTransform, weight: Array | None
    ) -> SampleEncoder:
        """Fit a transform and what else a map of samples needs.

        Parameters
        ----------
        X : SampleRows or ndarray of shape (n, *sample_shape)
            Samples. Of more than four million elements, a random part that holds the extremes of every column decides
            the scaling.
        container : Container
            What they came in.
        transform : ColumnTransform
            Is fitted in place.
        weight : ndarray of shape (n,) or None
            Weights of the rows, with mean 1.

        Returns
        -------
        SampleEncoder
            Fitted to the samples.

        Raises
        ------
        ValueError
            For a table whose entries are all missing.
        """
        rows = SampleRows.of(X)
        summary, is_table = rows.summary, len(rows.sample_shape) == 1
        empty, learned = summary.n_missing == len(rows), ~_keys_in(container, len(summary.low))
        if is_table and not (learned & ~empty).any():
            raise ValueError("X holds no value at all (in rows with a weight).")
        varying = ((summary.high > summary.low) | ((summary.n_missing > 0) & ~empty)) & learned
        if not varying.any():
            varying[(learned & ~empty).argmax()] = True
        part = rows.subset(FITTED_ELEMENTS)
        columns = to_columns(rows.read(part))
        weight = None if weight is None else np.repeat(weight[part], len(columns) // len(part))
        tolerance, limits = container.tolerance(columns.shape[1]), np.stack([summary.low, summary.high])
        known = container, transform, varying, np.where(learned & ~varying, columns[0], 0.0), rows.sample_shape
        if not is_table:
            transform.fit(columns, weight, tolerance)
            return cls(*known, tuple(map(find_levels, columns.T)), limits)
        is_category, n_levels = _categories_in(container, varying)
        numeric, coded = varying & ~is_category, varying & is_category
        rules, whole = None, transform
        if isinstance(container, TableContainer):
            rules = ColumnRules.find(columns, container, numeric, tolerance)
            whole = with_split_dates(transform, rules, container, numeric)
        if numeric.any():
            whole.fit(columns[:, numeric], weight, tolerance[numeric])
            numeric[numeric] = whole.restores_seen(int(numeric.sum()))
            rules = rules and rules.without(numeric)
        else:  # no column of numbers; the transform is fitted to zeros
            transform.fit(np.zeros((len(columns), 1)), weight, np.zeros(1))
        categories = CategoryCodes(n_levels).fit(columns[:, coded], weight) if n_levels else None
        return cls(*known, (), limits, categories, is_category, rules)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        require(self.sample_shape and min(self.sample_shape) > 0, "sample_shape")
        n_columns = self.sample_shape[0]
        require(self.limits.shape == (2, n_columns), "limits")
        require(self.varying.shape == self.constants.shape == (n_columns,), "varying and constants")
        require(len(self.container.dtypes) == (n_columns if self.container.has_columns else 1), "dtypes")
        require(len(self.levels) == (0 if self.is_table else n_columns), "levels")
        require(all(levels.ndim == 1 and (np.diff(levels) > 0).all() for levels in self.levels), "levels")
        self._check_categories()
        require(self.rules is None or len(self.rules.rules) == n_columns, "rules")
        rules = self.constraints
        require(rules is None or (self.is_table and rules.limits.shape == (2, n_columns)), "constraints")
        require(len({isinstance(name, str) for name in self.container.columns}) < 2, "columns")  # as of scikit-learn
        codes = np.zeros((1, *self.code_shape))
        rows = self.decode(codes)
        require(self.encode(rows).shape == codes.shape, "state")
        with contextlib.suppress(ImportError):  # what rows came in may not be installed here
            self.container.wrap(rows)

    def _check_categories(self) -> None:
        if not self.is_table:
            require(self.categories is None, "categories")
            return
        what = "table"
        if isinstance(self.container, TableContainer):
            require(len(self.container.kinds) == self.sample_shape[0], what)
            what = "categories"
        is_category, n_levels = _categories_in(self.container, self.varying)
        require(np.array_equal(self.is_category, is_category), what)
        require(not (self.varying & _keys_in(self.container, len(self.varying))).any(), "keys")
        require(n_levels == (() if self.categories is None else self.categories.n_levels), what)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of one sample's codes."""
        return (len(self.code_columns),) if self.is_table else self.sample_shape

    @property
    def described(self) -> dict[Any, str]:
        """What was found about each column of a table, by its name or number; empty for grids."""
        if self.rules is None or not isinstance(self.container, TableContainer):
            return {}
        return self.rules.describe(self.container, self.limits)

    @property
    def empty(self) -> Mask:
        """Columns of a table that held no value in training, (n_columns,): what stands in them is not looked at."""
        return np.isnan(self.constants) & ~self.varying

    def category_shares(self, column: int) -> Array:
        """Look up how often each category of a column occurs in training.

        Parameters
        ----------
        column : int
            Position of the column.

        Returns
        -------
        ndarray of shape (n_levels,)
            Shares with sum 1.
        """
        if self.categories is None or not self.varying[column]:
            assert isinstance(self.container, TableContainer)
            shares = np.zeros(self.container.n_levels(column))
            if not self.empty[column]:
                shares[int(self.constants[column])] = 1.0
            return shares
        number = int((self.is_category & self.varying)[:column].sum())
        return self.categories.column_shares[number]

    def unseen(self, X: Array) -> Mask:
        """Find the categories that do not occur in training.

        Parameters
        ----------
        X : ndarray of shape (n, n_columns)
            Rows of a table; -1 stands for a category that no column knows.

        Returns
        -------
        ndarray of bool, shape (n, n_columns)
            Never true in columns that held no value in training.
        """
        found = np.zeros(X.shape, dtype=bool)
        for j in np.flatnonzero(self.is_category & ~self.empty):
            shares = self.category_shares(int(j))
            positions = np.where(np.isnan(X[:, j]), shares.argmax(), X[:, j]).astype(np.intp)
            found[:, j] = (positions < 0) | (shares[positions] == 0)
        return found

    @property
    def code_columns(self) -> Index:
        """The column of a table that each code belongs to."""
        varying = np.flatnonzero(self.varying)
        return np.repeat(varying, self.columns.code_counts(len(varying)))

    @property
    def is_table(self) -> bool:
        """Whether samples are rows of a table."""
        return len(self.sample_shape) == 1

    @property
    def columns(self) -> ColumnTransform:
        """The map of all columns that vary, or of all channels."""
        numbers = self.transform
        if self.rules:
            assert isinstance(self.container, TableContainer)
            numbers = with_split_dates(numbers, self.rules, self.container, self.varying & ~self.is_category)
        if self.categories is None:
            return numbers
        return MixedColumns(numbers, self.categories, self.is_category[self.varying])

    def encode(self, X: Array) -> Array:
        """Turn samples into codes.

        Parameters
        ----------
        X : ndarray of shape (n, *sample_shape)
            Samples.

        Returns
        -------
        ndarray of shape (n, *code_shape)
            Codes.
        """
        return self._map(self.columns.transform, X)

    def decode(self, Z: Array) -> Array:
        """Undo `encode` exactly, but for categories, which are those of the nearest points.

        Parameters
        ----------
        Z : ndarray of shape (n, *code_shape)
            Codes.

        Returns
        -------
        ndarray of shape (n, *sample_shape)
            Samples.
        """
        return self._unmap(self.columns.inverse_transform, Z)

    def restore(self, Z: Array) -> Array:
        """Turn generated codes into samples, on the values that the data can take.

        Parameters
        ----------
        Z : ndarray of shape (n, *code_shape)
            Codes.

        Returns
        -------
        ndarray of shape (n, *sample_shape)
            Samples.
        """
        X = self._unmap(self.columns.restore, Z)
        if not self.is_table:
            X = np.clip(X, *self.limits.reshape(2, -1, *[1] * (X.ndim - 2)))
        for channel, levels in enumerate(self.levels):
            if len(levels):
                X[:, channel] = nearest(levels, X[:, channel])
        return self.rules.snap(X) if self.rules else X

    def log_jacobian(self, X: Array) -> Array:
        """Compute log |dz/dx| of each sample.

        Parameters
        ----------
        X : ndarray of shape (n, *sample_shape)
            Samples.

        Returns
        -------
        ndarray of shape (n,)
            Minus infinity where a constant column has another value.
        """
        total = self.log_slopes(X).reshape(len(X), -1).sum(axis=1)
        if self.is_table:
            fixed = ~self.varying
            same = (X[:, fixed] == self.constants[fixed]) | np.isnan(X[:, fixed]) | self.empty[fixed]
            total = np.where(same.all(axis=1), total, -np.inf)
        return total

    def log_slopes(self, X: Array) -> Array:
        """Compute log |dz/dx| of each entry.

        Parameters
        ----------
        X : ndarray of shape (n, *sample_shape)
            Samples.

        Returns
        -------
        ndarray of shape (n, *sample_shape)
            0 in the constant columns and missing entries of a table.
        """
        slopes = self._map(self.columns.log_slope, X)
        if not self.is_table:
            return slopes
        whole = np.zeros(X.shape)
        whole[:, self.varying] = np.where(np.isnan(X[:, self.varying]), 0.0, slopes)
        return whole

    def training_codes(self, X: SampleRows | Array, device: torch.device) -> TrainingCodes | StoredCodes:
        """Make a training set that batches can be drawn from.

        Parameters
        ----------
        X : SampleRows or ndarray of shape (n, *sample_shape)
            Samples. Those on disk, behind a container, or of more than 64 million elements stay there.
        device : torch.device
            Where batches are wanted.

        Returns
        -------
        TrainingCodes or StoredCodes
            Encoded on the device, or to be encoded when they are drawn.
        """
        rows = SampleRows.of(X)
        if not rows.in_memory or rows.size > ENCODED_AT_ONCE:
            return StoredCodes(self.columns, self.training_bounds, rows, device)
        pieces = [self.training_bounds(chunk) for _, chunk in rows.chunks()]  # no more than one in double precision
        lows, highs = zip(*pieces, strict=True)
        high = None if highs[0] is None else torch.cat(highs).to(device)
        return TrainingCodes(self.columns, torch.cat(lows).to(device), high)

    def training_bounds(self, X: Array) -> tuple[Tensor, Tensor | None]:
        """Find what training draws from: codes, or bounds of the intervals to draw them from.

        Parameters
        ----------
        X : ndarray of shape (n, *sample_shape)
            Samples.

        Returns
        -------
        low : Tensor of shape (n, *code_shape)
            Codes in float32, or lower bounds.
        high : Tensor of shape (n, *code_shape) or None
            Upper bounds; None where codes are fixed.
        """
        low, high = self.columns.training_bounds(self._columns_in(X))

        def as_codes(bound: Array) -> Tensor:
            return torch.from_numpy(self._shape_out(bound, len(X)).astype(np.float32))

        return as_codes(low), None if high is None else as_codes(high)

    def _columns_in(self, X: Array) -> Array:
        return X[:, self.varying] if self.is_table else to_columns(X)

    def _shape_out(self, columns: Array, n_samples: int) -> Array:
        return columns if self.is_table else from_columns(columns, (n_samples, *self.sample_shape))

    def _map(self, function: Any, X: Array) -> Array:
        return self._shape_out(function(self._columns_in(X)), len(X))

    def _unmap(self, function: Any, Z: Array) -> Array:
        if self.is_table:
            X = np.tile(self.constants, (len(Z), 1))
            X[:, self.varying] = function(Z)
            return X
        columns = function(to_columns(Z))
        columns[:, ~self.varying] = self.constants[~self.varying]
        return from_columns(columns, Z.shape)


def _keys_in(container: Container, n_columns: int) -> Mask:
    """Which columns hold keys, and are not learned."""
    return container.is_key if isinstance(container, TableContainer) else np.zeros(n_columns, dtype=bool)


def _categories_in(container: Container, varying: Mask) -> tuple[Mask, tuple[int, ...]]:
    """Which columns of a table are categories, and how many levels there are in those that vary."""
    if not isinstance(container, TableContainer):
        return np.zeros_like(varying), ()
    coded = np.flatnonzero(container.categorical & varying)
    return container.categorical, tuple(container.n_levels(int(j)) for j in coded)
