"""Following a fitted flow: which solver and steps a call means, and codes carried from noise to data or back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flowmatch.core.batches import rows_per_batch
from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.memory import Batches
from flowmatch.core.progress import progress
from flowmatch.core.randomness import generator_on
from flowmatch.flow import ADAPTIVE, FIXED_STEP, follow, guide, integrate
from flowmatch.model.flow_model import MOST_STEPS, FlowMap, FlowModel

_TRIED = 4

SOLVERS = ("auto", "flow_map", *FIXED_STEP, *ADAPTIVE)


@dataclass(frozen=True)
class Integration:
    """How to follow a flow.

    Attributes
    ----------
    solver : str
        "flow_map", or a solver of `flowmatch.flow.integrate`.
    n_steps : int
        Of the fixed-step solvers.
    guidance_scale : float
    batch_size : int or None
        Rows carried together; None takes what the device likes.
    verbose : bool or int
        Show a progress bar.
    batches : Batches
        Halves them where memory does not suffice.
    """

    solver: str
    n_steps: int
    guidance_scale: float = 1.0
    batch_size: int | None = None
    verbose: bool | int = False
    batches: Batches = field(default_factory=lambda: Batches("following the flow"), compare=False, repr=False)


def check_solver(solver: str, n_steps: int | None) -> None:
    """Check an estimator's own `solver` and `n_steps`.

    Raises
    ------
    ValueError
        For an unknown solver, a bad number of steps, and steps of a solver that chooses its own.
    """
    check_choice("solver", solver, SOLVERS)
    if n_steps is not None:
        check_steps(n_steps)
        if solver in ADAPTIVE:
            raise ValueError(
                f"n_steps={n_steps} has no effect with solver={solver!r}, which chooses its steps while it runs: leave "
                f"n_steps at None, or take a solver of fixed steps ({', '.join(map(repr, FIXED_STEP))})."
            )


def check_steps(n_steps: int) -> None:
    """Raise a ValueError for a number of steps that no solver should make."""
    if check_count("n_steps", n_steps) > MOST_STEPS:
        raise ValueError(
            f"n_steps must be an integer of at most {MOST_STEPS}, got {n_steps!r}: more steps gain nothing."
        )


def choose_steps(
    model: FlowModel,
    own: tuple[str, int | None],
    solver: str | None = None,
    n_steps: int | None = None,
    *,
    velocity: bool = False,
) -> tuple[str, int]:
    """What a call's `solver` and `n_steps`, or those an estimator has of its `own`, come to.

    Parameters
    ----------
    model : FlowModel
    own : tuple of str and (int or None)
        The estimator's parameters.
    solver, n_steps : optional
        The call's arguments.
    velocity : bool
        The call needs a velocity. A flow map has one, so parameters that ask for its steps count as "auto".

    Returns
    -------
    solver : str
    n_steps : int

    Raises
    ------
    ValueError
        For values out of range, and "flow_map" where there is no flow map or no use for one.
    """
    chosen = own[0] if solver is None else solver
    check_solver(chosen, own[1] if solver is n_steps is None else n_steps)  # they may have changed since the fit
    if solver == "flow_map" and velocity:
        raise _no_flow_map("this method integrates a velocity")
    if velocity and chosen == "flow_map":
        chosen = "auto"
    if chosen == "flow_map" and not model.is_flow_map:
        raise _no_flow_map("this model predicts a velocity")
    # an estimator's own number of steps may be one of few steps, which are too few for a velocity
    few = velocity and chosen == "auto" and model.defaults.solver != "midpoint"
    steps = own[1] if n_steps is None and not few else n_steps
    if steps is not None:
        check_steps(steps)
    if chosen == "auto":
        chosen = "midpoint" if velocity else model.defaults.solver
        measured = model.defaults.velocity_steps if velocity else model.defaults.n_steps
    else:
        measured = model.defaults.n_steps if chosen == model.defaults.solver else model.defaults.velocity_steps
    return chosen, int(measured if steps is None else steps)


def sampling_steps(
    model: FlowModel,
    own: tuple[str, int | None, float],
    n_steps: int | None = None,
    solver: str | None = None,
    guidance_scale: float | None = None,
    batch_size: int | None = None,
    *,
    verbose: bool | int = False,
) -> Integration:
    """How a call draws samples; None stands for what the estimator has of its `own`.

    Parameters
    ----------
    model : FlowModel
    own : tuple of str, int or None, and float
        The estimator's solver, steps and guidance.
    n_steps, solver, guidance_scale, batch_size
        The call's arguments.
    verbose : bool or int
        Show a progress bar.

    Raises
    ------
    ValueError
        For values that are out of range, or that the model has not learned.
    """
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size)
    scale = own[2] if guidance_scale is None else check_number("guidance_scale", guidance_scale, -math.inf)
    check_guidance(model, scale)
    return Integration(*choose_steps(model, own[:2], solver, n_steps), scale, batch_size, verbose)


def coding_steps(
    model: FlowModel,
    own: tuple[str, int | None],
    solver: str | None,
    n_steps: int | None,
    *,
    backward: bool,
    verbose: bool | int = False,
) -> Integration:
    """How a call computes codes, or rows of codes, so that the two undo each other; arguments as of `choose_steps`.

    By the velocity, unless steps were learned both ways.
    """
    both_ways = isinstance(model.kind, FlowMap) and model.kind.bidirectional
    by_steps = both_ways or (solver == "flow_map" and not backward)
    return Integration(*choose_steps(model, own, solver, n_steps, velocity=not by_steps), verbose=verbose)


def _no_flow_map(reason: str) -> ValueError:
    return ValueError(f"solver='flow_map' takes the steps of a flow map, but {reason}; take solver='midpoint'.")


def check_guidance(model: FlowModel, scale: float) -> None:
    """Raise a ValueError for a guidance that the model has not learned."""
    if isinstance(model.kind, FlowMap) and scale != model.kind.guidance_scale:
        raise ValueError(
            f"guidance_scale={scale:g}, but this model's steps were learned with "
            f"guidance_scale={model.kind.guidance_scale:g}, which cannot be changed afterwards: fit or distil it anew."
        )
    check_unconditional(scale, model.conditions is not None, model.condition_dropout)


def check_unconditional(scale: float, has_conditions: bool, condition_dropout: float) -> None:
    """Raise a ValueError for a guidance without an unconditional distribution to start from."""
    if scale == 1.0:
        return
    if abs(scale) > torch.finfo(torch.float32).max:
        raise ValueError(f"guidance_scale must be a number that a float32 can hold, got {scale!r}.")
    if not has_conditions:
        raise ValueError(f"guidance_scale={scale:g} needs conditions, but the model has none: fit with y.")
    if condition_dropout == 0:
        raise ValueError(
            f"guidance_scale={scale:g} needs a model that also learned the unconditional distribution: fit with "
            "condition_dropout > 0, such as 0.1."
        )


def gives_finite_samples(model: FlowModel, network: nn.Module) -> bool:
    """Whether a network in place of the model's carries noise to finite codes, tried with a few samples.

    A finite loss does not say so: a velocity that is far too steep makes solvers leave the floating point numbers.
    """
    noise = model.source.draw(_TRIED, generator_on(model.device, 0))
    size = model.condition_size + model.blueprint.n_kept
    condition = torch.zeros(_TRIED, size, device=model.device) if size else None
    integration = Integration("flow_map" if model.is_flow_map else "midpoint", model.defaults.velocity_steps)
    return bool(carry(model, noise, condition, integration, network=network).isfinite().all())


def carry(
    model: FlowModel,
    x: Tensor,
    condition: Tensor | None,
    integration: Integration,
    *,
    backward: bool = False,
    network: nn.Module | None = None,
    return_trajectory: bool = False,
) -> Tensor:
    """Carry noise to data (or back) in batches; a row's result does not depend on the batches.

    Parameters
    ----------
    model : FlowModel
    x : Tensor of shape (B, *code_shape)
    condition : Tensor of shape (B, k), or None
        Vectors of conditions, which may end in what is known of a row's entries.
    integration : Integration
    backward : bool
        From data to noise.
    network : nn.Module, optional
        In place of the model's, such as a copy in double precision.
    return_trajectory : bool
        Return the states at all times, (n_steps + 1, B, *code_shape).

    Returns
    -------
    Tensor of shape (B, *code_shape)
    """
    solver, scale = integration.solver, integration.guidance_scale
    times = model.times(integration.n_steps, solver, x)
    times = times.flip(0) if backward else times
    network = model.network if network is None else network
    if model.is_flow_map and solver != "flow_map":
        network, scale = model.as_velocity(network), 1.0  # guided already
    n_kept = 0 if condition is None else condition.shape[1] - model.condition_size

    def follow_batch(part: Tensor, known: Tensor | None) -> Tensor:
        if solver == "flow_map":
            return follow(
                lambda x, t, step: network(x, t, known, step), part, times, return_trajectory=return_trajectory
            )
        velocity = guide(network, known, scale, n_kept)
        return integrate(velocity, part, times, solver, return_trajectory=return_trajectory)

    rows = integration.batch_size or rows_per_batch(tuple(x.shape[1:]), x.device)
    batches = progress(split_alike(rows, x, condition), "encoding" if backward else "sampling", integration.verbose)
    with torch.no_grad():
        parts = [part for batch in batches for part in integration.batches.run(follow_batch, *batch)]
    return torch.cat(parts, dim=1 if return_trajectory else 0)


def split_alike(size: int, x: Tensor, *others: Tensor | None) -> list[tuple[Any, ...]]:
    """Batches of rows of x, and the same rows of the others, None where there are none."""
    parts = x.split(size)
    beside = [[None] * len(parts) if other is None else other.split(size) for other in others]
    return list(zip(parts, *beside, strict=True))
