"""Preprocessing: from the user's data to tensors and back, invertible and with log-Jacobians."""

from flowmatch.preprocessing.condition_kinds import fit_conditions, plain_conditions
from flowmatch.preprocessing.conditions import ConditionEncoder, Conditions, LabelEncoder, NumberEncoder
from flowmatch.preprocessing.containers import Container
from flowmatch.preprocessing.grid_conditions import GridEncoder
from flowmatch.preprocessing.mixed_conditions import MixedEncoder
from flowmatch.preprocessing.quantile import QuantileNormal
from flowmatch.preprocessing.rows import RowSummary, SampleRows, as_numpy
from flowmatch.preprocessing.samples import (
    FITTED_NUMBERS,
    TRANSFORMS,
    SampleEncoder,
    StoredCodes,
    TrainingCodes,
    choose_transform,
)
from flowmatch.preprocessing.scaling import ColumnTransform, Identity, Log1pStandardize, MinMax, Standardize

__all__ = [
    "FITTED_NUMBERS",
    "TRANSFORMS",
    "ColumnTransform",
    "ConditionEncoder",
    "Conditions",
    "Container",
    "GridEncoder",
    "Identity",
    "LabelEncoder",
    "Log1pStandardize",
    "MinMax",
    "MixedEncoder",
    "NumberEncoder",
    "QuantileNormal",
    "RowSummary",
    "SampleEncoder",
    "SampleRows",
    "Standardize",
    "StoredCodes",
    "TrainingCodes",
    "as_numpy",
    "choose_transform",
    "fit_conditions",
    "plain_conditions",
]
