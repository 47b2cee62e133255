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

from flowmatch.core.checks import (
    check_choice,
    check_count,
    check_each,
    check_flag,
    check_number,
    check_sequence,
    checked,
)
from flowmatch.networks.architecture import Architecture, Sizes
from flowmatch.networks.attention import SelfAttention
from flowmatch.networks.boundaries import BOUNDARIES, alike, convolution
from flowmatch.networks.conditioned import ConditionedNetwork, check_grid, zero_initialized
from flowmatch.networks.dropout import Dropout
from flowmatch.networks.embeddings import ContextEmbedding, PositionMap
from flowmatch.networks.patches import patchify, unpatchify

_COARSEST = 8
_MOST_UNPATCHED = 256
_MOST_POSITIONS = 4096
_GROWTH = (1, 2, 2, 4, 4)


@dataclass(frozen=True)
class UNet(Architecture):
    """Convolutional network with skip connections between equal resolutions (Ronneberger et al., 2015).

    Residual blocks with group normalization and SiLU; time and condition scale and shift the normalized features of
    every block (adaptive group normalization; Dhariwal and Nichol, 2021, section 3). Works for signals (C, L), images
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
    gain : bool, default=False
        The output is ``a + b x``, with `a` and `b` from the network and `x` its input, point by point. Where contexts
        leave little open, a velocity is to take most of the noise off again; this way noise need not pass through the
        network. Of normal distributions, `a` and `b` do not depend on `x`.
    context_width : int, default=128
        Size of the embedding of time and condition.
    n_time_features : int, default=32
        Sines and cosines that represent time.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import UNet
    >>> network = UNet(width=8)(sample_shape=(3, 17, 9), condition_size=0)
    >>> network(torch.zeros(4, 3, 17, 9), torch.rand(4)).shape
    torch.Size([4, 3, 17, 9])
    """

    width: int = checked(32, check_count, multiple_of=4)
    multipliers: Sequence[int] | None = checked(None, check_sequence, check_count)
    n_blocks: int = checked(1, check_count)
    attention_levels: int = checked(1, check_count, 0)
    patch_size: int | None = checked(None, check_count)
    boundary: str | Sequence[str] = checked("zeros", check_each, check_choice, BOUNDARIES)
    positions: bool | None = checked(None, check_flag)
    dropout: float = checked(0.0, check_number, 0.0, 1.0)
    gain: bool = checked(False, check_flag)
    context_width: int = checked(128, check_count)
    n_time_features: int = checked(32, check_count, multiple_of=2)

    def build(self, sizes: Sizes) -> nn.Module:
        check_grid("unet", sizes.sample_shape)
        if not isinstance(self.boundary, str) and len(self.boundary) != len(sizes.grid):
            raise ValueError(
                f"boundary={self.boundary!r} names {len(self.boundary)} axes, but samples of shape "
                f"{sizes.sample_shape} have {len(sizes.grid)}."
            )
        return ConvolutionalUNet(self, sizes)

    def boundaries(self, n_axes: int) -> tuple[str, ...]:
        """The boundary of each axis.

        Parameters
        ----------
        n_axes : int
            Axes of the grid.

        Returns
        -------
        tuple of str
            One for each axis.
        """
        return (self.boundary,) * n_axes if isinstance(self.boundary, str) else tuple(self.boundary)

    def has_positions(self, grid: tuple[int, ...]) -> bool:
        """Whether the points of such a grid have features of their own.

        Parameters
        ----------
        grid : tuple of int
            Points along each axis.

        Returns
        -------
        bool
            As `positions` says, and no for grids of many points.
        """
        known = any(boundary != "periodic" for boundary in self.boundaries(len(grid)))
        return (known if self.positions is None else self.positions) and math.prod(grid) <= _MOST_POSITIONS

    def patch(self, grid: tuple[int, ...]) -> int:
        """The number of points of a patch along each axis of such a grid.

        Parameters
        ----------
        grid : tuple of int
            Points along each axis.

        Returns
        -------
        int
            As `patch_size` says, or by the number of points.
        """
        return self.patch_size or (1 if math.prod(grid) <= _MOST_UNPATCHED else 2)

    def channels(self, grid: tuple[int, ...]) -> list[int]:
        """The number of channels of each resolution, finest first.

        Parameters
        ----------
        grid : tuple of int
            Points along each axis.

        Returns
        -------
        list of int
            `multipliers` in units of `width`, or by the longest axis.
        """
        multipliers = self.multipliers
        if multipliers is None:
            longest = max(-(-size // self.patch(grid)) for size in grid)
            halvings = max(1, math.ceil(math.log2(max(longest, 1) / _COARSEST)))
            multipliers = _GROWTH[: 1 + min(halvings, 4)]
        return [self.width * multiplier for multiplier in multipliers]


class ConvolutionalUNet(ConditionedNetwork):
    """Down with residual blocks, up with skip connections; see `UNet`.

    Parameters
    ----------
    settings : UNet
        Its parameters.
    sizes : Sizes
        What it is built for.
    """

    def __init__(self, settings: UNet, sizes: Sizes) -> None:
        super().__init__(sizes.condition_size, sizes.context_channels)
        grid, boundaries = sizes.grid, settings.boundaries(len(sizes.grid))
        conv, channels = convolution(boundaries), settings.channels(grid)
        self.patch_size = settings.patch(grid)
        points = self.patch_size ** len(grid)

        def block(c_in: int, c_out: int) -> ResidualBlock:
            return ResidualBlock(conv, c_in, c_out, settings.context_width, settings.dropout)

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

        self.embed_context = ContextEmbedding(settings.n_time_features, sizes, settings.context_width)
        self.stem = conv((sizes.sample_shape[0] + sizes.context_channels) * points, channels[0], 3)
        self.positions = nn.ModuleList(
            PositionMap(c, alike(size, boundaries)) if settings.has_positions(size) else nn.Identity()
            for c, size in zip(channels, _resolutions(grid, self.patch_size, len(channels)), strict=True)
        )
        pairs = list(itertools.pairwise(channels))  # finer and coarser
        self.down = nn.ModuleList([level(i, fine) for i, (fine, _) in enumerate(pairs)])
        self.halve = nn.ModuleList([conv(fine, coarse, 3, stride=2) for fine, coarse in pairs])
        self.middle = nn.ModuleList([*level(len(pairs), channels[-1]), block(channels[-1], channels[-1])])
        self.widen = nn.ModuleList([conv(coarse, fine, 1) for fine, coarse in pairs])
        self.up = nn.ModuleList([level(i, 2 * fine) for i, (fine, _) in enumerate(pairs)])
        self.norm = group_norm(channels[0])
        self.gain = settings.gain
        self.head = zero_initialized(conv(channels[0], (1 + self.gain) * sizes.sample_shape[0] * points, 3))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        grid, start = x.shape[2:], x
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
        found = unpatchify(self.head(F.silu(self.norm(h))), self.patch_size, grid)
        if not self.gain:
            return found
        level, gain = found.chunk(2, dim=1)
        return torch.addcmul(level, gain, start)

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
        self.conv_out = zero_initialized(conv(c_out, c_out, 3))
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
        zero_initialized(self.attention.join)

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
