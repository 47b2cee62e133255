"""What every forecast measure does first: truth and ensemble as numbers whose shapes fit, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.metrics._samples import FloatArray, Samples, to_numpy

BLOCK_ENTRIES = 2**23
"""Numbers of an ensemble held in float64 at a time: 64 MB."""
FAIR = " for a fair score, which compares members with each other"
"""Why a score needs two members."""
Values: TypeAlias = float | FloatArray
"""One number, or one a lead time."""
Numbers: TypeAlias = NDArray[Any]


def as_numbers(X: Samples, name: str) -> Numbers:
    """X as a finite, non-empty array of floats, in the precision it came in: ensembles are large.

    Raises
    ------
    ValueError
        If X is not numeric, has no dimension, is empty, or holds NaN or infinity.
    """
    if isinstance(X, torch.Tensor) and X.dtype in (torch.float32, torch.float64):
        X = X.detach().cpu().numpy()
    plain = isinstance(X, np.ndarray) and X.dtype in (np.float32, np.float64)
    array: Numbers = np.asarray(X) if plain else to_numpy(X, name)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected at least one row with at least one number.")
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name} holds NaN or infinity in {(~finite).sum()} of its {array.size} numbers, first at {first}. "
            f"Measures need finite numbers: leave out those rows, or the lead times from there on."
        )
    return array


def as_forecast(y_true: Samples, samples: Samples, *, min_members: int = 1, why: str = "") -> tuple[Numbers, Numbers]:
    """Truth (n, ...) and ensemble (n_samples, n, ...) as numbers.

    Raises
    ------
    ValueError
        As `as_numbers` does; also if the shapes do not fit, or there are fewer members than `min_members`.
    """
    truth, members = as_numbers(y_true, "y_true"), as_numbers(samples, "samples")
    if members.shape[1:] != truth.shape:
        hint = ""
        if members.shape == truth.shape:
            hint = " One member alone is samples[None]."
        elif members.ndim == truth.ndim + 1:
            places = [
                axis for axis in range(1, members.ndim) if np.delete(members.shape, axis).tolist() == [*truth.shape]
            ]
            hint = f" Members come first: pass np.moveaxis(samples, {places[0]}, 0)." if places else ""
        raise ValueError(
            f"samples has shape {members.shape} and y_true {truth.shape}; expected samples of shape "
            f"(n_samples, {', '.join(map(str, truth.shape))}).{hint}"
        )
    check_members("samples", members, min_members, why)
    return truth, members


def check_members(name: str, members: Numbers, low: int, why: str = "") -> None:
    """Raise a ValueError if there are fewer members than `low`."""
    if len(members) < low:
        raise ValueError(f"{name} has {len(members)} member(s); expected at least {low}{why}.")


def as_point_forecast(y_true: Samples, y_pred: Samples) -> tuple[FloatArray, FloatArray]:
    """Truth and forecast of one shape, in float64.

    Raises
    ------
    ValueError
        As `as_numbers` does; also if the shapes differ.
    """
    truth, predicted = as_numbers(y_true, "y_true"), as_numbers(y_pred, "y_pred")
    if truth.shape != predicted.shape:
        hint = " The mean of an ensemble is samples.mean(axis=0)." if predicted.shape[1:] == truth.shape else ""
        raise ValueError(f"y_pred has shape {predicted.shape} and y_true {truth.shape}; expected the same.{hint}")
    return truth.astype(np.float64, copy=False), predicted.astype(np.float64, copy=False)


def by_lead(array: Numbers, per_lead: bool, *, n_before: int = 0) -> Numbers:
    """(n, ...) as (n, n_leads, d): axis 1 of the truth is the lead time, or there is a single one.

    `n_before` axes come before the rows, such as that of the members.
    """
    if per_lead and array.ndim - n_before < 2:
        raise ValueError(
            f"per_lead=True needs y_true of shape (n, n_steps, ...), with the lead times in axis 1, got "
            f"{array.shape[n_before:]}."
        )
    n_leads = array.shape[n_before + 1] if per_lead else 1
    return array.reshape(*array.shape[: n_before + 1], n_leads, -1)


def blocks(*arrays: Numbers) -> Iterator[list[FloatArray]]:
    """Some rows at a time of an array (n, ...) and of ensembles (n_samples, n, ...), in float64, free to overwrite."""
    truth_like, *ensembles = arrays
    n = len(truth_like)
    n_rows = max(1, BLOCK_ENTRIES * n // max(array.size for array in arrays))
    for start in range(0, n, n_rows):
        rows = slice(start, start + n_rows)
        yield [np.array(truth_like[rows], dtype=np.float64)] + [
            np.array(ensemble[:, rows], dtype=np.float64) for ensemble in ensembles
        ]


def mean_score(
    score: Callable[[FloatArray, FloatArray], FloatArray], truth: Numbers, members: Numbers, per_lead: bool
) -> Values:
    """Mean of ``score(truth, members)`` over rows and whatever else comes after the lead time.

    The score is given float64 blocks of shapes (b, n_leads, d) and (n_samples, b, n_leads, d) and returns
    (b, n_leads, ...).
    """
    total, count = np.zeros(1), 0
    for block in blocks(by_lead(truth, per_lead), by_lead(members, per_lead, n_before=1)):
        scores = score(*block)
        total = total + scores.reshape(*scores.shape[:2], -1).sum(axis=(0, 2))
        count += scores.size // scores.shape[1]
    return out(total / count, per_lead)


def out(values: FloatArray, per_lead: bool) -> Values:
    """One value a lead time, or the only one as a float."""
    return values if per_lead else float(values[0])
