"""Objectives: what a network is trained to minimize, ``objective(network, x1, condition, generator) -> (B,)``."""

from flowmatch.objectives.derivatives import check_forward_derivative, derivative_along, derivative_in_step
from flowmatch.objectives.fields import LOSSES, ChannelWeighted, MultiScale, Sobolev
from flowmatch.objectives.losses import L2Loss, PseudoHuberLoss, ResidualLoss
from flowmatch.objectives.mean_flow import (
    OBJECTIVES,
    FlowMatching,
    InstantVelocityObjective,
    MeanFlow,
    MeanFlowObjective,
    Objective,
    is_flow_map,
)
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
    "OBJECTIVES",
    "AdaptiveWeight",
    "CallableWeight",
    "ChannelWeighted",
    "DataEndWeight",
    "FlowMatching",
    "InstantVelocityObjective",
    "L2Loss",
    "LossWeight",
    "MeanFlow",
    "MeanFlowObjective",
    "MinSNRWeight",
    "MultiScale",
    "NoiseEndWeight",
    "Objective",
    "PseudoHuberLoss",
    "ResidualLoss",
    "SNRWeight",
    "Sobolev",
    "UniformWeight",
    "VelocityObjective",
    "check_forward_derivative",
    "derivative_along",
    "derivative_in_step",
    "is_flow_map",
]
