"""Windows of states: which frames a forecaster is given and which it predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowmatch.core.types import Array, Array32, Index
from flowmatch.tables.rows import SampleRows


@dataclass(frozen=True)
class Windows:
    """Contexts, and targets if there are any, by the frames that they are made of.

    Parameters
    ----------
    frames : SampleRows of shape (n_frames, *state)
        Where contexts are read.
    index : ndarray of int, shape (n, n_lags)
        The frames of each context.
    targets : SampleRows or None
        Where targets, and columns that are known ahead, are read; may be `frames` itself.
    target_index : ndarray of int, shape (n, horizon), or None
        The frames of each target.
    calendar : ndarray of shape (n, n_features)
        The calendar at the first instant of each target.
    groups : ndarray of int, shape (n,)
        The trajectory that each window is cut from, in order.
    ahead : ndarray of shape (n, n_steps, n_known, *grid) or None, default=None
        Columns that are known ahead, where there are no targets to read them from.
    conditions : ndarray of float32, shape (n, k), or None, default=None
        Vectors of what fields are conditioned on.
    """

    frames: SampleRows
    index: Index
    targets: SampleRows | None
    target_index: Index | None
    calendar: Array
    groups: Index
    ahead: Array | None = None
    conditions: Array32 | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: Index) -> Windows:
        """Take some of the windows.

        Parameters
        ----------
        rows : ndarray of int, shape (B,)
            Their numbers.

        Returns
        -------
        Windows
            Of the same frames.
        """
        return replace(
            self,
            index=self.index[rows],
            target_index=None if self.target_index is None else self.target_index[rows],
            calendar=self.calendar[rows],
            groups=self.groups[rows],
            ahead=None if self.ahead is None else self.ahead[rows],
            conditions=None if self.conditions is None else self.conditions[rows],
        )

    def contexts(self, rows: Index) -> Array:
        """Read the states of contexts.

        Parameters
        ----------
        rows : ndarray of int, shape (B,)
            Numbers of the windows.

        Returns
        -------
        ndarray of shape (B, n_lags, *state)
            In the data's units.
        """
        return _read(self.frames, self.index[rows])

    def states_ahead(self, rows: Index) -> Array:
        """Read the states that follow contexts.

        Parameters
        ----------
        rows : ndarray of int, shape (B,)
            Numbers of the windows.

        Returns
        -------
        ndarray of shape (B, horizon, *state)
            In the data's units.
        """
        assert self.targets is not None
        assert self.target_index is not None
        return _read(self.targets, self.target_index[rows])


def _read(frames: SampleRows, index: Index) -> Array:
    return frames.read(index.ravel()).reshape(*index.shape, *frames.sample_shape)
