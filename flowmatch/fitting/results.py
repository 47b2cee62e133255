"""What a fit gives back, also one that is interrupted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from flowmatch import training
from flowmatch.core.storable import fields_to_store, require, storable
from flowmatch.model import FlowModel


@storable
@dataclass(frozen=True, eq=False)
class FitResult:
    """What came of a fit.

    Attributes
    ----------
    model : FlowModel
    history : dict of lists
        step, loss, validation_loss, gradient_norm, learning_rate, seconds, and what callbacks added.
    n_iter : int
        Optimizer steps made.
    parameters : dict
        The estimator's parameters that belong to the weights.
    max_iter : int or None
        Steps that the last run was to make; None where a file of an earlier version does not say.
    """

    model: FlowModel
    history: dict[str, list[float]] = field(default_factory=dict)
    n_iter: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    max_iter: int | None = None

    def to_store(self) -> dict[str, Any]:
        """What a file keeps: all but the seconds, in which alone two runs of one fit differ."""
        seconds = [math.nan] * len(self.history.get("seconds", []))
        history = {name: seconds if name == "seconds" else values for name, values in self.history.items()}
        return {**fields_to_store(self), "history": history}

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored result do not fit each other."""
        require(0 <= self.n_iter < 2**32, "n_iter")
        require(self.max_iter is None or self.max_iter > 0, "max_iter")

    def to(self, device: torch.device) -> FitResult:
        """The same on a device."""
        return replace(self, model=self.model.to(device))

    def after(self, run: training.TrainingRun) -> FitResult:
        """The result once a run, going on from this one, has come as far as it has."""
        model = replace(self.model, network=run.averaged_network.eval())
        history = _appended(self.history, self.n_iter, run.history)
        n_iter = self.n_iter + run.step
        return replace(self, model=model, history=history, n_iter=n_iter, max_iter=run.plan.max_iter)


class InterruptedFit(Exception):
    """What a fit had learned when an error ended it.

    Attributes
    ----------
    result : FitResult, or what else the fit is of
    error : BaseException
    """

    def __init__(self, result: Any, error: BaseException) -> None:
        super().__init__()
        self.result, self.error = result, error


def _appended(earlier: dict[str, list[float]], n_iter: int, history: dict[str, list[float]]) -> dict[str, list[float]]:
    """A run's history added to that of earlier ones, steps counted on."""
    seconds = earlier["seconds"][-1] if earlier.get("seconds") else 0.0
    shifted = {
        **history,
        "step": [step + n_iter for step in history["step"]],
        "seconds": [second + seconds for second in history["seconds"]],
    }
    # a callback's column may be in one of the two runs only
    lengths = [len(part.get("step", [])) for part in (earlier, shifted)]
    return {
        name: [*earlier.get(name, [math.nan] * lengths[0]), *shifted.get(name, [math.nan] * lengths[1])]
        for name in {**shifted, **earlier}
    }
