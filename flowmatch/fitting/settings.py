"""The parameters of a fit, checked and turned into the objects that do the work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from flowmatch import flow, networks, objectives, preprocessing, training
from flowmatch.core.checks import check_count, check_number
from flowmatch.core.component import Component, resolve_component, shown, unknown_option
from flowmatch.core.descriptions import describe_value
from flowmatch.core.devices import resolve_device
from flowmatch.core.randomness import check_random_state
from flowmatch.model import NetworkFactory, check_solver

ALIASES: dict[str, dict[str, Callable[[], Any]]] = {
    "network": {
        "auto": networks.AutoNetwork,
        "mlp": networks.MLP,
        "unet": networks.UNet,
        "transformer": networks.Transformer,
    },
    "path": dict(flow.PATHS),
    "source": dict(flow.SOURCES),
    "coupling": dict(flow.COUPLINGS),
    "time_sampler": dict(flow.TIME_SAMPLERS),
    "loss": dict(objectives.LOSSES),
    "loss_weight": dict(objectives.LOSS_WEIGHTS),
    "objective": dict(objectives.OBJECTIVES),
    "step_sampler": dict(flow.STEP_SAMPLERS),
    "preprocessing": dict(preprocessing.TRANSFORMS),
}
"""What each string means, parameter by parameter."""


@dataclass(frozen=True)
class PhaseComponents:
    """What one phase of training differs in."""

    loss: objectives.ResidualLoss
    loss_weight: objectives.LossWeight
    conditioned: bool = True
    crop: float = 1.0


@dataclass(frozen=True)
class FitSettings:
    """How to train a flow: an estimator's parameters as objects.

    Attributes
    ----------
    network : NetworkFactory
    path, source, coupling, loss, loss_weight, objective : component
    time_sampler : TimeSampler or None
        None goes by the shape of the data.
    options : TrainingOptions
    phases : tuple of PhaseComponents
        At least one.
    max_iter, batch_size : int or None
        None takes the measured ones.
    learning_rate : float or None
        None takes the measured one.
    device : torch.device
    random_state : int, RandomState or None
    verbose : bool
    condition_dropout : float
    guidance_scale : float
        Of flow maps, which learn it.
    frozen : mapping
        The estimator's parameters that belong to the weights: a fit that goes on must have the same.
    budget : TimeBudget or None
        Ends training sooner than `max_iter`, and where that is None may end it later than the measured schedule.
    """

    network: NetworkFactory
    path: flow.Path
    source: flow.Source
    coupling: flow.Coupling
    time_sampler: flow.TimeSampler | None
    loss: objectives.ResidualLoss
    loss_weight: objectives.LossWeight
    objective: objectives.Objective
    options: training.TrainingOptions
    phases: tuple[PhaseComponents, ...]
    max_iter: int | None
    batch_size: int | None
    learning_rate: float | None
    device: torch.device
    random_state: Any
    verbose: bool
    condition_dropout: float = 0.0
    guidance_scale: float = 1.0
    frozen: Mapping[str, Any] = field(default_factory=dict)
    budget: training.TimeBudget | None = None

    def check_goes_on(self, earlier: Mapping[str, Any]) -> None:
        """Raise a ValueError if a parameter that belongs to the weights has changed since an earlier fit."""
        for name, value in earlier.items():
            now = self.frozen.get(name, value)
            changed = _differ(now, value)
            if name == "objective":  # what one holds concerns training alone; which of them it is, the weights
                changed = self.objective.flow_map != objectives.is_flow_map(value)
            if changed:
                raise ValueError(
                    f"{name} was {value!r} in the fit that this one goes on from, and is {now!r} now. Set it back, or "
                    "fit anew with warm_start=False."
                )

    def describe(self) -> str:
        """The settings that decide how a fit goes, in words that two processes agree on."""
        no_matter = ["device", "verbose", "phases", "options", "frozen", "budget"]
        no_matter += ["guidance_scale"] * (not self.objective.flow_map)
        own = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in no_matter]
        options = [
            (name, value)
            for name, value in sorted(self.options.get_params(deep=False).items())
            if name != "callbacks" and not name.startswith("checkpoint")
        ]
        return repr([(name, describe_value(value)) for name, value in [*own, *options]])


def resolve_settings(
    estimator: Any,
    objective: Any = "velocity",
    condition_dropout: float = 0.0,
    guidance_scale: float = 1.0,
    *,
    frozen: Sequence[str] = (),
) -> FitSettings:
    """Check the parameters that all estimators with a flow share, before any data are touched.

    Parameters
    ----------
    estimator : estimator
        Its parameters are read.
    objective, condition_dropout, guidance_scale
        Those that only some estimators have.
    frozen : sequence of str
        Parameters that belong to the weights; of flow maps, the guidance scale does too.

    Raises
    ------
    ValueError
        That names the parameter, what came and what is expected.
    """
    for name in ("max_iter", "batch_size"):
        if getattr(estimator, name) is not None:
            check_count(name, getattr(estimator, name))
    if estimator.learning_rate is not None:
        check_number("learning_rate", estimator.learning_rate, 0.0, open_low=True)
    check_number("condition_dropout", condition_dropout, 0.0, 1.0)
    check_number("guidance_scale", guidance_scale, -np.inf)
    check_solver(estimator.solver, estimator.n_steps)
    check_random_state(estimator.random_state)
    options = resolve_options(estimator.training)
    device = resolve_device(estimator.device)
    loss, loss_weight = _resolve_loss(estimator.loss), _resolve_weight(estimator.loss_weight)
    settings = FitSettings(
        network=resolve_network(estimator.network),
        path=resolve_component("path", estimator.path, flow.Path, ALIASES["path"]),
        source=resolve_component("source", estimator.source, flow.Source, ALIASES["source"]),
        coupling=resolve_component("coupling", estimator.coupling, flow.Coupling, ALIASES["coupling"]),
        time_sampler=_resolve_time_sampler(estimator.time_sampler),
        loss=loss,
        loss_weight=loss_weight,
        objective=resolve_component("objective", objective, objectives.Objective, ALIASES["objective"]),
        options=options,
        phases=_resolve_phases(options, loss, loss_weight),
        max_iter=estimator.max_iter,
        batch_size=estimator.batch_size,
        learning_rate=estimator.learning_rate,
        device=device,
        random_state=estimator.random_state,
        verbose=bool(estimator.verbose),
        condition_dropout=float(condition_dropout),
        guidance_scale=float(guidance_scale),
        frozen={name: getattr(estimator, name) for name in frozen},
        budget=budget_of(estimator.max_time),
    )
    if settings.objective.flow_map:
        settings = replace(settings, frozen={**settings.frozen, "guidance_scale": guidance_scale})
    _check_objective(estimator.solver, settings)
    return settings


def budget_of(max_time: Any) -> training.TimeBudget | None:
    """The time that training may take from now on; None for no limit."""
    return None if max_time is None else training.TimeBudget(check_number("max_time", max_time, 0.0, open_low=True))


def _check_objective(solver: str, settings: FitSettings) -> None:
    """Raise a ValueError for a solver or training options that do not go with the objective."""
    if solver == "flow_map" and not settings.objective.flow_map:
        raise ValueError(
            "solver='flow_map' takes the steps of a flow map, but this model learns a velocity: choose "
            "objective='mean_flow' where there is that parameter, distil it with DistilledFlowMap, or take "
            "solver='midpoint'."
        )
    if settings.objective.flow_map and settings.options.phases:
        raise ValueError("training phases do not go with objective='mean_flow', which has its own (MeanFlow.warmup).")
    if settings.objective.flow_map and settings.options.compile:
        raise ValueError(
            "training with compile=True does not go with objective='mean_flow': torch.compile gives no "
            "forward-mode derivatives."
        )


def resolve_options(options: Any) -> training.TrainingOptions:
    """Checked training options; None stands for the default ones."""
    options = training.TrainingOptions() if options is None else options
    if not isinstance(options, training.TrainingOptions):
        raise ValueError(f"training must be None or TrainingOptions, got {shown(options)}.")
    options.validate()
    return options


def resolve_network(network: Any) -> NetworkFactory:
    """A network factory: a component, or what the user passed."""
    known = ALIASES["network"]
    if isinstance(network, str) and network in known:
        factory: NetworkFactory = known[network]()
        return factory
    if callable(network) and not isinstance(network, nn.Module):
        if isinstance(network, Component):
            network.validate()
        return network
    raise unknown_option("network", network, known, "pass a component such as MLP(width=256), or a factory")


def resolve_transform(transform: Any, sample_shape: tuple[int, ...]) -> preprocessing.ColumnTransform:
    """An unfitted transform; "auto" goes by the shape of the data."""
    if isinstance(transform, str) and transform == "auto":
        return preprocessing.choose_transform(sample_shape)
    names = {"auto": preprocessing.Identity, **ALIASES["preprocessing"]}  # for the list in the error
    # fitting must not reach the user's own component
    return copy.copy(resolve_component("preprocessing", transform, preprocessing.ColumnTransform, names))


def _differ(one: Any, other: Any) -> bool:
    """Whether two values of a parameter differ; lists and arrays of the same entries do not."""
    if np.ndim(one) and np.ndim(other):
        return list(one) != list(other)
    return bool(np.ndim(one) or np.ndim(other) or one != other)


def _resolve_phases(
    options: training.TrainingOptions, loss: objectives.ResidualLoss, loss_weight: objectives.LossWeight
) -> tuple[PhaseComponents, ...]:
    phases = tuple(
        PhaseComponents(
            loss if phase.loss is None else _resolve_loss(phase.loss),
            loss_weight if phase.loss_weight is None else _resolve_weight(phase.loss_weight),
            phase.conditioned,
            phase.crop,
        )
        for phase in options.phases
    )
    return phases or (PhaseComponents(loss, loss_weight),)


def _resolve_time_sampler(time_sampler: Any) -> flow.TimeSampler | None:
    """A sampler of times; None for "auto", which goes by the shape of the data."""
    if isinstance(time_sampler, str) and time_sampler == "auto":
        return None
    names = {"auto": flow.LogitNormalTimes, **ALIASES["time_sampler"]}  # for the list in the error
    return resolve_component("time_sampler", time_sampler, flow.TimeSampler, names)


def _resolve_loss(loss: Any) -> objectives.ResidualLoss:
    return resolve_component("loss", loss, objectives.ResidualLoss, ALIASES["loss"])


def _resolve_weight(weight: Any) -> objectives.LossWeight:
    if callable(weight) and not isinstance(weight, objectives.LossWeight):
        weight = objectives.CallableWeight(weight)
    return resolve_component("loss_weight", weight, objectives.LossWeight, ALIASES["loss_weight"])
