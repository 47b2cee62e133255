"""Anomalies in a table of 64 columns: train on normal rows, promise a false alarm rate, flag, rank, explain, save.

The rows are handwritten sevens and nines, whose 64 grey levels are the columns; threes have got among them.

Run with ``python examples/detect_anomalies.py``.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor

import flowmatch
from flowmatch import FlowAnomalyDetector


def main() -> None:
    digits = load_digits()
    normal, odd = digits.data[np.isin(digits.target, [7, 9])], digits.data[digits.target == 3]
    order = np.random.default_rng(0).permutation(len(normal))
    X_train, X_test = normal[order[:180]], np.concatenate([normal[order[180:]], odd])
    is_odd = np.arange(len(X_test)) >= len(normal) - 180

    # training rows are normal; no anomaly is needed, and no threshold
    detector = FlowAnomalyDetector(false_alarm_rate=0.05, random_state=0).fit(X_train)

    rivals = {"isolation forest": IsolationForest(random_state=0), "local outliers": LocalOutlierFactor(novelty=True)}
    print(f"how well scores rank {is_odd.sum()} threes above {(~is_odd).sum()} sevens and nines (AUROC):")
    print(f"  {'flow':18s}{roc_auc_score(is_odd, -detector.score_samples(X_test)):.3f}")
    for name, rival in rivals.items():
        print(f"  {name:18s}{roc_auc_score(is_odd, -rival.fit(X_train).score_samples(X_test)):.3f}")

    flagged = detector.predict(X_test) == -1
    print(f"\nflagged: {flagged[~is_odd].mean():.1%} of sevens and nines (promised: 5 %)", end="")
    print(f", {flagged[is_odd].mean():.1%} of threes")

    # where the most abnormal of them is abnormal: the columns that add most to its score
    worst = X_test[[np.argmin(detector.score_samples(X_test))]]
    contributions = detector.explain(worst)[0]
    print(
        f"\nthe highest score is {contributions.sum():.1f} (p = {detector.p_values(worst)[0]:.3f}), from these columns:"
    )
    for j in np.argsort(-contributions)[:5]:
        share = contributions[j] / contributions.sum()
        usual = f"{X_train[:, j].mean():.1f} +- {X_train[:, j].std():.1f}"
        print(f"  {digits.feature_names[j]}  {share:5.1%} of the score: {worst[0, j]:4.1f}, usually {usual}")

    path = Path(tempfile.mkdtemp()) / "digits.safetensors"
    detector.save(path)
    same = np.array_equal(flowmatch.load(path).score_samples(X_test), detector.score_samples(X_test))
    print(f"\nsaved and loaded {path.stat().st_size / 1000:.0f} kB; same scores: {same}")
    _plot(detector, X_test, is_odd)


def _plot(detector, X, is_odd) -> None:
    """Scores with the threshold, and the row of the highest score, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a picture: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from flowmatch.plotting import AnomalyDisplay

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    AnomalyDisplay.score_histogram(detector, X, np.where(is_odd, "three", "seven or nine"), ax=axes[0])
    AnomalyDisplay.from_estimator(detector, X, feature_names=load_digits().feature_names, ax=axes[1])
    path = Path(__file__).with_name("detect_anomalies.png")
    figure.savefig(path, dpi=100)
    print("picture:", path)


if __name__ == "__main__":
    main()
