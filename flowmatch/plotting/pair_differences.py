"""Differences of the associations between a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_number
from flowmatch.metrics.associations import associations
from flowmatch.metrics.tables import read_tables
from flowmatch.plotting._common import as_array, check_labels, load_pyplot

_FAINT = 0.2


class PairDifferenceDisplay:
    """A heat map: by how much the association of two columns is larger in synthetic rows than in real ones.

    Two numbers are associated by Spearman's correlation, a category and a number by the correlation ratio, two
    categories by Cramer's V; see `flowmatch.metrics.report`.

    Make one with `from_samples`, or with `from_report` from a report at hand.

    Parameters
    ----------
    difference : array-like of shape (d, d)
        Synthetic minus real.
    names : sequence of str
        Of the d columns.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage
    colorbar_ : matplotlib Colorbar

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import PairDifferenceDisplay
    >>> real, synthetic = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> PairDifferenceDisplay.from_samples(real, synthetic).figure_.savefig("pairs.png")  # doctest: +SKIP
    """

    def __init__(self, difference: ArrayLike, names: Sequence[str]) -> None:
        self.difference = difference
        self.names = names

    @classmethod
    def from_samples(
        cls, real: Any, synthetic: Any, *, categorical_features: Any = "auto", ax: Any = None, **plot_params: Any
    ) -> Self:
        """Measure all pairs of columns of two samples, on all of their rows, and plot.

        Parameters
        ----------
        real, synthetic : array-like, tensor or DataFrame of shape (n, d) and (m, d)
            As `flowmatch.metrics.report` takes them.
        categorical_features : "auto", None or array-like of str, int or bool, default="auto"
            See `flowmatch.metrics.report`.
        ax : matplotlib Axes, optional
        **plot_params
            See `plot`.

        Returns
        -------
        display : PairDifferenceDisplay

        Raises
        ------
        ValueError
            If the samples have different columns.
        """
        tables = read_tables({"real": real, "synthetic": synthetic}, categorical_features)
        first, second = (associations(tables.rows[side], tables) for side in ("real", "synthetic"))
        return cls(second - first, tables.names).plot(ax=ax, **plot_params)

    @classmethod
    def from_report(cls, report: Any, *, ax: Any = None, **plot_params: Any) -> Self:
        """Plot the pairs of a `flowmatch.metrics.SampleReport`; see `plot` for the parameters.

        Raises
        ------
        ValueError
            If the report has no pairs, as those of grids have not.
        """
        if not getattr(report, "pairs", None):
            raise ValueError(
                f"report has no pairs of columns; expected that of tables of 2 to 500 columns, got {report!r}."
            )
        names = list(report.columns)
        upper = np.zeros((len(names), len(names)))
        upper[np.triu_indices(len(names), 1)] = [pair["difference"] for pair in report.pairs]
        return cls(upper + upper.T, names).plot(ax=ax, **plot_params)

    def plot(self, *, ax: Any = None, limit: float | None = None, cmap: Any = "RdBu_r", **image_params: Any) -> Self:
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        limit : float, optional
            Difference of the strongest colours; by default the largest there is, but at least 0.2, so that chance
            looks faint.
        cmap : str or matplotlib Colormap, default="RdBu_r"
        **image_params
            Passed to ``ax.imshow``.

        Returns
        -------
        self
        """
        pyplot = load_pyplot()
        difference = as_array(self.difference)
        if difference.ndim != 2 or difference.shape[0] != difference.shape[1]:
            raise ValueError(f"difference has shape {difference.shape}; expected a square matrix, a column each.")
        check_labels("names", self.names, len(difference), "columns")
        if limit is None:
            limit = max(_FAINT, float(np.abs(difference).max()))
        check_number("limit", limit, 0.0, open_low=True)
        if ax is None:
            side = 2.5 + 0.3 * min(len(difference), 40)
            _, ax = pyplot.subplots(figsize=(side + 2.0, side), layout="constrained")
        self.image_ = ax.imshow(difference, **{"cmap": cmap, "vmin": -limit, "vmax": limit} | image_params)
        ax.set_xticks(np.arange(len(self.names)), self.names, rotation=45, ha="right")
        ax.set_yticks(np.arange(len(self.names)), self.names)
        self.colorbar_ = ax.figure.colorbar(self.image_, ax=ax, label="association, synthetic - real")
        self.ax_, self.figure_ = ax, ax.figure
        return self
