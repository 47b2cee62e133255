"""Constraints that hold in all training rows, and would hardly do so by chance."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np

from flowmatch.constraints.scales import Scales
from flowmatch.constraints.stated import Constraint, FixedCombinations, Formula, Inequality
from flowmatch.core.types import Array
from flowmatch.rules.numbers import decimals_of

FEW_ROWS = 50
MOST_SOURCES = 3
"""Columns that a formula is searched in."""

_EXAMINED = 5000
_MOST_COLUMNS = 60
"""Of a kind; in wider tables nothing is searched in the others."""

_BY_CHANCE = 20
"""So many rows would break an inequality if the columns were independent."""

_NEW = 0.01
"""Largest share of rows that combinations may have which training has not seen."""

_SHUFFLES = 10


def find_constraints(scales: Scales, values: Array) -> list[Constraint]:
    """Search for constraints.

    Parameters
    ----------
    scales : Scales
        Says what the numbers of each column stand for.
    values : ndarray of shape (n, d)
        The training rows.

    Returns
    -------
    list of Constraint
        Formulas, inequalities and combinations that all rows keep.
    """
    if len(values) < FEW_ROWS or len(set(scales.container.labels)) < len(scales.kinds):
        return []
    formulas, inequalities = _formulas(scales, values), _inequalities(scales, values)
    return [*formulas, *_not_implied(scales, values, formulas, inequalities), *_combinations(scales, values)]


def _holds(constraint: Constraint, scales: Scales, values: Array) -> bool:
    return not constraint.rule(scales, values).broken(values).any()


def _varying(scales: Scales, values: Array, kinds: set[str]) -> list[int]:
    """Columns of some kinds that take more than two values."""
    low, high = scales.limits
    columns = [j for j, kind in enumerate(scales.kinds) if kind in kinds and high[j] > low[j]]
    return [j for j in columns[:_MOST_COLUMNS] if len(np.unique(values[:1000, j])) > 2]


# -- formulas ---------------------------------------------------------------------------------------------------------


def _formulas(scales: Scales, values: Array) -> list[Formula]:
    """Columns that are the same as another, a sum of others, or a product of two."""
    found: list[Formula] = []
    for kinds in ({"number"}, {"datetime", "timedelta"}):
        columns = _varying(scales, values, kinds)
        some = values[:: -(-len(values) // _EXAMINED)][:, columns]
        whole = ~np.isnan(some).any(axis=1)
        if len(columns) < 2 or whole.sum() < 2 * len(columns) + FEW_ROWS:
            continue
        units = np.array([float(scales.of(j)[0]) for j in columns])
        found += [f for f in _sums(scales, columns, some[whole] * (units / units.min())) if _holds(f, scales, values)]
        if kinds == {"number"}:
            done = {formula.column for formula in found}
            products = _products(scales, columns, some[whole], done)
            found += [formula for formula in products if _holds(formula, scales, values)]
    return _without_circles(found)


def _without_circles(formulas: list[Formula]) -> list[Formula]:
    """Formulas, but for those of columns that others of them are computed from."""
    sources: dict[Any, set[Any]] = {}
    for formula in formulas:
        reached, before = set(formula.columns), set[Any]()
        while reached != before:
            before, reached = reached, reached.union(*(sources.get(column, ()) for column in reached))
        if formula.column not in reached:
            sources[formula.column] = set(formula.columns)
    return [formula for formula in formulas if sources.get(formula.column) == set(formula.columns)]


def _sums(scales: Scales, columns: list[int], rows: Array) -> list[Formula]:
    """Sums that hold exactly: the directions in which rows do not vary, each solved for one column.

    What is solved for is the column that varies most, of equals the last.
    """
    centred = rows - rows.mean(axis=0)
    spread = centred.std(axis=0)
    order = np.lexsort([np.arange(len(columns)), spread])[::-1]
    singular, directions = np.linalg.svd(centred[:, order] / spread[order], full_matrices=False)[1:]
    basis = _reduced(directions[singular < 1e-9 * singular[0]] / spread[order])
    found = []
    for relation in basis:
        places = np.flatnonzero(np.abs(relation) * spread[order] > 1e-7 * spread[order].max())
        target, *sources = [int(order[k]) for k in places]
        factors = [_simple(-relation[k]) for k in places[1:]]
        if not 1 <= len(sources) <= MOST_SOURCES or 0 in factors:
            continue
        labels = [scales.container.labels[columns[k]] for k in (target, *sources)]
        constant = 0.0
        if scales.kinds[columns[target]] == "number":
            rest = rows[:, target] - rows[:, sources] @ np.array(factors)
            constant = float(np.round(np.median(rest), 9)) + 0.0
        ones = all(factor == 1 for factor in factors)
        order_of_columns = np.argsort(sources)
        names, factors = [labels[1 + k] for k in order_of_columns], [factors[k] for k in order_of_columns]
        found.append(Formula(labels[0], names, coefficients=None if ones else factors, constant=constant))
    return found


def _reduced(basis: Array) -> Array:
    """The reduced row echelon form of a basis."""
    basis, row = basis.copy(), 0
    for column in range(basis.shape[1] if len(basis) else 0):
        best = row + int(np.abs(basis[row:, column]).argmax())
        if np.abs(basis[best, column]) < 1e-7 * np.abs(basis).max():
            continue
        basis[[row, best]] = basis[[best, row]]
        basis[row] /= basis[row, column]
        others = np.arange(len(basis)) != row
        basis[others] -= np.outer(basis[others, column], basis[row])
        row += 1
        if row == len(basis):
            break
    return basis


def _simple(number: float) -> float:
    """The fraction of small numbers that a number is, or 0."""
    fraction = Fraction(float(number)).limit_denominator(100)
    is_simple = abs(float(fraction) - number) < 1e-6 * abs(number) and abs(fraction.numerator) <= 10_000
    return 0 if not is_simple else int(fraction) if fraction.denominator == 1 else float(fraction)


def _products(scales: Scales, columns: list[int], rows: Array, done: set[Any]) -> list[Formula]:
    """Columns that are the product of two others, or that rounded."""
    labels, some = [scales.container.labels[j] for j in columns], rows[:: -(-len(rows) // 50)]
    pairs = np.array(list(itertools.combinations(range(len(columns)), 2)))
    products = some[:, pairs[:, 0]] * some[:, pairs[:, 1]]
    found = []
    for k, label in enumerate(labels):
        if label in done:
            continue
        decimals = decimals_of(some[:, k], 1e-12 * np.abs(some[:, k]), most=4)
        room = 0.5 * 10.0**-decimals if decimals > 0 else 0.0  # rounded
        near = np.abs(products - some[:, [k]]) <= room + 1e-9 * np.abs(products)
        fits = near.all(axis=0) & (pairs != k).all(axis=1)
        if fits.any():
            found.append(Formula(label, [labels[i] for i in pairs[fits.argmax()]], "product"))
            done = {*done, label, *found[-1].columns}
    return found


# -- inequalities -----------------------------------------------------------------------------------------------------


def _inequalities(scales: Scales, values: Array) -> list[Inequality]:
    """Pairs of columns of which one is never greater, though independent ones would often be."""
    found, labels, clocks = [], scales.container.labels, scales.container.timezones
    for kind in ("number", "datetime", "timedelta"):
        above: set[tuple[int, int]] = set()
        columns = _varying(scales, values, {kind})
        for low, high in itertools.permutations(columns, 2):
            rows = values[~np.isnan(values[:, [low, high]]).any(axis=1)]
            if clocks[low] != clocks[high] or len(rows) < FEW_ROWS or (rows[:, low] == rows[:, high]).all():
                continue
            constraint = Inequality(labels[low], labels[high])
            if _holds(constraint, scales, values[:1000]) and _holds(constraint, scales, values):
                rows[:, low] = np.random.RandomState(0).permutation(rows[:, low])
                if constraint.rule(scales, values).broken(rows).sum() >= max(_BY_CHANCE, 0.02 * len(rows)):
                    above.add((low, high))
        follows = {(low, high) for (low, j), (i, high) in itertools.product(above, above) if i == j}
        for low, high in sorted(above - follows):
            touches = (values[:, low] == values[:, high]).any() if kind == "number" else True
            found.append(Inequality(labels[low], labels[high], strict=not touches))
    return found


def _not_implied(
    scales: Scales, values: Array, formulas: list[Formula], inequalities: list[Inequality]
) -> list[Inequality]:
    """Inequalities that do not follow from formulas: random rows that keep these may break them."""
    low, high = np.nan_to_num(scales.limits)
    random = np.random.RandomState(0).uniform(low, high, size=(1000, len(low)))
    for formula in formulas:
        random = formula.rule(scales, values).complete(random, np.ones(random.shape, dtype=bool))
    return [inequality for inequality in inequalities if inequality.rule(scales, values).broken(random).any()]


# -- combinations -----------------------------------------------------------------------------------------------------


def _combinations(scales: Scales, values: Array) -> list[FixedCombinations]:
    """Pairs of categories of which only some occur together."""
    found, labels, (low, high) = [], scales.container.labels, scales.limits
    columns = np.flatnonzero(scales.container.categorical & (high > low)).tolist()[:_MOST_COLUMNS]
    for one, other in itertools.combinations(columns, 2):
        pair = values[~np.isnan(values[:, [one, other]]).any(axis=1)][:, [one, other]].astype(np.int64)
        if len(pair) >= FEW_ROWS and _are_fixed(pair):
            found.append(FixedCombinations([labels[one], labels[other]]))
    return [constraint for constraint in found if _holds(constraint, scales, values)]


def _are_fixed(pair: Any) -> bool:
    """Whether two columns of positions (n, 2) have few combinations, and hardly any new one is to be expected."""
    sizes = [len(np.unique(column)) for column in pair.T]
    counts = np.unique(pair[:, 0] * (pair[:, 1].max() + 1) + pair[:, 1], return_counts=True)[1]
    if len(counts) == max(sizes):  # one is a function of the other, as far as it occurs more than once
        new = 0.0 if len(pair) - max(sizes) >= FEW_ROWS else 1.0
    else:  # Good and Turing: what is new is as frequent as what was seen once
        new = float((counts == 1).sum()) / len(pair)
    if new > _NEW or min(sizes) < 2:
        return False
    random = np.random.RandomState(0)
    by_chance = [
        len(np.unique(random.permutation(pair[:, 0]) * (pair[:, 1].max() + 1) + pair[:, 1])) for _ in range(_SHUFFLES)
    ]
    return bool(len(counts) < min(min(by_chance) - 3 * np.std(by_chance), 0.8 * np.mean(by_chance)))
