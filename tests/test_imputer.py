"""FlowImputer: missing entries filled in front of any model, in whatever a table came in."""

import functools
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student_t
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from test_common import assert_the_battery_passes

from flowmatch import MLP, DistilledFlowMap, FlowImputer, FlowMatchingGenerator

TINY = {"network": MLP(width=8, depth=1), "max_iter": 5, "batch_size": 32, "n_steps": 2, "device": "cpu"}
RNG = np.random.default_rng(0)
N = 60
WHOLE = pd.DataFrame(
    {
        "size": RNG.normal(size=N),
        "count": RNG.integers(0, 9, N),
        "kind": RNG.choice(["a", "b", "c"], N),
        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 30, N), "D"),
        "empty": np.nan,
        "member": RNG.random(N) < 0.5,
    },
    index=np.arange(N) + 100,
).astype({"count": "Int64", "member": "boolean"})
GAPS = (RNG.random((N, 6)) < 0.25) & (np.arange(6) < 4)
HOLES = WHOLE.mask(GAPS)
NUMBERS = HOLES[["size", "count", "empty"]].astype(float).to_numpy()


def imputer(estimator=None, **parameters):
    return FlowImputer(
        FlowMatchingGenerator(**TINY) if estimator is None else estimator, **{"random_state": 0, **parameters}
    )


def polars_table():
    pl = pytest.importorskip("polars")
    columns = {
        name: [
            None if pd.isna(entry) else getattr(entry, "to_pydatetime", lambda entry=entry: entry)() for entry in column
        ]
        for name, column in HOLES.astype(object).items()
    }
    return pl.DataFrame(columns, schema_overrides={"empty": pl.Float64})


CONTAINERS = {
    "pandas": lambda: HOLES,
    "polars": polars_table,
    "numpy": lambda: NUMBERS,
    "float32": lambda: NUMBERS.astype(np.float32),
    "list": NUMBERS.tolist,
    "torch": lambda: torch.tensor(NUMBERS),
    "objects": lambda: HOLES[["size", "kind", "empty"]].to_numpy(dtype=object, na_value=None),
}


def as_array(X):
    return X.to_numpy(dtype=object, na_value=None) if hasattr(X, "iloc") else np.asarray(X)


def missing(X):
    return np.asarray(pd.isna(pd.DataFrame(as_array(X))))


# -- scikit-learn's manners ----------------------------------------------------------------------------------------------------


def test_scikit_learns_battery_passes_whole():
    assert_the_battery_passes(imputer())


@pytest.mark.slow
def test_scikit_learns_battery_passes_for_best_guesses_with_indicators():
    assert_the_battery_passes(imputer(n_imputations=2, sample_posterior=False, add_indicator=True))


def test_a_clone_and_a_pickle_are_the_same():
    fitted = imputer(add_indicator=True).fit(HOLES)
    pd.testing.assert_frame_equal(clone(fitted).fit_transform(HOLES), fitted.transform(HOLES))
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(fitted)).transform(HOLES), fitted.transform(HOLES))
    assert fitted.estimator_ is not fitted.estimator
    with pytest.raises(NotFittedError):
        clone(fitted).transform(HOLES)


# -- what comes back -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_table_comes_back_in_its_container_with_its_own_entries(container):
    X = CONTAINERS[container]()
    filled = imputer().fit_transform(X)
    assert type(filled) is (np.ndarray if container == "list" else type(X))
    before, after = as_array(X), as_array(filled)
    kept = ~missing(X).all(axis=0)
    assert after.shape == (N, kept.sum())
    there = ~missing(X)[:, kept]
    assert (before[:, kept][there] == after[there]).all()
    assert not missing(filled).any()
    assert (~there).any()
    if container == "pandas":
        pd.testing.assert_index_equal(filled.index, HOLES.index)
        assert list(filled.dtypes) == list(HOLES.drop(columns="empty").dtypes)
        assert filled["count"].between(0, 8).all()
        assert set(filled["kind"]) == {"a", "b", "c"}
    if container in ("float32", "torch"):
        assert filled.dtype == X.dtype


@pytest.mark.parametrize("container", CONTAINERS)
def test_indicators_tell_what_was_missing_and_empty_columns_may_stay(container):
    X = CONTAINERS[container]()
    model = imputer(add_indicator=True, keep_empty_features=True)
    filled = model.fit_transform(X)
    holes = missing(X)
    marks = as_array(filled)[:, holes.shape[1] :].astype(bool)
    np.testing.assert_array_equal(marks, holes[:, holes.any(axis=0)])
    assert marks.shape[1] == holes.any(axis=0).sum() > 1
    empty = holes.all(axis=0)
    assert missing(filled)[:, : holes.shape[1]].all(axis=0).tolist() == empty.tolist()
    names = model.get_feature_names_out()
    assert len(names) == as_array(filled).shape[1]
    if hasattr(filled, "columns"):
        assert list(filled.columns) == list(names)


def test_names_are_those_of_the_columns():
    model = imputer(add_indicator=True).fit(HOLES)
    assert list(model.get_feature_names_out()) == [
        *("size", "count", "kind", "day", "member"),
        *(f"missingindicator_{name}" for name in ("size", "count", "kind", "day", "empty")),
    ]
    of_numbers = imputer().fit(NUMBERS)
    assert list(of_numbers.get_feature_names_out()) == ["x0", "x1"]
    assert list(of_numbers.get_feature_names_out(["a", "b", "c"])) == ["a", "b"]
    assert list(imputer(keep_empty_features=True).fit(NUMBERS).get_feature_names_out()) == ["x0", "x1", "x2"]
    with pytest.raises(ValueError, match="input_features"):
        model.get_feature_names_out(["a", "b"])


@pytest.mark.parametrize("container", ["polars", "numpy", "torch", "objects"])
@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_set_output_chooses_the_container(container, output):
    library = pytest.importorskip(output)
    model = imputer(add_indicator=True).set_output(transform=output)
    filled = model.fit_transform(CONTAINERS[container]())
    assert isinstance(filled, library.DataFrame)
    assert list(filled.columns) == list(model.get_feature_names_out())
    assert len(filled) == N


def test_gaps_that_fit_has_not_seen_are_filled_and_other_columns_refused():
    model = imputer().fit(WHOLE)
    filled = model.transform(HOLES)
    assert not filled.isna().any().any()
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(HOLES.rename(columns={"size": "length"}))
    with pytest.raises(ValueError, match="has 2 features, but FlowImputer is expecting 3 features"):
        imputer().fit(NUMBERS).transform(NUMBERS[:, :2])
    with pytest.raises(ValueError, match="'kind'.*'z'.*training has not seen"):
        model.transform(HOLES.assign(kind="z"))


def test_nothing_to_fill_leaves_a_table_as_it_is():
    table = WHOLE.drop(columns="empty")
    pd.testing.assert_frame_equal(imputer().fit_transform(table), table)


# -- draws and guesses ---------------------------------------------------------------------------------------------------------


def test_draws_are_as_the_generator_gives_them_and_reproducible():
    model = imputer(n_imputations=3).fit(HOLES)
    tables = model.impute(HOLES)
    assert len(tables) == 3
    pd.testing.assert_frame_equal(model.transform(HOLES), tables[0])
    pd.testing.assert_frame_equal(model.transform(HOLES.head(9)), tables[0].head(9))  # whatever stands below
    assert not tables[0].equals(tables[1])
    other = imputer(random_state=1).fit(HOLES).transform(HOLES)
    assert not other.equals(tables[0])
    assert len(imputer().fit(HOLES).impute(HOLES)) == 1
    first, second = (FlowImputer(FlowMatchingGenerator(**TINY)).fit_transform(HOLES) for _ in range(2))
    assert not first.equals(second)


def test_best_guesses_are_the_means_and_most_frequent_categories_of_the_draws():
    model = imputer(n_imputations=25, sample_posterior=False).fit(HOLES)
    guess, draws = model.transform(HOLES), model.impute(HOLES)
    gaps = HOLES.isna()
    sizes = np.mean([draw["size"] for draw in draws], axis=0)
    np.testing.assert_allclose(guess["size"][gaps["size"]], sizes[gaps["size"]])
    counts = np.mean([draw["count"].astype(float) for draw in draws], axis=0)
    np.testing.assert_array_equal(guess["count"][gaps["count"]].astype(float), np.round(counts[gaps["count"]]))
    kinds = pd.concat([draw["kind"] for draw in draws], axis=1).mode(axis=1)[0]
    assert (guess["kind"] == kinds).all()
    days = pd.concat([draw["day"] for draw in draws], axis=1).mean(axis=1).dt.round("D")
    assert (guess["day"] - days).abs().max() <= pd.Timedelta(1, "D")
    assert guess["size"].std() < draws[0]["size"].std()


@functools.cache
def related():
    """Two columns with correlation .9, of which the second misses a third."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=500)
    table = np.column_stack([x, 0.9 * x + np.sqrt(1 - 0.81) * rng.normal(size=500)])
    holes = table.copy()
    holes[rng.random(500) < 0.35, 1] = np.nan
    model = FlowImputer(
        FlowMatchingGenerator(MLP(width=32), max_iter=300, device="cpu"), n_imputations=20, random_state=0
    )
    return table, holes, model.fit(holes)


def test_a_draw_keeps_the_relation_and_a_guess_is_nearer():
    table, holes, model = related()
    gaps = np.isnan(holes[:, 1])
    draw, guess = model.transform(holes), clone(model).set_params(sample_posterior=False).fit(holes).transform(holes)
    errors = [np.sqrt(np.mean((filled - table)[gaps, 1] ** 2)) for filled in (draw, guess)]
    assert errors[1] < 0.52  # of sqrt(1 - .81) = .44
    assert errors[0] == pytest.approx(np.sqrt(2) * 0.44, abs=0.12)
    assert np.corrcoef(draw[gaps].T)[0, 1] == pytest.approx(0.9, abs=0.06)
    assert errors[1] < KNNImputer().fit_transform(holes)[gaps, 1].std()


# -- in front of models --------------------------------------------------------------------------------------------------------


def test_it_works_in_pipelines_searches_and_column_transformers():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    y = X.sum(axis=1)
    X[rng.random(X.shape) < 0.2] = np.nan
    pipeline = make_pipeline(imputer(), StandardScaler(), Ridge())
    assert np.isfinite(cross_val_score(pipeline, X, y, cv=2)).all()
    search = GridSearchCV(pipeline, {"flowimputer__estimator__max_iter": [2, 4]}, cv=2).fit(X, y)
    assert search.best_estimator_.named_steps["flowimputer"].estimator_.n_iter_ in (2, 4)
    columns = ColumnTransformer([("fill", imputer(), ["size", "count"]), ("code", OneHotEncoder(), ["kind"])])
    assert columns.fit_transform(HOLES.assign(kind=WHOLE["kind"])).shape == (N, 5)


def test_the_target_is_ignored():
    plain, with_target = imputer().fit(HOLES), imputer().fit(HOLES, np.arange(N))
    pd.testing.assert_frame_equal(plain.transform(HOLES), with_target.transform(HOLES))


def test_fitted_generators_and_students_fill_too():
    table = HOLES.drop(columns="empty")
    generator = FlowMatchingGenerator(**TINY, random_state=0).fit(table)
    frozen = imputer(FrozenEstimator(generator)).fit(table)
    assert frozen.estimator_.estimator is generator
    assert not frozen.transform(table).isna().any().any()
    student = imputer(DistilledFlowMap(FlowMatchingGenerator(**TINY), max_iter=3, n_pairs=50)).fit(table)
    assert not student.transform(table).isna().any().any()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_imputations": 0}, "n_imputations must be an integer >= 1, got 0"),
        ({"sample_posterior": False}, "sample_posterior=False fills entries with the mean of several draws, but n_imputations=1"),
        ({"estimator": Ridge()}, r"estimator must have impute, such as a FlowMatchingGenerator; got Ridge\(\)"),
        ({"estimator": FlowMatchingGenerator(masked_share=0.0, **TINY)}, "masked_share > 0"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named_before_training(parameters, message, monkeypatch):
    monkeypatch.setattr(FlowMatchingGenerator, "fit", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        imputer(**parameters).fit(HOLES)


def test_a_table_without_any_entry_is_refused():
    with pytest.raises(ValueError, match="no column of X has an entry"):
        imputer().fit(np.full((5, 2), np.nan))


def test_it_beats_a_constant_in_front_of_a_linear_model():
    table, holes, model = related()
    slope = LinearRegression().fit(model.transform(holes)[:, :1], model.transform(holes)[:, 1]).coef_[0]
    filled = SimpleImputer().fit_transform(holes)
    of_constant = LinearRegression().fit(filled[:, :1], filled[:, 1]).coef_[0]
    assert abs(slope - 0.9) < 0.1 < abs(of_constant - 0.9)


# -- pooled results ------------------------------------------------------------------------------------------------------------


@functools.cache
def recipe():
    """The function of the guide."""
    guide = (Path(__file__).parent.parent / "docs" / "tables.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "def pool(" in block)
    names = {}
    exec(code.split("\n\n\n# ")[0], names)
    return names["pool"]


def test_the_recipe_pools_by_rubins_rules():
    """Rubin (1987), chapter 3, and Barnard and Rubin (1999) for the degrees of freedom."""
    estimates, errors, m = np.array([2.0, 2.4, 1.8, 2.2]), np.array([0.5, 0.55, 0.45, 0.5]), 4
    mean, error, low, high = recipe()(estimates, errors, n_rows=100)
    within, between = 0.25125, np.var(estimates, ddof=1)
    total = within + 1.25 * between
    assert mean == pytest.approx(2.1)
    assert error == pytest.approx(np.sqrt(total))
    share = 1.25 * between / total
    degrees, observed = (m - 1) / share**2, 100 / 102 * 99 * (1 - share)
    degrees = 1 / (1 / degrees + 1 / observed)
    width = student_t.ppf(0.975, degrees) * error
    assert (low, high) == pytest.approx((mean - width, mean + width))


def test_equal_results_pool_to_themselves():
    mean, error, low, high = recipe()([1.0, 1.0, 1.0], [0.2, 0.2, 0.2], n_rows=10_000)
    assert (mean, error) == (1.0, pytest.approx(0.2))
    assert high - low == pytest.approx(2 * 1.96 * 0.2, rel=0.01)


def test_pooled_errors_are_larger_than_those_of_one_filled_table_and_cover_the_truth():
    _, holes, model = related()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = model.impute(holes)
    results = [(table[:, 1].mean(), table[:, 1].std(ddof=1) / np.sqrt(500)) for table in tables]
    mean, error, low, high = recipe()(*zip(*results, strict=True), n_rows=500)
    assert error > np.mean([one for _, one in results])
    assert low < 0.0 < high
    assert abs(mean) < 0.15
