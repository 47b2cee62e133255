"""Labels and numbers that fields are conditioned on, one for each trajectory: a Reynolds number, a kind of boundary."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from flowmatch.preprocessing import ConditionEncoder, Windows, fit_conditions, parts_of, plain_conditions

T = TypeVar("T")


def encoder_of(conditions: Any, grid: tuple[int, ...]) -> ConditionEncoder:
    """An encoder that is fitted to conditions of trajectories.

    Raises
    ------
    ValueError
        For states that are no fields, and conditions that are no labels or numbers.
    """
    if not grid:
        raise ValueError(
            "conditions are for fields: of tables and series, name columns of X in exogenous_columns or known_columns."
        )
    if len(getattr(conditions, "shape", ())) > 2:
        raise ValueError(
            f"conditions has shape {tuple(conditions.shape)}; expected labels (n,) or columns (n, k), one for each "
            "trajectory: grids are channels of X, which exogenous_columns names."
        )
    return _told(lambda: fit_conditions(conditions, None))


def with_conditions(windows: Windows, encoder: ConditionEncoder | None, conditions: Any, X: Any = None) -> Windows:
    """Windows with the vectors of their trajectories' conditions.

    Parameters
    ----------
    windows : Windows
    encoder : ConditionEncoder or None
        None where the model has no conditions.
    conditions : array-like or None
        One for each trajectory, pair or context; or one for all.
    X : trajectories, optional
        What windows are cut from; without them each window is one of its own.

    Returns
    -------
    Windows

    Raises
    ------
    ValueError
        For conditions that are missing, too many, or not known.
    """
    if encoder is None:
        if conditions is not None:
            raise ValueError("conditions was given, but the model was fitted without.")
        return windows
    if conditions is None:
        raise ValueError(
            "conditions is missing: the model was fitted to fields under conditions; pass one for each trajectory or "
            "context, or one for all."
        )
    values, n = plain_conditions(conditions), len(windows) if X is None else len(parts_of(X))
    return replace(windows, conditions=_told(lambda: encoder.encode(values, n))[windows.groups])


def _told(read: Callable[[], T]) -> T:
    """What reading gives, with errors that name the argument."""
    try:
        return read()
    except ValueError as error:
        text = re.sub(r"(Input )?\by\b", "conditions", str(error))
        raise ValueError(text.replace("samples", "trajectories")) from error
