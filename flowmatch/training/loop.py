"""The training loop. It knows one callable, ``batch_loss(network, rows, generator)``, and nothing of flows."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from flowmatch.core.randomness import GlobalDraws
from flowmatch.core.types import Rng
from flowmatch.networks import draw_dropout_from
from flowmatch.training.averaging import AveragedWeights
from flowmatch.training.optimizer import AdamW, clip_gradients
from flowmatch.training.options import TrainingOptions
from flowmatch.training.plans import TrainingPlan, learning_rate_factor
from flowmatch.training.rows import RowSampler

HISTORY = ("step", "loss", "validation_loss", "gradient_norm", "learning_rate", "seconds")


class NonFiniteTrainingError(ValueError):
    """The loss or its gradient was infinite or not a number.

    Parameters
    ----------
    message : str
        What happened, and what to try.
    step : int
        The first step where it happened, counted from 1.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch import FlowMatchingGenerator, NonFiniteTrainingError
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> try:
    ...     generator = FlowMatchingGenerator(learning_rate=1e30, random_state=0).fit(X)
    ... except NonFiniteTrainingError as error:
    ...     print(error.step)
    2
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class TrainingRun:
    """One run of training: `advance` makes a step, `report` looks at what came of the last ones.

    Nothing in `advance` waits for the device. Sums of losses and norms stay there until the next report, which is
    also where a non-finite value is noticed; the weights of the last good report are kept for that case.

    Parameters
    ----------
    network : torch.nn.Module
        Trained in place.
    plan : TrainingPlan
        How long and how fast, and on what.
    noise : torch.Generator or None
        On the network's device, handed to the loss.
    shuffle : torch.Generator or None
        On the data's device, for the order of the rows.
    dropout : torch.Generator or None, default=None
        On the network's device, for the masks of `flowmatch.networks.Dropout`. Its seed also decides what other
        layers draw, which know no generator but torch's global ones: these are put back after every step. None takes
        the global generators as they are now.

    Attributes
    ----------
    step : int
        Steps made so far.
    history : dict of lists
        An entry for each report.
    memory : dict of Tensor
        What callbacks want kept in checkpoints.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: TrainingPlan,
        noise: Rng,
        shuffle: Rng,
        dropout: Rng = None,
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
        self.optimizer = AdamW(
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
        self.good_weights, self.good_step = self.average.snapshot(), 0
        self.best_weights: list[Tensor] | None = None
        self.best_loss = math.inf
        self.reports_since_best = 0
        self.memory: dict[str, Tensor] = {}

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
        """Make one optimizer step."""
        with self._own_global_draws():
            self._step()

    def _step(self) -> None:
        options = self.plan.options
        losses = []
        for _ in range(options.accumulation):
            loss = self._mean_loss(self.rows.draw())
            losses.append(loss if options.accumulation == 1 else loss / options.accumulation)
            self.scaler.scale(losses[-1]).backward()
            losses[-1] = losses[-1].detach()
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.parameters, options.gradient_clipping)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        for parameter in self.parameters:
            parameter.grad = None
        self.average.update()
        self.step += 1
        self.steps_since_report += 1
        self._watch(sum(losses[1:], losses[0]), norm)

    def report(self) -> dict[str, float]:
        """Fetch the sums since the last report, validate, and append to the history.

        Returns
        -------
        dict
            The new entry of the history.

        Raises
        ------
        NonFiniteTrainingError
            If any step since the last report met a non-finite loss or gradient, or made the weights so.
            `restore_good_weights` undoes them.
        """
        bad = self.first_bad_step.item()
        if not math.isfinite(bad) and not self._has_sound_weights():
            bad = float(self.step)
        if math.isfinite(bad):
            raise NonFiniteTrainingError(f"the loss or its gradient became non-finite at step {int(bad)}", int(bad))
        loss, norm = (self.sums / max(1, self.steps_since_report)).tolist()
        self.sums.zero_()
        self.steps_since_report = 0
        torch._foreach_copy_(self.good_weights, self.average.tensors())
        self.good_step = self.step
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
        """Take what callbacks added to the newest entry into the history, NaN where a report lacks it.

        Parameters
        ----------
        entry : dict
            From `report`.
        """
        earlier = len(self.history["step"]) - 1
        for name in entry.keys() - self.history.keys():
            self.history[name] = [math.nan] * earlier
        for name in self.history.keys() - set(HISTORY):
            self.history[name].append(float(entry.get(name, math.nan)))

    def finish(self) -> nn.Module:
        """End the run, with the best weights if early stopping kept any.

        Returns
        -------
        torch.nn.Module
            The averaged network.
        """
        if self.plan.options.early_stopping and self.best_weights is not None:
            self.average.load(self.best_weights)
        return self.averaged_network

    @property
    def averaged_network(self) -> nn.Module:
        """The network that users get, updated in place while training goes on."""
        return self.average.module

    def restore_good_weights(self) -> nn.Module:
        """Take the averaged weights and the count of steps back to the last report that found everything finite.

        Returns
        -------
        torch.nn.Module
            The averaged network.
        """
        self.average.load(self.good_weights)
        self.step = self.good_step
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

    def _has_sound_weights(self) -> bool:
        """Whether the last step left weights of use, which its loss, computed before, does not tell."""
        if not self.average.are_finite():
            return False
        if self.step < self.plan.max_iter or self.plan.is_sound is None:
            return True
        with self._own_global_draws():
            return self.plan.is_sound(self.averaged_network)

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
        if self.step < round(self.plan.validate_from * self.plan.max_iter):
            return loss
        if loss < self.best_loss:
            self.best_loss, self.reports_since_best = loss, 0
            self.best_weights = self.average.snapshot()
        else:
            self.reports_since_best += 1
        return loss


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
        Begun or just made.
    on_report : callable, optional
        Called with each new entry of the history; training stops when it returns True.
    on_step : callable, optional
        Called with the run after every step (checkpoints).
    verbose : bool, default=False
        Show a tqdm bar with loss and learning rate.
    description : str, optional
        What is trained, such as "flow 2 of 5": stands before the bar.

    Returns
    -------
    torch.nn.Module
        With the best weights if early stopping kept any.

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
                try:
                    stop = on_report is not None and on_report(entry)
                finally:
                    run.record(entry)  # also where a callback ends the training, for columns of one length
            if on_step is not None:
                on_step(run)
            if stop:
                break
    return run.finish()


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


def _forward(network: nn.Module, device: torch.device, options: TrainingOptions) -> Any:
    """The network, compiled and under autocast if asked for; couplings and losses around it keep full precision."""
    if options.precision == "float32" and not options.compile:
        return network
    compiled = torch.compile(network) if options.compile else network
    dtype = torch.float16 if options.precision == "fp16" else torch.bfloat16

    def forward(*arguments: Any, **named: Any) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=options.precision != "float32"):
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
