"""Conformal intervals: how far outcomes that a forecaster was not trained on were from the middle of its draws."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable
from flowmatch.model import FlowModel

Array = NDArray[np.float64]


@storable
@dataclass(frozen=True, eq=False)
class Conformal:
    """How far from the middle of their forecasts held-out outcomes were, in ranks.

    The score of an outcome is the distance of its rank among the draws, interpolated, from 1/2; beyond the outermost
    draws ranks go on in proportion to the distance, in standard deviations of the draws. An interval holds all values
    whose score is no larger than that of the k-th of n held-out outcomes, ``k = ceil((n + 1) coverage)``: split
    conformal prediction (Vovk et al., 2005; Romano et al., 2019, for quantiles), with the ranks of distributional
    conformal prediction (Chernozhukov et al., 2021), which serve every coverage at once.

    With models of folds, every outcome is scored by the model that has not seen it, gives an interval of that model's
    forecast with its own score, and the ends are order statistics of these ends: CV+ (Barber et al., 2021, section 3),
    for nested sets (Gupta et al., 2022).

    Attributes
    ----------
    scores : ndarray of shape (n, q)
        Of the q elements of outcomes, each by itself.
    n_samples : int
        Draws that ranks are of.
    fold : ndarray of int, shape (n,)
        The model that has not seen an outcome; empty without models.
    models : tuple of FlowModel
        Of the folds; empty where the scores are of the forecaster itself.
    """

    scores: Array
    n_samples: int
    fold: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    models: tuple[FlowModel, ...] = ()

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored calibration do not fit each other."""
        require(self.scores.ndim == 2 and len(self.scores) and (self.scores >= 0).all(), "scores")
        require(np.isfinite(self.scores).all() and self.n_samples > 1, "scores")
        require(self.fold.shape == (len(self.scores) if self.models else 0,), "fold")
        require(not self.models or set(self.fold.tolist()) == set(range(len(self.models))), "fold")

    def to(self, device: torch.device) -> Conformal:
        """The same on a device."""
        return replace(self, models=tuple(model.to(device) for model in self.models))


def distance_from_middle(draws: Array, truth: Array, width: Array) -> Array:
    """How far (B, q) the ranks of values (B, q) among sorted draws (m, B, q) are from 1/2; 0 to 1/2 inside of them.

    A value that several draws share has all their ranks, and the distance is that of the nearest.
    """
    m, below, up_to = len(draws), (draws < truth).sum(axis=0), (draws <= truth).sum(axis=0)
    left, right = (np.take_along_axis(draws, place.clip(0, m - 1)[None], axis=0)[0] for place in (below - 1, below))
    spread = np.maximum(draws.std(axis=0), width)
    gap = np.where(right > left, right - left, 1.0)
    rank = below + (truth - left) / gap
    rank = np.where(below == 0, 1 - (m + 1) * (draws[0] - truth) / spread, rank)
    rank = np.where(below == m, m + (m + 1) * (truth - draws[-1]) / spread, rank)
    shared = up_to > below
    lowest, highest = np.where(shared, below + 1, rank), np.where(shared, up_to, rank)
    return np.maximum(np.maximum(lowest / (m + 1) - 0.5, 0.5 - highest / (m + 1)), 0.0)


def value_at(draws: Array, levels: Array, width: Array) -> Array:
    """Values (k, B, q) of ranks (k, q) among sorted draws (m, B, q), the inverse of interpolated ranks."""
    m, columns = len(draws), np.arange(draws.shape[2])
    place = levels * (m + 1) - 1
    inside = place.clip(0, m - 1)
    left = np.floor(inside).astype(np.intp)

    def at(rows: NDArray[np.intp]) -> Array:
        return np.moveaxis(draws[rows, :, columns], 2, 1)

    between = (inside - left)[:, None] * (at((left + 1).clip(max=m - 1)) - at(left))
    beyond = ((place - inside) / (m + 1))[:, None] * np.maximum(draws.std(axis=0), width)
    return at(left) + between + beyond
