"""Checks of distilled students."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal
from sklearn.base import clone

from flowmatch.testing.generators import (
    check_containers_come_back,
    check_copies_are_equal,
    check_sample_weight_has_its_effect,
    check_sampling_is_reproducible,
)
from flowmatch.testing.helpers import FIT_CHECKS, Check, fit_to_classes, two_classes, weights_of


def check_teacher_is_left_alone(estimator: Any) -> None:
    """The given teacher stays unfitted, and a fitted one keeps its weights bit by bit."""
    X, y = two_classes()
    fitted = fit_to_classes(estimator)
    assert fitted.estimator is not fitted.teacher_, "the given teacher was fitted instead of a clone"
    teacher, before = fitted.teacher_, weights_of(fitted.teacher_)
    again = clone(fitted).set_params(estimator=teacher, random_state=1).fit(X, y)
    assert again.teacher_ is teacher, "a fitted teacher was fitted anew"
    assert_array_equal(before, weights_of(teacher), "the teacher's weights changed")


def check_any_number_of_steps_works(estimator: Any) -> None:
    """A call may ask for other steps than the estimator's, which start at the same noise, and see the states."""
    fitted = fit_to_classes(estimator)
    default = fitted.sample(4, random_state=0)
    assert_array_equal(default, fitted.sample(4, random_state=0, n_steps=fitted.n_steps), "n_steps of the estimator")
    noise = fitted.sample(4, random_state=0, return_trajectory=True)[0]
    for n_steps in (1, 2, 5):
        states = fitted.sample(4, random_state=0, n_steps=n_steps, return_trajectory=True)
        assert states.shape == (n_steps + 1, 4, 3), f"{n_steps} steps gave states of shape {states.shape}"
        assert np.isfinite(states).all(), f"{n_steps} steps gave states that are not finite"
        assert_array_equal(states[0], noise, f"{n_steps} steps started from other noise")
        samples = fitted.sample(4, random_state=0, n_steps=n_steps)
        assert samples.shape == (4, 3), f"{n_steps} steps gave samples of shape {samples.shape}"
    assert not np.array_equal(samples, fitted.sample(4, random_state=0, n_steps=1)), "n_steps of the call has no effect"


DISTILLED_CHECKS: tuple[Check, ...] = (
    check_sampling_is_reproducible,
    *FIT_CHECKS,
    check_sample_weight_has_its_effect,
    check_copies_are_equal,
    check_containers_come_back,
    check_teacher_is_left_alone,
    check_any_number_of_steps_works,
)
