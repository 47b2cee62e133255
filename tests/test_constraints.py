"""Constraints of tables: found, checked before training, and kept in every drawn row."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch import MLP, DistilledFlowMap, FlowMatchingGenerator, FlowMatchingOverSampler, load
from flowmatch.preprocessing import FixedCombinations, Formula, Inequality, Unique

RNG = np.random.default_rng(0)
N = 400
TINY = {"network": MLP(width=8, depth=1), "max_iter": 15, "batch_size": 64, "random_state": 0}
DAY = pd.Timedelta(days=1)


def orders(n=N):
    """Rows in which towns have countries, orders end after they start, and amounts add up."""
    town, day = RNG.integers(0, 30, n), pd.Timestamp("2020-01-01") + RNG.integers(0, 700, n) * DAY
    net, tax = RNG.gamma(2, 100, n).round(2), RNG.gamma(2, 20, n).round(2)
    duration = (RNG.geometric(0.02, n) - 1) * DAY
    pieces, price = RNG.integers(1, 9, n), RNG.integers(1, 60, n) / 4
    return pd.DataFrame(
        {
            "town": [f"town {i}" for i in town],
            "country": [f"land {i % 5}" for i in town],
            "start": day,
            "end": day + duration,
            "duration": duration,
            "net": net,
            "tax": tax,
            "total": net + tax,
            "again": net + tax,
            "profit": (net - tax).round(2),
            "pieces": pieces,
            "price": price,
            "amount": pieces * price,
        }
    )


KEPT = {
    "towns": (FixedCombinations(["town", "country"]), lambda t: t["country"] == "land " + (t["town"].str[5:].astype(int) % 5).astype(str)),
    "order": (Inequality("start", "end"), lambda t: t["start"] <= t["end"]),
    "strict order": (Inequality("tax", "total", strict=True), lambda t: t["tax"] < t["total"]),
    "sum": (Formula("total", ["net", "tax"]), lambda t: t["total"] == t["net"] + t["tax"]),
    "twin": (Formula("again", ["total"]), lambda t: t["again"] == t["total"]),
    "difference": (Formula("profit", ["net", "tax"], coefficients=[1, -1]), lambda t: t["profit"] == (t["net"] - t["tax"]).round(2)),
    "dates": (Formula("end", ["start", "duration"]), lambda t: t["end"] == t["start"] + t["duration"]),
    "product": (Formula("amount", ["pieces", "price"], "product"), lambda t: t["amount"] == t["pieces"] * t["price"]),
    "function": (Formula("amount", ["pieces", "price"], lambda p, q: p * q), lambda t: t["amount"] == t["pieces"] * t["price"]),
    "unique": (Unique(["start", "pieces"]), lambda t: ~t.duplicated(["start", "pieces"])),
}  # fmt: skip
"""Constraints, and whether rows keep them."""

TABLE = orders().drop_duplicates(["start", "pieces"])


@pytest.fixture(scope="module")
def plain():
    return FlowMatchingGenerator(**TINY).fit(TABLE)


@pytest.fixture(scope="module")
def fitted():
    return FlowMatchingGenerator(**TINY, constraints="auto").fit(TABLE)


@functools.cache
def fitted_with(name):
    return FlowMatchingGenerator(**TINY, constraints=[KEPT[name][0]]).fit(TABLE)


@pytest.mark.parametrize("name", KEPT)
def test_every_row_keeps_a_constraint_that_rows_break_without_it(name, plain):
    constraint, holds = KEPT[name]
    assert not holds(plain.sample(600, random_state=1)).all()
    generator = fitted_with(name)
    drawn = generator.sample(600, random_state=1)
    assert holds(drawn).all()
    assert generator.constraints_ == [constraint]
    assert (drawn.dtypes == TABLE.dtypes).all()
    assert holds(generator.sample(60, random_state=1, oversample=2)).all()


@pytest.mark.parametrize("name", KEPT)
def test_imputation_keeps_constraints_and_the_entries_that_are_there(name):
    _, holds = KEPT[name]
    generator = fitted_with(name)
    holed, missing = TABLE.copy(), RNG.random(TABLE.shape) < 0.3
    filled = generator.impute(holed.mask(missing), random_state=0)
    assert filled.notna().all(axis=None)
    same = (filled == TABLE).to_numpy()
    assert same[~missing].all()
    if name != "function":  # cannot be solved for its sources
        sums = np.isclose(filled["total"], filled["net"] + filled["tax"])
        differences = np.isclose(filled["profit"], filled["net"] - filled["tax"])
        kept = {"sum": sums, "difference": differences}.get(name, holds(filled))
        assert kept.mean() > 0.99  # entries that are there may contradict each other


def test_all_together_are_found_and_kept(fitted):
    expected = [KEPT[name][0] for name in ("towns", "order", "sum", "dates", "product")]
    # the same columns may be solved for others
    assert {"FixedCombinations", "Formula"} <= {type(c).__name__ for c in fitted.constraints_}
    assert expected[0] in fitted.constraints_
    assert expected[4] in fitted.constraints_
    drawn = fitted.sample(500, random_state=2)
    for name in ("towns", "order", "dates", "product"):
        assert KEPT[name][1](drawn).all(), name
    for left, right in (
        ("total", drawn["net"] + drawn["tax"]),
        ("again", drawn["total"]),
        ("profit", drawn["net"] - drawn["tax"]),
    ):
        np.testing.assert_allclose(drawn[left], right, atol=1e-9)


def test_nothing_is_found_where_nothing_holds():
    independent = pd.DataFrame(
        {
            "a": RNG.normal(size=N),
            "b": RNG.normal(size=N) + 3,
            "c": RNG.integers(0, 100, N),
            "d": RNG.choice(list("abcdefgh"), N),
            "e": RNG.choice(list("abcdefgh"), N),
            "f": RNG.choice([f"v{i}" for i in range(40)], N),
            "day": pd.Timestamp("2020-01-01") + RNG.integers(0, 700, N) * DAY,
        }
    )
    assert FlowMatchingGenerator(**TINY, constraints="auto").fit(independent).constraints_ == []
    assert FlowMatchingGenerator(**TINY, constraints="auto").fit(RNG.normal(size=(60, 1, 8))).constraints_ == []
    assert FlowMatchingGenerator(**TINY).fit(independent).constraints_ == []


def test_one_exception_is_enough_for_a_constraint_not_to_be_found():
    table = orders()
    table.loc[7, "end"] = table.loc[7, "start"] - DAY
    table.loc[8, "total"] += 1
    table.loc[9, "amount"] += 1
    generator = FlowMatchingGenerator(**TINY, constraints="auto").fit(table)
    columns = {getattr(c, "column", None) for c in generator.constraints_}
    assert not columns & {"end", "total", "amount"}
    assert Inequality("start", "end") not in generator.constraints_


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([Inequality("end", "start")], r"Inequality\(low='end', high='start'\) does not hold in \d+ of \d+ rows of X, such as"),
        ([Formula("total", ["net"])], r"does not hold in \d+ of"),
        ([Unique(["town"])], r"Unique\(columns=\['town'\]\) does not hold in \d+ of"),
        ([Inequality("start", "stop")], "there is no column 'stop'; the columns are 'town'"),
        ([FixedCombinations(["town"])], "needs at least 2 columns"),
        ([FixedCombinations(["town", "town"])], "each of them once"),
        ([FixedCombinations("town")], "columns must be a list of names"),
        ([Inequality("start", "net")], r"columns of numbers, or of dates .* 'start' \(datetime\), 'net' \(number\)"),
        ([Inequality("start", "duration")], "compares a date with a duration"),
        ([Formula("town", ["country"])], r"'town' \(category\)"),
        ([Formula("total", ["net", "tax"]), Formula("total", ["again"])], "compute the same column"),
        ([Formula("total", ["again"]), Formula("again", ["total"])], "in a circle"),
        ([Inequality("net", "total", strict=True), Inequality("total", "net")], "contradicts the other inequalities"),
        ([Formula("total", ["net", "tax"], "mean")], "unknown function 'mean'"),
        ([Formula("total", ["net", "tax"], coefficients=[1])], "has 1 coefficients of 2 columns"),
        ([Formula("total", ["net", "tax"], "product", constant=1.0)], "belong to function='sum'"),
        ([Formula("total", ["net", "tax"], lambda a, b: 1.0)], "returned an array of shape"),
        ([Formula("end", ["start", "duration"], constant=1.0)], "a constant is for numbers"),
        (["town"], "constraints holds 'town'; expected FixedCombinations"),
        (Inequality("start", "end"), "constraints must be None, 'auto' or a list"),
        ("all", "constraints must be None, 'auto' or a list"),
    ],
)  # fmt: skip
def test_what_cannot_hold_is_refused_before_training(constraints, message):
    generator = FlowMatchingGenerator(**TINY, constraints=constraints)
    with pytest.raises(ValueError, match=message):
        generator.fit(TABLE)
    assert not hasattr(generator, "fitted_")


def test_constraints_of_grids_are_refused():
    with pytest.raises(ValueError, match="constraints=.* are for tables"):
        FlowMatchingGenerator(**TINY, constraints=[Unique([0])]).fit(RNG.normal(size=(60, 1, 8)))


def test_broken_rows_are_counted_as_the_user_counts_them():
    table = orders()
    table.loc[[7, 31], "total"] += 1
    weight = np.ones(N)
    weight[:5] = 0
    with pytest.raises(ValueError, match=r"does not hold in 2 of 395 rows of X, such as 7, 31"):
        FlowMatchingGenerator(**TINY, constraints=[Formula("total", ["net", "tax"])]).fit(table, sample_weight=weight)


def test_given_entries_are_kept_and_the_others_follow_them(fitted):
    total = float(TABLE["total"].median())
    drawn = fitted.sample(50, given={"total": total, "country": "land 2", "end": TABLE["end"].max()}, random_state=0)
    assert (drawn["total"] == total).all()
    np.testing.assert_allclose(drawn["net"] + drawn["tax"], total)
    assert (drawn["country"] == "land 2").all()
    assert KEPT["towns"][1](drawn).all()
    assert drawn["town"].nunique() > 1
    assert KEPT["dates"][1](drawn).all()
    amount = fitted.sample(30, given={"amount": 12.0, "pieces": 4}, random_state=0)
    assert (amount["price"] == 3.0).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"town": "town 1", "country": "land 2"}, "'town': 'town 1', 'country': 'land 2'.*FixedCombinations"),
        ({"net": 200.0, "tax": 40.0, "total": 300.0}, "'total': 300.0.*Formula"),
        ({"net": float(TABLE["net"].max()), "total": float(TABLE["total"].min())}, "no row can have that"),
        ({"start": TABLE["end"].max(), "end": TABLE["start"].min()}, "given .* no row can have that and keep"),
    ],
)
def test_given_entries_that_no_row_can_have_are_refused(fitted, given, message):
    limits = TABLE["start"].max(), TABLE["end"].min()
    given = {**given, **({"start": limits[0], "end": limits[1]} if "start" in given else {})}
    with pytest.raises(ValueError, match=message):
        fitted.sample(5, given=given)


def test_a_function_cannot_be_solved_for_its_columns():
    generator = fitted_with("function")
    with pytest.raises(ValueError, match="no row can have that and keep Formula"):
        generator.sample(5, given={"amount": 12.0})
    assert (generator.sample(5, given={"pieces": 2, "price": 2.5})["amount"] == 5.0).all()


def test_so_few_combinations_that_rows_cannot_be_unique():
    table = pd.DataFrame({"x": RNG.normal(size=60), "a": np.arange(60) % 10, "b": np.arange(60) // 10})
    generator = FlowMatchingGenerator(**TINY, constraints=[Unique(["a", "b"])]).fit(table)
    assert not generator.sample(20, random_state=0).duplicated(["a", "b"]).any()
    with pytest.raises(ValueError, match=r"rows could not be drawn so that they keep Unique"):
        generator.sample(100, random_state=0)


def test_files_students_and_over_samplers_keep_them(fitted, tmp_path):
    fitted.save(tmp_path / "g.safetensors")
    loaded = load(tmp_path / "g.safetensors")
    assert [repr(c) for c in loaded.constraints_] == [repr(c) for c in fitted.constraints_]
    pd.testing.assert_frame_equal(loaded.sample(50, random_state=1), fitted.sample(50, random_state=1))
    student = DistilledFlowMap(fitted, "reflow", n_pairs=64, max_iter=5, random_state=0).fit()
    assert KEPT["towns"][1](student.sample(50, random_state=0)).all()
    y = (np.arange(len(TABLE)) % 4 == 0).astype(int)
    generator = FlowMatchingGenerator(**TINY, constraints=[KEPT["towns"][0], KEPT["sum"][0]])
    more, _ = FlowMatchingOverSampler(generator, random_state=0).fit_resample(TABLE, y)
    assert len(more) > len(TABLE)
    assert KEPT["towns"][1](more).all()
    assert KEPT["sum"][1](more).all()


def test_a_function_goes_into_no_file(tmp_path):
    generator = fitted_with("function")
    with pytest.raises(ValueError, match="parameter constraints=.* cannot be written to a file"):
        generator.save(tmp_path / "g.safetensors")


def test_fits_that_go_on_take_no_rows_that_break_them(fitted):
    generator = FlowMatchingGenerator.from_fitted(fitted.fitted_, **fitted.get_params(deep=False))
    with pytest.raises(ValueError, match=r"does not hold in 1 of"):
        generator.partial_fit(TABLE.assign(amount=TABLE["amount"] + (np.arange(len(TABLE)) == 3)))


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "tensor", "objects", "polars"])
def test_arrays_tensors_and_frames_keep_formulas_in_their_dtype(kind):
    a, b = RNG.integers(0, 1000, (2, N)) / (1 if kind == "int64" else 7)
    a, b = (a.astype(kind), b.astype(kind)) if kind in ("float32", "int64") else (a, b)
    a, b = (np.float32(a), np.float32(b)) if kind == "tensor" else (a, b)
    X = np.column_stack([a, b, a + b])
    X = torch.from_numpy(X).float() if kind == "tensor" else X.astype(object) if kind == "objects" else X
    if kind == "polars":
        X = pytest.importorskip("polars").DataFrame(X, schema=["0", "1", "2"])
    names = ["0", "1", "2"] if kind == "polars" else [0, 1, 2]
    generator = FlowMatchingGenerator(**TINY, constraints=[Formula(names[2], names[:2])], preprocessing="standardize")
    drawn = generator.fit(X).sample(300, random_state=0)
    drawn = drawn.to_numpy() if kind == "polars" else drawn
    assert (drawn[:, 0] + drawn[:, 1] == drawn[:, 2]).all()


def test_whole_numbers_are_ordered_beside_fractions():
    number = RNG.integers(1, 70, N)
    X = pd.DataFrame({"id": number, "visit": number + RNG.integers(1, 5, N) / 10})
    generator = FlowMatchingGenerator(**TINY, constraints=[Inequality("id", "visit", strict=True)]).fit(X)
    drawn = generator.sample(600, random_state=0)
    assert (drawn["id"] < drawn["visit"]).all()
    given = generator.sample(60, given={"visit": 5.1}, random_state=0)
    assert (given["id"] <= 5).all()


def test_entries_that_contradict_each_other_are_warned_of_and_stay():
    towns = pd.DataFrame({"a": list("ABCDEF"), "b": list("uuvvww"), "c": list("xyxyxy")})
    X = pd.concat([towns] * 20, ignore_index=True).assign(x=RNG.normal(size=120))
    pairs = [FixedCombinations(["a", "b"]), FixedCombinations(["a", "c"]), FixedCombinations(["b", "c"])]
    generator = FlowMatchingGenerator(**TINY, constraints=pairs).fit(X)
    filled = generator.impute(X.head(6).assign(a=None), random_state=0)
    assert filled["a"].tolist() == list("ABCDEF")
    apart = FlowMatchingGenerator(**TINY, constraints=pairs[:2]).fit(X[~X["a"].isin(["A"])])
    with pytest.warns(UserWarning, match=r"1 of 6 rows could not be drawn so that they keep .* contradict it"):
        filled = apart.impute(X.head(6).assign(a=None), random_state=0)
    assert filled["a"].tolist()[1:] == list("BCDEF")
    assert filled.loc[0, ["b", "c"]].tolist() == ["u", "x"]


def test_rows_with_missing_entries_keep_them_as_far_as_they_have_entries():
    table = TABLE.mask(RNG.random(TABLE.shape) < 0.1)
    generator = FlowMatchingGenerator(**TINY, constraints=[KEPT["towns"][0], KEPT["order"][0], KEPT["sum"][0]]).fit(
        table
    )
    drawn = generator.sample(400, missing="as_trained", random_state=0)
    assert drawn.isna().any(axis=None)
    pairs = drawn[["town", "country"]].dropna()
    assert KEPT["towns"][1](pairs).all()
    assert not (drawn["end"] < drawn["start"]).any()
    sums = drawn[["net", "tax", "total"]].dropna()
    assert KEPT["sum"][1](sums).all()
    whole = generator.sample(400, random_state=0)
    assert KEPT["towns"][1](whole).all()
    assert KEPT["sum"][1](whole).all()


def test_the_first_rows_of_many_are_those_of_few_also_where_rows_are_drawn_anew(fitted):
    given = {"country": "land 2", "net": (50, 150)}
    for options in ({}, {"given": given}):
        many, few = (fitted.sample(n, random_state=3, **options) for n in (40, 15))
        pd.testing.assert_frame_equal(many.head(15), few)
    ranged = fitted.sample(40, given=given, random_state=3)
    assert ranged["net"].between(50, 150).all()
    assert (ranged["country"] == "land 2").all()
    assert KEPT["towns"][1](ranged).all()
