"""Compressible Navier-Stokes equations of an ideal gas, by finite differences that conserve mass, momentum and energy.

The convective terms are differences of fluxes between two points, of order 6 (S. Pirozzoli, Journal of Computational
Physics 229, 2010), of the form that keeps kinetic energy and entropy (Y. Kuya, K. Totani and S. Kawai, Journal
of Computational Physics 375, 2018): no filter or artificial viscosity is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowmatch.datasets.fluids._spectral import Floats

_FIRST = (3 / 4, -3 / 20, 1 / 60)
"""First derivative of order 6 by the points 1, 2 and 3 steps ahead, less those behind."""

_SECOND = (3 / 2, -3 / 20, 1 / 90)
"""Second derivative of order 6: the same points, each less the middle one."""

_REACH = len(_FIRST)
_MOST_STEPS = 100_000  # in one frame interval; a flow that needs more has diverged


@dataclass(frozen=True)
class CompressibleFlow:
    """A gas in a periodic square of side 1: mean density 1, speed of sound 1 at pressure 1 / gamma, gas constant 1.

    States are arrays (4, n, n_points, n_points): conserved ones hold density, momentum along x and y, and total energy;
    primitive ones density, velocity along x and y, and pressure. Axes of the grid: (y, x).
    """

    n_points: int
    viscosity: float
    gamma: float = 1.4
    prandtl: float = 0.71

    def conserved(self, primitive: Floats) -> Floats:
        """From density, velocity and pressure."""
        density, velocity, pressure = primitive[0], primitive[1:3], primitive[3]
        energy = pressure / (self.gamma - 1) + density * (velocity**2).sum(0) / 2
        return np.stack([density, *(density * velocity), energy])

    def primitive(self, state: Floats) -> Floats:
        """Density, velocity and pressure."""
        velocity = state[1:3] / state[0]
        pressure = (self.gamma - 1) * (state[3] - state[0] * (velocity**2).sum(0) / 2)
        return np.stack([state[0], *velocity, pressure])

    def advance(self, state: Floats, duration: float, cfl: float) -> Floats:
        """State after `duration`, in equal steps of the classical Runge-Kutta method; NaN if it is none of a gas."""
        step = self._longest_step(state, cfl)
        if not step > duration / _MOST_STEPS:
            return np.full_like(state, np.nan)
        n_steps = math.ceil(duration / step)
        for _ in range(n_steps):
            state = self.step(state, duration / n_steps)
        primitive = self.primitive(state)
        return state if (primitive[0].min() > 0) and (primitive[3].min() > 0) else np.full_like(state, np.nan)

    def step(self, state: Floats, step: float) -> Floats:
        """One step of the classical Runge-Kutta method."""
        k1 = self.rate(state)
        k2 = self.rate(state + step / 2 * k1)
        k3 = self.rate(state + step / 2 * k2)
        k4 = self.rate(state + step * k3)
        return state + step / 6 * (k1 + 2 * (k2 + k3) + k4)

    def rate(self, state: Floats) -> Floats:
        """Time derivative of the conserved state."""
        primitive = self.primitive(state)
        density, velocity, pressure = primitive[0], primitive[1:3], primitive[3]
        temperature = pressure / density
        parts = np.concatenate([primitive, temperature[None] / (self.gamma - 1)])
        out = self._viscous(velocity, temperature) if self.viscosity else np.zeros_like(state)
        for axis, component in ((-1, 1), (-2, 2)):
            out -= self._convective(parts, axis, component)
        return out

    def _longest_step(self, state: Floats, cfl: float) -> float:
        """Stable if `cfl` is below 1.75: the Runge-Kutta method bears 2.8, the differences give 1.59 and 12.1 / 2."""
        density, u_x, u_y, pressure = self.primitive(state)
        sound = np.sqrt(self.gamma * pressure / density)
        fastest = float((np.abs(u_x) + np.abs(u_y) + math.sqrt(2) * sound).max())
        diffusivity = float(self.viscosity * max(4 / 3, self.gamma / self.prandtl) / density.min())
        return cfl / (fastest * self.n_points + 8 * diffusivity * self.n_points**2)

    def _convective(self, parts: Floats, axis: int, component: int) -> Floats:
        """Divergence of the fluxes along an axis of density, velocity, pressure and internal energy per mass."""
        padded, n = _wrapped(parts, axis), self.n_points
        out = np.zeros_like(parts[:4])
        for distance, weight in enumerate(_FIRST, 1):
            here = _cut(padded, axis, _REACH - distance, _REACH + n)
            ahead = _cut(padded, axis, _REACH, _REACH + n + distance)
            flux = _two_point_flux(here, ahead, component)
            flux *= 2 * weight * n
            out += _cut(flux, axis, distance, n + distance)
            out -= _cut(flux, axis, 0, n)
        return out

    def _viscous(self, velocity: Floats, temperature: Floats) -> Floats:
        """Viscous forces, their work and the conduction of heat; constant viscosity, no bulk viscosity."""
        n, out = self.n_points, np.zeros((4, *temperature.shape))
        d_x, d_y = _first(velocity, -1, n), _first(velocity, -2, n)
        third, shear = (d_x[0] + d_y[1]) / 3, d_x[1] + d_y[0]
        stress = 2 * (d_x[0] - third), shear, 2 * (d_y[1] - third)
        work_x, work_y = (velocity[0] * stress[i] + velocity[1] * stress[i + 1] for i in (0, 1))
        out[1:] = _laplacian(np.concatenate([velocity, temperature[None]]), n)
        out[3] *= self.gamma / (self.gamma - 1) / self.prandtl  # conductivity over viscosity
        out[[1, 3]] += _first(np.stack([third, work_x]), -1, n)
        out[[2, 3]] += _first(np.stack([third, work_y]), -2, n)
        return self.viscosity * out


def _two_point_flux(here: Floats, ahead: Floats, component: int) -> Floats:
    """Of mass, momentum and energy, symmetric in the two points (Kuya, Totani and Kawai, 2018)."""
    density, u_x, u_y, pressure, internal = here + ahead
    normal, normal_ahead = here[component], ahead[component]
    flux = np.empty((4, *density.shape))
    flux[0] = density * (normal + normal_ahead) / 4
    half = flux[0] / 2
    flux[1], flux[2] = half * u_x, half * u_y
    flux[component] += pressure / 2
    flux[3] = half * (internal + here[1] * ahead[1] + here[2] * ahead[2])
    flux[3] += (normal * ahead[3] + normal_ahead * here[3]) / 2
    return flux


def _wrapped(fields: Floats, axis: int) -> Floats:
    """With the points beyond both borders of the periodic box."""
    n = fields.shape[axis]
    return np.concatenate([_cut(fields, axis, n - _REACH, n), fields, _cut(fields, axis, 0, _REACH)], axis)


def _cut(fields: Floats, axis: int, start: int, stop: int) -> Floats:
    """Part of the last axis or the last but one."""
    return fields[..., start:stop] if axis == -1 else fields[..., start:stop, :]


def _first(fields: Floats, axis: int, n: int) -> Floats:
    """First derivative along an axis."""
    padded, out = _wrapped(fields, axis), np.zeros_like(fields)
    for d, weight in enumerate(_FIRST, 1):
        ahead, behind = (_cut(padded, axis, start, start + n) for start in (_REACH + d, _REACH - d))
        out += weight * n * (ahead - behind)
    return out


def _laplacian(fields: Floats, n: int) -> Floats:
    """Sum of the second derivatives; unlike the first derivative of a first one, it damps the finest wave."""
    out = -4 * sum(_SECOND) * n**2 * fields
    for axis in (-1, -2):
        padded = _wrapped(fields, axis)
        for d, weight in enumerate(_SECOND, 1):
            ahead, behind = (_cut(padded, axis, start, start + n) for start in (_REACH + d, _REACH - d))
            out += weight * n**2 * (ahead + behind)
    return out
