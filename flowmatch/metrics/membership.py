"""Membership attacks: can one tell from the synthetic rows which real rows a generator was fitted on?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from flowmatch.core.randomness import seed_from
from flowmatch.metrics._distances import distance_blocks, neighbor_distance
from flowmatch.metrics._samples import FloatArray, RandomState, Samples, as_pair

NEIGHBORS = 5
"""Nearest rows whose distances stand for a density."""

MIN_HELD_OUT = 12
"""Held-out rows that an attack needs: half of them are no members, half the attacker's own."""


class MembershipAttack(NamedTuple):
    """Result of `membership_attack`.

    Parameters
    ----------
    nearest_auc : float
        Area under the ROC curve of the attack by the nearest synthetic row.
    density_auc : float
        That of the attack by the ratio of densities.
    standard_error : float
        Of either, where members cannot be told apart (Mann-Whitney).
    """

    nearest_auc: float
    density_auc: float
    standard_error: float


def membership_attack(
    train: Samples, synthetic: Samples, holdout: Samples, *, random_state: RandomState = 0
) -> MembershipAttack:
    """Attack synthetic rows: which of some real rows was the generator fitted on?

    The attacker has the synthetic rows and, for the second attack, other real rows of the same distribution. He scores
    real rows, as many members (training rows) as others (held-out rows), and the areas under the ROC curve say how well
    the scores tell them apart: 0.5 is guessing, 1 is certainty.

    * By the nearest row: the nearer a row is to a synthetic one, the more it is taken for a member (Chen et al., 2020,
      "GAN-Leaks", section 4.2).
    * By the ratio of densities, of the synthetic rows to that of the attacker's real rows, at each row (van Breugel et
      al., 2023, "Membership inference attacks against synthetic data through overfitting detection", eq. 2). Both come
      from the geometric mean of the distances to the five nearest rows. It sees where a generator is denser than the
      world, which is what memory of a training row does, also where rows lie sparse.

    Parameters
    ----------
    train : array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        The rows that the generator was fitted on. Columns weigh by their scale: standardize them if their units differ.
    synthetic : array-like, tensor or DataFrame of shape (m, d) or (m, ...)
        Generated rows.
    holdout : array-like, tensor or DataFrame of shape (h, d) or (h, ...)
        Real rows that it has not seen. Half of them are scored, the others are the attacker's own.
    random_state : int, Generator, RandomState or None, default=0
        Seeds the choice of rows.

    Returns
    -------
    MembershipAttack
        Named tuple (nearest_auc, density_auc, standard_error). Cost O((m + h) min(n, h) d), memory bounded.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite, or too few: 12 held-out rows, 6 others.

    Notes
    -----
    An attack that fails is no proof of privacy: others may succeed, above all on single rows that are rare. One that
    succeeds is proof of the contrary, which measures of distance alone are not (Yao et al., 2025, "The DCR delusion").

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import membership_attack
    >>> rng = np.random.default_rng(0)
    >>> train, holdout, fresh = rng.normal(size=(3, 400, 3))
    >>> attack = membership_attack(train, fresh, holdout)
    >>> abs(attack.density_auc - 0.5) < 2 * attack.standard_error
    True
    >>> copies = train + 0.05 * rng.normal(size=train.shape)
    >>> membership_attack(train, copies, holdout).nearest_auc > 0.9
    True
    """
    members, rows = as_pair(train, synthetic, ("train", "synthetic"))
    others = as_pair(train, holdout, ("train", "holdout"))[1]
    least = MIN_HELD_OUT // 2
    if len(others) < MIN_HELD_OUT or min(len(members), len(rows)) < least:
        raise ValueError(
            f"a membership attack needs {MIN_HELD_OUT} held-out rows, {least} training rows and {least} synthetic "
            f"rows, got {len(others)}, {len(members)} and {len(rows)}."
        )
    rng = np.random.default_rng(seed_from(random_state))
    return attack_rows(rng.permutation(members), rows, rng.permutation(others))


def attack_rows(train: FloatArray, synthetic: FloatArray, holdout: FloatArray) -> MembershipAttack:
    """Attack as `membership_attack` does, of rows that are in random order."""
    outside, own = np.array_split(holdout, 2)
    inside = train[: len(outside)]
    outside = outside[: len(inside)]
    asked = np.concatenate([inside, outside])
    is_member = np.repeat([True, False], [len(inside), len(outside)])
    nearest = neighbor_distance(asked, synthetic, 0)
    ratio = _log_distances(asked, own) - _log_distances(asked, synthetic)
    n = len(inside)
    error = float(np.sqrt((2 * n + 1) / (12 * n * n)))
    return MembershipAttack(float(roc_auc_score(is_member, -nearest)), float(roc_auc_score(is_member, ratio)), error)


def _log_distances(asked: FloatArray, rows: FloatArray) -> FloatArray:
    """Mean log distance of each row asked to its nearest rows; the log-density falls with it."""
    tiny = np.finfo(np.float64).tiny
    blocks = (block for _, block in distance_blocks(asked, rows))
    found = [np.partition(block, NEIGHBORS - 1, axis=1)[:, :NEIGHBORS].copy() for block in blocks]  # no view of all
    return np.asarray(np.log(np.maximum(np.concatenate(found), tiny)).mean(axis=1))
