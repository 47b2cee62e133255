"""Flows that are known exactly, to test against without training anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.flow import LinearPath, Path


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

    def log_density(self, x: Tensor) -> Tensor:
        z = (x - self.mean) / self.std
        return (-0.5 * z**2 - math.log(self.std) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


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
