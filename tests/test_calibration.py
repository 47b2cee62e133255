"""Thresholds and p-values of held-out scores, against their definitions."""

import numpy as np
import pytest

from flowmatch.anomaly import Calibration
from flowmatch.anomaly.calibration import spread_of_mean

RATES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9)


def p_value(score, held, weights):
    """(1 + weight of held-out rows that score at least as high) / (1 + weight of all), by the definition."""
    return (1 + weights[held >= score].sum()) / (1 + weights.sum())


def threshold(held, weights, rate):
    """The smallest held-out score beyond which every score has a p-value of at most the rate."""
    fits = [score for score in held if p_value(np.nextafter(score, np.inf), held, weights) <= rate + 1e-12]
    return min(fits, default=max(held))


def held_out(rng, n, ties, weighted):
    held = rng.normal(size=n)
    weights = rng.uniform(0.1, 3, n) if weighted else np.ones(n)
    return np.round(held) if ties else held, weights / weights.mean()


CASES = pytest.mark.parametrize(
    ("n", "ties", "weighted"),
    [(1, False, False), (19, False, False), (100, False, True), (100, True, False), (57, True, True)],
)


@CASES
def test_p_values_follow_their_definition(rng, n, ties, weighted):
    held, weights = held_out(rng, n, ties, weighted)
    new = np.concatenate([held, rng.normal(size=50), [-np.inf, np.inf]])
    expected = [p_value(score, held, weights) for score in new]
    np.testing.assert_allclose(Calibration(held, weights).p_values(new), expected, rtol=1e-12)
    assert expected[-1] == pytest.approx(1 / (n + 1))
    assert expected[-2] == 1


@CASES
@pytest.mark.parametrize("rate", RATES)
def test_the_threshold_follows_its_definition(rng, n, ties, weighted, rate):
    held, weights = held_out(rng, n, ties, weighted)
    assert Calibration(held, weights).threshold(rate) == threshold(held, weights, rate)


@CASES
@pytest.mark.parametrize("rate", RATES)
def test_rows_beyond_the_threshold_are_those_with_a_p_value_of_at_most_the_rate(rng, n, ties, weighted, rate):
    calibration = Calibration(*held_out(rng, n, ties, weighted))
    new = np.concatenate([calibration.scores, rng.normal(size=200), [-np.inf, np.inf]])
    flagged = new > calibration.threshold(rate)
    if rate >= calibration.smallest_rate:
        assert (flagged == (calibration.p_values(new) <= rate + 1e-12)).all()
        assert flagged.any()
    else:
        assert (flagged == (new > calibration.scores.max())).all()


@pytest.mark.parametrize(
    ("n", "rate"), [(n, rate) for n in (1, 9, 10, 99, 150) for rate in RATES if rate * (n + 1) >= 1]
)
def test_each_of_exchangeable_rows_in_turn_is_flagged_at_the_rate_and_never_more_often(rng, n, rate):
    """Of n + 1 rows, each once the new one and the others held out, floor(rate (n + 1)) are flagged."""
    distinct, tied = rng.normal(size=n + 1), rng.integers(0, 5, n + 1).astype(float)

    def n_flagged(scores):
        others = [Calibration.of(np.delete(scores, i)) for i in range(n + 1)]
        return sum(score > other.threshold(rate) for score, other in zip(scores, others, strict=True))

    assert n_flagged(distinct) == np.floor(rate * (n + 1) + 1e-9)
    assert n_flagged(tied) <= rate * (n + 1) + 1e-9


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (50, 0.05), (50, 0.2)])
def test_new_uniform_scores_are_flagged_at_a_rate_just_below_the_one_asked_for(rng, n, rate):
    chances = 1 - np.array([Calibration.of(rng.uniform(size=n)).threshold(rate) for _ in range(4000)])
    error = 4 * chances.std() / len(chances) ** 0.5
    assert rate - 1 / (n + 1) - error <= chances.mean() <= rate + error
    assert chances.mean() == pytest.approx(np.floor(rate * (n + 1) + 1e-9) / (n + 1), abs=error)


@pytest.mark.parametrize("n", [1, 19, 99])
def test_the_smallest_rate_is_the_lowest_p_value_and_its_threshold_the_highest_score(rng, n):
    calibration = Calibration.of(rng.normal(size=n))
    assert calibration.smallest_rate == pytest.approx(1 / (n + 1))
    assert calibration.p_values(np.array([np.inf]))[0] == calibration.smallest_rate
    for rate in (calibration.smallest_rate, 0.5 * calibration.smallest_rate):
        assert calibration.threshold(rate) == calibration.scores.max()
    assert n == 1 or calibration.threshold(2 * calibration.smallest_rate) < calibration.scores.max()


def test_weights_are_relative_and_equal_ones_change_nothing(rng):
    held, new, weights = rng.normal(size=30), rng.normal(size=30), rng.uniform(1, 3, 30)
    plain = Calibration.of(held)
    assert (Calibration.of(held, np.full(30, 7.0)).weights == plain.weights).all()
    assert plain.weights.tolist() == [1.0] * 30
    found = [Calibration.of(held, unit * weights).p_values(new) for unit in (1, 1000)]
    np.testing.assert_allclose(*found, rtol=1e-12)
    assert not np.allclose(found[0], plain.p_values(new))


def test_a_row_of_twice_the_weight_counts_as_often_as_two_of_its_kind():
    twice = Calibration(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 1.0]))
    listed = Calibration.of(np.array([1.0, 2.0, 2.0, 3.0]))
    new = np.linspace(0, 4, 41)
    np.testing.assert_allclose(twice.p_values(new), listed.p_values(new))
    for rate in RATES:
        assert twice.threshold(rate) == listed.threshold(rate)


def test_the_order_in_which_scores_come_does_not_matter(rng):
    held, weights = held_out(rng, 40, ties=True, weighted=True)
    order, new = rng.permutation(40), rng.normal(size=30)
    given, shuffled = Calibration(held, weights), Calibration(held[order], weights[order])
    np.testing.assert_allclose(shuffled.p_values(new), given.p_values(new), rtol=1e-12)
    assert [shuffled.threshold(rate) for rate in RATES] == [given.threshold(rate) for rate in RATES]


@pytest.mark.parametrize(("n_new", "n_earlier"), [(3, 5), (5, 5), (7, 4)])
def test_the_newest_scores_are_kept_and_the_oldest_leave(n_new, n_earlier):
    new = Calibration.of(np.arange(100.0, 100 + n_new))
    earlier = Calibration.of(np.arange(float(n_earlier)))
    both = new.before(earlier)
    n_kept = max(n_new, n_earlier)
    assert both.scores.tolist() == [*new.scores, *earlier.scores[: n_kept - n_new]]
    assert both.weights.tolist() == [1.0] * n_kept
    newest = Calibration.of(np.array([-1.0])).before(both)
    assert newest.scores.tolist() == [-1.0, *both.scores[:-1]]


def test_scores_that_are_kept_keep_their_weights_relative_to_each_other(rng):
    new = Calibration.of(rng.normal(size=3), np.array([1.0, 2.0, 3.0]))
    earlier = Calibration.of(rng.normal(size=5), np.array([4.0, 1.0, 1.0, 1.0, 1.0]))
    both = new.before(earlier)
    kept = np.array([0.5, 1.0, 1.5, 2.5, 0.625])
    np.testing.assert_allclose(both.weights, kept / kept.mean())


def test_a_rate_that_is_off_by_rounding_has_the_threshold_of_the_rate_meant():
    calibration = Calibration.of(np.arange(19.0))
    assert 1 - 0.9 < 0.1
    assert calibration.threshold(1 - 0.9) == calibration.threshold(0.1) == 17.0


# -- folds ------------------------------------------------------------------------------------------------------------

DISAGREEMENT = {
    "as large as what they agree on": lambda rng, n, k: rng.normal(size=(n, 1)) + rng.normal(size=(n, k)),
    "in proportion": lambda rng, n, k: rng.chisquare(2, (n, 1)) * np.exp(0.5 * rng.normal(size=(n, k))),
    "by a scale of each": lambda rng, n, k: rng.chisquare(2, (n, 1)) * np.exp(rng.normal(size=k)),
    "of heavy tails": lambda rng, n, k: rng.standard_t(3, (n, 1)) ** 2 + rng.chisquare(1, (n, k)),
}


def by_folds(scores):
    """Held-out scores, and those of the other members in turn, of rows (n, K) in K folds side by side."""
    n, k = scores.shape
    turned = np.take_along_axis(scores, (np.arange(n)[:, None] + np.arange(k)) % k, axis=1)
    return turned[:, 0], turned[:, 1:]


@pytest.mark.parametrize("draw", DISAGREEMENT.values(), ids=DISAGREEMENT)
@pytest.mark.parametrize(("n", "k", "rate"), [(100, 5, 0.05), (200, 4, 0.1)])
def test_held_out_scores_of_single_members_promise_the_rate_of_the_mean_of_all(rng, n, k, rate, draw):
    shares = []
    for _ in range(300):
        both = draw(rng, n + 2000, k)
        corrected = spread_of_mean(*by_folds(both[:n]))
        shares.append(np.mean(both[n:].mean(axis=1) > Calibration.of(corrected).threshold(rate)))
    assert np.mean(shares) == pytest.approx(rate, rel=0.12)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_members_that_agree_leave_held_out_scores_as_they_are(rng, k):
    held, others = by_folds(np.repeat(np.round(rng.normal(size=(40, 1)), 1), k, axis=1))
    np.testing.assert_allclose(spread_of_mean(held, others), held, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(spread_of_mean(held, rng.normal(size=(30, 1))), held)  # one member tells nothing


def test_averaging_keeps_the_mean_and_draws_the_highest_scores_in(rng):
    held, others = by_folds(rng.lognormal(size=(50, 5)))
    change = spread_of_mean(held, others) - held
    assert change.mean() == pytest.approx(0)
    assert (np.cumsum(change[np.argsort(held)[::-1]])[:-1] < 0).all()
