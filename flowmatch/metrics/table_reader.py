"""Tables with numbers, categories, dates and missing entries, read as floats; and the space to measure them in."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.metrics._samples import FloatArray, as_samples, check_same_columns, is_frame
from flowmatch.tables.reading import missing_entries

MAX_LEVELS = 50
"""Levels of a column that distances and associations distinguish: the most frequent; all others count as one."""
SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class SampleTables:
    """Samples with the same columns, every entry a float.

    Attributes
    ----------
    names : list of str
        Of the d columns.
    kinds : list of {"number", "date", "category"}
        What each column holds.
    levels : list of list of str
        Of each column of categories, the real rows' most frequent first, those that they lack last; empty for others.
    rows : dict of str to ndarray of shape (n, d)
        The entries of each sample: numbers, days since 1970 for dates and times, positions in `levels`; NaN where
        missing.
    """

    names: list[str]
    kinds: list[str]
    levels: list[list[str]]
    rows: dict[str, FloatArray]

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """Mask of the columns of categories, (d,)."""
        return np.array([kind == "category" for kind in self.kinds], dtype=bool)

    def coarse(self, rows: FloatArray) -> FloatArray:
        """Rows whose categories beyond the `MAX_LEVELS` most frequent count as one."""
        return np.where(self.is_category, np.minimum(rows, MAX_LEVELS), rows)


@dataclass(frozen=True)
class Encoding:
    """The space that mixed rows are compared in.

    Numeric columns are standardized by the mean and standard deviation of the real rows' observed entries (constant
    columns by their mean only), and 0 where missing; a column that has missing entries gets an indicator of them beside
    it. Categories are one-hot over sqrt(2), so that two different ones are at distance 1, and missing is a level of its
    own. The Euclidean distance of two rows is then, squared, the sum of squared differences of their standardized
    values plus the number of categories in which they differ: that of k-prototypes (Huang, 1998) with weight 1.
    """

    tables: SampleTables
    center: FloatArray
    scale: FloatArray
    marked: NDArray[np.bool_]
    """Columns with a missing entry in any sample, (d,)."""

    @classmethod
    def of(cls, tables: SampleTables) -> Encoding:
        """Learn center and scale of the numeric columns from the real rows."""
        real = tables.rows["real"]
        real = np.where(tables.is_category | np.isnan(real).all(axis=0), 0.0, real)
        constant = np.nanmin(real, axis=0) == np.nanmax(real, axis=0)  # their std may be 1e-17 instead of 0
        scale = np.where(constant, 1.0, np.nanstd(real, axis=0))
        marked = np.any([np.isnan(rows).any(axis=0) for rows in tables.rows.values()], axis=0)
        return cls(tables, np.nanmean(real, axis=0), scale, marked)

    def __call__(self, rows: FloatArray, leave_out: int | None = None) -> FloatArray:
        """Encode rows (n, d) as (n, k), numeric columns first, without the column `leave_out`."""
        kept = np.arange(len(self.tables.names)) != (-1 if leave_out is None else leave_out)
        category, number = self.tables.is_category & kept, ~self.tables.is_category & kept
        standardized = (rows[:, number] - self.center[number]) / self.scale[number]
        blocks = [np.nan_to_num(standardized), np.isnan(rows[:, number & self.marked]).astype(np.float64)]
        coarse = self.tables.coarse(rows)
        for column in np.flatnonzero(category):
            n_levels = min(len(self.tables.levels[column]), MAX_LEVELS + 1)
            positions = np.where(np.isnan(coarse[:, column]), n_levels, coarse[:, column])
            blocks.append((positions[:, None] == np.arange(n_levels + self.marked[column])) * 0.5**0.5)
        return np.concatenate(blocks, axis=1)


def read_tables(
    samples: Mapping[str, Any], categorical_features: Any = "auto", y: Sequence[Any] | None = None
) -> SampleTables:
    """Read samples with the same columns; the first is the real one, whose columns say what all of them are.

    Parameters
    ----------
    samples : mapping of str to array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        By the parameter's name, as errors call them; the first one's is "real".
    categorical_features : "auto", None or array-like of str, int or bool, default="auto"
        See `report`.
    y : sequence of array-like of shape (n,), optional
        A last column for each sample.

    Returns
    -------
    SampleTables
        The samples as floats, with the names, kinds and levels of their columns.

    Raises
    ------
    ValueError
        If the samples differ in their columns, are empty, hold infinity, or text where numbers are expected.
    """
    columns = {side: _columns(X, side) for side, X in samples.items()}
    first = next(iter(samples))
    for side in list(samples)[1:]:
        check_same_columns(samples[first], samples[side], len(columns[first]), len(columns[side]), (first, side))
    names = _unique_names(samples.values(), len(columns[first]))
    category = _categories(categorical_features, names, columns[first])
    if y is not None:
        for (side, sample), values in zip(columns.items(), y, strict=True):
            sample.append(_column(values))
            expected, shape = sample[0].values.shape, sample[-1].values.shape
            if shape != expected:
                raise ValueError(f"target for {side} has shape {shape}; expected {expected}, one value for each row.")
        names, category = [*names, _name_of_target(y, names)], [*category, columns[first][-1].category]
    kinds, levels, entries = [], [], []
    for name, is_category, *sides in zip(names, category, *columns.values(), strict=True):
        is_date = sides[0].values.dtype.kind == "M"
        kinds.append("category" if is_category else "date" if is_date else "number")
        if is_category:
            found, values = _levels(sides)
        else:
            found, values = [], [_numeric(column, name, side) for side, column in zip(columns, sides, strict=True)]
        levels.append(found)
        entries.append(values)
    rows = {side: np.column_stack(values) for side, values in zip(columns, zip(*entries, strict=True), strict=True)}
    return SampleTables(names, kinds, levels, rows)


def find_column(parameter: str, column: Any, names: list[str]) -> int:
    """Position of a column given by name or by position.

    Raises
    ------
    ValueError
        If there is no such column; the message names the parameter and lists the columns.
    """
    if str(column) in names:
        return names.index(str(column))
    if isinstance(column, numbers.Integral) and -len(names) <= int(column) < len(names):
        return int(column) % len(names)
    shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    raise ValueError(f"{parameter} names the column {column!r}, which there is not. The columns are {shown}.")


class _Column(NamedTuple):
    """A column as it came: `values` with a mask of the missing ones; `category` says how it describes itself."""

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    category: bool


def _columns(X: Any, name: str) -> list[_Column]:
    """The columns of a sample."""
    if is_frame(X):
        if 0 in X.shape:
            raise ValueError(f"{name} is empty: its shape is {X.shape}. Samples need at least one row and one column.")
        return [_column(X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]) for j in range(X.shape[1])]
    array = X if isinstance(X, torch.Tensor) else np.asarray(X)
    if isinstance(array, torch.Tensor) or array.dtype.kind not in "USOMmf" or array.ndim != 2 or not array.size:
        array = as_samples(array, name)
    elif array.dtype.kind in "US" and not isinstance(X, np.ndarray):
        array = np.asarray(X, dtype=object)  # a list of lists: numbers among text became text
    return [_column(values) for values in array.T]


def _column(values: Any) -> _Column:
    """A column in any container; objects are booleans, numbers or dates if all of them are, and else text."""
    is_category = str(getattr(values, "dtype", "")) == "category"
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    elif hasattr(values, "isna") and getattr(values.dtype, "kind", "O") == "M":
        values = values.to_numpy(dtype="M8[ns]")  # of pandas, with a time zone maybe
    array = np.asarray(values)
    missing = missing_entries(array)
    if array.dtype.kind == "O":
        observed = array[~missing].tolist()
        types = set(map(type, observed))
        if all(issubclass(kind, (numbers.Number, np.bool_)) for kind in types):
            plain = np.array(observed)
            plain = plain.astype(np.float64) if plain.dtype.kind == "O" else plain
        elif all(issubclass(kind, (datetime.date, np.datetime64)) for kind in types):
            plain = np.array(observed, dtype="datetime64[us]")
        else:
            plain = np.array([str(value) for value in observed])
        is_category = is_category or not observed
        array = np.zeros(len(array), dtype=plain.dtype)
        array[~missing] = plain
    return _Column(array, missing, is_category or array.dtype.kind in "USb")


def _numeric(column: _Column, name: str, side: str) -> FloatArray:
    """The entries of a column of numbers or dates as float64, NaN where missing."""
    values = column.values
    if values.dtype.kind in "Mm":
        values = values.astype(f"{values.dtype.kind}8[ns]").astype(np.int64) / (1e9 * SECONDS_A_DAY)
    elif values.dtype.kind in "US" and not column.missing.all():
        first = int(np.argmin(column.missing))
        raise ValueError(
            f"{side} holds something else than numbers in column {name!r}, such as {str(values[first])!r} in row "
            f"{first}. It is read as a column of numbers, as categorical_features or the real rows say."
        )
    found = np.where(column.missing, np.nan, 0.0 if values.dtype.kind in "US" else values).astype(np.float64)
    if np.isinf(found).any():
        n_infinite = np.isinf(found).sum()
        raise ValueError(f"{side} holds infinity in {n_infinite} of its {len(found)} rows, in column {name!r}.")
    return found + 0.0  # -0.0 becomes 0.0


def _levels(sides: list[_Column]) -> tuple[list[str], list[FloatArray]]:
    """Levels of a column of categories, and the position of each entry among them, NaN where missing, by sample."""
    boolean = any(column.values.dtype.kind == "b" for column in sides)
    texts, inverses = zip(*(_texts(column, boolean) for column in sides), strict=True)
    counts = np.bincount(inverses[0], minlength=len(texts[0]))
    frequent = [texts[0][i] for i in np.argsort(-counts, kind="stable")]
    levels = list(dict.fromkeys([*frequent, *(text for others in texts[1:] for text in others)]))
    position = {level: float(i) for i, level in enumerate(levels)}
    found = []
    for column, text, inverse in zip(sides, texts, inverses, strict=True):
        positions = np.full(len(column.values), np.nan)
        positions[~column.missing] = np.array([position[t] for t in text])[inverse]
        found.append(positions)
    return levels, found


def _texts(column: _Column, boolean: bool) -> tuple[list[str], NDArray[np.intp]]:
    """Distinct observed values as text, in order, and the position of each.

    2.0 and 2 are one level, and so are 1 and True in a `boolean` column.
    """
    observed = column.values[~column.missing]
    if boolean and observed.dtype.kind in "iuf" and np.isin(observed, (0, 1)).all():
        observed = observed.astype(bool)
    distinct, inverse = np.unique(observed, return_inverse=True)
    whole = distinct.dtype.kind == "f"
    return [str(int(v)) if whole and v == int(v) else str(v) for v in distinct.tolist()], inverse


def _categories(categorical_features: Any, names: list[str], columns: list[_Column]) -> list[bool]:
    """Which columns hold categories."""
    if isinstance(categorical_features, str) and categorical_features == "auto":
        return [column.category for column in columns]
    chosen = [] if categorical_features is None else np.asarray(categorical_features, dtype=object).ravel().tolist()
    if chosen and all(isinstance(item, (bool, np.bool_)) for item in chosen):
        if len(chosen) != len(names):
            raise ValueError(f"categorical_features is a mask of {len(chosen)} columns; the table has {len(names)}.")
        return [bool(item) for item in chosen]
    positions = {find_column("categorical_features", item, names) for item in chosen}
    return [column in positions for column in range(len(names))]


def _unique_names(samples: Any, n_columns: int) -> list[str]:
    """The first DataFrame's column names if they differ from each other, else x0, x1, and so on."""
    names = next(([str(column) for column in X.columns] for X in samples if is_frame(X)), [])
    return names if len(set(names)) == n_columns else [f"x{column}" for column in range(n_columns)]


def _name_of_target(y: Sequence[Any], names: list[str]) -> str:
    """The name of a target that is a Series, or "y", followed by as many underscores as make it a new one."""
    name = str(getattr(y[0], "name", None) or "y")
    while name in names:
        name += "_"
    return name
