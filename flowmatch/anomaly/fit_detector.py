"""The fit of an anomaly detector: settings and rows in, flows with a threshold out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from flowmatch.anomaly.activity import Activity
from flowmatch.anomaly.calibration import Calibration, spread_of_mean
from flowmatch.anomaly.fitted import FittedDetector
from flowmatch.anomaly.gaps import Gaps
from flowmatch.anomaly.groups import ENOUGH, RecordPlaces, places_of
from flowmatch.anomaly.held_out import (
    MOST_HELD_OUT,
    in_order,
    observations,
    percentile,
    repeats_levels,
    split_rows,
    take,
)
from flowmatch.anomaly.members import Member, as_condition, fill_gaps
from flowmatch.anomaly.settings import DetectorSettings
from flowmatch.core.memory import Batches
from flowmatch.core.randomness import generator_on, seed_from
from flowmatch.core.user_warnings import warn
from flowmatch.fitting import (
    FitResult,
    FitSettings,
    InterruptedFit,
    Rows,
    Watch,
    fit_flow,
    resolve_transform,
    row_task,
    row_task_from,
)
from flowmatch.model import Integration, SamplingDefaults, carry, to_numpy
from flowmatch.preprocessing import (
    LabelEncoder,
    NumberEncoder,
    SampleEncoder,
    SampleRows,
    fit_conditions,
    plain_conditions,
)
from flowmatch.training import NonFiniteTrainingError

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_FEW_HELD_OUT = 20
"""So few rows tell no unit, least of all of themselves."""

_MOST_DRAWN = 2048
"""Rows that are drawn in place of those of training."""

_MOST_COMPARED = 250
"""Rows that tell how much less the mean of several flows varies than each."""

_MOST_TYPICAL = 500
"""Rows that tell what an entry adds to a normal row's score; a log-density takes its time."""


def fit_and_keep(
    detector: Any,
    settings: DetectorSettings,
    rows: Rows,
    sample_weight: Any,
    start: FittedDetector | None,
    *,
    watch: Watch,
    groups: Any = None,
) -> None:
    """Fit a detector and assign what it learned to its `fitted_`, once, at the end; see `fit_detector`.

    When the fit is interrupted, a detector that was not fitted takes over the flows that were complete, with a
    threshold by the rows that these have left out, and a warning. One without a complete flow, or of which the
    training diverged, is left as it was: without held-out rows no score says what is normal.
    """
    try:
        detector.fitted_ = fit_detector(settings, rows, sample_weight, start, watch=watch, groups=groups)
    except InterruptedFit as interruption:
        error, found = interruption.error, interruption.result
        if isinstance(error, NonFiniteTrainingError):
            raise NonFiniteTrainingError(f"{error} The detector is left as it was.", error.step) from error
        try:
            if found is not None and start is None and not hasattr(detector, "fitted_"):
                detector.fitted_ = found
                warn(
                    f"the fit was interrupted by {type(error).__name__}: the {type(detector).__name__} has the flows "
                    f"that were complete, {len(found.members)}, and a threshold by the "
                    f"{len(found.calibration.scores)} rows that they left out."
                )
        finally:
            raise error from None


def fit_detector(
    settings: DetectorSettings,
    rows: Rows,
    sample_weight: Any = None,
    start: FittedDetector | None = None,
    *,
    watch: Watch | None = None,
    groups: Any = None,
) -> FittedDetector:
    """Train the flows, and find the threshold.

    Parameters
    ----------
    settings : DetectorSettings
    rows : Rows
    sample_weight : array-like, optional
        As in `fit`.
    start : FittedDetector, optional
        What to go on from; left as it is.
    watch : callable ``FitResult -> estimator``, optional
        Gives the estimator that callbacks are shown.
    groups : array-like, optional
        As in `fit`, of the rows.

    Returns
    -------
    FittedDetector

    Raises
    ------
    ValueError
        Before training starts, for what does not go together.
    InterruptedFit
        If training ends by an exception; its result is a detector of the flows that were complete, or None.
    """
    places = _places(settings, rows, groups, sample_weight)
    rows, order = in_order(replace(rows, y=_normal_classes(rows.y, start)), sample_weight)
    samples, random = rows.samples, np.random.RandomState(seed_from(settings.flow.random_state))
    parts = [(np.arange(len(samples)), np.arange(0))]
    if settings.contamination is None:
        n_folds, least_held = settings.choose_n_folds(samples.shape, repeats_levels(samples, rows.y))
        n_folds = n_folds if start is None else len(start.members)
        if places is None:
            parts = split_rows(samples, n_folds, rows.y, random, least_held)
        else:
            n_folds = min(n_folds, places.n_units) if settings.n_folds is None and start is None else n_folds
            parts = places.take(order).split(n_folds, rows.y, random)
    if settings.flow.budget is not None:
        settings.flow.budget.share(len(parts) * (2 if settings.trim else 1))
    members: list[Member] = []
    scores: list[Floats] = []
    try:
        for k, (kept, held) in enumerate(parts):
            flow = settings.of_flow(samples.shape, len(parts), seed=int(random.randint(2**31 - 1)))
            before = None if start is None else start.members[k].to(flow.device)
            fit = _MemberFit(settings, flow, before, watch, f"flow {k + 1} of {len(parts)}")
            member = fit.member(take(rows, kept), take(rows, held))
            if len(held):
                scores.append(member.scores(samples.take(held), flow.verbose))
            members.append(member)
    except (InterruptedFit, KeyboardInterrupt) as interruption:
        error = interruption.error if isinstance(interruption, InterruptedFit) else interruption
        n = len(members)
        found = _with_threshold(settings, rows, members, scores[:n], parts[:n], start, random) if n else None
        raise InterruptedFit(found, error) from error
    fitted = _with_threshold(settings, rows, members, scores, parts, start, random)
    if fitted.calibration is not None:
        warn_of_few_held_out(fitted.calibration, settings.false_alarm_rate)
    return fitted


def _places(settings: DetectorSettings, rows: Rows, groups: Any, sample_weight: Any) -> RecordPlaces | None:
    """Where rows come from, with a warning where only their values tell."""
    if settings.contamination is not None:
        if groups is not None:
            raise ValueError(
                f"groups tells which rows to hold out together, but contamination={settings.contamination!r} holds out "
                "none. Leave one of them away."
            )
        return None
    places = places_of(rows.samples, groups, sample_weight)
    if places is not None and places.found:
        what = "whole records" if places.n_records >= ENOUGH else "blocks of them"
        warn(
            f"rows of X share values, as overlapping windows of {places.n_records} record(s) do: {what} are held out, "
            "and rows that share values with these are not trained on, so that the false alarm rate holds on later "
            "windows. Pass groups=, a label for each row, to say which rows come from one record."
        )
    return places


def _with_threshold(
    settings: DetectorSettings,
    rows: Rows,
    members: list[Member],
    scores: list[Floats],
    parts: list[tuple[Index, Index]],
    start: FittedDetector | None,
    random: np.random.RandomState,
) -> FittedDetector:
    """Flows as a detector, with the scores of the rows that they have left out."""
    classes = None if rows.y is None else np.unique(rows.y)
    classes = classes if start is None else start.classes
    fitted = FittedDetector(tuple(members), None, classes=classes, references=settings.references)
    if settings.contamination is not None:
        threshold = percentile(-fitted.scores(rows.samples, settings.flow.verbose), settings.contamination, rows.weight)
        return replace(fitted, offset=float(fitted.just_below(threshold)))
    held, found = np.concatenate([part for _, part in parts]), np.concatenate(scores)
    if len(members) > 1:
        found = spread_of_mean(found, _scores_of_trained(members, rows.samples, parts))
    # copies of an observation are one of their weight, not several that say the same
    _, first, which = np.unique(observations(rows.samples, rows.y)[held], return_index=True, return_inverse=True)
    weight = np.bincount(which, None if rows.weight is None else rows.weight[held]).astype(np.float64)
    order = np.argsort(first)
    # of those that leave later, none must be the largest in some column
    order = order[random.permutation(len(order))]
    calibration = Calibration.of(found[first[order]], weight[order])
    if start is not None and start.calibration is not None:
        calibration = calibration.before(start.calibration)
    return replace(fitted, calibration=calibration)


def _scores_of_trained(members: list[Member], rows: SampleRows, parts: list[tuple[Index, Index]]) -> Floats:
    """Scores of rows that one member left out, at most so many, by the members after it in turn, (m, K - 1)."""
    held = np.concatenate([part for _, part in parts])
    own = np.repeat(np.arange(len(parts)), [len(part) for _, part in parts])
    chosen = np.random.RandomState(0).permutation(len(held))[:_MOST_COMPARED]
    scores = np.stack([member.scores(rows.take(held[chosen])) for member in members], axis=1)
    others = own[chosen, None] + np.arange(1, len(members))
    return np.take_along_axis(scores, others % len(members), axis=1)


def warn_of_few_held_out(calibration: Calibration, false_alarm_rate: float) -> None:
    """Warn if so few rows cannot promise a false alarm rate."""
    if calibration.smallest_rate > false_alarm_rate:
        warn(
            f"{len(calibration.scores)} held-out rows cannot promise a false_alarm_rate of {false_alarm_rate:g}, but "
            f"only {calibration.smallest_rate:.2g}: the threshold is their highest score."
        )


@dataclass(frozen=True)
class _MemberFit:
    """How one member is fitted.

    Attributes
    ----------
    settings : DetectorSettings
    flow : FitSettings
    before : Member or None
        What to go on from.
    watch : as in `fit_detector`
    description : str
        Which of the flows it is.
    """

    settings: DetectorSettings
    flow: FitSettings
    before: Member | None
    watch: Watch | None
    description: str

    def member(self, rows: Rows, held_out: Rows) -> Member:
        """Train one flow; twice if the rows are trimmed, the second time without those of the highest scores.

        The score gets its unit from the rows held out, or from those of training if there are hardly any, and keeps
        that of the first fit when training goes on.
        """
        trim = self.settings.trim
        if trim:
            ranks = np.argsort(self._trained(rows, rows).scores(rows.samples, self.flow.verbose), kind="stable")
            kept = ranks[: max(2, len(ranks) - int(trim * len(ranks)))]
            if rows.y is not None:  # no class goes as a whole
                kept = np.union1d(kept, ranks[np.unique(rows.y[ranks], return_index=True)[1]])
            rows = take(rows, np.sort(kept))
        return self._trained(rows, held_out if len(held_out.samples) >= _FEW_HELD_OUT else rows)

    def _trained(self, rows: Rows, unit: Rows) -> Member:
        """A member that was trained on the rows, its score in units of that of others."""
        settings, before = self.settings, self.before
        filled = len(rows.samples.sample_shape) == 1 and bool(rows.samples.summary.n_missing.any())
        if filled:
            rows = replace(rows, samples=_without_gaps(settings, rows, before))
        given = as_condition(rows.container, rows.samples.array()) if settings.score.given_the_row else rows.y
        known = Rows.weighted(rows.samples, rows.container, given, rows.weight)
        if before is None:
            transform = resolve_transform(settings.preprocessing, rows.samples.sample_shape)
            task, earlier = row_task(self.flow, known, transform), None
        else:
            task, earlier = row_task_from(self.flow, before.flow, known), before.flow
        flow = fit_flow(task, self.flow, earlier, watch=self.watch, description=self.description)
        surprise = float(ndtri(0.5 / (len(rows.samples) + 1)) ** 2)
        member = Member(_ready_to_score(flow, settings.defaults), settings.score, surprise, {})
        if before is not None:
            member = replace(member, activity=before.activity)
        elif not filled:
            member = replace(member, activity=Activity.of(rows.samples, member.model.encoder.is_category))
        codes, condition = member.known_rows(rows.samples, rows.y)
        if settings.references == "drawn":
            codes, condition = _drawn_rows(member, codes, condition, int(self.flow.random_state))
        if member.model.encoder.is_table:
            gaps = Gaps.fit(to_numpy(codes), None if before is None else before.gaps)
            member = replace(member, gaps=gaps, typical=None if before is None else before.typical)
        previous = {} if before is None else before.state
        member = replace(member, state=settings.score.fit(member.field, codes, condition, previous))
        return _calibrated(member, unit) if before is None else member


def _ready_to_score(flow: FitResult, defaults: SamplingDefaults) -> FitResult:
    """A fit with the solver and steps of scores, and without training rows that served as conditions."""
    model, conditions = flow.model, flow.model.conditions
    if isinstance(conditions, NumberEncoder):  # they are not drawn from
        conditions = replace(conditions, rows=conditions.mean[None], shares=np.ones(1))
    return replace(flow, model=replace(model, defaults=defaults, conditions=conditions))


def _drawn_rows(member: Member, codes: Tensor, condition: Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Codes of rows that the flow draws, in place of those it was trained on, and their conditions."""
    model, chosen = member.model, np.random.RandomState(seed).permutation(len(codes))[:_MOST_DRAWN]
    condition = None if condition is None else condition[torch.as_tensor(chosen, device=condition.device)]
    noise = model.source.draw(len(chosen), generator_on(model.device, seed))
    known = None if condition is None else condition.to(noise)
    drawn = carry(model, noise, known, Integration("midpoint", SamplingDefaults().velocity_steps))
    return member.codes(model.encoder.restore(to_numpy(drawn))), condition


def _calibrated(member: Member, rows: Rows) -> Member:
    """A member whose score knows its size on these rows, at most a thousand of them."""
    rows = take(rows, np.random.RandomState(0).permutation(len(rows.samples))[:MOST_HELD_OUT])
    known = member.known_rows(rows.samples, rows.y)
    member = replace(member, state=member.score.calibrate(member.field, member.state, *known))
    encoder = member.model.encoder
    some = rows.samples.take(np.arange(min(_MOST_TYPICAL, len(rows.samples))))
    if encoder.is_table:
        member = replace(member, typical=_typical_contributions(member, some))
    if member.activity is not None or (encoder.is_table and not encoder.varying.all()):
        scores = member.scores(some)  # beyond all of these rows, whatever the score's unit
        member = replace(member, surprise=max(member.surprise, float(np.ptp(scores))))
        if member.activity is not None:
            member = replace(member, activity=replace(member.activity, level=float(scores.max())))
    return member


def _typical_contributions(member: Member, rows: SampleRows) -> Floats:
    """What the entries of normal rows of a table like these add to a score, column by column."""
    X = rows.array()
    there = ~np.isnan(X)
    pieces = rows.chunks(len(X.T) * member.rows_at_once)
    batches = Batches(f"{member.score!r}")
    score = lambda piece: member.contributions_of_whole_rows(member.filled(piece))  # noqa: E731
    found = np.concatenate([part for _, piece in pieces for part in batches.run(score, piece)])
    return np.asarray((found * there).sum(axis=0) / np.maximum(there.sum(axis=0), 1))


def _without_gaps(settings: DetectorSettings, rows: Rows, before: Member | None) -> SampleRows:
    """Training rows with expected values in the entries that are missing, so that the flow learns from whole rows.

    On four tables of ADBench a flow that is given which entries are missing, and learns from the others alone,
    ranked no better (mean AUROC of the one-step residual on rows with a tenth of their entries missing .923, filled
    .923), and distances to neighbors want whole rows anyway.
    """
    X = rows.samples.array()
    if before is not None and before.gaps is not None:
        return SampleRows(before.filled(X))
    transform = resolve_transform(settings.preprocessing, rows.samples.sample_shape)
    encoder = SampleEncoder.fit(rows.samples, rows.container, transform, rows.weight)
    return SampleRows(fill_gaps(encoder, Gaps.fit(encoder.encode(X)), X))


def _normal_classes(y: Any, start: FittedDetector | None) -> NDArray[Any] | None:
    """Classes of the normal rows, (n,)."""
    if y is None and start is not None and start.classes is not None:
        raise ValueError("this detector was fitted with the classes y of normal rows; pass them here too.")
    if y is None:
        return None
    if start is not None and start.classes is None:
        raise ValueError("y was given, but this detector was fitted without classes.")
    labels = np.asarray(plain_conditions(y))
    one_each = labels.ndim == 1 or labels.shape[1:] == (1,)
    if start is not None and one_each:
        return labels.ravel()  # the flows refuse those that are new
    if not one_each or not isinstance(fit_conditions(y if labels.ndim == 1 else labels.ravel(), None), LabelEncoder):
        raise ValueError(
            "y must hold the classes of normal rows, one label each; what came are amounts. Bin them into classes, "
            "or append them to the columns of X."
        )
    return labels.ravel()
