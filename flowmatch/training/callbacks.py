"""Callbacks with scikit-learn's hook names, for every scikit-learn version that is supported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

HOOKS = ("setup", "on_fit_task_begin", "on_fit_task_end", "teardown")


@dataclass
class FitContext:
    """What a callback is told about the running fit.

    Attributes
    ----------
    estimator_name : str
        Class of the estimator.
    task_name : str
        "fit" for the whole fit (``setup``, ``teardown``), "report" for a stretch of steps between two reports.
    task_id : int
        Optimiser steps made so far.
    max_iter : int
        Optimiser steps asked for.
    report : dict
        The newest entry of the history: step, loss, validation_loss, gradient_norm, learning_rate, seconds.
    """

    estimator_name: str
    max_iter: int
    task_name: str = "fit"
    task_id: int = 0
    report: dict[str, float] = field(default_factory=dict)


def check_callbacks(callbacks: Any) -> None:
    """Raise a ValueError unless `callbacks` is a sequence of objects with hooks."""
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ValueError(f"callbacks must be a list or tuple of callbacks, got {callbacks!r}.")
    for callback in callbacks:
        if not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
            raise ValueError(f"callbacks: {callback!r} has none of the hooks {', '.join(HOOKS)}.")


class CallbackList:
    """Calls the hooks that each callback has; a callback may leave out those it does not need.

    The estimator that hooks are given is the one being fitted: it carries the averaged weights of the moment, so that
    its methods (`sample`, `save`) work. The user's own object takes them over when the fit ends.
    """

    def __init__(self, callbacks: Iterable[Any], estimator: Any, max_iter: int) -> None:
        self.callbacks = tuple(callbacks)
        self.estimator = estimator
        self.context = FitContext(type(estimator).__name__, max_iter)

    def report(self, entry: dict[str, float]) -> bool:
        """End the stretch of steps up to a report, and begin the next unless a callback stops training."""
        stop = self.call("on_fit_task_end", "report", entry)
        if not stop and entry["step"] < self.context.max_iter:
            self.call("on_fit_task_begin", "report")
        return stop

    def call(self, hook: str, task_name: str = "fit", report: dict[str, float] | None = None) -> bool:
        """Call `hook` on every callback that has it; True if any of them returned True."""
        self.context.task_name = task_name
        if report is not None:
            self.context.report, self.context.task_id = report, int(report["step"])
        results = [
            getattr(callback, hook)(self.estimator, self.context)
            for callback in self.callbacks
            if hasattr(callback, hook)
        ]
        return any(result is True for result in results)
