"""flowmatch as an adapter of the tabular benchmark (`bench_gen.py`): put this file beside it.

Codes are named as categories; class-conditional where the target is a class, jointly with the target otherwise.
"""

import warnings

import numpy as np

from flowmatch import FlowMatchingGenerator

warnings.filterwarnings("ignore", message="X has .* rows")


def adapter(passes=None, **parameters):
    """A generator with its defaults, but for `parameters`, and for so many passes through the data if any are given."""

    def fit_sample(X, y, n, seed, meta):
        from generators import clean

        settings = {"categorical_features": meta["cat"], **parameters}
        if passes is not None:  # within the defaults' range of steps, scaled alike
            settings["max_iter"] = int(np.clip(passes * len(X) // 256, passes // 2, passes * 1000 // 600))
        generator = FlowMatchingGenerator(random_state=seed, device="cpu", **settings)
        if meta["task"] == "reg":
            drawn = generator.fit(np.column_stack([X, y])).sample(n, random_state=seed)
            return clean(drawn[:, :-1], X, meta), np.clip(drawn[:, -1], y.min(), y.max())
        drawn, labels = generator.fit(X, y).sample(n, random_state=seed, return_y=True)
        return clean(drawn, X, meta), labels

    return fit_sample


FLOWMATCH = {"flowmatch": adapter(), "codes_as_numbers": adapter(categorical_features=None)}
FLOWMATCH |= {f"masked_{passes}": adapter(passes) for passes in (300, 450, 600, 900, 1200)}  # for frontier.py
FLOWMATCH |= {f"whole_{passes}": adapter(passes, masked_share=0.0) for passes in (300, 450, 600, 900, 1200)}
