"""Putting drawn values into the missing entries of a user's table, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.preprocessing.containers import Array, Container
from flowmatch.preprocessing.table_frames import as_table, native_frame
from flowmatch.preprocessing.tables import TableContainer


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
    X = native_frame(X)
    if hasattr(X, "iloc"):
        return _fill_pandas(container.wrap(filled), X, missing)
    if hasattr(X, "columns"):
        return _fill_polars(container.wrap(filled), X, missing)
    table = np.array(as_table(X))  # of a list, numbers beside text stay numbers
    drawn: NDArray[Any] = filled
    if table.dtype.kind not in "biuf":
        assert isinstance(container, TableContainer)
        drawn = np.empty(filled.shape, dtype=object)
        for j, numbers in enumerate(filled.T):
            drawn[:, j] = container.entries(j, numbers)
    table[missing] = drawn[missing]
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


def _fill_pandas(drawn: Any, X: Any, missing: NDArray[np.bool_]) -> Any:
    import pandas as pd

    if not hasattr(drawn, "iloc"):  # training had an array or a tensor
        drawn = pd.DataFrame(np.asarray(drawn.cpu() if isinstance(drawn, torch.Tensor) else drawn))
    table = X.copy()
    for j in np.flatnonzero(missing.any(axis=0)):
        column, own, hole = drawn.iloc[:, j].set_axis(X.index), X.iloc[:, j], missing[:, j]
        if hasattr(own.dtype, "categories"):
            lacking = [value for value in column[hole].unique() if value not in own.cat.categories]
            own = own.cat.add_categories(lacking)
            column = column.astype(object).astype(own.dtype)
        table.isetitem(j, own.where(~hole, column))
    return table


def _fill_polars(drawn: Any, X: Any, missing: NDArray[np.bool_]) -> Any:
    import polars as pl

    return X.with_columns(
        pl.when(pl.Series(missing[:, j])).then(drawn[name]).otherwise(X[name]).alias(name)
        for j, name in enumerate(X.columns)
        if missing[:, j].any()
    )
