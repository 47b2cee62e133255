"""Rules that the numbers of a column keep: decimals, steps, endings, significant digits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from flowmatch.core.storable import require, storable
from flowmatch.core.types import AnyArray, Array, Index, Integers, Mask

Number = TypeVar("Number", np.float64, np.int64)

KEPT = 0.97
"""Share of the rows that must keep a rule; the few others are exceptions to it."""

CHANCE = -16.0
"""Logarithm of the largest probability with which a rule may hold by chance."""

LEAST_VALUES = 12
"""Fewer distinct values show no rule, but for their decimals."""

MOST_DECIMALS = 6

_SUBSETS, _SUBSET = 64, 16
"""Random subsets of rows, and rows in each, whose greatest common divisors are tried as steps."""

_SPIKE, _MANY = 0.1, 10
"""A value with this share of the rows, or 1 % and ten times the rows of most others, is no evidence for a rule."""

_EXCEPTION, _MOST_EXCEPTIONS = 0.002, 32
"""Values that break a rule are kept if they have this share of the rows, and the most frequent ones at that."""

_MOST_RESIDUES = 20

_DIGITS = (1, 2, 3)

_MANY_DECIMALS = 4
"""So many may be fewer ones that single precision has blurred."""

EXACT = 1e-3
"""Values as near to one that keeps a rule, in steps, are that value."""

_SINGLE = float(np.finfo(np.float32).eps)
"""Relative rounding error of numbers that have been through single precision."""


@storable
@dataclass(frozen=True, eq=False)
class NumberRule:
    """Multiples of a step, values with a few endings, or values of few significant digits.

    Parameters
    ----------
    decimals : int
        Decimals of the values; -1 where they have more than 6.
    period : float
        What the values repeat after: their step, or 10, 100, ... where they have a few endings. In units of the last
        decimal; in the column's own where decimals are -1.
    residues : ndarray of shape (r,)
        Remainders of the values modulo the period, in order.
    digits : int, default=0
        Significant digits; 0 for any number of them. Then the decimals hold too, and neither period nor residues.
    exceptions : ndarray of shape (e,)
        Frequent values that break the rule, such as a code for "unknown".
    limits : ndarray of shape (2,)
        Smallest and largest value that keeps it.
    single : bool, default=False
        Whether values are those of single precision, such as 4.289999961853027 for 4.29.
    shares : ndarray of shape (r,) or (0,)
        How often each of several residues occurs, with sum 1; empty where values go to the nearest.
    """

    decimals: int
    period: float
    residues: Array
    digits: int = 0
    exceptions: Array = field(default_factory=lambda: np.empty(0))
    limits: Array = field(default_factory=lambda: np.array([-np.inf, np.inf]))
    single: bool = False
    shares: Array = field(default_factory=lambda: np.empty(0))

    def check(self) -> None:
        """Raise a ValueError if this is no such rule."""
        require(-1 <= self.decimals <= MOST_DECIMALS and 0 <= self.digits <= max(_DIGITS), "rule")
        require(self.period > 0 and self.residues.ndim == 1 and len(self.residues) > 0, "rule")
        require((np.diff(self.residues) > 0).all() and np.ptp(self.residues) < self.period, "rule")
        require(self.exceptions.ndim == 1 and self.limits.shape == (2,) and self.limits[0] <= self.limits[1], "rule")
        require(self.shares.shape in ((0,), self.residues.shape) and (self.shares > 0).all(), "rule")

    @property
    def _unit(self) -> float:
        return 10.0 ** max(self.decimals, 0)

    @property
    def step(self) -> float:
        """What the values repeat after, in the column's unit."""
        return self.period / self._unit

    @property
    def resolution(self) -> float:
        """Difference between values that matters; infinite where any relative accuracy will do."""
        return np.inf if self.digits else min(1.0 / self._unit if self.decimals >= 0 else np.inf, self.step)

    def snap(self, x: Array) -> Array:
        """Move values to near ones that keep the rule, with each of several endings as often as in training.

        Parameters
        ----------
        x : ndarray of shape (n,)
            Values.

        Returns
        -------
        ndarray of shape (n,)
            Values that keep the rule, or are frequent exceptions to it.
        """
        y = self.nearest(x)
        if len(self.shares):
            start, edges = self.zones
            u = x * self._unit - start
            turn = self.period * np.floor(u / self.period)
            shared = (turn + self.residues[np.searchsorted(edges, u - turn)]) / self._unit
            y = np.where(np.abs(y - x) <= EXACT * self.step, y, shared)
        if self.single:
            y = y.astype(np.float32).astype(np.float64)
        y = np.clip(y, *self.limits) + 0.0  # not -0.0
        return np.where(np.isin(x, self.exceptions), x, y) if len(self.exceptions) else y

    @property
    def zones(self) -> tuple[float, Array]:
        """Where the values that each residue stands for begin: all of them, and those but the first after that.

        They are as wide as the residues are frequent, and moved by no more than makes the mean of the values right.
        """
        ends = self.period * np.cumsum(self.shares)
        start = float(self.shares @ (self.residues - ends + 0.5 * self.period * self.shares))
        return start, ends[:-1]

    def nearest(self, x: Array) -> Array:
        """Find the nearest values that keep the rule, wherever they are.

        Parameters
        ----------
        x : ndarray of shape (n,)
            Values.

        Returns
        -------
        ndarray of shape (n,)
            Values that keep it.
        """
        if self.digits:
            y = round_to_digits(x, self.digits)
            return y if self.decimals < 0 else np.round(y, self.decimals)
        u, residues = x * self._unit, self.residues
        if len(residues) == 1:
            return (residues[0] + self.period * np.round((u - residues[0]) / self.period)) / self._unit
        around = np.concatenate([residues[-1:] - self.period, residues, residues[:1] + self.period])
        start = self.period * np.floor(u / self.period)
        return (start + around[np.searchsorted(0.5 * (around[1:] + around[:-1]), u - start)]) / self._unit

    def values(self, most: int) -> Array | None:
        """List the values that keep the rule and the exceptions, in order.

        Parameters
        ----------
        most : int
            Most values.

        Returns
        -------
        ndarray of shape (n,) or None
            None if there are more than `most`.
        """
        if self.digits:
            return None
        low, high = np.floor(self.limits * self._unit / self.period)
        if (high - low + 1) * len(self.residues) > most:
            return None
        found = (self.period * np.arange(low, high + 1)[:, None] + self.residues).ravel() / self._unit
        found = found[(found >= self.limits[0]) & (found <= self.limits[1])]
        return np.unique(np.concatenate([found, self.exceptions]))

    def __str__(self) -> str:
        if self.digits:
            return f"{self.digits} significant digit{'s' * (self.digits > 1)}"
        step, start = self.step, self.residues[0] / self._unit
        if len(self.residues) > 1:
            endings = ", ".join(f"{residue / self._unit:g}" for residue in self.residues[:5])
            return f"multiples of {step:g} plus {endings}{', ...' * (len(self.residues) > 5)}"
        if self.decimals >= 0 and self.period == 1:
            return f"{self.decimals} decimal{'s' * (self.decimals != 1)}" if self.decimals else "whole"
        return f"multiples of {step:g}" + (f" plus {start:g}" if start else "")


def find_number_rule(column: Array, tolerance: float = 0.0) -> NumberRule | None:
    """Find the rule that all but a few values of a column keep.

    Parameters
    ----------
    column : ndarray of shape (n,)
        Values, none of them missing.
    tolerance : float, default=0.0
        Their relative rounding error.

    Returns
    -------
    NumberRule or None
        None if there is no rule.
    """
    values, counts = np.unique(column, return_counts=True)
    error = error_of(values, tolerance)
    judged = evidence(counts)
    rule = _find_steps(values, error, judged)
    rule = _find_digits(values, error, judged, rule) or rule
    if (rule is None or rule.decimals >= _MANY_DECIMALS) and tolerance < _SINGLE:
        coarse = find_number_rule(column, _SINGLE)
        if coarse and (rule is None or 0 <= coarse.decimals <= rule.decimals - 2):
            with np.errstate(over="ignore"):
                return replace(coarse, single=keeps(values == values.astype(np.float32), judged))
    if rule is None:
        return None
    kept = np.abs(rule.nearest(values) - values) <= error + (8 * error + 1e-9 * rule.period) * (rule.decimals < 0)
    limits = np.array([values[kept][0], values[kept][-1]])
    return replace(rule, exceptions=frequent_exceptions(values, counts, kept), limits=limits)


def nearest(values: NDArray[Number], x: AnyArray) -> NDArray[Number]:
    """For each entry the nearest of some values, which are in order."""
    return values[np.searchsorted(0.5 * (values[1:] + values[:-1]), x)]


def decimals_of(values: Array, error: Array | float, most: int = MOST_DECIMALS) -> int:
    """Fewest decimals that hold every value to within an error, -1 if they are more than `most`."""
    enough = (d for d in range(most + 1) if np.all(np.abs(values - np.round(values, d)) <= error))
    return next(enough, -1)


def error_of(values: Array, tolerance: float = 0.0) -> Array:
    """How far floats may be from the values that they stand for, given the relative rounding error of a dtype."""
    return (tolerance + 4 * np.finfo(np.float64).eps) * np.abs(values)


def evidence(counts: Integers) -> Integers:
    """How many rows of each distinct value are evidence for a rule: of very frequent values none."""
    share = counts / counts.sum()
    judged = np.where((share >= _SPIKE) | ((share >= 0.01) & (counts >= _MANY * np.median(counts))), 0, counts)
    return judged if (judged > 0).sum() >= LEAST_VALUES else counts


def frequent_exceptions(values: NDArray[np.generic], counts: Integers, kept: Mask) -> Array:
    """The most frequent values that break a rule, in order."""
    breaks = np.flatnonzero(~kept & (counts >= max(3, _EXCEPTION * counts.sum())))
    return np.sort(values[breaks[np.argsort(-counts[breaks], kind="stable")[:_MOST_EXCEPTIONS]]])


def keeps(kept: Mask, counts: Integers) -> bool:
    """Whether enough rows keep a rule: all where there are few values to tell it from."""
    enough = KEPT if (counts > 0).sum() >= LEAST_VALUES else 1.0
    return bool(counts[kept].sum() >= enough * counts.sum())


def _find_steps(values: Array, error: Array, judged: Integers) -> NumberRule | None:
    for decimals in range(MOST_DECIMALS + 1):
        kept = (np.abs(values - np.round(values, decimals)) <= error) & (error < 0.1 * 10.0**-decimals)
        if keeps(kept, judged):
            break
    else:
        return _find_real_step(values, error, judged)
    if np.abs(values).max() * 10.0**decimals >= 2**53:
        return NumberRule(decimals, 1.0, np.zeros(1))
    whole = np.round(values[kept] * 10.0**decimals).astype(np.int64)
    judged = judged[kept]
    step, offset = common_step(whole, judged)
    period, residues, rows = _find_endings(whole, judged, step, offset, decimals)
    return NumberRule(decimals, float(period), residues.astype(np.float64), shares=rows / max(rows.sum(), 1))


def common_step(whole: Integers, counts: Integers) -> tuple[int, int]:
    """The largest step on whose multiples, from some offset on, nearly all whole numbers lie.

    Those that are tried are the greatest common divisors of the differences within random subsets of the rows.

    Parameters
    ----------
    whole : ndarray of int, shape (m,)
        Distinct numbers.
    counts : ndarray of int, shape (m,)
        Their rows.

    Returns
    -------
    step, offset : int
        1 and 0 if there is no other, or too few numbers to tell.
    """
    known = np.flatnonzero(counts)
    if len(known) < LEAST_VALUES:
        return 1, 0
    divisors = np.gcd.reduce(np.abs(_differences(whole, counts)), axis=1)
    for step in sorted(set(divisors[divisors > 1].tolist()), reverse=True):
        residues, inverse = np.unique(whole % step, return_inverse=True)
        rows = np.bincount(inverse, weights=counts)
        best = int(rows.argmax())
        if rows[best] >= KEPT * rows.sum() and (inverse[known] == best).sum() >= LEAST_VALUES:
            return int(step), int(residues[best])
    return 1, 0


def _differences(values: AnyArray, counts: Integers) -> AnyArray:
    rows = np.random.default_rng(0).choice(len(values), (_SUBSETS, _SUBSET), p=counts / counts.sum())
    return values[rows[:, 1:]] - values[rows[:, :1]]


def _find_endings(
    whole: Integers, counts: Integers, step: int, offset: int, decimals: int
) -> tuple[int, Integers, Integers]:
    """A power of ten modulo which the numbers have few remainders, and the rows of each; else the step and no rows.

    Numbers that spread over several periods would have all remainders alike if there were no such rule.
    """
    best, log_best = (step, np.array([offset]), np.empty(0, dtype=np.int64)), CHANCE
    n_values, spread = int((counts > 0).sum()), float(np.subtract(*np.quantile(whole, (0.9, 0.1))))
    for period in (10**power for power in range(1, decimals + 4)):
        if period % step or 5 * period > spread:
            continue
        residues, inverse = np.unique(whole % period, return_inverse=True)
        rows = np.bincount(inverse, weights=counts).astype(np.int64)
        chosen = most_frequent(rows)
        log_chance = log_chance_of(len(chosen), period // step, n_values)
        if len(chosen) <= min(_MOST_RESIDUES, period // step // 2) and log_chance < log_best:
            best, log_best = (period, residues[chosen], rows[chosen]), log_chance
    return best


def most_frequent(rows: AnyArray) -> Index:
    """The fewest positions that hold nearly all rows and many more than each of the others, in order.

    Where rare positions follow on less rare ones, all of them.
    """
    order = np.argsort(-rows, kind="stable")
    sorted_rows = np.append(rows[order], 0.0)
    enough = np.cumsum(sorted_rows[:-1]) >= KEPT * rows.sum()
    stands_out = sorted_rows[1:] <= 0.2 * sorted_rows[:-1]
    return np.sort(order[: int(np.argmax(enough & stands_out)) + 1])


def log_chance_of(n_chosen: int, n_possible: int, n_values: int) -> float:
    """Logarithm of a bound of the probability that so many random values take so few of the possible residues."""
    if n_chosen >= n_possible:
        return 0.0
    binomial = gammaln(n_possible + 1) - gammaln(n_chosen + 1) - gammaln(n_possible - n_chosen + 1)
    return float(n_values * np.log(n_chosen / n_possible) + binomial)


def _find_real_step(values: Array, error: Array, judged: Integers) -> NumberRule | None:
    """A step that is no decimal number, by Euclid's algorithm on differences that are known to a tolerance."""
    if (judged > 0).sum() < LEAST_VALUES:
        return None
    tolerance = max(32 * float(error.max()), 1e-7 * float(np.ptp(values)))
    differences = np.abs(_differences(values, judged))
    divisors = differences[:, 0]
    for others in differences.T[1:]:
        divisors = _real_divisor(divisors, others, tolerance)
    for step in np.unique(divisors[divisors > 100 * tolerance])[::-1]:
        phases = values / step % 1
        peak = np.bincount((phases * 100).astype(int), weights=judged, minlength=101).argmax() / 100 + 0.005
        rule = _refined(float(step), float(peak * step), values, judged)
        if rule and keeps(np.abs(rule.nearest(values) - values) <= 8 * error + 1e-9 * rule.step, judged):
            return rule
    return None


def _refined(step: float, offset: float, values: Array, judged: Integers) -> NumberRule | None:
    """A step and an offset by least squares through the values near them, which are ever nearer."""
    for width in (0.05, 0.005, 0.0005, 0.0005):
        numbers = np.round((values - offset) / step)
        kept = np.abs(values - offset - step * numbers) < width * step
        if not keeps(kept, judged) or (kept & (judged > 0)).sum() < LEAST_VALUES:
            return None
        step, offset = map(float, np.polyfit(numbers[kept], values[kept], 1))
    return NumberRule(-1, step, np.array([offset % step if 1e-6 < offset / step % 1 < 1 - 1e-6 else 0.0]))


def _real_divisor(a: Array, b: Array, tolerance: float) -> Array:
    while (b > tolerance).any():
        going = b > tolerance
        remainder = np.abs(a - b * np.round(a / np.where(going, b, 1.0)))
        a, b = np.where(going, b, a), np.where(going, remainder, 0.0)
    return a


def _find_digits(values: Array, error: Array, judged: Integers, rule: NumberRule | None) -> NumberRule | None:
    """The fewest significant digits that nearly all values have, also those for which a step allows more."""
    unit = np.diff([*rule.residues, rule.residues[0] + rule.period]).min() * rule.step / rule.period if rule else 0.0
    for digits in _DIGITS:
        kept = np.abs(round_to_digits(values, digits) - values) <= error
        told = _places(values, digits) > 1.5 * unit
        if keeps(kept, judged) and (judged[told] > 0).sum() >= LEAST_VALUES and keeps(kept[told], judged[told]):
            every = (d for d in range(MOST_DECIMALS + 1) if (np.abs(values - np.round(values, d)) <= error)[kept].all())
            return NumberRule(next(every, -1), 1.0, np.zeros(1), digits)
    return None


def round_to_digits(x: Array, digits: int) -> Array:
    """Round to significant digits."""
    place = _places(x, digits)
    return np.where(place < 1, np.round(x * (1 / place)) / (1 / place), np.round(x / place) * place)


def _places(x: Array, digits: int) -> Array:
    """The place of the last significant digit: 1, 10, 0.1, ..."""
    size = np.abs(x)
    return 10.0 ** (np.floor(np.log10(np.where(size > 0, size, 1.0))) - digits + 1)
