"""A typical table: numbers, categories, dates, booleans and missing values in, the same out.

Run with ``python examples/mixed_table.py``; it needs pandas (``pip install '.[pandas]'``).
"""

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import report


def customers(n_rows: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Customers of a bank, some of whom do not state their income, the young more often."""
    random = np.random.default_rng(seed)
    age = random.integers(18, 80, n_rows)
    sex = random.choice(["f", "m"], n_rows)
    job = random.choice(["none", "clerk", "nurse", "engineer"], n_rows, p=[0.2, 0.4, 0.25, 0.15])
    scale = pd.Series(job).map({"none": 0.0, "clerk": 1.0, "nurse": 1.1, "engineer": 1.8}).to_numpy()
    table = pd.DataFrame(
        {
            "sex": pd.Categorical(sex),
            "age": age,
            "job": job,
            "income": (scale * np.exp(random.normal(10 + 0.01 * age, 0.3))).round(2),  # nothing without a job
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 365, n_rows), unit="D"),
            "buys": random.random(n_rows) < 1 / (1 + np.exp((50 - age) / 4)),
        }
    )
    table.loc[random.random(n_rows) < 0.3 * (age < 40), "income"] = np.nan
    table.loc[random.random(n_rows) < 0.05, "sex"] = None
    return table


def main() -> None:
    train, test = train_test_split(customers(), test_size=0.3, random_state=0)
    generator = FlowMatchingGenerator(random_state=0).fit(train)

    synthetic = generator.sample(len(train), random_state=1)
    print("complete rows, in the columns and dtypes of the real ones:")
    print(synthetic.head(5))
    print("same dtypes:", synthetic.dtypes.equals(train.dtypes), "- missing values:", int(synthetic.isna().sum().sum()))

    # an income of exactly 0 belongs to those without a job, in the synthetic table too
    without = synthetic["job"] == "none"
    print(f"\nno income: {(synthetic.income[without] == 0).mean():.2f} of those without a job, ", end="")
    print(f"{(synthetic.income[~without] == 0).mean():.2f} of the others")

    # missing as in training: the young more often do not state their income
    as_trained = generator.sample(len(train), missing="as_trained", random_state=1)
    for name, table in (("real", train), ("synthetic", as_trained)):
        young = table["age"] < 40
        print(f"{name}: {table.income[young].isna().mean():.2f} of the young, ", end="")
        print(f"{table.income[~young].isna().mean():.2f} of the others state no income")

    # any columns may be given, one value for all rows or one for each
    engineers = generator.sample(500, given={"job": "engineer", "age": 60}, random_state=2)
    print(f"\nthe median income of engineers of 60 is {engineers.income.median():,.0f}; ", end="")
    near = train[(train["job"] == "engineer") & train["age"].between(55, 65)]
    print(f"that of the {len(near)} real ones of 55 to 65 is {near.income.median():,.0f}")

    # fidelity and privacy, beside the values for held-out rows of the real table
    found = report(train, as_trained, holdout=test, target="buys").to_frame()
    print("\n", found.round(3), sep="")


if __name__ == "__main__":
    main()
