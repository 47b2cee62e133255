"""Ranges, sets, functions and missing entries in `given`, and conditions drawn given what is given."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ks_2samp, norm

from flowmatch import MLP, DistilledFlowMap, FlowMatchingGenerator
from flowmatch.model import CodeDensity, rejection
from flowmatch.model.condition_draws import partial_log_density

RNG = np.random.default_rng(0)
N = 600
LABELS = RNG.choice(["left", "right"], N, p=[0.7, 0.3])
X1 = RNG.normal(size=N) + np.where(LABELS == "right", 3.0, 0.0)
TABLE = pd.DataFrame(
    {
        "x": X1,
        "twin": X1 + 0.5 * RNG.normal(size=N),
        "age": RNG.integers(18, 91, N),
        "city": RNG.choice(["Bern", "Linz", "Ulm"], N, p=[0.6, 0.3, 0.1]),
        "member": RNG.random(N) < 0.4,
        "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 366, N), unit="D"),
        "narrow": RNG.normal(size=N).astype(np.float32),
    }
)
HOLES = TABLE.copy()
HOLES.loc[RNG.random(N) < np.where(LABELS == "right", 0.5, 0.1), "age"] = np.nan
HOLES.loc[HOLES["age"].isna() & (RNG.random(N) < 0.5), "city"] = None


def small(**parameters):
    return FlowMatchingGenerator(
        **({"network": MLP(width=32), "max_iter": 300, "n_steps": 4, "random_state": 0, "device": "cpu"} | parameters)
    )


MODELS = {
    "plain": lambda: small(max_iter=60).fit(TABLE),
    "unmasked": lambda: small(max_iter=30, masked_share=0.0).fit(TABLE),
    "labels": lambda: small().fit(HOLES, LABELS),
    "two": lambda: small().fit(np.column_stack([X1, RNG.normal(size=N)]), LABELS),
    "amounts": lambda: small().fit(np.column_stack([X1, RNG.normal(size=N)]), X1 + RNG.normal(size=N)),
    "sparse": lambda: small(max_iter=5, source="sparse").fit(TABLE[["x", "age"]], LABELS),
    "student": lambda: DistilledFlowMap(model("labels"), max_iter=20, n_stages=1, random_state=0).fit(HOLES, LABELS),
}  # fmt: skip


@functools.cache
def model(name):
    return MODELS[name]()


def sample(name, n=None, **options):
    return model(name).sample(n, random_state=0, **options)


# -- what comes back is as asked -----------------------------------------------------------------------------------------------

ASKED = {
    "range": ({"age": (30, 40)}, lambda X: X["age"].between(30, 40)),
    "from": ({"x": (1.0, None)}, lambda X: X["x"] >= 1.0),
    "slice": ({"age": slice(None, 25)}, lambda X: X["age"] <= 25),
    "float32": ({"narrow": (0.1, 0.7)}, lambda X: X["narrow"].between(np.float32(0.1), np.float32(0.7))),
    "dates": ({"since": ("2024-03-01", "2024-04-30")}, lambda X: X["since"].between("2024-03-01", "2024-04-30")),
    "timestamps": ({"since": slice(pd.Timestamp("2024-06-05"), None)}, lambda X: X["since"] >= "2024-06-05"),
    "set": ({"city": {"Linz", "Ulm"}}, lambda X: X["city"].isin(["Linz", "Ulm"])),
    "numbers": ({"age": {30, 31, 32, 60, 61, 62}}, lambda X: X["age"].isin([30, 31, 32, 60, 61, 62])),
    "booleans": ({"member": {True}}, lambda X: X["member"]),
    "function": ({"x": lambda x: np.abs(x) > 1}, lambda X: X["x"].abs() > 1),
    "function_of_text": ({"city": lambda city: city == "Ulm"}, lambda X: X["city"] == "Ulm"),
    "function_of_dates": ({"since": lambda day: day > np.datetime64("2024-07-01")}, lambda X: X["since"] > "2024-07-01"),
    "several": ({"age": (20, 60), "city": {"Bern"}, "x": lambda x: x > 0}, lambda X: X["age"].between(20, 60) & (X["city"] == "Bern") & (X["x"] > 0)),
    "beside_a_value": ({"age": (30, 60), "city": "Linz"}, lambda X: X["age"].between(30, 60) & (X["city"] == "Linz")),
    "beside_a_list": ({"age": (30, 90), "city": ["Linz", "Ulm"] * 20}, lambda X: X["age"].between(30, 90) & (X["city"] == ["Linz", "Ulm"] * 20)),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_rows_are_as_asked(what):
    given, satisfied = ASKED[what]
    drawn = sample("plain", 40, given=given)
    assert len(drawn) == 40
    assert satisfied(drawn).all()
    assert not satisfied(TABLE.sample(200, random_state=0) if len(drawn) != 40 else sample("plain", 40)).all()
    assert list(drawn.dtypes) == list(TABLE.dtypes)


def test_ranges_need_no_masked_training_and_hold_in_arrays_and_tensors():
    assert sample("unmasked", 20, given={"age": (30, 60), "city": {"Linz"}})["age"].between(30, 60).all()
    assert (sample("two", 20, given={0: (1.0, 2.0)})[:, 0] >= 1.0).all()
    of_tensors = small(max_iter=5).fit(torch.tensor(TABLE[["x", "twin"]].to_numpy()))
    drawn = of_tensors.sample(20, random_state=0, given={1: slice(0.5, None)})
    assert isinstance(drawn, torch.Tensor)
    assert (drawn[:, 1] >= 0.5).all()


@pytest.mark.slow
def test_students_and_candidates_keep_to_ranges():
    assert sample("student", 20, given={"x": (1.0, 3.0)})["x"].between(1, 3).all()
    drawn, y = sample("labels", 30, given={"x": (2.0, 5.0)}, oversample=3, return_y=True)
    assert drawn["x"].between(2, 5).all()
    assert (y == "right").mean() > 0.6


def test_entries_in_a_range_are_never_missing_and_others_miss_as_trained():
    drawn = sample("labels", 200, given={"age": (30, 90)}, missing="as_trained")
    assert drawn["age"].between(30, 90).all()
    assert not drawn["city"].isna().any()  # which is missing only where age is
    drawn = sample("labels", 200, given={"x": (0, 3)}, missing="as_trained")
    assert 0.1 < drawn["age"].isna().mean() < 0.4


# -- the distribution ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "labels"])
def test_rows_in_a_range_follow_the_conditional_distribution(name):
    """That of all rows drawn, of which those outside are left out."""
    given = {"x": (0.5, 2.5), "city": {"Bern", "Ulm"}}
    asked, y = model(name).sample(2000, random_state=2, given=given, return_y=True)
    whole, of_whole = model(name).sample(12_000, random_state=1, return_y=True)
    inside = (whole["x"].between(0.5, 2.5) & whole["city"].isin(["Bern", "Ulm"])).to_numpy()
    assert 1500 < inside.sum() < 4000
    for column in ("x", "twin", "age"):
        assert ks_2samp(asked[column], whole[column][inside]).statistic < 0.05  # 1 % of equal distributions have more
    assert ks_2samp(asked["twin"], whole["twin"]).statistic > 0.2
    assert (asked["city"] == "Ulm").mean() == pytest.approx((whole["city"][inside] == "Ulm").mean(), abs=0.04)
    if y is not None:
        assert (y == "right").mean() == pytest.approx((of_whole[inside] == "right").mean(), abs=0.04)
        assert (y == "right").mean() != pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(("x", "least", "most"), [(4.0, 0.98, 1.0), (-1.5, 0.0, 0.02), (1.5, 0.15, 0.5)])
def test_labels_follow_their_distribution_given_a_value(x, least, most):
    """Two normal classes, 70 % at 0 and 30 % at 3; at 1.5 the densities are equal, so that the shares remain."""
    odds = 0.3 * norm.pdf(x, 3) / (0.7 * norm.pdf(x) + 0.3 * norm.pdf(x, 3))
    assert least <= odds <= most
    drawn, y = sample("two", 500, given={0: x}, return_y=True)
    assert (drawn[:, 0] == x).all()
    assert least <= (y == "right").mean() <= most


def test_labels_of_rows_with_values_of_their_own_follow_each():
    values = np.tile([-1.5, 4.5], 100)
    y = sample("two", given={0: values}, return_y=True)[1]
    assert ((y == "right") == (values > 0)).mean() > 0.95


def test_rows_of_a_value_are_those_of_the_labels_beside_them():
    drawn, y = sample("labels", 400, given={"x": 1.5}, return_y=True)
    assert 0.1 < (y == "right").mean() < 0.6
    assert drawn["twin"].mean() == pytest.approx(1.5, abs=0.4)


@pytest.mark.parametrize("columns", [["x"], ["age", "city"], list(TABLE)])
def test_the_density_of_some_entries_is_that_of_rows_which_miss_the_others(columns):
    fitted = model("labels").model_
    rows = fitted.encoder.container.read(TABLE.head(8))
    rows[:, ~TABLE.columns.isin(columns)] = np.nan
    codes = fitted.encoder.encode(rows)
    vectors = torch.as_tensor(fitted.conditions.encode(LABELS[:8], 8))
    expected = CodeDensity(fitted, "midpoint", 4)(codes, vectors)[0]  # in single precision
    np.testing.assert_allclose(partial_log_density(fitted, codes, vectors), expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_amounts_follow_their_distribution_given_a_value():
    """y is x and noise of variance 1, so it is about x."""
    for x in (-1.0, 3.0):
        y = sample("amounts", 400, given={0: x}, return_y=True)[1]
        assert y.mean() == pytest.approx(x, abs=0.5)
        assert 0.5 < y.std() < 1.6


def test_labels_that_are_passed_stay():
    y = sample("two", 50, y="left", given={0: 4.0}, return_y=True)[1]
    assert set(y) == {"left"}
    drawn, y = sample("two", 50, y=["left", "right"] * 25, given={0: (1.0, 2.0)}, return_y=True)
    assert list(y) == ["left", "right"] * 25
    assert ((drawn[:, 0] >= 1) & (drawn[:, 0] <= 2)).all()


# -- missing entries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [None, np.nan, pd.NA])
def test_a_given_missing_entry_is_missing_and_the_rest_is_that_of_such_rows(mark):
    drawn, y = sample("labels", 300, given={"age": mark}, return_y=True)
    assert drawn["age"].isna().all()
    assert not drawn.drop(columns="age").isna().any().any()
    assert (y == "right").mean() == pytest.approx((LABELS[HOLES["age"].isna()] == "right").mean(), abs=0.02)
    assert drawn["x"].mean() > TABLE["x"].mean() + 0.5


def test_rows_with_a_missing_entry_miss_others_as_trained():
    drawn = sample("labels", 300, given={"age": None}, missing="as_trained")
    assert drawn["age"].isna().all()
    assert drawn["city"].isna().mean() == pytest.approx(HOLES["city"][HOLES["age"].isna()].isna().mean(), abs=0.05)
    assert sample("labels", 50, given={"age": None, "city": None})[["age", "city"]].isna().all().all()
    assert sample("labels", 50, y="left", given={"age": None, "x": (1.0, None)})["x"].min() >= 1
    with pytest.raises(ValueError, match="no training row misses 'city' at once, and has all of the entries"):
        sample("labels", 5, given={"city": None, "age": 40})


# -- how many rows -------------------------------------------------------------------------------------------------------------


def test_a_table_of_given_columns_says_how_many_rows():
    known = TABLE[["age", "city"]].head(7)
    drawn = sample("plain", given=known)
    pd.testing.assert_frame_equal(drawn[["age", "city"]], known)
    assert len(sample("plain", given={"city": ["Ulm", "Bern", "Ulm"], "age": (30, 60)})) == 3
    assert len(sample("plain", given={"city": "Ulm"})) == len(sample("plain")) == 1
    assert len(sample("plain", 4, given={"city": "Ulm"})) == 4
    with pytest.raises(ValueError, match=r"given\['age'\] has 7 values; expected one, or one for each of 3 samples"):
        sample("plain", 3, given=known)
    with pytest.raises(ValueError, match=r"has 2 values; expected one, or one for each of 3"):
        sample("plain", given={"city": ["Ulm", "Bern", "Ulm"], "age": [30, 40]})


# -- what cannot be ------------------------------------------------------------------------------------------------------------

WRONG = {
    "outside": ({"age": (100, 120)}, r"given\['age'\] is a range from 100 to 120, outside the range of the training data, 18.0 to 90.0"),
    "below": ({"since": (None, "2023-05-01")}, r"given\['since'\] is a range from None to 2023-05-01, outside .*2024-01-01"),
    "empty": ({"age": (40, 30)}, r"given\['age'\] is a range from 40 to 30, which holds nothing"),
    "step": ({"age": slice(20, 30, 2)}, r"given\['age'\] is slice\(20, 30, 2\); a range has no step"),
    "end": ({"age": ([20], [30, 40])}, r"given\['age'\] has \[30, 40\] as an end of a range; expected one value, or None"),
    "text": ({"age": ("young", "old")}, r"column 'age'.*'young'"),
    "categories": ({"city": ("Bern", "Ulm")}, r"given\['city'\] is a range, but the column holds categories: give a set, such as \{'Bern'\}, or a list of one each"),
    "no_set": ({"city": set()}, r"given\['city'\] is an empty set"),
    "unseen": ({"city": {"Bern", "Rome"}}, r"column 'city'.*'Rome'.*training has not seen"),
    "beyond": ({"age": {30, 200}}, r"given\['age'\] is 200.0, outside the range of the training data"),
    "fraction": ({"age": {30.5}}, r"given\['age'\] is 30.5, which the column cannot hold"),
    "shape": ({"x": lambda x: x[:2] > 0}, r"given\['x'\] returned bool of shape \(2,\)"),
    "scores": ({"x": lambda x: x}, r"given\['x'\] returned float64 of shape .*: bool of shape"),
    "never_missing": ({"x": None}, r"given\['x'\] is a missing value, but no training row misses it"),
    "column": ({"income": (1, 2)}, r"there is no column 'income'"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_named_before_anything_is_drawn(what, monkeypatch):
    given, message = WRONG[what]
    if what not in ("shape", "scores"):
        monkeypatch.setattr("flowmatch.model.rows.carry", None)
    with pytest.raises(ValueError, match=message):
        sample("plain", 4, given=given)


def test_ranges_of_other_samples_than_tables_are_refused():
    grids = small(network="auto", max_iter=1).fit(np.random.default_rng(0).normal(size=(9, 1, 8)))
    with pytest.raises(ValueError, match="given fixes entries of tables"):
        grids.sample(2, given={0: (0, 1)})
    with pytest.raises(ValueError, match="return_trajectory=True shows whole rows"):
        sample("plain", 2, given={"age": (20, 30)}, return_trajectory=True)
    with pytest.raises(ValueError, match="y cannot be drawn given these entries, so pass it too: source='sparse'"):
        sample("sparse", 2, given={"age": 40})
    assert len(sample("sparse", 2, y="left", given={"age": 40})) == 2


def test_rare_rows_are_warned_of_and_too_rare_ones_are_an_error(monkeypatch):
    message = r"given: 'age' in 33, 'x' from 4 to None \(training data: .*\): 0\.00.* of the rows drawn are like that"
    with pytest.warns(UserWarning, match=message):
        assert (sample("plain", 9, given={"age": {33}, "x": (4, None)})["x"] >= 4).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample("plain", 5, given={"x": (0, None)})
    monkeypatch.setattr(rejection, "MOST_CANDIDATES", 100)
    with pytest.raises(
        ValueError, match=r"given: 'x' by <lambda>: too rare to be drawn. Of \d+ rows drawn, 0 were like that"
    ):
        sample("plain", 3, given={"x": lambda x: x > 99})
    with (
        pytest.warns(UserWarning, match="of the rows drawn are like that"),
        pytest.raises(ValueError, match=r"Of \d+ rows drawn, [1-9]\d* were like that"),
    ):
        sample("plain", 300, given={"x": lambda x: np.arange(len(x)) == 0})  # one of them at a time
