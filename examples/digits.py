"""Handwritten digits by class, at several numbers of network evaluations (NFE), judged by a classifier.

Run with ``python examples/digits.py``; ``--max-iter 50`` gives a first look.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from flowmatch import FlowMatchingGenerator

NFE = (1, 2, 4, 8, 32)
GUIDANCE = (1.0, 2.0)
PICTURE = Path(__file__).with_name("digits.png")


def main() -> None:
    arguments = _arguments()
    digits = load_digits()
    X, y = digits.images.astype(np.uint8)[:, None], digits.target  # (1797, 1, 8, 8), gray levels 0 to 16
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)

    generator = FlowMatchingGenerator(max_iter=arguments.max_iter, random_state=0).fit(X_train, y_train)
    seconds = generator.history_["seconds"][-1]
    print(f"trained {generator.n_parameters_} parameters for {generator.n_iter_} steps in {seconds:.0f} s")

    judge = SVC(gamma=0.001).fit(X_train.reshape(len(X_train), -1), y_train)
    ceiling = judge.score(X_test.reshape(len(X_test), -1), y_test)
    print(f"\nan SVM classifies {ceiling:.3f} of the held-out digits correctly, and of generated ones:")
    print(f"{'NFE':>4}" + "".join(f"{f'guidance {scale:g}':>14}" for scale in GUIDANCE))
    labels = np.arange(arguments.n_samples) % 10
    for steps in NFE:
        accuracies = []
        for scale in GUIDANCE:
            samples = generator.sample(
                len(labels), labels, random_state=0, solver="euler", n_steps=steps, guidance_scale=scale
            )
            accuracies.append(judge.score(samples.reshape(len(samples), -1), labels))
        print(f"{steps:>4}" + "".join(f"{accuracy:>14.3f}" for accuracy in accuracies))

    _plot(generator)


def _arguments() -> argparse.Namespace:
    """Options; tests shorten the run by an environment variable."""
    short = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-iter", type=int, default=short and int(short), help="steps; by default the estimator's")
    parser.add_argument("--n-samples", type=int, default=200 if short else 1000, help="samples to classify")
    return parser.parse_args()


def _plot(generator: FlowMatchingGenerator) -> None:
    """Every class from the same noise at every NFE, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from flowmatch.plotting import SampleGridDisplay

    classes = generator.classes_
    rows = [
        generator.sample(10, classes, random_state=0, solver="euler", n_steps=steps, guidance_scale=2.0)
        for steps in NFE
    ]
    display = SampleGridDisplay.from_samples(
        np.concatenate(rows), row_labels=[f"NFE {steps}" for steps in NFE], column_labels=classes
    )
    display.figure_.savefig(PICTURE, dpi=100)
    print("\nplot:", PICTURE)


if __name__ == "__main__":
    main()
