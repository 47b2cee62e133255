"""What a flow is to learn of windows, and what a fit says of them before it starts."""

from __future__ import annotations

from typing import Any

import torch

from flowmatch.fitting import FitSettings, FlowTask, TrainingData, chosen, warn_of_few
from flowmatch.forecasting.fitted import FittedForecaster
from flowmatch.forecasting.reading import Reading
from flowmatch.forecasting.schedule import network_of_forecasts, schedule_of_forecasts, with_measured_options
from flowmatch.forecasting.training import fit_base, new_encoder, training_rows
from flowmatch.forecasting.window_data import NoisyContexts
from flowmatch.model import NetworkFactory, SamplingDefaults
from flowmatch.preprocessing import SampleEncoder, WindowEncoder, Windows

_FOR_SOURCE = 4096
"""Rows that the source is fitted to at most."""


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
    encoder, residuals, left = fit_base(new_encoder(reading.layout, windows), windows, parameters.target)
    rows = training_rows(encoder, residuals, windows, settings.device, left)
    network = network_of_forecasts(parameters.network, settings.network, encoder, reading.boundary)
    return _task(parameters, settings, rows, residuals, encoder, network)


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
    _check_enough(windows)
    rows, model = training_windows_of(start, windows, settings.device), start.model
    return _task(parameters, settings, rows, model.encoder, start.window_encoder, model.blueprint.factory)


def training_windows_of(fitted: FittedForecaster, windows: Windows, device: torch.device | None = None) -> TrainingData:
    """Give windows as the training of a fitted forecaster would see them.

    Parameters
    ----------
    fitted : FittedForecaster
        What knows their scales and base.
    windows : Windows
        Such as `windows_like_fit` gives them.
    device : torch.device, optional
        By default, where the model is.

    Returns
    -------
    TrainingData
        Rows of codes and contexts.
    """
    model = fitted.model
    return training_rows(fitted.window_encoder, model.encoder, windows, model.device if device is None else device)


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
    rows: TrainingData,
    residuals: SampleEncoder,
    encoder: WindowEncoder,
    network: NetworkFactory,
) -> tuple[FlowTask, FitSettings]:
    noise = float(parameters.context_noise)
    some = torch.arange(min(len(rows), _FOR_SOURCE), device=rows.device)
    task = FlowTask(
        data=rows,
        encoder=residuals,
        conditions=encoder,
        missing=None,
        network=network,
        schedule=schedule_of_forecasts(settings, encoder, len(rows)),
        some_codes=lambda: rows.draw(some)[0].cpu().numpy(),
        defaults=SamplingDefaults("midpoint", n_steps=5, velocity_steps=5),
        disturb=lambda kept: NoisyContexts(kept, encoder, residuals, noise) if noise > 0 else kept,
    )
    return task, settings if parameters.training is not None else with_measured_options(settings, encoder)


def _check_enough(windows: Windows) -> None:
    if len(windows) < 2:
        raise ValueError(f"Found {len(windows)} sample(s), that is window(s), while a minimum of 2 is required.")
