"""Preprocessing: from the user's data to tensors and back, invertible and with log-Jacobians."""

from flowmatch.preprocessing.conditions import ConditionEncoder, LabelEncoder, NumberEncoder, fit_conditions
from flowmatch.preprocessing.containers import Container
from flowmatch.preprocessing.quantile import QuantileNormal
from flowmatch.preprocessing.samples import TRANSFORMS, SampleEncoder, TrainingCodes, choose_transform
from flowmatch.preprocessing.scaling import ColumnTransform, Identity, Log1pStandardize, MinMax, Standardize

__all__ = [
    "TRANSFORMS",
    "ColumnTransform",
    "ConditionEncoder",
    "Container",
    "Identity",
    "LabelEncoder",
    "Log1pStandardize",
    "MinMax",
    "NumberEncoder",
    "QuantileNormal",
    "SampleEncoder",
    "Standardize",
    "TrainingCodes",
    "choose_transform",
    "fit_conditions",
]
