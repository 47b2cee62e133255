"""Recordings of several simulated bearings, each mounted in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowmatch.core.checks import check_count, check_number, check_sequence
from flowmatch.datasets._random import RandomState, generator
from flowmatch.datasets.bearings import FAULTS, check_faults, make_bearing_signals
from flowmatch.records import Record, Records

_RESONANCES = (2500 / 12_000, 4000 / 12_000)
"""Of housings, as shares of the sampling rate, or of 12 kHz."""


def make_bearing_records(
    n_bearings: int = 3,
    *,
    faults: str | Sequence[str] = FAULTS,
    loads: Sequence[float] = (0.0, 1.0, 2.0),
    seconds: float = 2.0,
    severity: float | tuple[float, float] = (0.5, 2.0),
    sampling_rate: float = 12_000.0,
    snr_db: float | None = 10.0,
    random_state: RandomState = None,
) -> Records:
    """Simulate recordings of several bearings of each condition, each at several loads.

    Each bearing is mounted in its own way: the resonance of its housing is drawn between 2500 and 4000 Hz (or a fifth
    and a third of the sampling rate, if that is less), its damping between 0.03 and 0.1, and the severity of its fault
    as given, for all of its recordings. So a classifier that was trained on some bearings has to tell the faults of
    others by more than a spectrum. The shaft turns at 1797 rpm without load and 24 rpm slower for each unit of load, at
    which impacts are a tenth stronger.

    Parameters
    ----------
    n_bearings : int, default=3
        Bearings of each condition.
    faults : str or sequence of {"normal", "inner", "outer", "ball"}, default=all four
        Conditions to simulate.
    loads : sequence of float, default=(0.0, 1.0, 2.0)
        Loads, from 0 to 50; each bearing is recorded once at each.
    seconds : float, default=2.0
        Duration of a recording.
    severity : float or (float, float), default=(0.5, 2.0)
        Amplitude of the impacts; with two numbers, drawn between them for each bearing (evenly in its logarithm).
    sampling_rate : float, default=12000.0
        Samples per second.
    snr_db : float or None, default=10.0
        As in `make_bearing_signals`.
    random_state : int, Generator, RandomState or None, default=None
        As in `make_bearing_signals`.

    Returns
    -------
    records : Records
        Bearing by bearing, with ``bearing`` such as "inner-1", ``id`` such as "inner-1-load2", and ``severity`` among
        the further columns.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    See Also
    --------
    read_records : The same from files.

    Examples
    --------
    >>> from flowmatch.datasets import make_bearing_records
    >>> records = make_bearing_records(n_bearings=2, faults=["normal", "outer"], random_state=0)
    >>> records
    <Records: 12 of 1 channel (0) at 12000 Hz, 24 s in all; label: normal 6, outer 6>
    >>> train, test = records.split(by="bearing", random_state=0)
    >>> print(test.bearing)
    ['normal-1' 'normal-1' 'normal-1' 'outer-1' 'outer-1' 'outer-1']
    """
    n_bearings = check_count("n_bearings", n_bearings)
    check_sequence("loads", list(loads), check_number, 0, 50, closed_high=True)
    rate = check_number("sampling_rate", sampling_rate, 0, open_low=True)
    n_times = check_count("seconds * sampling_rate", round(check_number("seconds", seconds, 0) * rate))
    weakest, strongest = np.broadcast_to(np.asarray(severity, dtype=np.float64), 2)
    check_number("severity", float(weakest), 0, float(strongest), closed_high=True)
    rng, records = generator(random_state), []
    for fault in check_faults(faults):
        for number in range(1, n_bearings + 1):
            resonance, damping = rng.uniform(*_RESONANCES) * min(rate, 12_000.0), rng.uniform(0.03, 0.1)
            strength = weakest * (strongest / weakest) ** rng.uniform() if weakest else rng.uniform(0, strongest)
            for load in loads:
                speed = 1797.0 - 24 * load
                mount: dict[str, Any] = {
                    "rpm": speed,
                    "resonance": resonance,
                    "damping": damping,
                    "severity": strength * (1 + load / 10),
                }
                sampled: dict[str, Any] = {
                    "n_times": n_times,
                    "sampling_rate": rate,
                    "snr_db": snr_db,
                    "random_state": rng,
                }
                signal = make_bearing_signals(1, faults=fault, **mount, **sampled).data[0]
                bearing = f"{fault}-{number}"
                said: dict[str, Any] = {"label": fault, "bearing": bearing, "id": f"{bearing}-load{load:g}"}
                extra = {"severity": 0.0 if fault == "normal" else strength}
                records.append(Record(signal, rate, rpm=speed, load=load, extra=extra, **said))
    return Records(records)
