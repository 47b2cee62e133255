"""Features of time: what a network sees instead of the bare scalar t."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_features(t: Tensor, n_features: int, max_frequency: float = 64.0) -> Tensor:
    """Sines and cosines of `t` at geometrically spaced frequencies.

    The positional encoding of Vaswani et al. (2017, section 3.5) with time scaled to the unit interval: frequencies
    run from 1/4 to `max_frequency` half-turns, so the slowest cosine is monotone over [0, 1] and the fastest
    resolves steps of about ``1 / max_frequency``.

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
