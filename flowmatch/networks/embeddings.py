"""Features of time: what a network sees instead of the bare scalar t."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal_features(t: Tensor, n_features: int, max_frequency: float = 8.0) -> Tensor:
    """Sines and cosines of `t` at geometrically spaced frequencies.

    The positional encoding of Vaswani et al. (2017, section 3.5) with time scaled to the unit interval: frequencies
    run from 1/4 to `max_frequency` half-turns, so the slowest cosine is monotone over [0, 1].

    Parameters
    ----------
    t : Tensor of shape (B,)
        Times in [0, 1].
    n_features : int
        Even number of features.
    max_frequency : float
        The highest frequency, in half-turns per unit of time.

    Returns
    -------
    Tensor of shape (B, n_features)
    """
    exponents = torch.linspace(0.0, 1.0, n_features // 2, device=t.device, dtype=t.dtype)
    frequencies = math.pi * 0.25 * (4.0 * max_frequency) ** exponents
    angles = t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeFeatures(nn.Module):
    """Features of t, and of the increment `step` for flow maps: shape (B, n_features) or (B, 2 n_features)."""

    def __init__(self, n_features: int, flow_map: bool) -> None:
        super().__init__()
        self.n_features, self.flow_map = n_features, flow_map
        self.size = n_features * (2 if flow_map else 1)

    def forward(self, t: Tensor, step: Tensor | None = None) -> Tensor:
        if (step is None) == self.flow_map:
            if self.flow_map:
                raise ValueError("this network is a flow map: it needs the increment `step`, of shape (B,).")
            raise ValueError("this network gives a velocity and takes no `step`; build it with flow_map=True.")
        times = (t,) if step is None else (t, step)
        return torch.cat([sinusoidal_features(time, self.n_features) for time in times], dim=1)
