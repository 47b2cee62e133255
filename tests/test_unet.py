"""What the U-Net alone promises."""

import pytest
import torch
from grid_networks import normal, shaken, times

from flowmatch.networks import UNet
from flowmatch.networks.boundaries import MixedConvolution, convolution
from flowmatch.networks.unet import AttentionBlock

SMALL = {"width": 8, "context_width": 16, "n_time_features": 8}


def shift_error(component, shape, shift, context=False):
    """How far shifting the input (and the context grid) by so many points is from shifting the output."""
    n_context = 2 * normal(*shape)[0].numel() if context else 0
    network = shaken(component, shape, n_context, context_channels=2 if context else 0)
    x, t = normal(2, *shape), times(2)
    grid = normal(2, 2, *shape[1:], seed=5)
    axes = tuple(range(2, x.ndim))

    def rolled(x):
        return x.roll([shift] * len(axes), axes)

    def output(x, grid):
        return network(x, t, grid.flatten(1) if context else None)

    return (output(rolled(x), rolled(grid)) - rolled(output(x, grid))).abs().max().item()


PERIODIC_CASES = [
    ({"multipliers": (1,)}, (2, 7), 1),
    ({"multipliers": (1, 2)}, (2, 8), 2),
    ({"multipliers": (1, 2, 2)}, (2, 8, 12), 4),
    ({"multipliers": (1, 2), "patch_size": 2, "attention_levels": 2}, (1, 8, 4), 4),
    ({"multipliers": (1, 2)}, (1, 4, 2, 6), 2),
]


@pytest.mark.parametrize(("settings", "shape", "stride"), PERIODIC_CASES, ids=str)
def test_a_periodic_network_commutes_with_shifts_by_its_stride(settings, shape, stride):
    assert shift_error(UNet(**SMALL, boundary="periodic", **settings), shape, stride) < 1e-12
    if stride > 1:
        assert shift_error(UNet(**SMALL, boundary="periodic", **settings), shape, 1) > 1e-4


@pytest.mark.parametrize("boundary", ["zeros", "replicate"])
@pytest.mark.parametrize(("settings", "shape", "stride"), PERIODIC_CASES, ids=str)
def test_other_boundaries_do_not(settings, shape, stride, boundary):
    assert shift_error(UNet(**SMALL, boundary=boundary, **settings), shape, stride) > 1e-4


@pytest.mark.parametrize(("settings", "shape", "stride"), PERIODIC_CASES, ids=str)
def test_a_context_grid_is_read_at_its_own_place(settings, shape, stride):
    assert shift_error(UNet(**SMALL, boundary="periodic", **settings), shape, stride, context=True) < 1e-12


@pytest.mark.parametrize("shape", [(1, 8), (1, 7), (1, 5, 4), (1, 3, 1, 6)], ids=str)
def test_the_way_up_hands_a_coarse_point_to_the_points_it_came_from(shape):
    network, seen = shaken(UNet(**SMALL, multipliers=(1, 2)), shape), {}
    network.widen[0].register_forward_hook(lambda module, arguments, output: seen.update(coarse=output))
    network.up[0][0].register_forward_pre_hook(lambda module, arguments: seen.update(fine=arguments[0][:, :8]))
    network(normal(2, *shape), times(2))
    expected = seen["coarse"]
    for axis, size in enumerate(shape[1:], start=2):
        expected = expected.index_select(axis, torch.arange(size) // 2)
    assert torch.equal(seen["fine"], expected)


@pytest.mark.parametrize(
    ("grid", "patch_size"), [((8, 8), 1), ((16, 16), 1), ((28, 28), 2), ((1024,), 2), ((7,) * 3, 2)]
)
def test_large_grids_are_read_in_patches(grid, patch_size):
    assert UNet().patch(grid) == patch_size
    assert UNet(patch_size=3).patch(grid) == 3


def test_positions_tell_points_apart_unless_the_boundary_is_periodic():
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    for boundary, positions, blind in (
        ("replicate", None, False), ("replicate", False, True), ("periodic", None, True), ("periodic", True, False),
    ):  # fmt: skip
        network = shaken(UNet(**SMALL, boundary=boundary, positions=positions), (1, 8, 8))
        assert (network(x, times(1)).std() < 1e-12) == blind


def test_positions_are_interpolated_on_other_grids():
    network = shaken(UNet(**SMALL, multipliers=(1, 2)), (1, 8, 8))
    assert network(normal(2, 1, 5, 12), times(2)).shape == (2, 1, 5, 12)
    ramp = network.positions[0].features.data
    ramp[:] = torch.arange(8.0)  # linear along the last axis: interpolation keeps it linear inside
    steps = network.positions[0](torch.zeros(1, 8, 8, 16, dtype=torch.float64))[0, 0, 0].diff()
    torch.testing.assert_close(steps[1:-1], torch.full((13,), 0.5, dtype=torch.float64))


def test_a_label_speaks_as_loud_as_time():
    torch.manual_seed(0)
    embedding = UNet()((1, 8, 8), 10).embed_context
    assert float(embedding.embed_condition(torch.eye(10)).detach().std()) == pytest.approx(1.0, abs=0.1)
    many = UNet()((1, 8, 8), 64).embed_context
    assert float(many.embed_condition(torch.eye(64)).detach().std()) == pytest.approx(0.5, abs=0.05)


def test_attention_starts_as_the_identity():
    x = normal(2, 8, 5)
    assert torch.equal(AttentionBlock(8).double()(x, None), x)


@pytest.mark.parametrize(("boundary", "blind"), [("zeros", False), ("periodic", True), ("replicate", True)])
def test_only_zeros_tell_the_edge_of_a_constant_field_from_its_middle(boundary, blind):
    network = shaken(UNet(**SMALL, boundary=boundary, positions=False), (1, 8, 8))
    output = network(torch.ones(1, 1, 8, 8, dtype=torch.float64), times(1))
    assert (output.std() < 1e-12) == blind


@pytest.mark.parametrize(
    ("grid", "settings", "channels"),
    [
        ((1,), {}, [32, 64]),
        ((8, 8), {}, [32, 64]),
        ((16, 3), {}, [32, 64]),
        ((17,), {}, [32, 64, 64]),
        ((32, 32), {"patch_size": 1}, [32, 64, 64]),
        ((32, 32), {}, [32, 64]),
        ((64, 64), {"patch_size": 2}, [32, 64, 64]),
        ((10_000,), {}, [32, 64, 64, 128, 128]),
        ((64, 64), {"width": 8, "multipliers": [1, 3]}, [8, 24]),
    ],
)
def test_the_grid_is_halved_until_eight_points_are_left(grid, settings, channels):
    assert UNet(**settings).channels(grid) == channels


@pytest.mark.parametrize("width", [4, 20, 36, 68, 100, 104])
def test_every_width_that_is_allowed_works(width):
    network = shaken(UNet(width=width, multipliers=(1, 3), context_width=8), (1, 4))
    assert network(normal(2, 1, 4), times(2)).isfinite().all()


@pytest.mark.parametrize(("shape", "patch_size"), [((2, 7), 1), ((1, 5, 6), 2), ((2, 3, 4, 3), 2)], ids=str)
def test_with_a_gain_the_output_is_linear_in_a_sample_that_the_network_does_not_see(shape, patch_size):
    component = UNet(**SMALL, multipliers=(1, 2), patch_size=patch_size, gain=True)
    n_context = normal(*shape).numel()
    network = shaken(component, shape, n_context, context_channels=shape[0])
    with torch.no_grad():
        network.stem.weight[:, : shape[0] * patch_size ** (len(shape) - 1)] = 0.0  # what it knows are context and time
    x, t, context = normal(2, *shape), times(2), normal(2, n_context, seed=3)
    level, one, other = (network(value, t, context) for value in (torch.zeros_like(x), torch.ones_like(x), x))
    torch.testing.assert_close(other, level + (one - level) * x)
    assert (one - level).std() > 0.01  # point by point
    assert level.std() > 0.01


def test_a_gain_starts_at_zero_and_is_none_by_default():
    x, t = torch.ones(3, 2, 6), torch.rand(3)
    assert (UNet(**SMALL, gain=True)((2, 6), 0)(x, t) == 0).all()
    plain, with_gain = (UNet(**SMALL, **settings)((2, 6), 0).head.weight for settings in ({}, {"gain": True}))
    assert (len(plain), len(with_gain)) == (2, 4)


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 6},
        {"width": 0},
        {"multipliers": ()},
        {"multipliers": "12"},
        {"multipliers": (1, 0)},
        {"n_blocks": 0},
        {"attention_levels": -1},
        {"patch_size": 0},
        {"boundary": "wrap"},
        {"dropout": 1.0},
        {"gain": 2},
        {"context_width": 0.5},
        {"n_time_features": 3},
    ],
    ids=str,
)
def test_bad_parameters_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        UNet(**bad)((1, 4), 0)


# -- axes that end differently ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["zeros", "periodic", "replicate"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1)])
@pytest.mark.parametrize("grid", [(6, 5), (4, 6, 5)], ids=str)
def test_a_mixed_convolution_of_equal_boundaries_is_the_uniform_one(boundary, kernel, stride, grid):
    uniform = convolution((boundary,) * len(grid))(2, 3, kernel, stride=stride).double()
    kind = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[len(grid) - 1]
    mixed = MixedConvolution(kind, (boundary,) * len(grid), 2, 3, kernel, stride).double()
    mixed.conv.load_state_dict(uniform.state_dict())
    x = normal(2, 2, *grid)
    torch.testing.assert_close(mixed(x), uniform(x), rtol=0, atol=1e-14)


def test_each_axis_of_a_mixed_convolution_is_padded_in_its_own_way():
    conv = convolution(("periodic", "zeros", "replicate"))(1, 1, 3).double()
    with torch.no_grad():
        conv.conv.weight.fill_(1.0)
        conv.conv.bias.fill_(0.0)
    x = normal(1, 1, 4, 5, 6)
    padded = torch.cat([x[:, :, -1:], x, x[:, :, :1]], dim=2)
    padded = torch.cat([torch.zeros_like(padded[:, :, :, :1]), padded, torch.zeros_like(padded[:, :, :, :1])], dim=3)
    padded = torch.cat([padded[..., :1], padded, padded[..., -1:]], dim=4)
    expected = sum(
        padded[:, :, i : i + 4, j : j + 5, k : k + 6] for i in range(3) for j in range(3) for k in range(3)
    )  # fmt: skip
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("boundary", [("periodic", "zeros"), ("replicate", "periodic")], ids=str)
def test_a_network_commutes_with_shifts_along_its_periodic_axes_alone(boundary):
    network = shaken(UNet(**SMALL, multipliers=(1, 2), boundary=boundary), (2, 8, 12), 2 * 96, context_channels=2)
    x, t, grid = normal(2, 2, 8, 12), times(2), normal(2, 2, 8, 12, seed=5)
    whole = network(x, t, grid.flatten(1))
    for axis, name in zip((2, 3), boundary, strict=True):
        shifted = network(x.roll(2, axis), t, grid.roll(2, axis).flatten(1))
        error = (shifted - whole.roll(2, axis)).abs().max().item()
        assert error < 1e-12 if name == "periodic" else error > 1e-4


def test_equal_boundaries_of_all_axes_are_one_boundary():
    pair = [shaken(UNet(**SMALL, multipliers=(1, 2), boundary=b), (1, 4, 6)) for b in ("periodic", ("periodic",) * 2)]
    x = normal(2, 1, 4, 6)
    assert torch.equal(pair[0](x, times(2)), pair[1](x, times(2)))


def test_boundaries_of_another_number_of_axes_are_refused():
    with pytest.raises(ValueError, match="boundary"):
        UNet(boundary=("periodic", "zeros"))((1, 8), 0)
    with pytest.raises(ValueError, match="boundary"):
        UNet(boundary=("periodic", "wrap"))((1, 8, 8), 0)
