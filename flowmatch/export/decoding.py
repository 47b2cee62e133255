"""From a flow's codes to the data's units, as a module: what `SampleEncoder.restore` and the container do."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch.export.precision import fits_float32, whole_ranges
from flowmatch.export.rules import JoinDates, Snap
from flowmatch.export.tables import Tables, step_table
from flowmatch.preprocessing import (
    ColumnTransform,
    Identity,
    Log1pStandardize,
    MinMax,
    QuantileNormal,
    SampleEncoder,
    Standardize,
)
from flowmatch.preprocessing.categories import MixedColumns, points_of
from flowmatch.preprocessing.split_dates import SplitDates

Array = NDArray[np.float64]


class Decoder(nn.Module):
    """Codes (B, *code_shape) to samples (B, *sample_shape) on the values that the data can take.

    Samples are float32, or float64 where float32 cannot tell the values of the data apart. Columns of whole numbers
    are rounded and kept in the range of their dtype; booleans are 0 and 1, categories their positions. Grids that are
    not `is_restored` are decoded alone, as `SampleEncoder.decode` does.

    Raises
    ------
    ValueError
        If the transform is a class of the user's own.
    """

    varying: Tensor
    places: Tensor
    constants: Tensor
    lowest: Tensor
    highest: Tensor
    has_levels: Tensor
    is_whole: Tensor
    smallest: Tensor
    largest: Tensor

    def __init__(self, encoder: SampleEncoder, *, is_restored: bool = True) -> None:
        super().__init__()
        kind, self.is_restored = type(encoder.transform), is_restored
        if kind not in _COLUMNS:
            raise ValueError(
                f"preprocessing is a {kind.__name__}, whose way back to the data cannot be exported. Fit with one of "
                f"{', '.join(repr(known.__name__) for known in _COLUMNS)}."
            )
        self.is_table = encoder.is_table
        self.dtype = torch.float32 if fits_float32(encoder) else torch.float64
        self.columns = _COLUMNS[kind](encoder.transform, self.dtype)
        whole = encoder.columns.numbers if isinstance(encoder.columns, MixedColumns) else encoder.columns
        if isinstance(whole, SplitDates):
            chosen = np.flatnonzero(encoder.varying & ~encoder.is_category)
            rules = [encoder.rules.rules[j] for j in chosen] if encoder.rules else []
            self.columns = JoinDates(self.columns, whole, rules, self.dtype)
        if encoder.categories is not None:
            self.columns = _Mixed(self.columns, encoder, self.dtype)
        self._keep("varying", encoder.varying, torch.bool)
        self._keep("places", np.maximum(np.cumsum(encoder.varying) - 1, 0), torch.int64)
        self._keep("constants", encoder.constants)
        if not encoder.is_table:
            self._keep("lowest", encoder.limits[0])
            self._keep("highest", encoder.limits[1])
        self.levels = None
        if any(map(len, encoder.levels)):
            tables = [step_table(0.5 * (levels[1:] + levels[:-1]), levels) for levels in encoder.levels]
            self.levels = Tables(tables, self.dtype)
            self._keep("has_levels", [len(levels) > 0 for levels in encoder.levels], torch.bool)
        self.snap = Snap(encoder.rules, self.dtype) if encoder.rules else None
        ranges = whole_ranges(encoder.container, len(encoder.varying))
        self.has_whole = any(map(np.isfinite, ranges[:, 0]))
        self._keep("is_whole", np.isfinite(ranges[:, 0]), torch.bool)
        self._keep("smallest", ranges[:, 0])
        self._keep("largest", ranges[:, 1])

    def _keep(self, name: str, values: object, dtype: torch.dtype | None = None) -> None:
        self.register_buffer(name, torch.as_tensor(np.array(values)).to(dtype or self.dtype))

    def forward(self, codes: Tensor) -> Tensor:
        columns = codes if self.is_table else codes.movedim(1, -1)
        x = self.columns(columns).to(self.dtype)
        x = torch.where(self.varying, x.index_select(-1, self.places) if self.is_table else x, self.constants)
        if not self.is_table and self.is_restored:
            x = torch.minimum(torch.maximum(x, self.lowest), self.highest)
        if self.levels is not None and self.is_restored:
            x = torch.where(self.has_levels, self.levels(x), x)
        if self.snap is not None:
            x = self.snap(x)
        if self.has_whole:
            whole = torch.minimum(torch.maximum(torch.round(x), self.smallest), self.largest)
            x = torch.where(self.is_whole, whole, x)
        return x if self.is_table else x.movedim(-1, 1)


class _Affine(nn.Module):
    """``x = z * scale + center``, with what the subclasses do before and after."""

    scale: Tensor
    centre: Tensor

    def __init__(self, transform: Standardize | MinMax | Log1pStandardize, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("scale", torch.as_tensor(transform.scale_).to(dtype))
        self.register_buffer("centre", torch.as_tensor(transform.centre_).to(dtype))

    def forward(self, z: Tensor) -> Tensor:
        return z.to(self.scale.dtype) * self.scale + self.centre


class _MinMax(_Affine):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z.clamp(-1.0, 1.0))


class _Log1p(_Affine):
    def forward(self, z: Tensor) -> Tensor:
        return (super().forward(z).exp() - 1.0).clamp(min=0.0)


class _Identity(nn.Module):
    def __init__(self, transform: Identity, dtype: torch.dtype) -> None:
        super().__init__()

    def forward(self, z: Tensor) -> Tensor:
        return z


class _Quantile(nn.Module):
    """The inverse distribution function of every column at the ranks of normal scores, onto the column's grid."""

    units: Tensor
    is_rounded: Tensor

    def __init__(self, transform: QuantileNormal, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        columns = [np.split(numbers, transform.bounds_[1:-1]) for numbers in (transform.values_, transform.high_)]
        tables = [
            # halfway between two values, where a generated one goes to the other, the rank is that of their border
            step_table(high[:-1], values) if few else transform.quantiles(j)
            for j, (few, values, high) in enumerate(zip(transform.few_values_, *columns, strict=True))
        ]
        self.tables = Tables(tables, dtype)
        has_gaps = transform.opened_ is not None and transform.opened_.any()
        self.closed = Tables([transform.closing(j) for j in range(len(tables))], torch.float32) if has_gaps else None
        rounded = (transform.decimals_ >= 0) & (transform.few_values_ == 0)
        self.register_buffer("is_rounded", torch.as_tensor(rounded))
        self.register_buffer("units", torch.as_tensor(10.0 ** np.maximum(transform.decimals_, 0)).to(dtype))

    def forward(self, z: Tensor) -> Tensor:
        z = z if self.closed is None else self.closed(z.float())
        ranks = 0.5 * (1.0 + torch.erf(z * math.sqrt(0.5)))  # in float32: runtimes lack the function in float64
        x = self.tables(ranks.to(self.dtype))
        return torch.where(self.is_rounded, torch.round(x * self.units) / self.units + 0.0, x)


class _Mixed(nn.Module):
    """Columns of numbers beside categories, which are the positions of the points nearest to their codes."""

    places: Tensor
    number_codes: Tensor

    def __init__(self, numbers: nn.Module, encoder: SampleEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        columns = encoder.columns
        assert isinstance(columns, MixedColumns)
        self.numbers, self.dtype = numbers, dtype
        of_category = columns.is_category[columns.columns_of_codes]
        self.register_buffer("number_codes", torch.as_tensor(np.flatnonzero(~of_category)))
        order = np.argsort(np.r_[np.flatnonzero(~columns.is_category), np.flatnonzero(columns.is_category)])
        self.register_buffer("places", torch.as_tensor(order))
        ends = np.flatnonzero(of_category)
        shares = np.split(columns.categories.shares_, np.cumsum(columns.categories.n_levels)[:-1])
        self.n_categories = len(shares)
        starts = np.cumsum([0, *columns.categories.widths])
        for j, (n_levels, share) in enumerate(zip(columns.categories.n_levels, shares, strict=True)):
            known = points_of(n_levels)
            self.register_buffer(f"codes_{j}", torch.as_tensor(ends[starts[j] : starts[j + 1]]))
            self.register_buffer(f"points_{j}", torch.as_tensor(known.T.astype(np.float32)))
            penalty = np.where(share > 0, 0.5 * (known**2).sum(axis=1), _NEVER)
            self.register_buffer(f"penalty_{j}", torch.as_tensor(penalty.astype(np.float32)))

    def forward(self, z: Tensor) -> Tensor:
        parts = [self.numbers(z.index_select(-1, self.number_codes)).to(self.dtype)] if len(self.number_codes) else []
        for j in range(self.n_categories):
            codes = z.index_select(-1, self.get_buffer(f"codes_{j}"))
            nearness = codes @ self.get_buffer(f"points_{j}") - self.get_buffer(f"penalty_{j}")
            parts.append(nearness.argmax(dim=-1, keepdim=True).to(self.dtype))
        return torch.cat(parts, dim=-1).index_select(-1, self.places)


_NEVER = 1e30
"""Keeps categories that the data lack from being the nearest."""

_COLUMNS: dict[type[ColumnTransform], Callable[..., nn.Module]] = {
    QuantileNormal: _Quantile,
    Standardize: _Affine,
    MinMax: _MinMax,
    Log1pStandardize: _Log1p,
    Identity: _Identity,
}
"""Maps of the last axis from codes to data, for each fitted transform."""
