"""Velocities that stay as they are inside of other networks: a teacher's, and a flow map that corrects one."""

from __future__ import annotations

from torch import Tensor, nn

from flowmatch.core.checks import check_output
from flowmatch.flow.guidance import guided_velocity
from flowmatch.flow.paths import expand_time


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
