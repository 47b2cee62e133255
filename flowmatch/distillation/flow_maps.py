"""What a flow map satisfies anywhere on the path: the semigroup property, or the teacher's equation of motion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flowmatch.core.checks import check_output
from flowmatch.distillation.rollouts import SHORT
from flowmatch.flow import StepSampler, expand_time
from flowmatch.objectives import L2Loss, ResidualLoss, VelocityObjective, derivative_in_step


@dataclass(frozen=True)
class FlowMapObjective(ABC):
    """A loss of the flow map's residual at jumps (t, d) from states on the teacher's path.

    Parameters
    ----------
    problem : VelocityObjective
        What the teacher was trained on: states are mixed from noise and data as they were there.
    step_sampler : StepSampler
    loss : ResidualLoss
    both_ways : bool
        Turn every second jump round, on average, so that the student also learns to go back.
    """

    problem: VelocityObjective
    step_sampler: StepSampler
    loss: ResidualLoss = field(default_factory=L2Loss)
    both_ways: bool = False

    def __call__(
        self, network: Any, x1: Tensor, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw noise and jumps, and return the loss of each sample, shape (B,).

        Parameters
        ----------
        network : callable ``(x, t, condition, step) -> (B, *sample_shape)``
            The flow map's average velocity.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        condition : Tensor of shape (B, k), optional
        generator : torch.Generator on the device of `x1`, optional
        """
        x0, x1 = self.problem.draw_pairs(x1, condition, generator)
        t, step = self.draw_jumps(len(x1), generator)
        condition = self.problem.hide_conditions(condition, generator)
        residual = self.residual(network, self.problem.path.interpolate(x0, x1, t), t, step, condition)
        return self.loss(residual, t)

    def draw_jumps(self, n_samples: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Times and increments (n_samples,) with both ends in [path.first_time, 1]."""
        scale, first = self.problem.source_scale, self.problem.path.first_time
        t, step = self.step_sampler.draw(n_samples, generator, scale.device, scale.dtype)
        t, step = first + (1 - first) * t, (1 - first) * step
        if self.both_ways:
            turned = torch.rand(n_samples, generator=generator, device=scale.device) < 0.5
            t, step = torch.where(turned, t + step, t), torch.where(turned, -step, step)
        return t, step

    @abstractmethod
    def residual(self, network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None) -> Tensor:
        """What an exact flow map makes zero, (B, *sample_shape)."""


@dataclass(frozen=True)
class SemigroupObjective(FlowMapObjective):
    """One jump against two halves: ``(F_d(x, t) - sg F_{d/2}(F_{d/2}(x, t), t + d/2)) / d``, as mean velocities.

    The residual of the states is O(d^2) (they agree to first order by construction), its squared loss O(d^4), so short
    jumps would hardly be supervised: the loss is weighted by ``1/d^2``.

    Parameters
    ----------
    target_network : callable, optional
        Makes the two halves in place of the student, such as its moving average.
    """

    target_network: Any = None

    def residual(self, network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None) -> Tensor:
        target = network if self.target_network is None else self.target_network
        half = 0.5 * step
        with torch.no_grad():
            first = target(x, t, condition, half)
            second = target(x + expand_time(half, x) * first, t + half, condition, half)
        return check_output(network, network(x, t, condition, step), x) - 0.5 * (first + second)


@dataclass(frozen=True)
class LagrangianObjective(FlowMapObjective):
    """The student's states move as the teacher says: ``dF_d(x, t)/dd - sg v(F_d(x, t), t + d)``.

    Lagrangian map distillation (Boffi et al., 2024, "Flow Map Matching", section 3.2). With ``F_d = x + d U`` the
    derivative is ``U + d dU/dd``, in forward mode.

    Parameters
    ----------
    velocity : callable ``(x, t, condition) -> (B, *sample_shape)``
        The teacher's.
    target_network : callable, optional
        Says where F_d is, in place of the student, such as its moving average.
    """

    velocity: Any = None
    target_network: Any = None

    def residual(self, network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None) -> Tensor:
        length = expand_time(step, x)
        value, slope = derivative_in_step(network, x, t, step, condition)
        check_output(network, value, x)
        with torch.no_grad():
            where = value if self.target_network is None else self.target_network(x, t, condition, step)
            velocity = self.velocity(x + length * where, t + step, condition)
        return value + length * slope - velocity


@dataclass(frozen=True)
class FoldObjective(FlowMapObjective):
    """Another flow map's values: ``U(x, t, d) - sg U'(x, t, d)``. It folds a corrected velocity into one network.

    Parameters
    ----------
    target_network : callable ``(x, t, condition, step) -> (B, *sample_shape)``
    """

    target_network: Any = None

    def draw_jumps(self, n_samples: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """As elsewhere, but a share of the increments is 0: the velocity itself is learned, too."""
        t, step = super().draw_jumps(n_samples, generator)
        n_short = round(SHORT * n_samples)
        return t, torch.cat([torch.zeros_like(step[:n_short]), step[n_short:]])

    def residual(self, network: Any, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None) -> Tensor:
        with torch.no_grad():
            target = self.target_network(x, t, condition, step)
        return check_output(network, network(x, t, condition, step), x) - target
