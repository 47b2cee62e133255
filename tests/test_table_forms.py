"""Tables in other forms than frames of pandas come back in the form that they had."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from flowmatch import MLP, FlowMatchingGenerator, load
from flowmatch.tables.table import TableContainer

N = 30
RNG = np.random.RandomState(0)
COLUMNS = {
    "size": np.round(RNG.normal(size=N), 3).tolist(),
    "count": RNG.randint(0, 9, N).tolist(),
    "kind": RNG.choice(["a", "b", "c"], N).tolist(),
    "flag": (RNG.rand(N) < 0.5).tolist(),
    "day": [dt.date(2024, 1, 1) + dt.timedelta(int(k)) for k in RNG.randint(0, 99, N)],
}


def holed(columns):
    """The same with a missing entry in every column but the first."""
    return {name: column if name == "size" else [*column[:-1], None] for name, column in columns.items()}


def generator(**parameters):
    return FlowMatchingGenerator(MLP(8, 1), max_iter=3, random_state=0, **parameters)


def arrow_table(columns):
    pa = pytest.importorskip("pyarrow")
    table = pa.table(holed(columns))
    prices = pa.array([Decimal(k) / 4 for k in range(N)], pa.decimal128(8, 2))
    moments = pa.array([dt.datetime(2024, 1, 1, k % 24) for k in range(N)], pa.timestamp("us", "Europe/Berlin"))
    for name, column in {
        "price": prices,
        "moment": moments,
        "coded": table["kind"].combine_chunks().dictionary_encode(),
        "view": table["kind"].cast(pa.string_view()),
        "time": pa.array([dt.time(k % 24) for k in range(N)]),
    }.items():
        table = table.append_column(name, column)
    return table


def lazy_frame(columns):
    return pytest.importorskip("polars").LazyFrame(holed(columns))


def records(columns):
    dtypes = [("size", "float32"), ("count", "uint8"), ("kind", "U3"), ("flag", "?"), ("day", "M8[D]"), ("bytes", "S2")]
    return np.array([(*row, row[2].encode()) for row in zip(*columns.values(), strict=True)], dtype=dtypes)


def masked(columns):
    table = np.ma.masked_array(np.column_stack([columns["count"], columns["count"]]).astype("int16"))
    table[::7, 1] = np.ma.masked
    return table


def masked_floats(columns):
    return np.ma.masked_invalid(np.column_stack([columns["size"], np.where(columns["flag"], np.nan, columns["count"])]))


def masked_text(columns):
    return np.ma.masked_array(
        np.column_stack([columns["kind"], columns["kind"]]), np.arange(2 * N).reshape(N, 2) % 5 == 0
    )


FORMS = {
    "arrow": arrow_table,
    "dict of lists": lambda columns: holed(columns),
    "dict of arrays": lambda columns: {name: np.array(column) for name, column in columns.items()},
    "list of dicts": lambda columns: [
        dict(zip(columns, row, strict=True)) for row in zip(*holed(columns).values(), strict=True)
    ],
    "structured array": records,
    "masked integers": masked,
    "masked floats": masked_floats,
    "masked text": masked_text,
    "lazy frame": lazy_frame,
}


def same(back, table):
    if isinstance(table, np.ma.MaskedArray):
        assert isinstance(back, np.ma.MaskedArray)
        assert back.dtype == table.dtype
        np.testing.assert_array_equal(np.ma.getmaskarray(back), np.ma.getmaskarray(table))
        np.testing.assert_array_equal(back[~back.mask], table[~table.mask])
    elif isinstance(table, np.ndarray):
        assert back.dtype == table.dtype
        np.testing.assert_array_equal(back, table)
    elif isinstance(table, dict):
        assert list(back) == list(table)
        for name in table:
            assert type(back[name]) is type(table[name])
            np.testing.assert_array_equal(back[name], table[name])
            assert [*map(type, back[name])] == [*map(type, table[name])]
    elif hasattr(table, "equals"):
        assert back.schema == table.schema
        assert back.equals(table)
    else:
        assert back == table


def collected(table):
    return table.collect() if hasattr(table, "collect") else table


@pytest.mark.parametrize("form", FORMS)
def test_a_table_comes_back_in_its_form(form):
    table = FORMS[form](COLUMNS)
    container = TableContainer.fit(table)
    same(container.wrap(container.read(table)), collected(table))


@pytest.mark.parametrize("form", FORMS)
def test_a_generator_draws_and_fills_tables_in_their_form(form, tmp_path):
    table = FORMS[form](COLUMNS)
    model = generator().fit(table)
    model.save(tmp_path / "model.safetensors")
    for each in (model, load(tmp_path / "model.safetensors")):
        rows, whole = each.sample(N, random_state=0), collected(table)
        assert type(rows) is type(whole)
        assert len(rows) == len(whole)
        as_trained = each.sample(N, random_state=0, missing="as_trained")
        for drawn in (rows, as_trained):
            assert np.shape(each.score_samples(drawn)) == (N,)
        filled = each.impute(table, random_state=0)
        assert type(filled) is type(whole)
        values, before = (each.model_.encoder.container.read(X) for X in (filled, table))
        assert not np.isnan(values).any()
        np.testing.assert_array_equal(values[~np.isnan(before)], before[~np.isnan(before)])
        if hasattr(whole, "schema"):
            assert rows.schema == filled.schema == whole.schema
    if not isinstance(table, np.ndarray):
        assert list(model.feature_names_in_) == (
            list(table[0]) if isinstance(table, list) else list(getattr(table, "column_names", None) or COLUMNS)
        )


def test_rows_may_lack_entries_and_dicts_their_order():
    table = [{"a": 1, "b": "x"}, {"b": "y"}, {"b": "x", "a": 3}]
    container = TableContainer.fit(table)
    assert container.columns == ("a", "b")
    assert container.wrap(container.read(table)) == [{"a": 1, "b": "x"}, {"a": None, "b": "y"}, {"a": 3, "b": "x"}]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ({"a": [1, 2], "b": [1]}, r"X is a dict of no columns of equal lengths; these are {'a': 2, 'b': 1}"),
        ({"a": 1.0}, r"X is a dict of no columns .*{'a': None}"),
        ({}, "X is a dict of no columns"),
        ([{"a": 1.0}, 3], r"X\[1\] is a int, but X\[0\] is a dict: rows must be of one kind"),
        (np.zeros(3, dtype=[("a", "f8"), ("b", "f8", 2)]), r"X is a ndarray of no columns.*'b': None"),
        (np.ma.masked_invalid([[[1.0, np.nan]], [[1.0, 2.0]]]), r"X is a masked array of shape \(2, 1, 2\).*X.filled"),
    ],
    ids=["ragged", "scalar", "nothing", "other rows", "fields of arrays", "grids"],
)
def test_forms_that_hold_no_table_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        generator().fit(X)


def test_masked_weights_are_refused():
    weight = np.ma.masked_array(np.ones(4), [0, 0, 1, 0])
    with pytest.raises(ValueError, match="sample_weight is a masked array with 1 masked entries"):
        generator().fit(RNG.normal(size=(4, 2)), sample_weight=weight)


def test_grids_without_a_masked_value_are_arrays():
    X = np.ma.masked_array(RNG.normal(size=(4, 1, 8)))
    assert generator().set_params(network="unet", max_iter=1).fit(X).sample(2).shape == (2, 1, 8)


def test_the_names_of_levels_of_columns_come_back(tmp_path):
    flat = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 5.0]}).rename_axis(columns="measure")
    levels = pd.DataFrame(
        [[1.0, 2.0], [3.0, 5.0]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)], names=["x", None])
    )
    for frame in (flat, levels):
        container = TableContainer.fit(frame)
        pd.testing.assert_frame_equal(container.wrap(container.read(frame)), frame)
    model = generator().fit(flat)
    model.save(tmp_path / "model.safetensors")
    for each in (model, load(tmp_path / "model.safetensors")):
        assert each.sample(2).columns.name == "measure"
