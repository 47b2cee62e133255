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
        self.cumulative = None if weight is None else cumulative_weights(weight)
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
        if self.cumulative is not None:
            order = self._weighted_rows(epochs, self.cumulative).gather(1, order)
        self.stream, self.position = torch.cat([rest, order.flatten()]), 0

    def _weighted_rows(self, epochs: int, cumulative: Tensor) -> Tensor:
        """Systematic sampling of whole epochs, (epochs, n_rows), not yet shuffled."""
        offsets = torch.rand(epochs, 1, generator=self.generator, device=self.device).to(cumulative)
        quantiles = (torch.arange(self.n_rows, device=cumulative.device) + offsets) / self.n_rows
        return rows_at(quantiles, cumulative).to(self.device)


def cumulative_weights(weight: Tensor) -> Tensor:
    """Running sums of weights (n,) in float64: float32 has too few digits to tell a million rows apart.

    On the weights' device, or on the CPU if that is Apple's MPS, which has no float64.
    """
    return (weight.cpu() if weight.device.type == "mps" else weight).double().cumsum(0)


def rows_at(quantiles: Tensor, cumulative: Tensor) -> Tensor:
    """Row numbers at which the running sums of weights pass the given shares of their total.

    Parameters
    ----------
    quantiles : Tensor of float64
        In [0, 1), on the device of `cumulative`.
    cumulative : Tensor of shape (n,)
        See `cumulative_weights`.

    Returns
    -------
    Tensor of int64, of the shape of `quantiles`
        Rows without weight are not among them.
    """
    return torch.searchsorted(cumulative, quantiles * cumulative[-1], right=True).clamp(max=len(cumulative) - 1)
