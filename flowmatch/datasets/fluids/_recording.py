"""What all simulations share: counts, frames, element type, and what of the grid is observed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.datasets.fluids._spectral import Floats

LEAST_POINTS = 16
"""Fewest points per axis that are solved for."""


@dataclass(frozen=True)
class Recording:
    """Which frames and points of a simulation are kept.

    Parameters
    ----------
    n_trajectories, n_frames, n_points : int
    frame_interval, warmup : float
    observe_every : int, default=1
        Keep every `observe_every`-th point per axis.
    observe_window : int or None, default=None
        Of these, keep the first so many per axis.
    dtype : dtype, default=float32

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    n_trajectories: int
    n_frames: int
    n_points: int
    frame_interval: float
    warmup: float
    observe_every: int = 1
    observe_window: int | None = None
    dtype: DTypeLike = np.float32

    def __post_init__(self) -> None:
        check_count("n_trajectories", self.n_trajectories)
        check_count("n_frames", self.n_frames)
        check_count("n_points", self.n_points, LEAST_POINTS)
        check_positive("frame_interval", self.frame_interval)
        check_number("warmup", self.warmup, 0)
        every, window = check_count("observe_every", self.observe_every), self.observe_window
        if self.n_points % every:
            raise ValueError(f"observe_every must divide n_points, {self.n_points}, got {every}.")
        if window is not None:
            left = f", the points that observe_every={every} leaves"
            check_count("observe_window", window, 1, self.n_points // every, left)
        try:
            is_float = np.dtype(self.dtype).kind == "f"
        except TypeError:
            is_float = False
        if not is_float:
            raise ValueError(f"dtype must be a floating point type, got {self.dtype!r}.")

    def seen(self, fields: Floats, n_dims: int) -> Floats:
        """The observed points of fields over the last `n_dims` axes."""
        n_seen = self.observe_window or self.n_points // self.observe_every
        kept: Any = (..., *[slice(0, n_seen * self.observe_every, self.observe_every)] * n_dims)
        return fields[kept]

    def record(
        self, advance: Callable[[Any], Any], state: Any, observe: Callable[[Any], Floats], remedy: str
    ) -> NDArray[Any]:
        """What is observed of the states (n, n_frames, ...), the first after the warm-up.

        Parameters
        ----------
        advance : callable
            From a state to the next, a frame interval later.
        state : Any
            The first one.
        observe : callable
            From a state to what is kept of it, (n, ...).
        remedy : str
            What the error of a simulation that diverges advises.

        Raises
        ------
        ValueError
            As soon as a state is not finite, with the `remedy`.
        """
        n_skipped = math.ceil(self.warmup / self.frame_interval - 1e-9)
        frames: NDArray[Any] = np.empty(0, self.dtype)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for index in range(n_skipped + self.n_frames):
                state = advance(state) if index else state
                if not np.isfinite(state).all():
                    raise ValueError(f"the simulation diverged within {index} frame intervals of its start: {remedy}.")
                if index < n_skipped:
                    continue
                values = observe(state)
                if index == n_skipped:
                    frames = np.empty((len(values), self.n_frames, *values.shape[1:]), self.dtype)
                frames[:, index - n_skipped] = values
        return frames


def check_positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    return check_number(name, value, 0, open_low=True)
