"""Signals, images and fields through the estimator, with every network."""

import numpy as np
import pytest

from flowmatch import MLP, FlowMatchingGenerator, load
from flowmatch.networks import Transformer, UNet

pytestmark = pytest.mark.filterwarnings("ignore:X has .* rows")

NETWORKS = {
    "mlp": MLP(width=16),
    "unet": UNet(width=8, multipliers=(1, 2), context_width=16, boundary="periodic"),
    "transformer": Transformer(width=16, depth=1, n_heads=2, patch_size=2),
}
SHAPES = [(1, 8), (6, 9), (1, 6, 5), (6, 3, 4), (1, 3, 2, 5), (6, 2, 3, 1)]
EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def data(shape, n=64):  # enough numbers a channel not to pass for grey levels
    rng = np.random.default_rng(0)
    y = np.repeat(["low", "high"], n // 2)
    return rng.normal(size=(n, *shape)) + np.where(y == "high", 2.0, 0.0).reshape(-1, *[1] * len(shape)), y


def quick(network, **parameters):
    defaults = {"max_iter": 3, "batch_size": 8, "n_steps": 2, "learning_rate": 0.02, "random_state": 0, "device": "cpu"}
    return FlowMatchingGenerator(network, **{**defaults, **parameters})


@EVERY_NETWORK
@EVERY_SHAPE
def test_grids_are_learned_drawn_scored_and_saved(network, shape, tmp_path):
    X, y = data(shape)
    generator = quick(network).fit(X, y)
    samples = generator.sample(5, random_state=1)
    assert samples.shape == (5, *shape)
    assert np.isfinite(samples).all()

    one_step = {"random_state": 1, "n_steps": 1, "solver": "euler"}  # where a sample is linear in the scale
    guided = [generator.sample(5, y="low", guidance_scale=scale, **one_step) for scale in (0.0, 1.0, 3.0)]
    assert not np.allclose(guided[0], guided[1])
    grid = tuple(range(2, X.ndim))
    low, high = X.min(axis=(0, *grid)), X.max(axis=(0, *grid))  # samples stop at the range of their channel
    low, high = (bound.reshape(-1, *[1] * len(grid)) for bound in (low, high))
    inside = np.all([(low < drawn) & (drawn < high) for drawn in guided], axis=0)
    assert inside.any()
    difference = [(guided[i] - guided[0])[inside] for i in (1, 2)]
    np.testing.assert_allclose(3 * difference[0], difference[1], rtol=1e-3, atol=1e-4)

    together = generator.score_samples(X[:2], y[:2])
    alone = [generator.score_samples(X[i : i + 1], y[i : i + 1])[0] for i in range(2)]
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, alone, rtol=1e-10)

    generator.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", device="cpu")
    assert np.array_equal(loaded.sample(5, random_state=1), samples)
    assert np.array_equal(loaded.score_samples(X[:2], y[:2]), together)


@EVERY_NETWORK
@pytest.mark.parametrize("shape", [(2, 33), (1, 9, 8)], ids=str)
def test_scores_of_large_grids_are_estimated_row_by_row(network, shape):
    X, _ = data(shape)
    generator = quick(network).fit(X)
    together, errors = generator.score_samples(X[:3], n_probes=4, return_error=True)
    assert np.isfinite(together).all()
    assert (errors > 0).all()
    alone = [generator.score_samples(row[None], n_probes=4)[0] for row in X[:3]]
    np.testing.assert_allclose(together, alone, rtol=1e-10)


@EVERY_NETWORK
@EVERY_SHAPE
def test_codes_lead_back_to_the_samples(network, shape):
    X, y = data(shape)
    generator = quick(network, learning_rate=1e-3).fit(X, y)  # small steps keep the field smooth
    codes = generator.encode(X[:3], y[:3], n_steps=16, solver="rk4")
    np.testing.assert_allclose(generator.decode(codes, y[:3], n_steps=16, solver="rk4"), X[:3], rtol=0, atol=1e-3)
    assert not np.allclose(codes, codes[:1])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_name_stands_for_its_network_and_reaches_the_parameters(name):
    X, _ = data((1, 4))
    by_name = quick(name).set_params(network__width=8).fit(X)
    component = type(NETWORKS[name])(width=8)
    assert by_name.network == component
    assert np.array_equal(by_name.sample(2, random_state=0), quick(component).fit(X).sample(2, random_state=0))


@pytest.mark.parametrize("name", ["unet", "transformer"])
def test_networks_of_grids_refuse_tables(name):
    with pytest.raises(ValueError, match=f"network='{name}' needs signals.*use network='mlp' for tables"):
        quick(name).fit(np.random.default_rng(0).normal(size=(20, 3)))


@pytest.mark.parametrize("name", ["unet", "transformer"])
def test_a_smooth_law_is_learned_better_than_by_noise_of_the_same_spread(name):
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, size=(256, 1, 1))
    X = np.sin(np.arange(8) * np.pi / 4 + phase)  # every wave passes once round the grid
    network = {"unet": UNet(width=8, boundary="periodic"), "transformer": Transformer(width=32, depth=2)}[name]
    generator = quick(network, max_iter=60, batch_size=64, n_steps=4, learning_rate=0.02).fit(X)
    samples = generator.sample(200, random_state=0)
    power = np.abs(np.fft.rfft(samples[:, 0])) ** 2
    share = power[:, 1].sum() / (2 * power[:, 1:4].sum() + power[:, [0, 4]].sum()) * 2  # 1 for waves, 2 / 8 for noise
    assert share > 0.8
