"""How much signals move at least: sensors that are dead, weak or stuck move less than any normal one did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable
from flowmatch.preprocessing import FITTED_ELEMENTS, SampleRows

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MARGIN, _DEVIATIONS = 1.1, 4.0
"""How far below the mean a row has to lie, on a scale of logarithms: times as far as the lowest normal row, and so many
standard deviations. Few normal rows may come near to that: they would take the threshold with them."""

_MANY_COLUMNS = 16
"""Columns from which on a table of like ones may be windows of a signal."""

_ALIKE = 2.0
"""Largest ratio of the standard deviations of columns that count as alike."""


@storable
@dataclass(frozen=True, eq=False)
class Activity:
    """The least movement of normal rows, channel by channel.

    Scores of a flow rank a signal of zeros, or one that stays where it is, among the most normal ones: its noise is
    small, and near the middle of all. What tells them from normal ones is that they move less than any of these.

    Attributes
    ----------
    least : ndarray of shape (2, n_channels)
        Of the standard deviation along a row and of the root mean square of its steps: the mean logarithm over normal
        rows, less 1.1 times the distance of the lowest one, or four standard deviations if that is more; as a
        deviation. 0 where normal rows stand still too.
    level : float
        The highest score of normal rows, which those that hardly move are taken beyond.
    """

    least: Floats
    level: float = 0.0

    @classmethod
    def of(cls, rows: SampleRows, is_category: Mask | None = None) -> Activity | None:
        """That of normal rows, at most four million elements of them.

        Parameters
        ----------
        rows : SampleRows
            Signals, images or fields, or a table.
        is_category : ndarray of bool of shape (n_columns,), optional
            Which columns of a table are categories.

        Returns
        -------
        Activity or None
            None for tables, unless they have sixteen columns and more, all of them numbers of about the same mean and
            deviation, as windows of signals have.
        """
        X = rows.read(rows.subset(FITTED_ELEMENTS))
        if X.ndim == 2 and not _are_like_columns(X, is_category):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(_movement(X))
            mean, spread = logs.mean(axis=1), logs.std(axis=1)
            least = np.exp(mean - np.maximum(_MARGIN * (mean - logs.min(axis=1)), _DEVIATIONS * spread))
        return cls(np.where(np.isfinite(mean), least, 0.0))

    def added(self, X: Floats, found: Floats, surprise: float) -> Floats:
        """Contributions with what lifts rows that hardly move by `surprise` beyond normal ones.

        Parameters
        ----------
        X : ndarray of shape (B, *sample_shape)
            Of a row that misses values nothing is known.
        found : ndarray of shape (B, *sample_shape)
            Contributions to the score of each row.
        surprise : float

        Returns
        -------
        ndarray of shape (B, *sample_shape)
            `found`, with what lacks to the level of normal rows and `surprise`, spread over the channels at fault.
        """
        quiet: Mask = np.any(_movement(X) < self.least[:, None], axis=0)
        rows = np.flatnonzero(quiet.any(axis=1))
        if not len(rows):
            return found
        lifted = found.copy()
        own = found[rows].reshape(len(rows), quiet.shape[1], -1)
        lift = np.maximum(self.level - own.sum(axis=(1, 2)), 0.0) + surprise
        share = quiet[rows] / (quiet[rows].sum(axis=1, keepdims=True) * own.shape[2])
        lifted[rows] = (own + (lift[:, None] * share)[..., None]).reshape(len(rows), *X.shape[1:])
        return lifted

    def check_channels(self, sample_shape: tuple[int, ...]) -> None:
        """Raise a ValueError if it is not that of such rows."""
        n_channels = 1 if len(sample_shape) == 1 else sample_shape[0]
        require(self.least.shape == (2, n_channels) and (self.least >= 0).all(), "least")
        require(np.isfinite(self.level), "level")


def _movement(X: Floats) -> Floats:
    """The standard deviation of each row's channels, and the root mean square of their steps, (2, B, C)."""
    grid = X[:, None] if X.ndim == 2 else X
    axes = tuple(range(2, grid.ndim))
    steps = np.square(np.diff(grid, axis=-1)) if grid.shape[-1] > 1 else np.zeros_like(grid)
    return np.stack([grid.std(axis=axes), np.sqrt(steps.mean(axis=axes))])


def _are_like_columns(X: Floats, is_category: Mask | None) -> bool:
    """Whether all columns of a table may be values of one signal, one after the other."""
    if X.shape[1] < _MANY_COLUMNS or (is_category is not None and is_category.any()) or np.isnan(X).any():
        return False
    spread = X.std(axis=0)
    return bool(spread.min() > 0 and spread.max() < _ALIKE * spread.min() and np.ptp(X.mean(axis=0)) < spread.min())
