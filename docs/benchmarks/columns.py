"""Which rules of columns survive: steps, endings, digits, calendars, with exceptions, in tables of three sizes.

    python columns.py rules --rows 200,2000,50000 --seed 0     # a line a column: kept by real and by synthetic values
    python columns.py spikes --rows 2000,40000 --seed 0        # shares of frequent values

Members of the families are random: step, offset, share of exceptions, repeats, and how columns depend on each other.
"""

import argparse
import json
import time

import numpy as np
import pandas as pd

from flowmatch import FlowMatchingGenerator

COLUMNS_PER_TABLE = 8
N_DRAWS = 5000


def on_step(values, step, offset):
    """Which numbers are `offset` plus a multiple of `step`, to a millionth of it."""
    distance = (np.asarray(values, dtype=float) - offset) / step
    return np.abs(distance - np.round(distance)) < 1e-6


def numbers(rng, z):
    """Families of numbers: (name, values, rule as a function of values)."""
    n, scale = len(z), 10 ** rng.uniform(1, 3)
    smooth = {
        "normal": scale * (z + 5),
        "lognormal": scale * np.exp(z),
        "uniform": scale * 5 * (z.argsort().argsort() + rng.random(n)) / n,
    }
    shape = rng.choice(list(smooth))
    raw, kind = smooth[shape], rng.choice(["decimal", "multiple", "quarter", "third", "ending", "endings", "digits"])
    if kind == "digits":
        digits = int(rng.integers(1, 4))
        raw = np.exp(3 * z) * scale

        def rounded(x):
            place = 10.0 ** (np.floor(np.log10(np.abs(x))) - digits + 1)
            return np.round(x / place) * place

        return f"{digits} significant digits", rounded(raw), lambda x: np.isclose(x, rounded(x), rtol=1e-9)
    if kind in ("ending", "endings"):
        endings = rng.choice([0.0, 0.25, 0.49, 0.5, 0.95, 0.99], 1 if kind == "ending" else 2, replace=False)
        values = np.floor(raw) + rng.choice(endings, n)
        return f"{kind} {endings}", values, lambda x: np.logical_or.reduce([on_step(x, 1, e) for e in endings])
    step = {
        "decimal": 10.0 ** -rng.integers(0, 4),
        "multiple": float(rng.choice([2, 5, 7, 12, 25, 50])),
        "quarter": float(rng.choice([0.25, 0.125, 0.05, 0.2, 2.5])),
        "third": float(rng.choice([1 / 3, 1 / 7, 0.4535924])),
    }[kind]
    offset = float(rng.choice([0.0, step * 0.4])) if kind != "decimal" else 0.0
    values = np.round((raw - offset) / step) * step + offset
    return f"{shape}, step {step:.4g} offset {offset:.4g}", values, lambda x: on_step(x, step, offset)


CALENDARS = [
    "D",
    "W-MON",
    "B",
    "MS",
    "ME",
    "QS",
    "QE",
    "YS",
    "BMS",
    "BME",
    "SMS",
    "15min",
    "h",
    "5min",
    "office",
    "9:30",
]


def dates(rng, z):
    """Families of dates."""
    n, kind = len(z), str(rng.choice(CALENDARS))
    years = int(rng.integers(6, 40)) if "min" not in kind and kind != "h" else 2
    start = pd.Timestamp("1980-01-01") + pd.Timedelta(days=int(rng.integers(0, 3000)))
    ranks = (z.argsort().argsort() + rng.random(n)) / n
    if kind in ("office", "9:30"):
        days = pd.bdate_range(start, periods=260 * years)
        day = days[(ranks * len(days)).astype(int)]
        if kind == "9:30":
            times = day + pd.Timedelta(hours=9, minutes=30)
            return (
                "business days at 9:30",
                times,
                lambda t: (t - t.normalize() == pd.Timedelta("9h30min")) & (t.day_of_week < 5),
            )
        times = day + pd.to_timedelta(60 * rng.integers(9 * 60, 17 * 60, n), "s")
        return "office hours", times, lambda t: (t.hour >= 9) & (t.hour < 17) & (t.day_of_week < 5) & (t.second == 0)
    every = pd.date_range(start, start + pd.DateOffset(years=years), freq=kind)
    known = every.to_numpy()
    return f"dates {kind}", every[(ranks * len(every)).astype(int)], lambda t: np.isin(t.to_numpy(), known)


def durations(rng, z):
    """Durations in whole steps of time."""
    step = int(rng.choice([60, 300, 900, 3600, 86400]))
    seconds = np.round(np.exp(z) * step * 20 / step) * step
    values = pd.to_timedelta(seconds, "s")
    return f"durations of {step} s", values, lambda t: on_step(pd.to_timedelta(t).total_seconds(), step, 0)


def with_exceptions(rng, values, share):
    """Replace a share of the values by others between them."""
    broken = rng.random(len(values)) < share
    series = pd.Series(values)
    if broken.any():
        low, high = series.min(), series.max()
        series[broken] = [low + (high - low) * u for u in rng.random(int(broken.sum()))]
    return series


def make_table(rng, n):
    """A table of random columns that all depend on one hidden variable, and their rules."""
    hidden = rng.normal(size=n)
    columns, rules = {}, {}
    for j in range(COLUMNS_PER_TABLE):
        family = (numbers, dates, durations)[int(rng.choice(3, p=[0.55, 0.35, 0.1]))]
        z = 0.7 * hidden + 0.7 * rng.normal(size=n)
        name, values, rule = family(rng, z)
        share = float(rng.choice([0.0, 0.0, 0.005, 0.01]))
        label = f"{j}: {name}, {share:.1%} exceptions"
        columns[label], rules[label] = with_exceptions(rng, values, share), rule
    return pd.DataFrame(columns), rules


def kept(series, rule):
    values = pd.DatetimeIndex(series) if series.dtype.kind == "M" else series.to_numpy()
    return float(np.mean(rule(values)))


def run_rules(args):
    lines = []
    for n in args.rows:
        rng = np.random.default_rng(args.seed)
        for _ in range(args.tables):
            table, rules = make_table(rng, n)
            start = time.process_time()
            generator = FlowMatchingGenerator(random_state=0, device="cpu", max_iter=args.max_iter).fit(table)
            fitted = time.process_time() - start
            drawn = generator.sample(N_DRAWS, random_state=1)
            for label, rule in rules.items():
                line = {"rows": n, "column": label, "real": kept(table[label], rule), "kept": kept(drawn[label], rule)}
                lines.append(line)
                print(json.dumps(line), flush=True)
            print(f"# {n} rows: fit {fitted:.1f} CPU s", flush=True)
    for n in args.rows:
        own = [line for line in lines if line["rows"] == n and line["real"] >= 0.99]
        well = sum(line["kept"] >= 0.99 for line in own)
        print(f"{n} rows: {well} of {len(own)} rules that 99 % of real values keep are kept by 99 % of synthetic ones")


def run_spikes(args):
    for n in args.rows:
        rng = np.random.default_rng(args.seed)
        ratios = []
        for _ in range(args.tables):
            z = rng.normal(size=n)
            columns, spikes = {}, {}
            for j in range(COLUMNS_PER_TABLE):
                share = float(np.exp(rng.uniform(np.log(0.01), np.log(0.6))))
                x = 0.7 * z + 0.7 * rng.normal(size=n)
                x = [x, np.exp(x), np.round(100 * x), np.round(np.exp(x), 2)][int(rng.integers(4))]
                spike = float(np.quantile(x, rng.choice([0.0, 0.3, 0.5, 0.9, 1.0])))
                columns[f"x{j}"] = np.where(rng.random(n) < share, spike, x)
                spikes[f"x{j}"] = spike
            table = pd.DataFrame(columns)
            generator = FlowMatchingGenerator(random_state=0, device="cpu", max_iter=args.max_iter).fit(table)
            drawn = generator.sample(50_000, random_state=1)
            for name, spike in spikes.items():
                own, got = (table[name] == spike).mean(), (drawn[name] == spike).mean()
                ratios.append(got / own)
                print(json.dumps({"rows": n, "share": own, "ratio": got / own}), flush=True)
        low, high = min(ratios), max(ratios)
        within = np.mean([0.9 <= ratio <= 1.1 for ratio in ratios])
        print(f"{n} rows: share over own share {low:.3f} to {high:.3f}; {within:.1%} within .9 to 1.1")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rules", "spikes"])
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[200, 2000, 50000])
    parser.add_argument("--tables", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-iter", type=int, default=None)
    parsed = parser.parse_args()
    {"rules": run_rules, "spikes": run_spikes}[parsed.what](parsed)
