"""Copies of training rows: how near synthetic rows come to them, and which rows equal one."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowmatch.metrics._distances import near_rows
from flowmatch.metrics._samples import FloatArray, Samples, as_pair

TIE = 1e-9
"""Relative difference below which distances are equal: standardized integers are equally spaced up to rounding."""


class CopyCheck(NamedTuple):
    """Result of `copy_check`.

    Parameters
    ----------
    share : float
        Share of synthetic rows nearer to their nearest training row than that row is to its nearest other one.
    holdout_share : float or None
        The same of held-out rows; None without them.
    gap : float or None
        How much the share lies above that of held-out rows, at least 0; None without them.
    """

    share: float
    holdout_share: float | None
    gap: float | None


def copy_check(train: Samples, synthetic: Samples, holdout: Samples | None = None) -> CopyCheck:
    """Check whether synthetic rows are nearer to the training rows than fresh rows are.

    `share` is the share of synthetic rows that are nearer to their nearest training row than that row is to its own
    nearest training neighbor; ties count half. `holdout_share` is the same for held-out real rows, the
    share that an honest generator would have. `gap` = max(0, share - holdout_share): about 0 for fresh rows, up to
    1 - holdout_share for copies. It is a distance-to-closest-record test, made scale-free by the training rows' own
    spacing.

    Parameters
    ----------
    train : array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        The rows that the generator was fitted on, all of them: copies of rows that are left out go unseen. Columns
        weigh by their scale: standardize them if their units differ.
    synthetic : array-like, tensor or DataFrame of shape (m, d) or (m, ...)
        Generated rows.
    holdout : array-like, tensor or DataFrame of shape (h, d) or (h, ...), default=None
        Real rows that the generator has not seen.

    Returns
    -------
    CopyCheck
        Named tuple (share, holdout_share, gap). Cost O((m + h) n d), memory bounded.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite, or if `train` has fewer than two rows.

    Notes
    -----
    Read the gap, not the share: that of fresh rows depends on the distribution and the dimension (for a normal
    one 0.67 in one dimension, 0.38 in ten, 0.15 in a hundred), and repeated training rows pull it to one half or below.
    Its standard error is about sqrt(share (1 - share) / m). Where several distinct training rows are equally near,
    their verdicts are averaged, so that the order of rows does not matter.

    A low gap is no proof of privacy: it sees rows too near to the training set, not what can be inferred about one.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import copy_check
    >>> rng = np.random.default_rng(0)
    >>> train, holdout = rng.normal(size=(400, 3)), rng.normal(size=(400, 3))
    >>> check = copy_check(train, rng.choice(train, 400), holdout)
    >>> check.share, check.holdout_share, round(check.gap, 2)
    (1.0, 0.55, 0.45)
    """
    real, generated = as_pair(train, synthetic, ("train", "synthetic"))
    if len(real) < 2:
        raise ValueError("train has 1 row. A training row's nearest neighbor takes at least 2.")
    distinct, counts = np.unique(real, axis=0, return_counts=True)
    share = _nearer_share(generated, distinct, counts)
    if holdout is None:
        return CopyCheck(share, None, None)
    holdout_share = _nearer_share(as_pair(train, holdout, ("train", "holdout"))[1], distinct, counts)
    return CopyCheck(share, holdout_share, max(0.0, share - holdout_share))


def nearest_distances(rows: FloatArray, train: FloatArray, *, leave_out: bool = False) -> dict[str, float]:
    """Quantiles of the rows' distances to their closest training row (distance to closest record).

    Parameters
    ----------
    rows : ndarray of shape (n, k)
        Rows to measure.
    train : ndarray of shape (m, k)
        Training rows.
    leave_out : bool, default=False
        Whether `rows` are training rows, each of which is measured against the others: what a fresh row would show
        against a training set of one row less.

    Returns
    -------
    dict of str to float
        "nearest_p05", the 5 % quantile, and "nearest_median".

    References
    ----------
    Zhao et al. (2021), "CTAB-GAN: Effective table data synthesizing", who report the 5 % quantile.
    """
    distances = _distance_at(rows, train, int(leave_out))  # position 0 is the row itself
    low, median = np.quantile(distances, [0.05, 0.5]).tolist()
    return {"nearest_p05": low, "nearest_median": median}


def duplicate_share(rows: FloatArray, train: FloatArray, *, leave_out: bool = False) -> float:
    """Share of rows that equal a training row in every entry; two missing entries are equal.

    Of training rows (`leave_out`), the share that equal another one.
    """
    rows, train = (np.nan_to_num(side, nan=np.inf) for side in (rows, train))
    counts = Counter(row.tobytes() for row in train)
    return float(np.mean([counts[row.tobytes()] > leave_out for row in rows]))


def _nearer_share(rows: FloatArray, distinct: FloatArray, counts: NDArray[np.int64]) -> float:
    """Share of rows nearer to their nearest training row than that is to its nearest other one.

    The training rows are `distinct`, and come `counts` times.
    """
    verdicts = []
    for row, neighbor, distance in near_rows(rows, distinct):
        first = np.flatnonzero(np.diff(row, prepend=-1))
        least = np.repeat(np.minimum.reduceat(distance, first), np.diff(first, append=len(row)))
        nearest = distance <= least * (1 + TIE)  # more than one where equally near
        row, neighbor, distance = row[nearest] - row[0], neighbor[nearest], distance[nearest]
        asked, position = np.unique(neighbor, return_inverse=True)
        spacing = _spacing(asked, distinct, counts)[position]
        verdict = np.where(np.isclose(distance, spacing, rtol=TIE, atol=0), 0.5, distance < spacing)
        verdicts.append(np.bincount(row, verdict) / np.bincount(row))
    return float(np.concatenate(verdicts).mean())


def _spacing(asked: NDArray[np.int64], distinct: FloatArray, counts: NDArray[np.int64]) -> FloatArray:
    """Distance from the training rows `asked` to their nearest other training row: 0 for a repeated one."""
    if len(distinct) == 1:
        return np.zeros(len(asked))
    return np.where(counts[asked] > 1, 0.0, _distance_at(distinct[asked], distinct, 1))


def _distance_at(rows: FloatArray, train: FloatArray, k: int) -> FloatArray:
    """Distance of each row to the training row at position k, (n,)."""
    found = []
    for row, _, distance in near_rows(rows, train, k):
        order = np.lexsort((distance, row))
        found.append(distance[order][np.flatnonzero(np.diff(row, prepend=-1)) + k])
    return np.concatenate(found)
