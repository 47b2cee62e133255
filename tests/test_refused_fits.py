"""A fit that is refused changes nothing: neither the estimator, fitted or not, nor its file, nor its checkpoints' folder."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from flowmatch import (
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    TrainingOptions,
)
from flowmatch.networks import MLP, UNet

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = RNG.normal(size=(60, 2))
LABELS = np.arange(60) % 3
TINY = {"network": MLP(width=8, depth=1), "max_iter": 3, "random_state": 0, "device": "cpu"}
TEACHER = FlowMatchingGenerator(**TINY).fit(X, LABELS)

MODELS = {
    "generator": (lambda: FlowMatchingGenerator(**TINY), LABELS, lambda m: m.sample(5, random_state=0)),
    "forecaster": (lambda: ConditionalForecaster(**TINY), Y, lambda m: m.predict(X[:5])),
    "detector": (
        lambda: FlowAnomalyDetector(method="one_step", n_folds=1, false_alarm_rate=0.2, **TINY),
        LABELS,
        lambda m: m.score_samples(X[:5]),
    ),
    "student": (
        lambda: DistilledFlowMap(TEACHER, max_iter=3, n_pairs=16, random_state=0),
        LABELS,
        lambda m: m.sample(5, random_state=0),
    ),
}


def with_entry(value, dtype=float):
    table = X.astype(dtype)
    table[7, 1] = value
    return table


BAD_DATA = {
    "infinity": lambda y: (with_entry(np.inf), y),
    "no rows": lambda y: (X[:0], y[:0]),
    "no columns": lambda y: (X[:, :0], y),
    "one row": lambda y: (X[:1], y[:1]),
    "a number": lambda y: (3.0, y),
    "nothing": lambda y: (None, y),
    "text": lambda y: ("X", y),
    "a function": lambda y: (len, y),
    "lists of several lengths": lambda y: ([[1.0, 2.0], [3.0]] * 30, y),
    "complex numbers": lambda y: (X + 1j, y),
    "a dict in an entry": lambda y: (with_entry({}, object), y),
    "a sparse matrix": lambda y: (csr_matrix(X), y),
    "a sparse tensor": lambda y: (torch.as_tensor(X).to_sparse(), y),
    "names of several types": lambda y: (pd.DataFrame(X, columns=["a", 1, "b"]), y),
    "fewer y": lambda y: (X, y[:-1]),
    "empty y": lambda y: (X, np.empty((60, 0))),
    "NaN in y": lambda y: (X, np.full(60, np.nan)),
    "y of objects": lambda y: (X, np.array([object()] * 60)),
    "negative weights": lambda y: (X, y, -np.ones(60)),
    "weights of zero": lambda y: (X, y, np.zeros(60)),
    "fewer weights": lambda y: (X, y, np.ones(59)),
    "NaN in weights": lambda y: (X, y, np.full(60, np.nan)),
}
CASES = [(name, what) for name in MODELS for what in BAD_DATA if name != "student" or "weights" not in what]
BAD_PARAMETERS = [
    {"max_iter": 0}, {"max_iter": 2.5}, {"batch_size": -1}, {"learning_rate": np.nan}, {"device": "nowhere"},
    {"random_state": -1}, {"random_state": "seed"}, {"training": 5}, {"training": TrainingOptions(gradient_clipping=-1.0)},
    {"training": TrainingOptions(checkpoint_folder="a\0b")}, {"network": "nonsense"}, {"network": UNet()},
    {"network": MLP(width=0)}, {"path": "nonsense"}, {"time_sampler": 3}, {"loss": "nonsense"},
    {"preprocessing": "nonsense"}, {"method": "nonsense"}, {"contamination": 2.0}, {"n_lags": 0}, {"n_steps": 0},
    {"n_pairs": 0}, {"guidance_scale": "much"},
]  # fmt: skip


@functools.cache
def fitted(name):
    """One for all tests, since none of them changes it."""
    make, y, _ = MODELS[name]
    return make().fit(X, y)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(name, model, call, folder):
    """Whether a call is refused, and leaves a fitted model, its file and the folder of checkpoints as they were."""
    path, ask = folder / "model", MODELS[name][2]
    model.save(path)
    answer, state, files = ask(model), dict(vars(model)), content(folder)
    with pytest.raises((ValueError, TypeError)):
        call(model)
    assert vars(model) == state
    assert content(folder) == files
    np.testing.assert_array_equal(ask(model), answer)
    model.save(path)
    assert content(folder) == files


@pytest.mark.parametrize(
    ("name", "what", "method"),
    [
        pytest.param(*case, method, marks=[pytest.mark.slow] * (method == "partial_fit"))
        for case in CASES
        for method in ("fit", "partial_fit")
        if method == "fit" or case[0] in ("generator", "detector")  # the others have none
    ],
)
def test_bad_data_change_nothing(name, what, method, tmp_path):
    data = BAD_DATA[what](MODELS[name][1])
    model = fitted(name)
    folder = tmp_path / "checkpoints"
    model.set_params(training=TrainingOptions(checkpoint_folder=folder))
    refused(name, model, lambda m: getattr(m, method)(*data), tmp_path)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (name, bad)
        for name, (make, *_) in MODELS.items()
        for bad in BAD_PARAMETERS
        if bad.keys() <= make().get_params(deep=False).keys()
    ],
    ids=str,
)
def test_bad_parameters_change_nothing(name, parameters, tmp_path):
    model = fitted(name)
    before = {key: getattr(model, key) for key in parameters}

    def call(model):
        try:
            model.set_params(**parameters).fit(X, MODELS[name][1])
        finally:
            model.set_params(**before)

    refused(name, model, call, tmp_path)


@pytest.mark.parametrize(("name", "what"), CASES)
def test_what_is_not_fitted_stays_so(name, what):
    data = BAD_DATA[what](MODELS[name][1])
    model = MODELS[name][0]()
    state = dict(vars(model))
    with pytest.raises((ValueError, TypeError)):
        model.fit(*data)
    assert vars(model) == state
