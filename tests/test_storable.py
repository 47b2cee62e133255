"""Fitted things as values: what is stored comes back, and what does not fit is refused by the class itself."""

from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch.anomaly import Neighbors
from flowmatch.core.storable import NOT_STORED, STORABLE, fields_to_store, rebuild, storable
from flowmatch.flow import VariancePreservingPath
from flowmatch.networks import MLP
from flowmatch.preprocessing import (
    CategoryCodes,
    CertainSpikes,
    ClassCalibrations,
    ConstraintSet,
    Container,
    FactorModel,
    FixedCombinations,
    Formula,
    GridEncoder,
    Identity,
    Inequality,
    KeyForm,
    LabelEncoder,
    Log1pStandardize,
    MinMax,
    MissingPatterns,
    MixedEncoder,
    NumberEncoder,
    QuantileNormal,
    SampleEncoder,
    SampleRows,
    SignalCalibration,
    Spacing,
    Standardize,
    TableContainer,
    TableNumbers,
    TargetRules,
    Unique,
    WindowEncoder,
    WindowScale,
    fit_conditions,
)
from flowmatch.rules.calendar import find_calendar_rule
from flowmatch.rules.numbers import find_number_rule
from flowmatch.tables.dates import DateGrid

N = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).round(2)
GRIDS = RNG.normal(size=(N, 2, 8))
SIGNALS = np.random.default_rng(0).normal(size=(10, 2, 32))
HOLES = np.where(RNG.random((N, 3)) < 0.3, np.nan, X)
FRAME = pd.DataFrame(
    {
        "size": HOLES[:, 0],
        "kind": pd.Series(["a", "b", "c", None] * (N // 4), dtype=object),
        "flag": np.arange(N) % 3 == 0,
        "day": pd.date_range("2024-01-01", periods=N, tz="Europe/Berlin"),
        "same": 1.5,
    }
)
PLAIN = Container.of(X)
TABLE = TableContainer.fit(FRAME)
WINDOWS = WindowEncoder(
    PLAIN,
    *(np.zeros(3), np.ones(3), np.zeros(2), np.ones(2), np.array([0, 1]), np.array([2])),
    *(np.zeros((8, 4)), np.zeros(4), np.empty(0, dtype=np.intp), 2, 2),
)

LOCAL = WindowScale(
    *(np.array([True, False, True]), np.array([True, True, False]), np.ones(3, dtype=bool)),
    *(np.ones(3), np.ones(3), np.zeros((2, 3)), np.ones((4, 2, 3))),
)
TARGETS = TargetRules.find(np.column_stack([np.arange(40.0), np.linspace(0, 1, 40) ** 3]), 0.0)

ORDERS = FRAME[["kind", "flag"]].assign(start=np.arange(N), end=np.arange(N) + 1, double=2 * np.arange(N))
STATED = [
    FixedCombinations(("kind", "flag")),
    Inequality("start", "end", strict=True),
    Formula("double", ("start",), coefficients=(2,)),
    Unique(("start",)),
]
RULES = ConstraintSet.fit(STATED, TableContainer.fit(ORDERS), SampleRows(TableContainer.fit(ORDERS).read(ORDERS)))

FITTED = {
    "Container": PLAIN,
    "KeyForm": KeyForm.fit([f"{i * 7919 % 10007:04d}-{'xyz'[i % 3]}" for i in range(N)], "text"),
    "ConstraintSet": RULES,
    **{type(part).__name__: part for rule in RULES.rules for part in (rule, rule.constraint)},
    "TableContainer": TABLE,
    "TableNumbers": TableNumbers.fit(TABLE, TABLE.read(FRAME)),
    "CategoryCodes": CategoryCodes((3, 2)).fit(np.array([[0.0, 1.0], [2.0, 0.0]])),
    **{type(t).__name__: t.fit(np.abs(X)) for t in (Identity(), Standardize(), MinMax(), Log1pStandardize())},
    "QuantileNormal": QuantileNormal().fit(HOLES),
    "SampleEncoder": SampleEncoder.fit(TABLE.read(FRAME), TABLE, QuantileNormal(), None),
    "NumberRule": find_number_rule(25.0 * np.arange(40)),
    "CalendarRule": find_calendar_rule(30.0 * np.arange(40), DateGrid("D", "datetime64[s]", 0)),
    "ColumnRules": SampleEncoder.fit(TABLE.read(FRAME), TABLE, QuantileNormal(), None).rules,
    "LabelEncoder": fit_conditions(np.array(["x", "y"] * (N // 2)), None),
    "NumberEncoder": fit_conditions(X, None),
    "MixedEncoder": fit_conditions(np.array([["x", 0.5], ["y", 1.5]] * (N // 2), dtype=object), None),
    "GridEncoder": fit_conditions(GRIDS, None, GRIDS.shape[1:]),
    "MissingPatterns": MissingPatterns.fit(np.isnan(HOLES), None, None),
    "FactorModel": FactorModel.fit(X),
    "WindowEncoder": replace(WINDOWS, weights=np.zeros((12, 4)), local=LOCAL, rules=TARGETS, limits=np.stack([np.zeros(3), np.ones(3)])),
    "WindowScale": LOCAL,
    "Spacing": Spacing("D", clock="Europe/Berlin", slots=(32_400, 36_000), closed_days=2),
    "TargetRules": TARGETS,
    "SignalCalibration": SignalCalibration.fit(SIGNALS, 2 * SIGNALS),
    "ClassCalibrations": ClassCalibrations.fit(SIGNALS, ["x", "y"] * 5, 2 * SIGNALS, ["x", "y"] * 5),
    "CertainSpikes": CertainSpikes(np.array([0.0, np.nan]), np.zeros((8, 4)), np.zeros(4), np.array([0.9, np.inf])),
}  # fmt: skip


def stored(value):
    """A value taken apart and built again, with copies of what it is made of."""
    if type(value).__name__ in STORABLE and is_dataclass(value):
        return rebuild(type(value), {name: stored(part) for name, part in fields_to_store(value).items()})
    if isinstance(value, tuple):
        return tuple(map(stored, value))
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.clone() if isinstance(value, torch.Tensor) else value


def assert_equal(one, other):
    assert type(one) is type(other)
    if is_dataclass(one):
        assert fields_to_store(one).keys() == fields_to_store(other).keys()
        for name, value in fields_to_store(one).items():
            assert_equal(value, fields_to_store(other)[name])
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    elif isinstance(one, (np.ndarray, torch.Tensor)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    else:
        assert one == other


def test_every_fitted_class_of_the_rooms_is_stored():
    rooms = {"preprocessing", "constraints", "rules", "tables"}
    known = {name for name, cls in STORABLE.items() if cls.__module__.removeprefix("flowmatch.").split(".")[0] in rooms}
    views = {"ColumnTransform", "AffineTransform", "MixedColumns", "SplitDates", "Constraint"}  # and bases
    assert known - views == set(FITTED)


@pytest.mark.parametrize("name", FITTED)
def test_what_is_stored_comes_back(name):
    value = FITTED[name]
    again = stored(value)
    assert_equal(again, value)
    assert not any(field.startswith("_") for field in fields_to_store(value))


def test_a_stored_encoder_does_the_same():
    encoder, rows = FITTED["SampleEncoder"], TABLE.read(FRAME)
    again = stored(encoder)
    np.testing.assert_array_equal(again.encode(rows), encoder.encode(rows))
    pd.testing.assert_frame_equal(again.container.wrap(again.decode(encoder.encode(rows))), FRAME)


def test_a_transform_that_is_not_fitted_has_parameters_only():
    assert fields_to_store(QuantileNormal(50)) == {"max_knots": 50, "open_gaps": True, "open_spikes": False}
    assert rebuild(QuantileNormal, {"max_knots": 50}) == QuantileNormal(50)


def ones(*shape):
    return np.ones(shape)


DAMAGES = [
    ("Container", {"kind": "parquet"}, "kind"),
    ("Container", {"dtypes": ()}, "dtypes"),
    ("Container", {"dtypes": (3,)}, "dtypes"),
    ("Container", {"columns": ("a",)}, "dtypes"),
    ("TableContainer", {"kinds": ("magic", *TABLE.kinds[1:])}, "table"),
    ("TableContainer", {"levels": ()}, "table"),
    ("TableContainer", {"levels": 3}, "levels"),
    ("TableContainer", {"units": ("",) * 5}, "table"),
    ("TableContainer", {"units": ("", "", "", "ns", ""), "ticks": ("", "", "", "datetime64[s]", "")}, "table"),
    ("TableContainer", {"units": ("", "", "", "week", "")}, "table"),
    ("TableContainer", {"ticks": ("", "", "", "datetime64[Y]", "")}, "dtype"),
    ("TableContainer", {"ticks": ("", "", "", "no dtype", "")}, "dtype"),
    ("TableContainer", {"origins": ones(5)}, "origins"),
    ("TableNumbers", {"means": ones(2)}, "table"),
    ("TableNumbers", {"holed": ones(5)}, "holed"),
    ("TableNumbers", {"container": PLAIN}, "container"),
    ("KeyForm", {"entry_type": "float"}, "keys"),
    ("KeyForm", {"entry_type": "int"}, "keys"),
    ("KeyForm", {"entry_type": "uuid", "patterns": ((("a",), ("b",)),), "shares": (1.0,)}, "keys"),
    ("KeyForm", {"width": 10**9}, "keys"),
    ("KeyForm", {"shares": (1.0,) * 5}, "keys"),
    ("KeyForm", {"patterns": (((),),), "shares": (1.0,)}, "keys"),
    ("ConstraintSet", {"limits": ones(2, 1)}, "constraints"),
    ("ConstraintSet", {"rules": (PLAIN,)}, "constraints"),
    ("Combinations", {"counts": np.zeros(1, dtype=np.int64)}, "constraints"),
    ("Combinations", {"known": ones(2, 7)}, "constraints"),
    ("Ordered", {"low_size": 0.0}, "constraints"),
    ("Ordered", {"limits": ones(3)}, "constraints"),
    ("Computed", {"factors": ones(3)}, "constraints"),
    ("Computed", {"shape": "function"}, "constraints"),
    ("Computed", {"tolerance": 0.0}, "constraints"),
    ("CategoryCodes", {"n_levels": (3, "2")}, "n_levels"),
    ("CategoryCodes", {"n_levels": (4, 1)}, "categories"),
    ("CategoryCodes", {"shares_": ones(4)}, "categories"),
    ("CategoryCodes", {"shares_": -ones(5)}, "categories"),
    ("Standardize", {"scale_": ones(2)}, "scale_"),
    ("Standardize", {"scale_": 0 * ones(3)}, "scale_"),
    ("Standardize", {"scale_": None}, "scale_"),
    ("QuantileNormal", {"bounds_": np.array([0, 10**6])}, "bounds_"),
    ("QuantileNormal", {"low_": ones(2)}, "low_"),
    ("QuantileNormal", {"edge_": np.array(np.nan)}, "edge_"),
    ("QuantileNormal", {"values_": np.full_like(FITTED["QuantileNormal"].values_, np.nan)}, "values_"),
    ("SampleEncoder", {"sample_shape": (0,)}, "sample_shape"),
    ("SampleEncoder", {"sample_shape": ("5",)}, "sample_shape"),
    ("SampleEncoder", {"limits": ones(2, 3)}, "limits"),
    ("SampleEncoder", {"varying": ones(5)}, "varying"),
    ("SampleEncoder", {"constants": ones(2)}, "constants"),
    ("SampleEncoder", {"categories": None}, "categories"),
    ("SampleEncoder", {"categories": CategoryCodes((2, 3))}, "categories"),
    ("SampleEncoder", {"container": PLAIN}, "dtypes|table"),
    ("SampleEncoder", {"transform": PLAIN}, "transform"),
    ("SampleEncoder", {"transform": Standardize()}, "do not fit together"),
    ("SampleEncoder", {"is_category": ~FITTED["SampleEncoder"].is_category}, "categories"),
    ("LabelEncoder", {"shares": ones(0)}, "shares"),
    ("LabelEncoder", {"shares": 0 * ones(2)}, "shares"),
    ("LabelEncoder", {"counts": ones(2)}, "counts"),
    ("NumberEncoder", {"one_dimensional": True}, "one_dimensional"),
    ("NumberEncoder", {"one_dimensional": 0}, "one_dimensional"),
    ("NumberEncoder", {"rows": ones(N, 2)}, "rows"),
    ("MixedEncoder", {"classes": ()}, "classes"),
    ("MixedEncoder", {"rows": ones(N, 2) * 7, "shares": ones(N)}, "classes"),
    ("GridEncoder", {"grids": FITTED["SampleEncoder"]}, "grids"),
    ("MissingPatterns", {"rows": np.full(N, 99)}, "patterns"),
    ("MissingPatterns", {"patterns": ones(4, 3)}, "patterns"),
    ("MissingPatterns", {"shares": np.full(N, np.nan)}, "patterns of missing entries"),
    ("MissingPatterns", {"vectors": np.ones((3, 0), dtype=np.float32)}, "patterns"),
    ("FactorModel", {"noise": torch.zeros(3)}, "factors"),
    ("FactorModel", {"loadings": torch.zeros(2, 2)}, "factors"),
    ("FactorModel", {"mean": torch.zeros(3, dtype=torch.float64)}, "factors"),
    ("WindowEncoder", {"n_lags": 0}, "windows"),
    ("WindowEncoder", {"n_lags": "two"}, "n_lags"),
    ("WindowEncoder", {"known": np.array([7])}, "windows"),
    ("WindowEncoder", {"targets": ones(2)}, "targets"),
    ("WindowEncoder", {"weights": ones(2, 2)}, "windows"),
    ("WindowEncoder", {"mean": np.full(3, np.nan)}, "windows"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_what_does_not_fit_is_refused(name, damage, message):
    value = FITTED[name]
    values = {**fields_to_store(value), **damage}
    with pytest.raises(ValueError, match=message):
        rebuild(type(value), values)


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (VariancePreservingPath, {"first_time": 10**30}),
        (Neighbors, {"locality": 1.5}),
        (MLP, {"width": 0}),
    ],
)
def test_parameters_out_of_range_are_refused_where_they_stand_alone(cls, parameters):
    with pytest.raises(ValueError, match=list(parameters)[-1]):
        rebuild(cls, parameters)


@pytest.mark.parametrize("name", FITTED)
def test_missing_and_unknown_fields_are_refused(name):
    cls, values = type(FITTED[name]), fields_to_store(FITTED[name])
    with pytest.raises(ValueError, match="surprise"):
        rebuild(cls, {**values, "surprise": 1})
    fitted = [
        declared.name
        for declared in fields(cls)
        if declared.name in values and not declared.init and declared.default is MISSING  # others came later
    ]
    for gone in fitted if len(fitted) > 1 else ():
        with pytest.raises(ValueError, match=f"its {gone} is missing"):
            rebuild(cls, {name: value for name, value in values.items() if name != gone})


def test_two_classes_of_one_name_are_refused():
    def declare():
        @storable
        @dataclass(frozen=True)
        class Pair:
            left: int
            right: float | None = None
            note: str = field(default="", metadata=NOT_STORED)

        return Pair

    pair = declare()
    try:
        assert STORABLE["Pair"] is pair
        assert declare() is STORABLE["Pair"]  # a cell of a notebook that is run again
        value = rebuild(pair, fields_to_store(pair(1, 2.0, "kept to oneself")))
        assert (value.left, value.right, value.note) == (1, 2.0, "")
        assert rebuild(pair, {"left": 1}).right is None
        for wrong in ({"left": True}, {"left": 1, "right": "2"}, {"left": 1, "note": ""}, {}):
            with pytest.raises(ValueError, match=r"left|right|note"):
                rebuild(pair, wrong)
        with pytest.raises(ValueError, match="'Pair' exists already"):
            storable(dataclass(type("Pair", (), {"__annotations__": {}})))
        with pytest.raises(TypeError, match="is no dataclass"):
            storable(type("Other", (), {}))
    finally:
        STORABLE.pop("Pair")


def test_two_encoders_of_conditions_are_not_compared_value_by_value():
    for cls in (LabelEncoder, NumberEncoder, MixedEncoder, GridEncoder):
        assert hash(FITTED[cls.__name__]) != hash(stored(FITTED[cls.__name__]))
