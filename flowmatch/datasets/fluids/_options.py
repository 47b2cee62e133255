"""Options that all simulations share: counts, random state, element type, and what of the grid is observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from sklearn.utils import check_random_state

from flowmatch.core.checks import check_count, check_number
from flowmatch.datasets.fluids._spectral import Floats

RandomState: TypeAlias = int | np.random.Generator | np.random.RandomState | None


def generator(random_state: RandomState) -> np.random.Generator:
    """A generator; NumPy's global state is neither read nor advanced."""
    if random_state is None:
        return np.random.default_rng()
    if isinstance(random_state, np.random.Generator):
        return random_state
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1, size=4))


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """A floating point type."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype must be a floating point type, got {dtype!r}.") from error
    if found.kind != "f":
        raise ValueError(f"dtype must be a floating point type, got {dtype!r}.")
    return found


def check_positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    return check_number(name, value, 0, open_low=True)


def n_skipped(warmup: Any, frame_interval: float) -> int:
    """Whole frame intervals that cover the warm-up."""
    return math.ceil(check_number("warmup", warmup, 0) / frame_interval - 1e-9)


def observer(n_points: int, every: Any, window: Any = None) -> Callable[[Floats, int], Floats]:
    """Function of (fields, n_dims) that keeps every `every`-th point, and of these the first `window`, per axis."""
    every = check_count("observe_every", every)
    if n_points % every:
        raise ValueError(f"observe_every must divide n_points, {n_points}, got {every}.")
    n_seen = n_points // every
    if window is not None:
        n_seen = check_count("observe_window", window, 1, n_seen, f", the points that observe_every={every} leaves")
    axis = slice(0, n_seen * every, every)

    def seen(fields: Floats, n_dims: int) -> Floats:
        kept: Any = (..., *[axis] * n_dims)
        return fields[kept]

    return seen
