"""What a forecaster has learned: a flow, and how states are read and given back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable
from flowmatch.export import ForecastForm
from flowmatch.fitting import FitResult
from flowmatch.forecasting.conformal import Conformal
from flowmatch.forecasting.layout import Layout
from flowmatch.forecasting.parameters import BOUNDARIES
from flowmatch.forecasting.tables import TableReader
from flowmatch.model import FlowModel, feature_names
from flowmatch.preprocessing import HARMONICS, WindowEncoder


@storable
@dataclass(frozen=True, eq=False)
class FittedForecaster:
    """A flow of what the base leaves of the next states, given contexts.

    Attributes
    ----------
    flow : FitResult
        Its model's conditions are a `flowmatch.preprocessing.WindowEncoder`.
    layout : Layout
        What states look like.
    reader : TableReader or None
        How tables and series are read that hold more than whole columns of numbers.
    columns : tuple
        Names of X's columns, if they came in DataFrames.
    boundary : tuple of {"periodic", "wall"}
        What lies beyond the edge of a field, for each axis.
    target_columns : tuple of str, default=()
        Names of the targets of pairs, if they came with names.
    conformal : Conformal or None, default=None
        What intervals are corrected by, once the forecaster is calibrated.
    """

    flow: FitResult
    layout: Layout
    reader: TableReader | None
    columns: tuple[Any, ...]
    boundary: tuple[str, ...]
    target_columns: tuple[str, ...] = ()
    conformal: Conformal | None = None

    @property
    def model(self) -> FlowModel:
        """The fitted flow."""
        return self.flow.model

    @property
    def window_encoder(self) -> WindowEncoder:
        """From windows to vectors of conditions, and to what is expected of their targets."""
        assert isinstance(self.model.conditions, WindowEncoder)
        return self.model.conditions

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of one state of a context, as users pass it."""
        return self.layout.state_shape if self.reader is None else (self.reader.n_columns,)

    @property
    def n_features(self) -> int:
        """Columns (channels) of a state."""
        return self.state_shape[0]

    @property
    def feature_names(self) -> NDArray[np.object_]:
        """Names of the columns, as scikit-learn keeps them; an AttributeError if there are none."""
        return feature_names(self.columns)

    @property
    def target_names(self) -> tuple[Any, ...]:
        """Names of the columns that are forecast, or their positions."""
        layout = self.layout
        if layout.columns:
            return tuple(layout.columns[j] for j in layout.targets)
        return self.target_columns or tuple(range(math.prod(layout.forecast_shape[:1])))

    @property
    def form(self) -> ForecastForm:
        """What contexts and forecasts look like to a program."""
        layout, reader = self.layout, self.reader
        columns = layout.columns if reader is None else reader.columns
        known = layout.known if reader is None else reader.known
        numbers = None if reader is None else reader.numbers
        names = columns or self.columns
        return ForecastForm(
            layout.sample_shape, names, self.target_names, numbers, known, layout.cycles, self.is_single
        )

    @property
    def is_single(self) -> bool:
        """Whether the training data came in single precision."""
        return self.window_encoder.container.dtypes[0] in ("float32", "float16", "bfloat16")

    def in_own_dtype(self, forecasts: NDArray[np.float64]) -> NDArray[Any]:
        """Forecasts in single precision if the training data came in it."""
        return forecasts.astype(np.float32) if self.is_single else forecasts

    def check_rollout(self, n_steps: int) -> None:
        """Raise a ValueError if states cannot be carried on for so many steps."""
        layout = self.layout
        if n_steps > layout.horizon and not self.window_encoder.is_autonomous:
            raise ValueError(
                f"a rollout of {n_steps} steps needs every column of the states to come, but only "
                f"{len(layout.targets)} of {layout.state_shape[0]} are forecast and {len(layout.known)} known ahead. "
                f"Name the others in known_columns and pass them as future, or fit with horizon={n_steps}."
            )

    def with_flow(self, flow: FitResult) -> FittedForecaster:
        """The same with another flow, which is not calibrated."""
        return replace(self, flow=flow, conformal=None)

    def to(self, device: torch.device) -> FittedForecaster:
        """The same on a device."""
        return replace(self, flow=self.flow.to(device), conformal=self.conformal and self.conformal.to(device))

    def check(self) -> None:
        """Raise a ValueError if the parts of a stored forecaster do not fit each other."""
        layout, reader, encoder = self.layout, self.reader, self.model.conditions
        require(isinstance(encoder, WindowEncoder), "kind of conditions")
        assert isinstance(encoder, WindowEncoder)
        require(reader is None or layout.state_shape == (len(reader.numbers.names),), "layout")
        require(reader is None or layout.reads_rows == (not layout.targets), "layout")
        require(encoder.target_shape == self.model.sample_shape, "layout")
        require((len(encoder.mean), *encoder.grid.tolist()) == layout.state_shape, "layout")
        require((encoder.n_lags, encoder.horizon) == (layout.n_lags, layout.horizon), "layout")
        require(tuple(encoder.targets.tolist()) == layout.targets, "layout")
        require(tuple(encoder.known.tolist()) == layout.known, "layout")
        require(math.prod(layout.forecast_shape) == encoder.target_mean.size * math.prod(layout.grid), "layout")
        require(encoder.n_calendar == 2 * HARMONICS * len(layout.cycles), "layout")
        require(len(self.columns) in (0, self.n_features), "columns")
        require(len(self.target_columns) in (0, math.prod(layout.forecast_shape[:1])), "target_columns")
        scores = np.empty((0, encoder.target_shape[0])) if self.conformal is None else self.conformal.scores
        require(scores.shape[1] == encoder.target_shape[0] and not (len(scores) and layout.grid), "conformal")
        require(len(self.boundary) == len(layout.grid) and set(self.boundary) <= set(BOUNDARIES[1:]), "boundary")
