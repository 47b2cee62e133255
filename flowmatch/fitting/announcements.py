"""What a fit says before it starts: what "auto" picked, and where quality must suffer."""

from __future__ import annotations

import numpy as np

from flowmatch.core.component import shown
from flowmatch.core.user_warnings import warn
from flowmatch.fitting.schedule import measured_times
from flowmatch.fitting.settings import FitSettings
from flowmatch.fitting.tasks import FlowTask
from flowmatch.networks import AutoNetwork
from flowmatch.preprocessing import LabelEncoder, SampleRows

_FEW_ROWS = 50
_FEW_PASSES = 20


def announce(task: FlowTask, settings: FitSettings, samples: SampleRows) -> None:
    """Warn of data that are too few or too plain, and with `verbose` print what was picked."""
    if isinstance(task.conditions, LabelEncoder):
        rare = task.conditions.counts < 2
        if rare.any():
            first = task.conditions.classes[rare].tolist()[0]
            warn(
                f"{rare.sum()} of {len(rare)} classes have a single row (such as {shown(first)}): "
                "samples of such a class will be close to copies of it."
            )
    if _all_equal(samples):
        warn("all rows of X are equal: samples will be copies of that row.")
    else:
        warn_of_few(len(samples))
    n_passes = task.schedule.max_iter * task.schedule.batch_size / len(samples)
    by_rule = settings.max_iter is None and settings.budget is None
    if by_rule and task.encoder.is_table and n_passes < _FEW_PASSES:
        warn(
            f"max_iter=None ends training after {task.schedule.max_iter} steps for the sake of time, {n_passes:.0f} "
            f"passes through {len(samples):,} rows: more steps, such as max_iter={2 * task.schedule.max_iter}, or a "
            "longer time, such as max_time=600 (seconds), come nearer to the data."
        )
    if settings.verbose:
        print(
            f"preprocessing: {task.encoder.transform!r}, conditions: {type(task.conditions).__name__}\n"
            f"{chosen(task, settings)}",
            *(f"column {label!r}: {line}" for label, line in task.encoder.described.items()),
            sep="\n",
        )


def warn_of_few(n_rows: int) -> None:
    """Warn of so few rows that no distribution can be told from its samples."""
    if n_rows < _FEW_ROWS:
        warn(f"X has {n_rows} rows: too few to tell a distribution from its samples; expect crude results.")


def chosen(task: FlowTask, settings: FitSettings) -> str:
    """What "auto" has picked for network, schedule and times."""
    shape, network = task.encoder.code_shape, task.network
    limit = "" if settings.budget is None else f", max_time={settings.budget.seconds:g}"
    return (
        f"network: {network.choose(shape) if isinstance(network, AutoNetwork) else network!r}\n"
        f"{task.schedule}{limit}, {settings.time_sampler or measured_times(shape)}"
    )


def _all_equal(samples: SampleRows) -> bool:
    """Whether every sample is the first one."""
    first = samples.read(np.zeros(1, dtype=np.intp))
    return all((chunk == first).all() for _, chunk in samples.chunks())
