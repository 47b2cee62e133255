"""Anomaly scores of a fitted flow, their combination, and their calibration on held-out rows."""

from flowmatch.anomaly.calibration import Calibration
from flowmatch.anomaly.combined import Combined
from flowmatch.anomaly.field import FlowField
from flowmatch.anomaly.fit_detector import fit_and_keep as fit_and_keep
from flowmatch.anomaly.fit_detector import fit_detector as fit_detector
from flowmatch.anomaly.fit_detector import warn_of_few_held_out as warn_of_few_held_out
from flowmatch.anomaly.fitted import FittedDetector as FittedDetector
from flowmatch.anomaly.gaps import Gaps
from flowmatch.anomaly.members import Member as Member
from flowmatch.anomaly.neighbors import Neighbors
from flowmatch.anomaly.scores import Denoising, Latent, Likelihood, OneStep, Rebuilding, Reconstruction, Score, State
from flowmatch.anomaly.settings import SCORES
from flowmatch.anomaly.settings import DetectorSettings as DetectorSettings
from flowmatch.anomaly.settings import check_rate as check_rate
from flowmatch.anomaly.settings import resolve_detector as resolve_detector
from flowmatch.anomaly.settings import takes_old_names as takes_old_names
from flowmatch.anomaly.settings import with_new_names as with_new_names

__all__ = [
    "SCORES",
    "Calibration",
    "Combined",
    "Denoising",
    "FlowField",
    "Gaps",
    "Latent",
    "Likelihood",
    "Neighbors",
    "OneStep",
    "Rebuilding",
    "Reconstruction",
    "Score",
    "State",
]
