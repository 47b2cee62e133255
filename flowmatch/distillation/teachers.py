"""What a student looks at: the velocity of its teacher, guidance included."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from flowmatch.flow import expand_time


def midpoint_rollout(velocity: Any, x: Tensor, times: Tensor, condition: Tensor | None) -> Tensor:
    """States along a velocity, by one midpoint step between any two times, which are each row's own.

    Parameters
    ----------
    velocity : callable ``(x, t, condition) -> (B, *sample_shape)``
    x : Tensor of shape (B, *sample_shape)
        Where to start.
    times : Tensor of shape (n_substeps + 1, B)
        Decreasing times go back.
    condition : Tensor of shape (B, k), optional

    Returns
    -------
    Tensor of shape (n_substeps + 1, B, *sample_shape)
    """
    states = [x]
    for t, t_next in itertools.pairwise(times):
        step = t_next - t
        states.append(states[-1] + expand_time(step, x) * midpoint_velocity(velocity, states[-1], t, step, condition))
    return torch.stack(states)


def midpoint_velocity(velocity: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None) -> Tensor:
    """The mean velocity of one midpoint step from time t to t + step of each row; at a step of 0 the velocity."""
    half = 0.5 * step
    return velocity(x + expand_time(half, x) * velocity(x, t, condition), t + half, condition)


def jump_rollout(flow_map: Any, x: Tensor, times: Tensor, condition: Tensor | None) -> Tensor:
    """States along a flow map ``(x, t, condition, step)``, by jumps; otherwise as `midpoint_rollout`."""
    states = [x]
    for t, t_next in itertools.pairwise(times):
        x = x + expand_time(t_next - t, x) * flow_map(x, t, condition, t_next - t)
        states.append(x)
    return torch.stack(states)
