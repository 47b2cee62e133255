"""Conditions of one or several columns, numbers or labels."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from flowmatch.core.storable import require, storable
from flowmatch.core.types import AnyArray, Array, Array32, Mask
from flowmatch.preprocessing import conditions
from flowmatch.preprocessing.blurring import blurred_rows
from flowmatch.preprocessing.conditions import ConditionEncoder
from flowmatch.preprocessing.scaling import row_shares
from flowmatch.tables.containers import Container
from flowmatch.tables.dates import localize
from flowmatch.tables.entries import index_entries
from flowmatch.tables.frames import objects
from flowmatch.tables.table import TableContainer

Columns = tuple[TableContainer | None, ...]
"""What stands behind the numbers of each column, None where they are all there is; empty if that is so everywhere."""


@dataclass(frozen=True, eq=False)
class ColumnEncoder(ConditionEncoder):
    """Columns of numbers standardized, columns of labels one-hot, and a 1 that tells a vector from "no condition".

    Parameters
    ----------
    container : Container
        What the conditions came in.
    mean, scale : ndarray of shape (k,)
        Of the columns of numbers; 0 and 1 for labels.
    rows, shares : ndarray of shape (n, k) and (n,)
        Rows like the training conditions, labels as their positions, and their weights, for `draw` to repeat: see
        `flowmatch.preprocessing.blurring`.
    """

    container: Container
    mean: Array
    scale: Array
    rows: Array
    shares: Array
    columns: Columns = field(default=(), kw_only=True)

    @property
    @abstractmethod
    def _labels(self) -> tuple[AnyArray, ...]:
        """Labels of each column; empty for columns of numbers."""

    @property
    def has_labels(self) -> Mask:
        """Which columns hold labels, (k,)."""
        return np.array([len(labels) > 0 for labels in self._labels])

    @property
    def _known(self) -> Columns:
        """What stands behind the numbers of each column; None where they are all there is."""
        return self.columns or (None,) * len(self.mean)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        conditions.check_scales(self.mean, self.scale)
        conditions.check_shares(self.shares, len(self.rows))
        require(self.rows.ndim == 2 and self.rows.shape[1:] == self.mean.shape, "rows")
        require(np.isfinite(self.rows).all(), "rows")
        require(len(self._labels) == len(self.mean), "classes")
        require(len(self.columns) in (0, len(self.mean)), "columns")
        for column, labels in zip(self.rows.T, self._labels, strict=True):
            conditions.check_labels(labels)
            require(not len(labels) or np.isin(column, np.arange(len(labels))).all(), "classes")
        conditions.check_draws(self)

    @property
    def size(self) -> int:
        """Length of a condition's vector."""
        return sum(max(1, len(labels)) for labels in self._labels) + 1

    def with_shares_of(self, y: Any, weight: Array | None) -> Self:
        rows, shares = blurred_rows(self.positions(y, len(y)), row_shares(len(y), weight), self.has_labels)
        return replace(self, rows=rows, shares=shares)

    def expand(self, y: Any, n_samples: int) -> AnyArray:
        rows = self.positions(y, n_samples)
        return self._given_back(np.broadcast_to(rows, (n_samples, rows.shape[1])).copy())

    def encode(self, y: Any, n_samples: int) -> Array32:
        scaled = (self.positions(y, n_samples) - self.mean) / self.scale
        columns = [
            np.eye(len(labels))[column.astype(np.intp)] if len(labels) else column
            for column, labels in zip(scaled.T, self._labels, strict=True)
        ]
        vectors = np.column_stack([*columns, np.ones(len(scaled))]).astype(np.float32)
        return np.broadcast_to(vectors, (n_samples, vectors.shape[1])).copy()

    def draw(self, n_samples: int, rng: np.random.RandomState) -> AnyArray:
        order = np.lexsort(self.rows.T[::-1])  # so that any first n are spread over the conditions' range
        return self._given_back(self.rows[order[conditions.spread_sample(self.shares[order], n_samples, rng)]])

    def likely(self, n_most: int) -> tuple[AnyArray, Array]:
        is_small = len(self.rows) <= n_most
        return (self._given_back(self.rows), self.shares) if is_small else super().likely(n_most)

    def positions(self, y: Any, n_samples: int) -> Array:
        """Check conditions, and find the positions of labels.

        Parameters
        ----------
        y : array-like
            One condition for all samples, or one for each.
        n_samples : int
            Number of samples.

        Returns
        -------
        ndarray of shape (n_samples, k) or (1, k)
            Numbers, and positions for labels.

        Raises
        ------
        ValueError
            For labels that were not there in training, another number of columns or rows, and what is no finite number.
        """
        k, is_bare = len(self.mean), not self.has_labels.any() and not self.columns
        given = np.asarray(y)
        if is_bare or given.dtype.kind not in "mM":  # numpy has no objects for nanoseconds
            given = _as_array(y, "y", np.float64 if is_bare else object)
        if given.ndim < 2:
            given = given.reshape(-1, 1) if k == 1 else given.reshape(1, -1)
        if given.shape[1:] != (k,) or len(given) not in (1, n_samples):
            raise ValueError(
                f"y has shape {np.shape(y)}; expected one condition of {k} {'number(s)' if is_bare else 'entries'}, "
                f"or one for each of {n_samples} samples."
            )
        rows = np.empty(given.shape)
        for j, (column, labels, known) in enumerate(zip(given.T, self._labels, self._known, strict=True)):
            what = f"column {_name(self.container, j)!r} of y"
            if known is not None:
                rows[:, j] = known.numbers_of(0, column)
            else:
                rows[:, j] = conditions.positions_of(column, labels, what) if len(labels) else _as_array(column, what)
        if not np.isfinite(rows).all():
            raise ValueError("y contains NaN or infinity.")
        return rows

    def _given_back(self, rows: Array) -> AnyArray:
        """Undo `positions`."""
        given = rows.astype(object)
        for j, (labels, known) in enumerate(zip(self._labels, self._known, strict=True)):
            if len(labels):
                given[:, j] = labels[rows[:, j].astype(np.intp)]
            elif known is not None:
                given[:, j] = _as_objects(_entries_in(known, rows[:, j]))
        return given


@storable
@dataclass(frozen=True, eq=False)
class NumberEncoder(ColumnEncoder):
    """Standardized numbers, and a 1 that tells them from "no condition".

    Parameters
    ----------
    container : Container
        What the conditions came in.
    mean, scale : ndarray of shape (k,)
        Of the columns.
    rows, shares : ndarray of shape (n, k) and (n,)
        Rows like the training conditions and their weights, for `draw` to repeat.
    one_dimensional : bool
        Whether the conditions came as (n,).
    columns : tuple of TableContainer or None, default=()
        What stands behind the numbers of each column, where that is more than numbers: dates, decimals, integers
        beyond 2^53.
    """

    one_dimensional: bool

    @classmethod
    def fit(cls, y: AnyArray, container: Container, weight: Array | None, columns: Columns = ()) -> NumberEncoder:
        """Learn mean and scale.

        Parameters
        ----------
        y : ndarray of shape (n,) or (n, k)
            Conditions.
        container : Container
            What they came in.
        weight : ndarray of shape (n,) or None
            Weights of their rows.
        columns : tuple of TableContainer or None, default=()
            What stands behind the numbers.

        Returns
        -------
        NumberEncoder
            Fitted to the conditions.
        """
        zeros = np.zeros(1 if y.ndim == 1 else y.shape[1])
        encoder = cls(container, zeros, zeros + 1, zeros[None], np.ones(1), y.ndim == 1, columns=columns)
        rows = encoder.positions(y, len(y))
        mean = np.average(rows, axis=0, weights=weight)
        scale = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight))
        varies = (np.ptp(rows, axis=0) > 0) & (scale > 0)  # rounding gives equal numbers a deviation
        return replace(encoder, mean=mean, scale=np.where(varies, scale, 1.0)).with_shares_of(y, weight)

    @property
    def _labels(self) -> tuple[AnyArray, ...]:
        return (np.empty(0),) * len(self.mean)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        require(not self.one_dimensional or len(self.mean) == 1, "one_dimensional")
        super().check()

    def _given_back(self, rows: Array) -> AnyArray:
        if self.columns and self.columns[0] is not None and self.one_dimensional:
            return _entries_in(self.columns[0], rows[:, 0])
        given = super()._given_back(rows) if self.columns else rows
        return given[:, 0] if self.one_dimensional else given


@storable
@dataclass(frozen=True, eq=False)
class MixedEncoder(ColumnEncoder):
    """Label columns as one-hot vectors beside standardized numbers, and a 1 that tells them from "no condition".

    Parameters
    ----------
    container : Container
        What the conditions came in.
    mean, scale : ndarray of shape (k,)
        Of the columns of numbers; 0 and 1 for labels.
    rows, shares : ndarray of shape (n, k) and (n,)
        Rows like the training conditions, labels as positions in `classes`, and their weights, for `draw` to repeat.
    classes : tuple of ndarray
        Labels of each column; empty for columns of numbers.
    columns : tuple of TableContainer or None, default=()
        As in `NumberEncoder`.
    """

    classes: tuple[AnyArray, ...]

    @classmethod
    def fit(cls, y: AnyArray, container: Container, weight: Array | None, columns: Columns = ()) -> MixedEncoder:
        """Learn labels, mean and scale.

        Parameters
        ----------
        y : ndarray of shape (n, k)
            Conditions; real numbers that are not categories count as numbers.
        container : Container
            What they came in.
        weight : ndarray of shape (n,) or None
            Weights of their rows.
        columns : tuple of TableContainer or None, default=()
            What stands behind the numbers.

        Returns
        -------
        MixedEncoder
            Fitted to the conditions.
        """
        stands_for = [column is not None for column in columns] or [False] * y.shape[1]
        classes = tuple(
            np.empty(0)
            if (stands_for[j] or is_numeric(column)) and container.dtypes[j % len(container.dtypes)] != "category"
            else conditions.find_classes(column, f"column {_name(container, j)!r} of y")[0]
            for j, column in enumerate(y.T)
        )
        zeros = np.zeros(y.shape[1])
        encoder = cls(container, zeros, zeros + 1, zeros[None], np.ones(1), classes, columns=columns)
        rows, shares = encoder.positions(y, len(y)), row_shares(len(y), weight)
        mean = np.where(encoder.has_labels, 0.0, shares @ rows)
        spread = np.sqrt(shares @ (rows - mean) ** 2)
        scale = np.where(encoder.has_labels | (spread == 0), 1.0, spread)
        return replace(encoder, mean=mean, scale=scale).with_shares_of(y, weight)

    @property
    def _labels(self) -> tuple[AnyArray, ...]:
        return self.classes


def is_numeric(column: AnyArray) -> bool:
    """Whether a column holds numbers rather than labels; booleans count as 0 and 1."""
    if column.dtype.kind != "O":
        return column.dtype.kind in "biuf"
    return all(isinstance(value, (numbers.Real, np.bool_)) for value in column)


def _as_array(values: Any, what: str, dtype: Any = np.float64) -> AnyArray:
    try:
        return np.asarray(values, dtype=dtype)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"{what} must hold numbers, as in training: {error}.") from error


def _name(container: Container, column: int) -> Any:
    return container.columns[column] if container.columns else column


def _entries_in(column: TableContainer, numbers: Array) -> AnyArray:
    """What the numbers of one column stand for; dates with a time zone are objects."""
    entries, zone = column.entries(0, numbers), column.timezones[0]
    if not zone:
        return entries
    return objects(list(localize(entries, zone, bool(column.walls[0]))))


def _as_objects(entries: AnyArray) -> AnyArray:
    """Entries as Python's objects; nanoseconds, of which it has none, as those of pandas."""
    if entries.dtype.kind in "mM" and np.datetime_data(entries.dtype)[0] == "ns":
        return index_entries(entries, "")
    return entries.astype(object)
