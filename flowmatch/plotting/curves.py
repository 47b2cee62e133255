"""The course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from flowmatch.core.component import unknown_option
from flowmatch.plotting._common import load_pyplot


class TrainingCurveDisplay:
    """Losses and learning rate over the steps of training.

    Make one with `from_estimator`.

    Parameters
    ----------
    history : mapping of str to sequence of float
        A fitted estimator's `history_`.
    names : sequence of str, default=("loss", "validation_loss")
        Its columns to draw, such as the name of a `flowmatch.training.SampleMonitor`. What has no finite value is
        left out.

    Attributes
    ----------
    ax_ : matplotlib Axes
    learning_rate_ax_ : matplotlib Axes or None
        Shares the step axis with `ax_`.
    lines_ : dict of matplotlib Line2D
        By column.
    figure_ : matplotlib Figure
    """

    def __init__(
        self, history: Mapping[str, Sequence[float]], names: Sequence[str] = ("loss", "validation_loss")
    ) -> None:
        self.history = history
        self.names = names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        names: Sequence[str] = ("loss", "validation_loss"),
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot the history of a fitted estimator, see the class and `plot` for the parameters.

        Raises
        ------
        ValueError
            If a name is not a column of the history.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(estimator, "history_")
        for name in names:
            if name not in estimator.history_:
                raise unknown_option("name", name, estimator.history_)
        return cls(estimator.history_, names).plot(ax=ax, **plot_params)

    def plot(self, *, ax: Any = None, learning_rate: bool = True, log_scale: bool = False) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        learning_rate : bool, default=True
            Whether to add the learning rate, on an axis of its own to the right.
        log_scale : bool, default=False
            Whether the losses' axis is logarithmic.

        Returns
        -------
        self
        """
        pyplot = load_pyplot()
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        self.ax_, self.figure_, self.learning_rate_ax_ = ax, ax.figure, None
        self.lines_: dict[str, Any] = {}
        for name in self.names:
            self._curve(ax, name)
        ax.set_xlabel("step")
        if log_scale:
            ax.set_yscale("log")
        if learning_rate:
            self.learning_rate_ax_ = ax.twinx()
            self._curve(self.learning_rate_ax_, "learning_rate", color="0.7", linestyle=":", zorder=0)
            self.learning_rate_ax_.set_ylabel("learning rate")
        if self.lines_:
            ax.legend(handles=list(self.lines_.values()))
        return self

    def _curve(self, ax: Any, name: str, **line_params: Any) -> None:
        steps, values = np.asarray(self.history["step"]), np.asarray(self.history[name], dtype=float)
        known = np.isfinite(values)
        if known.any():
            (self.lines_[name],) = ax.plot(steps[known], values[known], label=name.replace("_", " "), **line_params)
