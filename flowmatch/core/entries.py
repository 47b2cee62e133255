"""Which entries of a table's row are generated, which are given, and which are absent.

What a network is given of them stands at the end of a condition's vector. For d codes these are the last 5 d numbers:
the codes that are given (zeros elsewhere), a 1 for each code that is given, a 1 for each that is absent, and where the
noise of each code to be generated starts: its mean, and the logarithm of its standard deviation. Zeros so mean that the
whole row is generated from standard noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCKS = 5
"""Numbers at the end of a condition for each code."""


def with_entries(
    vector: Tensor | None, codes: Tensor, given: Tensor, absent: Tensor, start: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Conditions (B, k + 5 d) of vectors (B, k), codes (B, d), and masks (B, d) of zeros and ones.

    Codes that are not given may be anything, NaN among them. `start` are means and log standard deviations of the
    noise, (B, d) each; standard noise without.
    """
    shown = 1 - given - absent
    mean, log_scale = (torch.zeros_like(given),) * 2 if start is None else (shown * start[0], shown * start[1])
    entries = [torch.where(given > 0, codes, 0.0), given, absent, mean, log_scale]
    return torch.cat(entries if vector is None else [vector, *entries], dim=1)


def generated(condition: Tensor, n_codes: int) -> Tensor:
    """1 for each code that is neither given nor absent, (B, d)."""
    _, given, absent, _, _ = _blocks(condition, n_codes)
    return 1 - given - absent


def start_from(noise: Tensor, condition: Tensor) -> Tensor:
    """Noise (B, d) moved to where the condition says that it starts, and zero where nothing is generated."""
    _, given, absent, mean, log_scale = _blocks(condition, noise.shape[1])
    return (1 - given - absent) * (mean + log_scale.exp() * noise)


def without_labels(condition: Tensor, n_kept: int) -> Tensor:
    """Conditions (B, k) whose numbers are zeros, which stand for "no condition", but for the last `n_kept`."""
    if n_kept == 0:
        return torch.zeros_like(condition)
    n_hidden = condition.shape[1] - n_kept
    return torch.cat([torch.zeros_like(condition[:, :n_hidden]), condition[:, n_hidden:]], dim=1)


def _blocks(condition: Tensor, n_codes: int) -> tuple[Tensor, ...]:
    return condition[:, condition.shape[1] - BLOCKS * n_codes :].split(n_codes, dim=1)
