"""Boussinesq equations between two free-slip walls: Fourier series along the walls, cosines and sines across.

Velocity along the walls and buoyancy are even about a wall (nothing rubs, nothing diffuses through), velocity across is
odd (nothing flows through); every term of the equations keeps this but the buoyancy in the equation of the latter,
whose sine series converges more slowly once fluid of differing buoyancy touches a wall.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.fft import dct, dst, idct, idst, irfftn, rfftn

from flowmatch.datasets.fluids._spectral import ETDRK4, Coefficients, Floats, resolved, wave_indices


class BoussinesqFlow:
    """Fluid of height 1 on a grid (z, x) or (z, y, x), at the middles of cells across the walls.

    Fields are stacked on axis 1: the velocities along the walls (u_x and, in three dimensions, u_y), buoyancy, and last
    the velocity across, u_z. Slot m of a coefficient's axis across the walls holds cos(m pi z) or sin(m pi z).

    Parameters
    ----------
    shape : tuple of int
        Points along (z, x) or (z, y, x).
    width : float
        Sides along the walls.
    viscosity, diffusivity : float
        Of momentum and of buoyancy.
    step : float
        Time step.
    """

    def __init__(self, shape: tuple[int, ...], width: float, viscosity: float, diffusivity: float, step: float) -> None:
        self.shape = shape
        self._along = tuple(range(1 - len(shape), 0))  # axes along the walls
        waves = [2 * np.pi / width * index for index in wave_indices(shape[1:])]
        self._k = waves[::-1]  # x, y
        self._m = np.pi * np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        self._kept = resolved(shape[1:]) & (self._m < 2 / 3 * np.pi * shape[0])
        square: Any = sum(k**2 for k in self._k) + self._m**2
        self._inverse_square = 1 / np.where(square > 0, square, 1)
        rates = [viscosity] * len(waves) + [diffusivity, viscosity]
        self.solver = ETDRK4(-np.stack([rate * square for rate in rates]), self._nonlinear, step)

    def to_coefficients(self, fields: Floats) -> Coefficients:
        """Of stacked fields, the last of which is odd."""
        return np.concatenate([self._even(fields[:, :-1]), self._odd(fields[:, -1:])], axis=1)

    def to_fields(self, v: Coefficients) -> Floats:
        """Values on the grid."""
        along = self._along
        series = irfftn(v, self.shape[1:], axes=along)
        axis = along[0] - 1
        sines = np.roll(series[:, -1:], -1, axis)  # its slot 0 is zero, and so is now the last, the finest sine
        return np.concatenate([idct(series[:, :-1], axis=axis), idst(sines, axis=axis)], axis=1)

    def _nonlinear(self, v: Coefficients) -> Coefficients:
        """Time derivative less viscosity and diffusion: advection, buoyancy and the pressure that balances them.

        The square of u_z is subtracted from the diagonal of the tensor u u, which changes the pressure only.
        """
        fields, n_along = self.to_fields(v), len(self._k)
        along, buoyancy, across = fields[:, :n_along], fields[:, n_along], fields[:, -1]
        pairs = [(i, j) for i in range(n_along) for j in range(i, n_along)]
        squares = [along[:, i] * along[:, j] - (across**2 if i == j else 0) for i, j in pairs]
        even = self._even(np.stack([*squares, *(along[:, i] * buoyancy for i in range(n_along))], axis=1))
        carried = [along[:, i] * across for i in range(n_along)]
        odd = self._odd(np.stack([*carried, buoyancy * across, buoyancy], axis=1))
        out = np.empty_like(v)
        for i in range(n_along):
            tensor = [even[:, pairs.index((min(i, j), max(i, j)))] for j in range(n_along)]
            out[:, i] = -self._divergence(tensor, odd[:, i])
        out[:, n_along] = -self._divergence([even[:, len(pairs) + i] for i in range(n_along)], odd[:, n_along])
        out[:, -1] = odd[:, -1] - sum(1j * k * odd[:, i] for i, k in enumerate(self._k))
        return self.project(out)

    def project(self, v: Coefficients) -> Coefficients:
        """Take a gradient from the velocity, so that its divergence is zero."""
        potential = -self._inverse_square * self._divergence([v[:, i] for i in range(len(self._k))], v[:, -1])
        for i, k in enumerate(self._k):
            v[:, i] -= 1j * k * potential
        v[:, -1] += self._m * potential
        return v

    def _divergence(self, along: list[Coefficients], across: Coefficients) -> Coefficients:
        """Of a vector whose components along the walls are even and across odd."""
        return sum((1j * k * part for k, part in zip(self._k, along, strict=True)), self._m * across)

    def _even(self, fields: Floats) -> Coefficients:
        """Cosine series, less the waves that products would spoil."""
        return rfftn(dct(fields, axis=self._along[0] - 1), axes=self._along) * self._kept

    def _odd(self, fields: Floats) -> Coefficients:
        """Sine series."""
        axis = self._along[0] - 1
        return rfftn(np.roll(dst(fields, axis=axis), 1, axis), axes=self._along) * (self._kept & (self._m > 0))
