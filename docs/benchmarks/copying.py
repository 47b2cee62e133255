"""Distance, copies and membership attacks as training grows, with and without `apart_from`.

    python copying.py --seeds 0,1,2 > copying.jsonl       # four tables; one line of JSON each
    python copying.py --plot copying.jsonl copying.png

"apart" samples are those of `sample(apart_from=train)`. The natural share of near rows, which copying is measured
against, is that of the training rows, each left out in turn.
"""

import argparse
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import copy_check, membership_attack, wasserstein

TABLES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
    "breast_cancer": datasets.load_breast_cancer,
}
LENGTHS = (0.5, 0.7, 1.0, 1.5, 2.0)
"""Steps of training over the default's."""


def judge(train, test, drawn, seed):
    shares = [copy_check(np.delete(train, i, axis=0), train[[i]]).share for i in range(len(train))]
    attacks = [membership_attack(train, drawn, test, random_state=k) for k in range(5)]
    return {
        "wasserstein": wasserstein(test, drawn),
        "floor": wasserstein(test, train),
        "copying": copy_check(train, drawn).share - np.mean(shares),
        "nearest": np.mean([attack.nearest_auc for attack in attacks]),
        "density": np.mean([attack.density_auc for attack in attacks]),
    }


def run(name, seed):
    X, y = TABLES[name](return_X_y=True)
    if name == "diabetes":
        X, y = np.column_stack([X, y]), None
    train, test, labels, _ = train_test_split(
        X, y if y is not None else X, test_size=0.2, random_state=seed, stratify=y
    )
    scaled = StandardScaler().fit(train).transform
    model = FlowMatchingGenerator(random_state=seed, max_iter=None)
    steps = model.fit(train, labels).n_iter_
    for length in LENGTHS:
        start = time.process_time()
        model.set_params(max_iter=round(length * steps)).fit(train, labels)
        seconds, n = time.process_time() - start, len(train)
        for kind, rows in {"plain": None, "apart": train}.items():
            drawn = scaled(model.sample(n, random_state=seed, apart_from=rows))
            line = {"table": name, "seed": seed, "length": length, "kind": kind, "fit_s": seconds}
            print(json.dumps(line | judge(scaled(train), scaled(test), drawn, seed)), flush=True)


def plot(path, picture):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = defaultdict(list)
    for line in map(json.loads, Path(path).read_text().splitlines()):
        values = [line["wasserstein"] / line["floor"], line["copying"], line["nearest"], line["density"]]
        found[line["kind"], line["length"]].append(values)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    for kind in ("plain", "apart"):
        means = np.array([np.mean(found[kind, length], axis=0) for length in LENGTHS])
        for length, (distance, copying, nearest, density) in zip(LENGTHS, means, strict=True):
            print(f"{kind:8s} {length:3.1f}  W1 {distance:.3f}  {copying:+.3f}  AUC {nearest:.3f} {density:.3f}")
        for axis, values in zip(axes, (means[:, 1], means[:, 2:].max(axis=1)), strict=True):
            axis.plot(values, means[:, 0], "o-", label=kind)
            for length, x, distance in zip(LENGTHS, values, means[:, 0], strict=True):
                axis.annotate(f"{length:g}", (x, distance), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes[0].set(xlabel="share of near copies, above the natural one", ylabel="W1 / that of training rows")
    axes[1].set(xlabel="AUC of the better membership attack")
    axes[0].legend(title="steps over the default's")
    figure.tight_layout()
    figure.savefig(picture, dpi=90)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--plot", nargs=2)
    arguments = parser.parse_args()
    if arguments.plot:
        return plot(*arguments.plot)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed in map(int, arguments.seeds.split(",")):
        for name in TABLES:
            run(name, seed)


if __name__ == "__main__":
    main()
