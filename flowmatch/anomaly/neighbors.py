"""Distance to the nearest training rows, on the flow's own scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from flowmatch.anomaly.field import FlowField
from flowmatch.anomaly.scores import Score, State
from flowmatch.core.checks import check_choice, check_count, check_number, checked
from flowmatch.core.storable import require
from flowmatch.flow import expand_time
from flowmatch.model import to_numpy

SPACES = ("data", "latent")

_FLOOR = 1e-3
"""Share of the mean distance that is added to every one; and that of the variance that stands in for no distance."""

_TINY = 1e-6
"""Least to be added, on the flow's scale of about 1."""

_ASKED = 4
"""How many times the neighbors wanted are searched; among these, those at equal distances are told apart."""


@dataclass(frozen=True)
class Neighbors(Score):
    """Squared distance to the nearest training rows, measured by how far these are from each other.

    ``S = mean_i |z - n_i|^2 / d(n)^locality`` over the k nearest training rows n_i, where d(n) is the mean over
    them of their own mean squared distance to their k nearest. With a `locality` of 0 the ranking is that of
    DTE-NP, the non-parametric estimate of diffusion time (Livernoche et al., 2024); with 1 it is close to that of the
    local outlier factor (Breunig et al., 2000). Between the two, sparse and dense regions get their due.

    An exact copy of the row among the training rows is passed over once, so that training rows are scored by the
    others.

    Parameters
    ----------
    n_neighbors : int, default=5
    locality : float, default=0.5
        From 0 to 1.
    space : {"data", "latent"}, default="data"
        Where distances are taken: on the scale that the flow works on, or between the rows' latent codes, where
        every direction has the same scale and what the columns have to do with each other is undone.
    n_steps : int or None, default=None
        Solver steps to the latent codes; None takes the detector's. Fewer than an exact code needs do: what counts is
        that codes of like rows are alike.
    max_reference : int, default=2048
        Most training rows that are searched, drawn at random from larger data.
    """

    n_neighbors: int = checked(5, check_count)
    locality: float = checked(0.5, check_number, 0.0, 1.0, closed_high=True)
    space: str = checked("data", check_choice, SPACES)
    n_steps: int | None = checked(None, check_count)
    max_reference: int = checked(2048, check_count, low=2)

    def fit(self, field: FlowField, codes: Tensor, condition: Tensor | None, previous: State) -> State:
        kept = np.random.RandomState(0).permutation(len(codes))[: self.max_reference]
        rows = torch.as_tensor(kept, device=codes.device)
        state = {"codes": codes[rows]}
        if condition is not None:
            state["condition"] = condition[rows]
        if previous:  # rows of later fits come first, the oldest leave
            state = {name: torch.cat([new, previous[name]])[: self.max_reference] for name, new in state.items()}
        reference = self._place(field, state["codes"], state.get("condition"))
        nearest = self._nearest(reference, reference, state["codes"], state["codes"])
        spread = _mean_squared_differences(reference, reference, nearest).flatten(1).sum(1)
        scale = torch.maximum(spread.mean(), _FLOOR * reference.var(0, correction=0).sum())  # copies have no distance
        floor = (_FLOOR * scale).clamp_min(_TINY)
        placed = {} if self.space == "data" else {"reference": reference}
        return {**state, **placed, "spread": spread + floor}

    def check_state(self, state: State, code_shape: tuple[int, ...]) -> None:
        n_rows = len(state["spread"])
        reference = state["codes"] if self.space == "data" else state["reference"]
        require(n_rows > 1 and state["codes"].shape == reference.shape == (n_rows, *code_shape), "codes")
        require(state["spread"].shape == (n_rows,) and bool((state["spread"] > 0).all()), "spread")
        require("condition" not in state or state["condition"].shape[:-1] == (n_rows,), "condition")

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        place, reference = self._place(field, codes, condition), state.get("reference", state["codes"])
        nearest = self._nearest(place, reference, codes, state["codes"])
        squared = _mean_squared_differences(place, reference, nearest)
        around = state["spread"][torch.as_tensor(nearest, device=place.device)].mean(1)
        return squared / expand_time(around.pow(self.locality), squared)

    def _place(self, field: FlowField, codes: Tensor, condition: Tensor | None) -> Tensor:
        if self.space == "data":
            return codes
        return replace(field, n_steps=self.n_steps or field.n_steps).to_noise(codes, condition)

    def _nearest(self, place: Tensor, reference: Tensor, codes: Tensor, known: Tensor) -> NDArray[np.intp]:
        """Positions (B, k) of the nearest reference rows, one exact copy of the row passed over.

        Copies are those of equal codes: distances to them are zero only up to rounding.
        """
        k = min(self.n_neighbors, len(reference) - 1)
        search = NearestNeighbors(n_neighbors=min(len(reference), _ASKED * (k + 1)), algorithm="brute")
        places, references = to_numpy(place.flatten(1)), to_numpy(reference.flatten(1))
        asked = np.sort(search.fit(references).kneighbors(places, return_distance=False), axis=1)
        # its distances are rounded as the batch is; of rows at equal ones, the first are taken for any batch
        distances = np.stack([np.square(places - references[row]).sum(axis=1) for row in asked.T], axis=1)
        found = np.take_along_axis(asked, np.argsort(distances, axis=1, kind="stable")[:, : k + 1], axis=1)
        ranked = torch.as_tensor(found, device=codes.device).T
        is_copy = torch.stack([(known[row] == codes).flatten(1).all(1) for row in ranked], dim=1).cpu().numpy()
        passed_over = np.where(is_copy.any(axis=1), is_copy.argmax(axis=1), k)
        return found[np.arange(k + 1) != passed_over[:, None]].reshape(-1, k)


def _mean_squared_differences(place: Tensor, reference: Tensor, nearest: NDArray[np.intp]) -> Tensor:
    """Squared differences from the nearest rows, element by element, their mean over these."""
    total = torch.zeros_like(place)
    for neighbor in torch.as_tensor(nearest, device=place.device).T:
        total = total + (place - reference[neighbor]).square()
    return total / nearest.shape[1]
