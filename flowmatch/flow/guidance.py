"""Classifier-free guidance in one batched evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowmatch.core.entries import without_labels
from flowmatch.flow.solvers import Velocity

ConditionalVelocity = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A velocity ``v(x, t, condition)`` with `t` of shape (B,); a row of zeros in `condition` stands for "no condition"."""


def guided_velocity(
    velocity: ConditionalVelocity,
    x: Tensor,
    t: Tensor,
    condition: Tensor | None,
    scale: float = 1.0,
    n_kept: int = 0,
) -> Tensor:
    """A conditional velocity with guidance, (B, *sample_shape).

    ``v = v(x, t, null) + scale * (v(x, t, c) - v(x, t, null))`` (Ho and Salimans, 2022, eq. 6, with w + 1 = scale).
    Scale 1 is exactly the conditional field and scale 0 the unconditional one, each at one evaluation a row; any
    other scale evaluates both in one call on twice the rows.

    Parameters
    ----------
    velocity : callable ``(x, t, condition) -> (B, *sample_shape)``
    x : Tensor of shape (B, *sample_shape)
    t : Tensor of shape (B,)
    condition : Tensor of shape (B, k), or None for an unconditional field
    scale : float
    n_kept : int
        So many numbers at the end of a condition are not guided by, but known: the cells of a row that are given.
    """
    if condition is None or scale == 1.0:
        return velocity(x, t, condition)
    null = without_labels(condition, n_kept)
    if scale == 0.0:
        return velocity(x, t, null)
    both = velocity(torch.cat([x, x]), torch.cat([t, t]), torch.cat([condition, null]))
    conditional, unconditional = both[: len(x)], both[len(x) :]  # halves that a program for any batch can state
    return torch.lerp(unconditional, conditional, scale)


def guide(velocity: ConditionalVelocity, condition: Tensor | None, scale: float = 1.0, n_kept: int = 0) -> Velocity:
    """Bind a condition to a conditional velocity, with guidance: `guided_velocity` for the solvers.

    Parameters
    ----------
    velocity : callable ``(x, t, condition) -> (B, *sample_shape)``
    condition : Tensor of shape (B, k), or None for an unconditional field
    scale : float
    n_kept : int
        See `guided_velocity`.

    Returns
    -------
    callable ``(x, t) -> (B, *sample_shape)``; `t` is 0-d
    """
    return lambda x, t: guided_velocity(velocity, x, t.expand(len(x)), condition, scale, n_kept)
