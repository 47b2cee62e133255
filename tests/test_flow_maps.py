"""Flow maps: the laws that exact ones obey, and how networks become them."""

import itertools
import math

import pytest
import torch
from closed_forms import GaussianFlow
from grid_networks import normal, shaken, times
from torch import nn
from torch.func import jvp

from flowmatch import MLP
from flowmatch.flow import (
    CosinePath,
    LinearPath,
    VariancePreservingPath,
    expand_time,
    follow,
    jump,
    jump_grid,
    time_grid,
)
from flowmatch.networks import Bottleneck, InstantVelocity, Transformer, UNet, start_from_velocity
from flowmatch.networks.mlp import CONDITIONINGS

FLOWS = {
    "linear": GaussianFlow(0.7, 0.3, LinearPath()),
    "vp": GaussianFlow(-0.4, 0.5, VariancePreservingPath()),
    "cosine": GaussianFlow(0.7, 1.8, CosinePath()),
}
EVERY_FLOW = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
SHAPE = (6, 2, 3)


def interval(flow, share=1.0, n=6):
    """Times t and increments of which `share` is used, with t + step <= 1; one row starts first, one ends last."""
    first = flow.path.first_time
    t = first + (1 - first) * torch.tensor([0.0, 0.1, 0.3, 0.5, 0.9, 0.25], dtype=torch.float64)[:n]
    step = share * (1 - t) * torch.tensor([1.0, 0.9, 0.5, 0.1, 1.0, 0.02], dtype=torch.float64)[:n]
    return t, step


def grid(flow, n_steps):
    return torch.linspace(flow.path.first_time, 1, n_steps + 1, dtype=torch.float64)


# -- the closed form itself ---------------------------------------------------------------------------------------


@EVERY_FLOW
@pytest.mark.parametrize("direction", [1, -1])
def test_the_closed_average_velocity_is_the_mean_of_the_velocity_along_the_flow(flow, direction):
    x, (t, step) = normal(*SHAPE), interval(flow)
    if direction < 0:
        t, step = t + step, -step
    expected = (flow.carry(x, expand_time(t, x), expand_time(t + step, x)) - x) / expand_time(step, x)
    torch.testing.assert_close(flow.average_velocity(x, t, step), expected, rtol=1e-11, atol=1e-11)
    still = flow.average_velocity(x, t, 0 * step)
    torch.testing.assert_close(still, flow.velocity(x, expand_time(t, x)), rtol=1e-12, atol=1e-12)


@EVERY_FLOW
def test_the_closed_average_velocity_does_not_cancel_at_small_increments(flow):
    x, (t, step) = normal(*SHAPE), interval(flow)
    point, tangent = (x, t + 1e-9, -1e-9 * step), (normal(*SHAPE, seed=3), torch.ones_like(t), step)
    small, slope = jvp(flow.average_velocity, point, tangent)
    other, other_slope = jvp(flow.average_velocity, (x, t + 1e-9, 0 * step), tangent)
    torch.testing.assert_close(small, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(slope, other_slope, rtol=1e-4, atol=1e-6)


# -- laws ---------------------------------------------------------------------------------------------------------


@EVERY_FLOW
def test_a_jump_of_length_zero_is_the_identity(flow):
    x, (t, step) = normal(*SHAPE), interval(flow)
    assert torch.equal(jump(flow.average_velocity, x, t, 0 * step), x)


@EVERY_FLOW
def test_a_jump_starts_with_the_velocity(flow):
    x, (t, step) = normal(*SHAPE), interval(flow)
    _, slope = jvp(lambda d: jump(flow.average_velocity, x, t, d), (0 * step,), (torch.ones_like(step),))
    torch.testing.assert_close(slope, flow.velocity(x, expand_time(t, x)), rtol=1e-12, atol=1e-12)


@EVERY_FLOW
@pytest.mark.parametrize("share", [0.25, 0.7, -0.1])
def test_two_jumps_make_one(flow, share):
    """The second is shorter, longer, or longer than the whole after a jump back."""
    x, (t, step) = normal(*SHAPE), interval(flow, 0.9)
    t = t + 0.1 * step
    part = share * step
    twice = jump(flow.average_velocity, jump(flow.average_velocity, x, t, part), t + part, step - part)
    torch.testing.assert_close(twice, jump(flow.average_velocity, x, t, step), rtol=1e-12, atol=1e-12)


@EVERY_FLOW
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_any_number_of_steps_ends_at_the_exact_end(flow, n_steps):
    x, at = normal(*SHAPE), grid(flow, n_steps)
    torch.testing.assert_close(
        follow(flow.average_velocity, x, at), flow.carry(x, at[0], at[-1]), rtol=1e-11, atol=1e-11
    )


@EVERY_FLOW
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_jumps_back_undo_the_jumps(flow, n_steps):
    x, at = normal(*SHAPE), grid(flow, n_steps)
    there = follow(flow.average_velocity, x, at)
    assert (there - x).abs().max() > 0.1
    torch.testing.assert_close(follow(flow.average_velocity, there, at.flip(0)), x, rtol=1e-11, atol=1e-11)


@EVERY_FLOW
def test_a_trajectory_holds_the_states_at_all_times(flow):
    x, at = normal(*SHAPE), grid(flow, 5)
    states = follow(flow.average_velocity, x, at, return_trajectory=True)
    assert states.shape == (6, *SHAPE)
    assert torch.equal(states[0], x)
    assert torch.equal(states[-1], follow(flow.average_velocity, x, at))
    for state, t in zip(states, at, strict=True):
        torch.testing.assert_close(state, flow.carry(x, at[0], t), rtol=1e-11, atol=1e-11)


@EVERY_FLOW
def test_a_row_does_not_depend_on_its_neighbours(flow):
    x, (t, step), at = normal(*SHAPE), interval(flow), grid(flow, 3)
    alone = [jump(flow.average_velocity, *row) for row in zip(x.split(1), t.split(1), step.split(1), strict=True)]
    assert torch.equal(jump(flow.average_velocity, x, t, step), torch.cat(alone))
    alone = [follow(flow.average_velocity, row, at) for row in x.split(1)]
    assert torch.equal(follow(flow.average_velocity, x, at), torch.cat(alone))


def test_every_jump_is_told_its_own_time_and_increment():
    told = []

    def spy(x, t, step):
        told.append((t.tolist(), step.tolist()))
        return x

    follow(spy, torch.ones(2, 1), torch.tensor([0.0, 0.25, 1.0]))
    assert told == [([0.0] * 2, [0.25] * 2), ([0.25] * 2, [0.75] * 2)]


# -- networks: from a velocity to a flow map ----------------------------------------------------------------------

TABLE, SIGNAL, IMAGE = (5,), (2, 9), (1, 6, 5)
NETWORKS = {
    **{name: (MLP(width=8, conditioning=name), TABLE) for name in CONDITIONINGS},
    "concat_grid": (MLP(width=8, conditioning="concat"), SIGNAL),
    "unet": (UNet(width=8, context_width=16, n_time_features=8), SIGNAL),
    "unet_2d": (UNet(width=8, multipliers=(1, 2), attention_levels=1), IMAGE),
    "transformer": (Transformer(width=16, depth=2, n_heads=2, n_time_features=8), SIGNAL),
    "transformer_2d": (Transformer(width=16, depth=2, n_heads=2, patch_size=2), IMAGE),
}
EVERY_NETWORK = pytest.mark.parametrize(("component", "shape"), NETWORKS.values(), ids=NETWORKS)


def started(component, shape, size, **settings):
    """A velocity with weights off their start, and the flow map that starts from it."""
    velocity = shaken(component, shape, size, **settings)
    flow_map = shaken(component, shape, size, seed=1, flow_map=True, **settings)
    start_from_velocity(flow_map, velocity)
    return velocity, flow_map


def check_start(component, shape, size, **settings):
    velocity, flow_map = started(component, shape, size, **settings)
    x, t, condition = normal(4, *shape), times(4), normal(4, size) if size else None
    for step in (torch.zeros_like(t), times(4, seed=5), -t):
        torch.testing.assert_close(flow_map(x, t, condition, step), velocity(x, t, condition), rtol=0, atol=1e-13)
    assert velocity(x, t, condition).abs().min() > 0

    flow_map(x, t, condition, times(4, seed=5)).square().sum().backward()
    read = {
        f"{prefix}.{name}".lstrip("."): columns
        for prefix, module in flow_map.named_modules()
        if hasattr(module, "step_columns")
        for name, columns in [module.step_columns]
    }
    assert len(read) == 1
    for name, columns in read.items():
        parameter = flow_map.get_parameter(name)
        assert (parameter[:, columns] == 0).all()
        assert (parameter.grad[:, columns].abs().amax(0) > 0).all()
        rest = parameter.shape[1] - (columns.stop - columns.start)
        assert rest == dict(velocity.named_parameters())[name].shape[1]


@EVERY_NETWORK
@pytest.mark.parametrize("size", [0, 3])
def test_a_flow_map_starts_as_the_velocity_and_can_learn_the_increment(component, shape, size):
    check_start(component, shape, size)


@pytest.mark.parametrize(("component", "shape"), [NETWORKS["concat"], NETWORKS["unet"]], ids=["table", "signal"])
def test_a_bottleneck_starts_as_the_velocity_and_can_learn_the_increment(component, shape):
    check_start(Bottleneck(component), shape, math.prod(shape))


@pytest.mark.parametrize("name", ["unet", "transformer"])
def test_a_flow_map_with_a_context_grid_starts_as_the_velocity(name):
    component, shape = NETWORKS[name]
    check_start(component, shape, 3 + math.prod(shape), context_channels=shape[0])


@EVERY_NETWORK
def test_after_the_start_a_flow_map_shares_no_memory_with_the_velocity(component, shape):
    velocity, flow_map = started(component, shape, 0)
    owned = {p.data_ptr() for p in velocity.parameters()}
    assert not owned & {p.data_ptr() for p in flow_map.parameters()}


def test_in_other_modules_what_fits_is_copied_and_the_rest_stays():
    def module(inputs):
        return nn.Sequential(nn.Linear(inputs, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    velocity, flow_map = module(3), module(5)
    velocity[1].running_mean.fill_(3.0)
    before = flow_map[0].weight.clone()
    start_from_velocity(flow_map, velocity)
    assert torch.equal(flow_map[0].weight, before)
    for (name, new), old in itertools.islice(
        zip(flow_map.state_dict().items(), velocity.state_dict().values(), strict=True), 1, None
    ):
        assert torch.equal(new, old), name


def test_the_instant_velocity_is_the_flow_map_at_increment_zero():
    flow_map = shaken(MLP(width=8), TABLE, 3, flow_map=True)
    velocity, x, t, condition = InstantVelocity(flow_map), normal(4, *TABLE), times(4), normal(4, 3)
    assert torch.equal(velocity(x, t, condition), flow_map(x, t, condition, torch.zeros_like(t)))
    assert torch.equal(velocity(x, t), flow_map(x, t, None, torch.zeros_like(t)))
    assert not torch.allclose(velocity(x, t, condition), flow_map(x, t, condition, t))


@pytest.mark.parametrize("n_steps", range(1, 18))
@pytest.mark.parametrize("first_time", [0.0, 0.001])
def test_jump_grids_are_halves_of_halves(n_steps, first_time):
    times = jump_grid(n_steps, first_time, dtype=torch.float64)
    assert len(times) == n_steps + 1
    assert times[0] == first_time
    assert times[-1] == pytest.approx(1, abs=1e-15)
    lengths = times.diff() / (1 - first_time)
    halvings = -lengths.log2()
    torch.testing.assert_close(halvings, halvings.round(), rtol=0, atol=1e-9)
    assert halvings.max() - halvings.min() < 1.5
    places = (times[:-1] - first_time) / (1 - first_time) / lengths
    torch.testing.assert_close(places, places.round(), rtol=0, atol=1e-9)
    if n_steps in (1, 2, 4, 8, 16):
        torch.testing.assert_close(times, time_grid(n_steps, first_time, dtype=torch.float64))
