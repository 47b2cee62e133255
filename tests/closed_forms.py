"""Flows that are known exactly, to test against without training anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.flow import CosinePath, LinearPath, Path, VariancePreservingPath, expand_time


@dataclass(frozen=True)
class GaussianFlow:
    """Data N(mean, std^2 I), standard normal noise, any affine path."""

    mean: float = 0.7
    std: float = 0.3
    path: Path = LinearPath()

    def spread(self, t: Tensor) -> Tensor:
        """Standard deviation of x_t."""
        return (self.path.data_scale(t) ** 2 * self.std**2 + self.path.noise_scale(t) ** 2).sqrt()

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        a, b, da, db = (
            self.path.data_scale(t),
            self.path.noise_scale(t),
            self.path.data_rate(t),
            self.path.noise_rate(t),
        )
        rate = (a * da * self.std**2 + b * db) / self.spread(t) ** 2
        return da * self.mean + rate * (x - a * self.mean)

    def carry(self, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """The exact flow map from t to t_next."""
        a, a_next = self.path.data_scale(t), self.path.data_scale(t_next)
        return a_next * self.mean + self.spread(t_next) / self.spread(t) * (x - a * self.mean)

    def average_velocity(self, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
        """The exact ``(carry(x, t, t + step) - x) / step``, with t and step of shape (B,); no difference cancels."""
        t, step = expand_time(t, x), expand_time(step, x)
        a, b = self.path.data_scale(t), self.path.noise_scale(t)
        a_next, b_next = self.path.data_scale(t + step), self.path.noise_scale(t + step)
        a_rate, b_rate = mean_rates(self.path, t, step)
        squares = (a + a_next) * a_rate * self.std**2 + (b + b_next) * b_rate  # (S_next^2 - S^2) / step
        rate = squares / (self.spread(t) + self.spread(t + step)) / self.spread(t)
        return a_rate * self.mean + rate * (x - a * self.mean)

    def flow_map(self, x: Tensor, t: Tensor, condition: Tensor | None, step: Tensor) -> Tensor:
        """`average_velocity` as a network, which needs no condition."""
        return self.average_velocity(x, t, step)

    def field(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """`velocity` as a network, with t of shape (B,)."""
        return self.velocity(x, expand_time(t, x))

    def draw_data(self, *shape: int, seed: int = 0) -> Tensor:
        noise = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return self.mean + self.std * noise

    def log_density(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.std
        return (-0.5 * z**2 - math.log(self.std) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def mean_rates(path: Path, t: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Mean rates of a path's two schedules, ``(a(t + step) - a(t)) / step`` and that of b; at step 0, a' and b'."""
    if isinstance(path, CosinePath):
        middle, size = t + 0.5 * step, torch.sinc(0.25 * step)
        return size * path.data_rate(middle), size * path.noise_rate(middle)
    falling = -torch.ones_like(t + step)
    if isinstance(path, VariancePreservingPath):
        return (2 - 2 * t - step) / (path.data_scale(t) + path.data_scale(t + step)), falling
    assert isinstance(path, LinearPath)
    return -falling, falling


@dataclass(frozen=True)
class FiniteDataFlow:
    """Data that are a finite set of points, any affine path."""

    points: Tensor
    path: Path

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """E[u_t | x_t = x], with t of shape (B,)."""
        a, b = self.path.data_scale(t)[:, None], self.path.noise_scale(t)[:, None]
        distances = (x[:, None] - a[..., None] * self.points).square().sum(-1)
        weights = torch.softmax(-distances / (2 * b**2), dim=1)
        x1 = weights @ self.points
        x0 = (x - a * x1) / b
        return self.path.data_rate(t)[:, None] * x1 + self.path.noise_rate(t)[:, None] * x0


def normal_log_density(x: Tensor) -> Tensor:
    return -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
