"""Anomaly scores on simulated vibration: windows of 256 samples, weak defects of the outer and inner race.

``python vibration.py [steps]`` trains one small U-Net on 800 normal windows and scores the same test windows with every
score; nearest neighbors of raw windows and of their log-spectra are the rivals.
"""

import sys
import time

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from flowmatch import FlowAnomalyDetector
from flowmatch.anomaly import Combined, Denoising, Latent, Neighbors, OneStep
from flowmatch.datasets import make_bearing_signals
from flowmatch.networks import UNet

torch.set_num_threads(1)
MACHINE = {"n_times": 256, "snr_db": 10.0, "rpm": (1780, 1815)}
SCORES = {
    "one_step": OneStep(),
    "one_step at t = 0.9": OneStep(times=(0.9,)),
    "latent": Latent(),
    "neighbors": Neighbors(),
    "denoising": Denoising(),
    "combined": Combined(),
}


def log_spectra(windows):
    return np.log(np.abs(np.fft.rfft(windows[:, 0] * np.hanning(windows.shape[-1]))) ** 2 + 1e-6)


def to_neighbors(features, train):
    search = NearestNeighbors(n_neighbors=5).fit(features(train))
    return lambda windows: search.kneighbors(features(windows))[0].mean(axis=1)


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    train = make_bearing_signals(800, faults="normal", random_state=0, **MACHINE).data
    test = make_bearing_signals(400, faults="normal", random_state=1, **MACHINE).data
    methods = {
        "5 neighbors, raw windows": to_neighbors(lambda windows: windows[:, 0], train),
        "5 neighbors, log-spectra": to_neighbors(log_spectra, train),
    }
    for name, score in SCORES.items():  # one seed trains one flow, anew for each score
        start = time.process_time()
        detector = FlowAnomalyDetector(UNet(width=16), method=score, max_iter=steps, random_state=0).fit(train)
        print(f"{name}: fitted in {time.process_time() - start:.0f} CPU s", flush=True)
        methods[name] = lambda windows, detector=detector: -detector.score_samples(windows)
    labels = np.repeat([0, 1], 400)
    faults = [(fault, severity) for fault in ("outer", "inner") for severity in (0.1, 0.2, 0.3)]
    windows = [
        make_bearing_signals(400, faults=fault, severity=severity, random_state=2, **MACHINE).data
        for fault, severity in faults
    ]
    print("AUROC against normal windows:", faults)
    for name, method in methods.items():
        start, normal = time.process_time(), method(test)
        cost = (time.process_time() - start) / len(test) * 1e3
        areas = [roc_auc_score(labels, np.concatenate([normal, method(odd)])) for odd in windows]
        print(f"{name:28s}", *(f"{area:.3f}" for area in areas), f"  {cost:.1f} ms a window", flush=True)
