"""Synthetic rows of tables that have a target: how many of which kind, drawn and joined to the real ones.

And generators of signals that need no training.
"""

from flowmatch.synthetic.signals import ARBlocks, Perturb

__all__ = ["ARBlocks", "Perturb"]
