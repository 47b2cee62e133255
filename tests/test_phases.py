"""Training in phases: losses, rates, conditions and windows that change as a fit goes on."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from flowmatch import FlowMatchingGenerator, flow
from flowmatch.networks import UNet
from flowmatch.objectives import ChannelWeighted, L2Loss, MultiScale, Sobolev, VelocityObjective
from flowmatch.objectives.velocity import random_windows
from flowmatch.training import Phase, TrainingOptions
from flowmatch.training.phases import phase_ends
from flowmatch.training.plans import learning_rate_factor

X = np.random.default_rng(0).normal(size=(60, 1, 12)).astype(np.float32)
LABELS = np.arange(60) % 2


def quick(phases=(), **parameters):
    options = TrainingOptions(phases=phases, report_period=1)
    parameters = {"network": UNet(width=8), "max_iter": 10, "batch_size": 16, "random_state": 0, **parameters}
    return FlowMatchingGenerator(training=options, **parameters)


def weights(model):
    return torch.cat([p.flatten() for p in model.network_.parameters()])


def test_phases_end_where_their_shares_say():
    assert phase_ends([Phase(0.3), Phase(0.4), Phase(0.3)], 10) == [3, 7, 10]
    assert phase_ends([Phase(1 / 3)] * 3, 100) == [33, 67, 100]
    assert phase_ends([], 7) == [7]


def test_phases_scale_the_scheduled_rate():
    options = TrainingOptions(schedule="constant", warmup=0.0, phases=[Phase(0.5), Phase(0.5, learning_rate=0.1)])
    factor = learning_rate_factor(options, 10)
    assert [factor(step) for step in range(10)] == [1.0] * 5 + [0.1] * 5


def test_phases_that_change_nothing_change_nothing():
    plain, phased = quick().fit(X, LABELS), quick([Phase(0.25), Phase(0.75)]).fit(X, LABELS)
    assert torch.equal(weights(plain), weights(phased))


def test_a_phase_of_rate_zero_leaves_the_weights_alone():
    frozen = quick([Phase(1.0, learning_rate=0.0)]).fit(X)
    assert float(frozen.network_.head.weight.abs().max()) == 0.0  # as it started
    assert float(quick().fit(X).network_.head.weight.abs().max()) > 0.0


def test_each_phase_uses_its_own_loss_and_weight():
    calls = []

    class Spy(L2Loss):
        def __call__(self, residual, t):
            calls.append("loss")
            return super().__call__(residual, t)

    def weight(t):
        calls.append("weight")
        return torch.ones_like(t)

    quick([Phase(0.3), Phase(0.4, loss=Spy()), Phase(0.3, loss_weight=weight)]).fit(X)
    assert calls == ["weight", *["loss"] * 4, *["weight"] * 3]  # the first call checks the weight before training


def test_an_unconditioned_phase_hides_every_condition():
    seen = []

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x, t, condition=None):
            if self.training:
                seen.append(condition.abs().sum().item())
            return self.scale * x

    model = quick([Phase(0.4, conditioned=False), Phase(0.6)], network=lambda *_: Network(), condition_dropout=0.0)
    model.fit(X, LABELS)
    assert seen == [0.0] * 4 + [16.0] * 6


def test_a_curriculum_grows_the_windows():
    seen = []

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x, t, condition=None):
            if self.training:
                seen.append(x.shape[2])
            return self.layer(x)

    quick([Phase(0.2, crop=0.25), Phase(0.3, crop=0.5), Phase(0.5)], network=lambda *_: Network()).fit(X)
    assert seen == [3] * 2 + [6] * 3 + [12] * 5


@pytest.mark.parametrize("network", ["unet", "transformer"])
def test_a_curriculum_trains_networks_of_grids(network):
    model = quick([Phase(0.5, crop=0.5), Phase(0.5)], network=network, max_iter=4).fit(X, LABELS)
    assert model.sample(3, y=1).shape == (3, 1, 12)


@pytest.mark.parametrize("grid", [(12,), (7, 5), (4, 3, 5)])
def test_windows_are_cut_at_the_same_place_from_all_tensors(grid):
    size = int(np.prod(grid))
    points = torch.arange(size, dtype=torch.float32).reshape(1, 1, *grid).expand(50, 2, *grid)
    one, two = random_windows((points, 10 * points), 0.5, torch.Generator().manual_seed(0))
    assert one.shape == (50, 2, *[round(0.5 * n) for n in grid])
    assert torch.equal(10 * one, two)
    starts = one[:, 0].flatten(1)[:, 0]
    for row, start in zip(one, starts, strict=True):  # a window is contiguous: its values follow from its first
        corner = np.unravel_index(int(start), grid)
        expected = points[0][(slice(None), *[slice(c, c + round(0.5 * n)) for c, n in zip(corner, grid, strict=True)])]
        assert torch.equal(row, expected)
    assert len(starts.unique()) > 1


def test_every_place_of_a_window_is_equally_likely():
    points = torch.arange(8.0).expand(4000, 1, 8)
    (windows,) = random_windows((points,), 0.5, torch.Generator().manual_seed(0))
    counts = torch.bincount(windows[:, 0, 0].long(), minlength=5)
    assert len(counts) == 5
    assert (counts - 800).abs().max() < 5 * 800**0.5


def test_cropping_works_on_meta():
    network = UNet(width=8)((1, 8, 8), 0).to("meta")
    objective = VelocityObjective(
        flow.LinearPath(), flow.NormalSource(), flow.IndependentCoupling(), flow.UniformTimes(), torch.ones(1, 8, 8, device="meta"),
        crop=0.5,
    )  # fmt: skip
    assert objective(network, torch.ones(4, 1, 8, 8, device="meta")).shape == (4,)


BAD = {
    "shares": ([Phase(0.3), Phase(0.3)], r"shares of phases must add up to 1, but \[0.3, 0.3\] add up to 0.6"),
    "no phases": ([0.5, 0.5], "phases must be a list of flowmatch.training.Phase"),
    "share": ([Phase(0.0), Phase(1.0)], "share must be a number in"),
    "crop": ([Phase(1.0, crop=1.5)], "crop must be a number in"),
    "rate": ([Phase(1.0, learning_rate=-1)], "learning_rate must be a number"),
    "conditioned": ([Phase(1.0, conditioned="no")], "conditioned must be True or False"),
    "loss": ([Phase(1.0, loss="l3")], "unknown loss 'l3'"),
    "weight": ([Phase(1.0, loss_weight="heavy")], "unknown loss_weight 'heavy'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_phases_are_refused_before_training(what):
    phases, message = BAD[what]
    model = quick(phases)
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert not hasattr(model, "network_")


def test_windows_are_refused_where_they_make_no_sense():
    phases = [Phase(0.5, crop=0.5), Phase(0.5)]
    with pytest.raises(ValueError, match=r"windows of \(6,\) points, which ModulatedMLP cannot take"):
        quick(phases, network="mlp").fit(X)
    with pytest.raises(ValueError, match="needs signals, images or fields, but X is a table"):
        quick(phases, network="mlp").fit(X[:, 0])
    with pytest.raises(ValueError, match="cannot cut the grids that are given as conditions"):
        quick(phases).fit(X, X)


@pytest.mark.parametrize("loss", [Sobolev(boundary="periodic"), MultiScale(loss=Sobolev(boundary="periodic"))])
def test_windows_of_periodic_losses_and_networks_are_refused(loss):
    phases = [Phase(0.5, crop=0.5), Phase(0.5)]
    with pytest.raises(ValueError, match="windows, which are not periodic"):
        quick(phases, loss=loss).fit(X)
    with pytest.raises(ValueError, match="windows, which are not periodic"):
        quick(phases, network=UNet(width=8, boundary="periodic")).fit(X)


def test_the_loss_of_the_estimator_is_checked_even_if_phases_replace_it():
    with pytest.raises(ValueError, match="weights"):
        quick([Phase(1.0, loss="l2")], loss=ChannelWeighted([1.0, 2.0])).fit(X)


def test_phases_are_cloned_and_saved(tmp_path):
    import flowmatch

    model = quick([Phase(0.5, crop=0.5), Phase(0.5, loss="huber")], max_iter=2)
    assert clone(model).training.phases == model.training.phases
    model.fit(X).save(tmp_path / "model")
    loaded = flowmatch.load(tmp_path / "model")
    assert list(loaded.training.phases) == model.training.phases


def test_a_phase_with_a_function_is_left_out_of_the_file(tmp_path):
    import flowmatch

    model = quick([Phase(1.0, loss_weight=torch.ones_like)], max_iter=2).fit(X)
    with pytest.warns(UserWarning, match="loss_weight=.* cannot be written to a file: set it again before another fit"):
        model.save(tmp_path / "model")
    assert flowmatch.load(tmp_path / "model").training.phases == ()


def test_activation_checkpointing_needs_a_network_that_can():
    options = TrainingOptions(activation_checkpointing=True)
    model = FlowMatchingGenerator(network=lambda *_: nn.Linear(3, 3), training=options)
    with pytest.raises(ValueError, match="activation_checkpointing=True, but Linear cannot do it"):
        model.fit(np.eye(9)[:, :3])


@pytest.mark.parametrize("network", ["mlp", "unet", "transformer"])
def test_activation_checkpointing_changes_no_weights(network):
    fits = []
    for wanted in (False, True):
        options = TrainingOptions(activation_checkpointing=wanted)
        fits.append(FlowMatchingGenerator(network, training=options, max_iter=3, batch_size=8, random_state=0).fit(X))
    torch.testing.assert_close(weights(fits[0]), weights(fits[1]))
