"""Conditions of rows as a fitted flow reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowmatch.model.flow_model import FlowModel
from flowmatch.preprocessing import plain_conditions

Pieces = Callable[[slice], Tensor | None]
"""Vectors (B, k) of the conditions of some rows, on the model's device; None of a model without conditions."""


def require_conditions(model: FlowModel, y: Any) -> None:
    """Raise a ValueError unless there are conditions exactly if the model has learned any."""
    if model.conditions is None:
        if y is not None:
            raise ValueError("y was given, but this model was fitted without conditions.")
        return
    if y is None:
        raise ValueError("this model was fitted with conditions y; pass them here too.")
    known = model.conditions.container.columns
    names = tuple(getattr(y, "columns", known))
    if known and names != known:
        raise ValueError(f"y has the columns {list(names)}, but in training they were {list(known)}.")


def condition_pieces(model: FlowModel, y: Any, n_samples: int) -> Pieces:
    """Vectors of conditions, one for all rows or one for each."""
    require_conditions(model, y)
    if model.conditions is None:
        return lambda part: None
    pieces, device = model.conditions.pieces(plain_conditions(y), n_samples), model.device
    return lambda part: torch.as_tensor(pieces(part), device=device)


def known_conditions(model: FlowModel, y: Any, n_samples: int) -> Pieces:
    """The same of given rows; without `y`, "no condition" if the model has learned what that means.

    Raises
    ------
    ValueError
        If it has not.
    """
    if y is not None or model.conditions is None:
        return condition_pieces(model, y, n_samples)
    if model.condition_dropout == 0:
        raise ValueError(
            "this model was fitted with conditions y; pass them here too, or fit with condition_dropout > 0 to learn "
            "the unconditional distribution as well."
        )
    size, device = model.conditions.size, model.device
    return lambda part: torch.zeros(part.stop - part.start, size, device=device)


def conditions_in_their_container(model: FlowModel, y: Any, n_samples: int) -> Any:
    """Conditions of samples in the container that `fit` got them in."""
    if model.conditions is None:
        return None
    return model.conditions.container.wrap(model.conditions.expand(plain_conditions(y), n_samples))
