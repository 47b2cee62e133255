"""Self-attention, shared by the networks that have it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmatch.networks.conditioned import has_tangent


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017, section 3.2) of points (B, n, width).

    Fused kernels do the work in training and in sampling. They have no forward-mode derivative and none in batches,
    so plain products take their place under `torch.func.jvp`, and wherever a network in evaluation mode is
    differentiated, as likelihoods do.

    Parameters
    ----------
    width : int
        Elements of a point.
    n_heads : int
        A divisor of `width`.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.split = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)

    def forward(self, points: Tensor) -> Tensor:
        n_rows, n_points, width = points.shape
        heads = self.split(points).reshape(n_rows, n_points, 3, self.n_heads, width // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        plain = has_tangent(query) or (torch.is_grad_enabled() and not self.training)
        attended = (plain_attention if plain else F.scaled_dot_product_attention)(query, key, value)
        return self.join(attended.transpose(1, 2).reshape(n_rows, n_points, width))


def plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v`` (Vaswani et al., 2017, eq. 1) in operations that have all derivatives."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1) @ value
