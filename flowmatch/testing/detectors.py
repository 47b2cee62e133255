"""Checks of anomaly detectors."""

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
    fit_to_rows,
    some_scores,
    two_classes,
    weights_of,
)


def check_order_of_rows_does_not_matter(estimator: Any) -> None:
    """Rows of a table in another order give the same detector."""
    X, _ = two_classes()
    fitted, turned = fit_to_rows(estimator), fit_to_rows(estimator, X[::-1].copy())
    assert_array_equal(weights_of(fitted), weights_of(turned), "rows in another order gave another flow")
    assert_allclose(fitted.score_samples(X), turned.score_samples(X), err_msg="rows in another order gave other scores")
    assert_allclose(fitted.offset_, turned.offset_, err_msg="rows in another order gave another offset_")


def check_weights_count_rows(estimator: Any) -> None:
    """A row of weight 0 is absent, one of weight 2 is there twice."""
    X, _ = two_classes()
    counts = np.arange(len(X)) % 3
    weighted = fit_to_rows(estimator, X, sample_weight=counts)
    repeated = fit_to_rows(estimator, np.repeat(X, counts, axis=0))
    assert_array_equal(weights_of(weighted), weights_of(repeated), "weights that are counts differ from repeated rows")
    assert_allclose(weighted.score_samples(X), repeated.score_samples(X), err_msg="scores with weights")
    assert_allclose(weighted.offset_, repeated.offset_, err_msg="offset_ with weights")


def check_scored_rows_are_independent(estimator: Any) -> None:
    """A row's score and explanation do not depend on the rows beside it."""
    for fitted in (fit_to_rows(estimator), fit_to_classes(estimator)):
        for method in (fitted.score_samples, fitted.explain):
            assert_rows_are_independent(method, two_classes()[0])


def check_contributions_add_up(estimator: Any) -> None:
    """``explain`` gives what X is, in its shape, with rows that sum to ``-score_samples``."""
    X, _ = two_classes()
    fitted = fit_to_rows(estimator)
    scores, found = fitted.score_samples(X), fitted.explain(X)
    assert isinstance(found, np.ndarray)
    assert found.shape == X.shape, f"explain gave the shape {found.shape} for {X.shape}"
    assert np.isfinite(found).all(), "explain gave numbers that are not finite"
    assert_allclose(found.sum(axis=1), -scores, rtol=1e-9, atol=1e-9, err_msg="explain does not add up to the score")
    tensor = fitted.explain(torch.as_tensor(X))
    assert isinstance(tensor, torch.Tensor)
    assert_allclose(tensor.numpy(), found, err_msg="explain of a tensor")
    try:
        import pandas as pd
    except ImportError:
        return
    frame = pd.DataFrame(X, columns=["a", "b", "c"], index=range(100, 100 + len(X)))
    fitted = fit_to_rows(estimator, frame)
    pd.testing.assert_frame_equal(fitted.explain(frame), pd.DataFrame(found, frame.index, frame.columns))


def check_detector_copies_are_equal(estimator: Any) -> None:
    """A clone refits alike; a pickle and a file give the same scores, decisions and p-values."""
    fitted = fit_to_classes(estimator)
    X, _ = two_classes()
    for name, other in copies_of(fitted).items():
        assert_allclose(some_scores(fitted), some_scores(other), err_msg=name)
        assert fitted.offset_ == other.offset_, f"{name}: offset_ is {other.offset_}, not {fitted.offset_}"
        assert_array_equal(fitted.predict(X), other.predict(X), name)
        if fitted.calibration_ is not None:
            assert_allclose(fitted.p_values(X), other.p_values(X), err_msg=name)


def check_decisions_follow_scores(estimator: Any) -> None:
    """Rows below `offset_` are flagged: a float `contamination` flags that share of the training rows."""
    X, _ = two_classes()
    for contamination in ("auto", 0.25):
        fitted = fit_to_rows(clone(estimator).set_params(contamination=contamination))
        scores, decisions = fitted.score_samples(X), fitted.decision_function(X)
        assert_allclose(decisions, scores - fitted.offset_, err_msg="decision_function is not score_samples - offset_")
        flagged = fitted.predict(X)
        assert_array_equal(flagged, np.where(decisions < 0, -1, 1), "predict does not follow decision_function")
        if contamination != "auto":
            share = np.mean(flagged == -1)
            assert abs(share - contamination) < 1.5 / len(X), f"contamination={contamination} flagged {share:.3g}"


def check_p_values_follow_scores(estimator: Any) -> None:
    """p-values are in (0, 1], and the more abnormal of two rows does not have the higher one."""
    X, _ = two_classes()
    fitted = fit_to_rows(clone(estimator).set_params(contamination="auto"))
    rows = np.concatenate([X, 10 * X])
    p = fitted.p_values(rows)
    assert p.shape == (len(rows),), f"p_values has the shape {p.shape}"
    assert (p > 0).all(), "a p-value is not positive"
    assert (p <= 1).all(), "a p-value is above 1"
    ranked = p[np.argsort(fitted.score_samples(rows), kind="stable")]
    assert (np.diff(ranked) >= 0).all(), "a more abnormal row has a higher p-value"
    assert len(np.unique(p)) > 2, "p-values do not tell rows apart"


DETECTOR_CHECKS: tuple[Check, ...] = (
    *FIT_CHECKS,
    check_order_of_rows_does_not_matter,
    check_weights_count_rows,
    check_scored_rows_are_independent,
    check_contributions_add_up,
    check_detector_copies_are_equal,
    check_decisions_follow_scores,
    check_p_values_follow_scores,
)
