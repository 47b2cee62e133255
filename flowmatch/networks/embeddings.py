"""Features of time and position: what a network sees instead of the bare values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmatch.networks.architecture import Sizes


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


def position_features(grid: tuple[int, ...], n_features: int, like: Tensor, longest: float = 100.0) -> Tensor:
    """Sines and cosines of the position of every point of a grid.

    The positional encoding of Vaswani et al. (2017, section 3.5), each axis with an equal share of the features, what
    does not divide left at zero. Wavelengths run from 2 pi to ``2 pi * longest`` points; that paper's 10,000 suits
    longer sequences than the few hundred points that attention is used for here.

    Parameters
    ----------
    grid : tuple of int
        Points along each of d axes.
    n_features : int
        At least 2 d.
    like : Tensor
        Gives dtype and device.
    longest : float
        The longest wavelength, in units of 2 pi points.

    Returns
    -------
    Tensor of shape (prod(grid), n_features)
    """
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision does not hold the angles
    n_frequencies = n_features // (2 * len(grid))
    exponents = torch.linspace(0.0, -1.0, n_frequencies, device=like.device, dtype=dtype)
    parts = []
    for axis, size in enumerate(grid):
        angles = torch.arange(size, device=like.device, dtype=dtype)[:, None] * longest**exponents
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        aligned = features.view(*[1] * axis, size, *[1] * (len(grid) - 1 - axis), 2 * n_frequencies)
        parts.append(aligned.expand(*grid, 2 * n_frequencies).flatten(0, -2))
    positions = torch.cat(parts, dim=1).to(like.dtype)
    return F.pad(positions, (0, n_features - positions.shape[1]))


class TimeFeatures(nn.Module):
    """Features of t, and of the increment `step` for flow maps: shape (B, n_features) or (B, 2 n_features)."""

    def __init__(self, n_features: int, flow_map: bool) -> None:
        super().__init__()
        self.n_features, self.flow_map = n_features, flow_map
        self.size = n_features * (2 if flow_map else 1)

    def columns_of_step(self, offset: int = 0) -> slice:
        """Where the features of the increment stand, if those of time begin at `offset`; empty for a velocity."""
        return slice(offset + self.n_features, offset + self.size)

    def forward(self, t: Tensor, step: Tensor | None = None) -> Tensor:
        if (step is None) == self.flow_map:
            if self.flow_map:
                raise ValueError("this network is a flow map: it needs the increment `step`, of shape (B,).")
            raise ValueError("this network gives a velocity and takes no `step`; build it with flow_map=True.")
        times = (t,) if step is None else (t, step)
        return torch.cat([sinusoidal_features(time, self.n_features) for time in times], dim=1)


class ContextEmbedding(nn.Module):
    """Time, a flow map's increment and a condition's vector as one vector (B, width) that blocks read.

    The weights of the condition start with unit variance (less for more than 16 elements): a label then speaks as loud
    as time from the first step, and classes are learned several times sooner than with the usual small weights.
    """

    def __init__(self, n_time_features: int, sizes: Sizes, width: int) -> None:
        super().__init__()
        self.time_features = TimeFeatures(n_time_features, sizes.flow_map)
        self.embed_time = nn.Linear(self.time_features.size, width)
        size = sizes.vector_size
        self.embed_condition = nn.Linear(size, width, bias=False) if size else None
        if self.embed_condition is not None:
            nn.init.normal_(self.embed_condition.weight, std=min(1.0, (16 / size) ** 0.5))
        self.mix = nn.Linear(width, width)

    @property
    def step_columns(self) -> tuple[str, slice]:
        """Which weights of a flow map read the increment: a parameter's name and its columns."""
        return "embed_time.weight", self.time_features.columns_of_step()

    def forward(self, t: Tensor, step: Tensor | None, condition: Tensor) -> Tensor:
        h = self.embed_time(self.time_features(t, step))
        if self.embed_condition is not None:
            h = h + self.embed_condition(condition)
        return F.silu(self.mix(F.silu(h)))


class PositionMap(nn.Module):
    """Learned features of every point of a grid, added to those of a sample; interpolated on other grids.

    Along axes of one point they are the same everywhere.
    """

    def __init__(self, channels: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Parameter(0.2 * torch.randn(1, channels, *grid))

    def forward(self, h: Tensor) -> Tensor:
        if all(own in (1, size) for own, size in zip(self.features.shape[2:], h.shape[2:], strict=True)):
            return h + self.features
        mode = ("linear", "bilinear", "trilinear")[h.ndim - 3]
        return h + F.interpolate(self.features, h.shape[2:], mode=mode, align_corners=False)
