"""Tables with some of their columns taken, replaced or appended, and numbers in the container of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.core.types import Array, Mask
from flowmatch.tables.forms import form_of
from flowmatch.tables.frames import is_polars


def take_columns(table: Any, chosen: Mask) -> Any:
    """Some columns of a table of any form."""
    kept, form = np.flatnonzero(chosen).tolist(), form_of(table)
    if form in ("dict", "rows", "records"):
        known = table.dtype.names if form == "records" else list(table[0] if form == "rows" else table)
        names = [known[j] for j in kept]
        if form == "rows":
            return [{name: row[name] for name in names} for row in table]
        return table[names] if form == "records" else {name: table[name] for name in names}
    if form == "arrow":
        return table.select(kept)
    return table.iloc[:, kept] if hasattr(table, "iloc") else table[:, kept]


def replace_columns(table: Any, chosen: Mask, columns: Any) -> Any:
    """A copy of what `as_table` returned, with other columns in place of the chosen ones."""
    if is_polars(table):
        return table.with_columns(list(columns))
    if isinstance(table, torch.Tensor):
        return table.index_copy(1, torch.as_tensor(np.flatnonzero(chosen), device=table.device), columns)
    table = table.copy()
    if not hasattr(table, "iloc"):
        table[:, chosen] = columns
        return table
    for j, position in enumerate(np.flatnonzero(chosen)):
        table.isetitem(position, columns.iloc[:, j])
    return table


def append_columns(table: Any, marks: Mask, names: NDArray[Any]) -> Any:
    """A table with columns of booleans behind its own; in an array or tensor they are zeros and ones of its dtype."""
    if isinstance(table, torch.Tensor):
        return torch.cat([table, torch.as_tensor(marks, device=table.device).to(table.dtype)], dim=1)
    if isinstance(table, np.ndarray):
        return np.concatenate([table, marks.astype(table.dtype)], axis=1)
    new = dict(zip(names[len(names) - marks.shape[1] :], marks.T, strict=True))
    return table.with_columns(**new) if is_polars(table) else table.assign(**new)


def numbers_like(X: Any, numbers: Array) -> Any:
    """Numbers of the shape of X as a tensor or frame if X is one, with its index and columns."""
    if isinstance(X, torch.Tensor):
        return torch.as_tensor(numbers, dtype=X.dtype if X.is_floating_point() else torch.float32, device=X.device)
    if hasattr(X, "iloc"):
        import pandas as pd

        return pd.DataFrame(numbers, index=X.index, columns=X.columns)
    if is_polars(X):
        import polars as pl

        return pl.DataFrame(numbers, schema=X.columns)
    return numbers
