"""Differences of the associations between a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_number
from flowmatch.metrics.associations import associations
from flowmatch.metrics.table_reader import read_tables
from flowmatch.plotting._common import as_array, check_one_label_each, one_axes

_FAINT = 0.2


@dataclass(eq=False, repr=False)
class PairDifferenceDisplay:
    """A heat map: by how much the association of two columns is larger in synthetic rows than in real ones.

    Two numeric columns are associated by Spearman's correlation, a numeric column and categories by the correlation
    ratio, two columns of categories by Cramer's V; see `flowmatch.metrics.report`.

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
        With the heat map.
    figure_ : matplotlib Figure
        That holds it.
    image_ : matplotlib AxesImage
        The heat map.
    colorbar_ : matplotlib Colorbar
        Its scale.

    See Also
    --------
    MarginalsDisplay : The columns themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import PairDifferenceDisplay
    >>> real, synthetic = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> PairDifferenceDisplay.from_samples(real, synthetic).figure_.savefig("pairs.png")  # doctest: +SKIP
    """

    difference: ArrayLike
    names: Sequence[str]

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
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        PairDifferenceDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the samples have different columns.
        """
        tables = read_tables({"real": real, "synthetic": synthetic}, categorical_features)
        first, second = (associations(rows, tables) for rows in tables.rows.values())
        return cls(second - first, tables.names).plot(ax=ax, **plot_params)

    @classmethod
    def from_report(cls, report: Any, *, ax: Any = None, **plot_params: Any) -> Self:
        """Plot the pairs of a report.

        Parameters
        ----------
        report : SampleReport
            See `flowmatch.metrics.report`.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        PairDifferenceDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the report has no pairs, as those of grids have not.
        """
        if not getattr(report, "pairs", None):
            raise ValueError(
                f"report has no pairs of columns (those of tables of 2 to 500 columns have), got {report!r}."
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
            Difference of the strongest colors; by default the largest there is, but at least 0.2, so that chance
            looks faint.
        cmap : str or matplotlib Colormap, default="RdBu_r"
            Colors from -limit to limit.
        **image_params
            Passed to ``ax.imshow``.

        Returns
        -------
        PairDifferenceDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the difference is not a square matrix, the names do not fit it, or the limit is not positive.
        """
        difference = as_array(self.difference)
        if difference.ndim != 2 or difference.shape[0] != difference.shape[1]:
            raise ValueError(f"difference has shape {difference.shape}; expected a square matrix, a column each.")
        check_one_label_each("names", self.names, len(difference), "columns")
        limit = max(_FAINT, float(np.abs(difference).max())) if limit is None else limit
        check_number("limit", limit, 0.0, open_low=True)
        side = 2.5 + 0.3 * min(len(difference), 40)
        self.ax_ = one_axes(ax, (side + 2.0, side))
        self.image_ = self.ax_.imshow(difference, **{"cmap": cmap, "vmin": -limit, "vmax": limit} | image_params)
        positions = np.arange(len(difference))
        self.ax_.set_xticks(positions, self.names, rotation=45, ha="right")
        self.ax_.set_yticks(positions, self.names)
        self.figure_ = self.ax_.figure
        self.colorbar_ = self.figure_.colorbar(self.image_, ax=self.ax_, label="association, synthetic - real")
        return self
