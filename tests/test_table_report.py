"""The report of mixed tables, judged by closed forms, SciPy, and by tables whose faults are known."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from flowmatch.metrics import report
from flowmatch.metrics.associations import associations
from flowmatch.metrics.copies import duplicate_share
from flowmatch.metrics.table_reader import MAX_LEVELS, Encoding, read_tables


def mixed(n, seed):
    """Sex and city go together, and so do age, income and what is bought; some entries are missing."""
    rng = np.random.default_rng(seed)
    sex, age = rng.choice(["f", "m"], n), rng.integers(18, 80, n)
    income = np.exp(rng.normal(10 + 0.02 * age, 0.3)).round(2)
    city = np.where(rng.random(n) < 0.3, "Linz", np.where(sex == "f", "Bern", "Ulm")).astype(object)
    income[rng.random(n) < 0.1], city[rng.random(n) < 0.1] = np.nan, None
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), unit="D")
    buys = rng.random(n) < 1 / (1 + np.exp((50 - age) / 4))
    return pd.DataFrame(
        {"sex": pd.Categorical(sex), "age": age, "income": income, "city": city, "day": day, "buys": buys}
    )


REAL, FRESH, HOLDOUT = (mixed(400, seed) for seed in range(3))


def encode(frame, **options):
    tables = read_tables({"real": frame}, **options)
    return Encoding.of(tables)(tables.rows["real"])


@pytest.fixture(autouse=True)
def _without_classifiers(monkeypatch):
    """Leave the two-sample test out, which takes most of a report's time and has tests of its own."""
    monkeypatch.setattr("flowmatch.metrics.sample_report.classifier_two_sample_test", lambda *_, random_state: 0.5)


# Tables whose faults are known


def test_a_copy_of_the_training_rows_is_given_away_by_every_measure_of_privacy():
    measures = report(REAL, REAL.sample(frac=1, random_state=0), HOLDOUT).measures
    assert measures["copy_share"]["synthetic"] == 1
    assert measures["copy_gap"]["synthetic"] == 1 - measures["copy_share"]["floor"] > 0.3
    assert measures["duplicate_share"] == {"synthetic": 1.0, "floor": 0.0}
    assert measures["nearest_median"]["synthetic"] == 0 < measures["nearest_p05"]["floor"]


def test_columns_permuted_one_by_one_keep_their_marginals_and_lose_their_associations():
    rng = np.random.default_rng(0)
    permuted = pd.DataFrame({name: REAL[name].to_numpy()[rng.permutation(len(REAL))] for name in REAL})
    found = report(REAL, permuted.astype(REAL.dtypes), HOLDOUT, target="buys")
    for name in ("column_distance", "outside_share", "missing_difference"):
        assert found.measures[name]["synthetic"] == 0
    assert found.measures["pair_difference"]["synthetic"] > 3 * found.measures["pair_difference"]["floor"]
    pairs = found.to_frame("pairs").set_index(["first", "second"])
    assert pairs.loc[("sex", "city"), "real"] > 0.8
    assert abs(pairs["synthetic"]).max() < 0.2
    for model in ("trees", "linear"):
        score = found.measures[f"balanced_accuracy_{model}"]
        assert score["floor"] > 0.8
        assert score["synthetic"] < score["floor"] - 0.1


def test_fresh_rows_of_the_same_distribution_sit_at_the_floor():
    for name, row in report(REAL, FRESH, HOLDOUT, target="income").measures.items():
        assert row["synthetic"] == pytest.approx(row["floor"], rel=0.1, abs=0.06), name


def test_without_held_out_rows_training_rows_are_measured_against_the_others():
    found = report(REAL, FRESH).measures
    with_holdout = report(REAL, FRESH, HOLDOUT).measures
    for name in ("nearest_p05", "nearest_median"):
        assert found[name]["synthetic"] == pytest.approx(with_holdout[name]["synthetic"], rel=0.25)
        assert found[name]["floor"] == pytest.approx(with_holdout[name]["floor"], rel=0.2)
    twice = pd.concat([REAL[:30], REAL[:10]])
    assert report(twice, FRESH).measures["duplicate_share"]["floor"] == 20 / 40


def test_without_held_out_rows_levels_of_the_floor_are_new_if_the_other_half_lacks_them():
    names = pd.DataFrame({"name": [f"name {i}" for i in range(40)], "x": 0.0})
    found = report(names, names[:12]).differences["name"]
    assert (found["outside"], found["outside_floor"]) == (0, 1)


def test_missing_entries_equal_each_other_and_nothing_else():
    train = np.array([[np.nan, 1.0], [2.0, 2.0]])
    assert duplicate_share(np.array([[np.nan, 1.0], [0.0, 1.0], [2.0, 2.0], [2.0, np.nan]]), train) == 0.5


# Columns


def test_distances_of_columns_have_their_closed_forms():
    real = pd.DataFrame(
        {"x": np.arange(10.0), "low": np.arange(10.0), "kind": list("aaaaabbbcc"), "gap": [1.0] * 8 + [np.nan] * 2}
    )
    rows = pd.DataFrame(
        {
            "x": np.arange(10.0) + 2,
            "low": np.arange(10.0) - 3,
            "kind": list("aabbbbbbdd"),
            "gap": [1.0] * 5 + [np.nan] * 5,
        }
    )
    found = report(pd.concat([real] * 2), pd.concat([rows] * 2), pd.concat([real] * 2)).to_frame("differences")
    assert found.loc["x", "distance"] == pytest.approx(0.2)  # Kolmogorov-Smirnov, two of ten
    assert found.loc["x", "wasserstein"] == pytest.approx(2 / np.arange(10.0).std())
    assert found["outside"].tolist()[:2] == pytest.approx([0.2, 0.3])
    assert found.loc["kind", "distance"] == pytest.approx((3 + 3 + 2 + 2) / 10 / 2)  # total variation
    assert found.loc["kind", "outside"] == pytest.approx(0.2)  # there was no d
    assert found.loc["gap", ["distance", "missing", "outside"]].tolist() == pytest.approx([0, 0.3, 0])
    assert (found.filter(like="_floor") == 0).all(axis=None)
    assert found["kind"].tolist() == ["number", "number", "category", "number"]


def test_statistics_of_columns_count_observed_entries_and_read_like_the_table():
    found = report(REAL, FRESH, HOLDOUT)
    assert list(found.columns) == found.to_frame("columns").index.tolist() == REAL.columns.tolist()
    assert found.columns["income"]["mean"]["real"] == pytest.approx(REAL["income"].mean())
    assert found.columns["income"]["missing"]["synthetic"] == FRESH["income"].isna().mean()
    assert found.columns["city"] == {
        "levels": {"real": 3, "synthetic": 3},
        "top_share": {side: pytest.approx((rows["city"].dropna() == top(REAL)).mean()) for side, rows in SIDES},
        "missing": {side: rows["city"].isna().mean() for side, rows in SIDES},
    }
    text = str(found)
    assert f" {REAL['day'].min():%Y-%m-%d} " in text
    assert "farthest pairs" in text
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


SIDES = (("real", REAL), ("synthetic", FRESH))


def top(frame):
    return frame["city"].value_counts().index[0]


# Pairs


def associate(frame):
    tables = read_tables({"real": frame})
    return associations(tables.rows["real"], tables)


def test_associations_have_their_closed_forms():
    x = np.arange(12.0)
    frame = pd.DataFrame(
        {
            "x": x,
            "cube": -((x - 5.5) ** 3),
            "third": np.repeat(["a", "b", "c"], 4),
            "same": np.repeat(["u", "v", "w"], 4),
            "across": np.tile(["p", "q"], 6),
            "constant": 1.0,
        }
    )
    found = pd.DataFrame(associate(frame), index=frame.columns, columns=frame.columns)
    assert found.loc["x", "cube"] == pytest.approx(-1)
    assert found.loc["third", "same"] == pytest.approx(1)
    assert found.loc["third", "across"] == pytest.approx(0, abs=1e-7)
    # of the variance 143 / 12 of 12 ranks, 5 / 4 = 15 / 12 lies within blocks of four
    assert found.loc["third", "x"] == pytest.approx(np.sqrt(1 - 15 / 143))
    assert found["constant"].drop("constant").eq(0).all()
    assert (found == found.T).all(axis=None)


def test_associations_over_the_observed_entries_are_scipys():
    frame = REAL[["age", "income", "sex", "city", "buys"]]
    # missing by age: not at random
    frame = frame.assign(income=frame["income"].where(frame["age"] < 50), age=frame["age"].where(frame["age"] > 25))
    found = pd.DataFrame(associate(frame), index=frame.columns, columns=frame.columns)
    complete = frame.dropna(subset=["income"])
    expected = frame["age"].rank().corr(frame["income"].rank())
    assert found.loc["age", "income"] == pytest.approx(expected)
    table = pd.crosstab(REAL["sex"], REAL["city"]).to_numpy()
    assert found.loc["sex", "city"] == pytest.approx(scipy.stats.contingency.association(table, method="cramer"))
    groups = [income for _, income in complete.groupby("buys")["income"]]
    assert found.loc["income", "buys"] ** 2 * (len(complete) - 1) == pytest.approx(scipy.stats.kruskal(*groups)[0])


# Distances


def test_two_different_categories_and_a_missing_entry_are_at_distance_one():
    frame = pd.DataFrame(
        {"kind": ["a", "b", None, "b"], "flag": [True, True, True, False], "x": [0.0, 0.0, 0.0, np.nan]}
    )
    rows = encode(frame)
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    assert distance[0, :3].tolist() == pytest.approx([0, 1, 1])
    assert distance[1, 2] == pytest.approx(1)
    assert distance[1, 3] == pytest.approx(np.sqrt(2))  # another flag, and x, which is always 0, is missing
    np.testing.assert_allclose(encode(frame[["x"]].fillna(3.0) * 7)[:, 0], [-(3**-0.5)] * 3 + [3**0.5])


def test_containers_of_the_same_entries_measure_the_same():
    expected = report(REAL, FRESH, HOLDOUT).measures
    for change in (lambda frame: frame.convert_dtypes(), lambda frame: frame.astype(object).to_numpy()):
        found = report(*map(change, (REAL, FRESH, HOLDOUT))).measures
        for name, row in expected.items():
            assert found[name] == pytest.approx(row), name


def test_arrays_need_no_pandas(monkeypatch):
    objects = [frame.drop(columns="day").to_numpy(dtype=object) for frame in (REAL, FRESH)]
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert report(*objects).measures["missing_difference"]["synthetic"] > 0


def test_zeros_and_ones_stand_for_booleans_and_floats_for_the_integers_of_a_category():
    real = pd.DataFrame({"flag": [True, True, False] * 8, "code": pd.Categorical([1, 2, 2] * 8)})
    found = report(real, pd.DataFrame({"flag": [1, 1, 0] * 8, "code": [1.0, 2.0, 2.0] * 8}), real)
    assert found.measures["duplicate_share"]["synthetic"] == 1
    assert found.measures["column_distance"]["synthetic"] == 0


def test_codes_in_an_array_are_categories_if_it_says_so():
    codes = np.repeat([[0.0, 5.0], [1.0, 6.0], [2.0, np.nan], [3.0, 5.0]], 5, axis=0)
    shuffled = codes[::-1]
    assert report(codes, shuffled).differences["x0"]["kind"] == "number"
    for chosen in ([0], [True, False], ["x0"], [-2]):
        kinds = [row["kind"] for row in report(codes, shuffled, categorical_features=chosen).differences.values()]
        assert kinds == ["category", "number"]


def test_thousands_of_levels_are_measured_by_the_most_frequent_ones():
    names = np.array([f"name {i}" for i in range(3000)])
    frame = pd.DataFrame({"name": np.concatenate([names, names[:40]]), "x": 0.0})
    rows = encode(frame)
    assert rows.shape == (3040, MAX_LEVELS + 2)
    assert np.linalg.norm(rows[0] - rows[1]) == pytest.approx(1)
    found = report(frame, frame[:200]).measures
    assert found["duplicate_share"] == {"synthetic": 1.0, "floor": 80 / 3040}


# Downstream


def test_targets_beside_the_samples_count_as_a_last_column():
    frames = [frame[:100] for frame in (REAL, FRESH, HOLDOUT)]
    beside = report(*(frame.drop(columns="income") for frame in frames), target=[frame["income"] for frame in frames])
    moved = [frame[[*frame.columns.drop("income"), "income"]] for frame in frames]
    assert beside.measures == report(*moved, target="income").measures
    assert list(beside.columns)[-1] == "income"
    arrays = [torch.randn(30, 2, generator=torch.manual_seed(0)), torch.zeros(30, 2)]
    found = report(*arrays, target=(arrays[0][:, 0].numpy(), np.zeros(30)))
    assert found.measures["r2_linear"]["synthetic"] < 0.1 < 0.8 < found.measures["r2_linear"]["floor"]


def test_a_model_of_few_whole_numbers_is_a_classifier_and_one_of_many_a_regressor():
    codes = np.arange(200).reshape(100, 2)
    assert "macro_f1_linear" in report(codes % 3, np.ones((30, 2)), target=1).measures
    assert "r2_trees" in report(codes, np.ones((30, 2)), target=1).measures


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: report(REAL, FRESH.drop(columns="age")), "real has 6 columns and synthetic has 5"),
        (lambda: report(REAL, FRESH.rename(columns={"age": "years"})), "synthetic has .*'years'"),
        (lambda: report(REAL, FRESH[REAL.columns[::-1]]), r"another order.*synthetic\[real.columns\]"),
        (lambda: report(REAL, FRESH, HOLDOUT[:5]), "6 rows a side.* 5 real rows for the floor"),
        (lambda: report(REAL, FRESH[:0]), "synthetic is empty"),
        (lambda: report(REAL, FRESH, target="profit"), "target names the column 'profit', which there is not.*'sex'"),
        (lambda: report(REAL, FRESH, target=6), "target names the column 6"),
        (lambda: report(REAL, FRESH, HOLDOUT, target=(1, 2)), r"sequence \(y_real, y_synthetic, y_holdout\), got a"),
        (
            lambda: report(REAL, FRESH, target=(REAL["age"], [1, 2])),
            r"target for synthetic has shape \(2,\); .* \(400,\)",
        ),
        (lambda: report(REAL, FRESH, categorical_features=["town"]), "categorical_features names the column 'town'"),
        (lambda: report(REAL, FRESH, categorical_features=[True]), "mask of 1 columns; the table has 6"),
        (lambda: report(REAL, FRESH, categorical_features=None), "column 'sex', such as 'm' in row 0.*numbers"),
        (lambda: report(REAL, FRESH.assign(age="old")), "synthetic .* column 'age', such as 'old' in row 0"),
        (lambda: report(REAL, FRESH.assign(age=np.inf)), "synthetic holds infinity in 400 of its 400 rows.*'age'"),
        (lambda: report(REAL, FRESH).to_frame("rows"), "unknown part 'rows'"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_columns_without_an_observed_entry_or_of_one_value_are_measured():
    odd = REAL[["age", "city"]].assign(void=np.nan, one=1.0, nothing=None)
    rows = FRESH[["age", "city"]].assign(void=2.0, one=np.nan, nothing=None, city=None)
    found = report(odd, rows, target="city")
    assert np.isnan(found.measures["macro_f1_trees"]["synthetic"])  # there is nothing to learn from
    found = found.to_frame("differences")
    assert found["distance"].drop("age").tolist() == [1, 1, 1, 0]
    assert found["missing"].drop("age").tolist() == pytest.approx([1 - REAL["city"].isna().mean(), 1, 1, 0], abs=0.06)
