"""What is known of files from their names and from a table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from flowmatch.core.checks import listed
from flowmatch.core.user_warnings import warn
from flowmatch.records.formats import FORMATS
from flowmatch.records.record import as_text

_FIELD = re.compile(r"\{(\w+)(?::([df]))?\}|\*")
_FIELDS = {"": r"[^/]+?", "d": r"[+-]?\d+", "f": r"[+-]?\d+(?:\.\d+)?"}
FILE_COLUMNS = ("file", "filename", "path", "record", "id")
"""Columns of a table that may name the file; the first that is there does."""


def values_by_pattern(pattern: str, files: Sequence[str]) -> list[dict[str, str]]:
    """What each file's name says, by a pattern.

    Raises
    ------
    ValueError
        If the pattern names nothing, or does not match a file.
    """
    expression, whole = _expression(pattern), Path(pattern).suffix.lower() in FORMATS
    if not expression.groupindex:
        raise ValueError(
            f"pattern {pattern!r} names nothing: write a field such as {{label}} or a group (?P<label>...)."
        )
    found = []
    for file in files:
        match = expression.search(file if whole else without_suffix(file))
        if match is None:
            raise ValueError(f"pattern {pattern!r} does not match {file!r}.")
        found.append({name: value for name, value in match.groupdict().items() if value is not None})
    return found


def _expression(pattern: str) -> re.Pattern[str]:
    """A regular expression that is searched for, or a form such as "{label}_{load:d}" of the end of a path."""
    if "(?P<" in pattern:
        try:
            return re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern {pattern!r} is no regular expression: {error}.") from error
    parts, end = [], 0
    for match in _FIELD.finditer(pattern):
        field = f"(?P<{match[1]}>{_FIELDS[match[2] or '']})" if match[1] else "[^/]*?"
        parts += [re.escape(pattern[end : match.start()]), field]
        end = match.end()
    try:
        return re.compile("(?:^|/)" + "".join([*parts, re.escape(pattern[end:])]) + "$")
    except re.error as error:  # two fields of one name, or a name that is none
        raise ValueError(f"pattern {pattern!r} cannot be read: {error}.") from error


def without_suffix(file: str) -> str:
    """A path without the suffix of a format; what follows the last point of 2003.10.22.12.06.24 is none."""
    suffix = PurePosixPath(file).suffix
    return file if suffix[1:].isdigit() else file.removesuffix(suffix)


def values_by_table(table: Any, files: Sequence[str]) -> list[dict[str, Any] | None]:
    """What a table says of each file; None for those that it does not name.

    Raises
    ------
    ValueError
        If it has no column of files, names a file twice, or one that is not there.
    """
    columns = _columns(table)
    key = next((name for wanted in FILE_COLUMNS for name in columns if name.lower() == wanted), None)
    if key is None:
        raise ValueError(
            f"table must name the files in a column {listed(FILE_COLUMNS)}; it has {listed(list(columns))}."
        )
    known = {}
    for i, name in enumerate(columns[key]):
        row = {column: values[i] for column, values in columns.items() if column != key or key.lower() == "id"}
        fits = [file for file in files if _is_file(as_text(name), file)]
        if len(fits) != 1 or fits[0] in known:
            problem = "is named twice" if fits and fits[0] in known else f"goes by {len(fits)} of {len(files)} files"
            raise ValueError(f"table: {key} {str(name)!r} in row {i} {problem}; files are {listed(list(files), 5)}.")
        known[fits[0]] = row
    left_out = [file for file in files if file not in known]
    if left_out:
        warn(f"table does not name {len(left_out)} of {len(files)} files, as {left_out[0]!r}: these were left out.")
    return [known.get(file) for file in files]


def _columns(table: Any) -> dict[str, list[Any]]:
    """Columns of a DataFrame, a dict of columns, or a CSV file."""
    if isinstance(table, (str, os.PathLike)):
        with Path(table).open(encoding="utf-8-sig", newline="") as file:
            delimiter = ";" if ";" in file.readline() else ","
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=delimiter))
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        raise ValueError(f"table must be a DataFrame, a dict of columns or a CSV file, got {type(table).__name__}.")
    names = table if isinstance(table, Mapping) else table.columns
    return {str(name): list(table[name]) for name in names}


def _is_file(name: str, file: str) -> bool:
    """Whether a name, with or without folders and suffix, is that of a file."""
    wanted = PurePosixPath(name.replace("\\", "/")).parts
    return any(PurePosixPath(path).parts[-len(wanted) :] == wanted for path in (file, without_suffix(file)))
