"""What a simulator's parameters must have been, given what was observed: a posterior from simulations alone.

An outbreak in a town of 5,000 people follows from two numbers, how many people each infected one infects and for how
many days; eight weekly counts of new infections are observed. Nobody writes down the likelihood of these counts: the
forecaster learns the posterior from pairs of parameters and simulated counts. Run with
``python examples/posterior.py``.
"""

import os
from pathlib import Path

import numpy as np

from flowmatch import ConditionalForecaster
from flowmatch.metrics import interval_coverage, pit_histogram

NAMES = ("infected by each", "days infectious")
PEOPLE, WEEKS = 5000, 8


def prior(n, rng) -> np.ndarray:
    """From 1 to 5 people, and from 2 to 10 days: parameters (n, 2)."""
    return rng.uniform([1.0, 2.0], [5.0, 10.0], (n, 2))


def simulate(theta, rng) -> np.ndarray:
    """New infections in each week, (n, 8): each day chance decides who meets whom and who recovers."""
    spread, days = theta.T
    infected, healthy = np.full(len(theta), 5), np.full(len(theta), PEOPLE - 5)
    new = np.zeros((len(theta), 7 * WEEKS))
    for day in range(7 * WEEKS):
        caught = rng.binomial(healthy, 1 - np.exp(-spread / days * infected / PEOPLE))
        recovered = rng.binomial(infected, 1 - np.exp(-1 / days))
        infected, healthy, new[:, day] = infected + caught - recovered, healthy - caught, caught
    return new.reshape(len(theta), WEEKS, 7).sum(axis=2)


def main() -> None:
    rng = np.random.default_rng(0)
    theta = prior(10_000, rng)
    short = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")
    forecaster = ConditionalForecaster(max_iter=short and int(short), random_state=0).fit(simulate(theta, rng), theta)
    print(f"{len(theta)} simulations, {forecaster.n_iter_} steps")

    truth = np.array([[2.0, 5.0]])
    observed = simulate(truth, np.random.default_rng(1))
    draws = forecaster.sample(observed, 2000, random_state=0)[:, 0]  # (2000, 2)
    print(f"\nobserved, week by week: {observed[0].astype(int).tolist()}")
    for name, column, value in zip(NAMES, draws.T, truth[0], strict=True):
        print(f"{name:17s}{column.mean():6.2f} +- {column.std():.2f} (the truth is {value:g})")
    print(f"log-density of the truth: {forecaster.score_samples(observed, truth)[0]:.2f}")

    # over many observations the truth should have any rank among the draws equally often
    fresh = prior(1000, rng)
    ensembles = forecaster.sample(simulate(fresh, rng), 99, random_state=0)  # (99, 1000, 2)
    ranks = pit_histogram(fresh, ensembles, per_lead=True)
    coverage = interval_coverage(fresh, ensembles, per_lead=True)
    print("\nranks of the truth in 1,000 more simulations (each tenth should hold .1), and what 90 % intervals hold:")
    for name, shares, held in zip(NAMES, ranks, coverage, strict=True):
        print(f"{name:17s}{' '.join(f'{share:.2f}' for share in shares)}   {held:.3f}")
    _plot(forecaster, observed, draws, truth[0], ranks)


def _plot(forecaster, observed, draws, truth, ranks) -> None:
    """The posterior as draws and density, what it says of the weeks, and the ranks, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (posterior, weeks, calibration) = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    axes = [np.linspace(draws[:, j].min(), draws[:, j].max(), 40) for j in (0, 1)]
    grid = np.stack(np.meshgrid(*axes), axis=-1)
    points = grid.reshape(-1, 2)
    density = np.exp(forecaster.score_samples(np.repeat(observed, len(points), axis=0), points)).reshape(40, 40)
    posterior.contourf(*axes, density, levels=12, cmap="Blues")
    posterior.plot(*draws[:300].T, ".", color="0.3", markersize=2)
    posterior.plot(*truth, "+", color="tab:red", markersize=14, markeredgewidth=2, label="truth")
    posterior.set(xlabel=NAMES[0], ylabel=NAMES[1], title="posterior: log-density and draws")
    posterior.legend()
    again = simulate(draws, np.random.default_rng(2))
    low, high = np.quantile(again, [0.05, 0.95], axis=0)
    weeks.fill_between(range(1, WEEKS + 1), low, high, alpha=0.3, label="simulated from the posterior, 90 %")
    weeks.plot(range(1, WEEKS + 1), observed[0], "o", color="tab:red", label="observed")
    weeks.set(xlabel="week", title="new infections")
    weeks.legend(loc="upper left")
    for name, shares in zip(NAMES, ranks, strict=True):
        calibration.stairs(shares, np.linspace(0, 1, len(shares) + 1), label=name)
    calibration.axhline(1 / ranks.shape[1], color="0.6", linestyle=":")
    calibration.set(xlabel="rank of the truth among draws", ylim=(0, None), title="calibration")
    calibration.legend()
    path = Path(__file__).with_name("posterior.png")
    figure.savefig(path, dpi=100)
    print("plot:", path)


if __name__ == "__main__":
    main()
