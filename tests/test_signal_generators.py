"""Generators of signals without training, their calibration, and plots of real signals beside synthetic ones."""

import pickle

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import scipy.signal
from matplotlib import pyplot as plt
from sklearn.base import BaseEstimator, clone

from flowmatch.core.storable import fields_to_store, rebuild
from flowmatch.datasets import Bearing, make_bearing_signals
from flowmatch.metrics.signals import (
    coherence,
    fault_energy,
    log_spectral_distance,
    power_spectrum,
    shape_statistics,
    window_copies,
)
from flowmatch.plotting import SignalReportDisplay
from flowmatch.preprocessing import ClassCalibrations, SignalCalibration
from flowmatch.synthetic import ARBlocks, Perturb

FS = 12_000


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def autoregression(n, n_times=512, a=(1.0, -1.2, 0.8), seed=0, n_channels=1):
    return scipy.signal.lfilter([1.0], a, noise(n, n_channels, n_times + 200, seed=seed))[..., 200:]


# Autoregressive processes


def test_the_coefficients_of_an_autoregression_are_recovered():
    X = 5 + 2 * autoregression(60, 1024)
    process = ARBlocks(order=2, block=10).fit(X).processes_[0]
    np.testing.assert_allclose(process.filters, [[1, -1.2, 0.8]], atol=0.02)
    np.testing.assert_allclose(process.mean, [5], atol=0.02)
    assert process.innovations.std() == pytest.approx(2, rel=0.01)
    longer = ARBlocks(order=6, block=10).fit(X).processes_[0].filters
    np.testing.assert_allclose(longer, [[1, -1.2, 0.8, 0, 0, 0, 0]], atol=0.03)


@pytest.mark.parametrize("block", [1, 300])
def test_drawn_signals_have_the_spectrum_and_the_level_of_the_real_ones(block):
    X = 3 + autoregression(60)
    drawn = ARBlocks(order=16, block=block).fit(X).sample(60, random_state=0)
    assert log_spectral_distance(X, drawn, FS) < 1 < 5 < log_spectral_distance(X, noise(60, 1, 512), FS)
    assert drawn.mean() == pytest.approx(3, abs=0.1)
    assert drawn.std() == pytest.approx(X.std(), rel=0.05)


def test_what_the_filter_leaves_of_drawn_signals_are_blocks_of_innovations():
    X = autoregression(8, 400)
    generator = ARBlocks(order=8, block=100).fit(X)
    process = generator.processes_[0]
    drawn = generator.sample(5, random_state=0) - process.mean
    left = scipy.signal.lfilter(process.filters[0], [1.0], drawn[:, 0])[:, 8:]
    for row in left:
        known = np.isclose(row[:, None, None], process.innovations[:, 0], atol=1e-9).any(axis=1)  # (times, positions)
        follows = known[1:, 1:] & known[:-1, :-1]
        assert known.any(axis=1).all()
        assert (~follows.any(axis=1)).sum() <= 5  # where one block ends and another begins


def test_long_blocks_keep_the_times_of_impacts_and_are_half_copies():
    signals = make_bearing_signals(40, faults="outer", n_times=512, snr_db=10, random_state=0)
    at = Bearing().bpfo * 1797 / 60
    long, short = (ARBlocks(32, block).fit(signals.data).sample(20, random_state=0) for block in (400, 1))
    real, kept, lost = (fault_energy(X, FS, at).mean() for X in (signals.data, long, short))
    assert kept > 0.8 * real > 1.5 * lost
    assert window_copies(signals.data, long).half.mean() > window_copies(signals.data, short).half.mean() + 0.2


def test_channels_are_drawn_together():
    X = autoregression(40)
    X = np.concatenate([X, np.roll(X, 3, axis=2) + 0.1 * noise(40, 1, 512, seed=1)], axis=1)
    drawn = ARBlocks(16, 200).fit(X).sample(40, random_state=0)
    low = slice(2, 60)
    assert coherence(drawn, FS).values[0, low].mean() > 0.9 * coherence(X, FS).values[0, low].mean()


# What all generators of signals do

LABELS = np.array(["faint", "loud"])
CLASSES = np.repeat(LABELS, [20, 10])
TWO = autoregression(30).astype(np.float32) * np.where(CLASSES == "loud", 10, 1)[:, None, None].astype(np.float32)
GENERATORS = [ARBlocks(8, 50), Perturb(gain=0.1), Perturb(ARBlocks(8, 50))]
each = pytest.mark.parametrize("generator", GENERATORS, ids=repr)


@each
def test_classes_are_kept_apart_and_drawn_as_asked_for(generator):
    fitted = clone(generator).fit(TWO, CLASSES)
    assert fitted.classes_.tolist() == LABELS.tolist()
    drawn = fitted.sample(40, ["faint", "loud"] * 20, random_state=0)
    assert drawn.shape == (40, 1, 512)
    assert drawn.dtype == np.float32
    assert drawn[1::2].std() / drawn[::2].std() == pytest.approx(10, rel=0.2)
    assert fitted.sample(3, "loud", random_state=0).std() > 5
    more, labels = fitted.sample(300, random_state=0, return_y=True)
    assert np.mean(labels == "loud") == pytest.approx(1 / 3, abs=0.1)
    assert more[labels == "loud"].std() > 5 * more[labels == "faint"].std()


@each
def test_draws_depend_on_their_seed_alone_and_the_first_ones_not_on_their_number(generator):
    fitted = clone(generator).fit(TWO, CLASSES)
    first, second = fitted.sample(4, random_state=0, return_y=True), fitted.sample(9, random_state=0, return_y=True)
    for few, many in zip(first, second, strict=True):
        np.testing.assert_array_equal(few, many[:4])
    assert not np.array_equal(first[0], fitted.sample(4, first[1], random_state=1))
    again = pickle.loads(pickle.dumps(fitted)).sample(4, random_state=0)
    np.testing.assert_array_equal(again, first[0])


@each
def test_windows_without_weight_are_left_out(generator):
    weight = np.where(CLASSES == "faint", 1.0, 0.0)
    weighted, alone = clone(generator).fit(TWO, None, weight), clone(generator).fit(TWO[:20])
    np.testing.assert_allclose(weighted.sample(5, random_state=0), alone.sample(5, random_state=0), rtol=1e-5)
    uneven = clone(generator).fit(TWO, sample_weight=np.where(CLASSES == "faint", 1.0, 1e-6))
    assert uneven.sample(30, random_state=0).std() < 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ARBlocks().fit(TWO[:, 0]), r"X\[:, None\]"),
        (lambda: ARBlocks(512).fit(TWO), "order must be .*the windows hold 512 values"),
        (lambda: ARBlocks(128, 400).fit(TWO), "block must be .*leaves 384 innovations"),
        (lambda: ARBlocks(8, 8).fit(TWO, CLASSES[:4]), "y has 4 rows"),
        (lambda: ARBlocks(8, 8).fit(TWO, np.linspace(0, 1, 30)), "y must hold labels"),
        (lambda: ARBlocks(8, 8).fit(TWO, CLASSES).sample(2, "absent"), "'absent', which was not there"),
        (lambda: ARBlocks(8, 8).fit(TWO, CLASSES).sample(2, LABELS[[0, 0, 1]]), "y has 3 rows"),
        (lambda: Perturb(speed=0.6).fit(TWO), "speed must be"),
        (lambda: Perturb(gain=-1).fit(TWO), "gain must be"),
        (lambda: Perturb(tilt="steep").fit(TWO), "tilt must be"),
        (lambda: Perturb("ARBlocks").fit(TWO), "generator must be None or have fit and sample"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_more_samples_than_memory_holds_are_refused():
    with pytest.raises(MemoryError, match="n_samples=10"):
        ARBlocks(8, 8).fit(TWO).sample(10**12)


# Perturbations

STILL = {"speed": 0.0, "gain": 0.0, "tilt": 0.0}


def test_without_perturbations_windows_are_rotated_training_windows():
    drawn = Perturb(**STILL).fit(TWO).sample(6, random_state=0)
    assert window_copies(TWO, drawn).shift == pytest.approx(1, abs=1e-4)
    assert not any((drawn[:, None] == TWO).all(axis=(2, 3)).ravel())


@pytest.mark.parametrize("decibels", [1.5, 6.0])
def test_the_tilt_is_smooth_and_bounded(decibels):
    X = noise(1, 2, 512)  # one window, whose magnitudes a rotation keeps
    drawn = Perturb(**STILL | {"tilt": decibels}).fit(X).sample(100, random_state=0)
    gains = 20 * np.log10(np.abs(np.fft.rfft(drawn)) / np.abs(np.fft.rfft(X)))[..., 1:-1]
    assert np.abs(gains).max() <= 2 * decibels + 1e-6
    assert gains[..., ::50].std() == pytest.approx(0.85 * decibels, rel=0.15)  # between points, less than at them
    assert np.abs(np.diff(gains)).max() <= 4 * decibels * 5 / 256 + 1e-6
    assert not np.allclose(gains[:, 0], gains[:, 1])


def test_the_gain_is_lognormal():
    X = noise(1, 1, 64)
    drawn = Perturb(**STILL | {"gain": 0.2}).fit(X).sample(500, random_state=0)
    logarithms = np.log(drawn.std(axis=(1, 2)) / X.std())
    assert [logarithms.mean(), logarithms.std()] == pytest.approx([0, 0.2], abs=0.02)


def test_the_speed_moves_all_frequencies_by_one_factor_within_its_limits():
    times = np.arange(2048) / FS
    X = (np.sin(2 * np.pi * 750 * times) + np.sin(2 * np.pi * 3000 * times))[None, None]
    drawn = Perturb(**STILL | {"speed": 0.04}).fit(X).sample(60, random_state=0)
    spectra = np.abs(np.fft.rfft(drawn[:, 0] * np.hanning(2048), 2**16))
    frequencies = np.fft.rfftfreq(2**16, 1 / FS)
    low = frequencies < 1500
    factors = frequencies[(spectra * low).argmax(axis=1)] / 750, frequencies[(spectra * ~low).argmax(axis=1)] / 3000
    np.testing.assert_allclose(*factors, rtol=3e-3)
    moved = np.log(factors[1])
    assert np.abs(moved).max() < 0.0405
    assert moved.std() == pytest.approx(0.04 / np.sqrt(3), rel=0.2)  # uniform
    assert drawn.std(axis=2) == pytest.approx(1, abs=0.02)


class Remembered(BaseEstimator):
    """A generator that remembers what it was given."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None):
        self.given_ = X, y, sample_weight
        return self

    def sample(self, n_samples, y=None, random_state=None):
        self.asked_ = n_samples, y, random_state
        return np.ones((n_samples, *self.given_[0].shape[1:]))


def test_another_generator_learns_what_perturb_is_given_and_is_seeded_if_it_has_no_seed():
    inner = Remembered()
    fitted = Perturb(inner, **STILL, random_state=3).fit(TWO, CLASSES)
    assert not hasattr(inner, "given_")
    np.testing.assert_array_equal(fitted.generator_.given_[0], TWO)
    np.testing.assert_array_equal(fitted.generator_.given_[1], CLASSES)
    np.testing.assert_allclose(fitted.sample(3, "loud"), 1)
    assert fitted.generator_.asked_[1].tolist() == ["loud"] * 3
    seeds = [Perturb(Remembered(), random_state=seed).fit(TWO).generator_.random_state for seed in (3, 3, 4)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert Perturb(Remembered(7), random_state=3).fit(TWO).generator_.random_state == 7
    assert Perturb(Remembered()).fit(TWO).sample(2).shape == (2, 1, 512)  # without labels


# Calibration


def test_a_calibration_takes_fresh_samples_to_real_spectra_values_and_levels():
    def real(seed):
        rng = np.random.default_rng(seed)
        innovations = rng.laplace(size=(300, 1, 456))
        return scipy.signal.lfilter([1.0], [1, -0.5], innovations)[..., 200:] * rng.lognormal(
            sigma=0.5, size=(300, 1, 1)
        )

    generated = [0.2 * autoregression(300, 256, (1, 0, 0.5), seed=seed) for seed in (2, 3)]
    X = real(0)
    calibration = SignalCalibration.fit(X, generated[0])
    found, fresh = calibration.apply(generated[1]), real(1)
    floor = log_spectral_distance(X, fresh, FS)
    assert log_spectral_distance(X, found, FS) < floor + 0.5 < 3 < log_spectral_distance(X, generated[1], FS)
    levels = [np.quantile(shape_statistics(side)["rms"], [0.1, 0.5, 0.9]) for side in (X, found)]
    np.testing.assert_allclose(*levels, rtol=0.1)
    kurtosis = [shape_statistics(side)["kurtosis"].mean() for side in (X, found, generated[1])]
    assert kurtosis[1] == pytest.approx(kurtosis[0], rel=0.15)
    assert abs(kurtosis[2] - kurtosis[0]) > 0.4 * kurtosis[0] / 2


def test_a_calibration_of_what_is_right_changes_little_and_windows_do_not_depend_on_each_other():
    X = autoregression(200, 256, n_channels=2) * [[[1.0], [20.0]]]
    calibration = SignalCalibration.fit(X, X)
    found = calibration.apply(X)
    assert np.abs(found - X).max() < 0.05 * X.std()
    np.testing.assert_allclose(calibration.apply(X[7:8]), found[7:8])
    loud = calibration.apply(np.concatenate([0 * X[:1], 1e3 * X[:1]]))
    assert np.isfinite(loud).all()
    assert loud[1].std() / X[0].std() == pytest.approx(1e3, rel=0.1)  # beyond what was seen, as at its edge


def test_each_class_has_its_own_calibration():
    generated = noise(60, 1, 256)
    y = np.repeat(LABELS, 30)
    X = autoregression(60, 256) * np.where(y == "loud", 10, 1)[:, None, None]
    calibrations = ClassCalibrations.fit(X, y, generated, y[::-1])
    found = calibrations.apply(generated, y[::-1])
    assert [found[y[::-1] == name].std() for name in LABELS] == pytest.approx(
        [X[y == name].std() for name in LABELS], rel=0.1
    )
    with pytest.raises(ValueError, match="holds no window of the class 'loud'"):
        ClassCalibrations.fit(X, y, generated[:5], ["faint"] * 5)
    with pytest.raises(ValueError, match="'absent', which was not there"):
        calibrations.apply(generated[:1], ["absent"])
    with pytest.raises(ValueError, match="the calibration is of windows"):
        calibrations.apply(generated[..., :100], y)
    with pytest.raises(ValueError, match="other channels or lengths"):
        SignalCalibration.fit(X, X[..., :100])


def test_calibrations_come_back_from_what_a_file_keeps_or_are_refused():
    X = noise(20, 1, 64)
    calibration = SignalCalibration.fit(X, 2 * X)
    kept = fields_to_store(calibration)
    np.testing.assert_array_equal(rebuild(SignalCalibration, kept).apply(X), calibration.apply(X))
    damaged = [
        ("gains", kept["gains"][:, :, :5]),
        ("values", kept["values"][:, :, ::-1]),
        ("levels", kept["levels"][0]),
    ]
    for name, value in [*damaged, ("n_times", 32), ("levels", np.full((2, 5), np.nan))]:
        with pytest.raises(ValueError, match="calibration|fit together|rise|finite"):
            rebuild(SignalCalibration, kept | {name: value})
    with pytest.raises(ValueError, match="2 calibrations for"):
        rebuild(ClassCalibrations, {"classes": LABELS[:1], "calibrations": (calibration, calibration)})


# Plots


def test_a_display_shows_real_and_synthetic_signals_side_by_side():
    real, synthetic = (
        make_bearing_signals(8, faults="outer", snr_db=10, random_state=seed).data.repeat(2, axis=1) for seed in (0, 1)
    )
    synthetic[:, 1] *= 2
    display = SignalReportDisplay.from_samples(
        real, synthetic, FS, rpm=1797, bearing="6205", channel=1, row=3, color="red"
    )
    assert display.axes_.shape == display.lines_.shape == (3, 2)
    for side, X in enumerate((real, synthetic)):
        times, values = display.lines_[0, side].get_data()
        np.testing.assert_array_equal(values, X[3, 1].astype(float))
        assert times[1] == 1 / FS
        frequencies, power = power_spectrum(X[:, 1:], FS)
        np.testing.assert_allclose(
            display.lines_[1, side].get_data(), [frequencies, 10 * np.log10(power.mean(axis=(0, 1)))]
        )
        x, envelope = display.lines_[2, side].get_data()
        assert x[envelope.argmax()] == pytest.approx(Bearing().bpfo * 1797 / 60, rel=0.1)
        assert display.lines_[2, side].get_color() == "red"
    marks = [line.get_xdata()[0] for line in display.axes_[2, 1].lines[1:]]
    assert sorted(marks) == pytest.approx(sorted(Bearing().fault_frequencies(1797).values()))
    assert all(left.get_ylim() == right.get_ylim() for left, right in display.axes_)
    _, axes = plt.subplots(3, 2)
    assert SignalReportDisplay.from_samples(real, real, FS, ax=axes).figure_ is axes[0, 0].figure
    plt.close("all")
    for arguments, message in [
        ({"channel": 2}, "channel must be"),
        ({"row": 8}, "row must be"),
        ({"rpm": 1797}, "needed together"),
        ({"ax": axes[0]}, "2 Axes for 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            SignalReportDisplay.from_samples(real, synthetic, FS, **arguments)
