"""What a specialist tunes about training, in one component."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowmatch._component import Component, unknown_option

PRECISIONS = ("float32", "bf16", "fp16")
SCHEDULES = ("cosine", "linear", "constant")


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
    checkpoint_folder : path-like or None, default=None
        Where to keep a checkpoint of the running fit. A fit that finds the checkpoint of an interrupted run with the
        same data and parameters goes on from there, and ends bit-identical to a run that was not interrupted. The
        file is removed when the fit completes.
    checkpoint_period : int, default=500
        Steps between two checkpoints.
    callbacks : sequence, default=()
        Objects with any of scikit-learn's callback hooks ``setup``, ``on_fit_task_begin``, ``on_fit_task_end`` and
        ``teardown``, called as ``hook(estimator, context)``; see `flowmatch.training.FitContext`. Training stops
        when ``on_fit_task_end`` returns True.
    """

    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: float = 0.05
    schedule: str = "cosine"
    gradient_clipping: float | None = 1.0
    accumulation: int = 1
    ema_decay: float | None = 0.99
    ema_warmup: bool = True
    validation_fraction: float | None = None
    early_stopping: bool = False
    patience: int = 10
    report_period: int | None = None
    precision: str = "float32"
    compile: bool = False
    checkpoint_folder: str | Path | None = None
    checkpoint_period: int = 500
    callbacks: Sequence[Any] = ()

    def validate(self) -> None:
        """Raise a ValueError that names the first option out of its range."""
        if self.schedule not in SCHEDULES:
            raise unknown_option("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown_option("precision", self.precision, PRECISIONS)
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "a number >= 0")
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "betas",
            self.betas,
            "two numbers in [0, 1)",
        )
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "a share of the steps in [0, 1)")
        for name in ("accumulation", "patience", "checkpoint_period"):
            value = getattr(self, name)
            _require(_is_count(value), name, value, "an integer >= 1")
        _require(
            self.report_period is None or _is_count(self.report_period),
            "report_period",
            self.report_period,
            "None or an integer >= 1",
        )
        _require(
            self.gradient_clipping is None or self.gradient_clipping > 0,
            "gradient_clipping",
            self.gradient_clipping,
            "None or a number > 0",
        )
        _require(
            self.ema_decay is None or 0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "None or a number in [0, 1)"
        )
        _require(
            self.validation_fraction is None or 0 <= self.validation_fraction < 1,
            "validation_fraction",
            self.validation_fraction,
            "None or a share in [0, 1)",
        )
        _require(
            not (self.early_stopping and self.validation_fraction == 0),
            "validation_fraction",
            0,
            "above 0 with early_stopping=True",
        )

    @property
    def held_out(self) -> float:
        """Share of the rows held out for validation."""
        if self.validation_fraction is not None:
            return self.validation_fraction
        return 0.1 if self.early_stopping else 0.0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ValueError(f"training option {name} must be {expected}, got {value!r}.")
