"""Columns of keys in what a model draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flowmatch.model.flow_model import FlowModel
from flowmatch.preprocessing import TableContainer
from flowmatch.tables.frames import take_columns


def with_keys(model: FlowModel, identifiers: str) -> FlowModel:
    """The model, which leaves columns of keys empty unless `identifiers` is "fresh"."""
    container = model.encoder.container
    if identifiers == "fresh" or not isinstance(container, TableContainer):
        return model
    return replace(model, encoder=replace(model.encoder, container=replace(container, empty_keys=True)))


def without_dropped(model: FlowModel, identifiers: str, X: Any) -> Any:
    """A table without its columns of keys if `identifiers` is "drop"."""
    container = model.encoder.container
    if identifiers != "drop" or not isinstance(container, TableContainer):
        return X
    return take_columns(X, ~container.is_key)
