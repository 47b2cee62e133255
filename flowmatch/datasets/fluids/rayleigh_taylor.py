"""Rayleigh-Taylor instability: heavy fluid sinks through light fluid between two walls."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.datasets._random import RandomState, generator
from flowmatch.datasets.fluids._boussinesq import BoussinesqFlow
from flowmatch.datasets.fluids._recording import Recording, check_positive
from flowmatch.datasets.fluids._spectral import Coefficients, Floats, smooth_noise


def make_rayleigh_taylor(
    n_trajectories: int = 4,
    n_frames: int = 20,
    *,
    n_dims: int = 3,
    n_points: int = 32,
    width: float = 1.0,
    viscosity: float = 2e-3,
    diffusivity: float = 2e-3,
    thickness: float = 0.05,
    amplitude: float = 0.02,
    n_waves: int = 4,
    frame_interval: float = 0.1,
    steps_per_frame: int = 5,
    warmup: float = 0.5,
    observe_every: int = 1,
    dtype: DTypeLike = np.float32,
    random_state: RandomState = None,
) -> NDArray[Any]:
    """Simulate the Rayleigh-Taylor instability of a heavy fluid above a light one, in two or three dimensions.

    ::

        u_t + (u . grad) u = -grad p + b e_z + viscosity lap u,     div u = 0
        b_t + (u . grad) b = diffusivity lap b

    (Boussinesq approximation) with velocity u and buoyancy b, the weight that a fluid has less than the mean. Walls at
    ``z = 0`` and ``z = 1`` let nothing flow or diffuse through and do not rub (``u_z = d(u_x)/dz = db/dz = 0``); along
    them the box is periodic. The fluid is at rest at first, with ``b = -tanh((z - 1/2 - h) / thickness)`` and a smooth
    random height h of the interface. Height of the box and half the jump of buoyancy are 1, so that time is counted in
    free falls.

    Parameters
    ----------
    n_trajectories, n_frames : int, default=4, 20
        Independent runs, and states recorded of each.
    n_dims : {2, 3}, default=3
    n_points : int, default=32
        Grid points per axis, at least 16. Waves up to two thirds of the finest are solved for.
    width : float, default=1.0
        Sides of the box along the walls.
    viscosity : float, default=2e-3
        Kinematic viscosity, height^2 / time.
    diffusivity : float, default=2e-3
        Of buoyancy, height^2 / time.
    thickness : float, default=0.05
        Of the interface at the start; one and a half grid spacings or more are resolved.
    amplitude : float, default=0.02
        Standard deviation of the interface's height at the start.
    n_waves : int, default=4
        Most waves per `width` in the interface at the start.
    frame_interval : float, default=0.1
        Time between frames.
    steps_per_frame : int, default=5
        Time steps between frames.
    warmup : float, default=0.5
        Time before the first frame, rounded up to whole frame intervals. A wave k of the interface grows at the rate
        ``sqrt(k / (1 + k thickness))`` at most.
    observe_every : int, default=1
        Keep every `observe_every`-th point per axis; must divide `n_points`.
    dtype : dtype, default=float32
        Element type of the result; inside all is float64.
    random_state : int, Generator, RandomState or None, default=None
        None for fresh entropy.

    Returns
    -------
    trajectories : ndarray of shape (n_trajectories, n_frames, n_dims + 1, *grid)
        Velocity along x, (y,) z, and buoyancy. Axes of the grid: (z, x) or (z, y, x). The first, z, is the vertical,
        upward (an image of it needs ``origin="lower"``), at the middles of cells: ``z = (index + 1/2) / n_points``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the time step is too long for the flow.

    See Also
    --------
    vertical_slices : Two-dimensional slices of a run in three dimensions.

    Notes
    -----
    Pseudo-spectral, Fourier along the walls and cosines or sines across, with ETDRK4 (Kassam and Trefethen, 2005) and
    the 2/3 rule. Tested: order 4 in time; small waves of the interface grow at the rate of linear theory, which is
    ``sqrt(k / (1 + k thickness))`` for this profile without viscosity, diffusion and walls; a cellular vortex decays as
    the exact solution; no divergence; mean buoyancy conserved to rounding; the budgets of kinetic energy and of the
    variance of buoyancy. Where a front is as thin as the grid, buoyancy overshoots its bounds of -1 and 1; by up to an
    eighth with the defaults.

    Examples
    --------
    >>> from flowmatch.datasets.fluids import make_rayleigh_taylor
    >>> make_rayleigh_taylor(2, 3, n_dims=2, random_state=0).shape
    (2, 3, 3, 32, 32)
    >>> make_rayleigh_taylor(1, 2, n_points=16, random_state=0).shape
    (1, 2, 4, 16, 16, 16)
    """
    run = Recording(n_trajectories, n_frames, n_points, frame_interval, warmup, observe_every, dtype=dtype)
    n_dims, n_steps = check_count("n_dims", n_dims, 2, 3), check_count("steps_per_frame", steps_per_frame)
    flow = BoussinesqFlow(
        (n_points,) * n_dims,
        check_positive("width", width),
        check_number("viscosity", viscosity, 0),
        check_number("diffusivity", diffusivity, 0),
        frame_interval / n_steps,
    )
    n_waves = check_count("n_waves", n_waves, 1, n_points // 3, ", which the grid resolves")
    noise = smooth_noise(generator(random_state), (n_trajectories,), (n_points,) * (n_dims - 1), n_waves)
    height = check_number("amplitude", amplitude, 0) * noise
    start = layered(flow, height, check_positive("thickness", thickness))

    def observe(v: Coefficients) -> Floats:
        fields = run.seen(flow.to_fields(v), n_dims)
        return np.concatenate([fields[:, : n_dims - 1], fields[:, -1:], fields[:, -2:-1]], axis=1)

    remedy = f"raise steps_per_frame, got {steps_per_frame}"
    return run.record(lambda v: flow.solver(v, n_steps), start, observe, remedy)


def vertical_slices(trajectories: ArrayLike, n_slices: int = 4) -> NDArray[Any]:
    """Cut runs in three dimensions into two-dimensional ones: vertical planes, evenly spaced along y.

    The flow across a plane is a channel still, but what comes from beside the plane is not seen: the next slice is
    random given the present one.

    Parameters
    ----------
    trajectories : array-like of shape (n_trajectories, n_frames, n_channels, n_z, n_y, n_x)
        As :func:`make_rayleigh_taylor` gives them.
    n_slices : int, default=4
        Planes of each trajectory, at most n_y.

    Returns
    -------
    slices : ndarray of shape (n_trajectories * n_slices, n_frames, n_channels, n_z, n_x)
        Those of one trajectory stand together; they are not independent, so hold out all or none of them.

    Raises
    ------
    ValueError
        If `trajectories` does not have 6 axes or there are fewer than `n_slices` planes.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.datasets.fluids import vertical_slices
    >>> vertical_slices(np.zeros((2, 5, 4, 32, 32, 32)), n_slices=4).shape
    (8, 5, 4, 32, 32)
    """
    fields = np.asarray(trajectories)
    if fields.ndim != 6:
        raise ValueError(
            f"trajectories must have shape (n_trajectories, n_frames, n_channels, n_z, n_y, n_x), got {fields.shape}."
        )
    n_y = fields.shape[4]
    n_slices = check_count("n_slices", n_slices, 1, n_y, ", the planes along y")
    planes = np.moveaxis(fields[..., np.arange(n_slices) * n_y // n_slices, :], 4, 1)
    return planes.reshape(-1, *planes.shape[2:])


def layered(flow: BoussinesqFlow, height: Floats, thickness: float) -> Coefficients:
    """Fluid at rest, heavy above light, of an interface this much above the middle (n, *grid along the walls)."""
    n_z = flow.shape[0]
    z = ((np.arange(n_z) + 0.5) / n_z).reshape(-1, *[1] * (height.ndim - 1))
    fields = np.zeros((len(height), len(flow.shape) + 1, *flow.shape))
    fields[:, -2] = -np.tanh((z - 0.5 - height[:, None]) / thickness)
    return flow.to_coefficients(fields)
