"""Errors of log-densities on distributions whose density is known, by columns, rows and training.

Correlated normal columns, ``Sigma_ij = 0.8^|i - j|``, and a mixture of five such normal distributions in ten columns,
their means drawn with standard deviation 3. Of 1,000 fresh rows, |log p - truth| in nats: the mean and the 99th
percentile. Beside it the same of a normal distribution, or mixture, that scikit-learn fits to the same rows: what the
rows themselves allow to one who knows the family.

``OMP_NUM_THREADS=1 python density_errors.py OUT.jsonl [SEED ...]``: about twelve minutes of one core for each seed.
"""

import json
import sys
import time

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from flowmatch import FlowMatchingGenerator, TrainingOptions

torch.set_num_threads(1)
RUNS = [  # None: the default steps, 1,000 of these many rows
    ("quantile", "quantile", None, False),
    ("quantile x 5", "quantile", 5_000, False),
    ("standardize", "standardize", None, False),
    ("standardize x 5", "standardize", 5_000, False),
    ("standardize x 5, early stopping", "standardize", 5_000, True),
]
ROWS, COLUMNS, MIXTURE_COLUMNS, N_FRESH = (500, 2_000, 10_000), (2, 5, 10, 20), 10, 1_000


class Mixture:
    """Equal shares of normal distributions with one covariance."""

    def __init__(self, n_components, d, random):
        places = np.arange(d)
        covariance = 0.8 ** np.abs(places[:, None] - places)
        means = 3.0 * random.normal(size=(n_components, d)) if n_components > 1 else np.zeros((1, d))
        self.parts = [multivariate_normal(mean, covariance) for mean in means]

    def sample(self, n, random):
        """Rows (n, d)."""
        draws = np.array([part.rvs(n, random_state=random) for part in self.parts])
        return draws[random.randint(len(self.parts), size=n), np.arange(n)]

    def log_density(self, X):
        """Of each row, (n,)."""
        return logsumexp([part.logpdf(X) for part in self.parts], axis=0) - np.log(len(self.parts))


def estimates(X, fresh, n_components, seed):
    """Log-densities of the fresh rows by each method, with how it was trained and the seconds it took."""
    start = time.process_time()
    fitted = GaussianMixture(n_components, n_init=5, random_state=seed).fit(X)
    yield "family", None, fitted.score_samples(fresh), time.process_time() - start
    for method, scaling, max_iter, early in RUNS:
        start = time.process_time()
        model = FlowMatchingGenerator(
            preprocessing=scaling,
            max_iter=max_iter,
            training=TrainingOptions(early_stopping=early),
            random_state=seed,
            device="cpu",
        )
        model.fit(X)
        seconds = time.process_time() - start
        yield method, model.n_iter_, model.score_samples(fresh, n_steps=20, solver="rk4"), seconds


def main(path, seeds):
    """Append a line for each distribution, number of rows and method."""
    cases = [("normal", 1, d) for d in COLUMNS] + [("mixture", 5, MIXTURE_COLUMNS)]
    for seed in seeds:
        for name, n_components, d in cases:
            random = np.random.RandomState(seed)
            truth = Mixture(n_components, d, random)
            every, fresh = truth.sample(max(ROWS), random), truth.sample(N_FRESH, random)
            for n in ROWS:
                for method, n_iter, log_density, seconds in estimates(every[:n], fresh, n_components, seed):
                    error = np.abs(log_density - truth.log_density(fresh))
                    line = {"data": name, "columns": d, "rows": n, "seed": seed, "method": method, "steps": n_iter}
                    line |= {"mean": error.mean(), "p99": np.quantile(error, 0.99), "seconds": seconds}
                    with open(path, "a") as file:
                        file.write(json.dumps(line) + "\n")
                    print(
                        " ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in line.values())
                    )


if __name__ == "__main__":
    main(sys.argv[1], [int(seed) for seed in sys.argv[2:]] or [0])
