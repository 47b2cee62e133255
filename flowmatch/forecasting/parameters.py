"""A forecaster's own parameters, checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.preprocessing import CYCLES, Windows, as_plain, find_boundaries

TARGETS = ("auto", "residual", "state")
BOUNDARIES = ("auto", "periodic", "wall")

_LOOKED_AT = 2**20


def check_forecast_parameters(forecaster: Any) -> None:
    """Raise a ValueError for the first parameter of its own that is out of range."""
    for name in ("n_lags", "horizon"):
        check_count(name, getattr(forecaster, name))
    check_count("n_samples", forecaster.n_samples, 2)
    check_choice("target", forecaster.target, TARGETS)
    check_number("context_noise", forecaster.context_noise, 0.0)
    _check_each("boundary", forecaster.boundary, BOUNDARIES)
    if forecaster.calendar is not None:
        _check_each("calendar", forecaster.calendar, ("auto", *CYCLES))


def check_coverage(coverage: float, n_samples: int) -> None:
    """Raise a ValueError for intervals that are no share of the truth, or wider than so many draws can tell."""
    check_number("coverage", coverage, 0.0, 1.0, open_low=True)
    if (1 - coverage) * (n_samples + 1) < 2 - 1e-9:
        raise ValueError(
            f"coverage={coverage:g} needs ends beyond the outermost of n_samples={n_samples} draws: set n_samples="
            f"{math.ceil(2 / (1 - coverage) - 1e-9) - 1} or more."
        )


def check_quantiles(quantiles: Any) -> list[float]:
    """Levels of quantiles, one or several, each from 0 to 1."""
    levels = np.ravel(as_plain(quantiles, "quantiles")).tolist()
    return [check_number("quantiles", level, 0.0, 1.0, closed_high=True) for level in levels]


def boundaries_of(boundary: Any, windows: Windows) -> tuple[str, ...]:
    """What lies beyond the edge of each axis; "auto" looks at the states.

    Raises
    ------
    ValueError
        If another number of axes is named.
    """
    grid = windows.frames.sample_shape[1:]
    if not isinstance(boundary, str):
        if len(boundary) != len(grid):
            raise ValueError(f"boundary={boundary!r} names {len(boundary)} axes, but states have the grid {grid}.")
        return tuple(boundary)
    if boundary != "auto":
        return (boundary,) * len(grid)
    return find_boundaries(windows.frames.read(windows.frames.subset(_LOOKED_AT))) if grid else ()


def _check_each(name: str, value: Any, known: tuple[str, ...]) -> None:
    """One of the known names, or a sequence of those but the first, "auto"."""
    if isinstance(value, str):
        check_choice(name, value, known)
        return
    if not isinstance(value, (tuple, list)):
        raise ValueError(f"{name} must be one of {known} or a sequence of {known[1:]}, got {value!r}.")
    for entry in value:
        check_choice(name, entry, known[1:])
