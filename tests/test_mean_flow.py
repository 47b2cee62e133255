"""MeanFlow: its identity and its targets on the flow that is known exactly, and the check of forward derivatives."""

import contextlib
import dataclasses

import pytest
import torch
from closed_forms import GaussianFlow
from grid_networks import normal, shaken, times
from torch import nn

from flowmatch import MLP
from flowmatch.flow import (
    STEP_SAMPLERS,
    TIME_SAMPLERS,
    BetaSteps,
    CosinePath,
    FixedSteps,
    IndependentCoupling,
    LinearPath,
    NormalSource,
    UniformTimes,
    VariancePreservingPath,
    expand_time,
)
from flowmatch.networks import Bottleneck, Transformer, UNet
from flowmatch.networks.mlp import CONDITIONINGS
from flowmatch.objectives import (
    AdaptiveWeight,
    DataEndWeight,
    InstantVelocityObjective,
    L2Loss,
    MeanFlow,
    MeanFlowObjective,
    MultiScale,
    PseudoHuberLoss,
    Sobolev,
    UniformWeight,
    VelocityObjective,
    check_forward_derivative,
    derivative_along,
    derivative_in_step,
)

FLOWS = {
    "linear": GaussianFlow(0.7, 0.3, LinearPath()),
    "vp": GaussianFlow(-0.4, 0.5, VariancePreservingPath(first_time=0.05)),
    "cosine": GaussianFlow(0.7, 1.8, CosinePath()),
}
EVERY_FLOW = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
B, SHAPE = 64, (2, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(path=None, shape=SHAPE, **changes):
    return {
        "path": path or LinearPath(),
        "source": NormalSource(),
        "coupling": IndependentCoupling(),
        "time_sampler": UniformTimes(),
        "source_scale": torch.ones(shape, dtype=torch.float64),
        **changes,
    }


def objective(path=None, shape=SHAPE, guidance_scale=1.0, settings=None, **changes):
    return MeanFlowObjective(
        **problem(path, shape, **changes), settings=settings or MeanFlow(), guidance_scale=guidance_scale
    )


def points(flow, n=B, shape=SHAPE):
    """States on the flow and jumps from them, a quarter of them short, one of them the whole way."""
    first = flow.path.first_time
    t = first + (1 - first) * times(n)
    step = (1 - t) * times(n, seed=5)
    step[: n // 4] *= 1e-3
    t[-1], step[-1] = first, 1 - first
    x0, x1 = normal(n, *shape), flow.draw_data(n, *shape, seed=3)
    return flow.path.interpolate(x0, x1, t), t, step


def network(conditioning="film", size=0, shape=SHAPE):
    return shaken(MLP(width=8, conditioning=conditioning), shape, size, flow_map=True)


# -- the identity -------------------------------------------------------------------------------------------------


def residual_of_identity(flow, x, t, step, along_time=1.0, along_step=-1.0, sign=1.0):
    velocity = flow.field(x, t)
    direction = (velocity, along_time * torch.ones_like(t), along_step * torch.ones_like(t))
    value, slope = derivative_along(flow.flow_map, x, t, step, None, direction)
    return value - velocity - sign * expand_time(step, x) * slope


@EVERY_FLOW
def test_the_exact_average_velocity_satisfies_the_identity_and_the_known_mistakes_do_not(flow):
    x, t, step = points(flow)
    assert residual_of_identity(flow, x, t, step).abs().max() < 1e-12
    long = step > 0.3
    for mistake in ({"along_step": 0.0}, {"sign": -1.0}, {"along_time": -1.0, "along_step": 1.0}, {"along_time": 0.0}):
        rms = residual_of_identity(flow, x, t, step, **mistake)[long].square().mean().sqrt()
        assert rms > 0.1, mistake


@EVERY_FLOW
def test_forward_derivatives_are_those_of_finite_differences(flow):
    x, t, step = points(flow)
    t, step = t + 0.01 * step, 0.9 * step
    value, slope = derivative_in_step(flow.flow_map, x, t, step, None)
    ahead, behind = (flow.average_velocity(x, t, step + h) for h in (1e-5, -1e-5))
    assert torch.equal(value, flow.average_velocity(x, t, step))
    torch.testing.assert_close(slope, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-7)


# -- targets ------------------------------------------------------------------------------------------------------


@EVERY_FLOW
def test_the_target_of_the_exact_flow_map_is_the_exact_flow_map(flow):
    x, t, step = points(flow)
    learned = objective(flow.path, settings=MeanFlow(velocity="learned"))
    # the pair's velocity must not matter
    target = learned.target(flow.flow_map, x, t, step, None, 100 * normal(B, *SHAPE))
    torch.testing.assert_close(target, flow.average_velocity(x, t, step), rtol=1e-12, atol=1e-12)


@EVERY_FLOW
def test_targets_of_pairs_are_the_exact_flow_map_on_average(flow):
    """Noise and data given x_t are Gaussian and the target is affine in them: two pairs mirrored at the mean do."""
    x, t, step = points(flow)
    conditional = objective(flow.path, settings=MeanFlow(velocity="conditional"))
    time = expand_time(t, x)
    a, b, spread = flow.path.data_scale(time), flow.path.noise_scale(time), flow.spread(time)
    mean = flow.mean + a * flow.std**2 / spread**2 * (x - a * flow.mean)
    targets = []
    for side in (1, -1):
        x1 = mean + side * flow.std * b / spread
        x0 = (x - a * x1) / b.clamp(min=1e-9)
        targets.append(conditional.target(flow.flow_map, x, t, step, None, flow.path.velocity(x0, x1, t)))
    exact = flow.average_velocity(x, t, step)
    torch.testing.assert_close((targets[0] + targets[1]) / 2, exact, rtol=1e-10, atol=1e-10)
    assert (targets[0] - exact).square().mean().sqrt() > 0.1


@EVERY_FLOW
def test_the_expected_gradient_vanishes_at_the_exact_flow_map(flow):
    """The paper's target over many drawn pairs: no shift, scale or tilt of the exact map has a lower loss nearby."""
    n = 200_000
    settings = MeanFlow(velocity="conditional", jump_weight="uniform")
    x0, x1 = normal(n, 1), flow.draw_data(n, 1, seed=3)
    first = flow.path.first_time
    step = (1 - first) * times(n, seed=5)
    t = first + (1 - first - step) * times(n)
    bend = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def bent(x, t, condition, step):
        exact = flow.average_velocity(x, t, step)
        t, step = expand_time(t, x), expand_time(step, x)
        return (1 + bend[0]) * exact + bend[1] + bend[2] * t * x + bend[3] * step

    losses = objective(flow.path, (1,), settings=settings).jump_loss(bent, x0, x1, t, step)
    (gradient,) = torch.autograd.grad(losses.mean(), bend)
    # the standard error of a mean of products with the residual, whose directions are all of order one
    residual = losses.detach().mean().sqrt()
    assert gradient.abs().max() < 12 * residual / n**0.5
    with torch.no_grad():
        bend += 0.2
    losses = objective(flow.path, (1,), settings=settings).jump_loss(bent, x0, x1, t, step)
    (gradient,) = torch.autograd.grad(losses.mean(), bend)
    assert gradient.abs().max() > 40 * residual / n**0.5


@EVERY_FLOW
def test_learned_targets_have_no_loss_at_the_exact_flow_map(flow):
    exact = objective(flow.path, settings=MeanFlow(flow_ratio=0.0))
    losses = exact(flow.flow_map, flow.draw_data(B, *SHAPE), None, generator())
    assert losses.shape == (B,)
    assert losses.max() < 1e-22
    off = exact(lambda *a: flow.flow_map(*a) + 0.1 * a[3][:, None, None], flow.draw_data(B, *SHAPE), None, generator())
    assert off.mean() > 1e-4


@pytest.mark.parametrize("velocity", ["learned", "conditional"])
def test_gradients_flow_through_the_prediction_only(velocity):
    flow_map, loss = network(), objective(settings=MeanFlow(velocity=velocity, jump_weight="uniform"))
    x0, x1, (_, t, step) = normal(B, *SHAPE), normal(B, *SHAPE, seed=3), points(FLOWS["linear"])
    x, pair = loss.path.interpolate(x0, x1, t), x1 - x0
    target = loss.target(flow_map, x, t, step, None, pair)
    assert not target.requires_grad
    parameters = tuple(flow_map.parameters())
    found = torch.autograd.grad(loss.jump_loss(flow_map, x0, x1, t, step).mean(), parameters)
    plain = torch.autograd.grad((flow_map(x, t, None, step) - target).square().mean(), parameters)
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-12)


# -- rows with and without an increment ---------------------------------------------------------------------------

LOSSES = {
    "l2": {},
    "sobolev": {"loss": Sobolev(beta=0.5)},
    "multiscale": {"loss": MultiScale((1.0, 0.5))},
    "huber": {"loss": PseudoHuberLoss(0.1)},
    "data_end": {"weight": DataEndWeight()},
    "adaptive": {"weight": AdaptiveWeight(0.5), "loss": Sobolev()},
}
EVERY_LOSS = pytest.mark.parametrize("parts", LOSSES.values(), ids=LOSSES)


@EVERY_LOSS
@EVERY_FLOW
def test_rows_without_an_increment_have_the_loss_of_the_velocity(flow, parts):
    flow_map = network()
    x0, x1, (_, t, step) = normal(B, *SHAPE), normal(B, *SHAPE, seed=3), points(flow)
    step[:40] = 0
    t[-1] = 0.5

    def velocity(x, t, condition=None):
        return flow_map(x, t, condition, torch.zeros_like(t))

    plain = VelocityObjective(**problem(flow.path, **parts)).residual_loss(velocity, x0, x1, t)
    own = objective(flow.path, **parts)
    torch.testing.assert_close(
        own.jump_loss(flow_map, x0, x1, t, step, n_still=40)[:40], plain[:40], rtol=1e-12, atol=0
    )
    torch.testing.assert_close(own.residual_loss(flow_map, x0, x1, t), plain, rtol=1e-12, atol=0)
    # an increment of zero that the objective does not know of makes no other target
    settings = MeanFlow(velocity="conditional", jump_weight="uniform")
    moving = objective(flow.path, settings=settings, **parts).jump_loss(flow_map, x0, x1, t, 0 * step)
    torch.testing.assert_close(moving, plain, rtol=1e-12, atol=0)


@EVERY_LOSS
def test_losses_and_weights_act_on_the_residual_of_jumps(parts):
    flow_map, own = network(), objective(settings=MeanFlow(jump_weight="uniform"), **parts)
    x0, x1, (_, t, step) = normal(B, *SHAPE), normal(B, *SHAPE, seed=3), points(FLOWS["linear"])
    x = own.path.interpolate(x0, x1, t)
    residual = flow_map(x, t, None, step) - own.target(flow_map, x, t, step, None, x1 - x0)
    expected = parts.get("loss", L2Loss())(residual, t)
    error = residual.square().flatten(1).mean(1)
    expected = expected * parts.get("weight", UniformWeight())(t, error, own.path)
    torch.testing.assert_close(own.jump_loss(flow_map, x0, x1, t, step), expected, rtol=1e-12, atol=0)


def test_the_default_jump_weight_bounds_the_loss_of_jumps_and_of_nothing_else():
    flow_map = network()
    x0, x1, (_, t, step) = normal(B, *SHAPE), 1000 * normal(B, *SHAPE, seed=3), points(FLOWS["linear"])
    step[:20] = 0
    plain = objective(settings=MeanFlow(velocity="conditional", jump_weight="uniform"))
    bounded = objective(settings=MeanFlow(velocity="conditional"))
    losses = plain.jump_loss(flow_map, x0, x1, t, step, n_still=20)
    assert losses.min() > 1e3
    found = bounded.jump_loss(flow_map, x0, x1, t, step, n_still=20)
    assert torch.equal(found[:20], losses[:20])
    torch.testing.assert_close(found[20:], losses[20:] / (losses[20:] + 1), rtol=1e-12, atol=0)


class Spy:
    """The exact flow map, which remembers at which jumps it was asked outside of derivatives."""

    def __init__(self, flow):
        self.flow, self.seen = flow, []

    def __call__(self, x, t, condition, step):
        if len(x) == B:
            self.seen.append((t, step, condition))
        return self.flow.average_velocity(x, t, step)


@EVERY_FLOW
@pytest.mark.parametrize("flow_ratio", [0.25, 0.5, 0.9])
def test_the_stated_share_of_rows_has_no_increment(flow, flow_ratio):
    settings = MeanFlow(flow_ratio=flow_ratio, step_sampler=BetaSteps(1.0, 1.5))
    spy = Spy(flow)
    objective(flow.path, settings=settings)(spy, flow.draw_data(B, *SHAPE), None, generator())
    ((t, step, _),) = spy.seen
    first, n_still = flow.path.first_time, round(flow_ratio * B)
    assert (step == 0).sum() == n_still
    assert (step[:n_still] == 0).all()
    assert (t >= first).all()
    assert (t + step).max() <= 1 + 1e-12
    still, _ = t[:n_still].sort()
    assert (still - (first + (1 - first) * torch.linspace(0, 1, n_still, dtype=torch.float64))).abs().max() < 0.3


@EVERY_FLOW
def test_jumps_are_the_samplers_on_what_the_path_leaves_of_time(flow):
    spy, first = Spy(flow), flow.path.first_time
    settings = MeanFlow(flow_ratio=0.0, step_sampler=FixedSteps(4))
    objective(flow.path, settings=settings)(spy, flow.draw_data(B, *SHAPE), None, generator())
    t, step, _ = spy.seen[-1]
    torch.testing.assert_close(step, torch.full_like(step, 0.25 * (1 - first)))
    assert torch.unique((t - first).div(1 - first).mul(4).round()).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close((t - first) / step, ((t - first) / step).round(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("time_sampler", TIME_SAMPLERS)
@pytest.mark.parametrize("step_sampler", STEP_SAMPLERS)
def test_a_batch_without_jumps_and_one_with_jumps_only_work(time_sampler, step_sampler):
    flow_map, x1 = network(), normal(1, *SHAPE)
    for flow_ratio in (0.0, 0.9):  # a single row jumps, or does not
        settings = MeanFlow(flow_ratio=flow_ratio, step_sampler=step_sampler)
        own = objective(settings=settings, time_sampler=TIME_SAMPLERS[time_sampler]())
        loss = own(flow_map, x1, None, generator())
        assert loss.shape == (1,)
        assert loss.isfinite().all()


def test_the_warm_up_is_flow_matching_of_the_velocity():
    flow_map, x1 = network(), normal(B, *SHAPE)

    def velocity(x, t, condition=None):
        return flow_map(x, t, condition, torch.zeros_like(t))

    warm = InstantVelocityObjective(**problem())(flow_map, x1, None, generator())
    assert torch.equal(warm, VelocityObjective(**problem())(velocity, x1, None, generator()))


# -- guidance -----------------------------------------------------------------------------------------------------


def guided_parts():
    """A flow map, pairs and jumps, the first 20 of length 0; every fourth row's condition is hidden."""
    flow_map, condition = network(size=3), normal(B, 3, seed=9)
    condition[::4] = 0
    x0, x1, (_, t, step) = normal(B, *SHAPE), normal(B, *SHAPE, seed=3), points(FLOWS["linear"])
    step[:20] = 0
    return flow_map, x0, x1, t, step, condition


@pytest.mark.parametrize("velocity", ["learned", "conditional"])
def test_guidance_at_scale_one_is_none(velocity):
    flow_map, x0, x1, t, step, condition = guided_parts()
    condition = condition.abs() + 1  # none hidden
    told, settings = [], MeanFlow(velocity=velocity)

    def spy(x, t, condition, step):
        told.append(condition)
        return flow_map(x, t, condition, step)

    found = objective(settings=settings).jump_loss(spy, x0, x1, t, step, condition, 20)
    assert all((condition != 0).all() for condition in told)
    limit = objective(guidance_scale=1 + 1e-9, settings=settings).jump_loss(spy, x0, x1, t, step, condition, 20)
    assert any((condition == 0).all() for condition in told)
    torch.testing.assert_close(found, limit, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_guidance_stands_inside_the_target_and_hidden_rows_stay_unguided(scale):
    flow_map, x0, x1, t, step, condition = guided_parts()
    settings = MeanFlow(velocity="conditional", jump_weight="uniform")
    own = objective(guidance_scale=scale, settings=settings)
    x = own.path.interpolate(x0, x1, t)
    with torch.no_grad():
        null = flow_map(x, t, torch.zeros_like(condition), torch.zeros_like(t))
        velocity = null + scale * (x1 - x0 - null)
        velocity[::4] = (x1 - x0)[::4]
        direction = (velocity, torch.ones_like(t), -torch.ones_like(t))
        value, slope = derivative_along(flow_map, x, t, step, condition, direction)
        expected = (value - velocity - expand_time(step, x) * slope).square().flatten(1).mean(1)
        found = own.jump_loss(flow_map, x0, x1, t, step, condition, 20)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        unguided = dataclasses.replace(own, guidance_scale=1.0).jump_loss(flow_map, x0, x1, t, step, condition, 20)
        torch.testing.assert_close(found[::4], unguided[::4], rtol=1e-12, atol=0)
        shown = torch.arange(B) % 4 != 0
        assert ((found - unguided)[shown].abs() > 1e-6).all()
        still = own.residual_loss(flow_map, x0, x1, t, condition)
        torch.testing.assert_close(still[:20], expected[:20], rtol=1e-10, atol=1e-12)


def test_the_guided_velocity_is_the_fixed_point_of_the_guided_loss():
    """With v(c) and v(null) known: the mean of the guided pair velocities is the velocity that guidance samples."""
    flows = GaussianFlow(1.0, 0.5), GaussianFlow(0.0, 1.0)  # under the condition, and without one
    n, scale = 200_000, 2.0
    x0, x1, condition = normal(n, 1), flows[0].draw_data(n, 1, seed=3), torch.ones(n, 1, dtype=torch.float64)
    t = 0.2 + 0.6 * times(n)
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def flow_map(x, t, condition, step):
        null, shown = (flow.field(x, t) for flow in reversed(flows))
        return torch.where(condition != 0, null + (scale + shift[1]) * (shown - null) + shift[0], null)

    losses = objective(shape=(1,), guidance_scale=scale).residual_loss(flow_map, x0, x1, t, condition)
    (gradient,) = torch.autograd.grad(losses.mean(), shift)
    assert gradient.abs().max() < 8 * losses.mean().sqrt() / n**0.5


def test_hidden_conditions_are_hidden_from_prediction_and_target_alike():
    spy = Spy(FLOWS["linear"])
    own = objective(condition_dropout=0.5, settings=MeanFlow(flow_ratio=0.0))
    own(spy, normal(B, *SHAPE), torch.ones(B, 3, dtype=torch.float64), generator())
    seen = [condition for *_, condition in spy.seen]
    assert len(seen) >= 3  # velocity, derivative, prediction
    assert all(torch.equal(condition, seen[0]) for condition in seen)
    assert 0.2 < seen[0].mean() < 0.8


# -- parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"flow_ratio": 1.0}, "flow_ratio must"),
        ({"flow_ratio": -0.1}, "flow_ratio must"),
        ({"warmup": 1.0}, "warmup must"),
        ({"velocity": "true"}, "unknown velocity 'true'.*'learned', 'conditional'"),
        ({"step_sampler": "gamma"}, "unknown step_sampler 'gamma'"),
        ({"step_sampler": BetaSteps(0.0)}, "a must"),
        ({"jump_weight": "none"}, "unknown jump_weight"),
        ({"jump_weight": AdaptiveWeight(offset=0.0)}, "offset must"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        MeanFlow(**bad).validate()


# -- the check of forward derivatives -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "shape"),
    [
        *[(MLP(width=8, conditioning=name, dropout=0.2), (5,)) for name in CONDITIONINGS],
        (UNet(width=4, multipliers=(1, 2), attention_levels=1, dropout=0.2), (2, 9)),
        (UNet(width=4, multipliers=(1, 2), boundary="periodic"), (1, 6, 5)),
        (Transformer(width=16, depth=2, n_heads=2, dropout=0.2), (2, 9)),
        (Transformer(width=16, depth=1, n_heads=2, patch_size=2), (1, 6, 5)),
    ],
    ids=str,
)
def test_the_librarys_networks_have_forward_derivatives(component, shape):
    for size, checkpointing in ((0, False), (3, True)):
        flow_map = component(shape, size, flow_map=True)
        flow_map.activation_checkpointing = checkpointing
        check_forward_derivative(flow_map, torch.ones(shape), size, "objective='mean_flow'")


def test_a_bottleneck_has_forward_derivatives():
    flow_map = Bottleneck(MLP(width=8))((5,), 5, flow_map=True)
    check_forward_derivative(flow_map, torch.ones(5), 5, "objective='mean_flow'")


class Own(nn.Module):
    """A user's flow map of five columns, around a layer of eight units."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(7, 8), layer, nn.Linear(8, 5)

    def forward(self, x, t, condition=None, step=None):
        return self.last(self.middle(self.first(torch.cat([x, t[:, None], step[:, None]], dim=1))))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, h):
        return self.attention(h[:, None], h[:, None], h[:, None], need_weights=False)[0][:, 0]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class WithoutJvp(nn.Module):
    def forward(self, h):
        return Doubled.apply(h)


REFUSED = {
    "batch norm": (nn.BatchNorm1d(8), r"'middle' \(BatchNorm1d\).*use LayerNorm or GroupNorm instead"),
    "nested": (nn.Sequential(nn.SiLU(), nn.BatchNorm1d(8)), r"'middle.1' \(BatchNorm1d\).*use LayerNorm"),
    "attention": (Attention(), r"'middle.attention' \(MultiheadAttention\).*use attention as plain matrix products"),
    "function": (WithoutJvp(), r"'middle' \(WithoutJvp\).*use layers made of plain tensor operations"),
}


@pytest.mark.parametrize(("layer", "message"), REFUSED.values(), ids=REFUSED)
def test_a_layer_without_forward_derivatives_is_named_and_so_is_what_to_use_instead(layer, message):
    with pytest.raises(ValueError, match=rf"^method='lagrangian' needs forward-mode derivatives.*{message}"):
        check_forward_derivative(Own(layer), torch.ones(5), 0, "method='lagrangian'")


@pytest.mark.parametrize("layer", [nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.Dropout(0.5)], ids=repr)
def test_what_the_message_advises_passes(layer):
    check_forward_derivative(Own(layer), torch.ones(5), 0, "objective='mean_flow'")


TRACELESS = {
    "dropout": (nn.Dropout(0.5), None),
    "spectral norm": (nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), None),  # its buffers move at each call
    **REFUSED,
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "message"), TRACELESS.values(), ids=TRACELESS)
def test_the_check_leaves_no_trace(layer, message, training):
    flow_map = Own(layer).train(training)
    flow_map.last.eval()  # a mode of its own
    state = {name: value.clone() for name, value in flow_map.state_dict().items()}
    modes, random_state = {name: module.training for name, module in flow_map.named_modules()}, torch.get_rng_state()
    with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
        check_forward_derivative(flow_map, torch.ones(5), 0, "objective='mean_flow'")
    assert all(p.grad is None for p in flow_map.parameters())
    assert all(torch.equal(value, state[name]) for name, value in flow_map.state_dict().items())
    assert {name: module.training for name, module in flow_map.named_modules()} == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in flow_map.modules())
    assert torch.equal(torch.get_rng_state(), random_state)
