"""What every forecast measure does first: truth and ensemble as floats whose shapes fit, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowmatch.metrics._samples import FloatArray, Samples, floats_of

BLOCK_ENTRIES = 2**23
"""Values of an ensemble held in float64 at a time: 64 MB."""
FAIR = " for a fair score, which compares members with each other"
"""Why a score needs two members."""
Values: TypeAlias = float | FloatArray
"""One value, or one a lead time."""
Floats: TypeAlias = NDArray[Any]
"""Floats in the precision they came in: ensembles are large."""


def as_forecast(y_true: Samples, samples: Samples, *, min_members: int = 1, why: str = "") -> tuple[Floats, Floats]:
    """Truth (n, ...) and ensemble (n_samples, n, ...) as floats.

    Raises
    ------
    ValueError
        As `floats_of` does; also if the shapes do not fit, or there are fewer members than `min_members`.
    """
    truth, members = floats_of(y_true, "y_true"), floats_of(samples, "samples")
    if members.shape[1:] != truth.shape:
        hint = ""
        if members.shape == truth.shape:
            hint = " One member alone is samples[None]."
        for axis in range(1, members.ndim):
            if np.delete(members.shape, axis).tolist() == [*truth.shape]:
                hint = f" Members come first: pass np.moveaxis(samples, {axis}, 0)."
        raise ValueError(
            f"samples has shape {members.shape} and y_true {truth.shape}; expected samples of shape "
            f"(n_samples, {', '.join(map(str, truth.shape))}).{hint}"
        )
    check_members("samples", members, min_members, why)
    return truth, members


def as_members(X: Samples, name: str, truth: Floats) -> Floats:
    """A forecast as an ensemble, of one member if it has the shape of the truth.

    Raises
    ------
    ValueError
        As `floats_of` does; also if the shapes do not fit.
    """
    members = floats_of(X, name)
    if members.shape == truth.shape:
        return members[None]
    if members.shape[1:] != truth.shape:
        raise ValueError(
            f"{name} has shape {members.shape} and y_true {truth.shape}; expected the same, or members first."
        )
    return members


def check_members(name: str, members: Floats, low: int, why: str = "") -> None:
    """Raise a ValueError if there are fewer members than `low`."""
    if len(members) < low:
        raise ValueError(f"{name} has {len(members)} member(s); expected at least {low}{why}.")


def as_point_forecast(y_true: Samples, y_pred: Samples) -> tuple[FloatArray, FloatArray]:
    """Truth and forecast of one shape, in float64.

    Raises
    ------
    ValueError
        As `floats_of` does; also if the shapes differ.
    """
    truth, predicted = floats_of(y_true, "y_true"), floats_of(y_pred, "y_pred")
    if truth.shape != predicted.shape:
        hint = " The mean of an ensemble is samples.mean(axis=0)." if predicted.shape[1:] == truth.shape else ""
        raise ValueError(f"y_pred has shape {predicted.shape} and y_true {truth.shape}; expected the same.{hint}")
    return truth.astype(np.float64, copy=False), predicted.astype(np.float64, copy=False)


def by_lead(array: Floats, per_lead: bool, *, n_before: int = 0) -> Floats:
    """(n, ...) as (n, n_leads, d): axis 1 of the truth is the lead time, or there is a single one.

    `n_before` axes come before the rows, such as that of the members.
    """
    if per_lead and array.ndim - n_before < 2:
        raise ValueError(f"per_lead=True needs y_true of shape (n, n_steps, ...), got {array.shape[n_before:]}.")
    n_leads = array.shape[n_before + 1] if per_lead else 1
    return array.reshape(*array.shape[: n_before + 1], n_leads, -1)


def row_blocks(*ensembles: Floats) -> Iterator[list[FloatArray]]:
    """Some rows at a time of ensembles (n_samples, n, ...) for the same rows, in float64, free to overwrite."""
    n = ensembles[0].shape[1]
    n_rows = max(1, BLOCK_ENTRIES * n // max(ensemble.size for ensemble in ensembles))
    for start in range(0, n, n_rows):
        yield [np.array(ensemble[:, start : start + n_rows], dtype=np.float64) for ensemble in ensembles]


def mean_score(score: Callable[..., FloatArray], per_lead: bool, *ensembles: Floats) -> Values:
    """Mean of ``score(*ensembles)`` over rows and whatever else comes after the lead time.

    The score is given float64 blocks of shape (n_samples, b, n_leads, d) and returns (b, n_leads, ...). A truth is
    an ensemble of one member.
    """
    total, count = np.zeros(1), 0
    for block in row_blocks(*(by_lead(ensemble, per_lead, n_before=1) for ensemble in ensembles)):
        scores = score(*block)
        total = total + scores.reshape(*scores.shape[:2], -1).sum(axis=(0, 2))
        count += scores.size // scores.shape[1]
    return out(total / count, per_lead)


def out(values: FloatArray, per_lead: bool) -> Values:
    """One value a lead time, or the only one as a float."""
    return values if per_lead else float(values[0])
