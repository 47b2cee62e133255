"""Devices: which one to work on, and functions that torch lacks on some of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowmatch.core.component import shown


def normal_quantile(ranks: Tensor) -> Tensor:
    """The inverse of the standard normal distribution function; Apple's MPS has no `torch.special.ndtri`."""
    if ranks.device.type == "mps":
        return 2**0.5 * torch.erfinv(2 * ranks - 1)
    return torch.special.ndtri(ranks)


def resolve_device(device: Any) -> torch.device:
    """A device that is there; "auto" takes cuda, then mps, then cpu.

    Raises
    ------
    ValueError
        For a device that is unknown or not available, or "meta", which holds no numbers.
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.empty(0, device=device).device
        if found.type == "meta":
            raise TypeError("it holds no numbers")
        return found
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {shown(device)} is not available ({reason}). Use 'auto' or 'cpu'.") from error


def as_tensors_have_it(device: torch.device) -> torch.device:
    """The device with its number, such as "cuda:0" for "cuda", so that it compares equal to that of a tensor there."""
    return torch.empty(0, device=device).device


def available_device(device: Any) -> torch.device:
    """The device, or the CPU if it is not on this machine."""
    try:
        return resolve_device(device)
    except ValueError:
        return torch.device("cpu")
