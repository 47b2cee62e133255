"""Imputation of the tabular benchmark's open tables against scikit-learn's imputers.

Run beside the benchmark's `data.py`: ``python imputation.py OUT.jsonl 0 1 2`` (seeds). Of the training part (80 %) of
each table, 20 % of the cells are hidden at random; every method learns from what is left and fills it. Numbers are in
standard deviations of their column; codes are left out of RMSE.

rmse        of the mean of ten draws (of the single answer of deterministic imputers), mean over columns
w1_cells    Wasserstein-1 distance between drawn and true values of the hidden cells, one draw, mean over columns
w1_test     Wasserstein-1 distance between the completed rows and the held-out 20 % of the rows, one draw
codes       share of hidden codes that one draw gets right
"""

import json
import sys
import time
import warnings
from pathlib import Path

import data
import numpy as np
import ot
from scipy.stats import wasserstein_distance
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from flowmatch import FlowMatchingGenerator

warnings.filterwarnings("ignore")
N_DRAWS = 10


def flow(M, meta, seed):
    """Ten draws of the defaults."""
    generator = FlowMatchingGenerator(categorical_features=meta["cat"], random_state=seed, device="cpu").fit(M)
    return generator.impute(M, n_imputations=N_DRAWS, random_state=seed)


def bayesian(M, meta, seed):
    """IterativeImputer's own way to draw: from the posterior of its ridge regressions."""
    return [IterativeImputer(sample_posterior=True, random_state=seed + k).fit_transform(M) for k in range(N_DRAWS)]


METHODS = {
    "flowmatch": flow,
    "iterative": lambda M, meta, seed: [IterativeImputer(random_state=seed).fit_transform(M)],
    "iterative, posterior": bayesian,
    "knn": lambda M, meta, seed: [KNNImputer().fit_transform(M)],
    "mean": lambda M, meta, seed: [SimpleImputer().fit_transform(M)],
}


def measures(draws, table, hidden, test, meta):
    """What the head of this file says."""
    spread = table.std(axis=0) + 1e-12
    mean, one = np.mean(draws, axis=0), draws[0]
    numbers = [j for j in range(table.shape[1]) if j not in meta["cat"]]
    cells = [(one[hidden[:, j], j] / spread[j], table[hidden[:, j], j] / spread[j]) for j in numbers]
    errors = [np.sqrt(np.mean(((mean - table)[hidden[:, j], j] / spread[j]) ** 2)) for j in numbers]
    hits = [np.mean(np.round(one[hidden[:, j], j]) == table[hidden[:, j], j]) for j in meta["cat"]]
    rows = np.random.RandomState(0).permutation(len(one))[:500]
    costs = np.abs((one[rows] / spread)[:, None] - (test / spread)[None]).sum(axis=2)
    return {
        "rmse": float(np.mean(errors)),
        "w1_cells": float(np.mean([wasserstein_distance(*pair) for pair in cells])),
        "w1_test": float(ot.emd2([], [], costs, numItermax=10**6)),
        "codes": float(np.mean(hits)) if hits else None,
    }


def main(path, seeds, methods):
    for seed in seeds:
        for name in data.GEN["open"]:
            X, y, meta = data.load(name)
            table = np.column_stack([X, y]) if meta["task"] == "reg" else X
            random = np.random.RandomState(seed)
            order = random.permutation(len(table))
            n_test = len(table) // 5
            test, train = table[order[:n_test]], table[order[n_test:]]
            hidden = random.uniform(size=train.shape) < 0.2
            hidden[hidden.all(axis=1), 0] = False
            M = np.where(hidden, np.nan, train)
            for method in methods:
                start = time.process_time()
                draws = METHODS[method](M, meta, seed)
                row = {"set": name, "method": method, "seed": seed, "cpu_s": time.process_time() - start}
                row |= measures(draws, train, hidden, test, meta)
                with open(path, "a") as file:
                    file.write(json.dumps(row) + "\n")
    summarise(path)


def summarise(path):
    """Means over tables and seeds, and each method's ratio to the iterative imputer."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    print(f"{'method':22s} rmse   w1_cells  w1_test  codes  cpu_s")
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        values = [
            np.mean([row[key] for row in own if row[key] is not None])
            for key in ("rmse", "w1_cells", "w1_test", "codes", "cpu_s")
        ]
        print(f"{method:22s} {values[0]:.3f}  {values[1]:.3f}     {values[2]:.3f}    {values[3]:.3f}  {values[4]:.2f}")


if __name__ == "__main__":
    chosen = [argument for argument in sys.argv[2:] if argument in METHODS] or list(METHODS)
    main(sys.argv[1], [int(a) for a in sys.argv[2:] if a.isdigit()] or [0], chosen)
