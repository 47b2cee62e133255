"""Random clusters: how many generated rows lie in none, and how many hidden entries are put into a wrong one?

    python clusters.py 50                                    # draws of the kind, with the defaults
    python clusters.py 50 --settings "{'preprocessing': 'standardize'}"

A draw has 2 to 5 clusters in 2 to 6 columns, of shares of at least 8 % or so and a standard deviation of .2 to 1, their
centers at random in a cube of side 20 and at least 12 standard deviations apart, and 300, 1,000 or 2,000 rows. A row is
impossible if it is farther from all centers than any real row would be; a filled row is wrong if it is, or if its
cluster does not agree with the entries that were there (half of them, at random).
"""

import argparse
import time
import warnings

import numpy as np
import torch

from flowmatch import FlowMatchingGenerator
from flowmatch.preprocessing import QuantileNormal  # noqa: F401  (for --settings)


def draw(seed):
    """Rows (n, d), centers (k, d), their standard deviation."""
    rng = np.random.RandomState(seed)
    d, k, sd = rng.randint(2, 7), rng.randint(2, 6), rng.uniform(0.2, 1.0)
    apart = False
    while not apart:
        centers = rng.uniform(-10, 10, (k, d))
        distances = np.sqrt(((centers[:, None] - centers) ** 2).sum(-1)) + 1e9 * np.eye(k)
        apart = distances.min() > 12 * sd
    shares = np.maximum(rng.dirichlet(np.full(k, 5.0)), 0.08)
    n = rng.choice([300, 1000, 2000])
    of_rows = rng.choice(k, n, p=shares / shares.sum())
    return centers[of_rows] + sd * rng.randn(n, d), centers, sd


def judge(seed, settings):
    """Share of impossible rows, share of wrongly filled ones, CPU seconds of the fit."""
    X, centers, sd = draw(seed)
    far = np.sqrt(X.shape[1]) + 4.5
    start = time.process_time()
    model = FlowMatchingGenerator(random_state=seed, **settings).fit(X)
    seconds = time.process_time() - start
    rows = model.sample(5000, random_state=seed)
    impossible = np.mean(np.sqrt(((rows[:, None] - centers) ** 2).sum(-1)).min(axis=1) / sd > far)
    rows = X[:500].copy()
    hidden = np.random.RandomState(1).rand(*rows.shape) < 0.5
    hidden[hidden.all(axis=1), 0] = False
    rows[hidden] = np.nan
    filled = model.impute(rows, random_state=0)
    agree = np.sqrt(np.nansum((rows[:, None] - centers) ** 2, axis=-1)) / sd < far
    inside = np.sqrt(((filled[:, None] - centers) ** 2).sum(-1)) / sd < far
    wrong = ~(agree & inside).any(axis=1)
    return impossible, wrong[hidden.any(axis=1)].mean(), seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("draws", type=int)
    parser.add_argument("--settings", default="{}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = np.array([judge(seed, eval(arguments.settings)) for seed in range(arguments.draws)])
    for name, values in zip(["impossible rows", "wrongly filled"], 100 * found.T[:2], strict=True):
        print(f"{name}: {values.mean():.2f} %, worst {values.max():.1f} %, median {np.median(values):.2f} %")
    print(f"CPU seconds of a fit: {found[:, 2].mean():.1f}")


if __name__ == "__main__":
    main()
