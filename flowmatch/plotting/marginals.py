"""The columns of a table, real beside synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from flowmatch.core.checks import check_count
from flowmatch.metrics.table_reader import SampleTables, find_column, read_tables
from flowmatch.plotting._common import Floats, divide_axes

_COLUMNS = 4


@dataclass(eq=False, repr=False)
class MarginalsDisplay:
    """Histograms of a table's numeric columns and bars of its categories, of real and of synthetic rows.

    Make one with `from_samples`.

    Parameters
    ----------
    tables : flowmatch.metrics.table_reader.SampleTables
        Rows "real" and "synthetic".
    columns : sequence of int
        Positions of the columns shown, a panel each.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One a column.
    figure_ : matplotlib Figure
        That holds them.
    shares_ : list of ndarray of shape (2, n_bars)
        What is drawn in each panel, of real and of synthetic rows: the share of observed entries in each bin; or the
        share of rows of each level, then of all further levels, then of missing entries, where there are any.

    See Also
    --------
    PairDifferenceDisplay : Differences of the associations of columns.
    flowmatch.metrics.report : Measures of both.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import MarginalsDisplay
    >>> real, synthetic = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> MarginalsDisplay.from_samples(real, synthetic).figure_.savefig("columns.png")  # doctest: +SKIP
    """

    tables: SampleTables
    columns: Sequence[int]

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
            Numbers, dates, categories and missing entries, as `flowmatch.metrics.report` takes them.
        columns : sequence of str or int, optional
            Names or positions of the columns to show; by default the first `max_columns`.
        categorical_features : "auto", None or array-like of str, int or bool, default="auto"
            Columns of categories by name, by position or as a mask. "auto": those of text, booleans and pandas'
            category.
        max_columns : int, default=16
            Ignored if `columns` are given.
        ax : matplotlib Axes, or array of them, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        MarginalsDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the samples have different columns, or there is no such column.
        """
        check_count("max_columns", max_columns)
        tables = read_tables({"real": real, "synthetic": synthetic}, categorical_features)
        if columns is None:
            columns = range(min(len(tables.names), max_columns))
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
        colors : (color, color), default=("C0", "C1")
            Of real and of synthetic rows.
        labels : (str, str), default=("real", "synthetic")
            For the legend.

        Returns
        -------
        MarginalsDisplay
            The display itself.
        """
        check_count("bins", bins)
        check_count("max_levels", max_levels)
        n = len(self.columns)
        self.axes_ = divide_axes(ax, n, min(_COLUMNS, n), "column", size=(2.8, 2.2), share=(False, False))
        self.figure_ = self.axes_[0].figure
        self.shares_: list[Floats] = []
        for panel, j in zip(self.axes_, self.columns, strict=True):
            sides = [self.tables.rows[side][:, j] for side in ("real", "synthetic")]
            title = self.tables.names[j]
            if self.tables.kinds[j] == "category":
                self.shares_.append(_bars(panel, sides, self.tables.levels[j][:max_levels], colors, labels))
            else:
                self.shares_.append(_histograms(panel, sides, bins, colors, labels))
                missing = [float(np.isnan(side).mean()) for side in sides]
                title += f"\nmissing {missing[0]:.1%}, {missing[1]:.1%}" if any(missing) else ""
            if self.tables.kinds[j] == "date":
                _show_dates(panel)
            panel.set_title(title, fontsize="medium")
        self.axes_[0].set_ylabel("share of rows")
        self.axes_[0].margins(y=0.35)  # room for the legend
        self.axes_[0].legend(fontsize="small", ncols=2, loc="upper center")
        return self


def _show_dates(panel: Any) -> None:
    """Label days since 1970, as matplotlib counts them, by dates."""
    from matplotlib.dates import ConciseDateFormatter

    panel.xaxis_date()
    panel.xaxis.set_major_formatter(ConciseDateFormatter(panel.xaxis.get_major_locator()))


def _histograms(panel: Any, sides: list[Floats], bins: int, colors: Sequence[Any], labels: Sequence[str]) -> Floats:
    """Shares of the observed entries in common bins, real filled, synthetic as a line."""
    observed = [side[~np.isnan(side)] for side in sides]
    edges = _edges(np.concatenate(observed), bins)
    shares = np.array([np.histogram(side, edges)[0] / max(len(side), 1) for side in observed])
    panel.stairs(shares[0], edges, fill=True, color=colors[0], alpha=0.4, label=labels[0])
    panel.stairs(shares[1], edges, color=colors[1], linewidth=1.5, label=labels[1])
    panel.locator_params(axis="x", nbins=4)
    return shares


def _edges(values: Floats, bins: int) -> Floats:
    """Equal bins, at most so many; of whole numbers they hold equally many of them."""
    if len(values) == 0 or (values != np.round(values)).any():
        return np.histogram_bin_edges(values if len(values) else [0.0, 1.0], bins)
    width = np.ceil((np.ptp(values) + 1) / bins)
    return np.arange(values.min() - 0.5, values.max() + 0.5 + width, width)


def _bars(panel: Any, sides: list[Floats], shown: list[str], colors: Sequence[Any], labels: Sequence[str]) -> Floats:
    """Shares of the levels shown, of the others and of missing entries, two bars each."""
    n = len(shown)
    groups = [np.where(np.isnan(side), n + 1, np.minimum(side, n)).astype(np.intp) for side in sides]
    shares = np.array([np.bincount(group, minlength=n + 2) / len(group) for group in groups])
    kept = [*range(n), *(n + np.flatnonzero(shares[:, n:].any(axis=0)))]
    texts, shares = [[*shown, "(others)", "(missing)"][k] for k in kept], shares[:, kept]
    positions = np.arange(len(texts))
    for share, color, label, shift in zip(shares, colors, labels, (-0.2, 0.2), strict=True):
        panel.bar(positions + shift, share, width=0.4, color=color, label=label, alpha=0.7)
    turned = sum(map(len, texts)) > 20
    params = {"rotation": 45, "ha": "right"} if turned else {}
    panel.set_xticks(positions, texts, fontsize="small", **params)
    return shares
