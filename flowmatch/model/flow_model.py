"""The fitted flow: a network, and all that is needed to follow it from noise to the user's data and back."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch.core.devices import as_tensors_have_it
from flowmatch.core.randomness import seeded_initialization
from flowmatch.core.storable import NOT_STORED, fields_to_store, rebuild, require, storable
from flowmatch.flow import ADAPTIVE, FIXED_STEP, Path, Source, jump_grid, time_grid
from flowmatch.model.blueprint import Blueprint
from flowmatch.networks import CorrectedVelocity, InstantVelocity
from flowmatch.preprocessing import (
    ConditionEncoder,
    FactorModel,
    LabelEncoder,
    MissingPatterns,
    SampleEncoder,
    TableContainer,
    WindowEncoder,
)

MOST_STEPS = 10_000
"""Of a solver. More would bring nothing, and make a call that does not end of a digit too many."""


@storable
@dataclass(frozen=True)
class VelocityField:
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

    def check(self) -> None:
        """Raise a ValueError if a stored kind is no such."""
        require(math.isfinite(self.guidance_scale), "guidance_scale")
        require(self.grid in ("even", "dyadic"), "grid")


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

    def check_for(self, n_codes: int, condition_size: int) -> None:
        """Raise a ValueError unless the parts of a stored model of missing values suit codes and conditions."""
        require(0 <= self.masked_share <= 1, "masked_share")
        if self.guess is not None:
            require(self.guess.mean.shape == (n_codes,), "factors")
        if self.patterns is not None:
            require(self.patterns.patterns.shape[1:] == (n_codes,), "patterns of missing entries")
            require(self.patterns.vectors.shape[1:] == (condition_size,), "patterns of missing entries")

    def to(self, device: torch.device) -> MissingValueModel:
        """The same on a device; of a guess, that is what computes with codes."""
        return self if self.guess is None else replace(self, guess=self.guess.to(device))

    @property
    def can_complete(self) -> bool:
        """Whether rows that miss entries can be filled as training has taught it."""
        return self.patterns is None or self.masked_share > 0


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

    def check(self) -> None:
        """Raise a ValueError if stored defaults are no such."""
        require(self.solver in ("flow_map", *FIXED_STEP, *ADAPTIVE), "solver")
        require(0 < self.n_steps <= MOST_STEPS and 0 < self.velocity_steps <= MOST_STEPS, "n_steps")


_MOST_CODES = 2**14
"""Elements of a sample, up to which a network is tried when it is loaded."""


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
    kind : VelocityField or FlowMap
    path : Path
    source : FittedSource
    encoder : SampleEncoder
        From the user's rows to codes and back.
    conditions : ConditionEncoder or None
    condition_dropout : float
        Share of training rows whose condition was hidden; above 0 the network also knows the distribution without
        conditions, which guidance needs.
    missing : MissingValueModel or None
        Of tables with entries that were missing or masked in training, and of targets that were.
    defaults : SamplingDefaults
    trainable : tuple of bool
        Which of the network's parameters training may change.
    """

    network: nn.Module = field(metadata=NOT_STORED)
    blueprint: Blueprint
    kind: VelocityField | FlowMap
    path: Path
    source: FittedSource
    encoder: SampleEncoder
    conditions: ConditionEncoder | None = None
    condition_dropout: float = 0.0
    missing: MissingValueModel | None = None
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    trainable: tuple[bool, ...] = field(default=(), metadata=NOT_STORED)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of one sample's codes."""
        return self.encoder.code_shape

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one of the user's samples."""
        return self.encoder.sample_shape

    @property
    def n_features(self) -> int:
        """Columns of a table, channels of a grid."""
        return self.encoder.sample_shape[0]

    @property
    def feature_names(self) -> NDArray[np.object_]:
        """Names of the columns, as scikit-learn keeps them; an AttributeError if there are none."""
        return feature_names(self.encoder.container.columns)

    @property
    def classes(self) -> NDArray[Any]:
        """Labels of a model of labels; an AttributeError of others."""
        if not isinstance(self.conditions, LabelEncoder):
            raise AttributeError("this model has no classes.")
        return self.conditions.classes

    @property
    def constraints(self) -> list[Any]:
        """What drawn rows of a table keep."""
        return [] if self.encoder.constraints is None else self.encoder.constraints.constraints

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
        """The model on a device; the model itself if it is there."""
        guess = None if self.missing is None else self.missing.guess
        places = {self.device, self.source.scale.device, *(() if guess is None else (guess.mean.device,))}
        if places == {as_tensors_have_it(device)}:
            return self
        return replace(
            self,
            network=copy.deepcopy(self.network).to(device),
            source=replace(self.source, scale=self.source.scale.to(device)),
            missing=None if self.missing is None else self.missing.to(device),
        )

    def velocity_weights(self) -> dict[str, Tensor]:
        """The weights of the velocity as a `flowmatch.networks.TeacherVelocity` names them."""
        if isinstance(self.network, CorrectedVelocity):  # its students correct the same velocity
            return dict(self.network.velocity.state_dict())
        prefix = "network.flow_map." if self.is_flow_map else "network."
        return {f"{prefix}{name}": value for name, value in self.network.state_dict().items()}

    def to_store(self) -> dict[str, Any]:
        """What a file keeps: weights in place of the network, which the blueprint builds."""
        return {**fields_to_store(self), "weights": dict(self.network.state_dict())}

    @classmethod
    def from_store(cls, values: dict[str, Any]) -> FlowModel:
        """Undo `to_store`.

        Raises
        ------
        ValueError
            If values do not fit each other.
        """
        values, blueprint = dict(values), values.get("blueprint")
        weights = values.pop("weights", None)
        require(isinstance(blueprint, Blueprint) and isinstance(weights, dict), "blueprint and weights")
        assert isinstance(blueprint, Blueprint)
        assert isinstance(weights, dict)
        blueprint.check_weights(weights)
        with seeded_initialization(torch.device("cpu"), 0):  # the weights of the file take the place of those drawn
            network = blueprint.build()
        trainable = tuple(parameter.requires_grad for parameter in network.parameters())
        network.load_state_dict(weights)
        return rebuild(cls, values, network=network.eval().requires_grad_(False), trainable=trainable)

    def check(self) -> None:
        """Raise a ValueError if the parts of a stored model do not fit each other."""
        blueprint, scale, shape = self.blueprint, self.source.scale, self.code_shape
        require(blueprint.code_shape == shape, "blueprint")
        require(scale.shape == shape and scale.dtype == torch.float32 and bool((scale > 0).all()), "source_scale")
        size, context = (0, 0) if self.conditions is None else (self.conditions.size, self.conditions.context_channels)
        require((blueprint.condition_size, blueprint.context_channels) == (size, context), "condition_size")
        require(blueprint.flow_map == self.is_flow_map, "kind")
        require(self.is_flow_map or self.defaults.solver != "flow_map", "solver")
        require(0 <= self.condition_dropout <= 1, "condition_dropout")
        require(blueprint.is_masked == (self.missing is not None), "missing")
        if self.missing is not None:
            table = isinstance(self.encoder.container, TableContainer) or isinstance(self.conditions, WindowEncoder)
            require(self.encoder.is_table and table, "missing")
            self.missing.check_for(shape[0], size)
        require(self._has_sound_network(), "network")

    def _has_sound_network(self) -> bool:
        """Whether the network's answer is finite for a sample of ones; of a user's own and of large ones, True."""
        if not self.blueprint.is_of_flowmatch or math.prod(self.code_shape) > _MOST_CODES:
            return True
        x, t = torch.ones(1, *self.code_shape), torch.full((1,), 0.5)
        condition_size = self.condition_size + self.blueprint.n_kept
        condition = torch.ones(1, condition_size) if condition_size else None
        with torch.no_grad():
            answer = self.network(x, t, condition, *[t] * self.is_flow_map)
        return bool(answer.isfinite().all())

    def __getstate__(self) -> dict[str, Any]:
        """Pickles hold CPU tensors, so that they load on machines without the device."""
        return dict(vars(self.to(torch.device("cpu"))))


def feature_names(columns: tuple[Any, ...]) -> NDArray[np.object_]:
    """Column names as scikit-learn keeps them.

    Raises
    ------
    AttributeError
        If there are none, or some are no text or come twice.
    """
    if not columns or not all(isinstance(name, str) for name in columns) or len(set(columns)) < len(columns):
        raise AttributeError("the columns have no names.")
    return np.asarray(columns, dtype=object)
