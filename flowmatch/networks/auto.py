"""The network that the shape of the data asks for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from flowmatch.core.component import Component
from flowmatch.networks.mlp import MLP
from flowmatch.networks.unet import UNet


@dataclass(frozen=True)
class AutoNetwork(Component):
    """What ``network="auto"`` means: an `MLP` for tables, a `UNet` for signals, images and fields."""

    def choose(self, sample_shape: tuple[int, ...]) -> MLP | UNet:
        """The network for samples of `sample_shape`."""
        return MLP() if len(sample_shape) == 1 else UNet()

    def __call__(
        self,
        sample_shape: tuple[int, ...],
        condition_size: int,
        flow_map: bool = False,
        context_channels: int = 0,
    ) -> nn.Module:
        """Build the network for samples of `sample_shape` and conditions of `condition_size` numbers."""
        network = self.choose(sample_shape)
        return network(sample_shape, condition_size, flow_map, context_channels)
