"""The training step, the losses and the solvers on device="meta", where a stray CPU tensor raises."""

import pytest
import torch

from flowmatch import MLP, TrainingOptions
from flowmatch.flow import FIXED_STEP, PATHS, SOURCES, TIME_SAMPLERS, guide, integrate, time_grid
from flowmatch.flow.couplings import IndependentCoupling
from flowmatch.networks.mlp import CONDITIONINGS
from flowmatch.objectives import LOSS_WEIGHTS, LOSSES, VelocityObjective
from flowmatch.preprocessing import QuantileNormal
from flowmatch.training import TrainingPlan, TrainingRun

META = torch.device("meta")


def objective(**changes):
    parts = {
        "path": "linear",
        "source": "normal",
        "time_sampler": "uniform",
        "loss": "l2",
        "weight": "uniform",
    } | changes
    x1 = torch.ones(8, 3, device=META)
    source = SOURCES[parts["source"]]()
    return VelocityObjective(
        PATHS[parts["path"]](),
        source,
        IndependentCoupling(),
        TIME_SAMPLERS[parts["time_sampler"]](),
        source.fit_scale(x1),
        LOSSES[parts["loss"]](),
        LOSS_WEIGHTS[parts["weight"]](),
        condition_dropout=0.1,
    )


CASES = (
    [{"path": name} for name in PATHS]
    + [{"source": name} for name in SOURCES]
    + [{"time_sampler": name} for name in TIME_SAMPLERS]
    + [{"loss": name} for name in LOSSES]
    + [{"weight": name} for name in LOSS_WEIGHTS]
)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_losses_stay_on_the_device(case, conditioning):
    network = MLP(width=8, conditioning=conditioning)((3,), 2).to(META)
    losses = objective(**case)(network, torch.ones(8, 3, device=META), torch.ones(8, 2, device=META))
    assert losses.device == META
    assert losses.shape == (8,)
    losses.mean().backward()


@pytest.mark.parametrize("options", [TrainingOptions(), TrainingOptions(accumulation=2, ema_decay=None)], ids=str)
def test_the_training_step_stays_on_the_device(options):
    network = MLP(width=8)((3,), 0).to(META)
    data = torch.ones(50, 3, device=META)
    loss = objective()
    plan = TrainingPlan(
        lambda network, rows, generator: loss(network, data[rows], None, generator),
        50, 4, 8, 1e-3, options, sample_weight=torch.ones(50, device=META), data_device=META,
    )  # fmt: skip
    run = TrainingRun(network, plan, None, None)
    for _ in range(4):
        run.advance()
    assert run.sums.device == META
    assert run.step == 4


@pytest.mark.parametrize("method", FIXED_STEP)
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_solvers_and_guidance_stay_on_the_device(method, scale):
    network = MLP(width=8)((3,), 2).to(META)
    velocity = guide(network, torch.ones(5, 2, device=META), scale)
    x = integrate(velocity, torch.ones(5, 3, device=META), time_grid(3, device=META), method)
    assert x.device == META
    assert x.shape == (5, 3)


def test_codes_are_drawn_on_the_device():
    import numpy as np

    transform = QuantileNormal().fit(np.arange(12.0).reshape(6, 2))
    cells = torch.rand(4, 2, device=META)
    assert transform.draw_codes(cells, cells, None).device == META
