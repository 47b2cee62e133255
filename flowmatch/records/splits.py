"""Which records, or which part of each, are kept for the test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from flowmatch.core.checks import listed
from flowmatch.core.types import AnyArray, Mask
from flowmatch.core.user_warnings import warn


def choose_groups(groups: AnyArray, labels: AnyArray, by: str, test: Any, rng: np.random.Generator) -> Mask:
    """Which records are of the test: those of the given groups, or of a share of the groups of each label.

    Raises
    ------
    ValueError
        If a group is unknown, or one side would be left without records.
    """
    values, group = np.unique(groups, return_inverse=True)
    if isinstance(test, (str, Iterable)):
        wanted = np.atleast_1d(np.asarray(test, groups.dtype if groups.dtype.kind == "f" else None))
        unknown = [value for value in wanted.tolist() if value not in values.tolist()]
        if unknown:
            raise ValueError(f"test names {by} {listed(unknown)}, but there is only {listed(values.tolist())}.")
        chosen = np.isin(groups, wanted)
    else:
        share = check_share(test)
        by_label = by in ("bearing", "record")
        kinds = [" ".join(sorted(set(labels[group == g]))) if by_label else "" for g in range(len(values))]
        drawn = [_share_of([g for g, k in enumerate(kinds) if k == kind], share, rng) for kind in dict.fromkeys(kinds)]
        chosen = np.isin(group, np.concatenate(drawn))
    if chosen.all() or not chosen.any():
        raise ValueError(
            f"by={by!r} leaves no record for {'training' if chosen.all() else 'the test'}: the records have "
            f"{len(values)} {by} value(s), {listed(values.tolist())}, and a label with only one stays in training. "
            "Pass test=[...] with those of the test, or split by 'time'."
        )
    return chosen


def check_share(test: Any) -> float:
    """A share of the records that is the test."""
    if isinstance(test, float) and 0 < test < 1:
        return test
    raise ValueError(f"test must be a share between 0 and 1, such as 0.25, or a list of values, got {test!r}.")


def _share_of(groups: list[int], share: float, rng: np.random.Generator) -> AnyArray:
    """About this share of them, at least one on each side; none of one alone."""
    n_test = min(max(round(share * len(groups)), 1), len(groups) - 1)
    return rng.permutation(groups)[:n_test].astype(int)


def warn_of_leaks(bearings: AnyArray, labels: AnyArray, chosen: Mask, by: str) -> None:
    """Warn of bearings that are on both sides, and of labels that are on one side only."""
    shared = sorted((set(bearings[chosen].tolist()) & set(bearings[~chosen].tolist())) - {""})
    if shared:
        warn(
            f"by={by!r} leaves {len(shared)} bearing(s) on both sides, as {shared[0]!r}: a model may recognize the "
            "bearing instead of its fault, and a test then says nothing of bearings that it has not seen. by='bearing' "
            "keeps them apart."
        )
    one_sided = sorted(set(labels[chosen].tolist()) ^ set(labels[~chosen].tolist()))
    if one_sided:
        warn(f"by={by!r} leaves these labels on one side only: {listed(one_sided)}.")
