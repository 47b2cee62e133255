"""Weights of the velocity loss over time.

The diffusion literature weights the error of the data prediction. An error of the velocity is an error of the data
prediction times ``D / b`` (see `flowmatch.flow.Path`), so a weight w(t) of the data-prediction loss becomes
``w(t) (b / D)^2`` on the velocity loss; on the linear path D = 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.core.checks import check_number
from flowmatch.core.component import Component
from flowmatch.flow import Path


class LossWeight(Component, ABC):
    """A weight of each sample's loss."""

    @abstractmethod
    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        """Weights of shape (B,).

        Parameters
        ----------
        t : Tensor of shape (B,)
            Times.
        error : Tensor of shape (B,)
            Mean squared error of each sample's velocity.
        path : Path
            The path that `t` belongs to.
        """


@dataclass(frozen=True)
class UniformWeight(LossWeight):
    """Weight 1: the plain flow matching loss."""

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class DataEndWeight(LossWeight):
    """``t^2``: errors near the data count most."""

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return t.square()


@dataclass(frozen=True)
class NoiseEndWeight(LossWeight):
    """``(1 - t)^2``: errors near the noise count most."""

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return (1 - t).square()


@dataclass(frozen=True)
class SNRWeight(LossWeight):
    """SNR weighting of the data-prediction loss, ``SNR (b / D)^2 = (a / D)^2``; on the linear path ``t^2``.

    Parameters
    ----------
    inverse : bool, default=False
        Weight by 1 / SNR instead, ``(b^2 / (a D))^2``; on the linear path it diverges at t = 0.
    max_weight : float, default=100.0
        Weights are clipped at this value.
    """

    inverse: bool = False
    max_weight: float = 100.0

    def validate(self) -> None:
        check_number("max_weight", self.max_weight, 0.0, open_low=True)

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        a, b, d = path.data_scale(t), path.noise_scale(t), path.velocity_scale(t)
        weight = b.square() / (a * d) if self.inverse else a / d
        return weight.square().clamp(max=self.max_weight)


@dataclass(frozen=True)
class MinSNRWeight(LossWeight):
    """``min(SNR, gamma)`` on the data-prediction loss (Hang et al., 2023, section 3.4).

    ``min(SNR, gamma) (b / D)^2 = min(a^2, gamma b^2) / D^2``, bounded everywhere; on the linear path
    ``min(t^2, gamma (1 - t)^2)``. The variance-preserving form ``min(SNR, gamma) / (SNR + 1)`` that circulates belongs
    to another parameterisation.

    Parameters
    ----------
    gamma : float, default=5.0
        Where the signal-to-noise ratio is cut.
    """

    gamma: float = 5.0

    def validate(self) -> None:
        check_number("gamma", self.gamma, 0.0, open_low=True)

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        a, b, d = path.data_scale(t), path.noise_scale(t), path.velocity_scale(t)
        return torch.minimum(a.square(), self.gamma * b.square()) / d.square()


@dataclass(frozen=True)
class AdaptiveWeight(LossWeight):
    """``1 / (error + c)^p`` with the gradient stopped: large errors count less (Geng et al., 2025, eq. 22).

    A weight that depends on the data moves the minimiser away from the conditional mean.

    `error` is the mean squared error over a sample's entries, so `c` does not depend on the dimension.

    Parameters
    ----------
    power : float, default=1.0
        p; 0 is the plain loss, 1/2 resembles the pseudo-Huber loss.
    offset : float, default=1e-3
        c.
    """

    power: float = 1.0
    offset: float = 1e-3

    def validate(self) -> None:
        check_number("power", self.power, 0.0)
        check_number("offset", self.offset, 0.0, open_low=True)

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return (error.detach() + self.offset).pow(-self.power)


@dataclass(frozen=True)
class CallableWeight(LossWeight):
    """A user's own ``w(t)``; what a callable ``loss_weight`` becomes."""

    function: Callable[[Tensor], Tensor]

    def validate(self) -> None:
        """Try the function on two times."""
        weight = self.function(torch.tensor([0.25, 0.75]))
        if not isinstance(weight, Tensor) or weight.shape != (2,):
            got = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            raise ValueError(f"loss_weight must turn times of shape (B,) into a tensor of that shape, got {got}.")

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return self.function(t)


LOSS_WEIGHTS: dict[str, type[LossWeight]] = {
    "uniform": UniformWeight,
    "snr": SNRWeight,
    "min_snr": MinSNRWeight,
    "data_end": DataEndWeight,
    "noise_end": NoiseEndWeight,
    "adaptive": AdaptiveWeight,
}
