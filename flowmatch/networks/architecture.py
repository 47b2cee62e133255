"""What a network component is, and what it learns of the data's shape."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from flowmatch.core.component import Component


@dataclass(frozen=True)
class Sizes:
    """What a network is built for.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of one sample: (d,) for tables, (C, *grid) otherwise.
    condition_size : int
        Elements of a condition.
    flow_map : bool
        Whether the network takes the increment of time.
    context_channels : int
        Channels of the grid that a condition ends in; for tables elements.
    """

    sample_shape: tuple[int, ...]
    condition_size: int
    flow_map: bool = False
    context_channels: int = 0

    @property
    def grid(self) -> tuple[int, ...]:
        """Points along each axis; none for a table."""
        return self.sample_shape[1:]

    @property
    def context_size(self) -> int:
        """Elements of a condition that are part of its grid."""
        return self.context_channels * math.prod(self.grid)

    @property
    def vector_size(self) -> int:
        """Elements of a condition that are not part of its grid.

        Raises
        ------
        ValueError
            If the grid alone is larger than the condition.
        """
        if self.context_size > self.condition_size:
            raise ValueError(
                f"context_channels={self.context_channels} on a grid of {self.grid} needs {self.context_size} elements "
                f"of a condition, but condition_size is {self.condition_size}."
            )
        return self.condition_size - self.context_size


class Architecture(Component, ABC):
    """A component that builds networks ``forward(x, t, condition=None, step=None)``.

    A subclass has a method ``build(sizes)``, which gets its parameters checked.
    """

    def __call__(
        self,
        sample_shape: tuple[int, ...],
        condition_size: int,
        flow_map: bool = False,
        context_channels: int = 0,
    ) -> nn.Module:
        """Build a network, its weights drawn from torch's global generator.

        Parameters
        ----------
        sample_shape : tuple of int
            Shape of one sample: (d,) for tables, (C, *grid) otherwise.
        condition_size : int
            Elements of a condition.
        flow_map : bool, default=False
            Whether ``forward`` takes the increment of time ``step`` (B,), too.
        context_channels : int, default=0
            The last ``context_channels * prod(grid)`` elements of a condition are a grid that is read beside the
            input; for a table they are elements that enter beside it.

        Returns
        -------
        torch.nn.Module
            In training mode, on the CPU.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or samples of that shape do not suit the network.
        """
        self.validate()
        return self.build(Sizes(tuple(sample_shape), condition_size, flow_map, context_channels))

    @abstractmethod
    def build(self, sizes: Sizes) -> nn.Module:
        """Build a network from valid parameters.

        Parameters
        ----------
        sizes : Sizes
            What it is built for.

        Returns
        -------
        torch.nn.Module
            In training mode, on the CPU.
        """
