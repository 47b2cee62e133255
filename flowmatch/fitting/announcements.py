"""What a fit says before it starts: what "auto" picked, and where quality must suffer."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowmatch import preprocessing
from flowmatch.core.user_warnings import warn
from flowmatch.fitting.parameters import Components
from flowmatch.fitting.schedule import measured_times, schedule_of
from flowmatch.networks import AutoNetwork

_FEW_ROWS = 50


def announce(generator: Any, samples: preprocessing.SampleRows, components: Components) -> None:
    """Warn of data that are too few or too plain, and with `verbose` print what was picked."""
    if isinstance(generator._conditions, preprocessing.LabelEncoder):
        rare = generator._conditions.counts < 2
        if rare.any():
            first = generator.classes_[rare].tolist()[0]
            warn(
                f"{rare.sum()} of {len(rare)} classes have a single row (such as {first!r}): "
                "samples of such a class will be close to copies of it."
            )
    if _all_equal(samples):
        warn("all rows of X are equal: samples will be copies of that row.")
    elif len(samples) < _FEW_ROWS:
        warn(f"X has {len(samples)} rows: too few to tell a distribution from its samples; expect crude results.")
    if generator.verbose:
        shape, network = generator._encoder.code_shape, components.network
        print(
            f"preprocessing: {generator.preprocessing_!r}, conditions: {type(generator._conditions).__name__}\n"
            f"network: {network.choose(shape) if isinstance(network, AutoNetwork) else network!r}\n"
            f"{schedule_of(generator, shape, len(samples))}, {components.time_sampler or measured_times(shape)}"
        )


def announce_forecaster(forecaster: Any, windows: preprocessing.Windows, components: Components) -> None:
    """Warn of windows that are too few, and with `verbose` print what was picked."""
    if len(windows) < _FEW_ROWS:
        warn(f"X has {len(windows)} rows: too few to tell a distribution from its samples; expect crude results.")
    if forecaster.verbose:
        shape, encoder = forecaster._encoder.code_shape, forecaster._conditions
        boundary = f", boundary: {', '.join(forecaster.boundary_)}" if forecaster.boundary_ else ""
        calendar = f", calendar: {', '.join(forecaster.calendar_)}" if forecaster.calendar_ else ""
        print(
            f"{len(windows)} windows of {encoder.n_columns} columns, targets {shape}{boundary}{calendar}\n"
            f"network: {forecaster._network_factory()!r}\n"
            f"{forecaster._schedule(len(windows))}, {components.time_sampler or measured_times(shape)}"
        )


def _all_equal(samples: preprocessing.SampleRows) -> bool:
    """Whether every sample is the first one."""
    first = samples.read(np.zeros(1, dtype=np.intp))
    return all((chunk == first).all() for _, chunk in samples.chunks())
