"""What the fit of an anomaly detector finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.anomaly.calibration import Calibration
from flowmatch.anomaly.members import Member
from flowmatch.anomaly.settings import REFERENCES, DetectorSettings
from flowmatch.core.memory import Batches
from flowmatch.core.progress import progress
from flowmatch.core.storable import require, storable
from flowmatch.fitting import FitResult
from flowmatch.model import FlowModel
from flowmatch.preprocessing import Container, LabelEncoder, SampleRows

Floats = NDArray[np.float64]

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
    offset : float
        Rows of a negative score below it are flagged.
    calibration : Calibration or None
        Scores of the rows that were held out, if some were.
    classes : ndarray of shape (n_classes,) or None
        Labels of the normal rows.
    references : {"rows", "drawn"}
        What the members compare new rows with.
    """

    members: tuple[Member, ...]
    offset: float
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
        return np.asarray(np.mean([member.contributions(X) for member in self.members], axis=0))

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
        require(np.isfinite(self.offset), "offset")
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
