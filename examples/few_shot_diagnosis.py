"""Few windows of each fault, at one load: what perturbed and resampled windows add at other loads.

Run with ``python examples/few_shot_diagnosis.py``: three simulated bearings of each condition, no download, a quarter
of a minute on one core. Or with your own records: ``python examples/few_shot_diagnosis.py FOLDER --pattern
"{label}_{load:d}" --fs 12000``, where the pattern, or the files themselves, tell the label and the load of each
(see `read_records`).
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from flowmatch import AugmentedClassifier
from flowmatch.datasets import make_bearing_records, read_records
from flowmatch.metrics.signals import log_spectrum
from flowmatch.synthetic import ARBlocks, Perturb

WINDOW = 1024
FEW = (5, 10, 20)
N_NEW = 100  # synthetic windows of each class
N_DRAWS = 5
GENERATORS = {
    "none": None,
    "ARBlocks": ARBlocks(),
    "Perturb": Perturb(),
    "Perturb over ARBlocks": Perturb(ARBlocks()),
}


def main() -> None:
    records = _records()
    print(records)
    X, y, load, known = _windows(records)
    loads = np.unique(load)[1:]
    print(f"k windows of each of {len(np.unique(y))} classes at load {known:g}; macro-F1 at other loads\n")
    print(f"{'k':>3} {'synthetic windows':24}" + "".join(f"{f'load {at:g}':>9}" for at in loads))
    found = {}
    for k in FEW:
        for name, generator in GENERATORS.items():
            found[k, name] = _score(_model(generator, records.fs, k), X, y, load, k)
            print(f"{k:3d} {name:24}" + "".join(f"{score:9.2f}" for score in found[k, name]))
    _plot(found, loads)


def _model(generator, fs, k):
    """Log-spectra and logistic regression, fitted to real windows and, with a generator, to as many new ones."""
    spectra = FunctionTransformer(log_spectrum, kw_args={"fs": fs})
    model = make_pipeline(spectra, StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    if generator is None:
        return model
    return AugmentedClassifier(model, generator, ratio=N_NEW / k, strategy="all", random_state=0)


def _score(model, X, y, load, k):
    """Macro-F1 at each of the loads but the first, where the k windows of each class are drawn; mean over draws."""
    known, *others = np.unique(load)
    scores = []
    for draw in range(N_DRAWS):
        rng = np.random.default_rng(draw)
        pools = [np.flatnonzero((load == known) & (y == label)) for label in np.unique(y)]
        few = np.concatenate([rng.permutation(pool)[:k] for pool in pools])
        model.fit(X[few], y[few])
        scores.append([f1_score(y[load == at], model.predict(X[load == at]), average="macro") for at in others])
    return np.mean(scores, axis=0)


def _windows(records):
    """Windows, labels and loads, of the classes that were recorded at the lowest load and at another; that load."""
    X, conditions = records.windows(WINDOW)
    y, load = np.asarray(conditions["label"]), np.asarray(conditions["load"])
    known = load.min()
    labels = [label for label in np.unique(y[load == known]) if (load[y == label] > known).any()]
    kept = np.isin(y, labels)
    return X[kept], y[kept], load[kept], known


def _records():
    """Those of a folder, or simulated ones."""
    parser = argparse.ArgumentParser(description="few windows of each fault, at one load")
    parser.add_argument("folder", nargs="?", help="of your records; none for simulated ones")
    parser.add_argument("--pattern", help="what the names of files say")
    parser.add_argument("--fs", type=float, help="sampling rate, if the files do not say it")
    said = parser.parse_args()
    if said.folder is None:
        return make_bearing_records(3, random_state=0)
    records = read_records(said.folder, pattern=said.pattern, fs=said.fs)
    if len(np.unique(records.load)) < 2 or np.isnan(records.load).any() or len(np.unique(records.label)) < 2:
        raise SystemExit("the records must say their label and load, two of each at least: pass a pattern")
    return records


def _plot(found, loads) -> None:
    """Macro-F1 by k at each load, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(loads), figsize=(4 * len(loads), 3.2), sharey=True, squeeze=False)
    for panel, (ax, at) in enumerate(zip(axes[0], loads, strict=True)):
        for name in GENERATORS:
            ax.plot(FEW, [found[k, name][panel] for k in FEW], marker="o", label=name)
        ax.set(xticks=FEW, xlabel="real windows of a class", title=f"tested at load {at:g}")
    axes[0, 0].set_ylabel("macro-F1")
    axes[0, -1].legend(frameon=False, fontsize="small")
    path = Path(__file__).with_name("few_shot_diagnosis.png")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    print("plot:", path)


if __name__ == "__main__":
    main()
