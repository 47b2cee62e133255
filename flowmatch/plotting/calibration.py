"""Whether forecasts' probabilities are right: ranks of outcomes, and how many their intervals hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from flowmatch import metrics
from flowmatch.core.checks import check_choice, check_count
from flowmatch.plotting._common import Floats, check_one_label_each, divide_axes, one_axes

_KINDS = ("interval", "quantile")


@dataclass(eq=False, repr=False)
class _RankDisplay(ABC):
    """What both displays are made of: ranks of outcomes on a scale from 0 to 1, and lead times."""

    pit: Floats
    _: KW_ONLY
    lead_times: Sequence[Any] | None = None

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        samples: ArrayLike,
        *,
        lead_times: Sequence[Any] | None = None,
        random_state: Any = 0,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot the calibration of draws at hand.

        Parameters
        ----------
        y_true : array-like of shape (n, ...)
            Outcomes.
        samples : array-like of shape (n_samples, n, ...)
            Their forecasts, members first.
        lead_times : sequence of length n_steps, optional
            Labels of axis 1 of `y_true`, each of which is then shown by itself. By default all elements together.
        random_state : int, Generator, RandomState or None, default=0
            Seeds ranks within gaps and among ties, see `flowmatch.metrics.pit_values`.
        ax : matplotlib Axes, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        display
            After `plot`.

        Raises
        ------
        ValueError
            If the shapes do not fit, or values are not finite.
        """
        pit = metrics.pit_values(y_true, samples, random_state=random_state)
        if lead_times is not None:
            if pit.ndim < 2:
                raise ValueError(f"lead_times are for outcomes of shape (n, n_steps, ...), got {pit.shape}.")
            check_one_label_each("lead_times", lead_times, pit.shape[1], "steps")
        return cls(pit, lead_times=lead_times).plot(ax=ax, **plot_params)

    @classmethod
    def from_estimator(
        cls,
        forecaster: Any,
        X: Any,
        y: Any,
        *,
        n_samples: int = 99,
        random_state: Any = 0,
        **display_params: Any,
    ) -> Self:
        """Plot the calibration of a fitted forecaster.

        Parameters
        ----------
        forecaster : fitted ConditionalForecaster, or an object with its `sample`
            Makes the draws.
        X : as in the forecaster's `sample`
            Contexts that were not trained on.
        y : array-like of shape (n, ...)
            What followed them.
        n_samples : int, default=99
            Draws for each context.
        random_state : int, RandomState or None, default=0
            Seed of the draws.
        **display_params
            See `from_predictions`.

        Returns
        -------
        display
            After `plot`.

        Raises
        ------
        ValueError
            As `from_predictions` does.
        sklearn.exceptions.NotFittedError
            If the forecaster is not fitted.
        """
        check_count("n_samples", n_samples)
        samples = forecaster.sample(X, n_samples=n_samples, random_state=random_state)
        return cls.from_predictions(np.asarray(y), samples, random_state=random_state, **display_params)

    @abstractmethod
    def plot(self, *, ax: Any = None, **params: Any) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **params
            Those of the kind of display.

        Returns
        -------
        display
            The display itself.
        """

    def _by_lead(self) -> dict[str, Floats]:
        """Ranks of each lead time, or of all together, by label."""
        if self.lead_times is None:
            return {"all": self.pit.ravel()}
        return {str(label): self.pit[:, step].ravel() for step, label in enumerate(self.lead_times)}


class PITDisplay(_RankDisplay):
    """Histogram of the ranks that outcomes have among the draws of their forecasts; flat if forecasts are calibrated.

    Make one with `from_estimator` or `from_predictions`. A U means intervals that are too narrow, a hump too wide ones,
    a slope a bias (Gneiting, Balabdaoui and Raftery, 2007). Among draws that an outcome equals, as counts do, its rank
    is drawn at random (Czado, Gneiting and Held, 2009). The band holds nine in ten bars of calibrated forecasts whose
    outcomes are independent.

    Parameters
    ----------
    pit : ndarray of shape (n, ...)
        Ranks on a scale from 0 to 1, such as `flowmatch.metrics.pit_values` gives them.
    lead_times : sequence of length n_steps, optional
        Labels of axis 1, a panel each; by default one panel of all.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One a lead time.
    figure_ : matplotlib Figure
        That holds them.
    bars_ : list of matplotlib BarContainer
        One a lead time.

    See Also
    --------
    ReliabilityDisplay : How many outcomes intervals hold, of each coverage.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import PITDisplay
    >>> rng = np.random.default_rng(0)
    >>> outcomes, draws = rng.normal(size=200), 0.5 * rng.normal(size=(99, 200))
    >>> display = PITDisplay.from_predictions(outcomes, draws)  # doctest: +SKIP
    """

    def plot(self, *, ax: Any = None, n_bins: int = 10, n_columns: int = 4, **bar_params: Any) -> Self:
        """Draw the histograms.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, optional
            One Axes is divided where several are needed. By default a figure of its own.
        n_bins : int, default=10
            Bars, of equal width.
        n_columns : int, default=4
            Panels side by side at most.
        **bar_params
            Passed to ``bar``.

        Returns
        -------
        PITDisplay
            The display itself.
        """
        check_count("n_bins", n_bins)
        parts, self.bars_ = self._by_lead(), []
        n_columns = min(check_count("n_columns", n_columns), len(parts))
        self.axes_ = divide_axes(ax, len(parts), n_columns, "lead time", size=(3.2, 2.4))
        self.figure_ = self.axes_[0].figure
        edges = np.linspace(0, 1, n_bins + 1)
        for panel, (label, pit) in zip(self.axes_, parts.items(), strict=True):
            heights = np.histogram(pit, edges)[0] * n_bins / len(pit)
            self.bars_.append(panel.bar(edges[:-1], heights, 1 / n_bins, align="edge", edgecolor="white", **bar_params))
            low, high = stats.binom.ppf([0.05, 0.95], len(pit), 1 / n_bins) * n_bins / len(pit)
            panel.axhspan(low, high, color="0.5", alpha=0.25, linewidth=0)
            panel.axhline(1.0, color="0.3", linestyle=":", linewidth=1)
            if self.lead_times is not None:
                panel.set_title(f"lead {label}")
            panel.set(xlim=(0, 1), xlabel="rank of the outcome", ylabel="density")
            panel.label_outer()
        return self


class ReliabilityDisplay(_RankDisplay):
    """How many outcomes forecasts hold, against how many they should: on the diagonal if they are calibrated.

    Make one with `from_estimator` or `from_predictions`. Below the diagonal intervals are too narrow. In the manner of
    scikit-learn's `CalibrationDisplay`; ties are treated as in `PITDisplay`.

    Parameters
    ----------
    pit : ndarray of shape (n, ...)
        Ranks on a scale from 0 to 1, such as `flowmatch.metrics.pit_values` gives them.
    lead_times : sequence of length n_steps, optional
        Labels of axis 1, a line each; by default one line of all.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the lines.
    figure_ : matplotlib Figure
        That holds it.
    lines_ : list of matplotlib Line2D
        One a lead time.

    See Also
    --------
    PITDisplay : Where in their forecasts outcomes lie.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import ReliabilityDisplay
    >>> rng = np.random.default_rng(0)
    >>> outcomes, draws = rng.normal(size=200), 0.5 * rng.normal(size=(99, 200))
    >>> display = ReliabilityDisplay.from_predictions(outcomes, draws)  # doctest: +SKIP
    """

    def plot(self, *, ax: Any = None, kind: str = "interval", ref_line: bool = True, **line_params: Any) -> Self:
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        kind : {"interval", "quantile"}, default="interval"
            Outcomes inside central intervals, by their coverage; or below quantiles, by their level, where a bias shows
            too.
        ref_line : bool, default=True
            Whether to draw the diagonal.
        **line_params
            Passed to ``plot``; `label` names the only line.

        Returns
        -------
        ReliabilityDisplay
            The display itself.
        """
        check_choice("kind", kind, _KINDS)
        self.ax_, levels, self.lines_ = one_axes(ax), np.linspace(0, 1, 101), []
        self.figure_ = self.ax_.figure
        if ref_line:
            self.ax_.plot([0, 1], [0, 1], color="0.3", linestyle=":", linewidth=1)
        for label, pit in self._by_lead().items():
            asked = np.sort(np.abs(2 * pit - 1) if kind == "interval" else pit)
            held = np.searchsorted(asked, levels, side="right") / len(asked)
            params = line_params if self.lead_times is None else {**line_params, "label": f"lead {label}"}
            self.lines_ += self.ax_.plot(levels, held, **params)
        names = ("coverage", "outcomes inside") if kind == "interval" else ("level of the quantile", "outcomes below")
        self.ax_.set(xlim=(0, 1), ylim=(0, 1), xlabel=names[0], ylabel=names[1], aspect="equal")
        if self.lead_times is not None or "label" in line_params:
            self.ax_.legend()
        return self
