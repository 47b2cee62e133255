"""Records are a sequence of recordings that is filtered, joined, cut into windows and split without leaks."""

import sys

import numpy as np
import pytest

from flowmatch import FlowMatchingGenerator
from flowmatch.datasets import Record, Records, make_bearing_records
from flowmatch.networks import UNet

pytest.importorskip("pandas")

FS = 100


def recording(n=300, start=0.0, **said):
    """Every sample has a value of its own, so that shared ones are seen."""
    return Record(start + np.arange(2 * n, dtype=float).reshape(2, n), FS, **said)


@pytest.fixture
def records():
    """Two bearings of three labels at two loads; one more label has one bearing."""
    bearings = [("normal", 1), ("normal", 2), ("inner", 1), ("inner", 2), ("outer", 1), ("outer", 2), ("ball", 1)]
    return Records(
        recording(
            300 + 50 * load,
            1000 * (2 * i + load),
            label=label,
            bearing=f"{label}-{number}",
            load=load,
            rpm=1800 - 25 * load,
            id=f"{label}-{number}-{load}",
        )
        for i, (label, number) in enumerate(bearings)
        for load in (0, 1)
    )


# A record


def test_a_record_reads_what_is_passed():
    record = Record([1, 2, 3], "12 kHz", label=3.0, rpm="1797rpm", load=None, bearing=None)
    assert record.signal.tolist() == [[1.0, 2.0, 3.0]]
    assert (record.fs, record.label, record.rpm, record.bearing, record.channels) == (12_000, "3", 1797, "", ("0",))
    assert np.isnan(record.load)
    assert repr(record) == "<Record '': 1 channel (0), 0.00025 s at 12000 Hz, label='3', rpm=1797>"


@pytest.mark.parametrize(
    ("dtype", "read"), [("i2", "f4"), ("u1", "f4"), ("i4", "f8"), (">f8", "f8"), ("f2", "f4"), ("?", "f4")]
)
def test_signals_are_floats_that_hold_their_values(dtype, read):
    assert Record(np.ones((1, 4), dtype), FS).signal.dtype == np.dtype(read)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"signal": np.zeros((300, 2))}, r"shape \(300, 2\), more channels than samples.*transpose"),
        ({"signal": np.zeros((2, 2, 300))}, r"got float64 of shape \(2, 2, 300\)"),
        ({"signal": ["a", "b"]}, "must be real numbers"),
        ({"signal": []}, "must be real numbers"),
        ({"signal": [0.0, np.inf]}, "inf in channel 0 at sample 1"),
        ({"fs": 0}, r"fs must be a number in \(0"),
        ({"fs": "12 MHz"}, "fs must be a number, got '12 MHz'"),
        ({"load": "high"}, "load must be a number, got 'high'"),
        ({"rpm": [1]}, r"rpm must be a number"),
        ({"channels": ["DE"]}, "channels must be 2 different names"),
        ({"channels": ["DE", "DE"]}, "channels must be 2 different names"),
        ({"extra": {"rpm": 3}}, r"extra must not name \['rpm'\]"),
    ],
)
def test_what_is_no_record_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Record(**{"signal": np.zeros((2, 300)), "fs": FS, **values})


def test_resampling_keeps_what_is_below_half_the_new_rate_and_no_more():
    t = np.arange(4000) / 1000
    record = Record([np.sin(2 * np.pi * 20 * t) + 5, np.sin(2 * np.pi * 400 * t)], 1000, label="x")
    half = record.resample(500)
    assert (half.fs, half.n_samples, half.label) == (500, 2000, "x")
    inside = slice(50, -50)
    np.testing.assert_allclose(half.signal[0, inside], record.signal[0, ::2][inside], atol=5e-3)
    assert np.abs(half.signal[1, inside]).max() < 0.02  # 400 Hz would come out as 100 Hz
    assert record.resample(441).n_samples == 1764


# A sequence of them


def test_records_are_indexed_filtered_joined_and_iterated(records):
    assert len(records) == len(list(records)) == 14
    assert records[0] is next(iter(records))
    assert records[-1].id == "ball-1-1"
    assert records[2:4].id.tolist() == ["normal-2-0", "normal-2-1"]
    inner = records[records.label == "inner"]
    assert isinstance(inner, Records)
    assert inner.bearing.tolist() == ["inner-1", "inner-1", "inner-2", "inner-2"]
    assert records[[3, 0]].load.tolist() == [1, 0]
    assert (inner + records[:1]).label.tolist() == ["inner"] * 4 + ["normal"]
    assert records.n_samples.tolist() == [300, 350] * 7
    assert repr(inner) == "<Records: 4 of 2 channels (0, 1) at 100 Hz, 13 s in all; label: inner 4>"
    assert repr(Records([recording()])) == "<Records: 1 of 2 channels (0, 1) at 100 Hz, 3 s in all>"
    assert records.resample(50).fs == 50


def test_conditions_are_a_table_of_what_is_known(records):
    table = records.conditions
    assert list(table.columns) == ["record", "label", "rpm", "load", "bearing"]
    assert table.rpm.tolist() == records.rpm.tolist()
    unknown = records.assign(rpm=np.nan, bearing="", size=[7, "0.5"] * 7, kind=["a", 1] * 7)
    assert list(unknown.conditions.columns) == ["record", "label", "load", "size", "kind"]
    assert unknown.column("size")[:2].tolist() == [7, 0.5]
    assert unknown.column("kind")[:2].tolist() == ["a", "1"]
    assert records.bearing[0] == "normal-1"  # the others are as they were
    some = records[:1].assign(size=3) + records[1:2]
    np.testing.assert_array_equal(some.column("size"), [3, np.nan])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: Records([]), "no record left"),
        (lambda r: r[r.label == "Inner"], "no record left"),
        (lambda r: Records([np.zeros(9)]), "must be Record objects, got ndarray"),
        (lambda r: r + Records([r[0].resample(50)]), "'normal-1-0' has a sampling rate of 50 Hz, 'normal-1-0' of 100"),
        (lambda r: r + Records([Record(np.zeros(9), FS, id="one")]), r"'one' has channels \('0',\)"),
        (lambda r: r.assign(rpm=[1, 2]), "rpm has 2 values for 14 records"),
        (lambda r: r.column("size"), "no record has 'size'; what may be known is label, bearing, id, rpm, load"),
    ],
)
def test_what_are_no_records_is_refused(make, message, records):
    with pytest.raises(ValueError, match=message):
        make(records)


# Windows


def test_windows_are_the_parts_that_their_conditions_say(records):
    for X, conditions in (
        records.windows(64),
        records.windows(64, 10),
        records.windows(64, per_record=5),
        records.windows(64, "dense"),
    ):
        assert X.shape == (len(conditions), 2, 64)
        for i in (0, len(X) // 2, len(X) - 1):
            row = conditions.iloc[i]
            record = records[records.id == row.record][0]
            np.testing.assert_array_equal(X[i], record.signal[:, row.start : row.start + 64])
            assert (row.label, row.load, row.rpm, row.bearing) == (
                record.label,
                record.load,
                record.rpm,
                record.bearing,
            )


def test_how_many_windows_there_are(records):
    def counts(*args, **parameters):
        return records.windows(*args, **parameters)[1].groupby("record").size().unique().tolist()

    assert counts(100) == [3]  # what is left over is not used
    assert counts(100, 20) == [11, 13]
    assert counts(100, "dense") == [201, 251]
    assert counts(100, per_record=7) == [7]
    starts = records[:1].windows(100, per_record=3)[1].start
    assert starts.tolist() == [0, 100, 200]
    assert records[:1].windows(300)[0].shape == (1, 2, 300)


def test_dense_windows_are_read_like_an_array_and_by_estimators(records):
    dense, conditions = records[:2].windows(32, "dense")
    X, _ = records[:2].windows(32, 1)
    np.testing.assert_array_equal(np.asarray(dense), X)
    for key in (3, -1, slice(5, 300, 7), [4, 400, -2], np.arange(len(X)) % 9 == 0, slice(0, 0)):
        np.testing.assert_array_equal(dense[key], X[key])
    with pytest.raises(IndexError):
        dense[len(X)]

    def fitted(X):
        quick = {"network": UNet(width=4, multipliers=(1, 1)), "max_iter": 3, "batch_size": 8, "device": "cpu"}
        return FlowMatchingGenerator(**quick, random_state=0).fit(X, conditions["label"]).sample(2, random_state=0)

    np.testing.assert_array_equal(fitted(dense), fitted(X))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((301,), {}), "'normal-1-0' has 300 samples, too few for length=301: .*records.n_samples >="),
        (((300,), {"per_record": 2}), "too few for per_record=2 windows of 300"),
        (((64, 8), {"per_record": 3}), "hop or per_record, not both"),
        (((64, "sparse"), {}), "hop must be an integer >= 1 or 'dense', got 'sparse'"),
        (((64, 0), {}), "hop must be an integer >= 1"),
        (((0,), {}), "length must be an integer >= 1"),
        (((64,), {"per_record": 0}), "per_record must be an integer >= 1"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(arguments, message, records):
    with pytest.raises(ValueError, match=message):
        records.windows(*arguments[0], **arguments[1])


def test_without_pandas_conditions_are_a_dict_of_arrays(records, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    X, conditions = records.windows(100)
    assert list(conditions) == ["record", "start", "label", "rpm", "load", "bearing"]
    assert all(isinstance(values, np.ndarray) and len(values) == len(X) for values in conditions.values())


# Splits


def samples_of(records):
    """All values in windows of every kind."""
    return {
        value for hop in (None, 7, "dense") for value in np.unique(np.asarray(records.windows(25, hop)[0])).tolist()
    }


@pytest.mark.parametrize("test", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("by", ["bearing", "record", "load", "time"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:by=")
def test_no_window_is_on_both_sides_of_a_split(by, test, seed, records):
    train, held_out = records.split(by, test=test, random_state=seed)
    assert not samples_of(train) & samples_of(held_out)
    if by == "bearing":
        assert not set(train.bearing) & set(held_out.bearing)
        assert set(train.label) == set(records.label)
        assert set(held_out.label) == {"normal", "inner", "outer"}  # the only ball is trained on
    if by == "load":
        assert not set(train.load) & set(held_out.load)
    if by == "time":
        assert len(train) == len(held_out) == len(records)
        assert held_out.n_samples[0] == round(300 * test)
    else:
        assert sorted([*train.id, *held_out.id]) == sorted(records.id)


def test_a_split_by_time_leaves_a_gap(records):
    train, test = records.split("time", test=0.5, gap=0.2)
    assert (train[0].n_samples, test[0].n_samples) == (130, 150)
    np.testing.assert_array_equal(test[0].signal, records[0].signal[:, 150:])


@pytest.mark.filterwarnings("ignore:by='bearing' leaves these labels.* 'ball'")
def test_values_of_the_test_are_named(records):
    train, test = records.split("bearing", test=["inner-2", "normal-1", "outer-1"])
    assert set(test.bearing) == {"inner-2", "normal-1", "outer-1"}
    with pytest.warns(UserWarning, match=r"by='load' leaves 7 bearing\(s\) on both sides, as 'ball-1': .*by='bearing'"):
        train, test = records.split("load", test=[1])
    assert set(train.load) == {0}
    assert set(test.load) == {1}
    with pytest.warns(UserWarning, match="leaves these labels on one side only: .*'normal', 'outer'"):
        records.split("bearing", test=["outer-1", "outer-2"])
    sized = records.assign(size=[7, 7, 14, 14] * 3 + [7, 14])
    with pytest.warns(UserWarning, match="on both sides, as 'ball-1'"):
        assert set(sized.split("size", test=[14])[1].column("size")) == {14}


@pytest.mark.filterwarnings("ignore:by=")
def test_splits_are_the_same_for_a_seed_and_differ_between_seeds(records):
    def drawn(seed):
        return tuple(records.split(random_state=seed)[1].id)

    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(8)}) > 2
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    records.split()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"bearing": ""}, {}, "14 of 14 records do not say their bearing, as 'normal-1-0': .*assign\\(bearing="),
        ({"load": [0, np.nan] * 7}, {"by": "load"}, "7 of 14 records do not say their load"),
        ({}, {"by": "size"}, "no record has 'size'"),
        ({}, {"test": 1.0}, "share between 0 and 1, .* or a list of values, got 1.0"),
        ({}, {"by": "load", "test": 1}, "or a list of values, got 1"),
        ({}, {"by": "load", "test": [3]}, r"test names load 3.0, but there is only 0.0, 1.0"),
        ({}, {"test": ["inner-3"]}, "test names bearing 'inner-3', but there is only 'ball-1'"),
        ({}, {"by": "load", "test": [0, 1]}, "leaves no record for training"),
        (
            {"bearing": ["one", "two"] * 7, "label": ["a", "b"] * 7},
            {},
            "leaves no record for the test: .*test=\\[...\\]",
        ),
        ({}, {"gap": 1.0}, "gap=1 has no effect with by='bearing'"),
        ({}, {"by": "time", "gap": 3.0}, "'normal-1-0' has 3 s, too few"),
        ({}, {"by": "time", "test": 0.001}, "too few for a test of 0.001"),
        ({}, {"by": "time", "test": ["a"]}, "share between 0 and 1"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(change, arguments, message, records):
    with pytest.raises(ValueError, match=message):
        records.assign(**change).split(**arguments)


# Simulated ones


def test_simulated_records_are_bearings_at_loads():
    made = make_bearing_records(2, faults=["normal", "ball"], loads=[0, 3], seconds=0.5, random_state=0)
    assert len(made) == 8
    assert made.n_samples.tolist() == [6000] * 8
    assert made.rpm.tolist() == [1797, 1725] * 4
    assert made.id[:3].tolist() == ["normal-1-load0", "normal-1-load3", "normal-2-load0"]
    severity = made.column("severity")
    assert (severity[:4] == 0).all()
    assert severity[4] == severity[5] != severity[6]
    assert ((severity[4:] >= 0.5) & (severity[4:] <= 2)).all()
    again = make_bearing_records(2, faults=["normal", "ball"], loads=[0, 3], seconds=0.5, random_state=0)
    np.testing.assert_array_equal(made[5].signal, again[5].signal)
    assert not np.array_equal(made[4].signal, made[5].signal)


def test_simulated_bearings_ring_at_frequencies_of_their_own():
    made = make_bearing_records(3, faults="outer", loads=[0], severity=2.0, snr_db=40, random_state=0)
    power = np.abs(np.fft.rfft(np.stack([record.signal[0] for record in made]))) ** 2
    frequencies = np.fft.rfftfreq(made.n_samples[0], 1 / made.fs)
    power[:, frequencies < 1000] = 0
    peaks = frequencies[power.argmax(axis=1)]
    assert ((peaks > 2300) & (peaks < 4200)).all()
    assert np.diff(np.sort(peaks)).min() > 50


@pytest.mark.parametrize(
    "wrong",
    [{"n_bearings": 0}, {"loads": []}, {"loads": [60]}, {"seconds": 0}, {"severity": (2, 1)}, {"faults": "cage"}],
)
def test_what_cannot_be_simulated_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_bearing_records(**wrong)
