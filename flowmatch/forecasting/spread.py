"""The spread of the source: as wide as the noise that outcomes which training has not seen come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.core.randomness import generator_on
from flowmatch.fitting import FitResult, FitSettings, FlowTask, InterruptedFit, TrainingData, fit_flow, held_out_rows
from flowmatch.flow import MatchedSource, NormalSource
from flowmatch.forecasting.training import folds_of, in_blocks, near
from flowmatch.forecasting.window_data import GroupedData, n_sharing
from flowmatch.model import FittedSource, FlowModel, Integration, carry, to_numpy
from flowmatch.preprocessing import WindowEncoder
from flowmatch.training import NonFiniteTrainingError

Array = NDArray[np.float64]

ENOUGH_ROWS = 100
"""Rows whose noise tells the spread to 7 %, about 2 % of the coverage of 90 % intervals."""

_MOST_ROWS = 2000
"""Models of parts are trained for fewer rows only: of more, those that validate tell enough, or little is missing."""

_FEWEST_ROWS = 10
_MOST_FITS = 2
_RATE = 2
"""What a flow does not know falls with this power of the rows that it has seen: measured from 75 to 100 rows."""
_BACKWARD = Integration("midpoint", n_steps=10)
_NARROWEST = 0.5
_MEAN_SIZE = float(np.sqrt(2 / np.pi))  # of standard normal values


def with_unseen_spread(result: FitResult, task: FlowTask, settings: FitSettings) -> FitResult:
    """The fit, with a source that is as wide as the noise of unseen outcomes.

    A flow whose draws have the distribution of outcomes carries these back to noise of its source. Rows that it was
    trained on do come from there, and of few rows new ones come from further out: the network follows its own rows. The
    source is scaled to the mean size of the noise of rows that were held out, one factor for each target, so that
    draws, quantiles and densities know what the network does not. (The mean square would follow the few outermost.)

    The rows are those that validated, and where they are few those of models that are trained on other parts. Where no
    rows validate, the parts are smaller than what the flow is trained on, and the excess is lowered by as much as it
    falls with rows.

    Parameters
    ----------
    result : FitResult
        A first fit of tables or series; fields stay as they are, and sources that are not normal.
    task, settings
        Of the fit.

    Returns
    -------
    FitResult
    """
    model, encoder = result.model, result.model.conditions
    assert isinstance(encoder, WindowEncoder)
    if len(encoder.grid) or not isinstance(model.source.source, (NormalSource, MatchedSource)):
        return result
    sizes, share = _unseen_sizes(model, task, settings)
    target = np.flatnonzero(model.encoder.varying) % len(encoder.target_mean)
    seen = [sizes[:, target == mine] for mine in target] if len(sizes) else []
    if not seen or min(np.isfinite(part).sum(axis=0).min() for part in seen) < _FEWEST_ROWS:
        return result
    factor = np.array([np.nanmean(part) for part in seen])
    factor = np.sqrt(1 + (np.maximum(factor, _NARROWEST) ** 2 - 1) * (1 - share) ** _RATE)
    scale = model.source.scale * torch.as_tensor(factor).to(model.source.scale)
    return replace(result, model=replace(model, source=FittedSource(MatchedSource(), scale)))


def _unseen_sizes(model: FlowModel, task: FlowTask, settings: FitSettings) -> tuple[Array, float]:
    """How large (n, q) the noise of held-out rows is beside that of the source, and the share of rows held out more.

    Rows that validated are held out anyway.
    """
    data, validates = task.data, settings.options.held_out > 0 and settings.random_state is not None
    assert isinstance(data, GroupedData)
    groups = data.groups.cpu().numpy()
    own = [_sizes(model, held_out_rows(task, settings))] if validates else []
    n_own = sum(map(len, own))
    if len(data) >= _MOST_ROWS or settings.budget is not None or n_own >= ENOUGH_ROWS or (n_own and in_blocks(groups)):
        return np.concatenate(own) if own else np.empty((0, 0)), 0.0
    quiet = replace(settings, verbose=False, options=replace(settings.options, callbacks=(), checkpoint_folder=None))
    folds, shares = folds_of(groups), []
    for number in range(_MOST_FITS):
        if validates:  # on other rows
            other = replace(quiet, random_state=(settings.random_state + 1 + number) % 2**31)
            own.append(_sizes(_part(task, other), held_out_rows(task, other)))
            continue
        is_out = folds == folds.max() - number
        kept = ~near(is_out, n_sharing(data.encoder)) if in_blocks(groups) else ~is_out
        if kept.sum() < 2 or not is_out.any():
            break
        shares.append(1 - kept.mean())
        part = replace(task, data=_rows(data, kept))
        own.append(_sizes(_part(part, quiet), _rows(data, is_out)))
    return np.concatenate(own) if own else np.empty((0, 0)), float(np.mean(shares)) if shares else 0.0


def _part(task: FlowTask, settings: FitSettings) -> FlowModel:
    """A model of some of the rows; one that diverges has its last good weights."""
    try:
        return fit_flow(task, settings, description="model of a part").model
    except InterruptedFit as interruption:
        if isinstance(interruption.error, NonFiniteTrainingError):
            return interruption.result.model
        raise interruption.error from None


def _rows(data: GroupedData, mask: NDArray[np.bool_]) -> TrainingData:
    return data.take(torch.as_tensor(np.flatnonzero(mask), device=data.device))


def _sizes(model: FlowModel, rows: TrainingData) -> Array:
    """Sizes (n, q) of the noise that the codes of rows come from, where those of the source have the mean 1.

    NaN where targets are missing, whose codes are none.
    """
    assert isinstance(rows, GroupedData)
    every = torch.arange(len(rows), device=rows.device)
    clean, _ = rows.draw_clean(every, generator_on(torch.device(rows.device), 0))
    codes, context = rows.draw(every, generator_on(torch.device(rows.device), 0))
    noise = carry(model, codes, context, _BACKWARD, backward=True) / model.source.scale
    return np.where(to_numpy(clean.isnan()), np.nan, np.abs(to_numpy(noise)) / _MEAN_SIZE)
