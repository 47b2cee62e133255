"""Tables of numbers, categories, dates and missing cells, read as numbers; and the space to measure them in."""

from __future__ import annotations

import datetime
import numbers
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.metrics._samples import FloatArray, as_samples, check_same_columns, column_names, is_frame

MAX_LEVELS = 50
"""Levels of a column that distances and associations tell apart: the most frequent ones; all others count as one."""
SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class Tables:
    """Samples with the same columns, every cell a number.

    Attributes
    ----------
    names : list of str
        Of the d columns.
    levels : list of (list of str, or None)
        Of each column of categories, the real rows' most frequent first, those that they lack last; None for numbers.
    n_known : list of int
        How many levels of each column the real rows have; 0 for numbers.
    is_date : list of bool
        Which columns of numbers are days since 1970.
    rows : dict of str to ndarray of shape (n, d)
        The cells of each sample: numbers, days for dates and times, positions in `levels`; NaN where missing.
    """

    names: list[str]
    levels: list[list[str] | None]
    n_known: list[int]
    is_date: list[bool]
    rows: dict[str, FloatArray]

    def kind(self, column: int) -> str:
        """What a column holds: "number", "date" or "category"."""
        return "category" if self.levels[column] is not None else "date" if self.is_date[column] else "number"

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """Mask of the columns of categories, (d,)."""
        return np.array([levels is not None for levels in self.levels], dtype=bool)

    def coarse(self, rows: FloatArray) -> FloatArray:
        """Rows whose categories beyond the `MAX_LEVELS` most frequent count as one."""
        return np.where(self.is_category, np.minimum(rows, MAX_LEVELS), rows)


@dataclass(frozen=True)
class Encoding:
    """The space that mixed rows are compared in.

    Numbers are standardised by the mean and standard deviation of the real rows' observed cells (constant columns by
    their mean only), and 0 where missing; a column that has missing cells gets an indicator of them beside it.
    Categories are one-hot over sqrt(2), so that two different ones are at distance 1, and missing is a level of its
    own. The Euclidean distance of two rows is then, squared, the sum of squared differences of their standardised
    numbers plus the number of categories in which they differ: that of k-prototypes (Huang, 1998) with weight 1.
    """

    tables: Tables
    center: FloatArray
    scale: FloatArray
    marked: NDArray[np.bool_]
    """Columns with a missing cell in any sample, (d,)."""

    @classmethod
    def of(cls, tables: Tables) -> Encoding:
        """Learn center and scale from the real rows of numbers."""
        real = np.where(tables.is_category, 0.0, tables.rows["real"])
        real = np.where(np.isnan(real).all(axis=0), 0.0, real)
        constant = np.nanmin(real, axis=0) == np.nanmax(real, axis=0)  # their std may be 1e-17 instead of 0
        scale = np.where(constant, 1.0, np.nanstd(real, axis=0))
        marked = np.any([np.isnan(rows).any(axis=0) for rows in tables.rows.values()], axis=0)
        return cls(tables, np.nanmean(real, axis=0), scale, marked)

    def __call__(self, rows: FloatArray, leave_out: int | None = None) -> FloatArray:
        """Encode rows (n, d) as (n, k), numbers first; `leave_out` is a column to do without."""
        kept = np.arange(len(self.tables.names)) != (-1 if leave_out is None else leave_out)
        category, number = self.tables.is_category & kept, ~self.tables.is_category & kept
        standardised = (rows[:, number] - self.center[number]) / self.scale[number]
        absent = np.isnan(rows[:, number & self.marked]).astype(np.float64)
        blocks = [np.nan_to_num(standardised), absent]
        coarse = self.tables.coarse(rows)
        for column in np.flatnonzero(category):
            n_levels = min(len(self.tables.levels[column] or ()), MAX_LEVELS + 1)
            positions = np.where(np.isnan(coarse[:, column]), n_levels, coarse[:, column]).astype(np.intp)
            one_hot = np.zeros((len(rows), n_levels + int(self.marked[column])))
            one_hot[np.arange(len(rows)), positions] = 0.5**0.5
            blocks.append(one_hot)
        return np.concatenate(blocks, axis=1)


@dataclass(frozen=True)
class _Cells:
    """A column as it came: `values` with a mask of the missing ones; `category` says how it describes itself."""

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    category: bool


def read_tables(
    samples: Mapping[str, Any], categorical_features: Any = "auto", y: Sequence[Any] | None = None
) -> Tables:
    """Read samples with the same columns; the first is the real one, whose columns say what all of them are.

    Parameters
    ----------
    samples : mapping of str to array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        By the parameter's name, as errors call them; the first one's is "real".
    categorical_features : "auto", None or array-like of str, int or bool, default="auto"
        See `report`.
    y : sequence of array-like of shape (n,), optional
        A last column for each sample.

    Raises
    ------
    ValueError
        If the samples differ in their columns, are empty, hold infinity, or text where numbers are expected.
    """
    columns = {name: _columns(X, name) for name, X in samples.items()}
    first = next(iter(samples))
    for name in list(samples)[1:]:
        check_same_columns(samples[first], samples[name], len(columns[first]), len(columns[name]), (first, name))
    names = _unique_names(samples.values(), len(columns[first]))
    category = _categories(categorical_features, names, columns[first])
    if y is not None:
        names = [*names, _name_of_target(y, names)]
        for (side, cells), values in zip(columns.items(), y, strict=True):
            cells.append(_target_cells(values, side, len(cells[0].values)))
        category = [*category, columns[first][-1].category]
    levels, n_known, rows = [], [], []
    for column, (name, is_category) in enumerate(zip(names, category, strict=True)):
        cells_by_side = {side: cells[column] for side, cells in columns.items()}
        if is_category:
            found, known, values = _codes(list(cells_by_side.values()))
        else:
            found, known, values = None, 0, [_numbers(cells, side, name) for side, cells in cells_by_side.items()]
        levels.append(found)
        n_known.append(known)
        rows.append(values)
    sides = {side: np.column_stack([values[i] for values in rows]) for i, side in enumerate(columns)}
    dates = [cells.values.dtype.kind == "M" and not category[j] for j, cells in enumerate(columns[first])]
    return Tables(names, levels, n_known, dates, sides)


def _columns(X: Any, name: str) -> list[_Cells]:
    """The cells of a sample, a column each."""
    if is_frame(X):
        if 0 in X.shape:
            raise ValueError(f"{name} is empty: its shape is {X.shape}. Samples need at least one row and one column.")
        return [_series_cells(X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]) for j in range(X.shape[1])]
    array = X if isinstance(X, torch.Tensor) else np.asarray(X)
    if not isinstance(array, torch.Tensor) and array.dtype.kind in "USOMmf" and array.ndim == 2 and array.size:
        if array.dtype.kind in "US" and not isinstance(X, np.ndarray):
            array = np.asarray(X, dtype=object)  # a list of lists: numbers among text became text
        return [_array_cells(values) for values in array.T]
    flat = as_samples(array, name)
    nowhere = np.zeros(len(flat), dtype=bool)
    return [_Cells(values, nowhere, False) for values in flat.T]


def _series_cells(series: Any) -> _Cells:
    """Cells of a column of a DataFrame, of pandas by its own methods."""
    if not hasattr(series, "isna"):
        return _array_cells(series.to_numpy())
    missing = series.isna().to_numpy(dtype=bool)
    kind, categories = getattr(series.dtype, "kind", "O"), str(series.dtype) == "category"
    if kind in "Mm" and not categories:
        return _Cells(series.to_numpy(dtype=f"{'datetime' if kind == 'M' else 'timedelta'}64[ns]"), missing, False)
    if kind in "iuf" and not categories:
        return _Cells(series.to_numpy(dtype=np.float64, na_value=np.nan), missing, False)
    cells = _array_cells(series.to_numpy(dtype=object), missing)
    return _Cells(cells.values, missing, cells.category or categories)


def _array_cells(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> _Cells:
    """Cells of a plain array; of objects, those that are all real numbers or all dates are told from the others."""
    if missing is None:
        missing = _missing(values)
    if values.dtype.kind != "O":
        return _Cells(values, missing, values.dtype.kind in "USb")
    observed = values[~missing].tolist()
    if not observed:
        return _Cells(np.full(len(values), np.nan), missing, True)
    plain = np.array(observed) if _is_flat(observed) else np.array([str(value) for value in observed])
    if plain.dtype.kind == "O":
        plain = _plain(observed)
    filled = np.zeros(len(values), dtype=plain.dtype)
    filled[~missing] = plain
    return _Cells(filled, missing, plain.dtype.kind in "USb")


def _is_flat(observed: list[Any]) -> bool:
    return not any(issubclass(kind, (list, tuple, np.ndarray)) for kind in set(map(type, observed)))


def _plain(observed: list[Any]) -> NDArray[Any]:
    """Objects that NumPy has no dtype for, as dates, as numbers or as text."""
    kinds = set(map(type, observed))
    if all(issubclass(kind, datetime.date) for kind in kinds):
        return np.array(observed, dtype="datetime64[us]")
    if all(issubclass(kind, numbers.Number) for kind in kinds):
        return np.array(observed, dtype=np.float64)
    return np.array([str(value) for value in observed])


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind in "fc":
        return np.isnan(values)
    if values.dtype.kind in "Mm":
        return np.isnat(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    if pandas := sys.modules.get("pandas"):  # unless it was imported there is no pandas.NA either
        return np.asarray(pandas.isna(values), dtype=bool)
    return np.frompyfunc(lambda value: value is None or value != value, 1, 1)(values).astype(bool)


def _numbers(cells: _Cells, side: str, name: str) -> FloatArray:
    """The cells of a column of numbers or dates as float64, NaN where missing."""
    values = cells.values
    if values.dtype.kind in "Mm":
        values = values.astype(f"{values.dtype.kind}8[ns]").astype(np.int64) / (1e9 * SECONDS_A_DAY)
    elif values.dtype.kind in "US" and not cells.missing.all():
        first = int(np.argmin(cells.missing))
        raise ValueError(
            f"{side} holds something else than numbers in column {name!r}, such as {str(values[first])!r} in row "
            f"{first}. It is read as a column of numbers, as categorical_features or the real rows say."
        )
    number = np.where(cells.missing, np.nan, 0.0 if values.dtype.kind in "US" else values).astype(np.float64)
    if np.isinf(number).any():
        raise ValueError(
            f"{side} holds infinity in {np.isinf(number).sum()} of its {len(number)} rows, in column {name!r}. "
            f"Expected finite numbers, or NaN for a missing cell."
        )
    return number + 0.0  # -0.0 becomes 0.0


def _codes(sides: list[_Cells]) -> tuple[list[str], int, list[FloatArray]]:
    """Levels of a column of categories, how many of them the first sample has, and the position of each cell."""
    boolean = any(cells.values.dtype.kind == "b" for cells in sides)
    texts, inverses = zip(*(_texts(cells, boolean) for cells in sides), strict=True)
    counts = np.bincount(inverses[0], minlength=len(texts[0]))
    known = [texts[0][i] for i in np.argsort(-counts, kind="stable")]
    levels = list(dict.fromkeys([*known, *(text for others in texts[1:] for text in others)]))
    position = {level: i for i, level in enumerate(levels)}
    columns = []
    for cells, text, inverse in zip(sides, texts, inverses, strict=True):
        column = np.full(len(cells.values), np.nan)
        column[~cells.missing] = np.array([position[t] for t in text], dtype=np.float64)[inverse]
        columns.append(column)
    return levels, len(known), columns


def _texts(cells: _Cells, boolean: bool) -> tuple[list[str], NDArray[np.intp]]:
    """Distinct observed values as text, in order, and the position of each.

    2.0 and 2 are one level, and so are 1 and True in a `boolean` column.
    """
    observed = cells.values[~cells.missing]
    if boolean and observed.dtype.kind in "iuf" and np.isin(observed, (0, 1)).all():
        observed = observed.astype(bool)
    distinct, inverse = np.unique(observed, return_inverse=True)
    whole = distinct.dtype.kind == "f"
    return [str(int(v)) if whole and v == int(v) else str(v) for v in distinct.tolist()], inverse


def _categories(categorical_features: Any, names: list[str], columns: list[_Cells]) -> list[bool]:
    """Which columns hold categories."""
    if isinstance(categorical_features, str) and categorical_features == "auto":
        return [cells.category for cells in columns]
    chosen = [] if categorical_features is None else np.asarray(categorical_features, dtype=object).ravel().tolist()
    if chosen and all(isinstance(item, (bool, np.bool_)) for item in chosen):
        if len(chosen) != len(names):
            raise ValueError(f"categorical_features is a mask of {len(chosen)} columns; the table has {len(names)}.")
        return [bool(item) for item in chosen]
    positions = {find_column("categorical_features", item, names) for item in chosen}
    return [column in positions for column in range(len(names))]


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


def _unique_names(samples: Any, n_columns: int) -> list[str]:
    """Take a DataFrame's column names if they tell the columns apart, else x0, x1, and so on."""
    names = next((names for names in map(column_names, samples) if names), [])
    return names if len(set(names)) == n_columns else [f"x{column}" for column in range(n_columns)]


def _name_of_target(y: Sequence[Any], names: list[str]) -> str:
    name = str(getattr(y[0], "name", None) or "y")
    while name in names:
        name += "_"
    return name


def _target_cells(y: Any, side: str, n_rows: int) -> _Cells:
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu().numpy()
    cells = _series_cells(y) if hasattr(y, "isna") or hasattr(y, "is_null") else _array_cells(np.asarray(y))
    if cells.values.shape != (n_rows,):
        raise ValueError(
            f"target for {side} has shape {cells.values.shape}; expected ({n_rows},), one value for each of its rows."
        )
    return cells
