"""flowmatch: flow matching in scikit-learn's manners.

``FlowMatchingGenerator().fit(X).sample(1000)`` learns a distribution and draws from it.
"""

# from flowmatch import anomaly, datasets, flow, metrics, networks, objectives, preprocessing, training
from flowmatch.augmentation import AugmentedClassifier, AugmentedRegressor
from flowmatch.core.version import __version__

# from flowmatch.detector import FlowAnomalyDetector
# from flowmatch.distilled import DistilledFlowMap
# from flowmatch.forecaster import ConditionalForecaster
from flowmatch.generator import FlowMatchingGenerator
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
