"""Faults of recordings that a look at the signal finds: dead and clipped channels, and sampling rates that are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowmatch.core.types import AnyArray, Array
from flowmatch.records.record import Record

_DEAD_RUN, _DEAD_SHARE = 100, 0.01  # equal samples in a row, at least so many and such a share of the record
_CLIPPED = 10  # samples at one extreme, at least, and more than twice as many as just below it
_BAND = 0.01  # of the range, that is just below
_PULSES = 0.5  # share of samples at the extremes above which it is a train of pulses

RATIOS = (1 / 4, 1 / 3, 1 / 2, 2, 3, 4)
"""By how much a stated sampling rate may be wrong."""

_PER_OCTAVE, _OCTAVES, _SMOOTH = 24, 9, 3  # points of spectra below half the sampling rate, and of their smoothing
_LIKE, _BETTER = 0.7, 0.25  # correlation of log-spectra that are alike, and by how much another rate has to be better
_FEWEST = 4  # records among which one can be the odd one out


def faulty_channels(record: Record) -> list[str]:
    """What is wrong with channels of a record, in words."""
    return [
        f"channel {name!r} {fault}"
        for name, x in zip(record.channels, record.signal, strict=True)
        if (fault := _fault(x)) is not None
    ]


def _fault(x: AnyArray) -> str | None:
    changes = np.flatnonzero(np.diff(x))
    if not len(changes):
        return "is dead (all samples are equal)"
    run = int(np.diff(np.concatenate([[-1], changes, [len(x) - 1]])).max())
    if run >= max(_DEAD_RUN, _DEAD_SHARE * len(x)):
        return "is dead for a while (100 or more equal samples in a row)"
    return "looks clipped (too many samples at its extremes)" if _is_clipped(x) else None


def _is_clipped(x: AnyArray) -> bool:
    at_extremes = (x == x.max()).sum() + (x == x.min()).sum()
    return at_extremes < _PULSES * len(x) and (_piles_up(x) or _piles_up(-x))


def _piles_up(x: AnyArray) -> bool:
    """Whether more than twice as many samples are at the maximum as just below it."""
    top = x.max()
    n_top, below = int((x == top).sum()), x[x < top]
    return n_top >= _CLIPPED and n_top > 2 * int((below >= below.max() - _BAND * (top - x.min())).sum())


def likely_rates(records: Sequence[Record]) -> dict[int, float]:
    """Records whose spectrum is like that of the others at another sampling rate only: their numbers, and that rate.

    Resonances of a machine stay where they are; a record whose rate is stated wrong has all of them shifted by one
    factor. Compared are smoothed log-spectra of the first channel over log-frequency.
    """
    if len(records) < _FEWEST:
        return {}
    spectra = np.stack([_log_spectrum(record) for record in records])
    usual = np.median(spectra - spectra.mean(axis=1, keepdims=True), axis=0)
    as_stated = [_likeness(spectrum, usual, 1.0) for spectrum in spectra]
    likely = {}
    if np.median(as_stated) > _LIKE:  # there is something that the records share
        for i, spectrum in enumerate(spectra):
            likeness, ratio = max((_likeness(spectrum, usual, ratio), ratio) for ratio in RATIOS)
            if likeness > max(_LIKE, as_stated[i] + _BETTER):
                likely[i] = ratio * records[i].fs
    return likely


def _log_spectrum(record: Record) -> Array:
    """Smoothed log-spectrum on frequencies spread evenly by octaves, up to half the sampling rate."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import welch

    x = record.signal[0] - record.signal[0].mean(dtype=np.float64)
    frequencies, power = welch(x, 1.0, nperseg=min(len(x), 2**14))
    grid = 0.5 * 2 ** np.linspace(-_OCTAVES, 0, _OCTAVES * _PER_OCTAVE, endpoint=False)
    log_power = np.log(np.maximum(power, np.finfo(np.float64).tiny))
    return gaussian_filter1d(np.interp(grid, frequencies, log_power), _SMOOTH)


def _likeness(spectrum: Array, usual: Array, ratio: float) -> float:
    """Correlation with the usual spectrum, were the sampling rate `ratio` times as stated."""
    shift = round(np.log2(ratio) * _PER_OCTAVE)
    a, b = (spectrum[: len(spectrum) - shift], usual[shift:]) if shift >= 0 else (spectrum[-shift:], usual[:shift])
    return float(np.corrcoef(a, b)[0, 1])
