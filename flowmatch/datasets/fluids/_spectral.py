"""Fourier coefficients of periodic fields, and the exponential time step that the spectral solvers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn

Floats: TypeAlias = NDArray[np.float64]
Coefficients: TypeAlias = NDArray[np.complex128]

_CONTOUR = np.exp(1j * np.pi * (np.arange(32) + 0.5) / 32)
"""Upper half of a circle; the lower half would give the conjugates."""


class ETDRK4:
    """One step of dv/dt = linear v + nonlinear(v), of order 4, exact if `nonlinear` is zero.

    Runge-Kutta with exponential time differencing, S. M. Cox and P. C. Matthews, Journal of Computational Physics 176
    (2002), eqs. 26-29. Its coefficients cancel badly where `linear` is near zero, so they are means over a circle in
    the complex plane: A.-K. Kassam and L. N. Trefethen, SIAM Journal on Scientific Computing 26 (2005).

    Parameters
    ----------
    linear : ndarray
        Real eigenvalues of the linear part, of a shape that broadcasts against the coefficients.
    nonlinear : callable
        Coefficients -> coefficients.
    step : float
        Time step.
    """

    def __init__(self, linear: Floats, nonlinear: Callable[[Coefficients], Coefficients], step: float) -> None:
        values, inverse = np.unique(step * linear, return_inverse=True)  # few: many waves are equally long
        z = values[:, None] + _CONTOUR
        exp = np.exp(z)
        stage = (np.exp(z / 2) - 1) / z
        first = (-4 - z + exp * (4 - 3 * z + z**2)) / z**3
        middle = 2 * (2 + z + exp * (z - 2)) / z**3
        last = (-4 - 3 * z - z**2 + exp * (4 - z)) / z**3
        means = step * np.stack([stage, first, middle, last]).mean(-1).real
        self._stage, self._first, self._middle, self._last = means[:, inverse].reshape(4, *linear.shape)
        self._full, self._half = np.exp(step * linear), np.exp(step * linear / 2)
        self._linear, self._nonlinear = linear, nonlinear

    def rate(self, v: Coefficients) -> Coefficients:
        """The time derivative dv/dt."""
        return self._linear * v + self._nonlinear(v)

    def __call__(self, v: Coefficients, n_steps: int = 1) -> Coefficients:
        """Coefficients after `n_steps` steps."""
        for _ in range(n_steps):
            v = self._step(v)
        return v

    def _step(self, v: Coefficients) -> Coefficients:
        start, carried = self._nonlinear(v), self._half * v
        a = carried + self._stage * start
        at_a = self._nonlinear(a)
        at_b = self._nonlinear(carried + self._stage * at_a)
        at_c = self._nonlinear(self._half * a + self._stage * (2 * at_b - start))
        return self._full * v + self._first * start + self._middle * (at_a + at_b) + self._last * at_c


def wave_indices(shape: Sequence[int]) -> list[Floats]:
    """Whole waves in the box per axis, as `rfftn` orders them, of shapes that broadcast."""
    halves: list[Any] = [np.fft.fftfreq(n, 1 / n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1], 1 / shape[-1])]
    return list(np.ix_(*halves))


def resolved(shape: Sequence[int]) -> NDArray[np.bool_]:
    """Waves below two thirds of the finest: products of two of them leave no false image there (Orszag, 1971)."""
    below = [np.abs(k) < n / 3 for k, n in zip(wave_indices(shape), shape, strict=True)]
    return np.all(np.broadcast_arrays(*below), axis=0)


def to_coefficients(fields: Floats, n_dims: int) -> Coefficients:
    """Fourier coefficients over the last `n_dims` axes."""
    return rfftn(fields, axes=range(-n_dims, 0))


def to_fields(coefficients: Coefficients, shape: Sequence[int]) -> Floats:
    """Values on the grid."""
    return irfftn(coefficients, shape, axes=range(-len(shape), 0))


def smooth_noise(rng: np.random.Generator, leading: Sequence[int], shape: Sequence[int], n_waves: int) -> Floats:
    """Random fields (*leading, *shape) of the waves 0 < abs(k) <= `n_waves`, each with mean 0 and variance 1.

    Gaussian noise, filtered and divided by its own standard deviation over the grid.
    """
    noise = to_coefficients(rng.standard_normal((*leading, *shape)), len(shape))
    square = sum(k**2 for k in wave_indices(shape))
    fields = to_fields(noise * ((square > 0) & (square <= n_waves**2) & resolved(shape)), shape)
    return fields / fields.std(axis=tuple(range(-len(shape), 0)), keepdims=True)
