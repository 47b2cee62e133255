"""Whole numbers beyond 2^53, which floats cannot tell apart, come back exactly or are refused."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch import MLP, FlowMatchingGenerator, load
from flowmatch.tables.table import TableContainer

STEPS = np.random.RandomState(0).randint(0, 1000, 60).tolist()


def of(origin, step=1):
    """Sixty whole numbers, exactly."""
    return [origin + step * k for k in STEPS]


def with_gap(values):
    return [*values[:-1], None]


COLUMNS = {
    "uint64 at its end": pd.Series(of(2**64 - 1, -1), dtype="uint64"),
    "int64": pd.Series(of(2**60 + 1, 3), dtype="int64"),
    "int64 at its start": pd.Series(of(-(2**63)), dtype="int64"),
    "Int64": pd.Series(with_gap(of(-(2**62) - 1)), dtype="Int64"),
    "UInt64": pd.Series(with_gap(of(2**64 - 1, -1)), dtype="UInt64"),
    "Python": pd.Series(with_gap(of(10**25)), dtype=object),
    "beyond floats": pd.Series(of(10**400), dtype=object),
    "decimals": pd.Series([Decimal(value).scaleb(-2) for value in of(10**24)], dtype=object),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("named", [False, True], ids=["numbers", "categories"])
def test_they_come_back_exactly(name, named):
    frame = COLUMNS[name].to_frame("x")
    container = TableContainer.fit(frame, ["x"] if named else "auto")
    values = container.read(frame)
    assert np.nanmax(np.abs(values)) <= 3000
    pd.testing.assert_frame_equal(container.wrap(values), frame)
    assert container.numbers_of(0, frame["x"][0]) == values[0, 0]


@pytest.mark.parametrize("kind", ["UInt64", "Int64", "Int128"])
def test_those_of_polars_come_back_exactly(kind):
    pl = pytest.importorskip("polars")
    values = with_gap(of({"UInt64": 2**64 - 1000, "Int64": 2**60, "Int128": 2**100}[kind]))
    frame = pl.DataFrame({"x": pl.Series(values, dtype=getattr(pl, kind))})
    container = TableContainer.fit(frame)
    back = container.wrap(container.read(frame))
    assert back.schema == frame.schema
    assert back.equals(frame)


@pytest.mark.parametrize(
    "X",
    [
        np.column_stack([of(2**63 - 1000), STEPS]),
        np.array([[2**64 - 1 - k, k] for k in STEPS], dtype="uint64"),
        torch.tensor([[2**60 + k, k] for k in STEPS]),
        np.array([[2**90 + k, k] for k in STEPS], dtype=object),
    ],
    ids=["int64", "uint64", "tensor", "objects"],
)
def test_arrays_and_tensors_come_back_exactly(X):
    for named in ("auto", [0]):
        container = TableContainer.fit(X, named)
        back = container.wrap(container.read(X))
        assert back.dtype == X.dtype
        assert (back == X).all()
        assert not container.plain


def test_generated_numbers_stay_in_their_dtype():
    frame = COLUMNS["uint64 at its end"].to_frame("x")
    back = TableContainer.fit(frame).wrap([[1e9], [-1e18], [0.4]])
    assert back["x"].tolist()[::2] == [2**64 - 1, int(frame["x"].min())]
    assert back["x"].dtype == "uint64"
    array = TableContainer.fit(frame.to_numpy()).wrap([[1e9]])
    assert array.tolist() == [[2**64 - 1]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 2**63 - 1]),
        np.array([0, 2**64 - 1], dtype="uint64"),
        pd.array([-(2**62), 2**62, None], dtype="Int64"),
        np.array([0, 10**25], dtype=object),
        np.array([Decimal("0.01"), Decimal(10**24)], dtype=object),
    ],
    ids=str,
)
def test_those_that_are_too_far_apart_are_refused_with_advice(values):
    with pytest.raises(
        ValueError, match=r"column 'x' of X holds .* beyond 2\^53, from .* to .*float.*text.*identifier"
    ):
        TableContainer.fit(pd.DataFrame({"x": values}))


def test_numbers_that_floats_hold_are_read_as_they_are():
    frame = pd.DataFrame({"most": [2**53, -(2**53)], "float": [1e300, 2.0**60], "mixed": [10**25, 0.5]})
    container = TableContainer.fit(frame)
    assert container.zeros == (0, 0, 0)
    np.testing.assert_array_equal(container.read(frame), frame.to_numpy(float))


def test_new_data_are_read_from_the_same_origin():
    container = TableContainer.fit(pd.DataFrame({"x": np.array([2**60, 2**60 + 5])}))
    other = pd.DataFrame({"x": [float(2**60), -(2.0**60), np.nan]})
    np.testing.assert_array_equal(container.read(other)[:, 0], [0, -(2.0**61), np.nan])
    assert container.read(pd.DataFrame({"x": [10**400, 2**60 + 1]}, dtype=object))[:, 0].tolist() == [
        np.finfo(float).max,
        1,
    ]


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "key": np.array(of(2**64 - 2000), dtype="uint64"),
            "gaps": pd.array(with_gap(of(2**60 + 1, 2)), dtype="Int64"),
            "python": pd.Series(of(10**25), dtype=object),
            "code": np.array([2**61 + k % 3 for k in STEPS]),
            "size": rng.normal(size=60),
        }
    )
    model = FlowMatchingGenerator(MLP(8, 1), max_iter=20, categorical_features=["code"], random_state=0)
    return model.fit(frame), frame


def test_a_generator_draws_fills_and_is_given_exact_numbers(fitted, tmp_path):
    model, frame = fitted
    model.save(tmp_path / "model.safetensors")
    for generator in (model, load(tmp_path / "model.safetensors")):
        rows = generator.sample(20, given={"python": 10**25 + 500, "code": 2**61 + 1}, random_state=0)
        pd.testing.assert_series_equal(rows.dtypes, frame.dtypes)
        assert (rows["python"] == 10**25 + 500).all()
        assert (rows["code"] == 2**61 + 1).all()
        assert rows["key"].between(frame["key"].min(), frame["key"].max()).all()
        assert rows["gaps"].isin(range(2**60 + 1, 2**60 + 2001, 2)).mean() > 0.4
        assert len(set(rows["key"])) > 10
        filled = generator.impute(frame, random_state=0)
        assert 2**60 <= filled["gaps"][59] <= 2**60 + 2001
        pd.testing.assert_frame_equal(filled[:59], frame[:59])
    message = rf"given\['python'\] is 10+6\d+, outside the range of .*, {min(frame['python'])} to"
    with pytest.raises(ValueError, match=message):
        model.sample(given={"python": 10**26})
    with pytest.raises(ValueError, match=rf"'code' holds {2**61 + 4} in row 0, a category"):
        model.sample(given={"code": 2**61 + 4})


def test_a_table_on_disk_that_would_be_rounded_is_refused(tmp_path):
    np.save(tmp_path / "table.npy", np.column_stack([of(2**60), STEPS]))
    X = np.load(tmp_path / "table.npy", mmap_mode="r")
    with pytest.raises(ValueError, match=r"X holds integers beyond 2\^53.*load it into memory"):
        FlowMatchingGenerator(MLP(8, 1), max_iter=2).fit(X)
