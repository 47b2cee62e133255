"""What lies beyond the edges of fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def find_boundaries(states: Array) -> tuple[str, ...]:
    """Tell which axes of fields look periodic.

    Across a periodic border values differ as much as between any neighbors. An axis is taken for one if, in every
    channel, the mean squared difference between its two ends is 0.3 to 2 times that of neighbors all over the grid and
    of those beside the border; blank borders say nothing, so they count as walls.

    Parameters
    ----------
    states : ndarray of shape (n, C, *grid)
        Fields.

    Returns
    -------
    tuple of {"periodic", "wall"}
        One for each axis of the grid.
    """
    found = []
    for axis in range(2, states.ndim):
        if states.shape[axis] == 1:
            found.append("wall")
            continue
        field_ = np.moveaxis(states, axis, -1)
        over = tuple(i for i in range(field_.ndim - 1) if i != 1)

        def power(difference: Array, over: tuple[int, ...] = over) -> Array:
            return np.square(difference).mean(axis=over)

        steps = power(np.diff(field_, axis=-1))  # (C, points - 1)
        across = power(field_[..., 0] - field_[..., -1])
        beside, everywhere = 0.5 * (steps[:, 0] + steps[:, -1]), steps.mean(axis=-1)
        like = [(across >= 0.3 * other) & (across <= 2.0 * other) & (other > 0) for other in (beside, everywhere)]
        varies = everywhere > 0
        found.append("periodic" if varies.any() and (like[0] & like[1])[varies].all() else "wall")
    return tuple(found)
