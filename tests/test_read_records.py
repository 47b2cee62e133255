"""Records come out of files of every format as they were written, and the traps of real files are told."""

import struct

import numpy as np
import pytest
from scipy.io import savemat, wavfile

from flowmatch.datasets import read_records

pd = pytest.importorskip("pandas")

FS, N = 12_000, 3000


@pytest.fixture
def signal(rng):
    return rng.normal(size=(2, N))


def write_npy(path, signal):
    np.save(path, signal)


def write_columns_last(path, signal):
    np.save(path, signal.T)


def write_structured(path, signal):
    rows = np.zeros(N, dtype=[("0", float), ("1", float)])
    rows["0"], rows["1"] = signal
    np.save(path, rows)


def write_npz(path, signal):
    np.savez(path, **dict(zip("01", signal, strict=True)), fs=FS, RPM=1797, load_hp=2, label="inner")


def write_csv(path, signal):
    np.savetxt(path, signal.T, delimiter=",", header="0,1", comments="")


def write_csv_without_names(path, signal):
    np.savetxt(path, signal.T, delimiter="\t")


def write_csv_with_times(path, signal):
    table = pd.DataFrame({"Time [s]": np.arange(N) / FS, "0": signal[0], "1": signal[1], "rpm": 1797, "label": "inner"})
    table.to_csv(path, index=False)


def write_csv_with_comments(path, signal):
    said = "fs: 12 kHz\nrpm = 1797\nlabel: inner\nmeasured on a Tuesday"
    np.savetxt(path, signal.T, delimiter=" ", header=said, comments="# ")


def write_csv_with_rounded_times(path, signal):
    np.savetxt(
        path, np.column_stack([(np.arange(N) / FS).round(4), *signal]), header="t,0,1", comments="", delimiter=","
    )


def write_german_csv(path, signal):
    table = pd.DataFrame({"Zeit ms": 1000 * np.arange(N) / FS, "0": signal[0], "1": signal[1]})
    table.to_csv(path, index=False, sep=";", decimal=",")


def write_cwru(path, signal):
    variables = {"X097_0_time": signal[:1].T, "X097_1_time": signal[1:].T, "X097RPM": 1797.0}
    savemat(path, variables)


def write_mfpt(path, signal):
    savemat(path, {"bearing": {"sr": float(FS), "gs": signal[:1].T, "load": 2.0, "rate": 29.95}})


def write_paderborn(path, signal):
    """Structs in structs: signals of three rates, each with a name, and their axes of time."""
    rates = {"HostService": N, "Mech_4kHz": N // 3, "Temp_1Hz": 5}
    axes = [{"Name": name, "Raster": name, "Data": np.arange(n) / FS * N / n, "Unit": "s"} for name, n in rates.items()]
    series = {"force": N // 3, "1": N, "speed": N // 3, "temp_2_bearing_module": 5, "0": N}
    data = {"0": signal[0], "1": signal[1]}
    parts = [
        {"Name": name, "Type": "Float", "Data": data.get(name, np.sin(np.arange(n))), "Raster": "HostService"}
        for name, n in series.items()
    ]
    savemat(path, {path.stem: {"Info": {"User": "someone", "Date": "1.2.2015"}, "X": axes, "Y": parts}})


def write_hdf5(path, signal):
    """As MATLAB -v7.3 does: columns first, text as 16-bit codes, cells and arrays of structs as references."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        gs = file.create_dataset("bearing/gs", data=signal)
        gs.attrs["MATLAB_class"] = np.bytes_("double")
        file.create_dataset("bearing/sr", data=np.array([[float(FS)]]))
        text = file.create_dataset("bearing/label", data=np.array([[ord(c)] for c in "inner"], dtype=np.uint16))
        text.attrs["MATLAB_class"] = np.bytes_("char")
        parts = [file.create_dataset(f"#refs#/{name}", data=np.zeros((1, 1))) for name in "ab"]
        file.create_dataset("bearing/cells", data=np.array([[part.ref for part in parts]], dtype=h5py.ref_dtype))
        empty = file.create_dataset("bearing/nothing", data=np.zeros(2, dtype=np.uint64))
        empty.attrs["MATLAB_empty"] = 1
        empty.attrs["MATLAB_class"] = np.bytes_("char")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM")


def write_parquet(path, signal):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"0": signal[0], "1": signal[1], "fs": FS}).to_parquet(path)


WRITERS = {
    "signal.npy": write_npy,
    "last.npy": write_columns_last,
    "structured.npy": write_structured,
    "signal.npz": write_npz,
    "signal.csv": write_csv,
    "plain.csv": write_csv_without_names,
    "times.csv": write_csv_with_times,
    "comments.csv": write_csv_with_comments,
    "rounded.csv": write_csv_with_rounded_times,
    "german.csv": write_german_csv,
    "signal.2003.10.22": write_csv_without_names,
    "97.mat": write_cwru,
    "N09_M07_F10_K001_1.mat": write_paderborn,
    "hdf5.mat": write_hdf5,
    "signal.parquet": write_parquet,
}
SAYS_ITS_RATE = (
    "signal.npz",
    "times.csv",
    "rounded.csv",
    "comments.csv",
    "german.csv",
    "N09_M07_F10_K001_1.mat",
    "hdf5.mat",
    "signal.parquet",
)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("ignore:.*arrays of fewer samples")
def test_every_format_gives_back_what_was_written(name, tmp_path, signal):
    WRITERS[name](tmp_path / name, signal)

    records = read_records(tmp_path / name, fs=None if name in SAYS_ITS_RATE else FS)

    order = [records.channels.index(channel) for channel in "01"]
    np.testing.assert_allclose(records[0].signal[order], signal, rtol=1e-12)
    assert len(records) == 1
    assert records.fs == pytest.approx(FS, rel=1e-5)
    assert records.id[0] == (name if name[-1].isdigit() else name.rpartition(".")[0])
    if name in ("97.mat", "signal.npz", "times.csv", "comments.csv"):
        assert records.rpm[0] == 1797
    if name in ("signal.npz", "times.csv", "comments.csv", "hdf5.mat"):
        assert records.label[0] == "inner"
    if name == "signal.npz":
        assert records.load[0] == 2


def test_a_struct_as_of_mfpt_gives_rate_load_and_speed(tmp_path, signal):
    write_mfpt(tmp_path / "baseline_1.mat", signal)
    record = read_records(tmp_path)[0]
    np.testing.assert_array_equal(record.signal, signal[:1])
    assert (record.fs, record.load, record.rpm, record.channels) == (FS, 2, 60 * 29.95, ("gs",))


def write_wav_24(path, samples):
    """24 bits a sample, which scipy reads but does not write."""
    data = b"".join(int(value).to_bytes(3, "little", signed=True) for value in samples)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, FS, 3 * FS, 3, 24)
    path.write_bytes(head + b"LIST\x04\x00\x00\x00INFO" + b"data" + struct.pack("<I", len(data)) + data)


@pytest.mark.parametrize("kind", ["u1", "i2", "24", "i4", "f4", "f8"])
def test_wav_files_of_all_depths_are_shares_of_full_scale(kind, tmp_path, rng):
    x, path = rng.uniform(-1, 1, N), tmp_path / "a.wav"
    bits = {"u1": 8, "i2": 16, "24": 24, "i4": 32}.get(kind)
    whole = None if bits is None else np.round(x * (2 ** (bits - 1) - 1)).astype(np.int64)
    if kind == "24":
        write_wav_24(path, whole)
    else:
        wavfile.write(path, FS, x.astype(kind) if bits is None else (whole + 128 * (bits == 8)).astype(kind))

    records = read_records(path)

    assert records.fs == FS
    expected = x.astype(kind) if bits is None else whole / 2 ** (bits - 1)
    np.testing.assert_allclose(records[0].signal[0], expected, atol=1e-7 if bits in (None, 8, 16) else 1e-12)


def test_wav_channels_are_rows(tmp_path, signal):
    wavfile.write(tmp_path / "a.wav", FS, signal.T.astype(np.float32))
    np.testing.assert_array_equal(read_records(tmp_path / "a.wav")[0].signal, signal.astype(np.float32))


# What is known of records


def write_folder(folder, names, rng, n=N):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.normal(size=(1, n)))


def test_names_say_what_a_form_or_an_expression_asks_for(tmp_path, rng):
    write_folder(tmp_path, ["12k_DE/IR007_0.npy", "12k_DE/B014_2.npy"], rng)
    form = read_records(tmp_path, pattern="{fs}_DE/{label}_{load:d}")
    expression = read_records(tmp_path, pattern=r"(?P<fs>\d+k)_DE/(?P<label>[A-Z]+)(?P<size>\d+)_(?P<load>\d)")
    assert form.id.tolist() == expression.id.tolist() == ["12k_DE/B014_2", "12k_DE/IR007_0"]
    assert form.label.tolist() == ["B014", "IR007"]
    assert expression.label.tolist() == ["B", "IR"]
    for records in (form, expression):
        assert records.fs == 12_000
        assert records.load.tolist() == [2, 0]
    np.testing.assert_array_equal(expression.column("size"), [14.0, 7.0])
    assert expression.conditions["size"].tolist() == [14, 7]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{label}_{load:d}", "does not match 'IR007.npy'"),
        ("IR007", "names nothing"),
        ("(?P<label>[", "no regular expression"),
        ("{label}{label}", "cannot be read"),
        ("(?P<load>IR)", "IR007.npy.*load must be a number, got 'IR'"),
    ],
)
def test_patterns_that_say_nothing_are_refused(pattern, message, tmp_path, rng):
    write_folder(tmp_path, ["IR007.npy"], rng)
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path, pattern=pattern, fs=FS)


@pytest.mark.parametrize("kind", ["frame", "csv", "dict"])
def test_a_table_says_more_than_names_and_arguments(kind, tmp_path, rng):
    write_folder(tmp_path, ["a/one_0.npy", "b/two_1.npy"], rng)
    table = {
        "File": ["two_1", "a/one_0.npy"],
        "label": ["inner", "normal"],
        "rpm": [1750.0, None],
        "operator": ["A", "B"],
    }
    if kind != "dict":
        table = pd.DataFrame(table)
    if kind == "csv":
        table.to_csv(tmp_path / "table.csv", index=False)
        table = tmp_path / "table.csv"
    records = read_records(tmp_path, table=table, pattern="{label}_{load:d}", fs=FS, rpm=1700)
    assert records.label.tolist() == ["normal", "inner"]
    assert records.load.tolist() == [0, 1]
    assert records.rpm.tolist() == [1700, 1750]
    assert records.column("operator").tolist() == ["B", "A"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": ["one"]}, "must name the files in a column"),
        ({"file": ["one", "three"]}, "file 'three' in row 1 goes by 0 of 2 files"),
        ({"file": ["one", "one.npy"]}, "'one.npy' in row 1 is named twice"),
        ([1], "DataFrame, a dict of columns or a CSV file, got list"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, message, tmp_path, rng):
    write_folder(tmp_path, ["one.npy", "two.npy"], rng)
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path, table=table, fs=FS)


def test_files_that_a_table_does_not_name_are_left_out(tmp_path, rng):
    write_folder(tmp_path, ["one.npy", "two.npy"], rng)
    with pytest.warns(UserWarning, match=r"does not name 1 of 2 files, as 'two.npy'"):
        assert read_records(tmp_path, table={"file": ["one"]}, fs=FS).id.tolist() == ["one"]


def test_several_files_and_hidden_ones(tmp_path, rng):
    write_folder(tmp_path, ["a/one.npy", "b/two.npy", ".cache/three.npy"], rng)
    files = [tmp_path / "b/two.npy", tmp_path / "a/one.npy"]
    assert read_records(files, fs=FS).id.tolist() == ["b/two", "a/one"]
    assert read_records(str(tmp_path), fs=FS).id.tolist() == ["a/one", "b/two"]


# Traps


def test_variables_of_a_second_record_are_left_out(tmp_path, rng):
    own, other = rng.normal(size=(2, N, 1))
    savemat(tmp_path / "99.mat", {"X098_DE_time": other, "X098RPM": 1.0, "X099_DE_time": own})
    with pytest.warns(UserWarning, match=r"99.mat': variables of another record \('X098'\) were left out"):
        record = read_records(tmp_path, fs=FS)[0]
    np.testing.assert_array_equal(record.signal, own.T)
    assert record.channels == ("DE",)
    assert np.isnan(record.rpm)  # the other record's speed is not this one's


def test_a_stray_speed_of_another_record_is_not_taken(tmp_path, rng):
    savemat(tmp_path / "Normal.mat", {"X098RPM": 1.0, "X099_DE_time": rng.normal(size=(N, 1))})
    with pytest.warns(UserWarning, match=r"another record \('X098'\)"):
        assert np.isnan(read_records(tmp_path, fs=FS).rpm[0])


def test_names_of_columns_may_hold_anything(tmp_path, rng):
    names = ["DE.x", "DE.y", "Beschl. [m/s²]"]
    table = pd.DataFrame(rng.normal(size=(N, 3)), columns=names)
    table.to_csv(tmp_path / "a.csv", index=False, sep=";", encoding="latin-1")
    record = read_records(tmp_path, fs=FS)[0]
    assert record.channels == tuple(names)
    np.testing.assert_allclose(record.signal, table.to_numpy().T)
    assert read_records(tmp_path, fs=FS, channels=["DE.y"]).channels == ("DE.y",)


def test_structs_of_settings_are_no_records(tmp_path, rng):
    x, y = rng.normal(size=(2, N, 1))
    savemat(tmp_path / "a.mat", {"vib": {"x": x, "y": y}, "setup": {"gains": [1.0, 2.0, 3.0], "rpm": 1797.0}})
    with pytest.warns(UserWarning, match="arrays of fewer samples than the signal .'gains'."):
        record = read_records(tmp_path, fs=FS)[0]
    assert (record.channels, record.rpm) == (("x", "y"), 1797)


def test_a_file_of_two_records_whose_name_tells_nothing_needs_an_id(tmp_path, rng):
    first, second = rng.normal(size=(2, N, 1))
    savemat(tmp_path / "Normal.mat", {"X098_DE_time": first, "X099_DE_time": second})
    with pytest.raises(ValueError, match=r"Normal.mat.*several records, 'X098', 'X099'.*its id"):
        read_records(tmp_path, fs=FS)
    with pytest.warns(UserWarning, match="'X098'"):
        records = read_records(tmp_path, fs=FS, table={"file": ["Normal"], "id": ["099"]})
    np.testing.assert_array_equal(records[0].signal, second.T)
    np.testing.assert_array_equal(read_records(tmp_path, fs=FS, channels=["X098_DE_time"])[0].signal, first.T)


def test_an_unknown_speed_is_told_where_others_are_known(tmp_path, rng):
    for name, more in (("97", {"X097RPM": 1797.0}), ("98", {})):
        savemat(tmp_path / f"{name}.mat", {f"X0{name}_DE_time": rng.normal(size=(N, 1)), **more})
    with pytest.warns(UserWarning, match="'98': rpm is unknown"):
        records = read_records(tmp_path, fs=FS)
    np.testing.assert_array_equal(records.rpm, [1797, np.nan])
    assert read_records(tmp_path, fs=FS, rpm=1772).rpm.tolist() == [1797, 1772]


def test_different_sampling_rates_are_refused_or_brought_to_one(tmp_path, rng):
    t = np.arange(48_000) / 48_000
    np.savez(tmp_path / "slow.npz", x=np.sin(2 * np.pi * 50 * t[::4]), fs=12_000)
    np.savez(tmp_path / "fast.npz", x=np.sin(2 * np.pi * 50 * t), fs=48_000)
    with pytest.raises(ValueError, match=r"12000 Hz \('slow'\), 48000 Hz \('fast'\): pass resample=12000"):
        read_records(tmp_path)
    records = read_records(tmp_path, resample=12_000)
    assert records.fs == 12_000
    assert records.n_samples.tolist() == [12_000, 12_000]
    inside = slice(100, -100)
    np.testing.assert_allclose(records[0].signal[0, inside], records[1].signal[0, inside], atol=1e-3)


def test_a_rate_that_the_file_contradicts_is_told(tmp_path, signal):
    wavfile.write(tmp_path / "a.wav", 48_000, signal.T)
    with pytest.warns(UserWarning, match="a.wav': fs is 48000.0 in the file and 12000 as passed; 48000.0 is used"):
        assert read_records(tmp_path, fs=12_000).fs == 48_000
    with pytest.warns(UserWarning, match="12k is used"):
        assert read_records(tmp_path, table={"file": ["a"], "fs": ["12k"]}).fs == 12_000


def resonant(n, rate, rng, at=(900, 2600, 4100)):
    """Noise through a machine with three resonances, sampled at a rate."""
    frequencies = np.fft.rfftfreq(n, 1 / rate)
    gain = 0.02 + sum(1 / (1 + ((frequencies - f) / 150) ** 2) for f in at)
    return np.fft.irfft(np.fft.rfft(rng.normal(size=n)) * gain, n)


@pytest.mark.parametrize("wrong", [48_000, 24_000, 6_000, 12_000])
def test_a_record_of_another_rate_is_told_by_its_spectrum(wrong, tmp_path, rng, recwarn):
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", resonant(24_000, FS, rng) * 10.0 ** (i - 2))
    np.save(tmp_path / "odd.npy", resonant(24_000, wrong, rng))
    if wrong == FS:
        read_records(tmp_path, fs=FS)
        assert not recwarn
    else:
        with pytest.warns(UserWarning, match=f"^'odd': the spectrum is unlike .* sampled at {wrong} Hz"):
            read_records(tmp_path, fs=FS)


def test_records_that_merely_differ_are_not_said_to_be_of_another_rate(tmp_path, rng, recwarn):
    for i in range(6):
        np.save(tmp_path / f"{i}.npy", resonant(24_000, FS, rng, at=(400 + 800 * i,)))
    read_records(tmp_path, fs=FS)
    assert not recwarn


def clipped(x):
    return np.clip(x, -2, 2)


def stuck(x):
    return np.where(np.arange(len(x)) < len(x) // 2, x, x[len(x) // 2])


FAULTS = {
    "is dead \\(all": np.zeros_like,
    "is dead for a while": stuck,
    "looks clipped": clipped,
    "looks clipped .*": lambda x: np.maximum(x, -1.5),  # on one side, in whole steps
}


@pytest.mark.parametrize("fault", FAULTS)
def test_dead_and_clipped_channels_are_told(fault, tmp_path, signal):
    signal[1] = FAULTS[fault](signal[1])
    np.save(tmp_path / "one.npy", signal)
    with pytest.warns(UserWarning, match=f"'one': channel '1' {fault}"):
        read_records(tmp_path, fs=FS)


@pytest.mark.parametrize(
    "sound",
    [
        lambda rng: np.round(3 * rng.normal(size=N)),  # few levels
        lambda rng: np.round(127 * np.sin(np.arange(N) / 7)),  # many samples near the extremes
        lambda rng: (np.arange(N) % 40 < 3).astype(float),  # a tachometer
        lambda rng: rng.standard_t(2, size=N),  # impacts
    ],
)
def test_sound_channels_are_not_said_to_be_faulty(sound, tmp_path, rng, recwarn):
    np.save(tmp_path / "one.npy", sound(rng))
    read_records(tmp_path, fs=FS)
    assert not recwarn


def test_channels_that_some_records_lack_are_left_out(tmp_path, signal):
    np.savez(tmp_path / "a.npz", DE=signal[0], FE=signal[1])
    np.savez(tmp_path / "b.npz", FE=signal[1])
    with pytest.warns(UserWarning, match=r"'a': channels that not all records have \('DE'\) were left out"):
        records = read_records(tmp_path, fs=FS)
    assert records.channels == ("FE",)
    np.testing.assert_array_equal(records[0].signal, records[1].signal)
    assert read_records(tmp_path / "a.npz", fs=FS, channels=["FE", "DE"]).channels == ("FE", "DE")
    np.savez(tmp_path / "b.npz", BA=signal[1])
    with pytest.raises(ValueError, match="no channel is in all records"):
        read_records(tmp_path, fs=FS)


def test_slower_channels_are_left_out_unless_named(tmp_path, rng):
    write_paderborn(tmp_path / "K001.mat", rng.normal(size=(2, N)))
    with pytest.warns(UserWarning, match="arrays of fewer samples .*'force', 'speed', 'temp_2_bearing_module'"):
        read_records(tmp_path)
    force = read_records(tmp_path, channels=["force", "speed"])
    assert force.channels == ("force", "speed")
    assert force.fs == FS / 3


BROKEN = {
    "text.mat": (lambda path: path.write_text("no file of MATLAB"), "cannot be read as .mat"),
    "cut.mat": (lambda path: (savemat(path, {"x": np.arange(9000.0) ** 2}), cut(path)), "cannot be read as .mat"),
    "pickle.npy": (lambda path: np.save(path, np.array([{}], dtype=object)), "allow_pickle=False"),
    "pickle.npz": (lambda path: np.savez(path, x=np.array([{}], dtype=object)), "allow_pickle=False"),
    "cut.npz": (lambda path: (np.savez(path, x=np.arange(9000.0)), cut(path)), "cannot be read as .npz"),
    "cut.wav": (lambda path: (wavfile.write(path, FS, np.zeros(9000, np.int16)), cut(path)), "truncated"),
    "empty.csv": (lambda path: path.write_text("\n"), "no rows"),
    "ragged.csv": (lambda path: path.write_text("a,b\n1,2\n3\n"), "cannot be read as .csv"),
    "names.csv": (lambda path: path.write_text("a,b\n"), "no rows below"),
    "text.csv": (lambda path: path.write_text("a\nb\nc\n"), "no signal in it: found"),
    "windows.npy": (lambda path: np.save(path, np.ones((9, 2, 64))), r"shape \(9, 2, 64\): expected one record"),
    "table.npy": (lambda path: np.save(path, np.ones((900, 640))), "at most 64 channels"),
    "labels.csv": (lambda path: path.write_text("label,a\n" + "x,1\n" * 5 + "y,1\n"), "'label' changes within it"),
    "numbers.npz": (lambda path: np.savez(path, bearing=[1, 2], a=np.ones(9)), "'bearing' changes within it"),
    "gap.csv": (lambda path: path.write_text("time,a\n0,1\n1,0\n2,1\n9,2\n10,1\n"), "'time' are not evenly spaced"),
    "many.npz": (lambda path: np.savez(path, a=np.ones(900) * [[1], [2]], b=np.ones(800)), "unequal lengths"),
    "nan.npy": (lambda path: np.save(path, np.array([0, np.nan, 1.0])), "nan in channel 0 at sample 1"),
    "complex.npy": (lambda path: np.save(path, np.ones(9) * 1j), "no signal in it"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_names_itself_or_is_left_out(name, tmp_path, rng):
    write, message = BROKEN[name]
    write(tmp_path / name)
    np.save(tmp_path / "zz_whole.npy", rng.normal(size=N))
    with pytest.raises(ValueError, match=message) as error:
        read_records(tmp_path, fs=FS)
    assert name in str(error.value)
    with pytest.warns(UserWarning, match=f"left out: .*{name}"):
        assert read_records(tmp_path, fs=FS, errors="warn").id.tolist() == ["zz_whole"]


def test_what_is_not_there_is_told(tmp_path, rng):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(FileNotFoundError, match=r"no file '.mat'.*found 'readme.txt'"):
        read_records(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file '.*nowhere"):
        read_records(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="source is empty"):
        read_records([])
    np.save(tmp_path / "a.npy", rng.normal(size=N))
    with pytest.raises(ValueError, match=r"a.npy': it does not say its sampling rate: pass fs="):
        read_records(tmp_path)
    with pytest.raises(ValueError, match=r"no channel 'DE'; found 'signal \(3000,\)'"):
        read_records(tmp_path, fs=FS, channels=["DE"])
    with pytest.raises(ValueError, match="unknown errors 'ignore'"):
        read_records(tmp_path, fs=FS, errors="ignore")


@pytest.mark.parametrize(("name", "library"), [("hdf5.mat", "h5py"), ("a.parquet", "pandas")])
def test_a_library_that_is_missing_is_named(name, library, tmp_path, signal, monkeypatch):
    if name == "hdf5.mat":
        write_hdf5(tmp_path / name, signal)
    else:
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ImportError, match=f"{name}.*needs {library}.*pip install 'flowmatch"):
        read_records(tmp_path)
