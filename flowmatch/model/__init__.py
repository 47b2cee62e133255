"""The fitted flow, and what can be asked of it: samples, densities, latent codes, missing entries."""

from flowmatch.model.blueprint import Blueprint, Correction, NetworkFactory
from flowmatch.model.codes import decode_codes, encode_rows, to_numpy
from flowmatch.model.conditions import (
    condition_pieces,
    conditions_in_their_container,
    known_conditions,
    require_conditions,
)
from flowmatch.model.density import CodeDensity, score_rows
from flowmatch.model.flow_model import (
    FittedSource,
    FlowMap,
    FlowModel,
    MissingValueModel,
    SamplingDefaults,
    VelocityField,
    feature_names,
)
from flowmatch.model.given import given_entries, missing_codes, require_masked_training
from flowmatch.model.integration import (
    SOLVERS,
    Integration,
    carry,
    check_guidance,
    check_solver,
    check_unconditional,
    choose_steps,
    coding_steps,
    sampling_steps,
)
from flowmatch.model.rows import (
    CodeSampler,
    Known,
    Select,
    draw_best_rows,
    draw_rows,
    draw_trajectories,
    impute_rows,
    sample_rows,
)
