"""Several anomaly scores as one."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field

import torch
from torch import Tensor

from flowmatch.anomaly.field import FlowField
from flowmatch.anomaly.neighbors import Neighbors
from flowmatch.anomaly.scores import OneStep, Score, State

_FLOOR = 1e-3
"""Scores are compared from this share of a normal row's upwards: below, differences mean nothing."""


def default_parts() -> tuple[Score, ...]:
    """The scores whose combination was measured to rank best over tables."""
    return OneStep(), Neighbors()


@dataclass(frozen=True)
class Combined(Score):
    """Geometric mean of several scores, each in units of a normal row's.

    ``S = prod_k (S_k / typical_k)^w_k``, where log typical_k is the mean of log S_k over rows that the flow was not
    trained on, and w_k is in inverse proportion to its standard deviation over them, so that scores of
    different spread have the same say; the w_k add up to 1. A normal row so has a score around 1. A number's
    contribution is S times the mean of its shares in the scores, weighted by w_k.

    Parameters
    ----------
    scores : tuple of Score
    """

    scores: tuple[Score, ...] = dataclass_field(default_factory=default_parts)

    def validate(self) -> None:
        if not isinstance(self.scores, (tuple, list)) or not self.scores:
            raise ValueError(f"scores must be a tuple of scores, got {self.scores!r}.")
        for score in self.scores:
            if not isinstance(score, Score) or score.given_the_row or score.is_density or isinstance(score, Combined):
                raise ValueError(
                    f"scores holds {score!r}; those that can be combined are OneStep, Latent, Denoising, Rebuilding "
                    "and Neighbors."
                )
            score.validate()

    def fit(self, field: FlowField, codes: Tensor, condition: Tensor | None, previous: State) -> State:
        parts = {
            f"{k}.{name}": value
            for k, score in enumerate(self.scores)
            for name, value in score.fit(field, codes, condition, _part_of(previous, k)).items()
        }
        return {**previous, **parts}

    def calibrate(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> State:
        if "weight" in state:  # scores keep their unit when training goes on
            return state
        sums = torch.stack([part.flatten(1).sum(1) for part in self._parts(field, state, codes, condition)])
        floor = _FLOOR * sums.mean(1, keepdim=True).clamp_min(torch.finfo(sums.dtype).tiny)
        logs = (sums + floor).log()
        spread = logs.std(1, correction=0).clamp_min(_FLOOR)
        return {
            **state,
            "floor": floor[:, 0],
            "typical": logs.mean(1),
            "weight": spread.reciprocal() / spread.reciprocal().sum(),
        }

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        log_score, shares = torch.zeros_like(codes.flatten(1)[:, 0]), torch.zeros_like(codes)
        for k, part in enumerate(self._parts(field, state, codes, condition)):
            numbers = part + state["floor"][k] / part[0].numel()
            total = numbers.flatten(1).sum(1)
            log_score = log_score + state["weight"][k] * (total.log() - state["typical"][k])
            shares = shares + state["weight"][k] * numbers / _as_column(total, codes)
        return shares * _as_column(log_score.exp(), codes)

    def _parts(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> list[Tensor]:
        return [score.contributions(field, _part_of(state, k), codes, condition) for k, score in enumerate(self.scores)]


def _part_of(state: State, k: int) -> State:
    """What the k-th score keeps."""
    prefix = f"{k}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _as_column(values: Tensor, like: Tensor) -> Tensor:
    """Values (B,) that broadcast against samples (B, *shape)."""
    return values.view(-1, *[1] * (like.ndim - 1))
