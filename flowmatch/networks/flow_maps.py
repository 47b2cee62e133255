"""How the network of a flow map starts: as the velocity it is to sum up."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def start_from_velocity(flow_map: nn.Module, velocity: nn.Module) -> None:
    """Copy a velocity's weights into a flow map of the same kind; what reads the increment starts at zero.

    The flow map then gives the velocity for every increment, so that its jumps are Euler steps. This holds exactly
    for the networks of flowmatch, which say in ``step_columns`` which weights read the increment. In other modules
    every tensor that both have in one shape is copied, and the rest stays as it is.

    Parameters
    ----------
    flow_map : nn.Module
        Changed in place.
    velocity : nn.Module
    """
    known = velocity.state_dict()
    columns = {
        ".".join(filter(None, (prefix, name))): read
        for prefix, module in flow_map.named_modules()
        if hasattr(module, "step_columns")
        for name, read in [module.step_columns]
    }
    with torch.no_grad():
        for name, value in flow_map.state_dict().items():
            if name in columns:
                value.copy_(_with_zero_columns(known[name], columns[name]))
            elif name in known and known[name].shape == value.shape:
                value.copy_(known[name])


def _with_zero_columns(weight: Tensor, columns: slice) -> Tensor:
    """The weight (n_out, n_in) with zeros at `columns` of the result."""
    zeros = weight.new_zeros(len(weight), columns.stop - columns.start)
    return torch.cat([weight[:, : columns.start], zeros, weight[:, columns.start :]], dim=1)


class InstantVelocity(nn.Module):
    """The velocity of a flow map, ``U(x, t, 0)``, as a network of its own."""

    def __init__(self, flow_map: nn.Module) -> None:
        super().__init__()
        self.flow_map = flow_map

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.flow_map(x, t, condition, torch.zeros_like(t))
