"""The columns of a table, real beside synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_count
from flowmatch.metrics.tables import Tables, find_column, read_tables
from flowmatch.plotting._common import divide_axes, load_pyplot

_COLUMNS = 4


class MarginalsDisplay:
    """Histograms of a table's numbers and bars of its categories, of real and of synthetic rows.

    Make one with `from_samples`.

    Parameters
    ----------
    tables : flowmatch.metrics.tables.Tables
        Rows "real" and "synthetic".
    columns : sequence of int
        Positions of the columns shown, a panel each.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One a column.
    figure_ : matplotlib Figure
    shares_ : list of ndarray of shape (2, n_bars)
        What is drawn in each panel, of real and of synthetic rows: the share of observed cells in each bin; or the
        share of rows of each level, then of all further levels, then of missing cells, where there are any.

    See Also
    --------
    PairDifferenceDisplay : Differences of the associations of columns.
    flowmatch.metrics.report : Numbers for both.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import MarginalsDisplay
    >>> real, synthetic = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> MarginalsDisplay.from_samples(real, synthetic).figure_.savefig("columns.png")  # doctest: +SKIP
    """

    def __init__(self, tables: Tables, columns: Sequence[int]) -> None:
        self.tables = tables
        self.columns = columns

    @classmethod
    def from_samples(
        cls,
        real: Any,
        synthetic: Any,
        *,
        columns: Sequence[str | int] | None = None,
        categorical_features: Any = "auto",
        max_columns: int = 16,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot the columns of two samples.

        Parameters
        ----------
        real, synthetic : array-like, tensor or DataFrame of shape (n, d) and (m, d)
            Numbers, dates, categories and missing cells, as `flowmatch.metrics.report` takes them.
        columns : sequence of str or int, optional
            Names or positions of the columns to show; by default the first `max_columns`.
        categorical_features : "auto", None or array-like of str, int or bool, default="auto"
            Columns of categories by name, by position or as a mask. "auto": those of text, booleans and pandas'
            category.
        max_columns : int, default=16
            Ignored if `columns` are given.
        ax : matplotlib Axes, or array of them, optional
        **plot_params
            See `plot`.

        Returns
        -------
        display : MarginalsDisplay

        Raises
        ------
        ValueError
            If the samples have different columns, or there is no such column.
        """
        check_count("max_columns", max_columns)
        tables = read_tables({"real": real, "synthetic": synthetic}, categorical_features)
        if columns is None:
            return cls(tables, range(min(len(tables.names), max_columns))).plot(ax=ax, **plot_params)
        if isinstance(columns, str) or not len(columns):
            raise ValueError(f"columns must be a sequence of names or positions, at least one, got {columns!r}.")
        chosen = [find_column("columns", column, tables.names) for column in columns]
        return cls(tables, chosen).plot(ax=ax, **plot_params)

    def plot(
        self,
        *,
        ax: Any = None,
        bins: int = 20,
        max_levels: int = 8,
        colors: tuple[Any, Any] = ("C0", "C1"),
        labels: tuple[str, str] = ("real", "synthetic"),
    ) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes, or array of them, optional
            One a column, or one that is divided; by default a figure of its own.
        bins : int, default=20
            Of the histograms, over the range of both samples; fewer where whole numbers are better divided so.
        max_levels : int, default=8
            The most frequent levels that get bars of their own.
        colors : (colour, colour), default=("C0", "C1")
        labels : (str, str), default=("real", "synthetic")

        Returns
        -------
        self
        """
        pyplot = load_pyplot()
        from matplotlib import dates

        check_count("bins", bins)
        check_count("max_levels", max_levels)
        n_columns = min(_COLUMNS, len(self.columns))
        self.axes_ = divide_axes(
            pyplot, ax, len(self.columns), n_columns, "column", size=(2.8, 2.2), share_x=False, share_y=False
        )
        self.figure_ = self.axes_[0].figure
        self.shares_: list[NDArray[np.float64]] = []
        for panel, column in zip(self.axes_, self.columns, strict=True):
            cells = [self.tables.rows[side][:, column] for side in ("real", "synthetic")]
            if self.tables.kinds[column] != "category":
                self.shares_.append(_histograms(panel, cells, bins, colors, labels))
            else:
                levels = self.tables.levels[column]
                self.shares_.append(_bars(panel, cells, levels[:max_levels], colors, labels))
            panel.set_title(self._title(column, cells), fontsize="medium")
            if self.tables.kinds[column] == "date":
                panel.xaxis_date()  # days since 1970, as matplotlib counts them
                panel.xaxis.set_major_formatter(dates.ConciseDateFormatter(panel.xaxis.get_major_locator()))
        self.axes_[0].set_ylabel("share of rows")
        self.axes_[0].margins(y=0.35)  # room for the legend
        self.axes_[0].legend(fontsize="small", ncols=2, loc="upper center")
        return self

    def _title(self, column: int, cells: list[NDArray[np.float64]]) -> str:
        name = self.tables.names[column]
        missing = [float(np.isnan(side).mean()) for side in cells]
        if self.tables.kinds[column] == "category" or not any(missing):
            return name
        return f"{name}\nmissing {missing[0]:.1%}, {missing[1]:.1%}"


def _histograms(
    ax: Any, cells: list[NDArray[np.float64]], bins: int, colors: Sequence[Any], labels: Sequence[str]
) -> NDArray[np.float64]:
    """Shares of the observed cells in common bins, real filled, synthetic as a line."""
    observed = [side[~np.isnan(side)] for side in cells]
    pooled = np.concatenate(observed)
    edges = _edges(pooled, bins)
    shares = np.array([np.histogram(side, edges)[0] / max(len(side), 1) for side in observed])
    ax.stairs(shares[0], edges, fill=True, color=colors[0], alpha=0.4, label=labels[0])
    ax.stairs(shares[1], edges, color=colors[1], linewidth=1.5, label=labels[1])
    ax.locator_params(axis="x", nbins=4)
    return shares


def _edges(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Equal bins, at most so many; of whole numbers they hold equally many of them."""
    if len(values) == 0 or (values != np.round(values)).any():
        return np.histogram_bin_edges(values if len(values) else [0.0, 1.0], bins)
    width = np.ceil((np.ptp(values) + 1) / bins)
    return np.arange(values.min() - 0.5, values.max() + 0.5 + width, width)


def _bars(
    ax: Any, cells: list[NDArray[np.float64]], shown: list[str], colors: Sequence[Any], labels: Sequence[str]
) -> NDArray[np.float64]:
    """Shares of the levels shown, of the others and of missing cells, two bars each."""
    n = len(shown)
    groups = [np.where(np.isnan(side), n + 1, np.minimum(side, n)).astype(np.intp) for side in cells]
    shares = np.array([np.bincount(side, minlength=n + 2) / len(side) for side in groups])
    kept = np.r_[np.ones(n, dtype=bool), shares[:, n:].any(axis=0)]
    texts = [text for text, keep in zip([*shown, "(others)", "(missing)"], kept, strict=True) if keep]
    shares = shares[:, kept]
    places = np.arange(len(texts))
    for side, (share, color, label) in enumerate(zip(shares, colors, labels, strict=True)):
        ax.bar(places + 0.4 * side - 0.2, share, width=0.4, color=color, label=label, alpha=0.7)
    turned = sum(map(len, texts)) > 20
    ax.set_xticks(places, texts, fontsize="small", rotation=45 if turned else 0, ha="right" if turned else "center")
    return shares
