"""Constraints of tables: what holds in every row, as a user states it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from flowmatch.constraints.fitted import Combinations, Computed, Ordered, Rule, UniqueRows
from flowmatch.constraints.scales import Scales
from flowmatch.core.component import Component, unknown_option
from flowmatch.core.types import Array, Mask

FUNCTIONS = ("sum", "product")

ROUNDING = 1e-9
"""Relative error of sums and products that are exact but for the arithmetic."""


def _whole(values: Array) -> Mask:
    """Which columns hold whole numbers."""
    return np.asarray(np.all((values == np.floor(values)) | np.isnan(values), axis=0))


class Constraint(Component):
    """Something that holds in every row of a table; classes derive from it."""

    @abstractmethod
    def rule(self, scales: Scales, values: Array) -> Rule:
        """The constraint as a rule on a table's numbers.

        Parameters
        ----------
        scales : Scales
            Says what the numbers of each column stand for.
        values : ndarray of shape (n, d)
            The training rows.

        Returns
        -------
        Rule
            Which training rows may break.

        Raises
        ------
        ValueError
            For columns that there are not, or that cannot be compared.
        """


@dataclass(frozen=True)
class FixedCombinations(Constraint):
    """Only combinations of values that occur in training, such as cities with their countries.

    Parameters
    ----------
    columns : sequence
        Names of at least two columns, or their numbers where they have none.

    Examples
    --------
    >>> FixedCombinations(["city", "country"])
    FixedCombinations(columns=['city', 'country'])
    """

    columns: Sequence[Any]

    def rule(self, scales: Scales, values: Array) -> Combinations:
        positions = scales.positions(self, self.columns, at_least=2)
        rows = values[:, positions]
        known, counts = np.unique(rows[~np.isnan(rows).any(axis=1)], axis=0, return_counts=True)
        if not len(known):
            raise ValueError(f"{self!r}: no row of X has an entry in each of these columns.")
        return Combinations(self, positions, known, counts.astype(np.int64))


@dataclass(frozen=True)
class Inequality(Constraint):
    """``low <= high`` in every row that has both.

    Parameters
    ----------
    low, high : column
        Names of two columns of numbers, of dates or of durations, or their numbers where they have no names.
    strict : bool, default=False
        ``low < high``.

    Examples
    --------
    >>> Inequality("start", "end")
    Inequality(low='start', high='end')
    """

    low: Any
    high: Any
    strict: bool = False

    def rule(self, scales: Scales, values: Array) -> Ordered:
        low, high = positions = scales.positions(self, [self.low, self.high], at_least=2)
        scales.check_measured(self, positions)
        if scales.kinds[low] != scales.kinds[high]:
            raise ValueError(f"{self!r} compares a date with a duration.")
        (low_size, low_origin), (high_size, high_origin) = scales.of(low), scales.of(high)
        unit = min(low_size, high_size)
        shift = float((low_origin - high_origin) / unit)
        difference = values[:, high] * float(high_size / unit) - values[:, low] * float(low_size / unit) - shift
        positive = difference[difference > 0]
        gap = float(positive.min()) if self.strict and len(positive) else 0.0
        ends, whole = scales.limits[[0, 1], [low, high]], _whole(values[:, [low, high]])
        sizes = float(low_size / unit), float(high_size / unit)
        return Ordered(self, low, high, bool(self.strict), *sizes, shift, gap, ends, whole)


@dataclass(frozen=True)
class Formula(Constraint):
    """A column that is computed from others: a sum, a product, or any function.

    Parameters
    ----------
    column : column
        Name of the column, or its number where columns have no names.
    columns : sequence
        Those that it is computed from: numbers, or dates and durations. One that is the same column again is a sum of
        one.
    function : {"sum", "product"} or callable, default="sum"
        A callable is given an array (n,) for each of the columns, numbers, and returns one. Such a model cannot be
        saved to a file.
    coefficients : sequence of float or None, default=None
        Factors of the columns in a sum; None: all are 1.
    constant : float, default=0.0
        Is added to a sum.

    Examples
    --------
    >>> Formula("total", ["net", "tax"])
    Formula(column='total', columns=['net', 'tax'])
    >>> Formula("profit", ["sales", "costs"], coefficients=[1, -1])
    Formula(column='profit', columns=['sales', 'costs'], coefficients=[1, -1])
    """

    column: Any
    columns: Sequence[Any]
    function: str | Callable[..., Any] = "sum"
    coefficients: Sequence[float] | None = None
    constant: float = 0.0

    def validate(self) -> None:
        super().validate()
        if not callable(self.function) and self.function not in FUNCTIONS:
            raise unknown_option("function", self.function, FUNCTIONS, "pass a callable")
        if self.function != "sum" and (self.coefficients is not None or self.constant != 0):
            raise ValueError(f"{self!r}: coefficients and a constant belong to function='sum'.")
        if self.coefficients is not None and len(self.coefficients) != len(self.columns):
            raise ValueError(f"{self!r} has {len(self.coefficients)} coefficients of {len(self.columns)} columns.")

    def rule(self, scales: Scales, values: Array) -> Computed:
        target, *sources = scales.positions(self, [self.column, *self.columns], at_least=2)
        scales.check_measured(self, [target, *sources], dates=self.function == "sum")
        factors = np.ones(len(sources)) if self.coefficients is None else np.asarray(self.coefficients, dtype=float)
        constant, unit = float(self.constant), scales.of(target)[0]
        if scales.kinds[target] != "number":  # numbers count units from origins
            parts = [scales.of(j) for j in sources]
            if self.constant:
                raise ValueError(f"{self!r}: a constant is for numbers; make it a column of durations.")
            origins = sum(Fraction(factor) * origin for factor, (_, origin) in zip(factors, parts, strict=True))
            constant = float((origins - scales.of(target)[1]) / unit)
            factors = factors * [float(size / unit) for size, _ in parts]
        function = None if isinstance(self.function, str) else self.function
        shape = "product" if self.function == "product" else "sum" if function is None else "function"
        tolerance = max(ROUNDING, float(scales.container.tolerance(len(scales.kinds))[[target, *sources]].max()))
        known = scales.limits, _whole(values), tolerance, None, function
        computed = Computed(self, target, tuple(sources), shape, factors, constant, *known)
        return computed.rounded_as(values)


@dataclass(frozen=True)
class Unique(Constraint):
    """No two rows of a call that agree in all of some columns, such as one row for each customer and day.

    Parameters
    ----------
    columns : sequence
        Names of columns, or their numbers where they have none.

    Examples
    --------
    >>> Unique(["customer", "day"])
    Unique(columns=['customer', 'day'])
    """

    columns: Sequence[Any]

    def rule(self, scales: Scales, values: Array) -> UniqueRows:
        return UniqueRows(self, scales.positions(self, self.columns, at_least=1))
