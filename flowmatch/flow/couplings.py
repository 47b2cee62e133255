"""Couplings: which noise is paired with which data inside a mini-batch."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.checks import check_count, checked
from flowmatch.core.component import Component

_SMALL_BLOCK = 96
"""Blocks below this size are assigned faster than their potentials are found."""


class Coupling(Component, ABC):
    """A rule that reorders the noise of a batch.

    Noise is reordered, never data, so that conditions and weights stay with their rows; and every noise sample is
    used exactly once.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import torch
    >>> from flowmatch.flow import Coupling
    >>> @dataclass(frozen=True)
    ... class SortedCoupling(Coupling):
    ...     def pair(self, x0, x1, groups=None):
    ...         return x0.sort(dim=0).values[x1.argsort(dim=0).argsort(dim=0)[:, 0]]
    >>> SortedCoupling().pair(torch.tensor([[1.0], [-1.0]]), torch.tensor([[-2.0], [2.0]]))
    tensor([[-1.],
            [ 1.]])
    """

    @abstractmethod
    def pair(self, x0: Tensor, x1: Tensor, groups: Tensor | None = None) -> Tensor:
        """Reorder noise `x0` so that row i belongs to row i of the data `x1`.

        Parameters
        ----------
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        groups : Tensor of shape (B,) of integers, optional
            Rows of different groups (classes, conditions) are never compared: pairing across conditions would bias
            the conditional flow.

        Returns
        -------
        Tensor of shape (B, *sample_shape)
            The rows of `x0` in another order.
        """


@dataclass(frozen=True)
class IndependentCoupling(Coupling):
    """Noise and data as they were drawn.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import IndependentCoupling
    >>> IndependentCoupling().pair(torch.tensor([[1.0], [-1.0]]), torch.tensor([[-2.0], [2.0]]))
    tensor([[ 1.],
            [-1.]])
    """

    def pair(self, x0: Tensor, x1: Tensor, groups: Tensor | None = None) -> Tensor:
        return x0


@dataclass(frozen=True)
class OptimalTransportCoupling(Coupling):
    """Exact one-to-one assignment of least total squared distance, inside blocks of the batch.

    Mini-batch optimal transport (Pooladian et al., 2023; Tong et al., 2024) straightens the paths, so that fewer
    solver steps suffice. The assignment (`scipy.optimize.linear_sum_assignment`) costs the cube of the block size and
    runs on the CPU; blocks keep most of the gain at a small part of the price. Unlike sampling from a transport
    plan, an assignment uses every row exactly once.

    Parameters
    ----------
    block_size : int, default=128
        Most rows that are assigned together.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import OptimalTransportCoupling
    >>> x0, x1 = torch.tensor([[1.0], [-1.0]]), torch.tensor([[-2.0], [2.0]])
    >>> OptimalTransportCoupling().pair(x0, x1)
    tensor([[-1.],
            [ 1.]])
    """

    block_size: int = checked(128, check_count)

    def pair(self, x0: Tensor, x1: Tensor, groups: Tensor | None = None) -> Tensor:
        if len(x1) < 2:
            return x0
        order, bounds = self._blocks(len(x1), groups)
        noise, data = x0.flatten(1), x1.flatten(1)
        if order is not None:
            noise, data = noise[order], data[order]
        # |x1 - x0|^2 up to terms that every assignment shares
        costs = [-(data[start:end] @ noise[start:end].T).flatten() for start, end in itertools.pairwise(bounds)]
        chosen = _assign(torch.cat(costs).cpu().double().numpy(), bounds).to(x0.device)
        if order is None:
            return x0[chosen]
        paired = torch.empty_like(chosen)
        paired[order] = order[chosen]
        return x0[paired]

    def _blocks(self, n_rows: int, groups: Tensor | None) -> tuple[Tensor | None, list[int]]:
        """An order of the rows and the bounds of the blocks in it, no block across two groups."""
        if groups is None:
            return None, [*range(0, n_rows, self.block_size), n_rows]
        sorted_groups, order = torch.sort(groups, stable=True)
        sizes = torch.unique_consecutive(sorted_groups, return_counts=True)[1].tolist()
        bounds = [0]
        for size in sizes:
            start = bounds[-1]
            bounds += [*range(start + self.block_size, start + size, self.block_size), start + size]
        return order, bounds


def _assign(costs: NDArray[np.float64], bounds: list[int]) -> Tensor:
    """For each row its partner's position, by assignment inside each block."""
    from scipy.optimize import linear_sum_assignment

    sizes = np.diff(bounds)
    blocks = np.split(costs, np.cumsum(sizes**2)[:-1])
    square = (block.reshape(size, size) for block, size in zip(blocks, sizes, strict=True))
    chosen = np.concatenate([linear_sum_assignment(_reduce(cost))[1] for cost in square])
    return torch.from_numpy(chosen + np.repeat(bounds[:-1], sizes))


def _reduce(
    cost: NDArray[np.float64], temperatures: tuple[float, ...] = (0.05, 0.01), n_sweeps: int = 10
) -> NDArray[np.float64]:
    """The same assignment problem with most of its work done: subtract approximate dual potentials.

    A constant taken from a row or a column changes every assignment's total alike, so the best one stays the best,
    whatever the constants are. Potentials from a few Sinkhorn sweeps at falling temperatures (shares of the mean cost;
    Peyre and Cuturi, 2019, section 4.2) leave small values where the optimal plan runs, and the exact search ends
    several times sooner.
    """
    if len(cost) < _SMALL_BLOCK:
        return cost
    cost = cost - cost.min(axis=1, keepdims=True)
    coarse, scale = cost.astype(np.float32), np.float32(cost.mean())
    if not scale > 0:
        return cost
    row: NDArray[np.floating] = np.zeros(len(cost), np.float32)
    column: NDArray[np.floating] = np.zeros(len(cost), np.float32)
    for temperature in temperatures:
        rest = coarse - column
        row = rest.min(axis=1)
        kernel = np.exp((row[:, None] - rest) / (temperature * scale)) + np.float32(1e-30)
        column_factor = np.ones_like(column)
        for _ in range(n_sweeps):
            row_factor = 1 / (kernel @ column_factor)
            column_factor = 1 / (row_factor @ kernel)
        row = row + temperature * scale * np.log(row_factor)
        column = column + temperature * scale * np.log(column_factor)
    return cost - row[:, None] - column


COUPLINGS: dict[str, type[Coupling]] = {"independent": IndependentCoupling, "ot": OptimalTransportCoupling}
