"""Real and synthetic rows in one plane."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_count
from flowmatch.metrics.tables import Encoding, read_tables
from flowmatch.plotting._common import load_pyplot


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
    figure_ : matplotlib Figure
    points_ : dict of matplotlib PathCollection
        By label.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import EmbeddingDisplay
    >>> real, synthetic = np.random.default_rng(0).normal(size=(2, 100, 3))
    >>> EmbeddingDisplay.from_samples(real, synthetic).figure_.savefig("rows.png")  # doctest: +SKIP
    """

    def __init__(
        self, real: NDArray[np.float64], synthetic: NDArray[np.float64], explained: tuple[float, float]
    ) -> None:
        self.real = real
        self.synthetic = synthetic
        self.explained = explained

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

        The space is that of `flowmatch.metrics.report`: standardised numbers, and categories one-hot over sqrt(2). Its
        principal axes are those of all real rows (scikit-learn's PCA), so that synthetic rows do not turn them.

        Parameters
        ----------
        real, synthetic : array-like, tensor or DataFrame of shape (n, ...) and (m, ...)
            As `flowmatch.metrics.report` takes them.
        categorical_features : "auto", None or array-like of str, int or bool, default="auto"
            See `flowmatch.metrics.report`.
        max_rows : int, default=2000
            Rows a side to show, chosen at random.
        random_state : int, Generator or None, default=0
            Of that choice.
        ax : matplotlib Axes, optional
        **plot_params
            See `plot`.

        Returns
        -------
        display : EmbeddingDisplay

        Raises
        ------
        ValueError
            If the samples have different columns, or fewer than two after encoding.
        """
        from sklearn.decomposition import PCA

        check_count("max_rows", max_rows)
        tables = read_tables({"real": real, "synthetic": synthetic}, categorical_features)
        encoding, rng = Encoding.of(tables), np.random.default_rng(random_state)
        encoded = encoding(tables.rows["real"])
        if min(encoded.shape) < 2:
            raise ValueError(
                f"real has {encoded.shape[0]} rows of {encoded.shape[1]} numbers after encoding; expected at least 2 "
                f"of both for two principal axes."
            )
        axes = PCA(2, random_state=0).fit(encoded)
        shown = [
            axes.transform(encoding(rng.permutation(tables.rows[side])[:max_rows])) for side in ("real", "synthetic")
        ]
        share = np.nan_to_num(axes.explained_variance_ratio_)
        return cls(shown[0], shown[1], (float(share[0]), float(share[1]))).plot(ax=ax, **plot_params)

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
        colors : (colour, colour), default=("C0", "C1")
        labels : (str, str), default=("real", "synthetic")
        **point_params
            Passed to both ``ax.scatter``.

        Returns
        -------
        self
        """
        pyplot = load_pyplot()
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        params: dict[str, Any] = {"s": 10, "alpha": 0.5, "linewidths": 0} | point_params
        self.points_ = {
            label: ax.scatter(rows[:, 0], rows[:, 1], color=color, label=label, **params)
            for rows, color, label in zip((self.real, self.synthetic), colors, labels, strict=True)
        }
        names = ("first", "second")
        texts = [f"{name} principal axis ({share:.0%})" for name, share in zip(names, self.explained, strict=True)]
        ax.set(xlabel=texts[0], ylabel=texts[1])
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
