"""What a flow is to learn of windows, and what a fit says of them before it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from flowmatch.fitting import FitSettings, FlowTask, Schedule, TrainingData, as_asked, chosen, warn_of_few
from flowmatch.flow import UniformTimes
from flowmatch.forecasting.fitted import FittedForecaster
from flowmatch.forecasting.reading import Reading
from flowmatch.forecasting.training import fit_base, has_many_pairs, new_encoder, training_rows
from flowmatch.forecasting.window_data import GroupedData
from flowmatch.model import MissingValueModel, NetworkFactory, SamplingDefaults
from flowmatch.networks import MLP, AutoNetwork, UNet
from flowmatch.preprocessing import SampleEncoder, WindowEncoder, Windows
from flowmatch.training import TrainingOptions

FEW_WINDOWS = 200
"""With fewer windows that share no states, forecasts of series and tables are learned by a smaller network."""

_FOR_SOURCE = 4096
"""Rows that the source is fitted to at most."""


class FlowParts(NamedTuple):
    """What a flow of forecasts is made of beside its network.

    Attributes
    ----------
    residuals : SampleEncoder
        From what the base leaves to codes.
    contexts : WindowEncoder
    missing : MissingValueModel or None
        Of targets of tables and series that may be missing.
    """

    residuals: SampleEncoder
    contexts: WindowEncoder
    missing: MissingValueModel | None


def forecast_task(parameters: Any, settings: FitSettings, reading: Reading) -> tuple[FlowTask, FitSettings]:
    """Make the task of a first fit, and settings with what was measured where the user did not say.

    Parameters
    ----------
    parameters : ConditionalForecaster
        Its parameters are read.
    settings : FitSettings
        Its parameters as objects.
    reading : Reading
        The data.

    Returns
    -------
    task : FlowTask
        What to learn.
    settings : FitSettings
        How to train.

    Raises
    ------
    ValueError
        For fewer than two windows.
    """
    windows = reading.windows
    _check_enough(windows)
    encoder = new_encoder(reading.layout, windows)
    many_pairs = has_many_pairs(reading.layout, encoder)
    encoder, residuals, seen = fit_base(encoder, windows, parameters.target, many_pairs=many_pairs)
    missing = MissingValueModel(0.0) if reading.layout.gaps_ahead and not reading.layout.grid else None
    rows = training_rows(encoder, residuals, windows, settings.device, seen, missing)
    network = _network_of_forecasts(parameters.network, settings.network, encoder, reading.boundary, many_pairs)
    return _task(parameters, settings, rows, FlowParts(residuals, encoder, missing), network, many_pairs)


def forecast_task_from(
    parameters: Any, settings: FitSettings, start: FittedForecaster, windows: Windows
) -> tuple[FlowTask, FitSettings]:
    """Make the same of a fit that goes on from another.

    Parameters
    ----------
    parameters, settings
        As of `forecast_task`.
    start : FittedForecaster
        What to go on from.
    windows : Windows
        Like those of the earlier fit.

    Returns
    -------
    task, settings
        As of `forecast_task`.

    Raises
    ------
    ValueError
        If a parameter that belongs to the weights has changed, and for fewer than two windows.
    """
    settings.check_goes_on(start.flow.parameters)
    rows, model = training_windows_of(start, windows, settings.device), start.model
    _check_enough(rows)
    parts, network = FlowParts(model.encoder, start.window_encoder, model.missing), model.blueprint.factory
    return _task(parameters, settings, rows, parts, network, has_many_pairs(start.layout, start.window_encoder))


def training_windows_of(
    fitted: FittedForecaster, windows: Windows, device: torch.device | None = None, *, teaches: bool = False
) -> GroupedData:
    """Give windows as the training of a fitted forecaster would see them.

    Parameters
    ----------
    fitted : FittedForecaster
        What knows their scales and base.
    windows : Windows
        Such as `windows_like_fit` gives them.
    device : torch.device, optional
        By default, where the model is.
    teaches : bool
        Whether a student is to learn from them.

    Returns
    -------
    GroupedData
        Rows of codes and contexts.

    Raises
    ------
    ValueError
        For students of fields whose targets lack values, where nothing says what the teacher makes of noise.
    """
    model, device = fitted.model, fitted.model.device if device is None else device
    windows = fitted.layout.trainable(windows)
    assert windows.targets is not None
    if teaches and fitted.layout.grid and windows.targets.summary.n_missing.any():
        raise ValueError(
            "a student of fields needs whole states to learn from, but those of X lack values: pass others, or the "
            "teacher's own forecasts."
        )
    return training_rows(fitted.window_encoder, model.encoder, windows, device, missing=model.missing)


def announce_forecaster(task: FlowTask, settings: FitSettings, reading: Reading) -> None:
    """Warn of windows that are too few, and with `verbose` print what was picked."""
    n_windows = len(reading.windows)
    warn_of_few(n_windows)
    if settings.verbose:
        assert isinstance(task.conditions, WindowEncoder)
        boundary = f", boundary: {', '.join(reading.boundary)}" if reading.boundary else ""
        calendar = f", calendar: {', '.join(reading.layout.cycles)}" if reading.layout.cycles else ""
        print(
            f"{n_windows} windows of {task.conditions.n_columns} columns, targets {task.encoder.code_shape}{boundary}"
            f"{calendar}\n{chosen(task, settings)}"
        )


def _task(
    parameters: Any,
    settings: FitSettings,
    rows: GroupedData,
    parts: FlowParts,
    network: NetworkFactory,
    many_pairs: bool,
) -> tuple[FlowTask, FitSettings]:
    def disturbed(kept: TrainingData) -> TrainingData:
        assert isinstance(kept, GroupedData)
        return replace(kept, context_noise=float(parameters.context_noise))

    some = torch.arange(min(len(rows), _FOR_SOURCE), device=rows.device)
    n_steps = 10 if many_pairs else 5
    task = FlowTask(
        data=rows,
        encoder=parts.residuals,
        conditions=parts.contexts,
        missing=parts.missing,
        network=network,
        schedule=schedule_of_forecasts(settings, parts.contexts, len(rows), many_pairs=many_pairs),
        some_codes=lambda: rows.draw_clean(some, None)[0].cpu().numpy(),
        defaults=SamplingDefaults("midpoint", n_steps, velocity_steps=n_steps),
        disturb=disturbed,
    )
    if many_pairs:  # sharp distributions take shape close to the data, where few of a logit-normal's times are
        settings = replace(settings, time_sampler=settings.time_sampler or UniformTimes())
    if parameters.training is None:
        settings = _with_measured_options(settings, parts.contexts, many_pairs)
    return task, settings


def _check_enough(windows: Windows | GroupedData) -> None:
    if len(windows) < 2:
        raise ValueError(f"Found {len(windows)} sample(s), that is window(s), while a minimum of 2 is required.")


def schedule_of_forecasts(
    settings: FitSettings, encoder: WindowEncoder, n_rows: int, *, many_pairs: bool = False
) -> Schedule:
    """The `max_iter`, `batch_size` and `learning_rate` of the settings, and measured ones where they are None.

    Tables and series: 500 steps for few windows (a hundred quarters and four years of days were measured, where twice
    as many learn the windows by heart), else at least 1000 and at most 4000, which stop early. Tables of many rows:
    150 passes, at least 6000 and at most 20,000 steps, at five times the rate, which stop early too. Fields: about 30
    passes of batches of 32, at least 1000 and at most 6000 steps. A time budget takes the place of the most steps.
    """
    if not len(encoder.grid):
        if encoder.n_windows < FEW_WINDOWS:
            return as_asked(settings, Schedule(500, 256, 1e-3))
        if many_pairs:
            passes = 150 * n_rows // 256
            return as_asked(settings, Schedule(int(np.clip(passes, 6000, 20_000)), 256, 5e-3, passes))
        return as_asked(settings, Schedule(int(np.clip(n_rows // 4, 1000, 4000)), 256, 1e-3, n_rows // 4))
    passes = 30 * n_rows // 32
    return as_asked(settings, Schedule(int(np.clip(passes, 1000, 6000)), 32, 4e-3, passes))


def _network_of_forecasts(
    network: Any, factory: NetworkFactory, encoder: WindowEncoder, boundary: tuple[str, ...], many_pairs: bool
) -> NetworkFactory:
    """What an estimator's `network`, of which `factory` was made, means for forecasts.

    Networks that are chosen by name learn what lies beyond the edges of fields, or how much there is to learn from.
    A U-Net gets a gain: given a context, there is little left of a next state but noise to take off.
    """
    if isinstance(factory, AutoNetwork):
        few = encoder.n_windows < FEW_WINDOWS
        mlp = MLP(width=64, depth=2, dropout=0.2) if few else MLP(width=128, depth=3, dropout=0.1)
        mlp = MLP(width=128, depth=4, conditioning="concat") if many_pairs else mlp
        factory = UNet() if len(encoder.grid) else mlp
    if isinstance(factory, UNet) and isinstance(network, str):
        factory = replace(factory, boundary=tuple("zeros" if b == "wall" else b for b in boundary), gain=True)
    return factory


def _with_measured_options(settings: FitSettings, encoder: WindowEncoder, many_pairs: bool) -> FitSettings:
    """The settings with what ``training=None`` means for forecasts of tables and series.

    Of few windows none can be spared to stop early by; where there are more, how long to train depends on how much
    there is to learn, which only rows held out can tell.
    """
    if len(encoder.grid):
        return settings
    if many_pairs:
        return replace(settings, options=TrainingOptions(ema_decay=0.999, early_stopping=True, patience=20))
    options = TrainingOptions(weight_decay=0.1)
    if encoder.n_windows >= FEW_WINDOWS:
        options = TrainingOptions(weight_decay=0.1, early_stopping=True, validation_fraction=0.15)
    return replace(settings, options=options)
