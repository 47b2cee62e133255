"""Networks: velocity fields and flow maps ``forward(x, t, condition=None, step=None)``."""

from flowmatch.networks.mlp import MLP, ResidualMLP

__all__ = ["MLP", "ResidualMLP"]
