"""The mathematics of flow matching: paths, sources, couplings, times, solvers, likelihood, guidance.

Pure functions and small components; a velocity is any callable, and no network class is known here.
"""

from flowmatch.flow.couplings import COUPLINGS, Coupling, IndependentCoupling, OptimalTransportCoupling
from flowmatch.flow.flow_maps import AverageVelocity, follow, jump, jump_grid
from flowmatch.flow.guidance import guide, guided_velocity
from flowmatch.flow.likelihood import (
    MOST_EXACT,
    Divergence,
    LogLikelihood,
    divergence_probes,
    exact_divergence,
    hutchinson_divergence,
    log_likelihood,
    log_likelihood_terms,
    rademacher_probes,
)
from flowmatch.flow.paths import PATHS, CosinePath, LinearPath, Path, VariancePreservingPath, expand_time
from flowmatch.flow.solvers import ADAPTIVE, FIXED_STEP, Velocity, integrate, n_evaluations, time_grid
from flowmatch.flow.sources import SOURCES, MatchedSource, NormalSource, Source, SparseSource
from flowmatch.flow.steps import (
    STEP_SAMPLERS,
    BetaSteps,
    DyadicSteps,
    FixedSteps,
    LogitNormalSteps,
    StepSampler,
    UniformSteps,
)
from flowmatch.flow.times import (
    TIME_SAMPLERS,
    DataEmphasisTimes,
    LogitNormalTimes,
    NoiseEmphasisTimes,
    StratifiedTimes,
    TimeSampler,
    UniformTimes,
    UShapedTimes,
)

__all__ = [
    "ADAPTIVE",
    "COUPLINGS",
    "FIXED_STEP",
    "MOST_EXACT",
    "PATHS",
    "SOURCES",
    "STEP_SAMPLERS",
    "TIME_SAMPLERS",
    "AverageVelocity",
    "BetaSteps",
    "CosinePath",
    "Coupling",
    "DataEmphasisTimes",
    "Divergence",
    "DyadicSteps",
    "FixedSteps",
    "IndependentCoupling",
    "LinearPath",
    "LogLikelihood",
    "LogitNormalSteps",
    "LogitNormalTimes",
    "MatchedSource",
    "NoiseEmphasisTimes",
    "NormalSource",
    "OptimalTransportCoupling",
    "Path",
    "Source",
    "SparseSource",
    "StepSampler",
    "StratifiedTimes",
    "TimeSampler",
    "UShapedTimes",
    "UniformSteps",
    "UniformTimes",
    "VariancePreservingPath",
    "Velocity",
    "divergence_probes",
    "exact_divergence",
    "expand_time",
    "follow",
    "guide",
    "guided_velocity",
    "hutchinson_divergence",
    "integrate",
    "jump",
    "jump_grid",
    "log_likelihood",
    "log_likelihood_terms",
    "n_evaluations",
    "rademacher_probes",
    "time_grid",
]
