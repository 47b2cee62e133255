"""What a student has learned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from flowmatch.core.storable import NOT_STORED, require, storable
from flowmatch.fitting import FitResult


@storable
@dataclass(frozen=True, eq=False)
class FittedStudent:
    """A student: what an estimator of the teacher's class knows, with a model of few steps.

    Attributes
    ----------
    flow : FitResult, or a fitted value that has one as its `flow`
    teacher : estimator or None
        The fitted teacher; None where the student was loaded from a file.
    template : estimator or None
        One like the teacher, not fitted: what becomes of that afterwards is not the student's concern. None where the
        student was loaded from a file, which has the teacher's parameters in the student's.
    """

    flow: Any
    teacher: Any = field(default=None, metadata=NOT_STORED)
    template: Any = field(default=None, metadata=NOT_STORED)

    @property
    def result(self) -> FitResult:
        """What came of the distillation."""
        found: FitResult = self.flow if isinstance(self.flow, FitResult) else self.flow.flow
        return found

    def check(self) -> None:
        """Raise a ValueError if the parts of a stored student do not fit each other."""
        require(isinstance(self.result, FitResult), "flow")

    def with_result(self, result: FitResult) -> FittedStudent:
        """The same with another model."""
        if isinstance(self.flow, FitResult):
            return replace(self, flow=result)
        return replace(self, flow=self.flow.with_flow(result))

    def to(self, device: torch.device) -> FittedStudent:
        """The same on a device."""
        return replace(self, flow=self.flow.to(device))
