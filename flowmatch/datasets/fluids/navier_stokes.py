"""Incompressible two-dimensional Navier-Stokes equations with Kolmogorov forcing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.datasets._random import RandomState, generator
from flowmatch.datasets.fluids import _spectral as spectral
from flowmatch.datasets.fluids._recording import Recording
from flowmatch.datasets.fluids._spectral import ETDRK4, Coefficients, Floats

FIELDS = ("vorticity", "velocity")
"""What can be recorded."""


def make_navier_stokes(
    n_trajectories: int = 8,
    n_frames: int = 20,
    *,
    n_points: int = 64,
    viscosity: float = 2e-3,
    drag: float = 0.05,
    forcing: float = 1.0,
    forcing_waves: int = 4,
    frame_interval: float = 0.25,
    steps_per_frame: int = 12,
    warmup: float = 20.0,
    fields: str = "vorticity",
    observe_every: int = 1,
    dtype: DTypeLike = np.float32,
    random_state: RandomState = None,
) -> NDArray[Any]:
    """Simulate two-dimensional turbulence: the incompressible Navier-Stokes equations with Kolmogorov forcing.

    ::

        u_t + (u . grad) u = -grad p + viscosity lap u - drag u + forcing sin(forcing_waves y) e_x,     div u = 0

    in a periodic box of side 2 pi and density 1, solved for the vorticity ``w = d(u_y)/dx - d(u_x)/dy``. Every
    trajectory starts from smooth noise and is recorded after the warm-up.

    Parameters
    ----------
    n_trajectories, n_frames : int, default=8, 20
        Independent runs, and states recorded of each.
    n_points : int, default=64
        Grid points per axis, at least 16. Waves up to two thirds of the finest are solved for.
    viscosity : float, default=2e-3
        Kinematic viscosity, length^2 / time. With a much smaller one, raise `n_points`.
    drag : float, default=0.05
        Rate at which friction slows all waves, 1 / time; it takes the energy that gathers in the longest ones.
    forcing : float, default=1.0
        Amplitude of the body force, length / time^2.
    forcing_waves : int, default=4
        Waves of the body force in the box.
    frame_interval : float, default=0.25
        Time between frames.
    steps_per_frame : int, default=12
        Time steps between frames.
    warmup : float, default=20.0
        Time before the first frame, rounded up to whole frame intervals. The energy takes several ``1 / drag`` to
        become steady.
    fields : {"vorticity", "velocity"}, default="vorticity"
        What is recorded: one channel, or two, u_x and u_y.
    observe_every : int, default=1
        Keep every `observe_every`-th point per axis; must divide `n_points`. With 2, half of what is solved for is
        not seen, so that the observed transition is stochastic.
    dtype : dtype, default=float32
        Element type of the result; inside all is float64.
    random_state : int, Generator, RandomState or None, default=None
        None for fresh entropy.

    Returns
    -------
    trajectories : ndarray of shape (n_trajectories, n_frames, n_channels, n_seen, n_seen)
        Axes of the grid: (y, x).

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the time step is too long for the flow.

    Notes
    -----
    Fourier pseudo-spectral with ETDRK4 (Kassam and Trefethen, 2005) and the 2/3 rule; the advection term is written by
    two products of velocities instead of four (C. Basdevant, Journal of Computational Physics 50, 1983). Tested: order
    4 in time; the decaying Taylor-Green vortex, an exact solution; the budgets of energy and enstrophy.

    Examples
    --------
    >>> from flowmatch.datasets.fluids import make_navier_stokes
    >>> make_navier_stokes(2, 3, warmup=1.0, observe_every=2, random_state=0).shape
    (2, 3, 1, 32, 32)
    """
    run = Recording(n_trajectories, n_frames, n_points, frame_interval, warmup, observe_every, dtype=dtype)
    n_steps, shape = check_count("steps_per_frame", steps_per_frame), (n_points, n_points)
    with_velocity = check_choice("fields", fields, FIELDS) == "velocity"
    carry = solver(
        n_points,
        check_number("viscosity", viscosity, 0),
        frame_interval / n_steps,
        drag=check_number("drag", drag, 0),
        forcing=check_number("forcing", forcing, 0),
        forcing_waves=check_count("forcing_waves", forcing_waves, 1, n_points // 3, ", which the grid resolves"),
    )
    noise = spectral.smooth_noise(generator(random_state), (n_trajectories,), shape, 6)

    def observe(w: Coefficients) -> Floats:
        return run.seen(spectral.to_fields(velocity(w, n_points) if with_velocity else w[:, None], shape), 2)

    remedy = f"raise steps_per_frame, got {steps_per_frame}"
    return run.record(lambda w: carry(w, n_steps), spectral.to_coefficients(3 * noise, 2), observe, remedy)


def velocity(w: Coefficients, n_points: int) -> Coefficients:
    """Coefficients of u_x and u_y (..., 2, n, n/2 + 1) from those of the vorticity, by the stream function."""
    y, x = spectral.wave_indices((n_points, n_points))
    square = x**2 + y**2
    square[0, 0] = 1  # the mean flow is zero
    stream = w / square
    stream[..., 0, 0] = 0
    return np.stack([1j * y * stream, -1j * x * stream], axis=-3)


def solver(
    n_points: int, viscosity: float, step: float, *, drag: float = 0.0, forcing: float = 0.0, forcing_waves: int = 1
) -> ETDRK4:
    """Time step of the vorticity's Fourier coefficients.

    The curl of the divergence of the tensor u u is (d_xx - d_yy)(u_x u_y) + d_xy (u_y^2 - u_x^2).
    """
    shape = (n_points, n_points)
    (y, x), kept = spectral.wave_indices(shape), spectral.resolved(shape)
    height = 2 * np.pi * np.arange(n_points)[:, None] / n_points
    curl = np.broadcast_to(-forcing * forcing_waves * np.cos(forcing_waves * height), shape)
    source = spectral.to_coefficients(curl, 2)
    shear, stretch = kept * (x**2 - y**2), kept * x * y

    def nonlinear(w: Coefficients) -> Coefficients:
        u = spectral.to_fields(velocity(w, n_points), shape)
        u_x, u_y = u[..., 0, :, :], u[..., 1, :, :]
        products = spectral.to_coefficients(np.stack([u_x * u_y, (u_y - u_x) * (u_y + u_x)]), 2)
        return source + shear * products[0] + stretch * products[1]

    return ETDRK4(-viscosity * (x**2 + y**2) - drag, nonlinear, step)
