"""Training: the loop, its options, averaging, callbacks, monitoring and checkpoints."""

from flowmatch.training.budgets import FEWEST_STEPS, TimeBudget
from flowmatch.training.callbacks import CallbackList, FitContext
from flowmatch.training.checkpoints import Checkpointer, fingerprint, make_checkpointer
from flowmatch.training.loop import NonFiniteTrainingError, TrainingRun, train
from flowmatch.training.monitoring import SampleMonitor, TensorBoardWriter
from flowmatch.training.options import TrainingOptions
from flowmatch.training.phases import Phase
from flowmatch.training.plans import TrainingPlan

__all__ = [
    "FEWEST_STEPS",
    "CallbackList",
    "Checkpointer",
    "FitContext",
    "NonFiniteTrainingError",
    "Phase",
    "SampleMonitor",
    "TensorBoardWriter",
    "TimeBudget",
    "TrainingOptions",
    "TrainingPlan",
    "TrainingRun",
    "fingerprint",
    "make_checkpointer",
    "train",
]
