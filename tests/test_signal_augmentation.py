"""Over-sampling and augmentation of signals (n, n_channels, n_times)."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from flowmatch import AugmentedClassifier, AugmentedRegressor, FlowMatchingGenerator, FlowMatchingOverSampler
from flowmatch.datasets import make_bearing_records
from flowmatch.metrics.signals import log_spectrum
from flowmatch.networks import UNet
from flowmatch.synthetic import ARBlocks, Perturb

FLOW = FlowMatchingGenerator(UNet(width=4), max_iter=2, batch_size=16, n_steps=1, device="cpu")
AR = ARBlocks(order=8, block=20)
GENERATORS = {
    "default": None,
    "AR": AR,
    "perturbed": Perturb(),
    "perturbed AR": Perturb(AR),
    "flow": FLOW,
    "perturbed flow": Perturb(FLOW),
}
COUNTS = {"a": 12, "b": 6, "c": 3}
LABELS = np.repeat(list(COUNTS), list(COUNTS.values()))


def signals(dtype=np.float32):
    return np.random.default_rng(0).normal(0, 3, (len(LABELS), 2, 64)).astype(dtype)


class Recorder(BaseEstimator):
    """A model that keeps what it was fitted to, whatever its shape."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.seen_[1][0])


class ClassRecorder(ClassifierMixin, Recorder):
    """The same as a classifier."""


class NumberRecorder(RegressorMixin, Recorder):
    """The same as a regressor."""


class Constant(BaseEstimator):
    """A generator of constant signals, whose densities nobody may ask for; it keeps what it was fitted to."""

    def __init__(self, value=0.0):
        self.value = value

    def fit(self, X, y, sample_weight=None):
        self.seen_ = X, y, sample_weight
        return self

    def sample(self, n_samples, y, random_state=None):
        return np.full((n_samples, *self.seen_[0].shape[1:]), self.value)

    def score_samples(self, X, y=None):
        raise AssertionError("signals are not compared by density")


FORMS = {
    "float32": signals(),
    "float64": signals(np.float64),
    "int16": signals(np.int16),
    "list": signals(np.float64).tolist(),
    "tensor": torch.as_tensor(signals()),
    "bfloat16": torch.as_tensor(signals()).bfloat16(),
}


@pytest.mark.parametrize("X", FORMS.values(), ids=FORMS)
def test_signals_come_back_in_their_container_and_dtype_the_real_ones_first(X):
    X_more, y_more = FlowMatchingOverSampler(Perturb(), random_state=0).fit_resample(X, LABELS)
    assert type(X_more) is type(X)
    assert getattr(X_more, "dtype", None) == getattr(X, "dtype", None)
    assert np.shape(X_more) == (36, 2, 64)
    assert (X_more[:21] == X) if isinstance(X, list) else (X_more[:21] == X).all()
    assert y_more.tolist() == LABELS.tolist() + ["b"] * 6 + ["c"] * 9
    rows, labels, _ = AugmentedClassifier(ClassRecorder(), Perturb(), 1.0).fit(X, LABELS).estimator_.seen_
    assert rows.shape == (36, 2, 64)
    assert rows.dtype == (np.float32 if isinstance(X, torch.Tensor) else np.asarray(X).dtype)  # numpy has no bfloat16
    assert labels.tolist() == y_more.tolist()


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_of_all_kinds_draw_and_the_seed_decides_what(name):
    X, generator = signals(), GENERATORS[name]
    y = np.unique(LABELS, return_inverse=True)[1] if "perturbed" in name else LABELS  # numbers or text
    first, again, other = (
        FlowMatchingOverSampler(generator, random_state=seed).fit_resample(X, y)[0][21:] for seed in (0, 0, 1)
    )
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2)).all()
    model = AugmentedClassifier(ClassRecorder(), generator, 0.5, "all", random_state=0).fit(X, y)
    rows, labels, _ = model.estimator_.seen_
    assert rows.shape == (32, 2, 64)  # 12 + 6 of a, 6 + 3 of b, 3 + 2 of c
    assert labels.dtype == y.dtype
    assert isinstance(model.generator_, Perturb if generator is None else type(generator))
    assert model.n_features_in_ == 2


def test_labels_stay_with_their_signals():
    X = signals() * 0.01 + np.unique(LABELS, return_inverse=True)[1][:, None, None]
    for generator in (Perturb(gain=0.01, tilt=0.01), Perturb(AR, gain=0.01, tilt=0.01), AR):
        new, labels = (part[21:] for part in FlowMatchingOverSampler(generator, random_state=0).fit_resample(X, LABELS))
        np.testing.assert_allclose(new.mean(axis=(1, 2)), np.where(labels == "b", 1, 2), atol=0.2)


@pytest.mark.parametrize(("value", "written"), [(0.6, 1), (-0.6, -1), (4e4, 2**15 - 1), (-1e9, -(2**15))])
def test_integers_are_rounded_and_clipped_as_a_converter_does(value, written):
    X = signals(np.int16)
    X_more, _ = FlowMatchingOverSampler(Constant(value)).fit_resample(X, LABELS)
    assert X_more.dtype == np.int16
    assert (X_more[21:] == written).all()


def test_weights_reach_the_generator_and_new_signals_have_the_mean_of_their_class():
    X, weight = signals(), np.random.default_rng(0).uniform(0.5, 1.5, 21)
    weight[[0, 12]] = 0
    model = AugmentedClassifier(ClassRecorder(), Constant(), 1.0, random_state=0).fit(X, LABELS, weight)
    _, labels, seen = model.estimator_.seen_
    np.testing.assert_allclose(model.generator_.seen_[2], seen[:21])
    for label in ("b", "c"):
        kept = (label == LABELS) & (weight > 0)
        np.testing.assert_allclose(seen[21:][labels[21:] == label], seen[:21][kept].mean())
    for generator in (Perturb(), Perturb(AR), AR):  # what weighs nothing is not drawn
        wrong = X.copy()
        wrong[[0, 12]] = 1e4
        model = AugmentedClassifier(ClassRecorder(), generator, 1.0, random_state=0).fit(wrong, LABELS, weight)
        assert np.abs(model.estimator_.seen_[0][21:]).max() < 100


def test_a_regressor_takes_signals_too():
    y = np.linspace(0.0, 1.0, 21) ** 2
    model = AugmentedRegressor(NumberRecorder(), FLOW, random_state=0).fit(signals(), y)
    assert model.estimator_.seen_[0].shape == (31, 2, 64)
    features = make_pipeline(FunctionTransformer(log_spectrum, kw_args={"fs": 100}), LinearRegression())
    with pytest.raises(ValueError, match="y must hold labels"):
        AugmentedRegressor(features, Perturb()).fit(signals(), y)


X = signals()
BAD = {
    "images": (X[:, None], LABELS, Perturb(), r"shape \(21, 1, 2, 64\); signals are \(n_signals, n_channels, n_times"),
    "channels last": (X.transpose(0, 2, 1), LABELS, Perturb(), r"pass X\.transpose\(0, 2, 1\)"),
    "missing": (np.where(X > 6, np.nan, X), LABELS, Perturb(), "X holds NaN or infinity in"),
    "text": (X.astype(str).astype(object) + "?", LABELS, Perturb(), "could not convert string"),
    "lengths": (X, LABELS[1:], Perturb(), "inconsistent numbers of samples"),
    "a table": (X[:, 0], LABELS, Perturb(), r"shape \(21, 64\); signals are .* One-channel signals are X\[:, None\]"),
    "long blocks": (X, LABELS, ARBlocks(order=8, block=60), "order=8 leaves 56 innovations of 64 values"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_signals_are_named(case):
    X, y, generator, message = case
    with pytest.raises(ValueError, match=message):
        AugmentedClassifier(ClassRecorder(), generator).fit(X, y)
    with pytest.raises(ValueError, match=message):
        FlowMatchingOverSampler(generator).fit_resample(X, y)


def test_more_signals_than_memory_could_hold_are_refused_at_once():
    sampler = FlowMatchingOverSampler(Constant(), sampling_strategy={"c": 10**9})
    with pytest.raises(MemoryError, match="sampling_strategy="):
        sampler.fit_resample(X, LABELS)


def test_a_model_that_reads_tables_only_is_told_what_to_do():
    with pytest.raises(ValueError, match="dim 3") as raised:
        AugmentedClassifier(LogisticRegression(), Perturb()).fit(X, LABELS)
    assert "of shape (21, 2, 64), passed to LogisticRegression as they are" in raised.value.__notes__[0]
    assert "make_pipeline(FunctionTransformer(log_spectrum" in raised.value.__notes__[0]
    with pytest.raises(ValueError, match="'C' parameter") as raised:
        AugmentedClassifier(LogisticRegression(C=-1), Constant(), 0.0).fit(X[:, 0], LABELS)  # a table
    assert not hasattr(raised.value, "__notes__")


def test_five_windows_of_a_class_go_further_with_perturbed_ones():
    records = make_bearing_records(3, seconds=1.0, random_state=0)
    X, conditions = records.windows(1024)
    y, load = np.asarray(conditions["label"]), np.asarray(conditions["load"])
    spectra = FunctionTransformer(log_spectrum, kw_args={"fs": records.fs})
    model = make_pipeline(spectra, StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    augmented = AugmentedClassifier(model, Perturb(), ratio=20, strategy="all", random_state=0)
    found = []
    for draw in range(3):
        rng = np.random.default_rng(draw)
        few = np.concatenate([rng.permutation(np.flatnonzero((load == 0) & (y == at)))[:5] for at in np.unique(y)])
        found.append(
            [
                [f1_score(y[load == at], fitted.predict(X[load == at]), average="macro") for at in (1, 2)]
                for fitted in (model.fit(X[few], y[few]), augmented.fit(X[few], y[few]))
            ]
        )
    alone, helped = np.mean(found, axis=0)
    assert (helped >= alone).all()
    assert helped[1] > alone[1] + 0.1  # at the load that is farther away
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    assert cross_val_score(augmented.set_params(ratio=1), X[load == 0], y[load == 0], cv=folds).mean() > 0.9
