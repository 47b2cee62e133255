"""Surrogates of simulators: ensembles of next states and rollouts, against persistence, a regressor and the true law.

    python docs/benchmarks/forecast.py stochastic persistence,law,regressor,forecaster,euler,student 0 FOLDER
    python docs/benchmarks/forecast.py deterministic,coarse persistence,regressor,forecaster,student 0 FOLDER
    python docs/benchmarks/forecast.py coarse forecaster,sobolev,noisy 0 FOLDER
    python docs/benchmarks/forecast.py ks2d,compressible,rayleigh_taylor,rayleigh_taylor_slices \
        persistence,regressor,forecaster 0 FOLDER
    python docs/benchmarks/forecast.py short_compressible,short_rayleigh_taylor regressor,plain,forecaster,late 0 FOLDER

Arguments: systems, methods, seed of the models, and a folder that keeps simulated data (none: simulate anew). Training
data have the seed 0, test data the seed 1. stochastic: Kuramoto-Sivashinsky in one dimension with kicks whose law is
known; deterministic: the same without; coarse: Navier-Stokes in two dimensions of which every second point is seen; the
others, with their sizes and steps, are those of ``examples/surrogate_fluid.py``; short: of 32 and 16 points along each
axis, and 120 steps, to compare ways of training.

The regressor is the U-Net of the forecaster, as many steps on the squared error of the change; euler is the forecaster
by ten Euler steps, sobolev one with a Sobolev loss, noisy one with ``context_noise=0.1``, plain one whose network has
no gain, late one with times around logit 0. Channels are in units of
their standard deviation. An ensemble has 19 members, so from the smallest to the largest is an interval of exactly 90 %
for a calibrated one; a forecast without spread has its mean absolute error for a CRPS. Run with OMP_NUM_THREADS=1;
seconds are CPU seconds.
"""

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flowmatch import ConditionalForecaster, DistilledFlowMap
from flowmatch.datasets import fluids
from flowmatch.metrics import (
    correlation_time,
    crps,
    energy_score,
    ensemble_energy_distance,
    high_wavenumber_ratio,
    interval_coverage,
    nrmse,
    pattern_correlation,
    spectrum_error,
)
from flowmatch.objectives import Sobolev

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import surrogate_fluid

MEMBERS, FRAMES = 19, 20
N_LAWS = 10  # ensembles of the true law whose scores are averaged: a single one is off by more than a forecaster is
KICKS = 0.4


@dataclass(frozen=True)
class Problem:
    """How to simulate, and how much to train and to test."""

    make: Callable  # of (n_trajectories, n_frames, random_state)
    train: tuple
    test: tuple
    n_dims: int = 1
    n_contexts: int = 736
    n_rolled: int = 4  # members of rollouts
    parameters: dict = field(default_factory=dict)
    system: surrogate_fluid.System | None = None


PROBLEMS = {
    "stochastic": Problem(
        lambda n, t, seed: fluids.make_kuramoto_sivashinsky(n, t, noise=KICKS, random_state=seed), (64, 100), (32, 24)
    ),
    "deterministic": Problem(
        lambda n, t, seed: fluids.make_kuramoto_sivashinsky(n, t, random_state=seed), (64, 100), (32, 24)
    ),
    "coarse": Problem(
        lambda n, t, seed: fluids.make_navier_stokes(n, t, observe_every=2, random_state=seed),
        *((40, 60), (16, 24), 2, 184),
    ),
} | {
    name: Problem(
        system.make,
        (system.n_train, system.n_frames),
        (max(4, system.n_train // 4), system.n_frames),
        system.n_dims,
        n_contexts=40 if system.n_dims == 2 else 10,
        n_rolled=2,
        parameters={"max_iter": system.max_iter, "batch_size": system.batch_size},
        system=system,
    )
    for name, system in surrogate_fluid.SYSTEMS.items()
}
PROBLEMS |= {
    "short_compressible": replace(
        PROBLEMS["compressible"],
        make=lambda n, t, seed: fluids.make_compressible_navier_stokes(n, t, n_points=32, random_state=seed),
        train=(16, 20),
        test=(4, 20),
        n_contexts=24,
        parameters={"max_iter": 120, "batch_size": 16},
    ),
    "short_rayleigh_taylor": replace(
        PROBLEMS["rayleigh_taylor"],
        make=lambda n, t, seed: fluids.make_rayleigh_taylor(n, t, random_state=seed)[..., ::2, ::2, ::2],
        parameters={"max_iter": 120, "batch_size": 4},
    ),
}


class Regressor:
    """A forecaster of single values: the network of the flow on the squared error."""

    def __init__(self, train, boundary, max_iter, batch_size):
        self.call = surrogate_fluid.train_regressor(train, boundary, max_iter, batch_size)

    def sample(self, now, n_samples, random_state):
        return self.call(now)[None]

    def rollout(self, now, n_steps, n_samples, random_state):
        states = []
        for _ in range(n_steps):
            now = self.call(now)
            states.append(now)
        return np.stack(states, axis=1)[None]


class Persistence:
    def sample(self, now, n_samples, random_state):
        return now[None]

    def rollout(self, now, n_steps, n_samples, random_state):
        return np.repeat(now[None, :, None], n_steps, axis=2)


class Law:
    """The true law of the stochastic problem."""

    def sample(self, now, n_samples, random_state):
        return fluids.sample_next_kuramoto_sivashinsky(now, n_samples, noise=KICKS, random_state=1000 + random_state)

    def rollout(self, now, n_steps, n_samples, random_state):
        rng, states = (
            np.random.default_rng(random_state),
            np.repeat(now[None], n_samples, 0).reshape(-1, *now.shape[1:]),
        )
        found = []
        for _ in range(n_steps):
            states = fluids.sample_next_kuramoto_sivashinsky(states, noise=KICKS, random_state=rng)[0]
            found.append(states)
        return np.stack(found, axis=1).reshape(n_samples, len(now), n_steps, *now.shape[1:])


class Euler:
    """A forecaster by ten Euler steps: as many evaluations as five midpoint steps."""

    def __init__(self, forecaster):
        self.forecaster = forecaster

    def sample(self, now, n_samples, random_state):
        return self.forecaster.sample(now, n_samples, random_state, solver="euler", n_steps=10)


def data_of(name, folder):
    """Training and test trajectories, from the folder if they are there."""
    problem, path = PROBLEMS[name], folder and Path(folder) / f"{name}.npz"
    if path and path.exists():
        with np.load(path) as kept:
            return kept["train"], kept["test"]
    started = time.process_time()
    train, test = problem.make(*problem.train, 0), problem.make(*problem.test, 1)
    print(f"{name}: {train.shape} and {test.shape}, simulated in {time.process_time() - started:.0f} CPU s", flush=True)
    if path:
        np.savez(path, train=train, test=test)
    return train, test


def models_of(name, train, methods, seed):
    """The models asked for by name, with the CPU seconds of their training."""
    parameters, forecaster, spent = {**PROBLEMS[name].parameters, "random_state": seed}, None, 0.0
    for method in methods:
        started = time.process_time()
        if method == "persistence":
            model = Persistence()
        elif method == "law":
            model = Law()
        elif method == "sobolev":
            loss = Sobolev(boundary="periodic")
            model = ConditionalForecaster(loss=loss, **parameters).fit(train)
        elif method == "plain":
            known = ConditionalForecaster(**{**parameters, "max_iter": 1}).fit(train).model_.blueprint.factory
            model = ConditionalForecaster(replace(known, gain=False), **parameters).fit(train)
        elif method == "late":
            model = ConditionalForecaster(time_sampler="logit_normal", **parameters).fit(train)
        elif method == "noisy":
            model = ConditionalForecaster(context_noise=0.1, **parameters).fit(train)
        else:
            if forecaster is None:
                forecaster = ConditionalForecaster(**parameters).fit(train)
                spent = time.process_time() - started
                print(f"{name}: {forecaster.n_iter_} steps, {forecaster.n_parameters_} parameters", flush=True)
            started = time.process_time()
            if method == "forecaster":
                model = forecaster
            elif method == "euler":
                model = Euler(forecaster)
            elif method == "student":
                model = DistilledFlowMap(forecaster, random_state=seed).fit(train)
            elif method == "regressor":
                batch = parameters.get("batch_size") or 32
                model = Regressor(train, forecaster.boundary_, forecaster.n_iter_, batch)
            else:
                raise ValueError(f"unknown method {method!r}.")
        yield method, model, spent if method in ("forecaster", "euler") else time.process_time() - started


def units(train):
    """Mean and standard deviation of the channels, which broadcast to states."""
    over = (0, 1, *range(3, train.ndim))
    return train.mean(over, keepdims=True)[0], train.std(over, keepdims=True)[0]


def next_states(problem, model, train, test, law):
    """Scores of single steps, in units of the channels' standard deviation; and CPU seconds of the draws."""
    pairs = [part.reshape(-1, *test.shape[2:]) for part in (test[:, :-1], test[:, 1:])]
    chosen = np.random.default_rng(0).permutation(len(pairs[0]))[: problem.n_contexts]
    mean, scale = units(train)
    now, truth = pairs[0][chosen], (pairs[1][chosen] - mean) / scale
    started = time.process_time()
    members = model.sample(now, MEMBERS, random_state=0)
    seconds = time.process_time() - started
    members = (members - mean) / scale
    single = len(members) == 1
    score = crps(truth, members, fair=not single)
    if isinstance(model, Law):
        score = np.mean([crps(truth, (model.sample(now, MEMBERS, k) - mean) / scale) for k in range(N_LAWS)])
    distance = np.nan
    if law is not None and not single:
        distance = ensemble_energy_distance(members, (law.sample(now, MEMBERS, 99) - mean) / scale)
    return {
        "NRMSE": nrmse(truth, members.mean(0), 1.0),
        "CRPS": score,
        "energy score": energy_score(truth, members, fair=not single),
        "coverage": np.nan if single else interval_coverage(truth, members),
        "to the law": distance,
        "spectrum": spectrum_error(truth, members, problem.n_dims),
        "high k": high_wavenumber_ratio(truth, members, problem.n_dims),
        "seconds": seconds,
    }


def rollouts(problem, model, train, test):
    """Scores of rollouts over 20 frames, or as many as there are; "one" is of a single member."""
    n_steps = min(FRAMES, test.shape[1] - 1)
    mean, scale = (part[:, None] for part in units(train))
    truth = (test[:, 1 : n_steps + 1] - mean) / scale
    rolled = model.rollout(test[:, 0], n_steps, problem.n_rolled, random_state=0)
    members = (rolled - mean) / scale
    late = slice(-5, None)
    found = {
        "NRMSE": nrmse(truth, members.mean(0), 1.0),
        "NRMSE, one": nrmse(truth, members[0], 1.0),
        "last frame, one": nrmse(truth[:, -1], members[0, :, -1], 1.0),
        "correlation": pattern_correlation(truth[:, -1], members[0, :, -1]),
        "its time": correlation_time(truth, members[0]),
        "spectrum": spectrum_error(truth[:, late], members[:, :, late], problem.n_dims),
        "high k": high_wavenumber_ratio(truth[:, late], members[:, :, late], problem.n_dims),
    }
    if problem.system is not None:
        found |= budgets(problem.system, test[:, : n_steps + 1], rolled)
    return found


def budgets(system, test, members):
    """Drift of a conserved mean in the ensemble mean and in the truth; energy of the last states over the truth's."""
    grid, box = tuple(range(-system.n_dims, 0)), (system.conserved, *[slice(None)] * system.n_dims)
    unit = test[:, :, system.conserved].std()
    start = test[:, 0][(..., *box)].mean(grid)[:, None]
    drift = [np.abs(states[(..., *box)].mean(grid) - start).max(1).mean() / unit for states in (members.mean(0), test)]
    energy = system.energy(members[:, :, -1]).mean() / system.energy(test[:, -1]).mean()
    return {"drift": drift[0], "truth's drift": drift[1], "energy": energy}


def row(name, method, what, found, cost):
    print(
        f"| {name} | {method} | {what} | " + " | ".join(f"{k} {v:.4g}" for k, v in found.items()) + f" | {cost:.0f} |"
    )


def main(names, methods, seed, folder=None):
    print("| system | method | of | scores | training, CPU s |")
    print("| --- | --- | --- | --- | --- |")
    for name in names:
        problem, (train, test) = PROBLEMS[name], data_of(name, folder)
        law = Law() if name == "stochastic" else None
        for method, model, cost in models_of(name, train, methods, seed):
            row(name, method, "next states", next_states(problem, model, train, test, law), cost)
            if hasattr(model, "rollout"):
                row(name, method, "rollouts", rollouts(problem, model, train, test), cost)
            sys.stdout.flush()


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    systems, wanted, *rest = sys.argv[1:]
    main(systems.split(","), wanted.split(","), int(rest[0]) if rest else 0, rest[1] if len(rest) > 1 else None)
