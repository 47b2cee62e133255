"""Time samplers: how often training looks at which time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.core.checks import check_flag, check_number, checked
from flowmatch.core.component import Component
from flowmatch.core.devices import normal_quantile
from flowmatch.core.types import Device, DType, Rng

_EDGE = 1e-6
"""Smallest distance of a rank from 0 and 1, where its normal score would be infinite."""


class TimeSampler(Component, ABC):
    """A distribution of training times on [0, 1]; a subclass draws from it.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import torch
    >>> from flowmatch.flow import TimeSampler
    >>> @dataclass(frozen=True)
    ... class EarlyTimes(TimeSampler):
    ...     latest: float = 0.5
    ...
    ...     def draw(self, n_samples, generator=None, device=None, dtype=None):
    ...         return self.latest * torch.rand(n_samples, generator=generator, device=device, dtype=dtype)
    >>> bool((EarlyTimes().draw(100) < 0.5).all())
    True
    """

    @abstractmethod
    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        """Draw times.

        Parameters
        ----------
        n_samples : int
            How many.
        generator : torch.Generator, optional
            On `device`.
        device : torch.device, optional
            Where they are drawn.
        dtype : torch.dtype, optional
            Their type.

        Returns
        -------
        Tensor of shape (n_samples,)
            In [0, 1].
        """


@dataclass(frozen=True)
class UniformTimes(TimeSampler):
    """Independent uniform times.

    Examples
    --------
    >>> from flowmatch.flow import UniformTimes
    >>> UniformTimes().draw(3).shape
    torch.Size([3])
    """

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        return torch.rand(n_samples, generator=generator, device=device, dtype=dtype)


@dataclass(frozen=True)
class StratifiedTimes(TimeSampler):
    """One uniform time in each of ``n_samples`` equal bins, in random order.

    Every single time is uniform, and the batch covers [0, 1] evenly, which lowers the variance of the loss.

    Examples
    --------
    >>> from flowmatch.flow import StratifiedTimes
    >>> (4 * StratifiedTimes().draw(4)).floor().sort().values
    tensor([0., 1., 2., 3.])
    """

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        bins = torch.randperm(n_samples, generator=generator, device=device)
        return (bins + torch.rand(n_samples, generator=generator, device=device, dtype=dtype)) / n_samples


@dataclass(frozen=True)
class UShapedTimes(TimeSampler):
    """Beta(1/2, 1/2), the arcsine distribution: more times near both ends.

    Close to the distribution that Lee et al. (2024, "Improving the Training of Rectified Flows", section 4.1) use when
    they retrain on a model's own pairs. Drawn through its quantile function ``sin^2(pi u / 2)``.

    Examples
    --------
    >>> from flowmatch.flow import UShapedTimes
    >>> UShapedTimes().draw(3).shape
    torch.Size([3])
    """

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        return torch.sin(0.5 * math.pi * UniformTimes().draw(n_samples, generator, device, dtype)).square()


@dataclass(frozen=True)
class LogitNormalTimes(TimeSampler):
    """``sigmoid(mean + std * N(0, 1))``: more times in the middle (Esser et al., 2024, eq. 19).

    Parameters
    ----------
    mean : float, default=0.0
        Mean of the logit.
    std : float, default=1.0
        Standard deviation of the logit.
    stratified : bool, default=True
        Cut the batch into bins of equal probability and draw one time from each, in random order. Every single time
        keeps its distribution, and the loss varies less from batch to batch.

    Examples
    --------
    >>> from flowmatch.flow import LogitNormalTimes
    >>> bool((LogitNormalTimes(mean=-9.0).draw(3) < 0.5).all())
    True
    """

    mean: float = checked(0.0, check_number, -math.inf)
    std: float = checked(1.0, check_number, 0.0, open_low=True)
    stratified: bool = checked(True, check_flag)

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        if self.stratified:
            u = StratifiedTimes().draw(n_samples, generator, device, dtype)
            normal = normal_quantile(u.clamp(_EDGE, 1 - _EDGE))
        else:
            normal = torch.randn(n_samples, generator=generator, device=device, dtype=dtype)
        return torch.sigmoid(self.mean + self.std * normal)


@dataclass(frozen=True)
class DataEmphasisTimes(TimeSampler):
    """``1 - u^2`` with u uniform: more times near the data.

    Examples
    --------
    >>> from flowmatch.flow import DataEmphasisTimes
    >>> DataEmphasisTimes().draw(3).shape
    torch.Size([3])
    """

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        return 1 - UniformTimes().draw(n_samples, generator, device, dtype).square()


@dataclass(frozen=True)
class NoiseEmphasisTimes(TimeSampler):
    """``u^2`` with u uniform: more times near the noise.

    Examples
    --------
    >>> from flowmatch.flow import NoiseEmphasisTimes
    >>> NoiseEmphasisTimes().draw(3).shape
    torch.Size([3])
    """

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        return UniformTimes().draw(n_samples, generator, device, dtype).square()


TIME_SAMPLERS: dict[str, type[TimeSampler]] = {
    "uniform": UniformTimes,
    "stratified": StratifiedTimes,
    "u_shaped": UShapedTimes,
    "logit_normal": LogitNormalTimes,
    "data_emphasis": DataEmphasisTimes,
    "noise_emphasis": NoiseEmphasisTimes,
}
