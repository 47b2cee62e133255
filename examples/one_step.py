"""Handwritten digits in one network evaluation: a teacher that needs ten or more, and the student distilled from it.

Run with ``python examples/one_step.py``; ``--max-iter 500`` gives a first look.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from flowmatch import DistilledFlowMap, FlowMatchingGenerator
from flowmatch.metrics import sliced_wasserstein

NFE = (1, 2, 4, 8, 32)
PICTURES = [Path(__file__).with_name(name) for name in ("one_step_quality.png", "one_step_digits.png")]


def main() -> None:
    arguments = _arguments()
    digits = load_digits()
    X, y = digits.images.astype(np.uint8)[:, None], digits.target  # (1797, 1, 8, 8), gray levels 0 to 16
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)

    started = time.perf_counter()
    teacher = FlowMatchingGenerator(max_iter=arguments.max_iter, random_state=0).fit(X_train, y_train)
    trained = time.perf_counter()
    student = DistilledFlowMap(teacher, random_state=0).fit(X_train, y_train)
    distilled = time.perf_counter()
    print(
        f"teacher: {teacher.n_iter_} steps in {trained - started:.0f} s; "
        f"student: {student.n_iter_} steps in {distilled - trained:.0f} s"
    )

    judge = SVC(gamma=0.001).fit(_flat(X_train), y_train)
    models = {"teacher": teacher, "student": student}
    how = {"teacher": {"solver": "euler"}, "student": {}}
    distances: dict[str, list[float]] = {name: [] for name in models}
    print(f"\n{'NFE':>4}" + "".join(f"{name:>26}" for name in models))
    for steps in NFE:
        line = f"{steps:>4}"
        for name, model in models.items():
            drawn = model.sample(len(X_test), y=y_test, random_state=0, n_steps=steps, **how[name])
            distances[name].append(sliced_wasserstein(_flat(drawn), _flat(X_test), random_state=0))
            read = judge.score(_flat(drawn), y_test)
            line += f"   {read:.3f} correct, distance {distances[name][-1]:.2f}"
        print(line)
    print("(share that an SVM classifies as requested; sliced Wasserstein distance to held-out digits)")

    seconds = {}
    for name, model in models.items():
        started = time.perf_counter()
        model.sample(1000, y=3, random_state=0)
        seconds[name] = time.perf_counter() - started
    print("\n1000 digits: " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))
    _plot(models, how, distances)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(float)


def _arguments() -> argparse.Namespace:
    """Options; tests shorten the run by an environment variable."""
    short = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-iter", type=int, default=short and int(short), help="steps; by default the estimator's")
    return parser.parse_args()


def _plot(models: dict, how: dict, distances: dict[str, list[float]]) -> None:
    """Quality against evaluations, and every digit from the same noise, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for plots: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from flowmatch.plotting import QualityDisplay, SampleGridDisplay

    quality = QualityDisplay.from_scores(distances, NFE, "sliced Wasserstein distance")
    quality.figure_.savefig(PICTURES[0], dpi=100)
    rows, labels = [], []
    for steps in (1, 4):
        for name, model in models.items():
            rows.append(model.sample(10, np.arange(10), random_state=0, n_steps=steps, **how[name]))
            labels.append(f"{name}, NFE {steps}")
    grid = SampleGridDisplay.from_samples(np.concatenate(rows), row_labels=labels, column_labels=np.arange(10))
    grid.figure_.savefig(PICTURES[1], dpi=100)
    print("\nplots:", *PICTURES)


if __name__ == "__main__":
    main()
