"""Generators of other packages on large tables, each in its own environment, judged by the measures of
large_tables.py.

    python rivals.py split diamonds.csv work [--seed 0] [--rows 5000]     # here
    python rivals.py draw flowmatch work                                  # here
    .gan/bin/python rivals.py draw ctgan work [--budget 120]              # in the environment of the rival
    python rivals.py judge work                                           # here: one line for each table drawn

Environments (Python 3.11, CPU): `pip install ctgan sdv` for copula, tvae and ctgan; `pip install mostlyai-engine` for
mostlyai; `pip install ForestDiffusion` for forest; `pip install utrees "scikit-learn<1.6"` (it needs an older one) for
utrees. All need pandas; set OMP_NUM_THREADS=1. `real` draws training rows themselves.

`--budget` is CPU seconds of `fit`, turned into epochs (tvae, ctgan; mostlyai, which also stops by itself) or rows
(forest and utrees) by the seconds of two short fits, not counted. The copula has no such knob. Without it all take
their defaults, and `--options` in JSON; forest and utrees want a smaller `duplicate_K` on tables of this size.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd


def cpu():
    """CPU seconds of this process and of those it has started."""
    return sum(os.times()[:4])


def read(path, orders):
    """A table with its categories; their order, where they have one."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    for column, order in orders.items():
        table[column] = pd.Categorical(table[column], order, ordered=True)
    return table


def encode(table, orders):
    """Categories as codes, for trees. Returns the matrix and the categories by column."""
    text = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
    levels = {c: orders.get(c) or sorted(table[c].unique()) for c in text}
    codes = table.assign(**{c: pd.Categorical(table[c], levels[c]).codes for c in levels})
    return codes.to_numpy(dtype=float), levels


def decode(matrix, table, levels):
    """A matrix of codes as a table, each column of numbers with its decimals (all other packages do so themselves)."""
    found = pd.DataFrame(matrix, columns=table.columns)
    for column in table:
        if column in levels:
            found[column] = np.asarray(levels[column])[found[column].astype(int).clip(0, len(levels[column]) - 1)]
        else:
            values = table[column].dropna()
            found[column] = found[column].round(next(k for k in range(16) if np.allclose(values, values.round(k))))
    return found


def flowmatch(train, orders, options, seed):
    from flowmatch import FlowMatchingGenerator

    model = FlowMatchingGenerator(random_state=seed, **options).fit(read_categories(train, orders))
    return lambda n: model.sample(n, random_state=seed)


def read_categories(table, orders):
    """Ordered categories as such; pandas' strings of the other columns stay."""
    return table.assign(**{c: pd.Categorical(table[c], order, ordered=True) for c, order in orders.items()})


def real(train, orders, options, seed):
    """Training rows themselves: what a perfect generator reaches."""
    return lambda n: train.sample(n, random_state=seed, replace=n > len(train))


def synthesizer(name):
    """One of sdv's, which wrap ctgan: integers, decimals, bounds and missing entries are kept."""

    def fit(train, orders, options, seed):
        import torch
        from sdv import single_table
        from sdv.metadata import Metadata

        np.random.seed(seed)
        torch.manual_seed(seed)
        numeric = [c for c in train if pd.api.types.is_numeric_dtype(train[c])]
        columns = {c: {"sdtype": "numerical" if c in numeric else "categorical"} for c in train}
        metadata = Metadata.load_from_dict({"tables": {"table": {"columns": columns}}})
        model = getattr(single_table, name)(metadata, **options)
        data = {"table": train.astype({c: object for c in train if c not in numeric})}
        model.auto_assign_transformers(data)
        assigned = model.get_transformers()
        for column in numeric:  # entries that are missing together shall be so
            if train[column].isna().any():
                assigned[column].missing_value_generation = "from_column"
        model.update_transformers(assigned)
        model.fit(data)
        return lambda n: model.sample(n)["table"]

    return fit


def mostlyai(train, orders, options, seed):
    from mostlyai.engine import TabularARGN

    model = TabularARGN(random_state=seed, device="cpu", **options).fit(train)
    return lambda n: model.sample(n_samples=n)


def forest(train, orders, options, seed):
    from ForestDiffusion import ForestDiffusionModel

    # It mistakes the dummies of a category in column 1 for those of one in column 11: categories go first.
    train = train[sorted(train, key=lambda c: c in orders or pd.api.types.is_numeric_dtype(train[c]))]
    matrix, levels = encode(train, orders)
    nominal = [j for j, c in enumerate(train) if c in levels and c not in orders]
    whole = [j for j, c in enumerate(train) if j not in nominal and (np.nan_to_num(matrix[:, j]) % 1 == 0).all()]
    model = ForestDiffusionModel(matrix, cat_indexes=nominal, int_indexes=whole, n_jobs=1, seed=seed, **options)
    return lambda n: decode(model.generate(batch_size=n), train, levels)


def unmask(model, X, rng):
    """Fill what is missing in X by unmasking trees, each row in an order of its own.

    The same distribution as that of the class' own `impute` makes, which goes row by row.
    """
    X, order = X.copy(), np.where(np.isnan(X), rng.random(X.shape), np.inf)
    steps = order.argsort(axis=1)
    for step in range(X.shape[1]):
        for column, tree in enumerate(model.trees_):
            rows = (steps[:, step] == column) & np.isnan(X[:, column])
            if not rows.any():
                continue
            if tree is None:
                X[rows, column] = model.constant_vals_[column]
            elif model.quantize_cols_[column]:
                X[rows, column] = tree.sample(X[rows])
            else:
                below = tree.predict_proba(X[rows]).cumsum(axis=1)
                code = (below < rng.random((rows.sum(), 1)) * below[:, -1:]).sum(axis=1)
                X[rows, column] = model.encoders_[column].inverse_transform(code)
    return X


def utrees(train, orders, options, seed):
    from utrees import UnmaskingTrees

    matrix, levels = encode(train, orders)
    kinds = ["categorical" if c in levels else "continuous" for c in train]
    trees = {"n_jobs": 1}
    model = UnmaskingTrees(random_state=seed, xgboost_kwargs=trees, **options).fit(matrix, quantize_cols=kinds)
    rng = np.random.default_rng(seed)
    return lambda n: decode(unmask(model, np.full((n, matrix.shape[1]), np.nan), rng), train, levels)


FITS = {
    "real": (real, "pandas", "pandas"),
    "flowmatch": (flowmatch, "flowmatch", "flowmatch"),
    "copula": (synthesizer("GaussianCopulaSynthesizer"), "sdv.single_table", "sdv"),
    "tvae": (synthesizer("TVAESynthesizer"), "sdv.single_table", "ctgan"),
    "ctgan": (synthesizer("CTGANSynthesizer"), "sdv.single_table", "ctgan"),
    "mostlyai": (mostlyai, "mostlyai.engine", "mostlyai-engine"),
    "forest": (forest, "ForestDiffusion", "ForestDiffusion"),
    "utrees": (utrees, "utrees", "utrees"),
}
# What a fit's seconds are linear in, and how much of it two short fits get.
KNOBS = {
    "tvae": ("epochs", 1, 11),
    "ctgan": ("epochs", 1, 11),
    "mostlyai": ("max_epochs", 1, 4),
    "forest": ("rows", 100, 300),
    "utrees": ("rows", 500, 1500),
}


def within(budget, name, train, orders, options, seed):
    """Rows and options with which a fit takes some CPU seconds, by those of two short fits."""
    if name not in KNOBS:
        return train, options
    knob, few, more = KNOBS[name]

    def limited(amount):
        return (train.iloc[:amount], options) if knob == "rows" else (train, options | {knob: amount})

    costs = []
    for amount in (few, more):
        rows, chosen = limited(amount)
        start = cpu()
        FITS[name][0](rows, orders, chosen, seed)
        costs.append(cpu() - start)
    return limited(max(1, round(few + (budget - costs[0]) * (more - few) / (costs[1] - costs[0]))))


def draw(name, work, budget, n_rows, options, seed):
    """Fit to the training rows, draw as many rows as the test has, and write them with what they cost."""
    about = json.loads((work / "about.json").read_text())
    orders = about["orders"]
    train = read(work / "train.csv", {}).iloc[:n_rows]
    fit, module, package = FITS[name]
    importlib.import_module(module)
    if budget:
        train, options = within(budget, name, train, orders, options, seed)
    start = cpu()
    sample = fit(train, orders, options, seed)
    fitted = cpu()
    drawn = sample(about["n_test"])
    line = {"generator": name, "budget": budget, "rows": len(train), "seed": seed, "options": options}
    line |= {"fit_s": fitted - start, "sample_s": cpu() - fitted}
    line |= {"version": importlib.metadata.version(package), "python": sys.version.split()[0]}
    file = work / f"{name}-{budget or 'default'}-{len(train)}-{len(list(work.glob('*.json')))}.csv"
    drawn[list(train)].to_csv(file, index=False)
    file.with_suffix(".json").write_text(json.dumps(line))
    print(json.dumps(line), flush=True)


def split(path, work, n_rows, seed):
    """Training and test rows as large_tables.py has them."""
    from large_tables import ORDERS, load, split

    table, name = load(path)
    train, test = split(table, seed, n_rows)
    work.mkdir(exist_ok=True, parents=True)
    train.to_csv(work / "train.csv", index=False)
    test.to_csv(work / "test.csv", index=False)
    orders = {column: order for column, order in ORDERS.items() if column in table}
    (work / "about.json").write_text(json.dumps({"table": name, "n_test": len(test), "orders": orders}))


def judge(work, seed):
    """A line of measures for each table drawn, kept beside it; and the ratio of W1 to that of held-out rows."""
    from large_tables import measure

    about = json.loads((work / "about.json").read_text())
    train, test = (read(work / f"{part}.csv", about["orders"]) for part in ("train", "test"))
    lines = []
    for file in sorted(work.glob("*.json")):
        line = json.loads(file.read_text())
        if file.name == "about.json":
            continue
        if "c2st" not in line:
            drawn = read(file.with_suffix(".csv"), about["orders"])
            line |= measure(about["table"], train, test, drawn, seed)
            file.write_text(json.dumps(line))
        lines.append(line)
    found = pd.DataFrame(lines).drop(columns=["python", "seed", "pair_difference_floor"])
    found["w1_ratio"] = found["wasserstein"] / found["wasserstein_floor"]
    print(found.round(3).to_string())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("do", choices=["split", "draw", "judge"])
    parser.add_argument("what", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()
    work = Path(arguments.what[-1])
    if arguments.do == "split":
        split(arguments.what[0], work, arguments.rows, arguments.seed)
    elif arguments.do == "draw":
        draw(arguments.what[0], work, arguments.budget, arguments.rows, arguments.options, arguments.seed)
    else:
        judge(work, arguments.seed)


if __name__ == "__main__":
    main()
