"""Which values of a file are the signal of a record, and which say something about it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowmatch.core.checks import listed
from flowmatch.core.types import AnyArray
from flowmatch.records.formats import WITHIN, Values
from flowmatch.records.record import TEXTS

KEYS = {
    "fs": ("fs", "sr", "samplingrate", "samplerate", "samplingfrequency", "samplefrequency"),
    "rpm": ("rpm", "speedrpm", "shaftrpm", "shaftspeedrpm"),
    "load": ("load", "loadhp", "hp"),
    "label": ("label", "fault", "faulttype", "class"),
    "bearing": ("bearing", "bearingid"),
    "id": ("id", "recordid"),
}
"""What a file may say of its record, and the names by which it does; case, spaces, _ and units do not matter."""

_CWRU = re.compile(r"X(\d{3})_?(.*)")  # X097_DE_time, X097RPM
_MOST_CHANNELS = 64
_SLOWER = 0.5  # shares of the longest array below which another one was sampled at a lower rate

_AXIS = re.compile(r"(?i)(^|[\W_])(x|t|time|zeit|timestamp|seconds?|sec|\d+)(?![^\W_])")
"""Names that an axis of times may have; a channel may, too, but its values do not increase."""

_MILLISECONDS = re.compile(r"(?i)(^|[\W_])ms(?![^\W_])")


class Found(NamedTuple):
    """What is in a file: a signal, its channels, what the file says, and what was left out."""

    signal: AnyArray
    channels: tuple[str, ...]
    said: dict[str, Any]
    notes: list[str]


def find_record(values: Values, own: Collection[str], channels: Sequence[str] | None = None) -> Found:
    """The record in a file.

    Parameters
    ----------
    values : dict
        What the file holds.
    own : collection of str
        Names of the file and of its record, by which its own variables are told from another record's.
    channels : sequence of str, default=None
        Those wanted; by default all arrays with as many samples as the longest.

    Raises
    ------
    ValueError
        If it is not clear which values are the signal; the message lists what there is.
    """
    notes: list[str] = []
    if channels is None or not set(channels) <= set(map(_shown, values)):
        values, notes = _own_values(values, own)
    said = _said(values)
    series: dict[str, AnyArray] = {}
    for name, value in values.items():
        if _key_of(name) is None and isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size > 1:
            series |= _columns(name, value)
    series, rates = _without_axes(series)
    if not series:
        raise ValueError(f"there is no signal in it: found {_shapes(values)}.")
    chosen = _longest(series, notes) if channels is None else _wanted(series, channels)
    lengths = {len(series[name]) for name in chosen}
    if len(lengths) > 1:
        raise ValueError(f"its channels have unequal numbers of samples: {_shapes({n: series[n] for n in chosen})}.")
    said = {**rates.get(lengths.pop(), {}), **said}
    return Found(np.stack([series[name] for name in chosen]), _short(chosen), said, notes)


def _own_values(values: Values, own: Collection[str]) -> tuple[Values, list[str]]:
    """Values of the file's own record, where those of others are in it."""
    owner_of = {name: _owner(name) for name in values}
    most = max(map(np.size, values.values()), default=0)
    large = {owner_of[name] for name, value in values.items() if np.size(value) > max(1, _SLOWER * most)}
    rivals = mine = sorted(large - {""})
    notes = []
    if len(rivals) > 1:
        numbers = {int(digits) for name in own for digits in re.findall(r"\d+", name)}
        mine = [o for o in rivals if o in own or (o[1:].isdigit() and int(o[1:]) in numbers)]
        if len(mine) != 1:
            raise ValueError(
                f"it holds variables of several records, {listed(rivals)}, and its name does not tell which are its "
                "own: give its id by a pattern or a table, such as '97', or name the variables as channels=."
            )
    others = {o for o in owner_of.values() if o in rivals or _CWRU.fullmatch(o + "_")} - set(mine)
    if others:
        notes.append(f"variables of another record ({listed(sorted(others))}) were left out")
        values = {name: value for name, value in values.items() if owner_of[name] not in others}
    return {_bare(name): value for name, value in values.items()}, notes


def _owner(name: str) -> str:
    """The record, by its number or struct, that a variable names; "" for none."""
    match = _CWRU.fullmatch(name)
    return f"X{match[1]}" if match else name.partition(WITHIN)[0] if WITHIN in name else ""


def _bare(name: str) -> str:
    """A variable's name without that of its record."""
    match = _CWRU.fullmatch(name)
    return match[2].removesuffix("_time") if match else name


def _key_of(name: str) -> str | None:
    """What a value of this name says."""
    last = re.sub(r"[\[(].*[\])]|[\W_]", "", name.rpartition(WITHIN)[2].lower())
    return next((key for key, names in KEYS.items() if last in names), None)


def _said(values: Values) -> dict[str, Any]:
    """What a file says of its record: text, numbers, and columns, of which it is the mean."""
    said: dict[str, Any] = {}
    for name, value in values.items():
        key, array = _key_of(name), np.asarray(value)
        if key is None or not array.size or array.dtype.kind not in "biufU":
            continue
        if key in TEXTS and (array != array.flat[0]).any():
            raise ValueError(f"its {_shown(name)!r} changes within it, but a file is one record: split it.")
        said[key] = array.flat[0].item() if key in TEXTS or array.dtype.kind == "U" else float(array.mean())
    names = {name.rpartition(WITHIN)[2]: name for name in values}
    if "sr" in names and "rate" in names and np.size(values[names["rate"]]) == 1:  # MFPT: turns per second
        said.setdefault("rpm", 60 * float(np.ravel(values[names["rate"]])[0]))
    return said


def _columns(name: str, array: AnyArray) -> dict[str, AnyArray]:
    """Channels of an array of numbers, each (n_samples,)."""
    array = np.squeeze(array)
    if array.ndim == 1:
        return {name: array}
    if array.ndim != 2 or min(array.shape) > _MOST_CHANNELS:
        raise ValueError(
            f"{_shown(name)!r} has shape {array.shape}: expected one record, (n_samples,), (n_channels, n_samples) or "
            f"its transpose, of at most {_MOST_CHANNELS} channels. Windows are no records: pass them to an estimator."
        )
    return {f"{name}{WITHIN}{i}": column for i, column in enumerate(array if len(array) < array.shape[1] else array.T)}


def _without_axes(series: dict[str, AnyArray]) -> tuple[dict[str, AnyArray], dict[int, dict[str, float]]]:
    """Channels, and the sampling rates that axes of times among them give, by number of samples."""
    channels, rates = {}, {}
    for name, array in series.items():
        times = array.astype(np.float64) if _AXIS.search(name) else np.zeros(1)
        step = (times[-1] - times[0]) / max(len(times) - 1, 1)
        if len(times) < 3 or not step > 0 or not (np.diff(times) >= 0).all():
            channels[name] = array
        elif np.abs(times - np.linspace(times[0], times[-1], len(times))).max() > step:
            raise ValueError(f"its times {_shown(name)!r} are not evenly spaced: cut it where samples are missing.")
        elif step < 1:  # numbers of samples are no times
            step = np.polyfit(np.arange(len(times)), times, 1)[0]  # times are rounded
            rates[len(array)] = {"fs": float(f"{(1000.0 if _MILLISECONDS.search(name) else 1.0) / step:.6g}")}
    return channels, rates


def _longest(series: dict[str, AnyArray], notes: list[str]) -> list[str]:
    """Channels with most samples; those of lower sampling rates are left out."""
    most = max(map(len, series.values()))
    chosen = [name for name, array in series.items() if len(array) == most]
    if any(_SLOWER * most < len(array) < most for array in series.values()):
        raise ValueError(
            f"it holds arrays of unequal lengths: {_shapes(series)}. Name those of one record as channels=."
        )
    others = [name for name in series if name not in chosen]
    if others:
        notes.append(f"arrays of fewer samples than the signal ({listed(_short(others))}) were left out")
    return chosen


def _wanted(series: dict[str, AnyArray], channels: Sequence[str]) -> list[str]:
    """Channels by their short or full names."""
    short = dict(zip(_short(list(series)), series, strict=True))
    known = {_shown(name): name for name in series} | short
    missing = [name for name in channels if name not in known]
    if missing:
        raise ValueError(
            f"it has no channel {listed(missing)}; found {_shapes({name: series[short[name]] for name in short})}."
        )
    return [known[name] for name in channels]


def _short(names: Sequence[str]) -> tuple[str, ...]:
    """Names of channels without those of the structs or arrays that they are in, where these tell nothing apart."""
    for n_parts in range(1, 1 + max(name.count(WITHIN) for name in names)):
        short = [".".join(name.split(WITHIN)[-n_parts:]) for name in names]
        if len(set(short)) == len(names):
            return tuple(short)
    return tuple(map(_shown, names))


def _shown(name: str) -> str:
    """A name as users write it."""
    return name.replace(WITHIN, ".")


def _shapes(values: Values) -> str:
    """Names and shapes of arrays, as an error lists them."""
    return listed([f"{_shown(name)} {np.shape(value)}" for name, value in values.items()]) or "nothing"
