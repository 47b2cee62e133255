"""The Kuramoto-Sivashinsky equation in one and two dimensions, and a stochastic one with a known transition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.datasets._random import RandomState, generator
from flowmatch.datasets.fluids import _spectral as spectral
from flowmatch.datasets.fluids._recording import LEAST_POINTS, Recording, check_positive
from flowmatch.datasets.fluids._spectral import ETDRK4, Coefficients, Floats

N_KICK_WAVES = 10
"""The kicks of the stochastic equation are made of this many of the longest waves."""

_N_FIRST_WAVES = 6  # of the initial states, which the warm-up forgets


def make_kuramoto_sivashinsky(
    n_trajectories: int = 16,
    n_frames: int = 50,
    *,
    n_points: int = 64,
    length: float = 64.0,
    n_dims: int = 1,
    frame_interval: float = 1.0,
    steps_per_frame: int = 10,
    warmup: float = 100.0,
    noise: float = 0.0,
    observe_every: int = 1,
    observe_window: int | None = None,
    dtype: DTypeLike = np.float32,
    random_state: RandomState = None,
) -> NDArray[Any]:
    """Simulate the Kuramoto-Sivashinsky equation, the smallest model of turbulence, in one or two dimensions.

    ::

        u_t = -u u_x - u_xx - u_xxxx                       n_dims=1
        u_t = -|grad u|^2 / 2 - lap u - lap lap u          n_dims=2, less its mean over the box

    in a periodic box. Long waves grow, short ones decay, and the nonlinear term carries energy from the former to the
    latter: chaos in space and time from a length of about 22 on. Every trajectory starts from smooth noise and is
    recorded after the warm-up, on the attractor.

    Parameters
    ----------
    n_trajectories, n_frames : int, default=16, 50
        Independent runs, and states recorded of each.
    n_points : int, default=64
        Grid points per axis, at least 16. Waves up to two thirds of the finest are solved for; the default spacing of
        `length / n_points` = 1 is enough.
    length : float, default=64.0
        Side of the box. The wave that grows fastest is ``2 pi sqrt(2)`` = 8.9 long.
    n_dims : {1, 2}, default=1
    frame_interval : float, default=1.0
        Time between frames. Small errors grow by a factor e in 12 time units.
    steps_per_frame : int, default=10
        Time steps between frames.
    warmup : float, default=100.0
        Time before the first frame, rounded up to whole frame intervals.
    noise : float, default=0.0
        If positive (with `n_dims=1`), the transition from frame to frame is stochastic and its distribution is known:
        half a frame interval of the equation, one kick of `noise` times smooth noise (the ten longest waves, mean 0
        and variance 1 over the box), half a frame interval of the equation.
        :func:`sample_next_kuramoto_sivashinsky` draws from this distribution.
    observe_every : int, default=1
        Keep every `observe_every`-th point per axis; must divide `n_points`. What is left out makes the observed
        transition stochastic.
    observe_window : int or None, default=None
        Of these, keep the first so many per axis: a window in a larger, unseen box. None for all.
    dtype : dtype, default=float32
        Element type of the result; inside all is float64.
    random_state : int, Generator, RandomState or None, default=None
        None for fresh entropy.

    Returns
    -------
    trajectories : ndarray of shape (n_trajectories, n_frames, 1, *grid)
        The field u; grid is (n_seen,) or (n_seen, n_seen), axes (y, x).

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the time step is too long for the equation.

    See Also
    --------
    sample_next_kuramoto_sivashinsky : Draws of the next state of the stochastic equation.

    Notes
    -----
    Fourier pseudo-spectral with ETDRK4 (Kassam and Trefethen, 2005) and the 2/3 rule. Tested: order 4 in time; the
    budget ``d/dt <u^2>/2 = <u_x^2> - <u_xx^2>`` (angle brackets are means over the box), exact but for the time step;
    no drift of the mean.

    References
    ----------
    Y. Kuramoto, "Diffusion-induced chaos in reaction systems", Progress of Theoretical Physics Supplement 64, 1978.
    G. I. Sivashinsky, "Nonlinear analysis of hydrodynamic instability in laminar flames", Acta Astronautica 4, 1977.

    Examples
    --------
    >>> from flowmatch.datasets.fluids import make_kuramoto_sivashinsky
    >>> make_kuramoto_sivashinsky(4, 10, noise=0.4, random_state=0).shape
    (4, 10, 1, 64)
    """
    run = Recording(n_trajectories, n_frames, n_points, frame_interval, warmup, observe_every, observe_window, dtype)
    n_dims, noise = check_count("n_dims", n_dims, 1, 2), check_number("noise", noise, 0)
    if noise and n_dims > 1:
        raise ValueError(
            f"noise must be 0 with n_dims={n_dims}: the stochastic equation is 1-dimensional, got {noise}."
        )
    shape, rng = (n_points,) * n_dims, generator(random_state)
    advance = _transition(shape, length, frame_interval, steps_per_frame, noise, rng)
    start = spectral.to_coefficients(spectral.smooth_noise(rng, (n_trajectories,), shape, _N_FIRST_WAVES), n_dims)

    def observe(v: Coefficients) -> Floats:
        return run.seen(spectral.to_fields(v, shape), n_dims)[:, None]

    return run.record(advance, start, observe, f"raise steps_per_frame, got {steps_per_frame}")


def sample_next_kuramoto_sivashinsky(
    states: ArrayLike,
    n_samples: int = 1,
    *,
    noise: float,
    length: float = 64.0,
    frame_interval: float = 1.0,
    steps_per_frame: int = 10,
    dtype: DTypeLike = np.float32,
    random_state: RandomState = None,
) -> NDArray[Any]:
    """Draw next states of the stochastic Kuramoto-Sivashinsky equation from its transition distribution, exactly.

    The distribution by which :func:`make_kuramoto_sivashinsky` goes from frame to frame with the same `noise`,
    `length`, `frame_interval` and `steps_per_frame`; hence the yardstick of a forecaster's ensemble.

    Parameters
    ----------
    states : array-like of shape (n, 1, n_points)
        Present states, the whole box. Waves beyond two thirds of the finest are removed.
    n_samples : int, default=1
        Draws for each state.
    noise : float
        Size of the kick in the middle of the frame interval; with 0 all draws are the same.
    length, frame_interval : float, default=64.0, 1.0
        Side of the box, and time between frames.
    steps_per_frame : int, default=10
        Time steps between frames.
    dtype : dtype, default=float32
        Element type of the result; inside all is float64.
    random_state : int, Generator, RandomState or None, default=None
        None for fresh entropy.

    Returns
    -------
    samples : ndarray of shape (n_samples, n, 1, n_points)
        Next states.

    Raises
    ------
    ValueError
        If `states` has another shape or is not finite, or a parameter is out of its range.

    Notes
    -----
    Tested: without noise the draws are the deterministic next frame; in the linear regime (states near zero) their
    mean and covariance are those of the kick's distribution carried on by the linear equation; the next frames of
    simulated trajectories rank uniformly among the draws.

    Examples
    --------
    >>> from flowmatch.datasets.fluids import make_kuramoto_sivashinsky, sample_next_kuramoto_sivashinsky
    >>> states = make_kuramoto_sivashinsky(3, 1, noise=0.4, random_state=0)[:, 0]
    >>> sample_next_kuramoto_sivashinsky(states, 20, noise=0.4, random_state=1).shape
    (20, 3, 1, 64)
    """
    fields = np.asarray(states, np.float64)
    if fields.ndim != 3 or fields.shape[1] != 1 or fields.shape[2] < LEAST_POINTS or not len(fields):
        raise ValueError(
            f"states must have shape (n, 1, n_points) with n_points >= {LEAST_POINTS}, got {fields.shape}."
        )
    if not np.isfinite(fields).all():
        raise ValueError("states must be finite, got NaN or infinity.")
    n_samples, shape = check_count("n_samples", n_samples), fields.shape[2:]
    run = Recording(len(fields), 1, shape[0], frame_interval, warmup=frame_interval, dtype=dtype)
    noise, rng = check_number("noise", noise, 0), generator(random_state)
    advance = _transition(shape, length, frame_interval, steps_per_frame, noise, rng)
    start = np.tile(spectral.to_coefficients(fields[:, 0], 1) * spectral.resolved(shape), (n_samples, 1))
    remedy = f"raise steps_per_frame, got {steps_per_frame}"
    frames = run.record(advance, start, lambda v: spectral.to_fields(v, shape)[:, None], remedy)
    return frames[:, 0].reshape(n_samples, *fields.shape)


def solver(shape: Sequence[int], length: float, step: float) -> ETDRK4:
    """Time step of the Fourier coefficients, on a grid of this shape (1 or 2 axes)."""
    k = [2 * np.pi / length * index for index in spectral.wave_indices(shape)]
    square: Any = sum(component**2 for component in k)
    kept = spectral.resolved(shape)

    def burgers(v: Coefficients) -> Coefficients:
        return -0.5j * k[0] * kept * spectral.to_coefficients(spectral.to_fields(v, shape) ** 2, 1)

    def slope(v: Coefficients) -> Coefficients:
        gradient = spectral.to_fields(np.stack([1j * component * v for component in k]), shape)
        out = -0.5 * kept * spectral.to_coefficients((gradient**2).sum(0), 2)
        out[..., 0, 0] = 0
        return out

    return ETDRK4(square - square**2, burgers if len(shape) == 1 else slope, step)


def _transition(
    shape: Sequence[int], length: Any, frame_interval: Any, steps_per_frame: Any, noise: float, rng: np.random.Generator
) -> Callable[[Coefficients], Coefficients]:
    """From one frame to the next."""
    length, frame_interval = check_positive("length", length), check_positive("frame_interval", frame_interval)
    n_steps = check_count("steps_per_frame", steps_per_frame)
    if noise and n_steps % 2:
        raise ValueError(f"steps_per_frame must be even with noise > 0, which comes halfway, got {n_steps}.")
    carry = solver(shape, length, frame_interval / n_steps)

    def kicked(v: Coefficients) -> Coefficients:
        kick = noise * spectral.smooth_noise(rng, v.shape[:1], shape, N_KICK_WAVES)
        return carry(carry(v, n_steps // 2) + spectral.to_coefficients(kick, 1), n_steps // 2)

    return kicked if noise else lambda v: carry(v, n_steps)
