"""Checks of forecasters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal, assert_raises

from flowmatch.testing.helpers import (
    Check,
    assert_global_states_stay,
    assert_seeds_decide,
    copies_of,
    fit_to_walks,
    histories,
    random_walks,
)


def check_forecaster_fit_is_reproducible(estimator: Any) -> None:
    """Fits with one seed end with the same weights, with another seed with others."""
    assert_seeds_decide(fit_to_walks, estimator)


def check_forecasts_are_reproducible(estimator: Any) -> None:
    """Predictions are the same at every call, draws with one seed are, and the batch size changes nothing."""
    fitted, X = fit_to_walks(estimator), histories()
    for method in (fitted.predict, fitted.predict_quantiles):
        assert_array_equal(method(X), method(X), f"{method.__name__} gave other forecasts when it was called again")
    for draw in (lambda seed: fitted.sample(X, 3, seed), lambda seed: fitted.rollout(X, 3, 3, seed)):
        first = draw(1)
        assert_array_equal(first, draw(1), "the same seed gave other forecasts")
        assert not np.array_equal(first, draw(2)), "another seed gave the same forecasts"
        assert not np.array_equal(draw(None), draw(None)), "random_state=None gave the same forecasts twice"
    batches = fitted.sample(X, 3, 1, batch_size=2)
    assert_allclose(fitted.sample(X, 3, 1), batches, rtol=1e-4, atol=1e-4, err_msg="batch_size")


def check_forecasts_leave_random_states_alone(estimator: Any) -> None:
    """Neither numpy's nor torch's global generator moves, in any method."""
    X = histories()
    with assert_global_states_stay():
        for random_state in (None, 0):
            fitted = fit_to_walks(estimator, random_state=random_state)
            fitted.predict_interval(X, 0.5)
            fitted.sample(X, 2, random_state)
            fitted.rollout(X, 2, 2, random_state)
            fitted.crps(random_walks())


def check_failed_forecaster_fit_changes_nothing(estimator: Any) -> None:
    """Bad trajectories raise a ValueError and leave the fitted estimator as it was."""
    walks, X = random_walks(), histories()
    fitted = fit_to_walks(estimator)
    before = fitted.predict(X)
    bad = walks.copy()
    bad[2, 5, 1] = np.inf
    for trajectories in (bad, [walks[0], walks[1, :, :1]], [walks[0], walks[1, :0]], walks[:, :, 0] * 1j):
        with assert_raises(ValueError, msg="bad trajectories were accepted"):
            fitted.fit(trajectories)
    assert_array_equal(before, fitted.predict(X), "a failed fit changed the estimator")


def check_forecaster_copies_are_equal(estimator: Any) -> None:
    """A clone refits alike; a pickle and a file give the same predictions and rollouts."""
    fitted, X = fit_to_walks(estimator), histories()
    for name, other in copies_of(fitted, random_walks()).items():
        assert_array_equal(fitted.predict(X), other.predict(X), f"{name}: predictions differ")
        assert_array_equal(fitted.rollout(X, 3, 2, 0), other.rollout(X, 3, 2, 0), f"{name}: rollouts differ")


def check_forecasts_are_independent(estimator: Any) -> None:
    """A context's prediction and intervals do not depend on the contexts beside it."""
    fitted, X = fit_to_walks(estimator), histories()
    for method in (fitted.predict, lambda X: np.moveaxis(fitted.predict_quantiles(X), 0, 1)):
        together = method(X)
        alone = np.concatenate([method(X[i : i + 1]) for i in range(len(X))])
        for other in (alone, method(X[::-1])[::-1]):
            assert_allclose(together, other, rtol=1e-4, atol=1e-4, err_msg="forecasts depend on the contexts beside")


def check_quantiles_never_cross(estimator: Any) -> None:
    """Quantiles rise with their level, the mean is inside their range, and wide intervals hold narrow ones."""
    fitted, X = fit_to_walks(estimator), histories()
    quantiles = fitted.predict_quantiles(X, np.linspace(0, 1, 11))
    assert quantiles.shape == (11, *fitted.predict(X).shape), f"quantiles have the shape {quantiles.shape}"
    assert (np.diff(quantiles, axis=0) >= 0).all(), "quantiles cross"
    assert (quantiles[-1] > quantiles[0]).all(), "the quantiles are all equal"
    mean, room = fitted.predict(X), 1e-6 * np.abs(quantiles).max()
    inside = (mean >= quantiles[0] - room) & (mean <= quantiles[-1] + room)
    assert inside.all(), "the mean is outside the range of the draws"
    inner = fitted.predict_quantiles(X, (0.25, 0.75))
    assert_allclose(fitted.predict_interval(X, 0.5), inner, rtol=1e-6, err_msg="intervals are no quantiles")


def check_rollouts_go_on_from_samples(estimator: Any) -> None:
    """A rollout begins with a sample, goes on for as long as asked, and its members part."""
    fitted, X = fit_to_walks(estimator), histories()
    states, first = fitted.rollout(X, 4, 3, 0), fitted.sample(X, 3, 0)
    assert states.shape == (3, len(X), 4, 2), f"a rollout has the shape {states.shape}"
    assert np.isfinite(states).all(), "a rollout is not finite"
    n_first = min(4, first.size // states[:, :, 0].size)
    assert_allclose(
        states[:, :, :n_first], first.reshape(3, len(X), -1, 2)[:, :, :4], err_msg="begins with other states"
    )
    assert (states.std(axis=0) > 0).all(), "members of a rollout are equal"


FORECASTER_CHECKS: tuple[Check, ...] = (
    check_forecaster_fit_is_reproducible,
    check_forecasts_are_reproducible,
    check_forecasts_leave_random_states_alone,
    check_failed_forecaster_fit_changes_nothing,
    check_forecaster_copies_are_equal,
    check_forecasts_are_independent,
    check_quantiles_never_cross,
    check_rollouts_go_on_from_samples,
)
