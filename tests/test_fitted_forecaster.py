"""What a forecaster has learned is one value: assigned once, stored whole, and refused where its parts do not fit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from exact_forecasts import tiny, tiny_fields

import flowmatch
from flowmatch import ConditionalForecaster, TrainingOptions
from flowmatch.core.storable import fields_to_store, rebuild
from flowmatch.forecasting import FittedForecaster, Layout, TableReader, training_windows_of, windows_like_fit

RNG = np.random.default_rng(0)
SERIES, FIELDS = RNG.normal(size=(4, 12, 2)).cumsum(axis=1), RNG.normal(size=(3, 8, 1, 8))
DAYS = pd.DataFrame(
    {
        "load": RNG.normal(size=60),
        "price": np.where(RNG.random(60) < 0.2, np.nan, RNG.normal(size=60)),
        "sky": RNG.choice(["clear", "rain", "fog"], 60),
    },
    index=pd.date_range("2021-03-01", periods=60),
)


@pytest.fixture(scope="module")
def days():
    return tiny(n_lags=2, horizon=2, exogenous_columns="price", known_columns="sky").fit(DAYS)


@pytest.fixture(scope="module")
def fields():
    return tiny_fields(boundary="wall").fit(FIELDS)


def contexts(forecaster):
    return [DAYS[:-2]] if forecaster.calendar_ else FIELDS[:, -1]


def future(forecaster):
    return {"future": [DAYS[["sky"]][-2:]]} if forecaster.calendar_ else {}


@pytest.mark.parametrize("name", ["days", "fields"])
def test_what_was_learned_makes_a_forecaster_of_other_parameters(name, request):
    forecaster = request.getfixturevalue(name)
    other = ConditionalForecaster.from_fitted(forecaster.fitted_, **forecaster.get_params(deep=False))
    X, known = contexts(forecaster), future(forecaster)
    np.testing.assert_array_equal(other.predict(X, **known), forecaster.predict(X, **known))
    assert not np.array_equal(other.set_params(n_steps=5).predict(X, **known), forecaster.predict(X, **known))


@pytest.mark.parametrize("name", ["days", "fields"])
def test_files_hold_all_of_it(name, request, tmp_path):
    forecaster = request.getfixturevalue(name)
    forecaster.save(tmp_path / "forecaster.safetensors")
    loaded = flowmatch.load(tmp_path / "forecaster.safetensors", device="cpu")
    X, known = contexts(forecaster), future(forecaster)
    np.testing.assert_array_equal(loaded.predict(X, **known), forecaster.predict(X, **known))
    assert loaded.fitted_.layout == forecaster.fitted_.layout
    assert (loaded.boundary_, loaded.calendar_) == (forecaster.boundary_, forecaster.calendar_)
    assert getattr(loaded, "feature_names_in_", np.empty(0)).tolist() == list(forecaster.fitted_.columns)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: {"layout": replace(f.layout, n_lags=3)},
        lambda f: {"layout": replace(f.layout, horizon=1)},
        lambda f: {"layout": replace(f.layout, targets=())},
        lambda f: {"layout": replace(f.layout, known=())},
        lambda f: {"layout": replace(f.layout, cycles=())},
        lambda f: {"layout": replace(f.layout, forecast_shape=(2,))},
        lambda f: {"layout": replace(f.layout, state_shape=(4,))},
        lambda f: {"reader": None},
        lambda f: {"columns": f.columns[:2]},
        lambda f: {"boundary": ("wall",)},
        lambda f: {"flow": replace(f.flow, model=replace(f.flow.model, conditions=None))},
    ],
)
def test_parts_that_do_not_fit_are_refused(days, damage):
    fitted = days.fitted_
    values = fields_to_store(fitted)
    assert rebuild(FittedForecaster, values).columns == ("load", "price", "sky")
    with pytest.raises(ValueError, match="does not fit the rest"):
        rebuild(FittedForecaster, {**values, **damage(fitted)})


@pytest.mark.parametrize("boundary", [(), ("round",), ("wall", "wall"), ("auto",)])
def test_boundaries_of_other_axes_are_refused(fields, boundary):
    with pytest.raises(ValueError, match="its boundary does not fit the rest"):
        rebuild(FittedForecaster, {**fields_to_store(fields.fitted_), "boundary": boundary})


@pytest.mark.parametrize(
    "damage",
    [
        {"state_shape": (0,)},
        {"n_lags": 0},
        {"horizon": -1},
        {"targets": (3,)},
        {"known": (-1,)},
        {"cycles": ("month",)},
        {"columns": ("a",)},
        {"spacing": None},
        {"is_table": 1},
        {"state_shape": ()},
    ],
    ids=str,
)
def test_a_layout_of_no_states_is_refused(damage):
    values = fields_to_store(Layout((3,), (2,), 1, 1, ("a", "b", "c"), (0, 1), (2,), ("week",), "D"))
    rebuild(Layout, values)
    with pytest.raises(ValueError, match="fit"):
        rebuild(Layout, {**values, **damage})


def test_a_reader_of_columns_that_there_are_not_is_refused(days):
    values = fields_to_store(days.fitted_.reader)
    with pytest.raises(ValueError, match="its table does not fit the rest"):
        rebuild(TableReader, {**values, "known": (3,)})


def test_data_of_another_fit_are_read_without_a_trace(days):
    """A warm start and every method read through what is fitted, and leave it as it is."""
    before = dict(vars(days))
    windows = windows_like_fit(days, DAYS, None)
    rows = training_windows_of(days.fitted_, windows)
    assert len(rows) == len(windows) == 57
    with pytest.raises(ValueError, match="X has the columns"):
        windows_like_fit(days, DAYS[["load", "price"]], None)
    assert vars(days).keys() == before.keys()
    assert all(vars(days)[name] is value for name, value in before.items())


class Interruption:
    """Stops a fit at its first report."""

    def on_fit_task_end(self, *_, **__):
        raise KeyboardInterrupt


def test_an_interrupted_first_fit_keeps_what_it_has_learned():
    forecaster = tiny(max_iter=50, training=TrainingOptions(callbacks=[Interruption()]))
    with pytest.warns(UserWarning, match="has the weights so far"), pytest.raises(KeyboardInterrupt):
        forecaster.fit(SERIES)
    assert 0 < forecaster.n_iter_ <= 50
    assert forecaster.predict(SERIES[:, -1]).shape == (4, 2)
    fitted = forecaster.fitted_
    with pytest.raises(KeyboardInterrupt):
        forecaster.fit(SERIES)
    assert forecaster.fitted_ is fitted


def test_weights_move_to_a_device_with_the_rest_of_the_value(fields):
    moved = fields.fitted_.to(torch.device("meta"))
    assert moved.model.device.type == "meta"
    assert moved.layout is fields.fitted_.layout
    assert fields.model_.device.type == "cpu"
