"""Anomaly scores and their threshold."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count
from flowmatch.plotting._common import Floats, as_array, check_one_label_each, one_axes

_MOST_GROUPS = 10  # as many as there are colors
_SPAN = 10.0  # ratio of the scores from which their axis is logarithmic


@dataclass(eq=False, repr=False)
class AnomalyScoreDisplay:
    """Histograms of anomaly scores, with the threshold from which rows are flagged.

    Make one with `from_estimator` or `from_scores`. Every histogram counts shares of its own rows, so that a few
    anomalies are seen beside many normal rows; what lies to the right of the threshold is the share that is flagged.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Higher is more abnormal.
    threshold : float, optional
        Rows that score higher are flagged.
    groups : ndarray of shape (n,), optional
        Labels of the rows, a histogram each.
    reference : ndarray of shape (n_reference,), optional
        Scores of normal rows to compare with, drawn as an outline.
    reference_weights : ndarray of shape (n_reference,), optional
        Equal by default.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the histograms.
    figure_ : matplotlib Figure
        That holds them.
    edges_ : ndarray of shape (n_bins + 1,)
        Edges of the bins, in equal ratios if all scores are positive and the highest is more than 10 times the
        lowest.
    histograms_ : dict of matplotlib StepPatch
        By label; by None without `groups`.
    reference_histogram_ : matplotlib StepPatch or None
        Of the reference.
    threshold_line_ : matplotlib Line2D or None
        At the threshold.

    See Also
    --------
    AnomalyDisplay : One row and what makes it an anomaly.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import AnomalyScoreDisplay
    >>> scores = np.random.default_rng(0).gamma(2.0, size=200)
    >>> AnomalyScoreDisplay.from_scores(scores, threshold=5.0, y=scores > 4)  # doctest: +SKIP
    """

    scores: Floats
    threshold: float | None = None
    _: KW_ONLY
    groups: NDArray[Any] | None = None
    reference: Floats | None = None
    reference_weights: Floats | None = None

    @classmethod
    def from_estimator(
        cls,
        detector: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        reference: bool = True,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Score rows and plot their histogram, and the detector's threshold.

        Parameters
        ----------
        detector : fitted detector with `score_samples` and `offset_`
            Such as a `FlowAnomalyDetector`, or one of scikit-learn's.
        X : as in the detector's `score_samples`
            Rows to score.
        y : array-like of shape (n_samples,), optional
            Labels of the rows, at most 10 different ones: a histogram each.
        reference : bool, default=True
            Whether to draw the scores of the rows that the detector held out to find its threshold, if it did.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        AnomalyScoreDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If X does not fit the detector, or y has another length or too many labels.
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        """
        scores = -as_array(detector.score_samples(X))
        held_out = getattr(detector, "calibration_", None) if reference else None
        if held_out is not None:
            plot_params |= {"reference": held_out.scores, "reference_weights": held_out.weights}
        return cls.from_scores(scores, -float(detector.offset_), y, ax=ax, **plot_params)

    @classmethod
    def from_scores(
        cls,
        scores: ArrayLike,
        threshold: float | None = None,
        y: ArrayLike | None = None,
        *,
        reference: ArrayLike | None = None,
        reference_weights: ArrayLike | None = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot anomaly scores.

        Parameters
        ----------
        scores : array-like of shape (n,)
            Higher is more abnormal.
        threshold : float, optional
            Rows that score higher are flagged.
        y : array-like of shape (n,), optional
            Labels of the rows, at most 10 different ones: a histogram each.
        reference : array-like of shape (n_reference,), optional
            Scores of normal rows to compare with, drawn as an outline.
        reference_weights : array-like of shape (n_reference,), optional
            Equal by default.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        AnomalyScoreDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If scores are not finite, or labels or weights have another length than what they belong to.
        """
        found = _checked("scores", scores)
        compared = None if reference is None else _checked("reference", reference)
        weights = None if reference_weights is None else _checked("reference_weights", reference_weights)
        n_compared = 0 if compared is None else len(compared)
        if weights is not None and len(weights) != n_compared:
            raise ValueError(f"reference_weights holds {len(weights)} weights for {n_compared} scores in reference.")
        groups: Any = None if y is None else np.asarray(y).ravel()
        check_one_label_each("y", groups, len(found), "rows")
        n_groups = 0 if y is None else len(np.unique(groups))
        if n_groups > _MOST_GROUPS:
            raise ValueError(f"y holds {n_groups} different labels; at most {_MOST_GROUPS} are shown.")
        display = cls(found, threshold, groups=groups, reference=compared, reference_weights=weights)
        return display.plot(ax=ax, **plot_params)

    def plot(self, *, ax: Any = None, bins: int = 40, **patch_params: Any) -> Self:
        """Draw the histograms.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        bins : int, default=40
            The same for all histograms.
        **patch_params
            Passed to the ``stairs`` of the rows' histograms.

        Returns
        -------
        AnomalyScoreDisplay
            The display itself.
        """
        self.edges_, logarithmic = self._edges(check_count("bins", bins))
        self.ax_ = ax = one_axes(ax)
        self.figure_ = ax.figure
        params = {"fill": True, "alpha": 0.55} | patch_params
        self.histograms_ = {}
        groups = np.zeros(len(self.scores)) if self.groups is None else self.groups
        labels, group = np.unique(groups, return_inverse=True)
        for k, label in enumerate([None] if self.groups is None else labels.tolist()):
            scores = self.scores[group == k]
            text = f"{'rows' if label is None else label} ({len(scores)})"
            self.histograms_[label] = ax.stairs(_shares(scores, self.edges_), self.edges_, label=text, **params)
        self.reference_histogram_ = self.threshold_line_ = None
        if self.reference is not None:
            shares = _shares(self.reference, self.edges_, self.reference_weights)
            text = f"held out ({len(self.reference)})"
            self.reference_histogram_ = ax.stairs(shares, self.edges_, color="0.2", linewidth=1.2, label=text)
        if self.threshold is not None:
            text = f"threshold {self.threshold:.4g}"
            self.threshold_line_ = ax.axvline(self.threshold, color="C3", linestyle="--", label=text)
        ax.set(xlabel="anomaly score", ylabel="share of rows", xscale="log" if logarithmic else "linear")
        ax.legend()
        return self

    def _edges(self, bins: int) -> tuple[Floats, bool]:
        """Edges of the bins, (bins + 1,), and whether they are in equal ratios."""
        every = self.scores if self.reference is None else np.concatenate([self.scores, self.reference])
        low, high = float(every.min()), float(every.max())
        if low > 0 and (self.threshold is None or self.threshold > 0) and high / low > _SPAN:
            return np.geomspace(low, high, bins + 1), True
        return np.histogram_bin_edges(every, bins), False


def _checked(name: str, values: ArrayLike) -> Floats:
    """Finite values, (n,)."""
    found = as_array(values).ravel()
    n_wrong = int(np.sum(~np.isfinite(found)))
    if not found.size or n_wrong:
        wrong = f"{n_wrong} of its {found.size} values are not finite" if n_wrong else "it holds none"
        raise ValueError(f"{name} must hold finite numbers, but {wrong}.")
    return found


def _shares(scores: Floats, edges: Floats, weights: Floats | None = None) -> Floats:
    """Share of the scores in each bin; they add up to 1."""
    counts = np.histogram(scores, edges, weights=weights)[0]
    return counts / (len(scores) if weights is None else weights.sum())
