"""Meta-estimators that add synthetic rows in `fit`, and nowhere else."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.datasets import make_blobs
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import check_estimator

from flowmatch import MLP, AugmentedClassifier, AugmentedRegressor, FlowMatchingGenerator

TINY = FlowMatchingGenerator(network=MLP(width=8, depth=1), max_iter=3, batch_size=32, n_steps=2, device="cpu")
DRAWN = "synthetic rows are drawn at random: weights and repeated rows give other draws"
EXPECTED = {f"check_sample_weight_equivalence_on_{kind}_data": DRAWN for kind in ("dense", "sparse")}
N_CHECKS = {(1, 9): {"AugmentedClassifier": 62, "AugmentedRegressor": 59}}


class Recorder(BaseEstimator):
    """A model that keeps what it was fitted to."""

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


class Marking(BaseEstimator):
    """A generator whose rows say that they are synthetic, and which keeps what it was fitted to."""

    fits = []

    def fit(self, X, y, sample_weight=None):
        self.n_columns_ = X.shape[1]
        Marking.fits.append((X, y, sample_weight))
        return self

    def sample(self, n_samples, y, random_state=None):
        return np.full((n_samples, self.n_columns_), -1e6)


@pytest.fixture(autouse=True)
def _no_fits_yet():
    Marking.fits.clear()


@pytest.mark.parametrize(
    "augmented",
    [
        AugmentedClassifier(DecisionTreeClassifier(random_state=0), TINY, random_state=0),
        pytest.param(
            AugmentedClassifier(LogisticRegression(), TINY, 0.1, "all", random_state=0), marks=pytest.mark.slow
        ),
        pytest.param(
            AugmentedRegressor(DecisionTreeRegressor(random_state=0), TINY, 0.1, random_state=0), marks=pytest.mark.slow
        ),
        pytest.param(AugmentedRegressor(LinearRegression(), TINY, 0.1, "all", random_state=0), marks=pytest.mark.slow),
    ],
    ids=lambda augmented: f"{type(augmented).__name__}, {augmented.strategy}",
)
def test_scikit_learns_battery_passes_but_for_weights_as_repetitions(augmented):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(augmented, on_skip=None, on_fail=None, expected_failed_checks=EXPECTED)
    failed = [(r["check_name"], repr(r["exception"])[:300]) for r in results if r["status"] == "failed"]
    assert failed == []
    assert sum(r["status"] == "passed" for r in results) >= len(results) - 3
    version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    assert len(results) >= N_CHECKS.get(version, {}).get(type(augmented).__name__, 0)


def imbalanced(seed=0, counts=(60, 20, 10)):
    return make_blobs(counts, centers=[[0, 0], [3, 0], [0, 3]], random_state=seed)


@pytest.mark.parametrize(
    ("ratio", "strategy", "counts"),
    [
        (1.0, "balance", [60, 60, 60]),
        (0.5, "balance", [60, 30, 30]),
        (0.2, "balance", [60, 20, 12]),
        (0.1, "balance", [60, 20, 10]),
        (0.5, "all", [90, 30, 15]),
        (2.0, "all", [180, 60, 30]),
        (0.0, "all", [60, 20, 10]),
    ],
)
def test_classes_get_as_many_rows_as_asked(ratio, strategy, counts):
    X, y = imbalanced()
    augmented = AugmentedClassifier(ClassRecorder(), Marking(), ratio, strategy, random_state=0).fit(X, y)
    seen, labels, weight = augmented.estimator_.seen_
    np.testing.assert_array_equal(seen[:90], X)
    assert (seen[90:] == -1e6).all()
    assert np.bincount(labels).tolist() == counts
    assert augmented.n_synthetic_ == sum(counts) - 90
    assert (augmented.generator_ is None) == (sum(counts) == 90)
    assert weight is None


def test_sizes_of_classes_are_sums_of_weights_and_new_rows_have_the_mean_weight_of_their_class():
    X, y = imbalanced()
    weight = np.random.default_rng(0).uniform(0.5, 1.5, 90) * np.array([1.0, 2.0, 0.5])[y]
    weight[:5] = 0
    augmented = AugmentedClassifier(ClassRecorder(), Marking(), 1.0, random_state=0).fit(X, y, 7 * weight)
    _, labels, seen = augmented.estimator_.seen_
    np.testing.assert_allclose(seen[:90] / seen[:90].sum(), weight / weight.sum())
    for label in range(3):
        mean = seen[:90][(y == label) & (weight > 0)].mean()
        np.testing.assert_allclose(seen[90:][labels[90:] == label], mean)
        missing = seen[labels == 0].sum() - seen[labels == label].sum()
        assert 0 <= missing + 1e-9 < mean + 2e-9
    np.testing.assert_allclose(Marking.fits[0][2], seen[:90])  # the generator has the same weights


def test_predictions_see_no_synthetic_row():
    X, y = imbalanced()
    augmented = AugmentedClassifier(KNeighborsClassifier(1), TINY, 1.0, random_state=0).fit(X, y)
    fresh = imbalanced(seed=1)[0]
    np.testing.assert_array_equal(augmented.predict_proba(fresh), augmented.estimator_.predict_proba(fresh))
    assert augmented.predict(fresh).shape == (90,)
    assert augmented.classes_.tolist() == [0, 1, 2]


def test_folds_do_not_leak():
    X, y = imbalanced()
    folds = StratifiedKFold(5)
    cross_val_score(AugmentedClassifier(DummyClassifier(), Marking(), random_state=0), X, y, cv=folds)
    assert len(Marking.fits) == 5
    for (seen, labels, _), (train, _) in zip(Marking.fits, folds.split(X, y), strict=True):
        np.testing.assert_array_equal(seen, X[train])
        np.testing.assert_array_equal(labels.astype(int), y[train])


def test_methods_are_there_if_the_model_has_them():
    X, y = imbalanced()
    machine = AugmentedClassifier(LinearSVC(), TINY, random_state=0)
    assert hasattr(machine, "decision_function")
    assert not hasattr(machine, "predict_proba")
    assert not hasattr(machine.fit(X, y), "predict_log_proba")
    assert machine.decision_function(X).shape == (90, 3)
    neighbors = AugmentedClassifier(KNeighborsClassifier(), TINY, random_state=0).fit(X, y)
    assert not hasattr(neighbors, "decision_function")
    assert 0.5 < neighbors.score(X, y) <= 1


def test_parameters_are_reached_through_both_and_searched():
    X, y = imbalanced()
    augmented = AugmentedClassifier(KNeighborsClassifier(), TINY, random_state=0)
    assert clone(augmented).get_params()["generator__network__width"] == 8
    grid = {"ratio": [0.0, 1.0], "estimator__n_neighbors": [3], "generator__max_iter": [2]}
    search = GridSearchCV(augmented, grid, cv=2).fit(X, y)
    assert search.best_estimator_.estimator_.n_neighbors == 3
    assert augmented.generator.max_iter == 3
    assert not hasattr(augmented.generator, "network_"), "the given generator was fitted instead of a clone"


def test_weights_are_routed_to_the_step_that_asks():
    X, y = imbalanced()
    weight = np.where(np.arange(90) % 2, 3.0, 1.0)
    with pytest.raises(ValueError, match=r"Pipeline\.fit takes none"):
        AugmentedClassifier(make_pipeline(StandardScaler(), ClassRecorder()), Marking()).fit(X, y, weight)
    with sklearn.config_context(enable_metadata_routing=True):
        inner = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False), ClassRecorder().set_fit_request(sample_weight=True)
        )
        augmented = AugmentedClassifier(inner, Marking(), 1.0, random_state=0).fit(X, y, sample_weight=weight)
        assert augmented.estimator_[-1].seen_[2].shape == (90 + augmented.n_synthetic_,)
        deaf = ClassRecorder().set_fit_request(sample_weight=False)
        augmented = AugmentedClassifier(deaf, Marking(), 1.0, random_state=0).fit(X, y, sample_weight=weight)
        assert augmented.estimator_.seen_[2] is None
        assert Marking.fits[-1][2] is not None


def test_a_regressor_sees_new_targets_where_they_are_sparse_or_as_they_occur():
    rng = np.random.default_rng(0)
    y = rng.gamma(1.0, 1.0, 400)
    X = rng.normal(size=(400, 2))
    found = {}
    for strategy in ("balance", "all"):
        augmented = AugmentedRegressor(NumberRecorder(), Marking(), 0.5, strategy, random_state=0)
        rows, targets, _ = augmented.fit(X, y).estimator_.seen_
        np.testing.assert_array_equal(rows[:400], X)
        np.testing.assert_array_equal(targets[:400], y)
        found[strategy] = targets[400:]
        assert len(found[strategy]) == 200
    assert np.quantile(found["balance"], 0.25) > np.quantile(y, 0.6)
    assert np.median(found["all"]) == pytest.approx(np.median(y), rel=0.1)
    weighted = AugmentedRegressor(NumberRecorder(), Marking(), random_state=0).fit(X, y, np.where(y > 1, 2.0, 0.0))
    weight = weighted.estimator_.seen_[2]
    np.testing.assert_allclose(weight[400:], weight[:400][y > 1][0])


def test_frames_go_through_to_a_model_that_reads_categories():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"age": rng.integers(18, 80, 60), "sex": pd.Categorical(rng.choice(["f", "m"], 60))})
    y = pd.Series(np.where(np.arange(60) < 10, "bad", "good"))
    augmented = AugmentedClassifier(ClassRecorder(), TINY, 1.0, random_state=0).fit(X, y)
    rows, labels, _ = augmented.estimator_.seen_
    assert rows.dtypes.equals(X.dtypes)
    assert (labels == "bad").sum() == (labels == "good").sum() == 50
    assert augmented.feature_names_in_.tolist() == ["age", "sex"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"strategy": "some"}, "unknown strategy 'some'"),
        ({"ratio": -0.1}, r"ratio must be a number in \[0, 1\]"),
        ({"ratio": 1.5}, r"ratio must be a number in \[0, 1\]"),
        ({"generator": 3}, "generator must be None or have fit and sample"),
    ],
)
@pytest.mark.parametrize("augmented", [AugmentedClassifier(ClassRecorder()), AugmentedRegressor(NumberRecorder())])
def test_bad_parameters_are_named_before_training_starts(augmented, parameters, message):
    X, y = imbalanced()
    with pytest.raises(ValueError, match=message):
        clone(augmented).set_params(**{"generator": Marking(), **parameters}).fit(X, y)
    assert Marking.fits == []


@pytest.mark.parametrize("estimator", [None, 3, LogisticRegression])
def test_what_is_no_model_is_named(estimator):
    X, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3 == 0
    with pytest.raises(ValueError, match="estimator must be a model with fit, such as .*; got"):
        AugmentedClassifier(estimator).fit(X, y)
