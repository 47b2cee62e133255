"""Scikit-learn's battery and our own, over one list of configured instances."""

import warnings

import pytest
import sklearn
from sklearn.utils.estimator_checks import check_estimator

from flowmatch import MLP, FlowMatchingGenerator, TrainingOptions
from flowmatch.testing import GENERATOR_CHECKS, check_flow_generator

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
}
N_CHECKS = {(1, 9): 48}
"""How many checks scikit-learn of a version runs: fewer would mean that some were lost."""


@pytest.mark.parametrize("name", INSTANCES)
def test_scikit_learns_battery_passes_whole(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(INSTANCES[name], on_skip=None, on_fail=None)
    failed = [(r["check_name"], repr(r["exception"])[:300]) for r in results if r["status"] == "failed"]
    assert failed == []
    assert {r["status"] for r in results} <= {"passed", "skipped"}
    version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    assert len(results) == N_CHECKS.get(version, len(results))
    assert sum(r["status"] == "passed" for r in results) >= len(results) - 1


@pytest.mark.parametrize("name", INSTANCES)
@pytest.mark.parametrize("check", GENERATOR_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_pass(name, check):
    check(INSTANCES[name])


class Mine(FlowMatchingGenerator):
    """A user's subclass, with the parent's parameters."""


def test_our_checks_run_on_users_subclasses():
    assert len(check_flow_generator(Mine(**SMALL))) == len(GENERATOR_CHECKS)


def test_our_checks_can_fail():
    class Forgetful(FlowMatchingGenerator):
        def sample(self, n_samples=1, y=None, random_state=None, **options):
            return super().sample(n_samples, y, None, **options)

    with pytest.raises(AssertionError, match="the same seed gave other samples"):
        GENERATOR_CHECKS[0](Forgetful(**SMALL))
