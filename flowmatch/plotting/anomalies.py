"""Rows and what makes them anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.plotting._common import as_array, check_labels, divide_axes, load_pyplot
from flowmatch.plotting.anomaly_scores import AnomalyScoreDisplay
from flowmatch.plotting.pictures import SampleGridDisplay

Floats = NDArray[np.float64]

_MADE_FOR = {
    "feature_names": ((1,), "table rows"),
    "channel_names": ((2,), "signals"),
    "sampling_rate": ((2,), "signals"),
    "channel": ((3, 4), "images and fields"),
}
"""Dimensions of a sample that an option is made for."""


class AnomalyDisplay:
    """One row and how much each of its numbers adds to its anomaly score.

    Make one with `from_estimator`. A signal is drawn a panel a channel, over a background that is coloured by the
    contribution of each instant; a table row as bars, the largest contribution first; an image, or the slice of a
    field that contributes most, beside the map of its contributions. The title says what the detector makes of the
    row. `score_histogram` shows the scores of many rows and the threshold.

    Parameters
    ----------
    sample : ndarray of shape (n_features,) or (n_channels, *grid)
    contributions : ndarray of the same shape
        They add up to the score.
    score : float
        Higher is more abnormal.
    threshold : float
        Rows that score higher are flagged.
    p_value : float, optional
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
    lines_ : list of matplotlib Line2D
        Waveforms of a signal, one a channel.
    maps_ : list of matplotlib QuadMesh or AxesImage
        Colours of the contributions: backgrounds of a signal, one a channel, or the map beside an image.
    bars_ : matplotlib BarContainer or None
        Contributions of a table row.
    colorbar_ : matplotlib Colorbar or None

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

    def __init__(
        self,
        sample: Floats,
        contributions: Floats,
        *,
        score: float,
        threshold: float,
        p_value: float | None = None,
        index: int | None = None,
        names: Sequence[Any] | None = None,
        sampling_rate: float | None = None,
        channel: int | None = None,
    ) -> None:
        self.sample = sample
        self.contributions = contributions
        self.score = score
        self.threshold = threshold
        self.p_value = p_value
        self.index = index
        self.names = names
        self.sampling_rate = sampling_rate
        self.channel = channel

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
        X : as in the detector's `explain`
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
        display : AnomalyDisplay

        Raises
        ------
        ValueError
            If X does not fit the detector, the index is out of range, or an option does not fit the rows.
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        """
        if index is None:
            index = int(np.argmin(as_array(detector.score_samples(X))))
        row = _row(X, index)
        contributions = as_array(detector.explain(row))[0]
        names = feature_names if contributions.ndim == 1 else channel_names
        options = {"feature_names": feature_names, "channel_names": channel_names}
        _check_options(contributions.shape, options | {"sampling_rate": sampling_rate, "channel": channel})
        if contributions.ndim == 1 and names is None:
            names = _columns(detector, X)
        calibrated = getattr(detector, "calibration_", None) is not None
        return cls(
            _sample_of(row),
            contributions,
            score=-float(detector.score_samples(row)[0]),
            threshold=-float(detector.offset_),
            p_value=float(detector.p_values(row)[0]) if calibrated else None,
            index=index,
            names=names,
            sampling_rate=sampling_rate,
            channel=channel,
        ).plot(ax=ax, **plot_params)

    @classmethod
    def score_histogram(cls, detector: Any, X: Any, y: ArrayLike | None = None, **params: Any) -> AnomalyScoreDisplay:
        """Histogram of the scores of X and the threshold; see `AnomalyScoreDisplay.from_estimator`."""
        return AnomalyScoreDisplay.from_estimator(detector, X, y, **params)

    def plot(
        self,
        *,
        ax: Any = None,
        max_features: int = 20,
        cmap: Any = None,
        colorbar: bool = True,
        **artist_params: Any,
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
            Colours of contributions; by default "Reds" from 0 on, or "RdBu_r" around 0 if some are negative, as they
            are with densities.
        colorbar : bool, default=True
            Whether to add the scale of those colours.
        **artist_params
            Passed to a signal's ``plot``, a table row's ``barh``, or the ``imshow`` of the map.

        Returns
        -------
        self
        """
        pyplot = load_pyplot()
        self.lines_: list[Any] = []
        self.maps_: list[Any] = []
        self.bars_, self.colorbar_ = None, None
        if self.contributions.ndim == 1:
            self._draw_bars(pyplot, ax, check_count("max_features", max_features), artist_params)
        elif self.contributions.ndim == 2:
            self._draw_signal(pyplot, ax, cmap, artist_params)
        else:
            self._draw_picture(pyplot, ax, cmap, artist_params)
        self.figure_ = self.axes_[0].figure
        if self.maps_ and colorbar:
            self.colorbar_ = self.figure_.colorbar(self.maps_[0], ax=list(self.axes_), label="contribution")
        self.axes_[0].set_title(self._title())
        return self

    def _title(self) -> str:
        row = "" if self.index is None else f"row {self.index}: "
        verdict = "anomaly" if self.score > self.threshold else "normal"
        p_value = "" if self.p_value is None else f", p = {self.p_value:.2g}"
        return f"{row}{verdict}\nscore {self.score:.4g}, threshold {self.threshold:.4g}{p_value}"

    def _draw_bars(self, pyplot: Any, ax: Any, max_features: int, params: dict[str, Any]) -> None:
        """A bar a feature, the largest on top, and one for those that are left out."""
        order = np.argsort(-self.contributions, kind="stable")
        shown, others = order[:max_features], order[max_features:]
        names = [f"x{j}" for j in range(len(order))] if self.names is None else self.names
        labels = [f"{names[j]} = {_shown(self.sample[j])}" for j in shown]
        widths, colours = list(self.contributions[shown]), ["C0"] * len(shown)
        if len(others):
            labels.append(f"{len(others)} other{'s' if len(others) > 1 else ''}")
            widths.append(self.contributions[others].sum())
            colours.append("0.7")
        self.axes_ = divide_axes(pyplot, ax, 1, 1, "row", size=(6.0, 0.28 * len(widths) + 0.5))
        panel, places = self.axes_[0], np.arange(len(widths))
        self.bars_ = panel.barh(places, widths, **{"color": colours} | params)
        panel.set_yticks(places, labels)
        panel.invert_yaxis()
        panel.set_xlabel("contribution")

    def _draw_signal(self, pyplot: Any, ax: Any, cmap: Any, params: dict[str, Any]) -> None:
        """The waveform of each channel over its contributions, whose colours compare between the channels."""
        n_channels, n_times = self.contributions.shape
        step = 1.0 / (self.sampling_rate or 1.0)
        edges = (np.arange(n_times + 1) - 0.5) * step
        self.axes_ = divide_axes(pyplot, ax, n_channels, 1, "channel", share_y=False)
        for j, panel in enumerate(self.axes_):
            self.lines_ += panel.plot(
                np.arange(n_times) * step, self.sample[j], **{"color": "0.1", "linewidth": 1.0} | params
            )
            low, high = panel.get_ylim()
            band = self.contributions[None, j]
            whole_height = {"transform": panel.get_xaxis_transform(), "zorder": 0, "rasterized": True}
            self.maps_.append(
                panel.pcolormesh(edges, [0, 1], band, **_colours(self.contributions, cmap), **whole_height)
            )
            panel.set(xlim=(edges[0], edges[-1]), ylim=(low, high))
            if self.names is not None:
                panel.set_ylabel(str(self.names[j]))
        self.axes_[-1].set_xlabel("time [s]" if self.sampling_rate else "time [samples]")

    def _draw_picture(self, pyplot: Any, ax: Any, cmap: Any, params: dict[str, Any]) -> None:
        """An image, or the slice of a field (first axis) that contributes most, and the map of its contributions."""
        picture, channel = self.sample, self.channel
        found = self.contributions.sum(axis=0) if channel is None else self.contributions[channel]
        if picture.ndim == 4:
            deepest = int(np.argmax(found.sum(axis=(1, 2))))
            picture, found, channel = picture[:, deepest], found[deepest], channel or 0
        self.axes_ = divide_axes(pyplot, ax, 2, 2, "picture", size=(3.4, 3.2))
        SampleGridDisplay.from_samples(picture[None], channel=channel, ax=self.axes_[0])
        self.maps_ = [self.axes_[1].imshow(found, **_colours(found, cmap) | {"interpolation": "nearest"} | params)]
        self.axes_[1].set_axis_off()


def _sample_of(row: Any) -> NDArray[Any]:
    """One row as numbers; the cells of a mixed table as they are."""
    try:
        return as_array(row)[0]
    except (TypeError, ValueError):
        return np.asarray(row, dtype=object)[0]


def _shown(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, (int, float, np.number)) and not isinstance(cell, bool) else f"{cell}"


def _row(X: Any, index: int) -> Any:
    """One row of X, as an X of one row."""
    n_rows = X.shape[0] if getattr(X, "shape", ()) else len(X)
    index = check_count("index", index, 0, n_rows - 1, f" for X with {n_rows} rows")
    if hasattr(X, "iloc"):
        return X.iloc[[index]]
    return X[index : index + 1] if hasattr(X, "shape") else [X[index]]


def _check_options(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Raise a ValueError for options that samples of this shape do not have, or that do not fit them."""
    for name, value in options.items():
        dimensions, made_for = _MADE_FOR[name]
        if value is not None and len(shape) not in dimensions:
            raise ValueError(f"{name} is for {made_for}; each row of X has shape {shape}.")
    check_labels("feature_names", options["feature_names"], shape[0], "features")
    check_labels("channel_names", options["channel_names"], shape[0], "channels")
    if options["sampling_rate"] is not None:
        check_number("sampling_rate", options["sampling_rate"], 0.0, open_low=True)
    if options["channel"] is not None:
        check_count("channel", options["channel"], 0, shape[0] - 1, f" for samples with {shape[0]} channels")


def _columns(detector: Any, X: Any) -> list[str] | None:
    """Names of the columns, those of X or of the data of `fit`, if there are any."""
    names = getattr(X, "columns", None)
    names = getattr(detector, "feature_names_in_", None) if names is None else names
    return None if names is None else [str(name) for name in names]


def _colours(contributions: Floats, cmap: Any) -> dict[str, Any]:
    """The scale on which contributions are coloured: from 0 on, or around 0."""
    low, high = float(contributions.min()), float(contributions.max())
    if low >= 0:
        return {"cmap": cmap or "Reds", "vmin": 0.0, "vmax": high or 1.0}
    largest = max(-low, high)
    return {"cmap": cmap or "RdBu_r", "vmin": -largest, "vmax": largest}
