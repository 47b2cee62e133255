"""Associations of the columns of a table, pair by pair, as one matrix."""

from __future__ import annotations

import itertools

import numpy as np

from flowmatch.metrics._samples import FloatArray
from flowmatch.metrics.tables import MAX_LEVELS, Tables

MAX_COLUMNS = 500
"""Columns up to which pairs are measured."""
ROUNDING = 1e-12


def associations(rows: FloatArray, tables: Tables) -> FloatArray:
    """The association of each pair of columns, (d, d), symmetric, with a diagonal of 1.

    Numbers enter by their ranks, so that neither units nor outliers nor a monotone transformation matter.

    * two numbers: Spearman's rank correlation, in [-1, 1] (Spearman, 1904);
    * a category and a number: the correlation ratio of the ranks, the square root of the share of their variance that
      lies between categories, in [0, 1] (Pearson, 1905; its square times n - 1 is the statistic of Kruskal and
      Wallis, 1952);
    * two categories: Cramer's V = sqrt(chi2 / n / (min(r, c) - 1)), in [0, 1] (Cramer, 1946, p. 282).

    Over the rows where both entries are observed; 0 where one of the two columns does not vary there.
    """
    coarse = tables.coarse(rows)
    number, category = np.flatnonzero(~tables.is_category), np.flatnonzero(tables.is_category)
    found = np.eye(len(tables.names))
    if len(number):
        ranks = _centered_ranks(coarse[:, number])
        found[np.ix_(number, number)] = _correlations(ranks)
        for column in category:
            found[column, number] = found[number, column] = _correlation_ratios(coarse[:, column], ranks)
    for i, j in itertools.combinations(category, 2):
        found[i, j] = found[j, i] = _cramers_v(coarse[:, i], coarse[:, j])
    np.fill_diagonal(found, 1.0)
    return found


def _centered_ranks(X: FloatArray) -> FloatArray:
    """Ranks of the observed entries within their columns, ties averaged, about their mean; NaN stays."""
    from scipy.stats import rankdata

    ranks = np.full(X.shape, np.nan)
    for column, values in enumerate(X.T):
        observed = ~np.isnan(values)
        if observed.any():
            rank = rankdata(values[observed])
            ranks[observed, column] = (rank - rank.mean()) / len(rank)
    return ranks


def _correlations(ranks: FloatArray) -> FloatArray:
    """Pearson's correlation of each pair of columns over the rows where both are observed."""
    seen = (~np.isnan(ranks)).astype(np.float64)
    filled = np.nan_to_num(ranks)
    n = np.maximum(seen.T @ seen, 1.0)
    sums = filled.T @ seen  # of column i over the rows where j is observed
    covariance = filled.T @ filled - sums * sums.T / n
    variance = (filled**2).T @ seen - sums**2 / n
    return _ratio(covariance, np.sqrt(variance.clip(0.0) * variance.T.clip(0.0)))


def _correlation_ratios(positions: FloatArray, ranks: FloatArray) -> FloatArray:
    """The correlation ratio of one column of categories (n,) with columns of ranks (n, p), (p,)."""
    from scipy.sparse import csr_array

    n_levels = MAX_LEVELS + 1
    levels = np.nan_to_num(positions, nan=n_levels).astype(np.intp)
    members = csr_array((np.ones(len(levels)), levels, np.arange(len(levels) + 1)), shape=(len(levels), n_levels + 1))
    seen, filled = (~np.isnan(ranks)).astype(np.float64), np.nan_to_num(ranks)
    counts, sums = (members.T @ seen)[:n_levels], (members.T @ filled)[:n_levels]
    common = sums.sum(axis=0) ** 2 / np.maximum(counts.sum(axis=0), 1.0)
    between = (sums**2 / np.maximum(counts, 1.0)).sum(axis=0) - common
    total = (filled**2)[levels < n_levels].sum(axis=0) - common
    return np.sqrt(_ratio(between.clip(0.0), total))


def _cramers_v(first: FloatArray, second: FloatArray) -> float:
    """Cramer's V of two columns of positions (n,), 0 where one of them does not vary."""
    from scipy.stats.contingency import association

    known = ~(np.isnan(first) | np.isnan(second))
    width = MAX_LEVELS + 1
    pairs = first[known].astype(np.intp) * width + second[known].astype(np.intp)
    counts = np.bincount(pairs, minlength=width**2).reshape(width, width)
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    return float(association(counts, "cramer")) if min(counts.shape) > 1 else 0.0


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Quotient in [-1, 1], 0 where there is nothing to divide by."""
    varies = whole > ROUNDING
    ratio: FloatArray = np.clip(part / np.where(varies, whole, 1.0), -1.0, 1.0) * varies
    return ratio
