"""Generated signals taken to the spectrum, the values and the levels of real ones, by maps learned from a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.special import ndtr

from flowmatch.core.checks import check_count
from flowmatch.core.storable import storable
from flowmatch.core.types import AnyArray, Array
from flowmatch.preprocessing.conditions import find_classes, positions_of
from flowmatch.preprocessing.signal_arrays import as_signals, rms_of

LOUDEST = 10**1.5
"""Largest gain of an equalizer, 30 dB: what generated signals lack altogether is not made of their noise."""
N_LEVELS = 65
VALUE_SHARES = ndtr(np.linspace(-4.0, 4.0, 257))
"""Shares of the quantiles of values: fine in the tails, but short of the smallest and largest value."""


@storable
@dataclass(frozen=True)
class SignalCalibration:
    """What takes generated windows to real ones of their kind: two equalizers, a map of values and a map of levels.

    A window is divided by its level, the root mean square over channels and times; equalized; its values are mapped so
    that those of all windows together are distributed as real ones; it is equalized again; and multiplied by its level,
    mapped to the distribution of real levels. All maps are learned from a sample, by `fit`; a window's result does not
    depend on the other windows then.

    This corrects what a generator gets wrong on average, and nothing else: neither which values follow each other, nor
    what differs from window to window.

    Parameters
    ----------
    gains : ndarray of shape (2, n_channels, n_frequencies)
        Of the two equalizers, at the frequencies of `numpy.fft.rfft`.
    values : ndarray of shape (2, n_channels, n_quantiles)
        Quantiles of the values of windows of level 1, generated and real.
    levels : ndarray of shape (2, n_levels)
        Quantiles of the logarithm of the level, generated and real.
    n_times : int
        Values of a window.

    See Also
    --------
    ClassCalibrations : One for each class.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.preprocessing import SignalCalibration
    >>> rng = np.random.default_rng(0)
    >>> real, noise = rng.laplace(size=(100, 1, 256)), rng.normal(size=(100, 1, 256))
    >>> calibration = SignalCalibration.fit(real, noise)
    >>> heavy = calibration.apply(rng.normal(size=(100, 1, 256)))
    >>> print((np.mean(heavy**4) / np.mean(heavy**2) ** 2).round())  # 6 for a Laplace distribution, 3 for a normal one
    6.0
    """

    gains: Array
    values: Array
    levels: Array
    n_times: int

    def check(self) -> None:
        """Raise a ValueError unless the maps fit each other."""
        n_channels, n_frequencies = self.values.shape[1], self.n_times // 2 + 1
        if self.gains.shape != (2, n_channels, n_frequencies) or self.values.ndim != 3 or len(self.values) != 2:
            raise ValueError("the equalizers and values of a calibration do not fit together.")
        if self.levels.ndim != 2 or len(self.levels) != 2:
            raise ValueError("the levels of a calibration must be two rows.")
        if not all(np.isfinite(part).all() for part in (self.gains, self.values, self.levels)):
            raise ValueError("a calibration must be finite.")
        if (np.diff(self.values) < 0).any() or (np.diff(self.levels) < 0).any():
            raise ValueError("the quantiles of a calibration must rise.")

    @classmethod
    def fit(cls, real: Any, generated: Any, *, smooth: int = 9) -> Self:
        """Learn the maps.

        Parameters
        ----------
        real : array-like or tensor of shape (n, n_channels, n_times)
            Real windows.
        generated : array-like or tensor of shape (m, n_channels, n_times)
            A sample of the generator: as many as the real windows, or more.
        smooth : int, default=9
            Frequencies over which the power is averaged before it is compared.

        Returns
        -------
        SignalCalibration

        Raises
        ------
        ValueError
            If the samples are no signals of the same channels and lengths.
        """
        real, generated = as_signals(real, "real"), as_signals(generated, "generated")
        if real.shape[1:] != generated.shape[1:]:
            raise ValueError(f"real is {real.shape} and generated {generated.shape}: other channels or lengths.")
        check_count("smooth", smooth)
        n_levels = min(N_LEVELS, len(real), len(generated))
        shares = (np.arange(n_levels) + 0.5) / n_levels
        levels = np.stack([np.quantile(np.log(_level(side)), shares) for side in (generated, real)])
        level, shape = _mapped_levels(generated, levels), generated / _level(generated)
        first = _gains(real, level * shape, smooth)
        shape = _unit(_equalized(shape, first))
        values = np.stack([np.quantile(side, VALUE_SHARES, axis=(0, 2)).T for side in (shape, real / _level(real))])
        second = _gains(real, level * _unit(_mapped_values(shape, values)), smooth)
        return cls(np.stack([first, second]), values, levels, real.shape[2])

    def apply(self, X: Any) -> Array:
        """Calibrate windows of the same generator.

        Parameters
        ----------
        X : array-like or tensor of shape (n, n_channels, n_times)
            Generated windows.

        Returns
        -------
        ndarray of shape (n, n_channels, n_times)

        Raises
        ------
        ValueError
            If X is no signals of the channels and length of those in `fit`.
        """
        signals = as_signals(X)
        if signals.shape[1:] != (expected := (self.values.shape[1], self.n_times)):
            raise ValueError(f"X is {signals.shape}; the calibration is of windows (n, {expected[0]}, {expected[1]}).")
        shape = _unit(_equalized(signals / _level(signals), self.gains[0]))
        shape = _unit(_equalized(_unit(_mapped_values(shape, self.values)), self.gains[1]))
        return _mapped_levels(signals, self.levels) * shape


@storable
@dataclass(frozen=True)
class ClassCalibrations:
    """A `SignalCalibration` for each class.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels, in order.
    calibrations : tuple of SignalCalibration
        Of each.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.preprocessing import ClassCalibrations
    >>> real, generated = np.random.default_rng(0).normal(size=(2, 40, 1, 128))
    >>> y = np.repeat(["faint", "loud"], 20)
    >>> real[20:] *= 10
    >>> calibrated = ClassCalibrations.fit(real, y, generated, y).apply(generated, y)
    >>> print(calibrated[:20].std().round(), calibrated[20:].std().round())
    1.0 10.0
    """

    classes: AnyArray
    calibrations: tuple[SignalCalibration, ...]

    def check(self) -> None:
        """Raise a ValueError unless there is a calibration for each class."""
        if self.classes.shape != (len(self.calibrations),):
            raise ValueError(f"there are {len(self.calibrations)} calibrations for {self.classes.shape} classes.")

    @classmethod
    def fit(cls, real: Any, y: Any, generated: Any, y_generated: Any, *, smooth: int = 9) -> Self:
        """Learn the maps of each class.

        Parameters
        ----------
        real : array-like or tensor of shape (n, n_channels, n_times)
            Real windows.
        y : array-like of shape (n,)
            Their labels.
        generated : array-like or tensor of shape (m, n_channels, n_times)
            A sample of the generator, with windows of every class.
        y_generated : array-like of shape (m,)
            Their labels.
        smooth : int, default=9
            See `SignalCalibration.fit`.

        Returns
        -------
        ClassCalibrations

        Raises
        ------
        ValueError
            As `SignalCalibration.fit`, or if the labels do not fit.
        """
        real, generated = as_signals(real, "real"), as_signals(generated, "generated")
        classes, codes = find_classes(_labels(y, real, "y"))
        drawn = positions_of(_labels(y_generated, generated, "y_generated"), classes, "y_generated")
        missing = np.setdiff1d(codes, drawn)
        if len(missing):
            raise ValueError(f"generated holds no window of the class {classes.tolist()[missing[0]]!r}.")
        return cls(
            classes,
            tuple(
                SignalCalibration.fit(real[codes == code], generated[drawn == code], smooth=smooth)
                for code in range(len(classes))
            ),
        )

    def apply(self, X: Any, y: Any) -> Array:
        """Calibrate windows by their classes.

        Parameters
        ----------
        X : array-like or tensor of shape (n, n_channels, n_times)
            Generated windows.
        y : array-like of shape (n,)
            Their labels.

        Returns
        -------
        ndarray of shape (n, n_channels, n_times)

        Raises
        ------
        ValueError
            As `SignalCalibration.apply`, or for labels that were not in `fit`.
        """
        signals = as_signals(X)
        codes = positions_of(_labels(y, signals, "y"), self.classes)
        out = np.empty_like(signals)
        for code in np.unique(codes):
            out[codes == code] = self.calibrations[code].apply(signals[codes == code])
        return out


def _labels(y: Any, signals: Array, name: str) -> AnyArray:
    labels = np.asarray(y)
    if labels.shape != (len(signals),):
        raise ValueError(f"{name} has shape {labels.shape}; expected a label for each of the {len(signals)} windows.")
    return labels


def _level(signals: Array) -> Array:
    """Root mean squares, (n, 1, 1), above 0 also for silent windows."""
    return np.maximum(rms_of(signals), np.finfo(float).tiny)


def _unit(signals: Array) -> Array:
    return signals / _level(signals)


def _equalized(signals: Array, gains: Array) -> Array:
    return np.fft.irfft(np.fft.rfft(signals) * gains, signals.shape[2])


def _gains(real: Array, generated: Array, smooth: int) -> Array:
    """Square roots of the ratios of mean powers, (n_channels, n_frequencies)."""

    def power(signals: Array) -> Array:
        mean = np.square(np.abs(np.fft.rfft(signals))).mean(axis=0)
        return np.asarray(uniform_filter1d(mean, smooth, axis=-1, mode="nearest")) + np.finfo(float).tiny

    return np.clip(np.sqrt(power(real) / power(generated)), 1 / LOUDEST, LOUDEST)


def _mapped(x: Array, quantiles: Array) -> Array:
    """From the first row's distribution to that of the second; beyond the outermost quantiles, shifted as these are."""
    source, target = quantiles
    inside = np.clip(x, source[0], source[-1])
    return np.interp(inside, source, target) + (x - inside)


def _mapped_values(signals: Array, values: Array) -> Array:
    return np.stack([_mapped(signals[:, c], values[:, c]) for c in range(signals.shape[1])], axis=1)


def _mapped_levels(signals: Array, levels: Array) -> Array:
    return np.exp(_mapped(np.log(_level(signals)), levels))
