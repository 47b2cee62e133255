"""Conditions: labels of any dtype, or numbers, as vectors a network can read."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.preprocessing.containers import Container

_MANY_VALUES = 20


class ConditionEncoder(ABC):
    """Fitted map from conditions to vectors. A vector of zeros never occurs: it stands for "no condition".

    Attributes
    ----------
    size : int
        Length of a condition's vector.
    """

    container: Container

    @property
    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def expand(self, y: Any, n_samples: int) -> NDArray[Any]:
        """Conditions (n_samples, ...) of one condition for all samples, or one a sample."""

    @abstractmethod
    def with_shares_of(self, y: Any, weight: NDArray[np.float64] | None) -> ConditionEncoder:
        """The same map, drawing conditions as they occur in other data."""

    @abstractmethod
    def encode(self, y: Any, n_samples: int) -> NDArray[np.float32]:
        """Vectors (n_samples, size) of one condition for all samples, or one a sample."""

    @abstractmethod
    def draw(self, n_samples: int, rng: np.random.RandomState) -> NDArray[Any]:
        """Conditions as they occur in the training data, each as often as its share, to within one."""


@dataclass
class LabelEncoder(ConditionEncoder):
    """Labels as one-hot vectors.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
    shares : ndarray of shape (n_classes,)
        Weighted shares of the classes in the training data.
    counts : ndarray of shape (n_classes,)
        Rows of each class in the training data.
    """

    container: Container
    classes: NDArray[Any]
    shares: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def fit(cls, y: NDArray[Any], container: Container, weight: NDArray[np.float64] | None) -> LabelEncoder:
        """Learn the classes of `y` (n,) and how often each occurs."""
        try:
            classes, codes = np.unique(y, return_inverse=True)
        except TypeError as error:
            kinds = sorted({type(value).__name__ for value in y})
            raise ValueError(
                f"y mixes types that cannot be sorted: {', '.join(kinds)}. Make all labels one type."
            ) from error
        total = np.bincount(codes, weights=weight, minlength=len(classes))
        return cls(container, classes, total / total.sum(), np.bincount(codes, minlength=len(classes)))

    @property
    def size(self) -> int:
        return len(self.classes)

    def codes(self, y: Any, n_samples: int) -> NDArray[np.intp]:
        """Positions in `classes`, (n_samples,).

        Raises
        ------
        ValueError
            For labels that were not there in training, or a wrong number of them.
        """
        labels = np.asarray(y) if np.ndim(y) else np.asarray([y])
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or len(labels) not in (1, n_samples):
            raise ValueError(f"y has shape {labels.shape}; expected one label, or one for each of {n_samples} samples.")
        positions = {label: position for position, label in enumerate(self.classes.tolist())}
        codes = np.array([positions.get(label, -1) for label in labels.tolist()], dtype=np.intp)
        if (codes < 0).any():
            known = ", ".join(repr(label) for label in list(positions)[:20])
            raise ValueError(
                f"y holds the label {labels.tolist()[np.argmin(codes)]!r}, which was not there in training. "
                f"Known labels: {known}{', ...' if len(positions) > 20 else ''}."
            )
        return np.broadcast_to(codes, (n_samples,)) if len(codes) != n_samples else codes

    def with_shares_of(self, y: Any, weight: NDArray[np.float64] | None) -> LabelEncoder:
        """The same map, with the shares of other data."""
        total = np.bincount(self.codes(y, len(y)), weights=weight, minlength=self.size)
        return replace(self, shares=total / total.sum())

    def expand(self, y: Any, n_samples: int) -> NDArray[Any]:
        return self.classes[self.codes(y, n_samples)]

    def encode(self, y: Any, n_samples: int) -> NDArray[np.float32]:
        return np.eye(self.size, dtype=np.float32)[self.codes(y, n_samples)]

    def draw(self, n_samples: int, rng: np.random.RandomState) -> NDArray[Any]:
        return self.classes[rng.permutation(_systematic(self.shares, n_samples, rng))]


@dataclass
class NumberEncoder(ConditionEncoder):
    """Standardised numbers, and a 1 that tells them from "no condition".

    Attributes
    ----------
    mean, scale : ndarray of shape (k,)
    rows, shares : ndarray of shape (n, k) and (n,)
        The training conditions and their weights, kept so that `draw` can repeat them.
    """

    container: Container
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    rows: NDArray[np.float64]
    shares: NDArray[np.float64]
    one_dimensional: bool

    @classmethod
    def fit(cls, y: NDArray[Any], container: Container, weight: NDArray[np.float64] | None) -> NumberEncoder:
        """Learn mean and scale of `y` (n,) or (n, k)."""
        rows = y.reshape(len(y), -1).astype(np.float64)
        mean = np.average(rows, axis=0, weights=weight)
        scale = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight))
        shares = np.full(len(rows), 1 / len(rows)) if weight is None else weight / weight.sum()
        return cls(container, mean, np.where(scale > 0, scale, 1.0), rows, shares, y.ndim == 1)

    @property
    def size(self) -> int:
        return len(self.mean) + 1

    def with_shares_of(self, y: Any, weight: NDArray[np.float64] | None) -> NumberEncoder:
        shares = np.full(len(y), 1 / len(y)) if weight is None else weight / weight.sum()
        return replace(self, rows=self._rows(y, len(y)), shares=shares)

    def expand(self, y: Any, n_samples: int) -> NDArray[Any]:
        rows = np.broadcast_to(self._rows(y, n_samples), (n_samples, len(self.mean)))
        return rows[:, 0].copy() if self.one_dimensional else rows.copy()

    def encode(self, y: Any, n_samples: int) -> NDArray[np.float32]:
        scaled = np.broadcast_to((self._rows(y, n_samples) - self.mean) / self.scale, (n_samples, len(self.mean)))
        return np.column_stack([scaled, np.ones(n_samples)]).astype(np.float32)

    def _rows(self, y: Any, n_samples: int) -> NDArray[np.float64]:
        """Checked numbers (n_samples, k) or (1, k)."""
        try:
            rows = np.asarray(y, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"y must hold numbers, as in training: {error}.") from error
        k = len(self.mean)
        if rows.ndim < 2:
            rows = rows.reshape(-1, 1) if k == 1 else rows.reshape(1, -1)
        if rows.shape[1:] != (k,) or len(rows) not in (1, n_samples):
            raise ValueError(
                f"y has shape {np.shape(y)}; expected one condition of {k} number(s), or one for each of "
                f"{n_samples} samples."
            )
        if not np.isfinite(rows).all():
            raise ValueError("y contains NaN or infinity.")
        return rows

    def draw(self, n_samples: int, rng: np.random.RandomState) -> NDArray[Any]:
        rows = self.rows[rng.permutation(_systematic(self.shares, n_samples, rng))]
        return rows[:, 0] if self.one_dimensional else rows


def fit_conditions(y: Any, weight: NDArray[np.float64] | None) -> LabelEncoder | NumberEncoder:
    """Choose and fit an encoder for conditions `y` with row weights.

    Two-dimensional `y` are numbers. One-dimensional `y` are labels, unless they are floating point numbers with a
    fraction, or numbers of which more than 20 and more than a tenth of the rows are distinct.

    Raises
    ------
    ValueError
        For NaN, infinities, or several columns that are not numbers.
    """
    container = Container.of(y)
    values = np.asarray(y.detach().cpu().float() if str(getattr(y, "dtype", "")) == "torch.bfloat16" else y)
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind not in "biuf":
        values = values[:, 0]
    if values.ndim not in (1, 2):
        raise ValueError(f"y has {values.ndim} dimensions {values.shape}; expected labels (n,) or numbers (n, k).")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("Input y contains NaN or infinity.")
    if values.dtype.kind == "O" and any(map(_is_missing, values.ravel())):
        raise ValueError("Input y contains NaN or None.")
    if values.ndim == 2:
        if values.dtype.kind == "O" and all(isinstance(value, numbers.Real) for value in values.ravel()):
            values = values.astype(np.float64)  # columns of several dtypes
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"y has {values.shape[1]} columns of dtype {values.dtype}; several conditions must be numbers."
            )
        return NumberEncoder.fit(values, container, weight)
    return (NumberEncoder if _is_measurement(values) else LabelEncoder).fit(values, container, weight)


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither true nor false
        return True


def _is_measurement(y: NDArray[Any]) -> bool:
    """Whether one-dimensional conditions are amounts rather than labels."""
    if y.dtype.kind not in "iuf":
        return False
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        return True
    n_distinct = len(np.unique(y))
    return n_distinct > _MANY_VALUES and n_distinct > len(y) / 10


def _systematic(shares: NDArray[np.float64], n_samples: int, rng: np.random.RandomState) -> NDArray[np.intp]:
    """Systematic sampling: index i comes floor or ceil of ``n_samples * shares[i]`` times, on average exactly that."""
    points = (np.arange(n_samples) + rng.uniform()) / n_samples
    return np.minimum(np.searchsorted(np.cumsum(shares), points, side="right"), len(shares) - 1)
