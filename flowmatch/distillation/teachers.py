"""What a student looks at: the velocity of its teacher, guidance included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flowmatch.flow import guided_velocity, integrate

JumpingTeacher = Any
"""A flow map ``U(x, t, condition, step)``."""


class TeacherVelocity(nn.Module):
    """A frozen velocity with guidance; its weights and its mode stay as they are, whatever holds it.

    Parameters
    ----------
    network : nn.Module ``(x, t, condition) -> (B, *sample_shape)``
    guidance_scale : float, default=1.0
        See `flowmatch.flow.guided_velocity`.
    """

    def __init__(self, network: nn.Module, guidance_scale: float = 1.0) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.guidance_scale = guidance_scale

    def train(self, mode: bool = True) -> TeacherVelocity:
        return self

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        # derivatives by x are wanted: they make the density of a student that corrects this velocity
        return guided_velocity(self.network, x, t, condition, self.guidance_scale)


def midpoint_rollout(
    velocity: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None, n_substeps: int
) -> Tensor:
    """States along a velocity, by the midpoint method from time t to t + step of each row.

    Parameters
    ----------
    velocity : callable ``(x, t, condition) -> (B, *sample_shape)``
    x : Tensor of shape (B, *sample_shape)
    t, step : Tensor of shape (B,)
        Start and length of each row's interval; a negative step goes back.
    condition : Tensor of shape (B, k), optional
    n_substeps : int

    Returns
    -------
    Tensor of shape (n_substeps + 1, B, *sample_shape)
        At the times ``t + step * j / n_substeps``.
    """
    length = step.view(-1, *[1] * (x.ndim - 1))

    def scaled(x: Tensor, share: Tensor) -> Tensor:
        return length * velocity(x, t + share * step, condition)

    shares = torch.linspace(0, 1, n_substeps + 1, device=x.device, dtype=x.dtype)
    return integrate(scaled, x, shares, "midpoint", return_trajectory=True)


def jump_rollout(
    flow_map: JumpingTeacher, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None, n_substeps: int
) -> Tensor:
    """States along a flow map, one jump a substep; otherwise as `midpoint_rollout`."""
    part = step / n_substeps
    length = part.view(-1, *[1] * (x.ndim - 1))
    states = [x]
    for substep in range(n_substeps):
        states.append(states[-1] + length * flow_map(states[-1], t + substep * part, condition, part))
    return torch.stack(states)
