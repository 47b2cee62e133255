"""Signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_count, check_number
from flowmatch.plotting._common import Floats, as_array, check_one_label_each, divide_axes, draw_samples


@dataclass(eq=False, repr=False)
class SignalGridDisplay:
    """A panel a signal, a line a channel.

    Make one with `from_estimator` or `from_samples`.

    Parameters
    ----------
    signals : ndarray of shape (n, n_channels, n_times)
        To draw.
    sampling_rate : float, optional
        In hertz, for a time axis in seconds; without it the axis counts the values.
    labels : sequence of length n, optional
        Titles of the panels.
    channel_names : sequence of length n_channels, optional
        For the legend of the first panel.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n,)
        One a signal.
    lines_ : ndarray of matplotlib Line2D, shape (n, n_channels)
        One a channel.
    figure_ : matplotlib Figure
        That holds them.

    See Also
    --------
    SampleGridDisplay : Images and fields.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import SignalGridDisplay
    >>> X = np.random.default_rng(0).normal(size=(3, 2, 100)).cumsum(axis=-1)
    >>> SignalGridDisplay.from_samples(X, sampling_rate=50.0, channel_names=["drive", "fan"])  # doctest: +SKIP
    """

    signals: Floats
    _: KW_ONLY
    sampling_rate: float | None = None
    labels: Sequence[Any] | None = None
    channel_names: Sequence[str] | None = None

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
        """Plot signals.

        Parameters
        ----------
        X : array-like of shape (n, n_channels, n_times)
            Signals.
        sampling_rate : float, optional
            In hertz, for a time axis in seconds.
        labels : sequence of length n, optional
            Titles of the panels.
        channel_names : sequence of length n_channels, optional
            For the legend of the first panel.
        ax : matplotlib Axes or array of n Axes, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        SignalGridDisplay
            After `plot`.

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
        check_one_label_each("labels", labels, len(signals), "signals")
        check_one_label_each("channel_names", channel_names, signals.shape[1], "channels")
        display = cls(signals, sampling_rate=sampling_rate, labels=labels, channel_names=channel_names)
        return display.plot(ax=ax, **plot_params)

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
            Such as a `FlowMatchingGenerator`.
        y : array-like of shape (n_samples,) or (n_samples, k), optional
            A condition a panel, which is its label too; all labels by default, one panel each.
        n_samples : int, default=4
            Of estimators without labels.
        random_state : int, RandomState or None, default=None
            Seed of the samples.
        sample_params : mapping, optional
            More arguments of the estimator's `sample`.
        **display_params
            See `from_samples`.

        Returns
        -------
        SignalGridDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the samples are not signals, or a parameter is out of range.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_count("n_samples", n_samples)
        X, labels = draw_samples(estimator, y, 1, n_samples, random_state, sample_params)
        return cls.from_samples(X, **{"labels": labels} | display_params)

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
        SignalGridDisplay
            The display itself.
        """
        n, n_channels, n_times = self.signals.shape
        self.axes_ = divide_axes(ax, n, check_count("n_columns", n_columns), "signal")
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
