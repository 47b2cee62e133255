"""A known field that a network corrects."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class BaselineCorrection(nn.Module):
    """``rate(t) x + network(x, t, condition)``: the network learns what is left of a linear field.

    With the rate of the flow between two standard normal distributions, a network that is still zero carries noise to
    data of the right scale already (Karras et al., 2022, section 5, argue likewise for denoisers).

    Parameters
    ----------
    network : nn.Module
        ``forward(x, t, condition=None)``.
    rate : callable
        Times (B,) to rates (B,).
    """

    def __init__(self, network: nn.Module, rate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.rate = network, rate

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        rate = self.rate(t).view(-1, *(1,) * (x.ndim - 1))
        return torch.addcmul(self.network(x, t, condition), rate, x)
