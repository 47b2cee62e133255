"""ConditionalForecaster: next states given the present ones, as ensembles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from flowmatch import fitting, forecasting, metrics, model
from flowmatch.base import Estimator, Fitted
from flowmatch.core.checks import check_count
from flowmatch.core.randomness import generator_on, seed_from
from flowmatch.training import TrainingOptions

_OF_STATES = ("n_lags", "horizon", "target", "boundary", "exogenous_columns", "known_columns", "calendar")

_FROZEN = ("network", "path", "source", *_OF_STATES)
"""Parameters that belong to the weights."""


class ConditionalForecaster(RegressorMixin, Estimator):
    """Forecast the next states of fields and series, or regress tables, with the whole conditional distribution.

    A flow carries noise to the next state given the present one, or a window of past ones (flow matching: Lipman et
    al., 2023; its like for next states, with diffusion: Kohl et al., 2023). Its draws give means, quantiles and
    intervals, and rolled on they are an ensemble of trajectories.

    What is learned is what a simple forecast leaves, scaled by its own spread: the change of a field from its last
    state, the error of a ridge regression for columns of series and tables that one predicts well. Columns of series
    and tables go through their own distribution, so that zeros, steps and bounds come back as such.

    Parameters
    ----------
    network : {"auto", "mlp", "unet", "transformer"}, component or factory, default="auto"
        "auto" takes an `flowmatch.networks.MLP` for tables and series, the smaller and the more regularized the fewer
        windows there are, and a `flowmatch.networks.UNet` for fields, which reads the context beside the noise. A
        factory is called as in `FlowMatchingGenerator`.
    n_lags : int, default=1
        States in a context.
    horizon : int, default=1
        States that are forecast at once, jointly. Rollouts go on from there.
    target : {"auto", "residual", "state"}, default="auto"
        What the flow learns: what a simple forecast leaves, or the state itself. "auto" takes the residual of fields,
        and of columns of tables and series that drift, or have few ties and are predicted to half their deviation.
    boundary : {"auto", "periodic", "wall"} or sequence of the last two, default="auto"
        What lies beyond the edge of a field, for all axes or for each: the opposite side, or nothing. "auto" looks at
        the training states: across a periodic border they differ no more than between neighbors. Reaches the networks
        that are chosen by name; a component such as ``UNet(boundary=...)`` brings its own.
    exogenous_columns : str, int, sequence of them, or None, default=None
        Columns of a series (channels of a field), by name or position, that are read but not forecast.
    known_columns : str, int, sequence of them, or None, default=None
        Further ones that are known ahead, like prices or holidays: forecasts take them as `future`.
    calendar : {"auto", "year", "week", "day"}, sequence of the last three, or None, default="auto"
        What forecasts of a series with a DatetimeIndex know of the instant they are for. "auto" takes the cycles
        that the training data go through at least twice.
    context_noise : float, default=0.0
        Noise on the contexts in training, in units of the states' standard deviation. For fields the flow learns to
        lead disturbed states back, which calms long rollouts where it is no larger than the error of a step. For tables
        and series it disturbs the network's input alone, which keeps it from learning rows by heart.
    n_samples : int, default=50
        Draws behind `predict`, `predict_quantiles`, `predict_interval`, `score`, `crps` and `energy_score`.
    [shared: path]
    coupling : {"independent"} or IndependentCoupling, default="independent"
        Others pair noise with rows of one label; under contexts they have no effect, and are refused.
    [shared: source, time_sampler, loss, loss_weight]
    max_iter : int or None, default=None
        Optimizer steps. None takes what was measured: see `docs/forecasting.md`.
    batch_size : int or None, default=None
        Windows a step. None takes 256 of tables and series, and 32 of fields.
    learning_rate : float or None, default=None
        Peak learning rate. None takes 0.001 for tables and series and 0.004 for fields.
    training : TrainingOptions or None, default=None
        What else there is to tune about training. What is held out for validation are whole trajectories, or the ends
        of them where there are few. None stands for ``TrainingOptions()``; tables and series get ``weight_decay=0.1``,
        and from 200 windows on ``early_stopping=True`` with 15 % held out.
    solver : str, default="auto"
        As in `FlowMatchingGenerator`; "auto" takes "midpoint". "flow_map" is for students. Euler's method loses
        spread: see `docs/forecasting.md`.
    n_steps : int or None, default=None
        Steps of the fixed-step solvers. None takes 5.
    [shared: device]
    random_state : int, RandomState or None, default=None
        Seeds initialization, shuffling, noise and times of `fit`. The draws behind predictions are always the same.
    [shared: verbose, warm_start]

    Attributes
    ----------
    model_ : FlowModel
        The fitted flow.
    network_ : torch.nn.Module
        The trained network (averaged weights), of `n_parameters_` elements.
    preprocessing_ : ColumnTransform
        The fitted transform of what the flow learns.
    state_shape_ : tuple of int
        Shape of one state of a context: (d,), or (C, *grid).
    sample_shape_ : tuple of int
        Shape of one forecast: that of the forecast columns, after `horizon` if that is more than 1.
    boundary_ : tuple of str
        For each axis of a field.
    calendar_ : tuple of str
        The cycles that forecasts are conditioned on.
    n_features_in_ : int
        Columns (channels) of a state.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.
    n_iter_ : int
        Optimizer steps made.
    history_ : dict of lists
        As in `FlowMatchingGenerator`.

    See Also
    --------
    FlowMatchingGenerator, DistilledFlowMap

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch import ConditionalForecaster
    >>> walk = np.random.default_rng(0).normal(size=(20, 30, 2)).cumsum(axis=1)
    >>> forecaster = ConditionalForecaster(max_iter=50, random_state=0).fit(walk)
    >>> forecaster.predict(walk[:, -1]).shape
    (20, 2)
    >>> forecaster.rollout(walk[:, -1], n_steps=5, n_samples=10, random_state=0).shape
    (10, 20, 5, 2)
    """

    def __init__(
        self,
        network: Any = "auto",
        *,
        n_lags: int = 1,
        horizon: int = 1,
        target: str = "auto",
        boundary: Any = "auto",
        exogenous_columns: Any = None,
        known_columns: Any = None,
        calendar: Any = "auto",
        context_noise: float = 0.0,
        n_samples: int = 50,
        path: Any = "linear",
        coupling: Any = "independent",
        source: Any = "normal",
        time_sampler: Any = "auto",
        loss: Any = "l2",
        loss_weight: Any = "uniform",
        max_iter: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        training: TrainingOptions | None = None,
        solver: str = "auto",
        n_steps: int | None = None,
        device: Any = "auto",
        random_state: Any = None,
        verbose: bool | int = 0,
        warm_start: bool = False,
    ) -> None:
        self.network = network
        self.n_lags = n_lags
        self.horizon = horizon
        self.target = target
        self.boundary = boundary
        self.exogenous_columns = exogenous_columns
        self.known_columns = known_columns
        self.calendar = calendar
        self.context_noise = context_noise
        self.n_samples = n_samples
        self.path = path
        self.coupling = coupling
        self.source = source
        self.time_sampler = time_sampler
        self.loss = loss
        self.loss_weight = loss_weight
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.solver = solver
        self.n_steps = n_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    fitted_: forecasting.FittedForecaster
    model_, network_ = Fitted("flow.model"), Fitted("flow.model.network")
    n_iter_, history_ = Fitted("flow.n_iter"), Fitted("flow.history")
    n_parameters_, preprocessing_ = Fitted("flow.model.n_parameters"), Fitted("flow.model.encoder.transform")
    state_shape_, sample_shape_ = Fitted("state_shape"), Fitted("layout.sample_shape")
    boundary_, calendar_ = Fitted("boundary"), Fitted("layout.cycles")
    n_features_in_, feature_names_in_ = Fitted("n_features"), Fitted("feature_names")

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what follows what.

        Parameters
        ----------
        X : trajectories, or contexts if there is a `y`
            Without `y`: a list of arrays (T, *state) or of DataFrames (rows are instants), an array
            (n_trajectories, T, *state), or a single series (T, d) or DataFrame. Windows of ``n_lags + horizon`` states
            are cut inside, never across. A state is (d,) for series, (C, *grid) for fields.
            With `y`: contexts of shape (n, *state), or (n, n_lags, *state) if `n_lags` is more than 1; (n, d) is a
            table as any regressor takes it. Tables, and columns of DataFrames that are not forecast, may hold text,
            categories, dates and missing entries.
        y : array-like of shape (n, *state) or (n, horizon, *state), optional
            The states that follow; (n,) and (n, q) for tables.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts and with whatever was fitted left as it was.
        NonFiniteTrainingError
            If the loss or its gradient becomes non-finite; the last good weights stay on the estimator.
        """
        settings = self.check_parameters()
        start: forecasting.FittedForecaster | None = getattr(self, "fitted_", None) if self.warm_start else None
        if start is None:
            reader = type(self)(**self.get_params(deep=False))  # what is read of X may not reach what is fitted
            reading = forecasting.read_windows(reader, X, y)
            task, settings = forecasting.forecast_task(self, settings, reading)
            forecasting.announce_forecaster(task, settings, reading)
            fitting.fit_and_assign(self, task, settings, None, reading.fitted)
        else:
            windows = forecasting.windows_like_fit(self, X, y)
            task, settings = forecasting.forecast_task_from(self, settings, start, windows)
            fitting.fit_and_assign(self, task, settings, start.flow, lambda flow: replace(start, flow=flow))
        return self

    def check_parameters(self) -> fitting.FitSettings:
        settings = fitting.resolve_settings(self, frozen=_FROZEN)
        forecasting.check_forecast_parameters(self)
        return settings

    def predict(self, X: Any, *, future: Any = None) -> NDArray[Any]:
        """Estimate the conditional mean, from `n_samples` draws.

        The draws are the same at every call and for every row, in pairs of opposite noise. Those of tables and series
        are even: each element of their noise takes every quantile k / (n_samples + 1) once.

        Parameters
        ----------
        X : contexts
            Of shape (n, *state), or (n, n_lags, *state) if `n_lags` is more than 1. Series may also come as a
            DataFrame, or a list of histories (DataFrames or arrays), whose last `n_lags` rows count.
        future : array-like of shape (n, horizon, n_known) or list of DataFrames, optional
            The `known_columns` of the instants to come.

        Returns
        -------
        ndarray of shape (n, *sample_shape_)
        """
        return self._summary(X, future, lambda members: members.mean(axis=0))

    def predict_quantiles(self, X: Any, quantiles: Any = (0.05, 0.5, 0.95), *, future: Any = None) -> NDArray[Any]:
        """Estimate quantiles of every element of forecasts, from one set of `n_samples` draws: they never cross.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        quantiles : sequence of float in [0, 1], default=(0.05, 0.5, 0.95)
            Quantile q is order statistic ``(n_samples + 1) q`` of the draws, interpolated: for exchangeable draws its
            coverage is exact. Those beyond the outermost draws are the outermost.
        future : array-like or list of DataFrames, optional
            As in `predict`.

        Returns
        -------
        ndarray of shape (n_quantiles, n, *sample_shape_)
        """
        levels = forecasting.check_quantiles(quantiles)
        quantile = functools.partial(np.quantile, q=levels, axis=0, method="weibull")
        return self._summary(X, future, quantile, axis=1)

    def predict_interval(self, X: Any, coverage: float = 0.9, *, future: Any = None) -> NDArray[Any]:
        """Estimate central intervals of every element of forecasts.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        coverage : float in (0, 1), default=0.9
            How often each interval should hold the truth.
        future : array-like or list of DataFrames, optional
            As in `predict`.

        Returns
        -------
        ndarray of shape (2, n, *sample_shape_)
            Lower and upper ends.
        """
        forecasting.check_coverage(coverage, self.n_samples)
        return self.predict_quantiles(X, (0.5 - coverage / 2, 0.5 + coverage / 2), future=future)

    def sample(
        self,
        X: Any,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        future: Any = None,
        n_steps: int | None = None,
        solver: str | None = None,
        batch_size: int | None = None,
    ) -> NDArray[Any]:
        """Draw forecasts.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        n_samples : int, default=1
            Draws for each context.
        random_state : int, RandomState or None, default=None
            Seeds the draws; None gives others at every call.
        future : array-like or list of DataFrames, optional
            As in `predict`.
        n_steps, solver, batch_size : optional
            In place of the estimator's own; draws carried together (fixed-step solvers give the same for any).

        Returns
        -------
        ndarray of shape (n_samples, n, *sample_shape_)
        """
        check_is_fitted(self)
        n_samples = check_count("n_samples", n_samples)
        windows, _ = forecasting.contexts_like_fit(self, X, future, self.fitted_.layout.horizon)
        ensemble = self._ensemble(n_steps=n_steps, solver=solver, batch_size=batch_size)
        generator = generator_on(self.model_.device, seed_from(random_state))
        return ensemble.sample(windows, n_samples, generator)

    def rollout(
        self, X: Any, n_steps: int, n_samples: int = 1, random_state: Any = None, *, future: Any = None
    ) -> NDArray[Any]:
        """Carry forecasts on, each member its own trajectory.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        n_steps : int
            States to go; the solver's steps are the estimator's `n_steps`.
        n_samples : int, default=1
            Members for each context.
        random_state : int, RandomState or None, default=None
            Seeds the draws.
        future : array-like of shape (n, n_steps, n_known) or list of DataFrames, optional
            The `known_columns` of the instants to come.

        Returns
        -------
        ndarray of shape (n_samples, n, n_steps, *forecast state)
            NaN from where a trajectory has diverged, which is warned of.

        Raises
        ------
        ValueError
            If states cannot be carried on, because contexts hold columns that are neither forecast nor known ahead.
        """
        check_is_fitted(self)
        n_steps, n_samples = check_count("n_steps", n_steps), check_count("n_samples", n_samples)
        self.fitted_.check_rollout(n_steps)
        windows, times = forecasting.contexts_like_fit(self, X, future, n_steps)
        generator = generator_on(self.model_.device, seed_from(random_state))
        return self._ensemble().roll(windows, times, n_steps, n_samples, generator)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Compute the coefficient of determination R2 of the mean.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.
        sample_weight : array-like of shape (n,), optional
            Weights of the windows.

        Returns
        -------
        float
            The mean over the columns of tables as `sklearn.metrics.r2_score` has it; over series and fields weighted by
            their variances.
        """
        check_is_fitted(self)
        windows = forecasting.windows_like_fit(self, X, y)
        return self._ensemble().determination(windows, self.n_samples, sample_weight)

    def crps(self, X: Any, y: Any = None) -> float:
        """Compute the fair continuous ranked probability score of `n_samples` draws, the mean over all elements.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.

        Returns
        -------
        float
            In the data's units, lower is better; see `flowmatch.metrics.crps`.
        """
        return self._mean_score(metrics.crps, X, y)

    def energy_score(self, X: Any, y: Any = None) -> float:
        """Compute the fair energy score of `n_samples` draws, the mean over windows.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.

        Returns
        -------
        float
            In the data's units, lower is better; see `flowmatch.metrics.energy_score`.
        """
        return self._mean_score(metrics.energy_score, X, y)

    def check_fitted(self) -> None:
        super().check_fitted()
        self._ensemble()

    def _ensemble(self, **call: Any) -> forecasting.Ensemble:
        """What draws the forecasts of a call."""
        integration = model.sampling_steps(self.model_, (self.solver, self.n_steps, 1.0), **call, verbose=self.verbose)
        return forecasting.Ensemble(self.fitted_, integration)

    def _summary(self, X: Any, future: Any, summarize: Callable[..., NDArray[Any]], axis: int = 0) -> NDArray[Any]:
        """What `summarize` makes of the draws for every context, which run along `axis` of it."""
        check_is_fitted(self)
        windows, _ = forecasting.contexts_like_fit(self, X, future, self.fitted_.layout.horizon)
        return self._ensemble().summary(windows, self.n_samples, summarize, axis)

    def _mean_score(self, score: Callable[..., Any], X: Any, y: Any) -> float:
        """The mean of a score over windows."""
        check_is_fitted(self)
        return self._ensemble().mean_score(forecasting.windows_like_fit(self, X, y), self.n_samples, score)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output, tags.target_tags.required = True, False  # trajectories bring their own
        tags.input_tags.categorical = False  # it would round scikit-learn's test data
        return tags
