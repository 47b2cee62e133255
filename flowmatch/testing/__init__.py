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

from typing import Any

from flowmatch.testing.detectors import DETECTOR_CHECKS
from flowmatch.testing.forecasters import FORECASTER_CHECKS
from flowmatch.testing.generators import GENERATOR_CHECKS
from flowmatch.testing.helpers import run
from flowmatch.testing.students import DISTILLED_CHECKS

__all__ = ["check_distilled_flow_map", "check_flow_detector", "check_flow_generator", "check_forecaster"]


def check_flow_generator(estimator: Any) -> list[str]:
    """Run all generator checks on an estimator and return their names.

    Parameters
    ----------
    estimator : FlowMatchingGenerator or an object like it
        Unfitted, set up to train for a few steps.

    Returns
    -------
    list of str
        In the order in which they ran.
    """
    return run(GENERATOR_CHECKS, estimator)


def check_forecaster(estimator: Any) -> list[str]:
    """Run all forecaster checks on an estimator and return their names.

    Parameters
    ----------
    estimator : ConditionalForecaster, or an object like it such as a student of one
        Unfitted, set up to train for a few steps, on windows of at most 20 states of series of two variables.

    Returns
    -------
    list of str
        In the order in which they ran.
    """
    return run(FORECASTER_CHECKS, estimator)


def check_flow_detector(estimator: Any) -> list[str]:
    """Run all detector checks on an estimator and return their names.

    Parameters
    ----------
    estimator : FlowAnomalyDetector or an object like it
        Unfitted, set up to train for a few steps.

    Returns
    -------
    list of str
        In the order in which they ran.
    """
    return run(DETECTOR_CHECKS, estimator)


def check_distilled_flow_map(estimator: Any) -> list[str]:
    """Run all checks of distilled students on an estimator and return their names.

    Parameters
    ----------
    estimator : DistilledFlowMap or an object like it
        Around an unfitted teacher, both set up to train for a few steps.

    Returns
    -------
    list of str
        In the order in which they ran.
    """
    return run(DISTILLED_CHECKS, estimator)
