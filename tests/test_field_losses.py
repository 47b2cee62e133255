"""Losses on grids: symbols on plane waves, what coarse cells see, minimisers that stay, nesting, and early refusals."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import flowmatch
from flowmatch import FlowMatchingGenerator
from flowmatch.networks import MLP, UNet
from flowmatch.objectives import LOSSES, ChannelWeighted, L2Loss, MultiScale, PseudoHuberLoss, ResidualLoss, Sobolev
from flowmatch.objectives.fields import average_cells

T = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
GRIDS = [(12,), (12, 10), (6, 8, 5)]


def residuals(*shape, seed=0):
    return torch.randn(len(T), *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def wave(grid, cycles, phase=0.0):
    """cos of a plane wave with so many cycles along each axis, (3, 1, *grid)."""
    axes = [2 * math.pi * c * torch.arange(n, dtype=torch.float64) / n for n, c in zip(grid, cycles, strict=True)]
    angle = sum(torch.meshgrid(*axes, indexing="ij")) + phase
    return angle.cos().expand(len(T), 1, *grid)


# -- Sobolev ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("cycles", [(1, 0, 0), (2, 1, 1), (0, 3, 2)], ids=str)
def test_a_plane_wave_is_weighted_by_the_symbol_of_the_differences(grid, cycles):
    cycles, spacing = cycles[: len(grid)], (0.5, 2.0, 3.0)[: len(grid)]
    if sum(cycles) == 0:
        cycles = (3,)
    symbol = sum(
        (2 / h * math.sin(math.pi * c / n)) ** 2 for n, c, h in zip(grid, cycles, spacing, strict=True)
    )  # wavenumber k = 2 pi c / (n h), so k h / 2 = pi c / n
    loss = Sobolev(alpha=0.7, beta=0.3, boundary="periodic", spacing=spacing)
    expected = 0.7 / 2 + 0.3 * symbol / 2
    torch.testing.assert_close(loss(wave(grid, cycles, phase=0.4), T), torch.full_like(T, expected))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_checkerboard_weighs_four_over_the_squared_spacing_for_each_axis(grid):
    even = tuple(n + n % 2 for n in grid)
    checkerboard = wave(even, [n // 2 for n in even])
    assert checkerboard.abs().min() > 0.999
    loss = Sobolev(alpha=1.0, beta=1.0, boundary="periodic", spacing=0.5)
    torch.testing.assert_close(loss(checkerboard, T), torch.full_like(T, 1 + len(grid) * 4 / 0.5**2))


def test_a_cosine_between_walls_has_the_same_symbol():
    """cos(k (j + 1/2)), k = pi m / n, are the eigenfunctions of the differences that stop at the walls."""
    n, m = 9, 3  # odd, so that a difference across the edge would show
    field = (math.pi * m / n * (torch.arange(n, dtype=torch.float64) + 0.5)).cos().expand(len(T), 1, n)
    expected = (1 + 0.3 * 4 * math.sin(math.pi * m / (2 * n)) ** 2) / 2
    torch.testing.assert_close(Sobolev(beta=0.3, boundary="wall")(field, T), torch.full_like(T, expected))


def test_only_periodic_differences_see_the_jump_of_a_ramp():
    ramp = torch.arange(5, dtype=torch.float64).expand(len(T), 1, 5)
    wall, periodic = (Sobolev(beta=1.0, boundary=b).squared_gradient(ramp) for b in ("wall", "periodic"))
    torch.testing.assert_close(wall, torch.full_like(T, 4 / 5))
    torch.testing.assert_close(periodic, torch.full_like(T, (4 + 16) / 5))


def test_boundary_and_spacing_may_differ_by_axis():
    ramp = torch.arange(5, dtype=torch.float64).expand(len(T), 1, 3, 5)
    loss = Sobolev(boundary=("periodic", "wall"), spacing=(1.0, 0.5))
    torch.testing.assert_close(loss.squared_gradient(ramp), torch.full_like(T, 4 / 5 / 0.5**2))
    torch.testing.assert_close(loss.squared_gradient(ramp.mT.contiguous()), torch.full_like(T, (4 + 16) / 5))


@pytest.mark.parametrize("boundary", ["periodic", "wall"])
@pytest.mark.parametrize("shape", [(2, 7), (2, 5, 4), (1, 3, 4, 2), (2, 1)], ids=str)
def test_without_gradients_it_is_the_plain_loss(boundary, shape):
    e = residuals(*shape)
    assert torch.equal(Sobolev(1.0, 0.0, boundary)(e, T), L2Loss()(e, T))
    assert (Sobolev(1.0, 1.0, boundary)(e, T) > L2Loss()(e, T)).all() == (shape[-1] > 1)


def test_weights_may_be_functions_of_time():
    e = residuals(2, 8)
    loss = Sobolev(alpha=lambda t: 2 - t, beta=lambda t: t**2)
    plain, gradient = L2Loss()(e, T), Sobolev().squared_gradient(e)
    torch.testing.assert_close(loss(e, T), (2 - T) * plain + T**2 * gradient)


# -- several scales -----------------------------------------------------------------------------------------------


def test_a_constant_residual_counts_the_same_at_every_scale():
    constant = torch.full((len(T), 2, 7, 5), 1.5, dtype=torch.float64)
    torch.testing.assert_close(MultiScale()(constant, T), L2Loss()(constant, T))


@pytest.mark.parametrize(("period", "seen"), [(2, 1.0), (4, 1.5), (8, 1.75)])
def test_square_waves_are_seen_at_the_scales_whose_cells_they_fill(period, seen):
    square = torch.where(torch.arange(16) % period < period // 2, 1.0, -1.0).double().expand(len(T), 1, 16)
    torch.testing.assert_close(MultiScale()(square, T), torch.full_like(T, seen / 1.75))


def test_coarse_cells_are_weighted_by_their_resolution():
    e = torch.tensor([[[1.0, 3.0, -2.0, 0.0]]], dtype=torch.float64)
    by_hand = (1.0 * (1 + 9 + 4 + 0) / 4 + 0.5 * (2**2 + (-1) ** 2) / 2 + 0.25 * 0.5**2) / 1.75
    assert MultiScale()(e, T[:1]).item() == pytest.approx(by_hand, rel=1e-12)
    by_hand = (1.0 * 14 / 4 + 0.25 * 0.5**2) / 1.25
    assert MultiScale(scales=[0.25, 1.0])(e, T[:1]).item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("shape", [(2, 7), (1, 5, 9), (2, 3, 1, 6), (1, 3, 2)], ids=str)
@pytest.mark.parametrize("size", [2, 4])
def test_cells_at_the_end_average_the_points_they_have(shape, size):
    e = residuals(*shape).numpy()
    expected = e
    for axis in range(2, e.ndim):  # a cell is a box, so its mean is a mean of means
        starts = range(0, e.shape[axis], size)
        parts = [expected.take(range(s, min(s + size, e.shape[axis])), axis).mean(axis, keepdims=True) for s in starts]
        expected = np.concatenate(parts, axis)
    np.testing.assert_allclose(average_cells(torch.as_tensor(e), size).numpy(), expected, atol=1e-14)


def test_the_averaged_residual_is_the_residual_of_the_averaged_problem():
    path = flowmatch.flow.CosinePath()
    x0, x1, v = (residuals(2, 8, 6, seed=seed) for seed in range(3))
    residual = v - path.velocity(x0, x1, T)
    averaged = average_cells(v, 2) - path.velocity(average_cells(x0, 2), average_cells(x1, 2), T)
    torch.testing.assert_close(average_cells(residual, 2), averaged)


# -- channels -----------------------------------------------------------------------------------------------------


def test_channels_are_weighted_by_their_share():
    e = torch.zeros(1, 3, 2, dtype=torch.float64)
    e[0, 0], e[0, 1], e[0, 2] = 1.0, 2.0, 3.0
    by_hand = (0.5 * 1 + 0.5 * 4 + 2.0 * 9) / 3
    assert ChannelWeighted([1, 1, 4])(e, T[:1]).item() == pytest.approx(by_hand, rel=1e-12)
    assert ChannelWeighted([10, 10, 40])(e, T[:1]).item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("inner", ["l2", "huber", "sobolev", "multiscale"])
def test_equal_weights_change_nothing(inner):
    e = residuals(3, 6, 5)
    torch.testing.assert_close(ChannelWeighted([2, 2, 2], inner)(e, T), LOSSES[inner]()(e, T))


def test_columns_of_a_table_can_be_weighted():
    e = residuals(2)
    torch.testing.assert_close(ChannelWeighted((3, 1))(e, T), (1.5 * e[:, 0] ** 2 + 0.5 * e[:, 1] ** 2) / 2)


# -- composition --------------------------------------------------------------------------------------------------


def test_losses_compose():
    e, weights = residuals(2, 6, 4), torch.tensor([0.5, 1.5], dtype=torch.float64)
    inner = Sobolev(alpha=0.5, beta=0.1, boundary="periodic")
    whole = ChannelWeighted((1, 3), MultiScale((1.0, 0.5), inner))(e, T)
    by_channel = [
        torch.stack([inner(part[:, c : c + 1], T) for c in range(2)], 1) @ weights / 2
        for part in (e, average_cells(e, 2))
    ]
    torch.testing.assert_close(whole, (by_channel[0] + 0.5 * by_channel[1]) / 1.5)


NESTED = ChannelWeighted((1.0, 3.0), MultiScale((1.0, 0.5), Sobolev(beta=0.1)))


@pytest.mark.parametrize("loss", [Sobolev(), MultiScale(), MultiScale(loss="huber"), NESTED], ids=repr)
def test_losses_stay_on_their_device_and_dtype(loss):
    e = torch.ones(4, 2, 5, 3, device="meta", requires_grad=True)
    losses = loss(e, torch.ones(4, device="meta"))
    assert losses.device.type == "meta"
    assert losses.shape == (4,)
    losses.sum().backward()
    assert loss(residuals(2, 5, 3).float(), T.float()).dtype == torch.float32


@pytest.mark.parametrize("loss", [Sobolev(beta=lambda t: t), MultiScale(), NESTED], ids=["sobolev", "scales", "nested"])
@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 4)], ids=str)
def test_gradients_are_those_of_finite_differences(loss, grid):
    assert torch.autograd.gradcheck(lambda e: loss(e, T), residuals(2, *grid).requires_grad_())


def test_weights_drawn_up_in_inference_mode_can_still_be_trained_with():
    loss, e = ChannelWeighted((1.25, 3.5)), residuals(2, 4).requires_grad_()
    with torch.inference_mode():
        loss(e.detach(), T)
    loss(e, T).sum().backward()
    assert e.grad.abs().sum() > 0


# -- what is learned ----------------------------------------------------------------------------------------------


def quadratic_form(loss, shape, t=0.5):
    """The matrix Q of a squared loss, loss(e) = e' Q e, from its values on sums of basis vectors."""
    n = math.prod(shape)
    basis = torch.eye(n, dtype=torch.float64)
    pairs = (basis[:, None] + basis[None]).reshape(-1, *shape)
    sums = loss(pairs, torch.full((len(pairs),), t, dtype=torch.float64)).reshape(n, n)
    return (sums - sums.diagonal()[:, None] / 4 - sums.diagonal()[None] / 4) / 2


SQUARED = {
    "sobolev": Sobolev(beta=1.0),
    "sobolev in time": Sobolev(alpha=lambda t: 1.1 - t, beta=lambda t: 5 * t, boundary="periodic"),
    "multiscale": MultiScale(),
    "channels": ChannelWeighted((0.1, 3.0)),
    "nested": NESTED,
}


@pytest.mark.parametrize("name", SQUARED)
def test_a_model_without_limits_still_learns_the_conditional_mean(name):
    """Targets drawn given a label: the least loss of a free prediction per label is at the mean of its targets."""
    shape, generator = (2, 5, 3), torch.Generator().manual_seed(0)
    targets = torch.randn(40, *shape, dtype=torch.float64, generator=generator).exp()  # skewed: mean is not median
    labels = torch.arange(40) % 2
    prediction = torch.zeros(2, *shape, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([prediction], lr=1, max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        total = SQUARED[name](prediction[labels] - targets, torch.full((40,), 0.5, dtype=torch.float64)).sum()
        total.backward()
        return total

    optimiser.step(closure)
    means = torch.stack([targets[labels == label].mean(0) for label in (0, 1)])
    torch.testing.assert_close(prediction.detach(), means, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SQUARED)
def test_every_mode_of_the_residual_has_a_weight(name):
    assert torch.linalg.eigvalsh(quadratic_form(SQUARED[name], (2, 5, 3))).min() > 1e-3 / 30


@pytest.mark.parametrize(
    ("loss", "rougher"), [(Sobolev(beta=2.0, boundary="periodic"), True), (MultiScale(), False)], ids=repr
)
def test_a_model_of_one_wave_at_most_spends_it_where_the_loss_looks(loss, rougher):
    """One coefficient shared by a long and a short wave of opposite needs: its least squares fit takes sides."""
    n = 16
    long, short = (torch.as_tensor(wave((n,), (c,))[0, 0]) for c in (1, 7))
    target, feature = long - short, long + short  # the coefficient cannot serve both: L2 settles at 0
    errors = {}
    for name, norm in (("l2", L2Loss()), ("other", loss)):
        Q = quadratic_form(norm, (1, n))
        c = (feature @ Q @ target) / (feature @ Q @ feature)
        spectrum = torch.fft.rfft(target - c * feature).abs()
        errors[name] = spectrum[[1, 7]]
    assert errors["l2"][0] == pytest.approx(errors["l2"][1].item())
    low, high = errors["other"] - errors["l2"]
    assert (low > 0.5 and high < -0.5) == rougher
    assert (low < -0.5 and high > 0.5) != rougher


# -- in an estimator ----------------------------------------------------------------------------------------------


def fields(shape=(2, 6, 5), n=12):
    return np.random.default_rng(0).normal(size=(n, *shape))


def generator(**parameters):
    settings = {"network": MLP(width=8, depth=1), "max_iter": 3, "n_steps": 2, "random_state": 0, "device": "cpu"}
    return FlowMatchingGenerator(**{**settings, **parameters})


pytestmark = pytest.mark.filterwarnings("ignore:X has .* rows")


@pytest.mark.parametrize(
    "loss",
    ["sobolev", "multiscale", NESTED, Sobolev(beta=lambda t: t)],
    ids=["sobolev", "multiscale", "nested", "callable"],
)
@pytest.mark.parametrize("loss_weight", ["uniform", "adaptive"])
def test_estimators_train_with_them(loss, loss_weight):
    model = generator(loss=loss, loss_weight=loss_weight).fit(fields())
    assert model.n_iter_ == 3
    assert np.isfinite(model.sample(2, random_state=0)).all()


def test_the_loss_decides_what_is_learned():
    losses = ("l2", "sobolev", "multiscale", ChannelWeighted((1, 5)), Sobolev(1.0, 0.0))
    samples = [generator(loss=loss, network=UNet(width=4)).fit(fields()).sample(2, random_state=0) for loss in losses]
    assert all(np.abs(other - samples[0]).max() > 1e-4 for other in samples[1:4])
    np.testing.assert_array_equal(samples[4], samples[0])


BAD = {
    "a table, sobolev": ("sobolev", (4,), r"loss Sobolev needs samples on a grid.*rows of a table"),
    "a table, scales": (MultiScale(), (4,), r"loss MultiScale needs samples on a grid.*\(4,\)"),
    "a table, nested": (ChannelWeighted((1, 1, 1, 1), "sobolev"), (4,), r"loss Sobolev needs samples on a grid"),
    "four axes": ("sobolev", (1, 2, 2, 2, 2), r"one to three axes"),
    "weights": (ChannelWeighted((1, 2, 3)), (2, 5), r"weights of ChannelWeighted has 3 entries, but .* 2 channels"),
    "columns": (ChannelWeighted((1, 2, 3)), (2,), r"weights of ChannelWeighted has 3 entries, but .* 2 columns"),
    "spacings": (Sobolev(spacing=(1.0, 2.0)), (1, 5), r"spacing of Sobolev .* 1 grid axes .*\(1.0, 2.0\)"),
    "boundaries": (MultiScale(loss=Sobolev(boundary=["wall"])), (1, 5, 5), r"boundary of Sobolev .* 2 grid axes"),
    "alpha 0": (Sobolev(alpha=0.0), (1, 5), r"alpha must be a number in \(0, inf\), got 0\.0"),
    "alpha": (Sobolev(alpha="much"), (1, 5), r"alpha must be a number"),
    "beta": (Sobolev(beta=-1), (1, 5), r"beta must be a number in \[0, inf\), got -1"),
    "alpha(t)": (Sobolev(alpha=lambda t: t - 0.5), (1, 5), r"alpha\(t\) at t = 0\.1 must be a number in \(0"),
    "beta(t)": (Sobolev(beta=lambda t: t / 0), (1, 5), r"beta\(t\) at t = 0\.1 must be .* got inf"),
    "shape of beta": (Sobolev(beta=lambda t: t[:, None]), (1, 5), r"beta must turn times.*shape \(5, 1\)"),
    "type of beta": (Sobolev(beta=lambda t: 0.3), (1, 5), r"beta must turn times.*got float"),
    "boundary": (Sobolev(boundary="open"), (1, 5), r"unknown boundary 'open'. Choose one of 'periodic', 'wall'"),
    "spacing": (Sobolev(spacing=0), (1, 5), r"spacing must be a number in \(0"),
    "no scales": (MultiScale(()), (1, 5), r"scales must be a sequence"),
    "one scale": (MultiScale(0.5), (1, 5), r"scales must be a sequence"),
    "thirds": (MultiScale((1.0, 0.4)), (1, 5), r"scales must be 1 over an integer.*got 0\.4"),
    "large scale": (MultiScale((1.0, 2)), (1, 5), r"scales must be 1 over an integer.*got 2"),
    "coarse only": (MultiScale((0.5, 0.25)), (1, 5), r"scales must contain 1\.0"),
    "inner name": (MultiScale(loss="l3"), (1, 5), r"unknown loss 'l3'. Choose one of 'l2', 'huber', 'sobolev'"),
    "inner": (ChannelWeighted((1,), Sobolev(beta=-1)), (1, 5), r"beta must be a number"),
    "weight 0": (ChannelWeighted((1, 0)), (2, 5), r"weights must be a number in \(0, inf\), got 0"),
    "no weights": (ChannelWeighted(()), (2, 5), r"weights must be a sequence"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_loss_that_does_not_fit_is_refused_before_training(case, monkeypatch):
    loss, shape, message = BAD[case]
    monkeypatch.setattr(flowmatch.training, "train", lambda *a, **k: pytest.fail("training has begun"))
    model = generator(loss=loss)
    with pytest.raises(ValueError, match=message):
        model.fit(fields(shape))
    assert not [name for name in vars(model) if name.endswith("_")]
    with pytest.raises(NotFittedError):
        model.sample()


def test_a_refused_loss_leaves_an_earlier_fit_as_it_was():
    model = generator().fit(fields())
    before = model.sample(2, random_state=0)
    for refit in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="weights of ChannelWeighted"):
            refit(fields()) if model.set_params(loss=ChannelWeighted((1, 1, 1))) else None
    np.testing.assert_array_equal(model.sample(2, random_state=0), before)
    assert model.n_iter_ == 3


# -- parameters and files -----------------------------------------------------------------------------------------


def test_parameters_of_nested_components_are_reached():
    loss = clone(NESTED)
    assert loss == NESTED
    assert loss.loss is not NESTED.loss
    assert loss.get_params(deep=False) == {"weights": (1.0, 3.0), "loss": NESTED.loss}
    assert loss.get_params()["loss__loss__beta"] == 0.1
    changed = loss.replace(loss__loss__beta=0.7, weights=(1, 1), loss__scales=(1.0,))
    assert changed == ChannelWeighted((1, 1), MultiScale((1.0,), Sobolev(beta=0.7)))
    assert loss == NESTED
    assert NESTED.loss.loss.beta == 0.1
    assert loss.replace(loss=MultiScale(), loss__loss="sobolev").loss == MultiScale(loss="sobolev")
    assert "Sobolev(beta=0.1" in repr(NESTED)


def test_wrong_nested_names_are_refused_and_change_nothing():
    loss = MultiScale(loss=Sobolev())
    for wrong, message in (
        ({"lss__beta": 1}, "MultiScale has no parameter 'lss__beta'. Its parameters are scales, loss"),
        ({"loss__bta": 1}, "Sobolev has no parameter 'bta'"),
        ({"scales__x": 1}, r"no parameter 'scales__x': its scales is \(1.0, 0.5, 0.25\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss.replace(**wrong)
    with pytest.raises(ValueError, match="no parameter 'bta'"):
        loss.replace(bta=1, scales=(1.0,))
    assert loss == MultiScale(loss=Sobolev())


def test_estimators_reach_nested_losses_and_clone_them():
    model = generator(loss=clone(NESTED))
    assert model.get_params()["loss__loss__loss__alpha"] == 1.0
    model.set_params(loss__loss__loss__beta=0.9, loss__loss__scales=(1.0,))
    assert model.loss.loss == MultiScale((1.0,), Sobolev(beta=0.9))
    assert clone(model).loss == model.loss
    assert clone(model).loss.loss is not model.loss.loss
    assert "ChannelWeighted(" in repr(model)
    assert generator(loss="sobolev").set_params(loss__beta=0.5).loss == Sobolev(beta=0.5)
    assert generator(loss="multiscale").set_params(loss__loss=Sobolev(), loss__loss__beta=2).loss.loss.beta == 2


@pytest.mark.parametrize(
    "loss", ["sobolev", NESTED, MultiScale(loss=PseudoHuberLoss(0.1)), ChannelWeighted((np.float32(1), 2))], ids=repr
)
def test_losses_come_back_from_a_file(loss, tmp_path):
    model = generator(loss=loss).fit(fields())
    model.save(tmp_path / "model")
    loaded = flowmatch.load(tmp_path / "model")
    assert loaded.loss == loss
    np.testing.assert_array_equal(loaded.sample(2, random_state=0), model.sample(2, random_state=0))


class Mine(ResidualLoss):
    """A user's own loss."""

    def get_params(self, deep=True):
        return {}

    def __call__(self, residual, t):
        return residual.abs().flatten(1).mean(1)


@pytest.mark.parametrize(
    "loss",
    [Sobolev(beta=lambda t: t), ChannelWeighted((1, 1), MultiScale(loss=Sobolev(alpha=torch.exp))), Mine(),
     ChannelWeighted((1, 1), Mine())],
    ids=["function", "function inside", "own", "own inside"],
)  # fmt: skip
def test_a_loss_that_a_file_cannot_hold_is_left_out_whole_with_a_warning(loss, tmp_path):
    model = generator(loss=loss).fit(fields())
    with pytest.warns(UserWarning, match=r"parameter loss=.*cannot be written to a file: set it again") as caught:
        model.save(tmp_path / "model")
    assert len(caught) == 1
    loaded = flowmatch.load(tmp_path / "model")
    assert loaded.loss == "l2"
    np.testing.assert_array_equal(loaded.sample(2, random_state=0), model.sample(2, random_state=0))
