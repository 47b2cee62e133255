"""Callbacks that watch a fit: the quality of its samples, and TensorBoard."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowmatch.core.checks import check_count, check_flag, check_type, checked
from flowmatch.core.component import Component
from flowmatch.core.randomness import GlobalDraws
from flowmatch.training.callbacks import FitContext
from flowmatch.training.loop import HISTORY

_NOT_DRAWN = ("step", "seconds")


def _check_name(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value or value in HISTORY:
        raise ValueError(f"{name} must be a string other than {', '.join(HISTORY)}, got {value!r}.")


@dataclass(eq=False)
class SampleMonitor(Component):
    """Draw samples while training goes on, measure them, stop when they get no better, and keep the best weights.

    The samples come from the averaged weights, with the same seed at every look, so that two looks differ by the
    weights alone. Training is not disturbed: a fit whose monitor neither stops it nor restores weights ends
    bit-identical to one without. What has been measured, and the best weights, are part of the checkpoints, so a fit
    that goes on after an interruption stops where it would have stopped.

    A monitor may serve one fit after the other; each starts its memory anew. Copies of an estimator, as made by
    `sklearn.base.clone` and by searches over parameters, have monitors of their own.

    Parameters
    ----------
    metric : callable
        ``metric(samples) -> float`` of the samples as `sample` returns them, such as
        ``lambda S: flowmatch.metrics.sliced_wasserstein(X_held_out, S, random_state=0)``.
    n_samples : int, default=500
        Samples a look.
    y : scalar or array-like of length n_samples, optional
        Their conditions; None draws them as in training.
    period : int, default=10
        Reports from one look to the next; there are about 100 reports a fit, see
        `TrainingOptions.report_period`. The last step of a full fit is looked at as well.
    patience : int or None, default=None
        Looks without an improvement before training stops; None never stops.
    greater_is_better : bool, default=False
        Whether large values of the metric are good.
    restore_best : bool, default=True
        Hand out the averaged weights of the best look at the end of the fit. They take precedence over those of the
        best validation loss, and those of a later monitor over those of an earlier one.
    random_state : int, default=0
        Seed of every look's samples, and of torch's global generators while the metric runs.
    name : str, default="quality"
        Column of the estimator's `history_` that the values go to, NaN at the reports without a look.
    sample_params : mapping, optional
        More arguments of `sample`, such as ``{"n_steps": 4}``.

    Attributes
    ----------
    history_ : dict of lists
        "step" (counted as in the estimator's `history_`) and "value", an entry a look.
    best_step_ : int or None
        Step of the best look, None before the first.
    best_value_ : float or None
        What the metric was there.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch import FlowMatchingGenerator, TrainingOptions
    >>> from flowmatch.metrics import sliced_wasserstein
    >>> from flowmatch.training import SampleMonitor
    >>> X = np.random.default_rng(0).normal(size=(300, 2))
    >>> monitor = SampleMonitor(lambda samples: sliced_wasserstein(X[200:], samples, random_state=0), n_samples=100)
    >>> options = TrainingOptions(callbacks=[monitor])
    >>> generator = FlowMatchingGenerator(max_iter=30, training=options, random_state=0).fit(X[:200])
    >>> monitor.history_["step"]
    [10, 20, 30]
    """

    metric: Callable[[Any], float] = checked(
        MISSING, check_type, Callable, "a function of samples that returns a number"
    )
    n_samples: int = checked(500, check_count)
    y: Any = None
    period: int = checked(10, check_count)
    patience: int | None = checked(None, check_count)
    greater_is_better: bool = checked(False, check_flag)
    restore_best: bool = checked(True, check_flag)
    random_state: int = checked(0, check_count, 0, 2**32 - 1)
    name: str = checked("quality", _check_name)
    sample_params: Mapping[str, Any] | None = checked(None, check_type, Mapping, "a mapping of arguments of sample")

    @property
    def best_step_(self) -> int | None:
        """Step of the best look."""
        return self.history_["step"][self._best] if self.history_["step"] else None

    @property
    def best_value_(self) -> float | None:
        """The best value of the metric."""
        return self.history_["value"][self._best] if self.history_["value"] else None

    @property
    def _best(self) -> int:
        values = np.asarray(self.history_["value"])
        return int(values.argmax() if self.greater_is_better else values.argmin())  # the first of equals

    def setup(self, estimator: Any, context: FitContext) -> None:
        """Forget the last fit, take up what an interrupted one had measured, and see whether sampling works.

        Parameters
        ----------
        estimator : object
            The estimator that is being fitted.
        context : FitContext
            What is known of the fit.

        Raises
        ------
        ValueError
            If the estimator cannot sample with `y` and `sample_params`.
        """
        try:
            self._draw(estimator, n_steps=1)
        except (TypeError, ValueError) as error:
            raise ValueError(f"SampleMonitor {self.name!r} cannot draw samples: {error}") from error
        self._steps_before = int(estimator.n_iter_)
        self.history_: dict[str, list[Any]] = {"step": [], "value": []}
        values = context.history.get(self.name, [])
        for step, value in zip(context.history.get("step", []), values, strict=False):
            if math.isfinite(value):
                self._note(step, value)

    def on_fit_task_end(self, estimator: Any, context: FitContext) -> bool:
        """Look, if it is time.

        Parameters
        ----------
        estimator : object
            The estimator that is being fitted.
        context : FitContext
            What is known of the fit.

        Returns
        -------
        bool
            True when patience is at its end.
        """
        if len(context.history["step"]) % self.period and context.task_id < context.max_iter:
            return False
        value = self._look(estimator, context.task_id)
        context.report[self.name] = value
        self._note(context.task_id, value)
        looks_since_best = len(self.history_["value"]) - 1 - self._best
        if looks_since_best == 0 and self.restore_best:
            weights = enumerate(_weights(estimator.network_))
            context.memory |= {f"{self.name}.{i}": weight.detach().clone() for i, weight in weights}
        return self.patience is not None and looks_since_best >= self.patience

    def teardown(self, estimator: Any, context: FitContext) -> None:
        """Put the best weights into the network that the fit hands out.

        Parameters
        ----------
        estimator : object
            The estimator that is being fitted.
        context : FitContext
            What is known of the fit.
        """
        if f"{self.name}.0" in context.memory:
            with torch.no_grad():
                for i, weight in enumerate(_weights(estimator.network_)):
                    weight.copy_(context.memory.pop(f"{self.name}.{i}"))

    def _look(self, estimator: Any, step: int) -> float:
        """The metric of samples from the present weights, with the random state of training put aside."""
        samples, where = self._draw(estimator), f"SampleMonitor {self.name!r}: at step {step} the metric"
        with self._seeded(estimator):
            try:
                value = float(self.metric(samples))
            except Exception as error:
                raise ValueError(f"{where} raised {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise ValueError(f"{where} returned {value}; expected a finite number.")
        return value

    def _draw(self, estimator: Any, **changes: Any) -> Any:
        """Samples of the present weights, with the random state of training put aside."""
        parameters = {**(self.sample_params or {}), **changes}
        with self._seeded(estimator):
            return estimator.sample(self.n_samples, self.y, random_state=self.random_state, **parameters)

    def _seeded(self, estimator: Any) -> contextlib.AbstractContextManager[None]:
        """The random state of training is put aside meanwhile; a metric may draw from torch's global generators."""
        return GlobalDraws(next(estimator.network_.parameters()).device, self.random_state).in_place()

    def _note(self, step: float, value: float) -> None:
        self.history_["step"].append(self._steps_before + int(step))
        self.history_["value"].append(value)


@dataclass(eq=False)
class TensorBoardWriter(Component):
    """Write the course of a fit to a folder that TensorBoard shows.

    Each report gives loss, validation loss, gradient norm, learning rate, and what other callbacks measured (such as
    a `SampleMonitor`), by the names they have in `history_`. It needs ``pip install 'flowmatch[tensorboard]'``.
    A fit that goes on from a checkpoint or by `partial_fit` continues the curves; a fresh fit into the same folder
    replaces them.

    Parameters
    ----------
    log_dir : path-like
        The folder; made if it is not there.
    images : int or None, default=None
        Samples to show as pictures, for data of shape (n, 1 or 3, H, W); gray levels are stretched from the smallest
        value to the largest.
    image_period : int, default=10
        Reports from one set of pictures to the next.
    random_state : int, default=0
        Seed of the pictures, the same each time.

    Examples
    --------
    >>> from flowmatch import TrainingOptions
    >>> from flowmatch.training import TensorBoardWriter
    >>> options = TrainingOptions(callbacks=[TensorBoardWriter("runs/first")])
    """

    log_dir: str | Path = checked(MISSING, check_type, (str, Path), "a path")
    images: int | None = checked(None, check_count)
    image_period: int = checked(10, check_count)
    random_state: int = checked(0, check_count, 0, 2**32 - 1)

    def setup(self, estimator: Any, context: FitContext) -> None:
        """Open the files.

        Parameters
        ----------
        estimator : object
            The estimator that is being fitted.
        context : FitContext
            What is known of the fit.

        Raises
        ------
        ValueError
            If samples are no pictures, but `images` are asked for.
        ImportError
            If tensorboard is not installed.
        """
        shape = estimator.sample_shape_
        if self.images is not None and not (len(shape) == 3 and shape[0] in (1, 3)):
            raise ValueError(
                f"TensorBoardWriter: images={self.images} shows samples of shape (1 or 3, height, width), got {shape}."
            )
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoardWriter needs the package tensorboard: pip install 'flowmatch[tensorboard]'."
            ) from error
        self._steps_before = int(estimator.n_iter_)
        self._written = int(context.history["step"][-1]) if context.history.get("step") else 0
        # what a killed process wrote beyond its last checkpoint comes again
        self._writer = SummaryWriter(str(self.log_dir), purge_step=self._steps_before + self._written + 1)

    def on_fit_task_begin(self, estimator: Any, context: FitContext) -> None:
        """Write the report that has just ended; by now every callback has added to it.

        Parameters
        ----------
        estimator : object
            The estimator that is being fitted.
        context : FitContext
            What is known of the fit.
        """
        self._write(estimator, context)

    def teardown(self, estimator: Any, context: FitContext) -> None:
        """Write the last report and close the files.

        Parameters
        ----------
        estimator : object
            The estimator that is being fitted.
        context : FitContext
            What is known of the fit.
        """
        self._write(estimator, context)
        self._writer.close()
        del self._writer  # so that the estimator can be pickled

    def _write(self, estimator: Any, context: FitContext) -> None:
        if context.report.get("step", 0) <= self._written:
            return
        self._written = int(context.report["step"])
        step = self._steps_before + self._written
        for name, value in context.report.items():
            if name not in _NOT_DRAWN and math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        last = self._written == context.max_iter
        if self.images is not None and (last or len(context.history["step"]) % self.image_period == 0):
            pictures = np.asarray(estimator.sample(self.images, random_state=self.random_state), dtype=np.float32)
            low, high = pictures.min(), pictures.max()
            self._writer.add_images("samples", (pictures - low) / max(high - low, 1e-12), step)


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
