"""How long to train a forecaster, and with which network, when the user does not say."""

from __future__ import annotations

import numpy as np

from flowmatch.fitting.schedule import Schedule, as_asked
from flowmatch.fitting.settings import FitSettings
from flowmatch.networks import MLP
from flowmatch.training import TrainingOptions

FEW_WINDOWS = 200
"""With fewer windows that share no states, forecasts of series and tables are learned by a smaller network."""


def schedule_of_forecasts(
    settings: FitSettings, sample_shape: tuple[int, ...], n_rows: int, n_independent: int
) -> Schedule:
    """The same for forecasters; `n_independent` are the windows that share no states.

    Tables and series: 500 steps for few windows (a hundred quarters and four years of days were measured, where twice
    as many learn the windows by heart), else at least 1000 and at most 4000, which stop early. Fields: about 30 passes
    of batches of 32, at least 1000 and at most 6000 steps.
    """
    if len(sample_shape) == 1:
        many = int(np.clip(n_rows // 4, 1000, 4000))
        return as_asked(settings, Schedule(500 if n_independent < FEW_WINDOWS else many, 256, 1e-3))
    return as_asked(settings, Schedule(int(np.clip(30 * n_rows // 32, 1000, 6000)), 32, 4e-3))


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
