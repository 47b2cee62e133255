"""Backtests: forecasts from several times in the past, scored against what came, at each lead time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch import metrics
from flowmatch.core.checks import check_choice, check_count
from flowmatch.core.randomness import generator_on
from flowmatch.forecasting.adaptive import adaptive_threshold
from flowmatch.forecasting.ensembles import PREDICTION_SEED, Ensemble
from flowmatch.forecasting.intervals import score_interval, scores_in_time
from flowmatch.forecasting.parameters import check_coverage
from flowmatch.forecasting.reading import windows_like_fit
from flowmatch.forecasting.series import read_panel
from flowmatch.preprocessing import Windows, parts_of

Array = NDArray[np.float64]

Origins = Sequence[tuple[int, int]]
"""Numbers of series, and the first row of each that is forecast."""


@dataclass(frozen=True, eq=False, repr=False)
class Backtest:
    """Result of `ConditionalForecaster.backtest`; prints as a table.

    Attributes
    ----------
    scores : dict of str to ndarray of shape (horizon, n_targets)
        "mae" and "rmse" of the mean, "crps" of the draws, "coverage" and "width" of the intervals, "reference_mae" of
        the reference, and "mae_skill" and "crps_skill", the shares by which "mae" and "crps" are lower than that (an
        ensemble without spread has its MAE as its CRPS); NaN where the reference makes no errors.
    columns : tuple
        Names or positions of the targets.
    origins : ndarray of int, shape (n, 2)
        The series of each forecast, and the first of its rows that is forecast.
    truth, mean, lower, upper, reference : ndarray of shape (n, horizon, n_targets, *grid)
        What came; the mean and the ends of the intervals that were forecast; what the reference expected.
    coverage : float
        How often intervals should hold the truth.
    """

    scores: dict[str, Array]
    columns: tuple[Any, ...]
    origins: NDArray[np.intp]
    truth: Array
    mean: Array
    lower: Array
    upper: Array
    reference: Array
    coverage: float

    def __repr__(self) -> str:
        """The means over lead times."""
        names = ["column", *self.scores]
        rows = [
            [str(column), *(f"{score[:, j].mean():.4g}" for score in self.scores.values())]
            for j, column in enumerate(self.columns)
        ]
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        lines = [
            "  ".join(f"{entry:>{width}}" for entry, width in zip(row, widths, strict=True)) for row in [names, *rows]
        ]
        head = f"{len(self.truth)} forecasts of {self.truth.shape[1]} steps; means over lead times"
        return "\n".join([head, *lines])

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            A column a score; a row for each column that is forecast and each lead time, from 1 on.
        """
        import pandas as pd

        leads = range(1, self.truth.shape[1] + 1)
        index = pd.MultiIndex.from_product([self.columns, leads], names=["column", "lead_time"])
        return pd.DataFrame({name: score.T.ravel() for name, score in self.scores.items()}, index)


def backtest(
    forecaster: Any,
    X: Any,
    refit: Callable[[list[Any]], Any] | None,
    *,
    n_windows: int,
    step: int | None,
    season: int,
    coverage: float,
    method: str,
) -> Backtest:
    """Forecast the ends of series from origins before them, and score the forecasts.

    Parameters
    ----------
    forecaster : ConditionalForecaster
        Fitted, unless there is a `refit`.
    X : trajectories
        As in `ConditionalForecaster.fit`.
    refit : callable or None
        From series to a forecaster that is fitted to them.
    n_windows, step, season, coverage, method
        As in `ConditionalForecaster.backtest`.

    Returns
    -------
    Backtest
        Forecasts of the first origin of all series come first.

    Raises
    ------
    ValueError
        For series that are too short.
    """
    check_coverage(coverage, forecaster.n_samples)
    form = forecaster.fitted_.layout.long if hasattr(forecaster, "fitted_") else None
    parts, season = parts_of(read_panel(X, form).parts), check_count("season", season)
    known = forecaster if refit else forecaster.fitted_.layout
    ends = _origins([len(part) for part in parts], known, n_windows, step, season)
    adapts = check_choice("method", method, ("ensemble", "adaptive")) == "adaptive"
    n_open = math.ceil(known.horizon / (known.horizon if step is None else step)) - 1
    forecasts, scores = [], [] if refit or not adapts else _scores_so_far(forecaster)
    for origins in ends if refit else [[origin for window in ends for origin in window]]:
        if refit:
            forecaster = refit([_rows(parts[number], 0, origin) for number, origin in origins])
        windows = _windows_at(forecaster, parts, origins)
        # the last season again and again: the state one season before the origin, and those that follow before it
        repeated = _windows_at(forecaster, parts, origins, season)
        reference = forecaster.fitted_.window_encoder.truth(repeated)[:, np.arange(known.horizon) % season]
        values, members = _forecasts(forecaster, windows, reference, coverage)
        if adapts:
            at_once = [windows.take(np.arange(i, i + len(parts))) for i in range(0, len(windows), len(parts))]
            found = [_adaptive_ends(forecaster, part, scores, n_open, coverage) for part in at_once]
            values[2:4] = np.concatenate(found, axis=1).reshape(values[2:4].shape)
        forecasts.append((values, members))
    values, members = (np.concatenate(found, axis=1) for found in zip(*forecasts, strict=True))
    truth, mean, lower, upper, reference = values
    return Backtest(
        scores=_scores(truth, mean, lower, upper, reference, members),
        columns=forecaster.fitted_.target_names,
        origins=np.concatenate(ends),
        truth=truth,
        mean=mean,
        lower=lower,
        upper=upper,
        reference=reference,
        coverage=coverage,
    )


def _origins(lengths: list[int], known: Any, n_windows: int, step: int | None, season: int) -> list[Origins]:
    """For each window the origins in all series, from the first window to the last, which ends where the series end."""
    n_lags, horizon = check_count("n_lags", known.n_lags), check_count("horizon", known.horizon)
    n_windows, step = check_count("n_windows", n_windows), horizon if step is None else check_count("step", step)
    last = (n_windows - 1) * step + horizon
    short = next((number for number, length in enumerate(lengths) if length < last + n_lags + season), None)
    if short is not None:
        raise ValueError(
            f"series {short} of X has {lengths[short]} rows, but {n_windows} windows of {horizon} rows, {step} apart, "
            f"after n_lags={n_lags} rows and season={season}, take {last + n_lags + season}: take a smaller n_windows."
        )
    return [[(number, length - last + k * step) for number, length in enumerate(lengths)] for k in range(n_windows)]


def _windows_at(forecaster: Any, parts: Sequence[Any], origins: Origins, shift: int = 0) -> Windows:
    """The windows that start so many rows before the origins, with what followed."""
    layout = forecaster.fitted_.layout
    starts = [(number, origin - shift - layout.n_lags) for number, origin in origins]
    span = layout.n_lags + layout.horizon
    rows = [_rows(parts[number], start, start + span) for number, start in starts]
    windows = windows_like_fit(forecaster, rows, None)
    if len(windows) != len(rows):
        raise ValueError("a window of X has a gap or lacks values: pass series without, or a smaller n_windows.")
    return windows


def _forecasts(forecaster: Any, windows: Windows, reference: Array, coverage: float) -> tuple[Array, NDArray[Any]]:
    """Truth, mean, both ends and reference (5, n, horizon, n_targets, *grid), and members (n_samples, n, ...)."""
    ensemble, n_samples = Ensemble.of(forecaster), forecaster.n_samples
    levels = [0.5 - coverage / 2, 0.5 + coverage / 2]

    def summarize(members: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([members.mean(axis=0)[None], np.quantile(members, levels, axis=0, method="weibull")])

    generator = generator_on(forecaster.model_.device, PREDICTION_SEED)
    truth = ensemble.encoder.truth(windows)
    predicted = ensemble.summary(windows, n_samples, summarize, axis=1).reshape(3, *truth.shape)
    members = ensemble.sample(windows, n_samples, generator).reshape(n_samples, *truth.shape)
    return np.concatenate([truth[None], predicted, reference[None]]).astype(np.float64), members


def _scores_so_far(forecaster: Any) -> list[Array]:
    """Scores of the outcomes that a forecaster was calibrated with, if it was."""
    known = forecaster.fitted_.conformal
    return [] if known is None or known.models else [known.scores]


def _adaptive_ends(
    forecaster: Any, windows: Windows, scores: list[Array], n_open: int, coverage: float
) -> NDArray[Any]:
    """Ends (2, n, *sample_shape) by the scores of the origins before, save the last `n_open`, part of which is to come.

    The scores of this origin are added to those.
    """
    ensemble, n_samples = Ensemble.of(forecaster), forecaster.n_samples
    found = scores_in_time(ensemble, windows, n_samples)
    threshold = adaptive_threshold(np.concatenate([found[:0], *scores[: max(0, len(scores) - n_open)]]), coverage)
    scores.append(found)
    return score_interval(ensemble, windows, threshold[None], n_samples)[:, 0]


def _scores(
    truth: Array, mean: Array, lower: Array, upper: Array, reference: Array, members: NDArray[Any]
) -> dict[str, Array]:
    """Scores (horizon, n_targets); see `Backtest`."""

    def averaged(values: NDArray[Any]) -> Array:
        return np.asarray(values.mean(axis=(0, *range(3, values.ndim)), dtype=np.float64))

    crps = [metrics.crps(truth[:, :, [j]], members[:, :, :, [j]], per_lead=True) for j in range(truth.shape[2])]
    scores = {
        "mae": averaged(np.abs(mean - truth)),
        "rmse": np.sqrt(averaged((mean - truth) ** 2)),
        "crps": np.stack([np.asarray(score) for score in crps], axis=1),
        "coverage": averaged((lower <= truth) & (truth <= upper)),
        "width": averaged(upper - lower),
        "reference_mae": averaged(np.abs(reference - truth)),
    }
    against = np.where(scores["reference_mae"] > 0, scores["reference_mae"], np.nan)
    return {**scores, **{f"{name}_skill": 1 - scores[name] / against for name in ("mae", "crps")}}


def _rows(part: Any, start: int, stop: int) -> Any:
    """Some rows of a series."""
    return part.iloc[start:stop] if hasattr(part, "iloc") else part[start:stop]
