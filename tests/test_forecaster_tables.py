"""Forecasts from tables and series as people have them: categories, booleans, dates, and cells that are missing."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import cross_val_score

import flowmatch
from flowmatch import ConditionalForecaster
from flowmatch.preprocessing import TableContainer, TableNumbers

SMALL = {
    "network": flowmatch.networks.MLP(width=32, depth=1),
    "max_iter": 150,
    "learning_rate": 0.01,
    "random_state": 0,
    "n_samples": 16,
}


def rents(n, seed):
    """What flats cost: by quarter, size, lift and day, of which cells are missing."""
    random = np.random.RandomState(seed)
    quarter, size = random.randint(3, size=n), random.uniform(20, 120, n)
    days = random.randint(100, size=n)
    X = pd.DataFrame({
        "quarter": np.array(["east", "north", "west"])[quarter],
        "size": size,
        "lift": random.rand(n) < 0.5,
        "day": pd.Timestamp("2025-01-01") + pd.to_timedelta(days, unit="D"),
        "floor": pd.Categorical(random.choice(["low", "high"], n), categories=["low", "high"]),
    })  # fmt: skip
    y = np.array([300.0, 800.0, 500.0])[quarter] + 10 * size + 100 * X["lift"] + days + 10 * random.normal(size=n)
    X.loc[random.rand(n) < 0.15, "quarter"] = None
    X.loc[random.rand(n) < 0.15, "size"] = np.nan
    return X, y.rename("rent")


X, Y = rents(400, 0)
X_NEW, Y_NEW = rents(200, 1)


@pytest.fixture(scope="module")
def regressor():
    return ConditionalForecaster(**SMALL).fit(X, Y)


def test_every_kind_of_column_is_read(regressor):
    whole = X_NEW.notna().all(axis=1)
    assert regressor.score(X_NEW[whole], Y_NEW[whole]) > 0.95
    assert regressor.n_features_in_ == 5
    assert list(regressor.feature_names_in_) == list(X.columns)
    row = X_NEW[whole].iloc[[0]]
    moved = [row.assign(quarter="east"), row.assign(quarter="north"), row.assign(lift=~row["lift"]),
             row.assign(day=row["day"] + pd.Timedelta(days=40))]  # fmt: skip
    low, high, *others = (regressor.predict(table)[0] for table in moved)
    assert high - low == pytest.approx(500, abs=150)
    assert abs(others[0] - regressor.predict(row)[0]) == pytest.approx(100, abs=60)
    assert others[1] - regressor.predict(row)[0] == pytest.approx(40, abs=30)


def test_a_missing_cell_makes_forecasts_wider(regressor):
    row = X_NEW[X_NEW.notna().all(axis=1)].iloc[:20]
    known, unknown = regressor.sample(row, 60, 0), regressor.sample(row.assign(quarter=None), 60, 0)
    assert unknown.std(axis=0).mean() > 3 * known.std(axis=0).mean()
    low, high = regressor.predict_interval(X_NEW, 0.8)
    assert 0.6 < np.mean((low <= Y_NEW) & (high >= Y_NEW)) < 0.97


def test_a_column_that_missed_nothing_in_training_may_miss_cells_later(regressor):
    holed = X_NEW.assign(lift=X_NEW["lift"].astype("boolean").where(np.arange(200) > 3))
    assert np.isfinite(regressor.predict(holed)).all()
    np.testing.assert_array_equal(regressor.predict(holed)[4:], regressor.predict(X_NEW)[4:])


def test_arrays_of_objects_and_several_targets_work():
    targets = np.column_stack([Y, -Y])
    fitted = ConditionalForecaster(**{**SMALL, "max_iter": 10}).fit(X.to_numpy(), targets)
    assert fitted.predict(X_NEW.to_numpy()).shape == (200, 2)
    numbers = X[["size"]].to_numpy()  # missing cells alone
    assert np.isfinite(ConditionalForecaster(**{**SMALL, "max_iter": 5}).fit(numbers, Y).predict(numbers)).all()


def test_files_copies_and_cross_validation_keep_what_a_table_was(regressor, tmp_path):
    regressor.save(tmp_path / "regressor.safetensors")
    loaded = flowmatch.load(tmp_path / "regressor.safetensors")
    np.testing.assert_array_equal(loaded.predict(X_NEW), regressor.predict(X_NEW))
    assert loaded.n_features_in_ == 5
    scores = cross_val_score(ConditionalForecaster(**{**SMALL, "max_iter": 5}), X, Y, cv=2, error_score="raise")
    assert np.isfinite(scores).all()


BAD_PAIRS = {
    "unseen": (lambda: (X_NEW.replace({"quarter": {"west": "south"}}), None), "column 'quarter' of X.*'south'"),
    "order": (lambda: (X_NEW[X_NEW.columns[::-1]], None), "feature names"),
    "fewer": (lambda: (X_NEW[["size"]], None), "feature names"),
    "infinity": (lambda: (X_NEW.assign(size=np.inf), None), "infinity"),
    "no_target": (lambda: (X_NEW, Y_NEW * np.nan), "windows lack values: all to forecast.*None is left"),
}


@pytest.mark.parametrize("what", BAD_PAIRS)
def test_tables_that_cannot_be_read_are_refused_by_name(what, regressor):
    make, message = BAD_PAIRS[what]
    table, y = make()
    with pytest.raises(ValueError, match=message):
        regressor.predict(table) if y is None else regressor.fit(table, y)
    if y is not None:
        with pytest.raises(ValueError, match="column 'b' of y has no value in any row"):
            regressor.fit(table, pd.DataFrame({"a": Y_NEW, "b": y}))


# -- series -----------------------------------------------------------------------------------------------------------


def shop(n, seed):
    """Sales follow from today's offer, which is known ahead, and yesterday's weather, which is not always written."""
    random = np.random.RandomState(seed)
    offer, weather = random.choice(["none", "small", "large"], n), random.choice(["sun", "rain"], n)
    gain = pd.Series(offer).map({"none": 0.0, "small": 3.0, "large": 6.0}).to_numpy()
    before = np.append("sun", weather[:-1])
    sales = 10 + gain + 2 * (before == "sun") + 0.2 * random.normal(size=n)
    index = pd.date_range("2026-01-01", periods=n, freq="D")
    frame = pd.DataFrame({"sales": sales, "offer": offer, "weather": weather}, index)
    frame.loc[random.rand(n) < 0.1, "weather"] = None
    return frame


SHOP = shop(400, 0)
SERIES = {"known_columns": "offer", "exogenous_columns": ["weather"], "calendar": None, **SMALL}


@pytest.fixture(scope="module")
def seller():
    return ConditionalForecaster(**SERIES).fit(SHOP)


def test_categories_that_are_known_ahead_and_behind_are_read(seller):
    new = shop(120, 1)
    days = [day for day in range(20, 119) if new["weather"].notna().iloc[day - 1]]
    predicted = seller.predict([new.iloc[:day] for day in days], future=[new.iloc[[day]] for day in days])
    assert predicted.shape == (len(days), 1)
    assert np.abs(predicted[:, 0] - new["sales"].iloc[days]).mean() < 0.6  # 2.5 without the offers, .9 without weather
    assert seller.score(new) > 0.9
    assert seller.n_features_in_ == 3
    unknown = new.assign(weather=None)
    assert np.isfinite(seller.predict([unknown.iloc[:9]], future=[unknown.iloc[9:10]])).all()
    as_array = np.array([[["small"]]], dtype=object)
    of_frame = seller.predict([new.iloc[:9]], future=[pd.DataFrame({"offer": ["small"]})])
    np.testing.assert_array_equal(seller.predict([new.iloc[:9]], future=as_array), of_frame)


def test_rollouts_and_files_take_such_series(tmp_path):
    walker = ConditionalForecaster(**{**SERIES, "max_iter": 10, "exogenous_columns": None})
    walker.fit([SHOP[["sales", "offer"]].iloc[:60], SHOP[["sales", "offer"]].iloc[60:]])
    now, ahead = [SHOP[["sales", "offer"]].iloc[:5]], [SHOP[["offer"]].iloc[5:9]]
    states = walker.rollout(now, 4, 2, random_state=0, future=ahead)
    assert states.shape == (2, 1, 4, 1)
    walker.save(tmp_path / "walker.safetensors")
    loaded = flowmatch.load(tmp_path / "walker.safetensors")
    np.testing.assert_array_equal(loaded.rollout(now, 4, 2, random_state=0, future=ahead), states)
    assert list(loaded.feature_names_in_) == ["sales", "offer"]


def test_series_that_cannot_be_read_are_refused_by_name(seller):
    def refuses(message, call):
        with pytest.raises(ValueError, match=message):
            call()

    new = shop(20, 2)
    refuses("'weather'.*name it in exogenous_columns", lambda: ConditionalForecaster(known_columns="offer").fit(SHOP))
    huge_sales = SHOP.assign(sales=SHOP["sales"].where(np.arange(400) != 7, np.inf))
    refuses("'sales'", lambda: ConditionalForecaster(**SERIES).fit(huge_sales))
    huge, offers = new.assign(offer="huge"), pd.DataFrame({"offer": ["none"]})
    refuses("'offer'.*'huge'", lambda: seller.predict([huge], future=[offers]))
    refuses("'offer'.*'huge'", lambda: seller.predict([new], future=[pd.DataFrame({"offer": ["huge"]})]))
    refuses("lacks the columns \\['offer'\\]", lambda: seller.predict([new], future=[new[["sales"]]]))
    refuses("future is missing", lambda: seller.predict([new]))
    refuses("pass DataFrames here too", lambda: seller.predict(np.zeros((1, 3)), future=[new]))
    refuses("\\['weather'\\] are missing", lambda: seller.predict([new[["sales", "offer"]]], future=[offers]))


# -- columns of numbers -----------------------------------------------------------------------------------------------


def test_cells_become_points_means_and_indicators():
    table = pd.DataFrame(
        {"a": [1.0, np.nan, 3.0], "b": ["x", "y", None], "c": ["u", "v", "w"], "d": [True, False, True]}
    )
    container = TableContainer.fit(table)
    numbers = TableNumbers.fit(container, container.read(table))
    assert numbers.names == ("a", "a is missing", "b=y", "b is missing", "c=u", "c=v", "c=w", "d")
    expected = [[1, 0, -1, 0, 1, -1, -1, 1], [2, 1, 1, 0, -1, 1, -1, 0], [3, 0, 0, 1, -1, -1, 1, 1]]
    np.testing.assert_array_equal(numbers.numbers(container.read(table)), expected)
    assert numbers.positions([2, 0]) == [4, 5, 6, 0, 1]
    part = numbers.numbers(container.read(table)[:, [2, 0]], [2, 0], whole=[0])
    np.testing.assert_array_equal(part[1], [-1, 1, -1, np.nan, 1])


@pytest.mark.parametrize("table", [X[["size", "quarter"]], X[["size"]].fillna(0.0), X[["size", "lift"]].fillna(0.0)])
def test_a_table_of_pairs_of_several_steps_is_no_series(table, tmp_path):
    """The rows of a table that was fitted with y (n, horizon) are so many contexts, not one history."""
    months = np.outer(Y, [1.0, 1.1, 1.2])
    model = ConditionalForecaster(**{**SMALL, "max_iter": 5}, horizon=3).fit(table, months)
    model.save(tmp_path / "model")
    for each in (model, flowmatch.load(tmp_path / "model", device="cpu")):
        forecasts = each.predict(table[:20])
        assert forecasts.shape == (20, 3)
        assert np.ptp(forecasts[:, 0]) > 0
        assert each.predict_quantiles(table[:20], [0.1, 0.9]).shape[-1] == 3
