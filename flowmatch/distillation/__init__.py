"""Distillation: what a student that takes few steps is asked to match."""

from flowmatch.distillation.flow_maps import (
    FlowMapObjective,
    FoldObjective,
    LagrangianObjective,
    SemigroupObjective,
)
from flowmatch.distillation.reflow import PairLoss
from flowmatch.distillation.rollouts import JITTER, WHOLE, RolloutLoss, Rollouts, rollout_times
from flowmatch.distillation.teachers import jump_rollout, midpoint_rollout
from flowmatch.networks import CorrectedVelocity, TeacherVelocity

__all__ = [
    "JITTER",
    "WHOLE",
    "CorrectedVelocity",
    "FlowMapObjective",
    "FoldObjective",
    "LagrangianObjective",
    "PairLoss",
    "RolloutLoss",
    "Rollouts",
    "SemigroupObjective",
    "TeacherVelocity",
    "jump_rollout",
    "midpoint_rollout",
    "rollout_times",
]
