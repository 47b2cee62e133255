"""Entries of a table's rows that a call gives, and those that rows miss as in training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.model.flow_model import FlowModel
from flowmatch.preprocessing import TableContainer, entry_of, plain_conditions

Array = NDArray[np.float64]


def require_masked_training(model: FlowModel, what: str) -> None:
    """Raise a ValueError unless the model is one of a table, and has learned to fill entries."""
    if not model.encoder.is_table:
        raise ValueError(
            f"{what} entries of tables, but this model was fitted to samples of shape {model.encoder.sample_shape}."
        )
    if model.missing is None or model.missing.masked_share == 0:
        raise ValueError(f"{what} entries, which this model has not learned: fit with masked_share > 0, such as 0.3.")


def given_entries(model: FlowModel, given: Any, n_samples: int) -> Array | None:
    """The given entries as a table (n_samples, n_columns) of floats, NaN elsewhere; None without any.

    Raises
    ------
    ValueError
        For columns that there are not, and values that training has not come near.
    """
    if given is None or (hasattr(given, "__len__") and len(given) == 0):
        return None
    require_masked_training(model, "given fixes")
    if not isinstance(given, Mapping) and not hasattr(given, "columns"):
        raise ValueError(
            f"given must be a dict of columns and their values, such as {{'age': 40}}, or a table of them, got "
            f"{type(given).__name__}."
        )
    container = model.encoder.container
    assert isinstance(container, TableContainer)
    values = np.full((n_samples, *model.encoder.sample_shape), np.nan)
    for name in given.keys() if isinstance(given, Mapping) else given.columns:
        column = container.position(name)
        entries = container.numbers_of(column, given[name])
        if len(entries) not in (1, n_samples):
            raise ValueError(
                f"given[{name!r}] has {len(entries)} values; expected one, or one for each of {n_samples} samples."
            )
        _check_given(model, container, name, column, entries)
        values[:, column] = entries
    return values


def missing_codes(
    model: FlowModel, n_samples: int, y: Any, values: Array | None, random: np.random.RandomState
) -> NDArray[np.bool_] | None:
    """Which codes of the samples are missing, as in training rows of like conditions; None after whole rows."""
    if model.missing is None or model.missing.patterns is None:
        return None
    vectors = None if model.conditions is None else model.conditions.encode(plain_conditions(y), n_samples)
    columns = model.encoder.code_columns
    present = np.zeros(len(columns), dtype=bool) if values is None else ~np.isnan(values[0])[columns]
    return model.missing.patterns.draw(n_samples, vectors, present, random)


def _check_given(model: FlowModel, container: TableContainer, name: Any, column: int, entries: Array) -> None:
    """Raise a ValueError for values that training has not come near."""
    encoder, shown = model.encoder, partial(entry_of, container, column)  # as the user writes it
    if encoder.empty[column]:
        raise ValueError(f"given[{name!r}]: the column held no value in training, so that nothing is known of it.")
    if np.isnan(entries).any():
        raise ValueError(f"given[{name!r}] has a missing value; leave the column out to have it generated.")
    if encoder.is_category[column]:
        shares = encoder.category_shares(column)
        lacking = entries[shares[entries.astype(np.intp)] == 0]
        if len(lacking):
            raise ValueError(f"given[{name!r}] is {shown(lacking[0])!r}, which does not occur in the training data.")
        return
    table = np.zeros((len(entries), len(container.kinds)))
    table[:, column] = entries
    kept = container.read(container.wrap(table))[:, column]
    lost = np.abs(kept - entries) > container.tolerance(len(container.kinds))[column] * np.abs(entries)
    if lost.any():
        raise ValueError(
            f"given[{name!r}] is {shown(entries[lost][0])}, which the column cannot hold: {shown(kept[lost][0])} "
            "would come back."
        )
    low, high = encoder.limits[:, column]
    beyond = entries[(entries < low) | (entries > high)]
    if len(beyond):
        raise ValueError(
            f"given[{name!r}] is {shown(beyond[0])}, outside the range of the training data, {shown(low)} to "
            f"{shown(high)}."
        )
