"""Windows of long signals: where they start, all of them unread, and the table of their conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flowmatch.core.checks import check_count
from flowmatch.core.memory import check_memory
from flowmatch.core.types import AnyArray, Index


class DenseWindows:
    """Every window of some signals, from every start: an array (n, n_channels, length) that is cut where it is read.

    Numpy makes an array of it (`numpy.asarray`); an integer, a slice or an array of integers reads a part.

    Parameters
    ----------
    signals : sequence of ndarray, each (n_channels, n_samples)
        With equal numbers of channels and at least `length` samples.
    length : int
        Samples of a window.

    Attributes
    ----------
    shape : tuple of int
        Windows, channels, samples.
    dtype : dtype
        Of the windows.
    ndim : int
        Three.
    """

    ndim = 3

    def __init__(self, signals: Sequence[AnyArray], length: int) -> None:
        self._views = [sliding_window_view(signal, length, axis=1).swapaxes(0, 1) for signal in signals]
        self._ends = np.cumsum([len(view) for view in self._views])
        self.shape = (int(self._ends[-1]), len(signals[0]), length)
        self.dtype = np.result_type(*signals)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> AnyArray:
        rows = np.arange(len(self))[key]
        if rows.ndim:
            check_memory(f"{rows.size} windows", rows.size * np.prod(self.shape[1:]) * self.dtype.itemsize)
            read = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
            for place in np.ndindex(rows.shape):
                read[place] = self._window(rows[place])
            return read
        return self._window(rows).astype(self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"<DenseWindows: {self.shape} {self.dtype}>"

    def _window(self, row: Any) -> AnyArray:
        signal = int(np.searchsorted(self._ends, row, side="right"))
        return self._views[signal][row - self._ends[signal] + len(self._views[signal])]


def window_starts(n_samples: int, length: int, hop: int | None, per_record: int | None, name: str) -> Index:
    """First samples of the windows of one record.

    Raises
    ------
    ValueError
        If there are not so many windows in it.
    """
    n_dense = n_samples - length + 1
    if n_dense < (per_record or 1):
        wanted = f"length={length}" if n_dense < 1 else f"per_record={per_record} windows of {length}"
        raise ValueError(
            f"record {name!r} has {n_samples} samples, too few for {wanted}: take shorter windows, or leave it out by "
            f"records[records.n_samples >= ...]."
        )
    if per_record is not None:
        return np.linspace(0, n_dense - 1, per_record).round().astype(np.intp)
    return np.arange(0, n_dense, hop)


def cut_windows(signals: Sequence[AnyArray], starts: Sequence[Index], length: int) -> AnyArray:
    """Windows (n, n_channels, length) from these starts, signal by signal."""
    n_windows, dtype = sum(map(len, starts)), np.result_type(*signals)
    check_memory(f"{n_windows} windows", n_windows * len(signals[0]) * length * dtype.itemsize)
    windows = np.empty((n_windows, len(signals[0]), length), dtype)
    stop = 0
    for signal, first in zip(signals, starts, strict=True):
        stop, begin = stop + len(first), stop
        windows[begin:stop] = sliding_window_view(signal, length, axis=1)[:, first].swapaxes(0, 1)
    return windows


def check_hop(length: int, hop: Any, per_record: Any) -> tuple[int | None, int | None]:
    """Samples from one window to the next, or windows of each record; one of them is None.

    Raises
    ------
    ValueError
        If both are given, or one is no positive integer.
    """
    if per_record is not None:
        if hop is not None:
            raise ValueError(f"pass hop or per_record, not both: got hop={hop!r} and per_record={per_record!r}.")
        return None, check_count("per_record", per_record)
    if isinstance(hop, str):
        if hop != "dense":
            raise ValueError(f"hop must be an integer >= 1 or 'dense', got {hop!r}.")
        return 1, None
    return length if hop is None else check_count("hop", hop), None


def conditions_frame(columns: dict[str, AnyArray]) -> Any:
    """A DataFrame of pandas; the columns themselves where that is not installed."""
    try:
        import pandas as pd
    except ImportError:
        return columns
    return pd.DataFrame(columns)
