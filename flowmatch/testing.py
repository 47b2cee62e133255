"""Checks of flow estimators that scikit-learn's own battery lacks.

Run them on your own subclass or configuration::

    from flowmatch.testing import check_distilled_flow_map, check_flow_detector, check_flow_generator, check_forecaster

    check_flow_generator(MyGenerator(max_iter=20))
    check_forecaster(MyForecaster(max_iter=20))
    check_flow_detector(MyDetector(max_iter=20))
    check_distilled_flow_map(DistilledFlowMap(MyGenerator(max_iter=20), max_iter=20))

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
    return _run(GENERATOR_CHECKS, estimator)


def check_forecaster(estimator: Any) -> list[str]:
    """Run all forecaster checks on an estimator and return their names.

    Parameters
    ----------
    estimator : ConditionalForecaster, or an object like it such as a student of one
        Unfitted, set up to train for a few steps, on windows of at most 20 states of series of two variables.
    """
    return _run(FORECASTER_CHECKS, estimator)


def check_flow_detector(estimator: Any) -> list[str]:
    """Run all detector checks on an estimator and return their names.

    Parameters
    ----------
    estimator : FlowAnomalyDetector or an object like it
        Unfitted, set up to train for a few steps.
    """
    return _run(DETECTOR_CHECKS, estimator)


def check_distilled_flow_map(estimator: Any) -> list[str]:
    """Run all checks of distilled students on an estimator and return their names.

    Parameters
    ----------
    estimator : DistilledFlowMap or an object like it
        Around an unfitted teacher, both set up to train for a few steps.
    """
    return _run(DISTILLED_CHECKS, estimator)


# -- all -------------------------------------------------------------------------------------------------------------


def check_fit_is_reproducible(estimator: Any) -> None:
    """Fits with one seed end with the same weights, with another seed with others."""
    _check_seeds_decide([_weights(_fit(estimator, random_state=seed)) for seed in (0, 0, 1)])


def check_global_random_states_are_untouched(estimator: Any) -> None:
    """Neither numpy's nor torch's global generator moves, in any method."""
    before = _global_states()
    for random_state in (None, 0):
        fitted = _fit(estimator, random_state=random_state)
        _scores(fitted)
        if hasattr(fitted, "sample"):
            fitted.sample(3, random_state=random_state)
    for name, state, after in zip(("numpy", "torch"), before, _global_states(), strict=True):
        assert_array_equal(state, after, f"{name}'s global random state changed")


def check_failed_fit_changes_nothing(estimator: Any) -> None:
    """Bad data raise a ValueError and leave the fitted estimator as it was."""
    X, y = _data()
    fitted = _fit(estimator)
    before = _scores(fitted)
    bad = X.copy()
    bad[2, 1] = np.inf
    for arguments in ((bad, y), (np.full_like(X, np.nan), y), (X, y[:-1])):
        try:
            fitted.fit(*arguments)
        except ValueError:
            continue
        raise AssertionError("bad data were accepted")
    assert_array_equal(before, _scores(fitted), "a failed fit changed the estimator")


# -- generators -------------------------------------------------------------------------------------------------------


def check_sampling_is_reproducible(estimator: Any) -> None:
    """One seed gives the same samples twice, another seed gives others, and the batch size changes nothing."""
    fitted = _fit(estimator)
    first = fitted.sample(7, random_state=1)
    assert_array_equal(first, fitted.sample(7, random_state=1), "the same seed gave other samples")
    assert not np.array_equal(first, fitted.sample(7, random_state=2)), "another seed gave the same samples"
    assert not np.array_equal(fitted.sample(7), fitted.sample(7)), "random_state=None gave the same samples twice"
    assert_allclose(first, fitted.sample(7, random_state=1, batch_size=3), rtol=1e-4, atol=1e-4)


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
    fitted = _fit(estimator)
    for name, other in _copies(fitted).items():
        assert_array_equal(fitted.sample(4, random_state=0), other.sample(4, random_state=0), f"{name} samples differ")
        assert_allclose(_scores(fitted), _scores(other), err_msg=name)


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
    fitted = _fit(estimator)
    for method in (fitted.score_samples, fitted.encode):
        _check_rows_are_independent(method, *_data())


def check_codes_lead_back(estimator: Any) -> None:
    """``decode(encode(X))`` is X, to the accuracy of the solver."""
    X, y = _data()
    fitted = _fit(estimator)
    codes = fitted.encode(X, y, n_steps=100, solver="rk4")
    assert_allclose(fitted.decode(codes, y, n_steps=100, solver="rk4"), X, rtol=1e-4, atol=1e-4)


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


# -- forecasters ------------------------------------------------------------------------------------------------------


def check_forecaster_fit_is_reproducible(estimator: Any) -> None:
    """Fits with one seed end with the same weights, with another seed with others."""
    _check_seeds_decide([_weights(_fit_walks(estimator, random_state=seed)) for seed in (0, 0, 1)])


def check_forecasts_are_reproducible(estimator: Any) -> None:
    """Predictions are the same at every call, draws with one seed are, and the batch size changes nothing."""
    fitted, X = _fit_walks(estimator), _histories()
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
    before, X = _global_states(), _histories()
    for random_state in (None, 0):
        fitted = _fit_walks(estimator, random_state=random_state)
        fitted.predict_interval(X, 0.5)
        fitted.sample(X, 2, random_state)
        fitted.rollout(X, 2, 2, random_state)
        fitted.crps(_walks())
    for name, state, after in zip(("numpy", "torch"), before, _global_states(), strict=True):
        assert_array_equal(state, after, f"{name}'s global random state changed")


def check_failed_forecaster_fit_changes_nothing(estimator: Any) -> None:
    """Bad trajectories raise a ValueError and leave the fitted estimator as it was."""
    walks, X = _walks(), _histories()
    fitted = _fit_walks(estimator)
    before = fitted.predict(X)
    bad = walks.copy()
    bad[2, 5, 1] = np.nan
    for trajectories in (bad, [walks[0], walks[1, :, :1]], [walks[0], walks[1, :0]], walks[:, :, 0] * 1j):
        try:
            fitted.fit(trajectories)
        except ValueError:
            continue
        raise AssertionError("bad trajectories were accepted")
    assert_array_equal(before, fitted.predict(X), "a failed fit changed the estimator")


def check_forecaster_copies_are_equal(estimator: Any) -> None:
    """A clone refits alike; a pickle and a file give the same predictions and rollouts."""
    fitted, X = _fit_walks(estimator), _histories()
    for name, other in _copies(fitted, _walks()).items():
        assert_array_equal(fitted.predict(X), other.predict(X), f"{name}: predictions differ")
        assert_array_equal(fitted.rollout(X, 3, 2, 0), other.rollout(X, 3, 2, 0), f"{name}: rollouts differ")


def check_forecasts_are_independent(estimator: Any) -> None:
    """A context's prediction and intervals do not depend on the contexts beside it."""
    fitted, X = _fit_walks(estimator), _histories()
    for method in (fitted.predict, lambda X: np.moveaxis(fitted.predict_quantiles(X), 0, 1)):
        together = method(X)
        alone = np.concatenate([method(X[i : i + 1]) for i in range(len(X))])
        for other in (alone, method(X[::-1])[::-1]):
            assert_allclose(together, other, rtol=1e-4, atol=1e-4, err_msg="forecasts depend on the contexts beside")


def check_quantiles_never_cross(estimator: Any) -> None:
    """Quantiles rise with their level, the mean is inside their range, and wide intervals hold narrow ones."""
    fitted, X = _fit_walks(estimator), _histories()
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
    fitted, X = _fit_walks(estimator), _histories()
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


# -- distilled students -----------------------------------------------------------------------------------------------


def check_teacher_is_left_alone(estimator: Any) -> None:
    """The given teacher stays unfitted, and a fitted one keeps its weights bit by bit."""
    X, y = _data()
    fitted = _fit(estimator)
    assert fitted.estimator is not fitted.teacher_, "the given teacher was fitted instead of a clone"
    teacher, before = fitted.teacher_, _weights(fitted.teacher_)
    again = type(fitted)(teacher).set_params(**{**_own_parameters(fitted), "random_state": 1}).fit(X, y)
    assert again.teacher_ is teacher, "a fitted teacher was fitted anew"
    assert_array_equal(before, _weights(teacher), "the teacher's weights changed")


def check_any_number_of_steps_works(estimator: Any) -> None:
    """A call may ask for other steps than the estimator's, which start at the same noise, and see the states."""
    fitted = _fit(estimator)
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
    check_fit_is_reproducible,
    check_global_random_states_are_untouched,
    check_sample_weight_has_its_effect,
    check_copies_are_equal,
    check_containers_come_back,
    check_failed_fit_changes_nothing,
    check_teacher_is_left_alone,
    check_any_number_of_steps_works,
)


# -- detectors --------------------------------------------------------------------------------------------------------


def check_order_of_rows_does_not_matter(estimator: Any) -> None:
    """Rows of a table in another order give the same detector."""
    X, _ = _data()
    fitted, turned = _fit_normal(estimator), _fit_normal(estimator, X[::-1].copy())
    assert_array_equal(_weights(fitted), _weights(turned), "rows in another order gave another flow")
    assert_allclose(fitted.score_samples(X), turned.score_samples(X), err_msg="rows in another order gave other scores")
    assert_allclose(fitted.offset_, turned.offset_, err_msg="rows in another order gave another offset_")


def check_weights_count_rows(estimator: Any) -> None:
    """A row of weight 0 is absent, one of weight 2 is there twice."""
    X, _ = _data()
    counts = np.arange(len(X)) % 3
    weighted = _fit_normal(estimator, X, sample_weight=counts)
    repeated = _fit_normal(estimator, np.repeat(X, counts, axis=0))
    assert_array_equal(_weights(weighted), _weights(repeated), "weights that are counts differ from repeated rows")
    assert_allclose(weighted.score_samples(X), repeated.score_samples(X), err_msg="scores with weights")
    assert_allclose(weighted.offset_, repeated.offset_, err_msg="offset_ with weights")


def check_scored_rows_are_independent(estimator: Any) -> None:
    """A row's score and explanation do not depend on the rows beside it."""
    for fitted in (_fit_normal(estimator), _fit(estimator)):
        for method in (fitted.score_samples, fitted.explain):
            _check_rows_are_independent(method, _data()[0])


def check_contributions_add_up(estimator: Any) -> None:
    """``explain`` gives what X is, in its shape, with rows that sum to ``-score_samples``."""
    X, _ = _data()
    fitted = _fit_normal(estimator)
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
    fitted = _fit_normal(estimator, frame)
    pd.testing.assert_frame_equal(fitted.explain(frame), pd.DataFrame(found, frame.index, frame.columns))


def check_detector_copies_are_equal(estimator: Any) -> None:
    """A clone refits alike; a pickle and a file give the same scores, decisions and p-values."""
    fitted = _fit(estimator)
    X, _ = _data()
    for name, other in _copies(fitted).items():
        assert_allclose(_scores(fitted), _scores(other), err_msg=name)
        assert fitted.offset_ == other.offset_, f"{name}: offset_ is {other.offset_}, not {fitted.offset_}"
        assert_array_equal(fitted.predict(X), other.predict(X), name)
        if fitted.calibration_ is not None:
            assert_allclose(fitted.p_values(X), other.p_values(X), err_msg=name)


def check_decisions_follow_scores(estimator: Any) -> None:
    """Rows below `offset_` are flagged: a float `contamination` flags that share of the training rows."""
    X, _ = _data()
    for contamination in ("auto", 0.25):
        fitted = _fit_normal(clone(estimator).set_params(contamination=contamination))
        scores, decisions = fitted.score_samples(X), fitted.decision_function(X)
        assert_allclose(decisions, scores - fitted.offset_, err_msg="decision_function is not score_samples - offset_")
        flagged = fitted.predict(X)
        assert_array_equal(flagged, np.where(decisions < 0, -1, 1), "predict does not follow decision_function")
        if contamination != "auto":
            share = np.mean(flagged == -1)
            assert abs(share - contamination) < 1.5 / len(X), f"contamination={contamination} flagged {share:.3g}"


def check_p_values_follow_scores(estimator: Any) -> None:
    """p-values are in (0, 1], and the more abnormal of two rows does not have the higher one."""
    X, _ = _data()
    fitted = _fit_normal(clone(estimator).set_params(contamination="auto"))
    rows = np.concatenate([X, 10 * X])
    p = fitted.p_values(rows)
    assert p.shape == (len(rows),), f"p_values has the shape {p.shape}"
    assert (p > 0).all(), "a p-value is not positive"
    assert (p <= 1).all(), "a p-value is above 1"
    ranked = p[np.argsort(fitted.score_samples(rows), kind="stable")]
    assert (np.diff(ranked) >= 0).all(), "a more abnormal row has a higher p-value"
    assert len(np.unique(p)) > 2, "p-values do not tell rows apart"


DETECTOR_CHECKS: tuple[Check, ...] = (
    check_fit_is_reproducible,
    check_global_random_states_are_untouched,
    check_failed_fit_changes_nothing,
    check_order_of_rows_does_not_matter,
    check_weights_count_rows,
    check_scored_rows_are_independent,
    check_contributions_add_up,
    check_detector_copies_are_equal,
    check_decisions_follow_scores,
    check_p_values_follow_scores,
)


# -- helpers ----------------------------------------------------------------------------------------------------------


def _run(checks: tuple[Check, ...], estimator: Any) -> list[str]:
    for check in checks:
        check(estimator)
    return [check.__name__ for check in checks]


def _data(n_rows: int = 60) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two classes in three columns."""
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) % 2
    return rng.normal(size=(n_rows, 3)) + 2.0 * y[:, None], y


def _fit(estimator: Any, X: Any = None, random_state: int | None = 0) -> Any:
    data, y = _data()
    return clone(estimator).set_params(random_state=random_state).fit(data if X is None else X, y)


def _walks() -> NDArray[np.float64]:
    """Random walks (6, 20, 2) of two variables."""
    return np.random.default_rng(0).normal(size=(6, 20, 2)).cumsum(axis=1)


def _histories() -> list[NDArray[np.float64]]:
    """What has been seen of five of them, in unequal lengths."""
    return [walk[: 20 - i] for i, walk in enumerate(_walks()[:5])]


def _fit_walks(estimator: Any, random_state: int | None = 0) -> Any:
    return clone(estimator).set_params(random_state=random_state).fit(_walks())


def _check_seeds_decide(weights: list[NDArray[Any]]) -> None:
    """Weights of two fits with one seed and of a third one with another."""
    assert_array_equal(weights[0], weights[1], "two fits with one random_state differ")
    assert not np.array_equal(weights[0], weights[2]), "another random_state gave the same fit"


def _fit_normal(estimator: Any, X: Any = None, **arguments: Any) -> Any:
    """Fit to rows that have no classes."""
    return clone(estimator).set_params(random_state=0).fit(_data()[0] if X is None else X, **arguments)


def _scores(fitted: Any) -> NDArray[np.float64]:
    """Scores of a few rows; generators want their conditions too, and students that have no density give samples."""
    X, y = _data()
    if not hasattr(fitted, "score_samples"):
        return fitted.sample(3, y[:3], random_state=0)
    return fitted.score_samples(X[:3], y[:3]) if hasattr(fitted, "sample") else fitted.score_samples(X[:3])


def _global_states() -> tuple[NDArray[Any], NDArray[Any]]:
    """Of numpy and torch; numpy's is a block of numbers and how many of them are used up."""
    _, block, used, *_ = np.random.get_state()
    return np.append(block, used), torch.get_rng_state().numpy()


def _copies(fitted: Any, *data: Any) -> dict[str, Any]:
    """A refitted clone, a pickle, and a file if the class is the library's own."""
    copies = {"clone": clone(fitted).fit(*(data or _data())), "pickle": pickle.loads(pickle.dumps(fitted))}
    if type(fitted).__module__.startswith("flowmatch."):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            fitted.save(path)
            copies["file"] = load(path, device=getattr(fitted, "student_", fitted).device)
    return copies


def _check_rows_are_independent(method: Callable[..., Any], *arrays: NDArray[Any]) -> None:
    """Six rows give the same together, one by one, and in reverse."""
    together = method(*(array[:6] for array in arrays))
    alone = np.concatenate([method(*(array[i : i + 1] for array in arrays)) for i in range(6)])
    turned = method(*(array[5::-1] for array in arrays))
    assert_allclose(together, alone, rtol=1e-6, atol=1e-9, err_msg=method.__name__)
    assert_allclose(together[::-1], turned, rtol=1e-6, atol=1e-9, err_msg=method.__name__)


def _own_parameters(estimator: Any) -> dict[str, Any]:
    """Parameters without the teacher."""
    return {name: value for name, value in estimator.get_params(deep=False).items() if name != "estimator"}


def _weights(fitted: Any) -> NDArray[Any]:
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in fitted.network_.parameters()])
