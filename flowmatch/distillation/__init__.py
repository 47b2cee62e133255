"""Distillation: what a student that takes few steps is asked to match."""

from flowmatch.distillation.fitted import FittedStudent
from flowmatch.distillation.flow_maps import (
    FlowMapObjective,
    FoldObjective,
    LagrangianObjective,
    SemigroupObjective,
)
from flowmatch.distillation.reflow import PairLoss
from flowmatch.distillation.rollouts import JITTER, WHOLE, RolloutLoss, Rollouts, rollout_times
from flowmatch.distillation.rows import rows_to_distil_from
from flowmatch.distillation.settings import (
    MOST_ELEMENTS,
    N_PAIRS,
    NOT_A_VELOCITY,
    DistillationSettings,
    check_before_teaching,
    check_parameters,
    check_teacher,
    loss_and_sampler,
    resolve_distillation,
)
from flowmatch.distillation.students import distil
from flowmatch.distillation.teachers import jump_rollout, midpoint_rollout
from flowmatch.networks import CorrectedVelocity, TeacherVelocity
