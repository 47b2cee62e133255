"""Random generators of the simulators; NumPy's global state is neither read nor advanced."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from sklearn.utils import check_random_state

RandomState: TypeAlias = int | np.random.Generator | np.random.RandomState | None


def entropy_of(random_state: RandomState) -> list[int] | None:
    """Four integers drawn from a random state; None for fresh entropy."""
    if random_state is None:
        return None
    if isinstance(random_state, np.random.Generator):
        return random_state.integers(2**31, size=4).tolist()
    return check_random_state(random_state).randint(2**31 - 1, size=4).tolist()


def generator(random_state: RandomState) -> np.random.Generator:
    """A generator: the given one, or a new one of its own."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    return np.random.default_rng(entropy_of(random_state))
