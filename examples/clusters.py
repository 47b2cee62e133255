"""Clusters: rows between them are hardly drawn, and hidden entries go to the right one; with and without opened gaps.

Run with ``python examples/clusters.py``; the picture needs matplotlib (``pip install ".[plot]"``).
"""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from flowmatch import FlowMatchingGenerator
from flowmatch.preprocessing import QuantileNormal

CENTERS = np.array([[-3.0, -10.0], [3.0, 10.0], [9.0, -4.0]])
STEPS = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")


def main() -> None:
    rng = np.random.default_rng(0)
    real = CENTERS[rng.integers(3, size=1000)] + 0.5 * rng.normal(size=(1000, 2))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True)
    axes[0].scatter(*real.T, s=4)
    axes[0].set_title("real")
    for axis, open_gaps in zip(axes[1:], (False, True), strict=True):
        generator = FlowMatchingGenerator(
            preprocessing=QuantileNormal(open_gaps=open_gaps), max_iter=int(STEPS) if STEPS else None, random_state=0
        ).fit(real)
        drawn = generator.sample(1000, random_state=0)
        far = np.sqrt(((drawn[:, None] - CENTERS) ** 2).sum(-1)).min(axis=1) > 3
        holes = real.copy()
        holes[:, 0] = np.nan  # the second column says which cluster it was
        filled = generator.impute(holes, random_state=0)
        wrong = np.abs(filled[:, 0] - real[:, 0]) > 4
        print(
            f"open_gaps={open_gaps!s:5}: {far.mean():.1%} of the rows in no cluster, {wrong.mean():.1%} filled wrongly"
        )
        axis.scatter(*drawn.T, s=4, c=np.where(far, "tab:red", "tab:blue"))
        axis.set_title("synthetic, gaps opened (default)" if open_gaps else "synthetic, ranks as they are")
    figure.tight_layout()
    picture = Path(__file__).with_suffix(".png")
    figure.savefig(picture, dpi=100)
    print("plot:", picture)


if __name__ == "__main__":
    main()
