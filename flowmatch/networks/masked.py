"""Networks of tables that see which cells of a row are given, and leave them and absent ones alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowmatch.core.checks import check_output
from flowmatch.core.entries import BLOCKS, generated


class MaskedNetwork(nn.Module):
    """A network that generates some cells of a row, given others.

    Its condition is a vector of the labels or numbers that the row has as conditions, and may end in the row's cells
    (`flowmatch.core.entries`); without them the whole row is generated. What is given or absent enters the inner
    network as zeros and stays as it is: the output there is zero.

    Parameters
    ----------
    network : nn.Module ``(x, t, condition) -> (B, d)``, or with a further ``step``
        Built for conditions of ``condition_size + 5 d`` numbers.
    n_codes : int
        Numbers d of a row.
    condition_size : int
        Numbers of a condition without the cells.
    """

    def __init__(self, network: nn.Module, n_codes: int, condition_size: int) -> None:
        super().__init__()
        self.network, self.n_codes, self.condition_size = network, n_codes, condition_size

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, *step: Tensor) -> Tensor:
        n_cells = BLOCKS * self.n_codes
        if condition is None or condition.shape[1] == self.condition_size:
            cells = x.new_zeros(len(x), n_cells)
            parts = [x.new_zeros(len(x), self.condition_size) if condition is None else condition, cells]
            return self.network(x, t, torch.cat(parts, dim=1) if self.condition_size else cells, *step)
        if condition.shape[1] != self.condition_size + n_cells:
            raise ValueError(
                f"the network was built for conditions of {self.condition_size} numbers, and {n_cells} that tell of "
                f"the row's cells, but got {condition.shape[1]}."
            )
        shown = generated(condition, self.n_codes)
        return shown * check_output(self.network, self.network(shown * x, t, condition, *step), x)
