"""A surrogate of a simulator: draws of a fluid's next state, and rollouts, compared with simpler surrogates.

    python examples/surrogate_fluid.py --system navier_stokes

Systems: navier_stokes (2-D turbulence, observed at every second point; the fastest), ks2d
(Kuramoto-Sivashinsky), compressible (gas with sound waves), rayleigh_taylor (heavy fluid above light, 32^3 points) and
rayleigh_taylor_slices (planes cut from such runs, which do not show the flow from the side). Simulating, training and
sampling take some minutes on one core, 32^3 points about ten. Nothing is downloaded. At the end a rollout is drawn;
``--gif rollout.gif`` animates it too.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flowmatch import ConditionalForecaster
from flowmatch.datasets import fluids
from flowmatch.metrics import crps, high_wavenumber_ratio, interval_coverage, nrmse
from flowmatch.networks import UNet

MEMBERS = 9  # from the smallest to the largest is an interval of exactly 80 %
SHOWN = 40  # next states that are forecast in the comparison
FILE = Path(__file__).with_name("surrogate_fluid.png")


def kinetic(states: np.ndarray) -> np.ndarray:
    """Kinetic energy of a gas: density, two velocities, pressure."""
    return 0.5 * states[..., 0, :, :] * (states[..., 1:3, :, :] ** 2).sum(-3)


@dataclass(frozen=True)
class System:
    """What to simulate, how long to train, and what to watch."""

    make: Callable  # of (n_trajectories, n_frames, random_state)
    n_train: int
    n_frames: int
    max_iter: int
    n_dims: int = 2
    batch_size: int = 16
    conserved: int = 0  # channel whose mean over the box stays as it is
    energy: Callable = lambda states: 0.5 * states**2  # of states, before the mean over the box


def _slices(n: int, frames: int, seed: int) -> np.ndarray:
    return fluids.vertical_slices(fluids.make_rayleigh_taylor(n, frames, random_state=seed), n_slices=8)


SYSTEMS = {
    "navier_stokes": System(
        lambda n, frames, seed: fluids.make_navier_stokes(n, frames, observe_every=2, random_state=seed),
        *(24, 40, 1000),
    ),
    "ks2d": System(
        lambda n, frames, seed: fluids.make_kuramoto_sivashinsky(n, frames, n_dims=2, random_state=seed),
        *(24, 30, 800),
    ),
    "compressible": System(
        lambda n, frames, seed: fluids.make_compressible_navier_stokes(n, frames, random_state=seed),
        *(24, 20, 800),
        energy=kinetic,
    ),
    "rayleigh_taylor": System(
        lambda n, frames, seed: fluids.make_rayleigh_taylor(n, frames, random_state=seed),
        *(12, 20, 900),
        n_dims=3,
        batch_size=4,
        conserved=3,
        energy=lambda states: 0.5 * (states[..., :3, :, :, :] ** 2).sum(-4),
    ),
    "rayleigh_taylor_slices": System(
        _slices,
        *(12, 20, 2000),
        conserved=3,
        energy=lambda states: 0.5 * (states[..., :3, :, :] ** 2).sum(-3),
    ),
}


def main() -> None:
    arguments = _arguments()
    system = SYSTEMS[arguments.system]
    max_iter = arguments.max_iter or system.max_iter
    started = time.perf_counter()
    sizes = system.n_train, system.n_train // 4, system.n_frames
    n_train, n_test, n_frames = (4, 1, 12) if arguments.quick else sizes
    train = system.make(n_train, n_frames, 0)
    test = system.make(n_test, n_frames, 1)  # held-out trajectories
    print(f"{arguments.system}: {train.shape} to train on, {time.perf_counter() - started:.0f} s to simulate")

    started = time.perf_counter()
    forecaster = ConditionalForecaster("unet", max_iter=max_iter, batch_size=system.batch_size, random_state=0)
    forecaster.fit(train)
    print(
        f"forecaster: {forecaster.n_parameters_} parameters, {forecaster.n_iter_} steps in "
        f"{time.perf_counter() - started:.0f} s; borders {', '.join(forecaster.boundary_)}"
    )
    started = time.perf_counter()
    regress = train_regressor(train, forecaster.boundary_, max_iter, system.batch_size)
    print(f"regressor: the same network and steps in {time.perf_counter() - started:.0f} s")
    next_states(forecaster, regress, test)
    members = rollouts(forecaster, regress, test, system)
    _plot(members, test, arguments.gif)


def train_regressor(train, boundary, max_iter, batch_size):
    """The same U-Net, trained on the squared error of the change: a function from states to next states."""
    torch.manual_seed(0)
    over = (0, 1, *range(3, train.ndim))
    mean, scale = train.mean(over, keepdims=True)[0], train.std(over, keepdims=True)[0]  # of every channel
    states = torch.from_numpy((train - mean) / scale)
    step = (states[:, 1:] - states[:, :-1]).std(over, keepdim=True)[0]
    network = UNet(boundary=tuple("zeros" if b == "wall" else b for b in boundary))(train.shape[2:], 0)
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, max(20, max_iter), pct_start=0.1)
    for _ in range(max_iter):
        i, j = torch.randint(len(states), (batch_size,)), torch.randint(states.shape[1] - 1, (batch_size,))
        change = network(states[i, j], torch.zeros(batch_size)) * step
        loss = (states[i, j + 1] - states[i, j] - change).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    network.eval()

    @torch.no_grad()
    def regress(now: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy((now - mean) / scale).split(batch_size)
        following = torch.cat([part + step * network(part, torch.zeros(len(part))) for part in parts])
        return following.numpy() * scale + mean

    return regress


def next_states(forecaster, regress, test) -> None:
    """Scores of one step, channels in units of their standard deviation."""
    chosen = np.random.default_rng(0).permutation(test.shape[0] * (test.shape[1] - 1))[:SHOWN]
    now, following = (part.reshape(-1, *test.shape[2:])[chosen] for part in (test[:, :-1], test[:, 1:]))
    scale = test.std((0, 1, *range(3, test.ndim)), keepdims=True)[0]
    started = time.perf_counter()
    members = forecaster.sample(now, MEMBERS, random_state=0)
    seconds = (time.perf_counter() - started) / members[:, :, 0].size * now[0, 0].size
    truth = following / scale
    print("\none step         CRPS   NRMSE of the mean")
    for name, one in (("persistence", now), ("regressor", regress(now))):
        print(f"{name:<13}{crps(truth, one[None] / scale, fair=False):8.4f}{nrmse(truth, one / scale, 1.0):20.4f}")
    ours = crps(truth, members / scale), nrmse(truth, members.mean(0) / scale, 1.0)
    coverage = interval_coverage(truth, members / scale, 0.8)
    print(f"{'forecaster':<13}{ours[0]:8.4f}{ours[1]:20.4f}   intervals of 80 % hold {coverage:.3f}")
    print(f"{seconds:.3f} s per draw")


def rollouts(forecaster, regress, test, system) -> np.ndarray:
    """What long forecasts keep: the mean of a conserved channel, energy, and small scales; the members."""
    truth = test[:, 1:]
    members = forecaster.rollout(test[:, 0], truth.shape[1], MEMBERS, random_state=0)
    states, now = [], test[:, 0]
    for _ in range(truth.shape[1]):
        now = regress(now)
        states.append(now)
    single = np.stack(states, axis=1)[None]
    grid = tuple(range(-system.n_dims, 0))
    mass = [part[..., system.conserved, *[slice(None)] * system.n_dims].mean(grid) for part in (test[:, 0], truth)]
    unit = test[:, :, system.conserved].std()
    energy = system.energy(truth[:, -1]).mean()
    last = slice(-min(5, truth.shape[1]), None)
    print(f"\nafter {truth.shape[1]} steps  drift of the mean   energy / truth's   high wavenumbers / truth's")
    print(f"{'truth':<13}{_drift(mass[1], mass[0], unit):18.4f}")
    for name, rolled in (("regressor", single), ("forecaster", members)):
        mean = rolled.mean(0)[:, :, system.conserved].mean(grid)
        ratio = high_wavenumber_ratio(truth[:, last], rolled[:, :, last], grid_ndim=system.n_dims)
        share = system.energy(rolled[:, :, -1]).mean() / energy
        print(f"{name:<13}{_drift(mean, mass[0], unit):18.4f}{share:19.2f}{ratio:29.2f}")
    print("(drift: of the ensemble mean's mean over the box, in standard deviations of the channel)")
    return members


def _drift(mean, start, unit) -> float:
    """Largest distance of means (n, n_steps) over the box from those at the start (n,), the mean over trajectories."""
    return float(np.abs(mean - start[:, None]).max(axis=1).mean() / unit)


def _plot(members, test, gif) -> None:
    """A rollout beside the truth, and as an animation where `gif` names a file, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from flowmatch.plotting import ForecastDisplay

    display = ForecastDisplay.from_samples(members, test[:, 1:], channel=test.shape[2] - 1)
    display.figure_.savefig(FILE, dpi=80)
    print("\nplot:", FILE, *([] if gif is None else [display.animate(gif)]))


def _arguments() -> argparse.Namespace:
    """Options; tests shorten the run by an environment variable."""
    short = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=SYSTEMS, default="navier_stokes")
    parser.add_argument("--max-iter", type=int, default=short and int(short), help="steps; by default the system's")
    parser.add_argument("--quick", action="store_true", default=bool(short), help="little data, for a first look")
    parser.add_argument("--gif", type=Path, help="where to write an animation of a rollout, such as rollout.gif")
    return parser.parse_args()


if __name__ == "__main__":
    main()
