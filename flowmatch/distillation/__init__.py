"""Distillation: what a student that takes few steps is asked to match."""

from flowmatch.distillation.flow_maps import (
    CorrectedVelocity,
    FlowMapObjective,
    FoldObjective,
    LagrangianObjective,
    SemigroupObjective,
)
from flowmatch.distillation.reflow import PairLoss
from flowmatch.distillation.rollouts import RolloutLoss, Rollouts
from flowmatch.distillation.teachers import TeacherVelocity, jump_rollout, midpoint_rollout

__all__ = [
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
]
