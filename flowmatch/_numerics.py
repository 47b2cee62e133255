"""Functions that torch lacks on some devices."""

from __future__ import annotations

import torch
from torch import Tensor


def normal_quantile(ranks: Tensor) -> Tensor:
    """The inverse of the standard normal distribution function; Apple's MPS has no `torch.special.ndtri`."""
    if ranks.device.type == "mps":
        return 2**0.5 * torch.erfinv(2 * ranks - 1)
    return torch.special.ndtri(ranks)
