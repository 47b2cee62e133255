"""How long to train a forecaster, and with which network, when the user does not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flowmatch.fitting import FitSettings, Schedule, as_asked
from flowmatch.model import NetworkFactory
from flowmatch.networks import MLP, AutoNetwork, UNet
from flowmatch.preprocessing import WindowEncoder
from flowmatch.training import TrainingOptions

FEW_WINDOWS = 200
"""With fewer windows that share no states, forecasts of series and tables are learned by a smaller network."""


def schedule_of_forecasts(settings: FitSettings, encoder: WindowEncoder, n_rows: int) -> Schedule:
    """The `max_iter`, `batch_size` and `learning_rate` of the settings, and measured ones where they are None.

    Tables and series: 500 steps for few windows (a hundred quarters and four years of days were measured, where twice
    as many learn the windows by heart), else at least 1000 and at most 4000, which stop early. Fields: about 30 passes
    of batches of 32, at least 1000 and at most 6000 steps.
    """
    if not len(encoder.grid):
        many = int(np.clip(n_rows // 4, 1000, 4000))
        return as_asked(settings, Schedule(500 if encoder.n_windows < FEW_WINDOWS else many, 256, 1e-3))
    return as_asked(settings, Schedule(int(np.clip(30 * n_rows // 32, 1000, 6000)), 32, 4e-3))


def network_of_forecasts(
    network: Any, factory: NetworkFactory, encoder: WindowEncoder, boundary: tuple[str, ...]
) -> NetworkFactory:
    """What an estimator's `network`, of which `factory` was made, means for forecasts.

    Networks that are chosen by name learn what lies beyond the edges of fields, or how much there is to learn from.
    """
    if isinstance(factory, AutoNetwork):
        few = encoder.n_windows < FEW_WINDOWS
        mlp = MLP(width=64, depth=2, dropout=0.2) if few else MLP(width=128, depth=3, dropout=0.1)
        factory = UNet() if len(encoder.grid) else mlp
    if isinstance(factory, UNet) and isinstance(network, str):
        factory = replace(factory, boundary=tuple("zeros" if b == "wall" else b for b in boundary))
    return factory


def with_measured_options(settings: FitSettings, encoder: WindowEncoder) -> FitSettings:
    """The settings with what ``training=None`` means for forecasts of tables and series.

    Of few windows none can be spared to stop early by; where there are more, how long to train depends on how much
    there is to learn, which only rows held out can tell.
    """
    if len(encoder.grid):
        return settings
    options = TrainingOptions(weight_decay=0.1)
    if encoder.n_windows >= FEW_WINDOWS:
        options = TrainingOptions(weight_decay=0.1, early_stopping=True, validation_fraction=0.15)
    return replace(settings, options=options)
