"""Checks of single parameters: each error names the parameter, what came and what is expected."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from flowmatch.core.component import shown, unknown_option


def checked(default: Any, check: Callable[..., Any], *bounds: Any, optional: bool = False, **more: Any) -> Any:
    """A parameter of a component that ``validate`` checks by ``check(name, value, *bounds, **more)``.

    Parameters
    ----------
    default : object
        Its default value, `dataclasses.MISSING` if it must be given.
    check : callable
        Raises a ValueError; one of those in this module.
    optional : bool, default=False
        Whether None passes, which it also does if it is the default.
    *bounds, **more
        Further arguments of `check`.

    Returns
    -------
    dataclasses.Field

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from flowmatch.core.component import Component
    >>> @dataclass(frozen=True)
    ... class Jump(Component):
    ...     length: float = checked(0.5, check_number, 0.0, 1.0)
    >>> Jump(2.0).validate()
    Traceback (most recent call last):
    ValueError: length must be a number in [0, 1), got 2.0.
    """

    def check_value(name: str, value: Any) -> None:
        if value is not None or not (optional or default is None):
            check(name, value, *bounds, **more)

    return dataclasses.field(default=default, metadata={"check": check_value})


def check_count(
    name: str, value: Any, low: int = 1, high: int | None = None, why: str = "", *, multiple_of: int = 1
) -> int:
    """A whole number of at least `low`, and at most `high` if there is one; `why` explains the bounds."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not low <= int(value) <= (sys.maxsize if high is None else high):
        span = f">= {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {span}{why}, got {shown(value)}.")
    if value % multiple_of:
        raise ValueError(f"{name} must be a multiple of {multiple_of}, got {shown(value)}.")
    return int(value)


def check_number(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False, closed_high: bool = False
) -> float:
    """A finite number in [low, high), without `low` if `open_low`, with `high` if `closed_high`."""
    number = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer beyond all floats
            number = float(value)
    inside = low < number < high or (number == low and not open_low) or (number == high and closed_high)
    if not (inside and math.isfinite(number)):
        span = f"{'(' if open_low else '['}{low:g}, {high:g}{']' if closed_high else ')'}"
        raise ValueError(f"{name} must be a number in {span}, got {shown(value)}.")
    return number


def check_flag(name: str, value: Any) -> bool:
    """True or False."""
    check_type(name, value, bool, "True or False")
    return value


def check_type(name: str, value: Any, kinds: Any, expected: str) -> None:
    """An instance of one of `kinds`, which the message calls `expected`."""
    if not isinstance(value, kinds):
        raise ValueError(f"{name} must be {expected}, got {shown(value)}.")


def check_choice(name: str, value: Any, known: Iterable[str]) -> str:
    """One of the known names."""
    if not isinstance(value, str) or value not in known:
        raise unknown_option(name, value, known)
    return value


def check_sequence(name: str, values: Any, check: Callable[..., Any], *bounds: Any, **more: Any) -> None:
    """A list or tuple of at least one value, each of which passes ``check(name, value, *bounds, **more)``."""
    if not isinstance(values, (tuple, list)) or not values:
        raise ValueError(f"{name} must be a sequence of at least one value, got {shown(values)}.")
    for value in values:
        check(name, value, *bounds, **more)


def check_each(name: str, value: Any, check: Callable[..., Any], *bounds: Any, **more: Any) -> None:
    """As `check_sequence`, or one value for all."""
    check_sequence(name, value if isinstance(value, (tuple, list)) else [value], check, *bounds, **more)


def check_output(network: Any, output: Any, like: Tensor) -> Tensor:
    """What a network returned, if it has the shape of what it will be compared with, (B, *sample_shape).

    A velocity of shape (B, 1) for two columns would be compared with both of them, by broadcasting.
    """
    if not isinstance(output, Tensor) or output.shape != like.shape:
        name = getattr(network, "__name__", type(network).__name__)
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"the network {name} returned {got} for a batch of shape {tuple(like.shape)}; expected that shape, too."
        )
    return output


def listed(values: Sequence[Any], most: int = 20) -> str:
    """Values as an error message lists them: the first, and how many there are if not all are shown."""
    first = ", ".join(map(shown, values[:most]))
    return first + (f", ... ({len(values)} in all)" if len(values) > most else "")
