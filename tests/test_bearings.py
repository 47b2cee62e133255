"""Simulated bearing vibration obeys the kinematics and the mechanics that it is said to follow."""

import numpy as np
import pytest

from flowmatch.datasets import Bearing, make_bearing_signals

RATE, RPM = 12_000, 1800
SHAFT = RPM / 60
PUBLISHED = {"inner": 5.4152, "outer": 3.5848, "ball": 4.7135, "cage": 0.39828}  # SKF 6205, impacts per turn
FAULTY = ["inner", "outer", "ball"]


def simulate(n_samples=1, **parameters):
    return make_bearing_signals(n_samples, **{"rpm": RPM, "random_state": 0, **parameters})


def impacts_alone(n_samples=1, **parameters):
    """What a fault of severity 1 adds to a window, and the signals it was taken from."""
    signals = simulate(n_samples, snr_db=None, **parameters)
    without = simulate(n_samples, snr_db=None, severity=0, **parameters)
    return signals.data[:, 0].astype(float) - without.data[:, 0], signals


def envelope_spectrum(signal):
    """Magnitudes at steps of 1/8 Hz of the envelope between 2 and 5 kHz, for a window of one second."""
    spectrum = np.fft.fft(signal)
    assert len(signal) == RATE
    spectrum[: 2000 + 1] = 0  # the band, and of it the positive frequencies only: the analytic signal
    spectrum[5000:] = 0
    envelope = np.abs(np.fft.ifft(spectrum))
    return np.abs(np.fft.rfft(envelope - envelope.mean(), 8 * RATE))


def height(spectrum, frequency):
    """Largest value within 2 Hz of a frequency, in a spectrum at steps of 1/8 Hz."""
    middle = round(8 * frequency)
    return spectrum[middle - 16 : middle + 17].max()


def test_the_orders_of_a_known_bearing_are_the_published_ones():
    bearing = Bearing()
    orders = {"inner": bearing.bpfi, "outer": bearing.bpfo, "ball": 2 * bearing.bsf, "cage": bearing.ftf}
    for name, order in PUBLISHED.items():
        assert orders[name] == pytest.approx(order, rel=1e-4), name


@pytest.mark.parametrize("angle", [0, 15, 40])
def test_orders_obey_the_rolling_conditions(angle):
    bearing = Bearing(n_elements=13, diameter_ratio=0.25, contact_angle=angle)
    assert bearing.bpfi + bearing.bpfo == pytest.approx(13)  # an element passes one race or the other
    assert bearing.bpfo == pytest.approx(13 * bearing.ftf)  # the elements go round with the cage
    # On the outer race, of diameter D + d cos(a), an element rolls as far as the cage carries it.
    assert 0.25 * bearing.bsf == pytest.approx((1 + 0.25 * np.cos(np.radians(angle))) * bearing.ftf)


def test_a_flatter_contact_moves_both_races_orders_to_half_the_elements():
    steep = Bearing(contact_angle=60)
    assert steep.bpfo == pytest.approx(4.5 * (1 - 0.5 * 0.3126 / 1.537))


@pytest.mark.parametrize("fault", FAULTY)
def test_the_envelope_spectrum_peaks_at_the_fault_frequency(fault):
    signals = simulate(4, faults=fault, n_times=RATE, snr_db=30)
    expected = PUBLISHED[fault] * SHAFT
    np.testing.assert_allclose(signals.fault_frequency, expected, rtol=1e-4)
    for row in signals.data[:, 0]:
        assert np.argmax(envelope_spectrum(row)) / 8 == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(("fault", "turning"), [("inner", 1), ("ball", PUBLISHED["cage"])])
def test_a_defect_that_turns_through_the_load_zone_has_sidebands_where_the_outer_race_has_none(fault, turning):
    def sidebands(name):
        signals = simulate(faults=name, n_times=RATE, snr_db=40, slip=0.001)
        spectrum = envelope_spectrum(signals.data[0, 0])
        centre = PUBLISHED[name] * SHAFT
        beside = [height(spectrum, centre + side * turning * SHAFT) for side in (-1, 1)]
        return np.array(beside) / height(spectrum, centre)

    # A raised cosine (1 + cos) / 2 puts half the line's height on each side.
    np.testing.assert_allclose(sidebands(fault), 0.5, atol=0.15)
    assert (sidebands("outer") < 0.1).all()


def test_impacts_on_the_outer_race_are_equally_strong_and_others_follow_the_load():
    signals = simulate([1, 1, 1], faults=FAULTY, n_times=RATE, slip=0)
    strength = {name: row[row > 0] for name, row in zip(signals.target, signals.impacts, strict=True)}
    assert strength["outer"].min() >= 0.8
    for name, turning in (("inner", 1), ("ball", PUBLISHED["cage"])):
        assert strength[name].min() < 0.1
        angle = 2 * np.pi * turning * SHAFT * np.flatnonzero(signals.impacts[list(signals.target).index(name)]) / RATE
        basis = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)
        mean, cosine, sine = np.linalg.lstsq(basis, strength[name], rcond=None)[0]
        assert mean == pytest.approx(0.5, abs=0.03)
        assert np.hypot(cosine, sine) == pytest.approx(0.5, abs=0.03)
    assert max(values.max() for values in strength.values()) <= 1.2


@pytest.mark.parametrize(("resonance", "damping"), [(3000.0, 0.05), (1234.5, 0.2), (5500.0, 0.02)])
def test_between_impacts_the_fault_rings_as_a_damped_oscillator_also_from_before_the_window(resonance, damping):
    added, signals = impacts_alone(20, faults=FAULTY, resonance=resonance, damping=damping)
    omega = 2 * np.pi * resonance / RATE
    decay, turn = np.exp(-damping * omega), omega * np.sqrt(1 - damping**2)
    residual = added[:, 2:] - 2 * decay * np.cos(turn) * added[:, 1:-1] + decay**2 * added[:, :-2]
    struck = signals.impacts > 0
    free = ~(struck[:, 2:] | struck[:, 1:-1])
    assert np.abs(residual[free]).max() < 1e-5
    assert np.abs(residual[~free]).max() > 0.3
    first = struck.argmax(axis=1)
    before = [np.abs(row[:end]).max() for row, end in zip(added, first, strict=True) if end > 5]
    assert len(before) > 5
    assert np.median(before) > 1e-3


def test_an_impact_between_two_samples_rings_with_its_own_strength_and_phase():
    added, signals = impacts_alone(30, faults="outer", slip=0.1, damping=0.1)
    pole = 2 * np.pi * 3000 / RATE * complex(-0.1, np.sqrt(1 - 0.1**2))
    delays = []
    for row, impacts in zip(added, signals.impacts, strict=True):
        start = np.flatnonzero(impacts)[2]
        # What rings on from before, carried over the impact by the two samples before it, is taken off.
        memory = np.linalg.solve(np.imag(np.outer(np.exp(pole * np.array([-2, -1])), [1, 1j])), row[start - 2 : start])
        rest = row[start : start + 9] - np.imag(np.exp(pole * np.arange(9)) * complex(*memory))
        grid = np.linspace(0, 1, 1001)
        model = impacts[start] * np.imag(np.exp(pole * (np.arange(9) + grid[:, None])))
        errors = np.abs(model - rest).max(axis=1)
        assert errors.min() < 2e-3
        delays.append(grid[errors.argmin()])
    assert np.std(delays) == pytest.approx(12**-0.5, abs=0.07)  # anywhere between the samples


@pytest.mark.parametrize("slip", [0.0, 0.01, 0.1])
def test_intervals_between_impacts_slip_as_asked_and_deviations_add_up(slip):
    signals = simulate(40, faults="outer", n_times=6000, slip=slip)
    starts = [np.flatnonzero(row) for row in signals.impacts]
    period = RATE / (PUBLISHED["outer"] * SHAFT)
    for n_intervals in (1, 16):
        lengths = np.concatenate([row[n_intervals:] - row[:-n_intervals] for row in starts]) / period
        assert lengths.mean() == pytest.approx(n_intervals, rel=0.01)
        grid = 1 / (6 * period**2)  # starts are whole samples: two roundings add 1/12 each to the variance
        expected = np.sqrt(n_intervals * slip**2 + grid)
        assert lengths.std() == pytest.approx(expected, rel=0.12, abs=0.003)


def test_a_healthy_machine_has_the_same_harmonics_in_each_window_and_nothing_else():
    signals = simulate(5, faults="normal", n_times=RATE, snr_db=None)
    spectrum = np.fft.rfft(signals.data[:, 0].astype(float)) / (RATE / 2)
    lines = [30, 60, 90, 120]
    np.testing.assert_allclose(np.abs(spectrum[:, lines]), [[0.2, 0.1, 0.05, 0.025]] * 5, atol=1e-6)
    assert np.ptp(np.angle(spectrum[:, lines]), axis=0).min() > 0.5
    spectrum[:, lines] = 0
    assert np.abs(spectrum).max() < 1e-6


@pytest.mark.parametrize("snr_db", [-10, 0, 20])
def test_noise_is_white_at_the_asked_ratio_to_the_healthy_signal_and_the_same_for_every_severity(snr_db):
    def noise(severity):
        parameters = {"severity": severity, "n_times": RATE}
        return simulate(4, snr_db=snr_db, **parameters).data - simulate(4, snr_db=None, **parameters).data

    healthy = simulate(1, faults="normal", snr_db=None, n_times=RATE).data
    drawn = noise(0.0)
    ratio = 10 * np.log10((healthy**2).mean() / (drawn**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(ratio, snr_db, atol=0.3)
    spectrum = np.abs(np.fft.rfft(drawn[:, 0])) ** 2
    halves = spectrum[:, :3000].mean(), spectrum[:, 3000:].mean()
    assert halves[0] == pytest.approx(halves[1], rel=0.1)
    np.testing.assert_allclose(noise(5.0), drawn, atol=2e-6)


@pytest.mark.parametrize("fault", FAULTY)
def test_severity_zero_is_a_normal_window_and_a_fault_grows_in_proportion(fault):
    normal = simulate(6, faults="normal")
    none, half, full = (simulate(6, faults=fault, severity=value) for value in (0, 0.5, 1))
    np.testing.assert_array_equal(none.data, normal.data)
    assert not none.impacts.any()
    assert np.abs(full.data - none.data).max() > 0.5
    np.testing.assert_allclose(full.data - none.data, 2 * (half.data - none.data), atol=1e-6)
    np.testing.assert_allclose(full.impacts, 2 * half.impacts, rtol=1e-6)


def test_each_window_may_have_its_own_severity():
    severity = np.array([0.5, 0.0, 2.0, 1.0])
    mixed = simulate([1, 3], faults=["normal", "ball"], severity=severity)
    for row, value in enumerate(severity):
        alone = simulate([1, 3], faults=["normal", "ball"], severity=value)
        np.testing.assert_array_equal(mixed.data[row], alone.data[row])
    np.testing.assert_array_equal(mixed.severity, [0, 0, 2, 1])


def test_shapes_types_and_names():
    signals = make_bearing_signals(10, n_times=300, random_state=0)
    assert (signals.data.shape, signals.data.dtype) == ((10, 1, 300), np.float32)
    assert (signals.impacts.shape, signals.impacts.dtype) == ((10, 300), np.float32)
    assert signals.target.tolist() == ["normal"] * 3 + ["inner"] * 3 + ["outer"] * 2 + ["ball"] * 2
    assert signals.target_names.tolist() == ["normal", "inner", "outer", "ball"]
    assert signals.rpm.tolist() == [1797.0] * 10
    assert signals.sampling_rate == 12_000.0
    assert signals.severity.tolist() == [0.0] * 3 + [1.0] * 7
    np.testing.assert_array_equal(np.isnan(signals.fault_frequency), signals.target == "normal")
    assert not signals.impacts[:3].any()
    assert np.isfinite(signals.data).all()


def test_the_number_of_windows_may_differ_between_faults():
    signals = simulate((0, 4, 1), faults=["outer", "normal", "ball"])
    assert signals.target.tolist() == ["normal"] * 4 + ["ball"]
    assert simulate(3, faults="inner").target.tolist() == ["inner"] * 3


def test_speeds_are_drawn_between_the_bounds_and_set_the_fault_frequency():
    signals = simulate(200, rpm=(600, 2400), faults="inner", slip=0, n_times=4096)
    assert 600 <= signals.rpm.min() < 700
    assert 2300 < signals.rpm.max() <= 2400
    np.testing.assert_allclose(signals.fault_frequency, PUBLISHED["inner"] * signals.rpm / 60, rtol=1e-4)
    counted = (signals.impacts > 0).sum(axis=1)
    np.testing.assert_allclose(counted, signals.fault_frequency * 4096 / RATE, atol=1.01)


def test_another_bearing_has_other_fault_frequencies():
    bearing = Bearing(n_elements=16, diameter_ratio=0.1)
    assert simulate(faults="outer", bearing=bearing).fault_frequency[0] == pytest.approx(16 / 2 * 0.9 * SHAFT)


def test_the_same_seed_gives_the_same_windows_and_another_seed_others():
    first, again, other = (simulate(8, random_state=seed) for seed in (3, 3, 4))
    for name in ("data", "impacts"):
        np.testing.assert_array_equal(first[name], again[name])
        assert (first[name] != other[name]).any()
    assert (simulate(4, random_state=None).data != simulate(4, random_state=None).data).any()


@pytest.mark.parametrize("kind", [np.random.RandomState, np.random.default_rng])
def test_a_generator_that_is_passed_goes_on(kind):
    state = kind(5)
    first, second = (simulate(4, random_state=state).data for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(first, simulate(4, random_state=kind(5)).data)


@pytest.mark.parametrize("seed", [None, 0])
def test_numpys_global_state_is_neither_read_nor_advanced(seed):
    np.random.seed(1)
    before = np.random.get_state()
    first = simulate(4, random_state=seed).data
    after = np.random.get_state()
    assert before[2] == after[2]
    np.testing.assert_array_equal(before[1], after[1])
    np.random.seed(1)
    assert (simulate(4, random_state=seed).data == first).all() == (seed is not None)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"faults": ["inner", "crack"]}, "unknown faults 'crack'. Choose one of 'normal', 'inner', 'outer', 'ball'"),
        ({"faults": []}, "faults must be one or more different names"),
        ({"faults": ["inner", "inner"]}, "faults must be one or more different names"),
        ({"faults": None}, "unknown faults None"),
        ({"n_samples": 0}, "n_samples must be an integer >= 1, got 0"),
        ({"n_samples": 2.5}, "n_samples must be an integer >= 1, got 2.5"),
        ({"n_samples": [2, 3]}, "n_samples must be one integer, or one for each of the 4 faults"),
        ({"n_samples": [1, 1, 1, -1]}, "each of n_samples must be an integer >= 0, got -1"),
        ({"n_samples": [0, 0, 0, 0]}, "the sum of n_samples must be an integer >= 1, got 0"),
        ({"n_times": 0}, "n_times must be an integer >= 1"),
        ({"severity": -0.1}, "severity must be finite and at least 0, got -0.1"),
        ({"severity": float("nan")}, "severity must be finite"),
        ({"severity": "high"}, "severity must be a number or an array of numbers, got 'high'"),
        ({"severity": [1, 2, 3]}, "severity must be one number or one for each of the 8 windows"),
        ({"rpm": 0}, "rpm must be a number in (0, inf), got 0"),
        ({"rpm": (1000, 2000, 3000)}, "rpm must be one number or two"),
        ({"rpm": (2000, 1000)}, "rpm must give the slowest speed first"),
        ({"rpm": 90_000}, "rpm must be below 90000 at sampling_rate=12000"),
        ({"sampling_rate": 0}, "sampling_rate must be a number in (0, inf)"),
        ({"resonance": 6000.0}, "resonance must be below half the sampling_rate, 6000 Hz"),
        ({"resonance": 0}, "resonance must be a number in (0, inf)"),
        ({"damping": 0}, "damping must be a number in [0.001, 1)"),
        ({"damping": 1}, "damping must be a number in [0.001, 1)"),
        ({"slip": 0.5}, "slip must be a number in [0, 0.5), got 0.5"),
        ({"slip": -0.01}, "slip must be a number in [0, 0.5)"),
        ({"snr_db": "loud"}, "snr_db must be a number"),
        ({"bearing": "6205"}, "bearing must be a Bearing or None, got '6205'"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError) as raised:
        make_bearing_signals(**{"n_samples": 8, **parameters})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_elements": 0}, "n_elements must be an integer >= 1"),
        ({"diameter_ratio": 1}, "diameter_ratio must be a number in (0, 1)"),
        ({"contact_angle": 90}, "contact_angle must be a number in [0, 90)"),
    ],
)
def test_impossible_bearings_are_refused(parameters, message):
    with pytest.raises(ValueError) as raised:
        Bearing(**parameters)
    assert message in str(raised.value)
