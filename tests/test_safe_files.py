"""What may happen to a file after or while it is loaded, and what it may ask for."""

import datetime
import os
import threading
import tracemalloc
import warnings
import zoneinfo
from concurrent.futures import ThreadPoolExecutor

import damaged_files as damaged
import fuzz_files
import numpy as np
import pytest

import flowmatch
from flowmatch import FlowAnomalyDetector, FlowMatchingGenerator, TrainingOptions
from flowmatch.networks import MLP

X = np.random.default_rng(0).normal(size=(80, 3))


def generator(seed=0, **changes):
    return FlowMatchingGenerator(network=MLP(width=8, depth=1), max_iter=3, random_state=seed, device="cpu", **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# -- a file is read once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["overwritten", "truncated", "deleted"])
def test_a_loaded_model_does_not_hang_on_its_file(path, then):
    generator().fit(X).save(path)
    model = flowmatch.load(path, device="cpu")
    before = model.sample(20, random_state=0)
    if then == "overwritten":
        generator(1).fit(X + 1).save(path.with_name("other"))
        with open(path, "r+b") as file:  # in place, as cp does
            file.write(path.with_name("other").read_bytes())
    elif then == "truncated":
        os.truncate(path, 8)
    else:
        path.unlink()
    np.testing.assert_array_equal(model.sample(20, random_state=0), before)
    model.save(path)
    np.testing.assert_array_equal(flowmatch.load(path, device="cpu").sample(20, random_state=0), before)


def _load_beside_a_writer(path, n_loads, n_readers=1):
    models = [generator(seed).fit(X) for seed in range(2)]
    answers = [model.sample(2, random_state=0).tolist() for model in models]
    models[0].save(path)
    done, problems = threading.Event(), []

    def write():
        while not done.is_set():
            for model in models:
                model.save(path)

    def read():
        for _ in range(n_loads):
            try:
                if flowmatch.load(path, device="cpu").sample(2, random_state=0).tolist() not in answers:
                    problems.append("a mixture")
            except Exception as error:
                problems.append(repr(error))

    writer = threading.Thread(target=write)
    readers = [threading.Thread(target=read) for _ in range(n_readers)]
    for thread in (writer, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    done.set()
    writer.join()
    return problems


@pytest.mark.parametrize("n_loads", [30, pytest.param(2_000, marks=pytest.mark.slow)])
def test_loads_beside_a_process_that_saves_without_pause(path, n_loads):
    assert not _load_beside_a_writer(path, n_loads)


def test_eight_threads_save_and_load_on_one_path(path):
    assert not _load_beside_a_writer(path, 10, n_readers=7)


def test_eight_threads_each_save_and_load_on_one_path(path):
    models = [generator(seed).fit(X) for seed in range(8)]
    answers = [model.sample(2, random_state=0).tolist() for model in models]
    models[0].save(path)

    def save_and_load(model):
        for _ in range(8):
            model.save(path)
            assert flowmatch.load(path, device="cpu").sample(2, random_state=0).tolist() in answers

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save_and_load, models))  # raises what a thread raised
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="links and permissions of POSIX")
def test_saving_over_a_file_keeps_its_mode_and_a_link_its_target(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"")
    target.chmod(0o600)
    link.symlink_to(target)
    generator().fit(X).save(link)
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert flowmatch.load(target).n_iter_ == 3


# -- what a file may ask for ------------------------------------------------------------------------------------------


def _values(header, what, value, at=()):
    """Put a value for every key of a name."""
    items = header.items() if isinstance(header, dict) else enumerate(header) if isinstance(header, list) else ()
    for key, inner in list(items):
        if key == what:
            header[key] = value
        else:
            _values(inner, what, value)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("width", 20_000), ("depth", 100_000), ("n_time_features", 1_600_000), ("sample_shape", [10**5, 10**5]),
        ("code_shape", [10**6]), ("condition_size", 10**9), ("dtypes", ["<U200000000"]), ("dtypes", ["complex128"]),
        ("dtypes", ["os.system"]), ("kind", "os.system"), ("n_iter", 10**30), ("n_steps", 10**12),
    ],
)  # fmt: skip
def test_sizes_are_compared_with_what_is_there(path, what, value):
    generator().fit(X).save(path)
    damaged.tamper(path, lambda header, tensors: _values(header, what, value))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=".") as error:
            flowmatch.load(path, device="cpu")
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("text", ["[" * 1_000 + "]" * 1_000, "1" * 5_000, "[" + "[]," * 3_000_000 + "[]]"])
def test_json_that_takes_much_to_read_is_refused(path, text):
    generator().fit(X).save(path)
    header, tensors = damaged.take_apart(path.read_bytes())
    content = damaged.put_together({**header, "fitted": "HERE"}, tensors)
    start = int.from_bytes(content[:8], "little")
    front = content[8 : 8 + start].replace(b'\\"HERE\\"', text.encode())
    path.write_bytes(len(front).to_bytes(8, "little") + front + content[8 + start :])
    with pytest.raises(ValueError, match="model"):
        flowmatch.load(path, device="cpu")


@pytest.mark.parametrize(
    "name", ["dateutil//etc/hostname", "/etc/hostname", "../../etc/hostname", "Europe/../../../etc/hostname", "Mars/Olympus", "os.system"]
)  # fmt: skip
def test_names_of_time_zones_come_from_a_list(path, name):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"day": pandas.date_range("2024-01-01", periods=80, tz="Europe/Berlin"), "x": X[:, 0]})
    generator().fit(frame).save(path)
    zoneinfo.available_timezones()
    damaged.tamper(path, lambda header, tensors: _values(header, "timezones", [name, ""]))
    with pytest.raises(ValueError, match="time zone"):
        flowmatch.load(path, device="cpu")


@pytest.mark.parametrize(
    "dtype", ["read_csv|http://127.0.0.1:9/", "DataFrame|x", "Int64|1", "Datetime|us|/etc/hostname"]
)
def test_names_of_polars_dtypes_come_from_a_list(path, dtype):
    polars = pytest.importorskip("polars")
    generator().fit(polars.DataFrame({"a": X[:, 0], "b": X[:, 1]})).save(path)
    damaged.tamper(path, lambda header, tensors: _values(header, "dtypes", [dtype, "Float64"]))
    with pytest.raises(ValueError, match=r"dtype|time zone"):
        flowmatch.load(path, device="cpu")


# -- what is none of a file's business --------------------------------------------------------------------------------


class Callback:
    def on_fit_task_end(self, estimator, context):
        pass


def test_settings_of_the_machine_are_neither_saved_nor_accepted(path, tmp_path):
    options = TrainingOptions(checkpoint_folder=tmp_path / "private folder", callbacks=[Callback()])
    with pytest.warns(UserWarning, match="callbacks"):
        generator(training=options).fit(X).save(path)
    assert b"private folder" not in path.read_bytes()
    model = flowmatch.load(path, device="cpu")
    assert model.training.checkpoint_folder is None
    for name, value in (("checkpoint_folder", "/tmp/elsewhere"), ("callbacks", [1])):
        generator(training=TrainingOptions()).fit(X).save(path)
        damaged.tamper(
            path,
            lambda header, tensors, name=name, value=value: header["parameters"]["training"]["fields"].update(
                {name: value}
            ),
        )
        with pytest.raises(ValueError, match=name):
            flowmatch.load(path, device="cpu")


@pytest.mark.parametrize(("version", "warns"), [("0.1.7", False), ("0.2.0", True), ("1.0.0", True), ("0.0.9", False)])
def test_a_file_of_a_newer_minor_version_is_warned_of(path, version, warns):
    generator().fit(X).save(path)
    damaged.tamper(path, lambda header, tensors: header["versions"].update(flowmatch=version))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flowmatch.load(path, device="cpu")
    assert [entry.filename for entry in caught] == [__file__] * warns


# -- accidents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", np.linspace(0.001, 0.999, 12).tolist())
def test_any_flipped_bit_is_told(path, share):
    FlowAnomalyDetector(network=MLP(width=8, depth=1), max_iter=3, random_state=0, device="cpu").fit(X).save(path)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model.safetensors"):
        flowmatch.load(path, device="cpu")


@pytest.mark.parametrize("name", ["a\0b", "\0"])
def test_a_path_with_nul_is_refused_by_name(name):
    with pytest.raises(ValueError, match="NUL"):
        flowmatch.load(name)
    with pytest.raises(ValueError, match="NUL"):
        generator().fit(X).save(name)


@pytest.mark.parametrize("n_files", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_changed_files_are_refused_or_work(n_files):
    ends = fuzz_files.run(n_files, seed=n_files)
    assert set(ends) <= {"refused", "works"}, ends
    assert len(ends) == 2


# -- what could not be loaded is not written --------------------------------------------------------------------------


class OwnTime(datetime.tzinfo):
    def utcoffset(self, when):
        return datetime.timedelta(hours=2)

    def dst(self, when):
        return datetime.timedelta(0)

    def tzname(self, when):
        return "own"


def test_a_time_zone_that_no_file_could_hold_is_refused_in_fit():
    pandas = pytest.importorskip("pandas")
    zone = OwnTime()
    days = [datetime.datetime(2024, 1, 1, tzinfo=zone) + datetime.timedelta(days=i) for i in range(80)]
    with pytest.raises(ValueError, match=r"column 'day' of X has the time zone .*convert it"):
        generator().fit(pandas.DataFrame({"day": days, "x": X[:, 0]}))


def test_what_could_not_be_loaded_is_not_written(path):
    model = generator().fit(X)
    object.__setattr__(model.model_.encoder.container, "dtypes", ("unheard of",))
    with pytest.raises(ValueError, match="dtype 'unheard of'"):
        model.save(path)
    assert not path.exists()
