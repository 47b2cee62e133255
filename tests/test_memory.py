"""What asks for more memory than there is: refused by name where it can be told, or done in smaller batches."""

import time
import warnings

import numpy as np
import pytest
import torch

from flowmatch import (
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    FlowMatchingOverSampler,
)
from flowmatch.anomaly import Denoising, Likelihood, Rebuilding
from flowmatch.core import memory
from flowmatch.core.memory import Batches, check_memory, memory_for
from flowmatch.networks import MLP, Transformer, UNet

X = np.random.default_rng(0).normal(size=(80, 3))
HOLED = np.where(np.arange(240).reshape(80, 3) % 7 == 0, np.nan, X)
IMAGES = np.random.default_rng(0).normal(size=(20, 1, 8, 8))
TINY = {"network": MLP(width=8, depth=1), "max_iter": 3, "random_state": 0, "device": "cpu"}

FULL = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried to allo"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1.2 GB, other allocations: 3.4 GB, max allowed: 5 GB)."),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    MemoryError("Unable to allocate 7.11 PiB for an array"),
]


def model(kind=FlowMatchingGenerator, data=X, **changes):
    return kind(**{**TINY, **changes}).fit(data)


class Full:
    """A place where memory suffices for so many rows at a time; `sizes` are those that were tried."""

    def __init__(self, most, error=FULL[0]):
        self.most, self.error, self.sizes = most, error, []

    def __deepcopy__(self, _):
        return self  # also on copies in double precision

    def __call__(self, module, inputs):
        self.sizes.append(len(inputs[0]))
        if len(inputs[0]) > self.most:
            raise self.error


def narrow(estimator, most, **options):
    """Let the networks of a fitted estimator have memory for so many rows at a time."""
    full, fitted = Full(most, **options), estimator.fitted_
    is_detector = isinstance(estimator, FlowAnomalyDetector)
    for network in [member.field.network for member in fitted.members] if is_detector else [estimator.network_]:
        network.register_forward_pre_hook(full)
    return full


CALLS = {
    "sample": (FlowMatchingGenerator, {}, lambda m: m.sample(70, random_state=1)),
    "sample in batches": (FlowMatchingGenerator, {}, lambda m: m.sample(70, random_state=1, batch_size=40)),
    "trajectory": (FlowMatchingGenerator, {}, lambda m: m.sample(70, random_state=1, return_trajectory=True)),
    "impute": (FlowMatchingGenerator, {}, lambda m: m.impute(HOLED, random_state=1)),
    "score_samples": (FlowMatchingGenerator, {}, lambda m: m.score_samples(X)),
    "score_samples by probes": (FlowMatchingGenerator, {}, lambda m: m.score_samples(X, n_probes=2)),
    "encode": (FlowMatchingGenerator, {}, lambda m: m.encode(X)),
    "mean flow": (FlowMatchingGenerator, {"objective": "mean_flow"}, lambda m: m.sample(70, random_state=1)),
    "forecasts": (ConditionalForecaster, {}, lambda m: m.sample(X[:5], 20, random_state=1)),
    "predict": (ConditionalForecaster, {}, lambda m: m.predict(X[:5])),
    "rollout": (ConditionalForecaster, {}, lambda m: m.rollout(X[:20], 3, 2, random_state=1)),
    "anomalies": (FlowAnomalyDetector, {}, lambda m: m.score_samples(X)),
    "folds": (FlowAnomalyDetector, {"n_folds": 3}, lambda m: m.predict(X)),
    "likelihood": (FlowAnomalyDetector, {"method": "likelihood"}, lambda m: m.explain(X)),
}


@pytest.mark.parametrize("name", CALLS)
def test_batches_are_halved_with_one_warning_and_the_same_result(name):
    kind, options, ask = CALLS[name]
    expected = ask(model(kind, **options))
    fitted = model(kind, **options)
    full = narrow(fitted, 9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ask(fitted)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert [(entry.filename, "not enough memory" in str(entry.message)) for entry in caught] == [(__file__, True)]
    assert max(full.sizes) > 9
    assert np.mean(np.array(full.sizes) <= 9) > 0.5  # what has been found serves the batches that follow


@pytest.mark.parametrize("error", FULL, ids=lambda error: f"{type(error).__name__} {str(error)[:40]}")
def test_errors_of_any_allocator_are_known(error):
    fitted = model()
    narrow(fitted, 9, error=error)
    with pytest.warns(UserWarning, match="not enough memory for following the flow of 70 rows"):
        assert fitted.sample(70).shape == (70, 3)


def test_no_memory_for_a_single_row_is_an_error_that_says_so():
    fitted = model()
    narrow(fitted, 0)
    with pytest.warns(UserWarning, match="halved"), pytest.raises(MemoryError, match="of a single row"):
        fitted.sample(70)


def test_other_errors_pass():
    fitted = model()
    narrow(fitted, 9, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        fitted.sample(70)


def test_batches_keep_the_order_and_leave_none_alone():
    def doubled(x, other, none):
        assert none is None
        if len(x) > 3:
            raise MemoryError
        return 2 * x + other

    batches, x = Batches("doubling"), np.arange(10)
    with pytest.warns(UserWarning, match="doubling of 10 rows"):
        parts = batches.run(doubled, x, torch.arange(10).numpy(), None)
    np.testing.assert_array_equal(np.concatenate(parts), 3 * x)
    assert [len(part) for part in parts] == [2] * 5
    assert [len(part) for part in batches.run(doubled, x[:3], x[:3], None)] == [2, 1]
    assert Batches("nothing").run(lambda x: x, x[:0])[0].shape == (0,)


# -- what is too large at sight ---------------------------------------------------------------------------------------


GENERATOR, FORECASTER = model(), model(ConditionalForecaster)
MANY = 10**15
TOO_LARGE = {
    "n_samples": lambda: GENERATOR.sample(MANY),
    "n_samples and trajectory": lambda: GENERATOR.sample(10**12, return_trajectory=True),
    "oversample": lambda: GENERATOR.sample(10, oversample=MANY),
    "n_imputations": lambda: GENERATOR.impute(HOLED, n_imputations=MANY),
    "n_probes": lambda: GENERATOR.score_samples(X, n_probes=MANY),
    "n_samples of forecasts": lambda: FORECASTER.sample(X[:5], MANY),
    "n_samples of predictions": lambda: model(ConditionalForecaster, n_samples=MANY).predict_interval(X[:5]),
    "n_steps": lambda: FORECASTER.rollout(X[:5], MANY),
    "batch_size": lambda: model(batch_size=MANY),
    "batch_size of forecasters": lambda: model(ConditionalForecaster, batch_size=MANY),
    "batch_size of detectors": lambda: model(FlowAnomalyDetector, batch_size=MANY),
    "batch_size of students": lambda: DistilledFlowMap(GENERATOR, batch_size=MANY, max_iter=3).fit(X),
    "n_pairs": lambda: DistilledFlowMap(GENERATOR, "reflow", n_pairs=MANY, max_iter=3).fit(X),
    "width=1000000": lambda: model(network=MLP(width=10**6)),
    "width=1000000000000": lambda: model(network=MLP(width=10**12)),
    "UNet": lambda: model(data=IMAGES, network=UNet(width=10**7)),
    "Transformer": lambda: model(data=IMAGES, network=Transformer(width=10**6)),
    "n_noises": lambda: model(FlowAnomalyDetector, method=Denoising(n_noises=MANY)),
    "n_noises of rebuilding": lambda: model(FlowAnomalyDetector, method=Rebuilding(n_noises=MANY)),
    "n_probes of detectors": lambda: model(FlowAnomalyDetector, method=Likelihood(n_probes=MANY)),
    "sampling_strategy": lambda: FlowMatchingOverSampler(sampling_strategy={0: MANY}).fit_resample(
        X, np.arange(80) % 2
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_no_memory_could_hold_is_refused_by_name_and_at_once(name):
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="there is not enough memory")
        with pytest.raises(MemoryError, match=name.split()[0]):
            TOO_LARGE[name]()
    assert time.process_time() - start < 5


@pytest.mark.slow
def test_a_network_of_too_many_layers_is_refused():
    with pytest.raises(ValueError, match="depth=1000000000.* too many layers"):
        model(network=MLP(width=8, depth=10**9))


def test_a_refused_fit_leaves_what_was_fitted():
    fitted = model()
    before = fitted.sample(5, random_state=0)
    for name, value in (("batch_size", MANY), ("network", MLP(width=10**6))):
        with pytest.raises(MemoryError, match=name):
            fitted.set_params(**{name: value}).fit(X)
    np.testing.assert_array_equal(fitted.sample(5, random_state=0), before)


def test_memory_that_ends_in_training_names_the_batch_size():
    def network(*args, **options):
        built = MLP(width=8, depth=1)(*args, **options)
        built.register_forward_pre_hook(Full(16))
        return built

    assert model(network=network, batch_size=16).n_iter_ == 3
    with pytest.raises(MemoryError, match="training with batch_size=32"):
        model(network=network, batch_size=32)


def test_the_limit_is_the_memory_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 1e9)
    check_memory("n=1", 0.9e9)
    with pytest.raises(MemoryError, match=r"n=1 asks for 1.1 GB of memory, and there are 1.0 GB"):
        check_memory("n=1", 1.1e9)
    assert memory.memory_of("cpu") == 1e9
    monkeypatch.undo()
    assert memory.memory_of("cpu") > 1e8
    monkeypatch.delattr(memory.os, "sysconf", raising=False)  # as on Windows
    assert memory.memory_of("cpu") == np.inf
    with pytest.raises(MemoryError):
        check_memory("n=1", 1e30)


def test_errors_are_named_once():
    with (
        pytest.raises(MemoryError, match="for the inner one"),
        memory_for("the outer one"),
        memory_for("the inner one"),
    ):
        raise FULL[0]
    with pytest.raises(RuntimeError, match="another"), memory_for("this"):
        raise RuntimeError("another")
