"""Velocities and flow maps of each other: how a flow map starts, its velocity, and a teacher's that it corrects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowmatch.core.checks import check_output
from flowmatch.flow.guidance import guided_velocity
from flowmatch.flow.paths import expand_time


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


class TeacherVelocity(nn.Module):
    """A frozen velocity with guidance; its weights and its mode stay as they are, whatever holds it.

    Parameters
    ----------
    network : torch.nn.Module
        Called as ``network(x, t, condition)``; frozen in place.
    guidance_scale : float, default=1.0
        See `flowmatch.flow.guided_velocity`.
    n_kept : int, default=0
        See `flowmatch.flow.guided_velocity`.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP, TeacherVelocity
    >>> teacher = TeacherVelocity(MLP()((2,), 0))
    >>> teacher(torch.zeros(3, 2), torch.rand(3)).requires_grad
    False
    """

    def __init__(self, network: nn.Module, guidance_scale: float = 1.0, n_kept: int = 0) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.guidance_scale, self.n_kept = guidance_scale, n_kept

    def train(self, mode: bool = True) -> TeacherVelocity:
        return self

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        # derivatives by x are wanted: they make the density of a student that corrects this velocity
        return guided_velocity(self.network, x, t, condition, self.guidance_scale, self.n_kept)


class CorrectedVelocity(nn.Module):
    """A flow map ``U = v + d (phi - v)``: the teacher's velocity v, and a corrector phi that is trained.

    ``F_d = x + d v + d^2 (phi - v)`` is an Euler step and its correction, so ``F_0`` is the identity and ``dF_d/dd`` at
    0 is v, whatever phi is; with ``phi = v`` it is the Euler step.

    Parameters
    ----------
    velocity : TeacherVelocity
        Kept frozen.
    corrector : torch.nn.Module
        Called as ``corrector(x, t, condition, step)``.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP, CorrectedVelocity, TeacherVelocity
    >>> network = CorrectedVelocity(TeacherVelocity(MLP()((2,), 0)), MLP()((2,), 0, flow_map=True))
    >>> x, t = torch.zeros(3, 2), torch.zeros(3)
    >>> network(x, t, None, 1 - t).shape
    torch.Size([3, 2])
    """

    def __init__(self, velocity: TeacherVelocity, corrector: nn.Module) -> None:
        super().__init__()
        self.velocity, self.corrector = velocity, corrector

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None, step: Tensor) -> Tensor:
        velocity = self.velocity(x, t, condition)
        # not lerp, which wants one dtype: under autocast the networks' may be another than that of `step`
        corrected = check_output(self.corrector, self.corrector(x, t, condition, step), x)
        return velocity + expand_time(step, x) * (corrected - velocity)
