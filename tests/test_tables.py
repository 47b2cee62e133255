"""Tables of mixed columns become numbers and come back as they were."""

import datetime as dt
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch.tables.table import TableContainer


@pytest.fixture
def frame():
    n = 6
    day = [dt.date(2020, 1, i + 1) for i in range(n)]
    table = pd.DataFrame(
        {
            "int": np.arange(n, dtype="int16"),
            "float32": np.linspace(0, 1, n).astype("float32"),
            "gaps": [1.5, np.nan, 2, 3, 4, 5],
            "bool": [True, False] * 3,
            "text": ["x", None, "y", "x", None, "z"],
            "text, NaN": pd.Series(["x", np.nan, "y", "x", np.nan, "z"], dtype=object),
            "Int64": pd.array([1, 2, pd.NA, 4, 5, 6], dtype="Int64"),
            "UInt8": pd.array([1, 2, 3, 4, 5, 255], dtype="UInt8"),
            "Float32": pd.array([1, 2, None, 4, 5, 6.5], dtype="Float32"),
            "boolean": pd.array([True, None, False, True, True, True], dtype="boolean"),
            "string": pd.array(["p", None, "q", "p", "p", "p"], dtype="string"),
            "ordered": pd.Categorical(["lo", "hi", None, "lo", "hi", "lo"], ["lo", "mid", "hi"], ordered=True),
            "numbered": pd.Categorical([3, 1, 3, 1, 3, 1]),
            "interval": pd.cut(np.arange(n), 3),
            "int objects": pd.Series([1, None, 3, 4, 5, 6], dtype=object),
            "float objects": pd.Series([1, np.nan, 3.5, 4, 5, 6], dtype=object),
            "NA objects": pd.Series([1, pd.NA, 3, 4, 5, 6], dtype=object),
            "bool objects": pd.Series([True, None, False] * 2, dtype=object),
            "days": pd.date_range("2024-03-28", periods=n),
            "seconds": pd.to_datetime(["2024-01-01 10:00:01", None, *["2024-01-02 00:00:00"] * 4]).astype("M8[s]"),
            "nanoseconds": pd.to_datetime([1, 2, 3, 4, 5, 7]),
            "days, zone": pd.date_range("2024-03-28", periods=n, tz="Europe/Berlin"),
            "hours, zone": pd.date_range("2024-10-27", periods=n, freq="h", tz="Europe/Berlin"),
            "timedelta": pd.to_timedelta([1, 2, None, 4, 5, 6], unit="h"),
            "dates": pd.Series(day, dtype=object),
            "datetimes": pd.Series([*map(pd.Timestamp, day[:-1]), None], dtype=object),
            "sparse": pd.arrays.SparseArray([0, 0, 0, 1.5, 0, 0]),
        }
    )
    table.insert(3, "int", [5] * n, allow_duplicates=True)
    return table


def test_a_dataframe_comes_back_with_its_values_dtypes_order_and_missing_cells(frame):
    container = TableContainer.fit(frame)
    back = container.wrap(container.read(frame))
    pd.testing.assert_frame_equal(back, frame)
    for j in range(frame.shape[1]):
        column, original = back.iloc[:, j], frame.iloc[:, j]
        gaps = original.isna()
        assert [*map(type, column[gaps])] == [*map(type, original[gaps])], frame.columns[j]
    assert not container.plain
    assert container.categorical.sum() == 9


def test_missing_cells_come_as_the_dtype_has_them_or_in_one_that_can(frame):
    container = TableContainer.fit(frame)
    values = container.read(frame)
    values[0] = np.nan
    back = container.wrap(values)
    assert back.iloc[0].isna().all()
    changed = {"int": "float64", "bool": "object"}
    for j, (name, dtype) in enumerate(frame.dtypes.items()):
        assert str(back.dtypes.iloc[j]) == changed.get(name, str(dtype)), name
    assert back["bool"].tolist() == [None, False, True, False, True, False]
    assert back["string"][0] is pd.NA
    assert back["datetimes"][0] is pd.NaT or back["datetimes"][0] is None


def test_categories_are_positions_in_all_that_the_column_can_hold(frame):
    container = TableContainer.fit(frame)
    levels = {name: container.levels[container.position(name)].tolist() for name in ("text", "ordered", "boolean")}
    assert levels == {"text": ["x", "y", "z"], "ordered": ["lo", "mid", "hi"], "boolean": [False, True]}
    values = container.read(frame)[:, container.position("ordered")]
    np.testing.assert_array_equal(values, [0, 2, np.nan, 0, 2, 0])
    other = frame.assign(ordered=pd.Categorical(["hi"] * 6, ["hi"]), text=pd.Categorical(["z"] * 6))
    values = container.read(other)
    assert (values[:, container.position("ordered")] == 2).all()
    assert (values[:, container.position("text")] == 2).all()
    back = container.wrap(np.tile([[0.4], [0.6], [1.4], [7.0]], frame.shape[1]))
    assert back["text"].tolist() == ["x", "y", "y", "z"]
    assert back["ordered"].tolist() == ["lo", "mid", "mid", "hi"]


@pytest.mark.parametrize(
    "X",
    [
        np.arange(6.0).reshape(3, 2),
        np.arange(6, dtype="uint8").reshape(3, 2),
        np.array([[True, False], [False, False], [True, True]]),
        np.array([["a", "long"], ["b", "x"], ["a", "x"]]),
        np.array([[1, "a"], [2.5, None], [None, "b"]], dtype=object),
        np.array([["2024-01-01", "2024-01-05"], ["2024-02-01", "NaT"]], dtype="M8[D]"),
        torch.arange(6, dtype=torch.bfloat16).reshape(3, 2),
        torch.tensor([[True, False], [False, True]]),
    ],
    ids=lambda X: f"{type(X).__name__} {X.dtype}",
)
def test_arrays_and_tensors_come_back(X):
    container = TableContainer.fit(X)
    values = container.read(X)
    assert values.dtype == np.float64
    back = container.wrap(values)
    assert type(back) is type(X)
    assert back.dtype == X.dtype
    if isinstance(X, torch.Tensor):
        assert torch.equal(back, X)
    else:
        np.testing.assert_array_equal(back, X)
    assert container.plain == (str(X.dtype) in ("float64", "uint8", "torch.bfloat16"))


def test_arrays_of_integers_and_booleans_with_gaps_become_wider():
    whole = TableContainer.fit(np.array([[1], [2]])).wrap(np.array([[1.2], [np.nan]]))
    np.testing.assert_array_equal(whole, [[1.2], [np.nan]])
    assert TableContainer.fit(np.array([[True], [False]])).wrap([[0.9], [np.nan]]).tolist() == [[True], [None]]
    tensor = TableContainer.fit(torch.tensor([[1], [2]])).wrap([[1.0], [np.nan]])
    assert tensor.dtype == torch.float64


def test_lists_of_rows_keep_numbers_beside_text():
    assert TableContainer.fit([[1, "a"], [2, "b"]]).kinds == ("number", "category")
    container = TableContainer.fit([[1, "a"], [2, "b"], [3, None]])
    assert container.kinds == ("number", "category")
    assert container.wrap([[2.2, 1.0], [3.0, np.nan]]).tolist() == [[2, "b"], [3, None]]


def test_named_columns_are_categories_and_keep_their_dtype(frame):
    container = TableContainer.fit(frame, ["gaps", "days", "Int64"])
    codes = container.read(frame)
    assert container.categorical[[container.position(name) for name in ("gaps", "days", "Int64")]].all()
    np.testing.assert_array_equal(codes[:, container.position("gaps")], [0, np.nan, 1, 2, 3, 4])
    pd.testing.assert_frame_equal(container.wrap(codes), frame)
    np.testing.assert_array_equal(container.numbers_of(container.position("days"), ["2024-03-30"]), [2])
    with pytest.raises(ValueError, match="'days' of X holds '2024-03-03' in row 0.* Known are '2024-03-28', "):
        container.read(frame.assign(days=pd.Timestamp("2024-03-03")))
    X = np.array([[7, 1], [9, 2], [7, 3]])
    for chosen in ([0], (-2,), [True, False], np.array([0])):
        container = TableContainer.fit(X, chosen)
        assert container.categorical.tolist() == [True, False]
        np.testing.assert_array_equal(container.read(X), [[0, 1], [1, 2], [0, 3]])
        assert container.wrap(container.read(X)).dtype == X.dtype
    with pytest.raises(ValueError, match=r"column 'id' of X holds integers beyond 2\^53"):
        TableContainer.fit(pd.DataFrame({"id": [2**60, 2**62]}), ["id"])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("sex", "categorical_features='sex'; expected 'auto', None, or a list"),
        (3, "categorical_features=3; expected 'auto'"),
        (["age", "agee"], "holds 'agee', but X has the columns 'age', 'sex'"),
        ([2], "holds 2, but X has the columns"),
        ([True], "has 1 booleans, but X has 2 columns"),
        ([["age"]], r"holds \['age'\]"),
    ],
)
def test_wrong_categorical_features_are_named(chosen, message):
    with pytest.raises(ValueError, match=message):
        TableContainer.fit(pd.DataFrame({"age": [1, 2], "sex": ["f", "m"]}), chosen)
    numbered = pd.DataFrame({20: [1, 2], 10: [3, 4]})
    assert TableContainer.fit(numbered, [10]).categorical.tolist() == [False, True]
    with pytest.raises(ValueError, match="holds 1, but X has the columns 20, 10"):
        TableContainer.fit(numbered, [1])


def test_without_categories_booleans_are_numbers_and_text_is_an_error():
    table = pd.DataFrame({"flag": [True, False], "object": pd.Series([True, None], dtype=object), "sex": ["f", "m"]})
    numbers = table[["flag", "object"]]
    container = TableContainer.fit(numbers, None)
    assert not container.categorical.any()
    pd.testing.assert_frame_equal(container.wrap(container.read(numbers)), numbers)
    with pytest.raises(ValueError, match=r"column 'sex' of X holds text \(such as 'f'\).*categorical_features=None"):
        TableContainer.fit(table, None)
    with pytest.raises(ValueError, match="column 'sex' of X holds categories"):
        TableContainer.fit(table.astype({"sex": "category"}), None)


@pytest.mark.parametrize(
    ("dates", "unit"),
    [
        (pd.date_range("1900-01-01", periods=200, freq="YS"), "D"),
        (pd.date_range("2024-01-01 06:30", periods=9, freq="2D"), "D"),
        (pd.date_range("2024-01-01", periods=9, freq="90min"), "m"),
        (pd.date_range("2024-01-01", periods=9, freq="5us"), "us"),
        (pd.date_range("2024-03-01", periods=90, tz="America/New_York"), "D"),
        (pd.date_range("2024-03-01", periods=90, tz="UTC+05:30"), "D"),
        (pd.date_range("2024-11-03", periods=9, freq="h", tz="America/New_York"), "h"),
        (pd.DatetimeIndex(["2018-11-03 03:00Z", "2018-11-04 03:00Z"]).tz_convert("America/Sao_Paulo"), "D"),
        (pd.DatetimeIndex(["2018-11-03 03:00Z", "2018-11-05 02:00Z"]).tz_convert("America/Sao_Paulo"), "D"),
        # Havana had two midnights on 5 November; only the first is on the grid of days
        (pd.DatetimeIndex(["2023-11-03 04Z", "2023-11-05 04Z", "2023-11-06 05Z"]).tz_convert("America/Havana"), "D"),
        (pd.DatetimeIndex(["2023-11-03 04Z", "2023-11-05 05Z", "2023-11-06 05Z"]).tz_convert("America/Havana"), "h"),
        (pd.DatetimeIndex(["1677-09-22", "2262-04-11"]), "D"),
    ],
)
def test_dates_are_whole_numbers_of_the_coarsest_unit_that_holds_them(dates, unit):
    frame = pd.DataFrame({"date": dates})
    container = TableContainer.fit(frame)
    values = container.read(frame)
    assert container.units == (unit,)
    assert (values == np.round(values)).all()
    assert values.min() == 0
    assert np.abs(values).max() < 2**53
    pd.testing.assert_frame_equal(container.wrap(values), frame)
    pd.testing.assert_frame_equal(container.wrap(values + 0.3), frame)


def test_dates_finer_than_numbers_are_rounded_and_stay_within_their_dtype():
    frame = pd.DataFrame({"date": pd.to_datetime([1, 10**18 + 7])})
    container = TableContainer.fit(frame)
    assert container.units == ("us",)
    assert abs(container.wrap(container.read(frame)) - frame).max().item() <= pd.Timedelta("1us")
    far = container.wrap([[1e300], [-1e300]])["date"]
    assert far[0] > frame["date"][1]
    assert far[1] < frame["date"][0]


def test_dates_between_those_of_the_grid_are_fractions():
    container = TableContainer.fit(pd.DataFrame({"date": pd.date_range("2024-01-01", periods=3)}))
    other = pd.DataFrame({"date": pd.to_datetime(["2024-01-02 12:00", "2023-12-31 00:00"])})
    np.testing.assert_array_equal(container.read(other), [[1.5], [-1]])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a", "b", 3, "d"], "column 'x' of X mixes types: row 2 holds 3 .int., but most rows hold text"),
        ([1, 2.5, None, "d"], "column 'x' of X mixes types: row 3 holds 'd' .str., but most rows hold numbers"),
        ([f"id {i}" for i in range(150)], "column 'x' of X looks like an identifier: 150 different texts in 150 rows"),
        ([1j, 2j], "Complex data not supported: column 'x'"),
        ([b"a", "b"], "column 'x' of X mixes str and bytes"),
    ],
)
def test_columns_that_make_no_sense_are_named_with_the_first_row_that_does_not(column, message):
    with pytest.raises(ValueError, match=message):
        TableContainer.fit(pd.DataFrame({"x": column}))


@pytest.mark.parametrize("cell", [{"foo": "bar"}, [1], 1j])
def test_other_objects_are_type_errors_as_scikit_learn_wants_them(cell):
    X = np.array([[0.5], [1.5]], dtype=object)
    container = TableContainer.fit(X)
    X[1, 0] = cell
    for read in (TableContainer.fit, container.read):
        with pytest.raises(TypeError, match="column 0 of X, row 1: argument must be a string or a real number, not"):
            read(X)


def test_named_identifiers_are_kept_with_a_warning_above_a_thousand():
    frame = pd.DataFrame({"id": [f"id {i}" for i in range(1100)]})
    assert len(TableContainer.fit(frame[:1000], ["id"]).levels[0]) == 1000
    with pytest.warns(UserWarning, match="'id' of X has 1100 categories"):
        TableContainer.fit(frame, [0])


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("text", ["x"] * 5 + ["w"], r"'text' of X holds 'w' in row 5, a category .* Known are 'x', 'y', 'z'\."),
        ("ordered", pd.Categorical(["lo"] * 5 + ["top"]), r"'ordered' of X holds 'top' in row 5.*'lo', 'mid', 'hi'"),
        ("text", np.arange(6), "'text' of X holds 0 in row 0, a category"),
        ("boolean", [True] * 5 + [2], "'boolean' of X holds 2 in row 5.*Known are False, True"),
        ("gaps", [1.0, "2", 3, 4, 5, 6], r"'gaps' of X holds '2' \(str\) in row 1; numbers are expected"),
        ("gaps", pd.date_range("2024-01-01", periods=6), "'gaps' of X has dtype datetime64.*numbers are expected"),
        ("days", np.arange(6), "'days' of X has dtype int64; datetimes are expected"),
        ("days", ["2024-01-01"] * 6, r"'days' of X holds '2024-01-01' \(str\) in row 0; dates or datetimes"),
        ("days", pd.date_range("2024", periods=6, tz="UTC"), "has the time zone UTC; training had no time zone"),
        ("timedelta", pd.date_range("2024", periods=6), "'timedelta' of X has dtype datetime64.*timedeltas are"),
    ],
)
def test_new_data_of_another_kind_are_named_with_column_row_and_value(frame, name, column, message):
    container = TableContainer.fit(frame)
    with pytest.raises(ValueError, match=message):
        container.read(frame.assign(**{name: column}))


def test_new_data_may_come_in_another_container_and_without_values(frame):
    container = TableContainer.fit(frame)
    objects = frame.astype(object).assign(nanoseconds=frame["nanoseconds"])
    np.testing.assert_array_equal(container.read(objects), container.read(frame))
    nothing = pd.DataFrame(np.full((2, frame.shape[1]), np.nan))
    assert np.isnan(container.read(nothing)).all()
    with pytest.raises(ValueError, match="X has 1 columns, but the table of training had 28"):
        container.read(frame[["gaps"]])


def test_single_values_of_a_column_become_numbers(frame):
    container = TableContainer.fit(frame)

    def cells(name, values):
        return container.numbers_of(container.position(name), values).tolist()

    assert cells("text", "y") == [1]
    assert cells("text", ["z", "x"]) == [2, 0]
    assert cells("ordered", pd.Series(["hi"], dtype="category")) == [2]
    assert cells("boolean", True) == [1]
    assert cells("gaps", torch.tensor([2.5])) == [2.5]
    assert cells("gaps", np.float32(3)) == [3]
    assert cells("days", "2024-03-30") == cells("days", dt.date(2024, 3, 30)) == [2]
    assert cells("days, zone", ["2024-04-01", pd.Timestamp("2024-04-01 00:00", tz="UTC")]) == [4, 4 + 2 / 24]
    assert cells("timedelta", pd.Timedelta("3h")) == [2]
    assert cells("interval", frame["interval"][5]) == [2]
    for name, value, message in [
        ("text", "w", "given value of column 'text' holds 'w'.*Known are 'x', 'y', 'z'"),
        ("gaps", "2", r"given value of column 'gaps' holds '2' \(str\) in row 0; numbers"),
        ("days", "soon", "given value of column 'days' is no date"),
        ("days, zone", "soon", "given value of column 'days, zone' is no date"),
    ]:
        with pytest.raises(ValueError, match=message):
            cells(name, value)


def test_columns_are_found_by_name_or_by_number(frame):
    container = TableContainer.fit(frame)
    assert container.position("sparse") == frame.shape[1] - 1
    with pytest.raises(
        ValueError, match=r"there is no column 'ink'; the columns are 'int', 'float32', .* \(28 in all\)"
    ):
        container.position("ink")
    with pytest.raises(ValueError, match="2 columns are called 'int'"):
        container.position("int")
    array = TableContainer.fit(np.eye(3))
    assert [array.position(j) for j in (0, np.int64(2), -1)] == [0, 2, 2]
    with pytest.raises(ValueError, match="there is no column 3; columns have the numbers 0 to 2"):
        array.position(3)


def test_only_floating_numbers_are_rounded(frame):
    tolerance = TableContainer.fit(frame, ["float32"]).tolerance(frame.shape[1])
    assert [*frame.columns[tolerance > 0]] == ["Float32"]
    assert TableContainer.fit(np.eye(2, dtype="float32")).tolerance(2) == pytest.approx([1.2e-7] * 2, rel=0.01)


def test_generated_numbers_get_the_dtype_of_their_array_unless_it_cannot_hold_them():
    values = np.array([[1.2, 3.0], [4.7, 300.0]])
    narrow = TableContainer.fit(np.ones((2, 2), dtype="uint8")).narrow
    np.testing.assert_array_equal(narrow(values), np.array([[1, 3], [5, 255]], dtype="uint8"), strict=True)
    values[0] = np.nan
    assert narrow(values) is values
    assert TableContainer.fit(np.ones((2, 2), dtype="float32")).narrow(values).dtype == np.float32
    assert TableContainer.fit(np.eye(2, dtype=bool)).narrow(values) is values


def test_arrays_of_objects_need_no_pandas(monkeypatch):
    X = np.array([[1, "a", True], [np.nan, None, False], [2.5, "b", None]], dtype=object)
    expected = TableContainer.fit(X).read(X)
    monkeypatch.setitem(sys.modules, "pandas", None)
    container = TableContainer.fit(X)
    np.testing.assert_array_equal(container.read(X), expected)
    np.testing.assert_array_equal(expected, [[1, 0, 1], [np.nan, np.nan, 0], [2.5, 1, np.nan]])


def lines_run(call):
    """How many lines of Python a call goes through, loops and comprehensions counted each time around."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_quarter_of_a_million_entries_of_text_need_no_loop_in_python():
    X = np.random.RandomState(0).choice(list("abcdefgh"), (25_000, 10)).astype(object)
    container = TableContainer.fit(X)
    values = container.read(X)
    assert (container.wrap(values) == X).all()
    assert lines_run(lambda: TableContainer.fit(X)) < len(X)
    assert lines_run(lambda: container.read(X)) < len(X)
    assert lines_run(lambda: container.wrap(values)) < len(X)


def test_polars_comes_back_with_its_schema():
    pl = pytest.importorskip("polars")
    table = pl.DataFrame(
        {
            "int": [1, None, 3],
            "float": [1.0, 2.0, None],
            "text": ["a", None, "b"],
            "bool": [True, None, False],
            "day": [dt.date(2020, 1, 1), None, dt.date(2020, 1, 3)],
            "time": [dt.datetime(2020, 1, 1, 3), None, dt.datetime(2020, 1, 2)],
            "duration": [dt.timedelta(hours=1), None, dt.timedelta(1)],
        }
    ).with_columns(
        pl.col("text").cast(pl.Categorical).alias("categorical"),
        pl.col("text").cast(pl.Enum(["b", "a|", "a"])).alias("enum"),
        pl.col("time").dt.replace_time_zone("Europe/Berlin").alias("zone"),
        pl.col("day").cast(pl.Datetime("ms")).dt.replace_time_zone("Europe/Berlin").alias("day, zone"),
        pl.col("int").cast(pl.Decimal(10, 2)).alias("decimal"),
        pl.col("int").cast(pl.UInt8).alias("small"),
        pl.col("float").cast(pl.Float32).alias("single"),
    )
    for chosen in ("auto", ["int", "time"]):
        container = TableContainer.fit(table, chosen)
        back = container.wrap(container.read(table))
        assert back.schema == table.schema
        assert back.equals(table)
    assert container.units[container.position("day, zone")] == "D"
    assert container.levels[container.position("enum")].tolist() == ["b", "a|", "a"]
    with pytest.raises(ValueError, match="column 'x' of X has dtype List"):
        TableContainer.fit(pl.DataFrame({"x": [[1], [2]]}))


def of_narwhals(frame):
    return pytest.importorskip("narwhals.stable.v2").from_native(frame)


def test_frames_of_other_libraries_are_read_as_those_of_pandas():
    frame = pd.DataFrame({"x": [1.0, np.nan], "sex": pd.Categorical(["f", "m"])})
    container = TableContainer.fit(of_narwhals(frame))
    assert container.kind == "dataframe"
    pd.testing.assert_frame_equal(container.wrap(container.read(of_narwhals(frame))), frame)


def test_frames_of_narwhals_are_what_they_hold():
    frame = pytest.importorskip("polars").DataFrame({"x": [1.0, None], "sex": ["f", "m"]})
    container = TableContainer.fit(of_narwhals(frame))
    assert container.kind == "polars"
    assert container.wrap(container.read(of_narwhals(frame))).equals(frame)


def test_a_frame_that_is_not_in_memory_is_refused_by_name():
    pytest.importorskip("narwhals")

    class Query:
        columns = ("x",)

    with pytest.raises(ValueError, match=r"X is a .*Query; expected a table in memory"):
        TableContainer.fit(Query())


def test_lazy_frames_of_polars_are_collected():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"x": [1.0, None]})
    for lazy in (frame.lazy(), of_narwhals(frame.lazy())):
        container = TableContainer.fit(lazy)
        assert container.wrap(container.read(lazy)).equals(frame)


def test_without_narwhals_the_error_says_how_to_get_it(monkeypatch):
    frame = of_narwhals(pd.DataFrame({"x": [1.0, np.nan]}))
    monkeypatch.setitem(sys.modules, "narwhals.stable.v2", None)
    with pytest.raises(ImportError, match=r"X is a narwhals.*need narwhals, pip install 'flowmatch\[frames\]'"):
        TableContainer.fit(frame)
