"""Intervals of forecasts with a guarantee: outcomes are scored, and intervals made of the scores."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from flowmatch import fitting
from flowmatch.core.batches import BLOCK_ELEMENTS
from flowmatch.core.checks import check_count, check_number
from flowmatch.forecasting.adaptive import adaptive_threshold, order_of_time
from flowmatch.forecasting.conformal import Conformal, distance_from_middle, value_at
from flowmatch.forecasting.ensembles import Ensemble
from flowmatch.forecasting.reading import Reading
from flowmatch.forecasting.tasks import forecast_task
from flowmatch.model import FlowModel
from flowmatch.preprocessing import Windows

Array = NDArray[np.float64]

_OUTWARD = 1e-9
"""By so much of a rank ends are moved outward, so that rounding leaves no value out that is on them."""

_LEAST_WIDTH = 1e-3
"""Unit of what lies beyond equal draws, in ranges of the training data."""


def conformal_interval(ensemble: Ensemble, windows: Windows, coverage: float) -> Array:
    """Lower and upper ends (2, n, *sample_shape) of forecasts, by the scores that the forecaster was calibrated with.

    Raises
    ------
    ValueError
        If there are no scores, or too few for such intervals.
    """
    check_number("coverage", coverage, 0.0, 1.0, open_low=True)
    known = _calibration_of(ensemble, "method='conformal'")
    n = len(known.scores)
    rank = math.ceil((n + 1) * coverage - 1e-9)
    if rank > n:
        raise ValueError(
            f"conformal intervals of coverage={coverage:g} take {math.ceil(coverage / (1 - coverage) - 1e-9)} outcomes "
            f"or more, but calibrate was given {n}."
        )
    if not known.models:
        threshold = np.sort(known.scores, axis=0)[rank - 1]
        return score_interval(ensemble, windows, threshold[None], known.n_samples)[:, 0]
    parts = []
    for block in gen_batches(len(windows), max(1, BLOCK_ELEMENTS // known.scores.size)):
        rows = windows.take(np.arange(block.start, block.stop))
        ends = [
            score_interval(ensemble.of_model(model), rows, known.scores[known.fold == number], known.n_samples)
            for number, model in enumerate(known.models)
        ]
        lower, upper = np.sort(np.concatenate(ends, axis=1), axis=1)
        parts.append(np.stack([lower[n - rank], upper[rank - 1]]))
    return np.concatenate(parts, axis=1)


def adaptive_interval(ensemble: Ensemble, windows: Windows, coverage: float) -> Array:
    """The same ends, by how often the intervals of the outcomes so far have held them; see `adaptive_shares`.

    Raises
    ------
    ValueError
        If there are no scores, or scores by models of folds.
    """
    check_number("coverage", coverage, 0.0, 1.0, open_low=True)
    known = _calibration_in_time(ensemble, "method='adaptive'")
    return score_interval(ensemble, windows, adaptive_threshold(known.scores, coverage)[None], known.n_samples)[:, 0]


def updated(ensemble: Ensemble, windows: Windows) -> Conformal:
    """The scores so far and those of the targets of further windows.

    Raises
    ------
    ValueError
        If there are no scores, or scores by models of folds.
    """
    known = _calibration_in_time(ensemble, "update")
    return replace(known, scores=np.concatenate([known.scores, scores_in_time(ensemble, windows, known.n_samples)]))


def scores_in_time(ensemble: Ensemble, windows: Windows, n_samples: int) -> Array:
    """Scores (n, q) of the targets of windows, in order of time; see `Conformal`."""
    return _scores_of(ensemble, windows.take(order_of_time(windows)), n_samples)


def _calibration_of(ensemble: Ensemble, what: str) -> Conformal:
    known = ensemble.fitted.conformal
    if known is None:
        raise ValueError(f"{what} needs outcomes that were not trained on: call calibrate(X, y) with them.")
    return known


def _calibration_in_time(ensemble: Ensemble, what: str) -> Conformal:
    known = _calibration_of(ensemble, what)
    if known.models:
        raise ValueError(f"{what} goes on from scores in order of time, but cv mixes them: call calibrate without cv.")
    return known


def calibrate(forecaster: Any, ensemble: Ensemble, windows: Windows, cv: int | None) -> Conformal:
    """Scores of the targets of windows, which the forecaster has not seen, or models of `cv` folds of them.

    Parameters
    ----------
    forecaster : ConditionalForecaster
        Its parameters make the models of folds.
    ensemble : Ensemble
        Of the forecaster.
    windows : Windows
        Contexts and outcomes.
    cv : int or None
        How many folds.

    Returns
    -------
    Conformal

    Raises
    ------
    ValueError
        For fields, and fewer rows or trajectories than folds.
    """
    fitted, n_samples = ensemble.fitted, check_count("n_samples", forecaster.n_samples, 2)
    if fitted.layout.grid:
        raise ValueError("conformal intervals are for tables and series, but states here are fields.")
    if cv is None:
        return Conformal(scores_in_time(ensemble, windows, n_samples), n_samples)
    fold, models = _folds_of(windows, cv), []
    scores = np.empty((len(windows), math.prod(ensemble.encoder.target_shape)))
    for number in range(cv):
        own = fold == number
        models.append(_fitted_to(forecaster, ensemble, windows.take(np.flatnonzero(~own))))
        scores[own] = _scores_of(ensemble.of_model(models[-1]), windows.take(np.flatnonzero(own)), n_samples)
    return Conformal(scores, n_samples, fold, tuple(models))


def _fitted_to(forecaster: Any, ensemble: Ensemble, windows: Windows) -> FlowModel:
    """A model that is trained as the forecaster was, on these windows; scores make up for what its source lacks."""
    known = ensemble.fitted
    reading = Reading(windows, known.layout, known.reader, known.columns, known.boundary, known.target_columns)
    task, settings = forecast_task(forecaster, forecaster.check_parameters(), reading)
    return fitting.fit_flow(task, settings, description="model of a fold").model


def _folds_of(windows: Windows, n_folds: int) -> NDArray[np.intp]:
    """The fold of each window, at random; all of a trajectory are in one."""
    names, place = np.unique(windows.groups, return_inverse=True)
    check_count("cv", n_folds, 2)
    if len(names) < n_folds:
        raise ValueError(
            f"cv={n_folds} takes so many rows, or trajectories, but there are {len(names)}: hold some out of fit, and "
            "pass these to calibrate without cv."
        )
    fold: NDArray[np.intp] = np.random.RandomState(0).permutation(np.arange(len(names)) % n_folds)[place]
    return fold


def _scores_of(ensemble: Ensemble, windows: Windows, n_samples: int) -> Array:
    """Scores (n, q) of the targets of windows; see `Conformal`."""
    parts, width = [], _least_width(ensemble)
    size = max(1, BLOCK_ELEMENTS // (n_samples * len(width)))
    for block in gen_batches(len(windows), size):
        rows = windows.take(np.arange(block.start, block.stop))
        draws = ensemble.summary(rows, n_samples, lambda members: np.sort(members, axis=0), axis=1)
        truth = ensemble.encoder.truth(rows).reshape(len(rows), -1)
        parts.append(distance_from_middle(draws.reshape(n_samples, *truth.shape).astype(np.float64), truth, width))
    return np.concatenate(parts)


def score_interval(ensemble: Ensemble, windows: Windows, scores: Array, n_samples: int) -> NDArray[Any]:
    """Ends (2, k, n, *sample_shape) of the values whose scores are no larger than each of (k, q)."""
    width = _least_width(ensemble)

    def summarize(members: NDArray[Any]) -> Array:
        draws = np.sort(members.reshape(*members.shape[:2], -1).astype(np.float64), axis=0)
        ends = [value_at(draws, 0.5 + side * (scores + _OUTWARD), width) for side in (-1, 1)]
        return np.stack(ends).reshape(2, len(scores), *members.shape[1:])

    return ensemble.summary(windows, n_samples, summarize, axis=2)


def _least_width(ensemble: Ensemble) -> Array:
    """Least unit (q,) of distances beyond the draws, for each element of a forecast."""
    low, high = ensemble.fitted.model.encoder.limits
    return np.where(high > low, _LEAST_WIDTH * (high - low), 1.0)
