"""Forecasts of two real series as ensembles of whole windows, against their rivals.

    python docs/benchmarks/series.py macro,seattle naive,ridge,boosting 0,1,2   # series, methods, seeds
    python docs/benchmarks/series.py macro,seattle flowmatch 0,1,2
    python docs/benchmarks/series.py macro,seattle export FOLDER                # the windows as FOLDER/*.npz

macro is US quarterly data (`statsmodels.datasets.macrodata`): growth of six columns and changes of two rates; four
quarters ahead from eight, every second window. seattle is the weather of `vega_datasets.data.seattle_weather`: four
columns as they are, a week ahead from two, every fifth window. The first three quarters of a series train, test windows
lie wholly in the rest (their contexts may reach back); every column is in units of its training standard deviation.

An ensemble has 19 members, so from the smallest to the largest is an interval of exactly 90 % for a calibrated one.
Skill is 1 - CRPS / CRPS of the naive forecast, whose ensemble is the value a season ago and 19 of its own errors in the
training part, windows drawn whole (a mean of many draws): a season is a year for macro and, as it forecasts better than
last week and last year do, a day for seattle. Run with OMP_NUM_THREADS=1; seconds are CPU seconds.
"""

import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

N_MEMBERS = 19
N_NAIVE = 50  # draws of the naive ensemble that skill is measured against
GROWTH, CHANGE = ("realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi"), ("tbilrate", "unemp")
BOOSTING = {"max_iter": 100, "learning_rate": 0.05, "max_leaf_nodes": 8, "early_stopping": False}
WEATHER = ("precipitation", "temp_max", "temp_min", "wind")


@dataclass
class Problem:
    """A standardized series (T, d) and the windows that train and judge."""

    name: str
    columns: tuple
    values: np.ndarray
    dates: np.ndarray
    n_train: int
    n_lags: int
    horizon: int
    season: int
    stride: int
    period: float  # steps a year

    def frame(self):
        """The series as a DataFrame with its dates."""
        import pandas as pd

        return pd.DataFrame(self.values, pd.DatetimeIndex(self.dates), list(self.columns))

    def starts(self, part):
        """Positions of the first step that each window of "train" or "test" forecasts."""
        if part == "train":
            return np.arange(max(self.n_lags, self.horizon), self.n_train - self.horizon + 1)
        return np.arange(self.n_train, len(self.values) - self.horizon + 1, self.stride)

    def windows(self, part):
        """Contexts (n, n_lags, d) and what followed, (n, horizon, d)."""
        return self.at(part, np.arange(-self.n_lags, 0)), self.at(part, np.arange(self.horizon))

    def naive(self, part):
        """The latest known value of the same season, (n, horizon, d)."""
        ahead = np.arange(self.horizon)
        return self.at(part, ahead - (ahead // self.season + 1) * self.season)

    def at(self, part, steps):
        """Values at `steps` after the starts of the windows."""
        return self.values[self.starts(part)[:, None] + steps]

    def calendar(self, part):
        """Sine and cosine of the time of year at which a window starts, (n, 2)."""
        angle = 2 * np.pi * self.starts(part) / self.period
        return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def prepare(name):
    """The series "macro" or "seattle" as a `Problem`."""
    if name == "macro":
        from statsmodels.datasets import macrodata

        table = macrodata.load_pandas().data
        values = np.column_stack(
            [np.diff(np.log(table[c].to_numpy())) for c in GROWTH] + [np.diff(table[c].to_numpy()) for c in CHANGE]
        )
        years, quarters = table["year"].to_numpy(int)[1:], table["quarter"].to_numpy(int)[1:]
        dates = np.array([f"{y}-{3 * q - 2:02d}" for y, q in zip(years, quarters, strict=True)], "datetime64[D]")
        columns, shape = GROWTH + CHANGE, {"n_lags": 8, "horizon": 4, "season": 4, "stride": 2, "period": 4}
    elif name == "seattle":
        from vega_datasets import data

        table = data.seattle_weather()
        values, dates = table[list(WEATHER)].to_numpy(float), table["date"].to_numpy("datetime64[D]")
        columns, shape = WEATHER, {"n_lags": 14, "horizon": 7, "season": 1, "stride": 5, "period": 365.25}
    else:
        raise ValueError(f"name must be 'macro' or 'seattle', got {name!r}.")
    n_train = int(0.75 * len(values))
    values = (values - values[:n_train].mean(axis=0)) / values[:n_train].std(axis=0)
    return Problem(name, columns, values, dates, n_train, **shape)


def export(problem, folder):
    """Write the arrays of a problem to ``folder/name.npz``."""
    arrays = {
        "values": problem.values,
        "dates": problem.dates,
        "columns": np.array(problem.columns),
        "n_train": problem.n_train,
    }
    for part in ("train", "test"):
        X, y = problem.windows(part)
        starts = problem.starts(part)
        arrays |= {f"X_{part}": X, f"y_{part}": y, f"naive_{part}": problem.naive(part), f"start_{part}": starts}
        arrays |= {f"calendar_{part}": problem.calendar(part), f"date_{part}": problem.dates[starts]}
    np.savez_compressed(Path(folder) / f"{problem.name}.npz", **arrays)


def with_errors(forecast, errors, seed):
    """An ensemble: the forecast and whole windows of its errors in the training part, drawn for each window anew."""
    return forecast + errors[np.random.default_rng(seed).integers(len(errors), size=(N_MEMBERS, len(forecast)))]


def naive(problem, seed):
    return with_errors(problem.naive("test"), problem.windows("train")[1] - problem.naive("train"), seed)


def features(problem, part):
    X, _ = problem.windows(part)
    return np.hstack([X.reshape(len(X), -1), problem.calendar(part)])


def ridge(problem, seed):
    """A linear autoregression of all steps ahead, its penalty by cross-validation, and its errors."""
    from sklearn.linear_model import RidgeCV

    y = problem.windows("train")[1]
    X, X_test = features(problem, "train"), features(problem, "test")
    model = RidgeCV(np.logspace(-1, 4, 11)).fit(X, y.reshape(len(y), -1))
    errors = y - model.predict(X).reshape(y.shape)
    return with_errors(model.predict(X_test).reshape(-1, *y.shape[1:]), errors, seed)


def boosting(problem, seed):
    """Boosted trees for the quantiles 5 %, 10 % to 95 % of each column; the step ahead is a feature.

    The members are those quantiles in an order of its own for each number: nothing is said about what hangs together.
    They are no random draws, so their scores take pairs of a member with itself in (see `scores`).
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    _, y = problem.windows("train")
    ahead = np.arange(problem.horizon)
    X, X_test = (
        np.hstack([np.repeat(F, problem.horizon, axis=0), np.tile(ahead, len(F))[:, None]])
        for F in (features(problem, "train"), features(problem, "test"))
    )
    members = np.empty((N_MEMBERS, len(X_test), y.shape[2]))
    for column in range(y.shape[2]):
        for k in range(N_MEMBERS):
            model = HistGradientBoostingRegressor(
                loss="quantile", quantile=(k + 1) / (N_MEMBERS + 1), **BOOSTING, random_state=seed
            )
            members[k, :, column] = model.fit(X, y[:, :, column].ravel()).predict(X_test)
    members = np.random.default_rng(seed).permuted(members, axis=0)
    return members.reshape(N_MEMBERS, -1, *y.shape[1:])


def flowmatch(problem, seed):
    """The forecaster with its defaults, from the training part as one series."""
    from flowmatch import ConditionalForecaster

    forecaster = ConditionalForecaster(n_lags=problem.n_lags, horizon=problem.horizon, random_state=seed)
    return draw(forecaster, problem, seed)


def draw(forecaster, problem, seed):
    """The ensemble of anything with ``fit([series])`` and ``sample(contexts, n_samples, random_state)``.

    Series and contexts are DataFrames with their dates, since ridge and boosting know the time of year too.
    """
    frame, (_, y) = problem.frame(), problem.windows("test")
    forecaster.fit([frame.iloc[: problem.n_train]])
    contexts = [frame.iloc[start - problem.n_lags : start] for start in problem.starts("test")]
    return np.asarray(forecaster.sample(contexts, n_samples=N_MEMBERS, random_state=seed)).reshape(N_MEMBERS, *y.shape)


METHODS = {"naive": naive, "ridge": ridge, "boosting": boosting, "flowmatch": flowmatch}
GRIDS = {"boosting"}


def scores(truth, members, fair=True):
    """NRMSE of the mean, CRPS, energy score and coverage of the 90 % interval.

    Fair scores suppose that members are drawn at random. For the quantiles k / 20 of the true law they are some 5 % too
    low (uniform law: .1583 instead of 1/6), and the plain ones are right (.1671).
    """
    from flowmatch.metrics import crps, energy_score, interval_coverage, nrmse

    return np.array(
        [
            nrmse(truth, members.mean(axis=0), 1.0),
            crps(truth, members, fair=fair),
            energy_score(truth, members, fair=fair),
            interval_coverage(truth, members, 0.9),
        ]
    )


def main(names, methods, seeds):
    print("| series | method | seeds | nrmse | crps | skill | energy score | coverage of 90 % | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        problem = prepare(name)
        _, truth = problem.windows("test")
        reference = np.mean([scores(truth, naive(problem, seed))[1] for seed in range(1000, 1000 + N_NAIVE)])
        for method in methods:
            started = time.process_time()
            found = np.array([scores(truth, METHODS[method](problem, seed), method not in GRIDS) for seed in seeds])
            seconds = (time.process_time() - started) / len(seeds)
            rmse, crps, energy, coverage = found.mean(axis=0)
            skills = 1 - found[:, 1] / reference
            print(
                f"| {name} | {method} | {len(seeds)} | {rmse:.3f} | {crps:.4f} | {skills.mean():.3f} +- "
                f"{skills.std():.3f} | {energy:.4f} | {coverage:.3f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    names = sys.argv[1].split(",")
    if sys.argv[2] == "export":
        for name in names:
            export(prepare(name), sys.argv[3])
    else:
        main(names, sys.argv[2].split(","), [int(seed) for seed in sys.argv[3].split(",")])
