"""Associations of the columns of a table, pair by pair, as one matrix."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.sparse import csr_array

from flowmatch.metrics._samples import FloatArray
from flowmatch.metrics.table_reader import MAX_LEVELS, SampleTables

MAX_COLUMNS = 500
"""Columns up to which pairs are measured."""
ROUNDING = 1e-12


def associations(rows: FloatArray, tables: SampleTables) -> FloatArray:
    """The association of each pair of columns, (d, d), symmetric, with a diagonal of 1.

    Numeric columns enter by their ranks, so that neither units nor outliers nor a monotone transformation matter.

    * two numeric columns: Spearman's rank correlation, in [-1, 1] (Spearman, 1904);
    * a categorical and a numeric column: the correlation ratio of the ranks, the square root of the share of their
    variance that
      lies between categories, in [0, 1] (Pearson, 1905; its square times n - 1 is the statistic of Kruskal and
      Wallis, 1952);
    * two categorical columns: Cramer's V = sqrt(chi2 / n / (min(r, c) - 1)), in [0, 1] (Cramer, 1946, p. 282).

    Over the rows where both entries are observed; 0 where one of the two columns does not vary there.
    """
    coarse = tables.coarse(rows)
    number = np.flatnonzero(~tables.is_category)
    members = {column: _members(coarse[:, column]) for column in np.flatnonzero(tables.is_category)}
    found = np.eye(len(tables.names))
    if len(number):
        ranks = _centered_ranks(coarse[:, number])
        found[np.ix_(number, number)] = _correlations(ranks)
        for column in members:
            found[column, number] = found[number, column] = _correlation_ratios(members[column], ranks)
    for i, j in itertools.combinations(members, 2):
        found[i, j] = found[j, i] = _cramers_v(members[i], members[j])
    np.fill_diagonal(found, 1.0)
    return found


def _members(positions: FloatArray) -> csr_array:
    """Matrix (n, n_levels) of a column's categories, 1 where a row is of a level; nothing where it is missing."""
    observed = ~np.isnan(positions)
    starts = np.concatenate([[0], np.cumsum(observed)])
    entries = np.ones(observed.sum()), positions[observed].astype(np.intp), starts
    return csr_array(entries, shape=(len(positions), MAX_LEVELS + 1))


def _centered_ranks(X: FloatArray) -> FloatArray:
    """Ranks of the observed entries within their columns, ties averaged, about their mean; NaN stays."""
    from scipy.stats import rankdata

    n = (~np.isnan(X)).sum(axis=0)
    ranks = np.ascontiguousarray(rankdata(X, axis=0, nan_policy="omit"))  # products round by the order in memory
    return (ranks - (n + 1) / 2) / np.maximum(n, 1)


def _correlations(ranks: FloatArray) -> FloatArray:
    """Pearson's correlation of each pair of columns over the rows where both are observed."""
    seen = (~np.isnan(ranks)).astype(np.float64)
    filled = np.nan_to_num(ranks)
    n = np.maximum(seen.T @ seen, 1.0)
    sums = filled.T @ seen  # of column i over the rows where j is observed
    covariance = filled.T @ filled - sums * sums.T / n
    variance = (filled**2).T @ seen - sums**2 / n
    return _ratio(covariance, np.sqrt(variance.clip(0.0) * variance.T.clip(0.0)))


def _correlation_ratios(members: csr_array, ranks: FloatArray) -> FloatArray:
    """The correlation ratio of one column of categories (n, n_levels) with columns of ranks (n, p), (p,)."""
    seen, filled = (~np.isnan(ranks)).astype(np.float64), np.nan_to_num(ranks)
    counts, sums = members.T @ seen, members.T @ filled
    common = sums.sum(axis=0) ** 2 / np.maximum(counts.sum(axis=0), 1.0)
    between = (sums**2 / np.maximum(counts, 1.0)).sum(axis=0) - common
    total = (members.T @ filled**2).sum(axis=0) - common
    return np.sqrt(_ratio(between.clip(0.0), total))


def _cramers_v(first: csr_array, second: csr_array) -> float:
    """Cramer's V of two columns of categories, 0 where one of them does not vary."""
    from scipy.stats.contingency import association

    counts = (first.T @ second).toarray().astype(np.intp)
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    return float(association(counts, "cramer")) if min(counts.shape) > 1 else 0.0


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Quotient in [-1, 1], 0 where there is nothing to divide by."""
    varies = whole > ROUNDING
    return np.clip(part / np.where(varies, whole, 1.0), -1.0, 1.0) * varies
