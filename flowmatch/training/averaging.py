"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_weights(network: nn.Module, decay: float | None, warmup: bool) -> AveragedModel:
    """A running average of `network`, to be updated after each step.

    With `warmup` the decay is ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the random initial weights
    are soon forgotten (the rule of TensorFlow's ExponentialMovingAverage). ``decay=None`` follows the last weights.
    """
    return AveragedModel(network, multi_avg_fn=_moving_average(decay, warmup), use_buffers=False)


def _moving_average(decay: float | None, warmup: bool) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], n_averaged: Tensor | int) -> None:
        n = int(n_averaged)
        kept = 0.0 if decay is None else min(decay, (1 + n) / (10 + n)) if warmup else decay
        torch._foreach_lerp_(averaged, current, 1 - kept)

    return update
