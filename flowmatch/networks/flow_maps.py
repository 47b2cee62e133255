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
    flow_map : torch.nn.Module
        Changed in place.
    velocity : torch.nn.Module
        Left as it is.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP, start_from_velocity
    >>> velocity, flow_map = MLP()((2,), 0), MLP()((2,), 0, flow_map=True)
    >>> start_from_velocity(flow_map, velocity)
    >>> x, t = torch.zeros(3, 2), torch.rand(3)
    >>> torch.equal(flow_map(x, t, step=1 - t), velocity(x, t))
    True
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
                first, last = columns[name].start, columns[name].stop
                value.zero_()[:, :first] = known[name][:, :first]
                value[:, last:] = known[name][:, first:]
            elif name in known and known[name].shape == value.shape:
                value.copy_(known[name])


class InstantVelocity(nn.Module):
    """The velocity of a flow map, ``U(x, t, 0)``, as a network of its own.

    Parameters
    ----------
    flow_map : torch.nn.Module
        Called as ``flow_map(x, t, condition, step)``.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP, InstantVelocity
    >>> InstantVelocity(MLP()((2,), 0, flow_map=True))(torch.zeros(3, 2), torch.rand(3)).shape
    torch.Size([3, 2])
    """

    def __init__(self, flow_map: nn.Module) -> None:
        super().__init__()
        self.flow_map = flow_map

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.flow_map(x, t, condition, torch.zeros_like(t))
