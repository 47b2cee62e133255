"""Which rows each step sees."""

from __future__ import annotations

import torch
from torch import Tensor


class RowSampler:
    """Batches of row numbers, cut from a stream of shuffled epochs, so that every row is used equally often.

    A batch may be larger than the data: it then holds rows more than once, with fresh noise and times each.

    Parameters
    ----------
    n_rows, batch_size : int
    generator : torch.Generator or None
        On `device`.
    device : torch.device
        Where the data live.
    weight : Tensor of shape (n_rows,), optional
        An epoch then holds row i ``n_rows * weight[i] / sum(weight)`` times, to within one and exactly on average.
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        generator: torch.Generator | None,
        device: torch.device | str,
        weight: Tensor | None = None,
    ) -> None:
        self.n_rows, self.batch_size = n_rows, batch_size
        self.generator, self.device = generator, device
        self.ranks = None if weight is None else (weight.cumsum(0) / weight.sum()).float()
        self.stream = torch.empty(0, dtype=torch.long, device=device)
        self.position = 0

    def draw(self) -> Tensor:
        """The next row numbers, shape (batch_size,)."""
        if self.position + self.batch_size > len(self.stream):
            self._refill()
        self.position += self.batch_size
        return self.stream[self.position - self.batch_size : self.position]

    def _refill(self) -> None:
        """Keep what is left and append whole epochs, enough for this batch; several at once for small data."""
        rest = self.stream[self.position :]
        epochs = -(-max(self.batch_size, min(4096, 16 * self.batch_size)) // self.n_rows)
        order = torch.rand(epochs, self.n_rows, generator=self.generator, device=self.device).argsort(1)
        if self.ranks is not None:
            order = self._weighted_rows(epochs).gather(1, order)
        self.stream, self.position = torch.cat([rest, order.flatten()]), 0

    def _weighted_rows(self, epochs: int) -> Tensor:
        """Systematic sampling of whole epochs, (epochs, n_rows), not yet shuffled."""
        assert self.ranks is not None
        offsets = torch.rand(epochs, 1, generator=self.generator, device=self.device)
        points = (torch.arange(self.n_rows, device=self.device) + offsets) / self.n_rows
        return torch.searchsorted(self.ranks, points, right=True).clamp(max=self.n_rows - 1)
