"""One flow of an anomaly detector, and what its score keeps of the rows it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.anomaly.activity import Activity
from flowmatch.anomaly.field import FlowField, scoring_dtype
from flowmatch.anomaly.gaps import Gaps
from flowmatch.anomaly.scores import Score, State
from flowmatch.core.memory import Batches
from flowmatch.core.progress import progress
from flowmatch.core.storable import require, storable
from flowmatch.fitting import FitResult
from flowmatch.flow import expand_time
from flowmatch.model import FlowModel, condition_pieces, to_numpy
from flowmatch.preprocessing import FITTED_ELEMENTS, Container, LabelEncoder, SampleEncoder, SampleRows, TableContainer
from flowmatch.preprocessing.categories import points_at

Floats = NDArray[np.float64]

_SAME = 1e-6
"""Relative difference up to which a value counts as that of a constant column."""


@storable
@dataclass(frozen=True, eq=False)
class Member:
    """A fitted flow and its score.

    Attributes
    ----------
    flow : FitResult
    score : Score
    surprise : float
        What another value in a constant column of a table, a category that training has not seen, or channels that
        hardly move add to the score.
    state : dict of Tensor
        What the score keeps.
    gaps : Gaps or None
        What is expected of entries of a table that are missing.
    typical : ndarray of shape (n_columns,) or None
        What each column of a table adds to a normal row's score.
    activity : Activity or None
        How much normal signals move at least.
    """

    flow: FitResult
    score: Score
    surprise: float
    state: State
    gaps: Gaps | None = None
    typical: Floats | None = None
    activity: Activity | None = None

    @property
    def model(self) -> FlowModel:
        """The fitted flow."""
        return self.flow.model

    @cached_property
    def field(self) -> FlowField:
        """The flow as scores see it."""
        return FlowField.of(self.model)

    @property
    def rows_at_once(self) -> int:
        """Rows that are scored together."""
        size = int(np.prod(self.model.code_shape))
        return max(1, min(8192, FITTED_ELEMENTS // (size * self.score.copies(size))))

    def scores(self, rows: SampleRows, verbose: bool | int = False) -> Floats:
        """Anomaly scores of rows, (n,)."""
        size = int(np.prod(rows.sample_shape)) * self.rows_at_once
        pieces = progress(rows.chunks(size), "anomaly scores", verbose, rows.n_chunks(size))
        batches = Batches(f"{self.score!r}")
        parts = [part for _, piece in pieces for part in batches.run(self.contributions, piece)]
        return np.concatenate([part.reshape(len(part), -1).sum(axis=1) for part in parts])

    def contributions(self, X: Floats) -> Floats:
        """What each element of rows X (B, *sample_shape) adds to their scores, under the class that suits them best.

        Of entries that are missing nothing is known but what they add to a normal row's score, so that is what counts.
        """
        if (unseen := unseen_in(self.model.encoder, X)).any():
            return np.where(unseen, self.surprise, self.contributions(np.where(unseen, np.nan, X)))
        if self.typical is None or not (missing := np.isnan(X)).any():
            found = self.contributions_of_whole_rows(X)
        else:
            found = np.where(missing, self.typical, self.contributions_of_whole_rows(self.filled(X)))
        return found if self.activity is None else self.activity.added(X, found, self.surprise)

    def filled(self, X: Floats) -> Floats:
        """Rows of a table with expected values in the entries that are missing."""
        return X if self.gaps is None else fill_gaps(self.model.encoder, self.gaps, X)

    def contributions_of_whole_rows(self, X: Floats) -> Floats:
        """The same of rows that miss nothing."""
        encoder = self.model.encoder
        with torch.no_grad():
            # another value in a constant column must not change what the network says of the others
            known = np.where(encoder.varying, X, encoder.constants) if encoder.is_table else X
            found = to_numpy(self._under_the_best_class(self.codes(X), known))
        if encoder.is_table:
            first = np.flatnonzero(np.diff(encoder.code_columns, prepend=-1))  # a category has several codes
            whole = np.zeros_like(X)
            whole[:, encoder.varying] = np.add.reduceat(found, first, axis=1)
            found = whole
            fixed = np.flatnonzero(~encoder.varying)
            expected = encoder.constants[fixed]
            differs = np.abs(X[:, fixed] - expected) > _SAME * np.abs(expected)
            found[:, fixed] = np.where(differs, self.surprise, 0.0)
        return found - encoder.log_slopes(X) if self.score.is_density else found

    def codes(self, X: Floats) -> Tensor:
        """Codes of rows, where the field is."""
        return torch.as_tensor(self.model.encoder.encode(X)).to(self.field.source_scale)

    def condition(self, y: Any) -> Tensor:
        """Vectors of the conditions of rows, where the field is."""
        vectors = condition_pieces(self.model, y, len(y))(slice(0, len(y)))
        assert vectors is not None
        return vectors.to(self.field.source_scale)

    def known_rows(self, rows: SampleRows, y: NDArray[Any] | None) -> tuple[Tensor, Tensor | None]:
        """Codes and conditions of rows of which the class is known, at most about four million elements."""
        part = rows.subset(FITTED_ELEMENTS)
        X = self.filled(rows.read(part))
        if self.score.given_the_row:
            return self.codes(X), self.condition(as_condition(self.model.encoder.container, X))
        return self.codes(X), None if y is None else self.condition(y[part])

    def _under_the_best_class(self, codes: Tensor, X: Floats) -> Tensor:
        """Contributions under each row's own condition, or under the class of the lowest score."""
        conditions: list[Any] = [None]
        if self.score.given_the_row:
            conditions = [as_condition(self.model.encoder.container, X)]
        elif isinstance(self.model.conditions, LabelEncoder):
            conditions = [np.repeat(label, len(X)) for label in self.model.conditions.classes]
        vectors = (None if y is None else self.condition(y) for y in conditions)
        found = (self.score.contributions(self.field, self.state, codes, vector) for vector in vectors)
        return reduce(_rows_of_lower_scores, found)

    def to(self, device: torch.device) -> Member:
        """The same on a device."""
        flow = self.flow.to(device)
        dtype = scoring_dtype(flow.model)
        return replace(self, flow=flow, state={name: value.to(device, dtype) for name, value in self.state.items()})

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored member do not fit each other."""
        model = self.model
        self.score.validate()
        self.score.check_state(self.state, model.code_shape)
        require(not model.is_flow_map and model.missing is None, "flow")
        require((self.gaps is None) == (self.typical is None) == (not model.encoder.is_table), "gaps")
        if self.gaps is not None and self.typical is not None:
            require(self.gaps.reference.shape[1:] == model.code_shape, "gaps")
            require(self.typical.shape == model.sample_shape and np.isfinite(self.typical).all(), "typical")
        if self.activity is not None:
            self.activity.check_channels(model.sample_shape)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles do not hold the copy in double precision, and CPU tensors."""
        state = {name: value.cpu() for name, value in self.state.items()}
        return {**{name: value for name, value in vars(self).items() if name != "field"}, "state": state}


def _rows_of_lower_scores(found: Tensor, other: Tensor) -> Tensor:
    lower = other.flatten(1).sum(1) < found.flatten(1).sum(1)
    return torch.where(expand_time(lower, found), other, found)


def unseen_in(encoder: SampleEncoder, X: Floats) -> NDArray[np.bool_]:
    """Which entries are categories that no row of training had."""
    return (X < 0) & encoder.is_category if encoder.is_table else np.zeros(1, dtype=bool)


def fill_gaps(encoder: SampleEncoder, gaps: Gaps, X: Floats) -> Floats:
    """Rows X of a table with expected values in the entries that are missing."""
    missing = np.isnan(X)
    return np.where(missing, encoder.restore(gaps.fill(encoder.encode(X))), X) if missing.any() else X


def as_condition(container: Container, X: Floats) -> Floats:
    """Rows of a table as conditions: categories as points, of which none is nearer to another for its position.

    Entries of columns that hold nothing are 0.
    """
    if X.ndim == 2:
        X = np.nan_to_num(X)
    if not isinstance(container, TableContainer) or not container.categorical.any():
        return X
    columns = [
        points_at(container.n_levels(j), column) if coded else column[:, None]
        for j, (column, coded) in enumerate(zip(X.T, container.categorical, strict=True))
    ]
    return np.concatenate(columns, axis=1)
