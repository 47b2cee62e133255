"""ScoredPredictor: what a fitted forecaster is worth on data with known outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from flowmatch import forecasting, model
from flowmatch.predictor import Predictor


class ScoredPredictor(Predictor):
    """Base of forecasters that can be scored: R2, CRPS, energy score, log-densities of outcomes, backtests."""

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, conditions: Any = None) -> float:
        """Compute the coefficient of determination R2 of the mean.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.
        sample_weight : array-like of shape (n,), optional
            Weights of the windows.
        conditions : optional
            As in `fit`.

        Returns
        -------
        float
            The mean over the columns of tables as `sklearn.metrics.r2_score` has it; over series and fields weighted by
            their variances.
        """
        check_is_fitted(self)
        windows = forecasting.windows_like_fit(self, X, y, conditions)
        return forecasting.Ensemble.of(self).determination(windows, self.n_samples, sample_weight)

    def crps(self, X: Any, y: Any = None, *, conditions: Any = None) -> float:
        """Compute the fair continuous ranked probability score of `n_samples` draws, the mean over what is not missing.

        Parameters
        ----------
        X, y, conditions : as in `fit`
            Contexts and targets, or trajectories alone.

        Returns
        -------
        float
            In the data's units, lower is better; see `flowmatch.metrics.crps`.
        """
        return self._mean_score(forecasting.crps_of_seen, X, y, conditions)

    def energy_score(self, X: Any, y: Any = None, *, conditions: Any = None) -> float:
        """Compute the fair energy score of `n_samples` draws for what is not missing, the mean over windows.

        Parameters
        ----------
        X, y, conditions : as in `fit`
            Contexts and targets, or trajectories alone.

        Returns
        -------
        float
            In the data's units, lower is better; see `flowmatch.metrics.energy_score`.
        """
        return self._mean_score(forecasting.energy_score_of_seen, X, y, conditions)

    def score_samples(
        self,
        X: Any,
        y: Any = None,
        *,
        n_steps: int | None = None,
        solver: str | None = None,
        n_probes: int | None = None,
        return_error: bool = False,
        conditions: Any = None,
    ) -> Any:
        """Log-density of what follows each context, in the data's units.

        The change of variables along the flow (Chen et al., 2018), plus the log-Jacobians of the targets' scale and
        transform. A row depends on others by rounding alone, as in `FlowMatchingGenerator.score_samples`.

        Parameters
        ----------
        X, y : as in `fit`
            Contexts and targets, or trajectories alone.
        n_steps : int, optional
            None takes 20, whatever the estimator's own: densities need more than draws.
        solver : str, optional
            In place of the estimator's own.
        n_probes : int, optional
            As in `FlowMatchingGenerator.score_samples`: exact by default up to 64 elements of a forecast.
        return_error : bool, default=False
            Return the standard error of the estimate too: 0 where exact, NaN with one probe.
        conditions : optional
            As in `fit`.

        Returns
        -------
        log_density : ndarray of shape (n,)
            In nats, of the `horizon` states of a window jointly. Targets on a grid, such as counts, have that of a
            continuous stand-in: the log-probability of a value on a grid of width h is about the log-density plus log h
            as long as no value is frequent; of one that a fifth of the rows have is warned. Minus infinity where a
            target that was constant in training has another value.
        standard_error : ndarray of shape (n,), only with `return_error`
        """
        check_is_fitted(self)
        method, asked = model.choose_steps(self.model_, (self.solver, self.n_steps), solver, n_steps, velocity=True)
        taken = forecasting.DENSITY_STEPS if n_steps is None else asked
        density = model.CodeDensity(self.model_, method, taken, n_probes, self.verbose)
        windows = forecasting.windows_like_fit(self, X, y, conditions)
        log_density, error = forecasting.score_windows(density, self.fitted_, windows)
        return (log_density, error) if return_error else log_density

    def backtest(
        self,
        X: Any,
        n_windows: int = 10,
        *,
        refit: bool | Callable[[list[Any]], Any] = False,
        step: int | None = None,
        season: int = 1,
        coverage: float = 0.9,
        method: str = "ensemble",
    ) -> forecasting.Backtest:
        """Forecast the ends of series from origins before them, and score the forecasts at each lead time.

        Rolling-origin evaluation (Tashman, 2000): a forecast reads what precedes its origin, and the `known_columns` of
        the rows to come. Without `refit` the weights are those of the estimator: fit it to rows before the first origin
        to have an honest score.

        Parameters
        ----------
        X : trajectories
            As in `fit`, without `y`.
        n_windows : int, default=10
            Origins in each series; the last forecast ends where the series ends.
        refit : bool or callable, default=False
            For each origin, fit a clone to what precedes it in all series. This forecaster then need not be fitted. A
            callable takes these beginnings as a list, and returns a fitted forecaster.
        step : int or None, default=None
            Rows from one origin to the next. None takes the horizon.
        season : int, default=1
            The reference repeats the last `season` states: 1 is persistence, 24 repeats the last day of hours.
        coverage, method : as in `predict_interval`
            "adaptive" goes on from the scores of `calibrate`, if any, with those of the origins before.

        Returns
        -------
        Backtest
            Scores for each lead time and target, and the forecasts; `to_frame()` gives the scores as a DataFrame.

        Raises
        ------
        ValueError
            For series that are too short for so many windows.
        """
        again: Callable[[list[Any]], Any] | None = (lambda parts: clone(self).fit(parts)) if refit else None
        if again is None:
            check_is_fitted(self)
        settings: dict[str, Any] = {"n_windows": n_windows, "step": step, "season": season}
        return forecasting.backtest(
            self, X, refit if callable(refit) else again, coverage=coverage, method=method, **settings
        )

    def _mean_score(self, score: Callable[..., Any], X: Any, y: Any, conditions: Any) -> float:
        """The mean of a score over windows."""
        check_is_fitted(self)
        windows = forecasting.windows_like_fit(self, X, y, conditions)
        return forecasting.Ensemble.of(self).mean_score(windows, self.n_samples, score)
