"""Conditions of every type: what is an amount to the network comes back as what it is to the user."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from flowmatch import MLP, FlowAnomalyDetector, FlowMatchingGenerator, load

N = 40
X = np.random.RandomState(0).normal(size=(N, 2))
DAYS = pd.date_range("2024-01-01", periods=N)
MOMENTS = pd.date_range("2024-03-30 22:00", periods=N, freq="h", tz="Europe/Berlin")
LARGE = 2**60 + 3 * np.arange(N)


def polars(values, dtype=None):
    return lambda: pytest.importorskip("polars").Series("when", values, dtype=dtype)


def polars_frame():
    pl = pytest.importorskip("polars")
    return pl.DataFrame({"day": DAYS.to_list(), "kind": ["a", "b"] * (N // 2), "size": np.arange(N) / 7})


AMOUNTS = {
    "dates of numpy": lambda: DAYS.to_numpy().astype("M8[D]"),
    "nanoseconds": lambda: np.arange(N).astype("M8[ns]"),
    "two dates": lambda: pd.Series(DAYS[:2].repeat(N // 2)),
    "a Series": lambda: pd.Series(DAYS, name="when"),
    "time zones": lambda: pd.Series(MOMENTS, name="when"),
    "days of a time zone": lambda: pd.Series(DAYS.tz_localize("Europe/Berlin"), name="when"),
    "durations": lambda: pd.Series(pd.to_timedelta(np.arange(N), unit="h")),
    "dates of Python": lambda: np.array([day.date() for day in DAYS], dtype=object),
    "times": lambda: np.array([dt.time(k // 2, 30 * (k % 2)) for k in range(N)], dtype=object),
    "months": lambda: pd.Series(pd.period_range("2020-01", periods=N, freq="M")),
    "decimals": lambda: pd.Series([Decimal(25 * k).scaleb(-2) for k in range(N)], dtype=object),
    "int64": lambda: LARGE,
    "dates of polars": polars(DAYS.to_list()),
    "time zones of polars": polars(MOMENTS.to_list()),
    "integers of polars": polars(LARGE.tolist()),
    "a frame": lambda: pd.DataFrame({"day": DAYS, "size": np.arange(N) / 7}),
    "a frame of integers": lambda: pd.DataFrame({"large": LARGE, "day": DAYS}),
    "a frame with labels": lambda: pd.DataFrame({"moment": MOMENTS, "kind": ["a", "b"] * (N // 2)}),
    "a frame of polars": polars_frame,
}
LABELS = {
    "integers of polars": polars([2**62, 2**62 + 1] * (N // 2)),
    "text of polars": polars(["a", "b"] * (N // 2)),
    "Enum of polars": lambda: polars(["a", "b"] * (N // 2))().cast(pytest.importorskip("polars").Enum(["b", "a"])),
    "booleans of polars": polars([True, False] * (N // 2)),
    "large integers": lambda: pd.Series([2**62, 2**62 + 1] * (N // 2)),
    "large integers far apart": lambda: np.array([0, 2**63 - 1] * (N // 2)),
    "intervals": lambda: pd.Series(pd.cut(np.arange(N), 2)).cat.as_unordered(),
    "categories of dates": lambda: pd.Series(DAYS[:2].repeat(N // 2)).astype("category"),
    "categories with a zone": lambda: pd.Series(MOMENTS[:2].repeat(N // 2)).astype("category"),
    "categories of durations": lambda: pd.Series(pd.to_timedelta([1, 2] * (N // 2), unit="h")).astype("category"),
    "UUIDs": lambda: np.array([uuid.UUID(int=k) for k in (5, 7)] * (N // 2), dtype=object),
    "bytes": lambda: np.array([b"a", b"b\xff"] * (N // 2)),
    "integers beyond 64 bits": lambda: np.array([2**70, 2**70 + 1] * (N // 2), dtype=object),
}


def generator(y, **parameters):
    return FlowMatchingGenerator(MLP(8, 1), max_iter=3, random_state=0, **parameters).fit(X, y)


def rows(y):
    """Conditions as a list, and the dtypes of their container."""
    if hasattr(y, "iloc"):
        return y.to_numpy(object).tolist(), getattr(y, "dtypes", None)
    if hasattr(y, "schema"):
        return y.rows(), y.schema
    return (y.to_list() if hasattr(y, "to_list") else y.tolist()), y.dtype


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_come_back_as_they_were(name, tmp_path):
    y = AMOUNTS[name]()
    model = generator(y)
    if name != "a frame with labels" and name != "a frame of polars":
        assert not hasattr(model, "classes_")
    model.save(tmp_path / "model.safetensors")
    for each in (model, load(tmp_path / "model.safetensors")):
        expected, own = rows(y)
        drawn, conditions = each.sample(N, y, return_y=True, random_state=0)
        assert list(map(str, rows(conditions)[0])) == list(map(str, expected))
        drawn, conditions = each.sample(N, return_y=True, random_state=0)  # of rows that are blurred
        assert type(conditions) is type(y)
        found, dtypes = rows(conditions)
        assert str(dtypes) == str(own)
        low, high = min(expected), max(expected)
        assert all(type(one) is type(other) for one, other in zip(found, expected, strict=True))
        if not isinstance(low, (tuple, list)):
            assert all(low <= entry <= high for entry in found)
        assert np.isfinite(each.score_samples(drawn, conditions)).all()
        np.testing.assert_array_equal(
            each.sample(N, conditions, random_state=1), each.sample(N, y=conditions, random_state=1)
        )


@pytest.mark.parametrize("name", LABELS)
def test_labels_come_back_as_they_were(name, tmp_path):
    y = LABELS[name]()
    model = generator(y)
    assert len(model.classes_) == 2
    model.save(tmp_path / "model.safetensors")
    for each in (model, load(tmp_path / "model.safetensors")):
        _, conditions = each.sample(N, return_y=True, random_state=0)
        assert type(conditions) is type(y)
        if not name.startswith("Enum"):
            assert conditions.dtype == y.dtype
        assert sorted(rows(conditions)[0]) == sorted(rows(y)[0])
        one = rows(y)[0][0]
        assert rows(each.sample(3, y=one, return_y=True)[1])[0] == [one] * 3


def test_dates_are_asked_for_as_text_or_as_dates():
    model = generator(pd.Series(DAYS))
    rows = [
        model.sample(3, y=day, random_state=0)
        for day in ("2024-01-09", dt.date(2024, 1, 9), DAYS[8], ["2024-01-09"] * 3)
    ]
    for other in rows[1:]:
        np.testing.assert_array_equal(other, rows[0])
    assert (model.sample(3, y="2024-02-01", random_state=0) != rows[0]).any()
    with pytest.raises(ValueError, match="is no date"):
        model.sample(3, y="soon")
    zoned = generator(pd.Series(MOMENTS))
    np.testing.assert_array_equal(
        zoned.sample(2, y="2024-03-31 12:00", random_state=0),
        zoned.sample(2, y=pd.Timestamp("2024-03-31 10:00Z"), random_state=0),
    )


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.linspace(0, 2**62, N).astype(int), r"holds integers beyond 2\^53"),
        (pd.Series([pd.NaT, *DAYS[1:]]), "y contains NaN or None"),
        (np.ma.masked_array(np.arange(N), np.arange(N) == 3), "y is a masked array with 1 masked entries"),
    ],
    ids=["too far apart", "missing", "masked"],
)
def test_conditions_that_cannot_come_back_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        generator(y)


def test_training_goes_on_and_weights_drop_rows_in_every_container():
    for y in (pd.Series(DAYS), polars(DAYS.to_list())()):
        model = FlowMatchingGenerator(MLP(8, 1), max_iter=2, random_state=0).fit(X, y, np.arange(N) % 4)
        model.partial_fit(X, y)
        drawn = model.sample(N, return_y=True)[1]
        assert drawn.dtype == y.dtype
        assert y.min() <= drawn.min() < drawn.max() <= y.max()
        assert model.sample(N, y, return_y=True)[1].to_list() == y.to_list()


def test_detectors_say_that_dates_are_no_classes():
    with pytest.raises(ValueError, match="y must hold the classes of normal rows"):
        FlowAnomalyDetector(MLP(8, 1), max_iter=2).fit(X, pd.Series(DAYS))
