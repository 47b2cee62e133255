"""Which columns of a table hold keys: those that are named, or that look like it."""

from __future__ import annotations

import re
import uuid
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np

from flowmatch.core.checks import listed
from flowmatch.core.types import AnyArray, Array, Mask
from flowmatch.core.user_warnings import warn
from flowmatch.tables.columns import IDENTIFIER_LEVELS
from flowmatch.tables.containers import Container
from flowmatch.tables.frames import as_table, objects
from flowmatch.tables.keys import KeyForm, wide_enough
from flowmatch.tables.names import named_columns
from flowmatch.tables.reading import RawColumn, raw_column

_FEW_ROWS = 50
"""Of fewer rows nobody can tell whether they are distinct by chance."""

_GAPS, _MOST_GAPS, _BY_CHANCE = 1.1, 10, 40
"""Distinct integers are keys if they have hardly a gap, or no more than a part of a table leaves, and too many to be
distinct by chance: n of them in a range of r are that with a probability of about exp(-n^2 / 2r)."""

_YEARS = (1500, 2200)
_NUMBER = re.compile(r"\s*[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?\s*%?\s*")
_DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?")


def find_keys(
    table: Any, container: Container, identifier_columns: Any, categories: Mask
) -> tuple[KeyForm | None, ...]:
    """The form of the keys of each column that holds some, None for the others.

    Parameters
    ----------
    table : DataFrame, ndarray or Tensor of shape (n, d)
        As `as_table` returns it. "auto" finds no keys in columns that cannot be read.
    container : Container
        What the table came in.
    identifier_columns : "auto", "text", None, or a list of names, indices or booleans
        "auto" warns of those that it finds, and so does "text", which finds text and UUIDs only.
    categories : ndarray of bool, shape (d,)
        Columns that the user named as categories.

    Raises
    ------
    ValueError
        For names that there are not or that are named twice, and for columns that hold no keys: each twice, or none.
    """
    labels, dtypes = container.columns or range(len(categories)), container.dtypes
    dtypes = dtypes if container.has_columns else dtypes * len(categories)
    if isinstance(identifier_columns, str) and identifier_columns in ("auto", "text"):
        found = [
            None if also else _recognized(table, j, dtype)
            for j, (dtype, also) in enumerate(zip(dtypes, categories, strict=True))
        ]
        found = _without_ranks(table, found)
        advice = "name the columns that hold keys in identifier_columns; None says that there are none."
        if identifier_columns == "text":
            found = [form if form and form.entry_type != "int" else None for form in found]
            advice = "convert them with astype('category')."
        if None not in found:  # nothing would be left to learn
            return (None,) * len(found)
        names = [label for label, form in zip(labels, found, strict=True) if form]
        if names:
            filled = ", and filled with fresh ones" * (identifier_columns == "auto")
            warn(f"taken for keys, which are not learned{filled}: {listed(names)}. If that is wrong, {advice}")
        return tuple(found)
    named = _named_once(identifier_columns, labels, categories)
    if named.all() and len(named):
        raise ValueError("identifier_columns names every column of X, so that there is nothing to learn.")
    every = enumerate(zip(dtypes, labels, named, strict=True))
    return tuple(_named(table, j, dtype, f"column {label!r} of X") if own else None for j, (dtype, label, own) in every)


def fresh_keys(
    forms: Sequence[KeyForm | None], values: Array, taken: Mapping[int, Collection[Any]] | None = None
) -> dict[int, AnyArray]:
    """Fresh keys for rows of numbers; which ones depends on the first row alone.

    Parameters
    ----------
    forms : sequence of KeyForm or None
        Of the keys of each column.
    values : ndarray of shape (n, d)
        Numbers; NaN in a column of keys where there is to be none.
    taken : mapping from positions of columns to collections, optional
        Keys that there are already.

    Returns
    -------
    dict from positions of columns to ndarray of shape (n,)
        Objects; floats where integers are missing.
    """
    seed, found = zlib.crc32(np.ascontiguousarray(values[:1]).tobytes()), {}
    for j, form in enumerate(forms):
        if form is not None:
            keys, gaps = objects(form.fresh(len(values), seed + j, (taken or {}).get(j, ()))), np.isnan(values[:, j])
            is_whole = form.entry_type == "int"
            keys[gaps] = np.nan if is_whole else None
            found[j] = keys.astype(np.float64) if is_whole and gaps.any() else keys
    return found


def with_gaps(forms: Sequence[KeyForm | None], values: Array, seed: int) -> Array:
    """Rows of numbers that miss keys as often as training rows do: NaN there."""
    shares = np.array([form.missing if form else 0.0 for form in forms])
    draws = [np.random.default_rng([seed, int(j)]).random(len(values)) for j in np.flatnonzero(shares)]
    gaps = np.zeros(values.shape, dtype=bool)
    gaps[:, shares > 0] = shares[shares > 0] > np.array(draws).reshape(-1, len(values)).T
    return np.where(gaps, np.nan, values)


def keys_in(X: Any, columns: Sequence[int]) -> dict[int, set[Any]]:
    """The keys in some columns of a table, by their positions."""
    table, found = as_table(X) if columns else None, {}
    for j in columns:
        column = raw_column(table, j, f"column {j} of X")
        found[j] = set(column.values[~column.missing].tolist())
    return found


def besides_those_in(forms: Sequence[KeyForm | None], X: Any) -> tuple[KeyForm | None, ...]:
    """The same forms, which spare the keys in a table too."""
    found = keys_in(X, [j for j, form in enumerate(forms) if form])
    return tuple(form and form.besides(list(found[j])) for j, form in enumerate(forms))


def dtype_for(dtype: str, *columns: AnyArray) -> str:
    """The name of a dtype, of integers with more bits or of longer text if columns of fresh keys need it."""
    keys = [column for column in columns if column.dtype == object and len(column)]
    if re.match("[<>|]?U[0-9]", dtype) and keys:
        longest = max(len(str(key)) for column in keys for key in column)
        return str(np.promote_types(dtype, f"U{longest}"))
    is_whole = re.match("u?int(8|16|32|64)", dtype, re.IGNORECASE)
    return wide_enough(dtype, max(max(column) for column in keys)) if keys and is_whole else dtype


def _named_once(identifier_columns: Any, labels: Sequence[Any], categories: Mask) -> Mask:
    """Which columns are named; an error if one is named twice, or for a category too."""
    names = () if isinstance(labels, range) else tuple(labels)
    named = named_columns("identifier_columns", identifier_columns, names, len(labels))
    if not named.any():
        return named
    entries = list(identifier_columns)
    if not all(isinstance(entry, (bool, np.bool_)) for entry in entries):
        each = [named_columns("identifier_columns", [entry], names, len(labels)) for entry in entries]
        twice = np.flatnonzero(np.sum(each, axis=0) > 1)
        if len(twice):
            raise ValueError(f"identifier_columns names column {labels[twice[0]]!r} twice.")
    both = np.flatnonzero(named & categories)
    if len(both):
        raise ValueError(
            f"column {labels[both[0]]!r} is named in identifier_columns and in categorical_features; keys are not "
            "learned, so it can be one of them."
        )
    return named


def _entries(raw: RawColumn, dtype: str) -> tuple[AnyArray, Mask, str]:
    """The entries that are there, where they stand, and what kind of keys they may be; "" for none."""
    present, kind = raw.values[~raw.missing], raw.values.dtype.kind
    found = "int" if kind in "iu" else ""
    if kind == "f" and np.all(present == np.floor(present)):
        found = "int" if re.match("u?int", dtype, re.IGNORECASE) else "whole"
    elif kind == "O":
        types, kinds = set(map(type, present)), {"int": Integral, "text": str, "uuid": uuid.UUID}
        alike = (name for name, group in kinds.items() if all(issubclass(t, group) for t in types))
        found = "" if bool in types else next(alike, "")
    return present, ~raw.missing, found if raw.levels is None and len(present) else ""


def _recognized(table: Any, position: int, dtype: str) -> KeyForm | None:
    """The form of what looks like keys in a column; None also where it cannot be read, which is said elsewhere."""
    try:
        keys, present, kind = _entries(raw_column(table, position, ""), dtype)
    except (ValueError, TypeError):
        return None
    n = len(keys)
    if kind not in ("int", "text", "uuid") or n < (2 if kind == "uuid" else _FEW_ROWS):
        return None
    if kind == "int":
        low, high = int(keys.min()), int(keys.max())
        most = max(_GAPS * n, min(_MOST_GAPS * n, n**2 / _BY_CHANCE))
        if high - low + 1 > most or (_YEARS[0] <= low and high <= _YEARS[1]):
            return None
    distinct = np.unique(keys) if kind == "int" else list(dict.fromkeys(keys.tolist()))
    if len(distinct) < n and not (kind == "text" and len(distinct) > max(IDENTIFIER_LEVELS, n / 2)):
        return None
    form = replace(KeyForm.fit(distinct, kind), missing=1 - len(keys) / len(present))
    return None if kind == "text" and form.patterns and _are_values(keys.tolist()) else form


def _without_ranks(table: Any, found: list[KeyForm | None]) -> list[KeyForm | None]:
    """The forms of keys, but for columns that hold the same integers as others in another order: those are ranks.

    Row numbers, which ascend, are keys.
    """
    orders: dict[bytes, set[bytes]] = {}
    whole = [j for j, form in enumerate(found) if form and form.entry_type == "int"]
    entries = {j: _entries(raw_column(table, j, ""), "int")[0].astype(np.float64) for j in whole}
    entries = {j: values for j, values in entries.items() if not (np.diff(values) > 0).all()}
    for values in entries.values():
        orders.setdefault(np.sort(values).tobytes(), set()).add(values.tobytes())
    return [
        None if j in entries and len(orders[np.sort(entries[j]).tobytes()]) > 1 else form
        for j, form in enumerate(found)
    ]


def _are_values(texts: list[str]) -> bool:
    """Whether texts are dates or numbers, which are no keys unless they all have as many digits."""
    some = texts[:1000]
    if all(map(_DATE.fullmatch, some)):
        return True
    as_long = len(set(map(len, texts))) == 1 and all(map(str.isdecimal, texts))
    return not as_long and all(map(_NUMBER.fullmatch, some))


def _named(table: Any, position: int, dtype: str, where: str) -> KeyForm:
    """The form of the keys of a column that is named."""
    raw = raw_column(table, position, where)
    keys, present, kind = _entries(raw, dtype)
    if not len(keys):
        raise ValueError(f"{where} is named in identifier_columns, and holds no value at all: leave it out.")
    if not kind:
        what = "categories" if raw.levels is not None else f"dtype {dtype}"
        raise ValueError(
            f"{where} is named in identifier_columns and holds {what}; keys are whole numbers, text or UUIDs. Convert "
            "it, such as with astype(str), or leave it out."
        )
    rows, first = np.flatnonzero(present), dict[Any, int]()
    placed = zip(keys.tolist(), rows.tolist(), strict=True)
    twice = [(key, first[key], row) for key, row in placed if first.setdefault(key, row) != row]
    if twice:
        key, one, other = twice[0]
        raise ValueError(
            f"{where} is named in identifier_columns, but its keys are not unique: {len(twice)} rows repeat one of "
            f"another row, such as {key!r} in rows {one} and {other}."
        )
    return replace(KeyForm.fit(keys, "int" if kind == "whole" else kind), missing=1 - len(keys) / len(present))
