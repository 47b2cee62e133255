"""Checks of generators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from flowmatch.testing.helpers import (
    FIT_CHECKS,
    Check,
    assert_rows_are_independent,
    copies_of,
    fit_to_classes,
    some_scores,
    two_classes,
    weights_of,
)


def check_sampling_is_reproducible(estimator: Any) -> None:
    """One seed gives the same samples twice, the first of them if fewer are drawn, and the same for any batch size."""
    fitted = fit_to_classes(estimator)
    first = fitted.sample(7, random_state=1)
    assert_array_equal(first, fitted.sample(7, random_state=1), "the same seed gave other samples")
    assert not np.array_equal(first, fitted.sample(7, random_state=2)), "another seed gave the same samples"
    assert not np.array_equal(fitted.sample(7), fitted.sample(7)), "random_state=None gave the same samples twice"
    assert_allclose(first, fitted.sample(7, random_state=1, batch_size=3), rtol=1e-4, atol=1e-4)
    assert_allclose(first[:3], fitted.sample(3, random_state=1), rtol=1e-4, atol=1e-4)


def check_sample_weight_has_its_effect(estimator: Any) -> None:
    """Rows of weight 0 count as absent, and a heavy class is drawn in its share."""
    X, y = two_classes()
    weight = np.where(y == 0, 0.0, 1.0)
    weighted = clone(estimator).set_params(random_state=0).fit(X, y, sample_weight=weight)
    dropped = clone(estimator).set_params(random_state=0).fit(X[y == 1], y[y == 1])
    assert_array_equal(weighted.classes_, [1])
    assert_array_equal(weights_of(weighted), weights_of(dropped), "weight 0 differs from leaving the row out")
    heavy = clone(estimator).set_params(random_state=0).fit(X, y, sample_weight=np.where(y == 0, 9.0, 1.0))
    _, labels = heavy.sample(100, random_state=0, return_y=True)
    share = 9 * np.sum(y == 0) / (9 * np.sum(y == 0) + np.sum(y == 1))
    assert abs(np.mean(labels == 0) - share) < 0.02, "labels are not drawn in their weighted shares"


def check_copies_are_equal(estimator: Any) -> None:
    """A clone refits alike; a pickle and a file give the same samples and scores."""
    fitted = fit_to_classes(estimator)
    for name, other in copies_of(fitted).items():
        assert_array_equal(fitted.sample(4, random_state=0), other.sample(4, random_state=0), f"{name} samples differ")
        assert_allclose(some_scores(fitted), some_scores(other), err_msg=name)


def check_containers_come_back(estimator: Any) -> None:
    """Arrays, tensors and DataFrames come back as such, in their dtypes."""
    X, _ = two_classes()
    for dtype in (np.float64, np.float32, np.int32):
        sample = fit_to_classes(estimator, X=(10 * X).astype(dtype)).sample(3, random_state=0)
        assert isinstance(sample, np.ndarray)
        assert sample.dtype == dtype, f"{dtype} came back as {sample.dtype}"
    sample = fit_to_classes(estimator, X=torch.as_tensor(X, dtype=torch.float32)).sample(3)
    assert isinstance(sample, torch.Tensor)
    assert sample.dtype == torch.float32
    try:
        import pandas as pd
    except ImportError:
        return
    frame = pd.DataFrame({"a": X[:, 0], "b": (10 * X[:, 1]).astype(np.int16), "c": X[:, 2] > 0})
    sample = fit_to_classes(estimator, X=frame).sample(3)
    assert list(sample.columns) == ["a", "b", "c"]
    assert list(sample.dtypes) == list(frame.dtypes), f"dtypes {list(sample.dtypes)}"


def check_rows_are_independent(estimator: Any) -> None:
    """A row's score and code do not depend on the rows beside it."""
    fitted = fit_to_classes(estimator)
    for method in (fitted.score_samples, fitted.encode):
        assert_rows_are_independent(method, *two_classes())


def check_codes_lead_back(estimator: Any) -> None:
    """``decode(encode(X))`` is X, to the accuracy of the solver."""
    X, y = two_classes()
    fitted = fit_to_classes(estimator)
    codes = fitted.encode(X, y, n_steps=100, solver="rk4")
    assert_allclose(fitted.decode(codes, y, n_steps=100, solver="rk4"), X, rtol=1e-4, atol=1e-4)


GENERATOR_CHECKS: tuple[Check, ...] = (
    check_sampling_is_reproducible,
    *FIT_CHECKS,
    check_sample_weight_has_its_effect,
    check_copies_are_equal,
    check_containers_come_back,
    check_rows_are_independent,
    check_codes_lead_back,
)
