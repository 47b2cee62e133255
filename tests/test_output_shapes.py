"""A network whose output would be broadcast against its target is refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

from flowmatch import ConditionalForecaster, DistilledFlowMap, FlowMatchingGenerator, TrainingOptions
from flowmatch.distillation import (
    FoldObjective,
    LagrangianObjective,
    PairLoss,
    RolloutLoss,
    Rollouts,
    SemigroupObjective,
    midpoint_rollout,
    rollout_times,
)
from flowmatch.flow import IndependentCoupling, LinearPath, NormalSource, UniformSteps, UniformTimes
from flowmatch.networks import CorrectedVelocity, MaskedNetwork, TeacherVelocity
from flowmatch.objectives import (
    InstantVelocityObjective,
    L2Loss,
    MeanFlow,
    MeanFlowObjective,
    VelocityObjective,
)

X = np.random.default_rng(0).normal(size=(60, 2))
ROWS = torch.as_tensor(X[:8], dtype=torch.float32)


class OneColumn(nn.Module):
    """Takes two columns (and what else there is) and gives one."""

    def __init__(self, size_out=1):
        super().__init__()
        self.layer = nn.Linear(2, size_out)

    def forward(self, x, t, condition=None, step=None):
        return self.layer(x)


def problem():
    return VelocityObjective(LinearPath(), NormalSource(), IndependentCoupling(), UniformTimes(), torch.ones(2))


REFUSED = r"the network OneColumn returned shape \(\d+, 1\) for a batch of shape \(\d+, 2\); expected that shape"


@pytest.mark.parametrize("masked_share", [0.0, 0.5])
@pytest.mark.parametrize("objective", ["velocity", "mean_flow", MeanFlow(velocity="conditional", warmup=0.0)])
@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}], ids=str)
def test_estimators_refuse_it_before_the_first_step(masked_share, objective, options):
    model = FlowMatchingGenerator(
        lambda *shape: OneColumn(),
        objective=objective,
        masked_share=masked_share,
        max_iter=2,
        device="cpu",
        training=TrainingOptions(**options),
    )
    with pytest.raises(ValueError, match=REFUSED):
        model.fit(X)
    assert not hasattr(model, "network_")


def test_forecasters_refuse_it():
    with pytest.raises(ValueError, match=REFUSED):
        ConditionalForecaster(lambda *shape: OneColumn(), max_iter=2, device="cpu").fit(X, X)


@pytest.mark.slow
def test_the_compiled_network_has_the_name_of_the_users():
    model = FlowMatchingGenerator(
        lambda *shape: OneColumn(), masked_share=0.0, max_iter=2, device="cpu", training=TrainingOptions(compile=True)
    )
    with pytest.raises(ValueError, match=REFUSED):
        model.fit(X)


@pytest.mark.parametrize("method", ["progressive", "semigroup", "lagrangian"])
def test_students_refuse_it(method):
    def factory(sample_shape, condition_size, flow_map):
        return OneColumn(1 if flow_map else 2)

    teacher = FlowMatchingGenerator(factory, masked_share=0.0, max_iter=2, device="cpu").fit(X)
    with pytest.raises(ValueError, match=REFUSED):
        DistilledFlowMap(teacher, method=method, max_iter=2).fit(X)


def rollouts():
    t = torch.zeros(8)
    return Rollouts.make(
        lambda *state: midpoint_rollout(TeacherVelocity(OneColumn(2)), *state),
        ROWS,
        rollout_times(t, t + 1, 2),
        None,
        8,
    )


LOSSES = {
    "velocity": lambda network: problem()(network, ROWS),
    "mean flow": lambda network: MeanFlowObjective(**vars(problem()))(network, ROWS),
    "mean flow, conditional": lambda network: MeanFlowObjective(
        **vars(problem()), settings=MeanFlow(velocity="conditional")
    )(network, ROWS),
    "warm-up": lambda network: InstantVelocityObjective(**vars(problem()))(network, ROWS),
    "rollouts": lambda network: RolloutLoss([rollouts()], L2Loss())(network, torch.arange(8), None),
    "pairs": lambda network: PairLoss(rollouts(), problem())(network, torch.arange(8), None),
    "semigroup": lambda network: SemigroupObjective(problem(), UniformSteps())(network, ROWS),
    "lagrangian": lambda network: LagrangianObjective(problem(), UniformSteps(), velocity=OneColumn(2))(network, ROWS),
    "fold": lambda network: FoldObjective(problem(), UniformSteps(), target_network=OneColumn(2))(network, ROWS),
    "corrected": lambda network: CorrectedVelocity(TeacherVelocity(OneColumn(2)), network)(
        ROWS, torch.zeros(8), None, torch.ones(8)
    ),
    "masked": lambda network: MaskedNetwork(network, 2, 0)(ROWS, torch.zeros(8), torch.zeros(8, 10)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_refuse_it_and_take_the_right_shape(loss):
    assert LOSSES[loss](OneColumn(2)).shape[0] == 8
    with pytest.raises(ValueError, match=REFUSED):
        LOSSES[loss](OneColumn())


def test_what_is_no_tensor_is_named():
    def pair(x, t, condition):
        return x, t

    with pytest.raises(ValueError, match="the network pair returned tuple for a batch of shape"):
        problem()(pair, ROWS)
