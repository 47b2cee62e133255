"""Whether the phases of training suit the data, before training starts."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowmatch import preprocessing
from flowmatch.core.component import Component
from flowmatch.fitting.settings import FitSettings


def check_phases_fit(
    settings: FitSettings,
    network: nn.Module,
    source_scale: Tensor,
    conditions: preprocessing.ConditionEncoder | None,
) -> None:
    """Raise a ValueError unless every phase suits samples of the shape at hand."""
    shape = tuple(source_scale.shape)
    settings.loss.check_shape(shape)
    for phase in settings.phases:
        phase.loss.check_shape(shape)
        if phase.crop == 1:
            continue
        if len(shape) == 1:
            raise ValueError(f"a phase with crop={phase.crop:g} needs signals, images or fields, but X is a table.")
        if conditions is not None and conditions.context_channels:
            raise ValueError(f"a phase with crop={phase.crop:g} cannot cut the grids that are given as conditions.")
        if _is_periodic(phase.loss) or _is_periodic(settings.network):
            raise ValueError(
                f"a phase with crop={phase.crop:g} cuts windows, which are not periodic: choose another boundary "
                "for the network and for the loss of that phase."
            )
        window = [max(1, round(phase.crop * size)) for size in shape[1:]]
        x = source_scale.new_zeros(1, shape[0], *window)
        try:
            with torch.no_grad():
                fits = copy.deepcopy(network).eval()(x, x.new_zeros(1), None).shape == x.shape
        except (RuntimeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(
                f"a phase with crop={phase.crop:g} gives the network windows of {tuple(window)} points, which "
                f"{type(network).__name__} cannot take; use network='unet' or 'transformer'."
            )


def _is_periodic(component: Any) -> bool:
    """Whether a component, or one inside it, has a periodic boundary."""
    if not isinstance(component, Component):
        return False
    values = component.get_params(deep=False)
    return "periodic" in np.atleast_1d(values.get("boundary", "")) or any(map(_is_periodic, values.values()))
