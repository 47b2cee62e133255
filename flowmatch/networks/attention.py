"""Self-attention, shared by the networks that have it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017, section 3.2) of points (B, n, width)."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.split = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)

    def forward(self, points: Tensor) -> Tensor:
        n_rows, n_points, width = points.shape
        heads = self.split(points).reshape(n_rows, n_points, 3, self.n_heads, width // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.join(attended.transpose(1, 2).reshape(n_rows, n_points, width))
