"""Windows on the scale that a flow works on: contexts as vectors, and what a base leaves of targets.

States are standardized column by column. A window's context holds `n_lags` states, the columns that are known ahead
for the instants to come, and the calendar, perhaps also where boosted trees expect the target, the next `horizon`
states. A linear map of the context, the base, says what targets are relative to; the flow learns what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowmatch.core.storable import require, storable
from flowmatch.core.types import AnyArray, Array, Array32, Index
from flowmatch.preprocessing.boosted_trees import Expected
from flowmatch.preprocessing.conditions import ConditionEncoder, check_scales
from flowmatch.preprocessing.target_rules import CertainSpikes, TargetRules
from flowmatch.preprocessing.window_gaps import fill_lags
from flowmatch.preprocessing.window_scale import WindowScale
from flowmatch.preprocessing.windows import Windows
from flowmatch.tables.containers import Container


@storable
@dataclass(frozen=True, eq=False)
class WindowEncoder(ConditionEncoder):
    """Contexts as vectors, and targets as what the base leaves of them.

    Parameters
    ----------
    container : Container
        What the targets came in.
    mean, scale : ndarray of shape (n_columns,)
        Of the state's columns (channels) in contexts.
    target_mean, target_scale : ndarray of shape (n_targets,)
        Of the columns that are forecast; 0 and 1 for tables and series, whose values should come back to the last bit.
    targets, known : ndarray of int
        Which columns of a context's states are forecast, and which are known ahead. Without `targets`, contexts hold
        other things than targets: no state can be carried on.
    weights, intercept : ndarray of shape (m, q) and (q,)
        The base: from the m columns of a context to the q = horizon * n_targets of a target, point by point of a grid.
    grid : ndarray of int
        Points along each axis; empty for tables and series.
    n_lags, horizon : int
        States of a context, and of a target.
    n_calendar : int, default=0
        Features of the calendar.
    n_windows : int, default=1
        Windows that were trained on, as far as they share no states.
    local : WindowScale or None, default=None
        Columns of series that each window scales by its own lags, in contexts and in targets.
    rules : TargetRules or None, default=None
        What forecasts of tables and series keep to.
    spikes : CertainSpikes or None, default=None
        Frequent values of tables and series, where they are certain.
    limits : ndarray of shape (2, n_columns) or None, default=None
        Smallest and largest values in training, of series.
    holed : ndarray of int
        Columns that lacked values in training. Contexts mark where they do: a 1 for each lag.
    gaps_ahead : bool, default=False
        Whether targets of fields lacked values. Contexts end in marks of these, which are zeros in forecasts.
    n_conditions : int, default=0
        Elements of the vectors that contexts of fields begin with: of labels and numbers, see `Windows.conditions`.
    expected : Expected or None, default=None
        Where boosted trees expect the targets of tables and series: the last q elements of a context.
    """

    container: Container
    mean: Array
    scale: Array
    target_mean: Array
    target_scale: Array
    targets: Index
    known: Index
    weights: Array
    intercept: Array
    grid: Index
    n_lags: int
    horizon: int
    n_calendar: int = 0
    n_windows: int = 1
    local: WindowScale | None = None
    rules: TargetRules | None = None
    spikes: CertainSpikes | None = None
    limits: Array | None = None
    holed: Index = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    gaps_ahead: bool = False
    n_conditions: int = 0
    expected: Expected | None = None

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        counts = self.n_lags, self.horizon, self.n_calendar + 1, self.n_windows, self.n_conditions + 1
        require(min(counts) > 0 and (self.n_conditions == 0 or len(self.grid) > 0), "windows")
        check_scales(self.mean, self.scale, "windows")
        check_scales(self.target_mean, self.target_scale, "windows")
        require(self.grid.ndim == 1 and len(self.grid) <= 3 and (self.grid > 0).all() and len(self.mean), "windows")
        for columns in (self.targets, self.known, self.holed):
            require(columns.ndim == 1 and ((columns >= 0) & (columns < len(self.mean))).all(), "windows")
        shape = (self.n_columns, self.horizon * len(self.target_mean))
        require(self.weights.shape == shape and self.intercept.shape == shape[1:], "windows")
        require(np.isfinite(self.weights).all() and np.isfinite(self.intercept).all(), "windows")
        require(self.local is None or self.local.columns.shape == self.mean.shape, "window scale")
        require(self.local is None or (len(self.targets) > 0 and not len(self.grid)), "window scale")
        require(self.rules is None or len(self.rules.grids) == len(self.target_mean), "target rules")
        require(self.spikes is None or self.spikes.weights.shape[1] == shape[1], "spikes")
        require(self.spikes is None or len(self.spikes.weights) <= shape[0], "spikes")
        require(self.spikes is None or len(self.spikes.values) == len(self.target_mean), "spikes")
        require(self.limits is None or self.limits.shape == (2, len(self.mean)), "limits")
        shape = self.n_columns - shape[1], shape[1]
        require(self.expected is None or (self.expected.weights.shape == shape and not len(self.grid)), "expected")

    @cached_property
    def _on_device(self) -> dict[Any, tuple[Tensor, ...]]:
        """The base on each device and in each dtype that it was asked for."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_on_device"}

    # -- shapes -----------------------------------------------------------------------------------------------------

    @property
    def n_columns(self) -> int:
        """Columns (channels) of a context: lags, what is known ahead, calendar, sizes, marks, what is expected."""
        n_sizes = 0 if self.local is None else self.local.n_features
        n_expected = 0 if self.expected is None else len(self.expected.intercept)
        n_marks = self.n_lags * len(self.holed) + self.gaps_ahead * self.horizon * len(self.target_mean)
        n_lagged, n_known = self.n_lags * len(self.mean), self.horizon * len(self.known)
        return n_lagged + n_known + self.n_calendar + n_sizes + n_marks + n_expected

    @property
    def context_channels(self) -> int:
        return self.n_columns if len(self.grid) else 0

    @property
    def size(self) -> int:
        return self.n_conditions + self.n_columns * math.prod(self.grid.tolist())

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one target's residual, (horizon * n_targets, *grid)."""
        return (self.horizon * len(self.target_mean), *self.grid.tolist())

    @property
    def is_autonomous(self) -> bool:
        """Whether a forecast can be carried on: states follow from states, and from columns that are known ahead."""
        return len(self.targets) > 0 and len(self.targets) + len(self.known) == len(self.mean)

    # -- from data ----------------------------------------------------------------------------------------------------

    def states(self, states: Array) -> Tensor:
        """Standardize states.

        Parameters
        ----------
        states : ndarray of shape (..., n_columns, *grid)
            In the data's units.

        Returns
        -------
        Tensor of shape (..., n_columns, *grid)
            In float32 on the CPU.
        """
        return _as_codes(states, self.mean, self.scale, len(self.grid))

    def target_states(self, states: Array) -> Tensor:
        """Standardize targets.

        Parameters
        ----------
        states : ndarray of shape (B, horizon, C, *grid)
            States that hold the targets and perhaps other columns.

        Returns
        -------
        Tensor of shape (B, horizon, n_targets, *grid)
            In float32 on the CPU.
        """
        return _as_codes(self._forecast_columns(states), self.target_mean, self.target_scale, len(self.grid))

    def read_contexts(self, windows: Windows, rows: Index) -> Tensor:
        """Read and standardize the contexts of windows.

        Parameters
        ----------
        windows : Windows
            All windows.
        rows : ndarray of int, shape (B,)
            Numbers of those that are read.

        Returns
        -------
        Tensor of shape (B, n_columns, *grid)
            In float32 on the CPU.
        """
        known, ahead = None, windows.ahead
        if len(self.known):
            known = windows.states_ahead(rows)[:, :, self.known] if ahead is None else ahead[rows][:, : self.horizon]
        return self.contexts_of(windows.contexts(rows), known, windows.calendar[rows])

    def contexts_of(self, states: Array, known: Array | None, calendar: Array) -> Tensor:
        """Standardize contexts.

        Parameters
        ----------
        states : ndarray of shape (B, n_lags, C, *grid)
            Lags, in the data's units.
        known : ndarray of shape (B, horizon, n_known, *grid) or None
            Columns that are known ahead, in the data's units.
        calendar : ndarray of shape (B, n_calendar)
            The calendar.

        Returns
        -------
        Tensor of shape (B, n_columns, *grid)
            In float32 on the CPU.
        """
        n_axes, mean, scale = len(self.grid), self.mean, self.scale
        features = torch.from_numpy(calendar.astype(np.float32))
        if self.local is not None:
            level, spread = self.local.of(self.filled(states), mean, scale)
            sizes = torch.from_numpy(self.local.described(level, spread).astype(np.float32))
            features, mean, scale = torch.cat([features, sizes], dim=1), level[:, None], spread[:, None]
        lags = _as_codes(states, mean, scale, n_axes)
        ahead = None if known is None else _as_codes(known, mean[..., self.known], scale[..., self.known], n_axes)
        context = self.join(lags, ahead, features)
        if self.expected is None:
            return context
        told = (self.expected.predict(context.double().numpy()) - self.expected.mean) / self.expected.spread
        return torch.cat([context, torch.from_numpy(told.astype(np.float32))], dim=1)

    def join(self, lags: Tensor, known: Tensor | None, calendar: Tensor | None) -> Tensor:
        """Put contexts together, and mark and fill what lags lack.

        Parameters
        ----------
        lags : Tensor of shape (B, n_lags, C, *grid)
            States, NaN where they are missing.
        known : Tensor of shape (B, horizon, n_known, *grid) or None
            Columns that are known ahead.
        calendar : Tensor of shape (B, n_calendar + n_sizes) or None
            The calendar, and the window's sizes.

        Returns
        -------
        Tensor of shape (B, n_columns, *grid)
            Contexts.
        """
        marks = lags[:, :, self.holed].isnan().to(lags.dtype).flatten(1, 2) if len(self.holed) else None
        lags = fill_lags(lags) if len(self.holed) else lags
        parts = [part.flatten(1, 2) for part in (lags, known) if part is not None]
        parts += [calendar] if calendar is not None and calendar.shape[1] else []
        parts += [] if marks is None else [marks]
        if self.gaps_ahead:
            parts.append(lags.new_zeros(len(lags), *self.target_shape))
        return torch.cat(parts, dim=1)

    def vectors(self, contexts: Tensor, conditions: Array32 | None) -> Tensor:
        """Flatten contexts, behind what fields are conditioned on.

        Parameters
        ----------
        contexts : Tensor of shape (B, n_columns, *grid)
            Such as `join` gives them.
        conditions : ndarray of shape (B, n_conditions) or None
            Labels and numbers as vectors.

        Returns
        -------
        Tensor of shape (B, size)
            What a network is given.
        """
        flat = contexts.flatten(1)
        return flat if conditions is None else torch.cat([torch.as_tensor(conditions).to(flat), flat], dim=1)

    def filled(self, states: Array) -> Array:
        """Put plausible values where lags are missing; see `flowmatch.preprocessing.window_gaps.fill_lags`.

        Parameters
        ----------
        states : ndarray of shape (B, n_lags, C, *grid)
            In the data's units.

        Returns
        -------
        ndarray of shape (B, n_lags, C, *grid)
            Without NaN.
        """
        if not len(self.holed):
            return states
        mean = torch.from_numpy(self.mean.reshape(-1, *[1] * len(self.grid)))
        return fill_lags(torch.from_numpy(states), mean).numpy()

    # -- the base -----------------------------------------------------------------------------------------------------

    def base(self, context: Tensor) -> Tensor:
        """Predict targets, on their scale, by the linear map.

        Parameters
        ----------
        context : Tensor of shape (B, m, *grid)
            Contexts.

        Returns
        -------
        Tensor of shape (B, q, *grid)
            Where the targets are expected.
        """
        key = (context.device, context.dtype)
        if key not in self._on_device:
            with torch.inference_mode(False):
                parts = (self.weights, self.intercept)
                self._on_device[key] = tuple(torch.as_tensor(part, device=key[0], dtype=key[1]) for part in parts)
        weights, intercept = self._on_device[key]
        moved = torch.tensordot(context, weights, dims=([1], [0])).movedim(-1, 1)
        return moved + intercept.reshape(-1, *[1] * len(self.grid))

    def target_scales(self, states: Array) -> tuple[Array, Array]:
        """Find what targets are scaled by.

        Parameters
        ----------
        states : ndarray of shape (B, n_lags, C, *grid)
            Lags of their windows, in the data's units.

        Returns
        -------
        level, spread : ndarray of shape (B, 1, n_targets), or (n_targets, 1, ...) if that is the same for all windows
            What is to be subtracted, and divided by.
        """
        if self.local is None:
            shape = (-1, *[1] * len(self.grid))
            return self.target_mean.reshape(shape), self.target_scale.reshape(shape)
        mean, scale = np.zeros(len(self.mean)), np.ones(len(self.mean))
        mean[self.targets], scale[self.targets] = self.target_mean, self.target_scale
        level, spread = self.local.of(self.filled(states), mean, scale)
        return level[:, None, self.targets], spread[:, None, self.targets]

    def restore(self, targets: Array, scales: tuple[Array, Array], contexts: Array) -> Array:
        """Bring forecasts back to the data's units, and to what its columns keep to.

        Parameters
        ----------
        targets : ndarray of shape (B, horizon, n_targets, *grid)
            On the scale of targets.
        scales : tuple of two ndarray
            Such as `target_scales` gives them.
        contexts : ndarray of shape (B, m, *grid)
            What they are for.

        Returns
        -------
        ndarray of shape (B, horizon, n_targets, *grid)
            In the data's units.
        """
        forecasts = targets * scales[1] + scales[0]
        forecasts = forecasts if self.rules is None else self.rules.snap(forecasts)
        return forecasts if self.spikes is None else self.spikes.put(forecasts, contexts)

    def relative(self, windows: Windows, rows: Index) -> Array:
        """Read targets of tables and series on the scale that the base works on.

        Parameters
        ----------
        windows : Windows
            All windows.
        rows : ndarray of int, shape (B,)
            Numbers of those that are read.

        Returns
        -------
        ndarray of shape (B, horizon * n_targets)
            What `restore` brings back; NaN where it is missing.
        """
        truth = self.truth(windows, rows)
        if self.local is not None:
            states = windows.contexts(rows)
            level, spread = self.target_scales(states)
            truth = (truth - level) / spread
            lost = np.isnan(states).all(axis=1) & self.local.columns  # without a level there is nothing to learn
            truth[np.broadcast_to(lost[:, None, self.targets], truth.shape)] = np.nan
        return truth.reshape(len(rows), -1)

    def carried_on(self, forecasts: Array) -> Tensor:
        """Standardize forecasts as the states of contexts.

        Parameters
        ----------
        forecasts : ndarray of shape (..., n_targets, *grid)
            In the data's units.

        Returns
        -------
        Tensor of shape (..., n_targets, *grid)
            In float32 on the CPU.
        """
        return _as_codes(forecasts, self.mean[self.targets], self.scale[self.targets], len(self.grid))

    def truth(self, windows: Windows, rows: Index | None = None) -> Array:
        """Read the targets of windows.

        Parameters
        ----------
        windows : Windows
            All windows.
        rows : ndarray of int, shape (B,), or None, default=None
            Numbers of those that are read; None for all.

        Returns
        -------
        ndarray of shape (B, horizon, n_targets, *grid)
            In the data's units.
        """
        return self._forecast_columns(windows.states_ahead(np.arange(len(windows)) if rows is None else rows))

    def _forecast_columns(self, states: Array) -> Array:
        """The columns that are forecast, of states (B, horizon, C, *grid) that may hold others too."""
        return states[:, :, self.targets] if states.shape[2] > len(self.targets) > 0 else states

    # -- what conditions must offer -----------------------------------------------------------------------------------

    def expand(self, y: Any, n_samples: int) -> AnyArray:
        return np.broadcast_to(np.asarray(y), (n_samples, *np.shape(y)[1:]))

    def encode(self, y: Any, n_samples: int) -> Array32:
        return self.pieces(y, n_samples)(slice(n_samples))

    def pieces(self, y: Any, n_samples: int) -> Callable[[slice], Array32]:
        def piece(part: slice) -> Array32:
            rows = np.arange(len(y))[part]
            return self.vectors(self.read_contexts(y, rows), y.take(rows).conditions).numpy()

        return piece

    def draw(self, n_samples: int, rng: np.random.RandomState) -> AnyArray:
        raise ValueError("a forecaster keeps no contexts to draw from: pass them as X.")


def _as_codes(states: Array, mean: Array, scale: Array, n_axes: int) -> Tensor:
    shape = (*mean.shape, *[1] * n_axes)
    return torch.from_numpy(((states - mean.reshape(shape)) / scale.reshape(shape)).astype(np.float32))
