"""Source distributions: where the flow starts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.core.checks import check_number, checked
from flowmatch.core.component import Component
from flowmatch.core.types import Rng


class Source(Component, ABC):
    """A distribution of noise that is simple to draw from.

    `fit_scale` looks once at the (encoded) training data; the tensor it returns has the shape, device and dtype of
    one sample and goes with every later call.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import math
    >>> import torch
    >>> from flowmatch.flow import Source
    >>> @dataclass(frozen=True)
    ... class UniformSource(Source):
    ...     def draw(self, n_samples, scale, generator=None):
    ...         shape = (n_samples, *scale.shape)
    ...         return scale * (2 * torch.rand(shape, generator=generator, device=scale.device, dtype=scale.dtype) - 1)
    ...
    ...     def log_density_terms(self, x0, scale):
    ...         return torch.where(x0.abs() <= scale, -(2 * scale).log(), -math.inf)
    >>> UniformSource().log_density(torch.zeros(1, 2), scale=torch.ones(2))
    tensor([-1.3863])
    """

    def fit_scale(self, x1: Tensor) -> Tensor:
        """Learn the scale of the noise; ones unless the source looks at the data.

        Parameters
        ----------
        x1 : Tensor of shape (n, *sample_shape)
            Data.

        Returns
        -------
        Tensor of shape sample_shape
            On the device and in the dtype of `x1`.
        """
        return torch.ones_like(x1[0])

    @abstractmethod
    def draw(self, n_samples: int, scale: Tensor, generator: Rng = None) -> Tensor:
        """Draw noise.

        Parameters
        ----------
        n_samples : int
            How many samples.
        scale : Tensor of shape sample_shape
            From `fit_scale`.
        generator : torch.Generator, optional
            On the device of `scale`.

        Returns
        -------
        Tensor of shape (n_samples, *sample_shape)
            On the device and in the dtype of `scale`.
        """

    @abstractmethod
    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        """Log-density of each element of the noise; the elements are independent.

        Parameters
        ----------
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        scale : Tensor of shape sample_shape
            From `fit_scale`.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            Its sum over a sample is the sample's log-density.
        """

    def log_density(self, x0: Tensor, scale: Tensor) -> Tensor:
        """Log-density of each sample of noise.

        Parameters
        ----------
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        scale : Tensor of shape sample_shape
            From `fit_scale`.

        Returns
        -------
        Tensor of shape (B,)
            The sum of `log_density_terms`.
        """
        return self.log_density_terms(x0, scale).flatten(1).sum(1)


def _draw_normal(n_samples: int, scale: Tensor, generator: Rng) -> Tensor:
    shape = (n_samples, *scale.shape)
    return torch.randn(shape, generator=generator, device=scale.device, dtype=scale.dtype)


@dataclass(frozen=True)
class NormalSource(Source):
    """The standard normal distribution.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import NormalSource
    >>> NormalSource().log_density(torch.zeros(1, 2), scale=torch.ones(2))
    tensor([-1.8379])
    """

    def draw(self, n_samples: int, scale: Tensor, generator: Rng = None) -> Tensor:
        return _draw_normal(n_samples, scale, generator)

    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        return -0.5 * (x0.square() + math.log(2 * math.pi))


@dataclass(frozen=True)
class MatchedSource(Source):
    """Independent normals with the standard deviation of the data, feature by feature.

    It differs from "normal" where the preprocessing leaves the scales as they are. Constant features get scale 1.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import MatchedSource
    >>> MatchedSource().fit_scale(torch.tensor([[0.0, 1.0], [4.0, 1.0]]))
    tensor([2., 1.])
    """

    def fit_scale(self, x1: Tensor) -> Tensor:
        scale = x1.std(dim=0, correction=0)
        return torch.where(scale > 0, scale, torch.ones_like(scale))

    def draw(self, n_samples: int, scale: Tensor, generator: Rng = None) -> Tensor:
        return _draw_normal(n_samples, scale, generator) * scale

    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        return -0.5 * ((x0 / scale).square() + math.log(2 * math.pi)) - scale.log()


@dataclass(frozen=True)
class SparseSource(Source):
    """Standard normal noise whose entries are dropped to exactly 0 with probability `dropout_rate`.

    Meant for counts with many zeros, such as gene expression. It has atoms, so it has no density: models with this
    source sample, but compute no log-densities.

    Parameters
    ----------
    dropout_rate : float, default=0.1
        Probability that an entry is 0.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import SparseSource
    >>> noise = SparseSource(dropout_rate=0.5).draw(1000, scale=torch.ones(1))
    >>> bool(((noise == 0).float().mean() - 0.5).abs() < 0.1)
    True
    """

    dropout_rate: float = checked(0.1, check_number, 0.0, 1.0)

    def draw(self, n_samples: int, scale: Tensor, generator: Rng = None) -> Tensor:
        noise = _draw_normal(n_samples, scale, generator)
        keep = torch.rand(noise.shape, generator=generator, device=scale.device, dtype=scale.dtype)
        return noise * (keep >= self.dropout_rate)

    def log_density_terms(self, x0: Tensor, scale: Tensor) -> Tensor:
        raise ValueError(
            "source='sparse' has atoms at 0 and therefore no density; use source='normal' for likelihoods."
        )


SOURCES: dict[str, type[Source]] = {"normal": NormalSource, "matched": MatchedSource, "sparse": SparseSource}
