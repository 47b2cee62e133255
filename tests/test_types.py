"""Columns of every type come back as they were, or are refused with advice that names the column."""

import datetime as dt
import uuid
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from flowmatch import MLP, FlowMatchingGenerator, load
from flowmatch.persistence.codec import ValueDecoder, ValueEncoder
from flowmatch.tables.table import TableContainer

N = 6
DAYS = pd.date_range("2024-03-29", periods=N)
KEYS = [uuid.UUID(int=k) for k in (5, 7)]


def objects(*values):
    return pd.Series([*values, None] * (N // (len(values) + 1)), dtype=object)


def category(*values):
    return pd.Series(pd.Categorical([*values, None] * (N // (len(values) + 1))))


OBJECTS = {
    "decimals": objects(Decimal("1.50"), Decimal("-2.25")),
    "decimals of whole numbers": objects(Decimal(1), Decimal(2)),
    "decimals and integers": pd.Series([Decimal("0.125"), Decimal(3)] * 3, dtype=object),
    "times": objects(dt.time(1, 15), dt.time(23, 45)),
    "times with microseconds": objects(dt.time(0, 0, 0, 1), dt.time(23, 59, 59, 999999)),
    "UUIDs": objects(*KEYS),
    "bytes": objects(b"a\xff", b"b"),
    "periods": pd.Series(list(pd.period_range("2024-01", periods=N, freq="M")), dtype=object),
}
OF_PANDAS = {
    **{
        f"period[{freq}]": pd.Series(pd.period_range("2024-01-01", periods=N, freq=freq))
        for freq in ("Y", "Q", "M", "W", "D", "h", "15min", "ns")
    },
    "periods that are missing": pd.Series(pd.PeriodIndex(["2024-01", None, "2024-03"] * 2, freq="M")),
    "intervals": pd.Series(pd.arrays.IntervalArray.from_tuples([(0, 1), (1, 2), (0, 1)] * 2)),
    "intervals that are missing": pd.Series(
        pd.arrays.IntervalArray.from_tuples([(0, 0.1 + 0.2), np.nan, (0, 0.5)] * 2, closed="left")
    ),
    "intervals of dates": pd.Series(pd.interval_range(pd.Timestamp("2024-01-01"), periods=N)),
    "categories of numbers cut": pd.Series(pd.cut(np.arange(N) / 7, 3)),
    "categories of dates cut": pd.Series(pd.cut(DAYS, 3)),
    "categories of dates": category(*DAYS[:2]),
    "categories of nanoseconds": category(pd.Timestamp(1), pd.Timestamp(2)),
    "categories with a time zone": category(*DAYS.tz_localize("Europe/Berlin")[[0, 5]]),
    "categories of durations": category(pd.Timedelta("1h"), pd.Timedelta("1ns")),
    "categories of weeks": category(*pd.period_range("2024", periods=2, freq="W")),
    "categories of days as objects": category(dt.date(2024, 1, 1), dt.date(2024, 1, 2)),
    "categories of times": category(dt.time(1), dt.time(2)),
    "categories of UUIDs": category(*KEYS),
    "categories of decimals": category(Decimal("1.50"), Decimal(2)),
    "categories of booleans": category(True, False),
}


def of_arrow(name, *values):
    pa = pytest.importorskip("pyarrow")
    types = {
        "timestamp with a zone": pa.timestamp("us", "Europe/Berlin"),
        "timestamp": pa.timestamp("s"),
        "decimal128": pa.decimal128(6, 2),
        "decimal256": pa.decimal256(40, 2),
        "time32": pa.time32("s"),
        "time64": pa.time64("us"),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
        "dictionary of numbers": pa.dictionary(pa.int8(), pa.int64()),
        "date32": pa.date32(),
        "date64": pa.date64(),
        "duration": pa.duration("ms"),
        "large_string": pa.large_string(),
        "string": pa.string(),
        "bool": pa.bool_(),
        "uint64": pa.uint64(),
        "halffloat": pa.float16(),
        "binary": pa.binary(),
        "null": pa.null(),
    }
    return pa.array([*values, None] * (N // (len(values) + 1)), types[name])


ARROW = {
    "timestamp with a zone": (dt.datetime(2024, 3, 31), dt.datetime(2024, 4, 1)),
    "timestamp": (dt.datetime(2024, 3, 31, 1), dt.datetime(1, 1, 1)),
    "decimal128": (Decimal("1.50"), Decimal("2.25")),
    "decimal256": (Decimal(10) ** 25, Decimal(10) ** 25 + 1),
    "time32": (dt.time(1), dt.time(2, 30)),
    "time64": (dt.time(1), dt.time(2, 30, 0, 5)),
    "dictionary": ("a", "b"),
    "dictionary of numbers": (20, 10),
    "date32": (dt.date(2024, 3, 31), dt.date(1, 1, 1)),
    "date64": (dt.date(2024, 3, 31), dt.date(2024, 4, 1)),
    "duration": (dt.timedelta(hours=1), dt.timedelta(hours=7)),
    "large_string": ("a", "b"),
    "string": ("a", "b"),
    "bool": (True, False),
    "uint64": (2**64 - 1, 2**64 - 7),
    "halffloat": (np.float16(1.5), np.float16(2.5)),
    "binary": (b"a", b"\xff"),
    "null": (),
}


def through_a_file(container):
    encoder = ValueEncoder()
    saved = encoder.value("container", container)
    encoder.check()
    return ValueDecoder(encoder.tensors, None, "cpu").value(saved)


def comes_back(column):
    frame = pd.DataFrame({"x": column, "number": np.arange(N)})
    container = TableContainer.fit(frame)
    for known in (container, through_a_file(container)):
        back = known.wrap(known.read(frame))
        pd.testing.assert_frame_equal(back, frame)
        assert [*map(type, back["x"])] == [*map(type, frame["x"])]
    seen = container.read(frame)[:, 0]
    if not np.isnan(seen).all():
        assert len(np.unique(seen[~np.isnan(seen)])) == frame["x"].nunique()
    return container


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_come_back_also_from_a_file(name):
    container = comes_back(OBJECTS[name])
    value = OBJECTS[name][1]
    np.testing.assert_array_equal(
        container.numbers_of(0, value), container.read(pd.DataFrame({"x": [value], "number": 0}))[:, 0]
    )


@pytest.mark.parametrize("name", OF_PANDAS)
def test_dtypes_of_pandas_come_back_also_from_a_file(name):
    comes_back(OF_PANDAS[name])


@pytest.mark.parametrize("name", ARROW)
def test_dtypes_of_pyarrow_come_back_also_from_a_file(name):
    pyarrow = pytest.importorskip("pyarrow")
    if name == "halffloat" and int(pyarrow.__version__.partition(".")[0]) < 21:
        pytest.skip("older versions have no missing half floats")
    array = of_arrow(name, *ARROW[name])
    comes_back(pd.Series(array, dtype=pd.ArrowDtype(array.type)))


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_are_found_among_categories_of_dates(zone):
    days = pd.Series(DAYS.tz_localize(zone))
    container = TableContainer.fit(days.astype("category").to_frame("x"))
    np.testing.assert_array_equal(container.read(days.to_frame("x"))[:, 0], np.arange(N))


def test_numbers_that_a_type_lacks_become_the_nearest_that_it_has():
    decimals = TableContainer.fit(OBJECTS["decimals"].to_frame())
    assert decimals.wrap([[1.234]])[0][0] == Decimal("1.23")
    assert str(decimals.wrap([[2.0]])[0][0]) == "2.00"
    times = TableContainer.fit(OBJECTS["times"].to_frame())
    assert times.units == ("m",)
    assert times.wrap([[1e9], [-1e9], [15.4]])[0].tolist() == [dt.time(23, 59, 59, 999999), dt.time(0), dt.time(1, 30)]
    months = TableContainer.fit(OF_PANDAS["period[M]"].to_frame())
    start = months.read(OF_PANDAS["period[M]"].to_frame())[0, 0]
    assert months.wrap([[start + 11.6]])[0][0] == pd.Period("2025-01", "M")


def test_times_periods_and_uuids_are_given_as_text():
    frame = pd.DataFrame({"time": OBJECTS["times"], "key": OBJECTS["UUIDs"], "month": OF_PANDAS["period[M]"]})
    container = TableContainer.fit(frame)
    rows = container.read(frame)
    assert container.numbers_of(0, "23:45") == rows[1, 0]
    assert container.numbers_of(1, str(KEYS[1])) == rows[1, 1]
    assert container.numbers_of(2, ["2024-02", pd.Period("2024-03", "M")]).tolist() == rows[1:3, 2].tolist()
    for column, text, kind in ((0, "noon", "time"), (1, "me", "uuid"), (2, "soon", "period")):
        with pytest.raises(ValueError, match=f"given value of column '{frame.columns[column]}' is no {kind}: "):
            container.numbers_of(column, text)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            category(("a", 1), ("b", 2)),
            r"column 'x' of X has categories such as \('a', 1\).*no file could hold: make them text",
        ),
        (category("a", dt.time(1)), "column 'x' of X has categories such as .* no file could hold"),
        (objects(dt.time(1, tzinfo=dt.UTC), dt.time(2)), "column 'x' of X holds objects of times with time zones"),
        (
            objects(dt.time(1), dt.timedelta(1)),
            "column 'x' of X mixes types: row 1 holds datetime.timedelta.* hold times",
        ),
        (objects(KEYS[0], "a"), "column 'x' of X mixes types: row 1 holds 'a' .str.*hold uuids"),
        (
            objects(pd.Period("2024", "M"), pd.Period("2024", "D")),
            "column 'x' of X mixes periods of the frequencies D, M",
        ),
        (objects([1], [2]), "column 'x' of X, row 0: argument must be a string or a real number, not 'list'"),
    ],
)
def test_what_cannot_come_back_is_refused_before_training(column, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FlowMatchingGenerator(MLP(8, 1), max_iter=1).fit(pd.DataFrame({"x": column}))


@pytest.mark.parametrize(
    ("column", "other", "message"),
    [
        (OBJECTS["times"], [dt.timedelta(1)], "'x' of X has dtype timedelta64.*; times are expected"),
        (OBJECTS["UUIDs"], [uuid.UUID(int=9)], "'x' of X holds UUID.* in row 0, a category that training has not seen"),
        (OF_PANDAS["period[M]"], pd.period_range("2024", periods=1, freq="D"), "'x' of X holds Period.* periods of 'M' are"),
        (OF_PANDAS["period[M]"], [3], "'x' of X has dtype int64; periods are expected"),
        (OF_PANDAS["intervals"], [pd.Interval(5, 6)], r"'x' of X holds Interval\(5, 6.*Known are Interval\(0, 1"),
        (OF_PANDAS["categories of dates"], [DAYS[4]], "'x' of X holds Timestamp.*Known are Timestamp"),
    ],
)  # fmt: skip
def test_new_entries_of_another_kind_are_named(column, other, message):
    container = TableContainer.fit(pd.DataFrame({"x": column}))
    with pytest.raises(ValueError, match=message):
        container.read(pd.DataFrame({"x": other}))


def test_a_generator_draws_fills_and_keeps_every_type(tmp_path):
    frame = pd.DataFrame({**OBJECTS, **OF_PANDAS})
    frame = pd.concat([frame] * 5, ignore_index=True)
    model = FlowMatchingGenerator(MLP(8, 1), max_iter=3, random_state=0).fit(frame)
    model.save(tmp_path / "model.safetensors")
    for generator in (model, load(tmp_path / "model.safetensors")):
        rows = generator.sample(7, random_state=0)
        pd.testing.assert_series_equal(rows.dtypes, frame.dtypes)
        assert not rows.isna().any(axis=None)
        for name in frame:
            assert type(rows[name][0]) is type(frame[name].dropna().iloc[0]), name
        assert set(rows["categories of times"]) <= {dt.time(1), dt.time(2)}
        filled = generator.impute(frame, random_state=0)
        assert not filled.isna().any(axis=None)
        for name in frame:
            there = frame[name].notna()
            pd.testing.assert_series_equal(filled[name][there], frame[name][there])
        given = generator.sample(3, given={"times": dt.time(1, 15), "period[M]": "2024-02"}, random_state=0)
        assert (given["times"] == dt.time(1, 15)).all()
        assert (given["period[M]"] == pd.Period("2024-02", "M")).all()


DAYS_AS_TEXT = [day.isoformat() for day in pd.date_range("2024-01-01", periods=150).date]
LOOKS = {
    "numbers": [f"{k / 8:.3f}" for k in range(150)],
    "whole numbers": [str(k) for k in range(150)],
    "negative numbers": [str(-100 - k) for k in range(150)],
    "scientific": [f"{k + 1}e-5" for k in range(150)],
    "ISO dates": DAYS_AS_TEXT,
    "ISO moments": [f"{day} 10:30:00" for day in DAYS_AS_TEXT],
    "ISO moments with a zone": [f"{day}T10:30:00+01:00" for day in DAYS_AS_TEXT],
    "German dates": [f"{day[8:]}.{day[5:7]}.{day[:4]}" for day in DAYS_AS_TEXT],
    "American dates": [f"{day[5:7]}/{day[8:]}/{day[2:4]}" for day in DAYS_AS_TEXT],
    "dates with months": [f"{day:%d %b %Y}" for day in pd.date_range("2024-01-01", periods=150)],
}


@pytest.mark.parametrize("name", LOOKS)
def test_text_that_is_no_text_is_to_be_converted(name):
    what, function = ("numbers", "to_numeric") if "number" in name or name == "scientific" else ("dates", "to_datetime")
    example = min(LOOKS[name])
    with pytest.raises(ValueError, match="column 'x' of X holds ") as error:
        TableContainer.fit(pd.DataFrame({"x": LOOKS[name]}))
    expected = (
        f"holds {what} as text, such as {example!r}: convert it with pd.{function}, or name it in categorical_features"
    )
    assert expected in str(error.value)
    getattr(pd, function)(pd.Series(LOOKS[name]), **({"format": "mixed"} if what == "dates" else {}))
    assert TableContainer.fit(pd.DataFrame({"x": LOOKS[name]}), ["x"]).kinds == ("category",)


@pytest.mark.parametrize(
    "values",
    [
        [f"{k:05d}" for k in range(150)],  # padded codes
        [str(10**6 + k) for k in range(150)],
        [f"id-{k}" for k in range(150)],
        ["2024-01-01", *map(str, range(149))],
        [f"1.2.{k}" for k in range(150)],
    ],
    ids=lambda values: values[7],
)
def test_other_text_looks_like_an_identifier(values):
    with pytest.raises(ValueError, match="column 'x' of X looks like an identifier: 150 different texts in 150 rows"):
        TableContainer.fit(pd.DataFrame({"x": values}))


def test_all_columns_that_do_not_fit_are_in_one_error():
    table = pd.DataFrame({"day": DAYS_AS_TEXT, "good": range(150), "mixed": [1, "a"] * 75, "far": [0, 2**62] * 75})
    with pytest.raises(
        ValueError, match="^3 columns of X do not fit:\ncolumn 'day' .*to_datetime.*\ncolumn 'mixed' .*\ncolumn 'far' "
    ):
        TableContainer.fit(table)
    fitted = TableContainer.fit(pd.DataFrame({"kind": ["a", "b"], "size": [1.0, 2.0], "day": DAYS[:2]}))
    with pytest.raises(
        ValueError, match="^2 columns of X do not fit:\ncolumn 'kind' .*'c' in row 1.*\ncolumn 'day' of X has dtype"
    ):
        fitted.read(pd.DataFrame({"kind": ["a", "c"], "size": [1.0, 2.0], "day": [1, 2]}))
    with pytest.raises(
        TypeError, match="^2 columns of X do not fit:\ncolumn 0 of X, row 1: .*\ncolumn 1 of X, row 0: "
    ):
        TableContainer.fit(np.array([[1, [2]], [{}, 3]], dtype=object))


DAMAGE = {
    "an unknown type of entries": {"cell_types": ("complex", "", "")},
    "a period without a frequency": {"cell_types": ("period[]", "", "")},
    "a path for a frequency": {"cell_types": ("period[../x]", "", "")},
    "an unknown dtype of categories": {"level_dtypes": ("", "interval[object, right]", "")},
    "a path for a time zone": {"level_dtypes": ("", "interval[datetime64[ns, ../x], right]", "")},
    "an unknown dtype": {"dtypes": ("object", "category", "decimal128(1, 2, 3)[pyarrow]")},
    "a zero too few": {"zeros": (0, 1)},
    "an unknown kind of column": {"kinds": ("number", "category", "image")},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_descriptions_of_columns_are_refused(damage):
    frame = pd.DataFrame({"month": OBJECTS["periods"], "bin": OF_PANDAS["categories of numbers cut"], "n": range(N)})
    container = TableContainer.fit(frame)
    container.check()
    with pytest.raises(ValueError, match="does not fit the rest"):
        replace(container, **DAMAGE[damage]).check()
