"""Convolutions that know what lies beyond the edge of the grid, axis by axis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

BOUNDARIES = {"zeros": "zeros", "periodic": "circular", "replicate": "replicate"}
"""What lies beyond the edge of the grid, and PyTorch's name for it."""

CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""For grids of one, two and three axes."""


def convolution(boundaries: Sequence[str]) -> Callable[..., nn.Module]:
    """``(c_in, c_out, kernel_size, stride=1)`` to a convolution that keeps the size of the grid, or halves it.

    Parameters
    ----------
    boundaries : sequence of {"zeros", "periodic", "replicate"}
        One for each axis of the grid.
    """
    conv = CONVOLUTIONS[len(boundaries) - 1]
    if len(set(boundaries)) > 1:
        return functools.partial(MixedConvolution, conv, tuple(boundaries))

    def uniform(c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> nn.Module:
        padding = kernel_size // 2
        mode = BOUNDARIES[boundaries[0]] if padding else "zeros"
        return conv(c_in, c_out, kernel_size, stride=stride, padding=padding, padding_mode=mode)

    return uniform


class MixedConvolution(nn.Module):
    """A convolution on a grid whose axes end differently: each is padded in its own way."""

    def __init__(
        self, conv: Any, boundaries: tuple[str, ...], c_in: int, c_out: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.boundaries, self.padding = boundaries, kernel_size // 2
        self.conv = conv(c_in, c_out, kernel_size, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding:
            for axis, boundary in enumerate(reversed(self.boundaries)):  # F.pad counts from the last axis
                widths = [0] * (2 * len(self.boundaries))
                widths[2 * axis] = widths[2 * axis + 1] = self.padding
                x = F.pad(x, widths, mode="constant" if boundary == "zeros" else BOUNDARIES[boundary])
        return self.conv(x)


def alike(grid: tuple[int, ...], boundaries: Sequence[str]) -> tuple[int, ...]:
    """A grid for features of positions: one point along the axes of a grid of mixed boundaries that are periodic."""
    if len(set(boundaries)) == 1:
        return grid
    return tuple(1 if b == "periodic" else size for size, b in zip(grid, boundaries, strict=True))
