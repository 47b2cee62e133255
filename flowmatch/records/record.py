"""One recording of one or more sensors, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Self

import numpy as np

from flowmatch.core.checks import check_number
from flowmatch.core.types import AnyArray

TEXTS, NUMBERS = ("label", "bearing", "id"), ("rpm", "load")
"""What may be known of a record, beside its sampling rate."""

_LARGEST_RATIO = 10_000
"""Sampling rates are to each other as whole numbers up to this one, as nearly as matters."""


@dataclass(frozen=True, eq=False)
class Record:
    """One recording: a signal of one or more channels, its sampling rate, and what is known of it.

    Parameters
    ----------
    signal : array-like of shape (n_channels, n_samples) or (n_samples,)
        Finite real numbers. Integers become float32, or float64 where that does not hold them.
    fs : float
        Sampling rate, samples per second.
    label : str, default=""
        Condition of the machine, such as "inner"; "" if unknown, as everywhere below.
    rpm : float, default=nan
        Speed of the shaft, turns per minute; NaN if unknown.
    load : float, default=nan
        Load of the machine, in any unit; NaN if unknown.
    bearing : str, default=""
        Which physical bearing (or machine) was recorded; recordings of one bearing are not independent.
    id : str, default=""
        Name of the record.
    channels : sequence of str, default=()
        Names of the channels; by default "0", "1", ...
    extra : mapping of str to str or float, default={}
        Whatever else is known, such as the size of a defect.

    Raises
    ------
    ValueError
        If the signal or a value is none.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.datasets import Record
    >>> Record(np.zeros((2, 24000)), fs=12000, label="normal", rpm=1797, id="97", channels=["DE", "FE"])
    <Record '97': 2 channels (DE, FE), 2 s at 12000 Hz, label='normal', rpm=1797>
    """

    signal: AnyArray
    fs: float
    label: str = ""
    rpm: float = math.nan
    load: float = math.nan
    bearing: str = ""
    id: str = ""
    channels: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        signal = as_signal(self.signal)
        channels = tuple(map(str, self.channels)) or tuple(map(str, range(len(signal))))
        if len(channels) != len(signal) or len(set(channels)) < len(channels):
            raise ValueError(f"channels must be {len(signal)} different names, one a channel, got {channels}.")
        own = {field.name for field in fields(self)} | {"record", "start"}
        if own & set(self.extra):
            raise ValueError(f"extra must not name {sorted(own & set(self.extra))}: these are names of their own.")
        values: dict[str, Any] = {"signal": signal, "channels": channels, "extra": dict(self.extra)}
        values["fs"] = check_number("fs", as_number("fs", self.fs), 0, open_low=True)
        values |= {name: as_number(name, getattr(self, name)) for name in NUMBERS}
        values |= {name: as_text(getattr(self, name)) for name in TEXTS}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        n, known = len(self.signal), {name: getattr(self, name) for name in ("label", "bearing")}
        numbers = {name: getattr(self, name) for name in NUMBERS}
        said = [f"{name}={value!r}" for name, value in known.items() if value]
        said += [f"{name}={value:g}" for name, value in numbers.items() if not math.isnan(value)]
        names = f"{n} channel{'s' * (n > 1)} ({', '.join(self.channels)})"
        return f"<Record {self.id!r}: {names}, {', '.join([f'{self.seconds:.3g} s at {self.fs:g} Hz', *said])}>"

    @property
    def n_samples(self) -> int:
        """Number of samples of each channel."""
        return self.signal.shape[1]

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.n_samples / self.fs

    def part(self, start: int, stop: int) -> Self:
        """The same record from one sample to another.

        Parameters
        ----------
        start : int
            First sample.
        stop : int
            Sample after the last one.

        Returns
        -------
        Record
            Its signal is a view.
        """
        return replace(self, signal=self.signal[:, start:stop])

    def resample(self, fs: float) -> Self:
        """The same record at another sampling rate, by `scipy.signal.resample_poly`.

        Parameters
        ----------
        fs : float
            New sampling rate, samples per second. What is above half of it is filtered out.

        Returns
        -------
        Record
        """
        fs = check_number("fs", fs, 0, open_low=True)
        ratio = Fraction(fs / self.fs).limit_denominator(_LARGEST_RATIO)
        if ratio == 1:
            return replace(self, fs=fs)
        from scipy.signal import resample_poly

        signal = resample_poly(self.signal, ratio.numerator, ratio.denominator, axis=1, padtype="mean")
        return replace(self, signal=signal.astype(self.signal.dtype, copy=False), fs=fs)


def as_signal(values: Any) -> AnyArray:
    """A signal as floats (n_channels, n_samples).

    Raises
    ------
    ValueError
        For anything but one or two dimensions of finite real numbers, and for channels last.
    """
    signal = np.asarray(values)
    if signal.dtype.kind not in "biuf" or signal.ndim not in (1, 2) or not signal.size:
        raise ValueError(
            f"a signal must be real numbers of shape (n_channels, n_samples) or (n_samples,), got {signal.dtype} of "
            f"shape {signal.shape}."
        )
    signal = signal[None] if signal.ndim == 1 else signal
    if len(signal) > signal.shape[1]:
        raise ValueError(
            f"a signal has shape {signal.shape}, more channels than samples: expected (n_channels, n_samples); "
            "if it has channels last, pass its transpose."
        )
    bad = np.argwhere(~np.isfinite(signal))
    if len(bad):
        raise ValueError(
            f"a signal must be finite, got {signal[tuple(bad[0])]} in channel {bad[0, 0]} at sample {bad[0, 1]} "
            f"({len(bad)} such values): cut these parts off, or interpolate them."
        )
    return signal.astype(np.result_type(signal.dtype.newbyteorder("="), np.float32), copy=False)


_UNITS = {"fs": {"": 1.0, "hz": 1.0, "k": 1e3, "khz": 1e3}}


def as_number(name: str, value: Any) -> float:
    """A number, or one in text with a unit behind it, such as "12kHz" for fs; None and "" are NaN.

    Raises
    ------
    ValueError
        That calls it `name`.
    """
    if isinstance(value, str) and value.strip():
        digits = value.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ %/")
        unit = value.strip()[len(digits) :].strip().lower()
        try:
            return float(digits) * (_UNITS[name][unit] if name in _UNITS else 1.0)
        except (ValueError, KeyError):
            pass
    elif value is None or isinstance(value, str):
        return math.nan
    else:
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise ValueError(f"{name} must be a number, got {value!r}.")


def as_text(value: Any) -> str:
    """A value as text; None and NaN are "", and whole numbers have no decimals."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
