"""Rows and what makes them anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.plotting._common import Floats, as_array, check_one_label_each, divide_axes
from flowmatch.plotting.anomaly_scores import AnomalyScoreDisplay
from flowmatch.plotting.pictures import SampleGridDisplay

_MADE_FOR = {
    "feature_names": ((1,), "table rows"),
    "channel_names": ((2,), "signals"),
    "sampling_rate": ((2,), "signals"),
    "channel": ((3, 4), "images and fields"),
}
"""Dimensions of a sample that an option is made for."""


@dataclass(eq=False, repr=False)
class AnomalyDisplay:
    """One row and how much each of its values adds to its anomaly score.

    Make one with `from_estimator`. A signal is drawn a panel a channel, over a background that is colored by the
    contribution of each instant; a table row as bars, the largest contribution first; an image, or the slice of a
    field that contributes most, beside the map of its contributions. The title gives the detector's verdict on the
    row. `score_histogram` shows the scores of many rows and the threshold.

    Parameters
    ----------
    sample : ndarray of shape (n_features,) or (n_channels, *grid)
        The row.
    contributions : ndarray of the same shape
        They add up to the score.
    score : float
        Higher is more abnormal.
    threshold : float
        Rows that score higher are flagged.
    p_value : float, optional
        Of the row, for the title.
    index : int, optional
        Number of the row, for the title.
    names : sequence of str, optional
        Of the features or the channels.
    sampling_rate : float, optional
        Of signals in hertz, for a time axis in seconds; without it the axis counts the values.
    channel : int, optional
        For images and fields, the one channel that is shown, with its own contributions. By default those of all
        channels are added up, and images show all (1, 3 or 4 of them), fields their first.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One a channel of a signal, one for a table row, two for an image or a field.
    figure_ : matplotlib Figure
        That holds them.
    lines_ : list of matplotlib Line2D
        Waveforms of a signal, one a channel.
    maps_ : list of matplotlib QuadMesh or AxesImage
        Colors of the contributions: backgrounds of a signal, one a channel, or the map beside an image.
    bars_ : matplotlib BarContainer or None
        Contributions of a table row.
    colorbar_ : matplotlib Colorbar or None
        Scale of the colors.

    See Also
    --------
    AnomalyScoreDisplay : Scores of many rows, and the threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch import FlowAnomalyDetector
    >>> from flowmatch.plotting import AnomalyDisplay
    >>> X = np.random.default_rng(0).normal(size=(600, 1, 128))
    >>> detector = FlowAnomalyDetector(random_state=0).fit(X)  # doctest: +SKIP
    >>> AnomalyDisplay.from_estimator(detector, X, sampling_rate=64.0)  # doctest: +SKIP
    >>> AnomalyDisplay.score_histogram(detector, X)  # doctest: +SKIP
    """

    sample: NDArray[Any]
    contributions: Floats
    _: KW_ONLY
    score: float
    threshold: float
    p_value: float | None = None
    index: int | None = None
    names: Sequence[Any] | None = None
    sampling_rate: float | None = None
    channel: int | None = None

    @classmethod
    def from_estimator(
        cls,
        detector: Any,
        X: Any,
        *,
        index: int | None = None,
        sampling_rate: float | None = None,
        channel_names: Sequence[Any] | None = None,
        feature_names: Sequence[Any] | None = None,
        channel: int | None = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Explain one row and plot it.

        Parameters
        ----------
        detector : fitted FlowAnomalyDetector, or an object with its `explain`, `score_samples` and `offset_`
            Gives the contributions, the score and the threshold.
        X : as in the detector's `explain`
            Rows, one of which is shown.
        index : int, optional
            Number of the row in X, from 0; by default the one with the highest score.
        sampling_rate : float, optional
            Of signals, in hertz.
        channel_names : sequence of length n_channels, optional
            Of signals.
        feature_names : sequence of length n_features, optional
            Of table rows; by default the columns of X, or of the data that the detector was fitted to.
        channel : int, optional
            For images and fields, see the class.
        ax : matplotlib Axes or array of Axes, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        AnomalyDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If X does not fit the detector, the index is out of range, or an option does not fit the rows.
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        """
        if index is None:
            index = int(np.argmin(as_array(detector.score_samples(X))))
        index = check_count("index", index, 0, len(X) - 1, f" for X with {len(X)} rows")
        row = X.iloc[[index]] if hasattr(X, "iloc") else X[index : index + 1]
        contributions = as_array(detector.explain(row))[0]
        options = {"feature_names": feature_names, "channel_names": channel_names}
        _check_options(contributions.shape, options | {"sampling_rate": sampling_rate, "channel": channel})
        is_table = contributions.ndim == 1
        names = feature_names if is_table else channel_names
        calibrated = getattr(detector, "calibration_", None) is not None
        return cls(
            as_array(row, None if is_table else np.float64)[0],  # entries of a mixed table as they are
            contributions,
            score=-float(detector.score_samples(row)[0]),
            threshold=-float(detector.offset_),
            p_value=float(detector.p_values(row)[0]) if calibrated else None,
            index=index,
            names=_column_names(detector, X) if is_table and names is None else names,
            sampling_rate=sampling_rate,
            channel=channel,
        ).plot(ax=ax, **plot_params)

    @classmethod
    def score_histogram(cls, detector: Any, X: Any, y: ArrayLike | None = None, **params: Any) -> AnomalyScoreDisplay:
        """Histogram of the scores of X, and the threshold.

        Parameters
        ----------
        detector : fitted detector with `score_samples` and `offset_`
            Gives the scores and the threshold.
        X : as in the detector's `score_samples`
            Rows to score.
        y : array-like of shape (n_samples,), optional
            Labels of the rows: a histogram each.
        **params
            See `AnomalyScoreDisplay.from_estimator`.

        Returns
        -------
        AnomalyScoreDisplay
            After its `plot`.
        """
        return AnomalyScoreDisplay.from_estimator(detector, X, y, **params)

    def plot(
        self, *, ax: Any = None, max_features: int = 20, cmap: Any = None, colorbar: bool = True, **artist_params: Any
    ) -> Self:
        """Draw the row and its contributions.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, optional
            One Axes is divided where several are needed: one a channel of a signal, two for an image or a field. By
            default a figure of its own.
        max_features : int, default=20
            Of a table row, bars at most; one more adds up the other features.
        cmap : str or matplotlib Colormap, optional
            Colors of contributions; by default "Reds" from 0 on, or "RdBu_r" around 0 if some are negative, as they
            are with densities.
        colorbar : bool, default=True
            Whether to add the scale of those colors.
        **artist_params
            Passed to a signal's ``plot``, a table row's ``barh``, or the ``imshow`` of the map.

        Returns
        -------
        AnomalyDisplay
            The display itself.
        """
        self.lines_: list[Any] = []
        self.maps_: list[Any] = []
        self.bars_, self.colorbar_ = None, None
        if self.contributions.ndim == 1:
            self._draw_bars(ax, check_count("max_features", max_features), artist_params)
        elif self.contributions.ndim == 2:
            self._draw_signal(ax, cmap, artist_params)
        else:
            self._draw_picture(ax, cmap, artist_params)
        self.figure_ = self.axes_[0].figure
        if self.maps_ and colorbar:
            self.colorbar_ = self.figure_.colorbar(self.maps_[0], ax=list(self.axes_), label="contribution")
        row = "" if self.index is None else f"row {self.index}: "
        verdict = "anomaly" if self.score > self.threshold else "normal"
        p_value = "" if self.p_value is None else f", p = {self.p_value:.2g}"
        self.axes_[0].set_title(f"{row}{verdict}\nscore {self.score:.4g}, threshold {self.threshold:.4g}{p_value}")
        return self

    def _draw_bars(self, ax: Any, max_features: int, params: dict[str, Any]) -> None:
        """A bar a feature, the largest on top, and one for those that are left out."""
        order = np.argsort(-self.contributions, kind="stable")
        shown, others = order[:max_features], order[max_features:]
        names = [f"x{j}" for j in range(len(order))] if self.names is None else self.names
        labels = [f"{names[j]} = {_text(self.sample[j])}" for j in shown]
        widths, colors = list(self.contributions[shown]), ["C0"] * len(shown)
        if len(others):
            labels.append(f"{len(others)} other{'s' if len(others) > 1 else ''}")
            widths.append(self.contributions[others].sum())
            colors.append("0.7")
        self.axes_ = divide_axes(ax, 1, 1, "row", size=(6.0, 0.28 * len(widths) + 0.5))
        panel, positions = self.axes_[0], np.arange(len(widths))
        self.bars_ = panel.barh(positions, widths, **{"color": colors} | params)
        panel.set_yticks(positions, labels)
        panel.invert_yaxis()
        panel.set_xlabel("contribution")

    def _draw_signal(self, ax: Any, cmap: Any, params: dict[str, Any]) -> None:
        """The waveform of each channel over its contributions, whose colors compare between the channels."""
        n_channels, n_times = self.contributions.shape
        step = 1.0 / (self.sampling_rate or 1.0)
        edges = (np.arange(n_times + 1) - 0.5) * step
        self.axes_ = divide_axes(ax, n_channels, 1, "channel", share=(True, False))
        line_params = {"color": "0.1", "linewidth": 1.0} | params
        band_params = _colors(self.contributions, cmap) | {"zorder": 0, "rasterized": True}
        for j, panel in enumerate(self.axes_):
            self.lines_ += panel.plot(np.arange(n_times) * step, self.sample[j], **line_params)
            limits = panel.get_ylim()
            whole_height = panel.get_xaxis_transform()
            band = panel.pcolormesh(edges, [0, 1], self.contributions[[j]], transform=whole_height, **band_params)
            self.maps_.append(band)
            panel.set(xlim=(edges[0], edges[-1]), ylim=limits)
            if self.names is not None:
                panel.set_ylabel(str(self.names[j]))
        self.axes_[-1].set_xlabel("time [s]" if self.sampling_rate else "time [samples]")

    def _draw_picture(self, ax: Any, cmap: Any, params: dict[str, Any]) -> None:
        """An image, or the slice of a field (first axis) that contributes most, and the map of its contributions."""
        picture, channel = self.sample, self.channel
        found = self.contributions.sum(axis=0) if channel is None else self.contributions[channel]
        if picture.ndim == 4:
            deepest = int(np.argmax(found.sum(axis=(1, 2))))
            picture, found, channel = picture[:, deepest], found[deepest], channel or 0
        self.axes_ = divide_axes(ax, 2, 2, "picture", size=(3.4, 3.2))
        SampleGridDisplay.from_samples(picture[None], channel=channel, ax=self.axes_[0])
        self.maps_ = [self.axes_[1].imshow(found, **_colors(found, cmap) | {"interpolation": "nearest"} | params)]
        self.axes_[1].set_axis_off()


def _text(entry: Any) -> str:
    """An entry of a table, four digits of a number."""
    is_number = isinstance(entry, (int, float, np.number)) and not isinstance(entry, bool)
    return f"{entry:.4g}" if is_number else f"{entry}"


def _check_options(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Raise a ValueError for options that samples of this shape do not have, or that do not fit them."""
    for name, value in options.items():
        dimensions, made_for = _MADE_FOR[name]
        if value is not None and len(shape) not in dimensions:
            raise ValueError(f"{name} is for {made_for}; each row of X has shape {shape}.")
    check_one_label_each("feature_names", options["feature_names"], shape[0], "features")
    check_one_label_each("channel_names", options["channel_names"], shape[0], "channels")
    if options["sampling_rate"] is not None:
        check_number("sampling_rate", options["sampling_rate"], 0.0, open_low=True)
    if options["channel"] is not None:
        check_count("channel", options["channel"], 0, shape[0] - 1, f" for samples with {shape[0]} channels")


def _column_names(detector: Any, X: Any) -> list[str] | None:
    """Names of the columns, those of X or of the data of `fit`, if there are any."""
    names = getattr(X, "columns", getattr(detector, "feature_names_in_", None))
    return None if names is None else [str(name) for name in names]


def _colors(contributions: Floats, cmap: Any) -> dict[str, Any]:
    """The scale on which contributions are colored: from 0 on, or around 0."""
    low, high = float(contributions.min()), float(contributions.max())
    if low >= 0:
        return {"cmap": cmap or "Reds", "vmin": 0.0, "vmax": high or 1.0}
    largest = max(-low, high)
    return {"cmap": cmap or "RdBu_r", "vmin": -largest, "vmax": largest}
