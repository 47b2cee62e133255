"""Scikit-learn's battery and our own, over one list of configured instances."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from flowmatch import (
    MLP,
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    TrainingOptions,
)
from flowmatch.anomaly import SCORES
from flowmatch.testing import (
    check_distilled_flow_map,
    check_flow_detector,
    check_flow_generator,
    check_forecaster,
)
from flowmatch.testing.detectors import DETECTOR_CHECKS
from flowmatch.testing.forecasters import FORECASTER_CHECKS
from flowmatch.testing.generators import GENERATOR_CHECKS
from flowmatch.testing.students import DISTILLED_CHECKS, check_any_number_of_steps_works, check_teacher_is_left_alone

SMALL = {"max_iter": 5, "batch_size": 32, "device": "cpu", "n_steps": 3}
INSTANCES = {
    "defaults": FlowMatchingGenerator(**SMALL),
    "adaln, ot, cosine, heun": FlowMatchingGenerator(
        network=MLP(width=16, conditioning="adaln"), coupling="ot", path="cosine", solver="heun", **SMALL
    ),
    "standardised, early stopping": FlowMatchingGenerator(
        preprocessing="standardize",
        loss="huber",
        training=TrainingOptions(early_stopping=True, ema_decay=None, validation_fraction=0.3),
        **SMALL,
    ),
    "no dropout of conditions": FlowMatchingGenerator(condition_dropout=0.0, path="vp", loss_weight="min_snr", **SMALL),
    "mean flow": FlowMatchingGenerator(
        objective="mean_flow", **SMALL | {"network": MLP(width=8, depth=1), "n_steps": 2}
    ),
}
TINY = {"network": MLP(width=8, depth=1), "max_iter": 3, "batch_size": 32, "n_steps": 2, "device": "cpu"}
STUDENTS = {
    "progressive": DistilledFlowMap(FlowMatchingGenerator(**TINY), max_iter=3, n_pairs=50),
    "reflow": DistilledFlowMap(
        FlowMatchingGenerator(**TINY), "reflow", n_steps=2, n_pairs=50, training=TrainingOptions()
    ),
    "semigroup": DistilledFlowMap(FlowMatchingGenerator(**TINY), "semigroup", max_iter=3, fold=False, inverse=True),
    "lagrangian": DistilledFlowMap(FlowMatchingGenerator(**TINY), "lagrangian", max_iter=3, ema_target=True),
    "mean flow": DistilledFlowMap(FlowMatchingGenerator(objective="mean_flow", **TINY), max_iter=3, n_pairs=50),
}
FORECASTERS = {
    "defaults": ConditionalForecaster(n_samples=10, **TINY),
    "residual, early stopping": ConditionalForecaster(
        target="residual", training=TrainingOptions(early_stopping=True, validation_fraction=0.3), n_samples=10, **TINY
    ),
    "noise, euler": ConditionalForecaster(context_noise=0.1, solver="euler", n_samples=9, **TINY),
}
FORECASTING_STUDENT = DistilledFlowMap(ConditionalForecaster(n_samples=10, **TINY), max_iter=3, n_pairs=50)
WINDOWED = {
    **FORECASTERS,
    "windows": ConditionalForecaster(n_lags=3, horizon=2, n_samples=10, **TINY),
    "student": FORECASTING_STUDENT,
}
DETECTORS = {
    "combined": FlowAnomalyDetector(n_folds=1, **TINY),
    "one_step, folds": FlowAnomalyDetector(method="one_step", n_folds=2, **TINY),
}
SLOW_DETECTORS = {
    "latent, contamination": FlowAnomalyDetector(method="latent", contamination=0.1, **TINY),
    "neighbors, trim": FlowAnomalyDetector(method="neighbors", trim=0.1, n_folds=1, **TINY),
    "defaults": FlowAnomalyDetector(**{**TINY, "network": "auto"}),
    "combined, contamination": FlowAnomalyDetector(contamination=0.1, **TINY),
    **{
        score: FlowAnomalyDetector(method=score, n_folds=2, **TINY)
        for score in ("likelihood", "denoising", "rebuilding", "reconstruction")
    },
}
EVERY_DETECTOR = pytest.mark.parametrize(
    "detector",
    [pytest.param(detector, id=name) for name, detector in DETECTORS.items()]
    + [pytest.param(detector, id=name, marks=pytest.mark.slow) for name, detector in SLOW_DETECTORS.items()],
)
FEW_HELD_OUT = pytest.mark.filterwarnings("ignore:.* held-out rows cannot promise:UserWarning")
N_CHECKS = {
    (1, 9): {
        "FlowMatchingGenerator": 47,
        "ConditionalForecaster": 51,
        "FlowAnomalyDetector": 53,
        "DistilledFlowMap": 47,
        "FlowImputer": 46,
    }
}
"""How many checks scikit-learn of a version runs: fewer would mean that some were lost."""


OUTCOMES = {
    f"check_methods_{what}_invariance": "calls score_samples(X), but densities of outcomes take outcomes y"
    for what in ("sample_order", "subset")
}
"""What scikit-learn's battery asks of every `score_samples`, that of an outlier detector; for all other methods, and with
outcomes, the same is tested by `check_forecasts_are_independent` and in test_forecast_density.py."""


def run_the_battery(estimator, expected=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return check_estimator(estimator, on_skip=None, on_fail=None, expected_failed_checks=expected)


def assert_the_battery_passes(estimator, expected=None):
    results = run_the_battery(estimator, expected)
    asked_without = [r for r in results if r["status"] == "xfail"]
    assert {r["check_name"] for r in asked_without} == set(expected or ())
    assert {"pass y as well" in repr(r["exception"]) for r in asked_without} <= {True}
    failed = [(r["check_name"], repr(r["exception"])[:300]) for r in results if r["status"] == "failed"]
    assert failed == []
    assert {r["status"] for r in results} <= {"passed", "skipped", "xfail"}
    version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    assert len(results) == N_CHECKS.get(version, {}).get(type(estimator).__name__, len(results))
    assert sum(r["status"] == "passed" for r in results) >= len(results) - len(asked_without) - 1


@pytest.mark.parametrize(
    "name",
    [
        "defaults",
        pytest.param("standardised, early stopping", marks=pytest.mark.slow),
        pytest.param("mean flow", marks=pytest.mark.slow),
        pytest.param("adaln, ot, cosine, heun", marks=pytest.mark.slow),
        pytest.param("no dropout of conditions", marks=pytest.mark.slow),
    ],
)
def test_scikit_learns_battery_passes_whole(name):
    assert_the_battery_passes(INSTANCES[name])


@pytest.mark.parametrize(
    "name", [name if name == "progressive" else pytest.param(name, marks=pytest.mark.slow) for name in STUDENTS]
)
def test_scikit_learns_battery_passes_whole_for_students(name):
    assert_the_battery_passes(STUDENTS[name])


@pytest.mark.parametrize(
    "name", [name if name == "defaults" else pytest.param(name, marks=pytest.mark.slow) for name in FORECASTERS]
)
def test_scikit_learns_battery_passes_whole_for_forecasters(name):
    assert_the_battery_passes(FORECASTERS[name], OUTCOMES)


@pytest.mark.slow
def test_scikit_learns_battery_passes_for_students_of_forecasters_but_for_weights():
    """A student's `fit` has a `sample_weight`, which forecasters refuse by name."""
    results = [r for r in run_the_battery(FORECASTING_STUDENT, OUTCOMES) if r["status"] != "xfail"]
    failed = [r for r in results if r["status"] == "failed"]
    assert {"sample_weight" in r["check_name"] for r in failed} == {True}
    reasons = [repr(r["exception"]) + repr(r["exception"].__context__) for r in failed]  # some are wrapped
    assert {"a ConditionalForecaster takes none" in reason for reason in reasons} == {True}
    assert len(results) - len(failed) >= N_CHECKS[1, 9]["ConditionalForecaster"] - len(OUTCOMES)


@EVERY_DETECTOR
def test_scikit_learns_battery_passes_whole_for_detectors(detector):
    assert_the_battery_passes(detector)


def test_every_score_is_tested():
    used = {detector.get_params()["method"] for detector in (DETECTORS | SLOW_DETECTORS).values()}
    assert used == set(SCORES)


@pytest.mark.parametrize(
    "name", [name if name == "defaults" else pytest.param(name, marks=pytest.mark.slow) for name in INSTANCES]
)
@pytest.mark.parametrize("check", GENERATOR_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_pass(name, check):
    check(INSTANCES[name])


@pytest.mark.parametrize(
    "name",
    [name if name == "progressive" else pytest.param(name, marks=pytest.mark.slow) for name in STUDENTS],
)
@pytest.mark.parametrize("check", DISTILLED_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_pass_for_students(name, check):
    check(STUDENTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("check", FORECASTER_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_pass_for_forecasters(name, check):
    check(WINDOWED[name])


@FEW_HELD_OUT
@EVERY_DETECTOR
@pytest.mark.parametrize("check", DETECTOR_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_pass_for_detectors(detector, check):
    check(detector)


class Mine(FlowMatchingGenerator):
    """A user's subclass, with the parent's parameters."""


class MyStudent(DistilledFlowMap):
    """A user's subclass, with the parent's parameters."""


class MyDetector(FlowAnomalyDetector):
    """A user's subclass, with the parent's parameters."""


class MyForecaster(ConditionalForecaster):
    """A user's subclass, with the parent's parameters."""


@FEW_HELD_OUT
def test_our_checks_run_on_users_subclasses():
    assert len(check_flow_generator(Mine(**SMALL))) == len(GENERATOR_CHECKS)
    assert len(check_distilled_flow_map(MyStudent(Mine(**TINY), max_iter=3, n_pairs=50))) == len(DISTILLED_CHECKS)
    assert len(check_forecaster(MyForecaster(n_lags=3, horizon=2, n_samples=4, **TINY))) == len(FORECASTER_CHECKS)
    assert len(check_flow_detector(MyDetector(method="one_step", n_folds=1, **TINY))) == len(DETECTOR_CHECKS)


def test_our_checks_can_fail():
    class Forgetful(FlowMatchingGenerator):
        def sample(self, n_samples=1, y=None, random_state=None, **options):
            return super().sample(n_samples, y, None, **options)

    with pytest.raises(AssertionError, match="the same seed gave other samples"):
        GENERATOR_CHECKS[0](Forgetful(**SMALL))


class Random(FlowAnomalyDetector):
    def score_samples(self, X):
        return super().score_samples(X) + np.random.rand(len(X))


class Ranked(FlowAnomalyDetector):
    def score_samples(self, X):
        return np.argsort(np.argsort(super().score_samples(X))).astype(float)


class Unordered(FlowAnomalyDetector):
    def score_samples(self, X):
        return super().score_samples(X) + 0.01 * self.first

    def fit(self, X, y=None, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.first = float(np.asarray(X)[0, 0])
        return self


class Explaining(FlowAnomalyDetector):
    def explain(self, X):
        return 2 * super().explain(X)


class Eager(FlowAnomalyDetector):
    def predict(self, X):
        return np.where(self.decision_function(X) < 0.01, -1, 1)


class Upside(FlowAnomalyDetector):
    def p_values(self, X):
        return 1 - 0.99 * super().p_values(X)


class Loose(FlowAnomalyDetector):
    def fit(self, X, y=None, sample_weight=None):
        return super().fit(np.nan_to_num(np.asarray(X, dtype=float), posinf=9, neginf=-9), y, sample_weight)


class Weightless(FlowAnomalyDetector):
    def fit(self, X, y=None, sample_weight=None):
        return super().fit(X, y)


class Shaken(FlowAnomalyDetector):
    def fit(self, X, y=None, sample_weight=None):
        return super().fit(X + 1e-3 * np.random.default_rng().normal(size=np.shape(X)), y, sample_weight)


class Forgetful(FlowAnomalyDetector):
    def __getstate__(self):
        state = super().__getstate__()
        if "fitted_" not in state:
            return state
        forgotten = replace(state["fitted_"].calibration, scores=np.ones(len(self.calibration_.scores)))
        return {**state, "fitted_": replace(state["fitted_"], calibration=forgotten)}


@FEW_HELD_OUT
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Shaken, "two fits with one random_state differ"),
        (Random, "numpy's global random state changed"),
        (Loose, "bad data were accepted"),
        (Unordered, "rows in another order gave other scores"),
        (Weightless, "weights that are counts differ from repeated rows"),
        (Ranked, "score_samples"),
        (Explaining, "explain does not add up to the score"),
        (Forgetful, "pickle: offset_ is -1"),
        (Eager, "predict does not follow decision_function"),
        (Upside, "a more abnormal row has a higher p-value"),
    ],
    ids=[check.__name__ for check in DETECTOR_CHECKS],
)
def test_each_check_of_detectors_can_fail(broken, message, request):
    check = DETECTOR_CHECKS[[check.__name__ in request.node.name for check in DETECTOR_CHECKS].index(True)]
    with pytest.raises(AssertionError, match=message):
        check(broken(method="one_step", n_folds=1, **TINY))


class Absorbing(DistilledFlowMap):
    def _fitted_teacher(self, X, y, sample_weight, conditions):
        return self.estimator.fit(X, y)


class Refitting(DistilledFlowMap):
    def _fitted_teacher(self, X, y, sample_weight, conditions):
        return clone(self.estimator).fit(X, y)


class Deaf(DistilledFlowMap):
    def sample(self, n_samples=1, y=None, random_state=None, *, n_steps=None, **options):
        states = options.get("return_trajectory", False)
        return super().sample(n_samples, y, random_state, n_steps=n_steps if states else None, **options)


class Restless(DistilledFlowMap):
    def sample(self, n_samples=1, y=None, random_state=None, *, n_steps=None, **options):
        return super().sample(n_samples, y, [random_state, n_steps or 1][-1], n_steps=n_steps, **options)


@pytest.mark.parametrize(
    ("check", "broken", "message"),
    [
        (check_teacher_is_left_alone, Absorbing, "the given teacher was fitted instead of a clone"),
        (check_teacher_is_left_alone, Refitting, "a fitted teacher was fitted anew"),
        (check_any_number_of_steps_works, Deaf, "n_steps of the call has no effect"),
        (check_any_number_of_steps_works, Restless, "2 steps started from other noise"),
    ],
    ids=["Absorbing", "Refitting", "Deaf", "Restless"],
)
def test_each_check_of_students_can_fail(check, broken, message):
    with pytest.raises(AssertionError, match=message):
        check(broken(FlowMatchingGenerator(**TINY), max_iter=3, n_pairs=50))


class Trembling(ConditionalForecaster):
    def fit(self, X, y=None):
        return super().fit(X + 1e-3 * np.random.default_rng().normal(size=np.shape(X)), y)


class Moody(ConditionalForecaster):
    def predict(self, X, *, future=None):
        return super().predict(X, future=future) + np.random.default_rng().normal()


class Meddling(ConditionalForecaster):
    def crps(self, X, y=None):
        return super().crps(X, y) + np.random.rand()


class Patching(ConditionalForecaster):
    def fit(self, X, y=None):
        return super().fit(np.nan_to_num(X, posinf=0.0), y)


class Oblivious(ConditionalForecaster):
    def __getstate__(self):
        state = super().__getstate__()
        return {**state, "n_samples": 5} if "fitted_" in state else state


class Sociable(ConditionalForecaster):
    def predict(self, X, *, future=None):
        found = super().predict(X, future=future)
        return found - found.mean(axis=0)


class Crossing(ConditionalForecaster):
    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95), *, future=None):
        return super().predict_quantiles(X, quantiles, future=future)[::-1]


class Sleeping(ConditionalForecaster):
    def rollout(self, X, n_steps, n_samples=1, random_state=None, *, future=None):
        states = super().rollout(X, n_steps, n_samples, random_state, future=future)
        states[:, :, 1:] = states[:, :, 1:].mean(axis=0)
        return states


@pytest.mark.parametrize(
    ("check", "broken", "message"),
    [
        *zip(
            FORECASTER_CHECKS,
            (Trembling, Moody, Meddling, Patching, Oblivious, Sociable, Crossing, Sleeping),
            (
                "two fits with one random_state differ",
                "predict gave other forecasts",
                "numpy's global random state changed",
                "bad trajectories were accepted",
                "pickle: predictions differ",
                "forecasts depend on the contexts beside",
                "quantiles cross",
                "members of a rollout are equal",
            ),
            strict=True,
        )
    ],
    ids=[check.__name__ for check in FORECASTER_CHECKS],
)
def test_each_check_of_forecasters_can_fail(check, broken, message):
    with pytest.raises(AssertionError, match=message):
        check(broken(n_samples=4, **TINY))
