"""The rules of columns as modules: what `ColumnRules.snap` and `SplitDates` do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch.export.tables import Tables, look_up, step_table
from flowmatch.preprocessing.split_dates import SplitDates
from flowmatch.rules.columns import CalendarRule, ColumnRules, NumberRule
from flowmatch.rules.numbers import EXACT
from flowmatch.tables.dates import DateGrid

Array = NDArray[np.float64]

Rule = NumberRule | CalendarRule | None

_MOST_VALUES = 2**16
"""Dates on more values than this are kept to their steps, and not to their days and hours."""


class Snap(nn.Module):
    """Columns (B, d) on the values that their rules allow."""

    def __init__(self, rules: ColumnRules, dtype: torch.dtype) -> None:
        super().__init__()
        self.columns = nn.ModuleList(module_of(rule, dtype) for rule in rules.rules)

    def forward(self, x: Tensor) -> Tensor:
        parts = [module(x[..., j : j + 1]) for j, module in enumerate(self.columns)]
        return torch.cat(parts, dim=-1)


class JoinDates(nn.Module):
    """Columns of which some come as days and times of day: those as one number of a date, on days and times there are.

    Raises
    ------
    ValueError
        For days on the clock of a time zone, where dates are counted in UTC: a program has no table of that clock.
    """

    def __init__(self, parts: nn.Module, split: SplitDates, rules: Sequence[Rule], dtype: torch.dtype) -> None:
        super().__init__()
        counts = split.code_counts(len(split.grids))
        self.parts, self.dtype, self.ends = parts, dtype, np.cumsum(counts).tolist()
        pairs = zip(split.grids, rules, strict=True)
        self.dates = nn.ModuleList(_Date(grid, rule, dtype) if grid else nn.Identity() for grid, rule in pairs)

    def forward(self, z: Tensor) -> Tensor:
        x = self.parts(z).to(self.dtype)
        columns = [x[..., start:end] for start, end in zip([0, *self.ends], self.ends, strict=False)]
        return torch.cat([date(column) for date, column in zip(self.dates, columns, strict=True)], dim=-1)


class _Date(nn.Module):
    """A day and a time of day (..., 2) as the number of a date (..., 1)."""

    def __init__(self, grid: DateGrid, rule: Rule, dtype: torch.dtype) -> None:
        super().__init__()
        if grid.timezone and not grid.wall:
            raise ValueError(f"dates of the time zone {grid.timezone} cannot be exported: convert them to UTC first.")
        self.day_size, self.origin = grid.ticks_in_day / grid.ticks_in_unit, grid.origin / grid.ticks_in_unit
        self.time_size, self.last = 1 / grid.ticks_in_unit, (grid.ticks_in_day - 1) / grid.ticks_in_unit
        days, times = rule.parts(_MOST_VALUES) if isinstance(rule, CalendarRule) else (None, None)
        self.days, self.times = _nearest_of(days, dtype), _nearest_of(times, dtype)

    def forward(self, x: Tensor) -> Tensor:
        day, time = self.days(torch.round(x[..., :1])), self.times(torch.round(x[..., 1:]))
        return day * self.day_size - self.origin + (time * self.time_size).clamp(0.0, self.last)


def _nearest_of(values: NDArray[Any] | None, dtype: torch.dtype) -> nn.Module:
    return nn.Identity() if values is None else Tables([step_table(0.5 * (values[1:] + values[:-1]), values)], dtype)


class _Steps(nn.Module):
    """What a `NumberRule` without digits makes of values: the nearest allowed ones, or endings by their shares."""

    around: Tensor
    middles: Tensor
    residues: Tensor
    edges: Tensor

    def __init__(self, rule: NumberRule, dtype: torch.dtype) -> None:
        super().__init__()
        residues, self.period, self.unit = rule.residues, rule.period, 10.0 ** max(rule.decimals, 0)
        around = np.concatenate([residues[-1:] - self.period, residues, residues[:1] + self.period])
        self.register_buffer("around", torch.as_tensor(around[:, None]).to(dtype))
        self.register_buffer("middles", torch.as_tensor(0.5 * (around[1:] + around[:-1])).to(dtype))
        self.has_shares = len(rule.shares) > 0
        if self.has_shares:
            self.start, edges = rule.zones
            self.register_buffer("residues", torch.as_tensor(residues[:, None]).to(dtype))
            self.register_buffer("edges", torch.as_tensor(edges).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        u = x * self.unit
        nearest = self._in_turn(u, 0.0, self.middles, self.around)
        if not self.has_shares:
            return nearest / self.unit
        shared = self._in_turn(u, self.start, self.edges, self.residues)
        return torch.where((nearest - u).abs() <= EXACT * self.period, nearest, shared) / self.unit

    def _in_turn(self, u: Tensor, start: float, edges: Tensor, values: Tensor) -> Tensor:
        turn = self.period * torch.floor((u - start) / self.period)
        return turn + look_up(values, (u - start - turn > edges).sum(-1, keepdim=True))


class _Digits(nn.Module):
    """Values of so many significant digits, and decimals if there is a number of them."""

    def __init__(self, rule: NumberRule) -> None:
        super().__init__()
        self.digits, self.unit = rule.digits, 10.0**rule.decimals if rule.decimals >= 0 else 0.0

    def forward(self, x: Tensor) -> Tensor:
        size = torch.where(x == 0, torch.ones_like(x), x.abs())
        place = torch.pow(10.0, torch.floor(torch.log10(size)) - self.digits + 1)
        y = torch.round(x / place) * place
        return torch.round(y * self.unit) / self.unit if self.unit else y


class _Kept(nn.Module):
    """What a module makes of a column, between limits; exceptions stay as they are."""

    exceptions: Tensor | None

    def __init__(
        self, nearest: nn.Module, limits: Array, exceptions: Array, dtype: torch.dtype, single: bool = False
    ) -> None:
        super().__init__()
        self.nearest = nearest
        self.low, self.high = map(float, limits)
        self.single = single
        # torch cannot save a tensor without elements beside others
        self.register_buffer("exceptions", torch.as_tensor(exceptions).to(dtype) if len(exceptions) else None)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.nearest(x)
        kept = (kept.float().to(x.dtype) if self.single else kept).clamp(self.low, self.high) + 0.0
        if self.exceptions is None:
            return kept
        return torch.where((x == self.exceptions).any(-1, keepdim=True), x, kept)


def module_of(rule: Rule, dtype: torch.dtype) -> nn.Module:
    """What a rule makes of a column (..., 1); of no rule the column itself."""
    if rule is None:
        return nn.Identity()
    if isinstance(rule, CalendarRule):
        values, steps = rule.values(_MOST_VALUES), rule.steps
        if values is not None:
            return _Kept(_nearest_of(values, dtype), values[[0, -1]], rule.exception_numbers, dtype)
        return module_of(steps, dtype) if steps else nn.Identity()
    nearest: nn.Module = _Digits(rule) if rule.digits else _Steps(rule, dtype)
    return _Kept(nearest, rule.limits, rule.exceptions, dtype, rule.single)
