"""The diffusion transformer for signals, images and fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowmatch.core.checks import check_count, check_number
from flowmatch.core.component import Component
from flowmatch.networks.attention import SelfAttention
from flowmatch.networks.conditioned import ConditionedNetwork, check_grid, vector_size, zero_initialised
from flowmatch.networks.dropout import Dropout
from flowmatch.networks.embeddings import ContextEmbedding, position_features
from flowmatch.networks.patches import patchify, unpatchify

_MOST_TOKENS = 256


@dataclass(frozen=True)
class Transformer(Component):
    """Transformer on patches of a grid (DiT; Peebles and Xie, 2023).

    Every patch is a token; tokens attend to each other, and time and condition shift, scale and gate every block
    (adaLN-Zero, section 3.2 there). Works for signals (C, L), images (C, H, W) and fields (C, D, H, W) of any size:
    what the patches do not divide is padded with zeros and cropped again. The gates and the output layer start at
    zero. It sees the whole grid at once and scales well; on little data a `UNet` learns faster.

    The smallest network of the paper, DiT-S/2, has the sizes
    ``Transformer(width=384, depth=12, n_heads=6, patch_size=2, mlp_ratio=4.0)``.

    Parameters
    ----------
    width : int, default=96
        Numbers a token.
    depth : int, default=4
        Number of blocks.
    n_heads : int, default=4
        Heads of the attention, a divisor of `width`.
    patch_size : int or None, default=None
        Points of a patch along each axis. None takes the smallest power of two that gives at most 256 tokens; the
        cost of attention grows with their square.
    mlp_ratio : float, default=2.0
        Hidden units of a block's perceptron in units of `width`.
    dropout : float, default=0.0
        Share of these hidden units dropped in training.
    n_time_features : int, default=32
        Sines and cosines that represent time.

    Examples
    --------
    >>> import torch
    >>> network = Transformer(width=16, depth=2)(sample_shape=(3, 17, 9), condition_size=0)
    >>> network(torch.zeros(4, 3, 17, 9), torch.rand(4)).shape
    torch.Size([4, 3, 17, 9])
    """

    width: int = 96
    depth: int = 4
    n_heads: int = 4
    patch_size: int | None = None
    mlp_ratio: float = 2.0
    dropout: float = 0.0
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
        check_grid("transformer", tuple(sample_shape))
        return DiffusionTransformer(self, tuple(sample_shape), condition_size, flow_map, context_channels)

    def validate(self) -> None:
        check_count("width", self.width, 8)
        for name in ("depth", "n_heads", "n_time_features"):
            check_count(name, getattr(self, name))
        if self.patch_size is not None:
            check_count("patch_size", self.patch_size)
        if self.width % self.n_heads:
            raise ValueError(f"n_heads must divide width={self.width}, got {self.n_heads}.")
        if self.n_time_features % 2:
            raise ValueError(f"n_time_features must be even, got {self.n_time_features}.")
        check_number("mlp_ratio", self.mlp_ratio, 0.0, open_low=True)
        check_number("dropout", self.dropout, 0.0, 1.0)

    def patch(self, grid: tuple[int, ...]) -> int:
        """Points of a patch along each axis of such a grid."""
        if self.patch_size is not None:
            return self.patch_size
        patch_size = 1
        while math.prod(-(-size // patch_size) for size in grid) > _MOST_TOKENS:
            patch_size *= 2
        return patch_size


class DiffusionTransformer(ConditionedNetwork):
    """Patches to tokens, blocks, tokens to patches; see `Transformer`."""

    def __init__(
        self,
        settings: Transformer,
        sample_shape: tuple[int, ...],
        condition_size: int,
        flow_map: bool,
        context_channels: int,
    ) -> None:
        super().__init__(condition_size, context_channels)
        self.patch_size, self.width = settings.patch(sample_shape[1:]), settings.width
        points = self.patch_size ** (len(sample_shape) - 1)
        n_numbers = vector_size(condition_size, context_channels, sample_shape)
        self.embed_context = ContextEmbedding(settings.n_time_features, flow_map, n_numbers, self.width)
        self.embed_patch = nn.Linear((sample_shape[0] + context_channels) * points, self.width)
        self.blocks = nn.ModuleList([TransformerBlock(settings) for _ in range(settings.depth)])
        self.norm = AdaptiveLayerNorm(self.width)
        self.head = zero_initialised(nn.Linear(self.width, sample_shape[0] * points))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        grid = x.shape[2:]
        condition, x = self._split_condition(condition, x)
        context = self.embed_context(t, step, condition)
        patches = patchify(x, self.patch_size)
        coarse = patches.shape[2:]
        tokens = self.embed_patch(patches.flatten(2).transpose(1, 2)) + position_features(coarse, self.width, x)
        for block in self.blocks:
            tokens = self._run(block, tokens, context)
        output = self.head(self.norm(tokens, context)).transpose(1, 2)
        return unpatchify(output.reshape(*output.shape[:2], *coarse), self.patch_size, grid)


class TransformerBlock(nn.Module):
    """Attention, then a perceptron at every token, each normalised and gated by the context; starts as the identity."""

    def __init__(self, settings: Transformer) -> None:
        super().__init__()
        width, hidden = settings.width, max(1, round(settings.mlp_ratio * settings.width))
        self.attention_norm, self.mlp_norm = AdaptiveLayerNorm(width), AdaptiveLayerNorm(width)
        self.gates = zero_initialised(nn.Linear(width, 2 * width))
        self.attention = SelfAttention(width, settings.n_heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(approximate="tanh"),
            Dropout(settings.dropout),
            nn.Linear(hidden, width),
        )

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        attention_gate, mlp_gate = self.gates(context)[:, None].chunk(2, dim=2)
        tokens = tokens + attention_gate * self.attention(self.attention_norm(tokens, context))
        return tokens + mlp_gate * self.mlp(self.mlp_norm(tokens, context))


class AdaptiveLayerNorm(nn.Module):
    """Layer normalisation that the context scales and shifts; without effect at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_initialised(nn.Linear(width, 2 * width))

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        shift, scale = self.modulation(context)[:, None].chunk(2, dim=2)
        return torch.addcmul(shift, self.norm(tokens), 1 + scale)
