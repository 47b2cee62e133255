"""The diffusion transformer for signals, images and fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowmatch.core.checks import check_count, check_number, checked
from flowmatch.networks.architecture import Architecture, Sizes
from flowmatch.networks.attention import SelfAttention
from flowmatch.networks.conditioned import ConditionedNetwork, check_grid, zero_initialized
from flowmatch.networks.dropout import Dropout
from flowmatch.networks.embeddings import ContextEmbedding, position_features
from flowmatch.networks.patches import patchify, unpatchify

_MOST_TOKENS = 256


@dataclass(frozen=True)
class Transformer(Architecture):
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
        Elements of a token.
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
    >>> from flowmatch.networks import Transformer
    >>> network = Transformer(width=16, depth=2)(sample_shape=(3, 17, 9), condition_size=0)
    >>> network(torch.zeros(4, 3, 17, 9), torch.rand(4)).shape
    torch.Size([4, 3, 17, 9])
    """

    width: int = checked(96, check_count, 8)
    depth: int = checked(4, check_count)
    n_heads: int = checked(4, check_count)
    patch_size: int | None = checked(None, check_count)
    mlp_ratio: float = checked(2.0, check_number, 0.0, open_low=True)
    dropout: float = checked(0.0, check_number, 0.0, 1.0)
    n_time_features: int = checked(32, check_count, multiple_of=2)

    def validate(self) -> None:
        super().validate()
        if self.width % self.n_heads:
            raise ValueError(f"n_heads must divide width={self.width}, got {self.n_heads}.")

    def build(self, sizes: Sizes) -> nn.Module:
        check_grid("transformer", sizes.sample_shape)
        return DiffusionTransformer(self, sizes)

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
        if self.patch_size is not None:
            return self.patch_size
        patch_size = 1
        while math.prod(-(-size // patch_size) for size in grid) > _MOST_TOKENS:
            patch_size *= 2
        return patch_size


class DiffusionTransformer(ConditionedNetwork):
    """Patches to tokens, blocks, tokens to patches; see `Transformer`.

    Parameters
    ----------
    settings : Transformer
        Its parameters.
    sizes : Sizes
        What it is built for.
    """

    def __init__(self, settings: Transformer, sizes: Sizes) -> None:
        super().__init__(sizes.condition_size, sizes.context_channels)
        self.patch_size, self.width = settings.patch(sizes.grid), settings.width
        points = self.patch_size ** len(sizes.grid)
        self.embed_context = ContextEmbedding(settings.n_time_features, sizes, self.width)
        self.embed_patch = nn.Linear((sizes.sample_shape[0] + sizes.context_channels) * points, self.width)
        self.blocks = nn.ModuleList([TransformerBlock(settings) for _ in range(settings.depth)])
        self.norm = AdaptiveLayerNorm(self.width)
        self.head = zero_initialized(nn.Linear(self.width, sizes.sample_shape[0] * points))

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
    """Attention, then a perceptron at every token, each normalized and gated by the context; starts as the identity."""

    def __init__(self, settings: Transformer) -> None:
        super().__init__()
        width, hidden = settings.width, max(1, round(settings.mlp_ratio * settings.width))
        self.attention_norm, self.mlp_norm = AdaptiveLayerNorm(width), AdaptiveLayerNorm(width)
        self.gates = zero_initialized(nn.Linear(width, 2 * width))
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
    """Layer normalization that the context scales and shifts; without effect at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_initialized(nn.Linear(width, 2 * width))

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        shift, scale = self.modulation(context)[:, None].chunk(2, dim=2)
        return torch.addcmul(shift, self.norm(tokens), 1 + scale)
