"""Checks of single parameters: each error names the parameter, what came and what is expected."""

from __future__ import annotations

import math
import numbers
from typing import Any

from torch import Tensor

from flowmatch.core.component import unknown_option


def check_count(name: str, value: Any, low: int = 1, high: int | None = None, why: str = "") -> int:
    """A whole number of at least `low`, and at most `high` if there is one; `why` explains the bounds."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or int(value) < low or (high is not None and int(value) > high):
        span = f">= {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {span}{why}, got {value!r}.")
    return int(value)


def check_number(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False, closed_high: bool = False
) -> float:
    """A finite number in [low, high), without `low` if `open_low`, with `high` if `closed_high`."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not (low < value < high or (value == low and not open_low) or (value == high and closed_high)):
        span = f"{'(' if open_low else '['}{low:g}, {high:g}{']' if closed_high else ')'}"
        raise ValueError(f"{name} must be a number in {span}, got {value!r}.")
    return float(value)


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


def check_choice(name: str, value: Any, known: Any) -> str:
    """One of the known names."""
    if not isinstance(value, str) or value not in known:
        raise unknown_option(name, value, known)
    return value
