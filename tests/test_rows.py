"""Training data stay where they are: arrays, memory maps, tensors and row containers give the same model."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from flowmatch import FlowMatchingGenerator, preprocessing
from flowmatch.datasets import Record, Records
from flowmatch.networks import UNet
from flowmatch.preprocessing import SampleEncoder, SampleRows, Standardize, StoredCodes, TrainingCodes
from flowmatch.training import TrainingOptions

N = 40


class Rows:
    """The least that a row container needs."""

    def __init__(self, array):
        self.array = array
        self.read = set()

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        self.read.add(type(index))
        return self.array[index]


def images(dtype=np.uint8, n=N):
    return np.random.default_rng(0).integers(0, 17, size=(n, 2, 5, 4)).astype(dtype)


def memory_map(array, folder):
    np.save(folder / "data.npy", array)
    return np.load(folder / "data.npy", mmap_mode="r")


def quick(**parameters):
    return FlowMatchingGenerator(
        **{"network": UNet(width=8), "max_iter": 4, "batch_size": 16, "random_state": 0, **parameters}
    )


KINDS = {
    "memory map": memory_map,
    "container": lambda X, _: Rows(X),
    "torch": lambda X, _: torch.as_tensor(X),
    "list": lambda X, _: list(X),
    "list of tensors": lambda X, _: list(torch.as_tensor(X)),
    "view of a memory map": lambda X, folder: memory_map(np.repeat(X, 2, axis=0), folder)[::2],
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_data_give_the_same_model(kind, tmp_path):
    X, y = images(), np.arange(N) % 3
    data = KINDS[kind](X, tmp_path)
    options = TrainingOptions(early_stopping=True)
    plain, other = quick(training=options).fit(X, y), quick(training=options).fit(data, y)
    assert plain.history_["loss"] == other.history_["loss"]
    assert plain.history_["validation_loss"] == other.history_["validation_loss"]
    drawn = other.sample(9, random_state=0)
    assert isinstance(drawn, torch.Tensor if kind == "torch" else np.ndarray)
    np.testing.assert_array_equal(plain.sample(9, random_state=0), np.asarray(drawn))
    np.testing.assert_allclose(other.encode(data, y), plain.encode(X, y))


@pytest.mark.parametrize("kind", ["memory map", "container", "torch"])
def test_weights_take_rows_from_all_kinds(kind, tmp_path):
    X, weight = images(), np.arange(N) % 4
    fits = [quick().fit(data, sample_weight=weight) for data in (X, KINDS[kind](X, tmp_path))]
    np.testing.assert_array_equal(*[np.asarray(fit.sample(5, random_state=0)) for fit in fits])


def test_memory_maps_of_tables_work_too(tmp_path):
    X = np.random.default_rng(0).normal(size=(N, 3))
    fits = [quick(network="mlp").fit(data) for data in (X, memory_map(X, tmp_path))]
    np.testing.assert_array_equal(*[fit.sample(5, random_state=0) for fit in fits])


def test_what_stays_and_what_is_encoded_at_once(tmp_path):
    X = images()
    encoder = SampleEncoder.fit(X, preprocessing.Container.of(X), Standardize(), None)
    device = torch.device("cpu")
    assert isinstance(encoder.training_codes(X, device), TrainingCodes)
    for stored in (SampleRows(memory_map(X, tmp_path)), SampleRows(Rows(X))):
        codes = encoder.training_codes(stored, device)
        assert isinstance(codes, StoredCodes)
        rows = torch.tensor([3, 1, 3])
        torch.testing.assert_close(codes.draw(rows), encoder.training_codes(X, device).draw(rows), rtol=0, atol=0)
        assert len(codes.take(rows)) == 3


def test_containers_are_asked_for_single_rows_only():
    rows = Rows(images())
    quick(max_iter=1).fit(rows)
    assert rows.read == {int}


@pytest.mark.parametrize("data", [images(np.float64), torch.as_tensor(images(np.float32)), Rows(images(np.float32))])
def test_pieces_cover_the_rows_in_order(data):
    rows = SampleRows(data).take(np.arange(5, 30))
    pieces = list(rows.chunks(n_elements=3 * 40))
    assert [start for start, _ in pieces] == list(range(0, 25, 3))
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in pieces]), images(np.float64)[5:30])
    assert all(piece.dtype == np.float64 for _, piece in pieces)


@pytest.mark.parametrize("numbers", [40, 200, 10**6])
def test_the_summary_knows_extremes_and_where_they_stand(numbers, monkeypatch):
    monkeypatch.setattr("flowmatch.tables.rows.ELEMENTS_AT_ONCE", numbers)
    X = np.random.default_rng(1).normal(size=(N, 3, 7))
    summary = SampleRows(X).summary
    np.testing.assert_array_equal(summary.low, X.min(axis=(0, 2)))
    np.testing.assert_array_equal(summary.high, X.max(axis=(0, 2)))
    np.testing.assert_array_equal(X[summary.rows].max(axis=(0, 2)), summary.high)
    np.testing.assert_array_equal(X[summary.rows].min(axis=(0, 2)), summary.low)


def test_a_part_of_large_data_holds_their_extremes():
    X = np.random.default_rng(1).normal(size=(500, 2))
    rows = SampleRows(X)
    part = rows.subset(n_elements=100)
    assert 50 <= len(part) <= 54
    assert set(rows.summary.rows) <= set(part)
    np.testing.assert_array_equal(rows.subset(n_elements=1000), np.arange(500))


def test_a_part_of_large_data_decides_the_scaling(monkeypatch):
    monkeypatch.setattr("flowmatch.preprocessing.samples.FITTED_ELEMENTS", 4000)
    X = np.random.default_rng(1).normal(3.0, 2.0, size=(4000, 2, 5))
    encoder = SampleEncoder.fit(X, preprocessing.Container.of(X), Standardize(), None)
    codes = encoder.encode(X)
    assert 0 < abs(codes.mean()) < 0.1
    assert abs(codes.std() - 1) < 0.05
    extremes = SampleEncoder.fit(X, preprocessing.Container.of(X), preprocessing.MinMax(), None).encode(X)
    assert (extremes.min(), extremes.max()) == (-1, 1)


def test_grey_levels_come_back_and_stay_in_range():
    X = images()
    X[:, 1] = np.where(X[:, 1] > 8, 255, 3)
    drawn = quick().fit(X).sample(50, random_state=0)
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn[:, 0])) <= set(np.unique(X[:, 0]))
    assert set(np.unique(drawn[:, 1])) == {3, 255}
    scaled = (X / 255).astype(np.float32)
    assert set(np.unique(quick().fit(scaled).sample(50, random_state=0))) <= set(np.unique(scaled))


def test_continuous_channels_are_not_put_on_levels():
    X = np.random.default_rng(0).normal(size=(100, 1, 5))
    drawn = quick().fit(X).sample(20, random_state=0)
    assert not np.isin(drawn, X).any()


BAD = {
    "tuples": (Rows([(np.zeros(3), 1)] * 3), r"X\[0\] is a tuple; X must give arrays of numbers"),
    "text": (Rows([np.array(["a"])] * 3), r"X\[0\] is a ndarray; X must give arrays of numbers"),
    "unequal rows": (Rows([np.zeros((1, 4)), np.zeros((1, 5))]), r"X\[1\] has shape \(1, 5\), but X\[0\] has \(1, 4\)"),
    "unequal list": ([np.zeros((2, 5)), np.zeros((2, 6))], r"unequal shapes: X\[0\] has \(2, 5\) and X\[1\] has \(2, 6\)"),
    "one row": (Rows([np.zeros((1, 4))]), "1 sample.*minimum of 2"),
    "no rows": (Rows([]), "minimum of 2|no numbers"),
    "complex": (np.zeros((4, 1, 3), dtype=complex), "dtype complex128; real numbers"),
    "NaN in a container": (Rows(np.where(np.arange(30).reshape(5, 1, 6) == 13, np.nan, 0)), r"NaN: position \(2, 0, 1\)"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_refused_before_training(what):
    data, message = BAD[what]
    model = quick()
    with pytest.raises(ValueError, match=message):
        model.fit(data)
    assert not hasattr(model, "network_")


LAYOUTS = {
    (20, 28, 28, 1): r"channels last: pass X.transpose\(0, 3, 1, 2\)",
    (20, 32, 32, 3): r"channels last: pass X.transpose\(0, 3, 1, 2\)",
    (20, 1024, 2): r"Signals are .*channels last: pass X.transpose\(0, 2, 1\)",
    (20, 8, 8, 8, 2): r"Fields are .*channels last: pass X.transpose\(0, 4, 1, 2, 3\)",
    (20, 28, 28): r"one channel without its axis: pass X\[:, None\]",
    (20, 9, 9, 9): r"one channel without its axis: pass X\[:, None\]",
    (2, 121_410): r"table of 2 rows; this looks like one recording .*windows\(1024\)",
    (1, 5000): "minimum of 2",
}


@pytest.mark.parametrize("shape", LAYOUTS)
def test_the_error_for_a_wrong_layout_guesses_it(shape):
    with pytest.raises(ValueError, match=LAYOUTS[shape]):
        quick(network="auto").fit(np.zeros(shape, dtype=np.float32))


def test_an_odd_layout_passes_with_a_network_given_as_a_component():
    X = np.random.default_rng(0).normal(size=(20, 9, 9))
    assert quick(max_iter=1).fit(X).sample(2).shape == (2, 9, 9)
    assert quick(network="mlp", max_iter=1).fit(X).sample(2).shape == (2, 9, 9)


@pytest.mark.parametrize(
    "shape", [(9, 5000), (2, 4000), (6, 2, 3), (6, 1, 4, 4), (6, 3, 2, 2, 2), (6, 2, 64), (6, 6, 5, 7)]
)
def test_usual_layouts_pass_the_guess(shape):
    from flowmatch.preprocessing.validation import check_layout

    check_layout(shape)


def test_a_table_of_few_rows_and_thousands_of_columns_passes_as_such():
    quick(network="mlp", max_iter=1).fit(np.random.default_rng(0).normal(size=(4, 4096)))


@pytest.mark.parametrize("data", ["records", "record"])
def test_records_are_refused_with_advice(data):
    record = Record(np.random.default_rng(0).normal(size=(2, 500)), fs=100)
    for call in (quick().fit, quick().fit(images()).score_samples):
        with pytest.raises(TypeError, match=r"of class Records?, but estimators learn windows: .*records.windows"):
            call(record if data == "record" else Records([record, record]))


@pytest.mark.parametrize("mode", ["c", "r+", "r"])
def test_a_fit_leaves_the_data_alone_whatever_the_map(mode, tmp_path):
    np.save(tmp_path / "data.npy", images(np.float32))
    data = np.load(tmp_path / "data.npy", mmap_mode=mode)
    if mode != "r":
        data[:] = 7 + images(np.float32)  # in mode "c" this is nowhere but in memory
    data.flags.writeable = False
    before = np.array(data)
    quick().fit(data)
    np.testing.assert_array_equal(data, before)


def test_samples_stay_in_the_range_of_each_channel():
    X = np.random.default_rng(0).integers(0, 4096, size=(N, 2, 5, 4)).astype(np.uint16)
    X[:, 1] //= 16
    drawn = quick(learning_rate=0.1).fit(X).sample(100, random_state=0)
    assert drawn.dtype == np.uint16
    for channel in range(2):
        assert X[:, channel].min() <= drawn[:, channel].min() < drawn[:, channel].max() <= X[:, channel].max()


def test_samples_do_not_depend_on_the_batch_size(monkeypatch):
    monkeypatch.setattr("flowmatch.core.batches.BLOCK_ELEMENTS", 40 * 11)
    model = quick().fit(images(np.float32) + np.random.default_rng(0).normal(size=(N, 2, 5, 4)).astype(np.float32))
    whole = model.sample(30, random_state=0)
    for batch_size in (1, 7, 1000):
        np.testing.assert_allclose(model.sample(30, random_state=0, batch_size=batch_size), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_memory_stays_flat_as_a_memory_map_grows(tmp_path):
    code = """
import resource, sys
import numpy as np
from flowmatch import FlowMatchingGenerator
from flowmatch.networks import UNet
n = int(sys.argv[1])
X = np.lib.format.open_memmap(sys.argv[2], mode="w+", dtype=np.float32, shape=(n, 1, 16, 16))
for part in np.array_split(np.arange(n), 20):
    X[part] = np.random.default_rng(part[0]).normal(size=(len(part), 1, 16, 16))
X.flush()
del X
X = np.load(sys.argv[2], mmap_mode="r")
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
peak = 0
class Watch:
    def on_fit_task_end(self, estimator, context):
        global peak
        peak = max(peak, resident())
from flowmatch.training import TrainingOptions
options = TrainingOptions(callbacks=[Watch()], report_period=1)
FlowMatchingGenerator(network=UNet(width=8), max_iter=8, batch_size=32, training=options).fit(X)
print(peak)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    peaks = []
    for n in (8_000, 80_000):
        run = subprocess.run(
            [sys.executable, "-c", code, str(n), str(tmp_path / f"{n}.npy")], check=True, capture_output=True, text=True
        )
        peaks.append(int(run.stdout))
    assert peaks[1] <= 1.1 * peaks[0]
