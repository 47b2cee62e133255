"""A network whose condition is the row itself, seen through a narrow encoding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from flowmatch.core.checks import check_count, checked
from flowmatch.core.component import Component
from flowmatch.networks.boundaries import CONVOLUTIONS
from flowmatch.networks.conditioned import ConditionedNetwork

_WIDTH = 64
_CHANNELS = (16, 32, 32)
_POOLED = 4


@dataclass(frozen=True)
class Bottleneck(Component):
    """Build `network` for conditions that are rows, which an encoder learned with it reduces to `size` elements.

    Parameters
    ----------
    network : callable
        Component or factory ``(sample_shape, condition_size, flow_map) -> nn.Module`` of the velocity network.
    size : int or None, default=None
        Elements of an encoding; None takes a quarter of the row's, at least 1 and at most 64.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP, Bottleneck
    >>> network = Bottleneck(MLP(), size=2)((6,), condition_size=6)
    >>> network.encoder(torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    network: Callable[..., nn.Module]
    size: int | None = checked(None, check_count)

    def validate(self) -> None:
        super().validate()
        if isinstance(self.network, Component):
            self.network.validate()

    def __call__(self, sample_shape: tuple[int, ...], condition_size: int, flow_map: bool = False) -> nn.Module:
        """Build the network.

        Parameters
        ----------
        sample_shape : tuple of int
            Shape of one sample.
        condition_size : int
            Elements of a condition, the last of which are a row of `sample_shape`, flattened, or near it.
        flow_map : bool, default=False
            Whether ``forward`` takes the increment of time ``step`` (B,), too.

        Returns
        -------
        torch.nn.Module
            In training mode, on the CPU.
        """
        self.validate()
        size = self.size or min(64, max(1, math.prod(sample_shape) // 4))
        return BottleneckNetwork(
            self.network(sample_shape, size, flow_map), _encoder(sample_shape, condition_size, size), condition_size
        )


class BottleneckNetwork(ConditionedNetwork):
    """The velocity network, given the encoding of its condition.

    Parameters
    ----------
    network : torch.nn.Module
        The velocity network, called as ``network(x, t, encoding)``, or with a further ``step``.
    encoder : torch.nn.Module
        From conditions to encodings.
    condition_size : int
        Elements of a condition.
    """

    def __init__(self, network: nn.Module, encoder: nn.Module, condition_size: int) -> None:
        super().__init__(condition_size)
        self.network, self.encoder = network, encoder

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, step: Tensor | None = None) -> Tensor:
        encoding = self.encoder(self._condition_or_zeros(condition, x))
        return self.network(x, t, encoding) if step is None else self.network(x, t, encoding, step)


class _GridEncoder(nn.Module):
    """Strided convolutions of the grid at the end of a vector, pooled to a few points."""

    def __init__(self, sample_shape: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.sample_shape = sample_shape
        axes = len(sample_shape) - 1
        pool: Any = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1]
        layers: list[nn.Module] = []
        for inner, outer in zip((sample_shape[0], *_CHANNELS[:-1]), _CHANNELS, strict=True):
            layers += [CONVOLUTIONS[axes - 1](inner, outer, 3, stride=2, padding=1), nn.SiLU()]
        self.layers = nn.Sequential(
            *layers, pool(_POOLED), nn.Flatten(), nn.Linear(_CHANNELS[-1] * _POOLED**axes, size)
        )

    def forward(self, condition: Tensor) -> Tensor:
        grid = condition[:, condition.shape[1] - math.prod(self.sample_shape) :]
        return self.layers(grid.reshape(len(grid), *self.sample_shape))


def _encoder(sample_shape: tuple[int, ...], condition_size: int, size: int) -> nn.Module:
    if len(sample_shape) > 1:
        return _GridEncoder(sample_shape, size)
    return nn.Sequential(nn.Linear(condition_size, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, size))
