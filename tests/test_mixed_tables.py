"""Tables as people have them go in, and come out like that: drawn, given, imputed, selected, saved."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import flowmatch
from flowmatch import DistilledFlowMap, FlowAnomalyDetector, FlowMatchingGenerator
from flowmatch.networks import MLP

N = 300
SMALL = {"network": MLP(width=8, depth=1), "max_iter": 20, "batch_size": 64, "n_steps": 3, "random_state": 0}
NUMBERS = ["size", "price", "count", "visits"]


def generator(**parameters):
    return FlowMatchingGenerator(**{**SMALL, **parameters})


def whole_frame(n=N):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.gamma(2.0, size=n),
            "price": np.round(rng.gamma(3.0, size=n), 2),
            "count": rng.integers(0, 9, n),
            "flag": rng.random(n) < 0.3,
            "kind": rng.choice(["a", "b", "c"], n),
            "grade": pd.Categorical(rng.choice(["low", "high"], n), ["low", "middle", "high"], ordered=True),
            "note": pd.array(rng.choice(["yes", "no"], n), dtype="string"),
            "visits": pd.array(rng.integers(1, 40, n), dtype="Int64"),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), "D"),
            "fixed": "x",
        }
    )


def frame_with_holes():
    """Half of the sizes and some other cells are missing, and a note and the visits go together."""
    rng, table = np.random.default_rng(1), whole_frame()
    table.loc[rng.random(N) < 0.5, "size"] = np.nan
    table.loc[rng.random(N) < 0.1, "kind"] = None
    table.loc[rng.random(N) < 0.1, "grade"] = None
    table.loc[rng.random(N) < 0.1, "day"] = pd.NaT
    table.loc[rng.random(N) < 0.3, ["note", "visits"]] = pd.NA
    return table


WHOLE, HOLES = whole_frame(), frame_with_holes()
LABELS = np.where(HOLES["visits"].isna(), "new", "known")


@pytest.fixture(scope="module")
def model():
    return generator().fit(HOLES)


@pytest.fixture(scope="module")
def labelled():
    return generator().fit(HOLES, LABELS)


def assert_like_training(drawn):
    """Columns, dtypes, value sets and ranges."""
    pd.testing.assert_series_equal(drawn.dtypes, WHOLE.dtypes)
    for name in [*NUMBERS, "day"]:
        seen = drawn[name].dropna()
        assert seen.between(HOLES[name].min(), HOLES[name].max()).all()
    for name in ("kind", "grade", "note", "flag", "count", "fixed"):
        assert set(drawn[name].dropna()) <= set(HOLES[name].dropna())
    np.testing.assert_array_equal(drawn["price"], drawn["price"].round(2))
    assert (drawn["day"].dropna() == drawn["day"].dropna().dt.normalize()).all()


# -- samples --------------------------------------------------------------------------------------------------------------


def test_samples_are_complete_rows_like_the_table(model):
    drawn = model.sample(500, random_state=0)
    assert_like_training(drawn)
    assert not drawn.isna().any(axis=None)
    assert drawn["grade"].cat.categories.tolist() == ["low", "middle", "high"]
    assert drawn["grade"].cat.ordered
    for name in ("kind", "grade", "note", "flag"):  # and not of one category alone
        assert set(drawn[name]) == set(HOLES[name].dropna())


def test_samples_miss_cells_as_the_table_does(model):
    drawn = model.sample(600, random_state=0, missing="as_trained")
    assert_like_training(drawn)
    np.testing.assert_allclose(drawn.isna().mean(), HOLES.isna().mean(), atol=0.05)
    assert (drawn["note"].isna() == drawn["visits"].isna()).all()


def test_patterns_of_missing_cells_go_with_the_label(labelled):
    drawn, y = labelled.sample(200, random_state=0, missing="as_trained", return_y=True)
    np.testing.assert_array_equal(drawn["visits"].isna(), y == "new")
    assert not labelled.sample(200, random_state=0).isna().any(axis=None)


def test_tables_without_holes_have_none_as_trained():
    model = generator(max_iter=2).fit(WHOLE)
    drawn = [model.sample(20, random_state=0, missing=missing) for missing in ("as_trained", "complete")]
    pd.testing.assert_frame_equal(*drawn)
    assert not drawn[0].isna().any(axis=None)
    pd.testing.assert_series_equal(drawn[0].dtypes, WHOLE.dtypes)


def test_densities_count_the_cells_that_are_there(model):
    empty = HOLES.assign(
        **{name: pd.Series([None] * N).astype(HOLES[name].dtype) for name in HOLES if name not in ("flag", "count")}
    )
    scores = model.score_samples(empty.head(50))
    assert len(np.unique(scores)) <= 2 * 9  # of a flag and a count nothing else is left
    assert np.isfinite(model.score_samples(HOLES.head(20))).all()
    other = HOLES.head(3).assign(fixed=["x", None, "x"])
    np.testing.assert_array_equal(model.score_samples(other), model.score_samples(HOLES.head(3)))
    codes = model.encode(HOLES.head(20))
    np.testing.assert_array_equal(np.isnan(codes[:, 0]), HOLES["size"].head(20).isna())
    back = model.decode(codes, n_steps=40, solver="rk4")
    np.testing.assert_array_equal(back.isna(), HOLES.head(20).isna())


@pytest.mark.parametrize("values", [[5.0, None], ["q", None], [True, None]], ids=["number", "text", "boolean"])
def test_a_column_of_one_value_and_missing_cells_works(values):
    X = WHOLE[["size"]].assign(one=pd.Series(values * (N // 2)).convert_dtypes())
    model = generator(max_iter=2).fit(X)
    assert model.sample(20, random_state=0)["one"].tolist() == [values[0]] * 20
    assert model.sample(20, random_state=0, missing="as_trained")["one"].isna().sum() == 10
    assert model.impute(X, random_state=0)["one"].tolist() == [values[0]] * N
    assert model.sample(2, given={"one": values[0]})["one"].tolist() == [values[0]] * 2


def test_a_class_of_one_row_works_and_warns():
    y = np.where(np.arange(N) == 7, "rare", "common")
    with pytest.warns(UserWarning, match=r"1 of 2 classes have a single row \(such as 'rare'\)"):
        model = generator(max_iter=2).fit(HOLES, y)
    assert_like_training(model.sample(5, y="rare", random_state=0))
    assert (
        model.sample(5, y="rare", random_state=0, missing="as_trained")
        .isna()
        .equals(HOLES.iloc[[7] * 5].isna().reset_index(drop=True))
    )


def test_ten_thousand_categories_work_where_they_are_named():
    keys = pd.DataFrame({"key": [f"n{i:04}" for i in range(10_000)], "x": np.arange(10_000.0)})
    with pytest.warns(UserWarning, match="key"):
        model = generator(max_iter=2, categorical_features=["key"]).fit(keys)
    assert set(model.sample(50, random_state=0)["key"]) <= set(keys["key"])
    assert model.model_.code_shape == (14 + 1,)


# -- given columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "b", "flag": True},
        {"size": 1.2345678901234567, "price": 2.5, "count": 3, "visits": 7},
        {"grade": "high", "note": "no", "fixed": "x"},
        {"kind": list("abca"), "size": np.array([0.5, 1.0, 1.5, 2.0]), "count": pd.Series([1, 2, 3, 4], index=list("wxyz"))},
        WHOLE.iloc[:4],
        HOLES[["flag", "count"]].iloc[:1],
    ],
    ids=["flags", "numbers", "categories", "one a sample", "table", "one row"],
)  # fmt: skip
def test_given_columns_come_back_exactly(given, model):
    for missing in ("complete", "as_trained"):
        drawn = model.sample(4, given=given, random_state=0, missing=missing)
        assert_like_training(drawn)
        for name in given:
            expected = given[name] if isinstance(given[name], str) else np.broadcast_to(np.asarray(given[name]), 4)
            assert (drawn[name] == expected).all(), name


def test_given_dates_may_be_text(model):
    drawn = model.sample(3, given={"day": "2024-02-03"})
    assert (drawn["day"] == pd.Timestamp("2024-02-03")).all()


def test_given_columns_are_numbered_in_arrays_and_go_with_conditions(labelled):
    array = generator(max_iter=2).fit(HOLES[["size", "price"]].to_numpy("float32"))
    drawn = array.sample(3, given={1: 2.5, -2: [0.5, 1.0, 1.5]})
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, [[0.5, 2.5], [1.0, 2.5], [1.5, 2.5]])
    labels = ["new", "known", "new"]
    drawn, y = labelled.sample(3, labels, 0, given={"kind": list("abc")}, return_y=True, guidance_scale=2.0)
    assert (y.tolist(), drawn["kind"].tolist()) == (labels, list("abc"))


def test_nothing_given_is_a_plain_sample(model):
    pd.testing.assert_frame_equal(model.sample(5, random_state=0, given={}), model.sample(5, random_state=0))


WRONG_GIVEN = {
    "column": ({"colour": "red"}, r"there is no column 'colour'; the columns are 'size', 'price', .*'fixed'\."),
    "range": ({"price": -3.5}, r"given\['price'\] is -3.5, outside the range of the training data, 0\.\d+ to \d"),
    "day": ({"day": "2031-01-01"}, r"given\['day'\] is .*2031-01-01.*, outside the range of the training data, .*2024-01-0"),
    "category": ({"kind": "z"}, r"column 'kind' .*'z'.*training has not seen"),
    "unused_level": ({"grade": "middle"}, r"given\['grade'\] is 'middle', which does not occur in the training data"),
    "boolean": ({"flag": "maybe"}, r"column 'flag'.*'maybe'"),
    "constant": ({"fixed": "y"}, r"column 'fixed'.*'y'"),
    "fraction": ({"count": 2.5}, r"given\['count'\] is 2.5, which the column cannot hold: 2.0 would come back"),
    "hour": ({"day": "2024-02-03 12:30"}, r"given\['day'\] is .*, which the column cannot hold"),
    "text": ({"size": "large"}, r"column 'size'.*'large'"),
    "length": ({"kind": ["a", "b"]}, r"given\['kind'\] has 2 values; expected one, or one for each of 4 samples"),
    "missing": ({"size": [1.0, np.nan, 1.0, 1.0]}, r"given\['size'\] has a missing value beside others; leave the column out"),
    "none": ({"fixed": None}, r"given\['fixed'\] is a missing value, but no training row misses it; leave the column out"),
    "pairs": ([("kind", "a")], r"given must be a dict of columns and their values, such as {'age': 40}, or a table of them, got list"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_GIVEN)
def test_wrong_given_columns_are_named(what, model):
    given, message = WRONG_GIVEN[what]
    with pytest.raises(ValueError, match=message):
        model.sample(4, given=given)


def test_levels_that_a_constant_column_lacks_are_named():
    levels = pd.Categorical(["u"] * N, ["u", "v", "w"])
    model = generator(max_iter=2).fit(WHOLE[["size"]].assign(level=levels))
    for level in "vw":
        with pytest.raises(ValueError, match=f"given\\['level'\\] is '{level}', which does not occur"):
            model.sample(2, given={"level": level})
    assert model.sample(2, given={"level": "u"})["level"].tolist() == ["u", "u"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "some"}, "unknown missing 'some'. Choose one of 'complete', 'as_trained'"),
        ({"oversample": 0}, "oversample must be an integer >= 1, got 0"),
        ({"oversample": 2, "select": "best"}, "unknown select 'best'. Choose one of 'density'"),
        ({"given": {"kind": "a"}, "return_trajectory": True}, "return_trajectory=True shows whole rows"),
        (
            {"oversample": 2, "select": lambda X: np.zeros((len(X), 2))},
            r"shape \(8, 2\); expected \(8,\), one number a row",
        ),
        ({"oversample": 2, "select": lambda X: np.zeros(4)}, r"shape \(4,\); expected \(8,\), one number a row"),
        ({"oversample": 2, "select": lambda X: X["kind"]}, "select must return one number a row"),
    ],
)
def test_wrong_options_of_sample_are_named(options, message, model):
    with pytest.raises(ValueError, match=message):
        model.sample(4, **options)


def test_models_that_have_not_learned_cells_say_so():
    whole, holes = (generator(max_iter=2, masked_share=0.0).fit(X) for X in (WHOLE, HOLES))
    grids = generator(network="auto", max_iter=1).fit(np.random.default_rng(0).normal(size=(9, 1, 8)))
    for model, message in (
        (whole, "fit with masked_share > 0"),
        (holes, "fit with masked_share > 0"),
        (grids, "entries of tables"),
    ):
        with pytest.raises(ValueError, match=message):
            model.impute(HOLES)
        with pytest.raises(ValueError, match=message):
            model.sample(2, given={"kind": "a"})
    with pytest.warns(UserWarning, match="the training rows miss entries, but with masked_share=0"):
        assert_like_training(holes.sample(50, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = holes.sample(50, random_state=0, missing="as_trained")
    assert drawn["size"].isna().sum() == pytest.approx(25, abs=2)


# -- imputation --------------------------------------------------------------------------------------------------------------


def bits(values):
    """Floating numbers as integers, so that equal means equal to the last bit."""
    values = np.ascontiguousarray(values)
    return values.view(f"i{values.itemsize}") if values.dtype.kind == "f" else values


def test_imputed_frames_keep_what_was_there_and_its_index(model):
    X = HOLES.set_index(pd.Index(np.arange(N)[::-1] * 2, name="row"))
    before, filled = X.copy(), model.impute(X, random_state=0)
    pd.testing.assert_frame_equal(X, before)
    assert_like_training(filled)
    pd.testing.assert_index_equal(filled.index, X.index)
    assert not filled.isna().any(axis=None)
    pd.testing.assert_frame_equal(
        filled.where(X.notna()).astype(object), X.where(X.notna()).astype(object), check_like=False
    )
    there = X["size"].notna()
    np.testing.assert_array_equal(bits(filled["size"][there]), bits(X["size"][there]))


AS_TABLES = {
    "float32": lambda X: X.astype("float32"),
    "objects": lambda X: np.where(np.isnan(X), None, X),
    "mixed objects": lambda X: np.column_stack([np.where(np.isnan(X), None, X), np.where(np.arange(N) % 5, "a", "b")]),
    "torch": torch.as_tensor,
    "torch float32": lambda X: torch.as_tensor(X).float(),
    "lists": lambda X: X.tolist(),
}


@pytest.mark.parametrize("kind", AS_TABLES)
def test_imputed_arrays_keep_what_was_there_to_the_last_bit(kind):
    X = AS_TABLES[kind](HOLES[["size", "price", "count"]].to_numpy(float))
    filled = generator(max_iter=2).fit(X).impute(X, random_state=0)
    assert type(filled) is (np.ndarray if kind == "lists" else type(X))
    if kind != "lists":
        assert filled.dtype == X.dtype
    filled, original = np.asarray(filled), np.asarray(X)
    there = ~pd.isna(original)
    assert not pd.isna(filled).any()
    assert not there.all()
    np.testing.assert_array_equal(bits(filled)[there], bits(original)[there])


def test_lists_of_rows_keep_numbers_beside_text():
    rows = [[1.5, "a"], [float("nan"), "b"], [2.5, "b"], [3.5, "a"]]
    filled = generator(max_iter=2).fit(rows * 10).impute(rows, random_state=0)
    assert [*map(type, filled[0])] == [float, str]
    assert filled[[0, 2, 3]].tolist() == [rows[0], *rows[2:]]
    assert 1.5 <= filled[1, 0] <= 3.5


def test_frames_may_come_in_other_dtypes_than_in_training(model):
    part = HOLES[HOLES["grade"].isna() | (HOLES["grade"] == "low")].head(60)
    other = part.assign(
        grade=part["grade"].cat.remove_unused_categories(),
        kind=part["kind"].astype("category"),
        note=part["note"].astype(object),
        visits=part["visits"].astype("Float64"),
        count=part["count"].astype("int8"),
        day=part["day"].astype("M8[s]"),
    )
    filled = model.impute(other, random_state=0)
    assert not filled.isna().any(axis=None)
    for name in other:
        there = other[name].notna()
        assert filled[name][there].tolist() == other[name][there].tolist(), name
    assert set(filled["grade"]) <= {"low", "high"}


def test_several_imputations_differ_where_cells_were_missing_and_nowhere_else(model):
    X = HOLES.head(40)
    first, second, third = model.impute(X, n_imputations=3, random_state=0)
    there = X.notna()
    for one, other in ((first, second), (second, third), (first, third)):
        assert (one["size"] != other["size"])[~there["size"]].all()
        assert (one["size"] == other["size"])[there["size"]].all()
    again = model.impute(X, n_imputations=3, random_state=0)
    for one, other in zip((first, second, third), again, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert not model.impute(X, random_state=1).equals(model.impute(X, random_state=2))
    assert not model.impute(X).equals(model.impute(X))


def test_batches_do_not_change_what_is_imputed(model):
    X = HOLES[["size", "price"]].to_numpy()
    numbers = generator(max_iter=5, preprocessing="standardize").fit(X)
    np.testing.assert_allclose(
        numbers.impute(X, random_state=0, batch_size=7), numbers.impute(X, random_state=0), rtol=1e-5
    )


def test_rows_without_holes_stay_as_they_are(model):
    pd.testing.assert_frame_equal(model.impute(WHOLE.head(9)), WHOLE.head(9))


def test_rows_of_which_nothing_is_known_are_drawn(model):
    nothing = HOLES.head(30).where(np.zeros((30, 10), dtype=bool))
    assert nothing.isna().all(axis=None)
    filled = model.impute(nothing, random_state=0)
    assert not filled.isna().any(axis=None)
    assert set(filled["kind"]) == {"a", "b", "c"}
    assert set(filled["fixed"]) == {"x"}


def test_imputation_takes_conditions(labelled):
    X, y = HOLES.head(30), LABELS[:30]
    pd.testing.assert_frame_equal(labelled.impute(X, y, random_state=0), labelled.impute(X, y, random_state=0))
    assert not labelled.impute(X, y, random_state=0).equals(labelled.impute(X, random_state=0))
    with pytest.raises(ValueError, match="y has 29 rows, but X has 30"):
        labelled.impute(X, y[:-1])
    with pytest.raises(ValueError, match="n_imputations must be an integer >= 1, got 0"):
        labelled.impute(X, y, n_imputations=0)
    strict = generator(max_iter=2, condition_dropout=0.0).fit(HOLES, LABELS)
    with pytest.raises(ValueError, match="fitted with conditions y; pass them here too"):
        strict.impute(X)
    with pytest.raises(ValueError, match="column 'kind' of X holds 'zebra' in row 2, a category that training has not"):
        labelled.impute(X.assign(kind=["a", "b", "zebra"] * 10))


def test_tables_on_disk_may_miss_cells(tmp_path):
    X = HOLES[["size", "price"]].to_numpy()
    np.save(tmp_path / "table.npy", X)
    stored = np.load(tmp_path / "table.npy", mmap_mode="r")
    fits = [generator().fit(data) for data in (X, stored)]
    np.testing.assert_array_equal(*[fit.sample(9, random_state=0, missing="as_trained") for fit in fits])
    np.testing.assert_array_equal(fits[1].impute(stored, random_state=0), fits[0].impute(X, random_state=0))


def law_of_lines(n, rng):
    x = rng.normal(size=n)
    return np.stack([x, x + 0.5 * rng.normal(size=n)], axis=1)


def test_imputed_cells_follow_the_law_of_the_table():
    """x2 = x1 + noise, a fifth of all cells hidden: the draws have the conditional mean and spread, or nearly so."""
    rng = np.random.default_rng(0)
    X = law_of_lines(600, rng)
    holes = np.where(rng.random(X.shape) < 0.2, np.nan, X)
    model = FlowMatchingGenerator(network=MLP(width=32, depth=1), max_iter=400, random_state=0).fit(holes)
    fresh = law_of_lines(2000, rng)
    filled = model.impute(np.where([False, True], np.nan, fresh), random_state=0)
    error = filled[:, 1] - fresh[:, 0]  # N(0, 0.5^2) by the law
    assert np.corrcoef(filled.T)[0, 1] == pytest.approx(1 / np.sqrt(1.25), abs=0.04)  # 0 of means and medians
    assert error.mean() == pytest.approx(0.0, abs=0.08)
    assert error.std() == pytest.approx(0.5, abs=0.08)
    slope = np.cov(error, fresh[:, 0])[0, 1]
    assert slope == pytest.approx(0.0, abs=0.08)
    means = np.mean(
        model.impute(np.where([False, True], np.nan, fresh), n_imputations=5, n_steps=5, random_state=1), axis=0
    )[:, 1]
    rmse, of_the_mean = np.sqrt(np.mean((means - fresh[:, 1]) ** 2)), fresh[:, 1].std()
    assert rmse < 0.55 * of_the_mean  # the law itself: 0.5 * sqrt(1 + 1 / 5) / sqrt(1.25) = 0.49


# -- selection ---------------------------------------------------------------------------------------------------------------


def test_the_best_of_the_candidates_are_kept(model):
    seen = []

    def smallest(X):
        seen.append(X)
        return -X["size"]

    chosen = model.sample(10, random_state=0, oversample=3, select=smallest)
    candidates = seen[0]
    best = np.arange(0, 30, 3) + candidates["size"].to_numpy().reshape(10, 3).argmin(1)
    pd.testing.assert_frame_equal(chosen, candidates.iloc[best].reset_index(drop=True))
    dense = model.sample(10, random_state=0, oversample=3)
    best = np.arange(0, 30, 3) + model.score_samples(candidates).reshape(10, 3).argmax(1)
    pd.testing.assert_frame_equal(dense, candidates.iloc[best].reset_index(drop=True))


def test_the_candidates_of_a_sample_miss_the_same_cells(model):
    seen = []
    model.sample(
        40, random_state=0, missing="as_trained", oversample=3, select=lambda X: (seen.append(X), X["size"])[1]
    )
    holes = seen[0].isna().to_numpy().reshape(40, 3, -1)
    assert (holes == holes[:, :1]).all()
    assert holes.any()
    assert not holes.all(axis=(1, 2)).any()


@pytest.mark.parametrize("container", [np.asarray, torch.tensor])
def test_candidates_come_in_the_container_of_training(container):
    X = container(WHOLE[["size", "price"]].to_numpy())
    model = generator(max_iter=2).fit(X, LABELS)

    def score(candidates):
        assert type(candidates) is type(X)
        assert candidates.dtype == X.dtype
        values = np.asarray(candidates[:, 0])
        return np.where(values == values.max(), np.nan, values)

    drawn, y = model.sample(6, ["new", "known"] * 3, 0, oversample=2, select=score, return_y=True)
    assert type(drawn) is type(X)
    assert len(drawn) == 6
    assert y.tolist() == ["new", "known"] * 3
    given = model.sample(3, "new", 0, oversample=2, given={1: [1.0, 2.0, 3.0]}, select=score)
    assert given[:, 1].tolist() == [1.0, 2.0, 3.0]


def test_a_score_that_is_no_number_is_the_lowest():
    model = generator(max_iter=2).fit(WHOLE[["size"]].to_numpy())
    candidates = model.sample(8, random_state=0)
    odd = lambda X: np.where(np.arange(8) % 2, np.nan, -1e9)  # noqa: E731
    np.testing.assert_array_equal(model.sample(4, random_state=0, oversample=2, select=odd), candidates[::2])


# -- going on, files, students ---------------------------------------------------------------------------------------------------


def test_partial_fit_takes_rows_with_holes():
    model = generator().fit(WHOLE).partial_fit(HOLES)
    drawn = model.sample(100, random_state=0, missing="as_trained")
    np.testing.assert_allclose(drawn.isna().mean(), HOLES.isna().mean(), atol=0.06)
    model.partial_fit(HOLES.tail(60).assign(size=np.nan))  # a column of this part may be empty
    assert model.sample(30, random_state=0, missing="as_trained")["size"].isna().all()
    assert_like_training(model.sample(30, random_state=0))
    with pytest.raises(
        ValueError, match="column 'kind' of X holds 'z' in row 0, a category that training has not seen"
    ):
        model.partial_fit(HOLES.assign(kind="z"))


@pytest.mark.parametrize("way", ["file", "pickle"])
def test_a_saved_model_draws_and_imputes_the_same(way, labelled, tmp_path):
    if way == "file":
        labelled.save(tmp_path / "model")
        loaded = flowmatch.load(tmp_path / "model")
    else:
        loaded = pickle.loads(pickle.dumps(labelled))
    calls = (
        lambda one: one.sample(20, random_state=0),
        lambda one: one.sample(20, random_state=0, missing="as_trained"),
        lambda one: one.sample(20, "new", 0, given={"kind": "b", "day": "2024-05-01"}),
        lambda one: one.sample(5, random_state=0, oversample=2),
        lambda one: one.impute(HOLES.head(20), LABELS[:20], random_state=0),
    )
    for call in calls:
        pd.testing.assert_frame_equal(call(loaded), call(labelled))
    np.testing.assert_array_equal(loaded.score_samples(HOLES.head(5)), labelled.score_samples(HOLES.head(5)))
    with pytest.raises(ValueError, match="'middle', which does not occur"):
        loaded.sample(1, given={"grade": "middle"})


def assert_imputes(model):
    filled = model.impute(HOLES.head(40), random_state=0)
    assert_like_training(filled)
    assert not filled.isna().any(axis=None)
    there = HOLES.head(40).notna()
    assert ((filled == HOLES.head(40)) | ~there).all(axis=None)
    assert (model.sample(5, random_state=0, given={"kind": "b"})["kind"] == "b").all()
    assert model.sample(40, random_state=0, missing="as_trained").isna().any(axis=None)


@pytest.mark.parametrize("method", ["progressive", "semigroup"])
def test_students_impute_too(model, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        student = DistilledFlowMap(model, method, max_iter=3, random_state=0).fit(HOLES)
    assert_imputes(student)


def test_mean_flows_impute_too():
    assert_imputes(generator(objective="mean_flow", max_iter=5, n_steps=1).fit(HOLES))


def test_tables_with_several_booleans_are_saved(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.random(60) < 0.5, "b": rng.random(60) < 0.4, "x": rng.normal(size=60)})
    for model in (generator(max_iter=2), FlowAnomalyDetector(MLP(width=8, depth=1), max_iter=2, random_state=0)):
        model.fit(table).save(tmp_path / "model.safetensors")
        loaded = flowmatch.load(tmp_path / "model.safetensors")
        np.testing.assert_array_equal(loaded.score_samples(table), model.score_samples(table))


def test_a_column_that_is_hardly_ever_there_is_learned():
    X = np.random.default_rng(0).normal(size=(5000, 3))
    X[:, 1] = np.nan
    looked_at = np.random.RandomState(0).permutation(5000)[:2000]  # those that the first guess is fitted to
    X[np.setdiff1d(np.arange(5000), looked_at)[:2], 1] = [1.0, 2.0]
    assert np.isfinite(generator(max_iter=2).fit(X).sample(5, random_state=0)).all()


@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_frames_are_filled_by_a_model_of_arrays():
    X = np.random.default_rng(0).normal(size=(60, 3))
    holes = pd.DataFrame(np.where(np.arange(180).reshape(60, 3) % 7 == 0, np.nan, X), columns=list("abc"))
    filled = generator(max_iter=2).fit(X).impute(holes, random_state=0)
    assert list(filled.columns) == list("abc")
    assert not filled.isna().to_numpy().any()
    pd.testing.assert_frame_equal(filled.where(holes.notna()), holes)


def test_filled_categories_keep_the_dtype_of_the_table():
    kinds = pd.CategoricalDtype(["z", "b", "a"], ordered=True)
    model = generator(max_iter=2).fit(pd.DataFrame({"k": ["a", "b"] * 30, "x": np.arange(60.0)}))
    holes = pd.DataFrame({"k": pd.Categorical(["a", None, "b", None], dtype=kinds), "x": [1.0, 2.0, 3.0, 4.0]})
    filled = model.impute(holes, random_state=0)
    assert filled["k"].dtype == kinds
    assert filled["k"].notna().all()


def test_columns_with_numbers_as_names_must_stand_in_order():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)))
    model = generator(max_iter=2).fit(X)
    with pytest.raises(ValueError, match=r"X has the columns \[0, 2, 1\], but in training they were \[0, 1, 2\]"):
        model.score_samples(X[[0, 2, 1]])


def test_going_on_with_other_categories_is_refused():
    X = np.random.default_rng(0).integers(0, 3, size=(60, 2)).astype(float)
    model = generator(max_iter=2, warm_start=True, categorical_features=np.array([1])).fit(X)
    model.fit(X)
    with pytest.raises(ValueError, match="categorical_features was"):
        model.set_params(categorical_features=[0, 1]).fit(X)


@pytest.mark.parametrize("path", ["vp", "cosine"])
def test_on_bent_paths_given_rows_start_from_standard_noise(path, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = generator(max_iter=2, path=path).fit(X)
    assert model.model_.missing.guess is None
    model.save(tmp_path / "model.safetensors")
    drawn = flowmatch.load(tmp_path / "model.safetensors").sample(4, given={0: X[0, 0]}, random_state=0)
    np.testing.assert_array_equal(drawn, model.sample(4, given={0: X[0, 0]}, random_state=0))


@pytest.mark.parametrize("wrapped", [False, True], ids=["polars", "narwhals around polars"])
def test_polars_frames_are_filled_and_drawn_as_such(wrapped):
    pl = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    kinds = [
        None if hole else kind for hole, kind in zip(rng.random(60) < 0.2, rng.choice(["a", "b"], 60), strict=True)
    ]
    table = pl.DataFrame({"x": rng.normal(size=60), "k": kinds, "n": rng.integers(0, 9, 60), "f": rng.random(60) < 0.4})
    X = pytest.importorskip("narwhals").from_native(table) if wrapped else table
    model = generator(max_iter=2).fit(X)
    filled = model.impute(X, random_state=0)
    assert filled.schema == table.schema
    assert filled["k"].null_count() == 0
    assert filled.drop("k").equals(table.drop("k"))
    assert set(model.sample(9, given={"n": 3}, oversample=2, random_state=0)["n"]) == {3}
