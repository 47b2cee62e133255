"""Whatever is passed: it works and comes back in its container, or a ValueError or TypeError changes nothing."""

import copy
import inspect
import os
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import property_data as odd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier, DummyRegressor

from flowmatch import (
    AugmentedClassifier,
    AugmentedRegressor,
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    FlowMatchingOverSampler,
)
from flowmatch.networks import MLP
from flowmatch.training import NonFiniteTrainingError

N = 12
RNG = np.random.default_rng(0)
X, LABELS, AMOUNTS = RNG.normal(size=(N, 3)), np.repeat(["a", "b", "c"], N // 3), RNG.normal(size=N)
RARE = np.repeat([0, 1], [8, 4])
SMALL = {"network": MLP(width=4, depth=1), "max_iter": 2, "batch_size": 8, "n_steps": 1, "random_state": 0, "device": "cpu"}  # fmt: skip


def generator(**parameters):
    return FlowMatchingGenerator(**{**SMALL, **parameters})


def detector(**parameters):
    return FlowAnomalyDetector(**{**SMALL, **parameters})


def forecaster(**parameters):
    return ConditionalForecaster(**{**SMALL, "n_samples": 4, **parameters})


def student(**parameters):
    return DistilledFlowMap(**{"estimator": generator(), "max_iter": 1, "n_pairs": 4, "random_state": 0, **parameters})


def sampler(**parameters):
    return FlowMatchingOverSampler(**{"generator": generator(), "random_state": 0, **parameters})


def classifier(**parameters):
    more = {"generator": generator(), "ratio": 1.0, "random_state": 0}
    return AugmentedClassifier(**{"estimator": DummyClassifier(), **more, **parameters})


def regressor(**parameters):
    return AugmentedRegressor(
        **{"estimator": DummyRegressor(), "generator": generator(), "random_state": 0, **parameters}
    )


MAKE = {
    "generator": (generator, lambda model: model.fit(X, LABELS)),
    "detector": (detector, lambda model: model.fit(X)),
    "forecaster": (forecaster, lambda model: model.fit(X)),
    "student": (student, lambda model: model.fit(X, LABELS)),
    "sampler": (sampler, lambda model: model.fit_resample(X, RARE)),
    "classifier": (classifier, lambda model: model.fit(X, RARE)),
    "regressor": (regressor, lambda model: model.fit(X, AMOUNTS)),
}


def run(check, n_examples, **strategies):
    """A property under so many examples: always the same ones, others at every run with FLOWMATCH_EXPLORE=1."""
    quick = n_examples < 100
    settings(
        max_examples=n_examples,
        derandomize=not os.environ.get("FLOWMATCH_EXPLORE"),
        deadline=None,
        database=None,
        phases=[Phase.generate] if quick else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(given(**strategies)(check))()


def held(value):
    """What a value holds, to compare with later; None for what can be no more than pointed at."""
    if isinstance(value, torch.Tensor):
        value = (str(value.dtype), value.requires_grad, "" if value.is_meta else value.detach().to_dense().tolist())
    elif isinstance(value, (pd.DataFrame, pd.Series)):  # their pickles hold what they have cached
        value = (str(getattr(value, "dtypes", "")), value.index.tolist(), value.astype(object).to_numpy().tolist())
    elif isinstance(value, pl.DataFrame):
        value = (str(value.schema), value.rows())
    try:
        return pickle.dumps(value)
    except (TypeError, AttributeError, pickle.PicklingError, RuntimeError, ValueError):
        return None


def state_of(model):
    """An estimator's parameters and attributes, as they are and by what they hold."""
    attributes = {name: value for name, value in vars(model).items() if name != "fitted_"}
    weights = [p.detach().clone() for p in model.network_.parameters()] if "fitted_" in vars(model) else []
    return (
        {name: id(value) for name, value in vars(model).items()},
        {n: held(v) for n, v in attributes.items()},
        weights,
    )


REFUSED = object()


def attempt(call, model, *arguments):
    """What a call returns, or `REFUSED`: by a ValueError or TypeError, after which everything is as it was.

    Numpy's own warnings count as faults, for users would see them.
    """
    before, known = [held(argument) for argument in arguments], state_of(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            result = call(model, *arguments)
    except NonFiniteTrainingError:
        return REFUSED
    except (ValueError, TypeError):
        result = REFUSED
        ids, values, weights = state_of(model)
        assert (ids, values) == known[:2]
        assert all(map(torch.equal, weights, known[2]))
    for argument, was in zip(arguments, before, strict=True):
        assert held(argument) == was
    return result


def like(result, given_data, n_rows):
    """Whether rows came back in the container and dtypes of what was given."""
    if isinstance(given_data, pd.DataFrame):
        assert list(result.columns) == list(given_data.columns)
        # numpy's bytes of one width live in a frame by accident: no column that pandas makes has that dtype
        kinds = [object if getattr(dtype, "kind", "") == "S" else dtype for dtype in given_data.dtypes]
        assert list(result.dtypes) == kinds
    elif isinstance(given_data, pl.DataFrame):
        assert result.schema == given_data.schema
    elif isinstance(given_data, torch.Tensor):
        assert isinstance(result, torch.Tensor)
        assert (result.dtype, result.device) == (given_data.dtype, given_data.device)
    else:
        assert type(result) is (np.ma.MaskedArray if isinstance(given_data, np.ma.MaskedArray) else np.ndarray)
        if isinstance(given_data, np.ndarray):
            assert result.dtype == given_data.dtype
    assert len(result) == n_rows


def inside(result, given_data):
    """Whether rows of numbers stay within the range of the training rows."""
    low, high = (
        np.nan_to_num(np.asarray(table, dtype=np.float64), nan=0.0) for table in (result, np.asarray(given_data))
    )
    assert low.min() >= min(high.min(), 0) - 1e-6 * abs(high.min())
    assert low.max() <= max(high.max(), 0) + 1e-6 * abs(high.max())


# -- data -------------------------------------------------------------------------------------------------------------


def generators_take(table):
    model = generator()
    if attempt(lambda m, t: m.fit(t), model, table) is REFUSED:
        return
    drawn = attempt(lambda m: m.sample(3, random_state=0), model)
    like(drawn, table, 3)
    density = attempt(lambda m, t: m.score_samples(t), model, table)
    assert density.shape == (len(table),)
    assert not np.isnan(density).any()
    codes = attempt(lambda m, t: m.encode(t), model, table)
    like(attempt(lambda m, z: m.decode(z), model, codes), table, len(table))
    if len(model.sample_shape_) == 1:
        filled = attempt(lambda m, t: m.impute(t, random_state=0), model, table)
        assert len(filled) == len(table)
        if isinstance(table, (pd.DataFrame, pl.DataFrame, torch.Tensor)):
            like(filled, table, len(table))
    if isinstance(table, np.ndarray) and table.dtype.kind in "iuf":
        inside(drawn, table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = attempt(lambda m, t: m.partial_fit(t), model, table)
    assert again is not REFUSED


def detectors_take(table):
    model = detector(n_folds=2)
    if attempt(lambda m, t: m.fit(t), model, table) is REFUSED:
        return
    scores = attempt(lambda m, t: m.score_samples(t), model, table)
    assert np.isfinite(scores).all()
    assert set(attempt(lambda m, t: m.predict(t), model, table)) <= {-1, 1}
    if model.calibration_ is not None:
        p = attempt(lambda m, t: m.p_values(t), model, table)
        assert ((p > 0) & (p <= 1)).all()
    shares = attempt(lambda m, t: m.explain(t), model, table)
    assert tuple(np.shape(shares)) == (len(table), *model.sample_shape_)
    assert isinstance(
        shares, type(table) if isinstance(table, (pd.DataFrame, pl.DataFrame, torch.Tensor)) else np.ndarray
    )


def forecasters_take(series):
    model = forecaster()
    if attempt(lambda m, t: m.fit(t), model, series) is REFUSED:
        return
    contexts = np.zeros((3, *model.state_shape_))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not model.calendar_ and not isinstance(series, pd.DataFrame):
            forecasts = attempt(lambda m, t: m.predict(t), model, contexts)
            assert forecasts.shape == (3, *model.sample_shape_)
            assert np.isfinite(forecasts.astype(float)).all()
            assert attempt(lambda m, t: m.rollout(t, 2), model, contexts).shape[:3] == (1, 3, 2)
    assert np.isfinite(attempt(lambda m, t: m.crps(t), model, series))


def regressions_take(table, target):
    model = forecaster()
    if attempt(lambda m, t, y: m.fit(t, y), model, table, target) is REFUSED:
        return
    forecasts = attempt(lambda m, t: m.predict(t), model, table)
    assert forecasts.shape == (len(table), *model.sample_shape_)
    assert np.isfinite(forecasts.astype(float)).all()


def conditions_take(table, y):
    model = generator()
    if attempt(lambda m, t, y: m.fit(t, y), model, table, y) is REFUSED:
        return
    drawn, labels = attempt(lambda m: m.sample(4, return_y=True, random_state=0), model)
    like(drawn, table, 4)
    assert len(labels) == 4
    assert attempt(lambda m, y: m.sample(len(table), y=y, random_state=0), model, y) is not REFUSED
    assert attempt(lambda m, t, y: m.score_samples(t, y), model, table, y).shape == (len(table),)


def weights_go_with(table, weight):
    for model in (generator(), detector(n_folds=2), student()):
        if attempt(lambda m, t, w: m.fit(t, None, w), model, table, weight) is REFUSED:
            continue
        if isinstance(model, FlowMatchingGenerator):
            like(attempt(lambda m: m.sample(2), model), table, 2)


def synthetic_rows_go_with(table, y):
    model = sampler()
    found = attempt(lambda m, t, y: m.fit_resample(t, y), model, table, y)
    if found is not REFUSED:
        rows, labels = found
        if isinstance(table, (list, pl.DataFrame, pd.DataFrame, torch.Tensor, np.ndarray)):
            assert isinstance(rows, type(table))
        if isinstance(table, (torch.Tensor, pl.DataFrame, pd.DataFrame)):
            like(rows, table, len(labels))
        assert isinstance(labels, type(y)) or not isinstance(y, (list, np.ndarray, pd.Series, pl.Series, torch.Tensor))
    for model in (classifier(), regressor()):
        if attempt(lambda m, t, y: m.fit(t, y), model, table, y) is not REFUSED:
            assert len(attempt(lambda m, t: m.predict(t), model, table)) == len(table)


TABLES = st.one_of(odd.data(), odd.frames())
GOOD = odd.frames(odd=False)
TARGETS = st.one_of(
    odd.data(shapes=[(N,), (8,), (3,), (2,), (N, 2), (8, 1), (6, 0), (0,)]),
    st.sampled_from([[1, 0] * 4, ["u", "v", "v"], ("a", "b"), pd.Series([0, 1] * 4), pl.Series([0.5, 1.5, 2.5] * 4)]),
    st.sampled_from([torch.arange(8) % 2, pd.Series(["x", "y", "y"]), [True, False, True], [[1, 0], [0, 1]] * 4]),
)
PROPERTIES = {  # what is checked, for what, and with how many examples
    "generators": (generators_take, {"table": TABLES}, 25, 400),
    "generators of tables": (generators_take, {"table": GOOD}, 8, 200),
    "detectors": (detectors_take, {"table": TABLES}, 12, 200),
    "forecasters": (forecasters_take, {"series": odd.data()}, 20, 400),
    "forecasters of frames": (forecasters_take, {"series": odd.frames(containers=["pandas", "polars"])}, 8, 200),
    "regressions": (regressions_take, {"table": TABLES, "target": TARGETS}, 25, 500),
    "conditions": (conditions_take, {"table": st.one_of(odd.data(), GOOD), "y": TARGETS}, 20, 400),
    "weights": (weights_go_with, {"table": GOOD, "weight": TARGETS}, 12, 150),
    "synthetic rows": (synthetic_rows_go_with, {"table": TABLES, "y": TARGETS}, 20, 300),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_data_are_understood_or_refused(name):
    check, strategies, few, _ = PROPERTIES[name]
    run(check, few, **strategies)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_much_data_are_understood_or_refused(name):
    check, strategies, _, many = PROPERTIES[name]
    run(check, many, **strategies)


# -- parameters and arguments -----------------------------------------------------------------------------------------


def parameters_of(name):
    """The parameters of an estimator, each with one of the odd values."""
    names = list(inspect.signature(type(MAKE[name][0]()).__init__).parameters)[1:]
    return st.tuples(st.sampled_from(names), st.sampled_from(odd.ODD_VALUES))


def parameters_are_understood(name):
    make, fit = MAKE[name]

    def check(parameter):
        try:
            model = make(**dict([parameter]))
        except (ValueError, TypeError):
            return
        attempt(fit, model)

    return check


@pytest.mark.parametrize("name", MAKE)
def test_parameters_are_understood_or_refused(name):
    run(parameters_are_understood(name), 20, parameter=parameters_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_every_odd_parameter_is_understood_or_refused(name):
    run(parameters_are_understood(name), 300, parameter=parameters_of(name))


METHODS = {
    "generator": ["sample", "score_samples", "score", "encode", "decode", "impute", "partial_fit"],
    "detector": ["score_samples", "predict", "p_values", "explain", "decision_function", "partial_fit"],
    "forecaster": ["predict", "sample", "rollout", "predict_quantiles", "predict_interval", "score", "crps"],
    "student": ["sample", "score_samples", "encode", "decode", "impute"],
}


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: fit(make()) for name, (make, fit) in MAKE.items() if name in METHODS}


def calls_are_understood(models):
    """A method of a fitted estimator with odd arguments: data first, and odd values by name."""

    def check(call, table, value):
        name, method = call
        model = copy.copy(models[name])
        named = [p for p in inspect.signature(getattr(model, method)).parameters if p not in ("X", "Z")]
        keyword = named[value[0] % len(named)] if named and value[0] >= 0 else None
        more = {} if keyword in (None, "arguments", "named") else {keyword: odd.ODD_VALUES[value[1]]}
        first = N if method == "sample" and name in ("generator", "student") else table
        if "n_samples" in more and first is N:
            first, more = more["n_samples"], {}
        if method == "rollout" and "n_steps" not in more:
            more["n_steps"] = 2
        attempt(lambda m, argument: getattr(m, method)(argument, **more), model, first)

    return check


CALLS = [(name, method) for name, methods in METHODS.items() for method in methods]
ARGUMENTS = {
    "call": st.sampled_from(CALLS),
    "table": st.one_of(st.just(X), odd.data(), odd.frames()),
    "value": st.tuples(st.integers(-5, 8), st.integers(0, len(odd.ODD_VALUES) - 1)),
}


def test_calls_are_understood_or_refused(fitted):
    run(calls_are_understood(fitted), 90, **ARGUMENTS)


@pytest.mark.slow
def test_many_calls_are_understood_or_refused(fitted):
    run(calls_are_understood(fitted), 2000, **ARGUMENTS)
