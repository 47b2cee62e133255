"""Synthetic rows of a real table, in a minute: fit, sample per class, compare, save, load, score.

Run with ``python examples/quickstart.py``.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

import flowmatch
from flowmatch import FlowMatchingGenerator
from flowmatch.metrics import report


def main() -> None:
    X, y = _load()
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)

    generator = FlowMatchingGenerator(random_state=0).fit(X_train, y_train)
    print(f"trained {generator.n_parameters_} parameters for {generator.n_iter_} steps")

    # rows of one class, in the columns and on the grid of the real ones
    print("\nthree synthetic wines of class 1:")
    print(generator.sample(3, y=1, random_state=0))

    # as many rows as in training, with the same proportions of classes
    synthetic = generator.sample(len(X_train), random_state=1)
    print("\n", report(X_train, synthetic, holdout=X_test), sep="")

    # one file, no pickle
    path = Path(tempfile.mkdtemp()) / "wine.safetensors"
    generator.save(path)
    loaded = flowmatch.load(path)
    print(f"\nsaved and loaded {path.stat().st_size / 1000:.0f} kB; same samples:", _same(generator, loaded))

    # log-densities of rows the model has not seen, with the right label and with a wrong one
    right, wrong = loaded.score(X_test, y_test), loaded.score(X_test, (y_test + 1) % 3)
    print(f"mean log-density of held-out rows: {right:.1f} given their class, {wrong:.1f} given another")

    _plot(X_train, synthetic)


def _load():
    """The wine table: a DataFrame if pandas is installed, arrays otherwise."""
    try:
        return load_wine(return_X_y=True, as_frame=True)
    except ImportError:
        np.set_printoptions(suppress=True, precision=3, linewidth=120)
        return load_wine(return_X_y=True)


def _same(one: FlowMatchingGenerator, other: FlowMatchingGenerator) -> bool:
    return bool((one.sample(5, random_state=2) == other.sample(5, random_state=2)).all(axis=None))


def _plot(real, synthetic) -> None:
    """Two columns of both tables, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True)
    for axis, rows, title in zip(axes, (real, synthetic), ("real", "synthetic"), strict=True):
        rows = np.asarray(rows)
        axis.scatter(rows[:, 0], rows[:, 9], s=12, alpha=0.7)
        axis.set(title=title, xlabel="alcohol")
    axes[0].set_ylabel("color_intensity")
    path = Path(__file__).with_name("quickstart.png")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    print("plot:", path)


if __name__ == "__main__":
    main()
