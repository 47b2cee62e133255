"""Rows as users pass them to `fit`, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.model import FlowModel, require_conditions, require_table
from flowmatch.preprocessing import Container, SampleRows, TableContainer
from flowmatch.preprocessing.validation import (
    check_layout,
    check_lengths,
    check_samples,
    check_weights,
    drop_weightless,
    table_of,
)
from flowmatch.tables.dates import EXACT
from flowmatch.tables.key_columns import besides_those_in


@dataclass(frozen=True)
class Rows:
    """Rows to train on.

    Attributes
    ----------
    samples : SampleRows of shape (n, *sample_shape)
    container : Container
        What they came in.
    y : conditions of the rows, or None
    weight : ndarray of shape (n,) with mean 1, or None
    """

    samples: SampleRows
    container: Container
    y: Any = None
    weight: NDArray[np.float64] | None = None

    @classmethod
    def weighted(cls, samples: SampleRows, container: Container, y: Any, sample_weight: Any) -> Rows:
        """Those of the rows that have a weight.

        Raises
        ------
        ValueError
            For conditions or weights that do not go with the rows.
        """
        check_lengths(len(samples), y=y, sample_weight=sample_weight)
        weight = check_weights(sample_weight, len(samples))
        if weight is not None:
            samples, y, weight = drop_weightless(samples, y, weight)
        return cls(samples, container, y, weight)


def read_rows(
    reader: Any, X: Any, y: Any, sample_weight: Any, categorical_features: Any, identifier_columns: Any = None
) -> Rows:
    """The rows of a first fit.

    Parameters
    ----------
    reader : estimator
        Unfitted; it learns the names of X's columns, and with a `network` that is chosen by name the layout of grids is
        checked.
    X, y, sample_weight
        As in `fit`.
    categorical_features, identifier_columns : as in `FlowMatchingGenerator`

    Raises
    ------
    ValueError
        For data that no flow can be fitted to.
    """
    table = table_of(X, categorical_features, identifier_columns)
    samples = check_samples(reader, X, reset=True, min_samples=2, container=table, missing=True)
    container = samples.container(X) if table is None else table
    if table is None and len(samples.sample_shape) == 1:  # a table on disk
        if samples.dtype.strip("u") == "int64" and max(*samples.summary.high, *-samples.summary.low) > EXACT:
            raise ValueError("X holds integers beyond 2^53, which floats cannot tell apart: load it into memory.")
        container = TableContainer.of_numbers(container, samples.sample_shape[0])
    rows = Rows.weighted(samples, container, y, sample_weight)
    if isinstance(reader.network, str) and reader.network != "mlp":
        check_layout(rows.samples.shape)
    return rows


def rows_like_fit(estimator: Any, X: Any, min_samples: int = 1, unknown: str = "error") -> SampleRows:
    """Rows like those that a generator was fitted to; entries may be missing if its model knows what that means.

    Categories that training has not seen are an error, missing, or -1 with ``unknown="flag"``.
    """
    model = estimator.model_
    rows = check_samples(
        estimator,
        X,
        reset=False,
        min_samples=min_samples,
        container=model.encoder.container,
        missing=model.missing is not None or model.encoder.empty,
        unknown="error" if unknown == "error" else "flag",
    )
    return without_unseen(model, rows) if unknown == "missing" else rows


def rows_to_keep_from(generator: Any, X: Any) -> NDArray[np.float64] | None:
    """Rows like those of `fit` as numbers (n, d), which samples are to keep apart from; None as it is."""
    if X is None:
        return None
    require_table(generator.model_, "apart_from compares")
    try:
        return rows_like_fit(generator, X, min_samples=2).array()
    except ValueError as error:
        raise ValueError(f"apart_from has to be a table like X of fit: {error}") from error


def rows_to_fill(generator: Any, X: Any, unknown: str) -> tuple[SampleRows, SampleRows]:
    """Rows like those of `fit` as they are, and what is known of them if categories may be unknown."""
    own = rows_like_fit(generator, X, unknown="flag" if unknown == "missing" else "error")
    return own, without_unseen(generator.model_, own) if unknown == "missing" else own


def without_unseen(model: FlowModel, rows: SampleRows) -> SampleRows:
    """Rows of a table that miss the categories which training has not seen."""
    if not model.encoder.is_table or not model.encoder.is_category.any():
        return rows
    values = rows.array()
    unseen = model.encoder.unseen(values)
    if unseen.any() and model.missing is None:
        raise ValueError(
            f"column {np.flatnonzero(unseen.any(axis=0))[0]} of X holds a category that training has not seen, and "
            "this model has not learned what a missing entry is: fit with masked_share > 0, such as 0.3."
        )
    return SampleRows(np.where(unseen, np.nan, values)) if unseen.any() else rows


def read_rows_like(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Rows:
    """Rows to train on, like those that a generator was fitted to."""
    model = estimator.model_
    samples, container = rows_like_fit(estimator, X, 2, estimator.unknown_categories), model.encoder.container
    if isinstance(container, TableContainer) and container.keys:
        container = replace(container, keys=besides_those_in(container.keys, X))
    rows = Rows.weighted(samples, container, y, sample_weight)
    require_conditions(model, rows.y)
    return rows
