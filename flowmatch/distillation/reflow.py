"""Reflow: a velocity trained on the pairs that a flow has made of noise and samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowmatch.distillation.rollouts import Rollouts
from flowmatch.objectives import VelocityObjective


@dataclass(frozen=True)
class PairLoss:
    """Flow matching on fixed pairs (Liu, Gong and Liu, 2023, "Flow Straight and Fast", procedure 1).

    Paths that join noise with what the teacher makes of it do not cross, so the velocity learned on straight lines
    between them is nearly constant along each: one Euler step does.

    Parameters
    ----------
    pairs : Rollouts
        Their first and last states are the pairs.
    problem : VelocityObjective
        Path (linear, for straight lines), times and loss; its coupling and source are not used.
    """

    pairs: Rollouts
    problem: VelocityObjective

    def __call__(self, network: nn.Module, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Loss of each of the given rows, shape (B,)."""
        x0, x1 = self.pairs.states[0, rows], self.pairs.states[-1, rows]
        condition = None if self.pairs.condition is None else self.pairs.condition[rows]
        t = self.problem.draw_times(len(rows), generator)
        return self.problem.residual_loss(network, x0, x1, t, condition)
