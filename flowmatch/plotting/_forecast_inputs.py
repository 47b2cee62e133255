"""Checks of what `ForecastDisplay` is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_count
from flowmatch.plotting._common import Floats, as_array

_COLUMNS = 5


def row_of(name: str, X: Any, expected: tuple[int | None, ...], index: int) -> Floats:
    """Row `index` of an array of the expected shape, in which None stands for any length from 1."""
    array = as_array(X)
    fits = array.ndim == len(expected) and array.size > 0
    if not fits or any(want not in (None, got) for want, got in zip(expected, array.shape, strict=True)):
        shape = ", ".join("n_history" if length is None else str(length) for length in expected)
        raise ValueError(f"{name} has shape {array.shape}; expected ({shape}), to fit samples.")
    return array[index]


def checked_times(times: Any, n_steps: int, n_past: int) -> NDArray[Any]:
    """Times as floats, or as dates to the nanosecond, which can be halved."""
    found = np.asarray(times)
    if found.dtype.kind not in "Miuf":
        raise ValueError(f"times must be numbers or dates, got {times!r}.")
    found = found.astype("datetime64[ns]" if found.dtype.kind == "M" else np.float64)
    if found.shape not in {(n_steps,), (n_past + n_steps,)}:
        expected = f"({n_steps},)" + (f" or, with the history, ({n_past + n_steps},)" if n_past else "")
        raise ValueError(f"times has shape {found.shape}; expected {expected}.")
    if not (found[1:] > found[:-1]).all():
        raise ValueError(f"times must be increasing, got {times!r}.")
    return found


def chosen_steps(steps: Sequence[int] | None, n_steps: int) -> list[int]:
    """Positions, from 0, of the lead times that are shown."""
    if steps is None:
        return sorted({round(position) for position in np.linspace(0, n_steps - 1, _COLUMNS)})
    if len(steps) == 0:
        raise ValueError("steps is empty; expected at least one lead time, counted from 1.")
    return [check_count("each of steps", step, 1, n_steps, " (lead times count from 1)") - 1 for step in steps]
