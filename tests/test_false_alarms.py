"""What detectors promise of false alarms: rates in tables of few values, bounds, other rates after a fit, reports."""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest
from sklearn.base import clone

import flowmatch
from flowmatch import DistilledFlowMap, FlowAnomalyDetector, FlowMatchingGenerator
from flowmatch.anomaly import Calibration, Score
from flowmatch.networks import MLP
from flowmatch.preprocessing import SampleRows
from flowmatch.training import TrainingOptions

TINY = {
    "network": MLP(width=8, depth=1),
    "max_iter": 5,
    "batch_size": 64,
    "n_steps": 2,
    "device": "cpu",
    "random_state": 0,
}

pytestmark = pytest.mark.filterwarnings("ignore:.* held-out rows cannot promise:UserWarning")


def tiny(**parameters):
    return FlowAnomalyDetector(**{**TINY, **parameters})


def line(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return np.column_stack([x, x + 0.1 * rng.normal(size=n)])


def cells(n, rng, n_columns=3, n_levels=4, scale=1.0):
    """Rows of a table of 64 cells, all as likely."""
    return scale * (rng.integers(0, 64, n)[:, None] // n_levels ** np.arange(n_columns) % n_levels)


@pytest.fixture(scope="module")
def fitted():
    return tiny(method="one_step", n_folds=1).fit(line(500))


@pytest.fixture(scope="module")
def contaminated():
    return tiny(method="one_step", contamination=0.1).fit(line(60))


# -- tables of few values ---------------------------------------------------------------------------------------------


def assert_rates_are_those_promised(n, n_fits, **table):
    levels = np.array([0.05, 0.1, 0.5])
    shares = []
    for seed in range(n_fits):
        rng = np.random.default_rng([n, seed])
        detector, new = tiny(random_state=seed).fit(cells(n, rng, **table)), cells(1000, rng, **table)
        shares.append([np.mean(detector.set_params(false_alarm_rate=level).predict(new) == -1) for level in levels])
    mean, error = np.mean(shares, axis=0), np.std(shares, axis=0) / n_fits**0.5
    assert (mean <= levels + 3 * error).all(), mean
    assert (mean >= levels - 1 / 64 - 3 * error).all(), mean


@pytest.mark.parametrize("n", [100, pytest.param(300, marks=pytest.mark.slow)])
def test_tables_of_few_values_keep_the_rate_but_for_one_cell(n):
    assert_rates_are_those_promised(n, 20)


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 128, 256, 300, 320, 512, 1000])
@pytest.mark.parametrize(
    "table", [{}, {"n_columns": 6, "n_levels": 2}, {"scale": 0.3}], ids=["3x4", "6x2", "no_integers"]
)
def test_tables_of_few_values_keep_the_rate_however_many_copies_a_row_has(n, table):
    assert_rates_are_those_promised(n, 30, **table)


def n_held_out(X, **parameters):
    return len(tiny(method="one_step", max_iter=1, **parameters).fit(X).calibration_.scores)


def test_folds_are_for_rows_that_others_do_not_repeat(rng):
    assert n_held_out(cells(100, rng)) == 39
    assert n_held_out(cells(300, rng)) == 99
    assert n_held_out(cells(1000, rng)) == 200
    assert n_held_out(cells(30, rng)) == 30  # too few to hold some out
    assert n_held_out(line(100)) == 100
    once = np.vstack([line(99), line(99)[:1]])  # a record that was entered twice is not a table of levels
    assert n_held_out(once) == 99
    assert n_held_out(np.round(line(99), 2)) == 99


@pytest.mark.parametrize("n_folds", [1, 3])
@pytest.mark.parametrize("copies", [2, 8])
def test_copies_of_an_observation_count_once_however_many_there_are(n_folds, copies):
    X = line(60)
    once = tiny(method="one_step", n_folds=n_folds).fit(X)
    repeated = tiny(method="one_step", n_folds=n_folds).fit(np.repeat(X, copies, axis=0))
    weighted = tiny(method="one_step", n_folds=n_folds).fit(X, sample_weight=np.r_[np.full(59, copies), 1])
    for other in (repeated, weighted):
        assert len(other.calibration_.scores) == len(once.calibration_.scores)
    assert (repeated.calibration_.weights == 1).all()
    one_of_weight_1 = np.ptp(weighted.calibration_.weights) > 0
    assert one_of_weight_1 == (n_folds == 3)  # with one split it stayed in training
    assert repeated.false_alarm_bound() == once.false_alarm_bound()


def test_a_value_that_most_rows_have_is_no_observation(rng):
    """Half of the rows are 0 and the others lie anywhere: the zeros are on both sides of every split."""
    X = np.where(rng.random((200, 1)) < 0.5, 0.0, rng.gamma(2.0, size=(200, 1)))
    detector = tiny(method="one_step", n_folds=5).fit(X)
    assert len(detector.calibration_.scores) == 200


# -- folds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quarrelsome(Score):
    """The norm of a row, and as much again of which each flow has a view of its own."""

    def fit(self, field, codes, condition, previous):
        own = torch.Generator().manual_seed(int(codes.sum().abs() * 1e9) % 2**31)
        return {"view": 1e3 * torch.randn(codes.shape[1], generator=own, dtype=codes.dtype)}

    def contributions(self, field, state, codes, condition):
        view = torch.special.ndtri((codes @ state["view"]).sin().arcsin() / math.pi + 0.5)
        return codes.square() + view.square()[:, None]


def test_the_rate_is_kept_where_the_flows_of_folds_differ():
    """Without regard to that it would be 3 where 5 % are promised, and 7 where 10 are."""
    levels, shares = np.array([0.05, 0.1, 0.3]), []
    for seed in range(20):
        detector = tiny(method=Quarrelsome(), n_folds=5, max_iter=1, random_state=seed).fit(line(100, seed))
        scores = -detector.score_samples(line(500, 100 + seed))
        shares.append([np.mean(scores > detector.calibration_.threshold(level)) for level in levels])
    mean, error = np.mean(shares, axis=0), np.std(shares, axis=0) / len(shares) ** 0.5
    assert (abs(mean - levels) < 3 * error).all(), (mean, error)


# -- randomized p-values ----------------------------------------------------------------------------------------------


def test_randomized_p_values_are_uniform_under_exchangeability_also_with_ties(fitted, rng):
    """Each of the rows in turn is the new one: together their p-values fill the unit interval evenly."""
    n_draws = 500
    for scores in (rng.integers(0, 4, 30).astype(float), rng.normal(size=30) - 1, np.ones(30)):
        p = []
        for i in range(len(scores)):
            one = replace(fitted.fitted_, calibration=Calibration.of(np.delete(scores, i)))
            p.append(one.p_values(np.repeat(scores[i], n_draws), random_state=i))
            plain = one.p_values(scores[i : i + 1])
            assert p[-1].max() <= plain
        assert kstest(np.concatenate(p), "uniform").statistic < 1.36 / len(p) ** 0.5 / n_draws**0.5
        counts = np.bincount((np.concatenate(p) * 10).astype(int), minlength=10)
        assert abs(counts - counts.mean()).max() < 4 * counts.mean() ** 0.5


def test_p_values_are_drawn_on_request_only_and_row_by_row(rng):
    detector, new = tiny().fit(cells(300, rng)), cells(200, rng)
    np.testing.assert_array_equal(detector.p_values(new), detector.p_values(new))
    drawn = detector.p_values(new, random_state=3)
    np.testing.assert_array_equal(drawn, detector.p_values(new, random_state=3))
    assert not np.array_equal(drawn, detector.p_values(new, random_state=4))
    assert (drawn <= detector.p_values(new)).all()
    assert len(np.unique(drawn)) == len(new)
    with pytest.raises(ValueError, match="random_state must be"):
        detector.p_values(new, random_state="x")


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "rate", "after"), [(100, 0.05, 4), (99, 0.05, 4), (1000, 0.01, 9), (10, 0.05, 0), (19, 0.5, 9)]
)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_bound_is_the_rate_at_which_so_few_rows_beyond_the_threshold_would_be_a_rare_event(
    n, rate, after, confidence, rng
):
    """Of n held-out rows `after` are beyond: fewer than that and one are as likely as 1 - confidence (Wilks, 1941)."""
    bound = Calibration.of(rng.normal(size=n)).bound(rate, confidence)
    assert binom.cdf(after, n, bound) == pytest.approx(1 - confidence)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("n", "rate"), [(100, 0.05), (50, 0.2), (10, 0.05)])
def test_of_many_calibrations_a_share_of_the_confidence_keeps_the_bound(n, rate, confidence, rng):
    calibrations = [Calibration.of(rng.uniform(size=n)) for _ in range(1000)]
    kept = np.mean([1 - one.threshold(rate) <= one.bound(rate, confidence) for one in calibrations])
    assert kept == pytest.approx(confidence, abs=4 * (confidence * (1 - confidence) / 1000) ** 0.5)


def test_ties_leave_the_bound_on_the_safe_side(rng):
    kept = []
    for _ in range(1000):
        one = Calibration.of(rng.integers(0, 8, 60).astype(float))
        kept.append((7 - one.threshold(0.2)) / 8 <= one.bound(0.2, 0.9))
    assert np.mean(kept) >= 0.9 - 3 * (0.09 / 1000) ** 0.5


def test_weights_and_folds_make_the_bound_wider(rng):
    scores = rng.normal(size=200)
    equal = Calibration.of(scores)
    assert Calibration.of(scores, np.full(200, 5.0)).bound(0.05, 0.95) == equal.bound(0.05, 0.95)
    few = Calibration.of(scores, np.where(np.arange(200) % 10 == 0, 100.0, 1.0))
    assert few.bound(0.05, 0.95) > equal.bound(0.05, 0.95) + 0.02
    assert equal.bound(0.05, 0.95, n_folds=5) > equal.bound(0.05, 0.95)
    assert equal.bound(0.05, 0.99) > equal.bound(0.05, 0.95) > equal.bound(0.02, 0.95)


def test_the_bound_of_a_detector_is_that_of_its_threshold(fitted, contaminated):
    other = clone(fitted).fit(line(500))
    assert binom.cdf(4, 100, other.false_alarm_bound()) == pytest.approx(0.05)
    assert binom.cdf(9, 100, other.set_params(false_alarm_rate=0.1).false_alarm_bound(0.8)) == pytest.approx(0.2)
    for confidence in (0, 1, "high", np.nan):
        with pytest.raises(ValueError, match="confidence must be a number in"):
            other.false_alarm_bound(confidence)
    with pytest.raises(ValueError, match="false_alarm_bound needs rows that were held out.*contamination=0.1"):
        contaminated.false_alarm_bound()


# -- another rate after a fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_folds", [1, 3])
def test_another_rate_after_a_fit_is_that_of_a_fit_with_it(n_folds, tmp_path):
    X, new = line(300), line(500, seed=1)
    moved = tiny(method="one_step", n_folds=n_folds).fit(X)
    before = moved.offset_, clone(moved)
    expected = tiny(method="one_step", n_folds=n_folds, false_alarm_rate=0.3).fit(X)
    moved.set_params(false_alarm_rate=0.3)
    moved.save(tmp_path / "detector.safetensors")
    for detector in (moved, flowmatch.load(tmp_path / "detector.safetensors", device="cpu")):
        assert detector.offset_ == expected.offset_ > before[0]
        np.testing.assert_array_equal(detector.predict(new), expected.predict(new))
        np.testing.assert_array_equal(detector.decision_function(new), expected.decision_function(new))
    assert before[1].false_alarm_rate == 0.05
    assert moved.set_params(false_alarm_rate=0.05).offset_ == before[0]


@pytest.mark.parametrize("rate", [0, 1, -0.1, "low", np.nan, None])
def test_a_rate_that_is_none_is_refused_when_it_is_used(fitted, rate):
    detector = clone(fitted).fit(line(60)).set_params(false_alarm_rate=rate)
    for use in (
        lambda: detector.offset_,
        lambda: detector.predict(line(3)),
        lambda: detector.decision_function(line(3)),
        detector.false_alarm_bound,
    ):
        with pytest.raises(ValueError, match="false_alarm_rate must be a number in"):
            use()
    assert detector.score_samples(line(3)).shape == (3,)


@pytest.mark.filterwarnings("default")
def test_a_rate_that_cannot_be_promised_is_warned_about_when_it_is_set(fitted):
    detector = clone(fitted).fit(line(500))
    with pytest.warns(UserWarning, match="100 held-out rows cannot promise a false_alarm_rate of 0.001") as caught:
        detector.set_params(false_alarm_rate=0.001)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.set_params(false_alarm_rate=0.02)
        detector.set_params(n_steps=3)


def test_the_share_of_contamination_stays(contaminated):
    offset = contaminated.offset_
    other = clone(contaminated).fit(line(60)).set_params(false_alarm_rate=0.4)
    assert other.offset_ == offset


# -- reports ----------------------------------------------------------------------------------------------------------


def by_hand(p, fdr):
    """Benjamini and Hochberg, 1995: the k smallest, k the largest with p_(k) <= fdr k / m."""
    order = np.argsort(p)
    fits = np.flatnonzero(np.sort(p) <= fdr * np.arange(1, len(p) + 1) / len(p) * (1 + 1e-12))
    chosen = np.zeros(len(p), dtype=bool)
    chosen[order[: fits[-1] + 1 if len(fits) else 0]] = True
    return chosen


def test_reports_are_those_of_benjamini_and_hochberg(fitted):
    X = np.vstack([line(20, seed=1), line(20, seed=2) * [1, -1] * np.linspace(0, 30, 20)[:, None]])
    p = fitted.p_values(X)
    for fdr in (0.2, 0.35, 0.6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = fitted.select(X, fdr)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, by_hand(p, fdr))
    assert 0 < found.sum() < len(X)


@pytest.mark.filterwarnings("ignore:the smallest p-value")
def test_of_the_reports_no_greater_share_is_false_than_was_asked_for(fitted):
    """Held-out and new scores are drawn anew, a fifth of the new ones from far away; the expected share is .8 of .2."""
    rng, false = np.random.default_rng(0), []
    for _ in range(400):
        one = replace(fitted.fitted_, calibration=Calibration.of(rng.normal(size=200)))
        scores = np.concatenate([rng.normal(size=40), 4 + rng.normal(size=10)])
        found = one.select(one.p_values(scores), 0.2)
        false.append(found[:40].sum() / max(1, found.sum()))
    error = np.std(false) / len(false) ** 0.5
    assert np.mean(false) <= 0.2 * 0.8 + 3 * error
    assert np.mean(false) >= 0.2 * 0.8 - 3 * error - 50 / 201 / 10  # of ten reports and more, by steps of p


def test_too_few_held_out_rows_to_report_one_anomaly_are_warned_about(fitted, contaminated):
    far = np.repeat([[30.0, -30.0]], 3, axis=0)
    with pytest.warns(UserWarning, match="among 40 rows less than 4 anomalies cannot be reported. Fit with") as caught:
        assert not fitted.select(np.vstack([np.zeros((37, 2)), far]), 0.1).any()
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="less than 4 anomalies"):
        assert fitted.select(np.vstack([np.zeros((36, 2)), far, far[:1]]), 0.1).sum() == 4
    with pytest.warns(UserWarning, match="among 3 rows less than 10 anomalies cannot be reported, so none can"):
        fitted.select(far, 0.003)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fitted.select(far, 0.1).all()
    for fdr in (0, 1, -0.1, "low", None):
        with pytest.raises(ValueError, match="fdr must be a number in"):
            fitted.select(far, fdr)
    with pytest.raises(ValueError, match="p_values need rows that were held out.*contamination=0.1"):
        contaminated.select(far)


# -- checkpoints and interruptions ------------------------------------------------------------------------------------


def test_checkpoints_need_a_seed(tmp_path):
    options = TrainingOptions(checkpoint_folder=tmp_path / "run", checkpoint_period=1)
    with pytest.raises(ValueError, match="checkpoints of a detector need random_state"):
        tiny(random_state=None, training=options).fit(line(60))
    assert not (tmp_path / "run").exists()
    assert tiny(training=options).fit(line(60)).n_iter_ == 5


class Impatient:
    """Presses Ctrl-C when training begins once so many flows have been trained."""

    def __init__(self, n_flows):
        self.n_left = n_flows + 1

    def setup(self, estimator, context):
        self.n_left -= 1

    def on_fit_task_end(self, estimator, context):
        if self.n_left == 0:
            raise KeyboardInterrupt


def test_an_interrupted_first_fit_keeps_the_flows_that_were_complete(tmp_path):
    X, whole = line(100), tiny(n_folds=5).fit(line(100))
    detector = tiny(n_folds=5, training=TrainingOptions(callbacks=[Impatient(2)]))
    with (
        pytest.warns(UserWarning, match="interrupted by KeyboardInterrupt.*flows that were complete, 2, and a thres"),
        pytest.raises(KeyboardInterrupt),
    ):
        detector.fit(X)
    assert len(detector.flows_) == 2
    assert len(detector.calibration_.scores) == 40
    known = np.concatenate([member.scores(SampleRows(X)) for member in whole.fitted_.members[:2]])
    assert abs(detector.calibration_.scores[:, None] - known).min(axis=1).max() < 1e-9
    assert np.mean(detector.predict(line(2000, seed=1)) == -1) < 0.05 + 3 * (0.05 / 40) ** 0.5
    detector.set_params(training=None).save(tmp_path / "detector.safetensors")
    loaded = flowmatch.load(tmp_path / "detector.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.p_values(X), detector.p_values(X))
    offset = detector.offset_
    detector.training = TrainingOptions(callbacks=[Impatient(1)])
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X)
    assert detector.offset_ == offset


@pytest.mark.parametrize("parameters", [{"n_folds": 5}, {"n_folds": 1}, {"contamination": 0.1}])
def test_an_interrupted_fit_without_a_complete_flow_keeps_nothing(parameters):
    detector = tiny(training=TrainingOptions(callbacks=[Impatient(0)]), **parameters)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(line(60))
    assert not hasattr(detector, "fitted_")


def test_an_interrupted_student_keeps_nothing_for_its_steps_are_not_those_of_its_teacher_yet():
    teacher = FlowMatchingGenerator(**{**TINY, "training": None}).fit(line(60))
    student = DistilledFlowMap(
        teacher, n_pairs=20, max_iter=5, training=TrainingOptions(callbacks=[Impatient(0)]), random_state=0
    )
    with pytest.raises(KeyboardInterrupt):
        student.fit(line(60))
    assert not hasattr(student, "fitted_")
