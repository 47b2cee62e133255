"""What a specialist tunes about training, in one component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowmatch.core.checks import check_choice, check_count, check_flag, check_number, check_sequence, checked
from flowmatch.core.component import Component
from flowmatch.core.storable import NOT_STORED
from flowmatch.training.callbacks import check_callbacks
from flowmatch.training.phases import Phase, check_phases

PRECISIONS = ("float32", "bf16", "fp16")
SCHEDULES = ("cosine", "linear", "constant")


def _check_betas(name: str, value: Any) -> None:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers in [0, 1), got {value!r}.")
    check_sequence(name, value, check_number, 0.0, 1.0)


@dataclass(frozen=True)
class TrainingOptions(Component):
    """Settings of the training loop beyond `max_iter`, `batch_size` and `learning_rate`.

    Parameters
    ----------
    weight_decay : float, default=0.0
        Decoupled weight decay of AdamW (Loshchilov and Hutter, 2019).
    betas : tuple of two floats, default=(0.9, 0.99)
        Decay of AdamW's averages of the gradient and of its square.
    warmup : float, default=0.05
        Share of `max_iter` over which the learning rate rises linearly from 0.
    schedule : {"cosine", "linear", "constant"}, default="cosine"
        The learning rate after the warm-up: a half cosine down to 0 at `max_iter`; constant, then linearly down to 0
        over the last 40 % of the steps; or constant.
    gradient_clipping : float or None, default=1.0
        Largest norm of the gradient; longer ones are shortened to it.
    accumulation : int, default=1
        Batches whose gradients are averaged into one step. A step then sees ``accumulation * batch_size`` rows.
    ema_decay : float or None, default=0.99
        Decay of the exponential moving average of the weights, which is the network that users get. None hands out
        the last weights instead.
    ema_warmup : bool, default=True
        Start with a shorter memory: the decay is ``min(ema_decay, (1 + n) / (10 + n))`` after n steps.
    validation_fraction : float or None, default=None
        Share of the rows held out to measure ``history_["validation_loss"]``. None holds out 0.1 with early
        stopping and nothing without.
    early_stopping : bool, default=False
        Stop when the validation loss has not fallen for `patience` reports, and hand out the weights that were best.
        The loss is measured on a fixed bank of noise and times, so that two reports differ by the weights alone.
    patience : int, default=10
        Reports without an improvement before training stops.
    report_period : int or None, default=None
        Steps between two reports: entries of `history_`, validations, callbacks, looks for non-finite values. None
        makes about 100 of them.
    precision : {"float32", "bf16", "fp16"}, default="float32"
        "bf16" and "fp16" run the forward pass under `torch.autocast`; "fp16" also scales the loss. Weights stay
        float32.
    compile : bool, default=False
        Train through `torch.compile`, which pays for large networks and long fits.
    activation_checkpointing : bool, default=False
        Keep the activations between blocks of the network only, and compute those inside again in the backward pass
        (Chen et al., 2016): much less memory; the blocks' forward pass is made twice. The networks of flowmatch
        support it, and modules of yours that have an attribute ``activation_checkpointing``.
    phases : sequence of Phase, default=()
        Training in phases with losses, learning rates, conditions or window sizes of their own; see
        `flowmatch.training.Phase`.
    checkpoint_folder : path-like or None, default=None
        Where to keep a checkpoint of the running fit. A fit that finds the checkpoint of an interrupted run with the
        same data, parameters and start goes on from there, and ends bit-identical to a run that was not interrupted;
        one with others starts anew. Several fits may share a folder. The file is removed when its fit ends. A folder
        is one of this machine: files of models do not hold it.
    checkpoint_period : int, default=500
        Steps between two checkpoints.
    callbacks : sequence, default=()
        Objects with any hooks of the names that scikit-learn 1.9 gave them, ``setup``, ``on_fit_task_begin``,
        ``on_fit_task_end`` and ``teardown``, called as ``hook(estimator, context)`` with a
        `flowmatch.training.FitContext`. Training stops when ``on_fit_task_end`` returns True. Ready ones are
        `flowmatch.training.SampleMonitor` and `flowmatch.training.TensorBoardWriter`; scikit-learn's own, such as
        `sklearn.callback.ScoringMonitor`, read its fits' contexts and are refused.

    Examples
    --------
    >>> from flowmatch import FlowMatchingGenerator, TrainingOptions
    >>> generator = FlowMatchingGenerator(training=TrainingOptions(early_stopping=True, ema_decay=0.999))
    >>> generator.set_params(training__patience=20).training
    TrainingOptions(ema_decay=0.999, early_stopping=True, patience=20)
    """

    weight_decay: float = checked(0.0, check_number, 0.0)
    betas: tuple[float, float] = checked((0.9, 0.99), _check_betas)
    warmup: float = checked(0.05, check_number, 0.0, 1.0)
    schedule: str = checked("cosine", check_choice, SCHEDULES)
    gradient_clipping: float | None = checked(1.0, check_number, 0.0, open_low=True, optional=True)
    accumulation: int = checked(1, check_count)
    ema_decay: float | None = checked(0.99, check_number, 0.0, 1.0, optional=True)
    ema_warmup: bool = checked(True, check_flag)
    validation_fraction: float | None = checked(None, check_number, 0.0, 1.0)
    early_stopping: bool = checked(False, check_flag)
    patience: int = checked(10, check_count)
    report_period: int | None = checked(None, check_count)
    precision: str = checked("float32", check_choice, PRECISIONS)
    compile: bool = checked(False, check_flag)
    activation_checkpointing: bool = checked(False, check_flag)
    phases: Sequence[Phase] = checked((), check_phases)
    checkpoint_folder: str | Path | None = field(default=None, metadata=NOT_STORED)
    checkpoint_period: int = checked(500, check_count)
    callbacks: Sequence[Any] = checked((), check_callbacks)

    def validate(self) -> None:
        super().validate()
        if self.early_stopping and self.validation_fraction is not None:
            check_number("validation_fraction", self.validation_fraction, 0.0, 1.0, open_low=True)

    @property
    def held_out(self) -> float:
        """Share of the rows held out for validation."""
        if self.validation_fraction is not None:
            return self.validation_fraction
        return 0.1 if self.early_stopping else 0.0
