"""Signals, real beside synthetic: waveforms, spectra, envelope spectra."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np

from flowmatch.core.checks import check_count, check_number
from flowmatch.datasets import Bearing, find_bearing
from flowmatch.metrics.signals import Spectrum, envelope_spectrum, power_spectrum
from flowmatch.plotting._common import Floats, divide_axes
from flowmatch.preprocessing.signal_arrays import as_signals

SIDES = ("real", "synthetic")
FAINTEST = 1e-12


@dataclass(eq=False, repr=False)
class SignalReportDisplay:
    """Three rows of panels, real signals on the left and synthetic ones on the right.

    They show one window, the mean power spectrum, and the mean envelope spectrum with a bearing's fault frequencies.
    Make one with `from_samples`.

    Parameters
    ----------
    waveforms : ndarray of shape (2, n_times)
        A window of real signals, and a synthetic one.
    spectrum : Spectrum
        Power by frequency, of shape (2, n_frequencies).
    envelope : Spectrum
        Amplitude of the squared envelope by frequency, of shape (2, n_frequencies).
    fs : float
        Sampling rate, in hertz.
    lines : dict of str to float, optional
        Frequencies to mark in the envelope spectrum, by name.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (3, 2)
        Waveforms, spectra and envelope spectra.
    lines_ : ndarray of matplotlib Line2D, shape (3, 2)
        What is drawn in them.
    figure_ : matplotlib Figure
        That holds them.

    See Also
    --------
    flowmatch.metrics.signal_report : The same in numbers.
    SignalGridDisplay : A panel a signal.

    Examples
    --------
    >>> from flowmatch.datasets import make_bearing_signals
    >>> from flowmatch.plotting import SignalReportDisplay
    >>> real, synthetic = (make_bearing_signals(40, faults="outer", random_state=seed).data for seed in (0, 1))
    >>> display = SignalReportDisplay.from_samples(real, synthetic, 12000, rpm=1797, bearing="6205")  # doctest: +SKIP
    """

    waveforms: Floats
    _: KW_ONLY
    spectrum: Spectrum
    envelope: Spectrum
    fs: float
    lines: dict[str, float] | None = None

    @classmethod
    def from_samples(
        cls,
        real: Any,
        synthetic: Any,
        fs: float,
        *,
        rpm: float | None = None,
        bearing: Bearing | str | None = None,
        band: tuple[float, float] | None = None,
        channel: int = 0,
        row: int = 0,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot real and synthetic signals side by side.

        Parameters
        ----------
        real, synthetic : array-like or tensor of shape (n, n_channels, n_times) and (m, n_channels, n_times)
            The two samples.
        fs : float
            Sampling rate, in hertz.
        rpm : float, optional
            Speed of the shaft, turns per minute. With `bearing` only.
        bearing : Bearing or str, optional
            Marks its fault frequencies; see `flowmatch.metrics.signal_report`.
        band : (float, float), optional
            Of the envelope, in hertz; see `flowmatch.metrics.signals.envelope_spectrum`.
        channel : int, default=0
            Channel to show.
        row : int, default=0
            Window whose waveform is shown, of both samples.
        ax : matplotlib Axes or array of 6 Axes, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        SignalReportDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the samples are no signals of the same length, or a parameter is out of range.
        """
        signals = [as_signals(X, name) for name, X in zip(SIDES, (real, synthetic), strict=True)]
        if signals[0].shape[1:] != signals[1].shape[1:]:
            raise ValueError(f"real is {signals[0].shape} and synthetic {signals[1].shape}: other channels or lengths.")
        check_count("channel", channel, 0, signals[0].shape[1] - 1)
        check_count("row", row, 0, min(map(len, signals)) - 1)
        if (rpm is None) != (bearing is None):
            raise ValueError(f"rpm and bearing are needed together, got rpm={rpm!r} and bearing={bearing!r}.")
        shown = [X[:, channel : channel + 1] for X in signals]
        spectra = [power_spectrum(X, fs) for X in shown]
        envelopes = [envelope_spectrum(X, fs, band=band) for X in shown]
        lines = None
        if bearing is not None:
            speed = check_number("rpm", rpm, 0.0, open_low=True)
            lines = {name: float(at) for name, at in find_bearing(bearing).fault_frequencies(speed).items()}
        display = cls(
            np.stack([X[row, 0] for X in shown]),
            spectrum=_means(spectra),
            envelope=_means(envelopes),
            fs=fs,
            lines=lines,
        )
        return display.plot(ax=ax, **plot_params)

    def plot(self, *, ax: Any = None, **line_params: Any) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array of 6 Axes, optional
            One Axes is divided into a grid of panels. By default a figure of its own.
        **line_params
            Passed to every panel's ``plot``.

        Returns
        -------
        SignalReportDisplay
            The display itself.
        """
        axes = divide_axes(ax, 6, 2, "panel", size=(5.0, 2.2), share=(False, False)).reshape(3, 2)
        low = self.envelope.frequencies < self.fs / 12
        loud = 10 * np.log10(np.maximum(self.spectrum.values, FAINTEST * max(self.spectrum.values.max(), 1e-300)))
        rows = (
            (np.arange(self.waveforms.shape[1]) / self.fs, self.waveforms, "time [s]", "signal"),
            (self.spectrum.frequencies, loud, "frequency [Hz]", "power [dB]"),
            (self.envelope.frequencies[low], self.envelope.values[:, low], "frequency [Hz]", "squared envelope"),
        )
        self.lines_ = np.empty((3, 2), dtype=object)
        for i, (x, values, x_label, y_label) in enumerate(rows):
            margin = 0.05 * max(float(np.ptp(values)), np.finfo(float).tiny)
            for side, panel in enumerate(axes[i]):
                (self.lines_[i, side],) = panel.plot(x, values[side], **line_params)
                panel.set(xlabel=x_label, xlim=(x[0], x[-1]), ylim=(values.min() - margin, values.max() + margin))
            axes[i, 0].set_ylabel(y_label)
        for panel, title in zip(axes[0], SIDES, strict=True):
            panel.set_title(title)
        top = {"xycoords": ("data", "axes fraction"), "rotation": 90, "va": "top", "fontsize": 7}
        for name, at in (self.lines or {}).items():
            for panel in axes[2]:
                panel.axvline(at, color="0.6", linestyle=":", zorder=0)
                panel.annotate(name.upper(), (at, 1), **top)
        self.axes_, self.figure_ = axes, axes[0, 0].figure
        return self


def _means(spectra: list[Spectrum]) -> Spectrum:
    """The mean spectra of samples of one channel."""
    return Spectrum(spectra[0].frequencies, np.stack([spectrum.values.mean(axis=(0, 1)) for spectrum in spectra]))
