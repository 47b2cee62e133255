"""flowmatch: flow matching in scikit-learn's manners.

``FlowMatchingGenerator().fit(X).sample(1000)`` learns a distribution and draws from it.
"""

import importlib
from typing import Any

from flowmatch import anomaly, flow, metrics, networks, objectives, preprocessing, training
from flowmatch.augmentation import AugmentedClassifier, AugmentedRegressor
from flowmatch.core.version import __version__
from flowmatch.detector import FlowAnomalyDetector
from flowmatch.distilled import DistilledFlowMap
from flowmatch.forecaster import ConditionalForecaster
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.imputation import FlowImputer
from flowmatch.networks import MLP
from flowmatch.persistence import load
from flowmatch.resampling import FlowMatchingOverSampler
from flowmatch.training import NonFiniteTrainingError, TrainingOptions

__all__ = [
    "MLP",
    "AugmentedClassifier",
    "AugmentedRegressor",
    "ConditionalForecaster",
    "DistilledFlowMap",
    "FlowAnomalyDetector",
    "FlowImputer",
    "FlowMatchingGenerator",
    "FlowMatchingOverSampler",
    "NonFiniteTrainingError",
    "TrainingOptions",
    "__version__",
    "anomaly",
    "datasets",
    "flow",
    "load",
    "metrics",
    "networks",
    "objectives",
    "preprocessing",
    "training",
]

_LATER = ("datasets", "export", "plotting", "testing")
"""Rooms that are imported when they are first asked for."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
