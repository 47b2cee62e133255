"""The residual multilayer perceptron for tables, with adaptive layer norm or FiLM conditioning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmatch._component import Component, unknown_option
from flowmatch.networks.embeddings import sinusoidal_features

CONDITIONINGS = ("adaln", "film")


@dataclass(frozen=True)
class MLP(Component):
    """Residual MLP that sees time and condition in every block.

    Any sample shape is flattened, so grids work too, but a network that knows neighbourhoods suits them better.

    Parameters
    ----------
    width : int, default=128
        Units of every hidden layer.
    depth : int, default=3
        Number of residual blocks.
    conditioning : {"adaln", "film"}, default="adaln"
        How time and condition enter a block. "adaln": they shift, scale and gate a layer-normalised block whose
        gate starts at zero (DiT; Peebles and Xie, 2023, section 3.2). "film": they shift and scale the hidden
        units, without normalisation or gate (Perez et al., 2018, eq. 1).
    dropout : float, default=0.0
        Share of hidden units dropped in training.
    context_width : int, default=64
        Size of the embedding of time and condition that every block reads.
    n_time_features : int, default=32
        Sines and cosines that represent time.

    Examples
    --------
    >>> import torch
    >>> network = MLP(width=32, depth=2)(sample_shape=(5,), condition_size=0)
    >>> network(torch.zeros(4, 5), torch.rand(4)).shape
    torch.Size([4, 5])
    """

    width: int = 128
    depth: int = 3
    conditioning: str = "adaln"
    dropout: float = 0.0
    context_width: int = 64
    n_time_features: int = 32

    def __call__(self, sample_shape: tuple[int, ...], condition_size: int, flow_map: bool = False) -> ResidualMLP:
        """Build the network for samples of `sample_shape` and conditions of `condition_size` numbers.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        if self.conditioning not in CONDITIONINGS:
            raise unknown_option("conditioning", self.conditioning, CONDITIONINGS)
        for name in ("width", "depth", "context_width", "n_time_features"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"MLP's {name} must be a positive integer, got {value!r}.")
        if self.n_time_features % 2:
            raise ValueError(f"MLP's n_time_features must be even, got {self.n_time_features}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"MLP's dropout must be in [0, 1), got {self.dropout!r}.")
        return ResidualMLP(
            sample_shape,
            condition_size,
            flow_map,
            width=self.width,
            depth=self.depth,
            conditioning=self.conditioning,
            dropout=self.dropout,
            context_width=self.context_width,
            n_time_features=self.n_time_features,
        )


class ResidualMLP(nn.Module):
    """The module that `MLP` builds: ``forward(x, t, condition=None, step=None)``.

    `condition` is (B, condition_size); ``None`` or zeros stand for "no condition". `step` is a flow map's
    increment, refused by a network that was built without it.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition_size: int,
        flow_map: bool = False,
        *,
        width: int,
        depth: int,
        conditioning: str,
        dropout: float,
        context_width: int,
        n_time_features: int,
    ) -> None:
        super().__init__()
        self.sample_shape = tuple(sample_shape)
        self.condition_size = condition_size
        self.flow_map = flow_map
        self.n_time_features = n_time_features
        size = math.prod(self.sample_shape)
        block = AdaptiveNormBlock if conditioning == "adaln" else FiLMBlock
        self.embed_time = nn.Sequential(
            nn.Linear(n_time_features * (2 if flow_map else 1), context_width),
            nn.SiLU(),
            nn.Linear(context_width, context_width),
        )
        self.embed_condition = nn.Linear(condition_size, context_width, bias=False) if condition_size else None
        self.embed_sample = nn.Linear(size, width)
        self.blocks = nn.ModuleList([block(width, context_width, dropout) for _ in range(depth)])
        self.final_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        context = F.silu(self._embed_context(t, condition, step))
        h = self.embed_sample(x.flatten(1))
        for block in self.blocks:
            h = block(h, context)
        return self.head(self.final_norm(h)).view(x.shape)

    def _embed_context(self, t: Tensor, condition: Tensor | None, step: Tensor | None) -> Tensor:
        features = sinusoidal_features(t, self.n_time_features)
        if self.flow_map:
            if step is None:
                raise ValueError("this network is a flow map: it needs the increment `step`, of shape (B,).")
            features = torch.cat([features, sinusoidal_features(step, self.n_time_features)], dim=1)
        elif step is not None:
            raise ValueError("this network gives a velocity and takes no `step`; build it with flow_map=True.")
        context = self.embed_time(features)
        if condition is not None:
            if self.embed_condition is None:
                raise ValueError("this network was built without conditions (condition_size=0) but got one.")
            context = context + self.embed_condition(condition)
        return context


class AdaptiveNormBlock(nn.Module):
    """h + gate * MLP(shifted and scaled LayerNorm(h)); the gate starts at zero, the block as the identity."""

    def __init__(self, width: int, context_width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(context_width, 3 * width)
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(context).chunk(3, dim=1)
        return h + gate * self.layers(torch.addcmul(shift, self.norm(h), 1 + scale))


class FiLMBlock(nn.Module):
    """h + MLP(h) whose hidden units are scaled and shifted by the context."""

    def __init__(self, width: int, context_width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.modulation = nn.Linear(context_width, 2 * width)
        self.outer = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulation(context).chunk(2, dim=1)
        return h + self.outer(torch.addcmul(shift, self.inner(h), 1 + scale))
