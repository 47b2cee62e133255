"""Posteriors from simulations: what fits to many pairs learn by default, their densities and their ranks."""

import numpy as np
import pytest
from exact_forecasts import tiny
from scipy.stats import norm

from flowmatch import ConditionalForecaster
from flowmatch.forecasting.training import MANY_PAIRS, has_many_pairs
from flowmatch.metrics import interval_coverage, pit_histogram
from flowmatch.networks import MLP

RNG = np.random.default_rng(0)
SHARP = MLP(width=128, depth=4, conditioning="concat")


def simulate(theta, rng=RNG):
    """Data x = theta + noise of the same size: the posterior of normal parameters is N(x / 2, 1 / 2)."""
    return theta + rng.normal(size=theta.shape)


THETA = RNG.normal(size=(MANY_PAIRS, 2))
X = simulate(THETA)


def bases(model):
    """Which parameters are learned as what a regression leaves."""
    return (model.model_.conditions.weights != 0).any(axis=0).tolist()


def test_many_pairs_are_learned_without_dropout_and_fewer_with_it():
    many, fewer = (ConditionalForecaster(max_iter=1, random_state=0).fit(X[:n], THETA[:n]) for n in (len(X), 4000))
    assert many.model_.blueprint.factory == SHARP
    assert fewer.model_.blueprint.factory == MLP(width=128, depth=3, dropout=0.1)
    assert [bases(many), bases(fewer)] == [[True, True], [False, False]]


def test_windows_of_series_and_rows_of_one_target_are_no_such_pairs_however_many():
    fitted = tiny().fit(RNG.normal(size=(MANY_PAIRS + 10, 2)).cumsum(axis=0)).fitted_
    assert not has_many_pairs(fitted.layout, fitted.window_encoder)
    fitted = tiny().fit(X, THETA[:, 0]).fitted_
    assert not has_many_pairs(fitted.layout, fitted.window_encoder)


def test_bounded_parameters_are_learned_as_they_are_and_others_from_a_regression():
    theta = np.column_stack([THETA[:, 0], RNG.uniform(-2, 2, size=len(THETA)), np.abs(THETA[:, 1])])
    model = tiny().fit(simulate(theta), theta)
    assert bases(model) == [True, False, False]
    drawn = model.sample(np.full((1, 3), 3.0), 500, random_state=0)[:, 0]
    assert (drawn[:, 1:] >= theta.min(axis=0)[1:]).all()
    assert (drawn[:, 1:] <= theta.max(axis=0)[1:]).all()
    assert bases(tiny().fit(simulate(theta)[:4000], theta[:4000])) == [False] * 3  # which have too few rows to tell


@pytest.fixture(scope="module")
def posterior():
    few = {"network": MLP(width=16, depth=1), "max_iter": 400, "batch_size": 256}
    return tiny(**few, learning_rate=2e-3, n_steps=5).fit(X, THETA)  # the default rate takes more steps to settle


def test_density_of_parameters_is_the_closed_form(posterior):
    theta = np.random.default_rng(1).normal(size=(500, 2))
    x = simulate(theta, np.random.default_rng(2))
    expected = norm(x / 2, np.sqrt(0.5)).logpdf(theta).sum(axis=1)
    error = posterior.score_samples(x, theta) - expected
    assert -0.03 < error.mean() < 0.03
    assert np.median(np.abs(error)) < 0.1


def test_ranks_of_parameters_are_even_and_those_of_other_observations_are_not(posterior):
    rng = np.random.default_rng(3)
    theta = rng.normal(size=(1000, 2))
    draws = posterior.sample(simulate(theta, rng), 99, random_state=0)
    assert draws.shape == (99, 1000, 2)
    np.testing.assert_allclose(pit_histogram(theta, draws, per_lead=True), 0.1, atol=0.04)
    np.testing.assert_allclose(interval_coverage(theta, draws, per_lead=True), 0.9, atol=0.03)
    assert (pit_histogram(theta[::-1], draws, per_lead=True)[:, [0, -1]] > 0.15).all()
