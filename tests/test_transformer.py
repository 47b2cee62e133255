"""What the transformer and its attention alone promise."""

import math

import pytest
import torch
from grid_networks import normal, shaken, times

from flowmatch.networks import Transformer
from flowmatch.networks.attention import SelfAttention, plain_attention
from flowmatch.networks.embeddings import position_features

SMALL = {"width": 16, "depth": 2, "n_heads": 2, "n_time_features": 8}


@pytest.mark.parametrize(
    ("grid", "patch_size"),
    [((1,), 1), ((8, 8), 1), ((16, 16), 1), ((17, 17), 2), ((28, 28), 2), ((32, 32), 2), ((64, 64), 4), ((256,), 1)]
    + [((1000,), 4), ((1024,), 4), ((16_384,), 64), ((6, 6, 6), 1), ((16, 16, 16), 4), ((32, 32, 32), 8), ((3, 90), 2)],
)
def test_patches_are_as_small_as_256_tokens_allow(grid, patch_size):
    assert Transformer().patch(grid) == patch_size
    assert Transformer(patch_size=3).patch(grid) == 3
    tokens = math.prod(-(-size // patch_size) for size in grid)
    assert tokens <= 256
    assert patch_size == 1 or tokens >= 64


@pytest.mark.parametrize("grid", [(256,), (16, 16), (1, 9), (8, 4, 8), (3, 1, 2)])
@pytest.mark.parametrize("n_features", [8, 16, 50])
def test_every_place_has_features_of_its_own(grid, n_features):
    features = position_features(grid, n_features, torch.zeros(1, dtype=torch.float64))
    n_points = math.prod(grid)
    assert features.shape == (n_points, n_features)
    assert features.abs().max() <= 1
    distances = torch.cdist(features, features) + 10 * torch.eye(n_points)
    assert distances.min() > 0.009


def test_places_along_each_axis_are_told_by_sines_and_cosines_of_the_index():
    features = position_features((3, 4), 9, torch.zeros(1, dtype=torch.float64)).reshape(3, 4, 9)
    rows, columns = torch.meshgrid(torch.arange(3.0).double(), torch.arange(4.0).double(), indexing="ij")
    expected = [f(place * w) for place in (rows, columns) for f in (torch.sin, torch.cos) for w in (1.0, 0.01)]
    torch.testing.assert_close(features, torch.stack([*expected, torch.zeros(3, 4).double()], dim=-1))


def test_places_in_half_precision_are_the_rounded_ones():
    exact, half = (
        position_features((256,), 16, torch.zeros(1, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)
    )
    assert torch.equal(half, exact.bfloat16())


@pytest.mark.parametrize("shape", [(2, 8), (2, 4, 6), (2, 2, 3, 4)])
def test_the_same_patches_in_another_order_are_another_sample(shape):
    network = shaken(Transformer(**SMALL, patch_size=2), shape)
    x, t = normal(2, *shape), times(2)
    assert (network(x.roll(2, -1), t) - network(x, t).roll(2, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 7), (1, 5, 4), (1, 2, 3, 3)])
def test_without_attention_a_patch_reads_its_own_part_of_sample_and_context_alone(shape):
    size = normal(*shape).numel()
    network = shaken(Transformer(**SMALL, patch_size=2), shape, size, context_channels=1)
    for block in network.blocks:
        torch.nn.init.zeros_(block.attention.join.weight)
    x, t, context = normal(1, *shape), times(1), normal(1, size, seed=3)
    base = network(x, t, context)
    point = (0, 0, *(1 for _ in shape[1:]))  # in the first patch
    changed_x, changed_context = x.clone(), context.reshape(x.shape).clone()
    changed_x[point] += 1
    changed_context[point] += 1
    first = torch.zeros(x.shape, dtype=bool)
    first[(..., *(slice(2) for _ in shape[1:]))] = True
    for output in (network(changed_x, t, context), network(x, t, changed_context.flatten(1))):
        assert ((output - base).abs() > 1e-5)[first].all()
        torch.testing.assert_close(output[~first], base[~first], rtol=0, atol=1e-12)


def test_with_attention_every_patch_reads_the_whole_sample():
    network = shaken(Transformer(**SMALL, patch_size=2), (1, 12), scale=1.0)
    x = normal(1, 1, 12)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, times(1)), x).reshape(12, 12)
    assert jacobian.abs().min() > 1e-8


def test_blocks_start_as_the_identity():
    network = Transformer(**SMALL)((1, 8), 0).double()
    tokens, context = normal(3, 8, 16), normal(3, 16)
    for block in network.blocks:
        assert torch.equal(block(tokens, context), tokens)


# -- attention ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_attention_equals_the_one_of_pytorch(n_heads):
    torch.manual_seed(0)
    ours = SelfAttention(8, n_heads).double()
    theirs = torch.nn.MultiheadAttention(8, n_heads, batch_first=True).double()
    names = {"split.weight": "in_proj_weight", "split.bias": "in_proj_bias"}
    theirs.load_state_dict(
        {names.get(name, name.replace("join", "out_proj")): value for name, value in ours.state_dict().items()}
    )
    x = normal(3, 5, 8)
    for training in (True, False):  # the fused kernels and the plain products
        expected, _ = theirs(x, x, x)
        torch.testing.assert_close(ours.train(training)(x), expected, rtol=0, atol=1e-12)


def test_plain_products_and_fused_kernels_attend_alike():
    query, key, value = (normal(2, 3, 7, 4, seed=seed) for seed in range(3))
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(plain_attention(query, key, value), fused, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_heads": 5},
        {"n_heads": 0},
        {"width": 4},
        {"width": 16.0},
        {"depth": 0},
        {"patch_size": 0},
        {"mlp_ratio": 0},
        {"mlp_ratio": "4"},
        {"dropout": 1.0},
        {"n_time_features": 5},
    ],
    ids=str,
)
def test_bad_parameters_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Transformer(**bad)((1, 4), 0)
