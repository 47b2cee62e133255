"""A seasonal series whose conditional quantiles are known at every step ahead."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.datasets._random import RandomState, generator

Floats: TypeAlias = NDArray[np.float64]


def make_seasonal_series(
    n_steps: int = 480,
    *,
    n_series: int = 1,
    period: int = 24,
    amplitude: float = 0.5,
    memory: float = 0.8,
    noise: float = 0.2,
    random_state: RandomState = None,
) -> Floats:
    r"""Draw series with a season, memory and skewed noise that is stronger at some times of the season than at others.

    The logarithm is a sine and an autoregression of order one about it (Gaussian):

    .. math:: \log y_t = a \sin(2 \pi t / p) + z_t, \qquad z_t = \phi z_{t-1} + s_t e_t, \qquad
        s_t = s (1 + \tfrac12 \cos(2 \pi t / p)).

    So y is positive and its distribution h steps ahead, given the past, is log-normal; `seasonal_series_quantiles`
    gives its quantiles exactly. What counts of the past are the last value and the time of the season.

    Parameters
    ----------
    n_steps : int, default=480
        Steps of each series. All begin at t = 0, in the distribution that the process has there after a long time.
    n_series : int, default=1
        Independent series.
    period : int, default=24
        Steps of a season, p, at least 2.
    amplitude : float, default=0.5
        Of the sine, a.
    memory : float, default=0.8
        The factor phi, from 0 to less than 1.
    noise : float, default=0.2
        Standard deviation of the noise in the logarithm, s, the mean over a season.
    random_state : int, Generator, RandomState or None, default=None
        None for fresh entropy. NumPy's global state is neither read nor advanced.

    Returns
    -------
    series : ndarray of shape (n_series, n_steps, 1)
        What a forecaster learns from.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from flowmatch.datasets import make_seasonal_series
    >>> series = make_seasonal_series(96, n_series=10, random_state=0)
    >>> series.shape, bool(series.min() > 0)
    ((10, 96, 1), True)
    """
    from scipy.signal import lfilter

    n_steps, n_series = check_count("n_steps", n_steps), check_count("n_series", n_series)
    _check(period, amplitude, memory, noise)
    times = np.arange(n_steps)
    spread = _spread(times, period, noise)
    # After a long time the variance is the sum of memory^2k spread^2 over the past, and a season's terms give them all.
    season = np.arange(period)
    past = memory ** (2.0 * season) * _spread(-season, period, noise) ** 2
    spread[0] = math.sqrt(past.sum() / -math.expm1(2 * period * math.log(memory)) if memory else past[0])
    noises = spread * generator(random_state).standard_normal((n_series, n_steps))
    deviations: Floats = lfilter([1.0], [1.0, -memory], noises, axis=1)
    return np.exp(_median(times, period, amplitude) + deviations)[..., None]


def seasonal_series_quantiles(
    X: ArrayLike,
    start: ArrayLike,
    quantiles: ArrayLike,
    horizon: int = 1,
    *,
    period: int = 24,
    amplitude: float = 0.5,
    memory: float = 0.8,
    noise: float = 0.2,
) -> Floats:
    r"""Exact quantiles of the next values of `make_seasonal_series`, given the past.

    From a last value y_t, log y_{t+h} is normal with mean ``a sin(2 pi (t + h) / p) + phi^h z_t`` and variance
    ``sum_{k<h} phi^2k s_{t+h-k}^2``, by unrolling the recursion.

    Parameters
    ----------
    X : array-like of shape (n, n_lags, 1)
        Contexts, as `make_windows` cuts them; all but the last step is of no effect.
    start : int or array-like of shape (n,)
        Step of the series that comes right after a context, as `make_windows` gives it.
    quantiles : float or array-like of shape (n_quantiles,)
        Levels between 0 and 1.
    horizon : int, default=1
        Steps ahead, from the first to this one.
    period : int, default=24
        Steps of a season that the series were drawn with.
    amplitude, memory, noise : float, default=0.5, 0.8, 0.2
        What else they were drawn with.

    Returns
    -------
    values : ndarray of shape (n_quantiles, n, horizon, 1)
        Each step by itself; without the first axis for a single level.

    Raises
    ------
    ValueError
        If a parameter is out of its range, a level is not between 0 and 1 or X is not positive.

    Examples
    --------
    >>> from flowmatch.datasets import make_seasonal_series, make_windows, seasonal_series_quantiles
    >>> series = make_seasonal_series(1000, n_series=20, random_state=0)
    >>> X, y, _, start = make_windows(series, n_lags=1, horizon=3)
    >>> low, high = seasonal_series_quantiles(X, start, [0.05, 0.95], horizon=3)
    >>> ((low <= y) & (y <= high)).mean(axis=0).ravel().round(2)
    array([0.9, 0.9, 0.9])
    """
    from scipy.special import ndtri

    horizon = check_count("horizon", horizon)
    _check(period, amplitude, memory, noise)
    contexts, levels = np.asarray(X, np.float64), np.asarray(quantiles, np.float64)
    if contexts.ndim != 3 or contexts.shape[2] != 1 or not (contexts[:, -1] > 0).all():
        raise ValueError(f"X must be positive numbers of shape (n, n_lags, 1), got shape {contexts.shape}.")
    if levels.ndim > 1 or not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"quantiles must be numbers between 0 and 1, got {quantiles!r}.")
    first = np.broadcast_to(np.asarray(start, np.int64), len(contexts))
    times = first[:, None] + np.arange(horizon)
    deviation = np.log(contexts[:, -1]) - _median(first[:, None] - 1, period, amplitude)
    middle = _median(times, period, amplitude) + memory ** np.arange(1.0, horizon + 1) * deviation
    lag = np.subtract.outer(np.arange(horizon), np.arange(horizon))  # of the noise at step j in step h, where j <= h
    weights = np.where(lag >= 0, memory ** np.abs(2.0 * lag), 0.0)
    width = np.sqrt(_spread(times, period, noise) ** 2 @ weights.T)
    return np.exp(middle + width * ndtri(levels)[..., None, None])[..., None]


def _median(times: NDArray[np.int64], period: int, amplitude: float) -> Floats:
    """Logarithm of the median of the series."""
    return amplitude * np.sin(2 * np.pi * times / period)


def _spread(times: NDArray[np.int64], period: int, noise: float) -> Floats:
    """Standard deviation of the noise that comes in."""
    return noise * (1 + np.cos(2 * np.pi * times / period) / 2)


def _check(period: int, amplitude: float, memory: float, noise: float) -> None:
    check_count("period", period, low=2)
    check_number("amplitude", amplitude, 0)
    check_number("memory", memory, 0, 1)
    check_number("noise", noise, 0, open_low=True)
