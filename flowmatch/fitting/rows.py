"""Rows as users pass them to `fit`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.model import require_conditions
from flowmatch.preprocessing import Container, SampleRows, TableContainer
from flowmatch.preprocessing.table_dates import EXACT
from flowmatch.preprocessing.validation import (
    check_layout,
    check_lengths,
    check_samples,
    check_weights,
    drop_weightless,
    table_of,
)


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


def read_rows(reader: Any, X: Any, y: Any, sample_weight: Any, categorical_features: Any) -> Rows:
    """The rows of a first fit.

    Parameters
    ----------
    reader : estimator
        Unfitted; it learns the names of X's columns, and with a `network` that is chosen by name the layout of grids is
        checked.
    X, y, sample_weight
        As in `fit`.
    categorical_features : as in `FlowMatchingGenerator`

    Raises
    ------
    ValueError
        For data that no flow can be fitted to.
    """
    table = table_of(X, categorical_features)
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


def rows_like_fit(estimator: Any, X: Any, min_samples: int = 1) -> SampleRows:
    """Rows like those that a generator was fitted to; entries may be missing if its model knows what that means."""
    model = estimator.model_
    return check_samples(
        estimator,
        X,
        reset=False,
        min_samples=min_samples,
        container=model.encoder.container,
        missing=model.missing is not None or model.encoder.empty,
    )


def read_rows_like(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Rows:
    """Rows to train on, like those that a generator was fitted to."""
    model = estimator.model_
    rows = Rows.weighted(rows_like_fit(estimator, X, 2), model.encoder.container, y, sample_weight)
    require_conditions(model, rows.y)
    return rows
