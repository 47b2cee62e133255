"""How long and how fast to train when the user does not say: one measured rule for all data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowmatch.flow import LogitNormalTimes
from flowmatch.networks import MLP
from flowmatch.objectives import is_flow_map
from flowmatch.training import TrainingOptions

FEW_WINDOWS = 200
"""With fewer windows that share no states, forecasts of series and tables are learned by a smaller network."""


@dataclass(frozen=True)
class Schedule:
    """Optimiser steps, rows a step, and the peak learning rate."""

    max_iter: int
    batch_size: int
    learning_rate: float


def schedule_of(estimator: Any, sample_shape: tuple[int, ...], n_rows: int) -> Schedule:
    """The estimator's own `max_iter`, `batch_size` and `learning_rate`, and measured ones where they are None.

    Tables (up to a thousand rows were measured): about 600 passes of batches of 256, at least 300 and at most 1000
    steps; more passes lower the distance to held-out rows little and copy more. Grids (pictures of digits of 8 x 8 and
    28 x 28 points were measured): about 130 passes of batches of 32, at least 1000 and at most 8000 steps. MeanFlow
    chases a target of its own making: twice the steps at two fifths of the rate.
    """
    if len(sample_shape) == 1:
        measured = Schedule(int(np.clip(600 * n_rows // 256, 300, 1000)), 256, 5e-3)
    else:
        measured = Schedule(int(np.clip(130 * n_rows // 32, 1000, 8000)), 32, 4e-3)
    if is_flow_map(getattr(estimator, "objective", "velocity")):
        measured = Schedule(2 * measured.max_iter, measured.batch_size, 0.4 * measured.learning_rate)
    return _as_asked(estimator, measured)


def schedule_of_forecasts(estimator: Any, sample_shape: tuple[int, ...], n_rows: int, n_independent: int) -> Schedule:
    """The same for forecasters; `n_independent` are the windows that share no states.

    Tables and series: 500 steps for few windows (a hundred quarters and four years of days were measured, where twice
    as many learn the windows by heart), else at least 1000 and at most 4000, which stop early. Fields: about 30 passes
    of batches of 32, at least 1000 and at most 6000 steps.
    """
    if len(sample_shape) == 1:
        many = int(np.clip(n_rows // 4, 1000, 4000))
        return _as_asked(estimator, Schedule(500 if n_independent < FEW_WINDOWS else many, 256, 1e-3))
    return _as_asked(estimator, Schedule(int(np.clip(30 * n_rows // 32, 1000, 6000)), 32, 4e-3))


def mlp_of_forecasts(n_independent: int) -> MLP:
    """What ``network="auto"`` means for forecasts of tables and series."""
    few = n_independent < FEW_WINDOWS
    return MLP(width=64, depth=2, dropout=0.2) if few else MLP(width=128, depth=3, dropout=0.1)


def options_of_forecasts(n_independent: int) -> TrainingOptions:
    """What ``training=None`` means for forecasts of tables and series.

    Of few windows none can be spared to stop early by; where there are more, how long to train depends on how much
    there is to learn, which only rows held out can tell.
    """
    if n_independent < FEW_WINDOWS:
        return TrainingOptions(weight_decay=0.1)
    return TrainingOptions(weight_decay=0.1, early_stopping=True, validation_fraction=0.15)


def _as_asked(estimator: Any, measured: Schedule) -> Schedule:
    return Schedule(
        measured.max_iter if estimator.max_iter is None else int(estimator.max_iter),
        measured.batch_size if estimator.batch_size is None else int(estimator.batch_size),
        measured.learning_rate if estimator.learning_rate is None else float(estimator.learning_rate),
    )


def measured_times(sample_shape: tuple[int, ...]) -> LogitNormalTimes:
    """What ``time_sampler="auto"`` means: "logit_normal", and for large grids nearer to the noise.

    The more points show the same thing, the earlier on the way from noise to data it is settled what they show, so the
    logit's mean falls with the logarithm of the number of points (Esser et al., 2024, section 5.3.2, derive half of
    that logarithm). Measured on pictures of digits: with 64 points 0 is better than -1/2, with 784 points
    -1/2 and -1 are better than 0.
    """
    if len(sample_shape) == 1:
        return LogitNormalTimes()
    return LogitNormalTimes(mean=-float(np.clip(0.4 * math.log(math.prod(sample_shape[1:]) / 64), 0.0, 1.0)))
