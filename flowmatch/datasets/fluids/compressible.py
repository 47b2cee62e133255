"""Compressible two-dimensional Navier-Stokes equations: decaying turbulence with sound."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.datasets._random import RandomState, generator
from flowmatch.datasets.fluids import _spectral as spectral
from flowmatch.datasets.fluids._compressible_flow import CompressibleFlow
from flowmatch.datasets.fluids._recording import Recording, check_positive
from flowmatch.datasets.fluids._spectral import Floats


def make_compressible_navier_stokes(
    n_trajectories: int = 8,
    n_frames: int = 20,
    *,
    n_points: int = 64,
    mach: float = 0.3,
    fluctuation: float = 0.1,
    n_waves: int = 4,
    viscosity: float = 5e-4,
    gamma: float = 1.4,
    prandtl: float = 0.71,
    frame_interval: float = 0.05,
    cfl: float = 1.5,
    warmup: float = 0.5,
    observe_every: int = 1,
    dtype: DTypeLike = np.float32,
    random_state: RandomState = None,
) -> NDArray[Any]:
    """Simulate an ideal gas in two dimensions: vortices that decay, and sound that crosses them.

    ::

        r_t + div(r u) = 0
        (r u)_t + div(r u u) + grad p = div s,      s = viscosity (grad u + (grad u)^T - 2/3 div u)
        E_t + div((E + p) u) = div(s u + q),        q = viscosity gamma / ((gamma - 1) prandtl) grad(p / r)
        E = p / (gamma - 1) + r |u|^2 / 2

    with density r, velocity u, pressure p and total energy E, in a periodic box. Side of the box, mean density and
    speed of sound at rest are 1, so that time is counted in passages of sound through the box and the mean pressure is
    ``1 / gamma``. Every trajectory starts from smooth, divergence-free random velocities and from independent random
    density and pressure, whose imbalance sends out sound.

    Parameters
    ----------
    n_trajectories, n_frames : int, default=8, 20
        Independent runs, and states recorded of each.
    n_points : int, default=64
        Grid points per axis, at least 16.
    mach : float, default=0.3
        Root mean square of the initial speed over the speed of sound, from 0 to less than 1. Above about 0.5, shocks
        form, which need a larger `viscosity` or `n_points`.
    fluctuation : float, default=0.1
        Standard deviation of the logarithms of initial density and pressure, from 0 to 0.3.
    n_waves : int, default=4
        Most waves per box side in the initial fields.
    viscosity : float, default=5e-4
        Dynamic viscosity, the same everywhere; the Reynolds number is about ``mach / viscosity / n_waves``.
    gamma : float, default=1.4
        Ratio of specific heats, above 1.
    prandtl : float, default=0.71
        Viscosity times specific heat over conductivity of heat.
    frame_interval : float, default=0.05
        Time between frames.
    cfl : float, default=1.5
        Time step over the longest one at which a disturbance crosses one grid spacing, up to 1.7. The steps follow the
        flow, frame by frame and trajectory by trajectory.
    warmup : float, default=0.5
        Time before the first frame, rounded up to whole frame intervals.
    observe_every : int, default=1
        Keep every `observe_every`-th point per axis; must divide `n_points`.
    dtype : dtype, default=float32
        Element type of the result; inside all is float64.
    random_state : int, Generator, RandomState or None, default=None
        None for fresh entropy.

    Returns
    -------
    trajectories : ndarray of shape (n_trajectories, n_frames, 4, n_seen, n_seen)
        Density, velocity along x, velocity along y, pressure. Axes of the grid: (y, x).

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the flow diverges (density or pressure not positive).

    Notes
    -----
    Central differences, of order 6, of fluxes between pairs of points, whose convection neither makes nor destroys
    kinetic energy (Kuya, Totani and Kawai, Journal of Computational Physics 375, 2018), with the classical Runge-Kutta
    method. Tested: mass, momentum and total energy are conserved to rounding; order 6 in space and 4 in time; weak
    waves of sound, vorticity and heat have the speed and damping of the linear equations; without viscosity, unresolved
    turbulence does not blow up, where differences of the plain flux do.

    Examples
    --------
    >>> from flowmatch.datasets.fluids import make_compressible_navier_stokes
    >>> gas = make_compressible_navier_stokes(1, 3, n_points=16, viscosity=2e-3, random_state=0)
    >>> gas.shape
    (1, 3, 4, 16, 16)
    >>> print(gas[0, :, 0].mean(axis=(1, 2)).round(5))
    [1. 1. 1.]
    """
    run = Recording(n_trajectories, n_frames, n_points, frame_interval, warmup, observe_every, dtype=dtype)
    viscosity, gamma = check_number("viscosity", viscosity, 0), check_number("gamma", gamma, 1, open_low=True)
    flow = CompressibleFlow(n_points, viscosity, gamma, check_positive("prandtl", prandtl))
    check_number("mach", mach, 0, 1)
    check_number("fluctuation", fluctuation, 0, 0.3, closed_high=True)
    check_count("n_waves", n_waves, 1, n_points // 3, ", which the grid resolves")
    cfl = check_number("cfl", cfl, 0, 1.7, open_low=True, closed_high=True)
    gas = _random_gas(generator(random_state), n_trajectories, flow, mach, fluctuation, n_waves)

    def advance(state: Floats) -> Floats:
        # One by one: a trajectory fits the processor's cache, which halves the time, and depends on no other.
        alone = np.split(state, n_trajectories, axis=1)
        return np.concatenate([flow.advance(one, frame_interval, cfl) for one in alone], axis=1)

    def observe(state: Floats) -> Floats:
        return np.moveaxis(run.seen(flow.primitive(state), 2), 0, 1)

    remedy = f"lower cfl, got {cfl:g}, or raise n_points, got {n_points}, or viscosity, got {viscosity:g}"
    return run.record(advance, flow.conserved(gas), observe, remedy)


def _random_gas(
    rng: np.random.Generator, n: int, flow: CompressibleFlow, mach: float, fluctuation: float, n_waves: int
) -> Floats:
    """Primitive states (4, n, n_points, n_points)."""
    shape = (flow.n_points, flow.n_points)
    y, x = spectral.wave_indices(shape)
    stream = spectral.to_coefficients(spectral.smooth_noise(rng, (n,), shape, n_waves), 2)
    velocity = spectral.to_fields(np.stack([1j * y * stream, -1j * x * stream]), shape)
    velocity *= mach / np.sqrt((velocity**2).sum(0).mean((-2, -1)))[:, None, None]
    density, pressure = np.exp(fluctuation * spectral.smooth_noise(rng, (2, n), shape, n_waves))
    density /= density.mean((-2, -1), keepdims=True)
    pressure /= flow.gamma * pressure.mean((-2, -1), keepdims=True)
    return np.stack([density, *velocity, pressure])
