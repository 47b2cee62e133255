"""One step instead of ten: distilled flow maps, reflow and MeanFlow, with the defaults, against their teachers.

    python docs/benchmarks/few_steps.py toys 0,1       # sliced W2 at 1, 2, 4, 8 evaluations; cost of training
    python docs/benchmarks/few_steps.py mean_flow 0,1  # the same for flow maps learned without a teacher
    python docs/benchmarks/few_steps.py bimodal 0,1    # a conditional law with two modes, against the exact law
    python docs/benchmarks/few_steps.py digits 0       # 8 x 8 pictures: read by a classifier, told from real ones
    python docs/benchmarks/few_steps.py wall           # wall time of a call to `sample`

The numbers are seeds; digits takes methods after them, such as ``progressive,reflow``.
Run with OMP_NUM_THREADS=1. Costs are CPU seconds.
"""

import sys
import time

import numpy as np
import torch
from sklearn.datasets import load_digits, make_moons
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.svm import SVC

from flowmatch import DistilledFlowMap, FlowMatchingGenerator
from flowmatch.metrics import sliced_wasserstein
from flowmatch.model import Integration, carry, condition_pieces

METHODS = ("progressive", "reflow", "lagrangian", "semigroup")
STEPS = (1, 2, 4, 8)
MORE_STEPS = (1, 2, 3, 4, 8, 32)
N_ROWS, N_JUDGED = 10_000, 2000


def moons(rng, n):
    X, _ = make_moons(n, noise=0.05, random_state=rng.integers(2**31))
    return 1.5 * (X - [0.5, 0.25])


def eight_gaussians(rng, n):
    angle = rng.integers(0, 8, n) * (np.pi / 4)
    return 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.standard_normal((n, 2))


def checkerboard(rng, n):
    column = rng.integers(0, 4, n)
    row = 2 * rng.integers(0, 2, n) + column % 2
    return np.stack([column, row], axis=1) + rng.random((n, 2)) - 2


def swiss_roll(rng, n):
    s = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return np.stack([s * np.cos(s), s * np.sin(s)], axis=1) / 7 + 0.04 * rng.standard_normal((n, 2))


TOYS = {"moons": moons, "checkerboard": checkerboard, "eight Gaussians": eight_gaussians, "swiss roll": swiss_roll}


def timed(estimator, *data):
    """A fitted estimator and its CPU seconds."""
    started = time.process_time()
    return estimator.fit(*data), time.process_time() - started


def warm_up():
    """The first fit of a process loads parts of torch; no measurement should pay for it."""
    FlowMatchingGenerator(max_iter=3, random_state=0).fit(np.random.default_rng(0).normal(size=(100, 2)))


def distance(model, fresh, seed, **how):
    """Sliced W2 of as many samples as there are fresh rows."""
    return sliced_wasserstein(model.sample(len(fresh), random_state=seed, **how), fresh, random_state=0)


def toys(seeds):
    """Ratios to the teacher's dopri5 on each toy, their means, and costs."""
    ratios = {method: [] for method in METHODS}
    costs = {method: [] for method in METHODS}
    euler = []
    for seed in seeds:
        for name, draw in TOYS.items():
            rng = np.random.default_rng(seed)
            X, fresh, more = draw(rng, N_ROWS), draw(rng, N_JUDGED), draw(rng, N_JUDGED)
            teacher, cost = timed(FlowMatchingGenerator(masked_share=0.0, random_state=seed), X)
            exact = distance(teacher, fresh, seed, solver="dopri5")
            euler.append([distance(teacher, fresh, seed, solver="euler", n_steps=k) / exact for k in STEPS])
            floor = sliced_wasserstein(more, fresh, random_state=0)
            print(f"{name} {seed}: teacher {exact:.4f} ({cost:.1f} s), floor {floor:.4f}", flush=True)
            for method in METHODS:
                student, spent = timed(DistilledFlowMap(teacher, method, random_state=seed), X)
                found = np.array([distance(student, fresh, seed, n_steps=k) for k in MORE_STEPS]) / exact
                ratios[method].append(found)
                costs[method].append(spent / cost)
                print(f"  {method}: ratio {found.round(3)}, cost {spent / cost:.2f}", flush=True)
    print(f"\nteacher by Euler, {STEPS}: {np.mean(euler, axis=0).round(2)}")
    for method in METHODS:
        table = np.array(ratios[method])
        worst = (table[:, 1:] / table[:, :1]).max(axis=0)
        print(
            f"{method}: ratio at {MORE_STEPS}: {table.mean(axis=0).round(3)}; worst toy against its one step at "
            f"{MORE_STEPS[1:]}: {worst.round(3)}; cost {np.mean(costs[method]):.2f} ({np.max(costs[method]):.2f})"
        )


def mean_flow(seeds):
    """Sliced W2 of flow maps learned from data alone."""
    for seed in seeds:
        for name, draw in TOYS.items():
            rng = np.random.default_rng(seed)
            X, fresh = draw(rng, N_ROWS), draw(rng, N_JUDGED)
            model, cost = timed(FlowMatchingGenerator(objective="mean_flow", masked_share=0.0, random_state=seed), X)
            found = [distance(model, fresh, seed, n_steps=k) for k in STEPS]
            print(f"{name} {seed}: {np.round(found, 4)} at {STEPS}, {cost:.1f} CPU s", flush=True)


def bimodal_law(y, rng):
    """x given y: two arcs, on one side or the other by a coin that y loads."""
    sign = np.where(rng.random(len(y)) < 1 / (1 + np.exp(-2 * y[:, 1])), 1.0, -1.0)
    radius = sign * (1 + 0.3 * y[:, 1])
    x = radius[:, None] * np.stack([np.cos(2 * y[:, 0]), np.sin(2 * y[:, 0])], axis=1)
    return x + 0.15 * rng.standard_normal((len(y), 2))


def energy_distance_by_context(a, b):
    """Unbiased energy distance of the draws a (m, n_contexts, d) and b (k, n_contexts, d) of each context, averaged.

    Divided by sqrt(d).
    """

    def mean_distance(x, y, pairs):
        return sum(np.linalg.norm(row - y, axis=-1).sum(axis=0) for row in x) / pairs

    between = mean_distance(a, b, len(a) * len(b))
    within = mean_distance(a, a, len(a) * (len(a) - 1)) + mean_distance(b, b, len(b) * (len(b) - 1))
    return float((2 * between - within).mean() / np.sqrt(a.shape[-1]))


def bimodal(seeds):
    """Energy distance to the exact law, of the teacher and of students."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        y = rng.standard_normal((20_000, 2))
        x, contexts = bimodal_law(y, rng), np.tile(rng.standard_normal((200, 2)), (64, 1))
        exact, other = (bimodal_law(contexts, rng).reshape(64, 200, 2) for _ in range(2))
        settings = {"preprocessing": "none", "masked_share": 0.0, "max_iter": 2000}
        teacher, cost = timed(FlowMatchingGenerator(**settings, random_state=seed), x, y)
        print(f"seed {seed}: law against itself {energy_distance_by_context(other, exact):.5f}, teacher ({cost:.1f} s)")
        for solver, k in (("midpoint", 20), ("midpoint", 10), ("euler", 1)):
            print(f"  {solver} {k}: {miss(teacher, contexts, exact, seed, solver=solver, n_steps=k):.4f}", flush=True)
        for method in METHODS:
            student, spent = timed(DistilledFlowMap(teacher, method, random_state=seed), x, y)
            found = [miss(student, contexts, exact, seed, n_steps=k) for k in STEPS]
            print(f"  {method}: {np.round(found, 4)} at {STEPS}, cost {spent / cost:.2f}", flush=True)


def miss(model, contexts, exact, seed, **how):
    """Energy distance of a model's draws from the exact law's."""
    drawn = model.sample(len(contexts), contexts, random_state=seed, **how)
    return energy_distance_by_context(drawn.reshape(exact.shape), exact)


def digits(seeds, methods):
    """Pictures of 8 x 8: read as asked, and the area under the curve of a forest that tells them from real ones."""
    data = load_digits()
    images = data.images.astype(np.uint8)[:, None]
    for seed in seeds:
        X, held_out, y, labels = train_test_split(
            images, data.target, test_size=1 / 3, stratify=data.target, random_state=seed
        )
        reader = SVC(gamma=0.001).fit(X.reshape(len(X), -1), y)
        teacher, cost = timed(FlowMatchingGenerator(random_state=seed), X, y)
        print(f"seed {seed}: teacher, {teacher.n_iter_} steps, {cost:.0f} CPU s")
        print(f"  midpoint 16 (32 evaluations): {read(teacher, reader, held_out, labels, n_steps=16)}", flush=True)
        for k in (1, 4):
            print(f"  Euler {k}: {read(teacher, reader, held_out, labels, solver='euler', n_steps=k)}", flush=True)
        for method in methods:
            student, spent = timed(DistilledFlowMap(teacher, method, random_state=seed), X, y)
            for k in (1, 2, 4):
                print(f"  {method} {k}: {read(student, reader, held_out, labels, n_steps=k)}", flush=True)
            print(f"  {method}: cost {spent / cost:.2f}", flush=True)


def read(model, reader, held_out, labels, **how):
    """Share of 2000 pictures that the reader takes for what was asked, and the mean area over three draws."""
    asked = np.repeat(np.arange(10), 200)
    right = reader.score(model.sample(2000, y=asked, random_state=1, **how).reshape(2000, -1), asked)
    areas = []
    for k in range(3):
        drawn = model.sample(len(held_out), y=labels, random_state=10 + k, **how)
        both = np.concatenate([drawn, held_out]).reshape(2 * len(held_out), -1).astype(float)
        real = np.r_[np.zeros(len(drawn)), np.ones(len(held_out))]
        folds = StratifiedKFold(3, shuffle=True, random_state=k)
        forest = RandomForestClassifier(100, random_state=k)
        areas.append(cross_val_score(forest, both, real, cv=folds, scoring="roc_auc").mean())
    return f"read as asked {right:.4f}, AUC {np.mean(areas):.3f}"


def wall():
    """Seconds of a call to `sample`, and of the steps alone, median of seven calls each in turn."""
    X = checkerboard(np.random.default_rng(0), N_ROWS)
    teacher = FlowMatchingGenerator(masked_share=0.0, random_state=0).fit(X)
    data = load_digits()
    images = data.images.astype(np.uint8)[:, None]
    painter = FlowMatchingGenerator(max_iter=20, random_state=0).fit(images, data.target)
    for name, model, n_samples in (("table", teacher, 20_000), ("digits", painter, 500)):
        student = DistilledFlowMap(model, max_iter=20, n_pairs=200, random_state=0).fit()
        calls = {
            "teacher, call": lambda m=model, n=n_samples: m.sample(n, random_state=0),
            "student, call": lambda m=student, n=n_samples: m.sample(n, random_state=0),
            "teacher, steps": steps_of(model.model_, n_samples, 10),
            "student, steps": steps_of(student.model_, n_samples, 1),
        }
        seconds = {key: [] for key in calls}
        for _ in range(7):
            for key, call in calls.items():
                started = time.perf_counter()
                call()
                seconds[key].append(time.perf_counter() - started)
        median = {key: np.median(values) for key, values in seconds.items()}
        print(f"{name}, {n_samples} samples:", {key: round(value, 4) for key, value in median.items()})
        for what in ("call", "steps"):
            print(f"  {what}: {median[f'teacher, {what}'] / median[f'student, {what}']:.1f} x faster")


def steps_of(model, n_samples, n_steps):
    """The steps without noise, conditions and decoding."""
    noise = torch.randn(n_samples, *model.code_shape)
    y = None if model.conditions is None else np.arange(n_samples) % 10
    condition = condition_pieces(model, y, n_samples)(slice(0, n_samples))
    integration = Integration("flow_map" if model.is_flow_map else "midpoint", n_steps)
    return lambda: carry(model, noise, condition, integration)


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["toys"]
    numbers = [int(seed) for seed in rest[0].split(",")] if rest else [0]
    warm_up()
    if what == "digits":
        digits(numbers, rest[1].split(",") if len(rest) > 1 else METHODS)
    elif what == "wall":
        wall()
    else:
        {"toys": toys, "mean_flow": mean_flow, "bimodal": bimodal}[what](numbers)
