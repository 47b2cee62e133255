"""Objectives: what a network is trained to minimise, ``objective(network, x1, condition, generator) -> (B,)``."""

from flowmatch.objectives.fields import LOSSES, ChannelWeighted, MultiScale, Sobolev
from flowmatch.objectives.losses import L2Loss, PseudoHuberLoss, ResidualLoss
from flowmatch.objectives.velocity import VelocityObjective
from flowmatch.objectives.weights import (
    LOSS_WEIGHTS,
    AdaptiveWeight,
    CallableWeight,
    DataEndWeight,
    LossWeight,
    MinSNRWeight,
    NoiseEndWeight,
    SNRWeight,
    UniformWeight,
)

__all__ = [
    "LOSSES",
    "LOSS_WEIGHTS",
    "AdaptiveWeight",
    "CallableWeight",
    "ChannelWeighted",
    "DataEndWeight",
    "L2Loss",
    "LossWeight",
    "MinSNRWeight",
    "MultiScale",
    "NoiseEndWeight",
    "PseudoHuberLoss",
    "ResidualLoss",
    "SNRWeight",
    "Sobolev",
    "UniformWeight",
    "VelocityObjective",
]
