"""Intervals that adapt as outcomes come: adaptive conformal inference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowmatch.preprocessing import Windows

Array = NDArray[np.float64]

RATE = 0.02
"""How far an error moves the share of errors that the next interval is made for.

Gibbs and Candes (2021) take .005 for thousands of days; series of some hundreds take more to come back to their level.
"""


def adaptive_shares(scores: Array, coverage: float, rate: float = RATE) -> tuple[Array, NDArray[np.bool_]]:
    """Shares of errors that intervals are made for, and which outcomes these did not hold.

    The interval before outcome t holds all values whose score is no larger than the (1 - a_t)-quantile of the scores so
    far, and ``a_{t+1} = a_t + rate (a - missed_t)`` with ``a = 1 - coverage`` (Gibbs and Candes, 2021, eq. 2). Whatever
    the scores, the share of outcomes that is missed differs from a by no more than
    ``(max(a, 1 - a) + rate) / (rate T)`` after T of them (their Proposition 4.1).

    Parameters
    ----------
    scores : ndarray of shape (n, q)
        Of outcomes in order of time; each of the q elements has shares of its own.
    coverage : float
        1 - a.
    rate : float, default=0.02

    Returns
    -------
    shares : ndarray of shape (n + 1, q)
        a_t, the last for the outcome to come; below 0 everything is held, above 1 nothing.
    missed : ndarray of bool, shape (n, q)
    """
    share = np.full(scores.shape[1], 1 - coverage)
    shares, missed = np.empty((len(scores) + 1, len(share))), np.empty(scores.shape, dtype=bool)
    for t, score in enumerate(scores):
        shares[t] = share
        smaller = (scores[:t] < score).sum(axis=0)
        missed[t] = ((smaller >= _rank(t, share)) & (share >= 0) & (t > 0)) | (share > 1)
        share = share + rate * (1 - coverage - missed[t])
    shares[-1] = share
    return shares, missed


def adaptive_threshold(scores: Array, coverage: float, rate: float = RATE) -> Array:
    """The largest scores (q,) that the interval for the next outcome holds, after those of scores (n, q).

    Infinite where everything is held, and 0, the middle alone, where nothing is. Without scores the threshold is that
    of calibrated draws.
    """
    if not len(scores):
        return np.full(scores.shape[1], coverage / 2)
    share = adaptive_shares(scores, coverage, rate)[0][-1]
    rank = _rank(len(scores), share) - 1
    threshold = np.take_along_axis(np.sort(scores, axis=0), rank[None], axis=0)[0]
    return np.where(share < 0, np.inf, np.where(share > 1, 0.0, threshold))


def order_of_time(windows: Windows) -> NDArray[np.intp]:
    """Windows in the order of their instants, if all trajectories end together; rows of tables as they come."""
    _, first, counts = np.unique(windows.groups, return_index=True, return_counts=True)
    to_the_end = np.empty(len(windows), dtype=np.intp)
    for start, count in zip(first, counts, strict=True):
        to_the_end[start : start + count] = np.arange(count)[::-1]
    return np.argsort(-to_the_end, kind="stable")


def _rank(n_scores: int, share: Array) -> NDArray[np.intp]:
    """Which of n sorted scores is their quantile, counted from 1, for finite samples; the largest if it is beyond."""
    return np.ceil((n_scores + 1) * (1 - share) - 1e-9).clip(1, max(1, n_scores)).astype(np.intp)
