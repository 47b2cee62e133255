"""Images and slices of fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_count
from flowmatch.plotting._common import Floats, as_array, check_one_label_each, draw_samples, finite_range, one_axes

_COLORS = (1, 3, 4)
_COLUMNS = 8
_MARGIN = 0.9  # inches around a grid, for its labels


@dataclass(eq=False, repr=False)
class SampleGridDisplay:
    """A grid of pictures: images, or slices of fields.

    Make one with `from_estimator` or `from_samples`.

    Parameters
    ----------
    pictures : ndarray of shape (n, height, width, n_colors)
        In reading order, with 1 (gray), 3 (RGB) or 4 (RGBA) colors.
    n_columns : int
        Pictures in a row.
    row_labels, column_labels : sequence, optional
        Shown to the left and above.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes of the whole grid.
    figure_ : matplotlib Figure
        That holds it.
    image_ : matplotlib AxesImage
        The grid is one image.

    See Also
    --------
    SignalGridDisplay : Signals.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import SampleGridDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, size=(20, 1, 8, 8))
    >>> display = SampleGridDisplay.from_samples(X, row_labels=["1 step", "8 steps"])  # doctest: +SKIP
    >>> display.figure_.savefig("grid.png")  # doctest: +SKIP
    """

    pictures: Floats
    _: KW_ONLY
    n_columns: int
    row_labels: Sequence[Any] | None = None
    column_labels: Sequence[Any] | None = None

    @classmethod
    def from_samples(
        cls,
        X: ArrayLike,
        *,
        n_columns: int | None = None,
        row_labels: Sequence[Any] | None = None,
        column_labels: Sequence[Any] | None = None,
        channel: int | None = None,
        slice_axis: int = 0,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot samples in reading order.

        Parameters
        ----------
        X : array-like of shape (n, n_channels, height, width) or (n, n_channels, depth, height, width)
            Images, or fields, of which the middle slice is shown.
        n_columns : int, optional
            By default as many as there are column labels, or as the row labels ask for, or a square.
        row_labels, column_labels : sequence, optional
            One a row, one a column.
        channel : int, optional
            Show one channel in gray. By default images show all (1, 3 or 4 of them), fields their first.
        slice_axis : {0, 1, 2}, default=0
            For fields, the axis (depth, height, width) that is cut in the middle.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        SampleGridDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the samples have another shape or the labels another number.
        """
        pictures = _pictures(as_array(X), channel, slice_axis)
        if n_columns is None and column_labels is not None:
            n_columns = max(1, len(column_labels))
        elif n_columns is None:
            n_columns = -(-len(pictures) // len(row_labels)) if row_labels else math.ceil(math.sqrt(len(pictures)))
        check_count("n_columns", n_columns)
        check_one_label_each("column_labels", column_labels, n_columns, "columns")
        check_one_label_each("row_labels", row_labels, -(-len(pictures) // n_columns), "rows")
        display = cls(pictures, n_columns=n_columns, row_labels=row_labels, column_labels=column_labels)
        return display.plot(ax=ax, **plot_params)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        y: ArrayLike | None = None,
        *,
        n_rows: int = 4,
        random_state: Any = None,
        sample_params: Mapping[str, Any] | None = None,
        **display_params: Any,
    ) -> Self:
        """Draw samples from an estimator and plot them, a condition a column.

        Parameters
        ----------
        estimator : fitted generator of images or fields
            Such as a `FlowMatchingGenerator`.
        y : array-like of shape (n_columns,) or (n_columns, k), optional
            Conditions of the columns; all labels by default. An estimator without labels fills 8 columns.
        n_rows : int, default=4
            Samples a column.
        random_state : int, RandomState or None, default=None
            Seed of the samples.
        sample_params : mapping, optional
            More arguments of the estimator's `sample`, such as ``{"guidance_scale": 2}``.
        **display_params
            See `from_samples`.

        Returns
        -------
        SampleGridDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the samples are not images or fields, or a parameter is out of range.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_count("n_rows", n_rows)
        X, labels = draw_samples(estimator, y, n_rows, n_rows * _COLUMNS, random_state, sample_params)
        columns = {"n_columns": _COLUMNS} if labels is None else {"column_labels": labels}
        return cls.from_samples(X, **columns | display_params)

    def plot(
        self,
        *,
        ax: Any = None,
        value_range: tuple[float, float] | None = None,
        gap: int = 1,
        cmap: Any = "gray",
        **image_params: Any,
    ) -> Self:
        """Draw the grid.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        value_range : (float, float), optional
            Values shown as black and white (or as no and full color); by default the smallest and the largest.
        gap : int, default=1
            Pixels between two pictures.
        cmap : str or matplotlib Colormap, default="gray"
            Colors of pictures with one channel.
        **image_params
            Passed to ``ax.imshow``.

        Returns
        -------
        SampleGridDisplay
            The display itself.
        """
        check_count("gap", gap, low=0)
        n, height, width, _ = self.pictures.shape
        inch = max(0.5, min(1.0, 12 / self.n_columns))
        n_rows = -(-n // self.n_columns)
        self.ax_ = one_axes(ax, (self.n_columns * inch + _MARGIN, n_rows * inch * height / width + _MARGIN))
        low, high = value_range or finite_range(self.pictures)
        shown = (self.pictures - low) / max(high - low, np.finfo(float).tiny)
        params = {"cmap": cmap, "vmin": 0, "vmax": 1, "interpolation": "nearest"} | image_params
        self.image_ = self.ax_.imshow(_mosaic(shown.clip(0, 1), self.n_columns, gap), **params)
        labeled = ((self.ax_.yaxis, self.row_labels, height), (self.ax_.xaxis, self.column_labels, width))
        for axis, labels, size in labeled:  # one tick in the middle of each row or column
            texts = [str(label) for label in ([] if labels is None else labels)]
            axis.set_ticks(np.arange(len(texts)) * (size + gap) + (size - 1) / 2, texts)
        self.ax_.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        self.ax_.spines[:].set_visible(False)
        self.figure_ = self.ax_.figure
        return self


def _pictures(X: Floats, channel: int | None, slice_axis: int) -> Floats:
    """Images (n, C, H, W) or middle slices of fields (n, C, D, H, W) as pictures (n, H, W, 1 | 3 | 4)."""
    if X.ndim not in (4, 5) or 0 in X.shape:
        hint = " One-channel images are X[:, None]; signals have a SignalGridDisplay." if X.ndim == 3 else ""
        raise ValueError(f"X has shape {X.shape}; images are (n, C, H, W), fields (n, C, D, H, W).{hint}")
    if X.ndim == 5:
        axis = check_count("slice_axis", slice_axis, 0, 2) + 2
        X = X.take(X.shape[axis] // 2, axis=axis)
        channel = 0 if channel is None else channel
    if channel is not None:
        check_count("channel", channel, 0, X.shape[1] - 1, f" for samples with {X.shape[1]} channels")
        X = X[:, [channel]]
    if X.shape[1] not in _COLORS:
        last = X.shape[-1] in _COLORS
        hint = "this looks like channels last: pass X.transpose(0, 3, 1, 2)" if last else "choose one with channel=0"
        raise ValueError(f"X has {X.shape[1]} channels; pictures show 1 (gray), 3 (RGB) or 4 (RGBA): {hint}.")
    return X.transpose(0, 2, 3, 1)


def _mosaic(pictures: Floats, n_columns: int, gap: int) -> Floats:
    """Pictures (n, H, W, c) as one picture, nothing (NaN, or no opacity) in between."""
    n, height, width, n_colors = pictures.shape
    n_rows = -(-n // n_columns)
    added = [(0, n_rows * n_columns - n), (0, gap), (0, gap), (0, 0)]
    tiles = np.pad(pictures, added, constant_values=np.nan)
    tiles = tiles.reshape(n_rows, n_columns, *tiles.shape[1:]).swapaxes(1, 2)
    mosaic = tiles.reshape(n_rows * (height + gap), n_columns * (width + gap), n_colors)
    mosaic = mosaic[: mosaic.shape[0] - gap, : mosaic.shape[1] - gap]
    if n_colors == 1:
        return mosaic[:, :, 0]
    opacity = np.isfinite(mosaic).all(axis=2, keepdims=True) * (mosaic[:, :, 3:] if n_colors == 4 else 1.0)
    return np.nan_to_num(np.concatenate([mosaic[:, :, :3], opacity], axis=2))
