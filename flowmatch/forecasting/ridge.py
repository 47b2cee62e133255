"""Ridge regressions of targets, some of which may be missing: each column by the rows that have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

Array = NDArray[np.float64]

_ROWS_FOR_PENALTY = 5000
_COLUMNS_FOR_PENALTY = 8
_ALPHAS = np.logspace(-2, 5, 15)


def ridge(contexts: Array, targets: Array, penalty: float) -> tuple[Array, Array]:
    """Weights (m, q) and intercepts (q,) of targets (n, q), NaN where they are missing, with a penalty a row."""
    missing = np.isnan(targets)
    if not missing.any():
        fitted = Ridge(penalty * len(contexts)).fit(contexts, targets)
        return fitted.coef_.reshape(-1, contexts.shape[1]).T, np.ravel(fitted.intercept_)
    weights, intercept = np.zeros((contexts.shape[1], targets.shape[1])), np.zeros(targets.shape[1])
    patterns, which = np.unique(missing, axis=1, return_inverse=True)
    for number, lacking in enumerate(patterns.T):  # columns that miss the same rows are fitted together
        columns = np.flatnonzero(which.ravel() == number)
        if not lacking.all():
            weights[:, columns], intercept[columns] = ridge(
                contexts[~lacking], targets[np.ix_(~lacking, columns)], penalty
            )
    return weights, intercept


def penalty_of(contexts: Array, targets: Array) -> float:
    """The penalty of a ridge regression, in units of one row, by leave-one-out (`sklearn.linear_model.RidgeCV`).

    Where entries are missing it is the geometric mean of those of a few columns, each by the rows that have it.
    """
    some = np.random.RandomState(0).permutation(len(contexts))[:_ROWS_FOR_PENALTY]
    contexts, targets = contexts[some], targets[some]
    missing = np.isnan(targets)
    if not missing.any():
        return float(RidgeCV(_ALPHAS).fit(contexts, targets).alpha_) / len(some)
    columns = np.flatnonzero((~missing).sum(axis=0) > 2)
    chosen = columns[:: max(1, -(-len(columns) // _COLUMNS_FOR_PENALTY))].tolist()
    found = [penalty_of(contexts[~missing[:, j]], targets[~missing[:, j]][:, [j]]) for j in chosen]
    return float(np.exp(np.log(found).mean())) if found else 1.0
