"""A velocity network that is told an encoding of a row."""

import math

import pytest
import torch
from grid_networks import normal, shaken, times

from flowmatch import MLP
from flowmatch.flow import exact_divergence
from flowmatch.networks import Bottleneck, UNet

SHAPES = {"table": (6,), "signal": (2, 9), "image": (1, 7, 5), "field": (2, 4, 3, 5)}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def component(shape, size=None):
    return Bottleneck(MLP(width=8) if len(shape) == 1 else UNet(width=8, context_width=16, n_time_features=8), size)


def built(shape, size=None, extra=0, **settings):
    return shaken(component(shape, size), shape, extra + math.prod(shape), **settings)


@EVERY_SHAPE
def test_output_has_the_samples_shape_and_starts_at_zero(shape):
    network = component(shape)(shape, math.prod(shape))
    output = network(torch.randn(4, *shape), torch.rand(4), torch.randn(4, math.prod(shape)))
    assert output.shape == (4, *shape)
    assert (output == 0).all()
    moved = built(shape)(normal(4, *shape), times(4), normal(4, math.prod(shape)))
    assert moved.shape == (4, *shape)
    assert moved.isfinite().all()


@EVERY_SHAPE
def test_gradients_reach_every_weight_of_the_encoder(shape):
    network = built(shape)
    network(normal(4, *shape), times(4), normal(4, math.prod(shape))).square().mean().backward()
    for name, parameter in network.encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@EVERY_SHAPE
def test_every_number_of_the_condition_is_encoded_and_only_the_encoding_is_told(shape):
    network, x, t = built(shape), normal(1, *shape), times(1)
    condition = normal(1, math.prod(shape), seed=3).requires_grad_()
    output = network(x, t, condition)
    (gradient,) = torch.autograd.grad(output.square().sum(), condition)
    assert (gradient != 0).all()
    torch.testing.assert_close(output, network.network(x, t, network.encoder(condition)), rtol=0, atol=0)


@EVERY_SHAPE
def test_a_rows_output_does_not_depend_on_the_other_rows(shape):
    network = built(shape)
    x, t, condition = normal(4, *shape), times(4), normal(4, math.prod(shape), seed=3)
    torch.testing.assert_close(
        network(x[1:2], t[1:2], condition[1:2]), network(x, t, condition)[1:2], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((6,), None, 1), ((3,), None, 1), ((20,), None, 5), ((2, 16), None, 8), ((1, 32, 32), None, 64), ((6,), 3, 3)],
)
def test_an_encoding_has_the_size_asked_for_or_a_quarter_of_the_rows(shape, size, expected):
    network = built(shape, size)
    assert network.encoder(normal(2, math.prod(shape))).shape == (2, expected)
    assert network.network.condition_size == expected


def test_the_encoder_of_a_grid_reads_the_row_at_the_end_of_the_condition():
    network = built((2, 9), extra=3)
    condition = normal(4, 21)
    other = torch.cat([condition[:, :3] + 1, condition[:, 3:]], dim=1)
    assert torch.equal(network.encoder(condition), network.encoder(other))
    assert not torch.equal(network.encoder(condition), network.encoder(condition.roll(1, dims=1)))


@EVERY_SHAPE
def test_no_condition_equals_zeros(shape):
    network, x, t = built(shape), normal(4, *shape), times(4)
    zeros = torch.zeros(4, math.prod(shape), dtype=torch.float64)
    torch.testing.assert_close(network(x, t), network(x, t, zeros), rtol=0, atol=0)


@EVERY_SHAPE
def test_a_condition_of_the_wrong_size_is_refused(shape):
    size = math.prod(shape)
    with pytest.raises(ValueError, match=f"conditions of {size} elements, but got {size + 1}"):
        built(shape)(normal(4, *shape), times(4), normal(4, size + 1))


@EVERY_SHAPE
def test_forward_and_backward_stay_on_the_device(shape):
    meta = torch.device("meta")
    network = component(shape)(shape, math.prod(shape)).to(meta)
    output = network(
        torch.ones(4, *shape, device=meta),
        torch.ones(4, device=meta),
        torch.ones(4, math.prod(shape), device=meta),
    )
    assert output.device == meta
    assert output.shape == (4, *shape)
    output.sum().backward()
    assert all(p.grad is not None and p.grad.device == meta for p in network.parameters())


def test_the_divergence_is_that_of_the_velocity_with_the_condition_held_fixed():
    network, x, t, condition = built((6,)), normal(2, 6), times(1)[0], normal(2, 6, seed=3)
    _, divergence = exact_divergence(lambda x, t: network(x, t.expand(len(x)), condition), 6)(x, t)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda row, i=i: network(row[None], t[None], condition[i : i + 1])[0], x[i]
        )
        torch.testing.assert_close(divergence[i, 0], jacobian.trace())


@pytest.mark.parametrize("shape", [(6,), (2, 9)], ids=["table", "signal"])
def test_a_flow_map_is_told_the_encoding_too(shape):
    network = built(shape, flow_map=True)
    x, t, condition, step = normal(4, *shape), times(4), normal(4, math.prod(shape)), times(4, seed=5)
    torch.testing.assert_close(
        network(x, t, condition, step), network.network(x, t, network.encoder(condition), step), rtol=0, atol=0
    )
    with pytest.raises(ValueError, match="needs the increment"):
        network(x, t, condition)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Bottleneck(MLP(), size=0), "size must be an integer >= 1, got 0"),
        (Bottleneck(MLP(), size=1.5), "size must be"),
        (Bottleneck(MLP(width=0)), "width must be"),
    ],
    ids=repr,
)
def test_bad_parameters_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        bad.validate()
