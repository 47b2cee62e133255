"""Students: a fitted flow, data to distil from and settings in, a flow of few steps out."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowmatch import flow, objectives, training
from flowmatch.core.batches import rows_per_batch
from flowmatch.core.memory import check_memory
from flowmatch.core.randomness import generator_on, seeded_initialization
from flowmatch.core.user_warnings import warn
from flowmatch.distillation.flow_maps import FoldObjective, LagrangianObjective, SemigroupObjective
from flowmatch.distillation.rollouts import (
    JITTER,
    PairLoss,
    RolloutLoss,
    Rollouts,
    jump_rollout,
    midpoint_rollout,
    rollout_times,
)
from flowmatch.distillation.settings import MOST_ELEMENTS, N_PAIRS, USED_BY, DistillationSettings
from flowmatch.fitting import FitResult, TrainingData, carry_out
from flowmatch.model import (
    Blueprint,
    Correction,
    FlowMap,
    FlowModel,
    SamplingDefaults,
    VelocityField,
    gives_finite_samples,
)
from flowmatch.networks import CorrectedVelocity, TeacherVelocity, start_from_velocity
from flowmatch.preprocessing import LabelEncoder
from flowmatch.training.rows import cumulative_weights, rows_at

FOLD_SHARE, FOLD_RATE = 0.3, 0.4
"""Steps and rate that fold a corrected velocity into one network, in units of those that trained it."""

_FEW_PAIRS = 1000


def distil(
    teacher: FlowModel,
    data: TrainingData,
    settings: DistillationSettings,
    *,
    parameters: dict[str, Any] | None = None,
    watch: Callable[[FitResult], Any] | None = None,
) -> FitResult:
    """Train a student of a fitted flow, stage by stage.

    Parameters
    ----------
    teacher : FlowModel
        Left as it is.
    data : TrainingData
        Codes and conditions of the rows to distil from.
    settings : DistillationSettings
    parameters : dict, optional
        For `FitResult.parameters`.
    watch : callable ``FitResult -> estimator``, optional
        Gives the estimator that callbacks are shown.

    Returns
    -------
    FitResult
        Whose model has the teacher's encoders, and a network of few steps.

    Raises
    ------
    NonFiniteTrainingError
        If the loss or its gradient becomes non-finite.
    """
    if settings.budget is not None:
        settings.budget.share(1 + FOLD_SHARE if settings.method == "semigroup" and settings.fold else settings.n_stages)
    distiller = _Distiller(teacher, data, settings, parameters or {}, watch)
    getattr(distiller, settings.method)()
    return distiller.result


class _Distiller:
    """A distillation under way.

    Attributes
    ----------
    result : FitResult
        The student as it stands, after the stages that are over.
    """

    def __init__(
        self,
        teacher: FlowModel,
        data: TrainingData,
        settings: DistillationSettings,
        parameters: dict[str, Any],
        watch: Callable[[FitResult], Any] | None,
    ) -> None:
        self.teacher, self.data, self.settings, self.watch = teacher, data, settings, watch
        self.device = teacher.device
        self.problem = objectives.VelocityObjective(
            teacher.path,
            teacher.source.source,
            settings.coupling,
            flow.UShapedTimes(),  # for reflow; flow maps have steps of their own
            teacher.source.scale,
            settings.loss,
            condition_dropout=0.0 if teacher.conditions is None else teacher.condition_dropout,
            conditions_are_classes=isinstance(teacher.conditions, LabelEncoder),
            is_masked=teacher.missing is not None,
        )
        # a flow map has its guidance inside
        self.correction = Correction(1.0 if teacher.is_flow_map else settings.guidance_scale, teacher.is_flow_map)
        network = teacher.as_velocity(copy.deepcopy(teacher.network))
        self.velocity = TeacherVelocity(
            network, self.correction.guidance_scale, 0 if teacher.is_flow_map else teacher.blueprint.n_kept
        )
        student = self._student()
        if not student.is_flow_map:
            parameters = {**parameters, "path": student.path}
        self.result = FitResult(student, parameters=parameters)

    def _student(self) -> FlowModel:
        """The teacher as a model of few steps, before its network is trained."""
        settings, teacher = self.settings, self.teacher
        few = settings.method != "reflow"
        defaults = SamplingDefaults("flow_map" if few else "euler", settings.n_steps, teacher.defaults.velocity_steps)
        if not few:
            return replace(teacher, kind=VelocityField(), path=flow.LinearPath(), defaults=defaults)
        is_dyadic = settings.step_sampler is None or isinstance(settings.step_sampler, flow.DyadicSteps)
        grid = "dyadic" if settings.method == "semigroup" and is_dyadic else "even"
        kind = FlowMap(settings.guidance_scale, settings.inverse, grid)
        return replace(teacher, kind=kind, blueprint=self._flow_map_blueprint, defaults=defaults)

    # -- methods --------------------------------------------------------------------------------------------------

    def progressive(self) -> None:
        """Match the states of the teacher's rollouts, stage by stage with longer steps."""
        settings, network, stages = self.settings, self._new_flow_map(), []
        rollout = functools.partial(midpoint_rollout, self.velocity)
        for stage in range(settings.n_stages):
            if stage > 0:
                network = self.result.model.trainable_network()
                rollout = functools.partial(jump_rollout, copy.deepcopy(self.result.model.network).eval())
            n_intervals = settings.n_steps * settings.teacher_steps ** (settings.n_stages - 1 - stage)
            sampler = settings.step_sampler or flow.FixedSteps(n_intervals)
            # a student that has become the teacher knows the steps of an even grid best
            stages.append(self._rollouts(rollout, sampler, stage, jitter=0.0 if stage else JITTER))
            loss = RolloutLoss(tuple(stages), settings.loss, settings.inverse, self.velocity)
            self._train_on_rows(network, loss, stage)

    def reflow(self) -> None:
        """Learn a velocity on the pairs that the teacher makes of noise and samples."""
        network = self.teacher.trainable_network()
        velocity = self.velocity
        straight = replace(self.problem, path=flow.LinearPath())
        for stage in range(self.settings.n_stages):
            if stage > 0:
                network = self.result.model.trainable_network()
                velocity, self.problem = TeacherVelocity(copy.deepcopy(self.result.model.network)), straight
            rollout = functools.partial(midpoint_rollout, velocity)
            pairs = self._rollouts(rollout, flow.FixedSteps(1), stage, ends_only=True)
            self._train_on_rows(network, PairLoss(pairs, straight), stage)

    def lagrangian(self) -> None:
        """Learn a flow map whose states move as the teacher says, anywhere on the path."""
        settings, network = self.settings, self._new_flow_map()
        objectives.check_forward_derivative(
            network, self.problem.source_scale, self.teacher.condition_size, "method='lagrangian'"
        )
        sampler = settings.step_sampler or flow.BetaSteps(1.0, 1.5)
        objective = LagrangianObjective(self.problem, sampler, settings.loss, settings.inverse, self.velocity)
        self._train_on_data(network, objective, 0)

    def semigroup(self) -> None:
        """Learn to correct the teacher's velocity so that two jumps are one, and fold both into one network."""
        settings = self.settings
        sampler = settings.step_sampler or flow.DyadicSteps()
        corrected = replace(self._flow_map_blueprint, correction=self.correction)
        self.result = replace(self.result, model=replace(self.result.model, blueprint=corrected))
        network = CorrectedVelocity(self.velocity, self._new_flow_map())
        objective = SemigroupObjective(self.problem, sampler, settings.loss, settings.inverse)
        self._train_on_data(network, objective, 0)
        if settings.fold:
            whole, copied = self.result.model.network.eval(), self.result.model.trainable_network()
            assert isinstance(copied, CorrectedVelocity)
            fold = FoldObjective(self.problem, sampler, settings.loss, settings.inverse, whole)
            self.settings = replace(
                settings,
                max_iter=max(1, round(FOLD_SHARE * self.settings.max_iter)),
                learning_rate=FOLD_RATE * settings.learning_rate,
            )
            self.result = replace(self.result, model=replace(self.result.model, blueprint=self._flow_map_blueprint))
            self._train_on_data(copied.corrector, fold, 1)

    # -- parts ----------------------------------------------------------------------------------------------------

    @property
    def _flow_map_blueprint(self) -> Blueprint:
        """How the student's network is built where it is a flow map."""
        known = self.teacher.blueprint
        return known if self.teacher.is_flow_map else replace(known, flow_map=True)

    def _new_flow_map(self) -> nn.Module:
        """A flow map that starts as the teacher's velocity, or as the teacher if that is one already."""
        if self.teacher.is_flow_map:
            return self.teacher.trainable_network()
        with seeded_initialization(self.device, self.settings.seed):
            network = self._flow_map_blueprint.build().to(self.device)
        start_from_velocity(network, self.teacher.network)
        return network

    def _rollouts(
        self, rollout: Any, sampler: flow.StepSampler, stage: int, *, jitter: float = 0.0, ends_only: bool = False
    ) -> Rollouts:
        """Rollouts of the teacher of a stage, from states on the path."""
        settings, scale = self.settings, self.problem.source_scale
        n_pairs = settings.n_pairs or self._affordable_paths(2 if ends_only else settings.teacher_steps + 1)
        check_memory(f"n_pairs={n_pairs}", 4.0 * n_pairs * scale.numel())
        generator = generator_on(self.device, self._seeds(stage)[3])
        rows = self._draw_rows(n_pairs, stage)
        x1, condition = self.data.draw(rows, generator)
        x0, x1 = self.problem.draw_pairs(x1, condition, generator)
        t, step = sampler.draw(n_pairs, generator, scale.device, scale.dtype)
        first = self.problem.path.first_time
        t, step = first + (1 - first) * t, (1 - first) * step
        x = self.problem.path.interpolate(x0, x1, t)
        return Rollouts.make(
            rollout,
            torch.where(flow.expand_time(t <= first, x), x0, x),  # sampling starts from pure noise, whatever the path
            rollout_times(t, step, settings.teacher_steps, jitter, generator),
            self.problem.hide_conditions(condition, generator),
            rows_per_batch(tuple(scale.shape), self.device),
            ends_only=ends_only,
            verbose=settings.verbose,
        )

    def _affordable_paths(self, n_states: int) -> int:
        """How many paths of the teacher to keep so many states of."""
        # more paths than training draws rows would be made for nothing
        wanted = min(N_PAIRS, self.settings.max_iter * self.settings.batch_size)
        n_pairs = max(2, min(wanted, MOST_ELEMENTS // (n_states * self.problem.source_scale.numel())))
        if n_pairs < min(wanted, _FEW_PAIRS):
            warn(
                f"{n_pairs} of the teacher's paths are made, for they are large (about {MOST_ELEMENTS * 4 >> 20} MiB): "
                "too few to learn all of it from. Pass n_pairs, or take method='semigroup', which keeps none."
            )
        return n_pairs

    def _draw_rows(self, n_rows: int, stage: int) -> Tensor:
        """Positions of training rows, each as often as its weight says."""
        device = self.data.device
        generator = generator_on(device, self._seeds(stage)[4])
        if self.data.weight is not None:
            # by the inverse of the distribution function: torch.multinomial takes no more than 2^24 rows
            cumulative = cumulative_weights(self.data.weight)
            dtype = torch.float32 if device.type == "mps" else torch.float64
            quantiles = torch.rand(n_rows, generator=generator, device=device, dtype=dtype).to(cumulative)
            return rows_at(quantiles, cumulative).to(device)
        return torch.randint(len(self.data), (n_rows,), generator=generator, device=device)

    def _train_on_rows(self, network: nn.Module, loss: Any, stage: int) -> None:
        """Train on fixed rows, such as a teacher's rollouts; a share of them may be held out."""
        share = self.settings.options.held_out
        n_rows = len(loss.pairs if isinstance(loss, PairLoss) else loss.stages[0])
        n_held_out = round(share * n_rows)
        if share > 0 and not 1 <= n_held_out < n_rows:
            raise ValueError(
                f"validation_fraction={share:g} of {n_rows} paths of the teacher leaves {n_rows - n_held_out} to train "
                f"on and {n_held_out} to validate with; make more of them (n_pairs)."
            )
        held_out = torch.arange(n_rows - n_held_out, n_rows, device=self.device)

        def validation_loss(network: nn.Module) -> Tensor:
            generator = generator_on(self.device, self.settings.seed)
            return torch.cat([loss(network, rows, generator) for rows in held_out.split(1024)]).mean()

        plan = self._plan([loss], n_rows - n_held_out, validation_loss if n_held_out else None, self.device)
        self._train(network, plan, stage)

    def _train_on_data(self, network: nn.Module, objective: Any, stage: int) -> None:
        """Train on batches of the data."""
        seeds = self._seeds(stage)
        kept, held_out = self.data.split(self.settings.options.held_out, generator_on(self.device, seeds[3]))
        validation = None if held_out is None else held_out.bank_loss(objective, self.device, seeds[4])
        plan = self._plan([kept.loss_of(objective)], len(kept), validation, self.data.device, kept.weight)

        def loss_of(run: training.TrainingRun) -> Any:
            return kept.loss_of(replace(objective, target_network=run.averaged_network))

        averaged = self.settings.ema_target and not isinstance(objective, FoldObjective)
        self._train(network, plan, stage, loss_of if averaged else None)

    def _plan(
        self, losses: list[Any], n_rows: int, validation: Any, data_device: torch.device, weight: Tensor | None = None
    ) -> training.TrainingPlan:
        return training.TrainingPlan(
            batch_losses=losses,
            n_rows=n_rows,
            max_iter=self.settings.max_iter,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            options=self.settings.options,
            sample_weight=weight,
            validation_loss=validation,
            data_device=data_device,
        )

    def _train(self, network: nn.Module, plan: training.TrainingPlan, stage: int, loss_of: Any = None) -> None:
        """One run of the loop, with a learning-rate cycle of its own; the student gets the averaged network.

        `loss_of` gives the loss of a run where that depends on its averaged network.
        """
        settings = self.settings
        trainable = tuple(parameter.requires_grad for parameter in network.parameters())
        before = replace(self.result, model=replace(self.result.model, trainable=trainable))
        plan = replace(plan, is_sound=functools.partial(gives_finite_samples, before.model))
        checkpointer = self._checkpointer(stage)
        if settings.budget is not None and stage == 0:
            plan = settings.budget.planned(
                plan,
                lambda plan: self._run(copy.deepcopy(network), plan, stage, loss_of),
                saved=None if checkpointer is None else checkpointer.saved_steps(),
                fewest=self._fewest_steps,
            )
            self.settings = replace(settings, max_iter=plan.max_iter)
        run = self._run(network, plan, stage, loss_of)
        if checkpointer is not None:
            checkpointer.resume(run)
        shown = replace(before, model=before.after(run).model)
        watched = None if self.watch is None else self.watch(shown)
        try:
            carry_out(run, checkpointer, settings.seed, watched=watched, verbose=settings.verbose)
        except training.NonFiniteTrainingError as error:
            raise training.NonFiniteTrainingError(
                f"{error}. Try a smaller learning_rate (now {plan.learning_rate:g}) or gradient clipping. The "
                "distillation is undone.",
                error.step,
            ) from error
        self.result = replace(before.after(run), max_iter=before.max_iter or plan.max_iter)

    def _run(self, network: nn.Module, plan: training.TrainingPlan, stage: int, loss_of: Any) -> training.TrainingRun:
        """The beginning of a run."""
        seeds = self._seeds(stage)
        noise, dropout = generator_on(self.device, seeds[1]), generator_on(self.device, seeds[0])
        shuffle = generator_on(torch.device(plan.data_device), seeds[2])
        run = training.TrainingRun(network.train(), plan, noise, shuffle, dropout)
        if loss_of is not None:
            run.plan = replace(plan, batch_losses=[loss_of(run)])
        return run

    @property
    def _fewest_steps(self) -> int:
        """Steps within any time budget: where paths of the teacher are made first, as many as draw each of them.

        How many are made goes by the number of steps, which is not known before.
        """
        if self.settings.method not in USED_BY["n_pairs"] or self.settings.n_pairs is not None:
            return training.FEWEST_STEPS
        return max(training.FEWEST_STEPS, -(-N_PAIRS // self.settings.batch_size))

    def _checkpointer(self, stage: int) -> training.Checkpointer | None:
        start = {f"teacher.{name}": value for name, value in self.teacher.network.state_dict().items()}
        described = f"{self.settings.description} {self.device.type} stage {stage} seed {self.settings.seed}"
        arrays = {**self.data.tensors(), **start}
        return training.make_checkpointer(self.settings.options, arrays, described, budget=self.settings.budget)

    def _seeds(self, stage: int) -> list[int]:
        return np.random.RandomState([self.settings.seed, stage]).randint(2**31 - 1, size=5).tolist()
