"""Power spectra, coherence and autocorrelation of signals, and how far those of two samples are apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowmatch.core.checks import check_count, check_number
from flowmatch.core.types import Array
from flowmatch.metrics._samples import Samples
from flowmatch.preprocessing.signal_arrays import as_signals

USABLE = 1 / 2.56
"""Highest frequency compared, as a share of the sampling rate: analyzers filter out what lies above."""
SEGMENT = 256
TINY = 1e-30


class Spectrum(NamedTuple):
    """Values by frequency.

    Parameters
    ----------
    frequencies : ndarray of shape (n_frequencies,)
        In hertz.
    values : ndarray of shape (..., n_frequencies)
        At these.
    """

    frequencies: Array
    values: Array


def power_spectrum(X: Samples, fs: float, *, n_per_segment: int = SEGMENT) -> Spectrum:
    """Power spectral density of every window by Welch's method.

    Segments overlap by half, have a Hann window and lose their mean (Welch, 1967).

    Parameters
    ----------
    X : array-like or tensor of shape (n, n_channels, n_times)
        Windows.
    fs : float
        Sampling rate, in hertz.
    n_per_segment : int, default=256
        Values of a segment, at most those of a window: frequencies are ``fs / n_per_segment`` apart.

    Returns
    -------
    Spectrum
        Named tuple (frequencies, values) with values of shape (n, n_channels, n_frequencies), in squared units of X
        per hertz; their sum times the spacing of the frequencies is the variance.

    Raises
    ------
    ValueError
        If X is not of that shape or not finite, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import power_spectrum
    >>> tone = np.sin(2 * np.pi * 1500 * np.arange(1024) / 12000)
    >>> frequencies, power = power_spectrum(tone[None, None], fs=12000)
    >>> float(frequencies[power[0, 0].argmax()])
    1500.0
    """
    from scipy.signal import welch

    signals = as_signals(X)
    check_number("fs", fs, 0.0, open_low=True)
    segment = min(check_count("n_per_segment", n_per_segment, 8), signals.shape[2])
    return Spectrum(*welch(signals, fs, nperseg=segment, noverlap=segment // 2))


def log_spectrum(X: Samples, fs: float, *, n_per_segment: int = SEGMENT, f_max: float | None = None) -> Array:
    """Logarithm of the power spectrum of every window as features.

    Parameters
    ----------
    X : array-like or tensor of shape (n, n_channels, n_times)
        Windows.
    fs : float
        Sampling rate, in hertz.
    n_per_segment : int, default=256
        See `power_spectrum`.
    f_max : float, optional
        Highest frequency, in hertz. By default ``fs / 2.56``, above which the filters of vibration analyzers begin.

    Returns
    -------
    ndarray of shape (n, n_channels * n_frequencies)
        Logarithm to base 10 of the power at the frequencies above 0, the channels side by side.

    Raises
    ------
    ValueError
        As `power_spectrum` does.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import log_spectrum
    >>> X = np.random.default_rng(0).normal(size=(2, 1, 512))
    >>> (log_spectrum(10 * X, fs=1000) - log_spectrum(X, fs=1000)).round(6)[0, :3]
    array([2., 2., 2.])
    """
    _, power = _usable(power_spectrum(X, fs, n_per_segment=n_per_segment), fs, f_max)
    return np.log10(power + TINY).reshape(len(power), -1)


def log_spectral_distance(real: Samples, synthetic: Samples, fs: float, *, f_max: float | None = None) -> float:
    """Log-spectral distance between the mean power spectra of two samples, in decibels.

    The root mean square over frequencies of the difference of ``10 log10`` of the power, averaged over channels (Gray
    and Markel, 1976, "Distance measures for speech processing").

    Parameters
    ----------
    real, synthetic : array-like or tensor of shape (n, n_channels, n_times) and (m, n_channels, n_times)
        The two samples.
    fs : float
        Sampling rate, in hertz.
    f_max : float, optional
        Highest frequency, in hertz; by default ``fs / 2.56``.

    Returns
    -------
    float
        0 for equal spectra, 20 if all amplitudes differ by a factor of ten.

    Raises
    ------
    ValueError
        As `power_spectrum` does.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import log_spectral_distance
    >>> X = np.random.default_rng(0).normal(size=(5, 1, 512))
    >>> round(log_spectral_distance(X, 10 * X, fs=1000), 6)
    20.0
    """
    first, second = (
        10 * np.log10(_usable(power_spectrum(X, fs), fs, f_max).values.mean(axis=0) + TINY) for X in (real, synthetic)
    )
    return float(np.sqrt(np.square(first - second).mean(axis=-1)).mean())


def spectral_convergence(real: Samples, synthetic: Samples) -> float:
    """Relative distance between the mean magnitude spectra of two samples.

    ``|A - B| / |A|`` for the magnitudes of the Fourier transforms, averaged over the windows of each sample: the
    spectral convergence of Arik et al. (2018), "Fast spectrogram inversion using multi-head convolutional neural
    networks", for samples that are not paired.

    Parameters
    ----------
    real, synthetic : array-like or tensor of shape (n, n_channels, n_times) and (m, n_channels, n_times)
        The two samples.

    Returns
    -------
    float
        0 for equal spectra; loud lines weigh most.

    Raises
    ------
    ValueError
        If the samples are not of these shapes or not finite, or `real` is silent.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import spectral_convergence
    >>> X = np.random.default_rng(0).normal(size=(5, 1, 512))
    >>> round(spectral_convergence(X, 0.9 * X), 6)
    0.1
    """
    first, second = (np.abs(np.fft.rfft(as_signals(X), axis=-1)).mean(axis=0) for X in (real, synthetic))
    if not first.any():
        raise ValueError("real is 0 everywhere: it has no spectrum to compare with.")
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


def coherence(X: Samples, fs: float, *, n_per_segment: int = SEGMENT) -> Spectrum:
    """Coherence between the channels of signals, over all windows.

    ``|P_xy|^2 / (P_xx P_yy)`` of the spectra averaged over segments and windows: the share of one channel's power that
    is linear in the other's (Carter, Knapp and Nuttall, 1973).

    Parameters
    ----------
    X : array-like or tensor of shape (n, n_channels, n_times)
        Windows of two channels or more.
    fs : float
        Sampling rate, in hertz.
    n_per_segment : int, default=256
        See `power_spectrum`.

    Returns
    -------
    Spectrum
        Named tuple (frequencies, values) with values in [0, 1] of shape (n_pairs, n_frequencies), the pairs of
        channels in the order (0, 1), (0, 2), ..., (1, 2), .... Of independent channels about one over the number of
        segments.

    Raises
    ------
    ValueError
        As `power_spectrum` does, or if there is a single channel.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import coherence
    >>> X = np.random.default_rng(0).normal(size=(50, 1, 512))
    >>> round(float(coherence(np.concatenate([X, -2 * X], axis=1), fs=1000).values.min()), 6)
    1.0
    """
    from scipy.signal import csd

    signals = as_signals(X)
    n_channels = signals.shape[1]
    if n_channels < 2:
        raise ValueError(f"X has shape {signals.shape}, a single channel; coherence is between two.")
    first, second = np.triu_indices(n_channels, 1)
    frequencies, own = power_spectrum(signals, fs, n_per_segment=n_per_segment)
    segment = min(n_per_segment, signals.shape[2])
    cross = csd(signals[:, first], signals[:, second], fs, nperseg=segment, noverlap=segment // 2)[1].mean(axis=0)
    own = own.mean(axis=0)
    products: Array = own[first] * own[second]
    shares = np.divide(np.abs(cross) ** 2, products, out=np.zeros_like(products), where=products > 0)
    return Spectrum(frequencies, shares)


def coherence_distance(real: Samples, synthetic: Samples, fs: float, *, f_max: float | None = None) -> float:
    """Mean absolute difference of the coherence between channels of two samples.

    Parameters
    ----------
    real, synthetic : array-like or tensor of shape (n, n_channels, n_times) and (m, n_channels, n_times)
        The two samples, of two channels or more.
    fs : float
        Sampling rate, in hertz.
    f_max : float, optional
        Highest frequency, in hertz; by default ``fs / 2.56``.

    Returns
    -------
    float
        In [0, 1]: the mean over frequencies and pairs of channels.

    Raises
    ------
    ValueError
        As `coherence` does.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import coherence_distance
    >>> X = np.random.default_rng(0).normal(size=(50, 2, 512))
    >>> alike = np.repeat(X[:, :1], 2, axis=1)  # one channel twice
    >>> round(coherence_distance(X, alike, fs=1000), 2)
    0.99
    """
    first, second = (_usable(coherence(X, fs), fs, f_max).values for X in (real, synthetic))
    return float(np.abs(first - second).mean())


def autocorrelation(X: Samples, *, n_lags: int = 64) -> Array:
    """Autocorrelation of every window.

    Parameters
    ----------
    X : array-like or tensor of shape (n, n_channels, n_times)
        Windows.
    n_lags : int, default=64
        Lags, fewer than the values of a window.

    Returns
    -------
    ndarray of shape (n, n_channels, n_lags)
        At the lags 1 to `n_lags`: sums over the products within the window, less its mean, over the sum of squares (the
        biased estimate, Box and Jenkins, 1976, eq. 2.1.12); 0 for constant windows.

    Raises
    ------
    ValueError
        If X is not of that shape or not finite, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import autocorrelation
    >>> tone = np.sin(2 * np.pi * np.arange(4000) / 12)
    >>> print(autocorrelation(tone[None, None], n_lags=12)[0, 0, [1, 5, 11]].round(1))
    [ 0.5 -1.   1. ]
    """
    signals = as_signals(X)
    n_times = signals.shape[2]
    check_count("n_lags", n_lags, 1, n_times - 1)
    signals = signals - signals.mean(axis=-1, keepdims=True)
    power = np.abs(np.fft.rfft(signals, 2 * n_times, axis=-1)) ** 2
    sums = np.fft.irfft(power, axis=-1)[..., : n_lags + 1]
    return np.divide(sums[..., 1:], sums[..., :1], out=np.zeros_like(sums[..., 1:]), where=sums[..., :1] > 0)


def autocorrelation_distance(real: Samples, synthetic: Samples, *, n_lags: int = 64) -> float:
    """Mean absolute difference of the mean autocorrelations of two samples.

    Parameters
    ----------
    real, synthetic : array-like or tensor of shape (n, n_channels, n_times) and (m, n_channels, n_times)
        The two samples.
    n_lags : int, default=64
        Lags, fewer than the values of a window.

    Returns
    -------
    float
        The mean over lags and channels.

    Raises
    ------
    ValueError
        As `autocorrelation` does.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import autocorrelation_distance
    >>> tone = np.sin(2 * np.pi * np.arange(4000) / 8)[None, None]
    >>> round(autocorrelation_distance(tone, 3 * tone), 6)  # the level does not matter
    0.0
    """
    first, second = (autocorrelation(X, n_lags=n_lags).mean(axis=0) for X in (real, synthetic))
    return float(np.abs(first - second).mean())


def _usable(spectrum: Spectrum, fs: float, f_max: float | None) -> Spectrum:
    """What lies above 0 and up to `f_max`."""
    frequencies, values = spectrum
    limit = fs * USABLE if f_max is None else check_number("f_max", f_max, frequencies[1])
    inside = (frequencies > 0) & (frequencies <= limit)
    return Spectrum(frequencies[inside], values[..., inside])
