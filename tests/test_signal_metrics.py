"""Measures of signals, judged by closed forms, SciPy and the kinematics of bearings."""

import json

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch

from flowmatch.datasets import BEARINGS, Bearing, find_bearing, make_bearing_signals
from flowmatch.metrics import frechet_distance, signal_report, signals
from flowmatch.metrics.signals import (
    RandomConvolutions,
    autocorrelation,
    coherence,
    coherence_distance,
    envelope_spectrum,
    fault_energy,
    log_spectral_distance,
    log_spectrum,
    power_spectrum,
    shape_statistics,
    spectral_convergence,
    statistic_distances,
    window_copies,
)

FS = 12_000


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def tone(frequency, n_times=1024, amplitude=1.0, phase=0.3):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(n_times) / FS + phase)[None, None]


def filtered(X, a=(1.0, -1.2, 0.8)):
    return scipy.signal.lfilter([1.0], a, X)


# Spectra


@pytest.mark.parametrize(("frequency", "amplitude"), [(750, 1.0), (1500, 0.01), (4500, 300.0)])
def test_a_tones_power_peaks_at_its_frequency_and_adds_up_to_half_its_squared_amplitude(frequency, amplitude):
    frequencies, power = power_spectrum(tone(frequency, amplitude=amplitude), FS)
    assert power.shape == (1, 1, 129)
    assert frequencies[power[0, 0].argmax()] == frequency
    assert power.sum() * frequencies[1] == pytest.approx(amplitude**2 / 2, rel=0.01)


def test_distances_of_spectra_of_a_gain_have_closed_forms():
    X = noise(5, 2, 600)
    assert log_spectral_distance(X, 3 * X, FS) == pytest.approx(20 * np.log10(3))
    assert log_spectral_distance(X, X, FS) == 0
    assert spectral_convergence(X, 3 * X) == pytest.approx(2)
    gains = np.array([10.0, 1.0])[:, None]  # of one channel only
    assert log_spectral_distance(X, gains * X, FS) == pytest.approx(10)


def test_what_analyzers_filter_out_does_not_count_unless_asked_for():
    X = noise(5, 1, 1024)
    high = X + 10 * tone(5500)
    assert log_spectral_distance(X, high, FS) < 0.1 < log_spectral_distance(X, high, FS, f_max=6000)
    assert log_spectrum(X, FS).shape == (5, 100)
    assert log_spectrum(X, FS, f_max=6000).shape == (5, 128)


def test_coherence_is_one_for_what_is_linear_and_half_for_as_much_noise():
    X = noise(100, 1, 1024)
    alike = coherence(np.concatenate([X, filtered(X)], axis=1), FS)
    assert alike.values.shape == (1, 129)
    assert alike.values[:, 2:].min() > 0.98
    apart = coherence(noise(100, 3, 1024), FS)
    assert apart.values.shape == (3, 129)
    assert apart.values.max() < 0.03
    half = coherence(np.concatenate([X, X + noise(100, 1, 1024, seed=1)], axis=1), FS)
    assert half.values[:, 2:].mean() == pytest.approx(0.5, abs=0.02)
    assert coherence(np.concatenate([X, 0 * X], axis=1), FS).values.max() == 0
    assert coherence_distance(np.repeat(X, 2, axis=1), noise(100, 2, 1024), FS) > 0.97


def test_coherence_is_scipys_for_one_window():
    X = noise(1, 2, 2048)
    expected = scipy.signal.coherence(X[0, 0], X[0, 1], FS, nperseg=128)[1]
    np.testing.assert_allclose(coherence(X, FS, n_per_segment=128).values[0], expected)


def test_the_autocorrelation_of_an_autoregression_decays_geometrically():
    X = filtered(noise(50, 1, 5000), (1.0, -0.7))
    np.testing.assert_allclose(autocorrelation(X, n_lags=5).mean(axis=0)[0], 0.7 ** np.arange(1, 6), atol=0.01)
    assert not autocorrelation(np.ones((1, 1, 100))).any()


# Frechet


def with_moments(mean, covariance, n=200, seed=0):
    """Rows whose sample mean and covariance are these to the last digits."""
    X = noise(n, len(mean), seed=seed)
    X = (X - X.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(X.T))).T
    return X @ np.linalg.cholesky(np.asarray(covariance)).T + mean


def test_the_frechet_distance_of_two_gaussians_has_its_closed_form():
    X = with_moments([0, 0], np.diag([1.0, 4.0]))
    Y = with_moments([3, 4], np.diag([9.0, 1.0]), n=120, seed=1)
    assert frechet_distance(X, Y) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2)
    first, second = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])  # they do not commute
    expected = np.trace(first + second - 2 * scipy.linalg.sqrtm(first @ second).real)
    X, Y = with_moments([0, 0], first), with_moments([0, 0], second, seed=1)
    assert frechet_distance(X, Y) == pytest.approx(expected) == pytest.approx(frechet_distance(Y, X))
    assert frechet_distance(X[:, :1], 3 * X[:, :1]) == pytest.approx(X[:, 0].var(ddof=1) * 4 + 4 * X[:, 0].mean() ** 2)


def test_the_frechet_distance_of_a_sample_to_itself_is_zero_also_in_a_plane():
    X = noise(20, 2) @ noise(2, 30, seed=1)
    assert frechet_distance(X, X) == pytest.approx(0, abs=1e-5)


# Bearings and envelopes

PUBLISHED = {
    "SKF 6203-2RS JEM": (60, {"bpfi": 4.9469, "bpfo": 3.0530, "ftf": 0.3817, "bsf": 3.9874 / 2}),
    "6205-2RS": (60, {"bpfi": 5.4152, "bpfo": 3.5848, "ftf": 0.39828, "bsf": 4.7135 / 2}),
    "NSK 6804DD": (1800, {"bpfo": 168.3, "bpfi": 221.7}),
    "ER16K": (60, {"bpfi": 5.43, "bpfo": 3.57}),
    "NICE": (1500, {"bpfo": 81.125, "bpfi": 118.875}),
    "LDK UER204": (2100, {"bpfo": 107.91, "bpfi": 172.09, "bsf": 72.33, "ftf": 13.49}),
    "Rexnord ZA-2115": (2000, {"bpfo": 236.4, "bpfi": 296.9, "bsf": 139.9, "ftf": 14.8}),
}


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items(), ids=PUBLISHED)
def test_the_frequencies_of_known_bearings_are_the_published_ones(name, expected):
    rpm, frequencies = expected
    found = find_bearing(name).fault_frequencies(rpm)
    for line, value in frequencies.items():
        assert found[line] == pytest.approx(value, rel=3e-3), line


def test_every_bearing_of_the_table_was_looked_up():
    assert sorted(BEARINGS.values(), key=repr) == sorted(map(find_bearing, PUBLISHED), key=repr)
    mine = Bearing(12, 0.2)
    assert find_bearing(mine) is mine


@pytest.mark.parametrize("name", ["6299", "", None, 6205, "6203 or 6205"])
def test_unknown_bearings_are_refused(name):
    with pytest.raises(ValueError, match="bearing must be a Bearing"):
        find_bearing(name)


@pytest.mark.parametrize(("frequency", "depth"), [(105.0, 0.5), (250.0, 1.0)])
def test_the_envelope_of_an_amplitude_modulated_carrier_peaks_at_its_modulation(frequency, depth):
    """(1 + m cos)^2 = 1 + m^2 / 2 + 2 m cos + (m^2 / 2) cos of twice the angle."""
    X = (1 + depth * tone(frequency, 12_000)) * tone(3000, 12_000)
    frequencies, amplitudes = envelope_spectrum(X, FS)
    lines = amplitudes[0, 0]
    assert frequencies[lines.argmax()] == frequency
    second = lines[np.flatnonzero(frequencies == 2 * frequency)[0]]
    assert second / lines.max() == pytest.approx(depth / 4, rel=0.02)
    assert fault_energy(X, FS, frequency) > 0.99
    assert fault_energy(X, FS, 1.3 * frequency) < 0.01
    assert lines.max() > 100 * envelope_spectrum(X, FS, band=(4000, 5000)).values.max()  # the carrier lies outside


def test_fault_energy_is_highest_at_the_fault_that_there_is_at_each_windows_speed():
    faults = {"outer": "bpfo", "inner": "bpfi"}
    for fault, line in faults.items():
        simulated = make_bearing_signals(30, faults=fault, rpm=(1200, 2400), random_state=0)
        frequencies = Bearing().fault_frequencies(simulated.rpm)
        shares = {name: fault_energy(simulated.data, FS, frequencies[name]).mean() for name in faults.values()}
        assert max(shares, key=shares.get) == line
        shuffled = frequencies[line][::-1]
        assert fault_energy(simulated.data, FS, shuffled).mean() < shares[line] - 0.1


# Features and statistics


def test_statistics_of_signals_have_their_closed_forms():
    found = shape_statistics(
        np.concatenate([tone(1500, 1200, 2.0), np.sign(tone(1500, 1200)), np.full((1, 1, 1200), 0.1)])
    )
    assert set(found) == {"rms", "skewness", "kurtosis", "crest"}
    np.testing.assert_allclose(found["rms"][:, 0], [np.sqrt(2), 1, 0.1])
    np.testing.assert_allclose(found["kurtosis"][:, 0], [1.5, 1, 0], atol=1e-9)
    np.testing.assert_allclose(found["crest"][:, 0], [np.sqrt(2), 1, 0], rtol=0.05)
    impulse = np.zeros((1, 1, 400))
    impulse[..., 7] = 5.0  # kurtosis n - 2 + 1 / (n - 1), skewness (n - 2) / sqrt(n - 1), crest sqrt(n)
    found = {name: value.item() for name, value in shape_statistics(impulse).items()}
    expected = {"rms": 5 / 20, "kurtosis": 398 + 1 / 399, "skewness": 398 / np.sqrt(399), "crest": 20}
    assert found == pytest.approx(expected)


def test_distances_of_statistics_are_in_deviations_of_the_real_ones():
    X = noise(200, 2, 300) * np.random.default_rng(1).lognormal(size=(200, 1, 1))
    rms = shape_statistics(X)["rms"]
    found = statistic_distances(X, 1.5 * X)
    assert found["rms"] == pytest.approx(np.mean(0.5 * rms.mean(axis=0) / rms.std(axis=0)))
    assert [found[name] for name in ("skewness", "kurtosis", "crest")] == pytest.approx([0, 0, 0], abs=1e-9)


def test_random_convolutions_are_those_of_a_loop(monkeypatch):
    X = noise(4, 2, 100) * [[[1.0], [50.0]]] + 3
    features = RandomConvolutions(30, random_state=1).fit(X)
    found = features.transform(X)
    scaled = (X - X.mean(axis=(0, 2))[:, None]) / X.std(axis=(0, 2))[:, None]
    shares, largest = [], []
    for dilation, weights, biases in features.kernels_:
        assert weights.sum() == pytest.approx(0)
        reach = dilation * (weights.shape[2] - 1)
        for kernel, bias in zip(weights, biases, strict=True):
            values = np.stack(
                [
                    (scaled[..., s : s + reach + 1 : dilation] * kernel).sum(axis=(1, 2)) + bias
                    for s in range(100 - reach)
                ]
            )
            shares.append((values > 0).mean(axis=0))
            largest.append(values.max(axis=0))
    expected = np.concatenate([shares, np.sign(largest) * np.log1p(np.abs(largest))]).T
    np.testing.assert_allclose(found, expected, atol=1e-4)
    monkeypatch.setattr(signals.features, "BLOCK_VALUES", 1)
    np.testing.assert_allclose(features.transform(X), found, atol=1e-5)
    assert not np.allclose(RandomConvolutions(30, random_state=2).fit(X).transform(X), found)


# Copies


def ringing(n, seed=0):
    """Windows of a machine: a resonance, and a tone of random phase."""
    phases = np.random.default_rng(seed).uniform(0, 6, n)
    tones = np.concatenate([tone(300, 512, 3.0, phase) for phase in phases])
    return filtered(noise(n, 1, 512, seed=seed), (1, -1.2, 0.9)) + tones


@pytest.mark.parametrize("make", [noise, lambda n, *_, seed: ringing(n, seed)], ids=["noise", "machine"])
@pytest.mark.parametrize("change", [lambda X: X, lambda X: 3 - 0.01 * X], ids=["same", "gain, sign and offset"])
def test_shifted_copies_and_pasted_halves_are_found_and_independent_windows_are_not(make, change):
    train, fresh = make(12, 1, 512, seed=0), make(12, 1, 512, seed=1)
    honest = window_copies(train, change(fresh))
    assert honest.shift.max() < 0.6
    assert honest.half.max() < 0.75
    shifted = window_copies(train, change(np.roll(train, 200, axis=2)))
    assert shifted.shift.min() > 0.999
    assert shifted.half.min() > 0.9
    assert shifted.nearest.tolist() == list(range(12))
    rng, pasted = np.random.default_rng(0), fresh.copy()
    for row, (to, at) in enumerate(rng.integers(256, size=(12, 2))):
        pasted[row, :, to : to + 256] = train[row, :, at : at + 256]
    found = window_copies(train, change(pasted))
    assert found.half.min() > honest.half.max() + 0.2
    assert found.nearest.tolist() == list(range(12))
    assert found.shift.mean() < 0.75 < 0.85 < found.half.mean()  # only the search for halves sees it


def test_a_copy_of_one_channel_is_half_a_copy_and_silence_none():
    train, other = noise(2, 5, 2, 256)
    other[:, 0] = train[:, 0]
    assert window_copies(train, other).shift == pytest.approx(0.5, abs=0.1)
    assert not np.any(window_copies(train, 0 * train)[:2])
    assert not np.any(window_copies(0 * train, train)[:2])
    train[:, 1] = 0
    assert window_copies(train, train).shift == pytest.approx(1)


# The report


@pytest.fixture
def _without_classifiers(monkeypatch):
    """They take most of the time of a report."""
    monkeypatch.setattr("flowmatch.metrics.signals.reports.classifier_two_sample_test", lambda *_, **__: 0.5)


def test_a_report_of_the_same_distribution_is_at_its_floors_and_one_of_loud_copies_is_not():
    fault = {"faults": "outer", "n_times": 512, "snr_db": 10}
    real, fresh, holdout = (make_bearing_signals(24, **fault, random_state=seed).data for seed in range(3))
    copied = np.concatenate([fresh[..., :256], real[..., 100:356]], axis=-1)
    arguments = {"rpm": 1797, "bearing": "SKF 6205", "holdout": holdout}
    same, loud = (signal_report(real, X, FS, **arguments) for X in (fresh, 2 * copied))
    assert same.n_compared == 24
    assert same.floor == "held-out windows"
    values = {name: row["synthetic"] for name, row in same.measures.items()}
    floors = {name: row["floor"] for name, row in same.measures.items()}
    assert {name: row["floor"] for name, row in loud.measures.items()} == floors
    assert values["frechet_convolutions"] == pytest.approx(floors["frechet_convolutions"], rel=0.6)
    assert values["log_spectral_distance"] < 1
    assert 0.9 < values["bpfo_energy"] < 1.1
    assert values["copy_share"] < 0.2
    assert "ftf_energy" not in values
    found = {name: row["synthetic"] for name, row in loud.measures.items()}
    assert found["log_spectral_distance"] == pytest.approx(6, abs=0.7)
    assert found["frechet_convolutions"] > 3 * floors["frechet_convolutions"]
    assert found["rms_distance"] > 3
    assert found["kurtosis_distance"] < 1
    assert found["copy_share"] > 0.8
    assert found["c2st_spectrum"] > 0.95
    assert same.channels["0"]["envelope_hz"]["real"] == pytest.approx(Bearing().bpfo * 1797 / 60, abs=24)
    assert same.channels["0"]["bpfo_energy"]["real"] > 2 * same.channels["0"]["bpfi_energy"]["real"]
    assert loud.channels["0"]["rms"]["synthetic"] > 1.8 * loud.channels["0"]["rms"]["real"]
    json.dumps(loud.to_dict())
    assert loud.to_frame().loc["copy_share", "synthetic"] == found["copy_share"]
    assert loud.to_frame("channels").loc["0", ("rms", "real")] == loud.channels["0"]["rms"]["real"]
    assert "copy_half" in repr(loud)
    assert "lower" in repr(loud)
    assert "trained on real rows" not in repr(loud)


@pytest.mark.usefixtures("_without_classifiers")
def test_a_report_without_holdout_compares_halves_and_two_channels_have_coherence():
    X = noise(24, 1, 128)
    real, synthetic = np.repeat(X, 2, axis=1), noise(16, 2, 128, seed=1)
    found = signal_report(real, torch.as_tensor(synthetic), 1000)
    assert found.n_compared == 12
    assert found.floor == "the other half of the real windows"
    assert found.measures["coherence_distance"]["synthetic"] > 0.8
    assert found.measures["coherence_distance"]["floor"] == pytest.approx(0, abs=1e-9)
    assert set(found.channels) == {"0", "1"}
    assert not any(name.endswith("energy") for name in found.measures)
    assert found.measures["copy_half"]["floor"] < 0.8  # no window is compared with itself
    assert repr(signal_report(real, synthetic, 1000)) == repr(found)


@pytest.mark.usefixtures("_without_classifiers")
def test_overlapping_real_windows_are_warned_of():
    record = noise(1, 1, 128 * 20)
    overlapping = np.stack([record[0, :, s : s + 128] for s in range(0, 128 * 19, 16)])
    with pytest.warns(UserWarning, match="hold pieces of each other"):
        signal_report(overlapping, noise(12, 1, 128, seed=1), 1000, max_rows=12)


@pytest.mark.usefixtures("_without_classifiers")
def test_speeds_may_differ_by_window_and_sample():
    real, synthetic = (
        make_bearing_signals(14, faults="outer", n_times=512, rpm=(1500, 2400), random_state=seed) for seed in range(2)
    )
    at = {"bearing": Bearing(), "fs": FS}
    right = signal_report(real.data, synthetic.data, rpm=(real.rpm, synthetic.rpm), **at)
    wrong = signal_report(real.data, synthetic.data, rpm=(real.rpm, synthetic.rpm[::-1]), **at)
    fixed = signal_report(real.data, synthetic.data, rpm=1950, **at)
    energies = [found.channels["0"]["bpfo_energy"]["synthetic"] for found in (right, wrong, fixed)]
    assert energies[0] > max(energies[1:]) + 0.05


# What is no signal

X = noise(12, 1, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_spectrum(X[:, 0], FS), r"X\[:, None\]"),
        (lambda: spectral_convergence(X.transpose(0, 2, 1), X), r"transpose\(0, 2, 1\)"),
        (lambda: shape_statistics(np.where(X > 2, np.nan, X)), "NaN or infinity in"),
        (lambda: power_spectrum(X, 0), "fs must be a number"),
        (lambda: log_spectrum(X, FS, f_max=1), "f_max must be"),
        (lambda: coherence(X, FS), "a single channel"),
        (lambda: autocorrelation(X, n_lags=64), "n_lags must be"),
        (lambda: envelope_spectrum(X, FS, band=(0, 3000)), "band must be two rising"),
        (lambda: envelope_spectrum(X, FS, band=(3000, 6001)), "band must be two rising"),
        (lambda: envelope_spectrum(X[..., :20], FS), "takes more than"),
        (lambda: fault_energy(X, FS, -1.0), "frequency must be positive"),
        (lambda: fault_energy(X, FS, np.ones(5)), "frequency must be positive"),
        (lambda: fault_energy(X, FS, 100, limits=(1, 2)), "no frequency of the envelope"),
        (lambda: RandomConvolutions(5).fit(X).transform(np.repeat(X, 2, axis=1)), "2 channels"),
        (lambda: RandomConvolutions(0).fit(X), "n_kernels must be"),
        (lambda: window_copies(X, X[..., :32]), "other channels or lengths"),
        (lambda: spectral_convergence(0 * X, X), "0 everywhere"),
        (lambda: frechet_distance(X[:1], X), "at least 2"),
        (lambda: signal_report(X, X[..., :32], FS), "other channels or lengths"),
        (lambda: signal_report(X, X, FS, rpm=1800), "needed together"),
        (lambda: signal_report(X, X, FS, bearing="6205"), "needed together"),
        (lambda: signal_report(X, X, FS, rpm=(1800, 1800, 1800), bearing="6205"), r"\(rpm_real, rpm_synthetic\)"),
        (lambda: signal_report(X, X, FS, rpm=(1800, np.ones(3)), bearing="6205"), "rpm of synthetic"),
        (lambda: signal_report(X[:10], X, FS), "12|6 rows a side"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
