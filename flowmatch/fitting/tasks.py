"""What a flow is to learn: rows as training sees them, and the maps between them and the user's data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.fitting.schedule import Schedule, schedule_of
from flowmatch.fitting.settings import FitSettings
from flowmatch.fitting.training_data import EntryMasks, RowData, TrainingData
from flowmatch.flow import LinearPath
from flowmatch.model import FlowModel, MissingValueModel, NetworkFactory, SamplingDefaults, require_conditions
from flowmatch.preprocessing import (
    FITTED_ELEMENTS,
    ColumnTransform,
    ConditionEncoder,
    Container,
    FactorModel,
    Identity,
    MissingPatterns,
    SampleEncoder,
    SampleRows,
    TrainingCodes,
    fit_conditions,
    plain_conditions,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FlowTask:
    """What a flow is to learn.

    Attributes
    ----------
    data : TrainingData
    encoder : SampleEncoder
    conditions : ConditionEncoder or None
    missing : MissingValueModel or None
    network : NetworkFactory
    schedule : Schedule
    some_codes : callable
        Codes (n, *code_shape) that the source is fitted to.
    defaults : SamplingDefaults
        Of the velocity that is learned.
    disturb : callable
        What is done to the training rows once others are held out.
    """

    data: TrainingData
    encoder: SampleEncoder
    conditions: ConditionEncoder | None
    missing: MissingValueModel | None
    network: NetworkFactory
    schedule: Schedule
    some_codes: Callable[[], Array]
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    disturb: Callable[[TrainingData], TrainingData] = lambda data: data


def row_task(
    settings: FitSettings,
    samples: SampleRows,
    y: Any,
    weight: Array | None,
    *,
    container: Container,
    transform: ColumnTransform,
    masked_share: float = 0.0,
    defaults: SamplingDefaults | None = None,
) -> FlowTask:
    """The task of a first fit to rows of a table or grids.

    Parameters
    ----------
    settings : FitSettings
    samples : SampleRows of shape (n, *sample_shape)
    y : conditions of the rows, or None
    weight : ndarray of shape (n,) with mean 1, or None
    container : Container
        What the rows came in.
    transform : ColumnTransform
        Unfitted.
    masked_share : float
        Share of a table's training rows of which the network is shown some entries.
    defaults : SamplingDefaults, optional
    """
    conditions = None if y is None else fit_conditions(y, weight, samples.sample_shape)
    encoder = SampleEncoder.fit(samples, container, transform, weight)
    missing, some_codes = None, _some_codes(samples, encoder)
    if encoder.is_table and (masked_share > 0 or bool(samples.summary.n_missing.any())):
        # only on straight paths a row that starts where it belongs has nowhere to go
        straight = isinstance(settings.path, LinearPath)
        missing = MissingValueModel(float(masked_share), FactorModel.fit(some_codes()) if straight else None)
    task = FlowTask(
        data=encode_rows_for_training(encoder, conditions, missing, samples, y, weight, settings.device),
        encoder=encoder,
        conditions=conditions,
        missing=missing,
        network=settings.network,
        schedule=schedule_of(settings, encoder.code_shape, len(samples)),
        some_codes=some_codes,
        defaults=SamplingDefaults() if defaults is None else defaults,
    )
    return _with_patterns(task, samples, y, weight)


def row_task_from(
    settings: FitSettings, model: FlowModel, samples: SampleRows, y: Any, weight: Array | None
) -> FlowTask:
    """The task of a fit that goes on from a model, to rows like those that it knows."""
    require_conditions(model, y)
    conditions = model.conditions
    if conditions is not None:
        conditions = conditions.with_shares_of(plain_conditions(y), weight)
    task = FlowTask(
        data=training_rows_of(model, samples, y, weight, settings.device),
        encoder=model.encoder,
        conditions=conditions,
        missing=model.missing,
        network=model.blueprint.factory,
        schedule=schedule_of(settings, model.code_shape, len(samples)),
        some_codes=_some_codes(samples, model.encoder),
        defaults=model.defaults,
    )
    return _with_patterns(task, samples, y, weight)


def training_rows_of(
    model: FlowModel, samples: SampleRows, y: Any, weight: Array | None, device: torch.device | None = None
) -> TrainingData:
    """Rows as the training of a model would see them."""
    device = model.device if device is None else device
    return encode_rows_for_training(model.encoder, model.conditions, model.missing, samples, y, weight, device)


def condition_rows_of(model: FlowModel, n_samples: int, seed: int) -> TrainingData:
    """Conditions as they occur in training, and zeros in place of the rows, for losses that look at noise alone."""
    y = None if model.conditions is None else model.conditions.draw(n_samples, np.random.RandomState(seed))
    zeros = torch.zeros(1, device=model.device).expand(n_samples, *model.code_shape)
    codes = TrainingCodes(Identity(), zeros, None)
    return RowData(codes, None if model.conditions is None else model.conditions.training_vectors(y, model.device), None)


def encode_rows_for_training(
    encoder: SampleEncoder,
    conditions: ConditionEncoder | None,
    missing: MissingValueModel | None,
    samples: SampleRows,
    y: Any,
    weight: Array | None,
    device: torch.device,
) -> RowData:
    """Codes, vectors of conditions and weights of rows, as training wants them."""
    codes = encoder.training_codes(samples, device)
    return RowData(
        codes,
        None if conditions is None else conditions.training_vectors(plain_conditions(y), codes.device),
        None if weight is None else torch.as_tensor(weight, dtype=torch.float32, device=codes.device),
        None if missing is None else EntryMasks.of(encoder, missing, device),
    )


def _some_codes(samples: SampleRows, encoder: SampleEncoder) -> Callable[[], Array]:
    """A part of the codes, computed when it is first wanted."""
    return functools.cache(lambda: encoder.encode(samples.read(samples.subset(FITTED_ELEMENTS))))


def _with_patterns(task: FlowTask, samples: SampleRows, y: Any, weight: Array | None) -> FlowTask:
    """The task, with the patterns of missing entries of its rows."""
    if task.missing is None:
        return task
    patterns = None
    if samples.summary.n_missing.any():
        missing = np.concatenate([np.isnan(chunk) for _, chunk in samples.chunks()])[:, task.encoder.code_columns]
        known = task.conditions
        vectors = None if known is None else known.encode(plain_conditions(y), len(samples))
        patterns = MissingPatterns.fit(missing, vectors, weight)
    return replace(task, missing=replace(task.missing, patterns=patterns))
