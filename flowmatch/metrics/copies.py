"""Copy check: does the generator hand out its training rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowmatch.metrics._distances import distance_blocks
from flowmatch.metrics._samples import FloatArray, Samples, as_pair

TIE = 1e-9
"""Relative difference below which distances are equal: standardised integers are equally spaced up to rounding."""


class CopyCheck(NamedTuple):
    """Result of `copy_check`; `holdout_share` and `gap` are None without held-out rows."""

    share: float
    holdout_share: float | None
    gap: float | None


def copy_check(train: Samples, synthetic: Samples, holdout: Samples | None = None) -> CopyCheck:
    """Check whether synthetic rows are nearer to the training rows than fresh rows are.

    `share` is the share of synthetic rows that are nearer to their nearest training row than that row is to its own
    nearest training neighbour; ties count half. `holdout_share` is the same for held-out rows of the real law, the
    share that an honest generator would have. `gap` = max(0, share - holdout_share): about 0 for fresh rows, up to
    1 - holdout_share for copies. It is a distance-to-closest-record test, made scale-free by the training rows' own
    spacing.

    Parameters
    ----------
    train : array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        The rows that the generator was fitted on, all of them: copies of rows that are left out go unseen. Columns
        weigh by their scale: standardise them if their units differ.
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
    Read the gap, not the share: that of fresh rows depends on the law and the dimension (for a normal law 0.67 in one
    dimension, 0.38 in ten, 0.15 in a hundred), and repeated training rows pull it to one half or below. Its standard
    error is about sqrt(share (1 - share) / m). Where several distinct training rows are equally near, their verdicts
    are averaged, so that the order of rows does not matter.

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
    known, generated = as_pair(train, synthetic, ("train", "synthetic"))
    if len(known) < 2:
        raise ValueError("train has 1 row. A training row's nearest neighbour takes at least 2.")
    distinct, counts = np.unique(known, axis=0, return_counts=True)
    share = _nearer_share(generated, distinct, counts)
    if holdout is None:
        return CopyCheck(share, None, None)
    holdout_share = _nearer_share(as_pair(train, holdout, ("train", "holdout"))[1], distinct, counts)
    return CopyCheck(share, holdout_share, max(0.0, share - holdout_share))


def _nearer_share(rows: FloatArray, distinct: FloatArray, counts: NDArray[np.int64]) -> float:
    row, neighbour, distance = _nearest(rows, distinct)
    asked, position = np.unique(neighbour, return_inverse=True)
    spacing = _spacing(asked, distinct, counts)[position]
    verdict = np.where(np.isclose(distance, spacing, rtol=TIE, atol=0), 0.5, distance < spacing)
    return float((np.bincount(row, verdict) / np.bincount(row)).mean())


def _nearest(rows: FloatArray, distinct: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Pairs (row, index of a nearest training row, distance): one a row, more where several are equally near."""
    pairs = []
    for part, distances in distance_blocks(rows, distinct):
        nearest = distances <= distances.min(axis=1, keepdims=True) * (1 + TIE)
        row, neighbour = np.nonzero(nearest)
        pairs.append((row + part.start, neighbour, distances[nearest]))
    rows_, neighbours, distances_ = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return rows_, neighbours, distances_


def _spacing(asked: NDArray[np.int64], distinct: FloatArray, counts: NDArray[np.int64]) -> FloatArray:
    """Distance from the training rows `asked` to their nearest other training row: 0 for a repeated one."""
    if len(distinct) == 1:
        return np.zeros(len(asked))
    others = [np.partition(block, 1, axis=1)[:, 1] for _, block in distance_blocks(distinct[asked], distinct)]
    spacing: FloatArray = np.where(counts[asked] > 1, 0.0, np.concatenate(others))
    return spacing
