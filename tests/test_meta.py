"""The training step, the losses and the solvers on device="meta", where a stray CPU tensor raises."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_forecasts import tiny, tiny_fields
from sklearn.base import clone

from flowmatch import MLP, FlowMatchingGenerator, TrainingOptions
from flowmatch.anomaly import Combined, Denoising, FlowField, Latent, OneStep, Rebuilding, Reconstruction
from flowmatch.distillation import (
    CorrectedVelocity,
    FoldObjective,
    LagrangianObjective,
    PairLoss,
    RolloutLoss,
    Rollouts,
    SemigroupObjective,
    TeacherVelocity,
    jump_rollout,
    midpoint_rollout,
    rollout_times,
)
from flowmatch.flow import (
    FIXED_STEP,
    PATHS,
    SOURCES,
    STEP_SAMPLERS,
    TIME_SAMPLERS,
    UniformSteps,
    follow,
    guide,
    integrate,
    time_grid,
)
from flowmatch.flow.couplings import IndependentCoupling
from flowmatch.forecasting import training_windows_of, windows_like_fit
from flowmatch.networks import Bottleneck, Transformer, UNet
from flowmatch.networks.mlp import CONDITIONINGS
from flowmatch.objectives import (
    LOSS_WEIGHTS,
    LOSSES,
    InstantVelocityObjective,
    MeanFlow,
    MeanFlowObjective,
    VelocityObjective,
)
from flowmatch.preprocessing import QuantileNormal
from flowmatch.training import TrainingPlan, TrainingRun

META = torch.device("meta")


def objective(shape=(3,), **changes):
    parts = {
        "path": "linear",
        "source": "normal",
        "time_sampler": "uniform",
        "loss": "l2",
        "weight": "uniform",
    } | changes
    x1 = torch.ones(8, *shape, device=META)
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


GRID_NETWORKS = pytest.mark.parametrize(
    "component",
    [
        UNet(width=8),
        UNet(width=8, multipliers=(1, 2, 2), patch_size=2, boundary="periodic", dropout=0.1),
        Transformer(width=16, depth=2, n_heads=2, dropout=0.1),
        Transformer(width=16, depth=2, n_heads=2, patch_size=2),
    ],
    ids=str,
)
SHAPES = pytest.mark.parametrize("shape", [(2, 9), (2, 8, 7), (2, 5, 4, 3)], ids=str)


def grid_network(component, shape, **settings):
    """A network for conditions of two numbers and a grid, and such conditions for eight rows."""
    size = 2 + torch.Size(shape).numel()
    network = component(shape, size, context_channels=shape[0], **settings).to(META)
    return network, torch.ones(8, size, device=META)


@GRID_NETWORKS
@SHAPES
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_of_grid_networks_stay_on_the_device(component, shape, checkpointing):
    network, condition = grid_network(component, shape)
    network.activation_checkpointing = checkpointing
    losses = objective(shape)(network, torch.ones(8, *shape, device=META), condition)
    assert losses.device == META
    assert losses.shape == (8,)
    losses.mean().backward()
    assert all(p.grad is not None and p.grad.device == META for p in network.parameters())


@GRID_NETWORKS
@SHAPES
def test_forward_derivatives_of_grid_flow_maps_stay_on_the_device(component, shape):
    network, condition = grid_network(component, shape, flow_map=True)
    x, t = torch.ones(8, *shape, device=META), torch.ones(8, device=META)
    _, derivative = torch.func.jvp(lambda x, t, step: network(x, t, condition, step), (x, t, t), (x, t, -t))
    assert derivative.device == META
    assert derivative.shape == (8, *shape)


@GRID_NETWORKS
@SHAPES
def test_solvers_of_grid_networks_stay_on_the_device(component, shape):
    network, condition = grid_network(component, shape)
    velocity = guide(network.eval(), condition, 2.0)
    with torch.no_grad():
        x = integrate(velocity, torch.ones(8, *shape, device=META), time_grid(2, device=META), "midpoint")
    assert x.device == META
    assert x.shape == (8, *shape)


FLOW_MAPS = pytest.mark.parametrize(
    ("component", "shape"),
    [(MLP(width=8, depth=1), (3,)), (Transformer(width=8, depth=1, n_heads=2), (2, 4))],
    ids=["mlp", "transformer"],
)


def flow_map_parts(component, shape):
    """A flow map, a velocity of the same kind, data and conditions."""
    flow_map, velocity = (component(shape, 2, flow_map=jumps).to(META) for jumps in (True, False))
    return flow_map, velocity, torch.ones(8, *shape, device=META), torch.ones(8, 2, device=META)


def check_losses(losses, network):
    assert losses.device == META
    assert losses.shape == (8,)
    losses.mean().backward()
    assert all(p.grad is not None and p.grad.device == META for p in network.parameters() if p.requires_grad)


def mean_flow(shape, settings, kind=MeanFlowObjective, **changes):
    return kind(**vars(objective(shape, **changes)), settings=settings, guidance_scale=2.0)


@pytest.mark.parametrize("case", [case for case in CASES if not {"source", "time_sampler"} & set(case)], ids=str)
def test_mean_flow_stays_on_the_device(case):
    flow_map, _, x1, condition = flow_map_parts(MLP(width=8, depth=1), (3,))
    check_losses(mean_flow((3,), MeanFlow(), **case)(flow_map, x1, condition), flow_map)


@FLOW_MAPS
@pytest.mark.parametrize(
    "settings",
    [MeanFlow(velocity="conditional", jump_weight="uniform")] + [MeanFlow(step_sampler=name) for name in STEP_SAMPLERS],
    ids=str,
)
def test_settings_of_mean_flow_stay_on_the_device(component, shape, settings):
    flow_map, _, x1, condition = flow_map_parts(component, shape)
    check_losses(mean_flow(shape, settings)(flow_map, x1, condition), flow_map)


@FLOW_MAPS
def test_the_warm_up_of_mean_flow_stays_on_the_device(component, shape):
    flow_map, _, x1, condition = flow_map_parts(component, shape)
    check_losses(mean_flow(shape, MeanFlow(), InstantVelocityObjective)(flow_map, x1, condition), flow_map)


@FLOW_MAPS
@pytest.mark.parametrize("method", ["semigroup", "lagrangian", "fold"])
def test_laws_of_flow_maps_stay_on_the_device(component, shape, method):
    flow_map, velocity, x1, condition = flow_map_parts(component, shape)
    teacher = TeacherVelocity(velocity, 2.0)
    corrected = CorrectedVelocity(teacher, component(shape, 2, flow_map=True).to(META))
    loss = {
        "semigroup": lambda *parts: SemigroupObjective(*parts),
        "lagrangian": lambda *parts: LagrangianObjective(*parts, velocity=teacher),
        "fold": lambda *parts: FoldObjective(*parts, target_network=corrected),
    }[method](objective(shape, path="vp"), UniformSteps(), LOSSES["l2"](), True)
    for student in (flow_map, corrected):
        check_losses(loss(student, x1, condition), student)


@FLOW_MAPS
def test_losses_on_rollouts_stay_on_the_device(component, shape):
    flow_map, velocity, x1, condition = flow_map_parts(component, shape)
    t, step = torch.zeros(8, device=META), torch.ones(8, device=META)
    teacher = TeacherVelocity(velocity)
    stages = [
        Rollouts.make(rollout, x1, rollout_times(t, step, n_substeps, 0.8), condition, 5)
        for rollout, n_substeps in (
            (lambda *state: midpoint_rollout(teacher, *state), 2),
            (lambda *state: jump_rollout(flow_map, *state), 1),
        )
    ]
    assert all(stage.states.device == META for stage in stages)
    rows = torch.arange(8, device=META)
    check_losses(RolloutLoss(stages, LOSSES["l2"](), True, teacher, 0.5)(flow_map, rows, None), flow_map)
    student = component(shape, 2).to(META)
    check_losses(PairLoss(stages[0], objective(shape))(student, rows, None), student)


@FLOW_MAPS
def test_jumps_stay_on_the_device(component, shape):
    flow_map, _, x, condition = flow_map_parts(component, shape)
    states = follow(
        lambda x, t, step: flow_map(x, t, condition, step), x, time_grid(3, device=META), return_trajectory=True
    )
    assert states.device == META
    assert states.shape == (4, 8, *shape)


@pytest.mark.parametrize("options", [TrainingOptions(), TrainingOptions(accumulation=2, ema_decay=None)], ids=str)
def test_the_training_step_stays_on_the_device(options):
    network = MLP(width=8)((3,), 0).to(META)
    data = torch.ones(50, 3, device=META)
    loss = objective()
    plan = TrainingPlan(
        [lambda network, rows, generator: loss(network, data[rows], None, generator)],
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
    transform = QuantileNormal().fit(np.arange(12.0).reshape(6, 2))
    cells = torch.rand(4, 2, device=META)
    assert transform.draw_codes(cells, cells, None).device == META


SUMS = pytest.mark.parametrize(
    "score",
    [
        OneStep((0.5, 1.0)),
        Latent(),
        Denoising((0.5,), n_noises=2),
        Rebuilding(n_noises=2),
        Combined((OneStep(), Latent())),
    ],
    ids=str,
)


def meta_field(network, shape, path="linear", solver="midpoint"):
    """A fitted flow without any numbers in it."""
    source = SOURCES["normal"]()
    return FlowField(
        network.eval(), PATHS[path](), source, torch.ones(shape, device=META), n_steps=2, solver=solver, rows_at_once=5
    )


@pytest.fixture
def noise_on_meta(monkeypatch):
    """Generators do not exist for this device; the scores' noises then come from none."""
    monkeypatch.setattr(
        FlowField,
        "draw_noise",
        lambda field, n_draws, seed: field.source.draw(n_draws, field.source_scale, None),
    )


def state_of(score, field, codes, condition):
    return score.calibrate(field, score.fit(field, codes, condition, {}), codes, condition)


@SUMS
@pytest.mark.parametrize(("path", "size"), [("linear", 0), ("cosine", 2), ("vp", 2)])
def test_anomaly_scores_stay_on_the_device(score, path, size, noise_on_meta):
    field = meta_field(MLP(width=8)((3,), size).to(META), (3,), path)
    codes, condition = torch.ones(8, 3, device=META), torch.ones(8, 2, device=META) if size else None
    with torch.no_grad():
        found = score.contributions(field, state_of(score, field, codes, condition), codes, condition)
    assert found.device == META
    assert found.shape == codes.shape


@SUMS
def test_anomaly_scores_of_grids_stay_on_the_device(score, noise_on_meta):
    shape = (2, 9)
    field = meta_field(UNet(width=8, multipliers=(1, 2))(shape, 0).to(META), shape)
    codes = torch.ones(8, *shape, device=META)
    with torch.no_grad():
        found = score.contributions(field, state_of(score, field, codes, None), codes, None)
    assert found.device == META
    assert found.shape == codes.shape


@pytest.mark.parametrize("shape", [(3,), (2, 9)], ids=str)
def test_reconstruction_stays_on_the_device(shape, noise_on_meta):
    size, network = torch.Size(shape).numel(), MLP(width=8) if len(shape) == 1 else UNet(width=8, multipliers=(1, 2))
    field = meta_field(Bottleneck(network, 2)(shape, size).to(META), shape)
    codes = torch.ones(8, *shape, device=META)
    with torch.no_grad():
        found = Reconstruction().contributions(field, {}, codes, codes.flatten(1))
    assert found.device == META
    assert found.shape == codes.shape


@pytest.mark.parametrize(
    ("forecaster", "shape", "kept"),
    [
        (tiny(n_lags=2, horizon=2, known_columns=1), (3, 9, 3), True),
        (tiny_fields(n_lags=2), (2, 6, 1, 8), False),
        (tiny_fields(known_columns=1, horizon=2), (2, 6, 3, 8), True),
    ],
    ids=["series", "fields that are read", "fields"],
)
def test_the_training_step_of_forecasters_stays_on_the_device(forecaster, shape, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr("flowmatch.forecasting.window_data.KEPT_ELEMENTS", 0)
    X = np.random.default_rng(0).normal(size=shape)
    fitted = forecaster.fit(X)
    network = fitted.network_.to(META).requires_grad_(True)
    model = fitted.model_
    rows = training_windows_of(fitted.fitted_, windows_like_fit(fitted, X, None), META)
    data = replace(rows, context_noise=0.1)
    loss = data.loss_of(objective(model.code_shape))
    plan = TrainingPlan([loss], len(data), 2, 4, 1e-3, TrainingOptions(), data_device=data.device)
    run = TrainingRun(network, plan, None, None)
    if data.device == META:
        run.advance()
        assert run.sums.device == META
    codes, condition = data.draw(torch.arange(3, device=data.device))
    assert codes.device == condition.device == META
    losses = loss(network, torch.arange(3, device=data.device), None)
    assert losses.device == META
    losses.mean().backward()


@pytest.fixture(scope="module")
def table_with_holes():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[::4, 1] = np.nan
    return FlowMatchingGenerator(network=MLP(width=8), max_iter=2, random_state=0, device="cpu").fit(X), X


def test_what_a_model_computes_with_moves_together(table_with_holes):
    model = table_with_holes[0].model_
    there = model.to(META)
    for moved in (there, replace(there, missing=model.missing).to(META), replace(there, source=model.source).to(META)):
        assert moved.source.scale.device == moved.missing.guess.mean.device == moved.device == META
    assert there.to(META) is there


@pytest.mark.parametrize("going_on", [False, True])
def test_a_fit_leaves_all_of_its_model_on_the_device(table_with_holes, going_on, monkeypatch):
    """The guess of missing entries is fitted on the CPU, and computes with codes on the device."""
    generator, X = table_with_holes
    places = []
    monkeypatch.setattr(
        "flowmatch.model.flow_model.MissingValueModel.to", lambda missing, device: places.append(device) or missing
    )
    fit = copy.deepcopy(generator).partial_fit if going_on else clone(generator).fit
    fit(X)
    assert places
