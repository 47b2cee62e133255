"""Affine paths between noise and data, and the conversions between velocity, denoised data and noise.

Time runs from 0 (noise, ``x0``) to 1 (data, ``x1``), everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.core.checks import check_number, checked
from flowmatch.core.component import Component


class Path(Component, ABC):
    """An affine path ``x_t = a(t) x1 + b(t) x0`` with ``a(0) = b(1) = 0`` and ``a(1) = b(0) = 1``.

    A subclass gives the two schedules and their derivatives; everything else follows (Lipman et al., 2024,
    "Flow Matching Guide and Code", section 4.8 and table 1). Times are tensors that broadcast against the samples:
    0-d for one time, or (B,) for one a sample.

    Attributes
    ----------
    first_time : float
        The smallest time at which the velocity is finite. Training draws its times from [first_time, 1] and
        sampling starts there.

    Examples
    --------
    A path of one's own; what leads to noise quadratically, stays near the data for long:

    >>> from dataclasses import dataclass
    >>> import torch
    >>> from flowmatch.flow import Path
    >>> @dataclass(frozen=True)
    ... class QuadraticPath(Path):
    ...     def data_scale(self, t):
    ...         return 1 - (1 - t) ** 2
    ...
    ...     def noise_scale(self, t):
    ...         return (1 - t) ** 2
    ...
    ...     def data_rate(self, t):
    ...         return 2 * (1 - t)
    ...
    ...     def noise_rate(self, t):
    ...         return -2 * (1 - t)
    >>> QuadraticPath().interpolate(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.5]))
    tensor([[0.7500, 0.7500]])
    """

    first_time: float = 0.0

    @abstractmethod
    def data_scale(self, t: Tensor) -> Tensor:
        """Share of the data ``a(t)``.

        Parameters
        ----------
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of the shape of `t`
            From 0 at t = 0 to 1 at t = 1.
        """

    @abstractmethod
    def noise_scale(self, t: Tensor) -> Tensor:
        """Share of the noise ``b(t)``.

        Parameters
        ----------
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of the shape of `t`
            From 1 at t = 0 to 0 at t = 1.
        """

    @abstractmethod
    def data_rate(self, t: Tensor) -> Tensor:
        """Derivative of `data_scale` ``a'(t)``.

        Parameters
        ----------
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of the shape of `t`
            Finite from `first_time` on.
        """

    @abstractmethod
    def noise_rate(self, t: Tensor) -> Tensor:
        """Derivative of `noise_scale` ``b'(t)``.

        Parameters
        ----------
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of the shape of `t`
            Finite from `first_time` on.
        """

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The point ``x_t = a x1 + b x0``.

        Parameters
        ----------
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            States on the path.
        """
        t = expand_time(t, x1)
        return self.data_scale(t) * x1 + self.noise_scale(t) * x0

    def velocity(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The conditional velocity ``u_t = a' x1 + b' x0``: what a network is trained to predict.

        Parameters
        ----------
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            Its derivative along the path.
        """
        t = expand_time(t, x1)
        return self.data_rate(t) * x1 + self.noise_rate(t) * x0

    def velocity_scale(self, t: Tensor) -> Tensor:
        """``D = a' b - a b'``, the determinant that turns (x_t, u_t) into (x0, x1); positive inside (0, 1).

        Parameters
        ----------
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of the shape of `t`
            The determinant.
        """
        return self.data_rate(t) * self.noise_scale(t) - self.data_scale(t) * self.noise_rate(t)

    def signal_to_noise(self, t: Tensor) -> Tensor:
        """``SNR(t) = a^2 / b^2``.

        Parameters
        ----------
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of the shape of `t`
            Growing with t.
        """
        return (self.data_scale(t) / self.noise_scale(t)).square()

    def data_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Denoised data ``x1 = (b u - b' x) / D``.

        Parameters
        ----------
        velocity : Tensor of shape (B, *sample_shape)
            Velocities u.
        x : Tensor of shape (B, *sample_shape)
            States x_t.
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            What lies at the end of the path.
        """
        t = expand_time(t, x)
        return (self.noise_scale(t) * velocity - self.noise_rate(t) * x) / self.velocity_scale(t)

    def noise_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Noise ``x0 = (a' x - a u) / D``. The score of a standard normal source is ``-x0 / b``.

        Parameters
        ----------
        velocity : Tensor of shape (B, *sample_shape)
            Velocities u.
        x : Tensor of shape (B, *sample_shape)
            States x_t.
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            What lies at its beginning.
        """
        t = expand_time(t, x)
        return (self.data_rate(t) * x - self.data_scale(t) * velocity) / self.velocity_scale(t)

    def velocity_from_data(self, x1: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Velocity of a denoiser's ``x1``: ``u = (D x1 + b' x) / b``, the inverse of `data_from_velocity`.

        Parameters
        ----------
        x1 : Tensor of shape (B, *sample_shape)
            Denoised data.
        x : Tensor of shape (B, *sample_shape)
            States x_t.
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            Velocities.
        """
        t = expand_time(t, x)
        return (self.velocity_scale(t) * x1 + self.noise_rate(t) * x) / self.noise_scale(t)

    def velocity_from_noise(self, x0: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Velocity of a noise predictor's ``x0``: ``u = (a' x - D x0) / a``, inverse to `noise_from_velocity`.

        Parameters
        ----------
        x0 : Tensor of shape (B, *sample_shape)
            Predicted noise.
        x : Tensor of shape (B, *sample_shape)
            States x_t.
        t : Tensor of shape (B,) or ()
            Times.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            Velocities.
        """
        t = expand_time(t, x)
        return (self.data_rate(t) * x - self.velocity_scale(t) * x0) / self.data_scale(t)


@dataclass(frozen=True)
class LinearPath(Path):
    """Straight line from noise to data, ``x_t = t x1 + (1 - t) x0``.

    Known as rectified flow (Liu et al., 2023, eq. 1) and as the conditional optimal-transport path (Lipman et al.,
    2023, eq. 20). The velocity ``x1 - x0`` does not depend on t.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> x0, x1, t = torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.25])
    >>> LinearPath().interpolate(x0, x1, t), LinearPath().velocity(x0, x1, t)
    (tensor([[0.2500, 0.2500]]), tensor([[1., 1.]]))
    """

    def data_scale(self, t: Tensor) -> Tensor:
        return t

    def noise_scale(self, t: Tensor) -> Tensor:
        return 1 - t

    def data_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def noise_rate(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(x0, x1, expand_time(t, x1))

    def velocity(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        return x1 - x0


@dataclass(frozen=True)
class VariancePreservingPath(Path):
    """Variance-preserving path with noise scale ``b = 1 - t`` and ``a = sqrt(1 - b^2)``.

    The interpolation ``sqrt(1 - sigma^2) x1 + sigma x0`` with sigma = 1 - t. Its ``a' = b / a`` grows without bound
    as t falls to 0, so times start at `first_time`.

    Parameters
    ----------
    first_time : float, default=0.001
        The smallest time in training and sampling. Sampling starts there from pure noise, which is off by
        ``a(first_time)``, about ``sqrt(2 first_time)``, in the scale of the data.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import VariancePreservingPath
    >>> path, t = VariancePreservingPath(), torch.tensor([0.2])
    >>> path.data_scale(t) ** 2 + path.noise_scale(t) ** 2
    tensor([1.])
    """

    first_time: float = checked(1e-3, check_number, 0.0, 1.0, open_low=True)

    def data_scale(self, t: Tensor) -> Tensor:
        return (t * (2 - t)).sqrt()

    def noise_scale(self, t: Tensor) -> Tensor:
        return 1 - t

    def data_rate(self, t: Tensor) -> Tensor:
        return (1 - t) / self.data_scale(t)

    def noise_rate(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)


@dataclass(frozen=True)
class CosinePath(Path):
    """Variance-preserving path without a singularity, ``x_t = sin(pi t / 2) x1 + cos(pi t / 2) x0``.

    The trigonometric interpolant of Albergo and Vanden-Eijnden (2023, "Building Normalizing Flows with Stochastic
    Interpolants", eq. 5).

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import CosinePath
    >>> CosinePath().data_scale(torch.tensor([0.5]))
    tensor([0.7071])
    """

    def data_scale(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)

    def noise_scale(self, t: Tensor) -> Tensor:
        return torch.cos(0.5 * math.pi * t)

    def data_rate(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * self.noise_scale(t)

    def noise_rate(self, t: Tensor) -> Tensor:
        return -0.5 * math.pi * self.data_scale(t)


PATHS: dict[str, type[Path]] = {"linear": LinearPath, "vp": VariancePreservingPath, "cosine": CosinePath}


def expand_time(t: Tensor, x: Tensor) -> Tensor:
    """View times of shape (B,) as (B, 1, ..., 1) so that they broadcast against samples; a 0-d time passes.

    Parameters
    ----------
    t : Tensor of shape (B,) or ()
        Times.
    x : Tensor of shape (B, *sample_shape)
        Samples.

    Returns
    -------
    Tensor of shape (B, 1, ..., 1) or ()
        The same times.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import expand_time
    >>> expand_time(torch.rand(5), torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 1, 1, 1])
    """
    return t if t.ndim == 0 else t.view(-1, *(1,) * (x.ndim - 1))
