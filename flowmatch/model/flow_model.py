"""The fitted flow: a network, and all that is needed to follow it from noise to the user's data and back."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from flowmatch.core.storable import storable
from flowmatch.flow import Path, Source, jump_grid, time_grid
from flowmatch.model.blueprint import Blueprint
from flowmatch.networks import InstantVelocity
from flowmatch.preprocessing import ConditionEncoder, FactorModel, MissingPatterns, SampleEncoder


@storable
@dataclass(frozen=True)
class Velocity:
    """The network predicts the velocity of a flow, which solvers integrate."""


@storable
@dataclass(frozen=True)
class FlowMap:
    """The network predicts mean velocities over steps of any length, one evaluation each.

    Attributes
    ----------
    guidance_scale : float
        Guidance that is part of the weights.
    bidirectional : bool
        Whether steps from data to noise were learned too.
    grid : {"even", "dyadic"}
        Which steps are known best: any, or halves of halves of the whole way.
    """

    guidance_scale: float = 1.0
    bidirectional: bool = False
    grid: str = "even"


@storable
@dataclass(frozen=True, eq=False)
class FittedSource:
    """The source distribution, and its scale on the training data.

    Attributes
    ----------
    source : Source
    scale : Tensor of shape code_shape, float32
    """

    source: Source
    scale: Tensor

    def draw(self, n_samples: int, generator: torch.Generator | None) -> Tensor:
        """Noise of shape (n_samples, *code_shape), on the scale's device."""
        return self.source.draw(n_samples, self.scale, generator)


@storable
@dataclass(frozen=True, eq=False)
class MissingValueModel:
    """What a flow of a table knows of entries that are missing or given.

    Attributes
    ----------
    masked_share : float
        Share of the training rows of which the network was shown some entries; 0: it cannot fill entries.
    guess : FactorModel or None
        Says where the noise starts of entries that are generated given others; None: it is standard noise.
    patterns : MissingPatterns or None
        Which entries of training rows were missing together; None if none were.
    """

    masked_share: float
    guess: FactorModel | None = None
    patterns: MissingPatterns | None = None


@storable
@dataclass(frozen=True)
class SamplingDefaults:
    """What `solver="auto"` and `n_steps=None` mean for a model.

    Attributes
    ----------
    solver : str
        Of samples.
    n_steps : int
        Of samples.
    velocity_steps : int
        Midpoint steps of densities and latent codes, where `solver` is not the right one for them.
    """

    solver: str = "midpoint"
    n_steps: int = 10
    velocity_steps: int = 10


@storable
@dataclass(frozen=True, eq=False)
class FlowModel:
    """A fitted flow.

    Everything that an estimator can be asked for is a function of it; it is a value, and nobody changes it.

    Attributes
    ----------
    network : nn.Module
        With averaged weights. ``network(x, t, condition)`` of a velocity, ``network(x, t, condition, step)`` of a flow
        map.
    blueprint : Blueprint
        How the network was built.
    kind : Velocity or FlowMap
    path : Path
    source : FittedSource
    encoder : SampleEncoder
        From the user's rows to codes and back.
    conditions : ConditionEncoder or None
    condition_dropout : float
        Share of training rows whose condition was hidden; above 0 the network also knows the distribution without
        conditions, which guidance needs.
    missing : MissingValueModel or None
        Of tables with entries that were missing or masked in training.
    defaults : SamplingDefaults
    trainable : tuple of bool
        Which of the network's parameters training may change.
    """

    network: nn.Module
    blueprint: Blueprint
    kind: Velocity | FlowMap
    path: Path
    source: FittedSource
    encoder: SampleEncoder
    conditions: ConditionEncoder | None = None
    condition_dropout: float = 0.0
    missing: MissingValueModel | None = None
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    trainable: tuple[bool, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of one sample's codes."""
        return self.encoder.code_shape

    @property
    def condition_size(self) -> int:
        """Elements of a condition's vector."""
        return 0 if self.conditions is None else self.conditions.size

    @property
    def is_flow_map(self) -> bool:
        """Whether the network is a flow map."""
        return isinstance(self.kind, FlowMap)

    @property
    def n_parameters(self) -> int:
        """Elements of the network's weights."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def times(self, n_steps: int, solver: str, like: Tensor | None = None) -> Tensor:
        """Times (n_steps + 1,) of the steps from noise to data, on the device and in the dtype of `like`."""
        dyadic = solver == "flow_map" and isinstance(self.kind, FlowMap) and self.kind.grid == "dyadic"
        place: dict[str, Any] = {} if like is None else {"device": like.device, "dtype": like.dtype}
        return (jump_grid if dyadic else time_grid)(n_steps, self.path.first_time, **place)

    def precise_network(self) -> nn.Module:
        """A copy of the network in double precision, where the device has it: codes are exact to the solver."""
        return self.network if self.device.type == "mps" else copy.deepcopy(self.network).double()

    def as_velocity(self, network: nn.Module) -> nn.Module:
        """The velocity that a network of this kind stands for; of a flow map, that of increments of 0."""
        return InstantVelocity(network) if self.is_flow_map else network

    def trainable_network(self) -> nn.Module:
        """A copy of the network, to go on training from."""
        network = copy.deepcopy(self.network)
        for parameter, trainable in zip(network.parameters(), self.trainable, strict=True):
            parameter.requires_grad_(trainable)
        return network

    def to(self, device: torch.device) -> FlowModel:
        """The model on a device."""
        network, source = self.network, self.source
        if self.device != device:
            network = copy.deepcopy(network).to(device)
        if source.scale.device != device:
            source = replace(source, scale=source.scale.to(device))
        missing = self.missing
        if missing is not None and missing.guess is not None:
            missing = replace(missing, guess=missing.guess.to(device))
        return replace(self, network=network, source=source, missing=missing)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles hold CPU tensors, so that they load on machines without the device."""
        return dict(vars(self.to(torch.device("cpu"))))
