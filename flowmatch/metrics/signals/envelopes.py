"""Envelope spectra of signals, and the share of their energy at the fault frequencies of a bearing."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_count, check_number
from flowmatch.core.types import Array
from flowmatch.metrics._samples import Samples
from flowmatch.metrics.signals.spectra import Spectrum
from flowmatch.preprocessing.signal_arrays import as_signals

BAND = (1 / 6, 3 / 8)
"""Band of the carrier, as shares of the sampling rate: 2 to 4.5 kHz at 12 kHz."""
LOW, HIGH = 1.7, 1 / 12
"""Frequencies of the envelope that are compared: from what a Hann window leaves of the mean, over its resolution, to a
share of the sampling rate. 20 to 1000 Hz for 1024 values at 12 kHz."""
SLIP = 0.03
"""Share by which rolling elements may slip, and faults miss their frequency."""
MIN_FFT = 4096

Limits = tuple[float, float]


def envelope_spectrum(X: Samples, fs: float, *, band: Limits | None = None) -> Spectrum:
    """Amplitude spectrum of the squared envelope of signals in a band.

    The band is passed forward and backward through a Butterworth filter of order 4, the envelope is the magnitude of
    the analytic signal, and its square, less the mean, is transformed with a Hann window (Randall and Antoni, 2011,
    "Rolling element bearing diagnostics - a tutorial", section 3.4). Impacts that ring a resonance in the band appear
    at the frequency at which they come.

    Parameters
    ----------
    X : array-like or tensor of shape (n, n_channels, n_times)
        Windows.
    fs : float
        Sampling rate, in hertz.
    band : (float, float), optional
        Lowest and highest frequency of the band, in hertz, around a resonance. By default from ``fs / 6`` to
        ``3 fs / 8``.

    Returns
    -------
    Spectrum
        Named tuple (frequencies, values) with values of shape (n, n_channels, n_frequencies). Windows are padded with
        zeros to 4096 values if they are shorter.

    Raises
    ------
    ValueError
        If X is not of that shape, not finite or too short for the filter, or `band` is not within (0, fs / 2).

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import envelope_spectrum
    >>> t = np.arange(4096) / 12000
    >>> modulated = (1 + 0.5 * np.cos(2 * np.pi * 105 * t)) * np.sin(2 * np.pi * 3000 * t)
    >>> frequencies, amplitudes = envelope_spectrum(modulated[None, None], fs=12000)
    >>> round(float(frequencies[amplitudes[0, 0].argmax()]))
    105
    """
    from scipy.signal import butter, hilbert, sosfiltfilt

    signals = as_signals(X)
    check_number("fs", fs, 0.0, open_low=True)
    low, high = np.multiply(BAND, fs) if band is None else _checked("band", band, fs / 2)
    n_times = signals.shape[2]
    sos = butter(4, (low, high), "bandpass", fs=fs, output="sos")
    if n_times <= (pad := 3 * (2 * len(sos) + 1)):
        raise ValueError(f"X has windows of {n_times} values; the filter of an envelope takes more than {pad}.")
    power: Array = np.abs(hilbert(sosfiltfilt(sos, signals))) ** 2
    envelope = (power - power.mean(axis=-1, keepdims=True)) * np.hanning(n_times)
    n_fft = max(n_times, MIN_FFT)
    amplitudes: Array = np.abs(np.fft.rfft(envelope, n_fft))
    frequencies = np.arange(amplitudes.shape[-1]) * (fs / n_fft)
    return Spectrum(frequencies, amplitudes)


def envelope_distance(
    real: Samples, synthetic: Samples, fs: float, *, band: Limits | None = None, limits: Limits | None = None
) -> float:
    """Relative distance between the mean envelope spectra of two samples.

    Parameters
    ----------
    real, synthetic : array-like or tensor of shape (n, n_channels, n_times) and (m, n_channels, n_times)
        The two samples.
    fs : float
        Sampling rate, in hertz.
    band : (float, float), optional
        See `envelope_spectrum`.
    limits : (float, float), optional
        Frequencies of the envelope that are compared, in hertz. By default from ``1.7 fs / n_times``, the resolution of
        the window, to ``fs / 12``.

    Returns
    -------
    float
        ``|A - B| / |A|`` of the mean spectra between the limits, the mean over channels.

    Raises
    ------
    ValueError
        As `envelope_spectrum` does, or if no frequency lies between the limits.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import envelope_distance
    >>> X = np.random.default_rng(0).normal(size=(5, 1, 1024))
    >>> round(envelope_distance(X, 2 * X, fs=12000), 6)  # the squared envelope is four times as large
    3.0
    """
    first, second = (limited_envelope(X, fs, band, limits).values.mean(axis=0) for X in (real, synthetic))
    size = np.maximum(np.linalg.norm(first, axis=-1), np.finfo(float).tiny)
    return float((np.linalg.norm(first - second, axis=-1) / size).mean())


def fault_energy(
    X: Samples,
    fs: float,
    frequency: ArrayLike,
    *,
    band: Limits | None = None,
    limits: Limits | None = None,
    n_harmonics: int = 3,
    slip: float = SLIP,
) -> Array:
    """Share of the energy of every envelope spectrum that lies at a fault frequency and its multiples.

    Parameters
    ----------
    X : array-like or tensor of shape (n, n_channels, n_times)
        Windows.
    fs : float
        Sampling rate, in hertz.
    frequency : float or array-like of shape (n,)
        The fault frequency, in hertz, of all windows or of each; see `flowmatch.datasets.Bearing.fault_frequencies`.
    band : (float, float), optional
        See `envelope_spectrum`.
    limits : (float, float), optional
        Frequencies of the envelope that count, in hertz. By default from ``1.7 fs / n_times``, the resolution of the
        window, to ``fs / 12``.
    n_harmonics : int, default=3
        Multiples of the frequency, from 1 on.
    slip : float, default=0.03
        Distance from a multiple up to which energy counts as its own, as a share of it; at least the resolution
        ``fs / n_times``.

    Returns
    -------
    ndarray of shape (n, n_channels)
        In [0, 1]; also of a healthy bearing not 0, but about the share of the frequencies that count.

    Raises
    ------
    ValueError
        As `envelope_spectrum` does, or if a parameter is out of range.

    Examples
    --------
    >>> from flowmatch.datasets import Bearing, make_bearing_signals
    >>> from flowmatch.metrics.signals import fault_energy
    >>> signals = make_bearing_signals([20, 20], faults=["normal", "outer"], random_state=0)
    >>> frequency = Bearing().fault_frequencies(signals.rpm)["bpfo"]
    >>> energy = fault_energy(signals.data, signals.sampling_rate, frequency)[:, 0]
    >>> print(energy[:20].mean().round(1), energy[20:].mean().round(1))
    0.1 0.6
    """
    signals = as_signals(X)
    spectrum = limited_envelope(signals, fs, band, limits)
    return energy_at(spectrum, frequency, fs / signals.shape[2], n_harmonics=n_harmonics, slip=slip)


def limited_envelope(X: Samples, fs: float, band: Limits | None, limits: Limits | None) -> Spectrum:
    """The envelope spectrum between the limits."""
    signals = as_signals(X)
    frequencies, values = envelope_spectrum(signals, fs, band=band)
    low, high = (LOW * fs / signals.shape[2], HIGH * fs) if limits is None else _checked("limits", limits, np.inf)
    inside = (frequencies > low) & (frequencies < high)
    if not inside.any():
        raise ValueError(f"no frequency of the envelope, {frequencies[1]:g} Hz apart, lies in {low:g} to {high:g} Hz.")
    return Spectrum(frequencies[inside], values[..., inside])


def energy_at(
    spectrum: Spectrum, frequency: ArrayLike, resolution: float, *, n_harmonics: int = 3, slip: float = SLIP
) -> Array:
    """Share of the energy of spectra at the multiples of a frequency, one or one a window, (n, n_channels)."""
    frequencies, amplitudes = spectrum
    lines = np.asarray(frequency, dtype=np.float64)
    if lines.shape not in ((), (len(amplitudes),)) or not (np.isfinite(lines) & (lines > 0)).all():
        raise ValueError(f"frequency must be positive, one or one for each of the {len(amplitudes)} windows.")
    check_number("slip", slip, 0.0, 0.5)
    harmonics = np.arange(1, check_count("n_harmonics", n_harmonics) + 1)
    multiples = (np.broadcast_to(lines, len(amplitudes))[:, None] * harmonics)[..., None]
    distances: Array = np.abs(frequencies - multiples)
    near = np.any(distances <= np.maximum(slip * multiples, resolution), axis=1)
    energy = amplitudes**2
    total = energy.sum(axis=-1)
    at_lines = np.where(near[:, None], energy, 0.0).sum(axis=-1)
    return np.divide(at_lines, total, out=np.zeros_like(total), where=total > 0)


def _checked(name: str, limits: Limits, most: float) -> Limits:
    if np.shape(limits) != (2,) or not 0 < limits[0] < limits[1] < most:
        raise ValueError(f"{name} must be two rising frequencies between 0 and {most:g} Hz, got {limits!r}.")
    return limits
