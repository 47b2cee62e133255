"""Forward-mode derivatives of flow maps, and a check that a network has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp

from flowmatch.core.randomness import GlobalDraws

_INSTEAD = {
    "BatchNorm": "LayerNorm or GroupNorm",
    "SyncBatchNorm": "LayerNorm or GroupNorm",
    "InstanceNorm": "GroupNorm without running statistics",
    "MultiheadAttention": "attention as plain matrix products, as in flowmatch.networks.Transformer",
    "Transformer": "attention as plain matrix products, as in flowmatch.networks.Transformer",
    "LSTM": "an MLP or convolutions",
}


def derivative_along(
    network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None, direction: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Value ``U(x, t, d)`` and its derivative along a direction of (x, t, d), each (B, *sample_shape)."""
    value, derivative, *_ = jvp(lambda x, t, step: network(x, t, condition, step), (x, t, step), direction)
    return value, derivative


def derivative_in_step(
    network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Value ``U(x, t, d)`` and ``dU/dd``, each (B, *sample_shape)."""
    value, derivative, *_ = jvp(lambda step: network(x, t, condition, step), (step,), (torch.ones_like(step),))
    return value, derivative


def check_forward_derivative(network: nn.Module, like: Tensor, condition_size: int, what: str) -> None:
    """Raise a ValueError unless a flow map has a forward-mode derivative, and the derivative a gradient.

    Parameters
    ----------
    network : nn.Module ``(x, t, condition, step) -> (B, *sample_shape)``
    like : Tensor of shape sample_shape
        Gives device and dtype.
    condition_size : int
    what : str
        The parameter that asks for derivatives, for the message.

    Raises
    ------
    ValueError
        That names the layer which has none, and what to use instead.
    """
    path: list[str] = []

    def leave(*_: Any) -> None:
        path.pop()

    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        hooks.append(module.register_forward_hook(leave))
    x, t = like.new_zeros(2, *like.shape), like.new_full((2,), 0.25)
    condition = like.new_ones(2, condition_size) if condition_size else None
    # a look must leave no trace, such as the running statistics of a normalisation
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    modes = {module: module.training for module in network.modules()}
    try:
        with GlobalDraws(like.device).in_place():
            value, slope = derivative_along(network.train(), x, t, 2 * t, condition, (x, torch.ones_like(t), -4 * t))
            (value + slope).sum().backward()
    except RuntimeError as error:  # also what lacks a derivative
        raise ValueError(f"{what} {_explain(network, path)}: {str(error).splitlines()[0]}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])


def _explain(network: nn.Module, path: list[str]) -> str:
    """Which layer was being run, and what could stand in its place."""
    name = path[-1] if path else ""
    layer = type(network.get_submodule(name)).__name__
    instead = next((better for start, better in _INSTEAD.items() if layer.startswith(start)), None)
    where = f"its layer {name!r} ({layer})" if name else layer
    advice = f"use {instead} instead" if instead else "use layers made of plain tensor operations"
    return f"needs forward-mode derivatives (torch.func.jvp) of the network, which {where} does not have; {advice}"
