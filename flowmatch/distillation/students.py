"""Students: the teacher's estimator with another network, and how they are trained."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowmatch import distillation, flow, networks, objectives, preprocessing, training
from flowmatch._base import FlowEstimator, kept_numbers
from flowmatch.core.batches import rows_per_batch
from flowmatch.core.randomness import generator_on, isolated_rng
from flowmatch.core.user_warnings import warn
from flowmatch.fitting.parameters import build_network, describe_parameters, resolve_path, resolve_source
from flowmatch.fitting.parameters import resolve_component as resolve
from flowmatch.fitting.training_data import TrainingData

SHARE_OF_TEACHER = {"progressive": 0.7, "reflow": 0.7, "semigroup": 0.45, "lagrangian": 0.35}
"""Steps of a stage where the user does not say, in units of the steps that the teacher was trained for."""

LOSSES = {"progressive": "huber", "reflow": "l2", "semigroup": "huber", "lagrangian": "huber"}
"""A jump's target is certain, so a robust loss has the same minimum; pairs of reflow are noisy where they cross."""

RATE_OF_TEACHER = {"semigroup": 1.5, "lagrangian": 1.5}
"""Peak learning rate where the user does not say, in units of the teacher's; 1 for the others."""

FOLD_SHARE, FOLD_RATE = 0.3, 0.4
"""Steps and rate that fold a corrected velocity into one network, in units of those that trained it."""

TEACHER_STEPS = 8
N_PAIRS = 10_000
MOST_ELEMENTS = 2**26
"""Most numbers in a teacher's rollouts where the user does not say how many to make."""

_FEW_PAIRS = 1000


@dataclass(frozen=True)
class Settings:
    """The parameters of a distillation, checked and with defaults in place of None."""

    method: str
    n_steps: int
    n_stages: int
    teacher_steps: int
    step_sampler: flow.StepSampler | None
    loss: objectives.ResidualLoss
    guidance_scale: float
    inverse: bool
    ema_target: bool
    fold: bool
    n_pairs: int | None
    options: training.TrainingOptions


class Distiller:
    """Makes a student of a fitted teacher.

    Parameters
    ----------
    parameters : DistilledFlowMap
        Its `max_iter`, `batch_size`, `learning_rate` and `verbose` are read here.
    settings : Settings
    teacher : FlowEstimator
        Left as it is.
    data : TrainingData
        Codes and conditions of the rows to distil from.
    seed : int
    """

    def __init__(
        self, parameters: Any, settings: Settings, teacher: FlowEstimator, data: TrainingData, seed: int
    ) -> None:
        self.parameters, self.settings, self.teacher, self.data, self.seed = parameters, settings, teacher, data, seed
        self.device = teacher._fitted_device
        known = teacher._as_fitted
        self.problem = objectives.VelocityObjective(
            resolve_path(known),
            resolve_source(known),
            resolve("coupling", teacher.coupling, flow.Coupling, flow.COUPLINGS),
            flow.UShapedTimes(),  # for reflow; jumps have times of their own
            teacher._source_scale,
            settings.loss,
            condition_dropout=0.0 if teacher._conditions is None else known.condition_dropout,
            conditions_are_classes=isinstance(teacher._conditions, preprocessing.LabelEncoder),
            is_masked=teacher._is_masked,
        )
        network = copy.deepcopy(teacher.network_)
        self.velocity = (
            distillation.TeacherVelocity(networks.InstantVelocity(network))  # guided already, if it is to be
            if teacher._predicts_jumps
            else distillation.TeacherVelocity(network, settings.guidance_scale, kept_numbers(teacher))
        )
        schedule = teacher._schedule(len(data))
        max_iter, batch_size, rate = parameters.max_iter, parameters.batch_size, parameters.learning_rate
        self.n_iter = max_iter or max(1, round(SHARE_OF_TEACHER[settings.method] * teacher.n_iter_))
        self.batch_size = batch_size or schedule.batch_size
        self.learning_rate = rate or RATE_OF_TEACHER.get(settings.method, 1.0) * schedule.learning_rate
        self.student = self._new_student()

    def run(self) -> FlowEstimator:
        """Train the student, stage by stage.

        Raises
        ------
        NonFiniteTrainingError
            If the loss or its gradient becomes non-finite.
        """
        if self.settings.method == "progressive":
            self._progressive()
        elif self.settings.method == "reflow":
            self._reflow()
        else:
            self._flow_map()
        self.student.network_ = self.student.network_.eval().requires_grad_(False)
        return self.student

    def _new_student(self) -> FlowEstimator:
        """A copy of the teacher that samples with jumps, or by Euler steps of a straightened velocity."""
        settings, student = self.settings, object.__new__(type(self.teacher))
        student.__dict__ = dict(vars(self.teacher))  # copy.copy would copy the network, by way of the CPU
        jumps = settings.method != "reflow"
        student.verbose = self.parameters.verbose
        student.solver, student.n_steps = "auto" if jumps else "euler", settings.n_steps
        student._predicts_jumps, student._jumps_back = jumps, settings.inverse and jumps
        student._few_steps, student._after_divergence = True, "The distillation is undone."
        is_dyadic = settings.step_sampler is None or isinstance(settings.step_sampler, flow.DyadicSteps)
        student._dyadic_jumps = settings.method == "semigroup" and is_dyadic
        student.n_iter_, student.history_ = 0, {}
        student.guidance_scale = settings.guidance_scale if jumps else 1.0  # a straightened velocity has it inside
        if not jumps:
            student.path = flow.LinearPath()
        more = {"guidance_scale": student.guidance_scale} if jumps else {"path": student.path}
        student._fitted_parameters = {**student._fitted_parameters, **more}
        return student

    # -- methods --------------------------------------------------------------------------------------------------

    def _progressive(self) -> None:
        settings, network, stages = self.settings, self._new_flow_map(), []
        rollout = functools.partial(distillation.midpoint_rollout, self.velocity)
        for stage in range(settings.n_stages):
            n_intervals = settings.n_steps * settings.teacher_steps ** (settings.n_stages - 1 - stage)
            sampler = settings.step_sampler or flow.FixedSteps(n_intervals)
            # a student that has become the teacher knows the jumps of an even grid best
            stages.append(self._rollouts(rollout, sampler, stage, jitter=0.0 if stage else distillation.JITTER))
            loss = distillation.RolloutLoss(tuple(stages), settings.loss, settings.inverse, self.velocity)
            self._train_on_rows(network, loss, stage)
            network = self._go_on_from(self.student)
            rollout = functools.partial(distillation.jump_rollout, copy.deepcopy(self.student.network_).eval())

    def _reflow(self) -> None:
        network = self._go_on_from(self.teacher)
        velocity = self.velocity
        straight = replace(self.problem, path=flow.LinearPath())
        for stage in range(self.settings.n_stages):
            rollout = functools.partial(distillation.midpoint_rollout, velocity)
            pairs = self._rollouts(rollout, flow.FixedSteps(1), stage, ends_only=True)
            self._train_on_rows(network, distillation.PairLoss(pairs, straight), stage)
            network = self._go_on_from(self.student)
            velocity = distillation.TeacherVelocity(copy.deepcopy(self.student.network_))
            self.problem = straight

    def _flow_map(self) -> None:
        settings = self.settings
        sampler = settings.step_sampler
        if settings.method == "lagrangian":
            network = self._new_flow_map()
            objectives.check_forward_derivative(
                network, self.problem.source_scale, self._condition_size, "method='lagrangian'"
            )
            objective: Any = distillation.LagrangianObjective(
                self.problem, sampler or flow.BetaSteps(1.0, 1.5), settings.loss, settings.inverse, self.velocity
            )
            self._train_on_data(network, objective, 0)
            return
        corrected = distillation.CorrectedVelocity(self.velocity, self._new_flow_map())
        sampler = sampler or flow.DyadicSteps()
        objective = distillation.SemigroupObjective(self.problem, sampler, settings.loss, settings.inverse)
        self._train_on_data(corrected, objective, 0)
        if settings.fold:
            whole, copied = self.student.network_.eval(), self._go_on_from(self.student)
            assert isinstance(copied, distillation.CorrectedVelocity)
            fold = distillation.FoldObjective(self.problem, sampler, settings.loss, settings.inverse, whole)
            self.n_iter, self.learning_rate = max(1, round(FOLD_SHARE * self.n_iter)), FOLD_RATE * self.learning_rate
            self._train_on_data(copied.corrector, fold, 1)

    # -- parts ----------------------------------------------------------------------------------------------------

    @property
    def _condition_size(self) -> int:
        return 0 if self.teacher._conditions is None else self.teacher._conditions.size

    @staticmethod
    def _go_on_from(estimator: FlowEstimator) -> nn.Module:
        """A copy of an estimator's network, to be trained."""
        network = copy.deepcopy(estimator.network_)
        for parameter, trainable in zip(network.parameters(), estimator._trainable, strict=True):
            parameter.requires_grad_(trainable)
        return network

    def _new_flow_map(self) -> nn.Module:
        """A flow map that starts as the teacher's velocity, or as the teacher if that is one already."""
        if self.teacher._predicts_jumps:
            return self._go_on_from(self.teacher)
        with isolated_rng(self.device, self.seed):
            network = build_network(
                self.teacher._network_factory(),
                self.teacher._encoder.code_shape,
                self.teacher._conditions,
                flow_map=True,
                is_masked=self.teacher._is_masked,
            ).to(self.device)
        networks.start_from_velocity(network, self.teacher.network_)
        return network

    def _rollouts(
        self, rollout: Any, sampler: flow.StepSampler, stage: int, *, jitter: float = 0.0, ends_only: bool = False
    ) -> distillation.Rollouts:
        """Rollouts of the teacher of a stage, from states on the path."""
        settings, scale = self.settings, self.problem.source_scale
        n_pairs = settings.n_pairs or self._affordable_paths(2 if ends_only else settings.teacher_steps + 1)
        generator = generator_on(self.device, self._seeds(stage)[3])
        rows = self._draw_rows(n_pairs, stage)
        x1, condition = self.data.draw(rows, generator)
        x0, x1 = self.problem.draw_pairs(x1, condition, generator)
        t, step = sampler.draw(n_pairs, generator, scale.device, scale.dtype)
        first = self.problem.path.first_time
        t, step = first + (1 - first) * t, (1 - first) * step
        x = self.problem.path.interpolate(x0, x1, t)
        return distillation.Rollouts.make(
            rollout,
            torch.where(flow.expand_time(t <= first, x), x0, x),  # sampling starts from pure noise, whatever the path
            distillation.rollout_times(t, step, settings.teacher_steps, jitter, generator),
            self.problem.hide_conditions(condition, generator),
            rows_per_batch(tuple(scale.shape), self.device),
            ends_only=ends_only,
        )

    def _affordable_paths(self, n_states: int) -> int:
        """How many paths of the teacher to keep so many states of."""
        # more paths than training draws rows would be made for nothing
        wanted = min(N_PAIRS, self.n_iter * self.batch_size)
        n_pairs = max(2, min(wanted, MOST_ELEMENTS // (n_states * self.problem.source_scale.numel())))
        if n_pairs < min(wanted, _FEW_PAIRS):
            warn(
                f"{n_pairs} of the teacher's paths are made, for they are large (about {MOST_ELEMENTS * 4 >> 20} MiB): "
                "too few to learn all of it from. Pass n_pairs, or take method='semigroup', which keeps none."
            )
        return n_pairs

    def _draw_rows(self, n_rows: int, stage: int) -> Tensor:
        """Numbers of training rows, each as often as its weight says."""
        device = self.data.device
        generator = generator_on(device, self._seeds(stage)[4])
        if self.data.weight is not None:
            # by the inverse of the distribution function: torch.multinomial takes no more than 2^24 rows
            total = self.data.weight.double().cumsum(0)
            u = total[-1] * torch.rand(n_rows, generator=generator, device=device, dtype=torch.float64)
            return torch.searchsorted(total, u, right=True).clamp(max=len(total) - 1)
        return torch.randint(len(self.data), (n_rows,), generator=generator, device=device)

    def _train_on_rows(self, network: nn.Module, loss: Any, stage: int) -> None:
        """Train on fixed rows, such as a teacher's rollouts; a share of them may be held out."""
        n_rows = len(loss.pairs if isinstance(loss, distillation.PairLoss) else loss.stages[0])
        n_held_out = round(self.settings.options.held_out * n_rows)
        if self.settings.options.held_out > 0 and not 1 <= n_held_out < n_rows:
            raise ValueError(
                f"validation_fraction={self.settings.options.held_out:g} of {n_rows} paths of the teacher leaves "
                f"{n_rows - n_held_out} to train on and {n_held_out} to validate with; make more of them (n_pairs)."
            )
        held_out = torch.arange(n_rows - n_held_out, n_rows, device=self.device)

        def validation_loss(network: nn.Module) -> Tensor:
            generator = generator_on(self.device, self.seed)
            return torch.cat([loss(network, rows, generator) for rows in held_out.split(1024)]).mean()

        plan = self._plan([loss], n_rows - n_held_out, validation_loss if n_held_out else None, self.device)
        self._train(network, plan, stage)

    def _train_on_data(self, network: nn.Module, objective: Any, stage: int) -> None:
        """Train on batches of the data."""
        seeds = self._seeds(stage)
        kept, held_out = self.data.split(self.settings.options.held_out, generator_on(self.device, seeds[3]))
        validation = None if held_out is None else held_out.bank_loss(objective, self.device, seeds[4])
        losses: list[Any] = []
        plan = self._plan(losses, len(kept), validation, self.data.device, kept.weight)

        def loss_of(run: training.TrainingRun) -> Any:
            if not self.settings.ema_target or isinstance(objective, distillation.FoldObjective):
                return kept.loss_of(objective)
            return kept.loss_of(replace(objective, target_network=run.averaged_network))

        self._train(network, plan, stage, lambda run: losses.append(loss_of(run)))

    def _plan(
        self, losses: list[Any], n_rows: int, validation: Any, data_device: torch.device, weight: Tensor | None = None
    ) -> training.TrainingPlan:
        return training.TrainingPlan(
            batch_losses=losses,
            n_rows=n_rows,
            max_iter=self.n_iter,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            options=self.settings.options,
            sample_weight=weight,
            validation_loss=validation,
            data_device=data_device,
        )

    def _train(self, network: nn.Module, plan: training.TrainingPlan, stage: int, prepare: Any = None) -> None:
        """One run of the loop, with a learning-rate cycle of its own; the student gets the averaged network."""
        seeds, options = self._seeds(stage), self.settings.options
        self.student._trainable = [parameter.requires_grad for parameter in network.parameters()]
        with isolated_rng(self.device, seeds[0]):
            noise = generator_on(self.device, seeds[1])
            shuffle = generator_on(torch.device(plan.data_device), seeds[2])
            run = training.TrainingRun(network.train(), plan, noise, shuffle)
            if prepare is not None:
                prepare(run)
            checkpointer = self._checkpointer(stage)
            if checkpointer is not None:
                checkpointer.resume(run)
            self.student._run_training(run, options, None, checkpointer, self.seed)

    def _checkpointer(self, stage: int) -> training.Checkpointer | None:
        options = self.settings.options
        if options.checkpoint_folder is None:
            return None
        start = {f"teacher.{name}": value for name, value in self.teacher.network_.state_dict().items()}
        described = (  # what sampling alone depends on in other fits decides how a student is trained
            f"{describe_parameters(self.parameters, options)} {describe_parameters(self.teacher, options)} "
            f"{self.device.type} stage {stage} seed {self.seed} "
            f"n_steps {self.settings.n_steps} guidance_scale {self.settings.guidance_scale}"
        )
        fingerprint = training.fingerprint({**self.data.tensors(), **start}, described)
        return training.Checkpointer(options.checkpoint_folder, options.checkpoint_period, fingerprint)

    def _seeds(self, stage: int) -> list[int]:
        return np.random.RandomState([self.seed, stage]).randint(2**31 - 1, size=5).tolist()
