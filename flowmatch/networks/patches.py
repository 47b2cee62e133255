"""Between a grid and a coarser one whose points hold whole patches, in any number of dimensions."""

from __future__ import annotations

import itertools
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def patchify(x: Tensor, patch_size: int) -> Tensor:
    """(B, C, *grid) as (B, C * patch_size^d, *coarse); sizes that the patch does not divide are padded with zeros.

    The space-to-depth rearrangement; `unpatchify` undoes it exactly.
    """
    if patch_size == 1:
        return x
    grid = x.shape[2:]
    padding = [(0, -size % patch_size) for size in reversed(grid)]
    if any(after for _, after in padding):
        x = F.pad(x, list(itertools.chain.from_iterable(padding)))
    coarse = [size // patch_size for size in x.shape[2:]]
    pairs = itertools.chain.from_iterable((size, patch_size) for size in coarse)
    d = len(grid)
    x = x.reshape(len(x), x.shape[1], *pairs)
    inner, outer = [3 + 2 * i for i in range(d)], [2 + 2 * i for i in range(d)]
    return x.permute(0, 1, *inner, *outer).reshape(len(x), -1, *coarse)


def unpatchify(h: Tensor, patch_size: int, grid: tuple[int, ...]) -> Tensor:
    """The inverse of `patchify`: (B, C * patch_size^d, *coarse) as (B, C, *grid), what was padded cropped."""
    if patch_size == 1:
        return h
    d, coarse = len(grid), h.shape[2:]
    channels = h.shape[1] // patch_size**d
    h = h.reshape(len(h), channels, *[patch_size] * d, *coarse)
    axes = itertools.chain.from_iterable((2 + d + i, 2 + i) for i in range(d))
    h = h.permute(0, 1, *axes).reshape(len(h), channels, *[size * patch_size for size in coarse])
    inside: Any = (..., *(slice(size) for size in grid))
    return h[inside]
