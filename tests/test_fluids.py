"""Trajectories of fluids: shapes, seeds, what is observed, the stochastic equation's law, and bad input."""

import re

import numpy as np
import pytest
from scipy.stats import chisquare

from flowmatch.datasets import fluids
from flowmatch.datasets.fluids import (
    make_compressible_navier_stokes,
    make_kuramoto_sivashinsky,
    make_navier_stokes,
    make_rayleigh_taylor,
    sample_next_kuramoto_sivashinsky,
    vertical_slices,
)

SMALL = {
    "ks 1-D": (make_kuramoto_sivashinsky, {"n_points": 16, "length": 16.0, "warmup": 3.0}, (1, 16)),
    "stochastic ks": (make_kuramoto_sivashinsky, {"n_points": 16, "warmup": 3.0, "noise": 0.3}, (1, 16)),
    "ks 2-D": (make_kuramoto_sivashinsky, {"n_points": 16, "n_dims": 2, "warmup": 3.0}, (1, 16, 16)),
    "ns": (make_navier_stokes, {"n_points": 16, "warmup": 0.5, "viscosity": 0.02}, (1, 16, 16)),
    "ns velocity": (make_navier_stokes, {"n_points": 16, "warmup": 0.5, "fields": "velocity"}, (2, 16, 16)),
    "gas": (make_compressible_navier_stokes, {"n_points": 16, "warmup": 0.1, "viscosity": 2e-3}, (4, 16, 16)),
    "rt 2-D": (make_rayleigh_taylor, {"n_points": 16, "n_dims": 2, "warmup": 0.2}, (3, 16, 16)),
    "rt 3-D": (make_rayleigh_taylor, {"n_points": 16, "warmup": 0.1, "steps_per_frame": 2}, (4, 16, 16, 16)),
}


@pytest.mark.parametrize("name", SMALL)
def test_trajectories_have_channels_before_space_and_come_by_seed(name):
    make, options, shape = SMALL[name]
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first, again = (make(2, 3, random_state=7, dtype=dtype, **options) for dtype in (np.float32, "float64"))
    assert (first.shape, first.dtype, again.dtype) == ((2, 3, *shape), np.float32, np.float64)
    np.testing.assert_array_equal(first, again.astype(np.float32))
    assert np.isfinite(first).all()
    assert (np.abs(np.diff(again, axis=1)).max(axis=tuple(range(2, again.ndim))) > 1e-4).all()
    assert np.abs(again[0] - again[1]).max() > 1e-2
    assert np.abs(make(1, 1, random_state=8, **options) - first[:1, :1]).max() > 1e-3
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("name", ["ks 1-D", "ks 2-D", "ns velocity", "gas", "rt 2-D"])
def test_a_coarse_observation_is_part_of_the_full_one(name):
    make, options, shape = SMALL[name]
    full, coarse = (make(1, 2, random_state=0, observe_every=every, **options) for every in (1, 4))
    np.testing.assert_array_equal(coarse, full[(..., *[slice(None, None, 4)] * (len(shape) - 1))])


def test_a_window_shows_the_first_points_of_the_thinned_box():
    make, options, _ = SMALL["ks 2-D"]
    full, seen = (
        make(1, 2, random_state=0, **options, **more) for more in ({}, {"observe_every": 2, "observe_window": 3})
    )
    np.testing.assert_array_equal(seen, full[..., :6:2, :6:2])


def test_the_first_frame_comes_after_the_warm_up():
    make, options, _ = SMALL["ns"]
    whole = make(1, 5, random_state=0, **{**options, "warmup": 0.0})
    np.testing.assert_array_equal(make(1, 3, random_state=0, **options), whole[:, 2:])


def test_generators_and_random_states_are_seeds_too():
    make, options, _ = SMALL["ks 1-D"]
    one, same, other = (make(1, 1, random_state=seed, **options) for seed in (5, np.random.RandomState(5), None))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    generator = np.random.default_rng(0)
    assert (
        np.abs(make(1, 1, random_state=generator, **options) - make(1, 1, random_state=generator, **options)).max() > 0
    )


def test_vorticity_is_the_curl_of_the_velocity_with_axes_y_and_x():
    options = {"n_points": 16, "warmup": 0.5, "dtype": "float64", "random_state": 0}
    vorticity, velocity = (make_navier_stokes(1, 2, fields=fields, **options) for fields in ("vorticity", "velocity"))
    k = 1j * np.fft.fftfreq(16, 1 / 16)
    d_x = np.fft.ifft(k * np.fft.fft(velocity[:, :, 1])).real
    d_y = np.fft.ifft(k[:, None] * np.fft.fft(velocity[:, :, 0], axis=-2), axis=-2).real
    np.testing.assert_allclose(d_x - d_y, vorticity[:, :, 0], atol=1e-12)


def test_the_body_force_drives_a_flow_along_x():
    velocity = make_navier_stokes(
        1,
        1,
        n_points=16,
        viscosity=1.0,
        forcing_waves=2,
        warmup=20,
        steps_per_frame=6,
        frame_interval=1.0,
        fields="velocity",
        dtype=float,
        random_state=0,
    )
    y = 2 * np.pi * np.arange(16)[:, None] / 16
    np.testing.assert_allclose(velocity[0, 0, 0], np.sin(2 * y) / (0.05 + 4) + np.zeros(16), atol=1e-7)
    np.testing.assert_allclose(velocity[0, 0, 1], 0, atol=1e-7)


def test_heavy_fluid_lies_above_light_fluid_at_first():
    buoyancy = make_rayleigh_taylor(3, 1, n_dims=2, warmup=0.0, n_points=64, random_state=0)[:, 0, -1]
    np.testing.assert_allclose(buoyancy[:, [0, -1]].mean(axis=2), [[1, -1]] * 3, atol=1e-2)
    np.testing.assert_allclose(buoyancy.mean(axis=1).std(), 2 * 0.02, rtol=0.05)  # a jump of 2 at height h


def test_mean_density_is_one_and_energy_is_conserved_from_frame_to_frame():
    gas = make_compressible_navier_stokes(2, 4, n_points=16, viscosity=2e-3, dtype=float, random_state=0)
    density, energy = gas[:, :, 0], gas[:, :, 3] / 0.4 + gas[:, :, 0] * (gas[:, :, 1:3] ** 2).sum(2) / 2
    np.testing.assert_allclose(density.mean(axis=(2, 3)), 1, atol=1e-14)
    np.testing.assert_allclose(energy.mean(axis=(2, 3)), energy[:, :1].mean(axis=(2, 3)) + np.zeros(4), atol=1e-13)


def test_slices_are_planes_across_y_trajectory_by_trajectory():
    runs = np.arange(2 * 3 * 4 * 2 * 6 * 5).reshape(2, 3, 4, 2, 6, 5)
    slices = vertical_slices(runs, 3)
    assert slices.shape == (6, 3, 4, 2, 5)
    np.testing.assert_array_equal(slices[4], runs[1, ..., 2, :])


def test_without_noise_the_next_state_is_the_deterministic_frame():
    frames = make_kuramoto_sivashinsky(3, 2, n_points=32, length=30.0, warmup=9, dtype=float, random_state=0)
    samples = sample_next_kuramoto_sivashinsky(frames[:, 0], 2, noise=0, length=30.0, dtype=float)
    np.testing.assert_allclose(samples, np.stack([frames[:, 1]] * 2), atol=1e-10)


def test_near_zero_the_next_state_has_the_law_of_the_linear_equation():
    """Ten waves share the kick's variance evenly and grow or decay for the other half of the interval."""
    k, x = 2 * np.pi * np.arange(33) / 64, np.arange(64)
    state = 1e-6 * np.cos(k[9] * x)[None, None]
    samples = sample_next_kuramoto_sivashinsky(state, 4000, noise=1e-6, dtype=float, random_state=0)[:, 0, 0] * 1e6
    waves = np.fft.rfft(samples) / 64
    growth = np.exp(k**2 - k**4)
    mean = np.where(np.arange(33) == 9, growth / 2, 0)
    power = np.where((np.arange(33) > 0) & (np.arange(33) <= 10), growth / 20, 0)
    np.testing.assert_allclose(waves.mean(axis=0), mean, atol=0.015)
    np.testing.assert_allclose((np.abs(waves - mean) ** 2).mean(axis=0), power, rtol=0.08, atol=1e-9)


def test_simulated_transitions_rank_uniformly_among_draws_of_their_law():
    options = {"noise": 0.4, "n_points": 32, "length": 32.0, "steps_per_frame": 4}
    frames = make_kuramoto_sivashinsky(600, 2, warmup=10, random_state=0, **options)
    del options["n_points"]
    draws = sample_next_kuramoto_sivashinsky(frames[:, 0], 9, random_state=1, **options)
    ranks = (draws < frames[:, 1]).sum(axis=0)[:, 0, 5]  # one point of each: others depend on it
    assert chisquare(np.bincount(ranks, minlength=10)).pvalue > 0.01


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (make_kuramoto_sivashinsky, {"n_trajectories": 0}, "n_trajectories must be an integer >= 1, got 0"),
        (make_kuramoto_sivashinsky, {"n_frames": 2.0}, "n_frames must be an integer >= 1, got 2.0"),
        (make_kuramoto_sivashinsky, {"n_dims": 3}, "n_dims must be an integer from 1 to 2, got 3"),
        (make_kuramoto_sivashinsky, {"n_points": 8}, "n_points must be an integer >= 16, got 8"),
        (make_kuramoto_sivashinsky, {"observe_every": 3}, "observe_every must divide n_points, 64, got 3"),
        (
            make_kuramoto_sivashinsky,
            {"observe_every": 2, "observe_window": 33},
            "observe_window must be an integer from 1 to 32, the points that observe_every=2 leaves, got 33",
        ),
        (make_kuramoto_sivashinsky, {"noise": 0.1, "n_dims": 2}, "noise must be 0 with n_dims=2"),
        (
            make_kuramoto_sivashinsky,
            {"noise": 0.1, "steps_per_frame": 5},
            "steps_per_frame must be even with noise > 0",
        ),
        (make_kuramoto_sivashinsky, {"length": 0}, r"length must be a number in \(0, inf\), got 0"),
        (make_kuramoto_sivashinsky, {"frame_interval": 0}, r"frame_interval must be a number in \(0, inf\), got 0"),
        (make_kuramoto_sivashinsky, {"dtype": int}, "dtype must be a floating point type, got <class 'int'>"),
        (make_kuramoto_sivashinsky, {"random_state": "x"}, "'x' cannot be used to seed"),
        (
            make_navier_stokes,
            {"fields": "pressure"},
            "unknown fields 'pressure'. Choose one of 'vorticity', 'velocity'",
        ),
        (make_navier_stokes, {"forcing_waves": 22}, "forcing_waves must be an integer from 1 to 21, which the grid"),
        (make_navier_stokes, {"viscosity": -1}, r"viscosity must be a number in \[0, inf\), got -1"),
        (make_compressible_navier_stokes, {"mach": 1.0}, r"mach must be a number in \[0, 1\), got 1.0"),
        (make_compressible_navier_stokes, {"gamma": 1}, r"gamma must be a number in \(1, inf\), got 1"),
        (make_compressible_navier_stokes, {"cfl": 2}, r"cfl must be a number in \(0, 1.7\], got 2"),
        (make_rayleigh_taylor, {"n_dims": 1}, "n_dims must be an integer from 2 to 3, got 1"),
        (make_rayleigh_taylor, {"warmup": np.nan}, r"warmup must be a number in \[0, inf\), got nan"),
    ],
)
def test_bad_options_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (make_kuramoto_sivashinsky, {"frame_interval": 8.0, "steps_per_frame": 2}, "raise steps_per_frame, got 2"),
        (
            make_navier_stokes,
            {"n_points": 16, "frame_interval": 2.0, "steps_per_frame": 1},
            "raise steps_per_frame, got 1",
        ),
        (
            make_compressible_navier_stokes,
            {"n_points": 16, "mach": 0.9, "fluctuation": 0.3, "viscosity": 0},
            "lower cfl, got 1.5, or raise n_points, got 16, or viscosity, got 0",
        ),
        (
            make_rayleigh_taylor,
            {"n_dims": 2, "frame_interval": 5.0, "steps_per_frame": 1},
            "raise steps_per_frame, got 1",
        ),
    ],
)
def test_a_simulation_that_diverges_says_what_to_change(make, options, message):
    with pytest.raises(
        ValueError, match=rf"the simulation diverged within \d+ frame intervals .* {re.escape(message)}"
    ):
        make(1, 100, random_state=0, **options)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (np.zeros((2, 64)), r"states must have shape \(n, 1, n_points\) with n_points >= 16, got \(2, 64\)"),
        (np.zeros((2, 3, 64)), r"got \(2, 3, 64\)"),
        (np.full((1, 1, 64), np.nan), "states must be finite"),
    ],
)
def test_states_that_are_none_are_refused(states, message):
    with pytest.raises(ValueError, match=message):
        sample_next_kuramoto_sivashinsky(states, noise=0.4)


def test_fields_that_cannot_be_sliced_are_refused():
    with pytest.raises(ValueError, match="trajectories must have shape .* got \\(2, 3\\)"):
        vertical_slices(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="n_slices must be an integer from 1 to 4, the planes along y, got 5"):
        vertical_slices(np.zeros((1, 1, 4, 4, 4, 4)), 5)


def test_everything_public_is_listed():
    assert {name for name in dir(fluids) if name.startswith(("make_", "sample_", "vertical_"))} == set(fluids.__all__)
