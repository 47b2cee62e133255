"""Columns of keys: recognized or named, left out of learning, and filled with fresh ones."""

import hashlib
import string
import uuid

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch import (
    MLP,
    AugmentedClassifier,
    ConditionalForecaster,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    FlowMatchingOverSampler,
    load,
)
from flowmatch.preprocessing import KeyForm, TableContainer

RNG = np.random.default_rng(0)
N = 400
TINY = {"network": MLP(width=8, depth=1), "max_iter": 15, "batch_size": 64, "random_state": 0}


def letters(n):
    return "".join(RNG.choice(list(string.ascii_lowercase), n))


def distinct(make, n=N):
    return list(dict.fromkeys(make() for _ in range(2 * n)))[:n]


KEYS = {
    "dense integers": RNG.permutation(np.arange(100_000, 100_000 + N)),
    "integers with gaps": RNG.permutation(np.arange(1, N * 21 // 20))[:N],
    "integers of a third of a table": RNG.choice(3 * N, N, replace=False),
    "nullable integers": pd.array(RNG.permutation(N), dtype="Int32"),
    "integers as objects": np.arange(5, 5 + N).astype(object),
    "integers beyond 2^53": np.arange(2**60, 2**60 + N),
    "integers at the end of their dtype": np.arange(200, dtype=np.uint8).repeat(2)[::2].astype(np.uint8),
    "counted text": [f"C-{i:05d}/x" for i in range(N)],
    "counted text without zeros": [f"row {i}" for i in range(N)],
    "digits": [f"{i:06d}" for i in RNG.permutation(10**6)[:N]],
    "plates": distinct(lambda: f"{letters(2).upper()}-{RNG.integers(10**4):04d}"),
    "hashes": [hashlib.sha1(str(i).encode()).hexdigest() for i in range(N)],
    "uuid text": [str(uuid.UUID(int=int(i), version=4)) for i in RNG.integers(2**62, size=N)],
    "uuids": [uuid.UUID(int=int(i) << 60, version=4) for i in RNG.integers(2**62, size=N)],
    "uuids that count": [uuid.UUID(int=i) for i in range(N)],
    "names": distinct(lambda: f"{letters(RNG.integers(3, 8)).title()} {letters(RNG.integers(3, 8)).title()}"),
    "mails": distinct(lambda: f"{letters(RNG.integers(5, 9))}@mail.example"),
    "sentences": distinct(lambda: " ".join(letters(RNG.integers(1, 9)) for _ in range(RNG.integers(2, 20)))),
}
"""Kinds of keys, of which "auto" finds every one."""


def table_with(keys, n=None):
    n = len(keys) if n is None else n
    return pd.DataFrame({"key": keys, "x": RNG.normal(size=n), "sex": RNG.choice(["f", "m"], n)})


@pytest.fixture(scope="module")
def customers():
    table = table_with(np.arange(100_000, 100_000 + N))
    return table.assign(code=KEYS["plates"], token=KEYS["uuids"], y=RNG.integers(2, size=N))


@pytest.fixture(scope="module")
def fitted(customers):
    with pytest.warns(UserWarning, match=r"taken for keys, .* fresh ones: 'key', 'code', 'token'"):
        return FlowMatchingGenerator(**TINY).fit(customers)


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_keys_are_found_and_fresh_ones_have_their_type_and_form_and_no_real_one_is_among_them(keys):
    table = table_with(keys)
    with pytest.warns(UserWarning, match="taken for keys"):
        container = TableContainer.fit(table, identifier_columns="auto")
    assert container.key_names == ["key"]
    values = container.read(table)
    assert (values[:, 0] == 0).all()
    fresh = container.wrap(np.tile(values, (5, 1)))["key"]
    assert fresh.is_unique
    assert not set(fresh) & set(table["key"])
    assert set(map(type, fresh)) == set(map(type, table["key"]))
    assert fresh.tolist()[:7] == container.wrap(values[:7])["key"].tolist()
    container.check()


@pytest.mark.parametrize(
    ("name", "form"),
    {
        "counted text": r"C-0\d{4}/x",
        "counted text without zeros": r"row \d+",
        "digits": r"\d{6}",
        "plates": r"[A-Z]{2}-\d{4}",
        "hashes": r"[0-9a-f]{40}",
        "uuid text": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        "names": r"[A-Z][a-z]+ [A-Z][a-z]+",
        "mails": r"[a-z]+@mail.example",
    }.items(),
)
def test_fresh_texts_have_the_form_of_the_real_ones(name, form):
    fresh = pd.Series(KeyForm.fit(KEYS[name], "text").fresh(300, seed=1))
    assert fresh.str.fullmatch(form).all()


def test_counted_keys_go_on_from_the_largest():
    assert KeyForm.fit([7, 3, 9], "int").fresh(3, seed=0, taken=[11]) == [10, 12, 13]
    assert KeyForm.fit(["a008", "a009", "a007"], "text").fresh(2, seed=0) == ["a010", "a011"]


def test_so_few_ways_that_fresh_keys_become_longer():
    taken = [f"{a}{b}" for a in string.ascii_lowercase for b in string.ascii_lowercase]
    fresh = KeyForm.fit(taken, "text").fresh(20_000, seed=0)
    assert len(set(fresh)) == 20_000
    assert not set(fresh) & set(taken)


@pytest.mark.parametrize(
    "column",
    {
        "years": np.arange(1900, 1900 + N // 4).repeat(1),
        "integers with large gaps": np.arange(N) * 11,
        "so few integers that they are distinct by chance": RNG.choice(700, 100, replace=False),
        "repeated integers": np.arange(N) // 2,
        "whole floats": np.arange(N, dtype=float),
        "few rows": np.arange(40),
        "categories": [f"town {i % 60}" for i in range(N)],
    }.values(),
    ids=lambda column: str(column[0]),
)
def test_what_is_no_key_is_learned(column):
    assert TableContainer.fit(table_with(column), identifier_columns="auto").key_names == []


def test_ranks_are_no_keys():
    table = pd.DataFrame({name: RNG.permutation(N) for name in "abc"}).assign(x=RNG.normal(size=N))
    assert TableContainer.fit(table, identifier_columns="auto").key_names == []
    with pytest.warns(UserWarning, match="taken for keys"):
        container = TableContainer.fit(table[["a", "x"]].assign(row=np.arange(N)), identifier_columns="auto")
    assert container.key_names == ["a", "row"]
    twice = pd.DataFrame({"id": np.arange(N), "row": np.arange(N), "x": RNG.normal(size=N)})
    with pytest.warns(UserWarning, match="taken for keys"):
        assert TableContainer.fit(twice, identifier_columns="auto").key_names == ["id", "row"]


def test_the_only_column_is_learned_and_none_can_be_named():
    alone = pd.DataFrame({"key": np.arange(N)})
    assert TableContainer.fit(alone, identifier_columns="auto").key_names == []
    assert TableContainer.fit(table_with(np.arange(N)), identifier_columns=None).key_names == []
    with pytest.raises(ValueError, match="every column of X"):
        TableContainer.fit(alone, identifier_columns=["key"])


@pytest.mark.parametrize(
    ("column", "parameters", "message"),
    [
        (
            ["a", "b", "a", "c"],
            {"identifier_columns": ["key"]},
            "column 'key' .* not unique: 1 rows .* 'a' in rows 0 and 2",
        ),
        ([1, 2, 3, 4], {"identifier_columns": ["key", 0]}, "names column 'key' twice"),
        ([1, 2, 3, 4], {"identifier_columns": ["key", "key"]}, "names column 'key' twice"),
        ([1, 2, 3, 4], {"identifier_columns": ["id"]}, "holds 'id', but X has the columns"),
        ([1, 2, 3, 4], {"identifier_columns": "key"}, "identifier_columns='key'; expected 'auto', None, or a list"),
        (
            [1, 2, 3, 4],
            {"identifier_columns": [0], "categorical_features": ["key"]},
            "column 'key' .* and in categorical",
        ),
        ([0.5, 2, 3, 4], {"identifier_columns": ["key"]}, "column 'key' .* holds dtype float64; keys are whole"),
        (pd.Categorical(list("abcd")), {"identifier_columns": ["key"]}, "column 'key' .* holds categories"),
        ([None] * 4, {"identifier_columns": ["key"]}, "column 'key' .* holds no value at all"),
    ],
)
def test_bad_names_of_keys_are_refused_before_training(column, parameters, message):
    with pytest.raises(ValueError, match=message):
        FlowMatchingGenerator(**TINY, **parameters).fit(table_with(column))


def test_keys_of_grids_are_refused():
    with pytest.raises(ValueError, match="identifier_columns=.*not a table"):
        FlowMatchingGenerator(**TINY, identifier_columns=[0]).fit(np.zeros((60, 1, 8)))


def test_samples_have_new_keys_and_the_rest_does_not_depend_on_them(customers, fitted):
    drawn = fitted.sample(1000, random_state=1)
    assert list(drawn.columns) == list(customers.columns)
    assert fitted.identifier_columns_ == ["key", "code", "token"]
    for name in fitted.identifier_columns_:
        assert drawn[name].is_unique
        assert not set(drawn[name]) & set(customers[name])
    plain = customers.drop(columns=["key", "code", "token"])
    alone = FlowMatchingGenerator(**TINY).fit(plain)
    pd.testing.assert_frame_equal(drawn[plain.columns], alone.sample(1000, random_state=1))
    with pytest.warns(UserWarning, match="no log-density"):
        of_keys, of_others = fitted.score_samples(customers[:9]), alone.score_samples(plain[:9])
    np.testing.assert_array_equal(of_keys, of_others)
    assert fitted.encode(customers[:3]).shape == alone.encode(plain[:3]).shape
    best = fitted.sample(50, random_state=1, oversample=3)
    assert best["code"].is_unique
    assert best["key"].is_unique


def test_the_same_seed_gives_the_same_keys_and_another_one_others(fitted):
    keys = [fitted.sample(20, random_state=seed)["code"].tolist() for seed in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("how", ["drop", "empty"])
def test_keys_can_be_left_out_or_left_empty(customers, fitted, how):
    other = FlowMatchingGenerator.from_fitted(fitted.fitted_, identifiers=how)
    drawn, keys = other.sample(20, random_state=1), ["key", "code", "token"]
    rest = customers.columns.drop(keys)
    pd.testing.assert_frame_equal(drawn[rest], fitted.sample(20, random_state=1)[rest])
    if how == "drop":
        assert list(drawn.columns) == list(rest)
        assert list(other.decode(np.zeros((2, 3))).columns) == list(rest)
    else:
        assert drawn[keys].isna().all(axis=None)


def test_imputation_keeps_keys_and_fills_missing_ones_with_fresh_ones(customers, fitted):
    holed = customers.assign(key=customers["key"].astype("Int64") + 10)  # partly those that fresh ones would be
    holed.loc[[3, 5], "key"], holed.loc[[5, 8], "code"], holed.loc[9, ["token", "x"]] = pd.NA, None, None
    filled = fitted.impute(holed, random_state=0)
    assert filled.notna().all(axis=None)
    for name in fitted.identifier_columns_:
        there = holed[name].notna()
        assert filled[name].is_unique
        assert not set(filled[name][~there]) & set(customers[name])
        assert (filled[name][there] == holed[name][there]).all()
    left = FlowMatchingGenerator.from_fitted(fitted.fitted_, identifiers="empty").impute(holed, random_state=0)
    pd.testing.assert_frame_equal(left[fitted.identifier_columns_], holed[fitted.identifier_columns_])


def test_a_given_key_is_refused(fitted):
    with pytest.raises(ValueError, match="column 'key': it holds keys, which are not learned"):
        fitted.sample(3, given={"key": 5})


def test_files_hold_the_form_and_none_of_the_keys(customers, fitted, tmp_path):
    fitted.save(tmp_path / "g.safetensors")
    loaded = load(tmp_path / "g.safetensors")
    pd.testing.assert_frame_equal(loaded.sample(9, random_state=1), fitted.sample(9, random_state=1))
    content = (tmp_path / "g.safetensors").read_bytes()
    assert not any(str(key).encode() in content for key in [*customers["code"], *customers["token"]])


def test_fits_that_go_on_spare_the_keys_of_later_rows(customers):
    generator = FlowMatchingGenerator(**TINY, identifier_columns=["key", "code"]).fit(customers.drop(columns="token"))
    drawn = generator.sample(N, random_state=3)
    generator.partial_fit(customers.drop(columns="token").assign(key=drawn["key"], code=drawn["code"]))
    again = generator.sample(N, random_state=3)
    assert not set(again["key"]) & {*customers["key"], *drawn["key"]}
    assert not set(again["code"]) & {*customers["code"], *drawn["code"]}
    with pytest.raises(ValueError, match="identifier_columns was"):
        generator.set_params(identifier_columns=["key"]).partial_fit(customers.drop(columns="token"))


@pytest.mark.filterwarnings("ignore:taken for keys")
@pytest.mark.parametrize(
    "make",
    {
        "array of integers": lambda: np.column_stack([np.arange(N), RNG.integers(0, 5, size=(N, 2))]),
        "small integers": lambda: np.column_stack([np.arange(120), RNG.integers(0, 5, size=(120, 2))]).astype(np.int8),
        "integers beyond 2^53": lambda: np.column_stack([np.arange(N) + 2**60, RNG.integers(0, 5, size=(N, 2))]),
        "tensor": lambda: torch.from_numpy(np.column_stack([np.arange(N), RNG.integers(0, 5, size=(N, 2))])),
        "text": lambda: np.array([[f"k{i:03d}", "ab"[i % 2], "cd"[i % 3 > 0]] for i in range(N)]),
        "objects": lambda: np.array([[f"k{i:03d}", i % 2, 0.5 * (i % 3)] for i in range(N)], dtype=object),
        "rows": lambda: [[f"k{i:03d}", i % 2, 0.5 * (i % 3)] for i in range(N)],
    }.values(),
)
def test_arrays_tensors_and_rows_have_fresh_keys(make):
    X = make()
    generator = FlowMatchingGenerator(**TINY).fit(X)
    assert generator.identifier_columns_ == [0]
    drawn = generator.sample(1000, random_state=0)
    assert type(drawn) is type(X) or isinstance(X, list)
    keys = [row[0] for row in drawn.tolist()]
    assert len(set(keys)) == 1000
    assert not set(keys) & {row[0] for row in X}
    for how, shape in (("drop", (3, 2)), ("empty", (3, 3))):
        assert generator.set_params(identifiers=how).sample(3, random_state=0).shape == shape


@pytest.mark.filterwarnings("ignore:taken for keys")
def test_polars_has_fresh_keys():
    pl = pytest.importorskip("polars")
    X = pl.DataFrame({"id": np.arange(N, dtype=np.int16), "code": KEYS["plates"], "x": RNG.normal(size=N)})
    generator = FlowMatchingGenerator(**TINY).fit(X)
    drawn = generator.sample(500, random_state=0)
    assert drawn.schema == X.schema
    assert drawn["id"].is_unique().all()
    assert drawn["code"].is_unique().all()
    assert drawn["id"].min() == N
    assert not set(drawn["code"]) & set(X["code"])
    assert generator.sample(40_000, random_state=0)["id"].dtype == pl.Int32
    holed = X.with_columns(code=pl.when(pl.int_range(N) == 4).then(None).otherwise(pl.col("code")))
    assert generator.impute(holed, random_state=0)["code"].is_unique().all()
    assert generator.set_params(identifiers="drop").sample(3, random_state=0).columns == ["x"]
    assert generator.set_params(identifiers="empty").sample(3, random_state=0)["id"].null_count() == 3


@pytest.mark.filterwarnings("ignore:taken for keys")
@pytest.mark.parametrize("as_array", [False, True])
def test_an_over_sampler_gives_fresh_keys(as_array):
    X = pd.DataFrame({"id": np.arange(120, dtype=np.int8), "size": RNG.integers(9, size=120).astype(np.int8)})
    y = (np.arange(120) % 4 == 0).astype(int)
    X = X.to_numpy() if as_array else X
    more, _ = FlowMatchingOverSampler(FlowMatchingGenerator(**TINY), random_state=0).fit_resample(X, y)
    keys = np.asarray(more)[:, 0]
    assert len(set(keys.tolist())) == len(more) > 120
    assert keys.max() > 127
    with pytest.raises(ValueError, match="identifiers='drop' draws no whole rows"):
        FlowMatchingOverSampler(FlowMatchingGenerator(identifiers="drop")).fit_resample(X, y)


@pytest.mark.filterwarnings("ignore:taken for keys")
def test_augmented_models_take_tables_with_keys():
    from sklearn.tree import DecisionTreeClassifier

    X = pd.DataFrame({"id": np.arange(N), "x": RNG.normal(size=N)})
    y = (np.arange(N) % 4 == 0).astype(int)
    model = AugmentedClassifier(DecisionTreeClassifier(), FlowMatchingGenerator(**TINY), random_state=0).fit(X, y)
    assert model.n_synthetic_ > 0


def test_the_first_keys_of_many_are_those_of_few(fitted):
    pd.testing.assert_frame_equal(fitted.sample(40, random_state=3).head(15), fitted.sample(15, random_state=3))


def test_ranges_of_keys_are_refused(fitted):
    with pytest.raises(ValueError, match="column 'key': it holds keys, which are not learned"):
        fitted.sample(3, given={"key": (5, 10)})


@pytest.mark.parametrize("name", ["plates", "uuids", "counted text", "nullable integers"])
def test_keys_are_missing_as_often_as_in_training(name, tmp_path):
    table = table_with(KEYS[name])
    table.loc[RNG.random(N) < 0.3, "key"] = None
    share = table["key"].isna().mean()
    model = FlowMatchingGenerator(identifier_columns=["key"], **TINY).fit(table)
    model.save(tmp_path / "model.safetensors")
    for fitted in (model, load(tmp_path / "model.safetensors")):
        drawn = fitted.sample(2000, missing="as_trained", random_state=0)
        assert drawn["key"].isna().mean() == pytest.approx(share, abs=0.05)
        assert drawn["key"].dropna().is_unique
        assert not drawn["key"].dropna().isin(table["key"]).any()
        assert not fitted.sample(50, random_state=0)["key"].isna().any()
    few = model.sample(10, missing="as_trained", random_state=0)
    assert (few["key"].isna() == drawn["key"].head(10).isna()).all()


TEXT_KEYS = {name: KEYS[name] for name in ("plates", "uuids", "sentences")}


def without_key(table, new):
    """The table with other keys, and with none."""
    return table.assign(key=new), table.drop(columns="key")


@pytest.mark.parametrize("name", TEXT_KEYS)
def test_detectors_leave_keys_out(name, tmp_path):
    table = table_with(TEXT_KEYS[name])
    others, plain = without_key(table, None)
    own, without = (FlowAnomalyDetector(n_folds=2, **TINY) for _ in range(2))
    with pytest.warns(UserWarning, match=r"taken for keys, which are not learned: 'key'\. .*astype\('category'\)"):
        own.fit(table)
    expected = without.fit(plain).score_samples(plain)
    for rows in (table, others):
        np.testing.assert_array_equal(own.score_samples(rows), expected)
    own.save(tmp_path / "detector.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "detector.safetensors").score_samples(others), expected)


@pytest.mark.parametrize("name", TEXT_KEYS)
def test_forecasters_leave_keys_out(name, tmp_path):
    table = table_with(TEXT_KEYS[name])
    others, plain = without_key(table, "another")
    y = table["x"] + RNG.normal(size=N)
    with pytest.warns(UserWarning, match="taken for keys, which are not learned: 'key'"):
        own = ConditionalForecaster(**TINY).fit(table, y)
    expected = ConditionalForecaster(**TINY).fit(plain, y).predict(plain)
    np.testing.assert_array_equal(own.predict(others), expected)
    own.save(tmp_path / "forecaster.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "forecaster.safetensors").predict(others), expected)


def test_forecasters_of_series_leave_keys_out_that_are_known_ahead():
    series = pd.DataFrame({"load": np.sin(np.arange(N) / 5), "key": KEYS["plates"], "heat": RNG.normal(size=N)})
    with pytest.warns(UserWarning, match="taken for keys"):
        own = ConditionalForecaster(known_columns=["key", "heat"], **TINY).fit(series)
    without = ConditionalForecaster(known_columns=["heat"], **TINY).fit(series[["load", "heat"]])
    future = series[["key", "heat"]].head(24)
    expected = without.predict(series[["load", "heat"]], future=future[["heat"]])
    np.testing.assert_array_equal(own.predict(series, future=future), expected)


def test_detectors_learn_integers_that_look_like_keys():
    table = table_with(KEYS["dense integers"])
    detector = FlowAnomalyDetector(n_folds=2, **TINY).fit(table)
    assert detector.score_samples(table.assign(key=10**7)).mean() < detector.score_samples(table).mean()
