"""How long and how fast to train, and on what."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from flowmatch.core.types import Rng
from flowmatch.training.options import TrainingOptions
from flowmatch.training.phases import phase_ends

BatchLoss = Callable[[nn.Module, Tensor, Rng], Tensor]
"""``(network, rows, generator) -> losses``: row numbers (B,) in, the loss of each row (B,) out."""

LINEAR_PART = 0.4
"""Share of the steps over which the "linear" schedule falls."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to train, and on what.

    Parameters
    ----------
    batch_losses : sequence of callables
        Each ``(network, rows, generator) -> losses``, from row numbers (B,) to the loss of each row (B,): one for
        each phase of the options, or a single one without phases.
    n_rows : int
        Rows to train on.
    max_iter : int
        Optimizer steps.
    batch_size : int
        Rows of a batch.
    learning_rate : float
        The peak of the learning rate.
    options : TrainingOptions
        What else there is to tune.
    sample_weight : Tensor of shape (n_rows,), optional
        Rows are drawn in proportion to it, so that every loss and every coupling inside a batch sees the weighted
        data.
    validation_loss : callable, optional
        From the network to a 0-d tensor; must give the same value for the same weights.
    validate_from : float, default=0.0
        Share of `max_iter` before which it does not say which weights are best, and patience does not run out.
    data_device : torch.device or str, default="cpu"
        Where row numbers are wanted.
    is_sound : callable, optional
        From the network that users get to whether it does what it is for; asked after the last step.
    """

    batch_losses: Sequence[BatchLoss]
    n_rows: int
    max_iter: int
    batch_size: int
    learning_rate: float
    options: TrainingOptions
    sample_weight: Tensor | None = None
    validation_loss: Callable[[nn.Module], Tensor] | None = None
    validate_from: float = 0.0
    data_device: torch.device | str = "cpu"
    is_sound: Callable[[nn.Module], bool] | None = None

    @property
    def report_period(self) -> int:
        """Steps between two reports."""
        return self.options.report_period or max(1, self.max_iter // 100)

    @cached_property
    def phase_ends(self) -> list[int]:
        """The step at which each phase is over."""
        return phase_ends(self.options.phases, self.max_iter)

    def batch_loss_at(self, step: int) -> BatchLoss:
        """The loss of the phase that a step belongs to.

        Parameters
        ----------
        step : int
            Counted from 0.

        Returns
        -------
        callable
            One of `batch_losses`.
        """
        return self.batch_losses[bisect.bisect_right(self.phase_ends[:-1], step)]


def learning_rate_factor(options: TrainingOptions, max_iter: int) -> Callable[[int], float]:
    """Factor of the peak learning rate for each step: linear warm-up, then the schedule, times the phase's factor."""
    warmup = round(options.warmup * max_iter)
    ends = phase_ends(options.phases, max_iter)[:-1]
    rates = [phase.learning_rate for phase in options.phases] or [1.0]

    def factor(step: int) -> float:
        return scheduled(step) * rates[bisect.bisect_right(ends, step)]

    def scheduled(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if options.schedule == "constant":
            return 1.0
        if options.schedule == "linear":
            return min(1.0, (max_iter - step) / (LINEAR_PART * max_iter))
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, max_iter - warmup)))

    return factor
