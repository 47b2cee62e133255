"""What constraints cost and bring: towns in countries, orders that end after they start, totals.

Prints the shares of rows that break each rule and the AUC of a classifier (C2ST) that tells drawn rows from held-out
ones, without constraints, with ``constraints="auto"``, and with rows drawn anew until they keep the constraints.

Run: python docs/benchmarks/constraints.py
"""

import dataclasses
import time

import numpy as np
import pandas as pd

from flowmatch import FlowMatchingGenerator
from flowmatch.constraints.fitted import Combinations, Ordered
from flowmatch.metrics import report

N_ROWS, SEEDS, DRAWS = 1500, (0, 1), (1, 2)


def table(seed, n_countries):
    """Towns in one country each, or in one of two."""
    rng = np.random.default_rng(seed)
    town = rng.choice(30, N_ROWS, p=np.random.default_rng(7).dirichlet(np.full(30, 3.0)))
    other = (rng.random(N_ROWS) < 0.3) * (1 + town % 3) if n_countries == 2 else 0
    country = (town + other) % 5
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 700, N_ROWS), unit="D")
    net, tax = rng.gamma(2, 100, N_ROWS).round(2), rng.gamma(2, 50, N_ROWS).round(2)
    return pd.DataFrame(
        {
            "town": [f"town {i}" for i in town],
            "country": [f"country {i}" for i in country],
            "age": rng.normal(40 + 3 * country, 8).round(),
            "income": np.exp(rng.normal(8 + 0.1 * (town % 7) + 0.05 * country, 0.3)).round(2),
            "start": start,
            "end": start + pd.to_timedelta(rng.geometric(0.02, N_ROWS) - 1, unit="D"),
            "net": net,
            "tax": tax,
            "total": net + tax,
        }
    )


def without_constraints(generator):
    """The generator as it would be with ``constraints=None``: learning is the same."""
    encoder = dataclasses.replace(generator.model_.encoder, constraints=None)
    model = dataclasses.replace(generator.model_, encoder=encoder)
    return FlowMatchingGenerator.from_fitted(dataclasses.replace(generator.fitted_, model=model))


def measured(generator, train, test):
    """Shares of broken rows, C2ST, and seconds of sampling."""
    known, rows = set(zip(train["town"], train["country"], strict=True)), []
    for seed in DRAWS:
        begin = time.perf_counter()
        drawn = generator.sample(N_ROWS, random_state=seed)
        seconds = time.perf_counter() - begin
        found = report(train, drawn, holdout=test).to_frame()["synthetic"]
        unknown = [pair not in known for pair in zip(drawn["town"], drawn["country"], strict=True)]
        sums = np.isclose(drawn["net"] + drawn["tax"], drawn["total"])
        late = (drawn["end"] < drawn["start"]).mean()
        rows.append([np.mean(unknown), late, sums.mean(), found["c2st_auc"], found["pair_difference"], seconds])
    return np.mean(rows, axis=0)


if __name__ == "__main__":
    print("countries  constraints        unknown  end<start  total   C2ST  pairs  seconds")
    for n_countries in (1, 2):
        results = {"none": [], "auto": [], "drawn anew": []}
        for seed in SEEDS:
            train, test = table(seed, n_countries), table(seed + 100, n_countries)
            generator = FlowMatchingGenerator(random_state=0, constraints="auto").fit(train)
            results["none"].append(measured(without_constraints(generator), train, test))
            results["auto"].append(measured(generator, train, test))
            kept = Combinations.complete, Ordered.complete
            Combinations.complete = Ordered.complete = lambda rule, values, free: values
            results["drawn anew"].append(measured(generator, train, test))
            Combinations.complete, Ordered.complete = kept
        for name, rows in results.items():
            print(f"{n_countries:9d}  {name:15s}" + "".join(f"{x:9.3f}" for x in np.mean(rows, axis=0)), flush=True)
