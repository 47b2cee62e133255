"""Couplings: which noise is paired with which data inside a mini-batch."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmatch._component import Component


class Coupling(Component, ABC):
    """A rule that reorders the noise of a batch.

    Noise is reordered, never data, so that conditions and weights stay with their rows; and every noise sample is
    used exactly once.
    """

    @abstractmethod
    def pair(self, x0: Tensor, x1: Tensor, groups: Tensor | None = None) -> Tensor:
        """Reorder noise `x0` so that row i belongs to row i of the data `x1`.

        Parameters
        ----------
        x0, x1 : Tensor of shape (B, *sample_shape)
            Noise and data.
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
    """Noise and data as they were drawn."""

    def pair(self, x0: Tensor, x1: Tensor, groups: Tensor | None = None) -> Tensor:
        return x0


@dataclass(frozen=True)
class OptimalTransportCoupling(Coupling):
    """Exact one-to-one assignment of least total squared distance, inside blocks of the batch.

    Mini-batch optimal transport (Pooladian et al., 2023; Tong et al., 2024) straightens the paths, so that fewer
    solver steps suffice. The assignment (`scipy.optimize.linear_sum_assignment`) costs the cube of the block size and
    runs on the CPU; blocks of 64 keep most of the gain at a small part of the price. Unlike sampling from a transport
    plan, an assignment uses every row exactly once.

    Parameters
    ----------
    block_size : int, default=64
        Most rows that are assigned together.
    """

    block_size: int = 64

    def pair(self, x0: Tensor, x1: Tensor, groups: Tensor | None = None) -> Tensor:
        if len(x1) < 2:
            return x0
        order, bounds = self._blocks(len(x1), groups)
        noise, data = x0.flatten(1), x1.flatten(1)
        if order is not None:
            noise, data = noise[order], data[order]
        # |x1 - x0|^2 up to terms that every assignment shares
        costs = [data[start:end] @ noise[start:end].T for start, end in itertools.pairwise(bounds)]
        columns = torch.cat([cost.detach().flatten() for cost in costs]).to("cpu", torch.float64)
        chosen = _assign(columns, bounds).to(x0.device)
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


def _assign(similarities: Tensor, bounds: list[int]) -> Tensor:
    """For each row its partner's position, by assignment inside each block."""
    from scipy.optimize import linear_sum_assignment

    flat, offset, chosen = similarities.numpy(), 0, []
    for start, end in itertools.pairwise(bounds):
        size = end - start
        block = flat[offset : offset + size * size].reshape(size, size)
        chosen.append(torch.from_numpy(linear_sum_assignment(block, maximize=True)[1]) + start)
        offset += size * size
    return torch.cat(chosen)


COUPLINGS: dict[str, type[Coupling]] = {"independent": IndependentCoupling, "ot": OptimalTransportCoupling}
