"""Samples that keep a natural distance from real rows: `sample(apart_from=...)`."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import copy_check
from flowmatch.model.rejection import Places
from flowmatch.model.thinning import Thinning
from flowmatch.tables.table import TableContainer

N = 2000


def thinning_of(table):
    """The thinning by a table, and a function that gives its numbers."""
    container = TableContainer.fit(table)
    random = np.random.default_rng(0)
    return Thinning(container, container.read(table), lambda places: random.random(len(places))), container.read


def normal_rows(n, seed, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


def near_by_definition(rows, samples, left_out=None):
    """Whether each sample is nearer to its nearest row than that is to its nearest other one."""
    between = cdist(rows, rows)
    np.fill_diagonal(between, np.inf)
    near = []
    for number, sample in enumerate(samples):
        there = np.ones(len(rows), dtype=bool)
        if left_out is not None:
            there[number] = False
        distance = np.where(there, cdist([sample], rows)[0], np.inf)
        nearest = distance.argmin()
        near.append(distance[nearest] < between[nearest][there].min())
    return np.array(near)


def test_what_is_near_is_as_defined():
    rows, samples = normal_rows(60, 0), normal_rows(200, 1)
    thinning, numbers = thinning_of(rows)
    scaled = [part / rows.std(axis=0) for part in (rows, samples)]
    np.testing.assert_array_equal(thinning.nearness(numbers(samples)), near_by_definition(*scaled))
    assert thinning.natural_share() == near_by_definition(scaled[0], scaled[0], left_out=True).mean()


def test_repeated_rows_and_ties_count_as_documented():
    thinning, numbers = thinning_of(np.array([[0.0], [0.0], [2.0], [3.0]]))
    # nearest to a repeated row, whose spacing is 0; a tie with the spacing 1; nearer; farther
    np.testing.assert_array_equal(
        thinning.nearness(numbers(np.array([[0.5], [0.0], [4.0], [3.5], [4.5]]))), [0, 0.5, 0.5, 1, 0]
    )
    # a copy of a row that is left out: at distance 0 from one that is 2 from the others; 2 and 3 from each other 1 < 2
    assert thinning.natural_share() == 1.0


def test_copies_are_dropped_until_they_are_as_frequent_as_among_real_rows():
    rows, fresh = normal_rows(300, 0), normal_rows(2 * N, 1)
    copies = np.random.default_rng(2).choice(rows, 2 * N) + 0.01 * normal_rows(2 * N, 3)
    thinning, numbers = thinning_of(rows)
    samples = numbers(np.random.default_rng(4).permutation(np.concatenate([fresh, copies])))
    thinning.learn(samples[:1000])
    kept = samples[~thinning.drops(samples, Places.first(np.arange(len(samples))))]
    share, natural = thinning.nearness(kept).mean(), thinning.natural_share()
    assert thinning.nearness(samples).mean() > natural + 0.15
    assert abs(share - natural) < 0.06  # odds learned from 1000 samples, natural share from 300 rows


def test_nothing_is_dropped_of_samples_that_keep_their_distance():
    rows = normal_rows(300, 0)
    thinning, numbers = thinning_of(rows)
    thinning.learn(numbers(3 * normal_rows(1000, 1)))
    assert thinning.kept_share == 1.0
    assert not thinning.drops(numbers(rows), Places.first(np.arange(300))).any()


def test_categories_count_as_distance_one_and_missing_entries_as_one_of_their_own():
    table = pd.DataFrame({"x": [0.0, 0.0, np.nan, 8.0], "kind": ["a", "b", "a", "b"]})
    thinning, numbers = thinning_of(table)
    points = thinning._space(numbers(table))
    distances = cdist(points, points)
    spread = np.nanstd(table["x"])
    assert distances[0, 1] == pytest.approx(1.0)
    assert distances[1, 3] == pytest.approx(8.0 / spread)
    assert distances[0, 2] == pytest.approx(np.hypot(np.nanmean(table["x"]) / spread, 1.0))


@pytest.fixture(scope="module")
def copying():
    """A generator that has learned forty rows of two classes by heart, and these."""
    X = normal_rows(40, 0, d=4)
    y = np.repeat(["few", "many"], [10, 30])
    return FlowMatchingGenerator(max_iter=500, batch_size=64, masked_share=0.0, random_state=0).fit(X, y), X


def test_samples_of_a_model_that_copies_have_the_natural_share(copying):
    generator, X = copying
    plain, apart = (generator.sample(N, random_state=1, apart_from=rows) for rows in (None, X))
    scale, thinning = X.std(axis=0), thinning_of(X)[0]
    share, thinned = (copy_check(X / scale, samples / scale).share for samples in (plain, apart))
    assert share > thinning.natural_share() + 0.1
    assert abs(thinned - thinning.natural_share()) < 0.06


def test_the_first_samples_do_not_depend_on_how_many_there_are(copying):
    generator, X = copying
    np.testing.assert_array_equal(
        generator.sample(7, random_state=1, apart_from=X), generator.sample(300, random_state=1, apart_from=X)[:7]
    )


def test_labels_keep_their_shares(copying):
    generator, X = copying
    _, labels = generator.sample(400, random_state=1, apart_from=X, return_y=True)
    assert abs((labels == "few").sum() - 100) <= 4
    one = generator.sample(200, "few", 1, apart_from=X)
    assert len(one) == 200


def test_mixed_tables_with_given_entries_and_keys():
    random = np.random.default_rng(0)
    n = 150
    table = pd.DataFrame(
        {
            "id": [f"row-{i:05d}" for i in random.permutation(n)],
            "age": random.integers(20, 60, n),
            "pay": np.where(random.random(n) < 0.2, np.nan, random.normal(size=n).round(2)),
            "city": random.choice(["Bonn", "Rome"], n),
        }
    )
    generator = FlowMatchingGenerator(max_iter=60, identifier_columns=["id"], random_state=0).fit(table)
    drawn = generator.sample(80, random_state=0, apart_from=table, given={"age": (30, 40), "city": "Rome"})
    assert drawn["age"].between(30, 40).all()
    assert set(drawn["city"]) == {"Rome"}
    assert list(drawn.columns) == list(table.columns)
    assert not set(drawn["id"]) & set(table["id"])
    assert generator.sample(50, random_state=0, apart_from=table, missing="as_trained")["pay"].isna().any()


@pytest.mark.parametrize(
    ("rows", "call", "message"),
    [
        (np.zeros((5, 3)), {}, "apart_from has to be a table like X of fit: X has 3 features"),
        (np.zeros((1, 4)), {}, "apart_from has to be a table like X of fit"),
        (np.full((5, 4), np.inf), {}, "apart_from has to be a table like X of fit"),
        (
            np.zeros((5, 4)),
            {"return_trajectory": True},
            "return_trajectory=True shows whole rows: leave apart_from out",
        ),
    ],
)
def test_what_cannot_be_kept_apart_from_is_refused(copying, rows, call, message):
    with pytest.raises(ValueError, match=message):
        copying[0].sample(3, "few", apart_from=rows, **call)


def test_grids_are_refused():
    signals = np.random.default_rng(0).normal(size=(20, 1, 8))
    generator = FlowMatchingGenerator(network="mlp", max_iter=2, random_state=0).fit(signals)
    with pytest.raises(ValueError, match="apart_from compares entries of tables"):
        generator.sample(3, apart_from=signals)
