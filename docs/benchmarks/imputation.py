"""Imputation of the tabular benchmark's open tables and of diamonds, against imputers of other packages.

    python imputation.py split work diamonds.csv [--seeds 0,1,2]    # here, beside the benchmark's data.py
    python imputation.py draw flowmatch work                        # each in an environment that has the method
    python imputation.py judge work                                 # here

Of the training part (80 %) of each table (of 5,000 diamonds), 20 % of the cells are hidden at random; every method
learns from what is left and fills it. Numbers are in standard deviations of their column; codes are left out of RMSE.
miceforest and missforest are installed by `pip install miceforest MissForest "lightgbm<4.6"` (miceforest calls what
newer ones have changed), utrees by `pip install utrees "scikit-learn<1.6"`; scikit-learn's run anywhere.

rmse        of the mean of all draws (of the single answer of deterministic imputers), mean over columns
w1_cells    Wasserstein-1 distance between drawn and true values of the hidden cells, one draw, mean over columns
w1_test     Wasserstein-1 distance between the completed rows and the held-out 20 % of the rows, one draw
codes       share of hidden codes that one draw gets right, and `most` that the most frequent of all draws does
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from rivals import cpu, unmask

warnings.filterwarnings("ignore")


def flow(M, cat, seed):
    """A hundred draws of the defaults."""
    from flowmatch import FlowMatchingGenerator

    generator = FlowMatchingGenerator(categorical_features=cat, random_state=seed, device="cpu").fit(M)
    return generator.impute(M, n_imputations=100, random_state=seed)


def iterative(n_draws=1, **settings):
    """scikit-learn's imputer by regressions, of Bayesian ridge if nothing else; codes are numbers to it."""

    def draw(M, cat, seed):
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer

        return [IterativeImputer(random_state=seed + k, **settings).fit_transform(M) for k in range(n_draws)]

    return draw


def forests(M, cat, seed):
    from sklearn.ensemble import RandomForestRegressor

    return iterative(estimator=RandomForestRegressor(100, random_state=seed), max_iter=5)(M, cat, seed)


def nearest(M, cat, seed):
    """On standardized columns."""
    from sklearn.impute import KNNImputer

    spread = np.nanstd(M, axis=0) + 1e-12
    return [KNNImputer().fit_transform(M / spread) * spread]


def mean(M, cat, seed):
    from sklearn.impute import SimpleImputer

    return [SimpleImputer().fit_transform(M)]


def mice(M, cat, seed):
    """Ten draws, each of a chain of its own."""
    from miceforest import ImputationKernel

    table = pd.DataFrame(M).astype(dict.fromkeys(cat, "category")).rename(columns=str)
    # Categories by "normal", its default, need the logarithm of a probability, which may be 0.
    ways = {column: "fast" if int(column) in cat else "normal" for column in table}
    kernel = ImputationKernel(table, num_datasets=10, mean_match_strategy=ways, random_state=seed)
    kernel.mice(5)
    return [kernel.complete_data(k).astype(float).to_numpy() for k in range(10)]


def missforest(trees):
    """Its own default, gradient boosted trees with linear leaves, or random forests as in the paper of its name."""

    def draw(M, cat, seed):
        from missforest import MissForest
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        chosen = {
            "clf": RandomForestClassifier(100, max_features="sqrt", random_state=seed),
            "rgr": RandomForestRegressor(100, max_features="sqrt", random_state=seed),
        }
        table = pd.DataFrame(M).rename(columns=str)
        model = MissForest(categorical=[str(j) for j in cat], verbose=0, **(chosen if trees else {}))
        return [model.fit_transform(table)[table.columns].astype(float).to_numpy()]  # it sorts columns

    return draw


def utrees(M, cat, seed):
    """Ten draws. Masking orders of a row: the 50 of its default where that gives no more than 50,000 examples."""
    from utrees import UnmaskingTrees

    orders = int(np.clip(50_000 / M.size, 1, 50))
    kinds = ["categorical" if j in cat else "continuous" for j in range(M.shape[1])]
    model = UnmaskingTrees(duplicate_K=orders, random_state=seed, xgboost_kwargs={"n_jobs": 1}).fit(M, kinds)
    return unmask(model, np.tile(M, (10, 1)), np.random.default_rng(seed)).reshape(10, *M.shape)


METHODS = {
    "flowmatch": flow,
    "iterative": iterative(),
    "iterative-posterior": iterative(10, sample_posterior=True),
    "iterative-forests": forests,
    "knn": nearest,
    "mean": mean,
    "miceforest": mice,
    "missforest": missforest(trees=False),
    "missforest-forests": missforest(trees=True),
    "utrees": utrees,
}


def measures(draws, table, hidden, test, cat):
    """What the head of this file says."""
    spread = table.std(axis=0) + 1e-12
    mean, one = np.mean(draws, axis=0), draws[0]
    numbers = [j for j in range(table.shape[1]) if j not in cat]
    cells = [(one[hidden[:, j], j] / spread[j], table[hidden[:, j], j] / spread[j]) for j in numbers]
    errors = [np.sqrt(np.mean(((mean - table)[hidden[:, j], j] / spread[j]) ** 2)) for j in numbers]
    codes = {j: np.round(draws[:, hidden[:, j], j]).astype(int) for j in cat}
    most = {j: [np.bincount(found.clip(0)).argmax() for found in codes[j].T] for j in cat}
    hits = [[np.mean(found == table[hidden[:, j], j]) for found in (codes[j][0], most[j])] for j in cat]
    rows = np.random.RandomState(0).permutation(len(one))[:500]
    costs = np.abs((one[rows] / spread)[:, None] - (test / spread)[None]).sum(axis=2)
    import ot
    from scipy.stats import wasserstein_distance

    return {
        "rmse": float(np.mean(errors)),
        "w1_cells": float(np.mean([wasserstein_distance(*pair) for pair in cells])),
        "w1_test": float(ot.emd2([], [], costs, numItermax=10**6)),
        "codes": float(np.mean(hits, axis=0)[0]) if hits else None,
        "most": float(np.mean(hits, axis=0)[1]) if hits else None,
    }


def tables(path):
    """The open tables, and diamonds: matrices, and the columns of codes."""
    import data
    from large_tables import load, numbers

    for name in data.GEN["open"]:
        X, y, meta = data.load(name)
        yield name, np.column_stack([X, y]) if meta["task"] == "reg" else X, meta["cat"]
    diamonds = load(path)[0].sample(5000, random_state=0)
    for column in diamonds.select_dtypes("category"):
        diamonds[column] = diamonds[column].cat.codes
    yield "diamonds", numbers(diamonds), [1, 2, 3]


def split(work, path, seeds):
    """One file for the methods, and one with the answers."""
    work.mkdir(exist_ok=True, parents=True)
    for name, table, cat in tables(path):
        for seed in seeds:
            random = np.random.RandomState(seed)
            order = random.permutation(len(table))
            n_test = len(table) // 5
            test, train = table[order[:n_test]], table[order[n_test:]]
            hidden = random.uniform(size=train.shape) < 0.2
            hidden[hidden.all(axis=1), 0] = False
            np.savez(work / f"{name}-{seed}.task.npz", M=np.where(hidden, np.nan, train), cat=cat, seed=seed)
            np.savez(work / f"{name}-{seed}.answer.npz", table=train, hidden=hidden, test=test)


def draw(work, method, seeds):
    for file in sorted(work.glob("*.task.npz")):
        task, answer = np.load(file), Path(str(file).replace(".task.", f".{method}."))
        if int(task["seed"]) not in seeds or answer.exists():
            continue
        start = cpu()
        draws = METHODS[method](task["M"], task["cat"].astype(int).tolist(), int(task["seed"]))
        np.savez(answer, draws=np.asarray(draws), cpu_s=cpu() - start)
        print(answer.name, len(draws), f"{cpu() - start:.1f} s", flush=True)


def judge(work):
    """Means over tables and seeds, of the tables that a method has filled."""
    rows = []
    for file in sorted(work.glob("*.answer.npz")):
        truth, task = np.load(file), np.load(str(file).replace(".answer.", ".task."))
        name = file.name.split(".")[0]
        for method in METHODS:
            found = work / f"{name}.{method}.npz"
            if found.exists():
                drawn = np.load(found)
                row = {"set": name, "method": method, "n": len(drawn["draws"]), "cpu_s": float(drawn["cpu_s"])}
                row |= measures(drawn["draws"], truth["table"], truth["hidden"], truth["test"], task["cat"].tolist())
                rows.append(row)
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = pd.DataFrame(rows).assign(tables=1)
    keys = ["rmse", "w1_cells", "w1_test", "codes", "most", "cpu_s"]
    summary = found.groupby("method")[[*keys, "n"]].mean().join(found.groupby("method")["tables"].sum())
    print(summary.round(3).to_string())
    print(found.pivot(index="set", columns="method", values="rmse").round(3).to_string())
    print(found.pivot(index="set", columns="method", values="w1_cells").round(3).to_string())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("do", choices=["split", "draw", "judge"])
    parser.add_argument("what", nargs="+")
    parser.add_argument("--seeds", default="0")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.do == "split":
        split(Path(arguments.what[0]), arguments.what[1], seeds)
    elif arguments.do == "draw":
        draw(Path(arguments.what[1]), arguments.what[0], seeds)
    else:
        judge(Path(arguments.what[0]))


if __name__ == "__main__":
    main()
