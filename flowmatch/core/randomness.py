"""Random generators derived from a `random_state`; torch's global ones are used only where nothing else can be."""

from __future__ import annotations

import contextlib
import numbers
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowmatch.core.component import shown


def check_random_state(random_state: Any) -> None:
    """Raise a ValueError for what no seed can be made of; nothing is drawn."""
    if isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool):
        if not 0 <= int(random_state) < 2**32:
            raise ValueError(f"random_state must be in [0, 2**32), got {shown(random_state)}.")
    elif not isinstance(random_state, (type(None), np.random.RandomState, np.random.Generator)):
        got = shown(random_state)
        raise ValueError(f"random_state must be None, an integer, a numpy RandomState or Generator, got {got}.")


def seed_from(random_state: Any) -> int:
    """A seed from a `random_state` parameter; None draws a fresh one without touching numpy's global state."""
    check_random_state(random_state)
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] % 2**31)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    return int(random_state)


def generator_on(device: torch.device, seed: int) -> torch.Generator:
    """A torch generator on `device`."""
    return torch.Generator(device=device).manual_seed(seed)


_lock = threading.RLock()
"""Held while torch's global generators are not as the rest of the process left them."""


class GlobalDraws:
    """A state of torch's global generators of one's own, for what can draw from nothing else.

    Layers such as `torch.nn.Dropout` and the initialization of weights take no generator. Where they are run inside
    `in_place`, they draw from this state, whatever other threads draw meanwhile.

    Parameters
    ----------
    device : torch.device
        Its global generator is meant, and that of the CPU.
    seed : int or None
        None begins with the state that the global generators have now.

    Attributes
    ----------
    state : list of Tensor
        Where the draws stand.
    """

    def __init__(self, device: torch.device, seed: int | None = None) -> None:
        self.device = device
        with _lock:
            self.state = _global_state(device)
        if seed is not None:
            devices = (torch.device("cpu"), device)[: len(self.state)]
            self.state = [generator_on(one, seed).get_state() for one in devices]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Make this the state of the global generators, and afterwards put back what was there.

        One thread at a time can be in such a block; others wait.
        """
        with _lock:
            outside = _global_state(self.device)
            _set_global_state(self.device, self.state)
            try:
                yield
            finally:
                self.state = _global_state(self.device)
                _set_global_state(self.device, outside)


def seeded_initialization(device: torch.device, seed: int) -> contextlib.AbstractContextManager[None]:
    """Build a network inside this block: its weights depend on the seed alone, and global generators stay as they are.

    Parameters
    ----------
    device : torch.device
        Where weights are drawn, if it is not the CPU.
    seed : int
    """
    return GlobalDraws(device, seed).in_place()


def _global_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def _set_global_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states[1])
