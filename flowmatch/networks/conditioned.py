"""What all networks share: conditions that may be missing, and activations that may be recomputed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from flowmatch.networks.dropout import dropout_generator, same_masks

Module = TypeVar("Module", bound=nn.Module)


class ConditionedNetwork(nn.Module):
    """Base of the networks with signature ``forward(x, t, condition=None, step=None)``.

    `condition` is (B, condition_size); ``None`` and zeros stand for "no condition". Its last entries may be a grid of
    `context_channels` channels on the grid of `x`, flattened: a network that knows neighborhoods reads it beside its
    input. `step` is a flow map's increment, refused by a network that was built without it.

    Parameters
    ----------
    condition_size : int
        Elements of a condition.
    context_channels : int, default=0
        Channels of the grid that a condition ends in.

    Attributes
    ----------
    activation_checkpointing : bool
        Whether training recomputes the activations inside blocks instead of keeping them.
    """

    activation_checkpointing = False

    def __init__(self, condition_size: int, context_channels: int = 0) -> None:
        super().__init__()
        self.condition_size, self.context_channels = condition_size, context_channels

    def _condition_or_zeros(self, condition: Tensor | None, like: Tensor) -> Tensor:
        if condition is None:
            return like.new_zeros(len(like), self.condition_size)
        if condition.shape[1] != self.condition_size:
            raise ValueError(
                f"the network was built for conditions of {self.condition_size} elements, but got {condition.shape[1]}."
            )
        return condition

    def _split_condition(self, condition: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
        """The vector part (B, k) of a condition, and `x` with the grid part as further channels."""
        condition = self._condition_or_zeros(condition, x)
        if self.context_channels == 0:
            return condition, x
        size = self.context_channels * math.prod(x.shape[2:])
        grid = condition[:, condition.shape[1] - size :].reshape(len(x), self.context_channels, *x.shape[2:])
        return condition[:, : condition.shape[1] - size], torch.cat([x, grid], dim=1)

    def _run(self, block: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Run a block; with activation checkpointing its activations are computed again in the backward pass.

        Not under `torch.func.jvp`: what is computed again would lack the tangents.
        """
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        if not recompute or has_tangent(*arguments):
            return block(*arguments)
        generator = dropout_generator(self)
        if generator is None or torch.compiler.is_compiling():
            return checkpoint(block, *arguments, use_reentrant=False)
        return checkpoint(block, *arguments, use_reentrant=False, context_fn=functools.partial(same_masks, generator))


def has_tangent(*values: Any) -> bool:
    """Whether one of the tensors is being differentiated in forward mode, as `torch.func.jvp` does."""
    return any(isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None for value in values)


def zero_initialized(layer: Module) -> Module:
    """Start a layer at zero, so that the network starts as zero or the block as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def check_grid(kind: str, sample_shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless samples are grids (C, *grid) of one to three axes, none of them empty."""
    if not 2 <= len(sample_shape) <= 4:
        raise ValueError(
            f"network={kind!r} needs signals (C, L), images (C, H, W) or fields (C, D, H, W), but samples have shape "
            f"{sample_shape}; use network='mlp' for tables."
        )
    if min(sample_shape) < 1:
        raise ValueError(
            f"network={kind!r} needs at least one channel and one point on every axis, got {sample_shape}."
        )
