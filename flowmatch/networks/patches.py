"""Between a grid and a coarser one whose points hold whole patches, in any number of dimensions."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def patchify(x: Tensor, patch_size: int) -> Tensor:
    """(B, C, *grid) as (B, C * patch_size^d, *coarse); sizes that the patch does not divide are padded with zeros.

    The space-to-depth rearrangement; `unpatchify` undoes it exactly.
    """
    if patch_size == 1:
        return x
    if any(size % patch_size for size in x.shape[2:]):
        x = F.pad(x, [pad for size in reversed(x.shape[2:]) for pad in (0, -size % patch_size)])
    coarse = [size // patch_size for size in x.shape[2:]]
    x = x.reshape(len(x), x.shape[1], *[part for size in coarse for part in (size, patch_size)])
    inner, outer = range(3, x.ndim, 2), range(2, x.ndim, 2)
    return x.permute(0, 1, *inner, *outer).reshape(len(x), -1, *coarse)


def unpatchify(h: Tensor, patch_size: int, grid: tuple[int, ...]) -> Tensor:
    """The inverse of `patchify`: (B, C * patch_size^d, *coarse) as (B, C, *grid), what was padded cropped."""
    if patch_size == 1:
        return h
    d, coarse = len(grid), h.shape[2:]
    channels = h.shape[1] // patch_size**d
    h = h.reshape(len(h), channels, *[patch_size] * d, *coarse)
    pairs = [axis for i in range(d) for axis in (2 + d + i, 2 + i)]
    h = h.permute(0, 1, *pairs).reshape(len(h), channels, *[size * patch_size for size in coarse])
    inside: Any = (..., *(slice(size) for size in grid))
    return h[inside]
