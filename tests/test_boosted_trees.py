"""Boosted trees as a simple forecast: what scikit-learn's trees predict, where they help, rows that were seen."""

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

import flowmatch
from flowmatch import ConditionalForecaster
from flowmatch.forecasting.expected import expected_unseen, fit_expected
from flowmatch.forecasting.training import splits_of
from flowmatch.networks import MLP
from flowmatch.preprocessing import BoostedTrees

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, size=(300, 3))
STEPS = 4.0 * (X[:, 0] > 0) * (X[:, 1] > 0) - 2.0 * (X[:, 2] > 0.5) + 0.1 * RNG.normal(size=300)
LINEAR = X @ [1.0, -2.0, 0.5] + 0.1 * RNG.normal(size=300)
TINY = {"network": MLP(width=8, depth=1), "max_iter": 3, "random_state": 0}


def tiny(y, **changes):
    return ConditionalForecaster(**{**TINY, **changes}).fit(X, y)


@pytest.mark.parametrize(("depth", "n_targets"), [(1, 1), (3, 1), (5, 2)])
def test_complete_trees_predict_what_those_of_scikit_learn_do(depth, n_targets):
    rows, y = X.astype(np.float32), RNG.normal(size=(300, n_targets))
    trees = [DecisionTreeRegressor(max_depth=depth, min_samples_leaf=20, random_state=k).fit(rows, y) for k in range(3)]
    rate = np.array([0.1, 10.0])[:n_targets]
    found = BoostedTrees.of(trees, depth, rate).predict(rows.astype(float))
    np.testing.assert_allclose(found, rate * sum(t.predict(rows).reshape(y.shape) for t in trees), atol=1e-12)


def test_trees_are_taken_where_a_regression_misses_what_they_see():
    assert tiny(LINEAR).fitted_.window_encoder.expected is None
    expected = tiny(STEPS).fitted_.window_encoder.expected
    assert expected.familiar < 0.3  # a regression leaves .7 of the deviation
    stepped = ConditionalForecaster(MLP(width=16, depth=1), max_iter=100, random_state=0).fit(X, STEPS)
    plain = ConditionalForecaster(MLP(width=16, depth=1), max_iter=100, random_state=0).fit(X, LINEAR)
    assert stepped.score(X, STEPS) > 0.9
    assert plain.score(X, LINEAR) > 0.9


def test_targets_of_unlike_scale_share_trees():
    expected = tiny(np.column_stack([STEPS, 1e-6 * STEPS[::-1], 1e6 * STEPS])).fitted_.window_encoder.expected
    errors = np.abs(expected.predict(X.astype(np.float32)) - expected.mean) / expected.spread
    np.testing.assert_allclose(errors[:, 0], errors[:, 2], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("y", [STEPS, LINEAR], ids=["trees", "no trees"])
def test_rows_of_the_fit_are_predicted_as_if_they_were_new(y):
    splits, contexts, targets = splits_of(np.arange(200), 1), X[:200].astype(np.float32).astype(float), y[:200, None]
    expected, unseen = fit_expected(contexts, targets, 1e-6, splits, with_trees=True)
    again = expected_unseen(expected, contexts, targets, 1e-6, splits)
    assert (expected.trees is not None) == (y is STEPS)
    if y is STEPS:
        np.testing.assert_array_equal(again, unseen)
        assert np.abs(expected.predict(contexts) - targets).mean() < 0.8 * np.abs(unseen - targets).mean()
    fresh, outcomes = X[200:].astype(np.float32).astype(float), y[200:, None]
    found = expected_unseen(expected, fresh, outcomes, 1e-6, splits_of(np.arange(100), 1))
    np.testing.assert_array_equal(found, expected.predict(fresh))


@pytest.mark.slow
def test_a_fit_that_goes_on_does_not_mistake_what_trees_know_for_certainty():
    forecaster = tiny(STEPS, target="residual", max_iter=100)
    before = forecaster.sample(X[:50], 50, random_state=0).std(axis=0).mean()
    after = forecaster.partial_fit(X, STEPS).sample(X[:50], 50, random_state=0).std(axis=0).mean()
    assert after > 0.7 * before


def test_files_hold_the_trees(tmp_path):
    forecaster = tiny(STEPS)
    forecaster.save(tmp_path / "model.safetensors")
    loaded = flowmatch.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(X), forecaster.predict(X))
    np.testing.assert_array_equal(loaded.score_samples(X[:5], STEPS[:5]), forecaster.score_samples(X[:5], STEPS[:5]))


def test_series_take_trees_too_and_roll_on():
    walk = np.zeros((400, 1))
    for t in range(1, 400):  # a threshold autoregression
        walk[t] = np.where(walk[t - 1] > 0, -0.8, 0.9) * walk[t - 1] + 0.3 * RNG.normal() + 0.5
    forecaster = ConditionalForecaster(n_lags=2, **TINY).fit(walk)
    assert forecaster.fitted_.window_encoder.expected is not None
    assert np.isfinite(forecaster.rollout([walk], 5, 3, random_state=0)).all()
