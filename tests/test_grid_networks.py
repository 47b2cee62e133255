"""What holds for every network on grids: the U-Net and the transformer, in one, two and three dimensions."""

import warnings

import pytest
import torch
from grid_networks import normal, shaken, times
from torch.func import jvp

from flowmatch import MLP
from flowmatch.flow import exact_divergence, hutchinson_divergence
from flowmatch.networks import Transformer, UNet

UNET = UNet(width=8, context_width=16, n_time_features=8)
TRANSFORMER = Transformer(width=16, depth=2, n_heads=2, n_time_features=8)
BOTH = pytest.mark.parametrize("component", [UNET, TRANSFORMER], ids=["unet", "transformer"])
GRIDS = pytest.mark.parametrize("shape", [(2, 9), (2, 6, 5), (2, 4, 3, 5)], ids=str)


# -- shapes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "component",
    [
        UNET,
        UNet(width=8, multipliers=(1, 2, 2), n_blocks=2, attention_levels=2),
        UNet(width=8, multipliers=(1, 2), patch_size=2, boundary="periodic"),
        UNet(width=8, multipliers=(2,), attention_levels=0, boundary="replicate"),
        UNet(width=8, multipliers=(1, 2), patch_size=2, gain=True),
        TRANSFORMER,
        Transformer(width=16, depth=1, n_heads=1, patch_size=3),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "shape",
    [
        *[(1, 1), (6, 1), (1, 5), (6, 12), (1, 300)],
        *[(1, 1, 1), (6, 8, 8), (1, 7, 5), (1, 1, 9), (1, 17, 2)],
        *[(1, 1, 1, 1), (6, 3, 1, 5), (1, 4, 4, 4), (1, 5, 7, 3)],
    ],
    ids=str,
)
def test_output_has_exactly_the_samples_shape_and_starts_at_zero(component, shape):
    network = component(shape, 2)
    output = network(torch.randn(2, *shape), torch.rand(2), torch.randn(2, 2))
    assert output.shape == (2, *shape)
    assert (output == 0).all()
    moved = shaken(component, shape)(normal(2, *shape), times(2))
    assert moved.shape == (2, *shape)
    assert moved.isfinite().all()
    assert (moved != 0).all()


@BOTH
@pytest.mark.parametrize(("built", "used"), [((2, 8), (2, 13)), ((2, 4, 6), (2, 9, 5)), ((2, 4, 4, 4), (2, 5, 2, 7))])
def test_a_network_works_on_other_grids_than_the_one_it_was_built_for(component, built, used):
    output = shaken(component, built)(normal(3, *used), times(3))
    assert output.shape == (3, *used)
    assert output.isfinite().all()


@BOTH
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5,), "use network='mlp' for tables"),
        ((1, 2, 2, 2, 2), "fields"),
        ((2, 0), "one point"),
        ((0, 4, 4), "channel"),
    ],
)
def test_samples_that_are_no_grids_are_refused(component, shape, message):
    with pytest.raises(ValueError, match=message):
        component(shape, 0)


# -- what the output depends on -----------------------------------------------------------------------------------


@BOTH
@GRIDS
def test_output_depends_on_sample_time_and_condition(component, shape):
    network = shaken(component, shape, 3)
    x, t, c = normal(1, *shape), times(1), normal(1, 3)
    base = network(x, t, c)
    for changed in (network(x + 1, t, c), network(x, t + 0.2, c), network(x, t, c + 1), network(x, t)):
        assert (changed - base).abs().max() > 1e-3


@BOTH
def test_no_condition_equals_zeros_and_a_wrong_size_is_named(component):
    network = shaken(component, (2, 6, 5), 3)
    x, t = normal(4, 2, 6, 5), times(4)
    assert torch.equal(network(x, t), network(x, t, x.new_zeros(4, 3)))
    with pytest.raises(ValueError, match="conditions of 3 elements, but got 2"):
        network(x, t, x.new_zeros(4, 2))


@BOTH
def test_flow_map_takes_a_step_and_a_velocity_refuses_it(component):
    x, t = normal(4, 2, 9), times(4)
    flow_map = shaken(component, (2, 9), flow_map=True)
    assert not torch.allclose(flow_map(x, t, step=t), flow_map(x, t, step=t / 2))
    with pytest.raises(ValueError, match="needs the increment"):
        flow_map(x, t)
    with pytest.raises(ValueError, match="takes no `step`"):
        shaken(component, (2, 9))(x, t, step=t)


@BOTH
@GRIDS
def test_a_rows_output_does_not_depend_on_its_neighbours(component, shape):
    network = shaken(component, shape, 3)
    x, t, c = normal(5, *shape), times(5), normal(5, 3)
    alone = torch.cat([network(*row) for row in zip(x.split(1), t.split(1), c.split(1), strict=True)])
    torch.testing.assert_close(network(x, t, c), alone, rtol=0, atol=1e-12)


@BOTH
@GRIDS
def test_a_context_grid_is_read_beside_the_vector_part_of_a_condition(component, shape):
    network = shaken(component, shape, 3 + 2 * normal(*shape)[0].numel(), context_channels=2)
    x, t, vector, grid = normal(2, *shape), times(2), normal(2, 3), normal(2, *shape, seed=3)
    base = network(x, t, torch.cat([vector, grid.flatten(1)], dim=1))
    assert base.shape == x.shape
    for other in ((vector + 1, grid), (vector, grid + 1)):
        assert (network(x, t, torch.cat([part.flatten(1) for part in other], dim=1)) - base).abs().max() > 1e-3


@BOTH
def test_a_context_grid_that_does_not_fit_into_the_condition_is_named(component):
    with pytest.raises(ValueError, match=r"context_channels=2 on a grid of \(4, 3\) needs 24 elements.*is 23"):
        component((1, 4, 3), 23, context_channels=2)


# -- training -----------------------------------------------------------------------------------------------------


@BOTH
@GRIDS
def test_gradients_reach_every_parameter(component, shape):
    network = shaken(component, shape, 3 + normal(*shape)[0].numel(), flow_map=True, context_channels=1)
    condition = normal(2, network.condition_size)
    network(normal(2, *shape), times(2), condition, times(2, seed=4)).square().mean().backward()
    for name, p in network.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 1e-12, name


@BOTH
def test_dropout_acts_in_training_only(component):
    network = shaken(type(component)(**{**component.get_params(), "dropout": 0.5}), (2, 9))
    x, t = normal(2, 2, 9), times(2)
    torch.manual_seed(0)
    assert not torch.allclose(network(x, t), network(x, t))
    network.eval()
    assert torch.equal(network(x, t), network(x, t))
    plain = component((2, 9), 0).double().eval()
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(x, t), plain(x, t))


def all_blocks(network):
    """The modules that activation checkpointing runs again."""
    if hasattr(network, "down"):
        return [block for level in (*network.down, network.middle, *network.up) for block in level]
    return list(network.blocks if hasattr(network, "blocks") else network.layers)


@pytest.mark.parametrize(
    ("component", "shape"),
    [
        (UNet(width=8, multipliers=(1, 2), attention_levels=2, dropout=0.3), (2, 6, 5)),
        (Transformer(width=16, depth=2, n_heads=2, dropout=0.3), (2, 6, 5)),
        *[(MLP(width=8, conditioning=name, dropout=0.3), (5,)) for name in ("film", "adaln", "concat")],
    ],
    ids=["unet", "transformer", "film", "adaln", "concat"],
)
def test_activation_checkpointing_runs_blocks_again_and_changes_no_gradient(component, shape):
    network, x, t = shaken(component, shape), normal(3, *shape), times(3)
    calls = []
    for block in all_blocks(network):
        block.register_forward_pre_hook(lambda block, _: calls.append(block))

    def gradients(checkpointing):
        network.activation_checkpointing = checkpointing
        network.zero_grad()
        calls.clear()
        torch.manual_seed(0)  # for the dropout
        network(x, t).square().mean().backward()
        return [p.grad.clone() for p in network.parameters()]

    kept = gradients(False)
    assert len(calls) == len(all_blocks(network))
    recomputed = gradients(True)
    assert len(calls) == 2 * len(all_blocks(network))
    assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))

    calls.clear()
    network.eval()
    network(x, t).sum().backward()
    assert len(calls) == len(all_blocks(network))


# -- derivatives --------------------------------------------------------------------------------------------------

TINY = [
    (UNet(width=4, multipliers=(1, 2), boundary="zeros"), (1, 6)),
    (UNet(width=4, multipliers=(1, 2), boundary="periodic"), (1, 2, 3)),
    (UNet(width=4, multipliers=(1, 2), boundary="replicate"), (1, 2, 1, 3)),
    (UNet(width=4, multipliers=(1,), patch_size=2, boundary="periodic"), (2, 3)),
    (Transformer(width=8, depth=1, n_heads=2), (2, 3)),
    (Transformer(width=8, depth=1, n_heads=2, patch_size=2), (1, 2, 3)),
    (Transformer(width=8, depth=1, n_heads=1), (1, 1, 2, 3)),
]


@pytest.mark.parametrize(("component", "shape"), TINY, ids=str)
def test_divergences_equal_the_trace_of_the_jacobian_and_run_in_batches(component, shape):
    network = shaken(component, shape).eval()
    x, t = normal(2, *shape), torch.tensor(0.4, dtype=torch.float64)
    size = x[0].numel()

    def velocity(x, t):
        return network(x, t.expand(len(x)))

    jacobians = [torch.autograd.functional.jacobian(lambda row: velocity(row[None], t)[0], row) for row in x]
    traces = torch.stack([jacobian.reshape(size, size).trace() for jacobian in jacobians])
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of operations that it can only run one direction at a time
        _, exact = exact_divergence(velocity, size)(x, t)
        _, estimates = hutchinson_divergence(velocity, signs.reshape(-1, *shape))(x, t)
    assert traces.abs().min() > 1e-3
    torch.testing.assert_close(exact[:, 0], traces, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(estimates.mean(1), traces, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("boundary", ["zeros", "periodic", "replicate", None])
@GRIDS
def test_forward_derivatives_equal_finite_differences(shape, boundary, training):
    component = TRANSFORMER if boundary is None else UNet(width=4, multipliers=(1, 2), boundary=boundary)
    network = shaken(component, shape, flow_map=True).train(training)
    point, direction = (normal(2, *shape), times(2), times(2, seed=4)), (normal(2, *shape, seed=3), times(2), -times(2))

    def flow_map(x, t, step):
        return network(x, t, step=step)

    value, derivative = jvp(flow_map, point, direction)
    ahead, behind = (flow_map(*[p + h * d for p, d in zip(point, direction, strict=True)]) for h in (1e-5, -1e-5))
    torch.testing.assert_close(value, flow_map(*point), rtol=0, atol=1e-12)
    torch.testing.assert_close(derivative, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-7)


@BOTH
def test_a_loss_of_forward_derivatives_has_gradients_with_and_without_checkpointing(component):
    network = shaken(component, (2, 6, 5))
    x, t = normal(2, 2, 6, 5), times(2)
    gradients = []
    for checkpointing in (False, True):
        network.activation_checkpointing = checkpointing
        network.zero_grad()
        value, derivative = jvp(network, (x, t), (x, torch.ones_like(t)))
        (value + derivative).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert max(g.abs().max() for g in gradients[0]) > 1e-3


@BOTH
def test_forward_over_reverse_derivatives_work_in_evaluation_mode(component):
    network = shaken(component, (1, 4)).eval()
    x, t, e = normal(1, 1, 4), times(1), normal(1, 1, 4, seed=3)

    def gradient(x):
        return torch.func.grad(lambda y: network(y, t).square().sum())(x)

    _, product = jvp(gradient, (x,), (e,))
    difference = (gradient(x + 1e-5 * e) - gradient(x - 1e-5 * e)) / 2e-5
    torch.testing.assert_close(product, difference, rtol=1e-5, atol=1e-7)
