"""Membership attacks: guessing on fresh rows, certain on copies."""

import numpy as np
import pandas as pd
import pytest

from flowmatch.metrics import membership_attack, report


def rows(seed, n=400, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("seed", range(4))
def test_fresh_rows_give_nothing_away(seed):
    attack = membership_attack(rows(10 * seed), rows(10 * seed + 1), rows(10 * seed + 2))
    assert abs(attack.nearest_auc - 0.5) < 3.5 * attack.standard_error
    assert abs(attack.density_auc - 0.5) < 3.5 * attack.standard_error


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.99), (0.05, 0.95), (0.2, 0.6)])
def test_copies_give_members_away(noise, least):
    train, holdout = rows(0), rows(1)
    copies = train + noise * rows(2)
    assert membership_attack(train, copies, holdout).nearest_auc > least
    # neighbors at positions 4: five copies a row
    many = np.repeat(train, 5, axis=0) + noise * rows(3, n=2000)
    assert membership_attack(train, many, holdout).density_auc > least


def test_the_density_ratio_sees_memory_where_rows_lie_sparse():
    train, holdout = rows(0, d=2), rows(1, d=2)
    train[:, 0] *= np.exp(2 * np.abs(train[:, 1]))
    holdout[:, 0] *= np.exp(2 * np.abs(holdout[:, 1]))
    copies = np.repeat(train, 5, axis=0) * (1 + 0.05 * rows(2, n=2000, d=2))
    attack = membership_attack(train, copies, holdout)
    assert attack.density_auc > attack.nearest_auc > 0.5


def test_the_standard_error_is_that_of_fresh_rows():
    found = [
        membership_attack(rows(3 * seed, 100), rows(3 * seed + 1, 100), rows(3 * seed + 2, 100)) for seed in range(60)
    ]
    spread = np.std([attack.nearest_auc for attack in found])
    assert spread == pytest.approx(found[0].standard_error, rel=0.35)


def test_report_has_it_beside_the_distances():
    train, holdout = pd.DataFrame(rows(0)), pd.DataFrame(rows(1))
    copied = report(train, train + 0.01, holdout).measures
    fresh = report(train, pd.DataFrame(rows(2)), holdout).measures
    assert copied["membership_nearest"]["synthetic"] > 0.95 > 0.6 > fresh["membership_nearest"]["synthetic"]
    assert copied["membership_density"]["floor"] == 0.5
    assert "membership_nearest" not in report(train, train + 0.01).measures
    assert "membership_nearest" not in report(train, train + 0.01, holdout[:8]).measures


@pytest.mark.parametrize(("n", "h"), [(3, 50), (50, 11)])
def test_too_few_rows_are_refused(n, h):
    with pytest.raises(ValueError, match="a membership attack needs 12 held-out rows"):
        membership_attack(rows(0, n), rows(1), rows(2, h))
