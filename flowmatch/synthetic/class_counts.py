"""How many rows of each class to add: imbalanced-learn's `sampling_strategy`, for samplers that only add."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_number
from flowmatch.core.component import unknown_option

STRATEGIES = ("auto", "minority", "not minority", "not majority", "all")


def rows_to_add(strategy: Any, y: NDArray[Any]) -> dict[Any, int]:
    """Rows to add to each class, by class in order.

    Parameters
    ----------
    strategy : float, str, mapping or callable
        A number in (0, 1]: rows of the rarer of two classes over those of the other, afterwards. A name: which classes
        become as large as the largest. A mapping: rows of each class afterwards. A callable: ``y -> mapping``.
    y : ndarray of shape (n,)

    Raises
    ------
    ValueError
        For one class only, an unknown strategy, a number with more than two classes, a class that `y` does not have,
        or fewer rows than there are.
    """
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"The target 'y' needs to have more than 1 class, got {len(classes)} class.")
    present = dict(zip(classes.tolist(), counts.tolist(), strict=True))
    if isinstance(strategy, str):
        wanted = _by_name(strategy, present)
    elif isinstance(strategy, Mapping):
        wanted = _by_mapping(strategy, present)
    elif isinstance(strategy, numbers.Real) and not isinstance(strategy, bool):
        ratio = check_number("sampling_strategy, as a number,", strategy, 0.0, 1.0, open_low=True, closed_high=True)
        wanted = _by_ratio(ratio, present)
    elif callable(strategy):
        asked = strategy(y)
        if not isinstance(asked, Mapping):
            raise ValueError(f"sampling_strategy returned a {type(asked).__name__}; expected a dict of rows by class.")
        wanted = _by_mapping(asked, present)
    else:
        raise ValueError(
            f"sampling_strategy must be a number in (0, 1], one of {', '.join(map(repr, STRATEGIES))}, a dict of rows "
            f"by class, or a callable that makes one from y; got {strategy!r}."
        )
    own = dict(zip(classes.tolist(), classes, strict=True))  # numpy's own, as in y
    return {own[label]: wanted[label] - present[label] for label in present if label in wanted}


def _by_name(name: str, present: dict[Any, int]) -> dict[Any, int]:
    """The named classes, as large as the largest; the first of equals is the largest, or the smallest."""
    if name == "majority":
        raise ValueError("sampling_strategy='majority' cannot be used with an over-sampler: rows are only added.")
    if name not in STRATEGIES:
        raise unknown_option("sampling_strategy", name, STRATEGIES)
    largest, smallest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    chosen = {
        "minority": lambda label: label == smallest,
        "not minority": lambda label: label != smallest,
        "all": lambda label: True,
    }.get(name, lambda label: label != largest)
    return {label: present[largest] for label in present if chosen(label)}


def _by_ratio(ratio: float, present: dict[Any, int]) -> dict[Any, int]:
    if len(present) != 2:
        raise ValueError(
            f"sampling_strategy can be a number for a binary target only, and y has {len(present)} classes: pass a "
            "dict of rows by class."
        )
    largest = max(present, key=present.__getitem__)
    wanted = {label: int(present[largest] * ratio) for label in present if label != largest}
    for label, count in wanted.items():
        if count <= present[label]:
            raise ValueError(
                f"sampling_strategy={ratio:g} would remove rows of class {label!r}: it has {present[label]}, and "
                f"{count} are asked for. Increase the ratio."
            )
    return wanted


def _by_mapping(asked: Mapping[Any, Any], present: dict[Any, int]) -> dict[Any, int]:
    unknown = [label for label in asked if label not in present]
    if unknown:
        raise ValueError(
            f"sampling_strategy names the class {unknown[0]!r}, which is not present in the data. Classes: "
            f"{', '.join(map(repr, list(present)[:20]))}."
        )
    for label, count in asked.items():
        if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 0:
            raise ValueError(
                f"sampling_strategy[{label!r}] must be a number of rows, whole and not negative, got {count!r}."
            )
        if count < present[label]:
            raise ValueError(
                f"sampling_strategy[{label!r}] is {count}, but the class has {present[label]} rows already, and an "
                "over-sampler only adds: ask for at least as many."
            )
    return {label: int(count) for label, count in asked.items()}
