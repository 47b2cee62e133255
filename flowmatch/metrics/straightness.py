"""How straight the paths of a flow are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.metrics._samples import Samples, as_samples


def straightness(trajectory: Samples, times: ArrayLike | None = None) -> float:
    r"""Deviation of paths from straight lines of constant speed.

    .. math:: S(Z) = \int_0^1 E \|(Z_1 - Z_0) - \dot Z_t\|^2 \, dt

    (Liu, Gong and Liu, 2023, section 2.2), 0 only for such lines. A flow with S = 0 is sampled exactly by one Euler
    step.

    Parameters
    ----------
    trajectory : array-like or tensor of shape (n_steps + 1, n_samples, *sample_shape)
        States of the same samples at all times, as ``sample(..., return_trajectory=True)`` gives them.
    times : array-like of shape (n_steps + 1,), optional
        Times of the states, increasing or decreasing; even by default. They are rescaled to run from 0 to 1.

    Returns
    -------
    float
        The mean over samples, >= 0, in squared units of the data, summed over a sample's values: divide by the mean
        of ``|Z_1 - Z_0|^2`` for a share that has no units.

    Raises
    ------
    ValueError
        If the trajectory has fewer than 3 dimensions or 2 states, or is not finite; if there are not as many times
        as states, or they are not finite and strictly monotone.

    Notes
    -----
    The velocity is taken by finite differences, which is exact for the polygon through the states. It is a lower
    bound for the path itself, 0 for a single step, and for smooth paths at even times the gap falls as
    ``n_steps ** -2``.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import straightness
    >>> angle = np.linspace(0, np.pi, 101)
    >>> half_circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]  # one sample
    >>> round(straightness(half_circle), 2)  # pi ** 2 - 2 ** 2, up to the steps
    5.87
    >>> straightness(np.linspace(0, 1, 5)[:, None, None] * np.ones((1, 3, 2)))
    0.0
    """
    shape = tuple(np.shape(trajectory))
    if len(shape) < 3 or shape[0] < 2:
        raise ValueError(
            f"trajectory has shape {shape}; states are (n_steps + 1, n_samples, *sample_shape), at two times or more."
        )
    states = as_samples(trajectory, "trajectory")
    found = np.arange(shape[0]) if times is None else np.asarray(times, dtype=np.float64)
    if found.shape != shape[:1]:
        raise ValueError(f"times has shape {found.shape} for a trajectory of {shape[0]} states.")
    with np.errstate(divide="ignore", invalid="ignore"):
        durations = np.diff(found)[:, None] / (found[-1] - found[0])  # shares of the whole time
    if not (durations > 0).all():
        raise ValueError(f"times must be finite and strictly increasing or decreasing, got {found.tolist()}.")
    excess = (states[-1] - states[0]) - np.diff(states, axis=0) / durations
    return float((durations * excess**2).sum() / shape[1])
