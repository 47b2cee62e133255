"""Rows as latent codes, and latent codes as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.entries import with_entries
from flowmatch.core.progress import progress
from flowmatch.model.conditions import known_conditions
from flowmatch.model.flow_model import FlowModel
from flowmatch.model.integration import Integration, carry
from flowmatch.preprocessing import SampleRows

Array = NDArray[np.float64]


def to_numpy(tensor: Tensor) -> Array:
    """A tensor as an array in double precision."""
    return tensor.detach().cpu().double().numpy()


def encode_rows(model: FlowModel, rows: SampleRows, y: Any, integration: Integration) -> Array:
    """Where the flow, run backward, takes each row: (n, *code_shape), NaN for missing entries."""
    condition, parts = known_conditions(model, y, len(rows)), []
    for start, chunk in progress(rows.chunks(), "encoding all rows", integration.verbose, rows.n_chunks()):
        known = condition(slice(start, start + len(chunk)))
        parts.append(_carry(model, model.encoder.encode(chunk), known, integration, backward=True))
    return np.concatenate(parts)


def decode_codes(model: FlowModel, codes: Array, y: Any, integration: Integration) -> Any:
    """Samples of latent codes, in the container of the training data."""
    condition = known_conditions(model, y, len(codes))(slice(0, len(codes)))
    carried = _carry(model, codes, condition, integration, backward=False)
    return model.encoder.container.wrap(model.encoder.decode(carried))


def without_absent(model: FlowModel, codes: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Codes with zeros for NaN, conditions that tell which these are, in the codes' dtype, and a mask of them."""
    absent = codes.isnan()
    condition = None if condition is None else condition.to(codes)
    if model.missing is None or not bool(absent.any()):
        return codes, condition, absent
    codes = codes.nan_to_num(0.0)
    return codes, with_entries(condition, codes, torch.zeros_like(codes), absent.to(codes)), absent


def _carry(
    model: FlowModel, codes: Array, condition: Tensor | None, integration: Integration, *, backward: bool
) -> Array:
    """Integrate codes forward or backward in double precision."""
    network = model.precise_network()
    like = next(network.parameters())
    x, condition, absent = without_absent(model, torch.as_tensor(codes).to(like), condition)
    carried = carry(model, x, condition, integration, backward=backward, network=network)
    return to_numpy(carried.masked_fill(absent, torch.nan))
