"""The parameters of an anomaly detector, checked and turned into the objects that do the work."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from flowmatch import flow
from flowmatch.anomaly.combined import Combined
from flowmatch.anomaly.neighbors import Neighbors
from flowmatch.anomaly.scores import Denoising, Latent, Likelihood, OneStep, Rebuilding, Reconstruction, Score
from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.component import resolve_component
from flowmatch.core.user_warnings import warn
from flowmatch.fitting import FitSettings, resolve_settings
from flowmatch.model import SamplingDefaults
from flowmatch.networks import Bottleneck

SCORES: dict[str, type[Score]] = {
    "combined": Combined,
    "one_step": OneStep,
    "latent": Latent,
    "likelihood": Likelihood,
    "neighbors": Neighbors,
    "denoising": Denoising,
    "rebuilding": Rebuilding,
    "reconstruction": Reconstruction,
}

REFERENCES = ("rows", "drawn")

_FEW_ROWS = 500
"""Below so many rows, "auto" trains on folds: every row then helps to find the threshold."""

_FOLDS = 5

_PROMISING = 20
"""Held-out rows are a multiple of so many less one where that matters: they promise rates of .05, .1, .5 exactly."""

_FOLD_STEPS = 200
"""Optimizer steps for each fold of so few rows: their mean makes up for brief training."""

_STEPS_WITH_OUTLIERS = 300
"""Optimizer steps on a table that holds outliers, which longer training learns too."""

_STEPS_OF_SCORES = 5
"""Solver steps of scores that integrate the flow."""


@dataclass(frozen=True)
class DetectorSettings:
    """How to fit a detector.

    Attributes
    ----------
    flow : FitSettings
        Of each flow; its random state is the detector's.
    score : Score
    preprocessing : str or ColumnTransform
        Of each flow.
    defaults : SamplingDefaults
        Solver and steps of the scores that integrate the flow.
    contamination : float or None
        Share of the training rows that is flagged; None: they are normal, and some are held out.
    false_alarm_rate : float
    n_folds : int or None
        None goes by the shape of the data.
    trim : float
    references : {"rows", "drawn"}
        What new rows are compared with.
    """

    flow: FitSettings
    score: Score
    preprocessing: Any
    defaults: SamplingDefaults
    contamination: float | None
    false_alarm_rate: float
    n_folds: int | None
    trim: float
    references: str = "rows"

    def choose_n_folds(self, shape: tuple[int, ...], repeats_levels: bool) -> tuple[int, int]:
        """How many flows to train on data of a shape, and how many rows a single one leaves out at least.

        5 flows for tables of less than 500 rows, 1 for all else, and for tables of levels that rows repeat: there a
        flow that has not seen a row is no measure of the mean of five, some of which have. That one flow leaves out
        up to 99 rows, as far as they are less than half.
        """
        if self.n_folds is not None:
            return self.n_folds, 1
        if len(shape) > 2 or shape[0] >= _FEW_ROWS:
            return 1, 1
        if repeats_levels and shape[0] >= 2 * _PROMISING:
            return 1, _PROMISING * min(5, shape[0] // 2 // _PROMISING) - 1
        return min(_FOLDS, shape[0]), 1

    def of_flow(self, shape: tuple[int, ...], n_flows: int, seed: int) -> FitSettings:
        """The settings of one of the flows; brief training where that was measured to do."""
        steps = self.flow.max_iter
        if steps is None and len(shape) == 2 and self.contamination is not None:
            steps = _STEPS_WITH_OUTLIERS
        elif steps is None and len(shape) == 2 and n_flows > 1 and shape[0] < _FEW_ROWS:
            steps = _FOLD_STEPS
        return replace(self.flow, max_iter=steps, random_state=seed)


def resolve_detector(detector: Any) -> DetectorSettings:
    """Check the parameters of a detector, before any data are touched.

    Parameters
    ----------
    detector : FlowAnomalyDetector
        Its parameters are read.

    Raises
    ------
    ValueError
        That names the parameter, what came and what is expected.
    """
    settings = resolve_settings(detector, frozen=("network", "path", "source"))
    check_choice("unknown_categories", detector.unknown_categories, ("flag", "missing", "error"))
    contamination, n_folds = detector.contamination, detector.n_folds
    if isinstance(contamination, str) and contamination != "auto":
        raise ValueError(f"contamination must be 'auto' or a number in (0, 0.5], got {contamination!r}.")
    score = resolve_component("method", detector.method, Score, SCORES)
    if isinstance(score, Combined) and not isinstance(contamination, str):
        score = replace(score, with_outliers=True)
    if score.is_density:
        settings.source.log_density_terms(torch.zeros(1), torch.ones(1))  # raises if there is none
    if isinstance(score, Reconstruction):
        network = Bottleneck(settings.network, score.size)
        settings = replace(settings, network=network, frozen={**settings.frozen, "network": network})
    if check_choice("references", detector.references, REFERENCES) == "drawn" and score.given_the_row:
        raise ValueError(
            f"references='drawn' needs a flow that draws rows, but that of method={detector.method!r} is given the row "
            "it is to make: choose another method."
        )
    if settings.options.checkpoint_folder is not None and detector.random_state is None:
        raise ValueError("checkpoints of a detector need random_state: without it no fit goes on from another.")
    solver = "midpoint" if detector.solver == "auto" else detector.solver
    n_steps = _STEPS_OF_SCORES if detector.n_steps is None else int(detector.n_steps)
    return DetectorSettings(
        replace(settings, time_sampler=settings.time_sampler or flow.TIME_SAMPLERS["uniform"]()),
        score,
        "standardize" if _is_auto(detector.preprocessing) else detector.preprocessing,
        SamplingDefaults(solver, n_steps, n_steps),
        None
        if _is_auto(contamination)
        else check_number("contamination", contamination, 0.0, 0.5, open_low=True, closed_high=True),
        check_rate(detector.false_alarm_rate),
        None if _is_auto(n_folds) else check_count("n_folds", n_folds),
        check_number("trim", detector.trim, 0.0, 0.5, closed_high=True),
        detector.references,
    )


def check_rate(false_alarm_rate: Any) -> float:
    """A false alarm rate, or a ValueError."""
    return check_number("false_alarm_rate", false_alarm_rate, 0.0, 1.0, open_low=True)


def with_new_names(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a detector by the names that they have now."""
    old = [name for name in params if name.partition("__")[0] == "score"]
    if old:
        if "method" in params:
            raise TypeError("`score` is the old name of `method`: pass `method` alone.")
        warn("FlowAnomalyDetector's `score` is called `method` now; its old name will be refused soon.", FutureWarning)
    return {f"method{name.removeprefix('score')}" if name in old else name: value for name, value in params.items()}


def takes_old_names(init: Callable[..., None]) -> Callable[..., None]:
    """A detector's constructor, which also takes names that parameters had, but does not show them."""

    @functools.wraps(init)
    def renaming(self: Any, *args: Any, **params: Any) -> None:
        init(self, *args, **with_new_names(params))

    return renaming


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"
