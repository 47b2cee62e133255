"""Real and synthetic rows in one plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from flowmatch.core.checks import check_count
from flowmatch.core.randomness import seed_from
from flowmatch.metrics.table_reader import Encoding, read_tables
from flowmatch.plotting._common import Floats, one_axes


@dataclass(eq=False, repr=False)
class EmbeddingDisplay:
    """Real and synthetic rows on the two principal axes of the real ones.

    Make one with `from_samples`.

    Parameters
    ----------
    real, synthetic : ndarray of shape (n, 2) and (m, 2)
        Coordinates.
    explained : (float, float)
        Share of the real rows' variance along each axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the points.
    figure_ : matplotlib Figure
        That holds them.
    points_ : dict of matplotlib PathCollection
        By label.

    See Also
    --------
    MarginalsDisplay : Column by column.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import EmbeddingDisplay
    >>> real, synthetic = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> EmbeddingDisplay.from_samples(real, synthetic).figure_.savefig("rows.png")  # doctest: +SKIP
    """

    real: Floats
    synthetic: Floats
    explained: tuple[float, float]

    @classmethod
    def from_samples(
        cls,
        real: Any,
        synthetic: Any,
        *,
        categorical_features: Any = "auto",
        max_rows: int = 2000,
        random_state: Any = 0,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Project the rows of two samples, and plot.

        The space is that of `flowmatch.metrics.report`: standardized numeric columns, and categories one-hot over
        sqrt(2). Its principal axes are those of all real rows (scikit-learn's PCA), so that synthetic rows do not turn
        them.

        Parameters
        ----------
        real, synthetic : array-like, tensor or DataFrame of shape (n, ...) and (m, ...)
            As `flowmatch.metrics.report` takes them.
        categorical_features : "auto", None or array-like of str, int or bool, default="auto"
            See `flowmatch.metrics.report`.
        max_rows : int, default=2000
            Rows a side to show, chosen at random.
        random_state : int, RandomState, Generator or None, default=0
            Of that choice.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        EmbeddingDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the samples have different columns, or fewer than two after encoding.
        """
        from sklearn.decomposition import PCA

        check_count("max_rows", max_rows)
        tables = read_tables({"real": real, "synthetic": synthetic}, categorical_features)
        encoding, rng = Encoding.of(tables), np.random.default_rng(seed_from(random_state))
        encoded = encoding(tables.rows["real"])
        if min(encoded.shape) < 2:
            raise ValueError(f"real has shape {encoded.shape} after encoding; two principal axes need at least (2, 2).")
        axes = PCA(2, random_state=0).fit(encoded)
        real, synthetic = (axes.transform(encoding(rng.permutation(X)[:max_rows])) for X in tables.rows.values())
        first, second = np.nan_to_num(axes.explained_variance_ratio_).tolist()
        return cls(real, synthetic, (first, second)).plot(ax=ax, **plot_params)

    def plot(
        self,
        *,
        ax: Any = None,
        colors: tuple[Any, Any] = ("C0", "C1"),
        labels: tuple[str, str] = ("real", "synthetic"),
        **point_params: Any,
    ) -> Self:
        """Draw the rows.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        colors : (color, color), default=("C0", "C1")
            Of real and of synthetic rows.
        labels : (str, str), default=("real", "synthetic")
            For the legend.
        **point_params
            Passed to both ``ax.scatter``.

        Returns
        -------
        EmbeddingDisplay
            The display itself.
        """
        self.ax_ = one_axes(ax)
        params: dict[str, Any] = {"s": 10, "alpha": 0.5, "linewidths": 0} | point_params
        self.points_ = {
            label: self.ax_.scatter(*rows.T, color=color, label=label, **params)
            for rows, color, label in zip((self.real, self.synthetic), colors, labels, strict=True)
        }
        self.ax_.set_xlabel(f"first principal axis ({self.explained[0]:.0%})")
        self.ax_.set_ylabel(f"second principal axis ({self.explained[1]:.0%})")
        self.ax_.legend()
        self.figure_ = self.ax_.figure
        return self
