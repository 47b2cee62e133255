"""Networks of tables that see which entries of a row are given, and leave them and absent ones alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowmatch.core.checks import check_output
from flowmatch.core.entries import BLOCKS, generated


class MaskedNetwork(nn.Module):
    """A network that generates some entries of a row, given others.

    Its condition is the vector of what the row is conditioned on, and may end in the row's entries
    (`flowmatch.core.entries`); without them the whole row is generated. What is given or absent enters the inner
    network as zeros and stays as it is: the output there is zero.

    Parameters
    ----------
    network : torch.nn.Module
        Called as ``network(x, t, condition)``, or with a further ``step``; built for conditions of
        ``condition_size + 5 d`` elements.
    n_codes : int
        Elements d of a row.
    condition_size : int
        Elements of a condition without the entries.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.networks import MLP, MaskedNetwork
    >>> network = MaskedNetwork(MLP()((2,), 10), n_codes=2, condition_size=0)
    >>> network(torch.zeros(3, 2), torch.rand(3)).shape
    torch.Size([3, 2])
    """

    def __init__(self, network: nn.Module, n_codes: int, condition_size: int) -> None:
        super().__init__()
        self.network, self.n_codes, self.condition_size = network, n_codes, condition_size

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, *step: Tensor) -> Tensor:
        n_entries = BLOCKS * self.n_codes
        if condition is None:
            condition = x.new_zeros(len(x), self.condition_size)
        if condition.shape[1] == self.condition_size:
            whole_row = x.new_zeros(len(x), n_entries)
            known = torch.cat([condition, whole_row], dim=1) if self.condition_size else whole_row
            return self.network(x, t, known, *step)
        if condition.shape[1] != self.condition_size + n_entries:
            raise ValueError(
                f"the network was built for conditions of {self.condition_size} elements, and {n_entries} that "
                f"describe the row's entries, but got {condition.shape[1]}."
            )
        shown = generated(condition, self.n_codes)
        return shown * check_output(self.network, self.network(shown * x, t, condition, *step), x)
