"""Several anomaly scores as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch.anomaly.field import FlowField
from flowmatch.anomaly.neighbors import Neighbors
from flowmatch.anomaly.scores import Latent, OneStep, Score, State
from flowmatch.core.checks import check_number, check_sequence
from flowmatch.core.storable import require
from flowmatch.flow import expand_time

_FLOOR = 1e-3
"""Scores are compared from this share of a normal row's upwards: below, differences mean nothing."""

_LEAST_SPREAD = 0.1
"""A score that is the same for all normal rows must not outweigh the others."""

_FOR_TABLES: tuple[tuple[Score, float], ...] = (
    (OneStep(), 1.0),
    (Neighbors(), 2.0),
    (Neighbors(space="latent", locality=1 / 3, n_steps=2, max_reference=1024), 1.0),
)
_FOR_TABLES_WITH_OUTLIERS: tuple[tuple[Score, float], ...] = (
    (OneStep(), 1.0),
    (Neighbors(n_neighbors=20, locality=0.0), 2.0),
)
_FOR_GRIDS: tuple[tuple[Score, float], ...] = ((OneStep(times=(0.9,)), 1.0), (Latent(), 1.0))
"""What was measured to rank best, and how much each counts."""


@dataclass(frozen=True)
class Combined(Score):
    """Geometric mean of several scores, each in units of a normal row's.

    ``S = prod_k (S_k / typical_k)^w_k``, where log typical_k is the mean of log S_k over rows that the flow was not
    trained on, and w_k is in proportion to the score's weight over its log's standard deviation on them, so that
    scores of different spread have the same say; the w_k add up to 1. A normal row so has a score around 1. The
    contribution of an element is S times the mean of its shares in the scores, weighted by w_k.

    Parameters
    ----------
    scores : tuple of Score or None, default=None
        None takes what ranked best: for tables the one-step residual, twice the distance to the nearest rows, and
        that between latent codes of two solver steps; for signals, images and fields the one-step residual at
        t = 0.9 and the norm of the latent code.
    weights : tuple of float or None, default=None
        How much each score counts; None for equal weights.
    with_outliers : bool, default=False
        Whether the training rows hold outliers. Without `scores`, tables then take the one-step residual, and twice
        the distance to twenty rows, which a few outliers side by side do not shorten. The detector sets it by itself
        where `contamination` is a number.
    """

    scores: tuple[Score, ...] | None = None
    weights: tuple[float, ...] | None = None
    with_outliers: bool = False

    def validate(self) -> None:
        if self.scores is None:
            if self.weights is not None:
                raise ValueError(f"weights={self.weights!r} needs scores, one for each weight.")
            return
        if not isinstance(self.scores, (tuple, list)) or not self.scores:
            raise ValueError(f"scores must be a tuple of scores, got {self.scores!r}.")
        for score in self.scores:
            if not isinstance(score, Score) or score.given_the_row or score.is_density or isinstance(score, Combined):
                raise ValueError(
                    f"scores holds {score!r}; those that can be combined are OneStep, Latent, Denoising, Rebuilding "
                    "and Neighbors."
                )
            score.validate()
        if self.weights is not None:
            if not isinstance(self.weights, (tuple, list)) or len(self.weights) != len(self.scores):
                raise ValueError(f"weights must be {len(self.scores)} numbers, one a score, got {self.weights!r}.")
            check_sequence("weights", self.weights, check_number, 0.0, open_low=True)

    def fit(self, field: FlowField, codes: Tensor, condition: Tensor | None, previous: State) -> State:
        parts = {
            f"{k}.{name}": value
            for k, (score, _) in enumerate(self._weighted(codes))
            for name, value in score.fit(field, codes, condition, _part_of(previous, k)).items()
        }
        return {**previous, **parts}

    def calibrate(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> State:
        sums = torch.stack([part.flatten(1).sum(1) for part in self._parts(field, state, codes, condition)])
        floor = _FLOOR * sums.mean(1, keepdim=True).clamp_min(_FLOOR)
        logs = (sums + floor).log()
        spread = logs.std(1, correction=0).clamp_min(_LEAST_SPREAD)
        weights = [weight for _, weight in self._weighted(codes)]
        weight = torch.tensor(weights, dtype=spread.dtype, device=spread.device) / spread
        return {**state, "floor": floor[:, 0], "typical": logs.mean(1), "weight": weight / weight.sum()}

    def check_state(self, state: State, code_shape: tuple[int, ...]) -> None:
        scores = self._weighted(torch.empty(0, *code_shape))
        for name in ("floor", "typical", "weight"):
            require(state[name].shape == (len(scores),), name)
        require(bool((state["floor"] > 0).all()), "floor")
        require(bool((state["weight"] >= 0).all()) and bool(state["weight"].sum() > 0), "weight")
        for k, (score, _) in enumerate(scores):
            score.check_state(_part_of(state, k), code_shape)

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        log_score, shares = torch.zeros_like(codes.flatten(1)[:, 0]), torch.zeros_like(codes)
        for k, part in enumerate(self._parts(field, state, codes, condition)):
            elements = part + state["floor"][k] / part[0].numel()
            total = elements.flatten(1).sum(1)
            log_score = log_score + state["weight"][k] * (total.log() - state["typical"][k])
            shares = shares + state["weight"][k] * elements / expand_time(total, codes)
        return shares * expand_time(log_score.exp(), codes)

    def _weighted(self, codes: Tensor) -> tuple[tuple[Score, float], ...]:
        """The scores for such rows, and how much each counts."""
        if self.scores is None:
            if codes.ndim > 2:
                return _FOR_GRIDS
            return _FOR_TABLES_WITH_OUTLIERS if self.with_outliers else _FOR_TABLES
        return tuple(zip(self.scores, self.weights or [1.0] * len(self.scores), strict=True))

    def _parts(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> list[Tensor]:
        return [
            score.contributions(field, _part_of(state, k), codes, condition)
            for k, (score, _) in enumerate(self._weighted(codes))
        ]


def _part_of(state: State, k: int) -> State:
    """What the k-th score keeps."""
    prefix = f"{k}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
