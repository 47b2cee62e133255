"""Categories that training has not seen: errors, missing entries, or anomalies."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, cross_val_score

from flowmatch import MLP, FlowAnomalyDetector, FlowMatchingGenerator, load

N = 120
RNG = np.random.RandomState(0)
TINY = {"network": MLP(8, 1), "max_iter": 5, "random_state": 0}


def frame():
    kind = RNG.choice(["a", "b", "c"], N)
    return pd.DataFrame(
        {
            "size": RNG.normal(size=N) + (kind == "a"),
            "kind": kind,
            "grade": pd.Categorical(RNG.choice(["lo", "hi"], N), ["lo", "mid", "hi"]),
            "code": RNG.choice([3, 5], N),
            "flag": pd.Series(RNG.choice([True, False], N), dtype=object),
            "same": "x",
        }
    )


X = frame()
UNKNOWN = {"kind": "new", "grade": "mid", "code": 4, "flag": 2, "same": "y"}


def with_unknown(name, row=0):
    table = X.head(10).astype(object if name == "flag" else X.dtypes)
    column = table[name].cat.add_categories(["other"]) if name == "grade" else table[name].astype(object)
    column[row] = "other" if name == "grade" and row else UNKNOWN[name]
    return table.assign(**{name: column})


def missing(name):
    table = X.head(10).copy()
    table[name] = table[name].astype(table[name].dtype if name == "grade" else object)
    table.loc[0, name] = None
    return table


@pytest.fixture(scope="module")
def strict():
    return FlowMatchingGenerator(**TINY, categorical_features=["code"]).fit(X)


@pytest.fixture(scope="module")
def lenient():
    return FlowMatchingGenerator(**TINY, categorical_features=["code"], unknown_categories="missing").fit(X)


@pytest.mark.parametrize("name", [name for name in UNKNOWN if name != "grade"])
def test_they_are_an_error_by_default(name, strict):
    for call in (strict.score_samples, strict.impute, strict.encode, strict.partial_fit):
        with pytest.raises(
            ValueError, match=f"column '{name}' of X holds .* in row 0, a category that training has not"
        ):
            call(with_unknown(name))


@pytest.mark.parametrize("name", UNKNOWN)
def test_they_count_as_missing_if_that_is_wanted(name, lenient, tmp_path):
    lenient.save(tmp_path / "model.safetensors")
    for model in (lenient, load(tmp_path / "model.safetensors")):
        density = model.score_samples(with_unknown(name))
        np.testing.assert_array_equal(density, model.score_samples(missing(name)))
        assert np.isfinite(density).all()
        np.testing.assert_array_equal(model.encode(with_unknown(name)), model.encode(missing(name)))


@pytest.mark.parametrize("name", UNKNOWN)
def test_imputation_leaves_them_where_they_are(name, lenient):
    table = with_unknown(name)
    table.loc[[0, 3], "size"] = np.nan
    filled = lenient.impute(table, random_state=0)
    assert filled["size"].notna().all()
    pd.testing.assert_frame_equal(filled.drop(columns="size"), table.drop(columns="size"))
    hidden = table.assign(**{name: missing(name)[name]})
    assert filled["size"][3] == lenient.impute(hidden, random_state=0)["size"][3]


def test_a_model_without_missing_entries_cannot_take_them_for_such(lenient):
    model = FlowMatchingGenerator(**TINY, unknown_categories="missing", masked_share=0.0).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    with pytest.raises(ValueError, match=r"column 1 of X holds a category .* fit with masked_share > 0"):
        model.score_samples(with_unknown("kind"))


def test_a_rare_category_no_longer_spoils_a_cross_validation():
    rare = X.assign(kind=["rare", *X["kind"][1:]], same=["y", *X["same"][1:]])
    model = FlowMatchingGenerator(**TINY, unknown_categories="missing")
    assert np.isfinite(cross_val_score(model, rare, cv=KFold(3), error_score="raise")).all()
    with pytest.warns(UserWarning, match="Scoring failed"):
        scores = cross_val_score(FlowMatchingGenerator(**TINY), rare, cv=KFold(3))
    assert np.isnan(scores).sum() == 1


MORE = [("combined", 3), ("likelihood", 1), ("neighbors", 2)]


@pytest.mark.parametrize(
    ("method", "n_folds"), [("one_step", 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
)
def test_a_detector_flags_them(method, n_folds, tmp_path):
    detector = FlowAnomalyDetector(**TINY, method=method, n_folds=n_folds, categorical_features=["code"]).fit(X)
    detector.save(tmp_path / "detector.safetensors")
    smallest = 1 / (1 + len(detector.calibration_.scores))
    for model in (detector, load(tmp_path / "detector.safetensors")):
        for name in UNKNOWN:
            table = with_unknown(name, row=2)
            assert model.predict(table)[2] == -1
            assert model.p_values(table)[2] == pytest.approx(smallest)
            others = np.arange(10) != 2
            np.testing.assert_allclose(
                model.score_samples(table)[others], model.score_samples(X.head(10))[others], rtol=1e-6
            )
            parts = model.explain(table)
            np.testing.assert_allclose(parts.sum(axis=1), -model.score_samples(table), rtol=1e-4)
            assert parts.loc[2].idxmax() == name


@pytest.mark.parametrize("name", ["kind", "code", "same"])
def test_a_detector_may_take_them_for_missing_or_refuse_them(name):
    detector = FlowAnomalyDetector(**TINY, n_folds=1, categorical_features=["code"], unknown_categories="missing").fit(
        X
    )
    np.testing.assert_array_equal(detector.score_samples(with_unknown(name)), detector.score_samples(missing(name)))
    detector.partial_fit(with_unknown(name))
    for unknown, calls in (("error", ("score_samples", "predict", "partial_fit")), ("flag", ("partial_fit",))):
        detector.set_params(unknown_categories=unknown)
        for call in calls:
            with pytest.raises(
                ValueError, match=f"column '{name}' of X holds .* in row 0, a category that training has not"
            ):
                getattr(detector, call)(with_unknown(name))


@pytest.mark.parametrize("kind", [FlowMatchingGenerator, FlowAnomalyDetector])
def test_other_names_are_refused(kind):
    with pytest.raises(ValueError, match="unknown_categories"):
        kind(unknown_categories="ignore").fit(X)
    if kind is FlowMatchingGenerator:
        with pytest.raises(ValueError, match="unknown_categories"):
            kind(unknown_categories="flag").fit(X)
