"""flowmatch as an adapter of the tabular benchmark (`bench_gen.py`): put this file beside it.

Numbers and codes as they come, class-conditional where the target is a class, jointly with the target otherwise.
"""

import warnings

import numpy as np

from flowmatch import FlowMatchingGenerator

warnings.filterwarnings("ignore", message="X has .* rows")


def adapter(**parameters):
    """A generator with its defaults, but for `parameters`."""

    def fit_sample(X, y, n, seed, meta):
        from generators import clean

        generator = FlowMatchingGenerator(random_state=seed, device="cpu", **parameters)
        if meta["task"] == "reg":
            drawn = generator.fit(np.column_stack([X, y])).sample(n, random_state=seed)
            return clean(drawn[:, :-1], X, meta), np.clip(drawn[:, -1], y.min(), y.max())
        drawn, labels = generator.fit(X, y).sample(n, random_state=seed, return_y=True)
        return clean(drawn, X, meta), labels

    return fit_sample


FLOWMATCH = {"flowmatch": adapter()}
