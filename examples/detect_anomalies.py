"""Anomalies in a table: train on normal rows, set a false alarm rate, flag, rank, explain, save.

The rows are records of 30 measurements of tumors. Some were mixed up: half of the columns are another patient's, so
that every column by itself looks normal. Run with ``python examples/detect_anomalies.py``.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor

import flowmatch
from flowmatch import FlowAnomalyDetector


def main() -> None:
    data = load_breast_cancer()
    random = np.random.default_rng(0)
    rows = data.data[random.permutation(len(data.data))]
    X_train, X_new = rows[:284], rows[284:]
    mixed_up = X_new.copy()
    foreign = random.permutation(30)[:15]
    mixed_up[:, foreign] = X_new[random.permutation(len(X_new))][:, foreign]
    X_test = np.concatenate([X_new, mixed_up])
    is_odd = np.repeat([False, True], len(X_new))

    # training rows are normal; no anomaly is needed, and no threshold
    detector = FlowAnomalyDetector(false_alarm_rate=0.05, random_state=0).fit(X_train)

    others = {"isolation forest": IsolationForest(random_state=0), "local outliers": LocalOutlierFactor(novelty=True)}
    print(f"how well scores rank {len(mixed_up)} records that were mixed up above {len(X_new)} good ones (AUROC):")
    print(f"  {'flow':18s}{roc_auc_score(is_odd, -detector.score_samples(X_test)):.3f}")
    for name, other in others.items():
        print(f"  {name:18s}{roc_auc_score(is_odd, -other.fit(X_train).score_samples(X_test)):.3f}")

    flagged = detector.predict(X_test) == -1
    print(f"\nflagged: {flagged[~is_odd].mean():.1%} of the good ones (target: 5 %)", end="")
    print(f", {flagged[is_odd].mean():.1%} of the mixed-up ones")

    # where the most abnormal of them is abnormal: the columns that add most to its score
    worst = X_test[[np.argmin(detector.score_samples(X_test))]]
    contributions = detector.explain(worst)[0]
    print(
        f"\nthe highest score is {contributions.sum():.1f} (p = {detector.p_values(worst)[0]:.3f}), from these columns:"
    )
    for j in np.argsort(-contributions)[:5]:
        share = contributions[j] / contributions.sum()
        usual = f"{X_train[:, j].mean():.3g} +- {X_train[:, j].std():.2g}"
        print(f"  {data.feature_names[j]:22s} {share:5.1%} of the score: {worst[0, j]:.3g}, usually {usual}")

    path = Path(tempfile.mkdtemp()) / "records.safetensors"
    detector.save(path)
    same = np.array_equal(flowmatch.load(path).score_samples(X_test), detector.score_samples(X_test))
    print(f"\nsaved and loaded {path.stat().st_size / 1000:.0f} kB; same scores: {same}")
    _plot(detector, X_test, is_odd)


def _plot(detector, X, is_odd) -> None:
    """Scores with the threshold, and the row of the highest score, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from flowmatch.plotting import AnomalyDisplay

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    AnomalyDisplay.score_histogram(detector, X, np.where(is_odd, "mixed up", "good"), ax=axes[0])
    AnomalyDisplay.from_estimator(detector, X, feature_names=load_breast_cancer().feature_names, ax=axes[1])
    path = Path(__file__).with_name("detect_anomalies.png")
    figure.savefig(path, dpi=100)
    print("plot:", path)


if __name__ == "__main__":
    main()
