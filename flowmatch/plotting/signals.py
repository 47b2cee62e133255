"""Signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.plotting._common import as_array, check_labels, divide_axes, load_pyplot


class SignalGridDisplay:
    """A panel a signal, a line a channel.

    Make one with `from_estimator` or `from_samples`.

    Parameters
    ----------
    signals : ndarray of shape (n, n_channels, n_times)
    sampling_rate : float, optional
        In hertz, for a time axis in seconds; without it the axis counts the values.
    labels : sequence of length n, optional
        Titles of the panels.
    channel_names : sequence of length n_channels, optional
        For the legend of the first panel.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n,)
    lines_ : ndarray of matplotlib Line2D, shape (n, n_channels)
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        signals: NDArray[Any],
        *,
        sampling_rate: float | None = None,
        labels: Sequence[Any] | None = None,
        channel_names: Sequence[str] | None = None,
    ) -> None:
        self.signals = signals
        self.sampling_rate = sampling_rate
        self.labels = labels
        self.channel_names = channel_names

    @classmethod
    def from_samples(
        cls,
        X: ArrayLike,
        *,
        sampling_rate: float | None = None,
        labels: Sequence[Any] | None = None,
        channel_names: Sequence[str] | None = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot signals, see the class for the parameters and `plot` for `ax` and the others.

        Raises
        ------
        ValueError
            If `X` is not of shape (n, n_channels, n_times), or there are not as many labels as signals.
        """
        signals = as_array(X)
        if signals.ndim != 3 or 0 in signals.shape:
            hint = " A one-channel signal a row is X[:, None]." if signals.ndim == 2 else ""
            raise ValueError(f"X has shape {signals.shape}; signals are (n_signals, n_channels, n_times).{hint}")
        if sampling_rate is not None:
            check_number("sampling_rate", sampling_rate, 0.0, open_low=True)
        check_labels("labels", labels, len(signals), "signals")
        check_labels("channel_names", channel_names, signals.shape[1], "channels")
        return cls(signals, sampling_rate=sampling_rate, labels=labels, channel_names=channel_names).plot(
            ax=ax, **plot_params
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        y: ArrayLike | None = None,
        *,
        n_samples: int = 4,
        random_state: Any = None,
        sample_params: Mapping[str, Any] | None = None,
        **display_params: Any,
    ) -> Self:
        """Draw signals from an estimator and plot them.

        Parameters
        ----------
        estimator : fitted generator of signals
        y : array-like of shape (n_samples,) or (n_samples, k), optional
            A condition a panel, which is its label too; all labels by default, one panel each. `n_samples` is for
            estimators without labels.
        n_samples : int, default=4
        random_state : int, RandomState or None, default=None
        sample_params : mapping, optional
            More arguments of the estimator's `sample`.
        **display_params
            See `from_samples`.

        Returns
        -------
        display : SignalGridDisplay
        """
        check_count("n_samples", n_samples)
        y = getattr(estimator, "classes_", None) if y is None else y
        params = dict(sample_params or {}, random_state=random_state)
        if y is None:
            return cls.from_samples(estimator.sample(n_samples, **params), **display_params)
        conditions = np.asarray(y)
        X = estimator.sample(len(conditions), conditions, **params)
        return cls.from_samples(X, **{"labels": list(conditions), **display_params})

    def plot(self, *, ax: Any = None, n_columns: int = 1, **line_params: Any) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array of n Axes, optional
            One Axes is divided into a grid of panels. By default a figure of its own.
        n_columns : int, default=1
            Panels in a row.
        **line_params
            Passed to every panel's ``plot``.

        Returns
        -------
        self
        """
        pyplot = load_pyplot()
        n, n_channels, n_times = self.signals.shape
        self.axes_ = divide_axes(pyplot, ax, n, check_count("n_columns", n_columns), "signal")
        times = np.arange(n_times) / (self.sampling_rate or 1.0)
        self.lines_ = np.empty((n, n_channels), dtype=object)
        for i, (panel, signal) in enumerate(zip(self.axes_, self.signals, strict=True)):
            self.lines_[i] = panel.plot(times, signal.T, **line_params)
            if self.labels is not None:
                panel.set_title(str(self.labels[i]))
        for panel in self.axes_[-min(n, n_columns) :]:
            panel.set_xlabel("time [s]" if self.sampling_rate else "time [samples]")
        if self.channel_names is not None:
            self.axes_[0].legend(self.lines_[0], [str(name) for name in self.channel_names])
        self.figure_ = self.axes_[0].figure
        return self
