"""Fits draw from generators of their own: threads do not disturb each other, and global generators stay as they are."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flowmatch import FlowMatchingGenerator, TrainingOptions
from flowmatch.core.randomness import GlobalDraws, seeded_initialization
from flowmatch.networks import MLP, Dropout, Transformer, UNet, draw_dropout_from
from flowmatch.training import TrainingPlan, TrainingRun

CPU = torch.device("cpu")
X = np.random.default_rng(0).normal(size=(60, 3))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def in_threads(*functions):
    """What each gives, all run at once; they begin together."""
    found, barrier = [None] * len(functions), threading.Barrier(len(functions))

    def call(i):
        barrier.wait()
        found[i] = functions[i]()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Noisy(nn.Module):
    """A network of another maker: its dropout draws from torch's global generator."""

    def __init__(self, how):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Dropout(0.5 if how == "layer" else 0.0))
        self.how, self.out = how, nn.Linear(32, 3)

    def forward(self, x, t=None, condition=None, step=None):
        h = self.layers(x)
        return self.out(F.dropout(h, 0.5, self.training) if self.how == "function" else h)


NETWORKS = {
    "own": lambda: MLP(dropout=0.5)((3,), 0),
    "own, recomputed": lambda: MLP(dropout=0.5)((3,), 0),
    "none": lambda: MLP()((3,), 0),
    "layer": lambda: Noisy("layer"),
    "function": lambda: Noisy("function"),
}


def training_run(kind, seed=0, max_iter=30, **options):
    with seeded_initialization(CPU, seed):
        network = NETWORKS[kind]().train()
    data = torch.as_tensor(X, dtype=torch.float32)

    def loss(network, rows, generator):
        x1 = data[rows]
        x0 = torch.randn(x1.shape, generator=generator)
        t = torch.rand(len(x1), generator=generator)
        return (network(torch.lerp(x0, x1, t[:, None]), t) - (x1 - x0)).square().mean(1)

    options = TrainingOptions(activation_checkpointing=kind == "own, recomputed", report_period=10, **options)

    def validation(network):
        return loss(network, torch.arange(60), generator(5)).mean()

    plan = TrainingPlan([loss], 60, max_iter, 16, 1e-2, options, validation_loss=validation)
    return TrainingRun(network, plan, generator(seed + 1), generator(seed + 2), generator(seed + 3))


def train(kind, seed=0):
    run = training_run(kind, seed)
    for _ in range(30):
        run.advance()
        if run.step % 10 == 0:
            run.report()
    return torch.cat([p.detach().flatten() for p in run.network.parameters()])


@pytest.mark.parametrize("kind", NETWORKS)
def test_runs_in_threads_give_what_they_give_alone(kind):
    alone = [train(kind, seed) for seed in range(3)]
    together = in_threads(*(lambda seed=seed: train(kind, seed) for seed in range(3)))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", NETWORKS)
def test_global_generators_stay_as_they_are_and_do_not_matter(kind):
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), train(kind)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(train(kind), first)


def test_rows_that_are_held_out_are_drawn_without_the_global_generators():
    before = torch.get_rng_state()
    options = TrainingOptions(early_stopping=True, validation_fraction=0.3)
    FlowMatchingGenerator(MLP(width=8, depth=1), max_iter=2, training=options, random_state=0, device="cpu").fit(X)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", NETWORKS)
def test_only_steps_that_draw_globally_make_others_wait(kind):
    run = training_run(kind)
    run.advance()
    assert run.draws_globally == (kind not in ("none", "own"))


def test_draws_that_begin_later_are_noticed_at_the_next_report():
    run = training_run("layer")
    run.network.layers[2].p = 0.0
    for _ in range(10):
        run.advance()
    assert not run.draws_globally
    run.network.layers[2].p = 0.5
    run.report()
    before = torch.get_rng_state()
    run.advance()
    assert run.draws_globally
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("network", [MLP(dropout=0.3), lambda *shape: Noisy("layer")], ids=["own", "other"])
def test_estimators_in_threads_give_what_they_give_alone(network):
    def fit(seed):
        model = FlowMatchingGenerator(
            network, max_iter=20, batch_size=16, device="cpu", random_state=seed, masked_share=0
        )
        return torch.cat([p.flatten() for p in model.fit(X).network_.parameters()])

    alone = [fit(seed) for seed in range(3)]
    together = in_threads(*(lambda seed=seed: fit(seed) for seed in range(3)))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_initialization_in_threads_depends_on_the_seed_alone():
    def build(seed):
        with seeded_initialization(CPU, seed):
            return torch.cat([p.flatten() for p in MLP(width=256, depth=4)((3,), 0).parameters()])

    alone = [build(seed) for seed in range(4)]
    for _ in range(5):
        together = in_threads(*(lambda seed=seed: build(seed) for seed in range(4)))
        assert all(map(torch.equal, alone, together))


def test_global_draws_go_on_where_they_were():
    draws, torch_draws = GlobalDraws(CPU, 3), generator(3)
    found = []
    for _ in range(3):
        with draws.in_place():
            found.append(torch.rand(2))
        torch.rand(5)
    assert torch.equal(torch.cat(found), torch.cat([torch.rand(2, generator=torch_draws) for _ in range(3)]))


# -- dropout --------------------------------------------------------------------------------------------------------


def test_dropout_zeroes_a_share_and_keeps_the_mean():
    layer = Dropout(0.3)
    layer.generator = generator()
    values = layer(torch.ones(100_000))
    assert values.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert values.mean().item() == pytest.approx(1.0, abs=0.01)
    x = torch.ones(5)
    assert Dropout(0.0)(x) is x
    assert layer.eval()(x) is x


def test_dropout_draws_what_torch_draws_from_the_same_state():
    layer = Dropout(0.4)
    layer.generator, x = generator(7), torch.randn(50, 4, generator=generator())
    with seeded_initialization(CPU, 7):
        expected = F.dropout(x, 0.4)
    torch.testing.assert_close(layer(x), expected)


def test_copies_and_pickles_of_dropout_have_no_generator():
    network = MLP(dropout=0.3)((3,), 0)
    draw_dropout_from(generator(), network)
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    assert len(layers) == 2
    assert all(layer.generator is not None for layer in layers)
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert [module.generator for module in copied.modules() if isinstance(module, Dropout)] == [None, None]
    assert all(layer.generator is not None for layer in layers)


@pytest.mark.parametrize(
    ("component", "shape"),
    [
        (MLP(dropout=0.5), (3,)),
        (MLP(dropout=0.5, conditioning="concat"), (3,)),
        (MLP(dropout=0.5, conditioning="adaln"), (3,)),
        (UNet(width=8, dropout=0.5), (2, 9)),
        (Transformer(width=16, depth=2, dropout=0.5), (2, 9)),
    ],
    ids=str,
)
def test_recomputed_activations_have_the_same_masks(component, shape):
    x, t = torch.randn(6, *shape, generator=generator()), torch.rand(6, generator=generator())
    with seeded_initialization(CPU, 0):
        network = component(shape, 0).train()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
    gradients, states = [], []
    for recompute in (False, True):
        own = generator(1)
        draw_dropout_from(own, network)
        network.activation_checkpointing = recompute
        loss = (network(x, t) + network(x, t)).square().sum()
        gradients.append(torch.autograd.grad(loss, tuple(network.parameters())))
        states.append(own.get_state())
    torch.testing.assert_close(*gradients)
    assert torch.equal(*states)


def test_dropout_has_forward_derivatives():
    network = MLP(dropout=0.5)((3,), 0, flow_map=True)
    draw_dropout_from(generator(), network)
    x, t = torch.randn(4, 3), torch.rand(4)
    value, slope = torch.func.jvp(lambda x, t, step: network(x, t, None, step), (x, t, t), (x, t, -t))
    assert value.shape == slope.shape == (4, 3)


@pytest.mark.slow
def test_compiled_networks_drop_reproducibly():
    def losses():
        fitted = FlowMatchingGenerator(
            MLP(dropout=0.3), max_iter=6, random_state=0, device="cpu", training=TrainingOptions(compile=True)
        ).fit(X)
        return fitted.history_["loss"]

    before = torch.get_rng_state()
    assert losses() == losses()
    assert torch.equal(torch.get_rng_state(), before)
