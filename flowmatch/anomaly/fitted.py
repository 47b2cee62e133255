"""What the fit of an anomaly detector finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from flowmatch.anomaly.calibration import Calibration
from flowmatch.anomaly.members import Member, unseen_in
from flowmatch.anomaly.settings import REFERENCES, DetectorSettings
from flowmatch.core.memory import Batches
from flowmatch.core.progress import progress
from flowmatch.core.randomness import seed_from
from flowmatch.core.storable import require, storable
from flowmatch.core.user_warnings import warn
from flowmatch.fitting import FitResult
from flowmatch.model import FlowModel
from flowmatch.preprocessing import Container, LabelEncoder, SampleRows

Floats = NDArray[np.float64]

_MARGIN = 1e-3
"""Relative distance of a row with a category that training has not seen from the rows that were held out."""

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Relative difference up to which scores count as equal: that of a row depends on its batch in the last digits."""


@storable
@dataclass(frozen=True, eq=False)
class FittedDetector:
    """What was learned of normal rows.

    Attributes
    ----------
    members : tuple of Member
        At least one; a row's score is the mean of theirs.
    offset : float or None
        Rows of a negative score below it are flagged; None where that follows from the calibration.
    calibration : Calibration or None
        Scores of the rows that were held out, if some were.
    classes : ndarray of shape (n_classes,) or None
        Labels of the normal rows.
    references : {"rows", "drawn"}
        What the members compare new rows with.
    """

    members: tuple[Member, ...]
    offset: float | None
    calibration: Calibration | None = None
    classes: NDArray[Any] | None = None
    references: str = "rows"

    @property
    def flow(self) -> FitResult:
        """The fit of the first flow."""
        return self.members[0].flow

    @property
    def model(self) -> FlowModel:
        """The first flow."""
        return self.flow.model

    @property
    def container(self) -> Container:
        """What the rows came in."""
        return self.model.encoder.container

    def offset_at(self, false_alarm_rate: float) -> float:
        """Rows of a negative score below it are flagged."""
        if self.calibration is None:
            assert self.offset is not None
            return self.offset
        return float(self.just_below(-self.calibration.threshold(false_alarm_rate)))

    def calibrated_for(self, what: str, contamination: Any = None) -> Calibration:
        """The scores of the held-out rows; a ValueError that says what needs them if there are none."""
        if self.calibration is None:
            raise ValueError(
                f"{what} rows that were held out of training, but with contamination={contamination!r} "
                "there are none: fit with contamination='auto' on normal data."
            )
        return self.calibration

    def p_values(self, scores: Floats, random_state: Any = None) -> Floats:
        """Conformal p-values of anomaly scores, (n,); where scores tie with held-out ones, drawn if there is a seed.

        With U uniform, ``(weight above + U (1 + weight of ties)) / (1 + weight of all)``.
        """
        calibration = self.calibrated_for("p_values need")
        p = calibration.p_values(self.just_below(scores))
        if random_state is None:
            return p
        higher = np.nextafter(-self.just_below(-scores), np.inf)
        above = calibration.p_values(higher) - calibration.smallest_rate
        return above + np.random.RandomState(seed_from(random_state)).uniform(size=len(p)) * (p - above)

    def select(self, p_values: Floats, fdr: float) -> NDArray[np.bool_]:
        """Which rows to report, (n,), so that an expected share of at most `fdr` of the reports is false."""
        smallest, n_rows = self.calibrated_for("select needs").smallest_rate, len(p_values)
        least = int(np.ceil(smallest * n_rows / fdr - 1e-9))
        if least > 1:
            warn(
                f"the smallest p-value, {smallest:.2g}, is above fdr / n_samples, {fdr / n_rows:.2g}: among {n_rows} "
                f"rows less than {least} anomalies cannot be reported"
                f"{'' if least <= n_rows else ', so none can'}. Fit with more rows, or pass fewer or a higher fdr."
            )
        return np.asarray(false_discovery_control(p_values) <= fdr * (1 + 1e-9))

    def scores(self, rows: SampleRows, verbose: bool | int = False) -> Floats:
        """Anomaly scores of rows, (n,)."""
        return np.concatenate([part.reshape(len(part), -1).sum(axis=1) for part in self.contributions(rows, verbose)])

    def contributions(self, rows: SampleRows, verbose: bool | int = False) -> Iterator[Floats]:
        """What each element adds to its row's score, the mean over the flows, a piece of the rows at a time."""
        size = int(np.prod(rows.sample_shape)) * min(member.rows_at_once for member in self.members)
        batches = Batches(f"{self.members[0].score!r}")
        for _, chunk in progress(rows.chunks(size), "anomaly scores", verbose, rows.n_chunks(size)):
            yield from batches.run(self._mean_contributions, chunk)

    def _mean_contributions(self, X: Floats) -> Floats:
        found = np.asarray(np.mean([member.contributions(X) for member in self.members], axis=0))
        unseen = unseen_in(self.model.encoder, X)
        return self._beyond_all(found, unseen) if unseen.any() else found

    def _beyond_all(self, found: Floats, unseen: NDArray[np.bool_]) -> Floats:
        """Contributions of rows of which categories that are unseen take the scores beyond all that were held out."""
        highest = float(self.calibration.scores.max()) if self.calibration else -self.offset_at(0.0)
        lacking = np.maximum(highest + _MARGIN * max(1.0, abs(highest)) - found.sum(axis=1), 0.0)
        return found + unseen * (lacking / np.maximum(unseen.sum(axis=1), 1))[:, None]

    def without_unseen(self, rows: SampleRows) -> SampleRows:
        """Rows that miss the categories which training has not seen."""
        if not self.model.encoder.is_category.any():
            return rows
        values = rows.array()
        return SampleRows(np.where(unseen_in(self.model.encoder, values), np.nan, values))

    def just_below(self, scores: Any) -> Any:
        """Scores less what rounding may make of them."""
        return scores - _ROUNDING[self.members[0].field.source_scale.dtype] * abs(scores)

    def to(self, device: torch.device) -> FittedDetector:
        """The same on a device."""
        return replace(self, members=tuple(member.to(device) for member in self.members))

    def check_goes_on(self, settings: DetectorSettings) -> None:
        """Raise a ValueError unless training can go on with this score and kind of threshold."""
        was_auto = self.calibration is not None
        if was_auto != (settings.contamination is None):
            raise ValueError(
                f"contamination is {'auto' if settings.contamination is None else settings.contamination!r}, but in "
                f"the fit that this one goes on from it was {'' if was_auto else 'not '}'auto'. Set it back, or fit "
                "anew with warm_start=False."
            )
        if settings.references != self.references:
            raise ValueError(
                f"references was {self.references!r} in the fit that this one goes on from, and is "
                f"{settings.references!r} now. Set it back, or fit anew with warm_start=False."
            )
        if settings.score != self.members[0].score:
            raise ValueError(
                f"method was {self.members[0].score!r} in the fit that this one goes on from, and is "
                f"{settings.score!r} now. Set it back, or fit anew with warm_start=False."
            )

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored detector do not fit each other."""
        require(self.members, "members")
        require(self.calibration is not None if self.offset is None else np.isfinite(self.offset), "offset")
        require(self.references in REFERENCES, "references")
        for member in self.members:
            conditions = member.model.conditions
            require(member.score == self.members[0].score, "score")
            require(member.model.sample_shape == self.model.sample_shape, "sample_shape")
            if isinstance(conditions, LabelEncoder):
                require(np.array_equal(conditions.classes, [] if self.classes is None else self.classes), "classes")
        try:
            scores = self.to(torch.device("cpu")).scores(SampleRows(np.zeros((1, *self.model.sample_shape))))
            require(np.isfinite(scores).all(), "scores")
        except (ValueError, LookupError) as error:
            raise ValueError(f"what its score keeps does not fit the rest ({error}).") from error
