"""Thresholds and p-values from the scores of rows that the model was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, rankdata

from flowmatch.core.storable import require, storable

Floats = NDArray[np.float64]


@storable
@dataclass(frozen=True, eq=False)
class Calibration:
    """Anomaly scores of held-out normal rows, and their weights.

    A new normal row ranks among them like any of them, so the share of normal rows with a p-value of at most alpha is
    at most alpha, on average over held-out rows (conformal prediction; Vovk et al., 2005; Laxhammar and Falkman, 2010,
    for anomalies; Bates et al., 2023, section 2). That is exact for scores that do not depend on the held-out rows;
    "combined" takes its unit from them, so there it holds approximately. So it does with several folds (cross-conformal
    prediction; Vovk, 2015): each is scored by the model that did not see it, new rows by the mean of all. That varies
    less than one of them, which the scores of held-out rows are corrected for, by rank, as far as models differ on rows
    that they were trained on.

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
        return self._threshold_and_beyond(false_alarm_rate)[0]

    def bound(self, false_alarm_rate: float, confidence: float, n_folds: int = 1) -> float:
        """What the share of new normal rows beyond the threshold exceeds by chance only.

        Of n held-out rows, b come after the one that is the threshold. The share of new rows beyond it then has the
        distribution Beta(b + 1, n - b) if scores are continuous, and is below that with ties (Wilks, 1941; Vovk,
        2012). That is exact for scores that do not depend on the held-out rows, which are equally likely. For n,
        weighted rows count as ``sum(w)^2 / sum(w^2)`` equal ones (Kish, 1965), and those of K folds, which differ in
        their models too, as ``1 / (1 + K / (K - 1))`` each (Nadeau and Bengio, 2003).

        Parameters
        ----------
        false_alarm_rate : float
            That of the threshold.
        confidence : float
        n_folds : int, default=1

        Returns
        -------
        float
        """
        n = self.weights.sum() ** 2 / np.square(self.weights).sum()
        n = max(1, int((n if n_folds == 1 else n / (1 + n_folds / (n_folds - 1))) + 1e-9))
        share = self._threshold_and_beyond(false_alarm_rate)[1] / self.weights.sum()
        after = min(n - 1, int(np.ceil(share * n - 1e-9)))
        return float(beta.ppf(confidence, after + 1, n - after))

    def _threshold_and_beyond(self, false_alarm_rate: float) -> tuple[float, float]:
        """The threshold, and the weight of the held-out rows that come after it in order."""
        order = np.argsort(self.scores)
        beyond = self.weights.sum() - np.cumsum(self.weights[order])
        fits = (1 + beyond) / (1 + self.weights.sum()) <= false_alarm_rate * (1 + 1e-9)
        chosen = int(np.argmax(fits)) if fits.any() else -1
        return float(self.scores[order[chosen]]), max(0.0, float(beyond[chosen]))

    @property
    def smallest_rate(self) -> float:
        """The lowest false alarm rate that so many rows can promise."""
        return float(1 / (1 + self.weights.sum()))


def spread_of_mean(held_out: Floats, trained: Floats) -> Floats:
    """Scores of held-out rows, each by one member, with the spread of the mean of all K members.

    Where members differ, their mean has lighter tails than each of them. By how much, rows tell that K - 1 members were
    trained on: the r-th of their sorted means, less the mean over members of the r-th of their sorted scores, is what
    averaging does at that rank. These differences add up to 0, and those of the highest ranks to at most 0, as sums of
    the largest of several columns go. The mean of K members would take away a little more, and members differ less on
    rows that they were trained on, if anything: where flows are overfitted the share of false alarms stays too low.

    Parameters
    ----------
    held_out : ndarray of shape (n,)
        Of each row by the member that was not trained on it.
    trained : ndarray of shape (m, K - 1)
        Of rows by members that were trained on them, in each column by all members in turn, as those held out.

    Returns
    -------
    ndarray of shape (n,)
    """
    averaged = np.sort(trained.mean(axis=1)) - np.sort(trained, axis=0).mean(axis=1)
    ranks = (rankdata(held_out) - 0.5) / len(held_out)
    return held_out + np.interp(ranks, (np.arange(len(averaged)) + 0.5) / len(averaged), averaged)
