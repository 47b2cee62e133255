"""Tables of mixed columns as matrices of numbers, and back: categories, booleans, dates, text, missing entries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from flowmatch.core.storable import NOT_STORED, require, storable
from flowmatch.core.types import AnyArray, Array, Integers, Mask
from flowmatch.tables.columns import IDENTIFIER, NUMBER, ColumnFormat, fit_column, read_column, write_column
from flowmatch.tables.containers import Container
from flowmatch.tables.dates import DateGrid
from flowmatch.tables.entries import parse_text
from flowmatch.tables.forms import FORMS, form_dtypes, form_of, in_form
from flowmatch.tables.frames import as_table, holds_floats, is_real_dtype
from flowmatch.tables.key_columns import find_keys, fresh_keys
from flowmatch.tables.keys import KeyForm
from flowmatch.tables.names import named_columns, position_of
from flowmatch.tables.readable import as_float64
from flowmatch.tables.reading import RawColumn, each_column, raw_entries
from flowmatch.tables.writing import array_of, frame_of

_OF_COLUMNS = {"kinds": "kind", "levels": "levels", "level_dtypes": "level_dtype", "ordered": "ordered"}
_OF_COLUMNS |= {"cell_types": "entry_type", "marks": "mark", "zeros": "zero"}
_OF_GRIDS = {"units": "unit", "ticks": "tick", "timezones": "timezone", "origins": "origin", "walls": "wall"}
"""Fields with one element a column, and what they are of a `ColumnFormat` and of its dates."""


@storable
@dataclass(frozen=True, eq=False)
class TableContainer(Container):
    """What a table came in, and what the numbers of its columns stand for.

    `read` makes a float64 matrix of a table, one number for each entry, NaN where it is missing; `wrap` goes back. All
    but the first four fields have one element a column, as in `ColumnFormat`.

    Parameters
    ----------
    kind : {"numpy", "dataframe", "torch", "polars"}
        What the table came in.
    dtypes : tuple of str
        One dtype a column for a DataFrame, one for all otherwise.
    columns : tuple, default=()
        Names of a DataFrame's columns.
    device : str, default="cpu"
        Of a torch tensor.
    kinds : tuple of {"number", "category", "boolean", "datetime", "timedelta", "identifier", "empty"}, default=()
        What the columns hold.
    levels : tuple of ndarray, default=()
        Values of each category column, in order (of a categorical dtype all its categories, also unused ones; else
        sorted); entries are positions in them. Numbers and dates that were named as categories have their float64
        numbers here; dates, intervals and other objects that a categorical dtype holds are text. Empty for other
        columns.
    level_dtypes : tuple of str, default=()
        Of the categories of a categorical dtype.
    ordered : ndarray of bool, default=empty
        Whether a categorical dtype is ordered.
    cell_types, marks : tuple of str, default=()
        What the entries of object columns are, and how these mark missing ones: "None", "nan", "NA" or "NaT".
    units, ticks, timezones : tuple of str, default=()
        For dates and durations: the coarsest unit ("D", "h", "m", "s", "ms", "us", "ns") that holds all of them
        exactly, their dtype in numpy, and their time zone. The number of a date counts these units.
    origins : ndarray of int, default=empty
        The date with the number 0, the earliest one, in the unit of `ticks`.
    walls : ndarray of bool, default=empty
        Whether dates are counted on the clock of their time zone, not in UTC.
    keys : tuple of KeyForm or None, default=()
        The form of the keys in the columns that hold keys, which `wrap` fills with fresh ones; () if none does.
    empty_keys : bool, default=False
        Whether `wrap` leaves these columns empty.
    zeros : tuple of int, default=()
        What has the number 0, of whole numbers beyond 2^53; 0 for all others.

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
    levels: tuple[AnyArray, ...] = ()
    level_dtypes: tuple[str, ...] = ()
    ordered: Mask = field(default_factory=lambda: np.empty(0, dtype=bool))
    cell_types: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    ticks: tuple[str, ...] = ()
    timezones: tuple[str, ...] = ()
    origins: Integers = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    walls: Mask = field(default_factory=lambda: np.empty(0, dtype=bool))
    keys: tuple[KeyForm | None, ...] = ()
    empty_keys: bool = field(default=False, metadata=NOT_STORED)
    zeros: tuple[int, ...] = ()

    @classmethod
    def fit(cls, X: Any, categorical_features: Any = "auto", identifier_columns: Any = None) -> TableContainer:
        """Find out what the columns of a table hold.

        Parameters
        ----------
        X : DataFrame (pandas, polars, or any that narwhals reads), ndarray, Tensor, or list of rows
            Arrays and columns of objects are judged column by column.
        categorical_features : "auto", None, or a list of names, indices or booleans, default="auto"
            "auto" takes text, booleans and pandas' category dtype for categories. A list names further ones,
            whatever their dtype. None allows none: booleans are numbers, and text is an error.
        identifier_columns : "auto", None, or a list of names, indices or booleans, default=None
            Columns of keys. "auto" finds them, with a warning.

        Returns
        -------
        TableContainer
            Knows what the columns hold.

        Raises
        ------
        ValueError
            For a wrong `categorical_features`, and for columns of mixed types, of dtypes that are not understood, or of
            text that looks like an identifier (more than 100 values, and in more than half of the rows another), like
            numbers or like dates and is not named in `categorical_features`. The error names all such columns.
        TypeError
            If an entry is a list, dict or another object.
        """
        table = as_table(X)
        container = Container.of(table)
        if form := form_of(X):
            container = replace(container, kind=form, dtypes=form_dtypes(X, container.dtypes))
        names, d = container.columns, table.shape[1]
        named = named_columns("categorical_features", categorical_features, names, d)
        if container.has_columns:  # what pyarrow calls a dictionary is a category to others
            named |= np.array([dtype.startswith("dictionary<") for dtype in container.dtypes])
        keys = find_keys(table, container, identifier_columns, named)
        if holds_floats(table) and container.dtypes[0] != "bool" and not named.any() and not any(keys):
            return cls.of_numbers(container, table.shape[1])

        def fit(j: int, raw: RawColumn, where: str) -> ColumnFormat:
            return IDENTIFIER if keys[j] else fit_column(raw, where, bool(named[j]), categorical_features is None)

        formats = each_column(table, names or range(d), fit)
        return replace(cls._of(container, formats), keys=keys if any(keys) else ())

    @classmethod
    def of_numbers(cls, container: Container, n_columns: int) -> TableContainer:
        """Describe a table whose columns are all numbers.

        Parameters
        ----------
        container : Container
            What the table came in.
        n_columns : int
            Number of columns.

        Returns
        -------
        TableContainer
            Knows that the columns hold numbers.
        """
        return cls._of(container, [NUMBER] * n_columns)

    @classmethod
    def _of(cls, container: Container, formats: list[ColumnFormat]) -> TableContainer:
        def parts(names: dict[str, str], owners: Sequence[Any]) -> dict[str, Any]:
            return {field: tuple(getattr(owner, name) for owner in owners) for field, name in names.items()}

        grids = [column.dates or DateGrid("", "", 0) for column in formats]
        found = parts(_OF_COLUMNS, formats) | parts(_OF_GRIDS, grids)
        arrays = {"ordered": bool, "origins": np.int64, "walls": bool}
        found |= {field: np.array(found[field], dtype=dtype) for field, dtype in arrays.items()}
        return cls(**vars(container), **found)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored table do not fit each other."""
        super().check()
        lengths = {field: len(getattr(self, field)) for field in (*_OF_COLUMNS, *_OF_GRIDS)}
        require(lengths.pop("zeros") in (0, len(self.kinds)), "table")  # older files have none
        require(set(lengths.values()) == {len(self.kinds)}, "table")
        forms = self.keys or (None,) * len(self.kinds)
        require([kind == "identifier" for kind in self.kinds] == [form is not None for form in forms], "keys")
        require(len(self.columns) in (0, len(self.kinds)), "table")
        for column in self._formats:
            column.check()

    @cached_property
    def _formats(self) -> tuple[ColumnFormat, ...]:
        grids = zip(self.units, self.ticks, self.origins.tolist(), self.timezones, self.walls.tolist(), strict=True)
        dates = [DateGrid(*grid) if grid[0] else None for grid in grids]
        kinds = (self.kinds, self.levels, self.level_dtypes, self.ordered.tolist(), self.cell_types, self.marks)
        zeros = self.zeros or (0,) * len(dates)
        return tuple(ColumnFormat(*column) for column in zip(*kinds, dates, zeros, strict=True))

    @property
    def labels(self) -> Sequence[Any]:
        """Names of the columns, or their numbers where they have none."""
        return self.columns or range(len(self.kinds))

    @property
    def categorical(self) -> Mask:
        """Which columns are categories; booleans count, (d,)."""
        return np.array([kind in ("category", "boolean") for kind in self.kinds], dtype=bool)

    @property
    def is_key(self) -> Mask:
        """Which columns hold keys, (d,)."""
        return np.array([kind == "identifier" for kind in self.kinds], dtype=bool)

    @property
    def key_names(self) -> list[Any]:
        """Names of these, or their numbers."""
        return [label for label, is_key in zip(self.labels, self.is_key, strict=True) if is_key]

    @property
    def plain(self) -> bool:
        """Whether all columns are numbers that floats hold, of numeric dtypes in an array, tensor or pandas frame."""
        is_real = self.kind == "torch" or all(map(is_real_dtype, self.dtypes))
        return self.kind in ("numpy", "torch", "dataframe") and is_real and self._holds_floats

    @property
    def _holds_floats(self) -> bool:
        """Whether all columns are numbers that floats hold."""
        return set(self.kinds) == {"number"} and not any(self.zeros)

    def dates_of(self, column_position: int) -> DateGrid | None:
        """Look up what the numbers of a column of dates or durations count.

        Parameters
        ----------
        column_position : int
            Position of the column.

        Returns
        -------
        DateGrid or None
            None for other columns.
        """
        return self._formats[column_position].dates

    def n_levels(self, column_position: int) -> int:
        """Count the categories that a column can hold.

        Parameters
        ----------
        column_position : int
            Position of the column.

        Returns
        -------
        int
            At least 2.
        """
        return max(2, len(self.levels[column_position]))

    def read(self, X: Any, unknown: str = "error") -> Array:
        """Turn a table with the same columns into numbers.

        Parameters
        ----------
        X : DataFrame, ndarray, Tensor, or list of rows
            The table.
        unknown : {"error", "flag"}, default="error"
            What becomes of categories that training has not seen: an error, or -1.

        Returns
        -------
        ndarray of shape (n, d)
            Numbers; NaN where an entry is missing.

        Raises
        ------
        ValueError
            For another number of columns, categories that training has not seen, and entries of another type, with
            all such columns and the first row of each.
        TypeError
            If an entry is a list, dict or another object.
        """
        table = as_table(X)
        if table.shape[1] != len(self.kinds):
            raise ValueError(f"X has {table.shape[1]} columns, but the table of training had {len(self.kinds)}.")
        if self._holds_floats and holds_floats(table):
            return as_float64(table)

        def read(j: int, raw: RawColumn, where: str) -> Array:
            return read_column(self._formats[j], raw, where, unknown)

        return np.stack(each_column(table, self.labels, read), axis=1)

    def wrap(self, values: Any, taken: Mapping[int, Collection[Any]] | None = None) -> Any:
        """Make a table like that of `fit` of numbers.

        Parameters
        ----------
        values : array-like of shape (n, d)
            Categories are the nearest positions, and dates lie on their unit.
        taken : mapping from positions of columns to collections, optional
            Keys that are not fresh.

        Returns
        -------
        ndarray, Tensor, DataFrame, or what else the table of `fit` was
            NaN becomes what the column marks missing entries with: NaN, None, <NA> or NaT. Where there is one, integers
            that cannot hold it become float64, and booleans objects with None.
        """
        values = np.asarray(values, dtype=np.float64)
        if self.kind == "masked":
            mask = np.isnan(values) | (self.is_key & self.empty_keys)
            data = replace(self, empty_keys=False).formless(np.where(mask, 0.0, values), taken)
            return np.ma.masked_array(data, mask)
        return in_form(self.kind, self.formless(values, taken), self.dtypes)

    def formless(self, values: Array, taken: Mapping[int, Collection[Any]] | None = None) -> Any:
        """Make a frame, an array or a tensor of numbers, whatever form the table had.

        Parameters
        ----------
        values, taken : ndarray of shape (n, d), mapping
            As in `wrap`.

        Returns
        -------
        ndarray, Tensor or DataFrame
            That of `wrap`, before it is given its form.
        """
        if self.kind in FORMS:
            return replace(self, kind=FORMS[self.kind]).formless(values, taken)
        values = np.where(self.is_key, np.nan, values) if self.empty_keys else values
        fresh = fresh_keys(self.keys, values, taken)
        return (frame_of if self.has_columns else array_of)(self, self._formats, values, fresh)

    def entries(self, column_position: int, numbers: Array) -> AnyArray:
        """Turn numbers of one column into what they stand for.

        Parameters
        ----------
        column_position : int
            Position of the column.
        numbers : ndarray of shape (n,)
            NaN where an entry is missing.

        Returns
        -------
        ndarray of shape (n,)
            Entries: float64 for numbers and booleans, dates as such, and objects for categories and object columns.
        """
        return write_column(self._formats[column_position], numbers)

    def entry(self, column_position: int, number: float) -> Any:
        """Tell what a number of a column stands for, as the user would write it.

        Parameters
        ----------
        column_position : int
            Position of the column.
        number : float
            NaN for a missing entry.

        Returns
        -------
        Any
            The entry.
        """
        entry = self.entries(column_position, np.array([number]))[0]
        return entry.item() if isinstance(entry, np.generic) and entry.dtype.kind in "biuf" else entry

    def position(self, column: Any) -> int:
        """Find a column by its name, or by number where columns have no names.

        Parameters
        ----------
        column : Any
            Name or number.

        Returns
        -------
        int
            Position of the column.

        Raises
        ------
        ValueError
            If there is no such column, or more than one; lists those there are.
        """
        return position_of(column, self.columns, len(self.kinds))

    def numbers_of(self, column_position: int, values: Any) -> Array:
        """Turn entries of one column into numbers.

        Parameters
        ----------
        column_position : int
            Position of the column.
        values : Any
            A value, or a sequence of values. Dates may be text such as "2024-03-01"; without a time zone they are on
            the clock of the column's.

        Returns
        -------
        ndarray of shape (n,)
            Numbers; NaN where an entry is missing.

        Raises
        ------
        ValueError
            For a category that training has not seen, text where numbers are expected, and the like.
        TypeError
            For a list, dict or another object as one value.
        """
        column, where = self._formats[column_position], f"given value of column {self.labels[column_position]!r}"
        if column.kind == "identifier":
            raise ValueError(f"{where}: it holds keys, which are not learned and say nothing of a row; leave it out.")
        raw = parse_text(raw_entries(values, where), column.dates, column.entry_type, where)
        return read_column(column, raw, where)

    def tolerance(self, n_columns: int) -> Array:
        numeric = np.array([kind == "number" for kind in self.kinds], dtype=bool)
        return np.where(numeric, super().tolerance(n_columns), 0.0)

    def narrow(self, values: AnyArray) -> AnyArray:
        return super().narrow(values) if self.plain else values
