"""Scores of forecasts: how far they are from the truth, as single values and as ensembles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_number
from flowmatch.metrics._ensembles import FAIR, Values, as_forecast, as_point_forecast, by_lead, mean_score, out
from flowmatch.metrics._samples import FloatArray, Samples, floats_of


def nrmse(y_true: Samples, y_pred: Samples, scale: ArrayLike | None = None, *, per_lead: bool = False) -> Values:
    """Root of the mean squared error in units of the truth's standard deviation.

    Parameters
    ----------
    y_true, y_pred : array-like or tensor of shape (n, ...)
        The truth, and one forecast of it, such as an ensemble's mean.
    scale : float or array-like that broadcasts to y_true, default=None
        Divisor of the errors. By default the standard deviation of all values of y_true, at every lead time the
        same; give variables of different units scales of their own, such as ``y_train.std(axis=0)``.
    per_lead : bool, default=False
        Whether axis 1 is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        0 for a perfect forecast, 1 for the constant mean of the truth.

    Raises
    ------
    ValueError
        If the shapes differ, values are not finite, the scale is not positive, or y_true is constant and no scale
        given.

    Examples
    --------
    >>> from flowmatch.metrics import nrmse
    >>> nrmse([1.0, 3.0], [2.0, 2.0])
    1.0
    """
    truth, predicted = as_point_forecast(y_true, y_pred)
    errors = (predicted - truth) / _scale(scale, truth)
    return out(np.sqrt((by_lead(errors, per_lead) ** 2).mean(axis=(0, 2))), per_lead)


def crps(y_true: Samples, samples: Samples, *, fair: bool = True, per_lead: bool = False) -> Values:
    r"""Score an ensemble by its continuous ranked probability score; lower is better.

    .. math:: \mathrm{CRPS}(F, y) = E|X - y| - \tfrac12 E|X - X'|

    (Gneiting and Raftery, 2007, eq. 21), the mean over rows and variables, for each variable of the state alone: it
    sees how well each is forecast, not how they depend on each other; `energy_score` sees both. For a forecast without
    spread it is the mean absolute error.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first.
    fair : bool, default=True
        Whether pairs of a member with itself are left out of the second mean, dividing by M (M - 1) (Ferro, 2014). The
        score of M members drawn from a distribution then has that distribution's own score as its mean, so that
        ensembles of different sizes compare. False divides by M^2: the score of the M values as they are, which is
        larger, the more so the fewer they are.
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        In the units of y_true. A fair score may be negative on a few rows. Cost O(M log M) for each value of y_true, by
        sorting; memory bounded.

    Raises
    ------
    ValueError
        If the shapes do not fit, values are not finite, or there is one member and the score is to be fair.

    See Also
    --------
    energy_score : For states as a whole.
    pinball_loss : For predicted quantiles.

    Examples
    --------
    >>> from flowmatch.metrics import crps
    >>> crps([0.0], [[-1.0], [2.0]])  # (1 + 2) / 2 - 3 / 2
    0.0
    >>> crps([0.0], [[-1.0], [2.0]], fair=False)  # (1 + 2) / 2 - 3 / 4
    0.75
    """
    truth, members = as_forecast(y_true, samples, min_members=2 if fair else 1, why=FAIR)
    m = len(members)
    weights = (2 * np.arange(1, m + 1) - m - 1) / (m * (m - 1 if fair else m))

    def score(y: FloatArray, X: FloatArray) -> FloatArray:
        distance = np.abs(X - y).mean(axis=0)
        X.sort(axis=0)
        half_gini: FloatArray = np.tensordot(weights, X, axes=1)  # sum over i < j of x_(j) - x_(i)
        return distance - half_gini

    return mean_score(score, per_lead, truth[None], members)


def pinball_loss(
    y_true: Samples, y_quantiles: Samples, quantiles: float | ArrayLike, *, per_lead: bool = False
) -> Values:
    r"""Pinball loss of predicted quantiles: scikit-learn's `mean_pinball_loss` for states of any shape.

    .. math:: L_q(y, x) = \max(q \, (y - x), \, (q - 1) \, (y - x))

    (Koenker and Bassett, 1978), the mean over rows and variables; lower is better.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth.
    y_quantiles : array-like or tensor of shape (n_quantiles, n, ...), or (n, ...) for a single quantile
        Predicted.
    quantiles : float or sequence of n_quantiles floats
        Which ones, in [0, 1].
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_quantiles,), (n_steps,) or (n_quantiles, n_steps)
        In the units of y_true. Over evenly spaced quantiles, twice the mean approaches the CRPS.

    Raises
    ------
    ValueError
        If a quantile is not in [0, 1], the shapes do not fit, or values are not finite.

    Examples
    --------
    >>> from flowmatch.metrics import pinball_loss
    >>> pinball_loss([1.0, 2.0], [[0.0, 0.0], [2.0, 3.0]], [0.1, 0.9])
    array([0.15, 0.1 ])
    """
    truth, predicted = floats_of(y_true, "y_true"), floats_of(y_quantiles, "y_quantiles")
    levels = np.asarray(quantiles, dtype=np.float64)
    for level in levels.ravel():
        check_number("quantiles", float(level), 0.0, 1.0, closed_high=True)
    if levels.ndim > 1 or predicted.shape != levels.shape + truth.shape:
        expected = levels.shape + truth.shape
        raise ValueError(f"y_quantiles has shape {predicted.shape} for {levels.size} quantile(s); expected {expected}.")
    errors = np.subtract(truth, predicted.reshape(-1, *truth.shape), dtype=np.float64)
    q = levels.reshape(-1, *[1] * truth.ndim)
    losses = by_lead(np.maximum(q * errors, (q - 1) * errors), per_lead, n_before=1).mean(axis=(1, 3))
    if levels.ndim == 0:
        return out(losses[0], per_lead)
    return losses if per_lead else losses[:, 0]


def skill_score(score: Values, reference: Values) -> Values:
    """Share of a reference forecast's score that is saved: 1 - score / reference.

    Parameters
    ----------
    score : float or ndarray
        Of the forecast; any score of which 0 is the best, such as `crps` or `nrmse`.
    reference : float or ndarray that broadcasts with `score`
        The same score of the forecast to beat, such as persistence; positive.

    Returns
    -------
    float or ndarray
        1 for a perfect forecast, 0 for one as good as the reference, negative for a worse one.

    Raises
    ------
    ValueError
        If a reference is not positive.

    Examples
    --------
    >>> from flowmatch.metrics import skill_score
    >>> skill_score(0.5, 2.0)
    0.75
    """
    against = np.asarray(reference, dtype=np.float64)
    if not (against > 0).all():
        raise ValueError(f"reference must be positive, got {reference!r}.")
    skill = 1.0 - np.asarray(score, dtype=np.float64) / against
    return skill if skill.ndim else float(skill)


def _scale(scale: ArrayLike | None, truth: FloatArray) -> FloatArray:
    """What errors are divided by; it broadcasts to the truth."""
    if scale is None:
        if truth.min() == truth.max():
            raise ValueError("y_true is constant, so that its standard deviation is no scale: pass scale.")
        return np.asarray(truth.std())
    found = np.asarray(scale, dtype=np.float64)
    if not (np.isfinite(found) & (found > 0)).all():
        raise ValueError(f"scale must be finite and positive, got {scale!r}.")
    try:
        return np.broadcast_to(found, truth.shape)
    except ValueError as error:
        raise ValueError(
            f"scale has shape {found.shape}, which does not broadcast to y_true, {truth.shape}."
        ) from error
