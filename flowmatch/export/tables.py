"""Piecewise linear functions of columns, in operations that every runtime has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


class Tables(nn.Module):
    """One piecewise linear function a column, constant beyond its knots; a knot that comes twice is a jump.

    The interval of a number is found by bisection, as a fixed number of comparisons: no sorting or searching operator
    is needed, and memory does not grow with the number of knots.

    Parameters
    ----------
    functions : sequence of (knots, images)
        For each column its knots, in order, and the values there; at least one.
    dtype : torch.dtype
        That of the numbers to map.
    """

    knots: Tensor
    images: Tensor
    starts: Tensor

    def __init__(self, functions: Sequence[tuple[Array, Array]], dtype: torch.dtype) -> None:
        super().__init__()
        # a power of two, with room for a knot below everything and at least one above
        self.size = 2 ** int(np.ceil(np.log2(max(len(knots) for knots, _ in functions) + 2)))
        padded = [_pad(*pair, self.size) for pair in functions]
        self.register_buffer("knots", torch.as_tensor(np.concatenate([k for k, _ in padded])[:, None]).to(dtype))
        self.register_buffer("images", torch.as_tensor(np.concatenate([v for _, v in padded])[:, None]).to(dtype))
        self.register_buffer("starts", self.size * torch.arange(len(padded)))

    def forward(self, x: Tensor) -> Tensor:
        """Map numbers (..., n_columns)."""
        position = self.starts.expand(x.shape)
        stride = self.size // 2
        while stride:
            ahead = position + stride
            position = torch.where(look_up(self.knots, ahead) <= x, ahead, position)
            stride //= 2
        left, right = look_up(self.knots, position), look_up(self.knots, position + 1)
        image, next_image = look_up(self.images, position), look_up(self.images, position + 1)
        return image + (x - left) / (right - left) * (next_image - image)


def look_up(column: Tensor, positions: Tensor) -> Tensor:
    """Entries of a column (n, 1): an embedding, which becomes one operator, where an index becomes several."""
    return F.embedding(positions, column).squeeze(-1)


def step_table(thresholds: Array, levels: Array) -> tuple[Array, Array]:
    """Knots and images of the function that jumps from one level to the next at each threshold; 0 without levels."""
    if len(levels) < 2:
        return np.zeros(1), np.append(levels, 0.0)[:1]
    return np.repeat(thresholds, 2), np.repeat(levels, 2)[1:-1]


def _pad(knots: Array, images: Array, size: int) -> tuple[Array, Array]:
    """Knots with sentinels out of reach, and the outermost images there."""
    after = size - 1 - len(knots)
    reach = float(np.finfo(np.float32).max) / 4  # finite, so that slopes are 0 there and not NaN
    return np.pad(knots, (1, after), constant_values=(-reach, reach)), np.pad(images, (1, after), mode="edge")
