"""Forward-mode derivatives of flow maps, and a check that a network has them."""

from __future__ import annotations

import copy
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
    """Value of a flow map and its derivative along a direction.

    Parameters
    ----------
    network : callable
        The flow map ``U(x, t, condition, step)``.
    x : Tensor of shape (B, *sample_shape)
        States.
    t, step : Tensor of shape (B,)
        Times and increments.
    condition : Tensor of shape (B, k) or None
        Conditions, held fixed.
    direction : tuple of three Tensors
        Of the shapes of `x`, `t` and `step`.

    Returns
    -------
    value, derivative : Tensor of shape (B, *sample_shape)
        Both from one pass in forward mode.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.objectives import derivative_along
    >>> x, t, step = torch.ones(1, 1), torch.tensor([0.5]), torch.tensor([0.25])
    >>> flow_map = lambda x, t, condition, step: x * t[:, None] * step[:, None]
    >>> derivative_along(flow_map, x, t, step, None, (x, torch.ones(1), -torch.ones(1)))
    (tensor([[0.1250]]), tensor([[-0.1250]]))
    """
    value, derivative, *_ = jvp(lambda x, t, step: network(x, t, condition, step), (x, t, step), direction)
    return value, derivative


def derivative_in_step(
    network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Value of a flow map and its derivative by the increment.

    Parameters
    ----------
    network : callable
        The flow map ``U(x, t, condition, step)``.
    x : Tensor of shape (B, *sample_shape)
        States.
    t, step : Tensor of shape (B,)
        Times and increments.
    condition : Tensor of shape (B, k) or None
        Conditions.

    Returns
    -------
    value, derivative : Tensor of shape (B, *sample_shape)
        Both from one pass in forward mode.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.objectives import derivative_in_step
    >>> flow_map = lambda x, t, condition, step: x * step[:, None] ** 2
    >>> derivative_in_step(flow_map, torch.ones(1, 1), torch.zeros(1), torch.tensor([0.5]), None)
    (tensor([[0.2500]]), tensor([[1.]]))
    """
    value, derivative, *_ = jvp(lambda step: network(x, t, condition, step), (step,), (torch.ones_like(step),))
    return value, derivative


def check_forward_derivative(network: nn.Module, like: Tensor, condition_size: int, what: str) -> None:
    """Check that a flow map has a forward-mode derivative, and the derivative a gradient.

    Parameters
    ----------
    network : torch.nn.Module
        Called as ``network(x, t, condition, step)``; a copy of it is looked at.
    like : Tensor of shape sample_shape
        Gives shape, device and dtype of a sample.
    condition_size : int
        Elements of a condition.
    what : str
        The parameter that asks for derivatives, for the message.

    Raises
    ------
    ValueError
        If not; it names the layer which has none, and what to use instead.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP
    >>> from flowmatch.objectives import check_forward_derivative
    >>> check_forward_derivative(MLP()((2,), 0, flow_map=True), torch.ones(2), 0, "objective='mean_flow'")
    """
    trial, path = copy.deepcopy(network).train(), [""]

    def leave(*_: Any) -> None:
        path.pop()

    for name, module in trial.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: path.append(name))
        module.register_forward_hook(leave)
    x, t = like.new_zeros(2, *like.shape), like.new_full((2,), 0.25)
    condition = like.new_ones(2, condition_size) if condition_size else None
    try:
        with GlobalDraws(like.device).in_place():
            value, slope = derivative_along(trial, x, t, 2 * t, condition, (x, torch.ones_like(t), -4 * t))
            (value + slope).sum().backward()
    except RuntimeError as error:  # also what lacks a derivative
        raise ValueError(f"{what} {_explain(trial, path[-1])}: {str(error).splitlines()[0]}") from error


def _explain(network: nn.Module, name: str) -> str:
    """Which layer was being run, and what could stand in its place."""
    layer = type(network.get_submodule(name)).__name__
    instead = next((better for start, better in _INSTEAD.items() if layer.startswith(start)), None)
    where = f"its layer {name!r} ({layer})" if name else layer
    advice = f"use {instead} instead" if instead else "use layers made of plain tensor operations"
    return f"needs forward-mode derivatives (torch.func.jvp) of the network, which {where} does not have; {advice}"
