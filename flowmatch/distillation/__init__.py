"""Distillation: what a student that takes few steps is asked to match."""

from flowmatch.distillation.delegation import Taught, as_the_teacher, teacher_has
from flowmatch.distillation.fitted import FittedStudent
from flowmatch.distillation.flow_maps import (
    FlowMapObjective,
    FoldObjective,
    LagrangianObjective,
    SemigroupObjective,
)
from flowmatch.distillation.rollouts import (
    JITTER,
    WHOLE,
    PairLoss,
    RolloutLoss,
    Rollouts,
    jump_rollout,
    midpoint_rollout,
    rollout_times,
)
from flowmatch.distillation.rows import rows_to_distil_from
from flowmatch.distillation.settings import (
    DistillationSettings,
    check_before_teaching,
    check_parameters,
    check_teacher,
    resolve_distillation,
)
from flowmatch.distillation.students import distil
from flowmatch.networks import CorrectedVelocity, TeacherVelocity
