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
    """A conditional velocity with guidance.

    ``v = v(x, t, null) + scale * (v(x, t, c) - v(x, t, null))`` (Ho and Salimans, 2022, eq. 6, with w + 1 = scale).
    Scale 1 is exactly the conditional field and scale 0 the unconditional one, each at one evaluation a row; any
    other scale evaluates both in one call on twice the rows.

    Parameters
    ----------
    velocity : callable
        A field ``(x, t, condition) -> (B, *sample_shape)``.
    x : Tensor of shape (B, *sample_shape)
        States.
    t : Tensor of shape (B,)
        Times.
    condition : Tensor of shape (B, k), or None
        None for an unconditional field.
    scale : float, default=1.0
        How far to go from the unconditional field to the conditional one.
    n_kept : int, default=0
        So many elements at the end of a condition are not guided by, but known: the entries of a row that are given.

    Returns
    -------
    Tensor of shape (B, *sample_shape)
        The guided velocity.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import guided_velocity
    >>> towards = lambda x, t, condition: condition - x
    >>> guided_velocity(towards, torch.zeros(1, 2), torch.zeros(1), torch.ones(1, 2), scale=3.0)
    tensor([[3., 3.]])
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
    velocity : callable
        A field ``(x, t, condition) -> (B, *sample_shape)``.
    condition : Tensor of shape (B, k), or None
        None for an unconditional field.
    scale : float, default=1.0
        See `guided_velocity`.
    n_kept : int, default=0
        See `guided_velocity`.

    Returns
    -------
    callable
        A velocity ``(x, t) -> (B, *sample_shape)`` with a 0-d `t`.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import guide, integrate, time_grid
    >>> velocity = guide(lambda x, t, condition: condition - x, torch.ones(1, 2))
    >>> integrate(velocity, torch.zeros(1, 2), time_grid(1), "euler")
    tensor([[1., 1.]])
    """
    return lambda x, t: guided_velocity(velocity, x, t.expand(len(x)), condition, scale, n_kept)
