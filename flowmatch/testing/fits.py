"""Checks of every estimator's `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal

from flowmatch.testing.helpers import (
    assert_seeds_decide,
    fit_to_classes,
    global_states,
    some_scores,
    two_classes,
    weights_of,
)


def check_fit_is_reproducible(estimator: Any) -> None:
    """Fits with one seed end with the same weights, with another seed with others."""
    assert_seeds_decide([weights_of(fit_to_classes(estimator, random_state=seed)) for seed in (0, 0, 1)])


def check_global_random_states_are_untouched(estimator: Any) -> None:
    """Neither numpy's nor torch's global generator moves, in any method."""
    before = global_states()
    for random_state in (None, 0):
        fitted = fit_to_classes(estimator, random_state=random_state)
        some_scores(fitted)
        if hasattr(fitted, "sample"):
            fitted.sample(3, random_state=random_state)
    for name, state, after in zip(("numpy", "torch"), before, global_states(), strict=True):
        assert_array_equal(state, after, f"{name}'s global random state changed")


def check_failed_fit_changes_nothing(estimator: Any) -> None:
    """Bad data raise a ValueError and leave the fitted estimator as it was."""
    X, y = two_classes()
    fitted = fit_to_classes(estimator)
    before = some_scores(fitted)
    bad = X.copy()
    bad[2, 1] = np.inf
    for arguments in ((bad, y), (np.full_like(X, np.nan), y), (X, y[:-1])):
        try:
            fitted.fit(*arguments)
        except ValueError:
            continue
        raise AssertionError("bad data were accepted")
    assert_array_equal(before, some_scores(fitted), "a failed fit changed the estimator")
