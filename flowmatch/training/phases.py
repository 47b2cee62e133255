"""A fit in phases: each with its own loss, learning rate, conditions or window size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from flowmatch.core.checks import check_flag, check_number, checked
from flowmatch.core.component import Component


@dataclass(frozen=True)
class Phase(Component):
    """A stretch of training; what is None stays as the estimator has it.

    Parameters
    ----------
    share : float
        Its share of `max_iter`; the shares of all phases add up to 1.
    learning_rate : float, default=1.0
        Factor on the scheduled learning rate.
    loss : str or ResidualLoss, optional
        In place of the estimator's own.
    loss_weight : str, LossWeight or callable, optional
        In place of the estimator's own.
    conditioned : bool, default=True
        False hides all conditions: the phase learns the unconditional distribution.
    crop : float, default=1.0
        The phase trains on random windows of this share of every grid axis: a curriculum of growing signals is a list
        of phases with growing `crop`. Needs a network that takes grids of any size, such as
        ``UNet(positions=False)``: learned positions would call the edge of every window the edge of the signal.

    Examples
    --------
    Plain loss, then adaptive weights, then conditions at a lower rate; short fits do not learn conditions that come so
    late and so slowly, measurements in the guide to grids say:

    >>> from flowmatch.training import Phase
    >>> progressive = [
    ...     Phase(0.3, conditioned=False),
    ...     Phase(0.4, loss_weight="adaptive", conditioned=False),
    ...     Phase(0.3, learning_rate=0.1),
    ... ]

    A curriculum from quarters over halves to whole signals:

    >>> curriculum = [Phase(0.2, crop=0.25), Phase(0.3, crop=0.5), Phase(0.5)]
    """

    share: float = checked(MISSING, check_number, 0.0, 1.0, open_low=True, closed_high=True)
    learning_rate: float = checked(1.0, check_number, 0.0)
    loss: Any = None
    loss_weight: Any = None
    conditioned: bool = checked(True, check_flag)
    crop: float = checked(1.0, check_number, 0.0, 1.0, open_low=True, closed_high=True)


def check_phases(name: str, phases: Any) -> None:
    """Raise a ValueError unless `phases` is a sequence of phases whose shares add up to 1, or empty."""
    if not isinstance(phases, Sequence) or not all(isinstance(phase, Phase) for phase in phases):
        raise ValueError(f"{name} must be a list of flowmatch.training.Phase, got {phases!r}.")
    for phase in phases:
        phase.validate()
    total = sum(phase.share for phase in phases)
    if phases and not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(f"the shares of {name} must add up to 1, but {[p.share for p in phases]} add up to {total:g}.")


def phase_ends(phases: Sequence[Phase], max_iter: int) -> list[int]:
    """The step at which each phase is over; the last one ends with the fit."""
    ends = [round(share * max_iter) for share in itertools.accumulate(phase.share for phase in phases)]
    return [*ends[:-1], max_iter] if phases else [max_iter]
