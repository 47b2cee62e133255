"""A fitted forecaster's way from contexts and noise to forecasts as one module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmatch.export.conditions import plain
from flowmatch.export.decoding import Decoder
from flowmatch.export.rules import module_of
from flowmatch.export.sampler import Sampler, describe_columns, described, sampler_parts
from flowmatch.model import FlowModel, Integration
from flowmatch.preprocessing import HARMONICS, Expected, TableNumbers, WindowEncoder
from flowmatch.preprocessing.categories import points_of
from flowmatch.preprocessing.target_rules import CertainSpikes, TargetRules
from flowmatch.preprocessing.window_scale import LEAST_SPREAD, WindowScale


@dataclass(frozen=True)
class ForecastForm:
    """What users' contexts and forecasts look like.

    Attributes
    ----------
    sample_shape : tuple of int
        Of one forecast.
    columns, targets : tuple
        Names of the columns of contexts, if there are any, and of what is forecast.
    numbers : TableNumbers or None
        How columns become numbers, where some are more than that.
    known : tuple of int
        Columns that are known ahead, as users count them.
    cycles : tuple of {"year", "week", "day"}
        Of the calendar.
    is_single : bool
        Whether forecasts are of single precision.
    """

    sample_shape: tuple[int, ...]
    columns: tuple[Any, ...]
    targets: tuple[Any, ...]
    numbers: TableNumbers | None
    known: tuple[int, ...]
    cycles: tuple[str, ...]
    is_single: bool


class ForecastSampler(Sampler):
    """Noise (B, *code_shape) and contexts to forecasts (B, *sample_shape), in the data's units.

    Contexts are float64, as forecasts of training data in double precision: of large values float32 would lose the
    small changes. What is known ahead and the calendar follow them where there are any.

    Parameters
    ----------
    model : FlowModel
        Of a forecaster.
    integration : Integration
        Solver and steps.
    form : ForecastForm
        As users have it.
    """

    def __init__(self, model: FlowModel, integration: Integration, form: ForecastForm) -> None:
        encoder = model.conditions
        assert isinstance(encoder, WindowEncoder)
        _check_exportable(encoder)
        decoder = Decoder(model.encoder, is_restored=model.encoder.is_table)
        super().__init__(*sampler_parts(model, integration, decoder, None))
        self.form, self.grid, self.n_lags = form, encoder.grid.tolist(), encoder.n_lags
        self.horizon, self.n_columns = encoder.horizon, len(encoder.mean)
        self.n_known, self.n_targets = len(form.known), len(encoder.target_mean)
        every = None if form.numbers is None else tuple(range(len(form.numbers.container.kinds)))
        self.numbers = None if every is None else _Numbers(form.numbers, every)
        self.numbers_ahead = None if every is None or not form.known else _Numbers(form.numbers, form.known)
        self.contexts = _Contexts(encoder)
        self.base = _Linear(encoder.weights, encoder.intercept)
        self.rules = None if encoder.rules is None else _Rules(encoder.rules)
        self.spikes = None if encoder.spikes is None else _Spikes(encoder.spikes)
        self.eval()

    def forward(self, noise: Tensor, context: Tensor, *further: Tensor) -> Tensor:  # type: ignore[override]
        """Forecasts of contexts.

        Parameters
        ----------
        noise : Tensor of shape (B, *code_shape)
        context : Tensor of shape (B, [n_lags,] *state)
        *further : Tensor
            What is known ahead, (B, horizon, n_known, *grid), and the phases of the calendar, (B, n_cycles), where
            there are any.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
        """
        states = context if self.numbers is None else self.numbers(context)
        states = states.reshape(-1, self.n_lags, self.n_columns, *self.grid)
        known = None
        if self.n_known:
            known = further[0] if self.numbers_ahead is None else self.numbers_ahead(further[0])
        vector, level, spread = self.contexts(states, known, further[-1] if self.form.cycles else None)
        residual = self.decoder(self.carry(noise, vector.flatten(1))).double()
        exact = vector.double()
        targets = (self.base(exact) + residual).reshape(-1, self.horizon, self.n_targets, *self.grid)
        forecasts = targets * spread + level
        forecasts = forecasts if self.rules is None else self.rules(forecasts)
        forecasts = forecasts if self.spikes is None else self.spikes(forecasts, exact)
        forecasts = forecasts.reshape(-1, *self.form.sample_shape)
        return forecasts.float() if self.form.is_single else forecasts

    def further(self) -> dict[str, dict[str, Any]]:
        """Inputs besides noise, as the file describes them.

        Returns
        -------
        dict
            Shape and columns of each, by name.
        """
        state = (self.n_columns if self.form.numbers is None else len(self.form.numbers.container.kinds), *self.grid)
        lags = () if self.n_lags == 1 else (self.n_lags,)
        shapes: dict[str, dict[str, Any]] = {"context": {"shape": (*lags, *state), "columns": plain(self.form.columns)}}
        if self.n_known:
            names = plain([self.form.columns[j] for j in self.form.known]) if self.form.columns else []
            shapes["known"] = {"shape": (self.horizon, self.n_known, *self.grid), "columns": names}
        if self.form.cycles:
            meaning = "the share of each cycle that has passed at the first instant that is forecast"
            shapes["calendar"] = {"shape": (len(self.form.cycles),), "columns": self.form.cycles, "meaning": meaning}
        return shapes

    def examples(self, n_rows: int) -> dict[str, Any]:
        shapes = [entry["shape"] for entry in self.further().values()]
        context, *others = (torch.zeros(n_rows, *shape, dtype=torch.float64) for shape in shapes)
        examples = {**super().examples(n_rows), "context": context}
        return {**examples, "further": tuple(others)} if others else examples

    @property
    def input_names(self) -> list[str]:
        return ["noise", *self.further()]

    def describe(self, model: FlowModel) -> dict[str, Any]:
        """Describe inputs and outputs.

        Parameters
        ----------
        model : FlowModel
            That of the program.

        Returns
        -------
        dict
            As a file holds it.
        """
        noise, sample, facts = described(model, self)
        inputs = [
            {"name": name, "dtype": "float64", **entry, "shape": ["batch", *entry["shape"]]}
            for name, entry in self.further().items()
        ]
        if self.form.numbers is not None:
            inputs[0] |= describe_columns(self.form.numbers.container)
        sample |= {
            "dtype": "float32" if self.form.is_single else "float64",
            "shape": ["batch", *self.form.sample_shape],
            "columns": plain(self.form.targets),
        }
        return {"inputs": [noise, *inputs], "outputs": [sample], **facts}


class _Linear(nn.Module):
    """A linear map of the columns (channels) of contexts (B, m, *grid), in double precision."""

    weights: Tensor
    intercept: Tensor

    def __init__(self, weights: Any, intercept: Any) -> None:
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float64))
        self.register_buffer("intercept", torch.as_tensor(intercept, dtype=torch.float64))

    def forward(self, context: Tensor) -> Tensor:
        return (context.movedim(1, -1) @ self.weights + self.intercept).movedim(-1, 1)


class _Contexts(nn.Module):
    """What `WindowEncoder.contexts_of` and `target_scales` do: vectors, and what targets are scaled by."""

    mean: Tensor
    scale: Tensor
    target_mean: Tensor
    target_scale: Tensor
    targets: Tensor
    known: Tensor

    def __init__(self, encoder: WindowEncoder) -> None:
        super().__init__()
        ones = [1] * len(encoder.grid)
        for name in ("mean", "scale", "target_mean", "target_scale"):
            values = torch.as_tensor(getattr(encoder, name), dtype=torch.float64)
            self.register_buffer(name, values.reshape(-1, *ones))
        self.local = None if encoder.local is None else _WindowScale(encoder.local)
        self.expected = None if encoder.expected is None else _Expected(encoder.expected)
        if len(encoder.known):  # torch cannot save a tensor without elements beside others
            self.register_buffer("known", torch.as_tensor(encoder.known))
        if self.local is not None:
            self.register_buffer("targets", torch.as_tensor(encoder.targets))
            for name in ("mean", "scale"):  # of targets that no window scales
                own = torch.zeros_like(self.mean) if name == "mean" else torch.ones_like(self.mean)
                own[self.targets] = getattr(self, f"target_{name}")
                self.register_buffer(f"unscaled_{name}", own)

    def forward(self, states: Tensor, known: Tensor | None, phases: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        mean, scale, features = self.mean, self.scale, []
        level, spread = self.target_mean, self.target_scale
        if phases is not None:
            features.append(_calendar(phases))
        if self.local is not None:
            own: tuple[Tensor, Tensor] = self.local(states)
            level, spread = self.local.put(*own, self.get_buffer("unscaled_mean"), self.get_buffer("unscaled_scale"))
            level, spread = (part.index_select(1, self.targets)[:, None] for part in (level, spread))
            window_level, window_spread = self.local.put(*own, mean, scale)
            features.append(self.local.describe(window_level, window_spread).float())
            mean, scale = window_level[:, None], window_spread[:, None]
        axis = 0 if self.local is None else 2  # that of columns
        parts = [((states - mean) / scale).float().flatten(1, 2)]
        if known is not None:
            ahead = (known - mean.index_select(axis, self.known)) / scale.index_select(axis, self.known)
            parts.append(ahead.float().flatten(1, 2))
        vector = torch.cat([*parts, *features], dim=1)
        return vector if self.expected is None else torch.cat([vector, self.expected(vector)], dim=1), level, spread


class _Expected(nn.Module):
    """What `WindowEncoder.told` does: where a linear map and boosted trees expect targets."""

    def __init__(self, expected: Expected) -> None:
        super().__init__()
        assert expected.trees is not None
        self.linear, trees = _Linear(expected.weights, expected.intercept), expected.trees
        self.n_trees, self.n_nodes = trees.feature.shape
        self.register_buffer("feature", torch.as_tensor(trees.feature).flatten())
        self.register_buffer("threshold", torch.as_tensor(trees.threshold, dtype=torch.float64).flatten())
        self.register_buffer("value", torch.as_tensor(trees.value, dtype=torch.float64).flatten(0, 1))
        self.register_buffer("trees", torch.arange(self.n_trees)[None])
        for name in ("mean", "spread"):
            self.register_buffer(name, torch.as_tensor(getattr(expected, name), dtype=torch.float64))

    def forward(self, context: Tensor) -> Tensor:
        buffer, exact = self.get_buffer, context.double()
        node = torch.zeros_like(exact[:, :1], dtype=torch.int64) * buffer("trees")
        for _ in range((self.n_nodes + 1).bit_length() - 1):  # all leaves lie equally deep
            place = node + self.n_nodes * buffer("trees")
            beyond = exact.gather(1, buffer("feature")[place]) > buffer("threshold")[place]
            node = 2 * node + 1 + beyond.long()
        leaf = node - self.n_nodes + (self.n_nodes + 1) * buffer("trees")
        found = self.linear(exact) + buffer("value")[leaf].sum(dim=1)
        return ((found - buffer("mean")) / buffer("spread")).float()


def _check_exportable(encoder: WindowEncoder) -> None:
    """Raise a ValueError for what programs cannot do."""
    lacks = {
        "lags may lack values": len(encoder.holed),
        "targets of fields lacked values": encoder.gaps_ahead,
        "fields have conditions": encoder.n_conditions,
    }
    for what, found in lacks.items():
        if found:
            raise ValueError(f"a forecaster of which {what} cannot be exported: fit to data without.")


class _WindowScale(nn.Module):
    """What `WindowScale` does: level and spread of windows, and how networks are told."""

    def __init__(self, scale: WindowScale) -> None:
        super().__init__()
        for name in ("columns", "centered", "own_spread"):
            self.register_buffer(name, torch.as_tensor(getattr(scale, name)))
        for name in ("spread", "floor", "expected", "features"):
            self.register_buffer(name, torch.as_tensor(getattr(scale, name), dtype=torch.float64))
        self.register_buffer("scaled", torch.as_tensor(np.flatnonzero(scale.columns)))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        buffer, n_lags = self.get_buffer, states.shape[1]
        ordered = states.sort(dim=1).values
        median = 0.5 * (ordered[:, (n_lags - 1) // 2] + ordered[:, n_lags // 2])
        level = torch.where(buffer("centered"), median, torch.zeros_like(median))
        deviation = (states - level[:, None]).abs().mean(dim=1)
        intercept, slope = buffer("expected").unbind(0)
        expected = (intercept + slope * (level.abs() + buffer("floor")).log()).exp()
        weight = (n_lags - 1) / (n_lags + 1)
        drawn = torch.maximum(deviation, LEAST_SPREAD * expected).pow(weight) * expected.pow(1 - weight)
        own = torch.where(buffer("centered"), drawn, deviation + buffer("floor"))
        return level, torch.where(buffer("own_spread"), own, buffer("spread"))

    def put(self, level: Tensor, spread: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Level and spread of all columns, of which some have the same for all windows."""
        columns = self.get_buffer("columns")
        return torch.where(columns, level, mean), torch.where(columns, spread, scale)

    def describe(self, level: Tensor, spread: Tensor) -> Tensor:
        """As elements of contexts."""
        scaled, features = self.get_buffer("scaled"), self.get_buffer("features")
        level, spread = level.index_select(1, scaled), spread.index_select(1, scaled)
        ratio = level / spread
        size = torch.log(ratio.abs() + torch.sqrt(ratio * ratio + 1)) * torch.sign(ratio)  # runtimes lack arcsinh
        mean, scale, low, high = features.index_select(2, scaled).unbind(0)
        told = torch.stack([spread.log(), size], dim=1)
        return ((torch.minimum(torch.maximum(told, low), high) - mean) / scale).flatten(1)


class _Rules(nn.Module):
    """What `TargetRules.snap` does."""

    low: Tensor
    high: Tensor

    def __init__(self, rules: TargetRules) -> None:
        super().__init__()
        limits = torch.as_tensor(np.clip(rules.bounds, -_NO_BOUND, _NO_BOUND))
        self.register_buffer("low", limits[0].clone())
        self.register_buffer("high", limits[1].clone())
        self.grids = nn.ModuleList(module_of(grid, torch.float64) for grid in rules.grids)

    def forward(self, x: Tensor) -> Tensor:
        moved = torch.minimum(torch.maximum(x, self.low), self.high)
        parts = [grid(moved[..., j : j + 1]) for j, grid in enumerate(self.grids)]
        return torch.minimum(torch.maximum(torch.cat(parts, dim=-1), self.low), self.high)


class _Spikes(nn.Module):
    """What `CertainSpikes.put` does."""

    values: Tensor
    threshold: Tensor

    def __init__(self, spikes: CertainSpikes) -> None:
        super().__init__()
        self.shares, self.n_columns = _Linear(spikes.weights, spikes.intercept), len(spikes.weights)
        self.register_buffer("values", torch.as_tensor(np.nan_to_num(spikes.values)))
        self.register_buffer("threshold", torch.as_tensor(np.minimum(spikes.threshold, _NO_BOUND)))

    def forward(self, forecasts: Tensor, context: Tensor) -> Tensor:
        shares = self.shares(context[:, : self.n_columns]).reshape(forecasts.shape)
        return torch.where(shares >= self.threshold, self.values, forecasts)


class _Numbers(nn.Module):
    """What `TableNumbers.numbers` does, on the last axis: NaN is a missing entry, categories are positions."""

    def __init__(self, numbers: TableNumbers | None, columns: tuple[int, ...]) -> None:
        super().__init__()
        assert numbers is not None
        container = numbers.container
        self.columns: list[tuple[int, bool, bool, float]] = []
        for place, j in enumerate(columns):
            if container.is_key[j]:
                continue
            is_category = container.kinds[j] == "category"
            self.columns.append((place, is_category, bool(numbers.holed[j]), float(numbers.means[j])))
            if is_category:
                points = points_of(container.n_levels(j))
                known = torch.as_tensor(np.vstack([points, np.zeros_like(points[:1])]))  # the last is for missing ones
                self.register_buffer(f"points_{place}", known)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for place, is_category, is_holed, mean in self.columns:
            column = x[..., place]
            missing = column.isnan()
            if is_category:
                points = self.get_buffer(f"points_{place}")
                last = torch.full_like(column, len(points) - 1)
                parts.append(F.embedding(torch.where(missing, last, column).long(), points))
            else:
                parts.append(torch.where(missing, torch.full_like(column, mean), column)[..., None])
            if is_holed:
                parts.append(missing[..., None].double())
        return torch.cat(parts, dim=-1)


_NO_BOUND = 1e300


def _calendar(phases: Tensor) -> Tensor:
    """What `calendar_features` makes of phases (B, n_cycles)."""
    angles = [2 * math.pi * k * phases for k in range(1, HARMONICS + 1)]
    waves = [wave for angle in angles for wave in (angle.float().sin(), angle.float().cos())]
    return torch.stack(waves, dim=2).flatten(1)
