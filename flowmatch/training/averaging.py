"""Exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class AveragedWeights:
    """A running average of a network's weights, to be updated after each step.

    It does what `torch.optim.swa_utils.AveragedModel` does with an exponential average, over lists of parameters
    gathered once: AveragedModel walks the module tree at every update, which costs a tenth of a small network's step.

    Parameters
    ----------
    network : nn.Module
        The network that is trained; `module` is an averaged copy of it.
    decay : float or None
        None follows the last weights.
    warmup : bool
        Whether the decay is ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the random initial weights
        are soon forgotten (the rule of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, network: nn.Module, decay: float | None, warmup: bool) -> None:
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.warmup = decay, warmup
        self.n_updates = 0
        self._averaged: list[Tensor] = [*self.module.parameters()]
        self._current = [parameter.detach() for parameter in network.parameters()]
        self._buffers = list(zip(self.module.buffers(), network.buffers(), strict=True))

    def update(self) -> None:
        """Move the average toward the network's present weights; buffers are copied."""
        n = self.n_updates
        self.n_updates += 1
        if self.decay is None:
            kept = 0.0
        else:
            kept = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        torch._foreach_lerp_(self._averaged, self._current, 1 - kept)
        for averaged, current in self._buffers:
            averaged.copy_(current)

    def tensors(self) -> list[Tensor]:
        """The averaged weights and buffers themselves."""
        return [*self._averaged, *self.module.buffers()]

    def are_finite(self) -> bool:
        """Whether all of them are; waits for the device."""
        return bool(torch.stack([value.isfinite().all() for value in self.tensors()]).all())

    def snapshot(self) -> list[Tensor]:
        """A copy of them."""
        return [value.clone() for value in self.tensors()]

    def load(self, weights: list[Tensor]) -> None:
        """Set them to what a snapshot holds."""
        torch._foreach_copy_(self.tensors(), weights)
