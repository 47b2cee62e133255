"""Callbacks with scikit-learn's hook names, for every scikit-learn version that is supported."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from flowmatch.core.component import Component

HOOKS = ("setup", "on_fit_task_begin", "on_fit_task_end", "teardown")
_OF_SCIKIT_LEARN = ("X", "y", "metadata", "fitted_estimator")
"""What scikit-learn's hooks may ask for by keyword; flowmatch's are not given these."""

_INSTEAD = {
    "ScoringMonitor": "flowmatch.training.SampleMonitor measures samples during a fit, validation_fraction the loss",
    "ProgressBar": "verbose=1 of the estimator shows progress",
}


@dataclass
class FitContext:
    """What a callback knows about the running fit.

    Parameters
    ----------
    estimator_name : str
        Class of the estimator.
    max_iter : int
        Optimizer steps asked for.
    task_name : str, default="fit"
        "fit" for the whole fit (``setup``, ``teardown``), "report" for a stretch of steps between two reports.
    task_id : int, default=0
        Optimizer steps made so far.
    report : dict, optional
        The newest entry of the history: step, loss, validation_loss, gradient_norm, learning_rate, seconds. A number
        that a callback adds under another name becomes a column of `history_`, NaN at the reports that lack it.
    history : dict of lists, optional
        The reports of this fit so far, those before an interruption included.
    memory : dict of Tensor, optional
        What a callback puts here comes back when the fit goes on from a checkpoint.

    Examples
    --------
    >>> from flowmatch import FlowMatchingGenerator, TrainingOptions
    >>> class Printer:
    ...     def on_fit_task_end(self, estimator, context):
    ...         print(context.task_id, "of", context.max_iter)
    >>> options = TrainingOptions(callbacks=[Printer()], report_period=10)
    >>> generator = FlowMatchingGenerator(max_iter=20, training=options, random_state=0).fit([[0.0], [1.0]] * 50)
    10 of 20
    20 of 20
    """

    estimator_name: str
    max_iter: int
    task_name: str = "fit"
    task_id: int = 0
    report: dict[str, float] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)


def check_callbacks(name: str, callbacks: Any) -> None:
    """Raise a ValueError unless `callbacks` is a sequence of objects with hooks."""
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ValueError(f"{name} must be a list or tuple of callbacks, got {callbacks!r}.")
    for callback in callbacks:
        if not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
            raise ValueError(f"{name}: {callback!r} has none of the hooks {', '.join(HOOKS)}.")
        _refuse_scikit_learns(callback)
        if isinstance(callback, Component):
            callback.validate()
    names = [getattr(callback, "name", None) for callback in callbacks if isinstance(callback, Component)]
    twice = next((own for own in names if own is not None and names.count(own) > 1), None)
    if twice is not None:
        raise ValueError(f"{name}: {names.count(twice)} of them are called {twice!r}; give each its own name.")


def _refuse_scikit_learns(callback: Any) -> None:
    """Raise a ValueError for a callback that reads what only scikit-learn's own fits give: it would do nothing here."""
    for hook in HOOKS:
        if _is_scikit_learns(getattr(callback, hook, None)):
            kinds = [kind.__name__ for kind in type(callback).__mro__]
            instead = next(
                (_INSTEAD[kind] for kind in kinds if kind in _INSTEAD), "see FitContext for what callbacks know here"
            )
            raise ValueError(
                f"callbacks: {kinds[0]} cannot be used, because its {hook} reads data or contexts that only "
                f"scikit-learn's own fits give; {instead}."
            )


def _is_scikit_learns(hook: Any) -> bool:
    """Whether a hook comes from scikit-learn, or asks for its keywords."""
    if str(getattr(hook, "__module__", "")).split(".")[0] == "sklearn":
        return True
    is_python = inspect.ismethod(hook) or inspect.isfunction(hook)
    return is_python and not set(_OF_SCIKIT_LEARN).isdisjoint(inspect.getfullargspec(hook).kwonlyargs)


class CallbackList:
    """Calls the hooks that each callback has; a callback may leave out those it does not need.

    The estimator that hooks are given is the one being fitted: it carries the averaged weights of the moment, so that
    its methods (`sample`, `save`) work. The user's own object takes them over when the fit ends.

    Parameters
    ----------
    callbacks : iterable
        Objects with hooks.
    estimator : object
        What hooks are given.
    max_iter : int
        Optimizer steps of the fit.
    history : dict of lists
        See `FitContext`.
    memory : dict of Tensor
        See `FitContext`.
    """

    def __init__(
        self,
        callbacks: Iterable[Any],
        estimator: Any,
        max_iter: int,
        history: dict[str, list[float]],
        memory: dict[str, Tensor],
    ) -> None:
        self.callbacks = tuple(callbacks)
        self.estimator = estimator
        self._ready: list[Any] = []
        self.context = FitContext(type(estimator).__name__, max_iter, history=history, memory=memory)

    def report(self, entry: dict[str, float]) -> bool:
        """End the stretch of steps up to a report, and begin the next unless a callback stops training.

        Parameters
        ----------
        entry : dict
            The newest entry of the history.

        Returns
        -------
        bool
            Whether a callback stops training.
        """
        stop = self.call("on_fit_task_end", "report", entry)
        if not stop and entry["step"] < self.context.max_iter:
            self.call("on_fit_task_begin", "report")
        return stop

    def call(self, hook: str, task_name: str = "fit", report: dict[str, float] | None = None) -> bool:
        """Call a hook of every callback that has it.

        Parameters
        ----------
        hook : str
            Its name.
        task_name : str, default="fit"
            See `FitContext`.
        report : dict, optional
            The newest entry of the history.

        Returns
        -------
        bool
            True if any of them returned True.
        """
        self.context.task_name = task_name
        if report is not None:
            self.context.report, self.context.task_id = report, int(report["step"])
        stop = False
        for callback in self.callbacks:
            if hook == "teardown" and not any(callback is ready for ready in self._ready):
                continue  # its own setup, or one before it, has failed
            if hasattr(callback, hook):
                answer = getattr(callback, hook)(self.estimator, self.context)
                stop |= isinstance(answer, (bool, np.bool_)) and bool(answer)  # comparisons of numpy's numbers too
            if hook == "setup":
                self._ready.append(callback)
        return stop
