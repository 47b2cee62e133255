"""Fill the missing entries of a table: draws given the other entries, and what they are good for.

Run with ``python examples/impute.py``.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from flowmatch import FlowMatchingGenerator

N_DRAWS = 10


def main() -> None:
    table = load_breast_cancer().data[:, :10]
    hidden = np.random.RandomState(0).uniform(size=table.shape) < 0.2
    hidden[hidden.all(axis=1), 0] = False
    incomplete = np.where(hidden, np.nan, table)
    print(f"{hidden.mean():.0%} of the entries of {table.shape[0]} rows are hidden; ", end="")
    print(f"{(~hidden.any(axis=1)).mean():.0%} of the rows are complete")

    # incomplete rows are trained on as they are
    generator = FlowMatchingGenerator(random_state=0).fit(incomplete)
    draws = generator.impute(incomplete, n_imputations=N_DRAWS, random_state=0)
    assert all((draw[~hidden] == table[~hidden]).all() for draw in draws)  # observed entries are untouched

    fillings = {
        "flowmatch, one draw": draws[0],
        f"flowmatch, mean of {N_DRAWS}": np.mean(draws, axis=0),
        "IterativeImputer": IterativeImputer(random_state=0).fit_transform(incomplete),
        "KNNImputer": KNNImputer().fit_transform(incomplete),
        "mean of the column": SimpleImputer().fit_transform(incomplete),
    }
    scale = table.std(axis=0)
    print("\nfilled by                 error   spread of the filled entries / of the true ones")
    for name, filled in fillings.items():
        error = np.sqrt(np.mean(((filled - table) / scale)[hidden] ** 2))
        spread = np.mean([filled[h, j].std() / table[h, j].std() for j, h in enumerate(hidden.T)])
        print(f"{name:24s} {error:.3f}   {spread:.2f}")
    print("The mean of draws is a best guess; a single draw keeps the spread that best guesses lose.")

    # several draws carry the uncertainty into an analysis (Rubin's rules): here the mean of the first column
    means = np.array([draw[:, 0].mean() for draw in draws])
    within = np.mean([draw[:, 0].var(ddof=1) / len(draw) for draw in draws])
    error = np.sqrt(within + (1 + 1 / N_DRAWS) * means.var(ddof=1))
    print(f"\nmean radius: {means.mean():.3f} +- {error:.3f}; of the whole table {table[:, 0].mean():.3f}")


if __name__ == "__main__":
    main()
