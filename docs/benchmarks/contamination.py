"""Outlier detection in tables that hold 5 % or 20 % anomalies: labels unused, the training rows are ranked.

``python contamination.py FOLDER`` with ADBench's .npz files (Han et al., 2022). Up to 2000 normal rows of each table,
and as many anomalies as make up the share, or fewer normal rows where there are not enough of them.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from flowmatch import FlowAnomalyDetector

torch.set_num_threads(1)


def mixture(X, y, share, seed):
    """Standardized rows of which `share` are anomalies, and which they are."""
    random = np.random.default_rng(seed)
    normal, odd = (random.permutation(np.flatnonzero(y == label)) for label in (0, 1))
    normal = normal[:2000]
    n_odd = min(len(odd), round(share / (1 - share) * len(normal)))
    normal = normal[: round(n_odd * (1 - share) / share)]
    rows = random.permutation(np.concatenate([normal, odd[:n_odd]]))
    X = X[rows].astype(np.float64)
    scale = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(scale > 1e-12, scale, 1.0), y[rows]


def neighbors(X, y, share, seed):
    return NearestNeighbors(n_neighbors=5).fit(X).kneighbors()[0][:, -1]


def forest(X, y, share, seed):
    return -IsolationForest(random_state=seed).fit(X).score_samples(X)


def flow(score="combined", trimmed=0.0):
    def scores(X, y, share, seed):
        detector = FlowAnomalyDetector(
            method=score, contamination=share, trim=trimmed * share, random_state=seed, device="cpu"
        )
        return -detector.fit(X).score_samples(X)

    return scores


METHODS = {
    "isolation forest": forest,
    "5th neighbor": neighbors,
    "combined": flow(),
    "combined, trimmed by 2 x the share": flow(trimmed=2.0),
    "one_step": flow("one_step"),
    "one_step, trimmed by 2 x the share": flow("one_step", trimmed=2.0),
}

if __name__ == "__main__":
    found = {}
    for file in sorted(Path(sys.argv[1]).glob("*.npz")):
        table = np.load(file)
        for share in (0.05, 0.2):
            for seed in (0,):
                X, y = mixture(table["X"], table["y"].astype(int), share, seed)
                for name, method in METHODS.items():
                    start = time.process_time()
                    area = roc_auc_score(y, method(X, y, share, seed))
                    found.setdefault((name, share), []).append((area, time.process_time() - start))
    for (name, share), values in found.items():
        area, seconds = np.mean(values, axis=0)
        print(f"{share:5.0%}  {name:36s} AUROC {100 * area:.1f}  {seconds:.1f} CPU s")
