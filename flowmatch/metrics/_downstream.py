"""Downstream scores: train on synthetic rows, test on real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.metrics._samples import FloatArray
from flowmatch.metrics.table_reader import Encoding

MAX_CLASSES = 20
"""Whole numbers of up to so many values are classes; of more, if those are at most a tenth of the rows."""


def has_classes(column: FloatArray, is_category: bool) -> bool:
    """Whether the values of a target are classes: categories, or a few whole numbers."""
    values = column[~np.isnan(column)]
    whole = bool((values == np.round(values)).all())
    return is_category or (whole and len(np.unique(values)) <= max(MAX_CLASSES, len(values) / 10))


def downstream_scores(
    train: FloatArray, test: FloatArray, encoding: Encoding, target: int, classes: bool, seed: int
) -> dict[str, float]:
    """Scores on `test` rows of models fitted to `train` rows, both (n, d) entries of the encoding's tables.

    Two models, scikit-learn's histogram gradient boosting on the entries as they are and logistic or ridge regression
    on the encoded ones; for classes macro-F1 and balanced accuracy, for numeric targets R2. Rows without a target are
    left out. Train on synthetic, test on real: Esteban et al. (2017), who name it TSTR.

    Returns
    -------
    dict of str to float
        "macro_f1_trees", "balanced_accuracy_trees" or "r2_trees", and the same for "linear".
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge

    train, test = (rows[~np.isnan(rows[:, target])] for rows in (train, test))
    y_train, y_test = train[:, target], test[:, target]
    features = (np.arange(train.shape[1]) != target) & ~np.isnan(train).all(axis=0)  # trees refuse empty columns
    boosting = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    trees = boosting(categorical_features=encoding.tables.is_category[features], random_state=seed)
    linear = LogisticRegression(max_iter=1000) if classes else Ridge()
    inputs = {
        "trees": [encoding.tables.coarse(rows)[:, features] for rows in (train, test)],
        "linear": [encoding(rows, leave_out=target) for rows in (train, test)],
    }
    scores: dict[str, float] = {}
    for (name, (X_train, X_test)), model in zip(inputs.items(), (trees, linear), strict=True):
        if len(np.unique(y_train)) < 2:  # a generator that collapsed
            predicted = np.full(len(y_test), y_train[0] if len(y_train) else np.nan)
        else:
            predicted = model.fit(X_train, y_train).predict(X_test)
        scores |= {f"{measure}_{name}": value for measure, value in _scores(y_test, predicted, classes).items()}
    return scores


def _scores(y_true: FloatArray, predicted: NDArray[Any], classes: bool) -> dict[str, float]:
    """Scores of predictions, NaN where there are none."""
    from sklearn.metrics import classification_report, r2_score

    if np.isnan(predicted).any():
        return dict.fromkeys(("macro_f1", "balanced_accuracy") if classes else ("r2",), float("nan"))
    if not classes:
        return {"r2": float(r2_score(y_true, predicted))}
    options: dict[str, Any] = {"labels": np.unique(y_true), "output_dict": True, "zero_division": 0.0}
    means = classification_report(y_true, predicted, **options)["macro avg"]
    return {"macro_f1": float(means["f1-score"]), "balanced_accuracy": float(means["recall"])}
