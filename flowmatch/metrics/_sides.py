"""Samples of a report, cut to sides that can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 6
"""Rows a side: five neighbors and the row itself."""


class Sides(NamedTuple):
    """Three samples in random order, real rows to compare with, synthetic ones, and real ones in their place.

    `train` are all real rows, `reference` those to compare with: all of them, or the half that is not the floor.
    """

    train: NDArray[Any]
    reference: NDArray[Any]
    synthetic: NDArray[Any]
    floor: NDArray[Any]
    held_out: bool


def cut(rows: Mapping[str, NDArray[Any]], rng: np.random.Generator) -> Sides:
    """The samples "real", "synthetic" and perhaps "holdout" as sides of a comparison, of at least `MIN_ROWS` each."""
    held_out = "holdout" in rows
    shuffled = {side: rng.permutation(rows[side]) for side in ("synthetic", "holdout", "real") if side in rows}
    train = shuffled["real"]
    half = len(train) // 2
    reference, floor = (train, shuffled["holdout"]) if held_out else (train[:half], train[half:])
    n, m, k = map(len, (reference, shuffled["synthetic"], floor))
    if min(n, m, k) < MIN_ROWS:
        raise ValueError(
            f"a report needs {MIN_ROWS} rows a side. There are {n} real rows to compare with, {m} synthetic rows and "
            f"{k} real rows for the floor (without holdout, the real rows are cut in half)."
        )
    return Sides(train, reference, shuffled["synthetic"], floor, held_out)
