"""Anomaly scores of a fitted flow, their combination, and their calibration on held-out rows."""

from flowmatch.anomaly.calibration import Calibration
from flowmatch.anomaly.combined import Combined
from flowmatch.anomaly.field import FlowField
from flowmatch.anomaly.gaps import Gaps
from flowmatch.anomaly.neighbors import Neighbors
from flowmatch.anomaly.scores import Denoising, Latent, Likelihood, OneStep, Rebuilding, Reconstruction, Score, State

SCORES: dict[str, type[Score]] = {
    "combined": Combined,
    "one_step": OneStep,
    "latent": Latent,
    "likelihood": Likelihood,
    "neighbors": Neighbors,
    "denoising": Denoising,
    "rebuilding": Rebuilding,
    "reconstruction": Reconstruction,
}

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
