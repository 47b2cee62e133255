"""What a flow is to learn: rows as training sees them, and the maps between them and the user's data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.fitting.results import FitResult
from flowmatch.fitting.rows import Rows
from flowmatch.fitting.schedule import Schedule, network_of, schedule_of
from flowmatch.fitting.settings import FitSettings
from flowmatch.fitting.training_data import EntryMasks, RowData, TrainingData
from flowmatch.flow import LinearPath
from flowmatch.model import FlowModel, MissingValueModel, NetworkFactory, SamplingDefaults, check_unconditional
from flowmatch.preprocessing import (
    FITTED_ELEMENTS,
    ColumnTransform,
    ConditionEncoder,
    ConstraintSet,
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
    rows: Rows,
    transform: ColumnTransform,
    *,
    masked_share: float = 0.0,
    defaults: SamplingDefaults | None = None,
    constraints: Any = None,
    grows: bool = False,
) -> FlowTask:
    """The task of a first fit to rows of a table or grids.

    Parameters
    ----------
    settings : FitSettings
    rows : Rows
    transform : ColumnTransform
        Unfitted.
    masked_share : float
        Share of a table's training rows of which the network is shown some entries.
    defaults : SamplingDefaults, optional
    constraints : as in `FlowMatchingGenerator`
    grows : bool
        Whether networks and training of tables grow with their rows, where the settings leave them open.
    """
    samples, y, weight = rows.samples, rows.y, rows.weight
    check_unconditional(settings.guidance_scale, y is not None, settings.condition_dropout)
    conditions = None if y is None else fit_conditions(y, weight, samples.sample_shape)
    encoder = SampleEncoder.fit(samples, rows.container, transform, weight)
    encoder = replace(encoder, constraints=ConstraintSet.fit(constraints, rows.container, samples))
    missing, some_codes = None, _some_codes(samples, encoder)
    if encoder.is_table and (masked_share > 0 or bool(samples.summary.n_missing[encoder.varying].any())):
        # only on straight paths a row that starts where it belongs has nowhere to go
        straight = isinstance(settings.path, LinearPath)
        missing = MissingValueModel(float(masked_share), FactorModel.fit(some_codes()) if straight else None)
    task = FlowTask(
        data=_encoded(encoder, conditions, missing, rows, settings.device),
        encoder=encoder,
        conditions=conditions,
        missing=missing,
        network=network_of(settings.network, encoder.code_shape, len(samples)) if grows else settings.network,
        schedule=schedule_of(settings, encoder.code_shape, len(samples), grows=grows),
        some_codes=some_codes,
        defaults=SamplingDefaults() if defaults is None else defaults,
    )
    return _with_patterns(task, rows)


def row_task_from(settings: FitSettings, start: FitResult, rows: Rows, *, grows: bool = False) -> FlowTask:
    """The task of a fit that goes on from another, to rows like those of that; `grows` as in `row_task`.

    Raises
    ------
    ValueError
        If a parameter that belongs to the weights has changed.
    """
    model = start.model
    settings.check_goes_on(start.parameters)
    check_unconditional(settings.guidance_scale, rows.y is not None, settings.condition_dropout)
    if model.encoder.constraints is not None:
        model.encoder.constraints.check_rows(rows.samples, rows.samples.array())
    conditions = model.conditions
    if conditions is not None:
        conditions = conditions.with_shares_of(plain_conditions(rows.y), rows.weight)
    task = FlowTask(
        data=training_rows_of(model, rows, settings.device),
        encoder=replace(model.encoder, container=rows.container),
        conditions=conditions,
        missing=model.missing,
        network=model.blueprint.factory,
        schedule=schedule_of(settings, model.code_shape, len(rows.samples), grows=grows),
        some_codes=_some_codes(rows.samples, model.encoder),
        defaults=model.defaults,
    )
    return _with_patterns(task, rows)


def training_rows_of(model: FlowModel, rows: Rows, device: torch.device | None = None) -> TrainingData:
    """Rows as the training of a model would see them."""
    device = model.device if device is None else device
    return _encoded(model.encoder, model.conditions, model.missing, rows, device)


def condition_rows_of(model: FlowModel, n_samples: int, seed: int) -> TrainingData:
    """Conditions as they occur in training, and zeros in place of the rows, for losses that look at noise alone."""
    y = None if model.conditions is None else model.conditions.draw(n_samples, np.random.RandomState(seed))
    zeros = torch.zeros(1, device=model.device).expand(n_samples, *model.code_shape)
    codes = TrainingCodes(Identity(), zeros, None)
    return RowData(
        codes, None if model.conditions is None else model.conditions.training_vectors(y, model.device), None
    )


def _encoded(
    encoder: SampleEncoder,
    conditions: ConditionEncoder | None,
    missing: MissingValueModel | None,
    rows: Rows,
    device: torch.device,
) -> RowData:
    """Codes, vectors of conditions and weights of rows, as training wants them."""
    codes = encoder.training_codes(rows.samples, device)
    return RowData(
        codes,
        None if conditions is None else conditions.training_vectors(plain_conditions(rows.y), codes.device),
        None if rows.weight is None else torch.as_tensor(rows.weight, dtype=torch.float32, device=codes.device),
        None if missing is None else EntryMasks.of(encoder, missing, device),
    )


def _some_codes(samples: SampleRows, encoder: SampleEncoder) -> Callable[[], Array]:
    """A part of the codes, computed when it is first wanted."""
    return functools.cache(lambda: encoder.encode(samples.read(samples.subset(FITTED_ELEMENTS))))


def _with_patterns(task: FlowTask, rows: Rows) -> FlowTask:
    """The task, with the patterns of missing entries of its rows."""
    samples = rows.samples
    if task.missing is None:
        return task
    patterns = None
    if samples.summary.n_missing.any():
        missing = np.concatenate([np.isnan(chunk) for _, chunk in samples.chunks()])[:, task.encoder.code_columns]
        known = task.conditions
        vectors = None if known is None else known.encode(plain_conditions(rows.y), len(samples))
        patterns = MissingPatterns.fit(missing, vectors, rows.weight)
    return replace(task, missing=replace(task.missing, patterns=patterns))
