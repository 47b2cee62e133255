"""Step samplers: which jumps (t, d) of a flow map training looks at."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from flowmatch.core.checks import check_count, check_number, checked
from flowmatch.core.component import Component
from flowmatch.core.types import Device, DType, Rng

Jumps = tuple[Tensor, Tensor]
"""Times t and increments d, (n_samples,) each."""

_TABLE = 4096
"""Intervals of the tabulated quantile function of a beta distribution."""

_ROUNDING = 1e-6


class StepSampler(Component, ABC):
    """A distribution of jumps: the increment d first, then the time t uniform on [0, 1 - d].

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import torch
    >>> from flowmatch.flow import StepSampler
    >>> @dataclass(frozen=True)
    ... class LongSteps(StepSampler):
    ...     def draw_steps(self, n_samples, generator=None, device=None, dtype=None):
    ...         return 1 - 0.5 * torch.rand(n_samples, generator=generator, device=device, dtype=dtype)
    >>> LongSteps().check()
    """

    @abstractmethod
    def draw_steps(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        """Draw increments.

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
            In (0, 1].
        """

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Jumps:
        """Draw times and increments.

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
        t, d : Tensor of shape (n_samples,)
            With ``t >= 0``, ``d > 0`` and ``t + d <= 1``.
        """
        step = self.draw_steps(n_samples, generator, device, dtype)
        return torch.rand(n_samples, generator=generator, device=device, dtype=dtype) * (1 - step), step

    def check(self) -> None:
        """Look at a thousand draws, before training.

        Raises
        ------
        ValueError
            If they leave the unit interval.
        """
        t, step = self.draw(1000, torch.Generator().manual_seed(0), dtype=torch.float64)
        for name, values in (("t", t), ("d", step)):
            if values.shape != (1000,):
                raise ValueError(
                    f"{type(self).__name__} drew {name} of shape {tuple(values.shape)} for 1000 samples; expected "
                    "(1000,)."
                )
        end = t + step
        if not bool(((step > 0) & (t >= 0) & (end <= 1 + _ROUNDING)).all()):
            raise ValueError(
                f"{type(self).__name__} drew jumps with d down to {float(step.min()):.4g}, t down to "
                f"{float(t.min()):.4g} and t + d up to {float(end.max()):.4g}; expected d > 0, t >= 0 and t + d <= 1."
            )


@dataclass(frozen=True)
class UniformSteps(StepSampler):
    """Increments uniform on (0, 1].

    Examples
    --------
    >>> from flowmatch.flow import UniformSteps
    >>> t, step = UniformSteps().draw(100)
    >>> bool((t + step <= 1).all())
    True
    """

    def draw_steps(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        return 1 - torch.rand(n_samples, generator=generator, device=device, dtype=dtype)


@dataclass(frozen=True)
class BetaSteps(StepSampler):
    """Increments from a beta distribution, by linear interpolation of its tabulated quantile function.

    Parameters
    ----------
    a, b : float, default=1.0
        Parameters of the distribution: ``a > b`` favors long jumps, ``a < b`` short ones; 1 and 1 are the uniform
        distribution.

    Examples
    --------
    >>> from flowmatch.flow import BetaSteps
    >>> bool(BetaSteps(9.0, 1.0).draw_steps(1000).mean() > 0.8)
    True
    """

    a: float = checked(1.0, check_number, 0.0, open_low=True)
    b: float = checked(1.0, check_number, 0.0, open_low=True)

    def draw_steps(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        u = 1 - torch.rand(n_samples, generator=generator, device=device, dtype=dtype)
        table = _beta_quantiles(self.a, self.b, u.device, u.dtype)
        position = u * _TABLE
        left = position.long().clamp(max=_TABLE - 1)
        drawn = torch.lerp(table[left], table[left + 1], position - left)
        return drawn.clamp(min=torch.finfo(u.dtype).tiny)


@functools.lru_cache(maxsize=16)
def _beta_quantiles(a: float, b: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(betaincinv(a, b, np.linspace(0, 1, _TABLE + 1)), dtype=dtype, device=device)


@dataclass(frozen=True)
class FixedSteps(StepSampler):
    """Increments ``1/n``, with jitter: the jumps that sampling in n steps makes.

    Without jitter times are on the grid ``t = j/n``; with it, increments are uniform on ``(1 ± jitter) / n``, cut at
    1, and times uniform on [0, 1 - d].

    Parameters
    ----------
    n_steps : int, default=1
        The number n of steps.
    jitter : float, default=0.0
        Relative half-width, in [0, 1).

    Examples
    --------
    >>> from flowmatch.flow import FixedSteps
    >>> FixedSteps(4).draw_steps(3)
    tensor([0.2500, 0.2500, 0.2500])
    """

    n_steps: int = checked(1, check_count)
    jitter: float = checked(0.0, check_number, 0.0, 1.0)

    def draw_steps(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        u = torch.rand(n_samples, generator=generator, device=device, dtype=dtype)
        return ((1 + self.jitter * (2 * u - 1)) / self.n_steps).clamp(max=1.0)

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Jumps:
        if self.jitter > 0:
            return super().draw(n_samples, generator, device, dtype)
        index = torch.randint(self.n_steps, (n_samples,), generator=generator, device=device)
        step = torch.full((n_samples,), 1 / self.n_steps, device=device, dtype=dtype)
        return index * step, step


@dataclass(frozen=True)
class DyadicSteps(StepSampler):
    """Increments ``1, 1/2, 1/4, ..., 2^-n_halvings``, equally often, at times on their own grid ``t = j d``.

    Every jump then is one that sampling in a power of two of steps makes, and its two halves are drawn as often.

    Parameters
    ----------
    n_halvings : int, default=3
        How often the whole interval is halved at most.

    Examples
    --------
    >>> from flowmatch.flow import DyadicSteps
    >>> DyadicSteps(2).draw_steps(100).unique()
    tensor([0.2500, 0.5000, 1.0000])
    """

    n_halvings: int = checked(3, check_count)

    def draw_steps(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        halvings = torch.randint(self.n_halvings + 1, (n_samples,), generator=generator, device=device)
        return torch.ldexp(torch.ones(n_samples, device=device, dtype=dtype), -halvings)

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Jumps:
        step = self.draw_steps(n_samples, generator, device, dtype)
        u = torch.rand(n_samples, generator=generator, device=device, dtype=dtype)
        return torch.floor(u / step) * step, step


@dataclass(frozen=True)
class LogitNormalSteps(StepSampler):
    """From the smaller to the larger of two logit-normal times, as MeanFlow's authors draw them.

    Geng et al. (2025, "Mean Flows for One-step Generative Modeling", section 4.3) have noise at t = 1 and the mean
    -0.4; with noise at 0 it is 0.4.

    Parameters
    ----------
    mean : float, default=0.4
        Mean of the logit.
    std : float, default=1.0
        Standard deviation of the logit.

    Examples
    --------
    >>> from flowmatch.flow import LogitNormalSteps
    >>> t, step = LogitNormalSteps().draw(100)
    >>> bool((t + step <= 1).all())
    True
    """

    mean: float = checked(0.4, check_number, -math.inf)
    std: float = checked(1.0, check_number, 0.0, open_low=True)

    def draw_steps(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Tensor:
        return self.draw(n_samples, generator, device, dtype)[1]

    def draw(self, n_samples: int, generator: Rng = None, device: Device = None, dtype: DType = None) -> Jumps:
        normal = torch.randn(2, n_samples, generator=generator, device=device, dtype=dtype)
        low, high = torch.sigmoid(self.mean + self.std * normal).sort(0).values
        return low, (high - low).clamp(min=torch.finfo(low.dtype).eps)


STEP_SAMPLERS: dict[str, type[StepSampler]] = {
    "uniform": UniformSteps,
    "beta": BetaSteps,
    "fixed": FixedSteps,
    "dyadic": DyadicSteps,
    "logit_normal": LogitNormalSteps,
}
