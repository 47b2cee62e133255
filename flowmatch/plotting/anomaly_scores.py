"""Anomaly scores and their threshold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count
from flowmatch.plotting._common import as_array, check_labels, load_pyplot

Floats = NDArray[np.float64]

_MOST_GROUPS = 10  # as many colours tell apart
_SPAN = 10.0  # ratio of the scores from which their axis is logarithmic


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
    figure_ : matplotlib Figure
    edges_ : ndarray of shape (n_bins + 1,)
        Edges of the bins, in equal ratios if all scores are positive and the highest is more than 10 times the
        lowest.
    histograms_ : dict of matplotlib StepPatch
        By label; by None without `groups`.
    reference_histogram_ : matplotlib StepPatch or None
    threshold_line_ : matplotlib Line2D or None
    """

    def __init__(
        self,
        scores: Floats,
        threshold: float | None = None,
        *,
        groups: NDArray[Any] | None = None,
        reference: Floats | None = None,
        reference_weights: Floats | None = None,
    ) -> None:
        self.scores = scores
        self.threshold = threshold
        self.groups = groups
        self.reference = reference
        self.reference_weights = reference_weights

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
        y : array-like of shape (n_samples,), optional
            Labels of the rows, at most 10 different ones: a histogram each.
        reference : bool, default=True
            Whether to draw the scores of the rows that the detector held out to find its threshold, if it did.
        ax : matplotlib Axes, optional
        **plot_params
            See `plot`.

        Returns
        -------
        display : AnomalyScoreDisplay

        Raises
        ------
        ValueError
            If X does not fit the detector, or y has another length or too many labels.
        sklearn.exceptions.NotFittedError
            If the detector is not fitted.
        """
        scores = -as_array(detector.score_samples(X))
        held_out = getattr(detector, "calibration_", None) if reference else None
        return cls.from_scores(
            scores,
            -float(detector.offset_),
            y,
            reference=None if held_out is None else held_out.scores,
            reference_weights=None if held_out is None else held_out.weights,
            ax=ax,
            **plot_params,
        )

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
        """Plot anomaly scores, see the class for the parameters and `plot` for `ax` and the others.

        Raises
        ------
        ValueError
            If scores are not finite numbers, or labels or weights have another length than what they belong to.
        """
        found = _checked("scores", scores)
        known = None if reference is None else _checked("reference", reference)
        weights = None if reference_weights is None else _checked("reference_weights", reference_weights)
        if weights is not None and (known is None or len(weights) != len(known)):
            n_known = 0 if known is None else len(known)
            raise ValueError(f"reference_weights holds {len(weights)} weights for {n_known} scores in reference.")
        groups: Any = None if y is None else np.asarray(y).ravel()
        check_labels("y", groups, len(found), "rows")
        if groups is not None and len(np.unique(groups)) > _MOST_GROUPS:
            raise ValueError(f"y holds {len(np.unique(groups))} different labels; at most {_MOST_GROUPS} are shown.")
        return cls(found, threshold, groups=groups, reference=known, reference_weights=weights).plot(
            ax=ax, **plot_params
        )

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
        self
        """
        pyplot = load_pyplot()
        self.edges_, logarithmic = self._edges(check_count("bins", bins))
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        params = {"fill": True, "alpha": 0.55} | patch_params
        self.histograms_ = {
            label: ax.stairs(_shares(scores, self.edges_), self.edges_, label=f"{text} ({len(scores)})", **params)
            for label, text, scores in self._parts()
        }
        self.reference_histogram_ = None
        if self.reference is not None:
            shares = _shares(self.reference, self.edges_, self.reference_weights)
            label = f"held out ({len(self.reference)})"
            self.reference_histogram_ = ax.stairs(shares, self.edges_, color="0.2", linewidth=1.2, label=label)
        self.threshold_line_ = None
        if self.threshold is not None:
            label = f"threshold {self.threshold:.4g}"
            self.threshold_line_ = ax.axvline(self.threshold, color="C3", linestyle="--", label=label)
        ax.set_xscale("log" if logarithmic else "linear")
        ax.set(xlabel="anomaly score", ylabel="share of rows")
        ax.legend()
        return self

    def _parts(self) -> Iterator[tuple[Any, str, Floats]]:
        """Label, its text, and scores of each histogram."""
        if self.groups is None:
            yield None, "rows", self.scores
            return
        labels, number = np.unique(self.groups, return_inverse=True)
        for k, label in enumerate(labels.tolist()):
            yield label, str(label), self.scores[number == k]

    def _edges(self, bins: int) -> tuple[Floats, bool]:
        """Edges of the bins, (bins + 1,), and whether they are in equal ratios."""
        every = self.scores if self.reference is None else np.concatenate([self.scores, self.reference])
        low, high = float(every.min()), float(every.max())
        if low > 0 and (self.threshold is None or self.threshold > 0) and high / low > _SPAN:
            return np.geomspace(low, high, bins + 1), True
        return np.histogram_bin_edges(every, bins), False


def _checked(name: str, values: ArrayLike) -> Floats:
    """Finite numbers, (n,)."""
    found = as_array(values).ravel()
    n_wrong = int(np.sum(~np.isfinite(found)))
    if not found.size or n_wrong:
        wrong = f"{n_wrong} of its {found.size} values are not finite" if n_wrong else "it holds none"
        raise ValueError(f"{name} must hold finite numbers, but {wrong}.")
    return found


def _shares(scores: Floats, edges: Floats, weights: Floats | None = None) -> Floats:
    """Share of the scores in each bin; they add up to 1."""
    weights = np.ones(len(scores)) if weights is None else weights
    return np.histogram(scores, edges, weights=weights)[0] / weights.sum()
