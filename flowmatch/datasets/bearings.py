"""Vibration of a rolling bearing, healthy or with one localized fault, from its kinematics.

A point defect is struck at a frequency that the geometry gives, and each strike rings a resonance of the housing
(P. D. McFadden and J. D. Smith, "Model for the vibration produced by a single point defect in a rolling element
bearing", Journal of Sound and Vibration 96(1), 1984). Rolling elements slip, so that strikes are periodic on average
only (R. B. Randall and J. Antoni, "Rolling element bearing diagnostics - a tutorial", Mechanical Systems and Signal
Processing 25(2), 2011, where the characteristic frequencies below are found too).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch

from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.datasets._random import RandomState, entropy_of
from flowmatch.datasets._vibration import HARMONICS, ringing, rotation

Floats: TypeAlias = NDArray[np.float64]

FAULTS = ("normal", "inner", "outer", "ball")
"""What can be simulated: a healthy bearing, a defect on the inner race, on the outer race, on a rolling element."""


@dataclass(frozen=True)
class Bearing:
    """Geometry of a rolling bearing whose outer race stands still; SKF 6205 by default.

    Parameters
    ----------
    n_elements : int, default=9
        Number of rolling elements.
    diameter_ratio : float, default=0.3126 / 1.537
        Diameter of a rolling element over the pitch diameter, between 0 and 1.
    contact_angle : float, default=0.0
        Degrees from the radial plane, from 0 to less than 90.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> bearing = Bearing()
    >>> print(f"{bearing.bpfi:.3f} {bearing.bpfo:.3f} {bearing.ftf:.3f} {bearing.bsf:.3f}")
    5.415 3.585 0.398 2.357
    """

    n_elements: int = 9
    diameter_ratio: float = 0.3126 / 1.537
    contact_angle: float = 0.0

    def __post_init__(self) -> None:
        check_count("n_elements", self.n_elements)
        check_number("diameter_ratio", self.diameter_ratio, 0, 1, open_low=True)
        check_number("contact_angle", self.contact_angle, 0, 90)

    @property
    def bpfo(self) -> float:
        """Rolling elements that pass a point of the outer race per turn of the shaft, n/2 (1 - d/D cos a)."""
        return self.n_elements / 2 * (1 - self._ratio)

    @property
    def bpfi(self) -> float:
        """Rolling elements that pass a point of the inner race per turn of the shaft, n/2 (1 + d/D cos a)."""
        return self.n_elements / 2 * (1 + self._ratio)

    @property
    def ftf(self) -> float:
        """Turns of the cage per turn of the shaft, 1/2 (1 - d/D cos a)."""
        return (1 - self._ratio) / 2

    @property
    def bsf(self) -> float:
        """Spins of a rolling element per turn of the shaft, D/(2d) (1 - (d/D cos a)^2); it hits both races in each."""
        return (1 - self._ratio**2) / (2 * self.diameter_ratio)

    def fault_frequencies(self, rpm: ArrayLike) -> dict[str, Floats]:
        """Characteristic frequencies at a speed of the shaft.

        Parameters
        ----------
        rpm : float or array-like of floats
            Turns per minute.

        Returns
        -------
        dict of str to ndarray
            "bpfo", "bpfi", "bsf" and "ftf" in hertz, each of the shape of `rpm`. A defect of a rolling element strikes
            at twice "bsf".

        Examples
        --------
        >>> {name: round(float(value), 1) for name, value in Bearing().fault_frequencies(1797).items()}
        {'bpfo': 107.4, 'bpfi': 162.2, 'bsf': 70.6, 'ftf': 11.9}
        """
        shaft = np.asarray(rpm, dtype=np.float64) / 60
        return {name: getattr(self, name) * shaft for name in ("bpfo", "bpfi", "bsf", "ftf")}

    @property
    def _ratio(self) -> float:
        return self.diameter_ratio * math.cos(math.radians(self.contact_angle))


BEARINGS: Mapping[str, Bearing] = MappingProxyType(
    {
        "6203": Bearing(8, 0.2656 / 1.122),  # SKF 6203-2RS JEM, fan end of the Case Western Reserve University records
        "6205": Bearing(9, 0.3126 / 1.537),  # SKF 6205-2RS JEM, their drive end
        "6804": Bearing(13, 3.5 / 25.6),  # NSK 6804DD, PRONOSTIA (Nectoux et al., 2012)
        "ER-16K": Bearing(9, 7.94 / 38.52),  # University of Ottawa (Huang and Baddour, 2018)
        "NICE": Bearing(8, 0.235 / 1.245),  # Society for Machinery Failure Prevention Technology (Bechhoefer, 2013)
        "UER204": Bearing(8, 7.92 / 34.55),  # LDK UER204, XJTU-SY (Wang et al., 2020)
        "ZA-2115": Bearing(16, 0.331 / 2.815, 15.17),  # Rexnord, University of Cincinnati (Qiu et al., 2006)
    }
)
"""Bearings of public records by designation, with the geometry that those who recorded them published."""


def find_bearing(name: str | Bearing) -> Bearing:
    """Look up a bearing by its designation.

    Parameters
    ----------
    name : str or Bearing
        Such as "SKF 6205-2RS JEM": maker, seals and spelling do not matter. A Bearing is returned as it is.

    Returns
    -------
    Bearing
        Of `BEARINGS`.

    Raises
    ------
    ValueError
        If it is not among them; make a `Bearing` of its geometry then.

    Examples
    --------
    >>> from flowmatch.datasets import find_bearing
    >>> find_bearing("SKF 6205-2RS").n_elements
    9
    """
    if isinstance(name, Bearing):
        return name
    plain = "".join(filter(str.isalnum, name.upper())) if isinstance(name, str) else ""
    found = [bearing for known, bearing in BEARINGS.items() if known.replace("-", "") in plain]
    if len(found) != 1:
        raise ValueError(
            f"bearing must be a Bearing, such as Bearing(n_elements=9, diameter_ratio=7.94 / 39.04), or the name of "
            f"one of {', '.join(BEARINGS)}, got {name!r}."
        )
    return found[0]


def make_bearing_signals(
    n_samples: int | Sequence[int] = 100,
    *,
    n_times: int = 1024,
    faults: str | Sequence[str] = FAULTS,
    severity: float | ArrayLike = 1.0,
    rpm: float | tuple[float, float] = 1797.0,
    sampling_rate: float = 12_000.0,
    snr_db: float | None = 20.0,
    slip: float = 0.01,
    resonance: float = 3000.0,
    damping: float = 0.05,
    bearing: Bearing | None = None,
    random_state: RandomState = None,
) -> Bunch:
    """Simulate windows of vibration from a machine whose bearing is healthy or has a localized fault.

    A window is the sum of three parts that do not depend on each other:

    - the shaft's rotation and its multiples, of fixed amplitudes and random phases;
    - the impacts of the fault, at its characteristic frequency. Each rings the resonance as
      ``exp(-damping w t) sin(sqrt(1 - damping^2) w t)``, ``w = 2 pi resonance``; so do those from before the window
      began. An impact is as strong as the load on the defect, ``(1 + cos(angle)) / 2`` for a defect that turns through
      the load zone with the shaft (inner race) or with the cage (rolling element), 1 for the outer race, whose defect
      stays in the middle of the zone; and it differs at random by up to a fifth;
    - white Gaussian noise.

    Parameters
    ----------
    n_samples : int or sequence of int, default=100
        Number of windows in all, spread evenly over `faults`; or the number for each fault.
    n_times : int, default=1024
        Samples per window.
    faults : str or sequence of {"normal", "inner", "outer", "ball"}, default=all four
        Conditions to simulate. The windows come in this order, not shuffled.
    severity : float or array-like of shape (n_windows,), default=1.0
        Amplitude of the impacts, at least 0; the shaft's first harmonic has amplitude 0.2. Nothing else depends on it:
        a window of severity 0 equals the normal one of the same `random_state`. Of no effect on normal windows.
    rpm : float or (float, float), default=1797.0
        Speed of the shaft, turns per minute; with two numbers, drawn between them for each window.
    sampling_rate : float, default=12000.0
        Samples per second.
    snr_db : float or None, default=20.0
        Power of the shaft's vibration over that of the noise, decibels; None for no noise. The impacts do not count,
        so that the noise is the same for every fault and severity.
    slip : float, default=0.01
        Standard deviation of the interval between two impacts, as a share of its mean, from 0 to less than 0.5. The
        intervals are independent (uniform), so that the deviations add up.
    resonance : float, default=3000.0
        Undamped frequency that the impacts ring, Hz; below half the sampling rate.
    damping : float, default=0.05
        Damping ratio of the resonance, from 0.001 to less than 1.
    bearing : Bearing or None, default=None
        Geometry; None for that of SKF 6205.
    random_state : int, Generator, RandomState or None, default=None
        None for fresh entropy. NumPy's global state is neither read nor advanced.

    Returns
    -------
    signals : Bunch
        Signals and what made them, with the attributes:

        data : float32 ndarray of shape (n_windows, 1, n_times)
            Vibration.
        target : str ndarray of shape (n_windows,)
            Fault of each window.
        target_names : str ndarray of shape (n_faults,)
            `faults`.
        severity : float64 ndarray of shape (n_windows,)
            Severity of each window, 0 for normal ones.
        rpm : float64 ndarray of shape (n_windows,)
            Speed of each window, turns per minute.
        fault_frequency : float64 ndarray of shape (n_windows,)
            Impacts per second without slip; nan for normal windows.
        impacts : float32 ndarray of shape (n_windows, n_times)
            Strength of the impact that is first felt at this sample, 0 where there is none.
        sampling_rate : float
            Samples per second.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or `n_samples` or `severity` does not have the right length.

    Examples
    --------
    >>> from flowmatch.datasets import make_bearing_signals
    >>> signals = make_bearing_signals(8, faults=["normal", "outer"], rpm=1800, random_state=0)
    >>> signals.data.shape
    (8, 1, 1024)
    >>> print(signals.target[3:5], signals.fault_frequency[3:5].round(1))
    ['normal' 'outer'] [  nan 107.5]
    """
    names = check_faults(faults)
    counts = _check_n_samples(n_samples, names)
    n_times = check_count("n_times", n_times)
    rate = check_number("sampling_rate", sampling_rate, 0, open_low=True)
    pole = _pole(resonance, damping, rate)
    slip = check_number("slip", slip, 0, 0.5)
    target = np.repeat(names, counts)
    strength = np.where(target == "normal", 0.0, _check_severity(severity, len(target)))
    low, high = _check_rpm(rpm, rate)
    noise_std = _noise_std(snr_db)
    bearing = Bearing() if bearing is None else bearing
    if not isinstance(bearing, Bearing):
        raise ValueError(f"bearing must be a Bearing or None, got {bearing!r}.")

    # no part of a window depends on how much another part draws
    streams = np.random.SeedSequence(entropy_of(random_state)).spawn(4)
    speeds, phases, noise, strikes = map(np.random.default_rng, streams)
    turns_per_minute = speeds.uniform(low, high, len(target))
    shaft = turns_per_minute / 60
    vibration = rotation(shaft, n_times / rate, n_times, phases)
    if noise_std:
        vibration += noise_std * noise.standard_normal(vibration.shape)
    frequency = np.full(len(target), np.nan)
    impacts = np.zeros(vibration.shape, np.float32)
    for name, (order, turning) in _kinematics(bearing).items():
        rows = target == name
        if rows.any():
            frequency[rows] = order * shaft[rows]
            heard, struck = ringing(frequency[rows], turning * shaft[rows], n_times, rate, pole, slip, strikes)
            vibration[rows] += strength[rows, None] * heard
            impacts[rows] = strength[rows, None] * struck
    return Bunch(
        data=vibration[:, None].astype(np.float32),
        target=target,
        target_names=np.array(names),
        severity=strength,
        rpm=turns_per_minute,
        fault_frequency=frequency,
        impacts=impacts,
        sampling_rate=rate,
    )


def _kinematics(bearing: Bearing) -> dict[str, tuple[float, float]]:
    """Fault -> impacts, and turns of the defect through the load zone, per turn of the shaft."""
    return {
        "inner": (bearing.bpfi, 1.0),
        "outer": (bearing.bpfo, 0.0),
        "ball": (2 * bearing.bsf, bearing.ftf),
    }


def _pole(resonance: Any, damping: Any, rate: float) -> complex:
    """Of the resonance, per sample: an impact of strength 1 at sample 0 is the imaginary part of exp(pole m)."""
    resonance = check_number("resonance", resonance, 0, open_low=True)
    if resonance >= rate / 2:
        raise ValueError(
            f"resonance must be below half the sampling_rate, {rate / 2:g} Hz, to be heard, got {resonance!r}."
        )
    damping = check_number("damping", damping, 0.001, 1)
    return 2 * math.pi * resonance / rate * complex(-damping, math.sqrt(1 - damping**2))


def _noise_std(snr_db: Any) -> float:
    if snr_db is None:
        return 0.0
    power = sum(amplitude**2 for amplitude in HARMONICS) / 2
    return math.sqrt(power) * 10 ** (-check_number("snr_db", snr_db, -300, 300) / 20)


def check_faults(faults: Any) -> list[str]:
    """Names of faults, one or several, each once."""
    names = [faults] if np.ndim(faults) == 0 else list(faults)
    for name in names:
        check_choice("faults", name, FAULTS)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"faults must be one or more different names of {', '.join(FAULTS)}, got {faults!r}.")
    return [str(name) for name in names]


def _check_n_samples(n_samples: Any, names: list[str]) -> list[int]:
    """Windows of each fault; the first ones get those left over."""
    if np.ndim(n_samples) == 0:
        share, left = divmod(check_count("n_samples", n_samples), len(names))
        return [share + (index < left) for index in range(len(names))]
    if len(n_samples) != len(names):
        raise ValueError(
            f"n_samples must be one integer, or one for each of the {len(names)} faults {', '.join(names)}, got "
            f"{n_samples!r}."
        )
    counts = [check_count("each of n_samples", count, 0) for count in n_samples]
    check_count("the sum of n_samples", sum(counts))
    return counts


def _check_severity(severity: Any, n_windows: int) -> Floats:
    try:
        values = np.asarray(severity, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"severity must be a number or an array of numbers, got {severity!r}.") from error
    if values.shape not in ((), (n_windows,)):
        raise ValueError(
            f"severity must be one number or one for each of the {n_windows} windows, got an array of shape "
            f"{values.shape}."
        )
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"severity must be finite and at least 0, got {severity!r}.")
    return np.broadcast_to(values, n_windows)


def _check_rpm(rpm: Any, rate: float) -> tuple[float, float]:
    """Slowest and fastest speed."""
    speeds = [rpm, rpm] if np.ndim(rpm) == 0 else list(rpm)
    if len(speeds) != 2:
        raise ValueError(f"rpm must be one number or two, the slowest and the fastest speed, got {rpm!r}.")
    low, high = (check_number("rpm", speed, 0, open_low=True) for speed in speeds)
    if low > high:
        raise ValueError(f"rpm must give the slowest speed first, got {rpm!r}.")
    if high / 60 * len(HARMONICS) >= rate / 2:
        raise ValueError(
            f"rpm must be below {30 * rate / len(HARMONICS):g} at sampling_rate={rate:g}, so that harmonic "
            f"{len(HARMONICS)} of the shaft is below half of that, got {rpm!r}."
        )
    return low, high
