"""Measures of signals: spectra, envelopes, statistics, copies, and a report of all of them.

Signals are arrays or tensors of shape (n, n_channels, n_times), ``fs`` is their sampling rate in hertz. A value means
little alone: compare it with the same measure between two sets of real windows, as `signal_report` does.
"""

from flowmatch.metrics.signals.copies import WindowCopies, window_copies
from flowmatch.metrics.signals.envelopes import envelope_distance, envelope_spectrum, fault_energy
from flowmatch.metrics.signals.features import RandomConvolutions, shape_statistics, statistic_distances
from flowmatch.metrics.signals.reports import SignalReport, signal_report
from flowmatch.metrics.signals.spectra import (
    Spectrum,
    autocorrelation,
    autocorrelation_distance,
    coherence,
    coherence_distance,
    log_spectral_distance,
    log_spectrum,
    power_spectrum,
    spectral_convergence,
)

__all__ = [
    "RandomConvolutions",
    "SignalReport",
    "Spectrum",
    "WindowCopies",
    "autocorrelation",
    "autocorrelation_distance",
    "coherence",
    "coherence_distance",
    "envelope_distance",
    "envelope_spectrum",
    "fault_energy",
    "log_spectral_distance",
    "log_spectrum",
    "power_spectrum",
    "shape_statistics",
    "signal_report",
    "spectral_convergence",
    "statistic_distances",
    "window_copies",
]
