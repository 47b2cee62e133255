"""Small data of every kind for the recorded references, from generators whose streams never change."""

import numpy as np
import pandas as pd
import torch

N = 90


def random(seed):
    """The legacy generator: numpy guarantees its stream for good."""
    return np.random.RandomState(seed)


# -- tables -------------------------------------------------------------------------------------------------------


def numbers(n=N, seed=0):
    """A skewed column, one that follows it, and whole numbers."""
    draw = random(seed)
    skewed = draw.gamma(2.0, size=n)
    return np.column_stack([skewed, 2.0 * skewed + 0.3 * draw.normal(size=n), draw.randint(0, 5, n)])


def with_outliers():
    rows = numbers()
    rows[::15, 1] += 8.0
    return rows


def mixed(n=N, seed=1):
    """Amounts, prices in cents, counts, booleans, text, categories, nullable integers, dates and a constant."""
    draw = random(seed)
    kind = draw.randint(3, size=n)
    return pd.DataFrame(
        {
            "size": draw.gamma(2.0, size=n) + kind,
            "price": np.round(draw.gamma(3.0, size=n), 2),
            "count": draw.randint(0, 9, n),
            "flag": draw.uniform(size=n) < 0.3,
            "kind": np.array(["a", "b", "c"])[kind],
            "grade": pd.Categorical(draw.choice(["low", "high"], n), ["low", "middle", "high"], ordered=True),
            "visits": pd.array(draw.randint(1, 40, n), dtype="Int64"),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(draw.randint(0, 365, n), unit="D"),
            "fixed": "x",
        }
    )


def mixed_with_holes(n=N, seed=1):
    """Entries of every kind of column are missing; kind and visits go missing together."""
    draw, table = random(seed + 100), mixed(n, seed)
    table["flag"] = table["flag"].astype("boolean")
    for name in ("size", "flag", "grade", "day"):
        table.loc[draw.uniform(size=n) < 0.15, name] = None
    table.loc[draw.uniform(size=n) < 0.3, ["kind", "visits"]] = pd.NA
    return table


def labels(n=N):
    return random(2).choice(["blue", "green", "red"], n, p=[0.2, 0.3, 0.5])


def weights(n=N):
    return np.where(np.arange(n) % 9 == 0, 0.0, random(3).uniform(0.5, 2.0, n))


def rare_class(n=N):
    return (numbers(n)[:, 0] > 3.0).astype(int)


def amounts(n=N, seed=4):
    """A numeric target with a fraction."""
    return numbers(n)[:, 0] ** 2 + 0.1 * random(seed).normal(size=n)


def mixed_conditions(n=N):
    draw = random(5)
    return pd.DataFrame(
        {
            "sex": draw.choice(["f", "m"], n),
            "age": draw.normal(40.0, 9.0, n),
            "ward": pd.Categorical(draw.choice(["east", "west"], n)),
        }
    )


# -- grids --------------------------------------------------------------------------------------------------------


def signals(n=30, length=16, n_channels=2):
    draw, t = random(6), np.arange(length) / length
    phase = draw.uniform(size=(n, n_channels, 1))
    return np.sin(2 * np.pi * (t + phase)) * np.arange(1, n_channels + 1)[:, None] + 0.1 * draw.normal(
        size=(n, n_channels, length)
    )


def images(n=30):
    return random(7).choice([0, 80, 160, 255], (n, 1, 8, 8)).astype(np.uint8)


def volumes(n=16):
    return random(8).normal(size=(n, 1, 4, 4, 4)).cumsum(axis=-1)


def coarse(grids):
    """Each signal's moving average over the whole period: a condition of the signal's own size."""
    return grids.mean(axis=1, keepdims=True).cumsum(axis=-1)


# -- trajectories -------------------------------------------------------------------------------------------------


def days(n=60):
    """Three columns of a daily series, of which the price is known ahead."""
    draw, index = random(9), pd.date_range("2021-03-01", periods=n, freq="D")
    week = np.sin(2 * np.pi * np.arange(n) / 7)
    price = draw.normal(size=n)
    load = 3.0 + week + 0.5 * price + 0.2 * draw.normal(size=n)
    return pd.DataFrame({"load": load, "price": price, "heat": load**2 + draw.normal(size=n)}, index=index)


def future_prices(history, n):
    """What is known of the instants that follow the history."""
    index = pd.date_range(history.index[-1], periods=n + 1, freq="D")[1:]
    return [pd.DataFrame({"price": random(10).normal(size=n)}, index=index)]


def walks():
    return random(11).normal(size=(6, 12, 2)).cumsum(axis=1)


def waves(n=5, length=16, n_times=8):
    """Periodic waves that travel, as a list of trajectories of unequal length."""
    draw, x = random(12), np.arange(length) / length
    phase, speed = draw.uniform(size=(2, n, 1, 1, 1))
    times = np.arange(n_times)[None, :, None, None]
    fields = np.sin(2 * np.pi * (x + phase - 0.1 * (1 + speed) * times)) + 0.05 * draw.normal(
        size=(n, n_times, 1, length)
    )
    return [trajectory[: n_times - i % 2] for i, trajectory in enumerate(fields)]


def pairs(n=20):
    """Fields of two channels on a plane, and what they have diffused to."""
    before = random(13).normal(size=(n, 2, 8, 8))
    after = 0.6 * before + 0.2 * (np.roll(before, 1, -1) + np.roll(before, 1, -2))
    return before, after


# -- noise for exported programs ----------------------------------------------------------------------------------


def noise(*shape):
    return torch.as_tensor(random(14).normal(size=shape), dtype=torch.float32)
