"""Solvers of dx/dt = velocity(x, t): explicit fixed-step methods, and torchdiffeq's adaptive ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from flowmatch.core.checks import check_count
from flowmatch.core.component import unknown_option
from flowmatch.core.types import Device, DType

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A velocity field ``v(x, t)`` with `x` of shape (B, *sample_shape) and `t` a 0-d tensor."""

Step = Callable[[Velocity, Tensor, Tensor, Tensor], Tensor]


def euler(velocity: Velocity, x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    """One explicit Euler step, order 1, one evaluation."""
    return x + dt * velocity(x, t)


def midpoint(velocity: Velocity, x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    """One explicit midpoint step, order 2, two evaluations."""
    halfway = x + 0.5 * dt * velocity(x, t)
    return x + dt * velocity(halfway, t + 0.5 * dt)


def heun(velocity: Velocity, x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    """One step of Heun's method (the explicit trapezium rule), order 2, two evaluations."""
    slope = velocity(x, t)
    return x + 0.5 * dt * (slope + velocity(x + dt * slope, t + dt))


def rk4(velocity: Velocity, x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    """One step of the classical Runge-Kutta method (Kutta, 1901), order 4, four evaluations."""
    half = 0.5 * dt
    k1 = velocity(x, t)
    k2 = velocity(x + half * k1, t + half)
    k3 = velocity(x + half * k2, t + half)
    k4 = velocity(x + dt * k3, t + dt)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def adams_bashforth_2(velocity: Velocity, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    """The two-step Adams-Bashforth method over the grid `times`, order 2, one evaluation a step.

    On an uneven grid the weights follow from the ratio of neighboring steps (Hairer, Norsett and Wanner, 1993,
    section III.5). The first step is a midpoint step.
    """
    slope = None
    for (t, t_next), previous in zip(itertools.pairwise(times), [None, *times[:-2]], strict=True):
        dt, previous_slope, slope = t_next - t, slope, velocity(x, t)
        if previous is None or previous_slope is None:
            x = x + dt * velocity(x + 0.5 * dt * slope, t + 0.5 * dt)
        else:
            half_ratio = 0.5 * dt / (t - previous)
            x = x + dt * ((1 + half_ratio) * slope - half_ratio * previous_slope)
        yield x


ONE_STEP: dict[str, Step] = {"euler": euler, "midpoint": midpoint, "heun": heun, "rk4": rk4}
FIXED_STEP = (*ONE_STEP, "ab2")
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")

_EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "ab2": 1, "flow_map": 1}  # a step


def integrate(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    method: str = "midpoint",
    *,
    return_trajectory: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """Carry `x` along ``dx/dt = velocity(x, t)`` over the grid `times`.

    With a fixed-step method a row's result never depends on the other rows of `x`. The adaptive methods choose one
    step for the whole batch, so there it does, within their tolerance.

    Parameters
    ----------
    velocity : callable
        The field ``(x, t) -> (B, *sample_shape)``; `t` comes as a 0-d tensor.
    x : Tensor of shape (B, *sample_shape)
        Where to start.
    times : Tensor of shape (n_steps + 1,)
        Monotone grid; decreasing times integrate backwards. Adaptive methods read the grid only as the times at
        which a trajectory is wanted.
    method : str, default="midpoint"
        "euler", "midpoint", "heun", "rk4" or "ab2" (fixed-step); "dopri5", "dopri8", "bosh3", "fehlberg2" or
        "adaptive_heun" (torchdiffeq).
    return_trajectory : bool, default=False
        Return the states at all times instead of the last one.
    rtol, atol : float, default=1e-5
        Tolerances of the adaptive methods.

    Returns
    -------
    Tensor of shape (B, *sample_shape), or (n_steps + 1, B, *sample_shape) with `return_trajectory`
        The state at the last time, or those at all times.

    Raises
    ------
    ValueError
        If the method is unknown.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import integrate
    >>> decay = lambda x, t: -x
    >>> integrate(decay, torch.ones(1, 1), torch.linspace(0, 1, 11), "rk4")
    tensor([[0.3679]])
    """
    if method in ADAPTIVE:
        from torchdiffeq import odeint

        stop_at_the_end = {"step_t": times[-1:]}  # else the last step reaches beyond it, where no field is known
        wanted = times if return_trajectory else times[[0, -1]]
        try:
            states = odeint(
                lambda t, y: velocity(y, t), x, wanted, method=method, rtol=rtol, atol=atol, options=stop_at_the_end
            )
        except AssertionError as error:  # of steps that have become too short for the floating point numbers
            raise ValueError(
                f"solver={method!r} cannot follow this velocity within its tolerances ({error}): take one of fixed "
                "steps, such as 'midpoint', and look whether training has diverged."
            ) from error
        return states if return_trajectory else states[-1]
    if method not in FIXED_STEP:
        raise unknown_option("solver", method, (*FIXED_STEP, *ADAPTIVE))
    later = adams_bashforth_2(velocity, x, times) if method == "ab2" else _steps(ONE_STEP[method], velocity, x, times)
    if return_trajectory:
        return torch.stack([x, *later])
    for state in later:
        x = state
    return x


def _steps(step: Step, velocity: Velocity, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    """The states that a one-step method reaches."""
    for t, t_next in itertools.pairwise(times):
        x = step(velocity, x, t, t_next - t)
        yield x


def time_grid(n_steps: int, first_time: float = 0.0, *, device: Device = None, dtype: DType = None) -> Tensor:
    """Even grid of times from `first_time` to 1.

    Parameters
    ----------
    n_steps : int
        Intervals of the grid.
    first_time : float, default=0.0
        Where it starts.
    device : torch.device, optional
        Where it is made.
    dtype : torch.dtype, optional
        Its type.

    Returns
    -------
    Tensor of shape (n_steps + 1,)
        Increasing times.

    Examples
    --------
    >>> from flowmatch.flow import time_grid
    >>> time_grid(4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.linspace(first_time, 1.0, n_steps + 1, device=device, dtype=dtype)


def n_evaluations(method: str, n_steps: int) -> int:
    """Network evaluations that a fixed-step method makes over `n_steps` steps.

    Parameters
    ----------
    method : str
        "euler", "midpoint", "heun", "rk4" or "ab2", or "flow_map" for the jumps of a flow map.
    n_steps : int
        At least 1.

    Returns
    -------
    int
        Evaluations for each sample; a guided velocity counts as one, though its network sees every sample twice.

    Raises
    ------
    ValueError
        If the method is adaptive (its evaluations depend on the field and the tolerances) or unknown, or
        ``n_steps < 1``.

    Examples
    --------
    >>> from flowmatch.flow import n_evaluations
    >>> n_evaluations("midpoint", 10), n_evaluations("ab2", 10)
    (20, 11)
    """
    if method in ADAPTIVE:
        raise ValueError(
            f"method {method!r} chooses its steps itself, so its number of evaluations is not fixed. Choose one of "
            f"{', '.join(map(repr, _EVALUATIONS))}."
        )
    if method not in _EVALUATIONS:
        raise unknown_option("method", method, _EVALUATIONS)
    first = 1 if method == "ab2" else 0  # its first step is a midpoint step
    return first + _EVALUATIONS[method] * check_count("n_steps", n_steps)
