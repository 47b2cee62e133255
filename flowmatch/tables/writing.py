"""Frames, arrays and tensors from the numbers of a table and what these stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowmatch.core.types import AnyArray, Array
from flowmatch.tables.columns import ColumnFormat, column_positions, write_column
from flowmatch.tables.containers import Container
from flowmatch.tables.dates import in_utc
from flowmatch.tables.frames import as_dtype, pandas_dtype, pandas_series, polars_series
from flowmatch.tables.key_columns import dtype_for

Keys = Mapping[int, AnyArray]
"""Fresh keys for the columns that hold some, by their positions."""


def frame_of(container: Container, formats: Sequence[ColumnFormat], values: Array, fresh: Keys) -> Any:
    """A DataFrame of pandas or polars from numbers (n, d)."""
    is_polars, columns = container.kind == "polars", []
    for j, (column, dtype, name) in enumerate(zip(formats, container.dtypes, container.columns, strict=True)):
        if j in fresh:
            wide = dtype_for(dtype, fresh[j])
            columns.append(polars_series(fresh[j], wide, name) if is_polars else pandas_series(fresh[j], wide))
        elif is_polars:
            columns.append(_of_polars(column, dtype, name, values[:, j]))
        else:
            columns.append(_of_pandas(column, dtype, values[:, j]))
    return container.framed(columns)


def array_of(container: Container, formats: Sequence[ColumnFormat], values: Array, fresh: Keys) -> Any:
    """An array or a tensor from numbers (n, d)."""
    name, gaps = container.dtypes[0], bool(np.isnan(values).any())
    dtype = dtype_for(name, *fresh.values())
    plain = Container(container.kind, (dtype,), device=container.device)
    is_numeric = container.kind == "torch" or np.dtype(name).kind in "biuf"
    if is_numeric and not fresh and not any(column.is_coded or column.zero for column in formats):
        return plain.wrap(values)
    columns = [fresh[j] if j in fresh else write_column(column, values[:, j]) for j, column in enumerate(formats)]
    if is_numeric and "int" in dtype and not gaps:  # floats may not tell them apart
        return plain.wrap(np.stack([as_dtype(column, dtype) for column in columns], axis=1))
    if is_numeric:
        return plain.wrap(np.stack(columns, axis=1).astype(np.float64))
    holds_none = name[:1] not in "<|>SU"
    table = np.empty(values.shape, dtype if holds_none or not gaps else "object")
    for j, column in enumerate(columns):
        table[:, j] = column
    return table


def _of_polars(format: ColumnFormat, dtype: str, name: str, numbers: Array) -> Any:
    entries = write_column(format, numbers)
    if format.dates and format.dates.wall:
        entries = in_utc(entries, format.dates.timezone)
    return polars_series(entries, dtype, name, format.levels)


def _of_pandas(format: ColumnFormat, dtype: str, numbers: Array) -> Any:
    import pandas as pd

    if format.level_dtype:
        missing = np.isnan(numbers) | (format.kind == "empty")
        codes = np.where(missing, -1, column_positions(numbers, len(format.levels)))
        index = pd.Index(format.entries, dtype=pandas_dtype(format.level_dtype))
        series = pd.Series(pd.Categorical.from_codes(codes, categories=index, ordered=format.ordered))
        is_category = dtype == "category" or (dtype.startswith("interval[int") and (codes < 0).any())
        return series if is_category else series.astype(pandas_dtype(dtype))
    zone, wall = (format.dates.timezone, format.dates.wall) if format.dates else ("", False)
    return pandas_series(write_column(format, numbers), dtype, zone, wall)
