"""Constraints as rules on the numbers of a table's rows: which rows break them, and how to mend those."""

from __future__ import annotations

import functools
import itertools
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flowmatch.core.storable import NOT_STORED, require, storable
from flowmatch.core.types import Array, Integers, Mask
from flowmatch.rules.numbers import decimals_of


class Rule(ABC):
    """What holds in every row; one that lacks entries keeps it if there are entries that would.

    Attributes
    ----------
    constraint : Constraint
        What the user stated.
    positions : tuple of int
        The columns concerned; `columns` where they have names of their own.
    """

    constraint: Any
    positions: tuple[int, ...]

    @property
    def columns(self) -> tuple[int, ...]:
        """The columns concerned."""
        return self.positions

    @abstractmethod
    def broken(self, values: Array) -> Mask:
        """Which rows (n, d) break it."""

    def impossible(self, values: Array, limits: Array) -> Mask:
        """Which rows no entries within limits (2, d) can complete."""
        return self.broken(values)

    def complete(self, values: Array, free: Mask) -> Array:
        """The rows that keep the rule, but for those of which entries are fixed that speak against it.

        Rows are mended, not drawn anew: that leaves each column the distribution that it has (measured: a classifier
        tells such tables from real ones less well).
        """
        return self.mend(values, free & free[:, list(self.columns)].all(axis=1, keepdims=True))

    def mend(self, values: Array, free: Mask) -> Array:
        """The rows, as little changed as the rule asks for; only `free` entries change."""
        return values

    def check_for(self, n_columns: int) -> None:
        """Raise a ValueError if stored columns are none of the table's."""
        require(all(0 <= j < n_columns for j in self.columns) and len(self.columns) > 0, "constraints")


@storable
@dataclass(frozen=True, eq=False)
class Combinations(Rule):
    """Columns whose values occur together in training.

    Parameters
    ----------
    constraint : FixedCombinations
    positions : tuple of int
    known : ndarray of shape (k, m)
        The combinations.
    counts : ndarray of int, shape (k,)
        How often each occurs.
    """

    constraint: Any
    positions: tuple[int, ...]
    known: Array
    counts: Integers

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored rule do not fit each other."""
        require(self.known.shape == (len(self.counts), len(self.positions)), "constraints")
        require(self.counts.min(initial=1) > 0 < len(self.counts), "constraints")

    def broken(self, values: Array) -> Mask:
        rows = values[:, self.positions] + 0.0
        present, found = ~np.isnan(rows), np.zeros(len(rows), dtype=bool)
        for pattern in np.unique(present, axis=0):
            some = np.flatnonzero((present == pattern).all(axis=1))
            known = set(map(tuple, self.known[:, pattern].tolist()))
            found[some] = [tuple(row) not in known for row in rows[some][:, pattern].tolist()]
        return found

    def mend(self, values: Array, free: Mask) -> Array:
        """Take a combination that shares most with the row: first what is fixed, then columns of many values.

        Of several it is one drawn by how often they occur; the draw depends on the row alone.
        """
        values, columns = values.copy(), list(self.positions)
        weights = np.log1p([len(np.unique(column)) for column in self.known.T])
        for i in np.flatnonzero(self.broken(values) & free[:, columns].any(axis=1)):
            row, fixed = values[i, columns], ~free[i, columns]
            likeness = (self.known == row) @ np.where(fixed, 1e3, weights)
            nearest = np.flatnonzero(likeness == likeness.max())
            place = zlib.crc32(values[i].tobytes()) / 2**32 * self.counts[nearest].sum()
            chosen = nearest[np.searchsorted(np.cumsum(self.counts[nearest]), place, side="right")]
            values[i, columns] = np.where(fixed, row, self.known[chosen])
        return values


@storable
@dataclass(frozen=True, eq=False)
class Ordered(Rule):
    """Two columns of which one is never the greater.

    Parameters
    ----------
    constraint : Inequality
    low, high : int
        Positions of the columns.
    strict : bool
        Whether they are never equal.
    low_size, high_size : float
        Sizes of their units.
    shift : float
        By so much the number 0 of `low` is later.
    gap : float
        At least so much is between them; 0 unless the inequality is strict.
    limits : ndarray of shape (2,)
        Smallest number of `low` and largest of `high` in training.
    is_whole : ndarray of bool, shape (2,)
        Whether their numbers are whole, as those of dates.
    """

    constraint: Any
    low: int
    high: int
    strict: bool
    low_size: float
    high_size: float
    shift: float
    gap: float
    limits: Array
    is_whole: Mask

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored rule do not fit each other."""
        require(self.low_size > 0 and self.high_size > 0 and self.gap >= 0, "constraints")
        require(self.limits.shape == self.is_whole.shape == (2,), "constraints")

    @property
    def columns(self) -> tuple[int, ...]:
        return self.low, self.high

    def broken(self, values: Array) -> Mask:
        low, high = self._sides(values)
        return (low >= high) if self.strict else (low > high)

    def impossible(self, values: Array, limits: Array) -> Mask:
        return self.broken(_filled(values, self.columns, limits[[0, 1], self.columns]))

    def mend(self, values: Array, free: Mask) -> Array:
        """Exchange the two, or bring one to the other where that is fixed."""
        values, rows = values.copy(), np.flatnonzero(self.broken(values))
        low, high = (side[rows] for side in self._sides(values))
        low_free, high_free = free[rows, self.low], free[rows, self.high]
        lower, higher = (
            np.where(low_free & high_free, f(low, high), side) for f, side in ((np.minimum, low), (np.maximum, high))
        )
        lower = (np.minimum(lower, higher - self.gap) - self.shift) / self.low_size
        lower = np.where(high_free, np.maximum(lower, self.limits[0]), lower)
        lower = np.where(low_free, _whole(lower, np.floor) if self.is_whole[0] else lower, values[rows, self.low])
        higher = np.maximum(higher, lower * self.low_size + self.shift + self.gap) / self.high_size
        higher = np.where(low_free, np.minimum(higher, self.limits[1]), higher)
        higher = np.where(high_free, _whole(higher, np.ceil) if self.is_whole[1] else higher, values[rows, self.high])
        values[rows, self.low], values[rows, self.high] = lower, higher
        return values

    def _sides(self, values: Array) -> tuple[Array, Array]:
        """Both columns in one unit, from one origin."""
        return values[:, self.low] * self.low_size + self.shift, values[:, self.high] * self.high_size


def _filled(values: Array, columns: tuple[int, ...], entries: Array) -> Array:
    """Rows with an entry for each of some columns where that is missing."""
    filled = values.copy()
    filled[:, columns] = np.where(np.isnan(values[:, columns]), entries, values[:, columns])
    return filled


def _whole(numbers: Array, rounding: Callable[[Array], Array]) -> Array:
    """Numbers rounded in one direction, but for errors of the arithmetic."""
    near = np.round(numbers)
    return np.where(np.abs(numbers - near) < 1e-6, near, rounding(numbers))


@storable
@dataclass(frozen=True, eq=False)
class Computed(Rule):
    """A column that is a function of others.

    Parameters
    ----------
    constraint : Formula
    target : int
        Position of the column.
    sources : tuple of int
        Positions of the others.
    shape : {"sum", "product", "function"}
    factors : ndarray of shape (n_sources,)
        Of a sum.
    constant : float
        Of a sum.
    limits : ndarray of shape (2, d)
        Smallest and largest number of each column in training.
    is_whole : ndarray of bool, shape (d,)
        Which columns hold whole numbers.
    tolerance : float
        Relative error of results that are right.
    decimals : int or None
        To so many the result is rounded.
    function : callable or None
    """

    constraint: Any
    target: int
    sources: tuple[int, ...]
    shape: str
    factors: Array
    constant: float
    limits: Array
    is_whole: Mask
    tolerance: float
    decimals: int | None = None
    function: Any = field(default=None, metadata=NOT_STORED)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored rule do not fit each other."""
        require(self.shape in ("sum", "product") and self.factors.shape == (len(self.sources),), "constraints")
        require(self.limits.shape[:1] == (2,) and len(self.sources) > 0, "constraints")
        require((self.decimals is None or 0 <= self.decimals <= 15) and 0 < self.tolerance < 1, "constraints")

    @property
    def columns(self) -> tuple[int, ...]:
        return self.target, *self.sources

    def check_for(self, n_columns: int) -> None:
        super().check_for(n_columns)
        require(self.limits.shape == (2, n_columns) and self.is_whole.shape == (n_columns,), "constraints")

    def result(self, values: Array) -> Array:
        """The function of the sources, (n,)."""
        parts = [values[:, j] for j in self.sources]
        if self.shape == "sum":
            found = functools.reduce(np.add, map(np.multiply, parts, self.factors))  # from the left, as users add
            found = found + self.constant if self.constant else found
        elif self.shape == "product":
            found = functools.reduce(np.multiply, parts)
        else:
            found = np.asarray(self.function(*parts), dtype=np.float64)
            if found.shape != (len(values),):
                shapes = f"{found.shape}; expected ({len(values)},)"
                raise ValueError(f"{self.constraint!r}: its function returned an array of shape {shapes}.")
        return found if self.decimals is None else np.round(found, self.decimals)

    def rounded_as(self, values: Array) -> Computed:
        """The rule, with the rounding that training rows have."""
        values = values[~np.isnan(values[:, list(self.columns)]).any(axis=1)]
        target = values[:, self.target]
        by_dtype = self.tolerance > 1e-8 and not self.broken(values).any()
        if by_dtype or np.array_equal(target, self.result(values)):
            return self
        decimals = decimals_of(target, self.tolerance * np.maximum(1, np.abs(target)), most=10)
        rounded = replace(self, decimals=decimals)
        return self if decimals < 0 or rounded.broken(values).any() else rounded

    def broken(self, values: Array) -> Mask:
        target, found = values[:, self.target], self.result(values)
        scale = np.maximum.reduce([np.abs(values[:, j]) for j in self.columns] + [np.ones(len(values))])
        return np.abs(target - found) > self.tolerance * scale

    def out_of_range(self, values: Array) -> Mask:
        """Rows of which an entry that was solved for lies outside of the training range."""
        columns = list(self.columns)
        low, high = self.limits[:, columns]
        room = self.tolerance * np.maximum(1, np.abs([low, high]).max(axis=0))
        return ((values[:, columns] < low - room) | (values[:, columns] > high + room)).any(axis=1)

    def complete(self, values: Array, free: Mask) -> Array:
        return self.mend(values, free)

    def mend(self, values: Array, free: Mask) -> Array:
        """Compute the column, or if it is fixed those that it is computed from."""
        values, found = values.copy(), self.result(values)
        rows = free[:, self.target] & ~np.isnan(found) & ~np.isnan(values[:, self.target])
        values[rows, self.target] = found[rows]
        rest = np.flatnonzero(~free[:, self.target] & self.broken(values))
        if len(rest) and self.shape != "function":
            values[rest] = (self._spread if self.shape == "sum" else self._divided)(values[rest], free[rest])
        return values

    def _spread(self, values: Array, free: Mask) -> Array:
        """Sources that add up to the target: each free one is changed as far as its range allows."""
        for k, (j, factor) in enumerate(zip(self.sources, self.factors, strict=True)):
            target, sources = values[:, self.target], list(self.sources)
            rest = values[:, sources[:k] + sources[k + 1 :]] @ np.delete(self.factors, k) + self.constant
            moved = np.clip((target - rest) / factor, *self.limits[:, j])
            digits = 12 - int(np.ceil(np.log10(np.abs(self.limits[:, j]).max() + 1e-9)))
            errors, candidates = [], (np.round(moved, digits), moved)  # decimals that the arithmetic has blurred
            open_rows = free[:, j] & (target != self.result(values))
            for candidate in candidates:
                values[:, j] = np.where(open_rows, candidate, values[:, j])
                errors.append(np.abs(target - self.result(values)))
            values[:, j] = np.where(open_rows & (errors[0] <= errors[1]), candidates[0], values[:, j])
        return values

    def _divided(self, values: Array, free: Mask) -> Array:
        """A free source, solved for: one of fractions if there is one."""
        open_rows = np.ones(len(values), dtype=bool)
        for j in sorted(self.sources, key=lambda j: self.is_whole[j]):
            others = np.prod([values[:, k] for k in self.sources if k != j], axis=0)
            rows = open_rows & free[:, j] & (others != 0)
            values[rows, j] = values[rows, self.target] / others[rows]
            open_rows &= ~rows
        return values

    def impossible(self, values: Array, limits: Array) -> Mask:
        given = ~np.isnan(values[:, self.target])
        if self.shape == "function":
            lacking = np.isnan(values[:, list(self.sources)]).any(axis=1)
            return given & (lacking | self.broken(values))
        if len(self.sources) > 6:
            return self.broken(values)
        corners = itertools.product((0, 1), repeat=len(self.sources))
        ends = [self.result(_filled(values, self.sources, limits[corner, self.sources])) for corner in corners]
        room = self.tolerance * np.maximum(1, np.abs(ends).max(axis=0))
        low, high = np.min(ends, axis=0) - room, np.max(ends, axis=0) + room
        target_low, target_high = (np.where(given, values[:, self.target], limit) for limit in limits[:, self.target])
        return (high < target_low) | (low > target_high)


@storable
@dataclass(frozen=True, eq=False)
class UniqueRows(Rule):
    """Columns in which no two rows agree.

    Parameters
    ----------
    constraint : Unique
    positions : tuple of int
    """

    constraint: Any
    positions: tuple[int, ...]

    def broken(self, values: Array) -> Mask:
        """Rows that repeat one above, but for rows with missing entries."""
        rows = values[:, self.positions] + 0.0
        found = np.ones(len(rows), dtype=bool)
        found[np.unique(rows, axis=0, return_index=True)[1]] = False
        return found & ~np.isnan(rows).any(axis=1)

    def complete(self, values: Array, free: Mask) -> Array:
        return values

    def mend(self, values: Array, free: Mask) -> Array:
        """Take the nearest value that another row has in one of the columns, so that there is no such row yet."""
        values, columns = values.copy(), list(self.positions)
        order = np.argsort(free[:, columns].any(axis=1), kind="stable")
        taken, known = set(map(tuple, values[:, columns].tolist())), [np.unique(values[:, j]) for j in columns]
        for i in order[self.broken(values[order])]:
            row = values[i, columns].tolist()
            others = [
                (*row[:k], value, *row[k + 1 :])
                for k in np.flatnonzero(free[i, columns])
                for value in known[k][np.argsort(np.abs(known[k] - row[k]), kind="stable")].tolist()
            ]
            new = next((other for other in others if other not in taken), row)
            values[i, columns] = new
            taken.add(tuple(new))
        return values
