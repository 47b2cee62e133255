"""Energy distance between two samples or two ensembles, and the energy score of an ensemble."""

from __future__ import annotations

import numpy as np

from flowmatch.metrics._distances import distance_blocks
from flowmatch.metrics._ensembles import FAIR, Values, as_forecast, check_members, floats_of, mean_score
from flowmatch.metrics._samples import FloatArray, Samples, as_pair


def energy_distance(X: Samples, Y: Samples) -> float:
    r"""Energy distance between two samples.

    .. math:: \mathcal{E} = 2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    (Szekely and Rizzo, 2013, section 2), zero only for equal distributions, with the means taken over all pairs, a row
    with itself included: the V-statistic, which is never negative. No square root is taken: in one dimension this is
    the square of `scipy.stats.energy_distance`.

    Parameters
    ----------
    X, Y : array-like, tensor or DataFrame of shape (n, d) and (m, d), or (n, ...) and (m, ...)
        The two samples. Columns weigh by their scale: standardize them if their units differ.

    Returns
    -------
    float
        The distance, >= 0, in the units of X. Cost O((n + m)^2 d), memory bounded.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite.

    See Also
    --------
    ensemble_energy_distance : Between two ensembles, context by context.
    sliced_wasserstein : Cheaper for many rows.

    Notes
    -----
    Between two samples of n rows of one distribution its mean is 2 E|X - X'| / n: compare at equal sizes.

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


def energy_score(
    y_true: Samples, samples: Samples, *, fair: bool = True, scaled: bool = True, per_lead: bool = False
) -> Values:
    r"""Energy score of an ensemble, the mean over rows; lower is better.

    .. math:: \mathrm{ES}(F, y) = E\|X - y\| - \tfrac12 E\|X - X'\|

    (Gneiting and Raftery, 2007, section 4.3): the CRPS for states as a whole, which also sees whether the variables of
    a state depend on each other as they should. For states of one value it is the CRPS.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth. All that comes after the rows, or after the lead times with `per_lead`, is one state of d values:
        without `per_lead` a rollout is scored as a whole.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first.
    fair : bool, default=True
        As in `crps`.
    scaled : bool, default=True
        Whether to divide by the square root of d, so that the score is about the size of the error of one value, and
        grids of different sizes compare.
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        In the units of y_true. Cost O(M^2) for each value of y_true; memory bounded.

    Raises
    ------
    ValueError
        If the shapes do not fit, values are not finite, or there is one member and the score is to be fair.

    See Also
    --------
    crps : For each variable alone.

    Examples
    --------
    >>> from flowmatch.metrics import energy_score
    >>> energy_score([[0.0, 0.0]], [[[3.0, 4.0]], [[-3.0, -4.0]]], scaled=False)  # 5 - 10 / 2
    0.0
    """
    truth, members = as_forecast(y_true, samples, min_members=2 if fair else 1, why=FAIR)
    m = len(members)

    def score(y: FloatArray, X: FloatArray) -> FloatArray:
        distance: FloatArray = np.linalg.norm(X - y, axis=-1).mean(axis=0)
        return (distance - _pair_distances(X) / (m * (m - 1 if fair else m))) / _unit(X, scaled)

    return mean_score(score, per_lead, truth[None], members)


def ensemble_energy_distance(X: Samples, Y: Samples, *, scaled: bool = True, per_lead: bool = False) -> Values:
    r"""Energy distance between two ensembles for the same rows, context by context; the mean over rows.

    .. math:: \mathcal{E} = 2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    (Szekely and Rizzo, 2013, section 2) without pairs of a member with itself: the U-statistic, whose mean is 0 for
    ensembles of one distribution whatever their sizes, and which may be a little below 0. Against an ensemble of the
    true distribution it judges the forecast distribution at each context; a single truth a row, as for scores, cannot.

    Parameters
    ----------
    X, Y : array-like or tensor of shape (n_samples, n, ...) and (m_samples, n, ...)
        The two ensembles, members first, two members at least. Without `per_lead` a rollout is one state.
    scaled : bool, default=True
        Whether to divide by the square root of the number of values in a state.
    per_lead : bool, default=False
        Whether axis 2 of X and Y is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        In the units of X.

    Raises
    ------
    ValueError
        If the shapes after the first axis differ, there are fewer than two members, or values are not finite.

    See Also
    --------
    energy_distance : Between two samples, without contexts.

    Examples
    --------
    >>> from flowmatch.metrics import ensemble_energy_distance
    >>> ensemble_energy_distance([[0.0], [2.0]], [[5.0], [7.0]])  # 2 * 5 - 2 - 2
    6.0
    """
    first, second = floats_of(X, "X"), floats_of(Y, "Y")
    if first.ndim < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(f"X has shape {first.shape} and Y {second.shape}; expected the same after the members' axis.")
    check_members("X", first, 2)
    check_members("Y", second, 2)

    def distance(X: FloatArray, Y: FloatArray) -> FloatArray:
        between = sum(np.linalg.norm(x - Y, axis=-1).mean(axis=0) for x in X) / len(X)
        within = sum(_pair_distances(side) / (len(side) * (len(side) - 1)) for side in (X, Y))
        return 2 * (between - within) / _unit(X, scaled)

    return mean_score(distance, per_lead, first, second)


def _mean_distance(X: FloatArray, Y: FloatArray) -> float:
    """Mean distance of the rows of X to those of Y."""
    return float(sum(block.sum() for _, block in distance_blocks(X, Y)) / (len(X) * len(Y)))


def _pair_distances(X: FloatArray) -> FloatArray:
    """Distances of all pairs of members of an ensemble (M, b, n_leads, d), each pair once, added up: (b, n_leads)."""
    return sum((np.linalg.norm(X[i] - X[:i], axis=-1).sum(axis=0) for i in range(1, len(X))), start=np.zeros(1))


def _unit(X: FloatArray, scaled: bool) -> float:
    """What distances of states of d values are divided by."""
    return float(X.shape[-1] ** 0.5) if scaled else 1.0
