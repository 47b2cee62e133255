"""Readers of data sets in files, and simulators."""

from flowmatch.datasets.bearings import Bearing, make_bearing_signals
from flowmatch.datasets.idx import load_idx_folder, read_idx

__all__ = ["Bearing", "load_idx_folder", "make_bearing_signals", "read_idx"]
