"""Thresholds and p-values from the scores of rows that the model was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable

Floats = NDArray[np.float64]


@storable
@dataclass(frozen=True, eq=False)
class Calibration:
    """Anomaly scores of held-out normal rows, and their weights.

    A new normal row ranks among them like any of them, so the share of normal rows with a p-value of at most alpha is
    at most alpha (conformal prediction; Vovk et al., 2005; Laxhammar and Falkman, 2010, for anomalies; Bates et al.,
    2023, section 2). That is exact for scores that do not depend on the held-out rows; "combined" takes its unit from
    them, so there it holds approximately. So it does with several folds, each scored by the model that did not see it:
    cross-conformal prediction (Vovk, 2015).

    Parameters
    ----------
    scores, weights : ndarray of shape (n,)
        In the order in which they came, the latest fit first. Weights have mean 1; a new row counts as one of weight 1.
    """

    scores: Floats
    weights: Floats

    @classmethod
    def of(cls, scores: Floats, weights: Floats | None = None) -> Calibration:
        """The calibration by held-out rows.

        Parameters
        ----------
        scores : ndarray of shape (n,)
        weights : ndarray of shape (n,), optional
            Equal by default.

        Returns
        -------
        Calibration
        """
        return cls(scores, np.ones(len(scores)) if weights is None else weights / weights.mean())

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored calibration do not fit each other."""
        require(self.scores.ndim == 1 and len(self.scores) and np.isfinite(self.scores).all(), "scores")
        require(self.scores.shape == self.weights.shape and (self.weights > 0).all(), "weights")

    def before(self, earlier: Calibration) -> Calibration:
        """These scores and the latest of the earlier ones, no more than the larger of the two has.

        Parameters
        ----------
        earlier : Calibration

        Returns
        -------
        Calibration
        """
        kept = max(len(self.scores), len(earlier.scores))
        scores, weights = np.concatenate([self.scores, earlier.scores]), np.concatenate([self.weights, earlier.weights])
        return self.of(scores[:kept], weights[:kept])

    def p_values(self, scores: Floats) -> Floats:
        """Conformal p-values.

        Parameters
        ----------
        scores : ndarray of shape (m,)
            Anomaly scores of new rows.

        Returns
        -------
        ndarray of shape (m,)
            ``(1 + weight of held-out rows that score at least as high) / (1 + weight of all)``.
        """
        order = np.argsort(self.scores)
        above = np.append(np.cumsum(self.weights[order][::-1])[::-1], 0.0)
        return (1 + above[np.searchsorted(self.scores[order], scores, side="left")]) / (1 + self.weights.sum())

    def threshold(self, false_alarm_rate: float) -> float:
        """The anomaly score beyond which rows are flagged.

        Parameters
        ----------
        false_alarm_rate : float

        Returns
        -------
        float
            The smallest held-out score whose excess has a p-value of at most `false_alarm_rate`; the largest one where
            there are too few rows for that rate.
        """
        order = np.argsort(self.scores)
        beyond = self.weights.sum() - np.cumsum(self.weights[order])
        fits = (1 + beyond) / (1 + self.weights.sum()) <= false_alarm_rate * (1 + 1e-9)
        return float(self.scores[order[int(np.argmax(fits)) if fits.any() else -1]])

    @property
    def smallest_rate(self) -> float:
        """The lowest false alarm rate that so many rows can promise."""
        return float(1 / (1 + self.weights.sum()))
