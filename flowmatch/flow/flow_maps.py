"""Flow maps: jumps ``F_d(x, t) = x + d U(x, t, d)`` of any length, instead of many small steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from flowmatch.core.types import Device, DType
from flowmatch.flow.paths import expand_time

AverageVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``U(x, t, step)``, the mean of the velocity along the path from time t to t + step; `t` and `step` are (B,)."""


def jump(average_velocity: AverageVelocity, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
    """The flow map ``F_d(x, t) = x + d U(x, t, d)``, one evaluation.

    Three properties make U an average velocity (Boffi et al., 2024, "Flow Map Matching", section 3): ``F_0`` is the
    identity, ``dF_d/dd`` at 0 is the velocity, and ``F_{p+q}(x, t) = F_p(F_q(x, t), t + q)``.

    Parameters
    ----------
    average_velocity : callable
        The flow map's ``(x, t, step) -> (B, *sample_shape)``.
    x : Tensor of shape (B, *sample_shape)
        States at time `t`.
    t, step : Tensor of shape (B,)
        Times and increments; ``t`` and ``t + step`` lie in [0, 1].

    Returns
    -------
    Tensor of shape (B, *sample_shape)
        States at time ``t + step``.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import jump
    >>> steady = lambda x, t, step: torch.ones_like(x)
    >>> jump(steady, torch.zeros(2, 1), torch.zeros(2), torch.tensor([0.5, 1.0]))
    tensor([[0.5000],
            [1.0000]])
    """
    return x + expand_time(step, x) * average_velocity(x, t, step)


def follow(average_velocity: AverageVelocity, x: Tensor, times: Tensor, *, return_trajectory: bool = False) -> Tensor:
    """Carry `x` over the grid `times` by one jump an interval; a row's result never depends on the other rows.

    Parameters
    ----------
    average_velocity : callable
        The flow map's ``(x, t, step) -> (B, *sample_shape)``.
    x : Tensor of shape (B, *sample_shape)
        Where to start.
    times : Tensor of shape (n_steps + 1,)
        Monotone grid in [0, 1]; decreasing times jump backwards.
    return_trajectory : bool, default=False
        Return the states at all times instead of the last one.

    Returns
    -------
    Tensor of shape (B, *sample_shape), or (n_steps + 1, B, *sample_shape) with `return_trajectory`
        The state at the last time, or those at all times.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import follow
    >>> decay = lambda x, t, step: x * (torch.expm1(-step) / step)[:, None]
    >>> follow(decay, torch.ones(1, 1), torch.tensor([0.0, 1.0]))
    tensor([[0.3679]])
    """
    states = [x]
    for t, t_next in itertools.pairwise(times):
        x = jump(average_velocity, x, t.expand(len(x)), (t_next - t).expand(len(x)))
        if return_trajectory:
            states.append(x)
    return torch.stack(states) if return_trajectory else x


def jump_grid(n_steps: int, first_time: float = 0.0, *, device: Device = None, dtype: DType = None) -> Tensor:
    """Grid of jumps from `first_time` to 1 whose lengths are halves of halves of the whole.

    Even for powers of two. For other numbers the last intervals of the next smaller power are halved, so that every
    jump is one that a flow map is trained on, also where it only knows ``1, 1/2, 1/4, ...`` of the way.

    Parameters
    ----------
    n_steps : int
        The number of jumps.
    first_time : float, default=0.0
        Where they start.
    device : torch.device, optional
        Where the grid is made.
    dtype : torch.dtype, optional
        Its type.

    Returns
    -------
    Tensor of shape (n_steps + 1,)
        Increasing times.

    Examples
    --------
    >>> from flowmatch.flow import jump_grid
    >>> jump_grid(3)
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    coarse = 2 ** (n_steps.bit_length() - 1)
    whole = 2 * coarse - n_steps  # intervals of the coarse grid that stay whole
    indices = [*range(0, 2 * whole, 2), *range(2 * whole, 2 * coarse + 1)]
    times = torch.tensor(indices, device=device, dtype=dtype or torch.get_default_dtype()) / (2 * coarse)
    return first_time + (1 - first_time) * times
