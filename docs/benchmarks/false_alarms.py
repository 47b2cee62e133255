"""False alarms on new normal rows against the rate that is promised.

``python false_alarms.py`` draws thirty continuous tables, discrete ones, and the bounds of single fits (about 20
minutes on one core); ``python false_alarms.py FOLDER`` takes ADBench's files: half of the normal rows to train, as in
the ranking benchmark, and the share of the other half that is flagged.

Drawn tables come anew for every fit, and so do the rows that are tested: the spread between fits holds the errors of
both. Networks are tiny and trained briefly; what is promised does not depend on what was learned.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch import FlowAnomalyDetector
from flowmatch.networks import MLP

Floats = NDArray[np.float64]
Draw = Callable[[int, np.random.Generator], Floats]

LEVELS = (0.01, 0.05, 0.1)
N_FITS, N_NEW = 50, 2000


def mixed(kind: str, d: int) -> Draw:
    """Rows of d columns of a kind."""
    fixed = np.random.default_rng(d)
    turn, centers = fixed.normal(size=(d, d)), 4 * fixed.normal(size=(3, d))
    parts: dict[str, Draw] = {
        "normal": lambda n, rng: rng.normal(size=(n, d)),
        "correlated": lambda n, rng: rng.normal(size=(n, d)) @ turn,
        "low rank": lambda n, rng: rng.normal(size=(n, 2)) @ turn[:2] + 0.1 * rng.normal(size=(n, d)),
        "Student, 3": lambda n, rng: rng.standard_t(3, size=(n, d)),
        "Cauchy": lambda n, rng: rng.standard_cauchy(size=(n, d)),
        "lognormal": lambda n, rng: rng.lognormal(size=(n, d)),
        "exponential, turned": lambda n, rng: rng.exponential(size=(n, d)) @ turn,
        "uniform": lambda n, rng: rng.uniform(size=(n, d)),
        "beta(.5, .5)": lambda n, rng: rng.beta(0.5, 0.5, size=(n, d)),
        "three clusters": lambda n, rng: rng.normal(size=(n, d)) + centers[rng.integers(3, size=n)],
        "two widths": lambda n, rng: rng.normal(size=(n, d)) * np.where(rng.random((n, 1)) < 0.1, 5.0, 1.0),
        "ring": lambda n, rng: _on_sphere(rng.normal(size=(n, d))) * (1 + 0.1 * rng.normal(size=(n, 1))),
    }
    return parts[kind]


def _on_sphere(x: Floats) -> Floats:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


CONTINUOUS = [
    ("normal", 1, 100), ("normal", 2, 200), ("normal", 10, 300), ("normal", 30, 1000),
    ("correlated", 3, 100), ("correlated", 8, 400), ("correlated", 20, 500),
    ("low rank", 5, 200), ("low rank", 30, 300), ("Student, 3", 1, 200), ("Student, 3", 6, 100),
    ("Student, 3", 20, 700),
    ("Cauchy", 2, 300), ("Cauchy", 5, 500), ("lognormal", 1, 300), ("lognormal", 4, 100), ("lognormal", 15, 1000),
    ("exponential, turned", 2, 400), ("exponential, turned", 12, 200), ("uniform", 1, 100), ("uniform", 5, 300),
    ("uniform", 25, 500), ("beta(.5, .5)", 3, 200), ("beta(.5, .5)", 10, 700), ("three clusters", 2, 100),
    ("three clusters", 10, 200), ("three clusters", 20, 1000), ("two widths", 4, 400), ("ring", 2, 200),
    ("ring", 3, 500),
]  # fmt: skip


def cells(n_columns: int, n_levels: int, concentration: float | None) -> tuple[Draw, Floats]:
    """Rows of a table of so many cells, and the probability of each."""
    n = n_levels**n_columns
    chance = np.full(n, 1 / n)
    if concentration is not None:
        chance = np.random.default_rng(1).dirichlet(np.full(n, concentration))
    digits = n_levels ** np.arange(n_columns)
    return lambda size, rng: rng.choice(n, size=size, p=chance)[:, None] // digits % n_levels * 1.0, chance


def detector(seed: int, **parameters: Any) -> FlowAnomalyDetector:
    tiny = {"network": MLP(width=16, depth=1), "max_iter": 20, "batch_size": 64, "n_steps": 2, "device": "cpu"}
    return FlowAnomalyDetector(**{**tiny, "random_state": seed, **parameters})


def shares_flagged(fitted: FlowAnomalyDetector, X: Floats, levels: tuple[float, ...]) -> list[float]:
    """The share of rows that `predict` flags, by level."""
    scores = fitted.score_samples(X)
    return [float(np.mean(scores < fitted.set_params(false_alarm_rate=level).offset_)) for level in levels]


def rates(draw: Draw, n: int, levels: tuple[float, ...], **parameters: Any) -> tuple[Floats, Floats]:
    """The mean share that is flagged and its standard error, by level."""
    shares = []
    for seed in range(N_FITS):
        rng = np.random.default_rng([n, seed])
        shares.append(shares_flagged(detector(seed, **parameters).fit(draw(n, rng)), draw(N_NEW, rng), levels))
    return np.mean(shares, axis=0), np.std(shares, axis=0, ddof=1) / N_FITS**0.5


def continuous() -> None:
    outside, above = [], []
    for kind, d, n in CONTINUOUS:
        mean, error = rates(mixed(kind, d), n, LEVELS)
        outside.append(np.abs(mean - LEVELS) > 2 * error)
        above.append(mean - LEVELS > 2 * error)
        shown = "  ".join(f"{m:6.2%} +- {e:.2%}" for m, e in zip(mean, error, strict=True))
        print(f"{kind:20s} d {d:2d} n {n:4d}  {shown}", flush=True)
    print(f"beyond 2 standard errors: {np.mean(outside):.1%} of table x level, above {np.mean(above):.1%}")


def discrete() -> None:
    levels = (0.05, 0.1, 0.5)
    for name, columns, n_levels, concentration in (
        ("3 x 4 even", 3, 4, None), ("3 x 4 uneven", 3, 4, 0.5), ("6 x 2 even", 6, 2, None), ("6 x 2 uneven", 6, 2, 0.5)
    ):  # fmt: skip
        draw, chance = cells(columns, n_levels, concentration)
        for n in (100, 300, 1000):
            mean, error = rates(draw, n, levels)
            shown = "  ".join(f"{m:6.2%} +- {e:.2%}" for m, e in zip(mean, error, strict=True))
            print(f"{name:13s} n {n:4d}  {shown}  largest cell {chance.max():.1%}", flush=True)
    draw, _ = cells(3, 4, None)
    for copies in range(1, 9):
        mean, error = rates(draw, 64 * copies, levels)
        shown = "  ".join(f"{m:6.2%} +- {e:.2%}" for m, e in zip(mean, error, strict=True))
        print(f"{copies} copies a row, n {64 * copies:4d}  {shown}", flush=True)


def disagreeing() -> None:
    """A score without a unit, by flows that hardly know anything: the five of them differ in scale."""
    for n_folds in (5, 1):
        for steps in (20, 200):
            mean, error = rates(
                mixed("three clusters", 10), 200, LEVELS, method="one_step", max_iter=steps, n_folds=n_folds
            )
            shown = "  ".join(f"{m:6.2%} +- {e:.2%}" for m, e in zip(mean, error, strict=True))
            print(f"one_step, {n_folds} flows, {steps:3d} steps  {shown}", flush=True)


def bounds(n_fits: int = 100) -> None:
    for name, draw, n, folds in (
        ("one split", mixed("correlated", 3), 500, 1), ("one split", mixed("lognormal", 4), 200, 1),
        ("five folds", mixed("correlated", 3), 100, "auto"), ("five folds", mixed("three clusters", 5), 300, "auto"),
        ("64 cells", cells(3, 4, 0.5)[0], 300, "auto"),
    ):  # fmt: skip
        held, found = 0, []
        for seed in range(n_fits):
            rng = np.random.default_rng([n, seed])
            fitted = detector(seed, n_folds=folds).fit(draw(n, rng))
            found.append(fitted.false_alarm_bound(0.95))
            held += shares_flagged(fitted, draw(10_000, rng), (0.05,))[0] <= found[-1]
        print(f"{name:11s} n {n}: bound {np.mean(found):.3f}, held by {held} of {n_fits} fits", flush=True)


def real_tables(folder: Path) -> None:
    means = []
    for file in sorted(folder.glob("*.npz")):
        table = np.load(file)
        normal = table["X"][table["y"] == 0].astype(np.float64)
        shares = []
        for seed in (0, 1, 2):
            order = np.random.default_rng(seed).permutation(len(normal))
            train, new = normal[order[: len(order) // 2]], normal[order[len(order) // 2 :]]
            fitted = FlowAnomalyDetector(random_state=seed, device="cpu").fit(train)
            shares.append(np.mean(fitted.predict(new) == -1))
        means.append(np.mean(shares))
        print(f"{file.stem:20s}", *(f"{rate:6.1%}" for rate in shares), f"  mean {means[-1]:.1%}", flush=True)
    print(f"mean {np.mean(means):.1%}, worst table {np.max(means):.1%}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".* held-out rows cannot promise")
    if len(sys.argv) > 1:
        real_tables(Path(sys.argv[1]))
    else:
        discrete()
        bounds()
        disagreeing()
        continuous()
