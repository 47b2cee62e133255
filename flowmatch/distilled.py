"""DistilledFlowMap: turn a fitted flow into a sampler that needs one evaluation, or a few."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Self

from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from flowmatch import distillation, fitting, forecasting, model
from flowmatch.base import Estimator, Fitted
from flowmatch.core.randomness import seed_from
from flowmatch.forecaster import ConditionalForecaster
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.networks import CorrectedVelocity
from flowmatch.persistence import save
from flowmatch.preprocessing import check_readable
from flowmatch.training import NonFiniteTrainingError, TrainingOptions


def _as_estimator(teacher: Any, fitted: distillation.FittedStudent, student: DistilledFlowMap) -> Any:
    """An estimator of the teacher's class that takes a student's steps."""
    estimator = type(teacher).from_fitted(fitted.flow, **teacher.get_params(deep=False))
    estimator.solver, estimator.n_steps, estimator.verbose = "auto", student.n_steps, student.verbose
    if not fitted.result.model.is_flow_map:
        estimator.path = fitted.result.model.path  # reflow straightens it
    if isinstance(estimator, FlowMatchingGenerator):  # a straightened velocity has its guidance inside
        kind = fitted.result.model.kind
        estimator.guidance_scale = kind.guidance_scale if isinstance(kind, model.FlowMap) else 1.0
    return estimator


class DistilledFlowMap(Estimator):
    """Distil a fitted flow into a sampler of one or a few steps.

    A flow needs ten or more evaluations of its network for good samples. The student is a flow map,
    ``F_d(x, t) = x + d U(x, t, d)``: it goes from the state at one time to that at a later one in one evaluation. It
    starts from the teacher's weights, takes about the teacher's time to train, and is not hurt by more steps.

    Parameters
    ----------
    estimator : FlowMatchingGenerator, ConditionalForecaster or DistilledFlowMap
        The teacher. Unfitted, a clone of it is fitted first; fitted, it is distilled as it is.
        `sklearn.frozen.FrozenEstimator` keeps a fitted one fitted through `sklearn.base.clone`.
    method : {"progressive", "semigroup", "lagrangian", "reflow"}, default="progressive"
        "progressive": match the states that the teacher reaches in `teacher_steps` midpoint steps (Salimans and Ho,
        2022), in steps between any two of them. "reflow": a velocity again, straightened on pairs of noise and the
        teacher's samples (Liu, Gong and Liu, 2023); the cheapest. "lagrangian": move as the teacher's velocity says,
        anywhere on the path (Boffi et al., 2024); needs forward-mode derivatives. "semigroup": an Euler step of the
        teacher and a learned correction, such that two half steps make a whole one.
    n_steps : int, default=1
        Steps of sampling, where the call does not say; "progressive" learns steps up to ``1 / n_steps``.
    n_stages : int or None, default=None
        "progressive" and "reflow", where None is 1: how often the student becomes the teacher of the next stage, each
        with a learning-rate cycle of its own. In "progressive", stage by stage the steps grow `teacher_steps`-fold.
    teacher_steps : int or None, default=None
        "progressive" and "reflow", where None is 8: the teacher's midpoint steps in one step of the student.
    n_pairs : int or None, default=None
        "progressive" and "reflow": how many of the teacher's paths are made, once, to learn from. None makes 10,000,
        or as many as training draws; fewer, with a warning below 1000, if they take more than 64 million elements.
    step_sampler : {"uniform", "beta", "fixed", "dyadic", "logit_normal"}, StepSampler or None, default=None
        Steps (t, d) to learn. None takes "fixed" at `n_steps` for "progressive" (each with the shorter steps inside
        it), "dyadic" for "semigroup" and ``BetaSteps(1.0, 1.5)`` for "lagrangian".
    loss : {"l2", "huber", "sobolev", "multiscale"}, ResidualLoss or None, default=None
        Norm of the student's error. None takes "l2" for "reflow", else "huber".
    guidance_scale : float or None, default=None
        Guidance that the student takes over from its teacher, at no cost when sampling. None takes the teacher's own.
    inverse : bool, default=False
        Learn steps from data to noise too, for `encode`. Reflow goes both ways anyway.
    ema_target : bool or None, default=None
        "semigroup" and "lagrangian": whether the moving average of the student's weights makes the target.
    fold : bool or None, default=None
        "semigroup": whether the teacher's velocity and the correction are folded into one network in the end, so that
        a step takes one evaluation and files need no teacher. None folds.
    max_iter : int or None, default=None
        Optimizer steps of a stage. None takes a share of the teacher's: 0.7 for "progressive" and "reflow", 0.45 for
        "semigroup" (and 0.3 of those again to fold), 0.35 for "lagrangian".
    [shared: max_time]
    batch_size, learning_rate : int or float or None, default=None
        None takes the teacher's; for "semigroup" and "lagrangian" 1.5 times its rate.
    training : TrainingOptions or None, default=None
        Phases are not offered. Checkpoints hold the stage that is running: a fit that goes on makes the stages before
        it again, to the same bits.
    random_state : int, RandomState or None, default=None
        Seeds the distillation, and the fit of a teacher that is to be fitted first and has no seed of its own.
    verbose : bool or int, default=0
        Show progress bars: of each stage, of the teacher's paths, and of what the student is asked for.

    Attributes
    ----------
    student_ : FlowModel
        The student: the teacher's encoders, and a flow map, or after "reflow" a straightened velocity.
    teacher_ : estimator or None
        The fitted teacher; None where the student was loaded from a file.
    model_ : FlowModel
        The same as `student_`.
    network_, n_iter_, max_iter_, n_parameters_, history_
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

    def __init__(
        self,
        estimator: Any,
        method: str = "progressive",
        *,
        n_steps: int = 1,
        n_stages: int | None = None,
        teacher_steps: int | None = None,
        n_pairs: int | None = None,
        step_sampler: Any = None,
        loss: Any = None,
        guidance_scale: float | None = None,
        inverse: bool = False,
        ema_target: bool | None = None,
        fold: bool | None = None,
        max_iter: int | None = None,
        max_time: float | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        training: TrainingOptions | None = None,
        random_state: Any = None,
        verbose: bool | int = 0,
    ) -> None:
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
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.random_state = random_state
        self.verbose = verbose

    fitted_: distillation.FittedStudent
    student_, model_, network_ = Fitted("result.model"), Fitted("result.model"), Fitted("result.model.network")
    teacher_, history_ = Fitted("teacher"), Fitted("result.history")
    n_iter_, max_iter_ = Fitted("result.n_iter"), Fitted("result.max_iter")
    n_parameters_ = Fitted("result.model.n_parameters")

    n_features_in_, feature_names_in_ = distillation.Taught("n_features_in_"), distillation.Taught("feature_names_in_")
    classes_, sample_shape_, state_shape_ = (
        distillation.Taught("classes_"),
        distillation.Taught("sample_shape_"),
        distillation.Taught("state_shape_"),
    )

    def fit(self, X: Any = None, y: Any = None, sample_weight: Any = None, *, conditions: Any = None) -> Self:
        """Distil the teacher, after fitting it if it is not.

        Parameters
        ----------
        X : as the teacher's `fit` takes it, optional
            Rows to fit the teacher to, and to distil from. Without them a fitted teacher is distilled from samples of
            its own.
        y, sample_weight, conditions : optional
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
        self.check_parameters()
        check_readable(X, "X")
        if X is None and (y is not None or sample_weight is not None):
            raise ValueError("y and sample_weight belong to rows X, but X is None.")
        seed = seed_from(self.random_state)
        teacher = self._fitted_teacher(X, y, sample_weight, conditions)
        budget = fitting.budget_of(self.max_time)  # a teacher that is fitted first has its own
        known_as, teacher = teacher, teacher.as_teacher() if isinstance(teacher, DistilledFlowMap) else teacher
        before = distillation.FittedStudent(teacher.fitted_, known_as, clone(teacher))
        known, of_teacher = teacher.model_, _settings_of(teacher)
        scale = float(teacher.guidance_scale) if isinstance(teacher, FlowMatchingGenerator) else 1.0
        scale = scale if self.guidance_scale is None else float(self.guidance_scale)
        distillation.check_teacher(self, known, scale)
        data = self._data(teacher, seed, X, y, sample_weight, conditions)
        if isinstance(teacher, ConditionalForecaster):
            schedule = forecasting.schedule_of_forecasts(of_teacher, teacher.fitted_.window_encoder, len(data))
        else:
            schedule = fitting.schedule_of(of_teacher, known.code_shape, len(data))
        result = distillation.distil(
            known,
            data,
            distillation.resolve_distillation(self, of_teacher, teacher.n_iter_, schedule, scale, seed, budget),
            parameters=before.result.parameters,
            watch=lambda result: _as_estimator(teacher, before.with_result(result), self),
        )
        self.fitted_ = before.with_result(result)
        return self

    def check_parameters(self) -> None:
        """Raise a ValueError for the first parameter that is out of range, or of no use to the method."""
        distillation.check_parameters(self)
        if not isinstance(self.unwrapped_estimator, (FlowMatchingGenerator, ConditionalForecaster, DistilledFlowMap)):
            raise ValueError(
                f"estimator must be one with a velocity, such as FlowMatchingGenerator(), got {self.estimator!r}."
            )
        if self.guidance_scale not in (None, 1.0) and isinstance(self.unwrapped_estimator, ConditionalForecaster):
            raise ValueError(
                f"guidance_scale={self.guidance_scale:g} has no meaning for a ConditionalForecaster, which never "
                "learns to do without its contexts; leave it at None."
            )

    def check_fitted(self) -> None:
        """Raise a ValueError unless what a file holds as fitted is a student of such an estimator."""
        super().check_fitted()
        self.as_teacher().check_fitted()

    def _data(
        self, teacher: Any, seed: int, X: Any, y: Any, sample_weight: Any, conditions: Any
    ) -> fitting.TrainingData:
        """Codes and conditions of the rows to distil from."""
        if not isinstance(teacher, ConditionalForecaster):
            return distillation.rows_to_distil_from(self, teacher, seed, X, y, sample_weight)
        if X is None:
            raise ValueError("a ConditionalForecaster keeps none of its contexts: pass X (and y) to fit.")
        windows = forecasting.windows_like_fit(teacher, X, y, conditions)
        return forecasting.training_windows_of(teacher.fitted_, windows, teaches=True)

    @property
    def unwrapped_estimator(self) -> Any:
        """The teacher as it was given, out of its `FrozenEstimator` if it is in one."""
        return self.estimator.estimator if isinstance(self.estimator, FrozenEstimator) else self.estimator

    def as_teacher(self) -> Any:
        """The student as an estimator of its teacher's class, which takes the student's steps.

        Returns
        -------
        FlowMatchingGenerator or ConditionalForecaster
        """
        check_is_fitted(self)
        teacher = self.unwrapped_estimator if self.fitted_.template is None else self.fitted_.template
        while isinstance(teacher, DistilledFlowMap):
            teacher = teacher.unwrapped_estimator
        return _as_estimator(teacher, self.fitted_, self)

    @property
    def working_device(self) -> Any:
        """The device that the teacher's parameters ask for."""
        return getattr(self.unwrapped_estimator, "working_device", "cpu")

    def _fitted_teacher(self, X: Any, y: Any, sample_weight: Any, conditions: Any) -> Any:
        """The estimator itself if it is fitted, else a clone that is fitted now."""
        estimator = self.unwrapped_estimator
        if sample_weight is not None and is_regressor(estimator):
            raise ValueError("sample_weight was given, but a ConditionalForecaster takes none.")
        if conditions is not None and not is_regressor(estimator):
            raise ValueError("conditions belong to forecasts of fields: pass those of a FlowMatchingGenerator as y.")
        try:
            check_is_fitted(estimator)
        except NotFittedError:
            frozen = isinstance(self.estimator, FrozenEstimator)
            if X is None or frozen:
                raise NotFittedError(
                    f"the teacher {type(estimator).__name__} is not fitted"
                    + (": pass X to fit it to, or a fitted one." if X is None else ", and frozen: fit it before.")
                ) from None
        else:
            return estimator
        teacher = clone(estimator)
        if teacher.random_state is None:
            teacher.set_params(random_state=self.random_state)
        if isinstance(teacher, FlowMatchingGenerator):
            distillation.check_before_teaching(self, teacher.objective, teacher.condition_dropout, X, y)
        more = {"sample_weight": sample_weight, "conditions": conditions}
        try:
            return teacher.fit(X, y, **{name: value for name, value in more.items() if value is not None})
        except NonFiniteTrainingError as error:
            text = f"{error.__cause__ or error} It was the teacher's fit; nothing is kept of it."
            raise NonFiniteTrainingError(text, error.step) from error

    @available_if(distillation.teacher_has("sample"))
    def sample(self, *arguments: Any, n_steps: int | None = None, **named: Any) -> Any:
        """Draw in `n_steps` evaluations each.

        Parameters
        ----------
        *arguments, **named
            As in the teacher's `sample`: ``(n_samples, y, random_state)`` of a `FlowMatchingGenerator`,
            ``(X, n_samples, random_state)`` of a `ConditionalForecaster`. The same `random_state` draws the same noise
            as there.
        n_steps : int, optional
            In place of the estimator's own. More always work; fewer than it was distilled for are steps not seen.

        Returns
        -------
        As the teacher's `sample`.
        """
        return self.as_teacher().sample(*arguments, n_steps=n_steps, **named)

    @available_if(distillation.teacher_has("decode"))
    def decode(self, Z: Any, y: Any = None, *, n_steps: int | None = None) -> Any:
        """Samples of latent codes, in `n_steps` evaluations; see `FlowMatchingGenerator.decode`.

        Parameters
        ----------
        Z : array-like of shape (n_samples, *code_shape)
        y, n_steps : optional

        Returns
        -------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        return self.as_teacher().decode(Z, y, n_steps=n_steps, solver=self.student_.defaults.solver)

    @available_if(distillation.teacher_has("encode"))
    def encode(self, X: Any, y: Any = None, *, n_steps: int | None = None) -> Any:
        """Latent codes of X in `n_steps` evaluations; needs ``inverse=True`` or ``method="reflow"``.

        `decode` undoes it as well as the student knows its teacher.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        y, n_steps : optional

        Returns
        -------
        Z : ndarray of shape (n_samples, *code_shape)

        Raises
        ------
        ValueError
            If the student has not learned the way back.
        """
        check_is_fitted(self)
        kind, n_steps = self.student_.kind, self.n_steps if n_steps is None else n_steps
        if isinstance(kind, model.FlowMap) and not kind.bidirectional:
            raise ValueError("this student has not learned the way from data to noise: fit it with inverse=True.")
        return self.as_teacher().encode(X, y, n_steps=n_steps, solver=self.student_.defaults.solver)

    impute = distillation.as_the_teacher(FlowMatchingGenerator.impute)
    export = distillation.as_the_teacher(FlowMatchingGenerator.export)
    score_samples = distillation.as_the_teacher(FlowMatchingGenerator.score_samples)
    score = distillation.as_the_teacher(ConditionalForecaster.score)
    predict = distillation.as_the_teacher(ConditionalForecaster.predict)
    predict_quantiles = distillation.as_the_teacher(ConditionalForecaster.predict_quantiles)
    predict_interval = distillation.as_the_teacher(ConditionalForecaster.predict_interval)
    rollout = distillation.as_the_teacher(ConditionalForecaster.rollout)
    crps = distillation.as_the_teacher(ConditionalForecaster.crps)
    energy_score = distillation.as_the_teacher(ConditionalForecaster.energy_score)

    @available_if(distillation.teacher_has("calibrate"))
    def calibrate(self, X: Any, y: Any = None) -> Self:
        """Keep how far outcomes are from the student's forecasts; see `ConditionalForecaster.calibrate`.

        Parameters
        ----------
        X, y : as in `fit`
            Rows that neither student nor teacher has seen.

        Returns
        -------
        self
        """
        self.fitted_ = replace(self.fitted_, flow=self.as_teacher().calibrate(X, y).fitted_)
        return self

    @available_if(distillation.teacher_has("backtest"))
    @functools.wraps(ConditionalForecaster.backtest)
    def backtest(self, X: Any, *arguments: Any, refit: bool = False, **named: Any) -> Any:
        if refit and isinstance(self.estimator, FrozenEstimator):
            raise ValueError("refit=True fits the teacher too, but it is frozen, and may know what is to be forecast.")
        again = (lambda parts: clone(self).fit(parts).as_teacher()) if refit else False
        return self.as_teacher().backtest(X, *arguments, refit=again, **named)

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
        check_is_fitted(self)
        corrects = isinstance(self.student_.network, CorrectedVelocity)
        inside = "flow.model" if isinstance(self.fitted_.flow, fitting.FitResult) else "flow.flow.model"
        weights = f"{inside}.weights.velocity." if corrects else None
        save(self, path, teacher_weights=weights, with_teacher=teacher)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if not hasattr(self.unwrapped_estimator, "__sklearn_tags__"):  # no estimator; `fit` will say so
            return tags
        known = get_tags(self.unwrapped_estimator)
        inputs = known.input_tags
        tags.input_tags.allow_nan, tags.input_tags.string = inputs.allow_nan, inputs.string
        tags.input_tags.categorical = inputs.categorical
        if is_regressor(self.unwrapped_estimator):
            tags.estimator_type, tags.regressor_tags = known.estimator_type, known.regressor_tags
            tags.target_tags = known.target_tags
        return tags


def _settings_of(teacher: Any) -> fitting.FitSettings:
    """How the teacher would be trained on the device where it is."""
    here = clone(teacher).set_params(device=teacher.model_.device)  # that of its fit may be another machine's
    if isinstance(teacher, FlowMatchingGenerator):
        return fitting.resolve_settings(here, objective=teacher.objective)
    return fitting.resolve_settings(here)
