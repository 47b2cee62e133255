"""How a network was built, so that it can be built again: for files, and for students that start from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from flowmatch.core.entries import BLOCKS
from flowmatch.core.memory import check_memory, memory_for
from flowmatch.core.storable import require, storable
from flowmatch.networks import CorrectedVelocity, InstantVelocity, MaskedNetwork, TeacherVelocity

_CALLS_PER_WEIGHT = 40
"""Calls of torch's functions that building a network of a file may make: those of flowmatch make up to 10."""

_MOST_CALLS = 10**5
"""The same for a network that is to be trained."""

_BYTES_PER_WEIGHT = 5 * 4.0
"""In training: beside a weight there are its gradient, two moments and the average."""

NetworkFactory = Callable[..., nn.Module]
"""``factory(sample_shape, condition_size, flow_map) -> module``; it may also take ``context_channels``.

The module is called as ``module(x, t, condition)``, or ``module(x, t, condition, step)`` if `flow_map` is true,
with `x` of shape (B, *sample_shape), `t` and `step` of shape (B,), and `condition` of shape (B, condition_size), or
None for none. It returns the velocity, or the flow map's mean velocity, of the shape of `x`.
"""


@storable
@dataclass(frozen=True)
class Correction:
    """The teacher's velocity inside of a flow map that corrects it (`flowmatch.networks.CorrectedVelocity`).

    Attributes
    ----------
    guidance_scale : float
        Guidance of the teacher's velocity.
    of_flow_map : bool
        Whether the teacher is a flow map, whose velocity is that of increments of 0.
    """

    guidance_scale: float
    of_flow_map: bool


@storable
@dataclass(frozen=True)
class Blueprint:
    """What a network factory was called with, and what its network was put into.

    Attributes
    ----------
    factory : component or callable
        See `NetworkFactory`.
    code_shape : tuple of int
        Shape of one sample's codes.
    condition_size : int
        Elements of a condition's vector, those of a grid among them, without those that describe a row's entries.
    context_channels : int
        Channels of the grid that a condition ends in.
    flow_map : bool
        Whether the network takes the increment.
    is_masked : bool
        Whether conditions end in the entries of a table's row that are given or absent (`flowmatch.core.entries`).
    correction : Correction or None
        Set if the network corrects a teacher's velocity.
    """

    factory: Any
    code_shape: tuple[int, ...]
    condition_size: int = 0
    context_channels: int = 0
    flow_map: bool = False
    is_masked: bool = False
    correction: Correction | None = None

    @property
    def n_kept(self) -> int:
        """Elements at the end of a condition that tell of a row's entries."""
        return BLOCKS * self.code_shape[0] if self.is_masked else 0

    @property
    def is_of_flowmatch(self) -> bool:
        """Whether the network is none of the user's own."""
        return _is_own(self.factory)

    def build(self) -> nn.Module:
        """A network with fresh weights, drawn from torch's global generator.

        Raises
        ------
        ValueError
            If the factory gives no module, one without weights, or for a flow map one that takes no increment.
        """
        if self.correction is None:
            return self._build(self.flow_map)
        velocity = self._build(self.correction.of_flow_map)
        if self.correction.of_flow_map:
            velocity = InstantVelocity(velocity)
        return CorrectedVelocity(
            TeacherVelocity(velocity, self.correction.guidance_scale, self.n_kept), self._build(True)
        )

    def check_weights(self, weights: Mapping[str, Any]) -> None:
        """Raise a ValueError unless a stored network's weights are those of the network that `build` will make.

        That is found on the meta device, where networks of any size take no memory, and with no more work than the
        number of the weights allows: a file may ask for a network of any width and depth. Networks of components from
        outside flowmatch need not know that device; they are the user's own code.
        """
        if not self.is_of_flowmatch:
            return
        most, error = _CALLS_PER_WEIGHT * (len(weights) + 1), "its network has more layers than there are weights."
        with torch.device("meta"), _Budget(most, error):
            expected = self.build().state_dict()
        for name, value in expected.items():
            require(name in weights, f"weight {name} (missing)")
            found = weights[name]
            fits = isinstance(found, Tensor) and (found.shape, found.dtype) == (value.shape, value.dtype)
            require(fits, f"weight {name}")
        for name in weights.keys() - expected.keys():
            raise ValueError(f"its weight {name} does not fit the rest.")

    def check_size(self, device: torch.device) -> None:
        """Raise a MemoryError for a network of flowmatch that a device could not hold in training."""
        if not self.is_of_flowmatch:
            return
        what = f"network={self.factory!r}"
        with memory_for(what), torch.device("meta"), _Budget(_MOST_CALLS, f"{what} has too many layers to be built."):
            n_weights = sum(parameter.numel() for parameter in self.build().parameters())
        check_memory(f"training {what}, of {n_weights:,} weights,", _BYTES_PER_WEIGHT * n_weights, device)

    def _build(self, flow_map: bool) -> nn.Module:
        """The network without a correction.

        A factory that takes `context_channels` is told how many channels of a grid conditions end in, for a table how
        many elements tell of its entries; for others they are vectors like any.
        """
        size, context = self.condition_size + self.n_kept, self.n_kept or self.context_channels
        more = {"context_channels": context} if context and _takes_context(self.factory) else {}
        network = self.factory(self.code_shape, size, flow_map, **more)
        if not isinstance(network, nn.Module):
            raise ValueError(f"the network factory returned {type(network).__name__}; expected a torch.nn.Module.")
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError("the network has no parameters to train.")
        if flow_map and not _takes_step(network):
            name = getattr(self.factory, "__qualname__", type(self.factory).__name__)
            raise ValueError(
                f"the network factory {name} returned a {type(network).__name__} that is no flow map: expected a "
                "module with forward(x, t, condition, step), where step (B,) is the length of the jumps, from a "
                "factory that is called with flow_map=True."
            )
        return MaskedNetwork(network, self.code_shape[0], self.condition_size) if self.is_masked else network


class _Budget(TorchFunctionMode):
    """Stops a computation after a number of calls of torch's functions."""

    def __init__(self, n_calls: int, error: str) -> None:
        super().__init__()
        self.n_left, self.error = n_calls, error

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n_left -= 1
        if self.n_left < 0:
            raise ValueError(self.error)
        return func(*args, **(kwargs or {}))


def _is_own(factory: Any) -> bool:
    """Whether a network factory is one of flowmatch, and what is inside of it."""
    inside = vars(factory).values() if is_dataclass(factory) else ()
    is_ours = type(factory).__module__.partition(".")[0] == "flowmatch"
    return is_ours and all(_is_own(part) for part in inside if callable(part))


def _takes_step(network: nn.Module) -> bool:
    """Whether a module can be called with an increment of time."""
    try:
        inspect.signature(network.forward).bind("x", "t", "condition", "step")
    except TypeError:
        return False
    except ValueError:  # a module without a signature
        return True
    return True


def _takes_context(factory: NetworkFactory) -> bool:
    try:
        return "context_channels" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a callable without a signature
        return False
