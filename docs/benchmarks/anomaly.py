"""Adapters for an anomaly benchmark on tables: ``fit_score(X_train, X_test, seed)`` for every score.

The harness trains on half of the normal rows and tests on the rest and all anomalies, as in Livernoche et al. (2024).
"""

import functools
import time

import torch

from flowmatch import FlowAnomalyDetector
from flowmatch.anomaly import SCORES

torch.set_num_threads(1)


def fit_score(X_train, X_test, seed, score="combined", **parameters):
    """Anomaly scores of the test rows, CPU seconds of the fit, and CPU seconds of the scoring."""
    start = time.process_time()
    detector = FlowAnomalyDetector(method=score, random_state=seed, device="cpu", **parameters).fit(X_train)
    fitted = time.process_time()
    scores = -detector.score_samples(X_test)
    return scores, fitted - start, time.process_time() - fitted


for name in SCORES:
    globals()[name] = functools.partial(fit_score, score=name)
