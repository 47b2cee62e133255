"""One estimator, one file: what is saved comes back, what is damaged is refused, and nothing in a file is executed."""

import json
import os
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import reference_estimators
import torch
from damaged_files import take_apart, tamper
from exact_forecasts import tiny, tiny_fields
from reference_store import FOLDER
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import flowmatch
from flowmatch import FlowMatchingGenerator, flow, objectives
from flowmatch.networks import MLP
from flowmatch.preprocessing import QuantileNormal
from flowmatch.training import TrainingOptions

pytestmark = pytest.mark.filterwarnings("ignore:.*have a single row:UserWarning")

N = 60


def generator(**parameters):
    return FlowMatchingGenerator(**{"max_iter": 6, "batch_size": 32, "n_steps": 3, "random_state": 0, **parameters})


def table(n=N):
    rng = np.random.default_rng(0)
    return np.column_stack([rng.gamma(2.0, size=n), rng.integers(0, 3, n), np.full(n, 0.1)])


def frame():
    X = pd.DataFrame(table(), columns=["amount", "level", "constant"])
    return X.astype({"level": "Int64"}).assign(flag=np.arange(N) % 3 == 0, small=np.float32(X["amount"]).round(1))


def factory(sample_shape, condition_size, flow_map):
    return MLP(width=8, depth=1)(sample_shape, condition_size, flow_map)


CASES = {
    "labelled_frame": lambda: (generator(), frame(), pd.Series(np.repeat(["b", "a", "c"], N // 3), dtype=object)),
    "integer_labels": lambda: (generator(), table(), np.repeat(np.array([3, 1, 2], dtype="int16"), N // 3)),
    "boolean_labels": lambda: (generator(), table(), np.arange(N) % 2 == 0),
    "fixed_width_labels": lambda: (generator(), table(), np.repeat(["long name", "b"], N // 2)),
    "category_labels": lambda: (generator(), table(), pd.Series(["u", "v"] * (N // 2), dtype="category")),
    "numeric_conditions": lambda: (generator(), table(), np.random.default_rng(1).normal(size=(N, 2))),
    "one_number": lambda: (generator(), frame(), pd.Series(np.random.default_rng(1).normal(size=N), name="dose")),
    "frame_of_conditions": lambda: (generator(), table(), frame()[["amount", "flag"]]),
    "unconditional_integers": lambda: (generator(), np.random.default_rng(0).integers(0, 9, (N, 2)), None),
    "torch": lambda: (generator(), torch.as_tensor(table(), dtype=torch.float32), torch.arange(N) % 3),
    "grid": lambda: (generator(), np.random.default_rng(0).normal(size=(N, 2, 5)), None),
    "one_channel": lambda: (generator(), np.random.default_rng(0).normal(size=(N, 1, 5)), np.arange(N) % 2),
    "minimal": lambda: (generator(), table()[:, :1], None),
    "number_columns": lambda: (generator(), pd.DataFrame(table()), None),
    "multi_index_columns": lambda: (
        generator(), pd.DataFrame(table(), columns=pd.MultiIndex.from_product([["a"], [0, 1, 2]])), None,
    ),
    "no_transform": lambda: (generator(preprocessing="none"), table(), None),
}  # fmt: skip

CHANGES = {
    "vp_path": {"path": flow.VariancePreservingPath(first_time=0.01)},
    "cosine_path": {"path": "cosine"},
    "ot_coupling": {"coupling": flow.OptimalTransportCoupling(block_size=16)},
    "ot_coupling_by_name": {"coupling": "ot"},
    "matched_source": {"source": "matched", "preprocessing": "none"},
    "sparse_source": {"source": flow.SparseSource(dropout_rate=0.3)},
    "time_sampler": {"time_sampler": flow.LogitNormalTimes(mean=0.5, std=0.7, stratified=False)},
    "loss": {"loss": objectives.PseudoHuberLoss(scale=0.1)},
    "loss_weight": {"loss_weight": objectives.MinSNRWeight(gamma=2.0)},
    "adaptive_weight": {"loss_weight": objectives.AdaptiveWeight(power=0.5, offset=0.1)},
    "film": {"network": MLP(width=8, depth=1, context_width=8, n_time_features=4)},
    "adaln": {"network": MLP(width=8, conditioning="adaln", dropout=0.1)},
    "concat": {"network": MLP(width=8, conditioning="concat")},
    "training": {
        "training": TrainingOptions(
            weight_decay=0.1, betas=(0.8, 0.9), warmup=0.2, schedule="constant", gradient_clipping=None,
            accumulation=2, ema_decay=None, ema_warmup=False, validation_fraction=0.2, early_stopping=True,
            patience=3, report_period=2,
        )
    },
    "quantile": {"preprocessing": QuantileNormal(max_knots=20)},
    "standardize": {"preprocessing": "standardize"},
    "minmax": {"preprocessing": "minmax"},
    "log1p": {"preprocessing": "log1p"},
    "guidance": {"guidance_scale": 2.0, "condition_dropout": 0.3},
    "solver": {"solver": "rk4", "n_steps": np.int64(4)},
    "numpy_numbers": {"learning_rate": np.float32(0.01), "max_iter": np.int64(5), "random_state": np.int64(3)},
}  # fmt: skip


def fit(case):
    model, X, y = CASES[case]()
    return model.fit(X, y), X, y


@pytest.fixture(scope="module")
def labelled():
    return fit("labelled_frame")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def round_trip(model, path, **options):
    model.save(path)
    return flowmatch.load(path, **options)


def assert_same_values(a, b):
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b)
    else:
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def without_seconds(history):
    return {name: values for name, values in history.items() if name != "seconds"}


def assert_same_model(a, b, X, y, *, density=True):
    for drawn, again in zip(*(m.sample(7, random_state=1, return_y=True) for m in (a, b)), strict=True):
        if drawn is not None:
            assert_same_values(drawn, again)
    if density:
        rows = slice(0, 5)
        scores = [m.score_samples(X[rows], None if y is None else y[rows]) for m in (a, b)]
        np.testing.assert_array_equal(*scores)
    for name in ("n_iter_", "n_parameters_", "sample_shape_", "n_features_in_"):
        assert getattr(a, name) == getattr(b, name)
        assert type(getattr(a, name)) is type(getattr(b, name))
    for name in ("classes_", "feature_names_in_"):
        assert hasattr(a, name) == hasattr(b, name)
        if hasattr(a, name):
            assert_same_values(getattr(a, name), getattr(b, name))
    assert a.preprocessing_ == b.preprocessing_
    np.testing.assert_equal(without_seconds(a.history_), without_seconds(b.history_))
    assert len(a.history_["seconds"]) == len(b.history_["seconds"])


# -- round trips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_comes_back_whole(case, path):
    model, X, y = fit(case)
    loaded = round_trip(model, path)
    assert_same_model(model, loaded, X, y)
    assert loaded.get_params() == model.get_params()


@pytest.mark.parametrize("change", CHANGES)
def test_every_component_comes_back(change, path):
    X, y = table()[:, :2], np.arange(N) % 2
    model = generator(**CHANGES[change]).fit(X, y)
    loaded = round_trip(model, path)
    assert_same_model(model, loaded, X, y, density=change != "sparse_source")
    for name, value in model.get_params(deep=False).items():
        assert getattr(loaded, name) == value
        if name in CHANGES[change]:
            assert getattr(loaded, name) != getattr(FlowMatchingGenerator(), name)


def test_a_loaded_model_can_be_cloned_and_fitted_to_the_same_result(labelled, path):
    model, X, y = labelled
    again = clone(round_trip(model, path)).fit(X, y)
    assert_same_values(again.sample(5, random_state=0), model.sample(5, random_state=0))


@pytest.mark.parametrize("way", ["partial_fit", "warm_start"])
def test_a_loaded_model_trains_on_like_the_one_that_was_saved(way, path):
    model, X, y = fit("labelled_frame")
    loaded = round_trip(model, path)
    for one in (model, loaded):
        one.partial_fit(X, y) if way == "partial_fit" else one.set_params(warm_start=True).fit(X, y)
        assert one.n_iter_ == 12
        assert one.history_["step"][-1] == 12
    assert_same_values(loaded.sample(5, random_state=0), model.sample(5, random_state=0))


def test_encode_decode_and_mixture_densities_survive(labelled, path):
    model, X, _ = labelled
    loaded = round_trip(model, path)
    np.testing.assert_array_equal(loaded.score_samples(X[:4]), model.score_samples(X[:4]))
    codes = model.encode(X[:4])
    np.testing.assert_array_equal(loaded.encode(X[:4]), codes)
    assert_same_values(loaded.decode(codes), model.decode(codes))


def test_pickle_brings_the_model_back(labelled):
    model, X, y = labelled
    assert_same_model(model, pickle.loads(pickle.dumps(model)), X, y)


def test_pickle_of_an_unfitted_model_keeps_its_parameters():
    model = generator(network=MLP(width=7))
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params()


def test_the_loaded_model_works_on_the_device_that_was_asked_for(labelled, path):
    loaded = round_trip(labelled[0], path, device="cpu")
    assert loaded.device == "cpu"
    assert next(loaded.network_.parameters()).device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device")
def test_loading_to_a_device_that_is_not_there_is_refused(labelled, path):
    labelled[0].save(path)
    with pytest.raises(ValueError, match=r"device 'cuda' is not available"):
        flowmatch.load(path, device="cuda")


# -- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["labelled_frame", "numeric_conditions", "grid"])
def test_identical_models_give_identical_files(case, tmp_path):
    for name in "ab":
        fit(case)[0].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_models_give_other_files(tmp_path):
    for seed in (0, 1):
        generator(random_state=seed).fit(table()).save(tmp_path / str(seed))
    tensors = [load_tensors((tmp_path / name).read_bytes()) for name in "01"]
    assert tensors[0].keys() == tensors[1].keys()
    assert any((tensors[0][name] != tensors[1][name]).any() for name in tensors[0])


@pytest.mark.parametrize("case", CASES)
def test_saving_what_was_loaded_gives_the_same_file(case, tmp_path):
    fit(case)[0].save(tmp_path / "a")
    flowmatch.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saving_twice_replaces_the_file_and_leaves_no_other(labelled, tmp_path):
    for _ in range(2):
        labelled[0].save(str(tmp_path / "model"))
    assert os.listdir(tmp_path) == ["model"]


def test_saving_does_not_change_the_model(labelled, path):
    model, _, _ = labelled
    before = model.sample(4, random_state=0)
    model.save(path)
    assert_same_values(model.sample(4, random_state=0), before)


def test_an_unfitted_model_is_not_saved(path):
    with pytest.raises(NotFittedError):
        generator().save(path)
    assert not path.exists()


@pytest.mark.parametrize("where", ["no/such/folder/model", "file/model", "folder"])
def test_a_path_that_cannot_be_written_is_refused_by_name(labelled, tmp_path, where):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"cannot write to .*" + where):
        labelled[0].save(tmp_path / where)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_half_way_leaves_the_old_file(labelled, path, monkeypatch, step):
    labelled[0].save(path)
    before = path.read_bytes()

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, disk_full)
    with pytest.raises(ValueError, match=r"cannot write to .*No space left on device"):
        generator().fit(table()).save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("y", [[Fraction(1, 2), Fraction(1, 3)], [frozenset(), frozenset([1])]], ids=str)
def test_labels_that_json_cannot_hold_are_refused_by_name(y, path):
    model = generator().fit(table(), np.tile(np.array(y, dtype=object), N // 2))
    with pytest.raises(ValueError, match=r"cannot be written to a file \(.*conditions\.classes of dtype .*with pickle"):
        model.save(path)
    assert not path.exists()


def test_column_names_that_json_cannot_hold_are_refused(path):
    X = pd.DataFrame(table(), columns=pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"]))
    with pytest.raises(ValueError, match=r"cannot be written to a file \(.*columns\.0 is Timestamp.*save with pickle"):
        generator().fit(X).save(path)
    assert not path.exists()


# -- what a file cannot hold ---------------------------------------------------------------------------------------


def test_a_network_factory_is_warned_about_and_asked_for(path):
    X = table()
    model = generator(network=factory).fit(X)
    with pytest.warns(UserWarning, match=r"parameter network=.*pass it to load\(path, network=\.\.\.\)"):
        model.save(path)
    with pytest.raises(ValueError, match=r"network factory.*load\(path, network=factory\)"):
        flowmatch.load(path)
    loaded = flowmatch.load(path, network=factory)
    assert loaded.network is factory
    assert_same_model(model, loaded, X, None)
    loaded.partial_fit(X)


def test_a_wrong_network_factory_is_refused(path):
    with pytest.warns(UserWarning, match="network="):
        generator(network=factory).fit(table()).save(path)
    with pytest.raises(ValueError, match="its weight .* does not fit"):
        flowmatch.load(path, network=MLP(width=9))


class Silent:
    def setup(self, estimator, context):
        pass


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"loss_weight": lambda t: 1 + t}, "loss_weight"),
        ({"loss_weight": objectives.CallableWeight(torch.ones_like)}, "loss_weight"),
        ({"training": TrainingOptions(callbacks=[Silent()], warmup=0.5)}, "callbacks"),
    ],
    ids=["loss_weight", "callable_weight", "callbacks"],
)
def test_callables_are_warned_about_and_load_as_defaults(parameters, name, path):
    X = table()
    model = generator(**parameters).fit(X)
    with pytest.warns(UserWarning, match=rf"parameter {name}=.*set it again before another fit"):
        model.save(path)
    loaded = flowmatch.load(path)
    assert_same_model(model, loaded, X, None)
    assert loaded.loss_weight == "uniform"
    if name == "callbacks":
        assert loaded.training == TrainingOptions(warmup=0.5)
    loaded.partial_fit(X)


def test_nothing_is_warned_about_an_ordinary_model(labelled, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        round_trip(labelled[0], path)


# -- files that are no models --------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        flowmatch.load(tmp_path / "nothing_here")


@pytest.mark.parametrize("length", [0, 4, 50, 3000, -1])
def test_a_truncated_file_is_refused(labelled, path, length):
    labelled[0].save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        flowmatch.load(path)


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", pickle.dumps({"a": 1}), b"PK\x03\x04" * 50], ids=["text", "pickle", "zip"]
)
def test_a_foreign_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        flowmatch.load(path)


def test_a_foreign_safetensors_file_is_refused(path):
    save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="was not written by flowmatch"):
        flowmatch.load(path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[1]", "not a JSON object"), ("{}", "format version None")]
)
def test_a_file_with_a_foreign_header_is_refused(path, text, message):
    save_file({"weight": torch.ones(2)}, path, {"flowmatch": text})
    with pytest.raises(ValueError, match=message):
        flowmatch.load(path)


def test_a_file_rewritten_without_a_change_still_loads(labelled, path):
    labelled[0].save(path)
    tamper(path, lambda header, tensors: None)
    assert_same_values(flowmatch.load(path).sample(3, random_state=0), labelled[0].sample(3, random_state=0))


def test_saving_and_loading_do_not_touch_pickle(labelled, path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pickle was used")

    for module, names in ((pickle, ("loads", "load", "dumps", "dump", "Unpickler")), (torch, ("load", "save"))):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    loaded = round_trip(labelled[0], path)
    assert_same_values(loaded.sample(3, random_state=0), labelled[0].sample(3, random_state=0))


def test_the_file_holds_tensors_and_json_only(labelled, path):
    labelled[0].save(path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    outer = json.loads(content[8 : 8 + size])
    assert list(outer["__metadata__"]) == ["flowmatch"]
    text = outer["__metadata__"]["flowmatch"]
    assert text == json.dumps(json.loads(text), sort_keys=True)
    ends = [entry["data_offsets"][1] for name, entry in outer.items() if name != "__metadata__"]
    assert len(content) == 8 + size + max(ends)  # nothing hides behind the tensors


# -- forecasters ------------------------------------------------------------------------------------------------------


def days(n=40):
    values = np.random.default_rng(0).normal(size=(n, 3))
    return pd.DataFrame(values, columns=["load", "price", "heat"], index=pd.date_range("2021-03-01", periods=n))


def forecast_inputs(X, model):
    """What the model may be asked for: the last states of X, and what is known ahead of them."""
    contexts = [X] if isinstance(X, pd.DataFrame) else X[:, -model.n_lags :] if model.n_lags > 1 else X[:, -1]
    return contexts, {} if model.known_columns is None else {"future": np.zeros((1, 3, 1))}


WALKS, FIELDS = (np.random.default_rng(0).normal(size=shape) for shape in ((4, 9, 2), (3, 6, 1, 8)))
FORECASTERS = {
    "series": lambda: (tiny(), WALKS),
    "windows": lambda: (tiny(n_lags=3, horizon=2), WALKS),
    "calendar": lambda: (tiny(n_lags=2, known_columns="price"), days()),
    "state": lambda: (tiny(target="state", calendar=["week", "day"], horizon=2), days()),
    "named_network": lambda: (tiny_fields(network="unet", max_iter=1, n_samples=2, boundary=("periodic", "wall")), FIELDS.reshape(3, 6, 1, 4, 2)[:2, :4]),
    "single_precision": lambda: (tiny_fields(n_lags=2, context_noise=0.1, n_samples=2), FIELDS.astype(np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("case", FORECASTERS)
def test_a_saved_forecaster_comes_back_whole(case, tmp_path):
    model, X = FORECASTERS[case]()
    contexts, known = forecast_inputs(X, model.fit(X))
    model.save(tmp_path / "a")
    loaded = flowmatch.load(tmp_path / "a", device="cpu")
    for other in (loaded, pickle.loads(pickle.dumps(model))):
        assert_same_values(other.predict(contexts, **known), model.predict(contexts, **known))
        assert_same_values(other.rollout(contexts, 3, 2, 0, **known), model.rollout(contexts, 3, 2, 0, **known))
        assert other.crps(X) == model.crps(X)
        for name in ("state_shape_", "sample_shape_", "boundary_", "calendar_", "n_features_in_", "n_iter_"):
            assert getattr(other, name) == getattr(model, name)
            assert type(getattr(other, name)) is type(getattr(model, name))
        assert other.fitted_.layout == model.fitted_.layout
    assert hasattr(loaded, "feature_names_in_") == isinstance(X, pd.DataFrame)
    assert loaded.get_params() == model.get_params()
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_saved_table_and_a_loaded_one_that_trains_on(path):
    X, y = table(), table()[:, :2]
    model = tiny(warm_start=True).fit(X, y)
    loaded = round_trip(model, path, device="cpu")
    assert_same_values(loaded.predict(X), model.predict(X))
    assert loaded.score(X, y) == model.score(X, y)
    assert_same_values(loaded.fit(X, y).predict(X), model.fit(X, y).predict(X))


def test_a_saved_student_of_a_forecaster_comes_back(path):
    student = flowmatch.DistilledFlowMap(tiny(n_lags=2), max_iter=2, n_pairs=10, random_state=0).fit(WALKS)
    loaded = round_trip(student, path)
    assert_same_values(loaded.rollout(WALKS, 3, 2, 0), student.rollout(WALKS, 3, 2, 0))
    assert isinstance(loaded.estimator, flowmatch.ConditionalForecaster)


@pytest.mark.parametrize("name", sorted(path.stem for path in (FOLDER / "format_3").iterdir()))
def test_files_of_format_3_become_files_of_today(name, tmp_path):
    reference_estimators.load(FOLDER / "format_3" / f"{name}.safetensors").save(tmp_path / "a")
    header, _ = take_apart((tmp_path / "a").read_bytes())
    assert header["format_version"] == 4
    flowmatch.load(tmp_path / "a", device="cpu").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_network_that_a_file_does_not_lack_is_refused(tmp_path):
    model = FlowMatchingGenerator(network=MLP(width=8), max_iter=2, device="cpu").fit(np.eye(4))
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="network is for models of a network factory"):
        flowmatch.load(tmp_path / "model.safetensors", network=MLP(width=8))


def test_a_teacher_that_is_not_fitted_is_not_blamed_on_the_file(tmp_path):
    model = FlowMatchingGenerator(network=MLP(width=8), max_iter=2, device="cpu").fit(np.eye(4))
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(NotFittedError):
        flowmatch.load(tmp_path / "model.safetensors", teacher=FlowMatchingGenerator())
