"""Records from files: which files, what each holds, and what is known of it."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from flowmatch.core.checks import check_choice, listed
from flowmatch.core.user_warnings import warn
from flowmatch.records.collection import Records
from flowmatch.records.contents import find_record
from flowmatch.records.formats import FORMATS, WITHIN, read_values
from flowmatch.records.inspection import faulty_channels, likely_rates
from flowmatch.records.names import values_by_pattern, values_by_table, without_suffix
from flowmatch.records.record import Record, as_number, as_text

_OWN_FIELDS = {field.name for field in fields(Record)} - {"signal", "channels", "extra"}
Notes: TypeAlias = defaultdict[str, list[str]]
"""What there is to warn of, and the records that it is about."""

_SAME = 1e-3  # of itself, by which two statements of one number may differ


def read_records(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    pattern: str | None = None,
    table: Any = None,
    fs: float | None = None,
    rpm: float | None = None,
    load: float | None = None,
    label: str | None = None,
    bearing: str | None = None,
    channels: Sequence[str] | None = None,
    resample: float | None = None,
    errors: str = "raise",
) -> Records:
    r"""Read recordings of vibration (or current, sound, ...) from files.

    A file holds one record: .mat (also of version 7.3, with h5py), .csv, .npy, .npz, .wav (8 to 32 bits or floats, as
    shares of full scale) or .parquet (with pandas and pyarrow). Its channels are all arrays or columns with as many
    samples as the longest, except evenly spaced times, which give the sampling rate. What else is known of a record is
    taken, the first that knows it, from the table, the pattern, the file's own keys (such as ``fs``, ``sr``, ``rpm``,
    ``X097RPM``, ``load``, ``label``, or ``# fs: 12000`` above a .csv) and the arguments.

    Parameters
    ----------
    source : path-like or sequence of path-like
        A folder, which is searched with all folders in it, a file, or several. Files of other suffixes that are named
        are read as text with columns.
    pattern : str, default=None
        What file names say: a form of the end of the path such as ``"{label}/{bearing}_{load:d}"`` (``{name}`` is any
        text, ``{name:d}`` a whole number, ``{name:f}`` a number, ``*`` anything), or a regular expression with named
        groups, such as ``r"(?P<fs>\d+k)_DE/(?P<label>[A-Z]+)(?P<size>\d+)"``, that is searched for in the path within
        the folder, with slashes. The suffix may be left out. Names other than ``fs``, ``rpm``, ``load``, ``label``,
        ``bearing`` and ``id`` become further columns.
    table : DataFrame, dict of columns or path-like of a CSV file, default=None
        What is known of each file, which a column ``file`` names (or ``filename``, ``path``, ``record``, ``id``), with
        or without folders and suffix. Files that it does not name are left out, with a warning.
    fs, rpm, load : float, default=None
        Sampling rate (samples per second), turns per minute and load of records of which nothing else says it.
    label, bearing : str, default=None
        Likewise.
    channels : sequence of str, default=None
        Names of the arrays or columns to read. By default those that all records have, with a warning if some have
        more.
    resample : float, default=None
        Bring all records to this sampling rate. Without it, different rates are an error.
    errors : {"raise", "warn"}, default="raise"
        What to do about a file that cannot be read: raise an error that names it, or leave it out with a warning.

    Returns
    -------
    records : Records
        In the order of the files' names; ``id`` is the path within the folder without suffix unless something says it.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no file of these formats in the folder.
    ValueError
        If a file cannot be read, does not say its sampling rate, or it is not clear which of its values are the signal;
        if sampling rates differ. The message names the file and says what was found.
    ImportError
        If a file needs a library that is not installed.

    Warns
    -----
    UserWarning
        Of variables of a second record in a file, channels that are dead or look clipped, a speed that only some
        records know, statements that disagree, and a record whose spectrum is like the others' at another sampling rate
        only.

    See Also
    --------
    make_bearing_records : Records of a simulated machine.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowmatch.datasets import read_records
    >>> rng = np.random.default_rng(0)
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("normal_0", "normal_1", "inner_0", "inner_1"):
    ...     np.save(Path(folder.name) / name, rng.normal(size=(2, 12000)))
    >>> records = read_records(folder.name, pattern="{label}_{load:d}", fs=12000, rpm=1797)
    >>> records
    <Records: 4 of 2 channels (0, 1) at 12000 Hz, 4 s in all; label: inner 2, normal 2>
    >>> records[records.label == "inner"].load
    array([0., 1.])
    >>> folder.cleanup()
    """
    check_choice("errors", errors, ("raise", "warn"))
    folder, paths = _files(source, table)
    names = [path.relative_to(folder).as_posix() for path in paths]
    by_name: list[Any] = [{} for _ in names] if pattern is None else values_by_pattern(pattern, names)
    by_table: list[Any] = [{} for _ in names] if table is None else values_by_table(table, names)
    given = {"fs": fs, "rpm": rpm, "load": load, "label": label, "bearing": bearing}
    notes: Notes = defaultdict(list)
    read = []
    for path, name, from_name, from_table in zip(paths, names, by_name, by_table, strict=True):
        if from_table is None:
            continue
        try:
            read.append(_read(path, name, [from_table, from_name], given, channels, notes))
        except ValueError as error:
            if errors == "raise":
                raise
            warn(f"left out: {error}")
    records = _unified(read, resample, notes)
    _inspect(records, notes)
    for message, about in notes.items():
        warn(f"{listed(about, 3)}: {message}.")
    return records


def _files(source: Any, table: Any) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files."""
    if not isinstance(source, (str, os.PathLike)):
        paths = [Path(path) for path in source]
        if not paths:
            raise ValueError("source is empty: name a folder or at least one file.")
        folder = Path(os.path.commonpath([path.absolute().parent for path in paths]))
        paths = [path.absolute() for path in paths]
    elif Path(source).is_dir():
        folder, own = Path(source), None if not isinstance(table, (str, os.PathLike)) else Path(table).absolute()
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in FORMATS and path.absolute() != own)
        paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
        if not paths:
            present = sorted(path.name for path in folder.iterdir())
            raise FileNotFoundError(
                f"there is no file {listed(list(FORMATS))} in {str(folder)!r}; found {listed(present) or 'nothing'}."
            )
    else:
        folder, paths = Path(source).parent, [Path(source)]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"there is no file {listed(missing, 3)}.")
    return folder, paths


def _read(
    path: Path, name: str, stated: list[dict[str, Any]], given: dict[str, Any], channels: Any, notes: Notes
) -> Record:
    """The record in a file. What table and name state goes before what the file says, and that before `given`."""
    values = read_values(path)
    known = {key: value for source in reversed(stated) for key, value in source.items() if as_text(value)}
    try:
        found = find_record(values, [path.stem, *([str(known["id"])] if "id" in known else [])], channels)
        said = {key: value for key, value in found.said.items() if key in _OWN_FIELDS}
        for key, passed in (("fs", known.get("fs", given["fs"])), ("rpm", known.get("rpm"))):
            if abs(as_number(key, passed) / as_number(key, said.get(key)) - 1) > _SAME:
                used = known.get(key, said[key])
                notes[f"{key} is {said[key]} in the file and {passed} as passed; {used} is used"].append(name)
        known = {"id": without_suffix(name), **given, **said, **known}
        if known["fs"] is None or math.isnan(as_number("fs", known["fs"])):
            raise ValueError(
                "it does not say its sampling rate: pass fs=, or name it in a pattern or table. Found "
                f"{listed([key.replace(WITHIN, '.') for key in values], 10)}."
            )
        own = {key: value for key, value in known.items() if key in _OWN_FIELDS and value is not None}
        extra = {key: value for key, value in known.items() if key not in _OWN_FIELDS}
        record = Record(found.signal, channels=found.channels, extra=extra, **own)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    for note in found.notes:
        notes[note].append(name)
    return record


def _unified(read: list[Record], resample: float | None, notes: Notes) -> Records:
    """Records of one sampling rate, with the channels that all of them have."""
    if not read:
        raise ValueError("none of the files could be read.")
    if resample is not None:
        read = [record.resample(resample) for record in read]
    rates = sorted({record.fs for record in read})
    if rates[-1] > rates[0] * (1 + _SAME):
        examples = [next(record.id for record in read if record.fs == rate) for rate in rates]
        found = ", ".join(f"{rate:g} Hz ({name!r})" for rate, name in zip(rates, examples, strict=True))
        raise ValueError(
            f"records have different sampling rates, {found}: pass resample={rates[0]:g}, or read them apart."
        )
    common = [name for name in read[0].channels if all(name in record.channels for record in read)]
    if not common:
        sets = sorted({record.channels for record in read})
        raise ValueError(f"no channel is in all records; they have {listed(sets, 5)}. Name some as channels=.")
    for record in read:
        others = [name for name in record.channels if name not in common]
        if others:
            notes[f"channels that not all records have ({listed(others)}) were left out"].append(record.id)
    same: dict[str, Any] = {"fs": rates[0], "channels": tuple(common)}
    return Records(
        record
        if (record.fs, record.channels) == tuple(same.values())
        else replace(record, signal=record.signal[[record.channels.index(name) for name in common]], **same)
        for record in read
    )


def _inspect(records: Records, notes: Notes) -> None:
    """Note what a look at the records finds."""
    for record in records:
        for fault in faulty_channels(record):
            notes[fault].append(record.id)
        if math.isnan(record.rpm) and not all(map(math.isnan, records.rpm)):
            notes["rpm is unknown"].append(record.id)
    for row, rate in likely_rates(records).items():
        message = (
            f"the spectrum is unlike that of the other records at {records.fs:g} Hz, but like it if this was sampled "
            f"at {rate:g} Hz: check the sampling rate"
        )
        notes[message].append(records[row].id)
