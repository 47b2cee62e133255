"""The fit: a task and settings in, a fitted flow out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch import objectives, training
from flowmatch.core.memory import check_memory, memory_for
from flowmatch.core.randomness import generator_on, seed_from, seeded_initialization
from flowmatch.core.user_warnings import warn
from flowmatch.fitting.phases import check_phases_fit
from flowmatch.fitting.results import FitResult, InterruptedFit
from flowmatch.fitting.schedule import measured_times
from flowmatch.fitting.settings import FitSettings, PhaseComponents
from flowmatch.fitting.tasks import FlowTask
from flowmatch.fitting.training_data import TrainingData
from flowmatch.flow import IndependentCoupling
from flowmatch.model import (
    Blueprint,
    FittedSource,
    FlowMap,
    FlowModel,
    SamplingDefaults,
    VelocityField,
    gives_finite_samples,
)
from flowmatch.preprocessing import LabelEncoder, WindowEncoder

Watch = Callable[["FitResult"], Any]
"""The estimator that callbacks are shown, for the fit as it stands."""


def fit_flow(
    task: FlowTask,
    settings: FitSettings,
    start: FitResult | None = None,
    *,
    watch: Watch | None = None,
    description: str | None = None,
) -> FitResult:
    """Train a flow.

    Parameters
    ----------
    task : FlowTask
    settings : FitSettings
    start : FitResult, optional
        What to go on from; left as it is.
    watch : callable ``FitResult -> estimator``, optional
        Gives the estimator that callbacks are shown.
    description : str, optional
        What is trained, for the progress bar.

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError
        Before training starts, for what does not go together.
    InterruptedFit
        If training ends by an exception, such as a `flowmatch.NonFiniteTrainingError`.
    """
    device = settings.device
    check_options_have_an_effect(task, settings)
    if start is not None and start.model.is_flow_map and not settings.objective.flow_map:
        raise ValueError(
            "this model's steps were distilled from a velocity, which fits to data cannot go on with: go on with the "
            "teacher, and distil it anew."
        )
    n_before = 0 if start is None else start.n_iter
    checkpointer = _checkpointer(task, settings, start)
    seed = _seed(settings, checkpointer)
    seeds = _seeds(seed, n_before)
    if start is None:
        with seeded_initialization(device, seeds[0]):
            untrained = _untrained(task, settings)
        before, network = FitResult(untrained, parameters=dict(settings.frozen)), untrained.network
    else:
        before = _going_on(start, task, settings)
        network = before.model.trainable_network()
    scale = before.model.source.scale
    check_phases_fit(settings, network, scale, task.conditions)
    if settings.objective.flow_map:
        size = before.model.condition_size
        objectives.check_forward_derivative(network, scale, size, "objective='mean_flow'")
    plan = _plan(task, settings, before.model, seeds, fresh=start is None)
    if settings.budget is not None:
        plan = settings.budget.planned(
            plan,
            lambda plan: _run(copy.deepcopy(network), plan, device, seeds),
            saved=None if checkpointer is None else checkpointer.saved_steps(),
            longest=task.schedule.longest,
        )
    run = _run(network, plan, device, seeds)
    if checkpointer is not None:
        checkpointer.resume(run)
    watched = None if watch is None else watch(replace(before, model=before.after(run).model))
    try:
        carry_out(run, checkpointer, seed, watched=watched, verbose=settings.verbose, description=description)
    except training.NonFiniteTrainingError as error:
        explained = _explained(error, task.data, plan.learning_rate, scale)
        raise InterruptedFit(before.after(run), explained) from error
    except BaseException as error:
        raise InterruptedFit(before.after(run), error) from error
    return before.after(run)


def with_seed(settings: FitSettings) -> FitSettings:
    """Give settings whose `random_state` is an int, for several fits that belong together.

    Of an unseeded fit with checkpoints it is not known before it starts, since it may go on from another.
    """
    if settings.random_state is None and settings.options.checkpoint_folder is not None:
        return settings
    return replace(settings, random_state=seed_from(settings.random_state))


def held_out_rows(task: FlowTask, settings: FitSettings) -> TrainingData:
    """Give the rows that a first fit with a seed validates on.

    Parameters
    ----------
    task : FlowTask
    settings : FitSettings
        Whose `random_state` is an int.

    Returns
    -------
    TrainingData
    """
    generator = generator_on(settings.device, _seeds(settings.random_state, 0)[3])
    held_out = task.data.split(settings.options.held_out, generator)[1]
    assert held_out is not None
    return held_out


def fit_and_assign(
    estimator: Any,
    task: FlowTask,
    settings: FitSettings,
    start: FitResult | None,
    record: Callable[[FitResult], Any] = lambda result: result,
) -> None:
    """Train a flow and assign what it learned to an estimator's `fitted_`, once, at the end.

    `record` makes of the result what the estimator keeps.

    When training is interrupted, an estimator that was not fitted takes over what has been learned so far, with a
    warning; the last good weights of a fit that diverged are taken over anyway.
    """

    def shown(result: FitResult) -> Any:
        other = copy.copy(estimator)
        other.fitted_ = record(result)
        return other

    try:
        estimator.fitted_ = record(fit_flow(task, settings, start, watch=shown))
    except InterruptedFit as interruption:
        error = interruption.error
        if isinstance(error, training.NonFiniteTrainingError):
            estimator.fitted_ = record(interruption.result)
            text = f"{error} The last good weights are kept on the {type(estimator).__name__}."
            raise training.NonFiniteTrainingError(text, error.step) from error
        try:
            if start is None and not hasattr(estimator, "fitted_") and interruption.result.n_iter > 0:
                estimator.fitted_ = record(interruption.result)
                warn(
                    f"the fit was interrupted by {type(error).__name__} after {interruption.result.n_iter} of "
                    f"{interruption.result.max_iter} steps: the {type(estimator).__name__} has the weights so far."
                )
        finally:
            raise error from None


def carry_out(
    run: training.TrainingRun,
    checkpointer: training.Checkpointer | None,
    seed: int,
    *,
    watched: Any,
    verbose: bool,
    description: str | None = None,
) -> None:
    """Carry a run to its end, with callbacks and checkpoints around it.

    Raises
    ------
    NonFiniteTrainingError
        If the loss or its gradient becomes non-finite; the run then has its last good weights.
    """
    options, batch_size = run.plan.options, run.plan.batch_size
    check_memory(f"batch_size={batch_size}", 8.0 * batch_size)  # the rows' numbers alone
    callbacks = training.CallbackList(options.callbacks, watched, run.plan.max_iter, run.history, run.memory)
    try:
        callbacks.call("setup")
        callbacks.call("on_fit_task_begin", "report")
        with memory_for(f"training with batch_size={batch_size}"):
            training.train(
                run,
                on_report=callbacks.report,
                on_step=None if checkpointer is None else lambda run: checkpointer.save_when_due(run, seed),
                verbose=verbose,
                description=description,
            )
        if checkpointer is not None:
            checkpointer.discard()
    except training.NonFiniteTrainingError:
        if checkpointer is not None:
            checkpointer.discard()
        run.restore_good_weights()
        raise
    finally:
        if checkpointer is not None:
            checkpointer.release()
        run.averaged_network.eval()
        callbacks.call("teardown")


def check_options_have_an_effect(task: FlowTask, settings: FitSettings) -> None:
    """Raise a ValueError for options that would do nothing, or hide what is to be learned."""
    conditions, phases = task.conditions, settings.phases
    paired = conditions is None or isinstance(conditions, LabelEncoder)
    if not paired and not isinstance(settings.coupling, IndependentCoupling):
        raise ValueError(
            f"coupling={settings.coupling!r} pairs noise with rows of one label, and has no effect under conditions "
            "that are no labels, such as numbers, grids or a forecaster's contexts: leave coupling at 'independent'."
        )
    if all(phase.conditioned for phase in phases):
        return
    if conditions is None:
        raise ValueError("a phase with conditioned=False hides conditions, but there are none to hide: fit with y.")
    if isinstance(conditions, WindowEncoder):
        raise ValueError("a phase with conditioned=False hides all contexts, without which there is no forecast.")
    if not any(phase.conditioned for phase in phases):
        raise ValueError("all phases have conditioned=False, which hides the conditions y from all of the training.")


def _untrained(task: FlowTask, settings: FitSettings) -> FlowModel:
    """A model with a fresh network on the device of training."""
    jumps, conditions = settings.objective.flow_map, task.conditions
    sizes = (0, 0) if conditions is None else (conditions.size, conditions.context_channels)
    blueprint = Blueprint(task.network, task.encoder.code_shape, *sizes, jumps, task.missing is not None)
    blueprint.check_size(settings.device)
    with memory_for(f"network={task.network!r}"):
        network = blueprint.build().to(settings.device)
    codes = torch.as_tensor(_without_gaps(task.some_codes()), dtype=torch.float32, device=settings.device)
    defaults = SamplingDefaults("flow_map", 1, task.defaults.velocity_steps) if jumps else task.defaults
    return FlowModel(
        network=network,
        blueprint=blueprint,
        kind=FlowMap(settings.guidance_scale) if jumps else VelocityField(),
        path=settings.path,
        source=FittedSource(settings.source, settings.source.fit_scale(codes)),
        encoder=task.encoder,
        conditions=task.conditions,
        condition_dropout=settings.condition_dropout,
        missing=None if task.missing is None else task.missing.to(settings.device),
        defaults=defaults,
        trainable=tuple(parameter.requires_grad for parameter in network.parameters()),
    )


def _going_on(start: FitResult, task: FlowTask, settings: FitSettings) -> FitResult:
    """What a fit goes on from, with what the new rows say of conditions and missing entries."""
    model = replace(
        start.model.to(settings.device),
        encoder=task.encoder,
        conditions=task.conditions,
        condition_dropout=settings.condition_dropout,
        missing=None if task.missing is None else task.missing.to(settings.device),
    )
    if isinstance(model.kind, FlowMap):  # training on data teaches neither
        model = replace(model, kind=FlowMap(model.kind.guidance_scale))
    return replace(start, model=model)


def _plan(
    task: FlowTask, settings: FitSettings, model: FlowModel, seeds: list[int], *, fresh: bool
) -> training.TrainingPlan:
    """What the loop needs: the loss of a batch of rows, and the loss on the rows held out."""
    options, warmup = settings.options, 0.0
    plain = PhaseComponents(settings.loss, settings.loss_weight)
    whole: Any = _objective(settings, model, plain)
    parts: list[Any] = [_objective(settings, model, phase) for phase in settings.phases]
    if isinstance(settings.objective, objectives.MeanFlow):
        own = {"settings": settings.objective, "guidance_scale": settings.guidance_scale}
        whole = _objective(settings, model, plain, objectives.MeanFlowObjective, own)
        parts, warmup = [whole], settings.objective.warmup if fresh else 0.0  # a fit that goes on knows the velocity
        if warmup > 0:
            parts = [_objective(settings, model, plain, objectives.InstantVelocityObjective, own), whole]
            options = replace(options, phases=tuple(map(training.Phase, (warmup, 1 - warmup))))
    schedule, device = task.schedule, settings.device
    kept, held_out = task.data.split(options.held_out, generator_on(device, seeds[3]))
    kept = task.disturb(kept)
    return training.TrainingPlan(
        batch_losses=[kept.loss_of(part) for part in parts],
        n_rows=len(kept),
        max_iter=schedule.max_iter,
        batch_size=schedule.batch_size,
        learning_rate=schedule.learning_rate,
        options=options,
        sample_weight=kept.weight,
        validation_loss=None if held_out is None else held_out.bank_loss(whole, device, seeds[4]),
        validate_from=warmup,
        data_device=task.data.device,
        is_sound=partial(gives_finite_samples, model),
    )


def _run(
    network: nn.Module, plan: training.TrainingPlan, device: torch.device, seeds: list[int]
) -> training.TrainingRun:
    """The beginning of a run."""
    noise, dropout = generator_on(device, seeds[1]), generator_on(device, seeds[5])
    return training.TrainingRun(network, plan, noise, generator_on(torch.device(plan.data_device), seeds[2]), dropout)


def _objective(
    settings: FitSettings,
    model: FlowModel,
    phase: PhaseComponents,
    kind: Any = objectives.VelocityObjective,
    more: dict[str, Any] | None = None,
) -> Any:
    """The loss of a phase."""
    dropout = settings.condition_dropout if phase.conditioned else 1.0
    return kind(
        settings.path,
        settings.source,
        settings.coupling,
        settings.time_sampler or measured_times(model.code_shape),
        model.source.scale,
        phase.loss,
        phase.loss_weight,
        0.0 if model.conditions is None else dropout,
        isinstance(model.conditions, LabelEncoder),
        phase.crop,
        is_masked=model.missing is not None,
        **(more or {}),
    )


def _checkpointer(task: FlowTask, settings: FitSettings, start: FitResult | None) -> training.Checkpointer | None:
    weights: dict[str, Tensor] = {}
    if start is not None:
        weights = {f"start.{name}": value for name, value in start.model.network.state_dict().items()}
    share = 0.0 if task.missing is None else task.missing.masked_share
    description = f"{settings.describe()} {task.schedule} {share} {settings.device.type} "
    description += str(0 if start is None else start.n_iter)
    seeded = settings.random_state is not None
    arrays = {**task.data.tensors(), **weights}
    return training.make_checkpointer(settings.options, arrays, description, seeded=seeded, budget=settings.budget)


def _seeds(seed: int, n_before: int) -> list[int]:
    """Seeds of the parts of a fit; one that goes on after some steps draws other noise than the one before it."""
    seeds: list[int] = np.random.RandomState([seed, n_before]).randint(2**31 - 1, size=6).tolist()
    return seeds


def _seed(settings: FitSettings, checkpointer: training.Checkpointer | None) -> int:
    """The seed of the fit, or of the interrupted one that it goes on from."""
    seed = seed_from(settings.random_state)  # a RandomState is drawn from either way
    saved = None if checkpointer is None else checkpointer.saved_seed()
    return seed if saved is None else saved


def _explained(
    error: training.NonFiniteTrainingError, data: TrainingData, learning_rate: float, scale: Tensor
) -> training.NonFiniteTrainingError:
    """The error with what may have caused it."""
    some = max(1, 2**20 // scale.numel())
    rows = torch.arange(min(len(data), some), device=data.device)
    drawn = data.draw(rows, generator_on(scale.device, 0))[0]
    return training.NonFiniteTrainingError(
        f"{error}. The encoded inputs ranged from {float(drawn.min()):.4g} to {float(drawn.max()):.4g}. "
        f"Try a smaller learning_rate (now {learning_rate:g}), gradient clipping, precision='float32', or "
        f"preprocessing='standardize' or 'quantile' if that range is wide.",
        error.step,
    )


def _without_gaps(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Codes with their columns' means where they are missing."""
    gaps = np.isnan(codes)
    return np.where(gaps, np.nanmean(codes, axis=0), codes) if gaps.any() else codes
