"""Energy score of an ensemble, and energy distance between two of them."""

from __future__ import annotations

import numpy as np

from flowmatch.metrics._ensembles import (
    FAIR,
    Numbers,
    Values,
    as_forecast,
    as_numbers,
    blocks,
    by_lead,
    check_members,
    mean_score,
    out,
)
from flowmatch.metrics._samples import FloatArray, Samples


def energy_score(
    y_true: Samples, samples: Samples, *, fair: bool = True, scaled: bool = True, per_lead: bool = False
) -> Values:
    r"""Energy score of an ensemble, the mean over rows; lower is better.

    .. math:: \mathrm{ES}(F, y) = E\|X - y\| - \tfrac12 E\|X - X'\|

    (Gneiting and Raftery, 2007, section 4.3): the CRPS for states as a whole, which also sees whether the numbers of a
    state hang together as they should. With one number a state it is the CRPS.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth. All that comes after the rows, or after the lead times with `per_lead`, is one state of d numbers:
        without `per_lead` a rollout is scored as a whole.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first.
    fair : bool, default=True
        As in `crps`.
    scaled : bool, default=True
        Whether to divide by the square root of d, so that the score is about the size of an error of one number, and
        grids of different sizes compare.
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        In the units of y_true. Cost O(M^2) a number; memory bounded.

    Raises
    ------
    ValueError
        If the shapes do not fit, numbers are not finite, or there is one member and the score is to be fair.

    Examples
    --------
    >>> from flowmatch.metrics import energy_score
    >>> energy_score([[0.0, 0.0]], [[[3.0, 4.0]], [[-3.0, -4.0]]], scaled=False)  # 5 - 10 / 2
    0.0
    """
    truth, members = as_forecast(y_true, samples, min_members=2 if fair else 1, why=FAIR)
    m = len(members)

    def score(y: FloatArray, X: FloatArray) -> FloatArray:
        pairs = sum((np.linalg.norm(X[i] - X[:i], axis=-1).sum(axis=0) for i in range(1, m)), start=np.zeros(1))
        distance: FloatArray = np.linalg.norm(X - y, axis=-1).mean(axis=0)
        size = y.shape[-1] ** 0.5 if scaled else 1.0
        return (distance - pairs / (m * (m - 1 if fair else m))) / size

    return mean_score(score, truth, members, per_lead)


def ensemble_energy_distance(X: Samples, Y: Samples, *, scaled: bool = True, per_lead: bool = False) -> Values:
    r"""Energy distance between two ensembles for the same rows, context by context; the mean over rows.

    .. math:: \mathcal{E} = 2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    (Szekely and Rizzo, 2013, section 2) without pairs of a member with itself: the U-statistic, whose mean is 0 for
    ensembles of one law whatever their sizes, and which may be a little below 0. Against an ensemble of the true law it
    judges a forecast's law at each context; a single truth a row, as for scores, cannot.

    Parameters
    ----------
    X, Y : array-like or tensor of shape (n_samples, n, ...) and (m_samples, n, ...)
        The two ensembles, members first, two members at least. Without `per_lead` a rollout is one state.
    scaled : bool, default=True
        Whether to divide by the square root of the numbers a state.
    per_lead : bool, default=False
        Whether axis 2 of X and Y is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        In the units of X.

    Raises
    ------
    ValueError
        If the shapes after the first axis differ, there are fewer than two members, or numbers are not finite.

    See Also
    --------
    energy_distance : Between two samples, without contexts.

    Examples
    --------
    >>> from flowmatch.metrics import ensemble_energy_distance
    >>> ensemble_energy_distance([[0.0], [2.0]], [[5.0], [7.0]])  # 2 * 5 - 2 - 2
    6.0
    """
    first, second = as_numbers(X, "X"), as_numbers(Y, "Y")
    if first.ndim < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"X has shape {first.shape} and Y {second.shape}; expected (n_samples, n, ...) and (m_samples, n, ...), "
            f"the same after the first axis."
        )
    check_members("X", first, 2)
    check_members("Y", second, 2)
    total, a, b = np.zeros(1), by_lead(first, per_lead, n_before=1), by_lead(second, per_lead, n_before=1)
    for _, left, right in blocks(np.empty((a.shape[1], 0)), a, b):
        between = _mean_distance(left, right, len(left) * len(right))
        within = sum(_mean_distance(side, side, len(side) * (len(side) - 1)) for side in (left, right))
        total = total + (2 * between - within).sum(axis=0)
    return out(total / a.shape[1] / (a.shape[-1] ** 0.5 if scaled else 1.0), per_lead)


def _mean_distance(X: Numbers, Y: Numbers, n_pairs: int) -> FloatArray:
    """Distances between members of X and of Y added up and divided by `n_pairs`, (n, n_leads)."""
    total: FloatArray = sum(np.linalg.norm(x - Y, axis=-1).sum(axis=0) for x in X) / n_pairs
    return total
