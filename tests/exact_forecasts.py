"""Forecasters whose transition distribution is known exactly, without training one."""

import copy
from dataclasses import replace

import numpy as np
import torch
from closed_forms import GaussianFlow
from torch import nn

from flowmatch import ConditionalForecaster
from flowmatch.flow import MatchedSource, NormalSource
from flowmatch.model import FittedSource
from flowmatch.networks import MLP, UNet

TINY = {"network": MLP(width=8, depth=1), "max_iter": 2, "batch_size": 32, "n_steps": 2, "n_samples": 20, "device": "cpu", "random_state": 0}  # fmt: skip
TINY_FIELDS = {**TINY, "network": UNet(width=4, multipliers=(1,))}


def tiny(**changes):
    """A forecaster of tables and series that hardly trains."""
    return ConditionalForecaster(**{**TINY, **changes})


def tiny_fields(**changes):
    """A forecaster of fields that hardly trains."""
    return ConditionalForecaster(**{**TINY_FIELDS, **changes})


def with_source(forecaster, scale=None):
    """The same forecaster, whose draws start from the noise that it was trained with, or that times a factor."""
    other, fitted = copy.copy(forecaster), forecaster.fitted_
    scales = torch.full_like(fitted.model.source.scale, scale or 1.0)
    source = FittedSource(NormalSource() if scale is None else MatchedSource(), scales)
    other.fitted_ = replace(fitted, flow=replace(fitted.flow, model=replace(fitted.model, source=source)))
    return other


class GaussianTransition(nn.Module):
    """The exact velocity of a forecaster of fields whose next states are normal, given the last ones.

    `rule` takes states (B, n_lags, C, *grid) in the data's units to means (B, horizon * C, *grid); `std` is in those
    units, too. With a standard deviation of None the distribution is as wide as that of the codes.
    """

    def __init__(self, forecaster, rule, std=None):
        super().__init__()
        self.rule, self.encoder, self.residuals = rule, forecaster.model_.conditions, forecaster.preprocessing_
        self.place = nn.Parameter(torch.zeros(1))
        self.columns = (-1, *[1] * len(self.encoder.grid))
        units = self._array(self.residuals.scale_) * self._array(
            np.tile(self.encoder.target_scale, self.encoder.horizon)
        )
        self.std = torch.ones_like(units) if std is None else std / units

    def _array(self, values):
        return torch.as_tensor(values, dtype=torch.float32).reshape(self.columns)

    def forward(self, x, t, condition, step=None):
        encoder = self.encoder
        context = condition.unflatten(1, (encoder.n_columns, *encoder.grid.tolist()))
        lags = context.unflatten(1, (encoder.n_lags, -1)) * self._array(encoder.scale) + self._array(encoder.mean)
        mean, scale = (self._array(np.tile(v, encoder.horizon)) for v in (encoder.target_mean, encoder.target_scale))
        left = (self.rule(lags) - mean) / scale - encoder.base(context)
        codes = (left - self._array(self.residuals.centre_)) / self._array(self.residuals.scale_)
        return GaussianFlow(mean=codes, std=self.std).field(x, t)


def follow_rule(forecaster, rule, std=None):
    """Put the exact velocity of a distribution in place of a fitted forecaster's network."""
    fitted = forecaster.fitted_
    model = replace(fitted.model, network=GaussianTransition(forecaster, rule, std))
    forecaster.fitted_ = replace(fitted, flow=replace(fitted.flow, model=model))
    return forecaster


def deterministic(forecaster, rule):
    """A forecaster that follows a rule without noise: from time 0, one Euler step leads to the mean."""
    return follow_rule(forecaster, rule).set_params(solver="euler", n_steps=1)
