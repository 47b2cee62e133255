"""Displays of samples, tables, training, anomalies and forecasts in scikit-learn's manner; plotting imports matplotlib.

They need ``pip install 'flowmatch[plot]'``.
"""

from flowmatch.plotting.anomalies import AnomalyDisplay
from flowmatch.plotting.anomaly_scores import AnomalyScoreDisplay
from flowmatch.plotting.calibration import PITDisplay, ReliabilityDisplay
from flowmatch.plotting.curves import TrainingCurveDisplay
from flowmatch.plotting.embeddings import EmbeddingDisplay
from flowmatch.plotting.few_steps import QualityDisplay
from flowmatch.plotting.forecasts import ForecastDisplay
from flowmatch.plotting.marginals import MarginalsDisplay
from flowmatch.plotting.pair_differences import PairDifferenceDisplay
from flowmatch.plotting.pictures import SampleGridDisplay
from flowmatch.plotting.signal_reports import SignalReportDisplay
from flowmatch.plotting.signals import SignalGridDisplay
from flowmatch.plotting.trajectories import TrajectoryDisplay

__all__ = [
    "AnomalyDisplay",
    "AnomalyScoreDisplay",
    "EmbeddingDisplay",
    "ForecastDisplay",
    "MarginalsDisplay",
    "PITDisplay",
    "PairDifferenceDisplay",
    "QualityDisplay",
    "ReliabilityDisplay",
    "SampleGridDisplay",
    "SignalGridDisplay",
    "SignalReportDisplay",
    "TrainingCurveDisplay",
    "TrajectoryDisplay",
]
