"""Recordings of machines: read from files, cut into windows, split without leaks."""

from flowmatch.records.collection import Records
from flowmatch.records.reading import read_records
from flowmatch.records.record import Record

__all__ = ["Record", "Records", "read_records"]
