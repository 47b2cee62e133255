"""Samples that stay where they are: arrays, memory maps, tensors and row containers, read in pieces."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch

from flowmatch.core.types import AnyArray, Array, Index, Mask
from flowmatch.tables.containers import Container
from flowmatch.tables.frames import is_real_dtype
from flowmatch.tables.readable import FLOAT32_MAX, as_float64, as_plain

ELEMENTS_AT_ONCE = 2**20
"""Passes over the data hold about so many elements in memory."""


@dataclass(frozen=True)
class RowSummary:
    """What one pass over the samples finds out.

    Parameters
    ----------
    low, high : ndarray of shape (n_columns,)
        Extremes of every column (channel), missing entries left out; NaN if there is nothing else.
    rows : ndarray of int
        Numbers of the samples where those extremes stand.
    n_missing : ndarray of int, shape (n_columns,)
        How many entries of each column are NaN.
    """

    low: Array
    high: Array
    rows: Index
    n_missing: Index

    @property
    def finite(self) -> bool:
        """Whether no entry is missing or infinite."""
        return not self.n_missing.any() and bool(np.isfinite([self.low, self.high]).all())


class SampleRows:
    """Samples (n, *sample_shape), read as float64 when and where they are needed.

    Parameters
    ----------
    data : ndarray, torch.Tensor, or anything with ``__len__`` and ``__getitem__`` that returns rows
        Memory-mapped arrays stay on disk, tensors on their device. Row containers without a `shape` are read row by
        row.
    index : ndarray of int or None, default=None
        Use these rows of `data` only.

    Raises
    ------
    ValueError
        If a container's first row is not an array of numbers.
    """

    def __init__(self, data: Any, index: Index | None = None) -> None:
        self.data, self.index = data, index
        if hasattr(data, "shape") and hasattr(data, "dtype"):
            self.sample_shape, self.dtype = tuple(map(int, data.shape[1:])), str(data.dtype).removeprefix("torch.")
        else:
            first = _plain_row(data[0], 0) if len(data) else np.empty(0)
            self.sample_shape, self.dtype = first.shape, str(first.dtype)

    @classmethod
    def of(cls, data: Any) -> SampleRows:
        """Wrap data that are not wrapped yet.

        Parameters
        ----------
        data : ndarray, Tensor, SampleRows, or anything that returns rows
            Samples.

        Returns
        -------
        SampleRows
            `data` itself, or its rows.
        """
        return data if isinstance(data, SampleRows) else cls(data)

    def __len__(self) -> int:
        return len(self.data) if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples and shape of each."""
        return (len(self), *self.sample_shape)

    @property
    def size(self) -> int:
        """Number of elements in all samples."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_real(self) -> bool:
        """Whether the samples hold real numbers."""
        return self.dtype == "bfloat16" or is_real_dtype(self.dtype)

    def container(self, X: Any) -> Container:
        """Describe what the samples came in.

        Parameters
        ----------
        X : Any
            The user's data.

        Returns
        -------
        Container
            That of `X` or, if it hands out rows, of an array of their dtype.
        """
        return Container.of(X) if hasattr(X, "dtype") or self.data is not X else Container("numpy", (self.dtype,))

    @property
    def in_memory(self) -> bool:
        """Whether the data are an array or tensor in memory, not on disk or behind a container."""
        return isinstance(self.data, (np.ndarray, torch.Tensor)) and _memory_map(self.data) is None

    def read(self, rows: Index) -> Array:
        """Read some samples.

        Parameters
        ----------
        rows : ndarray of int, shape (n,)
            Their numbers.

        Returns
        -------
        ndarray of shape (n, *sample_shape)
            Samples.
        """
        rows = rows if self.index is None else self.index[rows]
        if isinstance(self.data, np.ndarray):
            return as_float64(self._gather(self.data, rows))
        if isinstance(self.data, torch.Tensor):
            return as_float64(self.data[torch.as_tensor(rows, device=self.data.device)])
        return as_float64(np.stack([self._checked(_plain_row(self.data[int(row)], row), row) for row in rows]))

    def chunks(self, n_elements: int = ELEMENTS_AT_ONCE) -> Iterator[tuple[int, Array]]:
        """Read consecutive pieces.

        Parameters
        ----------
        n_elements : int, default=2**20
            Number of elements in each, about.

        Yields
        ------
        start : int
            Number of the first sample of a piece.
        piece : ndarray of shape (n, *sample_shape)
            Samples.
        """
        n_rows, is_whole = self._rows_in(n_elements), self.index is None and hasattr(self.data, "shape")
        for start in range(0, len(self), n_rows):
            stop = min(start + n_rows, len(self))
            yield start, as_float64(self.data[start:stop]) if is_whole else self.read(np.arange(start, stop))
            _release(self.data)

    def n_chunks(self, n_elements: int = ELEMENTS_AT_ONCE) -> int:
        """How many pieces `chunks` reads.

        Parameters
        ----------
        n_elements : int, default=2**20
            As there.

        Returns
        -------
        int
        """
        return -(-len(self) // self._rows_in(n_elements))

    def array(self) -> Array:
        """Read all samples.

        Returns
        -------
        ndarray of shape (n, *sample_shape)
            Samples.
        """
        if self.index is None and isinstance(self.data, np.ndarray):
            return np.asarray(self.data, dtype=np.float64)
        return self.read(np.arange(len(self)))

    def take(self, rows: Index) -> Self:
        """Take a part of the samples, still unread.

        Parameters
        ----------
        rows : ndarray of int
            Their numbers.

        Returns
        -------
        SampleRows
            The part.
        """
        return type(self)(self.data, rows if self.index is None else self.index[rows])

    @cached_property
    def summary(self) -> RowSummary:
        """Extremes of every column (channel), from one pass."""
        columns, n_missing = self.sample_shape[0], np.zeros(self.sample_shape[0], dtype=np.intp)
        rows, found = [], []  # of every piece the lowest values, and the highest ones negated: (2, n_columns)
        for start, chunk in self.chunks():
            entries = chunk.reshape(len(chunk), columns, -1)
            n_missing += np.isnan(entries).sum(axis=(0, 2))
            extremes = np.stack([np.fmin.reduce(entries, axis=2), -np.fmax.reduce(entries, axis=2)], axis=1)
            extremes[np.isnan(extremes)] = np.inf
            at = extremes.argmin(axis=0)
            rows.append(start + at)
            found.append(extremes.min(axis=0))
        best = np.argmin(found, axis=0)[None]
        low, high = np.take_along_axis(np.stack(found), best, 0)[0] * [[1.0], [-1.0]]
        nothing = low > high
        low[nothing] = high[nothing] = np.nan
        return RowSummary(low, high, np.unique(np.take_along_axis(np.stack(rows), best, 0)), n_missing)

    def first_unfit(self, *, missing: Mask | bool = False) -> tuple[tuple[int, ...], float] | None:
        """Find the first entry that is infinite or too large for float32, or NaN unless that is allowed.

        Parameters
        ----------
        missing : bool or ndarray of bool, shape (n_columns,), default=False
            Whether NaN is allowed, or in which columns of a table.

        Returns
        -------
        tuple of (position, value), or None
            None if there is no such entry.
        """
        extremes = np.abs([self.summary.low, self.summary.high])
        refused = np.logical_not(missing)
        if not (extremes > FLOAT32_MAX).any() and not (self.summary.n_missing * refused).any():
            return None
        return next(
            ((start + int(bad[0, 0]), *map(int, bad[0, 1:])), float(chunk[tuple(bad[0])]))
            for start, chunk in self.chunks()
            if len(bad := np.argwhere((np.abs(chunk) > FLOAT32_MAX) | (np.isnan(chunk) & refused)))
        )

    def subset(self, n_elements: int, seed: int = 0) -> Index:
        """Choose a random part of the samples, and those where the extremes stand.

        Parameters
        ----------
        n_elements : int
            Number of elements in the part, about, at most.
        seed : int, default=0
            Of the choice.

        Returns
        -------
        ndarray of int
            Numbers of the chosen samples.
        """
        n_rows = self._rows_in(n_elements)
        if len(self) <= n_rows:
            return np.arange(len(self))
        drawn = np.random.RandomState(seed).choice(len(self), n_rows, replace=False)
        return np.union1d(drawn, self.summary.rows)

    def digest(self) -> bytes:
        """Hash all values.

        Returns
        -------
        bytes
            The hash.
        """
        digest = hashlib.sha256(repr(self.shape).encode())
        for _, chunk in self.chunks():
            digest.update(np.ascontiguousarray(chunk).tobytes())
        return digest.digest()

    def _rows_in(self, n_elements: int) -> int:
        return max(1, n_elements // max(1, int(np.prod(self.sample_shape))))

    def _gather(self, array: AnyArray, rows: Index) -> AnyArray:
        """Rows of an array; few at a time from a memory map, where touching one can map two megabytes around it."""
        if _memory_map(array) is None:
            return array[rows]
        values = np.empty((len(rows), *self.sample_shape), array.dtype)
        for start in range(0, len(rows), 8):
            values[start : start + 8] = array[rows[start : start + 8]]
            _release(array)
        return values

    def _checked(self, row: AnyArray, number: int) -> AnyArray:
        if row.shape != self.sample_shape:
            raise ValueError(f"X[{number}] has shape {row.shape}, but X[0] has {self.sample_shape}: all must be equal.")
        return row


def _plain_row(row: Any, number: int) -> AnyArray:
    """One row of a container as an array of numbers."""
    if not isinstance(row, (tuple, dict)):
        array = np.asarray(as_plain(row, f"X[{number}]"))
        if array.dtype.kind in "biuf":
            return array
    raise ValueError(
        f"X[{number}] is a {type(row).__name__}; X must give arrays of numbers, one sample each, and conditions are "
        "passed as y."
    )


def _memory_map(array: Any) -> mmap.mmap | None:
    """The file behind a memory-mapped array or a view of one."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def _release(data: Any) -> None:
    """Give pages of a read-only memory map back to the system; they would pile up as resident memory.

    Maps of the other modes are left alone: pages of a copy-on-write map hold changes that are nowhere else.
    """
    mapped = _memory_map(data)
    if mapped is not None and hasattr(mapped, "madvise") and memoryview(mapped).readonly:
        mapped.madvise(mmap.MADV_DONTNEED)
