"""A rare class: synthetic rows inside a classifier, what they change and what they do not.

Of 212 malignant tumors only 24 are kept for training, beside 357 benign ones, and only four columns that describe the
nuclei: texture, smoothness, symmetry and fractal dimension. Run with ``python examples/augment_imbalanced.py``.
"""

import os
import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, balanced_accuracy_score, precision_score, recall_score
from sklearn.model_selection import StratifiedKFold

from flowmatch import AugmentedClassifier, FlowMatchingGenerator, FlowMatchingOverSampler

COLUMNS = [1, 4, 8, 9]  # texture, smoothness, symmetry, fractal dimension
STEPS = os.environ.get("FLOWMATCH_EXAMPLE_STEPS")  # for a short run


def main() -> None:
    X, y = _table()
    print(f"{len(y)} rows of {X.shape[1]} columns, {y.sum()} of them of the rare class; five folds\n")
    generator = None if STEPS is None else FlowMatchingGenerator(max_iter=int(STEPS))
    forest = RandomForestClassifier(n_estimators=60, random_state=0)
    models = {
        "as it is": forest,
        "class weights": RandomForestClassifier(n_estimators=60, random_state=0, class_weight="balanced"),
        "half as many": AugmentedClassifier(forest, generator, ratio=0.5, random_state=0),
        "as many": AugmentedClassifier(forest, generator, ratio=1.0, random_state=0),
    }
    print(f"{'rare rows':16s}{'found':>8s}{'true alarms':>14s}{'balanced acc.':>16s}{'average precision':>20s}")
    for name, model in models.items():
        found, true, balanced, ranking = _scores(model, X, y)
        print(f"{name:16s}{found:8.2f}{true:14.2f}{balanced:16.2f}{ranking:20.2f}")
    print(
        "\nMore of the rare rows are found, and more alarms are false: the operating point has moved. How well rows\n"
        "are ranked (average precision) is another matter: synthetic rows hold no more information than the real ones."
    )

    # the rows by themselves, as imbalanced-learn's samplers return them
    sampler = FlowMatchingOverSampler(generator, sampling_strategy={1: 100}, random_state=0)
    X_more, y_more = sampler.fit_resample(X, y)
    np.set_printoptions(precision=3, suppress=True)
    print(f"\nrows by class: {np.bincount(y)} -> {np.bincount(y_more)}, such as")
    print(X_more[-3:])


def _table():
    """All benign rows and every ninth malignant one, which is class 1 here."""
    X, y = load_breast_cancer(return_X_y=True)
    kept = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 0)[::9]]
    return X[kept][:, COLUMNS], 1 - y[kept]


def _scores(model, X, y):
    """Recall and precision of the rare class, balanced accuracy, and average precision, over five folds."""
    scores = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
        probability = model.fit(X[train], y[train]).predict_proba(X[test])[:, 1]
        predicted = probability > 0.5
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # precision is 0 where nothing is found
            scores.append(
                [
                    recall_score(y[test], predicted),
                    precision_score(y[test], predicted),
                    balanced_accuracy_score(y[test], predicted),
                    average_precision_score(y[test], probability),
                ]
            )
    return np.mean(scores, axis=0)


if __name__ == "__main__":
    main()
