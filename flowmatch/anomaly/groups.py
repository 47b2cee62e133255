"""Which rows come from one record, and what of it they cover: rows that share samples are held out together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from sklearn.model_selection import StratifiedGroupKFold

from flowmatch.preprocessing import FITTED_ELEMENTS, SampleRows

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

ENOUGH = 5
"""From so many records on, whole ones are held out; fewer are cut into blocks."""

_BLOCKS = 10
"""Blocks that few records are cut into, all together."""

_SNIPPET, _DISTINCT = 8, 6
"""Successive values that tell where a signal comes from, and how many of them have to differ."""

_SHORTEST = 12
"""Values of a row that may be a window of a signal."""

_OVERLAPPING = 0.05
"""Share of the rows that share values with others in windows cut from records."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class RecordPlaces:
    """Where rows come from.

    Attributes
    ----------
    record : ndarray of int of shape (n,)
    start : ndarray of int of shape (n,)
        The first instant of each row; records follow each other on one axis, without touching.
    length : int
        Instants that a row covers.
    found : bool
        Whether they were found by what rows share, not given.
    """

    record: Index
    start: Index
    length: int
    found: bool

    def take(self, part: Index) -> RecordPlaces:
        """Those of some rows."""
        return RecordPlaces(self.record[part], self.start[part], self.length, self.found)

    @property
    def n_records(self) -> int:
        """How many records there are."""
        return len(np.unique(self.record))

    @property
    def n_units(self) -> int:
        """How many parts can be held out."""
        return len(np.unique(self.units()))

    def units(self) -> Index:
        """What is held out as a whole, (n,): the record of each row, or where records are few, a block of one."""
        if self.n_records >= ENOUGH:
            return self.record
        order = np.lexsort([self.start, self.record])
        unit = np.empty(len(order), dtype=np.intp)
        unit[order] = self.record[order] * _BLOCKS + np.arange(len(order)) * _BLOCKS // len(order)
        return np.asarray(np.unique(unit, return_inverse=True)[1])

    def split(self, n_folds: int, y: NDArray[Any] | None, random: np.random.RandomState) -> list[tuple[Index, Index]]:
        """Rows to train on and rows to hold out, one pair a fold; a single fold holds out about a fifth.

        Nothing that a fold trains on shares an instant with what it holds out. A class that has no rows elsewhere stays
        in training.

        Parameters
        ----------
        n_folds : int
        y : ndarray of shape (n,) or None
        random : RandomState

        Raises
        ------
        ValueError
            If there are too few records for so many folds.
        """
        units = self.units()
        n_units = self.n_units
        if n_units < max(n_folds, 2):
            raise ValueError(
                f"the rows come from {n_units} group(s): too few for {max(n_folds, 2)} folds, each of which holds out "
                "whole groups. Pass more of them, or a smaller n_folds."
            )
        cut = StratifiedGroupKFold(min(5, n_units) if n_folds == 1 else n_folds, shuffle=True, random_state=random)
        labels = np.zeros(len(units), dtype=np.intp) if y is None else np.unique(y, return_inverse=True)[1]
        if np.bincount(labels).min() < cut.n_splits:  # rare classes cannot be dealt out evenly
            labels = np.zeros_like(labels)
        folds = [held for _, held in cut.split(units, labels, units)][:n_folds]
        parts = [self._without_touching(held, y) for held in folds]
        if any(len(kept) < 2 or not len(held) for kept, held in parts):
            raise ValueError("every row shares values with others, so that none can be held out of training.")
        return parts

    def _without_touching(self, held: Index, y: NDArray[Any] | None) -> tuple[Index, Index]:
        """Rows that share nothing with the held-out ones, and these."""
        starts = np.sort(self.start[held])
        after = np.searchsorted(starts, self.start)
        distance = np.minimum(
            np.abs(starts[np.minimum(after, len(starts) - 1)] - self.start), np.abs(self.start - starts[after - 1])
        )
        kept = np.flatnonzero(distance >= self.length)
        if y is None:
            return kept, held
        lost = ~np.isin(y[held], y[kept])
        return np.union1d(kept, held[lost]), held[~lost]


def places_of(rows: SampleRows, groups: Any, sample_weight: Any = None) -> RecordPlaces | None:
    """Find where rows come from: what `groups` say, and what rows share with each other; None if neither says anything.

    Parameters
    ----------
    rows : SampleRows
        Windows of signals (n, C, L), or of one in a table (n, L), may share values.
    groups : array-like of shape (n,) or None
    sample_weight : array-like or None
        As in `fit`: the rows are those of a positive weight.

    Returns
    -------
    RecordPlaces or None

    Raises
    ------
    ValueError
        For groups that are not one label a row.
    """
    shared = overlaps(rows)
    if groups is None:
        return shared
    labels = np.asarray(groups, dtype=object)
    if sample_weight is not None and labels.shape == np.shape(sample_weight):
        labels = labels[np.asarray(sample_weight) > 0]
    if labels.shape != (len(rows),):
        raise ValueError(f"groups must hold one label for each of the {len(rows)} rows of X, got shape {labels.shape}.")
    unlabeled = [k for k, label in enumerate(labels) if label is None or label != label]
    if unlabeled:
        raise ValueError(f"groups must hold a label for each row of X, but that of row {unlabeled[0]} is missing.")
    record = np.unique(labels.astype(str), return_inverse=True)[1]
    if shared is None:
        return RecordPlaces(record, np.arange(len(rows)), 1, False)
    return RecordPlaces(record, shared.start, shared.length, False)


def overlaps(rows: SampleRows) -> RecordPlaces | None:
    """Find windows that were cut from the same signal so that they share values.

    Eight successive values, six of them different, hardly occur twice by chance; where they do, all that the two rows
    would share is compared. Of large data every sixteenth place is looked at, chosen by its values.

    Parameters
    ----------
    rows : SampleRows

    Returns
    -------
    RecordPlaces or None
        None if less than a twentieth of the rows share values with others.
    """
    length = rows.sample_shape[-1]
    if len(rows.sample_shape) > 2 or length < _SHORTEST or not rows.in_memory:
        return None
    X = rows.array()
    signal = np.ascontiguousarray(X if X.ndim == 2 else X[:, 0], dtype=np.float64)
    first, second, shift = _same_snippets(signal)
    agree = _agree(signal, first, second, shift)
    first, second, shift = first[agree], second[agree], shift[agree]
    if len(np.union1d(first, second)) < _OVERLAPPING * len(rows):
        return None
    return RecordPlaces(*_on_one_axis(len(rows), length, first, second, shift), length, True)


def _same_snippets(signal: Floats) -> tuple[Index, Index, Index]:
    """Pairs of rows that hold the same snippet, and by how much the second starts later than the first."""
    bits = (signal + 0.0).view(np.uint64)
    n_places = signal.shape[1] - _SNIPPET + 1
    digest = np.zeros((len(signal), n_places), dtype=np.uint64)
    for k in range(_SNIPPET):  # wraps around, as integers modulo 2^64 do
        digest = (digest ^ bits[:, k : k + n_places]) * _MIX
        digest ^= digest >> np.uint64(29)
    every = np.uint64(1 if digest.size <= FITTED_ELEMENTS else 16)
    row, place = np.nonzero(digest % every == 0)
    snippets = np.sort(np.lib.stride_tricks.sliding_window_view(signal, _SNIPPET, axis=1)[row, place], axis=1)
    telling = (np.diff(snippets, axis=1) > 0).sum(axis=1) >= _DISTINCT - 1
    row, place = row[telling], place[telling]
    key = digest[row, place]
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    first, second = order[same], order[same + 1]
    shift = place[first] - place[second]
    moved = (row[first] != row[second]) & (shift != 0)
    at = (row[first[moved]], row[second[moved]], shift[moved] + n_places)
    shape = (len(signal), len(signal), 2 * n_places + 1)
    first, second, shift = np.unravel_index(np.unique(np.ravel_multi_index(at, shape)), shape)
    return first, second, shift - n_places


def _agree(signal: Floats, first: Index, second: Index, shift: Index) -> NDArray[np.bool_]:
    """Which pairs of rows have the same values wherever they would overlap."""
    length = signal.shape[1]
    agree = np.ones(len(first), dtype=bool)
    at_once = max(1, FITTED_ELEMENTS // length)
    for start in range(0, len(first), at_once):
        part = slice(start, start + at_once)
        place = np.arange(length) + shift[part, None]
        there = (place >= 0) & (place < length)
        earlier = np.take_along_axis(signal[first[part]], np.clip(place, 0, length - 1), axis=1)
        agree[part] = ((earlier == signal[second[part]]) | ~there).all(axis=1)
    return agree


def _on_one_axis(n: int, length: int, first: Index, second: Index, shift: Index) -> tuple[Index, Index]:
    """The record of each of n rows, and its start: records one after the other."""
    record = connected_components(_graph(first, second, n), directed=False)[1].astype(np.intp)
    heads = np.unique(record, return_index=True)[1]
    tree = _graph(np.concatenate([first, np.full(len(heads), n)]), np.concatenate([second, heads]), n + 1)
    parent = breadth_first_order(tree, n, directed=False)[1][:n].astype(np.intp)
    parent[heads] = heads
    pairs, both = np.concatenate([first * n + second, second * n + first]), np.concatenate([shift, -shift])
    order = np.argsort(pairs, kind="stable")
    at = np.minimum(np.searchsorted(pairs[order], parent * n + np.arange(n)), max(len(pairs) - 1, 0))
    offset = np.where(parent == np.arange(n), 0, both[order][at])
    while (parent != parent[parent]).any():
        offset, parent = offset + offset[parent], parent[parent]
    low = np.full(len(heads), np.iinfo(np.intp).max)
    high = np.full(len(heads), np.iinfo(np.intp).min)
    np.minimum.at(low, record, offset)
    np.maximum.at(high, record, offset)
    base = np.concatenate([[0], np.cumsum(high - low + 2 * length)[:-1]])
    return record, (offset - low[record] + base[record]).astype(np.intp)


def _graph(first: Index, second: Index, n: int) -> csr_array:
    """Edges between n nodes, in the integers that all versions of scipy search."""
    edges = first.astype(np.int32), second.astype(np.int32)
    return coo_array((np.ones(len(first)), edges), (n, n)).tocsr()
