"""Distance against copying of tables' samples, as steps of training grow: with and without masked rows.

Two commands, beside `bench_gen.py` and `flowmatch_adapter.py`:

    python bench_gen.py frontier.jsonl --gens masked_300,masked_600,masked_900,masked_1200,whole_300,... --seeds 0,1,2
    python frontier.py frontier.jsonl frontier.png
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LINES = {"whole": "whole rows (before)", "masked": "masked_share = 0.3 (now)"}


def means(path):
    """Mean copying gap and W1 of every setting, by kind and passes; over the tables and seeds that all of them have."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    rows = [row for row in rows if "error" not in row and row["gen"].split("_")[0] in LINES]
    found = defaultdict(dict)
    for row in rows:
        found[row["gen"]][row["set"], row["seed"]] = (max(0.0, row["dcr"] - row["dcr_test"]), row["w1_test"])
    common = set.intersection(*(set(runs) for runs in found.values()))
    print(f"{len(common)} runs each")
    return {name: np.mean([runs[key] for key in common], axis=0) for name, runs in found.items()}


def main(path, picture):
    points = means(path)
    figure, axis = plt.subplots(figsize=(5.5, 4))
    for kind, label in LINES.items():
        names = sorted(
            (name for name in points if name.startswith(f"{kind}_")), key=lambda name: int(name.split("_")[1])
        )
        line = np.array([points[name] for name in names])
        axis.plot(line[:, 0], line[:, 1], "o-", label=label)
        for name, (gap, distance) in zip(names, line, strict=True):
            print(f"{name:14s} copying gap {gap:.3f}  W1 to test {distance:.3f}")
            axis.annotate(name.split("_")[1], (gap, distance), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axis.set(xlabel="copying gap", ylabel="W1 to held-out rows", title="passes through the training rows")
    axis.legend()
    figure.savefig(picture, dpi=90, bbox_inches="tight")


if __name__ == "__main__":
    main(*sys.argv[1:3])
