"""FlowAnomalyDetector: what it flags and how often, what it explains, refuses, saves and loads."""

import copy
import itertools
import json
import pickle
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from damaged_files import fuzzed, setting, tamper, tensor, without
from reference_store import FOLDER
from scipy.stats import kstest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV

import flowmatch
from flowmatch import FlowAnomalyDetector
from flowmatch.anomaly import SCORES, Combined, Likelihood, Neighbors, OneStep, Reconstruction
from flowmatch.networks import MLP, UNet
from flowmatch.training import NonFiniteTrainingError, TrainingOptions

SMALL = {"network": MLP(width=32), "max_iter": 150, "batch_size": 128, "n_steps": 4, "device": "cpu", "random_state": 0}
TINY = {**SMALL, "network": MLP(width=8, depth=1), "max_iter": 3, "batch_size": 32, "n_steps": 2}

pytestmark = pytest.mark.filterwarnings("ignore:.* held-out rows cannot promise:UserWarning")


def small(**parameters):
    return FlowAnomalyDetector(**{**SMALL, **parameters})


def tiny(**parameters):
    return FlowAnomalyDetector(**{**TINY, "method": "one_step", "n_folds": 1, **parameters})


def line(n, seed=0, slope=1.0):
    """Two columns that are nearly each other's multiple."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.column_stack([x, slope * x + 0.1 * rng.normal(size=n)])


def ring(n, rng):
    angle, radius = rng.uniform(0, 2 * np.pi, n), 1 + 0.1 * rng.normal(size=n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def frame(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"size": rng.gamma(2.0, size=n), "flag": np.arange(n) % 2.0, "fixed": 0.1, "more": rng.normal(size=n)})  # fmt: skip


def auroc(normal_scores, anomaly_scores):
    truth = np.repeat([0, 1], [len(normal_scores), len(anomaly_scores)])
    return roc_auc_score(truth, np.concatenate([normal_scores, anomaly_scores]))


@pytest.fixture(scope="module")
def on_a_line():
    """Fitted to a thousand rows near a line, with the default score."""
    return small().fit(line(1000))


@pytest.fixture(scope="module")
def every():
    """Detectors of every score, hardly trained, on a frame with a constant column."""
    return {score: tiny(method=score, n_folds=2).fit(frame()) for score in SCORES}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "detector.safetensors"


EVERY_SCORE = pytest.mark.parametrize("score", SCORES)


# -- what is abnormal -------------------------------------------------------------------------------------------------


def test_rows_off_the_correlation_are_abnormal_and_those_far_along_it_are_not(on_a_line):
    along, off = [[1.8, 1.8], [-1.8, -1.8]], [[0.7, -0.7], [-0.5, 0.5]]
    np.testing.assert_array_equal(on_a_line.predict(along), [1, 1])
    np.testing.assert_array_equal(on_a_line.predict(off), [-1, -1])
    assert on_a_line.score_samples(off).max() < on_a_line.score_samples(along).min() - 10


@pytest.mark.parametrize("score", ["combined", "one_step", "likelihood"])
def test_points_in_the_hole_of_a_ring_are_found_which_the_distance_to_the_mean_misses(score, rng):
    X, normal = ring(800, rng), ring(300, rng)
    hole = rng.uniform(-0.4, 0.4, size=(300, 2))
    detector = small(method=score).fit(X)
    distances = [np.linalg.norm(rows - X.mean(axis=0), axis=1) for rows in (normal, hole)]
    assert auroc(*distances) < 0.05
    assert auroc(-detector.score_samples(normal), -detector.score_samples(hole)) > 0.9


BITS = np.array([row for row in itertools.product((0.0, 1.0), repeat=3) if sum(row) < 3])


@pytest.mark.parametrize("score", ["combined", "one_step", "latent", "neighbors"])
def test_a_combination_of_bits_that_never_came_is_flagged_and_those_that_came_are_not(score, rng):
    detector = small(method=score).fit(BITS[rng.integers(0, len(BITS), 700)])
    scores = detector.score_samples([[1, 1, 1], *BITS])
    assert np.isfinite(scores).all()
    assert scores[0] < 2 * scores[1:].min() - 1
    np.testing.assert_array_equal(detector.predict([[1, 1, 1], *BITS]), [-1] + [1] * len(BITS))


@pytest.mark.parametrize("score", ["one_step", "likelihood"])
def test_equal_rows_are_treated_alike_in_batches_of_any_size(score, rng):
    X = BITS[rng.integers(0, len(BITS), 700)]
    detector = small(method=score, max_iter=60).fit(X)
    p = detector.p_values(BITS)
    for n in (1, 2, 3, 5, 50, 700):
        rows = np.resize(BITS, (n, 3))
        assert (detector.predict(rows) == 1).all()
        np.testing.assert_array_equal(detector.p_values(rows), np.resize(p, n))


@EVERY_SCORE
def test_scores_of_copies_and_of_rows_far_away_are_finite(score, every):
    X = pd.concat([frame(), frame(), 1e6 * frame(), -1e20 * frame()])
    assert np.isfinite(every[score].score_samples(X)).all()


@EVERY_SCORE
def test_another_value_in_a_constant_column_is_flagged_and_that_column_blamed(score, every):
    detector, X = every[score], frame().head(4)
    plain = detector.explain(X)
    assert (plain["fixed"] == 0).all()
    changed = detector.explain(X.assign(fixed=0.2))
    np.testing.assert_allclose(changed.drop(columns="fixed"), plain.drop(columns="fixed"))
    assert (changed["fixed"] > 0).all()
    rounded = X.assign(fixed=np.float32(0.1))
    assert (detector.explain(rounded)["fixed"] == 0).all()


@pytest.mark.parametrize("score", ["combined", "one_step", "likelihood", "reconstruction"])
def test_tables_of_constants_only_work(score):
    detector = tiny(method=score, n_folds=2).fit(np.ones((20, 3)))
    np.testing.assert_array_equal(detector.predict([[1, 1, 1], [1, 2, 1], [2, 1, 1], [1, 1, 0]]), [1, -1, -1, -1])


@pytest.mark.parametrize("score", ["combined", "one_step", "latent", "likelihood"])
def test_another_value_in_a_constant_column_counts_as_beyond_all_rows(score):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(600, 30)), np.full(600, 3.0)])
    detector = tiny(method=score).fit(X)
    moved = X[:20].copy()
    moved[:, -1] = 3.1
    least = min(-detector.score_samples(X[:20]).max(), detector.calibration_.scores.min())
    assert (detector.predict(moved) == -1).all()
    added = detector.explain(moved)[:, -1]
    assert (added >= 3.0**2).all()  # the square of a normal score beyond those of 480 rows
    assert (added >= detector.calibration_.scores.max() - max(least, detector.calibration_.scores.min()) - 1e-6).all()


def test_copies_of_a_row_are_trained_on_or_held_out_together():
    X, counts = line(150), np.random.default_rng(0).integers(1, 5, size=150)
    new = line(4000, seed=1)
    shares = [
        np.mean(tiny(n_folds=3).fit(X, sample_weight=weight).predict(new) == -1)
        for weight in (None, np.full(150, 3), counts)
    ]
    assert shares[0] == shares[1]  # whole numbers count up to a common factor
    assert abs(shares[2] - 0.05) < 3 * sampling_error(0.05, 150, 4000)


@pytest.mark.parametrize("n_rows", [5, 8])
def test_few_rows_flag_no_more_than_they_promise(n_rows):
    new, shares = line(500, seed=10**6), []
    for seed in range(6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            detector = tiny(method="combined", n_folds="auto").fit(line(n_rows, seed=seed))
        shares.append(np.mean(detector.predict(new) == -1))
    assert np.mean(shares) < 1 / (n_rows + 1) + 3 * np.std(shares) / len(shares) ** 0.5


# -- how often --------------------------------------------------------------------------------------------------------


def sampling_error(rate, n_held_out, n_new):
    """Standard deviation of the share flagged, of held-out and new rows together."""
    return np.sqrt(rate * (1 - rate) * (1 / n_held_out + 1 / n_new))


def test_new_normal_rows_are_flagged_at_the_rate_asked_for_however_little_was_learned():
    new, offsets = line(4000, seed=1), []
    for rate in (0.3, 0.1, 0.02):
        detector = tiny(false_alarm_rate=rate, n_folds="auto").fit(line(2500))
        assert len(detector.flows_) == 1
        assert len(detector.calibration_.scores) == 500
        share = np.mean(detector.predict(new) == -1)
        assert abs(share - rate) < 3 * sampling_error(rate, 500, 4000)
        offsets.append(detector.offset_)
    assert offsets[0] > offsets[1] > offsets[2]


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_new_normal_rows_are_flagged_at_the_rate_asked_for_with_folds(rate):
    detector = tiny(false_alarm_rate=rate, n_folds="auto").fit(line(300))
    assert len(detector.flows_) == 5
    assert len(detector.calibration_.scores) == 300
    share = np.mean(detector.predict(line(4000, seed=1)) == -1)
    assert abs(share - rate) < 3 * sampling_error(rate, 300, 4000)


@pytest.mark.parametrize("score", ["combined", "one_step"])
def test_a_trained_detector_flags_new_normal_rows_at_the_rate_asked_for(score, on_a_line):
    detector = on_a_line if score == "combined" else small(method=score).fit(line(1000))
    share = np.mean(detector.predict(line(4000, seed=1)) == -1)
    assert abs(share - 0.05) < 3 * sampling_error(0.05, 200, 4000)


def test_p_values_of_new_normal_rows_are_uniform_and_agree_with_the_decisions(on_a_line):
    new = line(2000, seed=1)
    p = on_a_line.p_values(new)
    assert kstest(p, "uniform").statistic < 3 * 0.5 * np.sqrt(1 / 200 + 1 / 2000)  # 0.5: that at the median
    np.testing.assert_array_equal(on_a_line.predict(new) == -1, p <= on_a_line.false_alarm_rate)
    np.testing.assert_allclose(on_a_line.p_values([[5.0, -5.0]]), [1 / 201])


@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.25, 0.5])
def test_a_float_contamination_flags_that_share_of_the_training_rows(contamination):
    X = line(200)
    detector = tiny(contamination=contamination, n_folds=5)
    assert np.mean(detector.fit_predict(X) == -1) == contamination
    assert len(detector.flows_) == 1
    assert detector.calibration_ is None
    with pytest.raises(
        ValueError, match=f"contamination={contamination}.*fit with contamination='auto' on normal data"
    ):
        detector.p_values(X)


@pytest.mark.parametrize(
    ("n_rows", "n_folds", "expected"), [(499, "auto", 5), (500, "auto", 1), (60, 3, 3), (4, "auto", 4)]
)
def test_as_many_flows_are_fitted_as_there_are_folds(n_rows, n_folds, expected):
    detector = tiny(n_folds=n_folds).fit(line(n_rows))
    assert len(detector.flows_) == expected
    assert len(detector.calibration_.scores) == (n_rows if expected > 1 else 100)


def test_too_few_rows_for_the_rate_are_warned_about_where_fit_was_called():
    with pytest.warns(
        UserWarning, match=r"^10 held-out rows cannot promise a false_alarm_rate of 0.05, but only 0.091"
    ) as caught:
        detector = tiny().fit(line(50))
    assert [warning.filename for warning in caught] == [__file__]
    assert detector.offset_ == pytest.approx(-detector.calibration_.scores.max())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().fit(line(95))


# -- classes ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_places():
    """Normal rows of "a" lie along one diagonal at the origin, those of "b" along the other one at (6, 0)."""
    X = np.concatenate([line(400), line(400, seed=1, slope=-1.0) + [6.0, 0.0]])
    return small(method="one_step", max_iter=300).fit(X, np.repeat(["a", "b"], 400))


def test_the_shape_of_one_class_at_the_place_of_the_other_is_abnormal(two_places):
    np.testing.assert_array_equal(two_places.classes_, ["a", "b"])
    right, wrong = [[1.0, 1.0], [-1.0, -1.0], [7.0, -1.0], [5.0, 1.0]], [[1.0, -1.0], [7.0, 1.0], [5.0, -1.0]]
    np.testing.assert_array_equal(two_places.predict(right), [1] * 4)
    np.testing.assert_array_equal(two_places.predict(wrong), [-1] * 3)


def test_a_row_has_the_score_of_the_class_that_suits_it_best(two_places, rng):
    rows = rng.normal(size=(50, 2)) + rng.choice([0.0, 6.0], size=(50, 1))
    (member,) = two_places.fitted_.members
    with torch.no_grad():
        under = np.stack([
            member.score.contributions(member.field, {}, member.codes(rows), member.condition(np.repeat(label, 50))).sum(1)
            for label in two_places.classes_
        ])  # fmt: skip
    assert {0, 1} == set(under.argmin(axis=0))
    np.testing.assert_allclose(-two_places.score_samples(rows), under.min(axis=0), rtol=1e-9)
    np.testing.assert_allclose(two_places.explain(rows).sum(axis=1), under.min(axis=0), rtol=1e-9)


@pytest.mark.parametrize("n_folds", [1, 2, 5])
def test_a_class_of_one_row_stays_in_training(n_folds):
    X, y = line(60), np.array(["a"] * 59 + ["b"])
    detector = tiny(n_folds=n_folds, method="combined").fit(X, y)
    assert [list(flow.classes_) for flow in detector.flows_] == [["a", "b"]] * n_folds
    assert np.isfinite(detector.score_samples(X)).all()


def test_every_fold_holds_out_some_rows_of_each_class():
    detector = tiny(n_folds=3).fit(line(60), np.repeat(["a", "b"], [54, 6]))
    assert [list(flow.model_.conditions.counts) for flow in detector.flows_] == [[36, 4]] * 3


# -- weights and trimming ---------------------------------------------------------------------------------------------


def assert_same_detector(one, other, X):
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    assert one.offset_ == other.offset_


@pytest.mark.parametrize("n_folds", [1, 3])
def test_weights_that_are_counts_are_repeated_rows_in_every_class(n_folds, rng):
    X, y, counts = line(80), np.arange(80) % 2, rng.integers(0, 4, 80)
    weighted = tiny(n_folds=n_folds, method="combined").fit(X, y, sample_weight=counts)
    repeated = tiny(n_folds=n_folds, method="combined").fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    assert_same_detector(weighted, repeated, X)


def test_rows_of_weight_zero_are_absent(rng):
    X, y = line(80), np.repeat(["a", "b"], 40)
    weight = np.where(y == "b", 0.0, rng.uniform(0.1, 2.0, 80))
    weighted, rest = tiny().fit(X, y, weight), tiny().fit(X[:40], y[:40], weight[:40])
    assert list(weighted.classes_) == ["a"]
    assert_same_detector(weighted, rest, X)
    signals = X.reshape(20, 1, 8)
    counts = np.arange(20) % 2
    assert_same_detector(tiny().fit(signals, sample_weight=counts), tiny().fit(signals[1::2]), signals)


def test_weights_are_relative_and_weigh_the_held_out_rows_too(rng):
    X, weight = line(100), rng.uniform(0.1, 2.0, 100)
    one, other = tiny().fit(X, sample_weight=weight), tiny().fit(X, sample_weight=10 * weight)
    np.testing.assert_allclose(one.score_samples(X), other.score_samples(X))
    plain = tiny().fit(X)
    scores = dict(zip(one.score_samples(X), weight, strict=True))
    held_out = [scores[min(scores, key=lambda s: abs(s - score))] for score in -one.calibration_.scores]
    np.testing.assert_allclose(one.calibration_.weights, held_out / np.mean(held_out))
    assert (plain.calibration_.weights == 1).all()


def test_trimmed_training_ranks_its_outliers_better(rng):
    X = np.concatenate([rng.normal(size=(320, 2)), rng.uniform(-6, 6, size=(80, 2))])
    found = []
    for trim in (0.0, 0.3):
        detector = small(method="one_step", contamination=0.2, trim=trim).fit(X)
        scores = -detector.score_samples(X)
        found.append(auroc(scores[:320], scores[320:]))
    assert found[1] > found[0] + 0.03


def test_trimmed_rows_are_those_of_the_highest_scores(rng):
    X = np.concatenate([rng.normal(size=(45, 2)), rng.normal(size=(5, 2)) + 100.0])
    detector = tiny(method="neighbors", contamination=0.1, trim=0.1).fit(X)
    known = detector.flows_[0].model_.encoder.decode(detector.fitted_.members[0].state["codes"].numpy())
    np.testing.assert_allclose(known[np.lexsort(known.T)], X[:45][np.lexsort(X[:45].T)], rtol=1e-5, atol=1e-5)


def test_trimming_leaves_a_row_of_every_class():
    X = np.concatenate([line(57), line(3, seed=1) + 50.0])
    detector = tiny(method="combined", trim=0.5, n_folds=3).fit(X, np.repeat(["a", "b"], [57, 3]))
    assert [list(flow.classes_) for flow in detector.flows_] == [["a", "b"]] * 3
    n_kept = [len(member.state["1.codes"]) for member in detector.fitted_.members]
    assert n_kept == [21, 21, 21]  # half of 40, and one of "b"


# -- data that drift --------------------------------------------------------------------------------------------------


def test_after_a_partial_fit_on_shifted_rows_these_are_normal(on_a_line):
    detector, shift = copy.deepcopy(on_a_line), [3.0, -1.0]
    new = line(500, seed=3) + shift
    assert np.mean(detector.predict(new) == -1) > 0.95
    steps = detector.n_iter_
    detector.partial_fit(line(1000, seed=2) + shift)
    assert detector.n_iter_ == 2 * steps
    assert len(detector.history_["step"]) == 2 * len(on_a_line.history_["step"])
    assert abs(np.mean(detector.predict(new) == -1) - 0.05) < 3 * sampling_error(0.05, 200, 500)
    assert on_a_line.n_iter_ == steps
    assert np.mean(on_a_line.predict(new) == -1) > 0.95


@pytest.mark.parametrize("n_folds", [1, 3])
def test_the_oldest_neighbours_and_held_out_scores_leave(n_folds):
    detector = tiny(method=Combined((OneStep(), Neighbors(max_reference=50))), n_folds=n_folds).fit(line(150))
    scores = detector.calibration_.scores
    detector.partial_fit(line(30, seed=1) + 1000.0)
    n_new = 6 if n_folds == 1 else 30
    assert len(detector.calibration_.scores) == len(scores)
    np.testing.assert_array_equal(detector.calibration_.scores[n_new:], scores[:-n_new])
    for member in detector.fitted_.members:
        assert len(member.state["1.codes"]) == 50
        assert int((member.state["1.codes"] > 100).all(1).sum()) == (24 if n_folds == 1 else 20)


def test_fit_with_warm_start_goes_on_as_partial_fit_does():
    X, new = line(60), line(60, seed=1)
    on = tiny(n_folds=2).fit(X).partial_fit(new)
    warm = tiny(n_folds=2, warm_start=True).fit(X).fit(new)
    assert_same_detector(on, warm, X)
    assert on.n_iter_ == 6
    assert not np.array_equal(on.score_samples(X), tiny(n_folds=2).fit(new).score_samples(X))
    assert_same_detector(tiny(n_folds=2).fit(X).fit(new), tiny(n_folds=2).fit(new), X)


@pytest.mark.parametrize(
    ("first", "second", "was"), [("auto", 0.1, "it was 'auto'"), (0.1, "auto", "it was not 'auto'")]
)
def test_training_does_not_go_on_with_another_kind_of_threshold(first, second, was):
    detector = tiny(contamination=first).fit(line(60)).set_params(contamination=second)
    before = detector.score_samples(line(5))
    with pytest.raises(ValueError, match=f"contamination is {second!r}, .* {was}"):
        detector.partial_fit(line(60))
    np.testing.assert_array_equal(detector.score_samples(line(5)), before)


def test_the_share_that_is_flagged_goes_by_weight():
    X, weight = line(60), np.linspace(0.5, 2.5, 60)
    detector = tiny(contamination=0.2).fit(X, sample_weight=weight)
    flagged = detector.predict(X) == -1
    assert 0.2 - weight.max() / weight.sum() <= weight[flagged].sum() / weight.sum() <= 0.2


# -- signals, images, fields ------------------------------------------------------------------------------------------

GRID = {
    **TINY,
    "network": UNet(width=8, multipliers=(1, 2), context_width=16, attention_levels=0),
    "max_iter": 2,
    "n_folds": 1,
}
SHAPES = pytest.mark.parametrize("shape", [(2, 24), (1, 8, 8), (1, 4, 4, 4)], ids=["signal", "image", "field"])


@SHAPES
@pytest.mark.parametrize(
    "score", ["combined", "one_step", "latent", Likelihood(n_probes=2), "neighbors", "reconstruction"], ids=str
)
def test_grids_are_fitted_scored_and_explained(shape, score, rng):
    X = rng.normal(size=(15, *shape))
    detector = FlowAnomalyDetector(**{**GRID, "method": score}).fit(X)
    assert detector.sample_shape_ == shape
    assert detector.n_features_in_ == shape[0]
    scores, found = detector.score_samples(X), detector.explain(X)
    assert found.shape == X.shape
    np.testing.assert_allclose(found.reshape(15, -1).sum(axis=1), -scores)
    assert np.isfinite(scores).all()
    assert set(detector.predict(np.concatenate([X[:5], 100 * X[:5]]))[5:]) == {-1}
    np.testing.assert_allclose(detector.explain(torch.as_tensor(X[:2])).numpy(), found[:2], rtol=1e-6, atol=1e-9)
    wrong = X[..., :-1]
    with pytest.raises(ValueError, match=r"samples of shape \(.*\), but FlowAnomalyDetector was fitted to \("):
        detector.score_samples(wrong)


def test_a_spike_in_a_signal_is_found_and_its_instant_blamed(rng):
    def waves(n):
        phase = rng.uniform(0, 2 * np.pi, size=(n, 1, 1))
        return np.sin(np.arange(32) / 3 + phase) + 0.05 * rng.normal(size=(n, 1, 32))

    detector = FlowAnomalyDetector(**{**GRID, "max_iter": 60, "batch_size": 64}).fit(waves(300))
    assert len(detector.flows_) == 1
    normal, spiked = waves(40), waves(40)
    instants = rng.integers(2, 30, 40)
    spiked[np.arange(40), 0, instants] += 1.5
    assert auroc(-detector.score_samples(normal), -detector.score_samples(spiked)) > 0.95
    blamed = detector.explain(spiked)[:, 0].argmax(axis=1)
    assert np.mean(np.abs(blamed - instants) <= 1) > 0.9


def test_layouts_that_look_wrong_are_refused(rng):
    with pytest.raises(ValueError, match="looks like channels last"):
        FlowAnomalyDetector(method="one_step", max_iter=2, device="cpu").fit(rng.normal(size=(9, 32, 32, 3)))


# -- containers -------------------------------------------------------------------------------------------------------


def test_bars_say_which_of_the_flows_is_trained(capsys):
    tiny(n_folds=3, verbose=1).fit(line(60))
    shown = capsys.readouterr().err
    assert [f"flow {k} of 3: " in shown for k in (1, 2, 3, 4)] == [True, True, True, False]


def test_callbacks_are_shown_the_flow_that_is_trained():
    seen = []

    class Watching:
        def on_fit_task_end(self, estimator, context):
            seen.append((type(estimator).__name__, context.task_id, estimator.sample(1, random_state=0).shape))

    tiny(n_folds=2, training=TrainingOptions(callbacks=(Watching(),))).fit(line(60))
    assert seen == 2 * [("FlowMatchingGenerator", step, (1, 2)) for step in (1, 2, 3)]


@EVERY_SCORE
def test_contributions_come_in_what_the_rows_came_in_and_add_up(score, every):
    X = frame().set_index(pd.Index(range(100, 160), name="part")).head(7)
    found = every[score].explain(X)
    assert list(found.columns) == list(X.columns)
    pd.testing.assert_index_equal(found.index, X.index)
    np.testing.assert_allclose(found.sum(axis=1), -every[score].score_samples(X), rtol=1e-9, atol=1e-9)


def test_tensors_get_tensors_and_lists_get_arrays(on_a_line):
    rows = [[0.5, 0.6], [1.0, -1.0]]
    expected = on_a_line.explain(rows)
    assert isinstance(expected, np.ndarray)
    found = on_a_line.explain(torch.tensor(rows, dtype=torch.float64))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert isinstance(on_a_line.explain(torch.tensor(rows)), torch.Tensor)
    assert isinstance(on_a_line.score_samples(torch.tensor(rows)), np.ndarray)


# -- which score ------------------------------------------------------------------------------------------------------


def test_score_is_the_mean_of_score_samples(on_a_line):
    X = line(20, seed=1)
    assert on_a_line.score(X) == pytest.approx(on_a_line.score_samples(X).mean())
    assert on_a_line.score(X, np.zeros(20)) == on_a_line.score(X)
    with pytest.raises(NotFittedError):
        FlowAnomalyDetector().score(X)


def test_the_parameter_method_is_a_plain_value(on_a_line):
    assert isinstance(on_a_line.method, str)
    assert json.loads(json.dumps(on_a_line.method)) == "combined"
    assert "score" not in on_a_line.get_params()
    assert "method='one_step'" in repr(FlowAnomalyDetector(method="one_step"))


def test_the_parameters_of_scores_are_set_by_name():
    detector = FlowAnomalyDetector(method="neighbors").set_params(method__n_neighbors=3)
    assert detector.method == Neighbors(n_neighbors=3)
    assert detector.get_params()["method__n_neighbors"] == 3
    copied = clone(detector.set_params(method__locality=0.0))
    assert copied.get_params()["method"] == Neighbors(n_neighbors=3, locality=0.0)
    assert copied.get_params()["method"] is not detector.get_params()["method"]
    assert clone(FlowAnomalyDetector(method="latent")).method == "latent"
    with pytest.raises(ValueError, match="n_neighbours"):
        detector.set_params(method__n_neighbours=3)


OLD_NAME = r"^FlowAnomalyDetector's `score` is called `method` now"


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda: FlowAnomalyDetector(score="latent"), "latent"),
        (lambda: FlowAnomalyDetector().set_params(score="one_step"), "one_step"),
        (lambda: FlowAnomalyDetector(method="neighbors").set_params(score__n_neighbors=3), Neighbors(n_neighbors=3)),
    ],
    ids=["constructor", "set_params", "nested"],
)
def test_the_old_name_of_the_parameter_still_works_with_a_warning(use, expected):
    with pytest.warns(FutureWarning, match=OLD_NAME) as caught:
        detector = use()
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert detector.method == clone(detector).method == expected
        assert list(detector.get_params(deep=False)) == list(FlowAnomalyDetector().get_params(deep=False))
        assert repr(detector) == f"FlowAnomalyDetector(method={expected!r})"
    assert callable(detector.score)


def test_no_other_unknown_keyword_is_taken():
    with pytest.raises(TypeError, match="unexpected keyword argument 'scores'"):
        FlowAnomalyDetector(scores="latent")
    with pytest.raises(TypeError, match="old name of `method`"):
        FlowAnomalyDetector(method="latent", score="one_step")
    with pytest.raises(ValueError, match="Invalid parameter 'scores'"):
        FlowAnomalyDetector().set_params(scores="latent")


def test_searches_go_over_the_old_name_too():
    search = GridSearchCV(tiny(), {"score": ["one_step", "latent"]}, cv=2, error_score="raise")
    with pytest.warns(FutureWarning, match=OLD_NAME):
        search.fit(line(60))
    assert search.best_estimator_.method == search.best_params_["score"]


def test_parameters_set_after_a_fit_do_not_reach_what_was_fitted(path):
    X = line(60)
    detector = tiny(method=Neighbors(n_neighbors=3)).fit(X)
    scores = detector.score_samples(X)
    detector.set_params(method__n_neighbors=20, n_steps=7, solver="euler", contamination=0.3)
    np.testing.assert_array_equal(detector.score_samples(X), scores)
    detector.save(path)
    for other in (flowmatch.load(path, device="cpu"), pickle.loads(pickle.dumps(detector))):
        np.testing.assert_array_equal(other.score_samples(X), scores)
        assert other.get_params()["method"] == Neighbors(n_neighbors=20)
        with pytest.raises(ValueError, match="method was Neighbors"):
            other.set_params(contamination="auto").partial_fit(X)


def test_grid_search_goes_over_methods_and_their_parameters():
    search = GridSearchCV(tiny(), {"method": ["one_step", Neighbors()]}, cv=2, error_score="raise").fit(line(60))
    assert search.best_params_["method"] in ("one_step", Neighbors())
    nested = GridSearchCV(tiny(method="neighbors"), {"method__n_neighbors": [1, 5]}, cv=2, error_score="raise").fit(
        line(60)
    )
    assert nested.best_estimator_.method == Neighbors(n_neighbors=nested.best_params_["method__n_neighbors"])
    assert np.isfinite(nested.cv_results_["mean_test_score"]).all()


def test_scores_that_integrate_take_five_steps_unless_told_otherwise():
    X = line(60)
    scores = {n_steps: tiny(method="latent", n_steps=n_steps).fit(X).score_samples(X) for n_steps in (None, 5, 2)}
    np.testing.assert_array_equal(scores[None], scores[5])
    assert not np.array_equal(scores[None], scores[2])


def test_solvers_that_choose_their_steps_take_none():
    pytest.importorskip("torchdiffeq")
    X = line(60)
    adaptive = tiny(method="latent", solver="dopri5", n_steps=None).fit(X)
    fine = tiny(method="latent", solver="rk4", n_steps=50).fit(X)
    np.testing.assert_allclose(adaptive.score_samples(X), fine.score_samples(X), rtol=5e-3)


# -- bad input --------------------------------------------------------------------------------------------------------

N = 60
X60 = line(N)
LABELS = np.repeat(["a", "b"], N // 2)


def with_infinity():
    X = X60.copy()
    X[3, 1] = np.inf
    return X


BAD_PARAMETERS = [
    *[("contamination", value, r"contamination must be a number in \(0, 0.5\]") for value in (0, 0.6, -0.1, np.nan, None, True)],
    ("contamination", "some", r"contamination must be 'auto' or a number in \(0, 0.5\], got 'some'"),
    *[("false_alarm_rate", value, r"false_alarm_rate must be a number in \(0, 1\)") for value in (0, 1, -0.1, np.nan, "auto")],
    *[("n_folds", value, "n_folds must be an integer >= 1") for value in (0, -1, 2.5, None, "some")],
    ("n_folds", 61, "X has 60 rows with a positive weight: too few for 61 folds"),
    *[("trim", value, r"trim must be a number in \[0, 0.5\]") for value in (-0.1, 0.6, "auto", None)],
    ("method", "isolation", "unknown method 'isolation'. Choose one of 'combined', 'one_step', .*'reconstruction', or pass a Score"),
    ("method", 3, "unknown method 3"),
    ("method", OneStep, "unknown method <class"),
    ("method", Neighbors(n_neighbors=0), "n_neighbors must be an integer >= 1, got 0"),
    ("method", Combined(weights=(1.0,)), "weights"),
    ("max_iter", 0, "max_iter must be an integer >= 1"),
    ("network", "cnn", "unknown network 'cnn'"),
    ("preprocessing", "scale", "unknown preprocessing 'scale'"),
    ("time_sampler", "often", "unknown time_sampler 'often'"),
    ("solver", "simpson", "unknown solver 'simpson'"),
    ("solver", "dopri5", "n_steps=2 has no effect with solver='dopri5', which chooses its steps while it runs"),
    ("n_steps", 0, "n_steps must be an integer >= 1"),
    ("random_state", -1, "random_state"),
    ("device", "meta", "device 'meta' is not available"),
    ("categorical_features", ["a"], "categorical_features holds 'a', but X has columns 0 to 1, without names"),
]  # fmt: skip
BAD_DATA = {
    "infinity": ((with_infinity(),), r"X contains infinity: position \(3, 1\)"),
    "nan_in_grids": ((np.full((9, 2, 8), np.nan),), r"X contains NaN: position \(0, 0, 0\)"),
    "one_row": ((X60[:1],), r"1 sample\(s\).*minimum of 2"),
    "two_rows": ((X60[:2],), "X has 2 rows with a positive weight: too few for 3 folds.*a float contamination"),
    "few_weights": ((X60, None, np.arange(N) < 2), "X has 2 rows with a positive weight"),
    "amounts": ((X60, X60[:, 0]), "y must hold the classes of normal rows.*amounts"),
    "several_columns": ((X60, X60), "y must hold the classes of normal rows"),
    "missing_labels": ((X60, np.array(["a", None] * (N // 2), dtype=object)), "Input y contains NaN or None"),
    "single_rows": ((X60, [f"{i}" for i in range(N)]), "every class in y has a single row"),
    "other_length": ((X60, LABELS[:-1]), "y has 59 rows, but X has 60"),
    "weights_of_other_length": ((X60, None, np.ones(3)), "sample_weight has 3 rows, but X has 60"),
    "negative_weights": ((X60, None, -np.ones(N)), "sample_weight must hold finite numbers >= 0"),
    "no_weights": ((X60, None, np.zeros(N)), "sample_weight is zero for every row"),
    "numbers as text": (
        (np.array([[f"{i / 7:.3f}", "x"] for i in range(101)]),),
        "column 0 of X holds numbers as text",
    ),
    "mixed_types": ((np.array([[1, "x"]] + [["y", "x"]] * N, dtype=object),), "column 0 of X"),
}


@pytest.fixture
def refuses(monkeypatch):
    """Check that a call is refused before any training, and leaves the detector as it was."""

    def refuse_training(*_, **__):
        raise AssertionError("training started")

    def check(detector, call, message, error=ValueError):
        before, scores = dict(vars(detector)), detector.score_samples(X60)
        with monkeypatch.context() as patched:
            patched.setattr("flowmatch.training.train", refuse_training)
            with pytest.raises(error, match=message):
                call(detector)
        assert vars(detector).keys() == before.keys()
        assert all(vars(detector)[name] is value for name, value in before.items())
        np.testing.assert_array_equal(detector.score_samples(X60), scores)

    return check


@pytest.fixture(scope="module")
def plain():
    return tiny().fit(X60)


@pytest.fixture(scope="module")
def labelled():
    return tiny().fit(X60, LABELS)


@pytest.mark.parametrize(("name", "value", "message"), BAD_PARAMETERS, ids=lambda value: str(value)[:30])
def test_bad_parameters_are_named_and_harm_nothing(name, value, message, plain, refuses):
    detector = copy.copy(plain)
    vars(detector)[name] = value
    refuses(detector, lambda detector: detector.fit(X60), message)


@pytest.mark.parametrize("what", BAD_DATA)
def test_bad_data_are_named_and_harm_nothing(what, plain, refuses):
    arguments, message = BAD_DATA[what]
    refuses(plain, lambda detector: detector.fit(*arguments), message)


@pytest.mark.parametrize(
    "method", ["score_samples", "decision_function", "predict", "p_values", "explain", "partial_fit"]
)
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (with_infinity(), r"X contains infinity: position \(3, 1\)"),
        (X60[:, :1], "X has 1 features, but FlowAnomalyDetector is expecting 2 features"),
        (X60[:, :, None], "X has samples of shape|expecting 2 features"),
        (X60[0], "Expected 2D array, got 1D array"),
        (X60[:0], r"0 sample\(s\)"),
    ],
    ids=["infinity", "fewer_columns", "grids", "one_dimension", "empty"],
)
def test_rows_unlike_those_of_fit_are_refused_by_every_method(method, X, message, plain, refuses):
    refuses(plain, lambda detector: getattr(detector, method)(X), message)


@pytest.mark.parametrize(
    ("y", "message"),
    [(None, "fitted with the classes y of normal rows; pass them here too"), (np.repeat(["a", "c"], 30), "'?c'?.*not there in training")],
)  # fmt: skip
def test_going_on_needs_the_classes_of_the_first_fit(y, message, labelled, refuses):
    refuses(labelled, lambda detector: detector.partial_fit(X60, y), message)


def test_going_on_needs_the_parts_of_the_first_fit(plain, labelled, refuses):
    refuses(plain, lambda detector: detector.partial_fit(X60, LABELS), "fitted without classes")
    for name, value in (
        ("method", "combined"),
        ("method", OneStep((0.5,))),
        ("network", MLP(width=9)),
        ("path", "cosine"),
    ):
        detector = copy.copy(plain)
        vars(detector)[name] = value
        refuses(
            detector, lambda detector: detector.partial_fit(X60), f"{name} was .* in the fit that this one goes on from"
        )
    plain_again = copy.copy(plain)
    plain_again.method = OneStep()
    plain_again.partial_fit(X60)
    assert plain_again.n_iter_ == 6
    assert plain.n_iter_ == 3


@pytest.mark.parametrize("method", ["score_samples", "decision_function", "predict", "p_values", "explain", "save"])
def test_nothing_is_scored_before_fit(method):
    with pytest.raises(NotFittedError):
        getattr(FlowAnomalyDetector(), method)(X60)
    assert not hasattr(FlowAnomalyDetector(), "network_")


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_training_that_diverges_leaves_the_detector_as_it_was(method, labelled):
    detector = copy.copy(labelled)
    detector.learning_rate = 1e30
    before = dict(vars(detector))
    with pytest.raises(NonFiniteTrainingError, match="learning_rate.* The detector is left as it was"):
        getattr(detector, method)(X60, LABELS)
    assert vars(detector) == before
    np.testing.assert_array_equal(detector.predict(X60), labelled.predict(X60))
    fresh = tiny(learning_rate=1e30)
    with pytest.raises(NonFiniteTrainingError):
        fresh.fit(X60)
    with pytest.raises(NotFittedError):
        fresh.predict(X60)


class Impatient:
    def on_fit_task_end(self, estimator, context):
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_an_interrupted_training_leaves_the_detector_as_it_was(method, labelled):
    interrupting = TrainingOptions(callbacks=(Impatient(),))
    detector = copy.copy(labelled).set_params(training=interrupting)
    before = dict(vars(detector))
    with pytest.raises(KeyboardInterrupt):
        getattr(detector, method)(X60, LABELS)
    assert vars(detector) == before
    fresh = tiny(training=interrupting)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(X60)
    assert not hasattr(fresh, "fitted_")


# -- pickles and files ------------------------------------------------------------------------------------------------


def assert_works_alike(one, other, X):
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    np.testing.assert_array_equal(np.asarray(one.explain(X)), np.asarray(other.explain(X)))
    np.testing.assert_array_equal(one.sample_shape_, other.sample_shape_)
    assert (one.n_features_in_, one.n_iter_, one.n_parameters_) == (
        other.n_features_in_,
        other.n_iter_,
        other.n_parameters_,
    )
    assert repr(one.get_params()) == repr(other.get_params())
    if one.calibration_ is None:
        assert other.calibration_ is None
    else:
        np.testing.assert_array_equal(one.p_values(X), other.p_values(X))


def round_trip(detector, path, **options):
    detector.save(path)
    return flowmatch.load(path, device="cpu", **options)


@EVERY_SCORE
def test_every_score_comes_back_from_a_file_and_a_pickle(score, every, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = round_trip(every[score], path)
    assert isinstance(loaded, FlowAnomalyDetector)
    assert_works_alike(loaded, every[score], frame())
    np.testing.assert_array_equal(loaded.feature_names_in_, ["size", "flag", "fixed", "more"])
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first
    assert_works_alike(pickle.loads(pickle.dumps(every[score])), every[score], frame())


@pytest.mark.parametrize(
    ("parameters", "y"),
    [
        ({"contamination": 0.2, "method": "combined"}, None),
        ({"method": "combined", "trim": 0.1}, LABELS),
        ({"method": "latent"}, np.arange(N) % 3),
        ({"method": "one_step"}, np.arange(N) % 2 == 0),
        ({"method": Combined((OneStep((0.5, 1.0)), Neighbors(space="latent", n_steps=1)), weights=(2.0, 1))}, None),
        ({"method": Reconstruction(size=1, n_samples=2), "path": "cosine", "source": "matched"}, None),
        ({"method": Likelihood(n_probes=3), "preprocessing": "quantile", "solver": "rk4"}, None),
    ],
    ids=["contamination", "text_labels", "numbers_as_labels", "true_and_false", "combined", "reconstruction", "likelihood"],
)  # fmt: skip
def test_other_detectors_come_back_from_files_and_go_on_alike(parameters, y, path):
    detector = tiny(**parameters).fit(X60, y)
    loaded = round_trip(detector, path)
    assert_works_alike(loaded, detector, X60)
    if y is not None:
        np.testing.assert_array_equal(loaded.classes_, detector.classes_)
        assert loaded.classes_.dtype.kind == detector.classes_.dtype.kind
    assert_works_alike(loaded.partial_fit(X60, y), detector.partial_fit(X60, y), X60)


def test_detectors_of_signals_come_back_from_files(path, rng):
    X = rng.normal(size=(15, 2, 16))
    for score in ("combined", "reconstruction"):
        detector = FlowAnomalyDetector(**{**GRID, "method": score}).fit(X)
        assert_works_alike(round_trip(detector, path), detector, X)


def factory(sample_shape, condition_size, flow_map):
    return MLP(width=8, depth=1)(sample_shape, condition_size, flow_map)


@pytest.mark.parametrize("score", ["one_step", "reconstruction"])
def test_a_network_factory_is_asked_for(score, path):
    detector = tiny(network=factory, method=score).fit(X60)
    with pytest.warns(UserWarning, match=r"network=.*cannot be written to a file: pass it to load"):
        detector.save(path)
    with pytest.raises(ValueError, match=r"network factory.*load\(path, network=factory\)"):
        flowmatch.load(path)
    loaded = flowmatch.load(path, device="cpu", network=factory)
    assert_works_alike(loaded, detector, X60)


@dataclass(frozen=True)
class Mine(OneStep):
    """A user's own score."""

    factor: float = 2.0

    def contributions(self, field, state, codes, condition):
        return self.factor * super().contributions(field, state, codes, condition)


def test_a_users_own_score_works_and_comes_back_from_files_and_pickles(path, plain):
    for score in (Mine(), Combined((Mine(), Neighbors()))):
        detector = tiny(method=score).fit(X60)
        assert_works_alike(pickle.loads(pickle.dumps(detector)), detector, X60)
        assert_works_alike(round_trip(detector, path), detector, X60)
    detector = tiny(method=Mine()).fit(X60)
    np.testing.assert_allclose(detector.score_samples(X60), 2 * plain.score_samples(X60))
    assert clone(detector).set_params(method__factor=3.0).method == Mine(factor=3.0)


class Own(FlowAnomalyDetector):
    """A user's own detector."""


def test_a_subclass_comes_back_as_itself(path):
    detector = Own(**TINY, method="one_step", n_folds=1).fit(X60)
    loaded = round_trip(detector, path)
    assert type(loaded) is Own
    assert_works_alike(loaded, detector, X60)


FITTED, MEMBER = ("fitted", "fields"), ("fitted", "fields", "members", 0, "fields")
ODD = torch.ones(3, dtype=torch.float64)


def twice(header, tensors):
    """Two flows, of which the other one has another score."""
    members = header["fitted"]["fields"]["members"]
    members.append({**members[0], "fields": {**members[0]["fields"], "score": {"class": "Latent", "fields": {}}}})


DAMAGES = {
    "no_members": (without(*FITTED, "members"), "its members is missing"),
    "empty_members": (setting([], *FITTED, "members"), "its members does not fit"),
    "members_type": (setting(3, *FITTED, "members"), "its members does not fit"),
    "members_class": (setting([None], *FITTED, "members"), "its members does not fit"),
    "two_scores": (twice, "its score does not fit"),
    "fitted_class": (setting({"class": "VelocityField", "fields": {}}, "fitted"), "its fitted does not fit"),
    "no_offset": (without(*FITTED, "offset"), "its offset is missing"),
    "offset_type": (setting([1.0], *FITTED, "offset"), "its offset does not fit"),
    "offset_nan": (setting(float("nan"), *FITTED, "offset"), "its offset does not fit"),
    "offset_text": (setting("low", *FITTED, "offset"), "its offset does not fit"),
    "no_scores": (without(*FITTED, "calibration", "fields", "scores"), "its scores is missing"),
    "short_scores": (tensor("fitted.calibration.scores", ODD), "its weights does not fit"),
    "scores_dtype": (tensor("fitted.calibration.scores", torch.ones(12)), "its scores does not fit"),
    "scores_nan": (tensor("fitted.calibration.scores", torch.full((12,), torch.nan, dtype=torch.float64)), "its scores does not fit"),
    "weights": (tensor("fitted.calibration.weights", -torch.ones(12, dtype=torch.float64)), "its weights does not fit"),
    "no_score_tensor": (tensor("fitted.calibration.scores", None), "'fitted.calibration.scores' is missing"),
    "no_classes": (setting(None, *FITTED, "classes"), "its classes does not fit"),
    "other_classes": (setting(["a"], *FITTED, "classes", "texts"), "its classes does not fit"),
    "surprise": (setting("many", *MEMBER, "surprise"), "its surprise does not fit"),
    "no_gaps": (setting(None, *MEMBER, "gaps"), "its gaps does not fit"),
    "gaps_of_other_rows": (tensor("fitted.members.0.gaps.reference", torch.ones(48, 7)), "its gaps does not fit"),
    "gaps_without_a_number": (tensor("fitted.members.0.gaps.reference", torch.full((48, 2), torch.nan)), "its reference does not fit"),
    "typical_of_other_rows": (tensor("fitted.members.0.typical", ODD), "its typical does not fit"),
    "unknown_score": (setting("Isolation", *MEMBER, "score", "class"), "unknown component 'Isolation'"),
    "no_score": (setting("MLP", *MEMBER, "score", "class"), "its .* does not fit"),
    "score_of_another_kind": (setting({"class": "Reconstruction", "fields": {}}, *MEMBER, "score"), "what its score keeps"),
    "score_out_of_range": (setting({"class": "Neighbors", "fields": {"n_neighbors": 0}}, *MEMBER, "score"), "n_neighbors must be"),
    "score_name": (setting("isolation", "parameters", "method"), "unknown method 'isolation'"),
    "contamination": (setting(0.9, "parameters", "contamination"), "contamination must be"),
    "no_weight": (tensor("fitted.members.0.flow.model.weights.head.weight", None), "head.weight"),
    "no_codes": (tensor("fitted.members.0.state.1.codes", None), "'fitted.members.0.state.1.codes' is missing"),
    "no_entry": (without(*MEMBER, "state", "dict", "1.codes"), "KeyError: 'codes'"),
    "codes_of_other_rows": (tensor("fitted.members.0.state.1.codes", torch.ones(48, 7)), "its codes does not fit"),
    "codes_without_a_number": (tensor("fitted.members.0.state.1.codes", torch.full((48, 2), torch.nan)), "1.codes does not fit"),
    "unit": (without(*MEMBER, "state", "dict", "typical"), "KeyError: 'typical'"),
    "other_class": (setting("FlowMatchingGenerator", "estimator"), "unexpected keyword argument 'contamination'"),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a detector with everything in it."""
    path = tmp_path_factory.mktemp("saved") / "detector.safetensors"
    tiny(method="combined").fit(X60, LABELS).save(path)
    return path.read_bytes()


def test_files_of_format_3_keep_the_names_of_columns(path):
    written = FOLDER / "format_3" / "detector_combined.safetensors"
    nameless = flowmatch.load(written, device="cpu")
    path.write_bytes(written.read_bytes())
    tamper(path, setting(["a", "b", "c"], "fitted", "feature_names_in_"))
    named, X = flowmatch.load(path, device="cpu"), pd.DataFrame(np.eye(3), columns=["a", "b", "c"])
    assert named.feature_names_in_.tolist() == ["a", "b", "c"]
    assert not hasattr(nameless, "feature_names_in_")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(named.score_samples(X), nameless.score_samples(X.to_numpy()))
    with pytest.raises(ValueError, match="feature names"):
        named.predict(X[["b", "a", "c"]])


def test_a_file_rewritten_without_a_change_still_loads(saved, path):
    path.write_bytes(saved)
    tamper(path, lambda header, tensors: None)
    assert list(flowmatch.load(path, device="cpu").classes_) == ["a", "b"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(saved, path, damage):
    change, message = DAMAGES[damage]
    path.write_bytes(saved)
    tamper(path, change)
    with pytest.raises(ValueError, match=message):
        flowmatch.load(path)


@pytest.mark.parametrize("seed", range(60))
def test_a_file_changed_at_random_is_refused_or_gives_a_detector_that_works(saved, path, seed):
    path.write_bytes(fuzzed(saved, np.random.RandomState(seed)))
    try:
        loaded = flowmatch.load(path, device="cpu")
    except ValueError:
        return
    assert loaded.score_samples(X60).shape == loaded.predict(X60).shape == (N,)
    assert loaded.explain(X60).shape == X60.shape


def test_a_truncated_file_is_refused(saved, path):
    path.write_bytes(saved[: len(saved) // 2])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        flowmatch.load(path)
