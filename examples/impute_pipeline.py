"""Missing entries filled in front of a model, several tables pooled to one result, and a picture of what filling does.

Run with ``python examples/impute_pipeline.py``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline

from flowmatch import FlowImputer

N_IMPUTATIONS = 20
PICTURE = Path(__file__).with_name("impute_pipeline.png")


def main() -> None:
    table, target = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    columns = ["bmi", "bp", "s3", "s5"]
    table = table[columns]
    hidden = np.random.RandomState(0).uniform(size=table.shape) < 0.3
    incomplete = table.mask(hidden)
    print(
        f"{hidden.mean():.0%} of the entries hidden, {(~hidden.any(axis=1)).mean():.0%} of {len(table)} rows complete"
    )

    # prediction: each fold learns to fill from its own rows
    imputers = {
        "mean of the column": SimpleImputer(),
        "IterativeImputer": IterativeImputer(random_state=0),
        "FlowImputer, draws": FlowImputer(random_state=0),
        "FlowImputer, guesses": FlowImputer(sample_posterior=False, n_imputations=N_IMPUTATIONS, random_state=0),
    }
    forest = RandomForestRegressor(min_samples_leaf=5, random_state=0)
    print("\nfilled by               R2 of a forest")
    for name, imputer in imputers.items():
        scores = cross_val_score(
            make_pipeline(imputer, forest), incomplete, target, cv=KFold(3, shuffle=True, random_state=0)
        )
        print(f"{name:22s}  {scores.mean():.3f}")

    # description: the slope of the target on bmi, from several tables by Rubin's rules
    imputer = FlowImputer(n_imputations=N_IMPUTATIONS, random_state=0).fit(incomplete.assign(target=target))
    tables = imputer.impute(incomplete.assign(target=target))
    complete = ~hidden.any(axis=1)
    results = {
        "before hiding": slope(table, target),
        "complete rows only": slope(table[complete], target[complete]),
        "mean of the column": slope(incomplete.fillna(incomplete.mean()), target),
        f"{N_IMPUTATIONS} tables, pooled": pool(
            *zip(*(slope(filled[columns], target) for filled in tables), strict=True)
        ),
    }
    print("\nslope of the target on bmi")
    for name, (estimate, error) in results.items():
        print(f"{name:22s}  {estimate:.2f} +- {error:.2f}")
    draw(table, hidden, {"mean of the column": incomplete.fillna(incomplete.mean()), "one draw": tables[0]})
    print(f"\nwrote {PICTURE.name}")


def slope(table, target):
    """Least-squares slope of the target on bmi, the other columns held, and its standard error."""
    X = np.column_stack([table.to_numpy(float), np.ones(len(table))])
    fitted = LinearRegression(fit_intercept=False).fit(X, target)
    variance = np.sum((target - fitted.predict(X)) ** 2) / (len(X) - X.shape[1])
    return fitted.coef_[0], np.sqrt(variance * np.linalg.inv(X.T @ X)[0, 0])


def pool(estimates, standard_errors):
    """Rubin's rules; the guide to tables has the interval too."""
    between = (1 + 1 / len(estimates)) * np.var(estimates, ddof=1)
    return np.mean(estimates), np.sqrt(np.mean(np.square(standard_errors)) + between)


def draw(table, hidden, fillings):
    """Two columns of the table, as they were and filled; rows of which one was hidden in orange."""
    rows = hidden[:, :2].any(axis=1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True, layout="constrained")
    for axis, (title, filled) in zip(axes, {"before hiding": table, **fillings}.items(), strict=True):
        axis.scatter(filled["bmi"][~rows], filled["bp"][~rows], s=10, color="0.6", label="both there")
        axis.scatter(filled["bmi"][rows], filled["bp"][rows], s=10, color="tab:orange", label="one or both hidden")
        axis.set(title=title, xlabel="body mass index", ylabel="blood pressure")
    axes[0].legend()
    figure.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    main()
