"""Rows that stand for the training rows where a file would otherwise hold these."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from flowmatch.preprocessing.blurring import MOST_ROWS, blurred_rows

RNG = np.random.default_rng(0)


def shares_of(n):
    return np.full(n, 1 / n)


def blurred(rows, levels=None, weight=None):
    shares = shares_of(len(rows)) if weight is None else weight / weight.sum()
    return blurred_rows(rows, shares, np.zeros(rows.shape[1], bool) if levels is None else np.asarray(levels))


@pytest.mark.parametrize("d", [1, 2, 5, 20])
@pytest.mark.parametrize("n", [40, 1000])
def test_mean_and_covariance_stay(n, d):
    rows = RNG.normal(size=(n, d)) @ RNG.normal(size=(d, d)) + 3
    found, shares = blurred(rows)
    np.testing.assert_allclose(shares, 1 / n)
    scale = np.sqrt(np.linalg.eigvalsh(np.cov(rows.T).reshape(d, d)).max())
    np.testing.assert_allclose(found.mean(axis=0), rows.mean(axis=0), atol=4 * scale / np.sqrt(n))
    before, after = (np.cov(table.T).reshape(d, d) for table in (rows, found))
    np.testing.assert_allclose(after, before, atol=(0.5 if n == 40 else 0.2) * scale**2)


def test_the_distribution_of_one_column_stays():
    rows = np.concatenate([RNG.gamma(2.0, size=500), 20 + RNG.normal(size=300)])[:, None]
    found, _ = blurred(rows)
    assert ks_2samp(rows[:, 0], found[:, 0]).statistic < 0.02
    assert not ((found > rows[:500].max()) & (found < rows[500:].min())).any()  # nothing between the clusters


def test_a_curve_stays_a_curve():
    x = RNG.uniform(-2, 2, 2000)
    found, _ = blurred(np.column_stack([x, np.sin(3 * x)]))
    assert np.abs(found[:, 1] - np.sin(3 * found[:, 0])).max() < 0.01


def test_no_value_of_a_row_is_kept_but_the_extremes():
    rows = RNG.normal(size=(300, 3))
    found, _ = blurred(rows)
    assert len(np.intersect1d(found, rows)) <= 6
    assert np.abs(found[:, None] - rows).sum(axis=2).min() > 1e-4


def test_levels_frequent_values_and_decimals_stay():
    n = 600
    amount = np.where(RNG.random(n) < 0.3, 0.0, RNG.gamma(2.0, size=n))
    rows = np.column_stack([RNG.integers(3, size=n), np.round(RNG.normal(size=n), 2), amount, RNG.permutation(n)])
    found, shares = blurred(rows, [True, False, False, False])
    assert (found[:, 2] != rows[:, 2]).any()
    np.testing.assert_allclose(shares @ (found[:, :1] == [0, 1, 2]), [(rows[:, 0] == k).mean() for k in range(3)])
    np.testing.assert_array_equal(found[:, 1], np.round(found[:, 1], 2))
    np.testing.assert_array_equal(found[:, 3], np.round(found[:, 3]))
    assert (found >= rows.min(axis=0)).all()
    assert (found <= rows.max(axis=0)).all()
    assert shares[found[:, 2] == 0].sum() == pytest.approx((amount == 0).mean(), abs=0.03)


def test_columns_of_levels_alone_are_counted():
    rows = RNG.integers(3, size=(500, 2)).astype(float)
    found, shares = blurred(rows)
    known, counts = np.unique(rows, axis=0, return_counts=True)
    np.testing.assert_array_equal(found, known)
    np.testing.assert_allclose(shares, counts / 500)


@pytest.mark.parametrize("levels", [True, False])
def test_their_number_does_not_grow_beyond_its_bound(levels):
    rows = RNG.permutation(20_000)[:, None].astype(float)
    found, shares = blurred(rows, [levels])
    assert len(found) == len(shares) == MOST_ROWS
    assert shares.sum() == pytest.approx(1)
    assert ks_2samp(rows[:, 0], found[:, 0]).statistic < 0.01


def test_weights_count_like_repeated_rows_and_rows_without_weight_not_at_all():
    rows, weight = RNG.normal(size=(30, 2)), np.arange(30) % 3
    found, again = blurred(rows, weight=weight), blurred(np.repeat(rows, weight, axis=0))
    np.testing.assert_array_equal(found[0], again[0])
    np.testing.assert_allclose(found[1], again[1])
    assert len(found[0]) == 20


def test_equal_data_give_equal_rows_and_a_single_row_itself():
    rows = RNG.normal(size=(50, 2))
    np.testing.assert_array_equal(blurred(rows)[0], blurred(rows.copy())[0])
    np.testing.assert_allclose(blurred(rows[:1])[0], rows[:1])
