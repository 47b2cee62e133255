"""Structure of forecast fields: power by wavenumber, and the time that a rollout stays correlated with the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.metrics._ensembles import Floats, Values, as_members, as_point_forecast, by_lead, out, row_blocks
from flowmatch.metrics._samples import FloatArray, Samples, floats_of


def pattern_correlation(y_true: Samples, y_pred: Samples, *, per_lead: bool = False) -> Values:
    """Pearson correlation between true and forecast states, the mean over rows.

    Parameters
    ----------
    y_true, y_pred : array-like or tensor of shape (n, ...)
        The truth, and one forecast of it, such as a member of an ensemble or its mean. All that comes after the rows,
        or after the lead times with `per_lead`, is one state, of two values at least.
    per_lead : bool, default=False
        Whether axis 1 is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        In [-1, 1]; a constant state correlates with nothing, which counts as 0.

    Raises
    ------
    ValueError
        If the shapes differ, a state is a single value, or values are not finite.

    Examples
    --------
    >>> from flowmatch.metrics import pattern_correlation
    >>> pattern_correlation([[0.0, 1.0, 2.0]], [[5.0, 6.0, 7.0]])
    1.0
    """
    p, q = (by_lead(array, per_lead) for array in as_point_forecast(y_true, y_pred))
    if p.shape[-1] < 2:
        raise ValueError(f"y_true has shape {np.shape(y_true)}, one value a state; a correlation needs two or more.")
    varies = (np.ptp(p, axis=-1) > 0) & (np.ptp(q, axis=-1) > 0)  # the residuals of constants are round-off
    p, q = p - p.mean(axis=-1, keepdims=True), q - q.mean(axis=-1, keepdims=True)
    products, norms = (p * q).sum(axis=-1), np.sqrt((p**2).sum(axis=-1) * (q**2).sum(axis=-1))
    correlations = np.divide(products, norms, out=np.zeros_like(norms), where=varies)
    return out(correlations.mean(axis=0), per_lead)


def correlation_time(y_true: Samples, y_pred: Samples, *, threshold: float = 0.8, interval: float = 1.0) -> float:
    """Measure how long a rollout stays correlated with the truth.

    Lead times are counted until the first at which `pattern_correlation`, a mean over rows, is below the threshold.

    Parameters
    ----------
    y_true, y_pred : array-like or tensor of shape (n, n_steps, ...)
        True trajectories and rollouts, one member or the mean of an ensemble. A mean over diverging members flattens,
        but may stay correlated longer than any of them.
    threshold : float, default=0.8
        Correlation in (-1, 1) below which a rollout counts as decorrelated.
    interval : float, default=1.0
        Time between two states.

    Returns
    -------
    float
        Lead times before that, times `interval`: 0 if the first is below already, ``n_steps * interval`` if none is.

    Raises
    ------
    ValueError
        If there are no lead times, the shapes differ, a state is a single value, values are not finite, or a
        parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import correlation_time
    >>> x, t = np.linspace(0, 2 * np.pi, 64, endpoint=False), np.arange(1, 11)[:, None]
    >>> correlation_time(np.sin(x + 0 * t)[None], np.sin(x + 0.1 * t)[None])  # cos(0.6) > 0.8 > cos(0.7)
    6.0
    """
    check_number("threshold", threshold, -1.0, 1.0, open_low=True)
    check_number("interval", interval, 0.0, open_low=True)
    correlations = np.asarray(pattern_correlation(y_true, y_pred, per_lead=True))
    low = np.flatnonzero(correlations < threshold)
    return float((low[0] if len(low) else len(correlations)) * interval)


def spectrum(X: Samples, grid_ndim: int, *, lengths: ArrayLike | None = None, per_lead: bool = False) -> FloatArray:
    """Power of fields in shells of equal wavenumber, the mean over all that is not grid.

    Parameters
    ----------
    X : array-like or tensor of shape (n, ..., *grid)
        Fields, periodic along the grid's axes: an axis between two walls leaks power into all wavenumbers, so that
        only like fields compare.
    grid_ndim : {1, 2, 3}
        How many axes the grid has; they are the last of X.
    lengths : sequence of grid_ndim positive floats, optional
        Sides of the box. By default the numbers of grid points along them, as of a grid of equal spacing.
    per_lead : bool, default=False
        Whether axis 1 is the lead time and each has a spectrum of its own.

    Returns
    -------
    ndarray of shape (n_shells,) or (n_steps, n_shells)
        The shell k holds the wavenumbers from k - 1/2 to k + 1/2, in waves along the longest side. It adds up the power
        of its modes: all shells together are the mean of X ** 2 (Parseval), the first is that of the constant part.
        Those beyond half the points along a side hold the corners of the grid only.

    Raises
    ------
    ValueError
        If X has fewer axes than that, a parameter is out of range, or values are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import spectrum
    >>> x = np.arange(16) / 16
    >>> spectrum([1.0 + np.sin(2 * np.pi * 3 * x)], grid_ndim=1).round(6)
    array([1. , 0. , 0. , 0.5, 0. , 0. , 0. , 0. , 0. ])
    """
    power = _shell_power("X", floats_of(X, "X"), grid_ndim, lengths, per_lead)[0]
    return power if per_lead else power[0]


def spectrum_error(
    y_true: Samples, samples: Samples, grid_ndim: int, *, lengths: ArrayLike | None = None, per_lead: bool = False
) -> Values:
    """Mean of |log10| of the forecast's power over the truth's, over the wavenumbers that a grid resolves well.

    Those are the shells 1 to n / 3 of `spectrum`, where n is the number of points along a side (a third of it is also
    where products of fields are commonly cut off).

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ..., *grid)
        The truth.
    samples : array-like or tensor of shape (n_samples, n, ..., *grid) or (n, ..., *grid)
        The ensemble, of which the power is averaged over the members, or one forecast. An ensemble's mean is smoother
        than its members, and should be.
    grid_ndim : {1, 2, 3}
        How many axes the grid has; they are the last of y_true.
    lengths : sequence of grid_ndim positive floats, optional
        Sides of the box, see `spectrum`.
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        0 for equal spectra; 1 if power is off by a factor of ten at every wavenumber.

    Raises
    ------
    ValueError
        If the shapes do not fit, the grid has fewer than 3 points along a side, the truth has no power at one of the
        wavenumbers, a parameter is out of range, or values are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import spectrum_error
    >>> fields = np.random.default_rng(0).normal(size=(5, 1, 32, 32))
    >>> round(spectrum_error(fields, np.sqrt(10) * fields, grid_ndim=2), 6)
    1.0
    """
    truth, forecast, k_max = _both_spectra(y_true, samples, grid_ndim, lengths, per_lead)
    modes = slice(1, k_max + 1)
    with np.errstate(divide="ignore"):  # a forecast without power is infinitely wrong
        errors: FloatArray = np.abs(np.log10(forecast[:, modes] / _positive(truth[:, modes]))).mean(axis=1)
    return out(errors, per_lead)


def high_wavenumber_ratio(
    y_true: Samples, samples: Samples, grid_ndim: int, *, lengths: ArrayLike | None = None, per_lead: bool = False
) -> Values:
    """Power of the forecast over that of the truth at high wavenumbers.

    They are the top third of those of `spectrum_error`: shells 2n / 9 to n / 3 for n points along a side.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ..., *grid)
        The truth.
    samples : array-like or tensor of shape (n_samples, n, ..., *grid) or (n, ..., *grid)
        The ensemble, or one forecast; see `spectrum_error`.
    grid_ndim : {1, 2, 3}
        How many axes the grid has; they are the last of y_true.
    lengths : sequence of grid_ndim positive floats, optional
        Sides of the box, see `spectrum`.
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        1 if forecasts are as rough as the truth, less if they are blurred, more if they are noisy.

    Raises
    ------
    ValueError
        As `spectrum_error` does.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import high_wavenumber_ratio
    >>> fields = np.random.default_rng(0).normal(size=(500, 1, 32))
    >>> blurred = (np.roll(fields, 1, axis=-1) + fields) / 2
    >>> round(high_wavenumber_ratio(fields, blurred, grid_ndim=1), 1)
    0.5
    """
    truth, forecast, k_max = _both_spectra(y_true, samples, grid_ndim, lengths, per_lead)
    modes = slice(2 * k_max // 3, k_max + 1)
    return out(forecast[:, modes].sum(axis=1) / _positive(truth[:, modes].sum(axis=1)), per_lead)


def _both_spectra(
    y_true: Samples, samples: Samples, grid_ndim: int, lengths: ArrayLike | None, per_lead: bool
) -> tuple[FloatArray, FloatArray, int]:
    """Spectra of truth and forecast, (n_leads, n_shells) each, and the highest shell that counts."""
    truth = floats_of(y_true, "y_true")
    members = as_members(samples, "samples", truth)
    true_power, limit = _shell_power("y_true", truth, grid_ndim, lengths, per_lead)
    power = np.mean([_shell_power("samples", member, grid_ndim, lengths, per_lead)[0] for member in members], axis=0)
    k_max = int(2 * limit / 3 + 1e-9)
    if k_max < 1:
        raise ValueError(f"y_true has a grid of {truth.shape[-grid_ndim:]} points; expected 3 a side at least.")
    return true_power, power, k_max


def _shell_power(
    name: str, fields: Floats, grid_ndim: int, lengths: ArrayLike | None, per_lead: bool
) -> tuple[FloatArray, float]:
    """Power by shell, (n_leads, n_shells), and the wavenumber up to which shells are whole."""
    check_count("grid_ndim", grid_ndim, 1, 3)
    n_before = 2 if per_lead else 1
    if fields.ndim < grid_ndim + n_before:
        rows = "n, n_steps" if per_lead else "n"
        raise ValueError(
            f"{name} has shape {fields.shape}; expected ({rows}, ..., *grid) with {grid_ndim} axes of a grid."
        )
    grid = fields.shape[-grid_ndim:]
    shells, limit = _shells(grid, lengths)
    stacked = fields.reshape(1, len(fields), fields.shape[1] if per_lead else 1, -1, *grid)
    total: Any = 0.0
    for (block,) in row_blocks(stacked):
        modes = np.fft.fftn(block, axes=tuple(range(-grid_ndim, 0)))
        total = total + (modes.real**2 + modes.imag**2).sum(axis=(0, 1, 3))
    power = (total / (stacked.shape[1] * stacked.shape[3] * np.prod(grid, dtype=float) ** 2)).reshape(len(total), -1)
    return np.stack([np.bincount(shells, weights=row) for row in power]), limit


def _shells(grid: tuple[int, ...], lengths: ArrayLike | None) -> tuple[NDArray[np.intp], float]:
    """The shell of every mode of a grid, flat, and the wavenumber up to which shells are whole.

    Wavenumbers count the waves along the longest side.
    """
    sides = np.asarray(grid if lengths is None else lengths, dtype=np.float64)
    if sides.shape != (len(grid),) or not (np.isfinite(sides) & (sides > 0)).all():
        raise ValueError(f"lengths must be {len(grid)} positive numbers, a side of the grid each, got {lengths!r}.")
    waves = sides.max() / sides
    axes = [np.fft.fftfreq(n, 1 / n) * wave for n, wave in zip(grid, waves, strict=True)]
    radius = np.linalg.norm(np.meshgrid(*axes, indexing="ij"), axis=0)
    return np.rint(radius).astype(int).ravel(), float((np.array(grid) / 2 * waves).min())


def _positive(power: FloatArray) -> FloatArray:
    if not (power > 0).all():
        raise ValueError("y_true has no power at some of the wavenumbers compared, as constant or smooth fields do.")
    return power
