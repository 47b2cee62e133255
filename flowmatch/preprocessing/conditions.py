"""Conditions: labels of any dtype, or numbers, as vectors a network can read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.storable import require, storable
from flowmatch.preprocessing.containers import Container


@dataclass(frozen=True)
class Conditions:
    """Vectors (n, k) of the training rows' conditions."""

    vectors: Tensor

    def draw(self, rows: Tensor) -> Tensor:
        """Vectors of the given rows."""
        return self.vectors[rows.to(self.vectors.device)]

    def take(self, rows: Tensor) -> Conditions:
        """A subset of the rows."""
        return Conditions(self.draw(rows))

    def tensors(self) -> dict[str, Tensor | None]:
        """What identifies the conditions, for fingerprints."""
        return {"condition": self.vectors}


class ConditionEncoder(ABC):
    """Fitted map from conditions to vectors. A vector of zeros never occurs: it stands for "no condition".

    Attributes
    ----------
    size : int
        Length of a condition's vector.
    """

    container: Container
    context_channels = 0
    """Channels of a grid that the last numbers of a vector hold, flattened."""

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

    def training_vectors(self, y: Any, device: torch.device) -> Conditions:
        """The conditions of the training rows, to be drawn from."""
        return Conditions(torch.as_tensor(self.encode(y, len(y)), device=device))

    def pieces(self, y: Any, n_samples: int) -> Callable[[slice], NDArray[np.float32]]:
        """The vectors of `encode`, a piece at a time."""
        return self.encode(y, n_samples).__getitem__

    @abstractmethod
    def draw(self, n_samples: int, rng: np.random.RandomState) -> NDArray[Any]:
        """Conditions as they occur in the training data, each as often as its share, to within one."""


@storable
@dataclass(frozen=True, eq=False)
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
        classes, codes = find_classes(y)
        total = np.bincount(codes, weights=weight, minlength=len(classes))
        return cls(container, classes, total / total.sum(), np.bincount(codes, minlength=len(classes)))

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        require(self.classes.ndim == 1 and self.counts.shape == self.classes.shape, "classes")
        check_shares(self.shares, len(self.classes))

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
        codes = positions_of(labels, self.classes)
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
        return self.classes[rng.permutation(systematic_sample(self.shares, n_samples, rng))]


@storable
@dataclass(frozen=True, eq=False)
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
        varies = (np.ptp(rows, axis=0) > 0) & (scale > 0)  # rounding gives equal numbers a deviation
        return cls(container, mean, np.where(varies, scale, 1.0), rows, shares, y.ndim == 1)

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        check_scales(self.mean, self.scale)
        require(self.rows.ndim == 2 and self.rows.shape[1:] == self.mean.shape, "rows")
        require(np.isfinite(self.rows).all(), "rows")
        require(not self.one_dimensional or len(self.mean) == 1, "one_dimensional")
        check_shares(self.shares, len(self.rows))

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
        rows = self.rows[rng.permutation(systematic_sample(self.shares, n_samples, rng))]
        return rows[:, 0] if self.one_dimensional else rows


def systematic_sample(shares: NDArray[np.float64], n_samples: int, rng: np.random.RandomState) -> NDArray[np.intp]:
    """Systematic sampling: index i comes floor or ceil of ``n_samples * shares[i]`` times, on average exactly that."""
    points = (np.arange(n_samples) + rng.uniform()) / n_samples
    return np.minimum(np.searchsorted(np.cumsum(shares), points, side="right"), len(shares) - 1)


def check_shares(shares: NDArray[np.float64], n: int, what: str = "shares") -> None:
    """Raise a ValueError unless these are weights of `n` things, some of them positive."""
    require(shares.shape == (n,) and (shares >= 0).all() and 0 < shares.sum() < np.inf, what)


def check_scales(mean: NDArray[np.float64], scale: NDArray[np.float64], what: str = "scale") -> None:
    """Raise a ValueError unless these are means and positive scales of some columns."""
    require(mean.ndim == 1 and mean.shape == scale.shape, what)
    require(np.isfinite([mean, scale]).all() and (scale > 0).all(), what)


def find_classes(labels: NDArray[Any], what: str = "y") -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Distinct labels in order, and the position of each label among them.

    Raises
    ------
    ValueError
        If their types cannot be sorted.
    """
    try:
        return np.unique(labels, return_inverse=True)
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in labels})
        raise ValueError(
            f"{what} mixes types that cannot be sorted: {', '.join(kinds)}. Make all labels one type."
        ) from error


def positions_of(labels: NDArray[Any], classes: NDArray[Any], what: str = "y") -> NDArray[np.intp]:
    """Positions of labels in `classes`.

    Raises
    ------
    ValueError
        For labels that were not there in training.
    """
    positions = {label: position for position, label in enumerate(classes.tolist())}
    codes = np.array([positions.get(label, -1) for label in labels.tolist()], dtype=np.intp)
    if (codes < 0).any():
        known = ", ".join(repr(label) for label in list(positions)[:20])
        raise ValueError(
            f"{what} holds the label {labels.tolist()[np.argmin(codes)]!r}, which was not there in training. "
            f"Known labels: {known}{', ...' if len(positions) > 20 else ''}."
        )
    return codes
