"""Weights of the velocity loss over time.

The diffusion literature weights the error of the data prediction. An error of the velocity is an error of the data
prediction times ``D / b`` (see `flowmatch.flow.Path`), so a weight w(t) of the data-prediction loss becomes
``w(t) (b / D)^2`` on the velocity loss; on the linear path D = 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowmatch.core.checks import check_flag, check_number, checked
from flowmatch.core.component import Component
from flowmatch.flow import Path


class LossWeight(Component, ABC):
    """A weight of each sample's loss.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import LossWeight
    >>> @dataclass(frozen=True)
    ... class MiddleWeight(LossWeight):
    ...     def __call__(self, t, error, path):
    ...         return 4 * t * (1 - t)
    >>> MiddleWeight()(torch.tensor([0.0, 0.5]), torch.ones(2), LinearPath())
    tensor([0., 1.])
    """

    @abstractmethod
    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        """Weight of each sample.

        Parameters
        ----------
        t : Tensor of shape (B,)
            Times.
        error : Tensor of shape (B,)
            Mean squared error of each sample's velocity.
        path : Path
            The path that `t` belongs to.

        Returns
        -------
        Tensor of shape (B,)
            The weights.
        """


@dataclass(frozen=True)
class UniformWeight(LossWeight):
    """Weight 1: the plain flow matching loss.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import UniformWeight
    >>> UniformWeight()(torch.tensor([0.25, 0.75]), torch.ones(2), LinearPath())
    tensor([1., 1.])
    """

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class DataEndWeight(LossWeight):
    """``t^2``: errors near the data count most.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import DataEndWeight
    >>> DataEndWeight()(torch.tensor([0.25, 0.75]), torch.ones(2), LinearPath())
    tensor([0.0625, 0.5625])
    """

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return t.square()


@dataclass(frozen=True)
class NoiseEndWeight(LossWeight):
    """``(1 - t)^2``: errors near the noise count most.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import NoiseEndWeight
    >>> NoiseEndWeight()(torch.tensor([0.25, 0.75]), torch.ones(2), LinearPath())
    tensor([0.5625, 0.0625])
    """

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

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import SNRWeight
    >>> SNRWeight()(torch.tensor([0.25, 0.75]), torch.ones(2), LinearPath())
    tensor([0.0625, 0.5625])
    """

    inverse: bool = checked(False, check_flag)
    max_weight: float = checked(100.0, check_number, 0.0, open_low=True)

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        a, b, d = path.data_scale(t), path.noise_scale(t), path.velocity_scale(t)
        weight = b.square() / (a * d) if self.inverse else a / d
        return weight.square().clamp(max=self.max_weight)


@dataclass(frozen=True)
class MinSNRWeight(LossWeight):
    """``min(SNR, gamma)`` on the data-prediction loss (Hang et al., 2023, section 3.4).

    ``min(SNR, gamma) (b / D)^2 = min(a^2, gamma b^2) / D^2``, bounded everywhere; on the linear path
    ``min(t^2, gamma (1 - t)^2)``. The variance-preserving form ``min(SNR, gamma) / (SNR + 1)`` that circulates belongs
    to another parameterization.

    Parameters
    ----------
    gamma : float, default=5.0
        Where the signal-to-noise ratio is cut.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import MinSNRWeight
    >>> MinSNRWeight(gamma=1.0)(torch.tensor([0.25, 0.75]), torch.ones(2), LinearPath())
    tensor([0.0625, 0.0625])
    """

    gamma: float = checked(5.0, check_number, 0.0, open_low=True)

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        a, b, d = path.data_scale(t), path.noise_scale(t), path.velocity_scale(t)
        return torch.minimum(a.square(), self.gamma * b.square()) / d.square()


@dataclass(frozen=True)
class AdaptiveWeight(LossWeight):
    """``1 / (error + c)^p`` with the gradient stopped: large errors count less (Geng et al., 2025, eq. 22).

    A weight that depends on the data moves the minimizer away from the conditional mean.

    `error` is the mean squared error over a sample's entries, so `c` does not depend on the dimension.

    Parameters
    ----------
    power : float, default=1.0
        The exponent p: 0 is the plain loss, 1/2 resembles the pseudo-Huber loss.
    offset : float, default=1e-3
        The constant c.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import AdaptiveWeight
    >>> AdaptiveWeight(offset=1.0)(torch.tensor([0.25, 0.75]), torch.ones(2), LinearPath())
    tensor([0.5000, 0.5000])
    """

    power: float = checked(1.0, check_number, 0.0)
    offset: float = checked(1e-3, check_number, 0.0, open_low=True)

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return (error.detach() + self.offset).pow(-self.power)


@dataclass(frozen=True)
class CallableWeight(LossWeight):
    """A user's own ``w(t)``; what a callable ``loss_weight`` becomes.

    Parameters
    ----------
    function : callable
        From times (B,) to weights (B,).

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import LinearPath
    >>> from flowmatch.objectives import CallableWeight
    >>> CallableWeight(torch.sqrt)(torch.tensor([0.25]), torch.ones(1), LinearPath())
    tensor([0.5000])
    """

    function: Callable[[Tensor], Tensor]

    def validate(self) -> None:
        at_times("loss_weight", self.function, torch.tensor([0.25, 0.75]))

    def __call__(self, t: Tensor, error: Tensor, path: Path) -> Tensor:
        return self.function(t)


def at_times(name: str, function: Callable[[Tensor], Any], t: Tensor) -> Tensor:
    """The values of a function of time at `t` (B,).

    Raises
    ------
    ValueError
        If they are no tensor of that shape.
    """
    values = function(t)
    if not isinstance(values, Tensor) or values.shape != t.shape:
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{name} must turn times of shape (B,) into a tensor of that shape, got {got}.")
    return values


LOSS_WEIGHTS: dict[str, type[LossWeight]] = {
    "uniform": UniformWeight,
    "snr": SNRWeight,
    "min_snr": MinSNRWeight,
    "data_end": DataEndWeight,
    "noise_end": NoiseEndWeight,
    "adaptive": AdaptiveWeight,
}
