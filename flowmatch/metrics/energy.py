"""Energy distance between two samples."""

from __future__ import annotations

from flowmatch.metrics._distances import distance_blocks
from flowmatch.metrics._samples import FloatArray, Samples, as_pair


def energy_distance(X: Samples, Y: Samples) -> float:
    r"""Energy distance between two samples.

    .. math:: \mathcal{E} = 2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    (Szekely and Rizzo, 2013, section 2), zero only for equal laws, with the means taken over all pairs, a row
    with itself included: the V-statistic, which is never negative. No square root is taken: in one dimension this is
    the square of `scipy.stats.energy_distance`.

    Parameters
    ----------
    X, Y : array-like, tensor or DataFrame of shape (n, d) and (m, d), or (n, ...) and (m, ...)
        The two samples. Columns weigh by their scale: standardise them if their units differ.

    Returns
    -------
    float
        The distance, >= 0, in the units of X. Cost O((n + m)^2 d), memory bounded.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite.

    Notes
    -----
    Between two samples of n rows of one law its mean is 2 E|X - X'| / n: compare at equal sizes.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import energy_distance
    >>> energy_distance([[0.0], [0.0]], [[1.0], [3.0]])  # 2 * 2 - 0 - 1
    3.0
    """
    first, second = as_pair(X, Y)
    between, within = _mean_distance(first, second), _mean_distance(first, first) + _mean_distance(second, second)
    return max(0.0, 2 * between - within)


def _mean_distance(X: FloatArray, Y: FloatArray) -> float:
    return float(sum(block.sum() for _, block in distance_blocks(X, Y)) / (len(X) * len(Y)))
