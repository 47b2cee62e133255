"""ConditionalForecaster: next states given the present ones, as ensembles."""

from __future__ import annotations

from typing import Any, Self

from flowmatch import fitting, forecasting
from flowmatch.scored import ScoredPredictor
from flowmatch.training import TrainingOptions

_OF_STATES = ("n_lags", "horizon", "target", "boundary", "exogenous_columns", "known_columns", "calendar")

_FROZEN = ("network", "path", "source", *_OF_STATES)
"""Parameters that belong to the weights."""


class ConditionalForecaster(ScoredPredictor):
    """Forecast the next states of fields and series, or regress tables, with the whole conditional distribution.

    A flow carries noise to the next state given the present one, or a window of past ones (flow matching: Lipman et
    al., 2023; its like for next states, with diffusion: Kohl et al., 2023). Its draws give means, quantiles and
    intervals, and rolled on they are an ensemble of trajectories.

    What is learned is what a simple forecast leaves, scaled by its own spread: the change of a field from its last
    state, the error of a ridge regression for columns of series and tables that one predicts well. Where boosted trees
    of what that leaves are clearly better on rows that they have not seen, they are added to it, and the network is
    told what both expect. Columns of series and tables go through their own distribution, so that zeros, steps and
    bounds come back as such.

    What the network does not know of few rows is in the draws too: the source of tables and series is made as wide as
    the noise that held-out rows come from, by two more models where less than a hundred rows validate.

    Parameters
    ----------
    network : {"auto", "mlp", "unet", "transformer"}, component or factory, default="auto"
        "auto" takes an `flowmatch.networks.MLP` for tables and series, the smaller and the more regularized the fewer
        windows there are, and a `flowmatch.networks.UNet` with a gain for fields, which reads the context beside the
        noise, as does "unet". Of tables of 5000 rows or more and several targets, such as posteriors from simulations,
        the MLP does so too, and without dropout. A factory is called as in `FlowMatchingGenerator`.
    n_lags : int, default=1
        States in a context.
    horizon : int, default=1
        States that are forecast at once, jointly. Rollouts go on from there.
    target : {"auto", "residual", "state"}, default="auto"
        What the flow learns: what a simple forecast leaves, or the state itself. "auto" takes the residual of fields,
        and of columns of tables and series that drift, or have few ties and are predicted to half their deviation: .3
        of it where trees help, since the network then knows what is expected; a little where several targets have many
        rows, unless values end abruptly.
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
    [shared: max_time]
    batch_size : int or None, default=None
        Windows a step. None takes 256 of tables and series, and 32 of fields.
    learning_rate : float or None, default=None
        Peak learning rate. None takes 0.001 for tables and series (0.005 for many rows of several targets) and 0.004
        for fields.
    training : TrainingOptions or None, default=None
        What else there is to tune about training. What is held out for validation are whole trajectories, or the ends
        of them where there are few. None stands for ``TrainingOptions()``; tables and series get ``weight_decay=0.1``,
        and from 200 windows on ``early_stopping=True`` with 15 % held out. Many rows of several targets get
        ``TrainingOptions(ema_decay=0.999, early_stopping=True, patience=20)``.
    solver : str, default="auto"
        As in `FlowMatchingGenerator`; "auto" takes "midpoint". "flow_map" is for students. Euler's method loses
        spread: see `docs/forecasting.md`.
    n_steps : int or None, default=None
        Steps of the fixed-step solvers. None takes 5, and 10 for many rows of several targets.
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
    boundary_, calendar_ : tuple of str
        For each axis of a field; the cycles that forecasts are conditioned on.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Columns (channels) of a state; their names, if X had any that are strings.
    n_iter_, max_iter_ : int
        Optimizer steps made; those that the last fit was to make.
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
        max_time: float | None = None,
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
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.solver = solver
        self.n_steps = n_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        time: Any = None,
        groups: Any = None,
        value: Any = None,
        conditions: Any = None,
    ) -> Self:
        """Learn what follows what.

        Parameters
        ----------
        X : trajectories, or contexts if there is a `y`
            Without `y`: a list of arrays (T, *state) or DataFrames, an array (n_trajectories, T, *state), a single
            series, a panel with a MultiIndex of labels and times, or a long table of which `time` tells. Windows of
            ``n_lags + horizon`` states are cut inside, never across series or gaps. A state is (d,) or (C, *grid).
            With `y`: contexts (n, *state), or (n, n_lags, *state) if `n_lags` is more than 1; (n, d) is a table as any
            regressor takes it. Tables, and columns that are not forecast, may hold text and dates. Values may be
            missing (NaN): contexts mark and fill them.
        y : array-like of shape (n, *state) or (n, horizon, *state), optional
            The states that follow; (n,) and (n, q) for tables. What is missing is not learned from.
        time, groups, value : column names, optional
            Of a table of series one below the other: times, what tells the series apart, and what is forecast. Of its
            other columns those stay that are exogenous or known ahead. Every method then takes such tables.
        conditions : array-like of shape (n_trajectories,) or (n_trajectories, k), optional
            Of fields: labels, numbers or mixed columns of what holds in a whole trajectory, such as a Reynolds number,
            of pairs in each. As `y` of `FlowMatchingGenerator.fit`: numbers of few values are labels unless they come
            as columns. Every method then takes them too, one for each trajectory or context, or one for all.

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
        start = getattr(self, "fitted_", None) if self.warm_start else None
        return self._fit(X, y, start, (time, groups, value, conditions))

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        *,
        time: Any = None,
        groups: Any = None,
        value: Any = None,
        conditions: Any = None,
    ) -> Self:
        """Train for `max_iter` more steps, from the fitted weights, scales and base.

        The first call is a `fit`. Later ones may bring other rows, of the same columns; forecasts of tables and series
        stay where the simple forecast and the range of what it left at first allow.

        Parameters
        ----------
        X, y, time, groups, value, conditions : as in `fit`

        Returns
        -------
        self
        """
        return self._fit(X, y, getattr(self, "fitted_", None), (time, groups, value, conditions))

    def check_parameters(self) -> fitting.FitSettings:
        settings = fitting.resolve_settings(self, frozen=_FROZEN)
        forecasting.check_forecast_parameters(self)
        return settings

    def _fit(self, X: Any, y: Any, start: forecasting.FittedForecaster | None, columns: tuple[Any, ...]) -> Self:
        settings = self.check_parameters()
        if start is None:
            reader = type(self)(**self.get_params(deep=False))  # what is read of X may not reach what is fitted
            reading = forecasting.read_windows(reader, X, y, *columns)
            task, settings = forecasting.forecast_task(self, settings, reading)
            settings = fitting.with_seed(settings)
            forecasting.announce_forecaster(task, settings, reading)
            fitting.fit_and_assign(self, task, settings, None, reading.fitted)
            self.fitted_ = reading.fitted(forecasting.with_unseen_spread(self.fitted_.flow, task, settings))
        else:
            windows = forecasting.windows_like_fit(self, X, y, columns[-1])
            task, settings = forecasting.forecast_task_from(self, settings, start, windows)
            fitting.fit_and_assign(self, task, settings, start.flow, start.with_flow)
        return self
