"""Objectives: what a network is trained to minimise, ``objective(network, x1, condition, generator) -> (B,)``."""

from flowmatch.objectives.losses import LOSSES, L2Loss, PseudoHuberLoss, ResidualLoss
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
    "DataEndWeight",
    "L2Loss",
    "LossWeight",
    "MinSNRWeight",
    "NoiseEndWeight",
    "PseudoHuberLoss",
    "ResidualLoss",
    "SNRWeight",
    "UniformWeight",
    "VelocityObjective",
]
