"""One flow of an anomaly detector, and what its score keeps of the rows it was trained on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from flowmatch import anomaly, preprocessing
from flowmatch.anomaly.held_out import FEW_ROWS, FOLD_STEPS, MOST_HELD_OUT, STEPS_WITH_OUTLIERS, Data, take
from flowmatch.core.batches import rows_per_batch
from flowmatch.fitting.parameters import resolve_network, resolve_path, resolve_source, resolve_transform
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.networks import Bottleneck
from flowmatch.preprocessing import SampleRows
from flowmatch.preprocessing.categories import points_of

Floats = NDArray[np.float64]

FLOW_PARAMETERS = (
    "path",
    "coupling",
    "source",
    "loss",
    "loss_weight",
    "max_iter",
    "batch_size",
    "learning_rate",
    "training",
    "solver",
    "n_steps",
    "device",
    "verbose",
)
"""Parameters that go to the flows as they are."""

_SAME = 1e-6
"""Relative difference up to which a value counts as that of a constant column."""


_FEW_HELD_OUT = 20
"""So few rows tell no unit, least of all of themselves."""

_MOST_TYPICAL = 500
"""Rows that tell what a cell adds to a normal row's score; a log-density takes its time."""


class NormalFlow(FlowMatchingGenerator):
    """A generator whose warnings and announcements are the detector's business."""

    _after_divergence = "The detector is left as it was."
    table: preprocessing.TableContainer | None = None
    """What the rows' numbers stand for, if they are not all what they look like."""

    def _container_of(self, X: Any, *, fresh: bool) -> preprocessing.Container | None:
        return self.table if fresh else self._encoder.container

    def _announce(self, samples: Any, components: Any) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Member:
    """A fitted flow and its score.

    Attributes
    ----------
    flow : NormalFlow
    score : Score
    state : dict of Tensor
        What the score keeps.
    surprise : float
        What another value in a constant column of a table adds to the score.
    gaps : Gaps or None
        What is expected of cells of a table that are missing.
    typical : ndarray of shape (n_columns,) or None
        What each column of a table adds to a normal row's score.
    """

    flow: NormalFlow
    score: anomaly.Score
    state: anomaly.State
    surprise: float
    gaps: anomaly.Gaps | None = None
    typical: Floats | None = None

    @classmethod
    def fit(
        cls,
        flow: NormalFlow,
        score: anomaly.Score,
        rows: SampleRows,
        y: NDArray[Any] | None,
        weight: Floats | None,
        before: Member | None = None,
    ) -> Member:
        """Train `flow` on the rows and let the score see them; go on with both if there is a member `before`."""
        if len(rows.sample_shape) == 1 and rows.summary.n_missing.any():
            rows = _without_gaps(flow, rows, weight, before)
        condition = _as_condition(flow.table, rows.array()) if score.given_the_row else y
        flow._fit(rows, condition, weight, go_on=before is not None)
        if isinstance(flow._conditions, preprocessing.NumberEncoder):  # the training rows; they are not drawn from
            flow._conditions = replace(flow._conditions, rows=flow._conditions.rows[:1], shares=np.ones(1))
        member = cls(flow, score, {}, float(ndtri(0.5 / (len(rows) + 1)) ** 2))
        known = member._known(rows, y)
        if flow._encoder.is_table:
            gaps = anomaly.Gaps.fit(known[0].cpu().double().numpy(), None if before is None else before.gaps)
            member = replace(member, gaps=gaps, typical=None if before is None else before.typical)
        return member._with_state(score.fit(member.field, *known, {} if before is None else before.state))

    def calibrated(self, rows: SampleRows, y: NDArray[Any] | None) -> Member:
        """The member whose score knows its size on these rows, at most a thousand of them."""
        part = np.random.RandomState(0).permutation(len(rows))[:MOST_HELD_OUT]
        known = self._known(rows.take(part), None if y is None else y[part])
        member = self._with_state(self.score.calibrate(self.field, self._placed_state, *known))
        encoder = self.flow._encoder
        if not encoder.is_table:
            return member
        member = member._with_typical(rows.take(part[:_MOST_TYPICAL]))
        if not encoder.varying.all():  # beyond all of these rows, whatever the score's unit
            member = replace(member, surprise=max(self.surprise, float(np.ptp(member.scores(rows.take(part))))))
        return member

    def _with_typical(self, rows: SampleRows) -> Member:
        """The member that knows what cells of normal rows like these add to a score."""
        X = rows.array()
        there = ~np.isnan(X)
        pieces = rows.chunks(len(X.T) * self.rows_at_once)
        found = np.concatenate([self._contributions(self._filled(piece)) for _, piece in pieces])
        return replace(self, typical=(found * there).sum(axis=0) / np.maximum(there.sum(axis=0), 1))

    def _with_state(self, state: anomaly.State) -> Member:
        return replace(self, state=state)

    @cached_property
    def field(self) -> anomaly.FlowField:
        """The flow in double precision, for scores are small differences; of grids on the CPU only.

        Graphics cards take up to 64 times as long in double precision, which the networks of tables do not notice.
        """
        flow = self.flow
        keeps_precision = len(flow._encoder.code_shape) > 1 and flow._fitted_device.type != "cpu"
        network = flow.network_ if keeps_precision else flow._inspection_network()
        return anomaly.FlowField(
            network,
            resolve_path(flow._as_fitted),
            resolve_source(flow._as_fitted),
            flow._source_scale.to(next(network.parameters())),
            *flow._steps_and_solver(None, None),
            rows_per_batch(flow._encoder.code_shape, flow._fitted_device),
        )

    @cached_property
    def _placed_state(self) -> anomaly.State:
        """The state where the field is."""
        return {name: value.to(self.field.source_scale) for name, value in self.state.items()}

    @property
    def rows_at_once(self) -> int:
        """Rows that are scored together."""
        size = int(np.prod(self.flow._encoder.code_shape))
        return max(1, min(8192, preprocessing.FITTED_ELEMENTS // (size * self.score.copies(size))))

    def scores(self, rows: SampleRows) -> Floats:
        """Anomaly scores of rows, (n,)."""
        pieces = rows.chunks(int(np.prod(rows.sample_shape)) * self.rows_at_once)
        return np.concatenate([self.contributions(piece).reshape(len(piece), -1).sum(axis=1) for _, piece in pieces])

    def contributions(self, X: Floats) -> Floats:
        """What each number of rows X (B, *sample_shape) adds to their scores, under the class that suits them best.

        Of cells that are missing nothing is known but what they add to a normal row's score, so that is what counts.
        """
        if self.typical is None or not (missing := np.isnan(X)).any():
            return self._contributions(X)
        return np.where(missing, self.typical, self._contributions(self._filled(X)))

    def _filled(self, X: Floats) -> Floats:
        """Rows of a table with expected values in the cells that are missing."""
        return X if self.gaps is None else _fill(self.flow._encoder, self.gaps, X)

    def _contributions(self, X: Floats) -> Floats:
        encoder = self.flow._encoder
        codes = self._codes(X)
        with torch.no_grad():
            # another value in a constant column must not change what the network says of the others
            known = np.where(encoder.varying, X, encoder.constants) if encoder.is_table else X
            found = self._best(codes, known).cpu().double().numpy()
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

    def _best(self, codes: Tensor, X: Floats) -> Tensor:
        """Contributions under each row's own condition, or under the class of the lowest score."""
        flow = self.flow
        if self.score.given_the_row:
            known = self._condition(_as_condition(flow._encoder.container, X))
            return self.score.contributions(self.field, self._placed_state, codes, known)
        if not isinstance(flow._conditions, preprocessing.LabelEncoder):
            return self.score.contributions(self.field, self._placed_state, codes, None)
        best: Tensor | None = None
        for label in flow.classes_:
            condition = self._condition(np.repeat(label, len(X)))
            found = self.score.contributions(self.field, self._placed_state, codes, condition)
            if best is not None:
                lower = found.flatten(1).sum(1) < best.flatten(1).sum(1)
                found = torch.where(lower.view(-1, *[1] * (found.ndim - 1)), found, best)
            best = found
        assert best is not None
        return best

    def _known(self, rows: SampleRows, y: NDArray[Any] | None) -> tuple[Tensor, Tensor | None]:
        """Codes and conditions of rows of which the class is known, at most about four million numbers."""
        part = rows.subset(preprocessing.FITTED_ELEMENTS)
        X = self._filled(rows.read(part))
        if self.score.given_the_row:
            return self._codes(X), self._condition(_as_condition(self.flow._encoder.container, X))
        return self._codes(X), None if y is None else self._condition(y[part])

    def _codes(self, X: Floats) -> Tensor:
        return torch.as_tensor(self.flow._encoder.encode(X)).to(self.field.source_scale)

    def _condition(self, y: Any) -> Tensor:
        condition = self.flow._condition_pieces(y, len(y))(slice(0, len(y)))
        assert condition is not None
        return condition.to(self.field.source_scale)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles hold CPU tensors, and not the copy in double precision."""
        state = {name: value for name, value in self.__dict__.items() if name not in ("field", "_placed_state")}
        return {**state, "state": {name: value.cpu() for name, value in self.state.items()}}


def _without_gaps(flow: NormalFlow, rows: SampleRows, weight: Floats | None, before: Member | None) -> SampleRows:
    """Training rows with expected values in the cells that are missing, so that the flow learns from whole rows.

    On four tables of ADBench a flow that is told which cells are missing, and learns from the others alone, ranked no
    better (mean AUROC of the one-step residual on rows with a tenth of their cells missing .923, filled .923), and
    distances to neighbours want whole rows anyway.
    """
    X = rows.array()
    if before is not None and before.gaps is not None:
        return SampleRows(before._filled(X))
    container = flow.table or preprocessing.TableContainer.of_numbers(rows.container(rows), X.shape[1])
    encoder = preprocessing.SampleEncoder.fit(rows, container, resolve_transform(flow, rows.sample_shape), weight)
    return SampleRows(_fill(encoder, anomaly.Gaps.fit(encoder.encode(X)), X))


def _fill(encoder: preprocessing.SampleEncoder, gaps: anomaly.Gaps, X: Floats) -> Floats:
    missing = np.isnan(X)
    return np.where(missing, encoder.restore(gaps.fill(encoder.encode(X))), X) if missing.any() else X


def _as_condition(container: Any, X: Floats) -> Floats:
    """Rows of a table as conditions: categories as points, of which none is nearer to another for its place."""
    if not isinstance(container, preprocessing.TableContainer) or not container.categorical.any():
        return X
    columns = [
        points_of(max(2, len(levels)))[column.astype(np.intp)] if coded else column[:, None]
        for column, coded, levels in zip(X.T, container.categorical, container.levels, strict=True)
    ]
    return np.concatenate(columns, axis=1)


def fit_member(
    flow: NormalFlow, score: anomaly.Score, data: Data, held_out: Data, before: Member | None, trim: float
) -> Member:
    """Train one flow; twice if the data are trimmed, the second time without the rows of the highest scores.

    The score gets its unit from the rows held out, or from those of training if there are hardly any, and keeps that
    of the first fit when training goes on.
    """

    def fit(flow: NormalFlow, data: Data, unit: Data) -> Member:
        member = Member.fit(flow, score, *data, before)
        return member.calibrated(*unit[:2]) if before is None else member

    if trim:
        ranks = np.argsort(fit(copy.copy(flow), data, data).scores(data[0]), kind="stable")
        kept = ranks[: max(2, len(ranks) - int(trim * len(ranks)))]
        if data[1] is not None:  # no class goes as a whole
            kept = np.union1d(kept, ranks[np.unique(data[1][ranks], return_index=True)[1]])
        data = take(*data, np.sort(kept))
    return fit(flow, data, held_out if len(held_out[0]) >= _FEW_HELD_OUT else data)


def new_flow(
    detector: Any,
    score: anomaly.Score,
    before: Member | None = None,
    seed: int = 0,
    *,
    max_iter: int | None = None,
    table: preprocessing.TableContainer | None = None,
) -> NormalFlow:
    """A flow to be trained, for `max_iter` steps unless the user says: a new one, or a copy of the one before."""
    network: Any = detector.network
    if isinstance(score, anomaly.Reconstruction):
        network = Bottleneck(resolve_network(detector), score.size)
    flow = NormalFlow(
        network,
        time_sampler="uniform" if is_auto(detector, "time_sampler") else detector.time_sampler,
        preprocessing="standardize" if is_auto(detector, "preprocessing") else detector.preprocessing,
        condition_dropout=0.0,
        masked_share=0.0,
        random_state=seed,
        **{name: getattr(detector, name) for name in FLOW_PARAMETERS},
    )
    if detector.max_iter is None:
        flow.max_iter = max_iter
    if before is not None:
        fitted = {name: value for name, value in vars(before.flow).items() if name not in flow.get_params()}
        flow.__dict__.update(fitted)
    flow.table = table
    return flow


def short_training(detector: Any, shape: tuple[int, ...], n_flows: int) -> int | None:
    """Optimiser steps where fewer than those for a generator were measured to do; None elsewhere."""
    if len(shape) == 2 and not is_auto(detector, "contamination"):
        return STEPS_WITH_OUTLIERS
    return FOLD_STEPS if n_flows > 1 and len(shape) == 2 and shape[0] < FEW_ROWS else None


def is_auto(detector: Any, name: str) -> bool:
    """Whether a parameter is left to the detector."""
    value = getattr(detector, name)
    return isinstance(value, str) and value == "auto"
