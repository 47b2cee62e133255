"""Files of signals as named values: arrays, numbers and text, whatever the format."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowmatch.records.matlab import read_matlab

Values = dict[str, Any]

WITHIN = "\0"
"""Stands between the name of a struct and that of its part; names of columns may hold points and slashes."""


def read_values(path: Path) -> Values:
    """What a file holds: values by name, those of structs with `WITHIN` between the names.

    Raises
    ------
    ValueError
        That names the file, if it cannot be read.
    ImportError
        If the library that reads it is not installed.
    """
    reader = FORMATS.get(path.suffix.lower(), _read_text)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = _flat(reader(path))
    except (ImportError, MemoryError, FileNotFoundError):
        raise
    except Exception as error:  # libraries raise whatever they run into
        raise ValueError(f"{str(path)!r} cannot be read as {path.suffix or 'text'}: {error}") from error
    for warning in caught:
        text = str(warning.message)
        if "EOF" in text:  # of a truncated .wav
            raise ValueError(f"{str(path)!r} is truncated: {text}")
    return values


def _flat(values: Any, name: str = "") -> Values:
    """Nested dicts and lists as one dict; a part with a Name and Data, as dSPACE writes them, goes by that name."""
    if isinstance(values, Mapping):
        if isinstance(values.get("Name"), str) and "Data" in values:
            return {_joined(name, values["Name"]): values["Data"]}
        parts = list(values.items())
    elif isinstance(values, list) or (isinstance(values, np.ndarray) and values.dtype == object):
        named = all(isinstance(part, Mapping) and "Name" in part for part in values)
        parts = [("" if named else str(i), part) for i, part in enumerate(values)]
    else:
        return {name: values}
    flat: Values = {}
    for part, inner in parts:
        for key, value in _flat(inner, _joined(name, part)).items():
            flat[key if key not in flat else f"{key}_{len(flat)}"] = value  # parts of one name
    return flat


def _joined(name: str, part: str) -> str:
    return f"{name}{WITHIN}{part}" if name and part else name or part


def _read_npy(path: Path) -> Values:
    values = np.load(path, allow_pickle=False)
    return {name: values[name] for name in values.dtype.names} if values.dtype.names else {"signal": values}


def _read_npz(path: Path) -> Values:
    with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
        return {name: value.item() if value.ndim == 0 else value for name, value in file.items()}


def _read_wav(path: Path) -> Values:
    """Samples as shares of full scale, -1 to 1."""
    from scipy.io import wavfile

    rate, samples = wavfile.read(path)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":  # 24 bits come as the upper ones of 32
        full = -float(np.iinfo(samples.dtype).min)
        samples = samples.astype(np.float32 if samples.dtype.itemsize == 2 else np.float64) / full
    return {"fs": float(rate), "signal": samples}


def _read_parquet(path: Path) -> Values:
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(f"{str(path)!r} needs pandas and pyarrow: pip install 'flowmatch[frames]'.") from error
    return {str(name): column.to_numpy() for name, column in pd.read_parquet(path).items()}


def _read_text(path: Path) -> Values:
    """Columns of numbers, with or without a line of names; comments such as "# fs: 12000" are values."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line for line in text.splitlines() if line.strip()]
    comments = [line.lstrip("#% ") for line in lines if line[0] in "#%"]
    rows = [line for line in lines if line[0] not in "#%"]
    if not rows:
        raise ValueError("there are no rows in it.")
    delimiter = next((mark for mark in ";\t," if mark in rows[0]), None)
    head = next(csv.reader([rows[0]], delimiter=delimiter)) if delimiter else rows[0].split()
    decimal = "," if delimiter in (";", "\t") and "," in rows[-1] and "." not in rows[-1] else "."
    plain = [str(i) for i in range(len(head))]  # names that are numbers, as pandas writes them
    named = any(_number(word, decimal) is None for word in head) or (len(head) > 1 and head == plain)
    names = [word.strip() for word in head] if named else plain
    if named and len(rows) == 1:
        raise ValueError(f"there are no rows below its names {names}.")
    first = next(csv.reader([rows[named]], delimiter=delimiter)) if delimiter else rows[named].split()
    texts = [i for i, word in enumerate(first) if _number(word, decimal) is None]
    used = [i for i in range(len(names)) if i not in texts]
    columns: Values = dict(part for comment in comments if len(part := _key_and_value(comment)) == 2)
    data = [row.replace(",", ".") for row in rows[named:]] if decimal == "," else rows[named:]
    how: dict[str, Any] = {"delimiter": delimiter, "comments": None, "quotechar": '"', "ndmin": 2}
    for kind, places in ((str, texts), (np.float64, used)):
        if places:
            columns |= zip((names[i] for i in places), np.loadtxt(data, kind, usecols=places, **how).T, strict=True)
    return columns


def _number(word: str, decimal: str) -> float | None:
    try:
        return float(word.replace(decimal, "."))
    except ValueError:
        return None


def _key_and_value(comment: str) -> list[str]:
    return [part.strip() for part in comment.replace("=", ":").split(":", 1)]


FORMATS: dict[str, Callable[[Path], Any]] = {
    ".mat": read_matlab,
    ".csv": _read_text,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".wav": _read_wav,
    ".parquet": _read_parquet,
}
"""Readers by suffix; those that a folder is searched for. Other files that are named are read as text."""
