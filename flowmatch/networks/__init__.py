"""Networks: velocity fields and flow maps ``forward(x, t, condition=None, step=None)``."""

from flowmatch.networks.mlp import MLP, ConcatenatedMLP, ModulatedMLP

__all__ = ["MLP", "ConcatenatedMLP", "ModulatedMLP"]
