"""The network that the shape of the data asks for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from flowmatch.networks.architecture import Architecture, Sizes
from flowmatch.networks.mlp import MLP
from flowmatch.networks.unet import UNet


@dataclass(frozen=True)
class AutoNetwork(Architecture):
    """What ``network="auto"`` means: an `MLP` for tables, a `UNet` for signals, images and fields.

    Examples
    --------
    >>> from flowmatch.networks import AutoNetwork
    >>> AutoNetwork().choose((5,)), AutoNetwork().choose((1, 28, 28))
    (MLP(), UNet())
    """

    def choose(self, sample_shape: tuple[int, ...]) -> MLP | UNet:
        """Choose the network for samples of a shape.

        Parameters
        ----------
        sample_shape : tuple of int
            Shape of one sample.

        Returns
        -------
        MLP or UNet
            With its default parameters.
        """
        return MLP() if len(sample_shape) == 1 else UNet()

    def build(self, sizes: Sizes) -> nn.Module:
        return self.choose(sizes.sample_shape).build(sizes)
