"""What students are asked to match, on the flow that is known exactly."""

import dataclasses

import pytest
import torch
from closed_forms import GaussianFlow
from grid_networks import normal, shaken, times
from torch import nn
from torch.func import jvp

from flowmatch import MLP
from flowmatch.distillation import (
    JITTER,
    WHOLE,
    CorrectedVelocity,
    FoldObjective,
    LagrangianObjective,
    PairLoss,
    RolloutLoss,
    Rollouts,
    SemigroupObjective,
    TeacherVelocity,
    jump_rollout,
    midpoint_rollout,
    rollout_times,
)
from flowmatch.flow import (
    CosinePath,
    DyadicSteps,
    FixedSteps,
    IndependentCoupling,
    LinearPath,
    NormalSource,
    UniformSteps,
    UniformTimes,
    UShapedTimes,
    VariancePreservingPath,
    expand_time,
    guide,
    integrate,
    jump,
)
from flowmatch.objectives import L2Loss, Sobolev, VelocityObjective, derivative_in_step

FLOWS = {
    "linear": GaussianFlow(0.7, 0.3, LinearPath()),
    "vp": GaussianFlow(-0.4, 0.5, VariancePreservingPath(first_time=0.02)),
    "cosine": GaussianFlow(0.7, 1.8, CosinePath()),
}
EVERY_FLOW = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
BOTH_WAYS = pytest.mark.parametrize("both_ways", [False, True], ids=["forwards", "both ways"])
CURVED = FLOWS["cosine"]
B, SHAPE = 64, (2, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(flow, shape=SHAPE, **changes):
    parts = {
        "path": flow.path,
        "source": NormalSource(),
        "coupling": IndependentCoupling(),
        "time_sampler": UniformTimes(),
        "source_scale": torch.ones(shape, dtype=torch.float64),
    }
    return VelocityObjective(**{**parts, **changes})


def points(flow, n=B):
    """States on the flow and intervals that begin there, the last of them the whole way."""
    first = flow.path.first_time
    t = first + (1 - first) * times(n)
    step = (1 - t) * times(n, seed=5)
    t[-1], step[-1] = first, 1 - first
    return flow.path.interpolate(normal(n, *SHAPE), flow.draw_data(n, *SHAPE, seed=3), t), t, step


def carried(flow, x, t, step):
    return flow.carry(x, expand_time(t, x), expand_time(t + step, x))


def perturbed(flow):
    """A flow map that has the right velocity, but jumps wrongly."""
    return lambda x, t, condition, step: flow.average_velocity(x, t, step) + 0.1 * expand_time(step, x)


# -- laws of flow maps as objectives ------------------------------------------------------------------------------


def semigroup(flow, **settings):
    return SemigroupObjective(problem(flow), UniformSteps(), **settings)


def lagrangian(flow, **settings):
    return LagrangianObjective(problem(flow), UniformSteps(), velocity=flow.field, **settings)


def fold(flow, **settings):
    return FoldObjective(problem(flow), DyadicSteps(), **{"target_network": flow.flow_map, **settings})


EVERY_OBJECTIVE = pytest.mark.parametrize("make", [semigroup, lagrangian, fold])


@EVERY_OBJECTIVE
@EVERY_FLOW
@BOTH_WAYS
def test_the_exact_flow_map_has_no_loss_and_others_have(make, flow, both_ways):
    objective, x1 = make(flow, both_ways=both_ways), flow.draw_data(B, *SHAPE)
    losses = objective(flow.flow_map, x1, None, generator())
    assert losses.shape == (B,)
    assert losses.max() < 1e-20
    assert objective(perturbed(flow), x1, None, generator()).mean() > 1e-4


@EVERY_OBJECTIVE
@pytest.mark.parametrize("loss", [L2Loss(), Sobolev(beta=0.5)], ids=["l2", "sobolev"])
def test_the_loss_is_the_norm_of_the_residual_at_states_on_the_path(make, loss):
    objective, random, data = make(CURVED, loss=loss), generator(), CURVED.draw_data(B, *SHAPE)
    student = shaken(MLP(width=8), SHAPE, flow_map=True)
    x0, x1 = objective.problem.draw_pairs(data, None, random)
    t, step = objective.draw_jumps(B, random)
    expected = loss(objective.residual(student, CURVED.path.interpolate(x0, x1, t), t, step, None), t)
    torch.testing.assert_close(objective(student, data, None, generator()), expected)


@EVERY_FLOW
def test_jumps_keep_both_ends_on_the_path_and_half_of_them_turn_round(flow):
    first = flow.path.first_time
    t, step = semigroup(flow).draw_jumps(5000, generator())
    back_t, back_step = semigroup(flow, both_ways=True).draw_jumps(5000, generator())
    assert (step > 0).all()
    turned = back_step < 0
    assert turned.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(turned, back_t != t)
    torch.testing.assert_close(torch.minimum(back_t, back_t + back_step), t)
    torch.testing.assert_close(back_step.abs(), step)
    for ends in (t, t + step, back_t, back_t + back_step):
        assert ends.min() >= first - 1e-12
        assert ends.max() <= 1 + 1e-12
    assert (t + step).max() > 0.99


@BOTH_WAYS
def test_folding_learns_the_velocity_too_beside_the_samplers_own_jumps(both_ways):
    t, step = fold(CURVED, both_ways=both_ways).draw_jumps(4000, generator())
    still = step == 0
    assert 0.05 < still.double().mean() < 0.25
    halvings = -step[~still].abs().log2()
    assert torch.equal(halvings, halvings.round())
    for ends in (t, t + step):
        assert ends.min() >= 0
        assert ends.max() <= 1


@EVERY_OBJECTIVE
def test_conditions_are_dropped_and_told_to_everyone(make):
    told = []

    def spy(x, t, condition, step):
        told.append(condition)
        return CURVED.average_velocity(x, t, step)

    objective = make(CURVED)
    objective = dataclasses.replace(objective, problem=problem(CURVED, condition_dropout=0.5))
    if make is fold:
        objective = dataclasses.replace(objective, target_network=spy)
    condition = torch.ones(B, 3, dtype=torch.float64)
    objective(spy, CURVED.draw_data(B, *SHAPE), condition, generator())
    assert 0.2 < told[0].mean() < 0.8
    assert all(torch.equal(seen, told[0]) for seen in told)


def test_the_residual_of_euler_steps_is_of_first_order():
    """The states of one step and of two halves differ by O(d^2), which is divided by d."""
    objective, (x, t, _) = semigroup(CURVED), points(CURVED)
    sizes = [
        objective.residual(lambda x, t, c, d: CURVED.field(x, t), x, 0.8 * t, torch.full_like(t, step), None)
        .square()
        .mean()
        .sqrt()
        for step in (0.02, 0.01, 0.005)
    ]
    assert torch.log2(sizes[1] / sizes[2]).item() == pytest.approx(1, abs=0.02)
    assert sizes[0] > 1e-3


@pytest.mark.parametrize("make", [semigroup, lagrangian])
def test_a_target_network_stands_in_for_the_student(make):
    x, t, step = points(CURVED)
    student = shaken(MLP(width=8), SHAPE, flow_map=True)
    with_exact_target = make(CURVED, target_network=CURVED.flow_map).residual(student, x, t, step, None)
    if make is semigroup:
        expected = student(x, t, None, step) - CURVED.average_velocity(x, t, step)
    else:
        value, slope = derivative_in_step(student, x, t, step, None)
        end = carried(CURVED, x, t, step)
        expected = value + expand_time(step, x) * slope - CURVED.field(end, t + step)
    torch.testing.assert_close(with_exact_target, expected, rtol=1e-9, atol=1e-11)
    own_target = make(CURVED).residual(student, x, t, step, None)
    assert (own_target - with_exact_target).abs().max() > 0.01


@EVERY_OBJECTIVE
def test_gradients_flow_through_the_student_and_not_through_targets(make):
    x, t, step = points(CURVED)
    student, teacher = (shaken(MLP(width=8), SHAPE, seed=seed, flow_map=True) for seed in (0, 1))
    objective = make(CURVED) if make is semigroup else make(CURVED, target_network=teacher)
    residual = objective.residual(student, x, t, step, None)
    if make is lagrangian:
        value, slope = derivative_in_step(student, x, t, step, None)
        prediction = value + expand_time(step, x) * slope
    else:
        prediction = student(x, t, None, step)
    target = (prediction - residual).detach()
    parameters = tuple(student.parameters())
    found = torch.autograd.grad(residual.square().mean(), parameters)
    torch.testing.assert_close(found, torch.autograd.grad((prediction - target).square().mean(), parameters))
    assert all(p.grad is None for p in teacher.parameters())


# -- a velocity and its correction --------------------------------------------------------------------------------


class Field(nn.Module):
    """A closed form as a module, with or without an increment."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


@EVERY_FLOW
def test_any_corrector_keeps_identity_and_velocity(flow):
    x, t, step = points(flow)
    corrected = CorrectedVelocity(TeacherVelocity(Field(flow.field)), shaken(MLP(width=8), SHAPE, flow_map=True))

    def moved(step):
        return jump(lambda x, t, step: corrected(x, t, None, step), x, t, step)

    start, slope = jvp(moved, (0 * step,), (torch.ones_like(step),))
    assert torch.equal(start, x)
    torch.testing.assert_close(slope, flow.field(x, t), rtol=1e-12, atol=1e-12)
    assert (moved(step) - x - expand_time(step, x) * flow.field(x, t)).abs().max() > 0.01


def test_the_velocity_as_corrector_gives_the_euler_step_and_the_exact_one_the_exact_map():
    x, t, step = points(CURVED)
    teacher = TeacherVelocity(Field(CURVED.field))
    euler = CorrectedVelocity(teacher, Field(lambda x, t, condition, step: CURVED.field(x, t)))
    torch.testing.assert_close(euler(x, t, None, step), CURVED.field(x, t), rtol=1e-13, atol=1e-13)

    def exact_corrector(x, t, condition, step):
        velocity = CURVED.field(x, t)
        return velocity + (CURVED.average_velocity(x, t, step) - velocity) / expand_time(step, x)

    exact = CorrectedVelocity(teacher, Field(exact_corrector))
    torch.testing.assert_close(exact(x, t, None, step), CURVED.average_velocity(x, t, step), rtol=1e-11, atol=1e-11)


@EVERY_FLOW
def test_the_exact_correction_of_short_jumps_is_half_the_acceleration(flow):
    x, t, step = points(flow)
    _, slope = derivative_in_step(flow.flow_map, x, t, 0 * step, None)
    _, acceleration = jvp(flow.field, (x, t), (flow.field(x, t), torch.ones_like(t)))
    torch.testing.assert_close(slope, acceleration / 2, rtol=1e-10, atol=1e-10)


def test_only_the_corrector_is_trained():
    x, t, step = points(CURVED)
    teacher = TeacherVelocity(shaken(MLP(width=8), SHAPE))
    corrected = CorrectedVelocity(teacher, shaken(MLP(width=8), SHAPE, flow_map=True))
    corrected(x, t, None, step).square().mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.grad is not None for p in corrected.corrector.parameters())


# -- teachers -----------------------------------------------------------------------------------------------------


def test_a_teacher_is_frozen_and_stays_in_evaluation_mode():
    teacher = TeacherVelocity(shaken(MLP(width=8, dropout=0.5), SHAPE).train())
    holder = CorrectedVelocity(teacher, shaken(MLP(width=8, dropout=0.5), SHAPE, flow_map=True))
    for mode in (True, False, True):
        assert holder.train(mode) is holder
        assert not any(module.training for module in teacher.network.modules())
        assert all(module.training == mode for module in holder.corrector.modules())
    x, t, _ = points(CURVED)
    assert torch.equal(teacher(x, t), teacher(x, t))
    assert teacher(x.requires_grad_(), t).requires_grad  # densities of students that correct it take derivatives by x


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_a_teachers_guidance_is_that_of_sampling(scale):
    network, x, condition = shaken(MLP(width=8), SHAPE, 3), normal(B, *SHAPE), normal(B, 3, seed=9)
    teacher, t = TeacherVelocity(network, scale), torch.tensor(0.3, dtype=torch.float64)
    guided = guide(network, condition, scale)(x, t)
    torch.testing.assert_close(teacher(x, t.expand(B), condition), guided, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(teacher(x, t.expand(B)), guide(network, None)(x, t), rtol=1e-12, atol=1e-12)


@EVERY_FLOW
@pytest.mark.parametrize("sign", [1, -1])
def test_a_midpoint_rollout_integrates_every_row_over_its_own_interval(flow, sign):
    x, t, step = points(flow, 8)
    if sign < 0:
        t, step = t + step, -step
    times = rollout_times(t, step, 5, JITTER, generator())
    states = midpoint_rollout(flow.field, x, times, None)
    assert states.shape == (6, 8, *SHAPE)
    assert torch.equal(states[0], x)
    for i in range(8):
        alone = integrate(flow.velocity, x[i : i + 1], times[:, i], "midpoint", return_trajectory=True)
        torch.testing.assert_close(states[:, i : i + 1], alone, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sign", [1, -1])
def test_midpoint_rollouts_converge_at_second_order(sign):
    x, t, step = points(CURVED)
    if sign < 0:
        t, step = t + step, -step
    exact = carried(CURVED, x, t, step)
    errors = [
        (midpoint_rollout(CURVED.field, x, rollout_times(t, step, n), None)[-1] - exact).norm() for n in (32, 64, 128)
    ]
    assert torch.log2(errors[1] / errors[2]).item() == pytest.approx(2, abs=0.1)
    assert errors[0] > 1e-6


@EVERY_FLOW
@pytest.mark.parametrize("sign", [1, -1])
def test_a_jump_rollout_of_the_exact_map_is_exact(flow, sign):
    x, t, step = points(flow)
    if sign < 0:
        t, step = t + step, -step
    times = rollout_times(t, step, 6, JITTER, generator())
    states = jump_rollout(flow.flow_map, x, times, None)
    for state, time in zip(states, times, strict=True):
        torch.testing.assert_close(state, carried(flow, x, t, time - t), rtol=1e-11, atol=1e-11)


def test_rollouts_tell_the_condition():
    told = []
    condition = normal(B, 3)
    x, t, step = points(CURVED)
    times = rollout_times(t, step, 2)
    midpoint_rollout(lambda x, t, c: (told.append(c), x)[1], x, times, condition)
    jump_rollout(lambda x, t, c, d: (told.append(c), x)[1], x, times, condition)
    assert len(told) == 6
    assert all(torch.equal(seen, condition) for seen in told)


# -- rollouts and the jumps inside them ---------------------------------------------------------------------------


def exact_rollouts(flow, n_substeps=8, n=B, condition=None, rows_at_once=10, **how):
    def rollout(*state):
        return jump_rollout(flow.flow_map, *state)

    x, t, step = points(flow, n)
    return Rollouts.make(
        rollout, x, rollout_times(t, step, n_substeps, JITTER, generator(7)), condition, rows_at_once, **how
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n_substeps", [1, 2, 8])
def test_times_of_a_rollout_keep_their_ends_and_their_order_and_fill_the_inside(n_substeps, sign):
    t, step = torch.full((5000,), 0.5), torch.full((5000,), 0.4 * sign)
    even, uneven = (rollout_times(t, step, n_substeps, jitter, generator()) for jitter in (0.0, JITTER))
    torch.testing.assert_close(
        even, (0.5 + 0.4 * sign * torch.linspace(0, 1, n_substeps + 1))[:, None].expand(-1, 5000)
    )
    for drawn in (even, uneven):
        assert torch.equal(drawn[0], t)
        assert torch.equal(drawn[-1], t + step)
        assert (sign * drawn.diff(dim=0) > 0).all()
    shift = (uneven - even)[1:-1] / (0.4 / n_substeps)
    if n_substeps > 1:
        assert 0.39 < shift.abs().max() <= 0.4001
        assert abs(shift.mean()) < 0.01


def test_rollouts_are_made_the_same_few_rows_at_once_or_all():
    condition = normal(B, 3)
    few, whole = (exact_rollouts(CURVED, condition=condition, rows_at_once=rows) for rows in (7, B))
    assert few.states.shape == (9, B, *SHAPE)
    assert len(few) == B
    assert few.n_substeps == 8
    torch.testing.assert_close(few.states, whole.states, rtol=1e-12, atol=1e-12)
    x, t, step = points(CURVED)
    ends = exact_rollouts(CURVED, condition=condition, ends_only=True)
    assert torch.equal(ends.states[0], x)
    torch.testing.assert_close(ends.states[-1], carried(CURVED, x, t, step), rtol=1e-11, atol=1e-11)
    assert torch.equal(ends.times, torch.stack([t, t + step]))
    assert torch.equal(ends.condition, condition)


def test_rollouts_keep_no_graph_of_the_teacher():
    student = shaken(MLP(width=8), SHAPE, flow_map=True)
    x, t, step = points(CURVED)
    made = Rollouts.make(lambda *state: jump_rollout(student, *state), x, rollout_times(t, step, 2), None, B)
    assert not made.states.requires_grad


@pytest.mark.parametrize("n_substeps", [1, 2, 5, 8])
@BOTH_WAYS
def test_jumps_take_all_substeps_or_any_number_of_them_from_anywhere(n_substeps, both_ways):
    rollouts = exact_rollouts(CURVED, n_substeps, condition=torch.arange(B)[:, None].double())
    rows = torch.randint(B, (8000,), generator=generator(3))
    x, target, t, step, condition = rollouts.jumps(rows, generator(), both_ways=both_ways)
    torch.testing.assert_close(carried(CURVED, x, t, step), target, rtol=1e-11, atol=1e-11)
    assert torch.equal(condition[:, 0], rows.double())
    start, end = torch.minimum(t, t + step), torch.maximum(t, t + step)
    first, last = ((rollouts.times[:, rows] - time).abs().argmin(0) for time in (start, end))
    torch.testing.assert_close(rollouts.times[first, rows], start, rtol=0, atol=1e-12)
    span = last - first
    counts = torch.bincount(span, minlength=n_substeps + 1)[1:]
    expected = torch.full((n_substeps,), (1 - WHOLE) / n_substeps) + torch.eye(n_substeps)[-1] * WHOLE
    torch.testing.assert_close(counts / 8000, expected, rtol=0, atol=0.02)
    for length in range(1, n_substeps + 1):
        places = torch.bincount(first[span == length])
        assert len(places) == n_substeps - length + 1
        assert places.min() > 0.5 * places.max()
    assert (step < 0).double().mean().item() == pytest.approx(0.5 if both_ways else 0.0, abs=0.03)


@EVERY_FLOW
@BOTH_WAYS
def test_the_exact_flow_map_has_no_loss_on_its_rollouts_and_others_have(flow, both_ways):
    loss = RolloutLoss((exact_rollouts(flow), exact_rollouts(flow, 6)), L2Loss(), both_ways)
    losses = loss(lambda *a: flow.flow_map(*a), torch.arange(B), generator())
    assert losses.shape == (B,)
    assert losses.max() < 1e-20
    assert loss(perturbed(flow), torch.arange(B), generator()).mean() > 1e-4


def test_the_loss_on_rollouts_is_that_of_the_mean_velocity():
    """That is the error of the states over the increment, so that short jumps count as much as long ones."""
    loss = RolloutLoss((exact_rollouts(CURVED),), Sobolev(beta=0.5))
    told = []

    def off_by_a_wave(x, t, condition, step):
        told.append(t)
        return CURVED.average_velocity(x, t, step) + torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])

    losses = loss(off_by_a_wave, torch.arange(B), generator())
    wave = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64).expand(B, *SHAPE)
    torch.testing.assert_close(losses, Sobolev(beta=0.5)(wave, told[0]))


def test_every_stage_gives_its_share_of_the_rows_with_their_conditions():
    stages, told = [], []
    for stage, length in enumerate((0.5, 0.25, 0.125)):
        t, step = FixedSteps(round(1 / length)).draw(B, generator(stage), dtype=torch.float64)
        condition = stage + torch.arange(B, dtype=torch.float64)[:, None] / 1000
        state = (normal(B, *SHAPE), rollout_times(t, step, 1), condition, B)
        stages.append(Rollouts.make(lambda *state: jump_rollout(CURVED.flow_map, *state), *state))

    def spy(x, t, condition, step):
        told.append((step, condition))
        return CURVED.average_velocity(x, t, step)

    rows = torch.randperm(B, generator=generator())[:60]
    losses = RolloutLoss(tuple(stages), L2Loss())(spy, rows, generator())
    assert losses.max() < 1e-20
    ((step, condition),) = told
    stage = condition[:, 0].floor()
    assert torch.bincount(stage.int()).tolist() == [20] * 3
    torch.testing.assert_close(step, 0.5 ** (stage + 1))
    torch.testing.assert_close(1000 * (condition[:, 0] - stage), rows.double(), rtol=0, atol=1e-9)


@BOTH_WAYS
@pytest.mark.parametrize("n_stages", [1, 2])
def test_a_share_of_the_rows_asks_for_a_midpoint_step_shorter_than_a_substep(both_ways, n_stages):
    condition = normal(B, 3)
    stages = tuple(exact_rollouts(CURVED, 4, condition=condition) for _ in range(n_stages))
    told, asked, n_short = [], [], 16

    def velocity(x, t, c):
        asked.append((t, c))
        return CURVED.field(x, t)

    def student(x, t, c, step):
        told.append((t, step, c))
        exact = CURVED.average_velocity(x, t, step)
        end = midpoint_rollout(CURVED.field, x, torch.stack([t, t + step]), c)[-1]
        return torch.cat([((end - x) / expand_time(step, x))[:n_short], exact[n_short:]])

    loss = RolloutLoss(stages, L2Loss(), both_ways, velocity, short=n_short / B)
    rows = torch.randperm(B, generator=generator(4))
    assert loss(student, rows, generator()).max() < 1e-20
    ((t, step, c),) = told
    assert torch.equal(c, condition[rows])
    assert all(torch.equal(known, c[:n_short]) for _, known in asked)
    start, end = stages[0].times[0, rows], stages[0].times[-1, rows]
    share = step.abs() / ((end - start) / 4)
    assert (share[:n_short] > 0).all()
    assert (share[:n_short] < 1).all()
    assert (share[n_short:] > 1 - JITTER).all()
    assert (step < 0).any() == both_ways
    for ends in (t, t + step):
        assert (ends >= start - 1e-12).all()
        assert (ends <= end + 1e-12).all()
    assert loss(perturbed(CURVED), rows, generator()).mean() > 1e-4


def test_fewer_rows_than_stages_work():
    loss = RolloutLoss(tuple(exact_rollouts(CURVED, n) for n in (4, 2, 1)), L2Loss())
    losses = loss(CURVED.flow_map, torch.arange(2), generator())
    assert losses.shape == (2,)
    assert losses.max() < 1e-20


# -- reflow -------------------------------------------------------------------------------------------------------


def straight_pairs(scale, shift, condition=None):
    """Pairs of the map ``x1 = shift + scale x0``, as the flow between normals gives them."""
    x0 = normal(B, *SHAPE)
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[:, None].expand(-1, B)
    return Rollouts(torch.stack([x0, 7 * x0, shift + scale * x0]), times, condition)


@pytest.mark.parametrize(("scale", "shift"), [(0.3, 0.7), (2.0, -1.0), (1.0, 3.0)])
def test_the_velocity_of_straight_lines_has_no_loss_on_the_pairs_of_an_affine_map(scale, shift):
    """x_t = (1 - t) x0 + t x1 tells x0, so the velocity (shift + (scale - 1) x0) is a function of x_t and t."""

    def straight(x, t, condition=None):
        t = expand_time(t, x)
        return shift + (scale - 1) * (x - t * shift) / (1 - t + t * scale)

    pairs = straight_pairs(scale, shift)
    loss = PairLoss(pairs, problem(FLOWS["linear"], time_sampler=UShapedTimes()))
    rows = torch.randperm(B, generator=generator())[:50]
    losses = loss(straight, rows, generator())
    assert losses.shape == (50,)
    assert losses.max() < 1e-24
    assert loss(lambda *a: 0.1 + straight(*a), rows, generator()).min() > 0.009
    # one Euler step is the map, the point of it all
    x0, x1 = pairs.states[[0, -1]]
    torch.testing.assert_close(x0 + straight(x0, torch.zeros(B, dtype=torch.float64)), x1)


def test_pairs_are_told_their_own_condition_times_of_the_law_and_the_problems_norm():
    condition = torch.arange(B)[:, None].double()
    told, rows = [], torch.randperm(B, generator=generator())[:50]

    def spy(x, t, c):
        told.append((x, t, c))
        return 0 * x

    own = problem(FLOWS["linear"], loss=Sobolev(beta=0.5), time_sampler=UShapedTimes())
    pairs = straight_pairs(0.3, 0.7, condition)
    losses = PairLoss(pairs, own)(spy, rows, generator())
    ((x, t, c),) = told
    assert torch.equal(c[:, 0], rows.double())
    assert torch.equal(t, own.draw_times(50, generator()))
    x0, x1 = pairs.states[0, rows], pairs.states[-1, rows]
    torch.testing.assert_close(x, torch.lerp(x0, x1, expand_time(t, x)))
    torch.testing.assert_close(losses, Sobolev(beta=0.5)(x0 - x1, t))
