"""Distances between generated and real samples, and scores of forecasts, each with a report of all of them.

Measures of samples take numeric array-likes, tensors or DataFrames, (n, d) or (n, ...), and return floats. A value
means little alone: compare it with its floor, the same measure between two sets of real rows, as `report` does.
`report` also takes tables of mixed columns with missing entries, and adds measures of privacy and of downstream use.
`straightness` measures the paths of samples.

Measures of forecasts take the truth first, ``y_true`` of shape (n, ...), then an ensemble of shape (n_samples, n, ...),
members first; rollouts have their lead times in axis 1 of ``y_true``, and ``per_lead=True`` returns a value for each.
`forecast_report` puts these measures together.

Measures of signals are in `flowmatch.metrics.signals`; `signal_report` puts them together.
"""

from flowmatch.metrics import signals
from flowmatch.metrics.calibration import SpreadSkill, interval_coverage, pit_histogram, pit_values, spread_skill
from flowmatch.metrics.copies import CopyCheck, copy_check
from flowmatch.metrics.energy import energy_distance, energy_score, ensemble_energy_distance
from flowmatch.metrics.fidelity import PRDC, precision_recall_density_coverage
from flowmatch.metrics.forecast_report import ForecastReport, forecast_report
from flowmatch.metrics.forecasts import crps, nrmse, pinball_loss, skill_score
from flowmatch.metrics.frechet import frechet_distance
from flowmatch.metrics.membership import MembershipAttack, membership_attack
from flowmatch.metrics.sample_report import SampleReport, report
from flowmatch.metrics.signals import SignalReport, signal_report
from flowmatch.metrics.spectra import (
    correlation_time,
    high_wavenumber_ratio,
    pattern_correlation,
    spectrum,
    spectrum_error,
)
from flowmatch.metrics.straightness import straightness
from flowmatch.metrics.transport import sliced_wasserstein, wasserstein
from flowmatch.metrics.two_sample import classifier_two_sample_test

__all__ = [
    "PRDC",
    "CopyCheck",
    "ForecastReport",
    "MembershipAttack",
    "SampleReport",
    "SignalReport",
    "SpreadSkill",
    "classifier_two_sample_test",
    "copy_check",
    "correlation_time",
    "crps",
    "energy_distance",
    "energy_score",
    "ensemble_energy_distance",
    "forecast_report",
    "frechet_distance",
    "high_wavenumber_ratio",
    "interval_coverage",
    "membership_attack",
    "nrmse",
    "pattern_correlation",
    "pinball_loss",
    "pit_histogram",
    "pit_values",
    "precision_recall_density_coverage",
    "report",
    "signal_report",
    "signals",
    "skill_score",
    "sliced_wasserstein",
    "spectrum",
    "spectrum_error",
    "spread_skill",
    "straightness",
    "wasserstein",
]
