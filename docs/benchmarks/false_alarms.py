"""False alarms on unseen normal rows when 5 % are promised: ``python false_alarms.py FOLDER`` with ADBench's files.

Half of the normal rows to train, as in the ranking benchmark; the share of the other half that is flagged, by table.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from flowmatch import FlowAnomalyDetector

torch.set_num_threads(1)

if __name__ == "__main__":
    means = []
    for file in sorted(Path(sys.argv[1]).glob("*.npz")):
        table = np.load(file)
        normal = table["X"][table["y"] == 0].astype(np.float64)
        rates = []
        for seed in (0, 1, 2):
            order = np.random.default_rng(seed).permutation(len(normal))
            train, new = normal[order[: len(order) // 2]], normal[order[len(order) // 2 :]]
            detector = FlowAnomalyDetector(random_state=seed, device="cpu").fit(train)
            rates.append(np.mean(detector.predict(new) == -1))
        means.append(np.mean(rates))
        print(f"{file.stem:20s}", *(f"{rate:6.1%}" for rate in rates), f"  mean {means[-1]:.1%}", flush=True)
    print(f"mean {np.mean(means):.1%}, worst table {np.max(means):.1%}")
