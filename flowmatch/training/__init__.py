"""Training: the loop, its options, averaging, callbacks, monitoring and checkpoints."""

from flowmatch.training.callbacks import CallbackList, FitContext
from flowmatch.training.checkpoints import Checkpointer, fingerprint
from flowmatch.training.loop import NonFiniteTrainingError, TrainingPlan, TrainingRun, train
from flowmatch.training.monitoring import SampleMonitor, TensorBoardWriter
from flowmatch.training.options import TrainingOptions

__all__ = [
    "CallbackList",
    "Checkpointer",
    "FitContext",
    "NonFiniteTrainingError",
    "SampleMonitor",
    "TensorBoardWriter",
    "TrainingOptions",
    "TrainingPlan",
    "TrainingRun",
    "fingerprint",
    "train",
]
