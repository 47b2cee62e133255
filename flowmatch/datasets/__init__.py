"""Readers of data sets in files."""

from flowmatch.datasets.idx import load_idx_folder, read_idx

__all__ = ["load_idx_folder", "read_idx"]
