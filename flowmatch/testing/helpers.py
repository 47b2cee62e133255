"""Data and comparisons that the checks share, and the checks of every row-wise estimator's `fit`."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.testing import assert_allclose, assert_array_equal, assert_raises
from numpy.typing import NDArray
from sklearn.base import clone

from flowmatch.persistence import load

Check = Callable[[Any], None]


def run(checks: tuple[Check, ...], estimator: Any) -> list[str]:
    """Run checks on an estimator and return their names."""
    for check in checks:
        check(estimator)
    return [check.__name__ for check in checks]


def two_classes(n_rows: int = 60) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two classes in three columns."""
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) % 2
    return rng.normal(size=(n_rows, 3)) + 2.0 * y[:, None], y


def fit_to_classes(estimator: Any, X: Any = None, random_state: int | None = 0) -> Any:
    """A clone fitted to two classes."""
    data, y = two_classes()
    return clone(estimator).set_params(random_state=random_state).fit(data if X is None else X, y)


def random_walks() -> NDArray[np.float64]:
    """Random walks (6, 20, 2) of two variables."""
    return np.random.default_rng(0).normal(size=(6, 20, 2)).cumsum(axis=1)


def histories() -> list[NDArray[np.float64]]:
    """What has been seen of five of them, in unequal lengths."""
    return [walk[: 20 - i] for i, walk in enumerate(random_walks()[:5])]


def fit_to_walks(estimator: Any, random_state: int | None = 0) -> Any:
    """A clone fitted to random walks."""
    return clone(estimator).set_params(random_state=random_state).fit(random_walks())


def assert_seeds_decide(fit: Callable[..., Any], estimator: Any) -> None:
    """Fits with one seed end with the same weights, with another seed with others."""
    first, again, other = (weights_of(fit(estimator, random_state=seed)) for seed in (0, 0, 1))
    assert_array_equal(first, again, "two fits with one random_state differ")
    assert not np.array_equal(first, other), "another random_state gave the same fit"


def fit_to_rows(estimator: Any, X: Any = None, **arguments: Any) -> Any:
    """Fit to rows that have no classes."""
    return clone(estimator).set_params(random_state=0).fit(two_classes()[0] if X is None else X, **arguments)


def some_scores(fitted: Any) -> NDArray[np.float64]:
    """Scores of a few rows; generators want their conditions too, and students that have no density give samples."""
    X, y = two_classes()
    if not hasattr(fitted, "score_samples"):
        return fitted.sample(3, y[:3], random_state=0)
    return fitted.score_samples(X[:3], y[:3]) if hasattr(fitted, "sample") else fitted.score_samples(X[:3])


def global_states() -> tuple[NDArray[Any], NDArray[Any]]:
    """Of numpy and torch; numpy's is a block of numbers and how many of them are used up."""
    _, block, used, *_ = np.random.get_state()
    return np.append(block, used), torch.get_rng_state().numpy()


@contextlib.contextmanager
def assert_global_states_stay() -> Iterator[None]:
    """What is done inside moves neither numpy's nor torch's global generator."""
    before = global_states()
    yield
    for name, state, after in zip(("numpy", "torch"), before, global_states(), strict=True):
        assert_array_equal(state, after, f"{name}'s global random state changed")


def copies_of(fitted: Any, *data: Any) -> dict[str, Any]:
    """A refitted clone, a pickle, and a file if the class is the library's own."""
    copies = {"clone": clone(fitted).fit(*(data or two_classes())), "pickle": pickle.loads(pickle.dumps(fitted))}
    if type(fitted).__module__.startswith("flowmatch."):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            fitted.save(path)
            copies["file"] = load(path, device=next(fitted.network_.parameters()).device)
    return copies


def assert_rows_are_independent(method: Callable[..., Any], *arrays: NDArray[Any]) -> None:
    """Six rows give the same together, one by one, and in reverse."""
    together = method(*(array[:6] for array in arrays))
    alone = np.concatenate([method(*(array[i : i + 1] for array in arrays)) for i in range(6)])
    turned = method(*(array[5::-1] for array in arrays))
    assert_allclose(together, alone, rtol=1e-6, atol=1e-9, err_msg=method.__name__)
    assert_allclose(together[::-1], turned, rtol=1e-6, atol=1e-9, err_msg=method.__name__)


def weights_of(fitted: Any) -> NDArray[Any]:
    """All weights of a fitted estimator's network."""
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in fitted.network_.parameters()])


def check_fit_is_reproducible(estimator: Any) -> None:
    """Fits with one seed end with the same weights, with another seed with others."""
    assert_seeds_decide(fit_to_classes, estimator)


def check_global_random_states_are_untouched(estimator: Any) -> None:
    """Neither numpy's nor torch's global generator moves, in any method."""
    with assert_global_states_stay():
        for random_state in (None, 0):
            fitted = fit_to_classes(estimator, random_state=random_state)
            some_scores(fitted)
            if hasattr(fitted, "sample"):
                fitted.sample(3, random_state=random_state)


def check_failed_fit_changes_nothing(estimator: Any) -> None:
    """Bad data raise a ValueError and leave the fitted estimator as it was."""
    X, y = two_classes()
    fitted = fit_to_classes(estimator)
    before = some_scores(fitted)
    bad = X.copy()
    bad[2, 1] = np.inf
    for arguments in ((bad, y), (np.full_like(X, np.nan), y), (X, y[:-1])):
        with assert_raises(ValueError, msg="bad data were accepted"):
            fitted.fit(*arguments)
    assert_array_equal(before, some_scores(fitted), "a failed fit changed the estimator")


FIT_CHECKS = (check_fit_is_reproducible, check_global_random_states_are_untouched, check_failed_fit_changes_nothing)
