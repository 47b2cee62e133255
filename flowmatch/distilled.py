"""DistilledFlowMap: turn a fitted flow into a sampler that needs one evaluation, or a few."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from flowmatch import distillation, flow, objectives, training
from flowmatch._base import FlowEstimator
from flowmatch._student_methods import StudentMethods
from flowmatch.base import Estimator
from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.component import resolve_component
from flowmatch.core.randomness import seed_from
from flowmatch.distillation.students import LOSSES, MOST_ELEMENTS, N_PAIRS, TEACHER_STEPS, Distiller, Settings
from flowmatch.fitting.parameters import ALIASES

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


_NOT_A_VELOCITY = "method='reflow' straightens a velocity, but this teacher is a flow map already."


class DistilledFlowMap(StudentMethods, Estimator):
    """A teacher in, a sampler of one or a few steps out.

    A flow needs ten or more evaluations of its network for good samples. The student learns to jump: from the state at
    one time to that at a later one, ``F_d(x, t) = x + d U(x, t, d)``, in one evaluation. It starts from the teacher's
    weights, takes about the teacher's time to train, and is not hurt by more steps.

    Parameters
    ----------
    estimator : FlowMatchingGenerator or another estimator with a flow
        The teacher. Unfitted, it is fitted first (a clone of it); fitted, it is distilled as it is.
        `sklearn.frozen.FrozenEstimator` keeps a fitted one fitted through `sklearn.base.clone`.
    method : {"progressive", "semigroup", "lagrangian", "reflow"}, default="progressive"
        "progressive": match the states that the teacher reaches in `teacher_steps` midpoint steps (Salimans and Ho,
        2022), in jumps between any two of them. "reflow": a velocity again, straightened on pairs of noise and
        the teacher's samples (Liu, Gong and Liu, 2023); the cheapest. "lagrangian": move as the teacher's velocity
        says, anywhere on the path (Boffi et al., 2024); needs forward-mode derivatives. "semigroup": an Euler step of
        the teacher and a learned correction, such that two half jumps make a whole one; the Euler step is exact to
        first order from the start.
    n_steps : int, default=1
        Steps of sampling, where the call does not say; "progressive" learns jumps up to ``1 / n_steps``.
    n_stages : int or None, default=None
        "progressive" and "reflow", where None is 1: how often the student becomes the teacher of the next stage, each
        with a learning-rate cycle of its own. In "progressive", stage by stage the jumps grow `teacher_steps`-fold.
    teacher_steps : int or None, default=None
        "progressive" and "reflow", where None is 8: the teacher's midpoint steps in one jump of the student.
    n_pairs : int or None, default=None
        "progressive" and "reflow": how many of the teacher's paths are made, once, to learn from. None makes 10,000,
        or as many as training draws; fewer, with a warning below 1000, if they take more than 64 million numbers.
    step_sampler : {"uniform", "beta", "fixed", "dyadic", "logit_normal"}, StepSampler or None, default=None
        Jumps (t, d) to learn. None takes "fixed" at `n_steps` for "progressive" (each with the shorter jumps inside
        it), "dyadic" for "semigroup" and ``BetaSteps(1.0, 1.5)`` for "lagrangian".
    loss : {"l2", "huber", "sobolev", "multiscale"}, ResidualLoss or None, default=None
        Norm of the student's error. None takes "l2" for "reflow", else "huber".
    guidance_scale : float or None, default=None
        Guidance that the student takes over from its teacher, at no cost when sampling. None takes the teacher's own.
    inverse : bool, default=False
        Learn jumps from data to noise too, for `encode`. Reflow goes both ways anyway.
    ema_target : bool or None, default=None
        "semigroup" and "lagrangian": whether the moving average of the student's weights makes the target. None does
        not.
    fold : bool or None, default=None
        "semigroup": whether the teacher's velocity and the correction are folded into one network in the end, so that
        a step takes one evaluation and files need no teacher. None folds.
    max_iter : int or None, default=None
        Optimiser steps of a stage. None takes a share of the teacher's: 0.7 for "progressive" and "reflow", 0.45 for
        "semigroup" (and 0.3 of those again to fold), 0.35 for "lagrangian".
    batch_size, learning_rate : default=None
        None takes the teacher's; for "semigroup" and "lagrangian" 1.5 times its rate.
    training : TrainingOptions or None, default=None
        See `FlowMatchingGenerator`; phases are not offered. Checkpoints hold the stage that is running: a fit that
        goes on makes the stages before it again, to the same bits.
    random_state : int, RandomState or None, default=None
        Seeds the distillation, and the fit of a teacher that is to be fitted first and has no seed of its own.
    verbose : bool or int, default=0
        Show a progress bar for each stage.

    Attributes
    ----------
    student_ : estimator of the teacher's class
        With the student's network; it samples by `n_steps` jumps, or Euler steps after "reflow".
    teacher_ : estimator or None
        The fitted teacher; None where the student was loaded from a file.
    network_, n_iter_, n_parameters_, history_
        The student's, as in `FlowMatchingGenerator`.
    n_features_in_, feature_names_in_, classes_, sample_shape_
        The teacher's.

    See Also
    --------
    FlowMatchingGenerator : with ``objective="mean_flow"`` it learns jumps without a teacher.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from flowmatch import DistilledFlowMap, FlowMatchingGenerator
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> teacher = FlowMatchingGenerator(max_iter=200, random_state=0).fit(X, y)
    >>> student = DistilledFlowMap(teacher, random_state=0).fit(X, y)
    >>> student.sample(3, y=1, random_state=0).shape
    (3, 4)
    """

    student_: Any
    teacher_: Any

    def __init__(
        self,
        estimator,
        method="progressive",
        *,
        n_steps=1,
        n_stages=None,
        teacher_steps=None,
        n_pairs=None,
        step_sampler=None,
        loss=None,
        guidance_scale=None,
        inverse=False,
        ema_target=None,
        fold=None,
        max_iter=None,
        batch_size=None,
        learning_rate=None,
        training=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.method = method
        self.n_steps = n_steps
        self.n_stages = n_stages
        self.teacher_steps = teacher_steps
        self.n_pairs = n_pairs
        self.step_sampler = step_sampler
        self.loss = loss
        self.guidance_scale = guidance_scale
        self.inverse = inverse
        self.ema_target = ema_target
        self.fold = fold
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.random_state = random_state
        self.verbose = verbose

    # -- fitting --------------------------------------------------------------------------------------------------

    def fit(self, X: Any = None, y: Any = None, sample_weight: Any = None) -> Self:
        """Distil the teacher, after fitting it if it is not.

        Parameters
        ----------
        X : as the teacher's `fit` takes it, optional
            Rows to fit the teacher to, and to distil from. Without them a fitted teacher is distilled from samples of
            its own.
        y, sample_weight : optional
            As in the teacher's `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts.
        NotFittedError
            If the teacher is not fitted and there is no X.
        NonFiniteTrainingError
            If the loss becomes non-finite; whatever was fitted before stays.
        """
        return self._fit(X, y, sample_weight, go_on=False)

    def _fit_in_place(self, X: Any, y: Any, sample_weight: Any, *, fresh: bool) -> None:
        options, seed = self._check_parameters(), seed_from(self.random_state)
        teacher, was_fitted = self._teacher_of(X)
        if sample_weight is not None and hasattr(teacher, "rollout"):
            raise ValueError("sample_weight was given, but a ConditionalForecaster takes none.")
        if not was_fitted:
            self._check_before_teaching(teacher, X, y)
            weight = {} if sample_weight is None else {"sample_weight": sample_weight}
            teacher._after_divergence = "It was the teacher's fit; nothing is kept of it."
            teacher = teacher.fit(X, y, **weight)
            del teacher._after_divergence
        if isinstance(teacher, DistilledFlowMap):
            teacher = teacher.student_
        settings = self._settings(teacher, options)
        if X is None:
            if y is not None or sample_weight is not None:
                raise ValueError("y and sample_weight belong to rows X, but X is None.")
            starts_at_noise = self.method == "reflow" or (
                self.method == "progressive" and self.step_sampler is None and settings.n_steps * settings.n_stages == 1
            )
            n_samples = settings.n_pairs or min(N_PAIRS, MOST_ELEMENTS // int(np.prod(teacher._encoder.code_shape)))
            data = teacher._own_data(max(2, n_samples), seed, with_samples=not starts_at_noise)
        else:
            data = teacher._data_of(X, y, sample_weight)
        self.student_ = Distiller(self, settings, teacher, data, seed).run()
        self.teacher_ = teacher

    def _check_parameters(self) -> training.TrainingOptions:
        """Raise a ValueError for the first parameter that is out of range, or of no use to the method."""
        check_choice("method", self.method, METHODS)
        for name in ("n_steps", "n_stages", "teacher_steps", "n_pairs", "max_iter", "batch_size"):
            if name == "n_steps" or getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, 0.0, open_low=True)
        if self.guidance_scale is not None:
            check_number("guidance_scale", self.guidance_scale, -np.inf)
        for name in ("inverse", "ema_target", "fold"):
            if not isinstance(getattr(self, name), (bool, np.bool_, type(None))):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        for name, methods in USED_BY.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no meaning for method={self.method!r}, only for "
                    f"{' and '.join(map(repr, methods))}; leave it at None."
                )
        if self.step_sampler is not None and (self.n_stages or 1) > 1:
            raise ValueError(
                f"step_sampler={self.step_sampler!r} with n_stages={self.n_stages}: the jumps of stages follow from "
                "n_steps and teacher_steps; leave step_sampler at None."
            )
        self._loss_and_sampler()
        options = training.TrainingOptions() if self.training is None else self.training
        if not isinstance(options, training.TrainingOptions):
            raise ValueError(f"training must be None or TrainingOptions, got {options!r}.")
        options.validate()
        self._check_options(options)
        return options

    def _check_before_teaching(self, teacher: Any, X: Any, y: Any) -> None:
        """Raise a ValueError for what would only be found out after the teacher has been fitted."""
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) >= 2 and not hasattr(teacher, "rollout"):
            self._loss_and_sampler()[0].check_shape(shape[1:])
        if self.method == "reflow" and objectives.is_flow_map(getattr(teacher, "objective", "velocity")):
            raise ValueError(_NOT_A_VELOCITY)
        if self.guidance_scale not in (None, 1.0) and (y is None or getattr(teacher, "condition_dropout", 1) == 0):
            raise ValueError(
                f"guidance_scale={self.guidance_scale:g} needs a teacher with conditions that also learns to do "
                "without: fit with y, and condition_dropout > 0."
            )

    def _check_options(self, options: training.TrainingOptions) -> None:
        if options.phases:
            raise ValueError("training phases are for fits to data; a distillation has stages (n_stages).")
        if options.compile and self.method == "lagrangian":
            raise ValueError(
                "training with compile=True does not go with method='lagrangian': torch.compile gives no forward-mode "
                "derivatives. Take method='progressive' or 'reflow'."
            )
        if options.checkpoint_folder is not None and self.random_state is None:
            raise ValueError("checkpoints of a distillation need random_state: without it no run goes on from another.")

    def _loss_and_sampler(self) -> tuple[objectives.ResidualLoss, flow.StepSampler | None]:
        loss = LOSSES[self.method] if self.loss is None else self.loss
        loss = resolve_component("loss", loss, objectives.ResidualLoss, ALIASES["loss"])
        if self.step_sampler is None:
            return loss, None
        sampler = resolve_component("step_sampler", self.step_sampler, flow.StepSampler, flow.STEP_SAMPLERS)
        sampler.check()
        return loss, sampler

    def _settings(self, teacher: FlowEstimator, options: training.TrainingOptions) -> Settings:
        """All parameters with their defaults, checked against the teacher."""
        loss, sampler = self._loss_and_sampler()
        loss.check_shape(tuple(teacher._source_scale.shape))
        if self.method == "reflow" and teacher._predicts_jumps:
            raise ValueError(_NOT_A_VELOCITY)
        if self.method == "semigroup" and isinstance(teacher.network_, distillation.CorrectedVelocity):
            raise ValueError(
                "method='semigroup' corrects a velocity, but this teacher corrects one itself (fold=False): distil it "
                "with fold=True, or take method='progressive'."
            )
        own_scale = float(getattr(teacher, "guidance_scale", 1.0))
        scale = own_scale if self.guidance_scale is None else float(self.guidance_scale)
        teacher._check_guidance(scale)
        return Settings(
            method=self.method,
            n_steps=int(self.n_steps),
            n_stages=int(self.n_stages or 1),
            teacher_steps=int(self.teacher_steps or TEACHER_STEPS),
            step_sampler=sampler,
            loss=loss,
            guidance_scale=scale,
            inverse=bool(self.inverse),
            ema_target=bool(self.ema_target),
            fold=True if self.fold is None else bool(self.fold),
            n_pairs=self.n_pairs,
            options=options,
        )

    @property
    def unwrapped_estimator(self) -> Any:
        """The teacher as it was given, out of its `FrozenEstimator` if it is in one."""
        return self.estimator.estimator if _is_frozen(self.estimator) else self.estimator

    def _teacher_of(self, X: Any) -> tuple[Any, bool]:
        """The estimator itself if it is fitted, else a clone; and which of the two."""
        estimator = self.unwrapped_estimator
        if not isinstance(estimator, (FlowEstimator, DistilledFlowMap)):
            raise ValueError(
                f"estimator must be one with a velocity, such as FlowMatchingGenerator(), got {self.estimator!r}."
            )
        try:
            check_is_fitted(estimator)
        except NotFittedError:
            if X is None or _is_frozen(self.estimator):
                raise NotFittedError(
                    f"the teacher {type(estimator).__name__} is not fitted"
                    + (": pass X to fit it to, or a fitted one." if X is None else ", and frozen: fit it before.")
                ) from None
            teacher = clone(estimator)
            if teacher.random_state is None:
                teacher.set_params(random_state=self.random_state)
            return teacher, False
        return estimator, True

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: Any, *, teacher: bool = True) -> None:
        """Write the student to one ``.safetensors`` file; `flowmatch.load` reads it.

        The file holds the student alone. Only after ``method="semigroup"`` with ``fold=False``, where the student
        corrects the teacher's velocity, the teacher's weights go with it.

        Parameters
        ----------
        path : path-like
        teacher : bool, default=True
            False leaves those weights out; loading then takes ``load(path, teacher=...)``.
        """
        from flowmatch.persistence import save

        check_is_fitted(self)
        save(self, path, teacher=teacher)

    # -- what the student knows -----------------------------------------------------------------------------------

    @property
    def _predicts_jumps(self) -> bool:
        return self.student_._predicts_jumps


def _is_frozen(estimator: Any) -> bool:
    return type(estimator).__name__ == "FrozenEstimator"


def _of_the_student(name: str, what: str) -> property:
    def get(self: DistilledFlowMap) -> Any:
        if "student_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name!r} before it is fitted.")
        return getattr(self.student_, name)

    return property(get, doc=what)


for _name, _what in {
    "network_": "The student's network.",
    "n_iter_": "Optimiser steps made, in all stages.",
    "n_parameters_": "Numbers in the student's network.",
    "history_": "The student's history of training.",
    "n_features_in_": "Columns of a table, channels of a grid.",
    "feature_names_in_": "Column names, if X had any that are strings.",
    "classes_": "Labels, if the teacher was fitted with any.",
    "sample_shape_": "Shape of one sample.",
    "state_shape_": "Shape of one state, if the teacher is a forecaster.",
}.items():
    setattr(DistilledFlowMap, _name, _of_the_student(_name, _what))
