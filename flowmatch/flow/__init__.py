"""The mathematics of flow matching: paths, sources, couplings, times, solvers, likelihood, guidance.

Pure functions and small components; a velocity is any callable, and no network class is known here.
"""

from flowmatch.flow.couplings import COUPLINGS, Coupling, IndependentCoupling, OptimalTransportCoupling
from flowmatch.flow.guidance import guide
from flowmatch.flow.likelihood import (
    MOST_EXACT,
    LogLikelihood,
    divergence_probes,
    exact_divergence,
    hutchinson_divergence,
    log_likelihood,
    log_likelihood_terms,
    rademacher_probes,
)
from flowmatch.flow.paths import PATHS, CosinePath, LinearPath, Path, VariancePreservingPath, expand_time
from flowmatch.flow.solvers import ADAPTIVE, FIXED_STEP, Velocity, integrate, time_grid
from flowmatch.flow.sources import SOURCES, MatchedSource, NormalSource, Source, SparseSource
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
    "TIME_SAMPLERS",
    "CosinePath",
    "Coupling",
    "DataEmphasisTimes",
    "IndependentCoupling",
    "LinearPath",
    "LogLikelihood",
    "LogitNormalTimes",
    "MatchedSource",
    "NoiseEmphasisTimes",
    "NormalSource",
    "OptimalTransportCoupling",
    "Path",
    "Source",
    "SparseSource",
    "StratifiedTimes",
    "TimeSampler",
    "UShapedTimes",
    "UniformTimes",
    "VariancePreservingPath",
    "Velocity",
    "divergence_probes",
    "exact_divergence",
    "expand_time",
    "guide",
    "hutchinson_divergence",
    "integrate",
    "log_likelihood",
    "log_likelihood_terms",
    "rademacher_probes",
    "time_grid",
]
