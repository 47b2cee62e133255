"""The fitted flow, and what can be asked of it: samples, densities, latent codes, missing entries."""

from flowmatch.model.blueprint import Blueprint, Correction, NetworkFactory
from flowmatch.model.codes import decode_codes, encode_rows, to_numpy
from flowmatch.model.conditions import condition_pieces, conditions_in_their_container, require_conditions
from flowmatch.model.density import ATOM, CodeDensity, score_rows
from flowmatch.model.flow_model import (
    FittedSource,
    FlowMap,
    FlowModel,
    MissingValueModel,
    SamplingDefaults,
    VelocityField,
    feature_names,
)
from flowmatch.model.given import require_masked_training, require_table
from flowmatch.model.integration import (
    Integration,
    carry,
    check_guidance,
    check_solver,
    check_unconditional,
    choose_steps,
    coding_steps,
    gives_finite_samples,
    sampling_steps,
    split_alike,
)
from flowmatch.model.keys import with_keys, without_dropped
from flowmatch.model.rows import CodeSampler, Select, impute_rows, sample_rows
