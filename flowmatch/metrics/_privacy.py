"""How near synthetic rows come to the training rows, and which of them are training rows."""

from __future__ import annotations

import numpy as np

from flowmatch.metrics._distances import distance_blocks
from flowmatch.metrics._samples import FloatArray

QUANTILES = {"nearest_p05": 0.05, "nearest_median": 0.5}
"""Of the distances to the closest training row."""


def nearest_distances(rows: FloatArray, train: FloatArray, *, leave_out: bool = False) -> dict[str, float]:
    """Quantiles of the rows' distances to their closest training row (distance to closest record).

    Parameters
    ----------
    rows : ndarray of shape (n, k)
    train : ndarray of shape (m, k)
    leave_out : bool, default=False
        Whether `rows` are training rows, each of which is measured against the others: what a fresh row would show
        against a training set of one row less.

    References
    ----------
    Zhao et al. (2021), "CTAB-GAN: Effective table data synthesizing", who report the 5 % quantile.
    """
    position = 1 if leave_out else 0  # position 0 is the row itself
    distances = np.concatenate(
        [np.partition(block, position, axis=1)[:, position] for _, block in distance_blocks(rows, train)]
    )
    return {name: float(np.quantile(distances, share)) for name, share in QUANTILES.items()}


def duplicate_share(rows: FloatArray, train: FloatArray, *, leave_out: bool = False) -> float:
    """Share of rows that equal a training row in every cell; two missing cells are equal.

    Of training rows themselves (`leave_out`), the share that equal another one.
    """
    both = np.concatenate([train] if leave_out else [train, rows])
    _, group, size = np.unique(np.nan_to_num(both, nan=np.inf), axis=0, return_inverse=True, return_counts=True)
    group = group.ravel()  # NumPy 2.0 keeps an axis
    if leave_out:
        return float((size[group] > 1).mean())
    in_train = np.zeros(len(size), dtype=bool)
    in_train[group[: len(train)]] = True
    return float(in_train[group[len(train) :]].mean())
