"""Entries that a table's rows miss: which are missing together, and how often; and numbers put in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from flowmatch.core.storable import require, storable
from flowmatch.core.types import AnyArray, Array, Array32, Index, Integers, Mask
from flowmatch.preprocessing.blurring import blurred_rows
from flowmatch.preprocessing.conditions import check_shares, spread_sample, turns
from flowmatch.preprocessing.scaling import row_shares
from flowmatch.tables.containers import Container
from flowmatch.tables.forms import form_dtypes, form_of, in_form
from flowmatch.tables.frames import as_table, dtypes_of, native_frame
from flowmatch.tables.key_columns import fresh_keys, keys_in
from flowmatch.tables.reading import raw_column
from flowmatch.tables.table import TableContainer

_NEIGHBORS = 10

_GOLDEN = 0.5 * (5**0.5 - 1)


@storable
@dataclass(frozen=True, eq=False)
class MissingPatterns:
    """The patterns of missing entries in the training rows, how often each comes, and under which conditions.

    Patterns are drawn as they occur there, so that columns which miss values together go on doing so. Where rows have
    conditions, a row's pattern is one of the same condition, or of one of the ten nearest. At most 4096 pairs of a
    pattern and a condition are kept, the numbers of these blurred (`flowmatch.preprocessing.blurring`).

    Parameters
    ----------
    patterns : ndarray of bool, shape (n_patterns, d)
        Which entries are missing.
    rows : ndarray of int, shape (n,)
        Pattern of each pair.
    shares : ndarray of shape (n,)
        Weights of the pairs, with sum 1.
    vectors : ndarray of float32, shape (n, k)
        Vectors of their conditions; k is 0 without any.
    """

    patterns: Mask
    rows: Integers
    shares: Array
    vectors: Array32

    @classmethod
    def fit(cls, missing: Mask, vectors: Array32 | None, weight: Array | None) -> Self | None:
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
        vectors = np.empty((len(missing), 0), dtype=np.float32) if vectors is None else vectors
        is_mark = np.isin(vectors, (0, 1)).all(axis=0)
        pairs = np.column_stack([vectors, rows.reshape(-1)]).astype(np.float64)
        pairs, shares = blurred_rows(pairs, row_shares(len(pairs), weight), np.append(is_mark, True))
        known, rows = np.unique(pairs[:, -1].astype(np.int64), return_inverse=True)
        return cls(missing[first[known]], rows.reshape(-1).astype(np.int64), shares, pairs[:, :-1].astype(np.float32))

    def check(self) -> None:
        """Raise a ValueError if the fields of stored patterns do not fit each other."""
        n, what = len(self.rows), "patterns of missing entries"
        require(self.patterns.ndim == 2 and self.rows.ndim == 1 and self.vectors.shape[:1] == (n,), what)
        require(self.vectors.ndim == 2 and n > 0, what)
        require(0 <= self.rows.min() <= self.rows.max() < len(self.patterns), what)
        check_shares(self.shares, n, what)

    def fits(self, present: Mask, absent: Mask) -> Mask:
        """Find the training rows that have some columns and miss others.

        Parameters
        ----------
        present, absent : ndarray of bool, shape (d,)
            Columns that are there, and columns that are missing.

        Returns
        -------
        ndarray of bool, shape (n,)
            Which rows are like that; those without weight are not.
        """
        alike: Mask = ~np.any(self.patterns[:, present], axis=1) & np.all(self.patterns[:, absent], axis=1)
        return alike[self.rows] & (self.shares > 0)

    def share_of_like_rows(self, vectors: Array32, present: Mask, absent: Mask) -> Array:
        """Find the share of such rows among those of a condition.

        Parameters
        ----------
        vectors : ndarray of float32, shape (m, k)
            Vectors of conditions, as they occur in training.
        present, absent : ndarray of bool, shape (d,)
            Columns that are there, and columns that are missing.

        Returns
        -------
        ndarray of shape (m,)
            Shares by weight.
        """
        groups = np.unique(np.concatenate([self.vectors, vectors]), axis=0, return_inverse=True)[1].reshape(-1)
        known, asked = groups[: len(self.rows)], groups[len(self.rows) :]
        total = np.bincount(known, self.shares, minlength=groups.max() + 1)
        alike = np.bincount(known, self.shares * self.fits(present, absent), minlength=len(total))
        return alike[asked] / np.where(total[asked] > 0, total[asked], 1.0)

    def draw(
        self,
        n_samples: int,
        vectors: Array32 | None,
        present: Mask,
        rng: np.random.RandomState,
        absent: Mask | None = None,
    ) -> Mask:
        """Draw patterns for rows of which some columns are there, and some are not.

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
        absent : ndarray of bool, shape (d,), optional
            Columns that are missing.

        Returns
        -------
        ndarray of bool, shape (n_samples, d)
            Which entries are missing: those of training rows that are like that; none if there are no such rows.
        """
        fits = self.fits(present, np.zeros_like(present) if absent is None else absent)
        if not fits.any():
            return np.zeros((n_samples, self.patterns.shape[1]), dtype=bool)
        rows, shares = self.rows[fits], self.shares[fits] / self.shares[fits].sum()
        if vectors is None or vectors.shape[1] == 0:
            return self.patterns[spread_sample(np.bincount(rows, shares).astype(np.float64), n_samples, rng)]
        by_pattern = np.argsort(rows, kind="stable")  # so that patterns are drawn evenly, not only rows
        chosen = _of_like_condition(self.vectors[fits][by_pattern], shares[by_pattern], vectors, rng)
        return self.patterns[rows[by_pattern][chosen]]


def _of_like_condition(known: Any, shares: Array, wanted: Any, rng: np.random.RandomState) -> Index:
    """For each wanted vector the number of a row with that vector, drawn by weight, or of one of the nearest rows."""
    distinct, asked = np.unique(wanted, axis=0, return_inverse=True)
    values, groups = np.unique(known, axis=0, return_inverse=True)
    asked, groups = asked.reshape(-1), groups.reshape(-1)
    distances, near = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(values))).fit(values).kneighbors(distinct)
    # a group of rows with one vector: the same one, or one of the nearest by their weights
    weights = np.where((distances[:, :1] > 0) | (np.arange(near.shape[1]) == 0), np.bincount(groups, shares)[near], 0.0)
    ranks = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)[asked]
    start = rng.uniform(size=len(values))  # drawn first: what comes after is as long as the samples are many
    place = (rng.uniform(size=(len(asked), 1)) > ranks).sum(axis=1).clip(max=near.shape[1] - 1)
    group = near[asked, place]
    # a row of the group: multiples of the golden ratio spread any number of samples evenly over its rows
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, shares))
    starts = np.concatenate([[0.0], ends[:-1]])
    u = (start[group] + turns(group) * _GOLDEN) % 1.0
    found = np.searchsorted(np.cumsum(shares[order]), starts[group] + u * (ends - starts)[group], side="right")
    sizes = np.bincount(groups)
    first = (np.cumsum(sizes) - sizes)[group]
    return order[found.clip(first, first + sizes[group] - 1)]  # rounding leaves no group


def missing_in(table: Any) -> Mask:
    """Find the missing entries of a table whose columns are not known yet.

    Parameters
    ----------
    table : DataFrame, Tensor or ndarray of shape (n, d)
        The table.

    Returns
    -------
    ndarray of bool, shape (n, d)
        Which entries are NaN, None, NA or NaT.
    """
    columns = (raw_column(table, j, f"column {j} of X") for j in range(table.shape[1]))
    return np.column_stack([column.missing for column in columns])


def fill_table(container: Container, X: Any, values: Array, filled: Array) -> Any:
    """Put drawn values into the missing entries of a table.

    Parameters
    ----------
    container : Container
        Knows what the numbers of each column stand for.
    X : DataFrame, ndarray, Tensor, list of rows, or a table of another form
        The user's table.
    values, filled : ndarray of shape (n, d)
        Its numbers, NaN where they are missing, and the same with numbers there.

    Returns
    -------
    DataFrame, ndarray or Tensor
        A copy of the table; entries that were not missing are those of `X`.
    """
    if not isinstance(container, TableContainer):
        container = TableContainer.of_numbers(container, values.shape[1])
    missing, table = np.isnan(values), native_frame(X)
    taken = keys_in(table, np.flatnonzero((missing & container.is_key).any(axis=0)).tolist())
    if hasattr(table, "iloc"):
        frame = _fill_pandas(container.formless(filled, taken), table, missing)
        return in_form(form_of(X), frame, form_dtypes(X, dtypes_of(table)))
    if hasattr(table, "columns"):
        return _fill_polars(container.formless(filled, taken), table, missing)
    drawn: AnyArray = np.where(container.is_key & container.empty_keys, np.nan, filled)
    left = missing & np.isnan(drawn)
    fresh = fresh_keys(container.keys, drawn, taken)
    if not isinstance(X, torch.Tensor):
        table = np.array(as_table(table))  # of a list, numbers beside text stay numbers
        if table.dtype.kind not in "biuf":
            drawn = np.empty(filled.shape, dtype=object)
            for j, numbers in enumerate(filled.T):
                drawn[:, j] = container.entries(j, numbers)
    for j, keys in fresh.items():
        drawn[:, j] = keys
    if isinstance(X, torch.Tensor):
        numbers = torch.as_tensor(drawn, device=X.device).to(X.dtype)
        return torch.where(torch.as_tensor(missing, device=X.device), numbers, X)
    table[missing] = drawn[missing]
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.masked_array(np.where(left, X.data, table).astype(X.dtype), left)
    return table


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
