"""MeanFlow: a flow map learned from data alone, for samples in one or a few evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowmatch.core.checks import check_choice, check_number, check_output, checked
from flowmatch.core.component import Component, resolve_component
from flowmatch.core.entries import without_labels
from flowmatch.core.types import Rng
from flowmatch.flow import STEP_SAMPLERS, BetaSteps, StepSampler, expand_time
from flowmatch.objectives.derivatives import derivative_along
from flowmatch.objectives.velocity import VelocityObjective
from flowmatch.objectives.weights import LOSS_WEIGHTS, AdaptiveWeight, LossWeight

VELOCITIES = ("learned", "conditional")


class Objective(Component):
    """What kind of field a generator learns, and how; see `FlowMatching` and `MeanFlow`.

    Attributes
    ----------
    flow_map : bool
        Whether the network is a flow map, which takes the increment too.
    """

    flow_map = False


@dataclass(frozen=True)
class FlowMatching(Objective):
    """Learn the velocity: conditional flow matching (Lipman et al., 2023).

    Examples
    --------
    >>> from flowmatch.objectives import FlowMatching
    >>> FlowMatching().flow_map
    False
    """


def _check_step_sampler(name: str, value: Any) -> None:
    resolve_component(name, value, StepSampler, STEP_SAMPLERS).check()


@dataclass(frozen=True)
class MeanFlow(Objective):
    """Learn the average velocity over any interval from data, without a teacher (Geng et al., 2025).

    The average velocity U over [t, t + d] satisfies, with the end ``s = t + d`` held fixed and noise at t = 0,

        ``U = v + d dU/dt``,  the derivative along the flow, in the direction ``(v, 1, -1)`` of (x, t, d)

    (MeanFlow identity; Geng et al., 2025, "Mean Flows for One-step Generative Modeling", eq. 6, with time reversed).
    The network is pulled toward the right-hand side, whose gradient is stopped.

    Parameters
    ----------
    flow_ratio : float, default=0.5
        Share of each batch with d = 0, where the loss is plain flow matching.
    velocity : {"learned", "conditional"}, default="learned"
        What stands for v where d > 0. "learned": the network's own ``U(x, t, 0)``, so that the target is free of the
        noise in any single pair. "conditional": the pair's velocity, as in the paper.
    step_sampler : {"uniform", "beta", "fixed", "dyadic", "logit_normal"} or StepSampler, \
default=BetaSteps(b=1.5)
        Jumps (t, d).
    jump_weight : {"adaptive", "uniform", ...} or LossWeight, default=AdaptiveWeight(offset=1.0)
        Further weight of the rows with d > 0. The default, ``1 / (error + 1)``, keeps a wild target from carrying the
        training away. Where d = 0 targets are noisy by nature, and a weight that depends on the error moves the
        minimizer away from the velocity: then more steps give worse samples. That is why the paper's weight, for all
        rows alike, is an option (``loss_weight="adaptive"``) and not the default.
    warmup : float, default=0.4
        Share of the training that learns the velocity alone, which the rest builds on.

    Examples
    --------
    >>> from flowmatch import FlowMatchingGenerator
    >>> from flowmatch.objectives import MeanFlow
    >>> generator = FlowMatchingGenerator(objective=MeanFlow(flow_ratio=0.75))
    """

    flow_ratio: float = checked(0.5, check_number, 0.0, 1.0)
    velocity: str = checked("learned", check_choice, VELOCITIES)
    step_sampler: str | StepSampler = checked(BetaSteps(1.0, 1.5), _check_step_sampler)
    jump_weight: str | LossWeight = checked(AdaptiveWeight(1.0, 1.0), resolve_component, LossWeight, LOSS_WEIGHTS)
    warmup: float = checked(0.4, check_number, 0.0, 1.0)

    flow_map = True


OBJECTIVES: dict[str, Callable[[], Objective]] = {"velocity": FlowMatching, "mean_flow": MeanFlow}


def is_flow_map(objective: Any) -> bool:
    """Whether an objective asks for a flow map.

    Parameters
    ----------
    objective : str or Objective
        As estimators take it.

    Returns
    -------
    bool
        False for what is neither.

    Examples
    --------
    >>> from flowmatch.objectives import is_flow_map
    >>> is_flow_map("velocity"), is_flow_map("mean_flow")
    (False, True)
    """
    kind = OBJECTIVES.get(objective) if isinstance(objective, str) else objective
    return bool(getattr(kind, "flow_map", False))


@dataclass(frozen=True)
class MeanFlowObjective(VelocityObjective):
    """The loss of a flow map ``network(x, t, condition, step)``, see `MeanFlow`.

    Parameters
    ----------
    path, source, coupling, time_sampler, source_scale, loss, weight, condition_dropout, conditions_are_classes, crop, \
is_masked, has_gaps : object
        See `VelocityObjective`.
    settings : MeanFlow, default=MeanFlow()
        Its parameters.
    guidance_scale : float, default=1.0
        The field that is learned under a condition is the guided one (Geng et al., 2025, section 4.2): the pair's
        velocity v_c gives way to ``U(x, t, 0 | null) + scale * (v_c - U(x, t, 0 | null))``.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import IndependentCoupling, LinearPath, NormalSource, UniformTimes
    >>> from flowmatch.networks import MLP
    >>> from flowmatch.objectives import MeanFlowObjective
    >>> parts = LinearPath(), NormalSource(), IndependentCoupling(), UniformTimes()
    >>> objective = MeanFlowObjective(*parts, source_scale=torch.ones(2))
    >>> objective(MLP()((2,), 0, flow_map=True), torch.zeros(8, 2)).shape
    torch.Size([8])
    """

    settings: MeanFlow = MeanFlow()
    guidance_scale: float = 1.0

    def __call__(self, network: Any, x1: Tensor, condition: Tensor | None = None, generator: Rng = None) -> Tensor:
        """Draw noise, times and increments, and return the loss of each sample, shape (B,)."""
        x0, x1 = self.draw_pairs(x1, condition, generator)
        n_still = round(self.settings.flow_ratio * len(x1))
        still = self.draw_times(n_still, generator)
        sampler = resolve_component("step_sampler", self.settings.step_sampler, StepSampler, STEP_SAMPLERS)
        t, step = sampler.draw(len(x1) - n_still, generator, still.device, still.dtype)
        first = self.path.first_time
        t = torch.cat([still, first + (1 - first) * t])
        step = torch.cat([torch.zeros_like(still), (1 - first) * step])
        return self.jump_loss(network, x0, x1, t, step, self.hide_conditions(condition, generator), n_still)

    def jump_loss(
        self,
        network: Any,
        x0: Tensor,
        x1: Tensor,
        t: Tensor,
        step: Tensor,
        condition: Tensor | None = None,
        n_still: int = 0,
    ) -> Tensor:
        """Loss of each sample for given noise, times and increments.

        Parameters
        ----------
        network : callable
            The flow map ``U(x, t, condition, step)``.
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        t, step : Tensor of shape (B,)
            Times and increments.
        condition : Tensor of shape (B, k), optional
            Conditions.
        n_still : int, default=0
            How many of the increments, from the first, are 0.

        Returns
        -------
        Tensor of shape (B,)
            The losses.
        """
        x = self.path.interpolate(x0, x1, t)
        velocity = self._guided(network, self.path.velocity(x0, x1, t), x, t, condition)
        still, moving = slice(0, n_still), slice(n_still, None)
        known = None if condition is None else condition[moving]
        target = self.target(network, x[moving], t[moving], step[moving], known, velocity[moving])
        predicted = check_output(network, network(x, t, condition, step), x)
        residual = predicted - torch.cat([velocity[still], target])
        loss = self.weigh(residual, t)
        error = residual[moving].square().flatten(1).mean(1)
        weight = resolve_component("jump_weight", self.settings.jump_weight, LossWeight, LOSS_WEIGHTS)
        return torch.cat([loss[still], weight(t[moving], error, self.path) * loss[moving]])

    def target(
        self, network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None, velocity: Tensor
    ) -> Tensor:
        """The right-hand side of the MeanFlow identity, without gradient.

        Parameters
        ----------
        network : callable
            The flow map ``U(x, t, condition, step)``.
        x : Tensor of shape (B, *sample_shape)
            States.
        t, step : Tensor of shape (B,)
            Times and increments.
        condition : Tensor of shape (B, k) or None
            Conditions.
        velocity : Tensor of shape (B, *sample_shape)
            Velocities of the pairs.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            The targets.
        """
        with torch.no_grad():
            if self.settings.velocity == "learned":
                velocity = check_output(network, network(x, t, condition, torch.zeros_like(t)), x)
            # the end of the interval stays where it is, so the increment shrinks as t grows
            direction = (velocity, torch.ones_like(t), -torch.ones_like(t))
            _, slope = derivative_along(network, x, t, step, condition, direction)
            return velocity + expand_time(step, x) * slope

    def residual_loss(self, network: Any, x0: Tensor, x1: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Loss of the velocity ``U(x, t, 0)`` alone: what the warm-up minimizes.

        Parameters
        ----------
        network : callable
            The flow map ``U(x, t, condition, step)``.
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        t : Tensor of shape (B,)
            Times.
        condition : Tensor of shape (B, k), optional
            Conditions.

        Returns
        -------
        Tensor of shape (B,)
            The losses.
        """
        x = self.path.interpolate(x0, x1, t)
        velocity = self._guided(network, self.path.velocity(x0, x1, t), x, t, condition)
        predicted = check_output(network, network(x, t, condition, torch.zeros_like(t)), x)
        return self.weigh(predicted - velocity, t)

    def _guided(self, network: Any, velocity: Tensor, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None or self.guidance_scale == 1.0:
            return velocity
        with torch.no_grad():
            unconditional = network(x, t, without_labels(condition, self.n_kept), torch.zeros_like(t))
        shown = expand_time((condition[:, : condition.shape[1] - self.n_kept] != 0).any(1), x)
        return torch.where(shown, unconditional + self.guidance_scale * (velocity - unconditional), velocity)


@dataclass(frozen=True)
class InstantVelocityObjective(MeanFlowObjective):
    """The same loss where all increments are 0.

    Parameters
    ----------
    path, source, coupling, time_sampler, source_scale, loss, weight, condition_dropout, conditions_are_classes, crop, \
is_masked, has_gaps : object
        See `VelocityObjective`.
    settings : MeanFlow, default=MeanFlow()
        Its parameters.
    guidance_scale : float, default=1.0
        The field that is learned under a condition is the guided one (Geng et al., 2025, section 4.2): the pair's
        velocity v_c gives way to ``U(x, t, 0 | null) + scale * (v_c - U(x, t, 0 | null))``.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import IndependentCoupling, LinearPath, NormalSource, UniformTimes
    >>> from flowmatch.networks import MLP
    >>> from flowmatch.objectives import InstantVelocityObjective
    >>> parts = LinearPath(), NormalSource(), IndependentCoupling(), UniformTimes()
    >>> objective = InstantVelocityObjective(*parts, source_scale=torch.ones(2))
    >>> objective(MLP()((2,), 0, flow_map=True), torch.zeros(8, 2)).shape
    torch.Size([8])
    """

    def __call__(self, network: Any, x1: Tensor, condition: Tensor | None = None, generator: Rng = None) -> Tensor:
        return VelocityObjective.__call__(self, network, x1, condition, generator)
