"""Predictor: what a fitted forecaster can be asked, in its own file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from flowmatch import forecasting
from flowmatch.base import Estimator, Fitted
from flowmatch.core.checks import check_choice, check_count
from flowmatch.core.randomness import generator_on, seed_from
from flowmatch.export import export_forecaster
from flowmatch.preprocessing import Windows


class Predictor(RegressorMixin, Estimator):
    """Base of forecasters: predictions, intervals, draws and rollouts of what a fit has left in `fitted_`.

    A subclass declares the parameters `solver`, `n_steps`, `n_samples` and `verbose`, and has a `fit`.
    """

    solver: str
    n_steps: int | None
    n_samples: int
    verbose: bool | int

    fitted_: forecasting.FittedForecaster
    model_, network_ = Fitted("flow.model"), Fitted("flow.model.network")
    n_iter_, max_iter_, history_ = Fitted("flow.n_iter"), Fitted("flow.max_iter"), Fitted("flow.history")
    n_parameters_, preprocessing_ = Fitted("flow.model.n_parameters"), Fitted("flow.model.encoder.transform")
    state_shape_, sample_shape_ = Fitted("state_shape"), Fitted("layout.sample_shape")
    boundary_, calendar_ = Fitted("boundary"), Fitted("layout.cycles")
    n_features_in_, feature_names_in_ = Fitted("n_features"), Fitted("feature_names")

    def predict(self, X: Any, *, future: Any = None, conditions: Any = None, output: str = "numpy") -> Any:
        """Estimate the conditional mean, from `n_samples` draws.

        The draws are the same at every call and for every row, in pairs of opposite noise. Those of tables and series
        are even: each element of their noise takes every quantile k / (n_samples + 1) once. The mean of a single target
        one step ahead is integrated over its quantiles instead, with a sixth as many draws.

        Parameters
        ----------
        X : contexts
            Of shape (n, *state), or (n, n_lags, *state) if `n_lags` is more than 1. Series may also come as a
            DataFrame, or a list of histories (DataFrames or arrays), whose last `n_lags` rows count.
        future : array-like of shape (n, horizon, n_known) or list of DataFrames, optional
            The `known_columns` of the instants to come.
        conditions : array-like of shape (n,) or (n, k), optional
            As in `fit`, one for each context, or one for all.
        output : {"numpy", "pandas"}, default="numpy"
            "pandas": a DataFrame of tables and series, one column for each that is forecast. Its rows are those of a
            table X; of a history the times that follow, by the model's spacing, or positions where X has no times; of
            several histories (series, time).

        Returns
        -------
        ndarray of shape (n, *sample_shape_), or DataFrame
        """
        ensemble, windows = self._asked(X, future, conditions, output)
        forecasts = ensemble.mean(windows, check_count("n_samples", self.n_samples, 2))
        return forecasting.as_frame(forecasts, self.fitted_, X) if output == "pandas" else forecasts

    def predict_quantiles(
        self,
        X: Any,
        quantiles: Any = (0.05, 0.5, 0.95),
        *,
        future: Any = None,
        conditions: Any = None,
        output: str = "numpy",
    ) -> Any:
        """Estimate quantiles of every element of forecasts, from one set of `n_samples` draws: they never cross.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        quantiles : sequence of float in [0, 1], default=(0.05, 0.5, 0.95)
            Quantile q is order statistic ``(n_samples + 1) q`` of the draws, interpolated: for exchangeable draws its
            coverage is exact. Those beyond the outermost draws are the outermost.
        future, conditions : optional
            As in `predict`.
        output : {"numpy", "pandas"}, default="numpy"
            As in `predict`; columns are (column, quantile).

        Returns
        -------
        ndarray of shape (n_quantiles, n, *sample_shape_), or DataFrame
        """
        levels = forecasting.check_quantiles(quantiles)
        ensemble, windows = self._asked(X, future, conditions, output)
        found = ensemble.quantiles(windows, check_count("n_samples", self.n_samples, 2), levels)
        kinds = "quantile", levels
        return forecasting.as_frame(found, self.fitted_, X, kinds=kinds) if output == "pandas" else found

    def predict_interval(
        self,
        X: Any,
        coverage: float = 0.9,
        *,
        method: str = "ensemble",
        future: Any = None,
        conditions: Any = None,
        output: str = "numpy",
    ) -> Any:
        """Estimate central intervals of every element of forecasts.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        coverage : float in (0, 1), default=0.9
            How often each interval should hold the truth.
        method : {"ensemble", "conformal", "adaptive"}, default="ensemble"
            Quantiles of the draws, or these corrected by outcomes that the forecaster was not trained on, so that they
            hold the truth so often whatever the forecaster is worth: of rows alike, see `calibrate`, or of what comes
            in time, see `update`.
        future, conditions : optional
            As in `predict`.
        output : {"numpy", "pandas"}, default="numpy"
            As in `predict`; columns are (column, "lower") and (column, "upper").

        Returns
        -------
        ndarray of shape (2, n, *sample_shape_), or DataFrame
            Lower and upper ends.
        """
        check_is_fitted(self)
        forecasting.check_output_format(output, self.fitted_)
        correct = {"conformal": forecasting.conformal_interval, "adaptive": forecasting.adaptive_interval}
        if check_choice("method", method, ("ensemble", *correct)) in correct:
            ends = correct[method](*self._asked(X, future, conditions, output), coverage)
        else:
            forecasting.check_coverage(coverage, self.n_samples)
            ends = self.predict_quantiles(
                X, (0.5 - coverage / 2, 0.5 + coverage / 2), future=future, conditions=conditions
            )
        kinds = "bound", ("lower", "upper")
        return forecasting.as_frame(ends, self.fitted_, X, kinds=kinds) if output == "pandas" else ends

    def calibrate(self, X: Any, y: Any = None, *, cv: int | None = None) -> Self:
        """Keep how far outcomes are from the middle of their forecasts, for intervals with a guarantee.

        Where these rows and the later ones are exchangeable, as independent draws from one distribution are, and `fit`
        has not seen these, ``predict_interval(method="conformal")`` holds the truth with a probability of at least
        `coverage`, for each lead time and target by itself and on average over rows (split conformal prediction; Vovk
        et al., 2005; of quantiles, Romano et al., 2019; of ranks, Chernozhukov et al., 2021). There is no guarantee
        where rows follow each other in time, as windows of one series do, nor after a change of the distribution.

        With `cv`, these may be the rows of `fit`, as is best where rows are few: each fold is scored by a model of the
        others, and intervals come of these models alone (CV+; Barber et al., 2021). The guarantee is then
        ``2 coverage - 1``, less a term that vanishes as folds grow; intervals hold about `coverage` in practice, and
        take the time of `cv` forecasters.

        Parameters
        ----------
        X, y : as in `fit`
            Tables, or trajectories alone. Another call, or fit, replaces what was kept. Set `n_samples`, `solver` and
            `n_steps` before.
        cv : int or None, default=None
            Folds: of rows, or of whole trajectories. None scores by this forecaster, which has not seen X.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For fields, and fewer rows or trajectories than folds.
        """
        check_is_fitted(self)
        windows, ensemble = forecasting.whole_windows(self, X, y), forecasting.Ensemble.of(self)
        self.fitted_ = replace(self.fitted_, conformal=forecasting.calibrate(self, ensemble, windows, cv))
        return self

    def update(self, X: Any, y: Any = None) -> Self:
        """Add outcomes as they come to those of `calibrate`; the flow stays as it is.

        Each that an interval of ``predict_interval(method="adaptive")`` misses makes the following ones wider, and each
        that is held makes them narrower: adaptive conformal inference (Gibbs and Candes, 2021). The share of outcomes
        that are held comes to `coverage` whatever happens in time, for each lead time and target by itself.

        Parameters
        ----------
        X, y : as in `fit`
            In order of time, what `calibrate` and `update` have not seen. Of series the lags before it come first.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        windows, ensemble = forecasting.windows_like_fit(self, X, y), forecasting.Ensemble.of(self)
        self.fitted_ = replace(self.fitted_, conformal=forecasting.updated(ensemble, windows))
        return self

    def sample(
        self,
        X: Any,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        future: Any = None,
        conditions: Any = None,
        n_steps: int | None = None,
        solver: str | None = None,
        batch_size: int | None = None,
        output: str = "numpy",
    ) -> Any:
        """Draw forecasts.

        Parameters
        ----------
        X : contexts
            As in `predict`.
        n_samples : int, default=1
            Draws for each context.
        random_state : int, RandomState or None, default=None
            Seeds the draws; None gives others at every call.
        future, conditions : optional
            As in `predict`.
        n_steps, solver, batch_size : optional
            In place of the estimator's own; draws carried together (fixed-step solvers give the same for any).
        output : {"numpy", "pandas"}, default="numpy"
            As in `predict`; rows are (sample, [series,] time).

        Returns
        -------
        ndarray of shape (n_samples, n, *sample_shape_), or DataFrame
        """
        check_is_fitted(self)
        forecasting.check_output_format(output, self.fitted_)
        n_samples = check_count("n_samples", n_samples)
        windows, _ = forecasting.contexts_like_fit(self, X, future, self.fitted_.layout.horizon, conditions)
        ensemble = forecasting.Ensemble.of(self, n_steps=n_steps, solver=solver, batch_size=batch_size)
        generator = generator_on(self.model_.device, seed_from(random_state))
        draws = ensemble.sample(windows, n_samples, generator)
        return forecasting.as_frame(draws, self.fitted_, X, members=True) if output == "pandas" else draws

    def rollout(
        self,
        X: Any,
        n_steps: int,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        future: Any = None,
        conditions: Any = None,
        output: str = "numpy",
    ) -> Any:
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
        conditions : array-like of shape (n,) or (n, k), optional
            As in `predict`.
        output : {"numpy", "pandas"}, default="numpy"
            As in `sample`.

        Returns
        -------
        ndarray of shape (n_samples, n, n_steps, *forecast state), or DataFrame
            NaN from where a trajectory has diverged, which is warned of.

        Raises
        ------
        ValueError
            If states cannot be carried on, because contexts hold columns that are neither forecast nor known ahead.
        """
        check_is_fitted(self)
        forecasting.check_output_format(output, self.fitted_)
        n_steps, n_samples = check_count("n_steps", n_steps), check_count("n_samples", n_samples)
        self.fitted_.check_rollout(n_steps)
        windows, times = forecasting.contexts_like_fit(self, X, future, n_steps, conditions)
        generator = generator_on(self.model_.device, seed_from(random_state))
        states = forecasting.Ensemble.of(self).roll(windows, times, n_steps, n_samples, generator)
        if output == "pandas":
            return forecasting.as_frame(states, self.fitted_, X, n_steps=n_steps, members=True)
        return states

    def export(
        self, path: Any, *, format: str | None = None, n_steps: int | None = None, quantize: str | None = None
    ) -> None:
        """Write what `sample` does to a file that runs without flowmatch; see `flowmatch.export.export_forecaster`.

        Parameters
        ----------
        path, format, n_steps, quantize : as there, but `n_steps` as in `sample`
        """
        check_is_fitted(self)
        integration = forecasting.Ensemble.of(self, n_steps=n_steps).integration
        export_forecaster(self.model_, path, integration, self.fitted_.form, format=format, quantize=quantize)

    def check_fitted(self) -> None:
        super().check_fitted()
        forecasting.Ensemble.of(self)

    def _asked(self, X: Any, future: Any, conditions: Any, output: str) -> tuple[forecasting.Ensemble, Windows]:
        """What draws predictions, and the windows to predict."""
        check_is_fitted(self)
        forecasting.check_output_format(output, self.fitted_)
        windows, _ = forecasting.contexts_like_fit(self, X, future, self.fitted_.layout.horizon, conditions)
        return forecasting.Ensemble.of(self), windows

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output, tags.target_tags.required = True, False  # trajectories bring their own
        tags.input_tags.categorical = False  # it would round scikit-learn's test data
        return tags
