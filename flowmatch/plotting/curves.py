"""The course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from flowmatch.core.checks import check_choice
from flowmatch.plotting._common import one_axes


@dataclass(eq=False, repr=False)
class TrainingCurveDisplay:
    """Losses and learning rate over the steps of training.

    Make one with `from_estimator`.

    Parameters
    ----------
    history : mapping of str to sequence of float
        A fitted estimator's `history_`.
    names : sequence of str, default=("loss", "validation_loss")
        Its columns to draw, such as the name of a `flowmatch.training.SampleMonitor`. Columns without a finite value
        are left out.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the losses.
    learning_rate_ax_ : matplotlib Axes or None
        Shares the step axis with `ax_`.
    lines_ : dict of matplotlib Line2D
        By column.
    figure_ : matplotlib Figure
        That holds them.

    Examples
    --------
    >>> from flowmatch.plotting import TrainingCurveDisplay
    >>> history = {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.5], "learning_rate": [1e-3, 8e-4, 0.0]}
    >>> TrainingCurveDisplay(history, ["loss"]).plot(log_scale=True)  # doctest: +SKIP
    """

    history: Mapping[str, Sequence[float]]
    names: Sequence[str] = ("loss", "validation_loss")

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, names: Sequence[str] = ("loss", "validation_loss"), ax: Any = None, **plot_params: Any
    ) -> Self:
        """Plot the history of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator
            With a `history_`.
        names : sequence of str, default=("loss", "validation_loss")
            Columns of the history.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        TrainingCurveDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If a name is not a column of the history.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(estimator, "history_")
        for name in names:
            check_choice("name", name, estimator.history_)
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
        TrainingCurveDisplay
            The display itself.
        """
        self.ax_ = one_axes(ax)
        self.figure_, self.learning_rate_ax_ = self.ax_.figure, None
        self.lines_: dict[str, Any] = {}
        for name in self.names:
            self._curve(self.ax_, name)
        self.ax_.set_xlabel("step")
        if log_scale:
            self.ax_.set_yscale("log")
        if learning_rate:
            self.learning_rate_ax_ = self.ax_.twinx()
            self._curve(self.learning_rate_ax_, "learning_rate", color="0.7", linestyle=":", zorder=0)
            self.learning_rate_ax_.set_ylabel("learning rate")
        if self.lines_:
            self.ax_.legend(handles=list(self.lines_.values()))
        return self

    def _curve(self, ax: Any, name: str, **line_params: Any) -> None:
        steps, values = np.asarray(self.history["step"]), np.asarray(self.history[name], dtype=float)
        finite = np.isfinite(values)
        if finite.any():
            (self.lines_[name],) = ax.plot(steps[finite], values[finite], label=name.replace("_", " "), **line_params)
