"""The U-Net for signals, images and fields: one class for one, two and three dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.component import Component
from flowmatch.networks.attention import SelfAttention
from flowmatch.networks.boundaries import BOUNDARIES, alike, convolution
from flowmatch.networks.conditioned import ConditionedNetwork, check_grid, vector_size, zero_initialised
from flowmatch.networks.dropout import Dropout
from flowmatch.networks.embeddings import ContextEmbedding, PositionMap
from flowmatch.networks.patches import patchify, unpatchify

_COARSEST = 8
_MOST_UNPATCHED = 256
_MOST_POSITIONS = 4096
_GROWTH = (1, 2, 2, 4, 4)


@dataclass(frozen=True)
class UNet(Component):
    """Convolutional network with skip connections between equal resolutions (Ronneberger et al., 2015).

    Residual blocks with group normalisation and SiLU; time and condition scale and shift the normalised features of
    every block (adaptive group normalisation; Dhariwal and Nichol, 2021, section 3). Works for signals (C, L), images
    (C, H, W) and fields (C, D, H, W) of any size, odd ones included: resolutions halve to ``ceil(n / 2)``, and the
    way up returns to the exact sizes. The output layer starts at zero.

    The two-level network of small tutorials is ``UNet(width=64, multipliers=(1, 2), patch_size=1)``, the classic
    four-level one of diffusion models ``UNet(width=64, multipliers=(1, 2, 4, 8), n_blocks=2, patch_size=1)``.

    Parameters
    ----------
    width : int, default=32
        Channels at full resolution.
    multipliers : sequence of int or None, default=None
        Channels of each resolution in units of `width`; every further one halves the grid. None halves until the
        longest axis has at most 8 points, at least once and at most four times, with the first of (1, 2, 2, 4, 4).
    n_blocks : int, default=1
        Residual blocks at each resolution, on the way down and on the way up.
    attention_levels : int, default=1
        The coarsest resolutions, so many, where points attend to each other.
    patch_size : int or None, default=None
        The network works on patches of so many points along each axis: 2 makes it about four times cheaper on images.
        None takes 1 for grids of up to 256 points and 2 for larger ones.
    boundary : {"zeros", "periodic", "replicate"} or sequence of them, default="zeros"
        What the convolutions see beyond the edge, for all axes or for each: nothing, the opposite side, or the
        outermost value. Sizes that `patch_size` does not divide are filled up with zeros first, whatever the boundary.
    positions : bool or None, default=None
        Whether to add learned features of every grid point at each resolution of up to 4096 points. Without them a
        network of convolutions knows where it is from the edges only. None adds them unless every boundary is periodic,
        where all points are alike; along the axes that are periodic the features do not change.
    dropout : float, default=0.0
        Share of hidden values dropped in training.
    context_width : int, default=128
        Size of the embedding of time and condition.
    n_time_features : int, default=32
        Sines and cosines that represent time.

    Examples
    --------
    >>> import torch
    >>> network = UNet(width=8)(sample_shape=(3, 17, 9), condition_size=0)
    >>> network(torch.zeros(4, 3, 17, 9), torch.rand(4)).shape
    torch.Size([4, 3, 17, 9])
    """

    width: int = 32
    multipliers: Sequence[int] | None = None
    n_blocks: int = 1
    attention_levels: int = 1
    patch_size: int | None = None
    boundary: str | Sequence[str] = "zeros"
    positions: bool | None = None
    dropout: float = 0.0
    context_width: int = 128
    n_time_features: int = 32

    def __call__(
        self,
        sample_shape: tuple[int, ...],
        condition_size: int,
        flow_map: bool = False,
        context_channels: int = 0,
    ) -> nn.Module:
        """Build the network for samples of `sample_shape` and conditions of `condition_size` numbers.

        The last ``context_channels * prod(grid)`` numbers of a condition are a grid that is read beside the input.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or samples are not grids.
        """
        self.validate()
        check_grid("unet", tuple(sample_shape))
        if not isinstance(self.boundary, str) and len(self.boundary) != len(sample_shape) - 1:
            raise ValueError(
                f"boundary={self.boundary!r} names {len(self.boundary)} axes, but samples of shape "
                f"{tuple(sample_shape)} have {len(sample_shape) - 1}."
            )
        return ConvolutionalUNet(self, tuple(sample_shape), condition_size, flow_map, context_channels)

    def validate(self) -> None:
        for name in ("width", "n_blocks", "context_width", "n_time_features"):
            check_count(name, getattr(self, name))
        if self.patch_size is not None:
            check_count("patch_size", self.patch_size)
        if self.positions is not None and not isinstance(self.positions, bool):
            raise ValueError(f"positions must be True, False or None, got {self.positions!r}.")
        check_count("attention_levels", self.attention_levels, 0)
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}.")
        if self.n_time_features % 2:
            raise ValueError(f"n_time_features must be even, got {self.n_time_features}.")
        if self.multipliers is not None:
            if not isinstance(self.multipliers, (tuple, list)) or not self.multipliers:
                raise ValueError(f"multipliers must be None or a sequence of integers >= 1, got {self.multipliers!r}.")
            for multiplier in self.multipliers:
                check_count("multipliers", multiplier)
        for boundary in [self.boundary] if isinstance(self.boundary, str) else self.boundary:
            check_choice("boundary", boundary, BOUNDARIES)
        check_number("dropout", self.dropout, 0.0, 1.0)

    @property
    def knows_positions(self) -> bool:
        """Whether grid points have features of their own."""
        if self.positions is not None:
            return self.positions
        boundaries = [self.boundary] if isinstance(self.boundary, str) else self.boundary
        return any(boundary != "periodic" for boundary in boundaries)

    def boundaries(self, n_axes: int) -> tuple[str, ...]:
        """The boundary of each axis."""
        return (self.boundary,) * n_axes if isinstance(self.boundary, str) else tuple(self.boundary)

    def patch(self, grid: tuple[int, ...]) -> int:
        """Points of a patch along each axis of such a grid."""
        if self.patch_size is not None:
            return self.patch_size
        return 1 if math.prod(grid) <= _MOST_UNPATCHED else 2

    def channels(self, grid: tuple[int, ...]) -> list[int]:
        """Channels of each resolution, finest first."""
        multipliers = self.multipliers
        if multipliers is None:
            longest = max(-(-size // self.patch(grid)) for size in grid)
            halvings = max(1, math.ceil(math.log2(max(longest, 1) / _COARSEST)))
            multipliers = _GROWTH[: 1 + min(halvings, 4)]
        return [self.width * multiplier for multiplier in multipliers]


class ConvolutionalUNet(ConditionedNetwork):
    """Down with residual blocks, up with skip connections; see `UNet`."""

    def __init__(
        self,
        settings: UNet,
        sample_shape: tuple[int, ...],
        condition_size: int,
        flow_map: bool,
        context_channels: int,
    ) -> None:
        super().__init__(condition_size, context_channels)
        self.patch_size = settings.patch(sample_shape[1:])
        grid, d = sample_shape[1:], len(sample_shape) - 1
        boundaries = settings.boundaries(d)
        conv = convolution(boundaries)
        context = settings.context_width
        channels = settings.channels(grid)
        points = self.patch_size**d

        def block(c_in: int, c_out: int) -> ResidualBlock:
            return ResidualBlock(conv, c_in, c_out, context, settings.dropout)

        def level(index: int, c_in: int) -> nn.ModuleList:
            """Residual blocks of a resolution, with attention if it is one of the coarsest."""
            c_out = channels[index]
            attend = index >= len(channels) - settings.attention_levels
            blocks: list[nn.Module] = []
            for i in range(settings.n_blocks):
                blocks.append(block(c_out if i else c_in, c_out))
                if attend:
                    blocks.append(AttentionBlock(c_out))
            return nn.ModuleList(blocks)

        n_numbers = vector_size(condition_size, context_channels, sample_shape)
        self.embed_context = ContextEmbedding(settings.n_time_features, flow_map, n_numbers, context)
        n_channels = (sample_shape[0] + context_channels) * points
        self.stem = conv(n_channels, channels[0], 3)
        sizes = _resolutions(grid, self.patch_size, len(channels))
        self.positions = nn.ModuleList(
            PositionMap(c, alike(size, boundaries))
            if settings.knows_positions and math.prod(size) <= _MOST_POSITIONS
            else nn.Identity()
            for c, size in zip(channels, sizes, strict=True)
        )
        self.down = nn.ModuleList([level(i, channels[i]) for i in range(len(channels) - 1)])
        self.halve = nn.ModuleList([conv(a, b, 3, stride=2) for a, b in _steps(channels)])
        self.middle = nn.ModuleList([*level(len(channels) - 1, channels[-1]), block(channels[-1], channels[-1])])
        self.widen = nn.ModuleList([conv(b, a, 1) for a, b in _steps(channels)])
        self.up = nn.ModuleList([level(i, 2 * channels[i]) for i in range(len(channels) - 1)])
        self.norm = group_norm(channels[0])
        self.head = zero_initialised(conv(channels[0], sample_shape[0] * points, 3))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        grid = x.shape[2:]
        condition, x = self._split_condition(condition, x)
        context = self.embed_context(t, step, condition)
        positions = iter(self.positions)
        h = next(positions)(self.stem(patchify(x, self.patch_size)))
        skips = []
        for blocks, halve in zip(self.down, self.halve, strict=True):
            h = self._through(blocks, h, context)
            skips.append(h)
            h = next(positions)(halve(h))
        h = self._through(self.middle, h, context)
        for blocks, widen in zip(reversed(self.up), reversed(self.widen), strict=True):
            skip = skips.pop()
            h = F.interpolate(widen(h), size=skip.shape[2:], mode="nearest")
            h = self._through(blocks, torch.cat([h, skip], dim=1), context)
        return unpatchify(self.head(F.silu(self.norm(h))), self.patch_size, grid)

    def _through(self, blocks: nn.Module, h: Tensor, context: Tensor) -> Tensor:
        for block in blocks.children():
            h = self._run(block, h, context)
        return h


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the context scales and shifts between them, the second starts at zero."""

    def __init__(self, conv: Any, c_in: int, c_out: int, context_width: int, dropout: float) -> None:
        super().__init__()
        self.norm_in, self.norm_out = group_norm(c_in), group_norm(c_out)
        self.conv_in = conv(c_in, c_out, 3)
        self.conv_out = zero_initialised(conv(c_out, c_out, 3))
        self.modulation = nn.Linear(context_width, 2 * c_out)
        self.dropout = Dropout(dropout)
        self.shortcut = nn.Identity() if c_in == c_out else conv(c_in, c_out, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.modulation(context).reshape(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        return self.shortcut(x) + self.conv_out(self.dropout(F.silu(h)))


class AttentionBlock(nn.Module):
    """Every point of the grid attends to every other (Vaswani et al., 2017); starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = SelfAttention(channels, attention_heads(channels))
        zero_initialised(self.attention.join)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        points = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(points).transpose(1, 2).reshape(x.shape)


def attention_heads(channels: int) -> int:
    """Heads of at least 32 channels each, or one."""
    return max(h for h in range(1, max(1, channels // 32) + 1) if channels % h == 0)


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 8 groups of at least 4 channels."""
    return nn.GroupNorm(max(g for g in range(1, 9) if channels % g == 0 and channels // g >= 4), channels)


def _resolutions(grid: tuple[int, ...], patch_size: int, n_levels: int) -> list[tuple[int, ...]]:
    """Points along each axis at every resolution, finest first."""
    sizes = [tuple(-(-size // patch_size) for size in grid)]
    for _ in range(n_levels - 1):
        sizes.append(tuple(-(-size // 2) for size in sizes[-1]))
    return sizes


def _steps(channels: list[int]) -> list[tuple[int, int]]:
    """Pairs of neighbouring resolutions, (finer, coarser)."""
    return list(itertools.pairwise(channels))
