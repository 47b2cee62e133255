"""Dropout that draws from a generator of its own instead of torch's global one."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero a share of the entries in training and scale up the others (Srivastava et al., 2014, section 4).

    What `torch.nn.Dropout` does, from a generator that can be chosen, so that a fit is reproducible whatever else
    draws from the global one. Compiled programs cannot take a generator; there it is torch's own.

    Parameters
    ----------
    p : float
        The share, in [0, 1).

    Attributes
    ----------
    generator : torch.Generator or None
        On the device of the entries; None is torch's global one. It belongs to a run of training, so copies and
        pickles of the module are without it.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import Dropout
    >>> layer = Dropout(0.5)
    >>> layer.generator = torch.Generator().manual_seed(0)
    >>> layer(torch.ones(8)).unique()
    tensor([0., 2.])
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        if torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept.div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "generator": None}


def draw_dropout_from(generator: torch.Generator | None, network: nn.Module) -> None:
    """Let every `Dropout` of a network draw from a generator.

    Parameters
    ----------
    generator : torch.Generator or None
        On the network's device; None is torch's global one.
    network : torch.nn.Module
        Changed in place.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP, draw_dropout_from
    >>> network = MLP(dropout=0.1)((2,), 0)
    >>> draw_dropout_from(torch.Generator().manual_seed(0), network)
    """
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator


def dropout_generator(network: nn.Module) -> torch.Generator | None:
    """The generator that a network's dropout draws from, None without dropout."""
    active = (module for module in network.modules() if isinstance(module, Dropout) and module.p > 0)
    return next((module.generator for module in active), None)


def same_masks(generator: torch.Generator) -> tuple[contextlib.AbstractContextManager[None], Rewound]:
    """Contexts of a block and of its recomputation, for `torch.utils.checkpoint.checkpoint`: both draw the same."""
    return contextlib.nullcontext(), Rewound(generator)


class Rewound(contextlib.AbstractContextManager[None]):
    """Inside it a generator draws what it drew after this was made; it may be entered several times."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator, self.start = generator, generator.get_state()

    def __enter__(self) -> None:
        self.now = self.generator.get_state()
        self.generator.set_state(self.start)

    def __exit__(self, *exception: object) -> None:
        self.generator.set_state(self.now)
