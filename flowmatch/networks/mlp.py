"""The residual multilayer perceptron for tables, and three ways to condition it on time and more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmatch.core.checks import check_choice, check_count, check_number, checked
from flowmatch.networks.architecture import Architecture, Sizes
from flowmatch.networks.conditioned import ConditionedNetwork, zero_initialized
from flowmatch.networks.dropout import Dropout
from flowmatch.networks.embeddings import TimeFeatures

CONDITIONINGS = ("film", "adaln", "concat")


@dataclass(frozen=True)
class MLP(Architecture):
    """Residual MLP that knows time and condition.

    Any sample shape is flattened, so grids work too, but a network that knows neighborhoods suits them better.

    Parameters
    ----------
    width : int, default=64
        Units of every hidden layer.
    depth : int, default=2
        Number of residual blocks.
    conditioning : {"film", "adaln", "concat"}, default="film"
        How time and condition enter. "film": they scale and shift the hidden units of blocks of two layers (Perez et
        al., 2018, eq. 1). "adaln": they shift, scale and gate layer-normalized blocks of two layers, whose gates start
        at zero (DiT; Peebles and Xie, 2023, section 3.2); as good as "film", a fifth more expensive. "concat": as
        further inputs of the first layer, blocks of one layer follow; the cheapest.
    dropout : float, default=0.0
        Share of hidden units dropped in training.
    context_width : int, default=32
        Size of the embedding of time and condition that "adaln" and "film" blocks read.
    n_time_features : int, default=16
        Sines and cosines that represent time.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP
    >>> network = MLP(width=32)(sample_shape=(5,), condition_size=0)
    >>> network(torch.zeros(4, 5), torch.rand(4)).shape
    torch.Size([4, 5])
    """

    width: int = checked(64, check_count)
    depth: int = checked(2, check_count)
    conditioning: str = checked("film", check_choice, CONDITIONINGS)
    dropout: float = checked(0.0, check_number, 0.0, 1.0)
    context_width: int = checked(32, check_count)
    n_time_features: int = checked(16, check_count, multiple_of=2)

    def build(self, sizes: Sizes) -> nn.Module:
        return (ConcatenatedMLP if self.conditioning == "concat" else ModulatedMLP)(self, sizes)


class ConcatenatedMLP(ConditionedNetwork):
    """Time and condition beside the sample in the first layer, then ``h + SiLU(W h)``; the output starts at zero.

    Parameters
    ----------
    settings : MLP
        Its parameters.
    sizes : Sizes
        What it is built for.
    """

    def __init__(self, settings: MLP, sizes: Sizes) -> None:
        super().__init__(sizes.condition_size, sizes.context_channels)
        size, width = math.prod(sizes.sample_shape), settings.width
        self.time_features = TimeFeatures(settings.n_time_features, sizes.flow_map)
        self._size_with_context = size + sizes.context_size
        self.first = nn.Linear(size + self.time_features.size + sizes.condition_size, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(settings.depth)])
        self.dropout = Dropout(settings.dropout)
        self.head = zero_initialized(nn.Linear(width, size))
        for layer in (self.first, *self.layers):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    @property
    def step_columns(self) -> tuple[str, slice]:
        """Which weights of a flow map read the increment: a parameter's name and its columns."""
        return "first.weight", self.time_features.columns_of_step(self._size_with_context)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        vector, seen = self._split_condition(condition, x)
        h = F.silu(self.first(torch.cat([seen.flatten(1), self.time_features(t, step), vector], dim=1)))
        for layer in self.layers:
            h = self._run(self._residual, h, layer)
        return self.head(h).reshape(x.shape)

    def _residual(self, h: Tensor, layer: nn.Module) -> Tensor:
        return h + self.dropout(F.silu(layer(h)))


class ModulatedMLP(ConditionedNetwork):
    """Time and condition modulate every block; the output starts at zero.

    Parameters
    ----------
    settings : MLP
        Its parameters.
    sizes : Sizes
        What it is built for.
    """

    def __init__(self, settings: MLP, sizes: Sizes) -> None:
        super().__init__(sizes.condition_size, sizes.context_channels)
        size, width, context = math.prod(sizes.sample_shape), settings.width, settings.context_width
        block = AdaptiveNormBlock if settings.conditioning == "adaln" else FiLMBlock
        self.time_features = TimeFeatures(settings.n_time_features, sizes.flow_map)
        self.embed_context = nn.Linear(self.time_features.size + sizes.vector_size, context)
        self.embed_sample = nn.Linear(size + sizes.context_size, width)
        self.blocks = nn.ModuleList([block(width, context, settings.dropout) for _ in range(settings.depth)])
        self.last = nn.LayerNorm(width) if settings.conditioning == "adaln" else nn.SiLU()
        self.head = zero_initialized(nn.Linear(width, size))

    @property
    def step_columns(self) -> tuple[str, slice]:
        """Which weights of a flow map read the increment: a parameter's name and its columns."""
        return "embed_context.weight", self.time_features.columns_of_step()

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        vector, seen = self._split_condition(condition, x)
        if vector.shape[1] == 0 and _is_one(t) and (step is None or _is_one(step)):
            # the same time for all rows, as solvers and jumps have it: one context serves them all
            features = self.time_features(t[:1], None if step is None else step[:1])
        else:
            features = torch.cat([self.time_features(t, step), vector], dim=1)
        context = F.silu(self.embed_context(features))
        h = self.embed_sample(seen.flatten(1))
        for block in self.blocks:
            h = self._run(block, h, context)
        return self.head(self.last(h)).reshape(x.shape)


def _is_one(t: Tensor) -> bool:
    """Whether times (B,) are one value, expanded."""
    return t.stride(0) == 0


class AdaptiveNormBlock(nn.Module):
    """h + gate * MLP(shifted and scaled LayerNorm(h)); the gate starts at zero, the block as the identity."""

    def __init__(self, width: int, context_width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_initialized(nn.Linear(context_width, 3 * width))
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), Dropout(dropout), nn.Linear(width, width))

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(context).chunk(3, dim=1)
        return h + gate * self.layers(torch.addcmul(shift, self.norm(h), 1 + scale))


class FiLMBlock(nn.Module):
    """h + MLP(h) whose hidden units are scaled and shifted by the context."""

    def __init__(self, width: int, context_width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.modulation = nn.Linear(context_width, 2 * width)
        self.outer = nn.Sequential(nn.SiLU(), Dropout(dropout), nn.Linear(width, width))

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulation(context).chunk(2, dim=1)
        return h + self.outer(torch.addcmul(shift, self.inner(h), 1 + scale))
