"""Watch a bearing: train on windows of normal vibration, score windows as they come, see a fault grow from nothing.

Run with ``python examples/monitor_vibration.py``; it trains for about a minute on one core. The vibration is
simulated: no download.
"""

import os
from pathlib import Path

import numpy as np

from flowmatch import FlowAnomalyDetector
from flowmatch.anomaly import OneStep
from flowmatch.datasets import make_bearing_signals
from flowmatch.networks import UNet

STEPS = int(os.environ.get("FLOWMATCH_EXAMPLE_STEPS", 300))
MACHINE = {"n_times": 256, "snr_db": 10.0}


def main() -> None:
    # a day of normal running, at slightly changing speed
    normal = make_bearing_signals(800, faults="normal", rpm=(1780, 1815), random_state=0, **MACHINE)
    detector = FlowAnomalyDetector(
        UNet(width=16), method=OneStep(times=(0.9,)), max_iter=STEPS, false_alarm_rate=0.02, random_state=0
    ).fit(normal.data)  # this score takes one evaluation per window; the default takes eleven
    print(f"trained on {len(normal.data)} windows of {MACHINE['n_times'] / normal.sampling_rate * 1000:.0f} ms each")

    print("\nhour  fault  flagged  median p")
    alarm = None
    for hour, windows, severity in stream():
        p = detector.p_values(windows.data)  # 50 windows per hour, one call
        flagged = p <= detector.false_alarm_rate  # as predict does
        print(f"{hour:4d}  {severity:5.2f}  {flagged.mean():6.0%}   {np.median(p):.3f}")
        # six of 50, each with a chance of 2 %, come up about once in 400 hours
        if alarm is None and flagged.sum() >= 6:
            alarm = hour
    print("no alarm" if alarm is None else f"alarm in hour {alarm}")

    when = where_it_is(detector, windows)
    print(f"\nat the impacts, a time step adds {when:.1f} times as much to the score as elsewhere")

    # from now on the machine runs at half the speed: that is normal too, and quickly learned
    slower = make_bearing_signals(600, faults="normal", rpm=(880, 915), random_state=5, **MACHINE)
    before = np.mean(detector.predict(slower.data[400:]) == -1)
    detector.set_params(max_iter=max(1, STEPS // 3)).partial_fit(slower.data[:400])
    after = np.mean(detector.predict(slower.data[400:]) == -1)
    print(f"flagged at a new speed: {before:.0%} before, {after:.0%} after partial_fit on 400 windows of it")
    _plot(detector, windows)


def stream():
    """Ten hours of 50 windows; a defect of the outer race begins in the fourth and grows."""
    for hour in range(1, 11):
        severity = max(0.0, 0.06 * (hour - 3))
        windows = make_bearing_signals(
            50, faults="outer", severity=severity, rpm=(1780, 1815), random_state=100 + hour, **MACHINE
        )
        yield hour, windows, severity


def where_it_is(detector, windows) -> float:
    """Contributions in the half millisecond after an impact, relative to the others."""
    contributions = detector.explain(windows.data)[:, 0]
    struck = np.stack([np.convolve(row > 0, np.ones(6))[: len(row)] > 0 for row in windows.impacts])
    return contributions[struck].mean() / contributions[~struck].mean()


def _plot(detector, windows) -> None:
    """The last hour's most abnormal window and what it is made of, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from flowmatch.plotting import AnomalyDisplay

    display = AnomalyDisplay.from_estimator(detector, windows.data, sampling_rate=windows.sampling_rate)
    path = Path(__file__).with_name("monitor_vibration.png")
    display.figure_.savefig(path, dpi=100)
    print("plot:", path)


if __name__ == "__main__":
    main()
