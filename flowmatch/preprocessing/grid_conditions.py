"""Conditions that are grids themselves: an image for an image, a state for a state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowmatch.core.storable import require, storable
from flowmatch.core.types import AnyArray, Array, Array32
from flowmatch.preprocessing.conditions import ConditionEncoder, Conditions
from flowmatch.preprocessing.samples import SampleEncoder
from flowmatch.preprocessing.scaling import Standardize
from flowmatch.preprocessing.training_codes import StoredCodes, TrainingCodes
from flowmatch.tables.containers import Container
from flowmatch.tables.rows import SampleRows


@dataclass(frozen=True)
class StoredConditions(Conditions):
    """Vectors that end in a grid, which is drawn like the training codes of samples.

    Parameters
    ----------
    vectors : Tensor of shape (n, k)
        Where they begin.
    grids : TrainingCodes or StoredCodes
        Where they end.
    """

    grids: TrainingCodes | StoredCodes

    def draw(self, rows: Tensor) -> Tensor:
        grids = self.grids.draw(rows.to(self.grids.device)).flatten(1)
        return torch.cat([super().draw(rows).to(grids.device), grids], dim=1)

    def take(self, rows: Tensor) -> StoredConditions:
        return StoredConditions(super().draw(rows), self.grids.take(rows.to(self.grids.device)))

    def tensors(self) -> dict[str, Tensor | None]:
        return {f"condition.{name}": value for name, value in self.grids.tensors().items()}


@storable
@dataclass(frozen=True, eq=False)
class GridEncoder(ConditionEncoder):
    """A 1 that tells it from "no condition", and the grid, standardized per channel and flattened.

    Training conditions are not kept, so `draw` refuses.

    Parameters
    ----------
    container : Container
        What the grids came in.
    grids : SampleEncoder
        Their scale.
    """

    container: Container
    grids: SampleEncoder

    @classmethod
    def fit(cls, y: Any, container: Container, weight: Array | None) -> GridEncoder:
        """Learn the scale of the channels.

        Parameters
        ----------
        y : array-like of shape (n, channels, *grid)
            Conditions.
        container : Container
            What they came in.
        weight : ndarray of shape (n,) or None
            Weights of their rows.

        Returns
        -------
        GridEncoder
            Fitted to the conditions.
        """
        return cls(container, SampleEncoder.fit(_checked(y), container, Standardize(), weight))

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored encoder do not fit each other."""
        require(not self.grids.is_table, "grids")

    @property
    def context_channels(self) -> int:
        return self.grids.sample_shape[0]

    @property
    def size(self) -> int:
        return 1 + math.prod(self.grids.sample_shape)

    def training_vectors(self, y: Any, device: torch.device) -> StoredConditions:
        codes = self.grids.training_codes(self._rows(y, len(y)), device)
        return StoredConditions(torch.ones(len(y), 1, device=device), codes)

    def expand(self, y: Any, n_samples: int) -> AnyArray:
        rows = self._rows(y, n_samples).array()
        return np.broadcast_to(rows, (n_samples, *rows.shape[1:])).copy()

    def encode(self, y: Any, n_samples: int) -> Array32:
        return self.pieces(y, n_samples)(slice(0, n_samples))

    def pieces(self, y: Any, n_samples: int) -> Callable[[slice], Array32]:
        rows = self._rows(y, n_samples)

        def piece(part: slice) -> Array32:
            wanted = np.arange(part.start, part.stop) if len(rows) > 1 else np.zeros(1, dtype=np.intp)
            vectors = np.ones((part.stop - part.start, self.size), dtype=np.float32)
            vectors[:, 1:] = self.grids.encode(rows.read(wanted)).reshape(len(wanted), -1)
            return vectors

        return piece

    def draw(self, n_samples: int, rng: np.random.RandomState) -> AnyArray:
        raise ValueError("the model is conditioned on grids, which it does not keep: pass them as y.")

    def _rows(self, y: Any, n_samples: int) -> SampleRows:
        """Checked grids, (n_samples, channels, *grid) or one for all."""
        shape = self.grids.sample_shape
        y = y if hasattr(y, "shape") else np.asarray(y)
        if tuple(y.shape) == shape:
            y = y[None]
        if tuple(y.shape[1:]) != shape or len(y) not in (1, n_samples):
            raise ValueError(
                f"y has shape {tuple(y.shape)}; expected one grid of shape {shape}, or one for each of {n_samples} "
                "samples."
            )
        return _checked(y)


def _checked(y: Any) -> SampleRows:
    rows = SampleRows(y)
    if not rows.is_real:
        raise ValueError(f"y has dtype {rows.dtype}; grids must hold real numbers.")
    if not rows.summary.finite:
        raise ValueError("y contains NaN or infinity.")
    return rows
