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
from flowmatch._batches import rows_per_batch
from flowmatch._held_out import FEW_ROWS, FOLD_STEPS, MOST_HELD_OUT, STEPS_WITH_OUTLIERS, Data, take
from flowmatch._parameters import resolve_network, resolve_path, resolve_source
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.networks import Bottleneck
from flowmatch.preprocessing import SampleRows

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


class NormalFlow(FlowMatchingGenerator):
    """A generator whose warnings and announcements are the detector's business."""

    _after_divergence = "The detector is left as it was."

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
    """

    flow: NormalFlow
    score: anomaly.Score
    state: anomaly.State
    surprise: float

    @classmethod
    def fit(
        cls,
        flow: NormalFlow,
        score: anomaly.Score,
        rows: SampleRows,
        y: NDArray[Any] | None,
        weight: Floats | None,
        previous: anomaly.State | None = None,
    ) -> Member:
        """Train `flow` on the rows and let the score see them; go on with both if there is a `previous` state."""
        condition = rows.array() if score.given_the_row else y
        flow._fit(rows, condition, weight, go_on=previous is not None)
        if isinstance(flow._conditions, preprocessing.NumberEncoder):  # the training rows; they are not drawn from
            flow._conditions = replace(flow._conditions, rows=flow._conditions.rows[:1], shares=np.ones(1))
        member = cls(flow, score, {}, float(ndtri(0.5 / (len(rows) + 1)) ** 2))
        return member._with_state(score.fit(member.field, *member._known(rows, y), previous or {}))

    def calibrated(self, rows: SampleRows, y: NDArray[Any] | None) -> Member:
        """The member whose score knows its size on these rows, at most a thousand of them."""
        part = np.random.RandomState(0).permutation(len(rows))[:MOST_HELD_OUT]
        known = self._known(rows.take(part), None if y is None else y[part])
        member = self._with_state(self.score.calibrate(self.field, self._placed_state, *known))
        encoder = self.flow._encoder
        if encoder.is_table and not encoder.varying.all():  # beyond all of these rows, whatever the score's unit
            member = replace(member, surprise=max(self.surprise, float(np.ptp(member.scores(rows.take(part))))))
        return member

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
        return max(1, min(8192, preprocessing.FITTED_NUMBERS // (size * self.score.copies(size))))

    def scores(self, rows: SampleRows) -> Floats:
        """Anomaly scores of rows, (n,)."""
        pieces = rows.chunks(int(np.prod(rows.sample_shape)) * self.rows_at_once)
        return np.concatenate([self.contributions(piece).reshape(len(piece), -1).sum(axis=1) for _, piece in pieces])

    def contributions(self, X: Floats) -> Floats:
        """What each number of rows X (B, *sample_shape) adds to their scores, under the class that suits them best."""
        encoder = self.flow._encoder
        codes = self._codes(X)
        with torch.no_grad():
            # another value in a constant column must not change what the network says of the others
            known = np.where(encoder.varying, X, encoder.constants) if encoder.is_table else X
            found = self._best(codes, known).cpu().double().numpy()
        if encoder.is_table:
            whole = np.zeros_like(X)
            whole[:, encoder.varying] = found
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
            return self.score.contributions(self.field, self._placed_state, codes, self._condition(X))
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
        part = rows.subset(preprocessing.FITTED_NUMBERS)
        X = rows.read(part)
        if self.score.given_the_row:
            return self._codes(X), self._condition(X)
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


def fit_member(
    flow: NormalFlow, score: anomaly.Score, data: Data, held_out: Data, previous: anomaly.State | None, trim: float
) -> Member:
    """Train one flow; twice if the data are trimmed, the second time without the rows of the highest scores.

    The score gets its unit from the rows held out, or from those of training if there are hardly any, and keeps that
    of the first fit when training goes on.
    """

    def fit(flow: NormalFlow, data: Data, unit: Data) -> Member:
        member = Member.fit(flow, score, *data, previous)
        return member.calibrated(*unit[:2]) if previous is None else member

    if trim:
        ranks = np.argsort(fit(copy.copy(flow), data, data).scores(data[0]), kind="stable")
        kept = ranks[: max(2, len(ranks) - int(trim * len(ranks)))]
        if data[1] is not None:  # no class goes as a whole
            kept = np.union1d(kept, ranks[np.unique(data[1][ranks], return_index=True)[1]])
        data = take(*data, np.sort(kept))
    return fit(flow, data, held_out if len(held_out[0]) >= _FEW_HELD_OUT else data)


def new_flow(
    detector: Any, score: anomaly.Score, before: Member | None = None, seed: int = 0, *, max_iter: int | None = None
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
