"""Time samplers: how often training looks at which time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.core.checks import check_number
from flowmatch.core.component import Component
from flowmatch.core.devices import normal_quantile

_EDGE = 1e-6
"""Smallest distance of a rank from 0 and 1, where its normal score would be infinite."""


class TimeSampler(Component, ABC):
    """A distribution of training times on [0, 1]."""

    @abstractmethod
    def draw(
        self,
        n_samples: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Times of shape (n_samples,)."""


def _uniform(
    n: int, generator: torch.Generator | None, device: torch.device | str | None, dtype: torch.dtype | None
) -> Tensor:
    return torch.rand(n, generator=generator, device=device, dtype=dtype)


@dataclass(frozen=True)
class UniformTimes(TimeSampler):
    """Independent uniform times."""

    def draw(self, n_samples, generator=None, device=None, dtype=None):
        return _uniform(n_samples, generator, device, dtype)


@dataclass(frozen=True)
class StratifiedTimes(TimeSampler):
    """One uniform time in each of ``n_samples`` equal bins, in random order.

    Every single time is uniform, and the batch covers [0, 1] evenly, which lowers the variance of the loss.
    """

    def draw(self, n_samples, generator=None, device=None, dtype=None):
        bins = torch.randperm(n_samples, generator=generator, device=device)
        return (bins + _uniform(n_samples, generator, device, dtype)) / n_samples


@dataclass(frozen=True)
class UShapedTimes(TimeSampler):
    """Beta(1/2, 1/2), the arcsine law: more times near both ends.

    Close to the law that Lee et al. (2024, "Improving the Training of Rectified Flows", section 4.1) use when they
    retrain on a model's own pairs. Drawn through its inverse distribution function ``sin^2(pi u / 2)``.
    """

    def draw(self, n_samples, generator=None, device=None, dtype=None):
        return torch.sin(0.5 * math.pi * _uniform(n_samples, generator, device, dtype)).square()


@dataclass(frozen=True)
class LogitNormalTimes(TimeSampler):
    """``sigmoid(mean + std * N(0, 1))``: more times in the middle (Esser et al., 2024, eq. 19).

    Parameters
    ----------
    mean, std : float
        Of the logit.
    stratified : bool, default=True
        Cut the batch into bins of equal probability and draw one time from each, in random order. Every single time
        keeps its law, and the loss varies less from batch to batch.
    """

    mean: float = 0.0
    std: float = 1.0
    stratified: bool = True

    def validate(self) -> None:
        check_number("mean", self.mean, -math.inf)
        check_number("std", self.std, 0.0, open_low=True)

    def draw(self, n_samples, generator=None, device=None, dtype=None):
        if self.stratified:
            u = StratifiedTimes().draw(n_samples, generator, device, dtype)
            normal = normal_quantile(u.clamp(_EDGE, 1 - _EDGE))
        else:
            normal = torch.randn(n_samples, generator=generator, device=device, dtype=dtype)
        return torch.sigmoid(self.mean + self.std * normal)


@dataclass(frozen=True)
class DataEmphasisTimes(TimeSampler):
    """``1 - u^2`` with u uniform: more times near the data."""

    def draw(self, n_samples, generator=None, device=None, dtype=None):
        return 1 - _uniform(n_samples, generator, device, dtype).square()


@dataclass(frozen=True)
class NoiseEmphasisTimes(TimeSampler):
    """``u^2`` with u uniform: more times near the noise."""

    def draw(self, n_samples, generator=None, device=None, dtype=None):
        return _uniform(n_samples, generator, device, dtype).square()


TIME_SAMPLERS: dict[str, type[TimeSampler]] = {
    "uniform": UniformTimes,
    "stratified": StratifiedTimes,
    "u_shaped": UShapedTimes,
    "logit_normal": LogitNormalTimes,
    "data_emphasis": DataEmphasisTimes,
    "noise_emphasis": NoiseEmphasisTimes,
}
