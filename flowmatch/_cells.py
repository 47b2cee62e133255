"""Which cells of a table's row are generated, which are given, and which are absent.

What a network is told of them stands at the end of a condition's vector: for d codes the last 3 d numbers are the codes
that are given (zeros elsewhere), a 1 for each code that is given, and a 1 for each that is absent. Zeros so mean that
the whole row is generated.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCKS = 3
"""Numbers at the end of a condition for each code: its value, "given", "absent"."""


def with_cells(vector: Tensor | None, codes: Tensor, given: Tensor, absent: Tensor) -> Tensor:
    """Conditions (B, k + 3 d) of vectors (B, k), codes (B, d) and two masks (B, d) of zeros and ones.

    Codes that are not given may be anything, NaN among them.
    """
    cells = [torch.where(given > 0, codes, torch.zeros_like(codes)), given, absent]
    return torch.cat(cells if vector is None else [vector, *cells], dim=1)


def generated(condition: Tensor, n_codes: int) -> Tensor:
    """1 for each code that is neither given nor absent, (B, d)."""
    given, absent = condition[:, condition.shape[1] - 2 * n_codes :].split(n_codes, dim=1)
    return 1 - given - absent


def without_labels(condition: Tensor, n_kept: int) -> Tensor:
    """Conditions (B, k) whose numbers are zeros, which stand for "no condition", but for the last `n_kept`."""
    if n_kept == 0:
        return torch.zeros_like(condition)
    n_hidden = condition.shape[1] - n_kept
    return torch.cat([torch.zeros_like(condition[:, :n_hidden]), condition[:, n_hidden:]], dim=1)
