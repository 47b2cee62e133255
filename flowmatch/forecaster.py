"""ConditionalForecaster: next states given the present ones, as ensembles."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from flowmatch import metrics, preprocessing
from flowmatch._base import FlowEstimator
from flowmatch.core.checks import check_count, check_number
from flowmatch.core.devices import resolve_device
from flowmatch.core.randomness import generator_on, seed_from
from flowmatch.fitting.announcements import announce_forecaster
from flowmatch.fitting.parameters import NetworkFactory, resolve_components, resolve_network
from flowmatch.fitting.schedule import Schedule, mlp_of_forecasts, options_of_forecasts, schedule_of_forecasts
from flowmatch.fitting.training_data import TrainingData
from flowmatch.forecasting.ensembles import ensemble_of
from flowmatch.forecasting.layout import Layout
from flowmatch.forecasting.parameters import (
    boundaries_of,
    check_coverage,
    check_forecast_parameters,
    read_contexts,
    read_windows,
)
from flowmatch.forecasting.tables import TableReader
from flowmatch.forecasting.training import fit_base, new_encoder, training_rows
from flowmatch.forecasting.window_data import NoisyContexts
from flowmatch.networks import AutoNetwork, UNet

PREDICTION_SEED = 0
"""Of the draws behind `predict` and its relatives, whatever `random_state` is: a prediction is no game of chance."""


class ConditionalForecaster(RegressorMixin, FlowEstimator):
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
        "auto" takes an `flowmatch.networks.MLP` for tables and series, the smaller and the more regularised the fewer
        windows there are, and a `flowmatch.networks.UNet` for fields, which reads the context beside the noise. A
        factory is called as in `FlowMatchingGenerator`.
    n_lags : int, default=1
        States in a context.
    horizon : int, default=1
        States that are forecast at once, jointly. Rollouts go on from there.
    target : {"auto", "residual", "state"}, default="auto"
        What the flow learns: what a simple forecast leaves, or the state itself. "auto" takes the residual of fields,
        and of those columns of tables and series that the regression predicts to half their standard deviation.
    boundary : {"auto", "periodic", "wall"} or sequence of the last two, default="auto"
        What lies beyond the edge of a field, for all axes or for each: the opposite side, or nothing. "auto" looks at
        the training states: across a periodic border they differ no more than between neighbours. Reaches the networks
        that are chosen by name; a component such as ``UNet(boundary=...)`` brings its own.
    exogenous_columns, known_columns : str, int or sequence of them, default=None
        Columns of a series (channels of a field), by name or number, that are read but not forecast. Those of
        `known_columns` are known ahead, like prices or holidays: forecasts are told them by `future`.
    calendar : {"auto", "year", "week", "day"}, sequence of the last three, or None, default="auto"
        What forecasts of a series with a DatetimeIndex are told of the instant they are for. "auto" takes the cycles
        that the training data go through at least twice.
    context_noise : float, default=0.0
        Noise on the contexts in training, in units of the states' standard deviation. For fields the flow learns to
        lead disturbed states back, which calms long rollouts where it is no larger than the error of a step. For tables
        and series it disturbs the network's input alone, which keeps it from learning rows by heart.
    n_samples : int, default=50
        Draws behind `predict`, `predict_quantiles`, `predict_interval`, `score`, `crps` and `energy_score`.
    path, coupling, source, time_sampler, loss, loss_weight : optional
        As in `FlowMatchingGenerator`. ``loss=Sobolev(...)`` weighs gradients of fields.
    max_iter : int or None, default=None
        Optimiser steps. None takes what was measured: see `docs/forecasting.md`.
    batch_size : int or None, default=None
        Windows a step. None takes 256 of tables and series, and 32 of fields.
    learning_rate : float or None, default=None
        Peak learning rate. None takes 0.001 for tables and series and 0.004 for fields.
    training : TrainingOptions or None, default=None
        What else there is to tune about training. What is held out for validation are whole trajectories, or the ends
        of them where there are few. None stands for ``TrainingOptions()``; tables and series get ``weight_decay=0.1``,
        and from 200 windows on ``early_stopping=True`` with 15 % held out.
    solver : str, default="auto"
        As in `FlowMatchingGenerator`; "auto" takes "midpoint". Euler's method loses spread: see `docs/forecasting.md`.
    n_steps : int or None, default=None
        Steps of the fixed-step solvers. None takes 5.
    device : "auto", str or torch.device, default="auto"
    random_state : int, RandomState or None, default=None
        Seeds initialisation, shuffling, noise and times of `fit`. The draws behind predictions are always the same.
    verbose : bool or int, default=0
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted weights and scaling instead of starting anew.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network (averaged weights).
    state_shape_ : tuple of int
        Shape of one state of a context: (d,), or (C, *grid).
    sample_shape_ : tuple of int
        Shape of one forecast: that of the forecast columns, after `horizon` if that is more than 1.
    boundary_ : tuple of str
        For each axis of a field.
    calendar_ : tuple of str
        The cycles that forecasts are told.
    n_features_in_ : int
        Columns (channels) of a state.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.
    n_iter_, n_parameters_, history_
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

    _layout: Layout
    _reader: TableReader | None = None
    """How tables and series are read that hold more than whole numbers."""
    boundary_: tuple[str, ...]
    condition_dropout = 0.0
    guidance_scale = 1.0
    _default_steps = 5
    _frozen = (
        *FlowEstimator._frozen,
        *("n_lags", "horizon", "target", "boundary", "exogenous_columns", "known_columns", "calendar"),
    )

    def __init__(
        self,
        network="auto",
        *,
        n_lags=1,
        horizon=1,
        target="auto",
        boundary="auto",
        exogenous_columns=None,
        known_columns=None,
        calendar="auto",
        context_noise=0.0,
        n_samples=50,
        path="linear",
        coupling="independent",
        source="normal",
        time_sampler="auto",
        loss="l2",
        loss_weight="uniform",
        max_iter=None,
        batch_size=None,
        learning_rate=None,
        training=None,
        solver="auto",
        n_steps=None,
        device="auto",
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
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

    # -- fitting ------------------------------------------------------------------------------------------------------

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
            categories, dates and missing cells.
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
        return self._fit(X, y, None, go_on=bool(self.warm_start))

    def _fit_in_place(self, X: Any, y: Any, sample_weight: Any, *, fresh: bool) -> None:
        components = resolve_components(self)
        check_forecast_parameters(self)
        windows = self._read_windows(X, y, fresh=fresh)
        if len(windows) < 2:
            raise ValueError(f"Found {len(windows)} sample(s), that is window(s), while a minimum of 2 is required.")
        left: NDArray[np.float64] | None = None
        if fresh:
            self.boundary_ = boundaries_of(self.boundary, windows)
            encoder = new_encoder(self._layout, windows)
            self._encoder, left = fit_base(encoder, windows, self.target)
            self._conditions, self.preprocessing_ = encoder, self._encoder.transform
        if self.training is None and not self._layout.grid:
            components = replace(components, options=options_of_forecasts(self._window_encoder.n_windows))
        self._freeze_parameters(fresh=fresh)
        if fresh:
            announce_forecaster(self, windows, components)
        data = training_rows(self._window_encoder, self._encoder, windows, resolve_device(self.device), left)
        some = torch.arange(min(len(data), 4096), device=data.device)
        self._train(data, lambda: data.draw(some)[0].cpu().numpy(), components, fresh=fresh)

    def _read_windows(self, X: Any, y: Any, *, fresh: bool) -> preprocessing.Windows:
        return read_windows(self, X, y, reset=fresh)

    def _set_layout(self, layout: Layout, columns: tuple[Any, ...] = ()) -> None:
        self._layout = layout
        self.state_shape_ = layout.state_shape if self._reader is None else (self._reader.n_columns,)
        self.sample_shape_ = layout.sample_shape
        self.calendar_ = layout.cycles
        self.n_features_in_ = self.state_shape_[0]
        if columns and all(isinstance(name, str) for name in columns):
            self.feature_names_in_ = np.asarray(columns, dtype=object)

    def _network_factory(self) -> NetworkFactory:
        """The network; those chosen by name are told what lies beyond the edges, or how much there is to learn from."""
        factory = resolve_network(self._as_fitted)
        if isinstance(factory, AutoNetwork):
            factory = UNet() if self._layout.grid else mlp_of_forecasts(self._window_encoder.n_windows)
        if isinstance(factory, UNet) and isinstance(self._as_fitted.network, str):
            factory = replace(factory, boundary=tuple("zeros" if b == "wall" else b for b in self.boundary_))
        return factory

    def _schedule(self, n_rows: int) -> Schedule:
        return schedule_of_forecasts(self, self._encoder.code_shape, n_rows, self._window_encoder.n_windows)

    def _disturbed(self, data: TrainingData) -> TrainingData:
        """The rows to train on, with noise on their contexts if that is wanted."""
        if self.context_noise == 0:
            return data
        return NoisyContexts(data, self._window_encoder, self._encoder, float(self.context_noise))

    @property
    def _window_encoder(self) -> preprocessing.WindowEncoder:
        assert isinstance(self._conditions, preprocessing.WindowEncoder)
        return self._conditions

    # -- forecasts ----------------------------------------------------------------------------------------------------

    def predict(self, X: Any, *, future: Any = None) -> NDArray[Any]:
        """The conditional mean, from `n_samples` draws.

        The draws are the same at every call and for every row, in pairs of opposite noise. Those of tables and series
        are even: each number of their noise takes every quantile k / (n_samples + 1) once.

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
        """Quantiles of every number that is forecast, all from one set of `n_samples` draws: they never cross.

        Parameters
        ----------
        X, future
            As in `predict`.
        quantiles : sequence of float in [0, 1], default=(0.05, 0.5, 0.95)
            Quantile q is order statistic ``(n_samples + 1) q`` of the draws, interpolated: for exchangeable draws its
            coverage is exact. Those beyond the outermost draws are the outermost.

        Returns
        -------
        ndarray of shape (n_quantiles, n, *sample_shape_)
        """
        levels = [check_number("quantiles", q, 0.0, 1.0, closed_high=True) for q in np.atleast_1d(quantiles).tolist()]
        quantile = functools.partial(np.quantile, q=levels, axis=0, method="weibull")
        return self._summary(X, future, quantile, rows_first=False)

    def predict_interval(self, X: Any, coverage: float = 0.9, *, future: Any = None) -> NDArray[Any]:
        """Central intervals of every number that is forecast.

        Parameters
        ----------
        X, future
            As in `predict`.
        coverage : float in (0, 1), default=0.9
            How often each interval should hold the truth.

        Returns
        -------
        ndarray of shape (2, n, *sample_shape_)
            Lower and upper ends.
        """
        check_coverage(coverage, self.n_samples)
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
        X, future
            As in `predict`.
        n_samples : int, default=1
            Draws for each context.
        random_state : int, RandomState or None, default=None
            Seeds the draws; None gives others at every call.
        n_steps, solver : optional
            In place of the estimator's own.
        batch_size : int, optional
            Draws carried together; with the fixed-step solvers the result does not depend on it.

        Returns
        -------
        ndarray of shape (n_samples, n, *sample_shape_)
        """
        check_is_fitted(self)
        n_samples = check_count("n_samples", n_samples)
        windows, _ = self._contexts(X, future, self._layout.horizon)
        ensemble = ensemble_of(self, n_steps, solver, batch_size)
        generator = generator_on(self._fitted_device, seed_from(random_state))
        drawn = [self._as_forecasts(part) for _, part in ensemble.draw(windows, n_samples, generator)]
        return np.concatenate(drawn, axis=1)

    def rollout(
        self,
        X: Any,
        n_steps: int,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        future: Any = None,
    ) -> NDArray[Any]:
        """Carry forecasts on, each member its own trajectory.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        n_steps : int
            States to go. (The solver's steps are the estimator's `n_steps`.)
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
        layout = self._layout
        if n_steps > layout.horizon and not self._window_encoder.is_autonomous:
            raise ValueError(
                f"a rollout of {n_steps} steps needs every column of the states to come, but only "
                f"{len(layout.targets)} of {layout.state_shape[0]} are forecast and {len(layout.known)} known ahead. "
                f"Name the others in known_columns and pass them as future, or fit with horizon={n_steps}."
            )
        windows, times = self._contexts(X, future, n_steps)
        generator = generator_on(self._fitted_device, seed_from(random_state))

        def calendar(step: int) -> NDArray[np.float64]:
            return windows.calendar if times is None else layout.calendar_ahead(times, step)

        states = ensemble_of(self).roll(windows, n_steps, n_samples, generator, calendar)
        return self._in_own_dtype(states.reshape(n_samples, len(windows), n_steps, *layout.forecast_shape))

    # -- scores -------------------------------------------------------------------------------------------------------

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Coefficient of determination R2 of the mean.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.
        sample_weight : array-like of shape (n,), optional

        Returns
        -------
        float
            The mean over the columns of tables as `sklearn.metrics.r2_score` has it; over series and fields weighted by
            their variances.
        """
        check_is_fitted(self)
        windows = self._read_windows(X, y, fresh=False)
        truth = self._window_encoder.truth(windows)
        mean = np.concatenate([members.mean(axis=0) for _, members in self._seeded_draws(windows)])
        multioutput = "uniform_average" if self._layout.is_table else "variance_weighted"
        n = len(windows)
        return float(
            r2_score(truth.reshape(n, -1), mean.reshape(n, -1), sample_weight=sample_weight, multioutput=multioutput)
        )

    def crps(self, X: Any, y: Any = None) -> float:
        """Fair continuous ranked probability score of `n_samples` draws, the mean over all numbers; lower is better.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.

        Returns
        -------
        float
            In the data's units; see `flowmatch.metrics.crps`.
        """
        return self._mean_score(metrics.crps, X, y)

    def energy_score(self, X: Any, y: Any = None) -> float:
        """Fair energy score of `n_samples` draws, the mean over windows; lower is better.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.

        Returns
        -------
        float
            In the data's units; see `flowmatch.metrics.energy_score`.
        """
        return self._mean_score(metrics.energy_score, X, y)

    # -- what a student learns from -----------------------------------------------------------------------------------

    def _data_of(self, X: Any, y: Any, sample_weight: Any) -> TrainingData:
        """Rows like those of `fit`, checked and encoded as there."""
        if sample_weight is not None:
            raise ValueError("a ConditionalForecaster takes no sample_weight.")
        windows = self._read_windows(X, y, fresh=False)
        return training_rows(self._window_encoder, self._encoder, windows, self._fitted_device)

    def _own_data(self, n_samples: int, seed: int, *, with_samples: bool) -> TrainingData:
        raise ValueError("a ConditionalForecaster keeps none of its contexts: pass X (and y) to fit.")

    # -- how the methods share their work -----------------------------------------------------------------------------

    def _contexts(self, X: Any, future: Any, n_steps: int) -> tuple[preprocessing.Windows, list[Any] | None]:
        return read_contexts(self, X, future, n_steps)

    def _seeded_draws(self, windows: preprocessing.Windows) -> Any:
        """Blocks of windows, and the draws (n_samples, B, *sample_shape_) behind predictions for them."""
        generator = generator_on(self._fitted_device, PREDICTION_SEED)
        n_samples = check_count("n_samples", self.n_samples, 2)
        for rows, members in ensemble_of(self).draw(windows, n_samples, generator, shared=True):
            yield rows, self._as_forecasts(members)

    def _summary(self, X: Any, future: Any, summarise: Any, *, rows_first: bool = True) -> NDArray[Any]:
        """What `summarise` makes of the draws for every context."""
        check_is_fitted(self)
        windows, _ = self._contexts(X, future, self._layout.horizon)
        parts = [summarise(members) for _, members in self._seeded_draws(windows)]
        return self._in_own_dtype(np.concatenate(parts, axis=0 if rows_first else 1))

    def _mean_score(self, score: Any, X: Any, y: Any) -> float:
        """The mean of a score over windows, block by block."""
        check_is_fitted(self)
        windows = self._read_windows(X, y, fresh=False)
        truth, total = self._window_encoder.truth(windows).reshape(len(windows), *self.sample_shape_), 0.0
        ensemble = ensemble_of(self)
        generator = generator_on(self._fitted_device, PREDICTION_SEED)
        for rows, members in ensemble.draw(windows, check_count("n_samples", self.n_samples, 2), generator):
            known = truth[rows]
            total += score(known, self._as_forecasts(members).reshape(-1, *known.shape)) * len(known)
        return total / len(windows)

    def _as_forecasts(self, members: NDArray[np.float64]) -> NDArray[Any]:
        """Members (n_samples, B, horizon, n_targets, *grid) in the shape that users get."""
        return self._in_own_dtype(members.reshape(*members.shape[:2], *self.sample_shape_))

    def _in_own_dtype(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """Single precision for data that came in it."""
        single = self._window_encoder.container.dtypes[0] in ("float32", "float16", "bfloat16")
        return values.astype(np.float32) if single else values

    # -- scikit-learn -------------------------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.required = False  # trajectories bring their own
        tags.input_tags.allow_nan = tags.input_tags.string = True  # `categorical` would round scikit-learn's test data
        return tags
