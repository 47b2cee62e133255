"""Held-out rows share nothing with training rows; signals that hardly move are anomalies."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from flowmatch import FlowAnomalyDetector
from flowmatch.anomaly.activity import Activity
from flowmatch.anomaly.groups import overlaps, places_of
from flowmatch.networks import MLP
from flowmatch.preprocessing import SampleRows

LENGTH = 32


def record(n, seed):
    """A resonance in noise: x_t = 1.6 x_(t-1) - 0.8 x_(t-2) + e_t."""
    noise = np.random.default_rng(seed).normal(size=n + 100)
    signal = np.zeros(n + 100)
    for t in range(2, n + 100):
        signal[t] = 1.6 * signal[t - 1] - 0.8 * signal[t - 2] + noise[t]
    return signal[100:]


def windows(signal, hop, length=LENGTH):
    return sliding_window_view(signal, length)[::hop].copy()


def detector(**settings):
    return FlowAnomalyDetector(
        **{"network": MLP(width=16, depth=2), "random_state": 0, "max_iter": 30, "n_folds": 1, **settings}
    )


def quietly(function, *arguments, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **settings)


@pytest.mark.parametrize("hop", [1, 7, 16, 20])
@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("kind", ["table", "signal", "channels", "float32"])
def test_overlapping_windows_are_put_back_in_their_places(hop, shuffled, kind):
    X = np.concatenate([windows(record(400, seed), hop) for seed in range(3)])
    n = len(X) // 3
    order = np.random.default_rng(0).permutation(len(X)) if shuffled else np.arange(len(X))
    rows = X[order] if kind in ("table", "float32") else X[order][:, None].repeat(1 if kind == "signal" else 2, axis=1)
    found = overlaps(SampleRows(rows.astype(np.float32) if kind == "float32" else rows))
    assert found is not None
    start, of = np.empty(len(X), dtype=int), np.empty(len(X), dtype=int)
    start[order], of[order] = found.start, found.record
    for k in range(3):
        part = slice(k * n, (k + 1) * n)
        assert len(set(of[part])) == 1
        np.testing.assert_array_equal(np.diff(start[part]), hop)
    assert found.n_records == 3
    every = np.sort(found.start)
    assert np.diff(every)[np.diff(every) > hop].min() >= LENGTH  # records do not touch


UNRELATED = {
    "windows side by side": windows(record(3000, 0), LENGTH),
    "independent rows": np.random.default_rng(0).normal(size=(300, 20)),
    "ones and zeros": np.random.default_rng(0).integers(0, 2, (300, 40)).astype(float),
    "counts": np.random.default_rng(0).poisson(1.0, (300, 40)).astype(float),
    "mostly zeros": np.random.default_rng(0).poisson(0.02, (300, 64)).astype(float),
    "copies": np.repeat(np.random.default_rng(0).normal(size=(100, 20)), 3, axis=0),
    "few columns": windows(record(300, 0), 1, 6),
    "images": np.random.default_rng(0).normal(size=(50, 1, 16, 16)),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_what_shares_nothing_is_left_alone(name):
    assert overlaps(SampleRows(UNRELATED[name])) is None


@pytest.mark.parametrize("n_folds", [1, 3])
@pytest.mark.parametrize("n_records", [1, 2, 8])
@pytest.mark.parametrize("hop", [1, 8, 20])
def test_training_rows_share_no_instant_with_held_out_ones(n_folds, n_records, hop):
    signals = [record(1200 // n_records + 200, seed) for seed in range(n_records)]
    X = np.concatenate([windows(signal, hop) for signal in signals])
    instants = np.concatenate([k * 10_000 + np.arange(len(signal)) for k, signal in enumerate(signals)])
    spans = np.concatenate(
        [windows(part, hop) for part in np.split(instants, np.cumsum([len(s) for s in signals])[:-1])]
    )
    places = overlaps(SampleRows(X))
    held_out = []
    for kept, held in places.split(n_folds, None, np.random.RandomState(0)):
        assert len(kept) > len(held) > 0
        assert not np.intersect1d(spans[kept], spans[held]).size
        held_out.append(held)
    if n_folds > 1:
        np.testing.assert_array_equal(np.sort(np.concatenate(held_out)), np.arange(len(X)))


def test_groups_are_held_out_as_a_whole_and_every_class_is_trained_on():
    X = np.random.default_rng(0).normal(size=(200, 3))
    groups = np.repeat([f"run {k}" for k in range(20)], 10)
    y = np.where(groups == "run 3", "rare", "usual")
    for n_folds in (1, 5):
        for kept, held in places_of(SampleRows(X), groups).split(n_folds, y, np.random.RandomState(0)):
            assert not set(groups[kept]) & set(groups[held])
            assert set(y[held]) <= set(y[kept]) == {"rare", "usual"}


def test_the_promise_holds_on_later_windows_though_training_windows_overlap(monkeypatch):
    """Held out at random, windows are near copies of those of training: later ones, which are not, alarm too often."""

    def alarms(seed):
        fitted = quietly(detector(method="neighbors", max_iter=1).fit, windows(record(1500, seed), 1))
        return np.mean(fitted.predict(windows(record(8000, seed + 50), LENGTH)) == -1)

    apart = np.mean([alarms(seed) for seed in range(3)])
    monkeypatch.setattr("flowmatch.anomaly.groups.overlaps", lambda rows: None)
    assert apart < 0.08 < 0.12 < np.mean([alarms(seed) for seed in range(3)])


def test_the_warning_says_what_was_done_and_points_at_the_users_line():
    with pytest.warns(UserWarning, match="overlapping windows of 1 record.*blocks of them are held out") as caught:
        detector().fit(windows(record(1000, 0), 4))
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="whole records are held out"):
        detector().fit(np.concatenate([windows(record(200, seed), 4) for seed in range(6)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector().fit(windows(record(1000, 0), 4), groups=np.zeros(243))


def test_groups_travel_with_their_rows_through_weights_and_sorting():
    rng = np.random.default_rng(0)
    X, groups, weight = rng.normal(size=(120, 3)), np.arange(120) // 3 % 8, np.arange(120) % 3
    fitted = detector(n_folds=5).fit(X, sample_weight=weight, groups=groups)
    kept = weight > 0
    alone = detector(n_folds=5).fit(X[kept], sample_weight=weight[kept], groups=groups[kept])
    np.testing.assert_array_equal(fitted.calibration_.scores, alone.calibration_.scores)
    turned = detector(n_folds=5).fit(X[::-1], sample_weight=weight[::-1], groups=groups[::-1])
    np.testing.assert_array_equal(np.sort(fitted.calibration_.scores), np.sort(turned.calibration_.scores))
    other = detector(n_folds=5).fit(X, sample_weight=weight)
    assert len(other.calibration_.scores) != len(fitted.calibration_.scores) or not np.array_equal(
        np.sort(other.calibration_.scores), np.sort(fitted.calibration_.scores)
    )


@pytest.mark.parametrize(
    ("settings", "groups", "message"),
    [
        ({}, np.arange(7), "groups must hold one label for each of the 40 rows of X, got shape"),
        ({}, np.zeros((40, 2)), "groups must hold one label for each"),
        ({}, [None] + [1] * 39, "groups must hold a label for each row of X, but that of row 0 is missing"),
        ({}, [1.0] * 39 + [np.nan], "that of row 39 is missing"),
        ({"n_folds": 12}, np.repeat(np.arange(8), 5), "8 group.*too few for 12 folds"),
        ({"contamination": 0.1}, np.arange(40), "groups tells which rows to hold out.*contamination=0.1"),
    ],
)
def test_groups_that_cannot_be_used_are_refused_and_nothing_is_lost(settings, groups, message):
    X = np.random.default_rng(0).normal(size=(40, 3))
    fitted = quietly(detector().fit, X)
    before = fitted.score_samples(X)
    with pytest.raises(ValueError, match=message):
        fitted.set_params(**settings).fit(X, groups=groups)
    np.testing.assert_array_equal(fitted.score_samples(X), before)


def still(X):
    return {
        "dead": np.zeros_like(X),
        "weak": 0.3 * X,
        "stuck": np.repeat(X[..., :1], X.shape[-1], axis=-1),
        "one channel stuck": np.concatenate([X[:, :-1], np.repeat(X[:, -1:, :1], X.shape[-1], axis=-1)], axis=1)
        if X.ndim == 3
        else np.full_like(X, X.mean()),
    }


@pytest.mark.parametrize("kind", ["table", "channels"])
@pytest.mark.parametrize("method", ["combined", "one_step", "latent", "likelihood", "neighbors"])
def test_dead_weak_and_stuck_signals_are_flagged(kind, method):
    length = 64
    X = windows(record(length * 300, 0), length, length)
    X = X if kind == "table" else np.stack([X, windows(record(length * 300, 1), length, length)], axis=1)
    normal, later = X[:200], X[200:]
    fitted = detector(method=method, n_steps=2).fit(normal)
    assert np.mean(fitted.predict(later) == -1) < 0.2
    for name, rows in still(later).items():
        assert np.mean(fitted.predict(rows) == -1) >= 0.95, name
    found = fitted.explain(still(later)["dead"])
    np.testing.assert_allclose(found.reshape(len(found), -1).sum(axis=1), -fitted.score_samples(still(later)["dead"]))


def test_rows_in_the_middle_of_ordinary_tables_are_normal():
    rng = np.random.default_rng(0)
    small, unlike = rng.normal(size=(400, 8)), rng.normal(size=(400, 20)) * np.geomspace(1, 100, 20)
    for X in (small, unlike, np.where(rng.random((400, 20)) < 0.1, np.nan, rng.normal(size=(400, 20)))):
        fitted = quietly(detector().fit, X)
        assert fitted.fitted_.members[0].activity is None
        assert fitted.predict(np.zeros((1, X.shape[1])))[0] == 1


def test_rows_that_miss_values_are_not_quiet():
    rows = record(64 * 200, 0).reshape(200, 64)
    activity = replace(Activity.of(SampleRows(rows)), level=5.0)
    holes, ones = np.where(np.arange(64) % 2, np.nan, 0.0)[None], np.ones((1, 64))
    assert activity.added(np.zeros((1, 64)), ones, 3.0).sum() == pytest.approx(64 + 3)
    assert activity.added(np.zeros((1, 64)), -ones, 3.0).sum() == pytest.approx(5 + 3)
    np.testing.assert_array_equal(activity.added(holes, ones, 3.0), ones)
    np.testing.assert_array_equal(activity.added(rows, rows, 3.0), rows)


def test_sensors_that_stand_still_in_training_may_do_so():
    rows = record(64 * 200, 0).reshape(200, 64)
    rows[::10] = 0.0
    assert not Activity.of(SampleRows(rows)).least.any()
