"""Over-sampling: imbalanced-learn's contract, and the laws of the rows that are added."""

import sys
import warnings

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator

from flowmatch import MLP, FlowMatchingGenerator, FlowMatchingOverSampler
from flowmatch.synthetic.class_counts import rows_to_add
from flowmatch.synthetic.targets import sparse_targets

TINY = FlowMatchingGenerator(network=MLP(width=8, depth=1), max_iter=3, batch_size=32, n_steps=2, device="cpu")


class Untrainable(FlowMatchingGenerator):
    """What must not be reached where input is bad."""

    def fit(self, X, y=None, sample_weight=None):
        raise AssertionError("training started")


def two_classes(n_common=40, n_rare=8, n_columns=2, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [n_common, n_rare])
    return rng.normal(6.0 * y[:, None], 1.0, (len(y), n_columns)), y


def test_imbalanced_learns_checks_pass_whole():
    checks = pytest.importorskip("imblearn.utils.estimator_checks").estimator_checks_generator
    names = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sampler, check in checks(FlowMatchingOverSampler(TINY, target="classes", min_odds=None, random_state=0)):
            check(sampler)
            names.append(check.func.__name__)
        for sampler, check in checks(FlowMatchingOverSampler(TINY, random_state=0)):
            if check.func.__name__ == "check_target_type":  # it wants numbers to be refused
                with pytest.raises(AssertionError, match="Unknown label type"):
                    check(sampler)
    optional = ("sparse", "pandas", "pandas_sparse", "string", "nan", "list")
    assert {f"check_samplers_{name}" for name in optional} <= set(names)
    assert len(names) >= 17


def test_scikit_learns_battery_passes_whole():
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(FlowMatchingOverSampler(TINY, random_state=0), on_skip=None, on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) >= 40


THREE = np.repeat(["a", "b", "c"], [20, 10, 5])
TWO = np.repeat([1, 0], [20, 7])
STRATEGIES = [
    *[(name, y) for name in ("auto", "minority", "not minority", "not majority", "all") for y in (TWO, THREE)],
    *[("majority", TWO), ("some", TWO), ("auto", np.ones(5)), ([1], TWO), (None, TWO), (True, TWO)],
    *[(ratio, TWO) for ratio in (1.0, 0.7, 0.36, 0.35, 0.2, 0.0, -0.5, 1.5)],
    (0.9, THREE),
    *[({"a": 20, "c": 9}, THREE), ({"c": 5}, THREE), ({"c": 4}, THREE), ({"d": 9}, THREE), ({"c": -1}, THREE)],
    (lambda y: dict.fromkeys(np.unique(y), 30), THREE),
    (lambda y: {"c": 1}, THREE),
]


@pytest.mark.parametrize(("strategy", "y"), STRATEGIES, ids=lambda value: repr(value)[:20])
def test_strategies_mean_what_they_mean_to_imbalanced_learn(strategy, y):
    theirs = pytest.importorskip("imblearn.utils").check_sampling_strategy
    try:
        expected = theirs(strategy, y, "over-sampling")
    except ValueError:
        expected = None
    if expected is None or not isinstance(strategy, (str, float, dict)) and not callable(strategy):
        with pytest.raises(ValueError, match=r"sampling_strategy|class"):
            rows_to_add(strategy, y)
    else:
        assert rows_to_add(strategy, y) == dict(expected)


def test_it_works_without_imbalanced_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn", None)
    X, y = two_classes()
    _, y_more = FlowMatchingOverSampler(TINY, sampling_strategy={1: 30}, random_state=0).fit_resample(X, y)
    assert np.bincount(y_more).tolist() == [40, 30]


def test_it_takes_part_in_imbalanced_learns_pipeline():
    pipeline = pytest.importorskip("imblearn.pipeline")
    from sklearn.dummy import DummyClassifier
    from sklearn.model_selection import cross_val_score

    X, y = two_classes()
    model = pipeline.make_pipeline(FlowMatchingOverSampler(TINY, random_state=0), DummyClassifier(strategy="prior"))
    np.testing.assert_allclose(model.fit(X, y).predict_proba(X[:1]), [[0.5, 0.5]])
    assert cross_val_score(model, X, y, cv=3).mean() == pytest.approx(40 / 48, abs=0.01)  # scored on real rows alone


def test_real_rows_come_first_and_a_mixed_frame_stays_what_it_is():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    n = 60
    X = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n).astype("int16"),
            "income": np.where(rng.random(n) < 0.5, np.nan, rng.lognormal(3, 1, n)).astype("float32"),
            "sex": pd.Categorical(rng.choice(["f", "m"], n)),
            "city": rng.choice(["x", "y", "z"], n).astype(object),
            "member": rng.random(n) < 0.3,
            "grade": pd.array(rng.integers(0, 5, n), dtype="Int64"),
        },
        index=rng.permutation(n) + 1000,
    )
    y = pd.Series(np.where(np.arange(n) < 12, "bad", "good"), name="risk", index=X.index, dtype="category")
    X_more, y_more = FlowMatchingOverSampler(TINY, random_state=0).fit_resample(X, y)
    pd.testing.assert_frame_equal(X_more.iloc[:n], X.reset_index(drop=True))
    pd.testing.assert_series_equal(y_more.iloc[:n], y.reset_index(drop=True))
    assert (y_more.value_counts() == 48).all()
    assert len(X_more) == len(y_more) == 96
    new = X_more.iloc[n:]
    assert set(new["city"]) <= {"x", "y", "z"}
    assert 0.2 < new["income"].isna().mean() < 0.8, "complete rows would be told from real ones by that alone"
    assert not new.drop(columns="income").isna().any(axis=None)


def test_new_rows_look_like_their_class():
    X, y = two_classes(n_common=150, n_rare=30)
    generator = FlowMatchingGenerator(max_iter=80, batch_size=64, n_steps=5, device="cpu")
    X_more, y_more = FlowMatchingOverSampler(generator, min_odds=None, random_state=0).fit_resample(X, y)
    new = X_more[len(X) :]
    assert (y_more[len(X) :] == 1).all()
    nearer = np.linalg.norm(new - 6, axis=1) < np.linalg.norm(new, axis=1)
    assert nearer.mean() > 0.8  # 30 of 180 real rows are


def test_the_seed_decides_what_is_drawn():
    X, y = two_classes()
    first, again, other = (
        FlowMatchingOverSampler(TINY, random_state=seed).fit_resample(X, y)[0][len(X) :] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


class Normals(BaseEstimator):
    """A generator that knows the law: class k is normal around 2k."""

    def fit(self, X, y, sample_weight=None):
        return self

    def sample(self, n_samples, y, random_state):
        return 2.0 * np.asarray(y, float)[:, None] + random_state.standard_normal((n_samples, 1))

    def score_samples(self, X, y):
        return norm.logpdf(X[:, 0], 2.0 * np.asarray(y, float))


def test_rows_that_could_be_of_another_class_are_drawn_anew_three_times():
    X, y = np.zeros((5010, 1)), np.repeat([0, 1], [5000, 10])
    unclear = norm.cdf(1 + np.log(10) / 2, loc=2)  # the odds are exp(2 x - 2)
    for min_odds, tries in ((None, 1), (10.0, 4)):
        more, _ = FlowMatchingOverSampler(Normals(), min_odds=min_odds, random_state=0).fit_resample(X, y)
        odds = np.exp(2 * more[5010:, 0] - 2)
        assert (odds < 10).mean() == pytest.approx(unclear**tries, abs=0.02)
    three = np.repeat([0, 1, 2], [5000, 10, 2000])
    more, labels = FlowMatchingOverSampler(Normals(), random_state=0).fit_resample(np.zeros((7010, 1)), three)
    middle = more[7010:][labels[7010:] == 1, 0]
    best = norm.cdf([1.5, 2.5], loc=2)  # no row between two classes is ten times likelier: the best of four stays
    assert ((middle > 1.5) & (middle < 2.5)).mean() == pytest.approx(1 - (1 - np.ptp(best)) ** 4, abs=0.03)


def test_a_class_with_one_row_works_and_warns():
    X, y = two_classes(n_rare=1)
    with pytest.warns(UserWarning, match="a single row"):
        X_more, _ = FlowMatchingOverSampler(TINY, random_state=0).fit_resample(X, y)
    assert len(X_more) == 80


def test_balanced_classes_get_no_rows_and_train_nothing():
    X, y = two_classes(n_rare=40)
    sampler = FlowMatchingOverSampler(Untrainable(), random_state=0)
    X_same, y_same = sampler.fit_resample(X, y)
    np.testing.assert_array_equal(X_same, X)
    np.testing.assert_array_equal(y_same, y)
    assert sampler.generator_ is None


@pytest.mark.filterwarnings("ignore:.* have a single row:UserWarning")
def test_many_whole_numbers_are_classes_unless_it_is_said():
    X, _ = two_classes(n_common=50, n_rare=10)
    y = np.r_[np.arange(40), np.arange(20)]
    X_more, y_more = FlowMatchingOverSampler(TINY, target="classes", random_state=0).fit_resample(X, y)
    assert len(X_more) == 80
    assert np.bincount(y_more).tolist() == [2] * 40
    sampler = FlowMatchingOverSampler(TINY, target="numbers", sampling_strategy=0.25, random_state=0)
    _, y_more = sampler.fit_resample(X, y)
    assert y_more.dtype == y.dtype
    assert len(y_more) == 75
    assert sampler.sampling_strategy_ == 15


def test_new_targets_fill_up_the_density_of_a_normal_law_to_one_level():
    y = np.random.default_rng(0).normal(size=20_000)
    drawn = sparse_targets(y, 20_000, np.random.RandomState(0))
    edges = np.linspace(-2, 2, 9)
    before, new = (np.histogram(values, edges)[0] for values in (y, drawn))
    assert before.max() / before.min() > 4
    assert new[3:5].max() < 0.05 * new.max()  # nothing where there is most
    level = (before + new)[new > 0.1 * new.max()]
    assert level.max() / level.min() < 1.15


def test_new_targets_stay_near_observed_ones_and_weights_count_as_repetitions():
    rng = np.random.default_rng(0)
    y = np.r_[rng.normal(0, 0.1, 200), rng.normal(5, 0.1, 10)]
    drawn = sparse_targets(y, 100, np.random.RandomState(0))
    assert drawn.min() >= y.min()
    assert drawn.max() <= y.max()
    assert ((drawn > 1) & (drawn < 4)).sum() == 0, "the gap is no sparse region"
    assert (drawn > 4).mean() > 0.6
    weight = np.r_[np.ones(200), np.full(10, 20.0)]  # the rare targets are no longer rare
    weighted = sparse_targets(y, 100, np.random.RandomState(0), weight)
    repeated = sparse_targets(np.repeat(y, weight.astype(int)), 100, np.random.RandomState(0))
    assert (weighted > 4).mean() == pytest.approx((repeated > 4).mean(), abs=0.1)
    assert (weighted > 4).mean() < 0.6


def test_new_rows_belong_to_their_numeric_target():
    rng = np.random.default_rng(0)
    y = rng.gamma(1.5, 1.0, 200)
    X = np.column_stack([y, -2 * y]) + rng.normal(0, 0.1, (200, 2))
    generator = FlowMatchingGenerator(max_iter=150, batch_size=128, n_steps=5, device="cpu")
    X_more, y_more = FlowMatchingOverSampler(generator, random_state=0).fit_resample(X, y)
    new, target = X_more[200:], y_more[200:]
    assert len(new) == 100
    np.testing.assert_array_equal(y_more[:200], y)
    assert np.median(target) > 1.5 * np.median(y)  # where rows were rare
    assert np.corrcoef(new[:, 0], target)[0, 1] > 0.9
    assert np.corrcoef(new[:, 1], target)[0, 1] < -0.9


X, Y = two_classes()
NUMBERS = Y + np.linspace(0.0, 0.5, len(Y))
BAD = {
    "infinite": (np.where(X > 7, np.inf, X), Y, {}, "infinity"),
    "lengths": (X, Y[:-1], {}, "inconsistent numbers of samples"),
    "no target": (X, None, {}, "requires y"),
    "missing target": (X, np.where(Y == 1, np.nan, 0.0), {}, "y contains NaN"),
    "None in target": (X, np.where(Y == 1, None, "a"), {}, "y contains None"),
    "several classes a row": (X, np.ones((len(Y), 2), int), {}, "Multilabel and multioutput"),
    "one-dimensional": (X[:, 0], Y, {}, "Expected 2D array"),
    "kind": (X, Y, {"target": "labels"}, "unknown target 'labels'"),
    "generator": (X, Y, {"generator": "gan"}, "generator must be None or have fit and sample"),
    "numbers as classes": (X, NUMBERS, {"target": "classes"}, "Unknown label type"),
    "text as numbers": (X, np.where(Y == 1, "b", "a"), {"target": "numbers"}, "needs a y of numbers"),
    "classes' strategy": (X, NUMBERS, {"sampling_strategy": "minority"}, "is for classes, and y holds numbers"),
    "negative": (X, NUMBERS, {"sampling_strategy": -1.0}, r"sampling_strategy must be a number in \(0"),
    "odds": (X, Y, {"min_odds": 0.0}, "min_odds must be a number"),
    "seed": (X, Y, {"random_state": "x"}, "random_state must be"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_input_is_named_before_training_starts(case):
    X, y, parameters, message = case
    with pytest.raises(ValueError, match=message):
        FlowMatchingOverSampler(**{"generator": Untrainable(), **parameters}).fit_resample(X, y)
