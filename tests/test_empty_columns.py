"""Columns without a value are kept, come back missing, and what stands in them later is not looked at."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, cross_val_score

from flowmatch import MLP, FlowAnomalyDetector, FlowMatchingGenerator, FlowMatchingOverSampler, load
from flowmatch.tables.table import TableContainer

N = 40
RNG = np.random.RandomState(0)
EMPTY = {
    "float": pd.Series([np.nan] * N),
    "objects": pd.Series([None] * N, dtype=object),
    "NaN objects": pd.Series([np.nan] * N, dtype=object),
    "Int64": pd.Series([pd.NA] * N, dtype="Int64"),
    "boolean": pd.Series([pd.NA] * N, dtype="boolean"),
    "string": pd.Series([pd.NA] * N, dtype="string"),
    "dates": pd.Series(pd.to_datetime([None] * N)),
    "dates with a zone": pd.Series(pd.to_datetime([None] * N)).dt.tz_localize("Europe/Berlin"),
    "durations": pd.Series(pd.to_timedelta([None] * N)),
    "categories": pd.Series(pd.Categorical([None] * N, ["a", "b"])),
    "no categories": pd.Series(pd.Categorical([None] * N)),
    "periods": pd.Series(pd.PeriodIndex([None] * N, freq="M")),
}
LATER = {
    "float": 1.5,
    "objects": "x",
    "NaN objects": dt.date(2024, 1, 1),
    "Int64": 7,
    "boolean": True,
    "string": "x",
    "dates": pd.Timestamp("2024-01-01"),
    "dates with a zone": pd.Timestamp("2024-01-01", tz="UTC"),
    "durations": pd.Timedelta("1h"),
    "categories": "a",
    "no categories": "c",
    "periods": pd.Period("2024-01", "M"),
}


def frame():
    return pd.DataFrame({"size": RNG.normal(size=N), "kind": RNG.choice(["a", "b"], N), **EMPTY})


def generator(**parameters):
    return FlowMatchingGenerator(MLP(8, 1), max_iter=3, random_state=0, **parameters)


@pytest.mark.parametrize("masked_share", [0.0, 0.3])
def test_a_generator_keeps_them(masked_share, tmp_path):
    X = frame()
    model = generator(masked_share=masked_share).fit(X)
    assert model.model_.code_shape == (2,)
    model.save(tmp_path / "model.safetensors")
    for each in (model, load(tmp_path / "model.safetensors")):
        for missing in ("complete", "as_trained"):
            rows = each.sample(9, missing=missing, random_state=0)
            pd.testing.assert_series_equal(rows.dtypes, X.dtypes)
            assert rows[list(EMPTY)].isna().all(axis=None)
            assert rows[["size", "kind"]].notna().all(axis=None)
        assert rows["NaN objects"].map(type).eq(float).all()
        assert rows["objects"].map(type).eq(type(None)).all()
        density = each.score_samples(X)
        assert np.isfinite(density).all()
        later = X.assign(**{name: [value] * N for name, value in LATER.items()})
        np.testing.assert_array_equal(each.score_samples(later), density)
    model.partial_fit(X)


def test_imputation_leaves_them_as_they_are():
    X = frame()
    X.loc[3, "size"], X.loc[4, "kind"] = np.nan, None
    filled = generator().fit(X).impute(X, random_state=0)
    assert filled[["size", "kind"]].notna().all(axis=None)
    assert filled[list(EMPTY)].isna().all(axis=None)
    pd.testing.assert_series_equal(filled.dtypes, X.dtypes)


@pytest.mark.parametrize("name", ["float", "categories", "dates", "objects"])
def test_nothing_can_be_given_in_them(name):
    with pytest.raises(ValueError, match=rf"given\['{name}'\]"):
        generator().fit(frame()).sample(given={name: LATER[name]})


@pytest.mark.parametrize(
    "X",
    [
        np.column_stack([RNG.normal(size=(N, 2)), np.full(N, np.nan)]),
        np.column_stack([RNG.normal(size=(N, 2)), np.full(N, None)]),
        pytest.param("polars", id="polars"),
        pytest.param("disk", id="memory map"),
    ],
)
def test_in_other_containers_too(X, tmp_path):
    values = np.column_stack([RNG.normal(size=(N, 2)), np.full(N, np.nan)])
    if isinstance(X, str) and X == "disk":
        np.save(tmp_path / "X.npy", values)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    elif isinstance(X, str):
        pl = pytest.importorskip("polars")
        X = pl.DataFrame(values[:, :2], schema=["a", "b"]).with_columns(
            pl.lit(None).alias("null"), pl.lit(None, pl.String).alias("text"), pl.lit(None, pl.Time).alias("time"),
            pl.lit(None, pl.Int32).alias("int"), pl.lit(None, pl.Categorical).alias("kind"),
        )  # fmt: skip
    rows = generator().fit(X).sample(5, random_state=0)
    if hasattr(X, "schema"):
        assert rows.schema == X.schema
        assert rows[:, 2:].null_count().sum_horizontal()[0] == 25
    else:
        assert pd.isna(rows[:, 2]).all()
        assert not pd.isna(rows[:, :2]).any()


def rare():
    """A table of which some folds hold all values of several columns."""
    X = pd.DataFrame({"size": RNG.normal(size=N), "number": np.nan, "text": None, "day": pd.NaT, "kind": None})
    X["kind"] = X["kind"].astype(pd.CategoricalDtype(["u", "v"]))
    X["text"], X["day"] = X["text"].astype(object), X["day"].astype("datetime64[s]")
    X.loc[:7, "number"], X.loc[:7, "text"] = np.arange(8.0), list("abababab")
    X.loc[:7, "day"], X.loc[:7, "kind"] = pd.Timestamp("2024-01-01"), list("uvuvuvuv")
    return X


def test_a_fold_may_empty_columns():
    scores = cross_val_score(generator(), rare(), cv=KFold(5), error_score="raise")
    assert np.isfinite(scores).all()


MORE = ("likelihood", "rebuilding", "reconstruction", "neighbors")


@pytest.mark.parametrize("method", ["combined", "one_step", *(pytest.param(m, marks=pytest.mark.slow) for m in MORE)])
def test_a_detector_keeps_them(method, tmp_path):
    X = rare()
    X["nothing"] = np.nan
    detector = FlowAnomalyDetector(MLP(8, 1), method=method, max_iter=3, n_folds=5, random_state=0).fit(X)
    detector.save(tmp_path / "detector.safetensors")
    later = X.assign(nothing=1.0)
    for each in (detector, load(tmp_path / "detector.safetensors")):
        scores = each.score_samples(X)
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(each.score_samples(later), scores)
        np.testing.assert_allclose(each.explain(X).to_numpy().sum(axis=1), -scores, rtol=1e-4)
        assert (each.explain(X)["nothing"] == 0).all()


def test_weights_may_empty_a_column():
    X, weight = rare(), np.r_[np.zeros(8), np.ones(N - 8)]
    model = generator().fit(X, sample_weight=weight)
    assert model.sample(4, random_state=0)[["number", "text", "day", "kind"]].isna().all(axis=None)
    assert np.isfinite(model.score_samples(X)).all()


def test_an_over_sampler_keeps_them():
    X = rare().drop(columns="kind")
    rows, y = FlowMatchingOverSampler(generator(), random_state=0).fit_resample(
        X.assign(nothing=np.nan), np.r_[np.zeros(30), np.ones(10)]
    )
    assert len(rows) == len(y) == 60
    assert rows["nothing"].isna().all()


def test_columns_of_objects_come_back_with_their_own_mark():
    X = np.array([[1.0, None], [2.0, None]], dtype=object)
    container = TableContainer.fit(X)
    assert container.kinds == ("number", "empty")
    assert container.wrap(container.read(X)).tolist() == X.tolist()
