"""How many samples are carried together."""

from __future__ import annotations

import math

import torch

BLOCK_ELEMENTS = 2**22
"""Numbers of noise that are held at once."""

TILE_ELEMENTS = 2**16
"""Numbers of noise that are drawn from one seed."""


def rows_per_batch(sample_shape: tuple[int, ...], device: torch.device) -> int:
    """Samples that are carried together: at most 16,384 and about four million numbers.

    On the CPU no more than caches hold: 1024, and a quarter of a million numbers of grids, of which networks hold
    dozens for each of the sample.
    """
    on_cpu = device.type == "cpu"
    numbers = 2**18 if len(sample_shape) > 1 and on_cpu else 2**22
    return max(1, min(1024 if on_cpu else 16_384, numbers // max(1, math.prod(sample_shape))))


def rows_per_tile(sample_size: int) -> int:
    """Rows whose random numbers are drawn from one seed, all of them even if fewer are wanted."""
    return max(1, min(256, TILE_ELEMENTS // max(1, sample_size)))


def noise_blocks(n_samples: int, sample_size: int) -> list[slice]:
    """Samples that are drawn together, the same for every batch size: about four million numbers."""
    n_rows = max(1, min(16_384, BLOCK_ELEMENTS // max(1, sample_size)))
    return [slice(start, min(start + n_rows, n_samples)) for start in range(0, n_samples, n_rows)]
