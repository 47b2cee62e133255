"""Predictions of a single target carry few draws, and are those of many."""

import functools

import numpy as np
import pytest

from flowmatch import ConditionalForecaster, DistilledFlowMap, forecasting
from flowmatch.networks import MLP

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2))
SKEWED = np.exp(0.5 * X[:, 0] + 0.8 * RNG.normal(size=300))
COUNTS = RNG.poisson(SKEWED) * (RNG.random(300) < 0.7)


@functools.cache
def fitted(kind):
    """A forecaster of a skewed target, of counts with zeros, or a student of the first."""
    model = ConditionalForecaster(MLP(width=16), max_iter=60, random_state=0)
    if kind == "student":
        return DistilledFlowMap(fitted("skewed"), max_iter=60, n_pairs=1000, random_state=0).fit(X, SKEWED).as_teacher()
    return model.fit(X, SKEWED if kind == "skewed" else COUNTS.astype(float))


def evaluations(model, call):
    """Rows that the network sees for each row that is predicted."""
    seen = []
    hook = model.network_.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    call()
    hook.remove()
    return sum(seen) / 20


@pytest.mark.parametrize("kind", ["skewed", "counts", "student"])
def test_quantiles_are_those_of_all_draws(kind):
    model, levels = fitted(kind), (0.0, 0.01, 0.05, 0.5, 0.731, 0.95, 1.0)
    windows, _ = forecasting.contexts_like_fit(model, X[:20], None, 1)
    draws = forecasting.Ensemble.of(model).summary(windows, model.n_samples, lambda members: members, axis=1)
    expected = np.quantile(draws, levels, axis=0, method="weibull")
    found = model.predict_quantiles(X[:20], levels)
    assert np.isclose(found, expected, rtol=1e-4, atol=1e-4 * expected.max()).mean() > 0.98  # counts jump an ulp early
    assert (np.diff(found, axis=0) >= 0).all()


@pytest.mark.parametrize("kind", ["skewed", "counts", "student"])
def test_the_mean_is_that_of_many_draws(kind):
    model = fitted(kind)
    windows, _ = forecasting.contexts_like_fit(model, X[:20], None, 1)
    draws = forecasting.Ensemble.of(model).summary(windows, 999, lambda members: members, axis=1)
    error = (model.predict(X[:20]) - draws.mean(axis=0)) / draws.std(axis=0)
    if kind == "counts":  # a jump costs as much as a node weighs
        assert np.sqrt(np.mean(error**2)) < 0.1
        return
    assert np.sqrt(np.mean(error**2)) < 0.05
    of_few = forecasting.Ensemble.of(model).summary(windows, 10, lambda members: members.mean(axis=0))
    assert np.square(error).mean() < np.square((of_few - draws.mean(axis=0)) / draws.std(axis=0)).mean()


def test_answers_take_as_many_draws_as_they_need():
    model = fitted("skewed")
    assert evaluations(model, lambda: model.predict(X[:20])) == 8 * 10
    assert evaluations(model, lambda: model.predict_interval(X[:20], 0.9)) == 4 * 10
    assert evaluations(model, lambda: model.predict_quantiles(X[:20], 0.5)) == 2 * 10
    assert evaluations(model, lambda: model.crps(X[:20], SKEWED[:20])) == 50 * 10
    student = fitted("student")
    assert evaluations(student, lambda: student.predict_interval(X[:20], 0.9)) == 4


def test_other_sources_and_several_targets_take_all_draws():
    for parameters, y in (({"source": "sparse"}, SKEWED), ({}, np.stack([SKEWED, COUNTS], axis=1))):
        model = ConditionalForecaster(MLP(width=8), max_iter=2, n_samples=20, random_state=0, **parameters).fit(X, y)
        assert evaluations(model, lambda: model.predict(X[:20])) == 20 * 10  # noqa: B023
        assert evaluations(model, lambda: model.predict_quantiles(X[:20])) == 20 * 10  # noqa: B023
