"""What a simple forecast expects of tables and series: ridge regression, and boosted trees of what it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeRegressor

from flowmatch.forecasting.ridge import ridge
from flowmatch.preprocessing import BoostedTrees, Expected
from flowmatch.preprocessing.window_gaps import mean_of_seen

Array = NDArray[np.float64]
Split = tuple[NDArray[np.bool_], NDArray[np.intp]]
"""Rows to fit to, and rows to predict."""

DEPTH, RATE, LEAF, MOST_TREES = 5, 0.1, 5, 300
SHARE_OF_ROWS, MOST_ROWS, SHARE_OF_COLUMNS, MOST_COLUMNS = 0.7, 2000, 0.7, 32
"""What each tree is grown of, and each of its nodes looks at (stochastic gradient boosting; Friedman, 2002)."""

PATIENCE = 20
"""So many trees may leave the error on unseen rows as it is before no more are tried."""

_FEWEST_ROWS = 50
_MOST_ELEMENTS = 1e8


CLEARLY = 0.95
"""Trees have to leave less than this share of the regression's mean square error on unseen rows."""


class _Fit:
    """A ridge regression, and trees that are added to it one at a time; it predicts `rows` on the way."""

    def __init__(
        self, contexts: Array, targets: Array, penalty: float, kept: NDArray[np.bool_], rows: Array, spread: Array
    ) -> None:
        self.weights, self.intercept = ridge(contexts[kept], targets[kept], penalty)
        self.contexts, self.trees, self.spread = (
            contexts[kept].astype(np.float32),
            list[DecisionTreeRegressor](),
            spread,
        )
        self.left = (targets[kept] - self.linear(contexts[kept])) / spread
        self.rows, self.predicted = rows.astype(np.float32), self.linear(rows)

    def linear(self, contexts: Array) -> Array:
        return contexts @ self.weights + self.intercept

    def add_tree(self) -> None:
        rng, (n, m) = np.random.RandomState(len(self.trees)), self.contexts.shape
        some = rng.permutation(n)[: min(MOST_ROWS, int(SHARE_OF_ROWS * n))]
        n_columns = int(np.clip(SHARE_OF_COLUMNS * m, 1, MOST_COLUMNS))
        tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=LEAF, max_features=n_columns, random_state=rng)
        self.trees.append(tree.fit(self.contexts[some], self.left[some]))
        self.left -= RATE * tree.predict(self.contexts).reshape(self.left.shape)
        self.predicted += RATE * self.spread * tree.predict(self.rows).reshape(self.predicted.shape)


def fit_expected(
    contexts: Array, targets: Array, penalty: float, splits: Sequence[Split], *, with_trees: bool
) -> tuple[Expected, Array]:
    """Fit to all rows, with as many trees as are best on rows that were not fitted to.

    Parameters
    ----------
    contexts : ndarray of shape (n, m)
        Contexts.
    targets : ndarray of shape (n, q)
        Targets, NaN where they are missing; they are then left to the regression.
    penalty : float
        Of the regression, in units of one row.
    splits : sequence of (kept, held out)
        Folds.
    with_trees : bool
        Whether trees are tried.

    Returns
    -------
    expected : Expected
        Of all rows.
    unseen : ndarray of shape (n, q)
        Its predictions of targets, each by a fit to the other folds.
    """
    mean = mean_of_seen(targets, 0)
    spread = np.sqrt(mean_of_seen(np.square(targets - mean), 0))
    spread = np.where((np.nanmax(targets, axis=0) > np.nanmin(targets, axis=0)) & (spread > 0), spread, 1.0)
    most = None if with_trees and not np.isnan(targets).any() else 0
    unseen, n_trees = _unseen(contexts, targets, penalty, splits, spread, most)
    whole = _Fit(contexts, targets, penalty, np.ones(len(contexts), dtype=bool), contexts[:1], spread)
    for _ in range(n_trees):
        whole.add_tree()
    trees = BoostedTrees.of(whole.trees, DEPTH, RATE * spread) if n_trees else None
    familiar = np.sqrt(_error(whole.left, np.ones_like(spread)) * _error(targets - unseen, spread))
    return Expected(whole.weights, whole.intercept, trees, mean, spread, float(familiar)), unseen


def expected_unseen(
    expected: Expected, contexts: Array, targets: Array, penalty: float, splits: Sequence[Split]
) -> Array:
    """Give what is expected of rows that may have been fitted to, as if they had not.

    Where they are predicted so well as only rows of the first fit were, trees know them: they are then predicted by
    fits to the other folds of them, as in the first fit.

    Parameters
    ----------
    expected : Expected
        Of an earlier fit.
    contexts, targets, penalty, splits
        As in `fit_expected`.

    Returns
    -------
    ndarray of shape (n, q)
        Predictions of targets.
    """
    found = expected.predict(contexts)
    if expected.trees is None or _error(targets - found, expected.spread) > expected.familiar:
        return found
    return _unseen(contexts, targets, penalty, splits, expected.spread, len(expected.trees.feature))[0]


def _error(left: Array, spread: Array) -> float:
    return float(np.sqrt(np.nanmean(np.square(left / spread))))


def _unseen(
    contexts: Array, targets: Array, penalty: float, splits: Sequence[Split], spread: Array, n_trees: int | None = None
) -> tuple[Array, int]:
    """Predictions by fits to the other folds, with `n_trees` or the best number of them, and that number."""
    fits = [_Fit(contexts, targets, penalty, kept, contexts[rows], spread) for kept, rows in splits]

    def predicted() -> Array:
        found = np.empty_like(targets)
        for fit, (_, rows) in zip(fits, splits, strict=True):
            found[rows] = fit.predicted
        return found

    linear = best = predicted()
    most = int(min(MOST_TREES, _MOST_ELEMENTS // targets.size)) if n_trees is None else n_trees
    errors = [_error(targets - linear, spread)]
    for k in range(1, (most if len(targets) >= _FEWEST_ROWS else 0) + 1):
        for fit in fits:
            fit.add_tree()
        found = predicted()
        errors.append(_error(targets - found, spread))
        if errors[k] == min(errors) or k == n_trees:
            best = found
        elif n_trees is None and k - int(np.argmin(errors)) >= PATIENCE:
            break
    help_much = n_trees is not None or min(errors) ** 2 < CLEARLY * errors[0] ** 2
    return (best, int(np.argmin(errors))) if help_much else (linear, 0)
