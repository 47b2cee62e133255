"""Readers of data sets in files, a small table, and simulators."""

from flowmatch.datasets.bearing_records import make_bearing_records
from flowmatch.datasets.bearings import BEARINGS, Bearing, find_bearing, make_bearing_signals
from flowmatch.datasets.idx import load_idx_folder, read_idx
from flowmatch.datasets.penguins import load_penguins
from flowmatch.datasets.seasonal import make_seasonal_series, seasonal_series_quantiles
from flowmatch.datasets.series import make_windows, read_series
from flowmatch.records import Record, Records, read_records

__all__ = [
    "BEARINGS",
    "Bearing",
    "Record",
    "Records",
    "find_bearing",
    "load_idx_folder",
    "load_penguins",
    "make_bearing_records",
    "make_bearing_signals",
    "make_seasonal_series",
    "make_windows",
    "read_idx",
    "read_records",
    "read_series",
    "seasonal_series_quantiles",
]
