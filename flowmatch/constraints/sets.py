"""All constraints of a table together: checked on the training rows, and kept in drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from flowmatch.constraints.fitted import Computed, Ordered, Rule
from flowmatch.constraints.scales import Scales
from flowmatch.constraints.search import find_constraints
from flowmatch.constraints.stated import Constraint
from flowmatch.core.checks import listed
from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array, Index, Mask
from flowmatch.core.user_warnings import warn
from flowmatch.tables.containers import Container
from flowmatch.tables.rows import SampleRows
from flowmatch.tables.table import TableContainer

Redraw = Callable[[Index, int], Array]

_MOST_ROUNDS, _ENOUGH = 30, 0.02
"""Rows that break a rule are drawn anew so often, and as long as such a part of them becomes sound."""


@storable
@dataclass(frozen=True, eq=False)
class ConstraintSet:
    """Constraints as rules, in the order in which they are computed.

    Parameters
    ----------
    rules : tuple of Rule
    limits : ndarray of shape (2, d)
        Smallest and largest number of each column in training.
    """

    rules: tuple[Any, ...]
    limits: Array

    @classmethod
    def fit(cls, constraints: Any, container: Container, samples: SampleRows) -> ConstraintSet | None:
        """Find or check constraints of training rows.

        Parameters
        ----------
        constraints : None, "auto" or list of Constraint
        container : Container
            What the rows came in.
        samples : SampleRows of shape (n, d)

        Returns
        -------
        ConstraintSet or None
            None if there are none.

        Raises
        ------
        ValueError
            For what is no constraint, columns that there are not, constraints that contradict each other, and those
            that training rows break, with the first of these.
        """
        is_auto = isinstance(constraints, str) and constraints == "auto"
        if constraints is None or (is_auto and not isinstance(container, TableContainer)):
            return None
        if not is_auto:
            _check_kinds(constraints)
        if not isinstance(container, TableContainer):
            raise ValueError(f"constraints={constraints!r} are for tables, but samples have {samples.sample_shape}.")
        summary, values = samples.summary, samples.array()
        scales = Scales(container, np.stack([summary.low, summary.high]))
        chosen = find_constraints(scales, values) if is_auto else list(constraints)
        rules = _in_order([constraint.rule(scales, values) for constraint in chosen])
        found = cls(tuple(rules), scales.limits)
        found.check_rows(samples, values)
        return found if rules else None

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored set do not fit each other."""
        require(self.limits.ndim == 2 and all(isinstance(rule, Rule) for rule in self.rules), "constraints")
        require(all(isinstance(rule.constraint, Constraint) for rule in self.rules), "constraints")
        for rule in self.rules:
            rule.check_for(self.limits.shape[1])

    @property
    def constraints(self) -> list[Constraint]:
        """What the rules stand for, as users state it."""
        return [rule.constraint for rule in self.rules]

    def check_rows(self, samples: SampleRows, values: Array) -> None:
        """Raise a ValueError if training rows break a constraint, with how many and the first of them.

        Parameters
        ----------
        samples : SampleRows of shape (n, d)
        values : ndarray of shape (n, d)
            What they hold.
        """
        for rule in self.rules:
            rows = np.flatnonzero(rule.broken(values))
            if len(rows):
                numbers = rows[:5] if samples.index is None else samples.index[rows[:5]]
                raise ValueError(
                    f"{rule.constraint!r} does not hold in {len(rows)} of {len(values)} rows of X, such as "
                    f"{', '.join(map(str, numbers.tolist()))} (counted from 0)."
                )

    def check_given(self, container: TableContainer, entries: Array) -> None:
        """Raise a ValueError, which names columns, for given entries that no row can have.

        Parameters
        ----------
        container : TableContainer
            What the training rows came in.
        entries : ndarray of shape (n, d)
            NaN where nothing is given.
        """
        for rule in self.rules:
            rows = np.flatnonzero(rule.impossible(entries, self.limits))
            if len(rows):
                row = entries[rows[0]]
                given = {container.labels[j]: container.entry(j, row[j]) for j in rule.columns if not np.isnan(row[j])}
                raise ValueError(f"given {given}: no row can have that and keep {rule.constraint!r}.")

    def possible(self, entries: Array) -> Mask:
        """Tell rows that can be completed.

        Parameters
        ----------
        entries : ndarray of shape (n, d)
            NaN where entries are missing.

        Returns
        -------
        ndarray of bool, shape (n,)
            Whether there are entries that make a row keep all rules.
        """
        found = np.ones(len(entries), dtype=bool)
        for rule in self.rules:
            found &= ~rule.impossible(entries, self.limits)
        return found

    def keep(self, container: TableContainer, values: Array, free: Mask, redraw: Redraw, *, must: bool = True) -> Array:
        """Rows that keep all rules: computed where that is possible, drawn anew or mended where they break one.

        Parameters
        ----------
        container : TableContainer
            What the rows are to come in.
        values : ndarray of shape (n, d)
            Drawn rows.
        free : ndarray of bool, shape (n, d)
            Entries that may change.
        redraw : callable ``(rows, attempt) -> values``
            Draws the rows of these numbers again.
        must : bool, default=True
            Whether rows that nothing brings to keep all rules are an error, and not only warned of.

        Returns
        -------
        ndarray of shape (n, d)

        Raises
        ------
        ValueError
            With `must`, if there are such rows.
        """
        scales = Scales(container, self.limits)
        values = self._complete(values, free, scales)
        broken = self._broken(values, free)
        for attempt in range(1, _MOST_ROUNDS + 1):
            rows = np.flatnonzero(broken)
            if not len(rows):
                return values
            values[rows] = self._complete(np.asarray(redraw(rows, attempt), float), free[rows], scales)
            broken = self._broken(values, free)
            if broken.sum() > (1 - _ENOUGH) * len(rows) and len(rows) > 1 / _ENOUGH:
                break
        values, broken = self._mended(values, free, broken, scales)
        if broken.any():
            which = next(r for r in self.rules if (r.broken(values) & free[:, list(r.columns)].any(axis=1)).any())
            what = f"{broken.sum()} of {len(values)} rows could not be drawn so that they keep {which.constraint!r}"
            if must:
                raise ValueError(f"{what}: ask for fewer rows, or give less.")
            warn(f"{what}: entries that are there contradict it.")
        return values

    def _mended(self, values: Array, free: Mask, broken: Mask, scales: Scales) -> tuple[Array, Mask]:
        """The rows, mended where no draw has made them sound, or else like sound ones, and which are not sound yet."""
        for _ in self.rules:
            rows = np.flatnonzero(broken)
            for rule in self.rules:
                values = rule.mend(values, free & broken[:, None])
            values[rows] = self._complete(values[rows], free[rows], scales)
            broken = self._broken(values, free)
        rows, sound = np.flatnonzero(broken & free.all(axis=1)), np.flatnonzero(~broken)
        if len(rows) and len(sound):
            values[rows] = values[sound[np.arange(len(rows)) % len(sound)]]
        return values, self._broken(values, free, in_range=False)

    def _complete(self, values: Array, free: Mask, scales: Scales) -> Array:
        values = scales.rounded(values)
        for rule in self.rules:
            values = rule.complete(values, free)
        return np.where(free, scales.rounded(values), values)

    def _broken(self, values: Array, free: Mask, *, in_range: bool = True) -> Mask:
        """Rows that break a rule (or are outside of the training range by it), and of which an entry may change."""
        found = np.zeros(len(values), dtype=bool)
        for rule in self.rules:
            changeable = np.asarray(free[:, list(rule.columns)].any(axis=1))
            order = np.argsort(changeable, kind="stable")  # of two rows that are equal, the one that may change
            found[order] = np.logical_or(found[order], changeable[order] & rule.broken(values[order]))
            if in_range and isinstance(rule, Computed):
                found |= changeable & ~free[:, rule.target] & rule.out_of_range(values)
        return found


def _check_kinds(constraints: Any) -> None:
    if isinstance(constraints, (str, Constraint)) or not isinstance(constraints, Sequence):
        raise ValueError(f"constraints must be None, 'auto' or a list of constraints, got {constraints!r}.")
    for constraint in constraints:
        if not isinstance(constraint, Constraint):
            raise ValueError(
                f"constraints holds {constraint!r}; expected FixedCombinations, Inequality, Formula or Unique of "
                "flowmatch.preprocessing."
            )
        constraint.validate()


def _in_order(rules: Sequence[Rule]) -> list[Rule]:
    """Rules, formulas first and each after those of its sources.

    Raises
    ------
    ValueError
        For formulas of one column, or of each other, and inequalities that say that a column is less than itself.
    """
    formulas = [rule for rule in rules if isinstance(rule, Computed)]
    _check_order([rule for rule in rules if isinstance(rule, Ordered)])
    of_target: dict[int, Computed] = {}
    for formula in formulas:
        if of_target.setdefault(formula.target, formula) is not formula:
            other = of_target[formula.target].constraint
            raise ValueError(f"{other!r} and {formula.constraint!r} compute the same column.")
    try:
        order = list(TopologicalSorter({formula.target: formula.sources for formula in formulas}).static_order())
    except CycleError as error:
        circle = listed([of_target[target].constraint for target in error.args[1][1:]])
        raise ValueError(f"constraints that compute columns from each other in a circle: {circle}.") from None
    formulas.sort(key=lambda formula: order.index(formula.target))
    return [*formulas, *(rule for rule in rules if not isinstance(rule, Computed))]


def _check_order(rules: Sequence[Ordered]) -> None:
    """Raise a ValueError if a chain of inequalities ends where it begins, and one of them is strict."""
    for strict in rules:
        reached, n_reached = {strict.high}, 0
        while strict.strict and len(reached) > n_reached:
            n_reached = len(reached)
            reached |= {rule.high for rule in rules if rule.low in reached}
        if strict.strict and strict.low in reached:
            raise ValueError(f"{strict.constraint!r} contradicts the other inequalities.")
