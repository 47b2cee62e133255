"""Estimator parameters, checked and turned into the objects that do the work."""

from __future__ import annotations

import copy
import functools
import inspect
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from flowmatch import anomaly, flow, networks, objectives, preprocessing, training
from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.component import Component, resolve_component, unknown_option
from flowmatch.core.devices import resolve_device
from flowmatch.core.entries import BLOCKS
from flowmatch.networks import MLP, AutoNetwork, Transformer, UNet

SOLVERS = ("auto", "flow_map", *flow.FIXED_STEP, *flow.ADAPTIVE)

ALIASES: dict[str, dict[str, Callable[[], Any]]] = {
    "network": {"auto": AutoNetwork, "mlp": MLP, "unet": UNet, "transformer": Transformer},
    "path": dict(flow.PATHS),
    "source": dict(flow.SOURCES),
    "coupling": dict(flow.COUPLINGS),
    "time_sampler": dict(flow.TIME_SAMPLERS),
    "loss": dict(objectives.LOSSES),
    "loss_weight": dict(objectives.LOSS_WEIGHTS),
    "objective": dict(objectives.OBJECTIVES),
    "step_sampler": dict(flow.STEP_SAMPLERS),
    "preprocessing": dict(preprocessing.TRANSFORMS),
    "score": dict(anomaly.SCORES),
}
"""What each string means, parameter by parameter."""

NetworkFactory = Callable[..., nn.Module]
"""``factory(sample_shape, condition_size, flow_map) -> module``; it may also take ``context_channels``."""


@dataclass(frozen=True)
class PhaseComponents:
    """What one phase of training differs in."""

    loss: objectives.ResidualLoss
    loss_weight: objectives.LossWeight
    conditioned: bool = True
    crop: float = 1.0


@dataclass(frozen=True)
class Components:
    """The parameters of an estimator as objects."""

    path: flow.Path
    source: flow.Source
    coupling: flow.Coupling
    time_sampler: flow.TimeSampler | None
    loss: objectives.ResidualLoss
    loss_weight: objectives.LossWeight
    network: NetworkFactory
    options: training.TrainingOptions
    phases: tuple[PhaseComponents, ...]
    objective: objectives.Objective


def resolve_components(estimator: Any) -> Components:
    """Check all shared parameters of an estimator, before any data are touched.

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
    if estimator.n_steps is not None:
        check_count("n_steps", estimator.n_steps)
    check_choice("solver", estimator.solver, SOLVERS)
    options = estimator.training if estimator.training is not None else training.TrainingOptions()
    if not isinstance(options, training.TrainingOptions):
        raise ValueError(f"training must be None or TrainingOptions, got {options!r}.")
    options.validate()
    resolve_device(estimator.device)
    objective = resolve_component(
        "objective", getattr(estimator, "objective", "velocity"), objectives.Objective, ALIASES["objective"]
    )
    loss, loss_weight = _resolve_loss(estimator.loss), _resolve_weight(estimator.loss_weight)
    return Components(
        resolve_path(estimator),
        resolve_source(estimator),
        resolve_component("coupling", estimator.coupling, flow.Coupling, ALIASES["coupling"]),
        _resolve_time_sampler(estimator.time_sampler),
        loss,
        loss_weight,
        resolve_network(estimator),
        options,
        tuple(
            PhaseComponents(
                loss if phase.loss is None else _resolve_loss(phase.loss),
                loss_weight if phase.loss_weight is None else _resolve_weight(phase.loss_weight),
                phase.conditioned,
                phase.crop,
            )
            for phase in options.phases
        )
        or (PhaseComponents(loss, loss_weight),),
        objective,
    )


def check_objective(estimator: Any, components: Components) -> None:
    """Raise a ValueError for a solver or training options that do not go with the objective of a fit."""
    objective, options = components.objective, components.options
    if estimator.solver == "flow_map" and not objective.flow_map:
        raise ValueError(
            "solver='flow_map' makes the jumps of a flow map, but this model learns a velocity: choose "
            "objective='mean_flow', distil it with DistilledFlowMap, or take solver='midpoint'."
        )
    if objective.flow_map and options.phases:
        raise ValueError("training phases do not go with objective='mean_flow', which has its own (MeanFlow.warmup).")
    if objective.flow_map and options.compile:
        raise ValueError(
            "training with compile=True does not go with objective='mean_flow': torch.compile gives no "
            "forward-mode derivatives."
        )


def resolve_path(estimator: Any) -> flow.Path:
    """The path of an estimator."""
    return resolve_component("path", estimator.path, flow.Path, ALIASES["path"])


def resolve_source(estimator: Any) -> flow.Source:
    """The source of an estimator."""
    return resolve_component("source", estimator.source, flow.Source, ALIASES["source"])


def resolve_network(estimator: Any) -> NetworkFactory:
    """The network factory of an estimator: a component, or what the user passed."""
    network, known = estimator.network, ALIASES["network"]
    if isinstance(network, str) and network in known:
        return known[network]()
    if callable(network) and not isinstance(network, nn.Module):
        if isinstance(network, Component):
            network.validate()
        return network
    raise unknown_option("network", network, known, "pass a component such as MLP(width=256), or a factory")


def build_network(
    factory: NetworkFactory,
    code_shape: tuple[int, ...],
    conditions: preprocessing.ConditionEncoder | None,
    *,
    flow_map: bool = False,
    is_masked: bool = False,
) -> nn.Module:
    """Call a factory and check what it gives.

    A factory that takes `context_channels` is told how many channels of a grid the condition's vectors end in, for a
    table how many numbers tell of its cells; for others they are vectors like any.
    """
    vector_size = 0 if conditions is None else conditions.size
    context = BLOCKS * code_shape[0] if is_masked else 0 if conditions is None else conditions.context_channels
    size = vector_size + context if is_masked else vector_size
    if context and _takes_context(factory):
        network = factory(code_shape, size, flow_map, context_channels=context)
    else:
        network = factory(code_shape, size, flow_map)
    if not isinstance(network, nn.Module):
        raise ValueError(f"the network factory returned {type(network).__name__}; expected a torch.nn.Module.")
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError("the network has no parameters to train.")
    if flow_map and not _takes_step(network):
        name = getattr(factory, "__qualname__", type(factory).__name__)
        raise ValueError(
            f"the network factory {name} returned a {type(network).__name__} that is no flow map: expected a module "
            "with forward(x, t, condition, step), where step (B,) is the length of the jumps, from a factory that is "
            "called with flow_map=True."
        )
    return networks.MaskedNetwork(network, code_shape[0], vector_size) if is_masked else network


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


def resolve_transform(estimator: Any, sample_shape: tuple[int, ...]) -> preprocessing.ColumnTransform:
    """An unfitted transform; "auto" goes by the shape of the data."""
    if isinstance(estimator.preprocessing, str) and estimator.preprocessing == "auto":
        return preprocessing.choose_transform(sample_shape)
    names = {"auto": preprocessing.Identity, **ALIASES["preprocessing"]}  # for the list in the error
    return copy.copy(resolve_component("preprocessing", estimator.preprocessing, preprocessing.ColumnTransform, names))


def describe_parameters(estimator: Any, options: training.TrainingOptions) -> str:
    """The parameters that decide how a fit goes, in words that two processes agree on."""
    parameters = {**estimator.get_params(deep=False), **options.get_params(deep=False)}
    no_matter = ("verbose", "training", "warm_start", "n_steps", "solver", "guidance_scale", "callbacks")
    return repr(
        [
            (name, _describe(value))
            for name, value in sorted(parameters.items())
            if name not in no_matter and not name.startswith("checkpoint")
        ]
    )


def _describe(value: Any) -> Any:
    """A value without memory addresses: functions by name and code, components by their parameters."""
    if isinstance(value, Component):
        return type(value).__name__, {name: _describe(inner) for name, inner in value.get_params(deep=False).items()}
    if isinstance(value, (tuple, list)):
        return [_describe(inner) for inner in value]
    if isinstance(value, (str, numbers.Number, type(None))):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, functools.partial):
        return "partial", _describe(value.func), _describe(value.args), _describe(list(value.keywords.items()))
    code = getattr(value, "__code__", None)
    return getattr(value, "__qualname__", type(value).__name__), code and (code.co_code, repr(code.co_consts))


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
