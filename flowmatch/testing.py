"""Checks of flow estimators that scikit-learn's own battery lacks.

Run them on your own subclass or configuration::

    from flowmatch.testing import check_flow_generator

    check_flow_generator(MyGenerator(max_iter=20))

Each check clones what it is given, fits it to small data, and raises an AssertionError that says what is wrong.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.base import clone

from flowmatch.persistence import load

Check = Callable[[Any], None]


def check_flow_generator(estimator: Any) -> list[str]:
    """Run all generator checks on an estimator and return their names.

    Parameters
    ----------
    estimator : FlowMatchingGenerator or an object like it
        Unfitted, set up to train for a few steps.
    """
    for check in GENERATOR_CHECKS:
        check(estimator)
    return [check.__name__ for check in GENERATOR_CHECKS]


def check_sampling_is_reproducible(estimator: Any) -> None:
    """One seed gives the same samples twice, another seed gives others, and the batch size changes nothing."""
    fitted = _fit(estimator)
    first = fitted.sample(7, random_state=1)
    assert_array_equal(first, fitted.sample(7, random_state=1), "the same seed gave other samples")
    assert not np.array_equal(first, fitted.sample(7, random_state=2)), "another seed gave the same samples"
    assert not np.array_equal(fitted.sample(7), fitted.sample(7)), "random_state=None gave the same samples twice"
    assert_allclose(first, fitted.sample(7, random_state=1, batch_size=3), rtol=1e-4, atol=1e-4)


def check_fit_is_reproducible(estimator: Any) -> None:
    """Fits with one seed end with the same weights, with another seed with others."""
    weights = [_weights(_fit(estimator, random_state=seed)) for seed in (0, 0, 1)]
    assert_array_equal(weights[0], weights[1], "two fits with one random_state differ")
    assert not np.array_equal(weights[0], weights[2]), "another random_state gave the same fit"


def check_global_random_states_are_untouched(estimator: Any) -> None:
    """Neither numpy's nor torch's global generator moves, in any method."""
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    X, y = _data()
    for random_state in (None, 0):
        fitted = _fit(estimator, random_state=random_state)
        fitted.sample(3, random_state=random_state)
        fitted.score_samples(X[:3], y[:3])
    after = np.random.get_state()[1], torch.get_rng_state()  # type: ignore[index]
    assert_array_equal(before[0], after[0], "numpy's global random state changed")
    assert torch.equal(before[1], after[1]), "torch's global random state changed"


def check_sample_weight_has_its_effect(estimator: Any) -> None:
    """Rows of weight 0 count as absent, and a heavy class is drawn in its share."""
    X, y = _data()
    weight = np.where(y == 0, 0.0, 1.0)
    weighted = clone(estimator).set_params(random_state=0).fit(X, y, sample_weight=weight)
    dropped = clone(estimator).set_params(random_state=0).fit(X[y == 1], y[y == 1])
    assert_array_equal(weighted.classes_, [1])
    assert_array_equal(_weights(weighted), _weights(dropped), "weight 0 differs from leaving the row out")
    heavy = clone(estimator).set_params(random_state=0).fit(X, y, sample_weight=np.where(y == 0, 9.0, 1.0))
    _, labels = heavy.sample(100, random_state=0, return_y=True)
    share = 9 * np.sum(y == 0) / (9 * np.sum(y == 0) + np.sum(y == 1))
    assert abs(np.mean(labels == 0) - share) < 0.02, "labels are not drawn in their weighted shares"


def check_copies_are_equal(estimator: Any) -> None:
    """A clone refits alike; a pickle and a file give the same samples and scores."""
    X, y = _data()
    fitted = _fit(estimator)
    copies = {"clone": clone(fitted).fit(X, y), "pickle": pickle.loads(pickle.dumps(fitted))}
    if type(fitted).__module__.startswith("flowmatch."):  # files hold the library's own classes
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            fitted.save(path)
            copies["file"] = load(path, device=fitted.device)
    for name, other in copies.items():
        assert_array_equal(fitted.sample(4, random_state=0), other.sample(4, random_state=0), f"{name} samples differ")
        assert_allclose(fitted.score_samples(X[:3], y[:3]), other.score_samples(X[:3], y[:3]), err_msg=name)


def check_containers_come_back(estimator: Any) -> None:
    """Arrays, tensors and DataFrames come back as such, in their dtypes."""
    X, _ = _data()
    for dtype in (np.float64, np.float32, np.int32):
        sample = _fit(estimator, X=(10 * X).astype(dtype)).sample(3, random_state=0)
        assert isinstance(sample, np.ndarray)
        assert sample.dtype == dtype, f"{dtype} came back as {sample.dtype}"
    sample = _fit(estimator, X=torch.as_tensor(X, dtype=torch.float32)).sample(3)
    assert isinstance(sample, torch.Tensor)
    assert sample.dtype == torch.float32
    try:
        import pandas as pd
    except ImportError:
        return
    frame = pd.DataFrame({"a": X[:, 0], "b": (10 * X[:, 1]).astype(np.int16), "c": X[:, 2] > 0})
    sample = _fit(estimator, X=frame).sample(3)
    assert list(sample.columns) == ["a", "b", "c"]
    assert list(sample.dtypes) == list(frame.dtypes), f"dtypes {list(sample.dtypes)}"


def check_rows_are_independent(estimator: Any) -> None:
    """A row's score and code do not depend on the rows beside it."""
    X, y = _data()
    fitted = _fit(estimator)
    for method in (fitted.score_samples, fitted.encode):
        together = method(X[:6], y[:6])
        alone = np.concatenate([method(X[i : i + 1], y[i : i + 1]) for i in range(6)])
        assert_allclose(together, alone, rtol=1e-6, atol=1e-9, err_msg=method.__name__)
        assert_allclose(together[::-1], method(X[5::-1], y[5::-1]), rtol=1e-6, atol=1e-9, err_msg=method.__name__)


def check_codes_lead_back(estimator: Any) -> None:
    """``decode(encode(X))`` is X, to the accuracy of the solver."""
    X, y = _data()
    fitted = _fit(estimator)
    codes = fitted.encode(X, y, n_steps=100, solver="rk4")
    assert_allclose(fitted.decode(codes, y, n_steps=100, solver="rk4"), X, rtol=1e-4, atol=1e-4)


def check_failed_fit_changes_nothing(estimator: Any) -> None:
    """Bad data raise a ValueError and leave the fitted estimator as it was."""
    X, y = _data()
    fitted = _fit(estimator)
    before = fitted.sample(3, random_state=0)
    bad = X.copy()
    bad[2, 1] = np.nan
    for arguments in ((bad, y), (X[:, :2] * np.inf, y), (X, y[:-1])):
        try:
            fitted.fit(*arguments)
        except ValueError:
            continue
        raise AssertionError("bad data were accepted")
    assert_array_equal(before, fitted.sample(3, random_state=0), "a failed fit changed the estimator")


GENERATOR_CHECKS: tuple[Check, ...] = (
    check_sampling_is_reproducible,
    check_fit_is_reproducible,
    check_global_random_states_are_untouched,
    check_sample_weight_has_its_effect,
    check_copies_are_equal,
    check_containers_come_back,
    check_rows_are_independent,
    check_codes_lead_back,
    check_failed_fit_changes_nothing,
)


def _data(n_rows: int = 60) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two classes in three columns."""
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) % 2
    return rng.normal(size=(n_rows, 3)) + 2.0 * y[:, None], y


def _fit(estimator: Any, X: Any = None, random_state: int | None = 0) -> Any:
    data, y = _data()
    return clone(estimator).set_params(random_state=random_state).fit(data if X is None else X, y)


def _weights(fitted: Any) -> NDArray[Any]:
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in fitted.network_.parameters()])
