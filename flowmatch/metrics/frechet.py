"""Distance between the Gaussians that two samples have in common means and covariances with."""

from __future__ import annotations

import numpy as np

from flowmatch.metrics._samples import Samples, as_pair


def frechet_distance(X: Samples, Y: Samples) -> float:
    r"""Frechet distance between two samples, taken as Gaussians.

    .. math:: |m_X - m_Y|^2 + \mathrm{tr}(S_X + S_Y - 2 (S_X^{1/2} S_Y S_X^{1/2})^{1/2})

    with the means m and the covariances S of the samples: the squared 2-Wasserstein distance between these Gaussians
    (Dowson and Landau, 1982, "The Frechet distance between multivariate normal distributions"; of features of
    generated pictures, Heusel et al., 2017).

    Parameters
    ----------
    X, Y : array-like, tensor or DataFrame of shape (n, d) and (m, d), or (n, ...) and (m, ...)
        The two samples, of features rather than of raw values. Columns weigh by their scale.

    Returns
    -------
    float
        At least 0, in squared units of the columns.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite, or have fewer than two rows.

    Notes
    -----
    Covariances of few rows are biased towards a large distance, by about d^2 / n in units of a variance: compare at
    equal sizes, and with the distance between two real samples.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import frechet_distance
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> round(frechet_distance(X, X + [3.0, 4.0]), 6)
    25.0
    """
    first, second = as_pair(X, Y)
    if min(len(first), len(second)) < 2:
        raise ValueError(f"X has {len(first)} and Y {len(second)} rows; a covariance takes at least 2.")
    (roots, axes), second_covariance = np.linalg.eigh(_covariance(first)), _covariance(second)
    root = axes * np.sqrt(np.maximum(roots, 0.0)) @ axes.T
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second_covariance @ root), 0.0)).sum()
    shift = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    return float(max(0.0, shift + roots.sum() + np.trace(second_covariance) - 2 * common))


def _covariance(rows: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(rows, rowvar=False))
