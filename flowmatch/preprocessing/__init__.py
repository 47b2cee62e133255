"""Preprocessing: from the user's data to tensors and back, invertible and with log-Jacobians."""

from flowmatch.constraints.sets import ConstraintSet
from flowmatch.constraints.stated import Constraint, FixedCombinations, Formula, Inequality, Unique
from flowmatch.preprocessing.calendar import CYCLES, HARMONICS, calendar_features, find_cycles
from flowmatch.preprocessing.categories import CategoryCodes
from flowmatch.preprocessing.column_conditions import MixedEncoder, NumberEncoder
from flowmatch.preprocessing.condition_choice import fit_conditions, plain_conditions
from flowmatch.preprocessing.conditions import ConditionEncoder, Conditions, LabelEncoder, spread_sample
from flowmatch.preprocessing.factors import FactorModel
from flowmatch.preprocessing.grid_conditions import GridEncoder
from flowmatch.preprocessing.missing import MissingPatterns, fill_table, missing_in
from flowmatch.preprocessing.quantile import SPIKE_SHARE, QuantileNormal
from flowmatch.preprocessing.samples import FITTED_ELEMENTS, TRANSFORMS, SampleEncoder, choose_transform
from flowmatch.preprocessing.scaling import ColumnTransform, Identity, Log1pStandardize, MinMax, Standardize
from flowmatch.preprocessing.signal_calibration import ClassCalibrations, SignalCalibration
from flowmatch.preprocessing.spacing import NUMBERS, Spacing, clock_of, learn_spacing
from flowmatch.preprocessing.table_numbers import TableNumbers
from flowmatch.preprocessing.target_rules import CertainSpikes, TargetRules, certain_from, spikes_of
from flowmatch.preprocessing.training_codes import StoredCodes, TrainingCodes
from flowmatch.preprocessing.trajectories import (
    Trajectories,
    as_times,
    find_boundaries,
    instants_of,
    parts_of,
    read_trajectories,
)
from flowmatch.preprocessing.window_encoder import WindowEncoder
from flowmatch.preprocessing.window_scale import WindowScale, column_scale, sizes_of
from flowmatch.preprocessing.windows import Windows
from flowmatch.tables.containers import Container
from flowmatch.tables.frames import native_frame
from flowmatch.tables.keys import KeyForm
from flowmatch.tables.readable import as_numpy, as_plain, check_readable
from flowmatch.tables.rows import SampleRows
from flowmatch.tables.table import TableContainer

__all__ = [
    "CYCLES",
    "FITTED_ELEMENTS",
    "HARMONICS",
    "NUMBERS",
    "SPIKE_SHARE",
    "TRANSFORMS",
    "CategoryCodes",
    "CertainSpikes",
    "ClassCalibrations",
    "ColumnTransform",
    "ConditionEncoder",
    "Conditions",
    "Constraint",
    "ConstraintSet",
    "Container",
    "FactorModel",
    "FixedCombinations",
    "Formula",
    "GridEncoder",
    "Identity",
    "Inequality",
    "KeyForm",
    "LabelEncoder",
    "Log1pStandardize",
    "MinMax",
    "MissingPatterns",
    "MixedEncoder",
    "NumberEncoder",
    "QuantileNormal",
    "SampleEncoder",
    "SampleRows",
    "SignalCalibration",
    "Spacing",
    "Standardize",
    "StoredCodes",
    "TableContainer",
    "TableNumbers",
    "TargetRules",
    "TrainingCodes",
    "Trajectories",
    "Unique",
    "WindowEncoder",
    "WindowScale",
    "Windows",
    "as_numpy",
    "as_plain",
    "as_times",
    "calendar_features",
    "certain_from",
    "check_readable",
    "choose_transform",
    "clock_of",
    "column_scale",
    "fill_table",
    "find_boundaries",
    "find_cycles",
    "fit_conditions",
    "instants_of",
    "learn_spacing",
    "missing_in",
    "native_frame",
    "parts_of",
    "plain_conditions",
    "read_trajectories",
    "sizes_of",
    "spikes_of",
    "spread_sample",
]
