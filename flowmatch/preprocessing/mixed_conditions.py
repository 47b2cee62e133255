"""Conditions of several columns, some labels and some numbers."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable
from flowmatch.preprocessing.conditions import (
    ConditionEncoder,
    check_scales,
    check_shares,
    find_classes,
    positions_of,
    systematic_sample,
)
from flowmatch.preprocessing.containers import Container


@storable
@dataclass(frozen=True, eq=False)
class MixedEncoder(ConditionEncoder):
    """Label columns as one-hot vectors beside standardised numbers, and a 1 that tells them from "no condition".

    Attributes
    ----------
    classes : tuple of ndarray
        Labels of each column; empty for columns of numbers.
    mean, scale : ndarray of shape (k,)
        Of the columns of numbers; 0 and 1 for labels.
    rows, shares : ndarray of shape (n, k) and (n,)
        The training conditions, labels as positions in `classes`, and their weights.
    """

    container: Container
    classes: tuple[NDArray[Any], ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    rows: NDArray[np.float64]
    shares: NDArray[np.float64]

    @classmethod
    def fit(cls, y: NDArray[Any], container: Container, weight: NDArray[np.float64] | None) -> MixedEncoder:
        """Learn labels, mean and scale of `y` (n, k); real numbers that are not categories count as numbers."""
        classes = tuple(
            np.empty(0)
            if is_numeric(column) and container.dtypes[j % len(container.dtypes)] != "category"
            else find_classes(column, f"column {_name(container, j)!r} of y")[0]
            for j, column in enumerate(y.T)
        )
        shares = np.full(len(y), 1 / len(y)) if weight is None else weight / weight.sum()
        zeros = np.zeros(y.shape[1])
        encoder = cls(container, classes, zeros, zeros + 1, np.empty((0, y.shape[1])), shares)
        rows = encoder._coded(y, len(y))
        labels = np.array([len(labels) > 0 for labels in classes])
        mean = np.where(labels, 0.0, shares @ rows)
        spread = np.sqrt(shares @ (rows - mean) ** 2)
        return replace(encoder, rows=rows, mean=mean, scale=np.where(labels | (spread == 0), 1.0, spread))

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        check_scales(self.mean, self.scale)
        k = len(self.mean)
        require(self.rows.ndim == 2 and self.rows.shape[1] == k and np.isfinite(self.rows).all(), "rows")
        require(len(self.classes) == k, "classes")
        for column, labels in zip(self.rows.T, self.classes, strict=True):
            require(labels.ndim == 1 and (not len(labels) or np.isin(column, np.arange(len(labels))).all()), "classes")
        check_shares(self.shares, len(self.rows))

    @property
    def size(self) -> int:
        return sum(max(1, len(labels)) for labels in self.classes) + 1

    def with_shares_of(self, y: Any, weight: NDArray[np.float64] | None) -> MixedEncoder:
        shares = np.full(len(y), 1 / len(y)) if weight is None else weight / weight.sum()
        return replace(self, rows=self._coded(y, len(y)), shares=shares)

    def expand(self, y: Any, n_samples: int) -> NDArray[Any]:
        coded = self._coded(y, n_samples)
        return self._named(np.broadcast_to(coded, (n_samples, coded.shape[1])))

    def encode(self, y: Any, n_samples: int) -> NDArray[np.float32]:
        coded = self._coded(y, n_samples)
        columns: list[NDArray[Any]] = []
        for column, labels in zip(((coded - self.mean) / self.scale).T, self.classes, strict=True):
            columns.append(np.eye(len(labels))[column.astype(np.intp)] if len(labels) else column[:, None])
        vectors = np.column_stack([*columns, np.ones(len(coded))]).astype(np.float32)
        return np.broadcast_to(vectors, (n_samples, vectors.shape[1])).copy()

    def draw(self, n_samples: int, rng: np.random.RandomState) -> NDArray[Any]:
        return self._named(self.rows[rng.permutation(systematic_sample(self.shares, n_samples, rng))])

    def _coded(self, y: Any, n_samples: int) -> NDArray[np.float64]:
        """Checked rows (n_samples, k) or (1, k) with positions for labels."""
        rows, k = np.asarray(y, dtype=object), len(self.classes)
        rows = rows.reshape(1, -1) if rows.ndim < 2 else rows
        if rows.shape[1:] != (k,) or len(rows) not in (1, n_samples):
            raise ValueError(
                f"y has shape {np.shape(y)}; expected one condition of {k} entries, or one for each of {n_samples} "
                "samples."
            )
        coded = np.empty(rows.shape)
        for j, (column, labels) in enumerate(zip(rows.T, self.classes, strict=True)):
            what = f"column {_name(self.container, j)!r} of y"
            if len(labels):
                coded[:, j] = positions_of(column, labels, what)
                continue
            try:
                coded[:, j] = column.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{what} must hold numbers, as in training: {error}.") from error
        if not np.isfinite(coded).all():
            raise ValueError("y contains NaN or infinity.")
        return coded

    def _named(self, coded: NDArray[np.float64]) -> NDArray[Any]:
        """Rows of objects, with labels for positions."""
        rows = coded.astype(object)
        for j, labels in enumerate(self.classes):
            if len(labels):
                rows[:, j] = labels[coded[:, j].astype(np.intp)]
        return rows


def is_numeric(column: NDArray[Any]) -> bool:
    """Whether a column holds numbers rather than labels; booleans count as 0 and 1."""
    if column.dtype.kind != "O":
        return column.dtype.kind in "biuf"
    return all(isinstance(value, (numbers.Real, np.bool_)) for value in column)


def _name(container: Container, column: int) -> Any:
    return container.columns[column] if container.columns else column
