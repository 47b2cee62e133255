"""The training loop. It knows one callable, ``batch_loss(network, rows, generator)``, and nothing of flows."""

from __future__ import annotations

import bisect
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from flowmatch.core.randomness import GlobalDraws
from flowmatch.networks import draw_dropout_from
from flowmatch.training.averaging import AveragedWeights
from flowmatch.training.options import TrainingOptions
from flowmatch.training.phases import phase_ends
from flowmatch.training.rows import RowSampler

BatchLoss = Callable[[nn.Module, Tensor, torch.Generator | None], Tensor]
"""``(network, rows, generator) -> losses``: row numbers (B,) in, the loss of each row (B,) out."""

LINEAR_PART = 0.4
"""Share of the steps over which the "linear" schedule falls."""

HISTORY = ("step", "loss", "validation_loss", "gradient_norm", "learning_rate", "seconds")


class NonFiniteTrainingError(ValueError):
    """The loss or its gradient was infinite or not a number.

    Attributes
    ----------
    step : int
        The first step where that happened, counted from 1.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast to train, and on what.

    Parameters
    ----------
    batch_losses : sequence of callables
        See `BatchLoss`: one for each phase of the options, or a single one without phases.
    n_rows : int
        Rows to train on.
    max_iter, batch_size, learning_rate
        Optimiser steps, rows a batch, peak learning rate.
    options : TrainingOptions
    sample_weight : Tensor of shape (n_rows,), optional
        Rows are drawn in proportion to it, so that every loss and every coupling inside a batch sees the weighted
        data.
    validation_loss : callable ``network -> 0-d tensor``, optional
        Must give the same number for the same weights.
    validate_from : int
        The step before which it does not say which weights are best, and patience does not run out.
    data_device : torch.device
        Where row numbers are wanted.
    """

    batch_losses: Sequence[BatchLoss]
    n_rows: int
    max_iter: int
    batch_size: int
    learning_rate: float
    options: TrainingOptions
    sample_weight: Tensor | None = None
    validation_loss: Callable[[nn.Module], Tensor] | None = None
    validate_from: int = 0
    data_device: torch.device | str = "cpu"

    @property
    def report_period(self) -> int:
        """Steps between two reports."""
        return self.options.report_period or max(1, self.max_iter // 100)

    @cached_property
    def phase_ends(self) -> list[int]:
        """The step at which each phase is over."""
        return phase_ends(self.options.phases, self.max_iter)

    def batch_loss_at(self, step: int) -> BatchLoss:
        """The loss of the phase that `step`, counted from 0, belongs to."""
        return self.batch_losses[bisect.bisect_right(self.phase_ends[:-1], step)]


class TrainingRun:
    """One run of training: `advance` makes a step, `report` looks at what came of the last ones.

    Nothing in `advance` waits for the device. Sums of losses and norms stay there until the next report, which is
    also where a non-finite value is noticed; the weights of the last good report are kept for that case.

    Parameters
    ----------
    network : nn.Module
        Trained in place.
    plan : TrainingPlan
    noise : torch.Generator or None
        On the network's device, handed to the loss.
    shuffle : torch.Generator or None
        On the data's device, for the order of the rows.
    dropout : torch.Generator or None, default=None
        On the network's device, for the masks of `flowmatch.networks.Dropout`. Its seed also decides what other
        layers draw, which know no generator but torch's global ones: these are put back after every step. None takes
        the global generators as they are now.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: TrainingPlan,
        noise: torch.Generator | None,
        shuffle: torch.Generator | None,
        dropout: torch.Generator | None = None,
    ) -> None:
        options = plan.options
        self.network, self.plan, self.noise, self.dropout = network, plan, noise, dropout
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.forward: Any = _forward(network, self.device, options)
        self.average = AveragedWeights(network, options.ema_decay, options.ema_warmup)
        checkpoint_activations(network, options.activation_checkpointing)
        draw_dropout_from(dropout, network)
        self.global_draws = GlobalDraws(self.device, None if dropout is None else dropout.initial_seed() + 1)
        # torch's activation checkpoints and its compiler set the global generators themselves
        self.draws_globally = options.activation_checkpointing or options.compile
        self.look_for_global_draws = True
        fused = self.device.type in ("cpu", "cuda", "mps")
        self.optimizer = torch.optim.AdamW(
            self.parameters, plan.learning_rate, options.betas, weight_decay=options.weight_decay, fused=fused
        )
        self.scheduler = LambdaLR(self.optimizer, learning_rate_factor(options, plan.max_iter))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.rows = RowSampler(plan.n_rows, plan.batch_size, shuffle, plan.data_device, plan.sample_weight)
        self.step = 0
        self.seconds = 0.0
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.sums = torch.zeros(2, device=self.device)
        self.first_bad_step = torch.full((), math.inf, device=self.device)
        self.steps_since_report = 0
        self.good_weights = self.snapshot()
        self.best_weights: list[Tensor] | None = None
        self.best_loss = math.inf
        self.reports_since_best = 0
        self.memory: dict[str, Tensor] = {}
        """What callbacks want kept in checkpoints."""

    @property
    def diverged(self) -> bool:
        """Whether a step since the last report met something non-finite; waits for the device."""
        return math.isfinite(self.first_bad_step.item())

    @property
    def finished(self) -> bool:
        """Whether all steps are made or early stopping has called."""
        return self.step >= self.plan.max_iter or (
            self.plan.options.early_stopping and self.reports_since_best >= self.plan.options.patience
        )

    def advance(self) -> None:
        """One optimiser step."""
        with self._own_global_draws():
            self._step()

    def _step(self) -> None:
        options = self.plan.options
        total = torch.zeros((), device=self.device)
        for _ in range(options.accumulation):
            loss = self._mean_loss(self.rows.draw()) / options.accumulation
            self.scaler.scale(loss).backward()
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, options.gradient_clipping or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update()
        self.step += 1
        self.steps_since_report += 1
        self._watch(total, norm)

    def report(self) -> dict[str, float]:
        """Fetch the sums since the last report, validate, and append to the history.

        Raises
        ------
        NonFiniteTrainingError
            If any step since the last report met a non-finite loss or gradient. `restore_good_weights` undoes them.
        """
        bad = self.first_bad_step.item()
        if math.isfinite(bad):
            raise NonFiniteTrainingError(f"the loss or its gradient became non-finite at step {int(bad)}", int(bad))
        loss, norm = (self.sums / max(1, self.steps_since_report)).tolist()
        self.sums.zero_()
        self.steps_since_report = 0
        self._copy_average_into(self.good_weights)
        entry = {
            "step": self.step,
            "loss": loss,
            "validation_loss": self._validate(),
            "gradient_norm": norm,
            "learning_rate": self.plan.learning_rate * self.scheduler.lr_lambdas[0](max(0, self.step - 1)),
            "seconds": self.seconds,
        }
        for name, value in entry.items():
            self.history[name].append(value)
        self.look_for_global_draws = True
        return entry

    def record(self, entry: dict[str, float]) -> None:
        """Take what callbacks added to the newest entry into the history, NaN where a report lacks it."""
        earlier = len(self.history["step"]) - 1
        for name in entry.keys() - self.history.keys():
            self.history[name] = [math.nan] * earlier
        for name in self.history.keys() - set(HISTORY):
            self.history[name].append(float(entry.get(name, math.nan)))

    def finish(self) -> nn.Module:
        """The averaged network, with its best weights if early stopping kept any."""
        if self.plan.options.early_stopping and self.best_weights is not None:
            self.load_weights(self.best_weights)
        return self.averaged_network

    @property
    def averaged_network(self) -> nn.Module:
        """The network that users get, updated in place while training goes on."""
        return self.average.module

    def snapshot(self) -> list[Tensor]:
        """A copy of the averaged weights."""
        return [value.detach().clone() for value in self._averaged_tensors()]

    def load_weights(self, weights: list[Tensor]) -> None:
        """Set the averaged weights."""
        with torch.no_grad():
            torch._foreach_copy_(self._averaged_tensors(), weights)

    def restore_good_weights(self) -> nn.Module:
        """The averaged network as it was at the last report that found everything finite."""
        self.load_weights(self.good_weights)
        return self.averaged_network

    @contextlib.contextmanager
    def _own_global_draws(self) -> Iterator[None]:
        """A state of the global generators of the run's own around all steps, if any layer draws from them.

        Whether one does is seen from the first step after every report. Other runs wait during such a step, and need
        not wait for steps of networks that draw from their own generators alone.
        """
        if not (self.draws_globally or self.look_for_global_draws):
            yield
            return
        before = self.global_draws.state
        with self.global_draws.in_place():
            yield
        self.look_for_global_draws = False
        self.draws_globally |= not all(map(torch.equal, before, self.global_draws.state))

    def _mean_loss(self, rows: Tensor) -> Tensor:
        return self.plan.batch_loss_at(self.step)(self.forward, rows, self.noise).float().mean()

    def _watch(self, loss: Tensor, norm: Tensor) -> None:
        """Add to the sums and remember the first bad step, all on the device."""
        self.sums += torch.stack([loss, norm])
        # loss scaling meets infinite gradients by design and skips those steps itself
        suspect = loss if self.plan.options.precision == "fp16" else loss + norm
        here = torch.where(torch.isfinite(suspect), math.inf, float(self.step))
        self.first_bad_step = torch.minimum(self.first_bad_step, here)

    def _validate(self) -> float:
        if self.plan.validation_loss is None:
            return math.nan
        with torch.no_grad(), self._own_global_draws():
            loss = float(self.plan.validation_loss(self.averaged_network))
        if self.step < self.plan.validate_from:
            return loss
        if loss < self.best_loss:
            self.best_loss, self.reports_since_best = loss, 0
            self.best_weights = self.snapshot()
        else:
            self.reports_since_best += 1
        return loss

    def _copy_average_into(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(weights, self._averaged_tensors())

    def _averaged_tensors(self) -> list[Tensor]:
        return [*self.averaged_network.parameters(), *self.averaged_network.buffers()]


def train(
    run: TrainingRun,
    *,
    on_report: Callable[[dict[str, float]], bool] | None = None,
    on_step: Callable[[TrainingRun], None] | None = None,
    verbose: bool = False,
    description: str | None = None,
) -> nn.Module:
    """Carry a run to its end and return the averaged network.

    Parameters
    ----------
    run : TrainingRun
    on_report : callable, optional
        Called with each new entry of the history; training stops when it returns True.
    on_step : callable, optional
        Called with the run after every step (checkpoints).
    verbose : bool, default=False
        Show a tqdm bar with loss and learning rate.
    description : str, optional
        What is trained, such as "flow 2 of 5": stands before the bar.

    Raises
    ------
    NonFiniteTrainingError
        See `TrainingRun.report`.
    """
    period = run.plan.report_period
    started = time.perf_counter() - run.seconds
    run.network.train()
    with _progress(run, verbose, description) as show:
        while not run.finished:
            run.advance()
            stop = False
            if run.step % period == 0 or run.step == run.plan.max_iter:
                run.seconds = time.perf_counter() - started
                entry = run.report()
                show(entry)
                stop = on_report is not None and on_report(entry)
                run.record(entry)
            if on_step is not None:
                on_step(run)
            if stop:
                break
    return run.finish()


def learning_rate_factor(options: TrainingOptions, max_iter: int) -> Callable[[int], float]:
    """Factor of the peak learning rate for each step: linear warm-up, then the schedule, times the phase's factor."""
    warmup = round(options.warmup * max_iter)
    ends = phase_ends(options.phases, max_iter)[:-1]
    rates = [phase.learning_rate for phase in options.phases] or [1.0]

    def factor(step: int) -> float:
        return scheduled(step) * rates[bisect.bisect_right(ends, step)]

    def scheduled(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if options.schedule == "constant":
            return 1.0
        if options.schedule == "linear":
            return min(1.0, (max_iter - step) / (LINEAR_PART * max_iter))
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, max_iter - warmup)))

    return factor


def checkpoint_activations(network: nn.Module, wanted: bool) -> None:
    """Tell a network's modules whether to recompute activations in the backward pass.

    Raises
    ------
    ValueError
        If that is wanted and none of them can.
    """
    able = [module for module in network.modules() if hasattr(module, "activation_checkpointing")]
    if wanted and not able:
        inner = getattr(network, "network", network)  # what the user gave, not what it was put into
        raise ValueError(
            f"activation_checkpointing=True, but {type(inner).__name__} cannot do it: use a network of flowmatch, or "
            "give a module of yours the attribute `activation_checkpointing` and let it act on it."
        )
    for module in able:
        setattr(module, "activation_checkpointing", wanted)  # noqa: B010 (modules declare their attributes as tensors)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of a precision; none for float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def _forward(network: nn.Module, device: torch.device, options: TrainingOptions) -> Any:
    """The network, compiled and under autocast if asked for; couplings and losses around it keep full precision."""
    if options.precision == "float32" and not options.compile:
        return network
    compiled = torch.compile(network) if options.compile else network

    def forward(*arguments: Any, **named: Any) -> Tensor:
        with autocast(device, options.precision):
            return compiled(*arguments, **named)

    forward.__name__ = type(network).__name__  # for messages
    return forward


@contextlib.contextmanager
def _progress(run: TrainingRun, verbose: bool, description: str | None) -> Iterator[Callable[[dict[str, float]], None]]:
    """A function that shows an entry of the history, on a bar of the terminal's or the notebook's."""
    if not verbose:
        yield lambda entry: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=run.plan.max_iter, initial=run.step, desc=description, unit="step") as bar:

        def show(entry: dict[str, float]) -> None:
            bar.set_postfix(loss=f"{entry['loss']:.4g}", rate=f"{entry['learning_rate']:.2g}", refresh=False)
            bar.update(run.step - bar.n)

        yield show
