"""Downstream scores: train on synthetic rows, test on real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.metrics._samples import FloatArray
from flowmatch.metrics.tables import Encoding

MAX_CLASSES = 20
"""Whole numbers of up to so many values are classes; of more, if those are at most a tenth of the rows."""


def has_classes(column: FloatArray, is_category: bool) -> bool:
    """Whether a target is one of classes: categories, or a few whole numbers."""
    values = column[~np.isnan(column)]
    whole = bool((values == np.round(values)).all())
    return is_category or (whole and len(np.unique(values)) <= max(MAX_CLASSES, len(values) / 10))


def downstream_scores(
    train: FloatArray, test: FloatArray, encoding: Encoding, target: int, classes: bool, seed: int
) -> dict[str, float]:
    """Scores on `test` rows of models fitted to `train` rows, both (n, d) cells of the encoding's tables.

    Two models, scikit-learn's histogram gradient boosting on the cells as they are and logistic or ridge regression
    on the encoded ones; for classes macro-F1 and balanced accuracy, for numbers R2. Rows without a target are left
    out. Train on synthetic, test on real: Esteban et al. (2017), who name it TSTR.

    Returns
    -------
    dict of str to float
        "macro_f1_trees", "balanced_accuracy_trees" or "r2_trees", and the same for "linear".
    """
    fit_rows, test_rows = (rows[~np.isnan(rows[:, target])] for rows in (train, test))
    y_train, y_test = fit_rows[:, target], test_rows[:, target]
    scores: dict[str, float] = {}
    features = (np.arange(train.shape[1]) != target) & ~np.isnan(fit_rows).all(axis=0)
    for name, (model, read) in _models(encoding, target, features, classes, seed).items():
        if len(np.unique(y_train)) < 2:  # a generator that collapsed
            predicted = np.full(len(y_test), y_train[0] if len(y_train) else np.nan)
        else:
            predicted = model.fit(read(fit_rows), y_train).predict(read(test_rows))
        scores |= {f"{measure}_{name}": value for measure, value in _scores(y_test, predicted, classes).items()}
    return scores


def _models(
    encoding: Encoding, target: int, features: NDArray[np.bool_], classes: bool, seed: int
) -> dict[str, tuple[Any, Any]]:
    """A model and the function that turns rows into its features, by name; trees refuse columns without any cell."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge

    tables = encoding.tables

    def cells(rows: FloatArray) -> FloatArray:
        return tables.coarse(rows)[:, features]

    def encoded(rows: FloatArray) -> FloatArray:
        return encoding(rows, leave_out=target)

    options: dict[str, Any] = {"categorical_features": tables.is_category[features], "random_state": seed}
    if classes:
        return {
            "trees": (HistGradientBoostingClassifier(**options), cells),
            "linear": (LogisticRegression(max_iter=1000), encoded),
        }
    return {"trees": (HistGradientBoostingRegressor(**options), cells), "linear": (Ridge(), encoded)}


def _scores(y_true: FloatArray, predicted: NDArray[Any], classes: bool) -> dict[str, float]:
    from sklearn.metrics import f1_score, r2_score, recall_score

    if np.isnan(predicted).any():
        return dict.fromkeys(("macro_f1", "balanced_accuracy") if classes else ("r2",), float("nan"))
    if not classes:
        return {"r2": float(r2_score(y_true, predicted))}
    labels = np.unique(y_true)
    averaged: dict[str, Any] = {"labels": labels, "average": "macro", "zero_division": 0.0}
    return {
        "macro_f1": float(f1_score(y_true, predicted, **averaged)),
        "balanced_accuracy": float(recall_score(y_true, predicted, **averaged)),
    }
