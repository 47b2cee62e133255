"""Constraints of a table in what a model draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.model.flow_model import FlowModel
from flowmatch.preprocessing import TableContainer

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def keep_constraints(
    model: FlowModel,
    values: NDArray[Any],
    free: Mask,
    redraw: Callable[[NDArray[np.intp], int], Array],
    *,
    must: bool = True,
) -> NDArray[Any]:
    """Drawn rows (n, d) that keep the model's constraints; entries that are not `free`, and absent ones, stay.

    With `must`, rows for which there is no way are an error, else a warning.
    """
    rules, container = model.encoder.constraints, model.encoder.container
    if rules is None or not len(values):
        return values
    assert isinstance(container, TableContainer)
    values = np.asarray(values, dtype=np.float64)
    return rules.keep(container, values, free & ~np.isnan(values), redraw, must=must)


def possible_entries(model: FlowModel, entries: Array) -> Mask:
    """Entries that are missing in rows (n, d) which the constraints do not rule out as they are."""
    rules = model.encoder.constraints
    return np.isnan(entries) if rules is None else np.isnan(entries) & rules.possible(entries)[:, None]


def check_possible(model: FlowModel, entries: Array | None) -> None:
    """Raise a ValueError, which names a column, for given entries that no row can have."""
    rules, container = model.encoder.constraints, model.encoder.container
    if rules is not None and entries is not None:
        assert isinstance(container, TableContainer)
        rules.check_given(container, entries)
