"""Source distributions: where the flow starts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.core.checks import check_number
from flowmatch.core.component import Component


class Source(Component, ABC):
    """A distribution of noise that is simple to draw from.

    `fit_scale` looks once at the (encoded) training data; the tensor it returns has the shape, device and dtype of
    one sample and goes with every later call.
    """

    def fit_scale(self, x1: Tensor) -> Tensor:
        """Scale of the noise, of the shape of one sample; ones unless the source looks at the data."""
        return torch.ones_like(x1[0])

    @abstractmethod
    def draw(self, n_samples: int, scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise of shape (n_samples, *scale.shape) on the device and in the dtype of `scale`."""

    @abstractmethod
    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        """Log-density of each number of the noise, (B, *sample_shape); the numbers are independent."""

    def log_density(self, x0: Tensor, scale: Tensor) -> Tensor:
        """Log-density of each sample of noise, shape (B,)."""
        return self.log_density_terms(x0, scale).flatten(1).sum(1)


def _draw_normal(n_samples: int, scale: Tensor, generator: torch.Generator | None) -> Tensor:
    shape = (n_samples, *scale.shape)
    return torch.randn(shape, generator=generator, device=scale.device, dtype=scale.dtype)


@dataclass(frozen=True)
class NormalSource(Source):
    """The standard normal distribution."""

    def draw(self, n_samples: int, scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return _draw_normal(n_samples, scale, generator)

    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        return -0.5 * (x0.square() + math.log(2 * math.pi))


@dataclass(frozen=True)
class MatchedSource(Source):
    """Independent normals with the standard deviation of the data, feature by feature.

    It differs from "normal" where the preprocessing leaves the scales as they are. Constant features get scale 1.
    """

    def fit_scale(self, x1: Tensor) -> Tensor:
        scale = x1.std(dim=0, correction=0)
        return torch.where(scale > 0, scale, torch.ones_like(scale))

    def draw(self, n_samples: int, scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return _draw_normal(n_samples, scale, generator) * scale

    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        return -0.5 * ((x0 / scale).square() + math.log(2 * math.pi)) - scale.log()


@dataclass(frozen=True)
class SparseSource(Source):
    """Standard normal noise whose entries are dropped to exactly 0 with probability `dropout_rate`.

    Meant for counts with many zeros, such as gene expression. It has atoms, so it has no density: models with this
    source sample, but cannot tell a log-likelihood.

    Parameters
    ----------
    dropout_rate : float, default=0.1
        Probability that an entry is 0.
    """

    dropout_rate: float = 0.1

    def validate(self) -> None:
        check_number("dropout_rate", self.dropout_rate, 0.0, 1.0)

    def draw(self, n_samples: int, scale: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = _draw_normal(n_samples, scale, generator)
        keep = torch.rand(noise.shape, generator=generator, device=scale.device, dtype=scale.dtype)
        return noise * (keep >= self.dropout_rate)

    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        raise ValueError(
            "source='sparse' has atoms at 0 and therefore no density; use source='normal' for likelihoods."
        )


SOURCES: dict[str, type[Source]] = {"normal": NormalSource, "matched": MatchedSource, "sparse": SparseSource}
