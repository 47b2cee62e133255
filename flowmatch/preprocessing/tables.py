"""Tables of mixed columns as matrices of numbers, and back: categories, booleans, dates, text, missing cells."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.preprocessing.containers import Container
from flowmatch.preprocessing.rows import as_numpy
from flowmatch.preprocessing.table_columns import NUMBER, ColumnFormat, fit_column, read_column, write_column
from flowmatch.preprocessing.table_dates import DateGrid, in_utc
from flowmatch.preprocessing.table_frames import (
    RawColumn,
    as_table,
    describe,
    is_polars,
    numbers_array,
    pandas_categories,
    pandas_frame,
    pandas_series,
    polars_series,
    raw_series,
    take_apart,
)

Array = NDArray[np.float64]


def _no_numbers() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class TableContainer(Container):
    """What a table came in, and what the numbers of its columns stand for.

    `read` makes a float64 matrix of a table, one number a cell, NaN where it is missing; `wrap` goes back. All
    fields have one entry a column, as in `ColumnFormat`.

    Attributes
    ----------
    kind : {"numpy", "dataframe", "torch", "polars"}
    kinds : tuple of {"number", "category", "boolean", "datetime", "timedelta"}
    levels : tuple of ndarray
        Values of each category column, in order (of a categorical dtype all its categories, also unused ones; else
        sorted); cells are positions in them. Numbers and dates that were named as categories have their float64
        numbers here. Empty for other columns.
    level_dtypes : tuple of str
        Of the categories of a categorical dtype.
    ordered : ndarray of bool
        Whether a categorical dtype is ordered.
    cell_types, marks : tuple of str
        What the cells of object columns are, and how these mark missing ones: "None", "nan", "NA" or "NaT".
    units, ticks, timezones : tuple of str
        For dates and durations: the coarsest unit ("D", "h", "m", "s", "ms", "us", "ns") that holds all of them
        exactly, their dtype in numpy, and their time zone. The number of a date counts these units.
    origins : ndarray of int
        The date with the number 0, the earliest one, in the unit of `ticks`.
    walls : ndarray of bool
        Whether dates are counted on the clock of their time zone, not in UTC.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"age": [31, 54, 40], "sex": ["f", None, "m"], "day": pd.to_datetime(["2024-03-01"] * 3)})
    >>> container = TableContainer.fit(table)
    >>> container.read(table)
    array([[31.,  0.,  0.],
           [54., nan,  0.],
           [40.,  1.,  0.]])
    >>> container.wrap([[40.2, 1, 2]])
       age sex        day
    0   40   m 2024-03-03
    """

    kinds: tuple[str, ...] = ()
    levels: tuple[NDArray[Any], ...] = ()
    level_dtypes: tuple[str, ...] = ()
    ordered: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    cell_types: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    ticks: tuple[str, ...] = ()
    timezones: tuple[str, ...] = ()
    origins: NDArray[np.int64] = field(default_factory=_no_numbers)
    walls: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))

    @classmethod
    def fit(cls, X: Any, categorical_features: Any = "auto") -> TableContainer:
        """Find out what the columns of a table hold.

        Parameters
        ----------
        X : DataFrame (pandas, polars, or any that narwhals reads), ndarray, Tensor, or list of rows
            Arrays and columns of objects are judged column by column.
        categorical_features : "auto", None, or a list of names, indices or booleans, default="auto"
            "auto" takes text, booleans and pandas' category dtype for categories. A list names further ones,
            whatever their dtype. None allows none: booleans are numbers, and text is an error.

        Raises
        ------
        ValueError
            For a wrong `categorical_features`, and for columns without a value, of mixed types, of dtypes that are
            not understood, or of text that looks like an identifier (more than 100 values, and in more than half of
            the rows another) and is not named in `categorical_features`. The error names the column and row.
        TypeError
            If a cell holds a list, dict or another object.
        """
        table = as_table(X)
        kind, dtypes, columns, device = describe(table)
        named = _named_columns(categorical_features, columns, table.shape[1])
        if _is_numeric(table) and not named.any() and dtypes[0] != "bool":
            suspects = np.flatnonzero(np.isnan(_as_floats(table[:1])[0])) if len(table) else ()
            for j in suspects:  # the other columns have a value in the first row
                fit_column(RawColumn(_as_floats(table[:, j])), f"column {j} of X")
            formats = [NUMBER] * table.shape[1]
        else:
            labels = _labels(columns, table.shape[1])
            formats = [
                fit_column(raw, f"column {label!r} of X", bool(also), categorical_features is None)
                for raw, label, also in zip(take_apart(table), labels, named, strict=True)
            ]
        return cls._of(Container(kind, dtypes, columns, device), formats)

    @classmethod
    def of_numbers(cls, container: Container, n_columns: int) -> TableContainer:
        """A table whose columns are all numbers."""
        return cls._of(container, [NUMBER] * n_columns)

    @classmethod
    def _of(cls, container: Container, formats: list[ColumnFormat]) -> TableContainer:
        grids = [column.dates or DateGrid("", "", 0) for column in formats]
        return cls(
            container.kind,
            container.dtypes,
            container.columns,
            container.device,
            kinds=tuple(column.kind for column in formats),
            levels=tuple(column.levels for column in formats),
            level_dtypes=tuple(column.level_dtype for column in formats),
            ordered=np.array([column.ordered for column in formats], dtype=bool),
            cell_types=tuple(column.cell for column in formats),
            marks=tuple(column.mark for column in formats),
            units=tuple(grid.unit for grid in grids),
            ticks=tuple(grid.tick for grid in grids),
            timezones=tuple(grid.timezone for grid in grids),
            origins=np.array([grid.origin for grid in grids], dtype=np.int64),
            walls=np.array([grid.wall for grid in grids], dtype=bool),
        )

    @cached_property
    def _formats(self) -> tuple[ColumnFormat, ...]:
        return tuple(map(self._format, range(len(self.kinds))))

    def _format(self, j: int) -> ColumnFormat:
        grid = DateGrid(self.units[j], self.ticks[j], int(self.origins[j]), self.timezones[j], bool(self.walls[j]))
        return ColumnFormat(
            self.kinds[j],
            self.levels[j],
            self.level_dtypes[j],
            bool(self.ordered[j]),
            self.cell_types[j],
            self.marks[j],
            grid if grid.unit else None,
        )

    @property
    def categorical(self) -> NDArray[np.bool_]:
        """Which columns are categories; booleans count, (d,)."""
        return np.array([kind in ("category", "boolean") for kind in self.kinds], dtype=bool)

    def n_levels(self, column_position: int) -> int:
        """Number of categories that a column can hold, at least 2; booleans have no levels."""
        return max(2, len(self.levels[column_position]))

    @property
    def plain(self) -> bool:
        """Whether all columns are numbers of numeric dtypes in an array, tensor or pandas DataFrame."""
        return self.kind != "polars" and all(
            kind == "number" and (self.kind == "torch" or _is_plain(dtype))
            for kind, dtype in zip(self.kinds, np.broadcast_to(self.dtypes, len(self.kinds)), strict=True)
        )

    def read(self, X: Any) -> Array:
        """Numbers of a table with the same columns, (n, d); NaN is missing.

        Raises
        ------
        ValueError
            For another number of columns, categories that training has not seen, and cells of another type, with the
            column and the first row of it.
        TypeError
            If a cell holds a list, dict or another object.
        """
        table = as_table(X)
        if table.shape[1] != len(self.kinds):
            raise ValueError(f"X has {table.shape[1]} columns, but the table of training had {len(self.kinds)}.")
        if set(self.kinds) == {"number"} and _is_numeric(table):
            return _as_floats(table)
        values = np.empty(table.shape, dtype=np.float64)
        labels = _labels(self.columns, len(self.kinds))
        for j, (column, raw) in enumerate(zip(self._formats, take_apart(table), strict=True)):
            values[:, j] = read_column(column, raw, f"column {labels[j]!r} of X")
        return values

    def wrap(self, values: Any) -> Any:
        """A table like that of `fit` from a matrix of numbers (n, d).

        Categories are the nearest positions, and dates lie on their unit. NaN becomes what the column marks missing
        cells with: NaN, None, <NA> or NaT. Where there is one, integers that cannot hold it become float64, and
        booleans objects with None.
        """
        values = np.asarray(values, dtype=np.float64)
        if self.kind in ("dataframe", "polars"):
            return self._wrap_frame(values)
        if self.kind == "torch" or np.dtype(self.dtypes[0]).kind in "biuf":
            return numbers_array(self._written_numbers(values), self)
        columns = [write_column(column, values[:, j]) for j, column in enumerate(self._formats)]
        missing = np.isnan(values).any()
        dtype = np.dtype(object if missing and self.dtypes[0][:1] in "<|>SU" else self.dtypes[0])
        table = np.empty(values.shape, dtype=dtype)
        for j, column in enumerate(columns):
            table[:, j] = column
        return table

    def _written_numbers(self, values: Array) -> Array:
        if not any(column.is_coded for column in self._formats):
            return values
        return np.stack([write_column(column, values[:, j]) for j, column in enumerate(self._formats)], axis=1)

    def _wrap_frame(self, values: Array) -> Any:
        columns = []
        for j, (column, dtype) in enumerate(zip(self._formats, self.dtypes, strict=True)):
            if column.level_dtype and self.kind == "dataframe":
                columns.append(pandas_categories(values[:, j], column.levels, column.level_dtype, column.ordered))
                continue
            written = write_column(column, values[:, j])
            if self.kind == "dataframe":
                columns.append(pandas_series(written, dtype, self.timezones[j], bool(self.walls[j])))
            else:
                written = in_utc(written, self.timezones[j]) if self.walls[j] else written
                columns.append(polars_series(written, dtype, self.columns[j], column.levels))
        if self.kind == "dataframe":
            return pandas_frame(columns, self.columns)
        import polars as pl

        return pl.DataFrame(columns)

    def position(self, column: Any) -> int:
        """Number of a column by its name, or by number where columns have no names.

        Raises
        ------
        ValueError
            If there is no such column, or more than one; lists those there are.
        """
        d = len(self.kinds)
        if self.columns:
            found = [j for j, name in enumerate(self.columns) if isinstance(column, Hashable) and name == column]
            if len(found) == 1:
                return found[0]
            problem = f"{len(found)} columns are called {column!r}" if found else f"there is no column {column!r}"
            raise ValueError(f"{problem}; the columns are {_listed(self.columns)}.")
        if isinstance(column, Integral) and not isinstance(column, bool) and -d <= int(column) < d:
            return int(column) % d
        raise ValueError(f"there is no column {column!r}; columns have the numbers 0 to {d - 1}.")

    def cells(self, column_position: int, values: Any) -> Array:
        """Numbers of a value, or a sequence of values, of one column, (n,).

        Dates may be text such as "2024-03-01"; without a time zone they are on the clock of the column's.

        Raises
        ------
        ValueError
            For a category that training has not seen, text where numbers are expected, and the like.
        TypeError
            For a list, dict or another object as one value.
        """
        name = _labels(self.columns, len(self.kinds))[column_position]
        column = self._formats[column_position]
        where = f"given value of column {name!r}"
        raw = _raw_cells(values, where)
        if column.dates and column.dates.kind == "datetime":
            raw = _parse_dates(raw, column.dates, where)
        return read_column(column, raw, where)

    def tolerance(self, n_columns: int) -> Array:
        """Relative rounding error of each column, (n_columns,): that of its floating dtype, 0 for all others."""
        aliases = {"float[pyarrow]": "float32", "halffloat[pyarrow]": "float16"}
        plain = Container(self.kind, tuple(aliases.get(dtype, dtype) for dtype in self.dtypes))
        numeric = np.array([kind == "number" for kind in self.kinds], dtype=bool)
        return np.where(numeric, plain.tolerance(n_columns), 0.0)

    def narrow(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give `values` the dtype of an array or tensor of numbers, if it can hold them; other tables wait."""
        if not self.plain or (np.dtype(self.numpy_dtype).kind not in "f" and np.isnan(values).any()):
            return values
        return super().narrow(values)


def _named_columns(categorical_features: Any, names: tuple[Any, ...], d: int) -> NDArray[np.bool_]:
    """Which columns `categorical_features` names."""
    chosen = np.zeros(d, dtype=bool)
    if categorical_features is None or (isinstance(categorical_features, str) and categorical_features == "auto"):
        return chosen
    expected = "expected 'auto', None, or a list of column names, column indices, or one boolean a column"
    listed = hasattr(categorical_features, "__iter__") and not isinstance(categorical_features, (str, bytes, dict))
    if not listed or getattr(categorical_features, "ndim", 1) != 1:
        raise ValueError(f"categorical_features={categorical_features!r}; {expected}.")
    entries = list(categorical_features)
    if entries and all(isinstance(entry, (bool, np.bool_)) for entry in entries):
        if len(entries) != d:
            raise ValueError(f"categorical_features has {len(entries)} booleans, but X has {d} columns; {expected}.")
        return np.array(entries, dtype=bool)
    numbers_are_names = any(isinstance(name, Integral) for name in names)
    for entry in entries:
        if isinstance(entry, Hashable) and entry in names:
            chosen |= np.array([name == entry for name in names], dtype=bool)
        elif isinstance(entry, Integral) and not numbers_are_names and -d <= int(entry) < d:
            chosen[int(entry)] = True
        else:
            there = f"the columns {_listed(names)}" if names else f"columns 0 to {d - 1}, without names"
            raise ValueError(f"categorical_features holds {entry!r}, but X has {there}; {expected}.")
    return chosen


def _raw_cells(values: Any, where: str) -> RawColumn:
    """One value or a sequence as a column."""
    if hasattr(values, "iloc") or is_polars(values):
        return raw_series(values, where)
    if isinstance(values, torch.Tensor):
        values = as_numpy(values)
    if isinstance(values, np.ndarray):
        return RawColumn(values.reshape(-1))
    several = isinstance(values, Iterable) and not isinstance(values, (str, bytes, dict))
    listed = list(values) if several else [values]
    cells = np.empty(len(listed), dtype=object)
    cells[:] = listed
    return RawColumn(cells)


def _parse_dates(raw: RawColumn, grid: DateGrid, where: str) -> RawColumn:
    """Text and objects as dates, in UTC where the column has a time zone."""
    if raw.levels is not None or raw.timezone or raw.values.dtype.kind not in "OUM":
        return raw
    values, zone = raw.values, grid.timezone
    if values.dtype.kind == "M":
        return RawColumn(in_utc(values, zone), timezone=zone) if zone else raw
    try:
        if zone:
            import pandas as pd

            dates = [pd.Timestamp(value) for value in values.tolist()]
            dates = [date.tz_localize(zone) if date.tzinfo is None else date for date in dates]
            moments = [date.tz_convert(None).to_datetime64() for date in dates]
            return RawColumn(np.array(moments, dtype=grid.tick), timezone=zone)
        values = values.astype(object)
        text = np.array([isinstance(value, str) for value in values], dtype=bool)
        values[text] = list(values[text].astype(grid.tick))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is no date: {error}.") from error
    return RawColumn(values)


def _labels(columns: tuple[Any, ...], d: int) -> tuple[Any, ...]:
    return columns or tuple(range(d))


def _listed(columns: tuple[Any, ...]) -> str:
    shown = ", ".join(map(repr, columns[:20]))
    return shown + (f", ... ({len(columns)} in all)" if len(columns) > 20 else "")


def _is_plain(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:  # an extension of pandas
        return False


def _is_numeric(table: Any) -> bool:
    """Whether a table is an array or tensor of real numbers."""
    if isinstance(table, torch.Tensor):
        return not table.is_complex()
    return isinstance(table, np.ndarray) and table.dtype.kind in "biuf"


def _as_floats(table: Any) -> Array:
    return np.asarray(as_numpy(table) if isinstance(table, torch.Tensor) else table, dtype=np.float64)
