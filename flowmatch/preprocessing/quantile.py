"""Columns to standard normal scores through their empirical distribution, and back onto their own grid of values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from flowmatch.core.checks import check_count, check_flag
from flowmatch.core.devices import normal_quantile
from flowmatch.core.storable import fields_to_store, require, storable
from flowmatch.core.types import Array, Index, Integers, Mask
from flowmatch.preprocessing.scaling import ColumnTransform, deviation, observed_columns, row_shares
from flowmatch.rules.numbers import MOST_DECIMALS, decimals_of, error_of, nearest

_FEW_VALUES = 5
"""Columns whose values repeat this often on average hold codes or levels: generated values are snapped to them."""

_KNOTS_PER_ROOT = 2.0
"""Knots of the smooth map per cube root of the number of distinct values."""

_LEAST_GAP = 0.1
"""Width of a gap, in standard deviations of its column, at least."""

_GAP_SPACINGS = 8.0
"""Width of a gap, in medians of the spacings around it, at least."""

_GAP_SHARE = 0.03
"""Share of the rows on either side of a gap, up to the next one, at least."""

_OPENING = 3.0
"""How far the codes of a gap's sides are moved apart, for each standard deviation of its width."""

_WIDEST_OPENING = 4.0

SPIKE_SHARE = 0.05
"""A value is a spike if this share of the rows has it."""

_SPIKE_RATIO = 5.0
"""It stands out from its neighbor by so many times the rows."""

_SPIKE_OPENING = 2.0

_BESIDE = 1e-6
"""How far from a gap's border scores are kept, so that rounding does not put them across it."""

_BEYOND = 100.0
"""No normal score lies there."""


@storable
@dataclass(frozen=True)
class QuantileNormal(ColumnTransform):
    """Map every column to a standard normal one by its own empirical distribution function.

    The invertible map, which codes and densities go through, is linear between about ``2 k^(1/3)`` of a column's k
    values, at even scores: a value that fills the ranks from F(x-) to F(x) has the normal score of their middle. More
    knots would follow the sample and not the distribution, and make densities jagged. Beyond the data the map goes on
    with the slope of the standardized column.

    In training a value stands for its whole interval of ranks [F(x-), F(x)]: each batch draws a fresh uniform rank from
    it (distributional transform; Rueschendorf, 2009). Ties, codes and counts so become continuous without favoring
    any value, every column without gaps is exactly normal, and rows with neighboring ranks overlap, which keeps a
    network from memorizing them.

    Ranks forget how far apart two clusters lie: a column of two would be one normal distribution, and a flow would have
    to learn a jump. Where a column has a gap, wide against its spread and against the spacings around it, with rows on
    either side, the codes of the two sides are moved apart in proportion to its width, and generated codes in between
    are reflected at the nearer side.

    Generated values go back through the inverse distribution function, and onto the column's grid: its levels if they
    repeat often, else its number of decimals (up to 6) if it has one; never beyond the observed range.

    Parameters
    ----------
    max_knots : int, default=2000
        Most distinct values kept per column; longer columns are kept at evenly spaced ranks.
    open_gaps : bool, default=True
        Whether codes are moved apart at gaps.
    open_spikes : bool, default=False
        Whether they are moved apart also beside an extreme that a twentieth of the rows or more have, and five times
        the rows of its neighbor, such as the capacity of a plant: a flow that smears its edge then draws it no less.

    Attributes
    ----------
    values_, low_, high_ : ndarray
        Distinct values of all columns, one column after the other, and the ranks F(x-) and F(x) of each.
    bounds_ : ndarray of shape (k + 1,)
        Where the values of each column begin and end.
    scale_ : ndarray of shape (k,)
        Standard deviations.
    decimals_ : ndarray of shape (k,)
        Number of decimals of each column's values; -1 for more than 6.
    few_values_ : ndarray of bool, shape (k,)
        Whether values repeat often.
    edge_ : ndarray of shape ()
        Distance of drawn ranks from 0 and 1.
    smooth_ : ndarray of bool
        Which of the values are knots of the invertible map.
    opened_ : ndarray or None
        How far codes are moved apart behind each of the values; None stands for zeros.
    """

    max_knots: int = 2000
    open_gaps: bool = True
    open_spikes: bool = False
    values_: Array = field(init=False, repr=False, compare=False)
    low_: Array = field(init=False, repr=False, compare=False)
    high_: Array = field(init=False, repr=False, compare=False)
    bounds_: Integers = field(init=False, repr=False, compare=False)
    scale_: Array = field(init=False, repr=False, compare=False)
    decimals_: Integers = field(init=False, repr=False, compare=False)
    few_values_: Mask = field(init=False, repr=False, compare=False)
    edge_: Array = field(init=False, repr=False, compare=False)
    smooth_: Mask = field(init=False, repr=False, compare=False)
    opened_: Array | None = field(init=False, default=None, repr=False, compare=False)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored transform do not fit each other."""
        if set(fields_to_store(self)) == {"max_knots", "open_gaps", "open_spikes"}:
            return
        k, n_values = len(self.scale_), len(self.values_)
        require(self.bounds_.shape == (k + 1,) and self.bounds_[0] == 0 and self.bounds_[-1] == n_values, "bounds_")
        require((np.diff(self.bounds_) > 0).all(), "bounds_")
        for name in ("values_", "low_", "high_", "smooth_"):
            require(getattr(self, name).shape == (n_values,), name)
        within = np.delete(np.diff(self.values_), self.bounds_[1:-1] - 1)  # from one value of a column to the next
        require((within > 0).all() and np.isfinite(self.values_).all(), "values_")
        require(((self.low_ >= 0) & (self.low_ <= self.high_) & (self.high_ <= 1)).all(), "low_")
        require(self.decimals_.shape == self.few_values_.shape == (k,), "decimals_")
        require(((self.decimals_ >= -1) & (self.decimals_ <= MOST_DECIMALS)).all(), "decimals_")
        require((self.scale_ > 0).all() and self.scale_.ndim == 1, "scale_")
        require(self.edge_.shape == () and 0 < self.edge_ < 0.5, "edge_")
        if self.opened_ is not None:
            require(self.opened_.shape == (n_values,), "opened_")
            require(((self.opened_ >= 0) & (self.opened_ <= _WIDEST_OPENING)).all(), "opened_")
            require(not self.opened_[self.bounds_[1:] - 1].any(), "opened_")
            sides = np.flatnonzero(self.opened_)
            require((self.high_[sides] == self.low_[sides + 1]).all(), "opened_")
            require(((self.high_[sides] > 0) & (self.high_[sides] < 1)).all(), "opened_")
            require((self.smooth_[sides] & self.smooth_[sides + 1]).all(), "opened_")

    def fit(self, X: Array, weight: Array | None = None, tolerance: Array | float = 0.0) -> Self:
        check_count("max_knots", self.max_knots, low=2)
        check_flag("open_gaps", self.open_gaps)
        check_flag("open_spikes", self.open_spikes)
        tolerances = np.broadcast_to(tolerance, X.shape[1:])
        columns = list(observed_columns(X, row_shares(len(X), weight)))
        opening = (self.open_gaps, self.open_spikes)
        ranks = [_rank_intervals(*column, self.max_knots, opening) for column in columns]
        values, lows, highs, opened, few_values = zip(*ranks, strict=True)
        scale = np.array([deviation(*column) for column in columns])
        vars(self).pop("_openings", None)
        return self._set_fitted(
            values_=np.concatenate(values),
            low_=np.concatenate(lows),
            high_=np.concatenate(highs),
            bounds_=np.cumsum([0, *map(len, values)]),
            scale_=np.where(scale > 0, scale, 1.0),
            decimals_=np.array(
                [decimals_of(column, error_of(column, t)) for (column, _), t in zip(columns, tolerances, strict=True)]
            ),
            few_values_=np.array(few_values),
            edge_=np.array(max(0.1 / len(X), 2.0**-24)),  # float32 tells no rank nearer to 1
            smooth_=np.concatenate(list(map(_evenly_scored, lows, highs, opened))),
            opened_=np.concatenate(opened),
        )

    def transform(self, X: Array) -> Array:
        return _columnwise(lambda j, x: _interpolate(x, *self._smooth_map(j), 1.0 / self.scale_[j]), X)

    def inverse_transform(self, Z: Array) -> Array:
        return _columnwise(lambda j, z: _interpolate(z, *self._smooth_map(j)[::-1], self.scale_[j]), Z)

    def log_slope(self, X: Array) -> Array:
        def slopes_at(j: int, x: Array) -> Array:
            values, scores = self._smooth_map(j)
            outer = 1.0 / self.scale_[j]
            # a value between two pieces belongs to the one on its right, the largest value to the one on its left
            position = np.searchsorted(values, x, side="right")
            position[x == values[-1]] -= 1
            return np.concatenate([[outer], np.diff(scores) / np.diff(values), [outer]])[position]

        return np.log(_columnwise(slopes_at, X))

    def restore(self, Z: Array) -> Array:
        def restored(j: int, z: Array) -> Array:
            ranks = ndtr(np.interp(z, *self.closing(j)))
            return self._on_grid(np.interp(ranks, *self.quantiles(j)), j)

        return _columnwise(restored, Z)

    def restores_seen(self, n_columns: int) -> Mask:
        return self.few_values_

    def training_bounds(self, X: Array) -> tuple[Array, Array | None]:
        low = _columnwise(lambda j, x: np.interp(x, *self._ranks(j)[:2]), X)
        return low, _columnwise(lambda j, x: np.interp(x, *self._ranks(j)[::2]), X)

    def draw_codes(self, low: Tensor, high: Tensor | None, generator: torch.Generator | None) -> Tensor:
        assert high is not None
        u = torch.rand(low.shape, generator=generator, device=low.device, dtype=low.dtype)
        edge = float(self.edge_)
        ranks = torch.lerp(low, high, u).clamp(edge, 1 - edge)
        codes, (columns, borders, widths, shift) = normal_quantile(ranks), self._openings
        if len(columns) == 0:
            return codes
        place: dict[str, Any] = {"device": codes.device, "dtype": codes.dtype}
        trailing = (-1, *[1] * (codes.ndim - 2))
        positions = torch.as_tensor(columns, device=codes.device)
        beyond = ranks.index_select(1, positions) > torch.as_tensor(borders, **place).reshape(trailing)
        codes = codes.index_add(1, positions, beyond * torch.as_tensor(widths, **place).reshape(trailing))
        return codes - torch.as_tensor(shift, **place).reshape(trailing)

    @cached_property
    def _openings(self) -> tuple[Index, Array, Array, Array]:
        """Columns of the gaps, the ranks where they are, how far they are opened; what centers each column."""
        opened = np.zeros(len(self.values_)) if self.opened_ is None else self.opened_
        sides = np.flatnonzero(opened)
        columns = np.searchsorted(self.bounds_, sides, side="right") - 1
        borders, widths, shift = self.high_[sides], opened[sides], np.zeros(len(self.scale_))
        np.add.at(shift, columns, widths * (1 - borders))
        return columns, borders, widths, shift

    def closing(self, j: int) -> tuple[Array, Array]:
        """Describe the function from the codes of a column to normal scores, which closes its gaps again.

        What a flow draws inside of a gap is what it has smeared over a cluster's edge: it is reflected at the nearer
        edge, into no more than half of the cluster.

        Parameters
        ----------
        j : int
            Position among the columns of the transform.

        Returns
        -------
        codes, scores : ndarray
            For linear interpolation between them; a code that comes twice is a jump, in the middle of a gap.
        """
        columns, ranks, widths, shifts = self._openings
        here = columns == j
        borders, widths = ndtri(ranks[here]), widths[here]
        below = borders + np.cumsum(widths) - widths
        room = 0.5 * np.diff(np.r_[-_BEYOND, borders, _BEYOND])
        left, right = borders - np.minimum(0.5 * widths, room[:-1]), borders + np.minimum(0.5 * widths, room[1:])
        codes = np.column_stack([below, below + 0.5 * widths, below + 0.5 * widths, below + widths])
        scores = np.column_stack([borders - _BESIDE, left, right, borders + _BESIDE])
        ends = np.array([-_BEYOND, _BEYOND])
        codes = np.r_[ends[0], codes.ravel(), ends[1] + widths.sum()] - shifts[j]
        return codes, np.r_[ends[0], scores.ravel(), ends[1]]

    def quantiles(self, j: int) -> tuple[Array, Array]:
        """Describe the inverse distribution function of a column by ranks, in order, and the values there.

        It is constant inside intervals of ranks, linear between those of single rows, and jumps at a rank that comes
        twice, where a gap is.

        Parameters
        ----------
        j : int
            Position among the columns of the transform.

        Returns
        -------
        ranks, values : ndarray
            For linear interpolation between them.
        """
        values, low, high = self._ranks(j)
        inset = np.minimum(0.5 * (high - low), 0.5 * np.min(high - low))
        ranks, images = np.column_stack([low + inset, high - inset]).ravel(), np.repeat(values, 2)
        if self.opened_ is None:
            return ranks, images
        sides = np.flatnonzero(self.opened_[self.bounds_[j] : self.bounds_[j + 1]])
        at = np.repeat(2 * sides + 2, 2)
        beside = np.column_stack([values[sides], values[sides + 1]]).ravel() if len(sides) else np.empty(0)
        return np.insert(ranks, at, np.repeat(high[sides], 2)), np.insert(images, at, beside)

    def most_frequent(self, column: int) -> tuple[float, float]:
        """Look up the value that most rows of a column share.

        Parameters
        ----------
        column : int
            Position among the columns of the transform.

        Returns
        -------
        value : float
        share : float
            Of the rows, by their weights.
        """
        values, low, high = self._ranks(column)
        position = int(np.argmax(high - low))
        return float(values[position]), float(high[position] - low[position])

    def _ranks(self, j: int) -> tuple[Array, Array, Array]:
        """Values of a column, and the ranks below and above each."""
        part = slice(int(self.bounds_[j]), int(self.bounds_[j + 1]))
        return self.values_[part], self.low_[part], self.high_[part]

    def _smooth_map(self, j: int) -> tuple[Array, Array]:
        """Knots of a column's invertible map and their normal scores."""
        values, low, high = self._ranks(j)
        part = slice(int(self.bounds_[j]), int(self.bounds_[j + 1]))
        knots, codes = self.smooth_[part], ndtri(0.5 * (low + high))
        if self.opened_ is not None:
            opened = self.opened_[part]
            codes += np.cumsum(opened) - opened - opened @ (1 - high)
        return values[knots], codes[knots]

    def _on_grid(self, x: Array, j: int) -> Array:
        if self.few_values_[j]:
            return nearest(self._ranks(j)[0], x)
        if self.decimals_[j] >= 0:
            return np.round(x, int(self.decimals_[j])) + 0.0  # not -0.0
        return x


def _columnwise(function: Callable[[int, Array], Array], X: Array) -> Array:
    """What a function of (number of a column, its entries) makes of every column; missing entries stay NaN."""
    out = np.full_like(X, np.nan)
    for j, column in enumerate(X.T):
        missing = np.isnan(column)
        seen = ~missing if missing.any() else slice(None)
        out[seen, j] = function(j, column[seen])
    return out


def _rank_intervals(
    column: Array, weight: Array, max_knots: int, opening: tuple[bool, bool]
) -> tuple[Array, Array, Array, Array, bool]:
    """Distinct values of a column, the ranks F(x-), F(x) of each, and how far codes are moved apart behind it.

    Thinned to about `max_knots`. Last, whether values repeat often, and all of them are kept.
    """
    values, inverse = np.unique(column, return_inverse=True)
    high: Array = np.cumsum(np.bincount(inverse, weights=weight), dtype=np.float64)
    low = np.concatenate([[0.0], high[:-1]])
    high[-1] = 1.0
    few = len(values) <= min(max_knots, len(column) // _FEW_VALUES)
    opened = np.zeros(len(values))
    if not few:
        opened += _gaps(values, low, high) if opening[0] else 0.0
        opened = np.maximum(opened, _beside_spikes(low, high)) if opening[1] else opened
    if len(values) > max_knots:
        kept = np.searchsorted(high, np.linspace(0.0, 1.0, max_knots))  # by rank: a frequent value is among them
        sides = np.flatnonzero(opened)
        kept = np.unique([0, *kept.clip(max=len(values) - 1), len(values) - 1, *sides, *(sides + 1)])
        values, low, high, opened = values[kept], low[kept], high[kept], opened[kept]
    return values, low, high, opened, few


def _beside_spikes(low: Array, high: Array) -> Array:
    """How far codes are moved apart behind each of a column's values: beside an extreme that many rows have."""
    shares, opened = high - low, np.zeros(len(low))
    for end, neighbor, side in ((0, 1, 0), (-1, -2, -2)) if len(low) > 2 else ():
        if shares[end] >= max(SPIKE_SHARE, _SPIKE_RATIO * shares[neighbor]):
            opened[side] = _SPIKE_OPENING
    return opened


def _gaps(values: Array, low: Array, high: Array) -> Array:
    """How far codes are moved apart behind each of a column's values: 0 but at gaps."""
    opened, whole = np.zeros(len(values)), values[-1] - values[0]
    if len(values) < 3 or not np.isfinite(whole):
        return opened
    spacings, scale = np.diff(values) / whole, deviation((values - values[0]) / whole, high - low)
    around, borders = int(np.clip(len(spacings) // 20, 3, 50)), [0.0, 1.0]
    wide = np.flatnonzero(spacings > _LEAST_GAP * scale)
    for i in wide[np.argsort(-spacings[wide], kind="stable")]:
        others = np.r_[spacings[max(0, i - around) : i], spacings[i + 1 : i + 1 + around]]
        is_gap = len(others) > 0 and spacings[i] > _GAP_SPACINGS * np.median(others)
        if is_gap and np.abs(high[i] - borders).min() >= _GAP_SHARE:
            opened[i] = min(_OPENING * spacings[i] / scale, _WIDEST_OPENING)
            borders.append(high[i])
    return opened


def _evenly_scored(low: Array, high: Array, opened: Array) -> Mask:
    """Which of the values carry the smooth map: those nearest to even normal scores, ends and sides of gaps too."""
    n_knots = 1 + int(np.ceil(_KNOTS_PER_ROOT * len(low) ** (1 / 3)))
    if len(low) <= n_knots:
        return np.ones(len(low), dtype=bool)
    scores = ndtri(0.5 * (low + high))
    wanted = np.linspace(scores[0], scores[-1], n_knots)
    right = np.searchsorted(scores, wanted).clip(1, len(scores) - 1)
    closest = np.where(wanted - scores[right - 1] < scores[right] - wanted, right - 1, right)
    sides = np.flatnonzero(opened)
    return np.isin(np.arange(len(low)), [0, *closest, len(low) - 1, *sides, *(sides + 1)])


def _interpolate(x: Array, knots: Array, images: Array, outer_slope: float) -> Array:
    """Piecewise linear through the knots, going on with `outer_slope` beyond them."""
    inside = np.interp(x, knots, images)
    beyond = np.minimum(x - knots[0], 0.0) + np.maximum(x - knots[-1], 0.0)
    return inside + outer_slope * beyond
