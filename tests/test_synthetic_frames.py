"""Frames of polars, and tables of other forms, in the over-sampler and the augmented models."""

import datetime as dt

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB

from flowmatch import (
    AugmentedClassifier,
    AugmentedRegressor,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    FlowMatchingOverSampler,
)
from flowmatch.networks import MLP

pl = pytest.importorskip("polars")
TINY = FlowMatchingGenerator(MLP(8, 1), max_iter=5)
N = 60
RNG = np.random.default_rng(0)
X = pl.DataFrame(
    {
        "age": RNG.integers(18, 80, N),
        "income": pl.Series(
            [None if k % 3 == 0 else round(v, 2) for k, v in enumerate(RNG.lognormal(3, 1, N).tolist())],
            dtype=pl.Float32,
        ),
        "sex": pl.Series(RNG.choice(["f", "m"], N), dtype=pl.Enum(["m", "f"])),
        "since": [dt.date(2024, 1, 1) + dt.timedelta(int(k)) for k in RNG.integers(0, 99, N)],
        "price": pl.Series([k / 4 for k in range(N)], dtype=pl.Decimal(8, 2)),
    }
)
Y = pl.Series("risk", np.where(np.arange(N) < 12, "bad", "good"))


@pytest.mark.parametrize(
    "labels", [Y, Y.cast(pl.Categorical), (Y == "bad").cast(pl.Int8)], ids=["text", "categories", "integers"]
)
def test_real_rows_come_first_and_a_frame_keeps_its_schema(labels):
    rows, y = FlowMatchingOverSampler(TINY, random_state=0).fit_resample(X, labels)
    assert rows.schema == X.schema
    assert rows[:N].equals(X)
    assert y.dtype == labels.dtype
    assert y.name == "risk"
    assert y[:N].equals(labels)
    assert y.value_counts()["count"].to_list() == [48, 48]
    assert 0 < rows["income"][N:].null_count() < 36
    assert rows[N:].drop("income").null_count().sum_horizontal()[0] == 0


def test_lazy_frames_and_numeric_targets_work_too():
    sampler = FlowMatchingOverSampler(TINY, target="numbers", sampling_strategy=0.5, random_state=0)
    rows, y = sampler.fit_resample(X.lazy(), pl.Series("size", RNG.normal(size=N)))
    assert rows.schema == X.schema
    assert len(rows) == len(y) == 90
    assert (y.name, y.dtype) == ("size", pl.Float64)
    assert sampler.feature_names_in_.tolist() == X.columns


def test_one_column_a_class_stays_a_frame():
    columns = pl.DataFrame({"bad": (Y == "bad").cast(pl.UInt8), "good": (Y == "good").cast(pl.UInt8)})
    _, y = FlowMatchingOverSampler(TINY, random_state=0).fit_resample(X, columns)
    assert y.schema == columns.schema
    assert y.sum().row(0) == (48, 48)


def test_balanced_classes_get_the_same_frame():
    rows, y = FlowMatchingOverSampler(TINY).fit_resample(X, pl.Series([0, 1] * (N // 2)))
    assert rows.equals(X)
    assert len(y) == N


@pytest.mark.parametrize("form", ["arrow", "dict", "rows"])
def test_other_forms_come_back(form):
    if form == "arrow":
        pytest.importorskip("pyarrow")
    columns = X.select("age", "since")
    table = {"arrow": columns.to_arrow, "dict": lambda: columns.to_dict(as_series=False), "rows": columns.to_dicts}[
        form
    ]()
    rows, y = FlowMatchingOverSampler(TINY, random_state=0).fit_resample(table, Y.to_list())
    assert type(rows) is type(table)
    back = pl.from_arrow(rows) if form == "arrow" else pl.DataFrame(rows)
    assert back.schema == columns.schema
    assert back[:N].equals(columns)
    assert len(back) == len(y) == 96


def test_augmented_models_take_them():
    numbers = X.select("age", pl.col("price").cast(pl.Float64))
    classifier = AugmentedClassifier(GaussianNB(), TINY, 1.0, random_state=0).fit(numbers, Y)
    assert classifier.n_synthetic_ == 36
    assert classifier.predict(numbers).shape == (N,)
    assert classifier.feature_names_in_.tolist() == ["age", "price"]
    regressor = AugmentedRegressor(Ridge(), TINY, 0.5, random_state=0).fit(numbers, numbers["price"])
    assert regressor.predict(numbers).shape == (N,)


def test_explanations_of_a_detector_are_frames_too():
    detector = FlowAnomalyDetector(MLP(8, 1), max_iter=3, random_state=0).fit(X)
    parts = detector.explain(X)
    assert parts.columns == X.columns
    np.testing.assert_allclose(parts.sum_horizontal().to_numpy(), -detector.score_samples(X), rtol=1e-5)


def test_masked_entries_are_missing():
    table = np.ma.masked_array(RNG.normal(size=(N, 2)), np.arange(2 * N).reshape(N, 2) % 7 == 0)
    rows, _ = FlowMatchingOverSampler(TINY, random_state=0).fit_resample(table, Y.to_list())
    np.testing.assert_array_equal(np.isnan(rows[:N]), table.mask)
    assert np.isnan(rows[N:]).any()
