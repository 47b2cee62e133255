"""The parts that a bearing's vibration is the sum of: the rotation of the shaft and the ringing after impacts."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

HARMONICS = (0.2, 0.1, 0.05, 0.025)
"""Amplitudes of the shaft's rotation and its multiples; an impact of severity 1 starts at about 1."""

_SPREAD = 0.2  # impacts differ in strength by up to this share
_FADED = 14.0  # an impact is forgotten once it has decayed by exp(-14), below the resolution of float32


def rotation(shaft: Floats, duration: float, n_times: int, rng: np.random.Generator) -> Floats:
    """Harmonics of the shaft's frequency, (n, n_times)."""
    turns = shaft[:, None] * np.linspace(0, duration, n_times, endpoint=False)
    phases = rng.uniform(0, 2 * np.pi, (len(HARMONICS), len(shaft), 1))
    waves = (
        amplitude * np.sin(2 * np.pi * multiple * turns + phase)
        for multiple, (amplitude, phase) in enumerate(zip(HARMONICS, phases, strict=True), start=1)
    )
    return sum(waves, np.zeros_like(turns))


def ringing(
    frequency: Floats,
    turning: Floats,
    n_times: int,
    rate: float,
    pole: complex,
    slip: float,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Response to impacts of severity 1, and their strengths at the samples where they are first felt; (n, n_times).

    Impacts fall between samples. The response of one at position p is the imaginary part of exp(pole (m - p)) at every
    sample m >= p, so an impulse of exp(pole (m - p)) at the first of them gives all others exactly by convolution
    with exp(pole m).
    """
    n_before = math.ceil(-_FADED / pole.real)  # samples before the window whose impacts are still heard in it
    n_all = n_before + n_times
    seconds = _impact_times(frequency, n_all / rate, slip, rng)
    strength = _load(turning, seconds, rng) * rng.uniform(1 - _SPREAD, 1 + _SPREAD, seconds.shape)
    position = seconds * rate
    sample = np.ceil(position).astype(np.int64)
    row, column = np.nonzero(sample < n_all)
    strength, position, sample = strength[row, column], position[row, column], sample[row, column]
    impulses, struck = np.zeros((len(frequency), n_all), complex), np.zeros((len(frequency), n_all))
    np.add.at(impulses, (row, sample), strength * np.exp(pole * (sample - position)))
    np.add.at(struck, (row, sample), strength)
    # The circle that the FFT closes spoils the first n_before samples only, and those are dropped.
    response = np.fft.fft(np.exp(pole * np.arange(n_before + 1)), n_all)
    heard = np.fft.ifft(np.fft.fft(impulses) * response).imag
    return heard[:, n_before:], struck[:, n_before:]


def _impact_times(frequency: Floats, duration: float, slip: float, rng: np.random.Generator) -> Floats:
    """Seconds, (n, n_impacts): the first within a period, then one period apart but for the slip, past `duration`."""
    reach = math.sqrt(3) * slip  # of a uniform distribution with this standard deviation; below 1, so time goes on
    n_impacts = math.ceil(duration * frequency.max() / (1 - reach)) + 1
    intervals = rng.uniform(1 - reach, 1 + reach, (len(frequency), n_impacts))
    intervals[:, 0] = rng.uniform(0, 1, len(frequency))
    return np.cumsum(intervals, axis=1) / frequency[:, None]


def _load(turning: Floats, seconds: Floats, rng: np.random.Generator) -> Floats:
    """Load on a defect, 1 in the middle of the load zone, where a defect that does not turn (0 Hz) lies.

    A raised cosine: Stribeck's distribution (1 - (1 - cos angle) / (2 e))^k, as in McFadden and Smith, with the zone
    all around (e = 1) and, for a plain spectrum, the exponent k = 1: one pair of sidebands.
    """
    start = np.where(turning == 0, 0.0, rng.uniform(0, 1, len(turning)))
    return (1 + np.cos(2 * np.pi * (turning[:, None] * seconds + start[:, None]))) / 2
