"""Columns of states by name or position, and whether frames hold those of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def check_columns(found: Sequence[Any], fitted: tuple[Any, ...]) -> None:
    """Raise a ValueError unless the columns of X are those that the model was fitted to, in their order."""
    if tuple(found) != fitted:
        missing = [name for name in fitted if name not in found]
        raise ValueError(
            f"X has the columns {list(found)}, but the model was fitted to {list(fitted)}"
            + (f": {missing} are missing." if missing else ", in that order.")
        )


def check_known_ahead(frames: Sequence[Any], names: list[Any]) -> None:
    """Raise a ValueError for a frame of `future` that lacks one of the columns that are known ahead."""
    for number, frame in enumerate(frames):
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise ValueError(f"future {number} lacks the columns {missing}, which are known ahead.")


def columns_named(wanted: Any, parameter: str, columns: tuple[Any, ...], n_columns: int) -> tuple[int, ...]:
    """Positions of columns that are given by name or number."""
    if wanted is None:
        return ()
    wanted = list(wanted) if isinstance(wanted, (list, tuple, set, np.ndarray)) else [wanted]
    found = []
    for name in wanted:
        if columns.count(name) > 1:
            raise ValueError(f"{parameter} names {name!r}, but {columns.count(name)} columns are called so.")
        if name in columns:
            found.append(columns.index(name))
        elif isinstance(name, (int, np.integer)) and not isinstance(name, bool) and -n_columns <= name < n_columns:
            found.append(int(name) % n_columns)
        else:
            known = f"the columns are {list(columns)}" if columns else f"there are {n_columns} columns"
            raise ValueError(f"{parameter} names {name!r}, but {known}.")
    if len(set(found)) < len(found):
        raise ValueError(f"{parameter}={wanted!r} names a column twice.")
    return tuple(sorted(found))
