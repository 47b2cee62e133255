"""Turbulence with random kicks: ensembles of next states, compared with the true distribution; in one step; rollouts.

Run with ``python examples/forecast_ks.py``; ``--max-iter 500`` gives a first look. The fields are simulated: no
download.
"""

import argparse
import os
import time
from pathlib import Path

from flowmatch import ConditionalForecaster, DistilledFlowMap
from flowmatch.datasets.fluids import make_kuramoto_sivashinsky, sample_next_kuramoto_sivashinsky
from flowmatch.metrics import crps, ensemble_energy_distance, forecast_report, interval_coverage

NOISE = 0.4
MEMBERS = 19  # from the smallest to the largest is an interval of exactly 90 %
FRAMES = 20
FILES = [Path(__file__).with_name(name) for name in ("forecast_ks.png", "forecast_ks.gif")]


def main() -> None:
    arguments = _arguments()
    train = make_kuramoto_sivashinsky(32, 80, noise=NOISE, random_state=0)  # trajectories (32, 80, 1, 64)
    test = make_kuramoto_sivashinsky(arguments.n_test, 1 + FRAMES, noise=NOISE, random_state=1)  # held out

    started = time.perf_counter()
    forecaster = ConditionalForecaster(max_iter=arguments.max_iter, random_state=0).fit(train)
    trained = time.perf_counter()
    student = DistilledFlowMap(forecaster, random_state=0).fit(train)
    distilled = time.perf_counter()
    print(
        f"forecaster: {forecaster.n_iter_} steps in {trained - started:.0f} s, border {forecaster.boundary_[0]}; "
        f"student: {student.n_iter_} steps in {distilled - trained:.0f} s"
    )

    compare(forecaster, student, test[:, :-1].reshape(-1, 1, 64), test[:, 1:].reshape(-1, 1, 64))
    roll(forecaster, student, test)


def compare(forecaster, student, now, following) -> None:
    """Ensembles of the next state against the distribution that the simulator draws it from."""
    exact = sample_next_kuramoto_sivashinsky(now, MEMBERS, noise=NOISE, random_state=2)
    reference = sample_next_kuramoto_sivashinsky(now, MEMBERS, noise=NOISE, random_state=3)
    print(f"\n{len(now)} next states       CRPS   coverage of 90 %   distance to the truth   seconds")
    print(f"{'persistence':<16}{crps(following, now[None], fair=False):12.4f}")
    print(_line("truth", following, exact, reference))
    for name, model in (("forecaster", forecaster), ("student, 1 step", student)):
        started = time.perf_counter()
        members = model.sample(now, MEMBERS, random_state=0)
        print(_line(name, following, members, reference) + f"{time.perf_counter() - started:10.2f}")
    # one Euler step from noise at t = 0 gives the conditional mean, whatever the noise
    mean = forecaster.sample(now, 1, random_state=0, solver="euler", n_steps=1)
    print(f"{'its mean alone':<16}{crps(following, mean, fair=False):12.4f}")


def _line(name: str, truth, members, reference) -> str:
    distance = ensemble_energy_distance(members, reference)
    return f"{name:<16}{crps(truth, members):12.4f}{interval_coverage(truth, members):19.3f}{distance:24.4f}"


def roll(forecaster, student, test) -> None:
    """Rollouts, each member its own trajectory."""
    for name, model in (("forecaster", forecaster), ("student", student)):
        members = model.rollout(test[:, 0], FRAMES, MEMBERS, random_state=0)  # (19, 8, 20, 1, 64)
        print(f"\nrollouts of the {name}:")
        print(forecast_report(test[:, 1:], members, per_lead=True, grid_ndim=1))
    _plot(members, test)


def _arguments() -> argparse.Namespace:
    """Options; tests shorten the run by an environment variable."""
    short = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-iter", type=int, default=short and int(short), help="steps; by default the estimator's")
    parser.add_argument("--n-test", type=int, default=3 if short else 8, help="trajectories to test on")
    return parser.parse_args()


def _plot(members, test) -> None:
    """A rollout of the student over space and time, and as an animation, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from flowmatch.plotting import ForecastDisplay

    display = ForecastDisplay.from_samples(members, test[:, 1:])
    display.figure_.savefig(FILES[0], dpi=100)
    display.animate(FILES[1])
    print("\nplot and animation:", *FILES)


if __name__ == "__main__":
    main()
