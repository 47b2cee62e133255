"""The parameters of a distillation, checked, and their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowmatch import fitting, flow, model, objectives
from flowmatch.core.checks import check_choice, check_count, check_number, check_type
from flowmatch.core.component import resolve_component
from flowmatch.core.descriptions import describe_value
from flowmatch.networks import CorrectedVelocity
from flowmatch.training import TimeBudget, TrainingOptions

METHODS = ("progressive", "semigroup", "lagrangian", "reflow")

_ROLLOUTS, _FLOW_MAPS = ("progressive", "reflow"), ("semigroup", "lagrangian")
USED_BY = {
    "n_stages": _ROLLOUTS,
    "teacher_steps": _ROLLOUTS,
    "n_pairs": _ROLLOUTS,
    "step_sampler": ("progressive", *_FLOW_MAPS),
    "ema_target": _FLOW_MAPS,
    "fold": ("semigroup",),
}
"""Parameters that only some methods have a use for; None leaves them at their defaults."""


_NOT_DESCRIBED = ("estimator", "training", "verbose")

NOT_A_VELOCITY = "method='reflow' straightens a velocity, but this teacher is a flow map already."

SHARE_OF_TEACHER = {"progressive": 0.7, "reflow": 0.7, "semigroup": 0.45, "lagrangian": 0.35}
"""Steps of a stage where the user does not say, in units of the steps that the teacher was trained for."""

LOSSES = {"progressive": "huber", "reflow": "l2", "semigroup": "huber", "lagrangian": "huber"}
"""A flow map's target is certain, so a robust loss has the same minimum; pairs of reflow are noisy where they cross."""

RATE_OF_TEACHER = {"semigroup": 1.5, "lagrangian": 1.5}
"""Peak learning rate where the user does not say, in units of the teacher's; 1 for the others."""

TEACHER_STEPS = 8
N_PAIRS = 10_000
MOST_ELEMENTS = 2**26
"""Most elements in a teacher's rollouts where the user does not say how many to make."""


@dataclass(frozen=True)
class DistillationSettings:
    """The parameters of a distillation, checked and with defaults in place of None.

    Attributes
    ----------
    method : {"progressive", "semigroup", "lagrangian", "reflow"}
    n_steps, n_stages, teacher_steps : int
    n_pairs : int or None
        None makes as many paths as are affordable.
    step_sampler : StepSampler or None
        None takes the method's own.
    loss : ResidualLoss
    guidance_scale : float
    inverse, ema_target, fold : bool
    coupling : Coupling
        The teacher's.
    max_iter, batch_size, learning_rate
        Of a stage.
    options : TrainingOptions
    description : str
        What distinguishes checkpoints.
    seed : int
    verbose : bool
    budget : TimeBudget or None
        Of all stages.
    """

    method: str
    n_steps: int
    n_stages: int
    teacher_steps: int
    n_pairs: int | None
    step_sampler: flow.StepSampler | None
    loss: objectives.ResidualLoss
    guidance_scale: float
    inverse: bool
    ema_target: bool
    fold: bool
    coupling: flow.Coupling
    max_iter: int
    batch_size: int
    learning_rate: float
    options: TrainingOptions
    description: str
    seed: int
    verbose: bool
    budget: TimeBudget | None = None


def check_teacher(parameters: Any, teacher: model.FlowModel, guidance_scale: float) -> None:
    """Raise a ValueError if a method, loss or guidance does not suit a teacher."""
    loss_and_sampler(parameters)[0].check_shape(teacher.code_shape)
    if parameters.method == "reflow" and teacher.is_flow_map:
        raise ValueError(NOT_A_VELOCITY)
    if parameters.method == "semigroup" and isinstance(teacher.network, CorrectedVelocity):
        raise ValueError(
            "method='semigroup' corrects a velocity, but this teacher corrects one itself (fold=False): distil it "
            "with fold=True, or take method='progressive'."
        )
    model.check_guidance(teacher, guidance_scale)


def check_before_teaching(parameters: Any, objective: Any, condition_dropout: float, X: Any, y: Any) -> None:
    """Raise a ValueError for what would only be found out after a generator has been fitted as the teacher."""
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) >= 2:
        loss_and_sampler(parameters)[0].check_shape(shape[1:])
    if parameters.method == "reflow" and objectives.is_flow_map(objective):
        raise ValueError(NOT_A_VELOCITY)
    if parameters.guidance_scale not in (None, 1.0) and (y is None or condition_dropout == 0):
        raise ValueError(
            f"guidance_scale={parameters.guidance_scale:g} needs a teacher with conditions that also learns to do "
            "without: fit with y, and condition_dropout > 0."
        )


def resolve_distillation(
    parameters: Any,
    teacher: fitting.FitSettings,
    n_iter: int,
    schedule: fitting.Schedule,
    guidance_scale: float,
    seed: int,
    budget: TimeBudget | None = None,
) -> DistillationSettings:
    """All parameters with their defaults.

    Parameters
    ----------
    parameters : DistilledFlowMap
    teacher : FitSettings
        How the teacher was trained.
    n_iter : int
        For how many steps.
    schedule : Schedule
        The teacher's, for the rows to distil from.
    guidance_scale : float
    seed : int
    budget : TimeBudget, optional
    """
    loss, sampler = loss_and_sampler(parameters)
    method = parameters.method
    own = [(name, value) for name, value in parameters.get_params(deep=False).items() if name not in _NOT_DESCRIBED]
    return DistillationSettings(
        method=method,
        n_steps=int(parameters.n_steps),
        n_stages=int(parameters.n_stages or 1),
        teacher_steps=int(parameters.teacher_steps or TEACHER_STEPS),
        n_pairs=parameters.n_pairs,
        step_sampler=sampler,
        loss=loss,
        guidance_scale=guidance_scale,
        inverse=bool(parameters.inverse),
        ema_target=bool(parameters.ema_target),
        fold=True if parameters.fold is None else bool(parameters.fold),
        coupling=teacher.coupling,
        max_iter=int(parameters.max_iter or 0) or max(1, round(SHARE_OF_TEACHER[method] * n_iter)),
        batch_size=int(parameters.batch_size or schedule.batch_size),
        learning_rate=parameters.learning_rate or RATE_OF_TEACHER.get(method, 1.0) * schedule.learning_rate,
        options=fitting.resolve_options(parameters.training),
        # what sampling alone depends on in other fits decides how a student is trained
        description=f"{describe_value(own)} {guidance_scale} {teacher.describe()}",
        seed=seed,
        verbose=bool(parameters.verbose),
        budget=budget,
    )


def check_parameters(parameters: Any) -> None:
    """Raise a ValueError for the first parameter that is out of range, or of no use to the method."""
    check_choice("method", parameters.method, METHODS)
    for name in ("n_steps", "n_stages", "teacher_steps", "n_pairs", "max_iter", "batch_size"):
        if name == "n_steps" or getattr(parameters, name) is not None:
            check_count(name, getattr(parameters, name))
    fitting.budget_of(parameters.max_time)
    if parameters.learning_rate is not None:
        check_number("learning_rate", parameters.learning_rate, 0.0, open_low=True)
    if parameters.guidance_scale is not None:
        check_number("guidance_scale", parameters.guidance_scale, -np.inf)
    for name in ("inverse", "ema_target", "fold"):
        check_type(name, getattr(parameters, name), (bool, np.bool_, type(None)), "True or False")
    for name, methods in USED_BY.items():
        if getattr(parameters, name) is not None and parameters.method not in methods:
            raise ValueError(
                f"{name}={getattr(parameters, name)!r} has no meaning for method={parameters.method!r}, only for "
                f"{' and '.join(map(repr, methods))}; leave it at None."
            )
    if parameters.step_sampler is not None and (parameters.n_stages or 1) > 1:
        raise ValueError(
            f"step_sampler={parameters.step_sampler!r} with n_stages={parameters.n_stages}: the steps of stages "
            "follow from n_steps and teacher_steps; leave step_sampler at None."
        )
    loss_and_sampler(parameters)
    _check_options(parameters, fitting.resolve_options(parameters.training))


def _check_options(parameters: Any, options: TrainingOptions) -> None:
    if options.phases:
        raise ValueError("training phases are for fits to data; a distillation has stages (n_stages).")
    if options.compile and parameters.method == "lagrangian":
        raise ValueError(
            "training with compile=True does not go with method='lagrangian': torch.compile gives no forward-mode "
            "derivatives. Take method='progressive' or 'reflow'."
        )
    if options.checkpoint_folder is not None and parameters.random_state is None:
        raise ValueError("checkpoints of a distillation need random_state: without it no run goes on from another.")


def loss_and_sampler(parameters: Any) -> tuple[objectives.ResidualLoss, flow.StepSampler | None]:
    """The loss, and the sampler of steps if there is one, as components."""
    loss = LOSSES[parameters.method] if parameters.loss is None else parameters.loss
    loss = resolve_component("loss", loss, objectives.ResidualLoss, fitting.ALIASES["loss"])
    if parameters.step_sampler is None:
        return loss, None
    sampler = resolve_component("step_sampler", parameters.step_sampler, flow.StepSampler, flow.STEP_SAMPLERS)
    sampler.check()
    return loss, sampler
