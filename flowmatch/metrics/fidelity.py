"""Fidelity and diversity from nearest-neighbor balls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowmatch.core.checks import check_count
from flowmatch.metrics._distances import distance_blocks, neighbor_distance
from flowmatch.metrics._samples import Samples, as_pair


class PRDC(NamedTuple):
    """Result of `precision_recall_density_coverage`.

    Parameters
    ----------
    precision : float
        Share of synthetic rows inside some real row's ball.
    recall : float
        Share of real rows inside some synthetic row's ball.
    density : float
        Mean number of real balls that a synthetic row lies in, over the number of neighbors.
    coverage : float
        Share of real balls that hold a synthetic row.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(X: Samples, Y: Samples, *, n_neighbors: int = 5) -> PRDC:
    r"""Precision, recall, density and coverage of synthetic rows Y for real rows X.

    Each row owns the ball that reaches to its k-th nearest neighbor in its own sample, k = `n_neighbors`.

    * precision: share of synthetic rows inside some real row's ball (fidelity; Kynkaanniemi et al., 2019, eq. 1-2);
    * recall: share of real rows inside some synthetic row's ball (diversity; the same with the roles swapped);
    * density: mean number of real balls that a synthetic row lies in, over k (fidelity, less sensitive to one
      outlier's wide ball, may pass 1; Naeem et al., 2020, section 3.1);
    * coverage: share of real balls that hold a synthetic row (diversity; Naeem et al., 2020, section 3.2).

    A mode that Y misses lowers recall and coverage; rows of Y off the data lower precision and density.

    Parameters
    ----------
    X : array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        Real rows. Columns weigh by their scale: standardize them if their units differ.
    Y : array-like, tensor or DataFrame of shape (m, d) or (m, ...)
        Synthetic rows.
    n_neighbors : int, default=5
        The k of the balls, less than n and than m.

    Returns
    -------
    PRDC
        Named tuple (precision, recall, density, coverage). Cost O((n + m)^2 d), memory bounded.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite, or are no larger than `n_neighbors`.

    Notes
    -----
    A ball is open, as in Naeem et al.'s code, but always holds its own center, so that tables with repeated rows
    are measured too: identical samples without repeated rows score 1, 1, 1, 1. For two samples of equal size from one
    distribution density is 1 on average and coverage about 1 - 2^(-k). All four depend on n and m: compare at equal
    sizes.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import precision_recall_density_coverage
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> scores = precision_recall_density_coverage(X, X[X[:, 0] > 0])  # half of the plane is missing
    >>> scores.precision, round(scores.recall, 2)
    (1.0, 0.55)
    """
    real, synthetic = as_pair(X, Y)
    smallest = min(len(real), len(synthetic))
    why = f": X has {len(real)} rows and Y has {len(synthetic)}, and a ball reaches to another row"
    k = check_count("n_neighbors", n_neighbors, 1, smallest - 1, why)
    real_radius, synthetic_radius = (neighbor_distance(rows, rows, k) for rows in (real, synthetic))
    n_around = np.zeros(len(synthetic))  # real balls around each synthetic row
    recalled, covered = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for rows, distances in distance_blocks(synthetic, real):
        same = distances == 0
        in_real, in_synthetic = (distances < real_radius) | same, (distances < synthetic_radius[rows, None]) | same
        n_around[rows] = in_real.sum(axis=1)
        covered |= in_real.any(axis=0)
        recalled |= in_synthetic.any(axis=0)
    return PRDC(
        precision=float((n_around > 0).mean()),
        recall=float(recalled.mean()),
        density=float(n_around.mean() / k),
        coverage=float(covered.mean()),
    )
