"""Entries that a table's rows miss: which are missing together, and how often; and numbers put in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from flowmatch.core.storable import require, storable
from flowmatch.preprocessing.categories import Mask
from flowmatch.preprocessing.conditions import check_shares, systematic_sample
from flowmatch.preprocessing.containers import Container
from flowmatch.preprocessing.scaling import Array, row_shares
from flowmatch.preprocessing.table_forms import form_dtypes, form_of, in_form
from flowmatch.preprocessing.table_frames import as_table, dtypes_of, native_frame
from flowmatch.preprocessing.tables import TableContainer

_NEIGHBORS = 10


@storable
@dataclass(frozen=True, eq=False)
class MissingPatterns:
    """The patterns of missing entries in the training rows, with the rows' conditions and weights.

    Patterns are drawn as they occur there, so that columns which miss values together go on doing so. Where rows have
    conditions, a row's pattern is that of a training row of the same condition, or of one of the ten nearest.

    Parameters
    ----------
    patterns : ndarray of bool, shape (n_patterns, d)
        Which entries are missing.
    rows : ndarray of int, shape (n,)
        Pattern of each training row.
    shares : ndarray of shape (n,)
        Weights of the rows, with sum 1.
    vectors : ndarray of float32, shape (n, k)
        Vectors of their conditions; k is 0 without any.
    """

    patterns: Mask
    rows: NDArray[np.int64]
    shares: Array
    vectors: NDArray[np.float32]

    @classmethod
    def fit(cls, missing: Mask, vectors: NDArray[np.float32] | None, weight: Array | None) -> Self | None:
        """Learn the patterns of rows.

        Parameters
        ----------
        missing : ndarray of bool, shape (n, d)
            Which entries are missing.
        vectors : ndarray of float32, shape (n, k), or None
            Vectors of the rows' conditions.
        weight : ndarray of shape (n,) or None
            Weights of the rows.

        Returns
        -------
        MissingPatterns or None
            None where nothing is missing.
        """
        if not missing.any():
            return None
        packed = np.ascontiguousarray(np.packbits(missing, axis=1))  # compared as bytes
        _, first, rows = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True, return_inverse=True)
        vectors = np.empty((len(rows), 0), dtype=np.float32) if vectors is None else vectors
        return cls(missing[first], rows.reshape(-1).astype(np.int64), row_shares(len(rows), weight), vectors)

    def check(self) -> None:
        """Raise a ValueError if the fields of stored patterns do not fit each other."""
        n, what = len(self.rows), "patterns of missing entries"
        require(self.patterns.ndim == 2 and self.rows.ndim == 1 and self.vectors.shape[:1] == (n,), what)
        require(self.vectors.ndim == 2 and n > 0, what)
        require(0 <= self.rows.min() <= self.rows.max() < len(self.patterns), what)
        check_shares(self.shares, n, what)

    def draw(
        self, n_samples: int, vectors: NDArray[np.float32] | None, present: Mask, rng: np.random.RandomState
    ) -> Mask:
        """Draw patterns for rows of which some columns are there.

        Parameters
        ----------
        n_samples : int
            Number of patterns.
        vectors : ndarray of float32, shape (n_samples, k), or None
            Vectors of the rows' conditions.
        present : ndarray of bool, shape (d,)
            Columns that are there.
        rng : RandomState
            Where random numbers come from.

        Returns
        -------
        ndarray of bool, shape (n_samples, d)
            Which entries are missing: those of training rows that have these columns; none if there are no such rows.
        """
        whole: Mask = ~np.any(self.patterns[:, present], axis=1)
        fits = whole[self.rows] & (self.shares > 0)
        if not fits.any():
            return np.zeros((n_samples, self.patterns.shape[1]), dtype=bool)
        rows, shares = self.rows[fits], self.shares[fits] / self.shares[fits].sum()
        if vectors is None or vectors.shape[1] == 0:
            chosen = rng.permutation(systematic_sample(shares, n_samples, rng))
        else:
            chosen = _of_like_condition(self.vectors[fits], shares, vectors, rng)
        return self.patterns[rows[chosen]]


def _of_like_condition(known: Any, shares: Array, wanted: Any, rng: np.random.RandomState) -> NDArray[np.intp]:
    """For each wanted vector the number of a row with that vector, drawn by weight, or of one of the nearest rows."""
    distinct, asked = np.unique(wanted, axis=0, return_inverse=True)
    values, groups = np.unique(known, axis=0, return_inverse=True)
    asked, groups = asked.reshape(-1), groups.reshape(-1)
    distances, near = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(values))).fit(values).kneighbors(distinct)
    # a group of rows with one vector: the same one, or one of the nearest by their weights
    weights = np.where((distances[:, :1] > 0) | (np.arange(near.shape[1]) == 0), np.bincount(groups, shares)[near], 0.0)
    ranks = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)[asked]
    place = (rng.uniform(size=(len(asked), 1)) > ranks).sum(axis=1).clip(max=near.shape[1] - 1)
    group = near[asked, place]
    # a row of the group, as evenly over its rows as the samples that ask for it allow
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, shares))
    starts = np.concatenate([[0.0], ends[:-1]])
    turn = rng.permutation(len(group))
    by_group = turn[np.argsort(group[turn], kind="stable")]
    counts = np.bincount(group, minlength=len(values))
    number = np.empty(len(group))
    number[by_group] = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    u = (number + rng.uniform(size=len(values))[group]) / counts[group]
    found = np.searchsorted(np.cumsum(shares[order]), starts[group] + u * (ends - starts)[group], side="right")
    sizes = np.bincount(groups)
    first = (np.cumsum(sizes) - sizes)[group]
    return order[found.clip(first, first + sizes[group] - 1)]  # rounding leaves no group


def fill_table(container: Container, X: Any, values: Array, filled: Array) -> Any:
    """Put drawn values into the missing entries of a table.

    Parameters
    ----------
    container : Container
        Knows what the numbers of each column stand for.
    X : DataFrame, ndarray, Tensor, or list of rows
        The user's table.
    values, filled : ndarray of shape (n, d)
        Its numbers, NaN where they are missing, and the same with numbers there.

    Returns
    -------
    DataFrame, ndarray or Tensor
        A copy of the table; entries that were not missing are those of `X`.
    """
    missing = np.isnan(values)
    if isinstance(X, torch.Tensor):
        numbers = torch.as_tensor(filled, device=X.device).to(X.dtype)
        return torch.where(torch.as_tensor(missing, device=X.device), numbers, X)
    original, X = X, native_frame(X)
    make = container.formless if isinstance(container, TableContainer) else container.wrap
    if hasattr(X, "iloc"):
        frame = _fill_pandas(make(filled), X, missing)
        return in_form(form_of(original), frame, form_dtypes(original, dtypes_of(X)))
    if hasattr(X, "columns"):
        return _fill_polars(make(filled), X, missing)
    table = np.array(as_table(X))  # of a list, numbers beside text stay numbers
    drawn: NDArray[Any] = filled
    if table.dtype.kind not in "biuf":
        assert isinstance(container, TableContainer)
        drawn = np.empty(filled.shape, dtype=object)
        for j, numbers in enumerate(filled.T):
            drawn[:, j] = container.entries(j, numbers)
    table[missing] = drawn[missing]
    if isinstance(original, np.ma.MaskedArray):
        return np.ma.masked_array(
            np.where(np.isnan(filled), original.data, table).astype(original.dtype), np.isnan(filled)
        )
    return table


def entry_of(container: TableContainer, column: int, number: float) -> Any:
    """Tell what a number of a column stands for, as the user would write it.

    Parameters
    ----------
    container : TableContainer
        Knows what the numbers of each column stand for.
    column : int
        Position of the column.
    number : float
        NaN for a missing entry.

    Returns
    -------
    Any
        The entry.
    """
    entry = container.entries(column, np.array([number]))[0]
    return entry.item() if isinstance(entry, np.generic) and entry.dtype.kind in "biuf" else entry


def _fill_pandas(drawn: Any, X: Any, missing: Mask) -> Any:
    import pandas as pd

    if not hasattr(drawn, "iloc"):  # training had an array or a tensor
        drawn = pd.DataFrame(np.asarray(drawn.cpu() if isinstance(drawn, torch.Tensor) else drawn))
    table = X.copy()
    for j in np.flatnonzero(missing.any(axis=0)):
        column, own, hole = drawn.iloc[:, j].set_axis(X.index), X.iloc[:, j], missing[:, j]
        if hasattr(own.dtype, "categories"):
            lacking = [value for value in column[hole].dropna().unique() if value not in own.cat.categories]
            own = own.cat.add_categories(lacking) if lacking else own
            column = column.astype(object).astype(own.dtype)
        table.isetitem(j, own.where(~hole, column))
    return table


def _fill_polars(drawn: Any, X: Any, missing: Mask) -> Any:
    import polars as pl

    return X.with_columns(
        pl.when(pl.Series(missing[:, j])).then(drawn[name]).otherwise(X[name]).alias(name)
        for j, name in enumerate(X.columns)
        if missing[:, j].any()
    )
