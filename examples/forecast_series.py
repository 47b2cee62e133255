"""A seasonal series, forecast a day ahead as an ensemble: quantiles, intervals, whether they are right, and a picture.

Run with ``python examples/forecast_series.py``: an hourly series whose distribution is known. With your own CSV file,
``python examples/forecast_series.py weather.csv --time date --lags 14 --horizon 7 --season 1``. Needs pandas.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from flowmatch import ConditionalForecaster
from flowmatch.datasets import make_seasonal_series, make_windows, read_series, seasonal_series_quantiles
from flowmatch.metrics import crps, interval_coverage, pinball_loss, skill_score

MEMBERS = 99
QUANTILES = (0.05, 0.5, 0.95)
FILE = Path(__file__).with_name("forecast_series.png")


def main() -> None:
    arguments = _arguments()
    if arguments.file is None:
        values = make_seasonal_series(24 * 90, random_state=0)[0, :, 0]
        hours = pd.date_range("2026-01-01", periods=len(values), freq="h", name="hour")
        series = pd.DataFrame({"load": values}, index=hours)
    else:
        series = read_series(arguments.file, time=arguments.time, columns=arguments.columns, sort=True, gaps="fill")[0]
        series = series.interpolate().dropna()  # gaps are rows of NaN: fill them as suits the data
    n_train = int(0.75 * len(series))
    print(f"{n_train} rows of {list(series.columns)} to train on, from {series.index[0]} on")

    forecaster = ConditionalForecaster(
        n_lags=arguments.lags,
        horizon=arguments.horizon,
        n_samples=MEMBERS,
        max_iter=arguments.max_iter,
        random_state=0,
    ).fit(series.iloc[:n_train])
    cycles = ", ".join(forecaster.calendar_) or "none"
    print(f"{forecaster.n_iter_} steps; cycles of the calendar in use: {cycles}")

    starts = np.arange(n_train, len(series) - arguments.horizon + 1, 5)  # first rows of the windows to forecast
    histories = [series.iloc[start - arguments.lags : start] for start in starts]
    truth = np.stack([series.iloc[start : start + arguments.horizon] for start in starts])
    judge(forecaster, series.to_numpy(), n_train, starts, histories, truth, arguments.season)
    if arguments.file is None:
        compare(forecaster, series.to_numpy(), histories, truth, starts)
    tomorrow(forecaster, series)
    _plot(forecaster, series, n_train)


def judge(forecaster, values, n_train, starts, histories, truth, season) -> None:
    """Skill over the seasonal naive forecast and coverage, on the last quarter."""
    members = forecaster.sample(histories, MEMBERS, random_state=0)
    naive = naive_ensemble(values, n_train, starts, truth.shape[1], season)
    skill = skill_score(crps(truth, members), crps(truth, naive))
    print(f"\n{len(truth)} windows of {truth.shape[1]} steps after the training data:")
    print(f"CRPS {crps(truth, members):.4g}, skill over the seasonal naive forecast {skill:.3f}")
    print(f"the central intervals of 90 % hold {interval_coverage(truth, members):.3f} of the values")


def naive_ensemble(values, n_train, starts, horizon, season) -> np.ndarray:
    """The last known value of the same season, and windows of its errors in the training part."""
    ahead = np.arange(horizon)
    back = ahead - (ahead // season + 1) * season
    first = np.arange(-back.min(), n_train - horizon)[:, None]
    errors = values[first + ahead] - values[first + back]
    drawn = np.random.default_rng(0).integers(len(errors), size=(MEMBERS, len(starts)))
    return values[starts[:, None] + back] + errors[drawn]


def compare(forecaster, values, histories, truth, starts) -> None:
    """Predicted quantiles compared with those of the distribution that the series was drawn from."""
    contexts = make_windows(values, n_lags=1, horizon=truth.shape[1])
    contexts = contexts.X[np.searchsorted(contexts.start, starts)]
    exact = seasonal_series_quantiles(contexts, starts, QUANTILES, truth.shape[1])
    predicted = forecaster.predict_quantiles(histories, QUANTILES)
    losses = pinball_loss(truth, predicted, QUANTILES), pinball_loss(truth, exact, QUANTILES)
    print("\nquantile   pinball loss   of the true one    mean distance between the two")
    for q, ours, least, distance in zip(QUANTILES, *losses, np.abs(predicted - exact).mean((1, 2, 3)), strict=True):
        print(f"{q:8.2f}{ours:15.4f}{least:18.4f}{distance:32.4f}")


def tomorrow(forecaster, series) -> None:
    """What comes after the last row."""
    low, high = forecaster.predict_interval([series], coverage=0.9)[:, 0]
    mean = forecaster.predict([series])[0]
    print(f"\nafter {series.index[-1]}:")
    for step in range(min(len(mean), 6)):
        columns = zip(series.columns, mean[step], low[step], high[step], strict=True)
        print(f"  step {step + 1}: " + ", ".join(f"{c} {m:.3g} ({a:.3g} to {b:.3g})" for c, m, a, b in columns))


def _plot(forecaster, series, start) -> None:
    """Fans of three forecasts, one after the other, beside what came, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from flowmatch.plotting import ForecastDisplay

    n_steps = min(3 * forecaster.horizon, len(series) - start)
    past = series.iloc[max(0, start - 2 * forecaster.horizon, start - 4 * forecaster.n_lags) : start]
    ahead = series.iloc[start : start + n_steps]
    display = ForecastDisplay.from_estimator(
        forecaster,
        [series.iloc[:start]],
        [ahead],
        n_steps=n_steps,
        n_samples=MEMBERS,
        random_state=0,
        history=[past],
        times=past.index.append(ahead.index),
        names=series.columns,
    )
    display.figure_.set_size_inches(9, 1 + 2 * len(series.columns))
    display.figure_.savefig(FILE, dpi=100)
    print("\nplot:", FILE)


def _arguments() -> argparse.Namespace:
    """Options; tests shorten the run by an environment variable."""
    short = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help="a CSV file; default: a simulated series")
    parser.add_argument("--time", help="name of its column of times")
    parser.add_argument("--columns", nargs="*", help="its columns to forecast; default: all others")
    parser.add_argument("--lags", type=int, default=24, help="rows of a context")
    parser.add_argument("--horizon", type=int, default=24, help="rows ahead, jointly")
    parser.add_argument("--season", type=int, default=24, help="rows of a season, for the naive forecast")
    parser.add_argument("--max-iter", type=int, default=short and int(short), help="steps; by default the estimator's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
