"""From conditions as a user states them to the vectors a network reads, as modules: what the encoders' `encode` does.

Each module states the shape and dtype of its input, and what the numbers mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowmatch.preprocessing import ConditionEncoder, GridEncoder, LabelEncoder, MixedEncoder, NumberEncoder


class ConditionInput(nn.Module, ABC):
    """Conditions (B, *shape) of `dtype` to vectors (B, size)."""

    shape: tuple[int, ...]
    dtype = torch.float32

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the numbers mean, for the file's metadata."""

    def example(self, n_rows: int) -> Tensor:
        """Some valid conditions."""
        return torch.zeros(n_rows, *self.shape, dtype=self.dtype)

    def _keep(self, name: str, values: Any, dtype: torch.dtype = torch.float32) -> None:
        self.register_buffer(name, torch.as_tensor(np.asarray(values)).to(dtype))


class LabelInput(ConditionInput):
    """Positions of labels in `classes_`, int64 of shape (B,)."""

    shape, dtype = (), torch.int64
    positions: Tensor

    def __init__(self, encoder: LabelEncoder) -> None:
        super().__init__()
        self.classes = plain(encoder.classes)
        self.register_buffer("positions", torch.arange(encoder.size))

    def describe(self) -> dict[str, Any]:
        return {"kind": "labels", "classes": self.classes, "meaning": "the position of each label in classes"}

    def forward(self, condition: Tensor) -> Tensor:
        return one_hot(condition, self.positions)


class NumberInput(ConditionInput):
    """Numbers in the user's units, float32 of shape (B, k)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, encoder: NumberEncoder) -> None:
        super().__init__()
        self.shape, self.columns = (len(encoder.mean),), encoder.columns
        self._keep("mean", encoder.mean)
        self._keep("scale", encoder.scale)

    def describe(self) -> dict[str, Any]:
        units = [None if column is None else [column.units[0], int(column.origins[0])] for column in self.columns]
        return {"kind": "numbers", "meaning": "numbers in the units of y"} | ({"units": units} if units else {})

    def forward(self, condition: Tensor) -> Tensor:
        scaled = (condition - self.mean) / self.scale
        return torch.cat([scaled, torch.ones_like(scaled[:, :1])], dim=1)


class MixedInput(NumberInput):
    """Columns of numbers in the user's units, and of labels by their positions; float32 of shape (B, k)."""

    def __init__(self, encoder: MixedEncoder) -> None:
        super().__init__(encoder)  # type: ignore[arg-type]  # only mean and scale are read
        self.classes = [plain(labels) for labels in encoder.classes]
        for j, labels in enumerate(self.classes):
            self.register_buffer(f"positions_{j}", torch.arange(len(labels)))

    def describe(self) -> dict[str, Any]:
        meaning = "a column each: numbers in the units of y, labels by their position in classes"
        return {"kind": "mixed", "classes": self.classes, "meaning": meaning}

    def forward(self, condition: Tensor) -> Tensor:
        scaled = super().forward(condition)  # ends in the column of ones
        columns = []
        for j, labels in enumerate(self.classes):
            column = scaled[:, j]
            known = getattr(self, f"positions_{j}")
            columns.append(one_hot(column.long(), known) if labels else column[:, None])
        return torch.cat([*columns, scaled[:, -1:]], dim=1)


class GridInput(ConditionInput):
    """Grids in the user's units, float32 of shape (B, channels, *grid)."""

    centre: Tensor
    scale: Tensor

    def __init__(self, encoder: GridEncoder) -> None:
        super().__init__()
        self.shape = encoder.grids.sample_shape
        transform: Any = encoder.grids.transform
        ones = [1] * (len(self.shape) - 1)
        self._keep("centre", transform.centre_.reshape(-1, *ones))
        self._keep("scale", transform.scale_.reshape(-1, *ones))

    def describe(self) -> dict[str, Any]:
        return {"kind": "grids", "meaning": "grids in the units of y"}

    def forward(self, condition: Tensor) -> Tensor:
        scaled = ((condition - self.centre) / self.scale).flatten(1)
        return torch.cat([torch.ones_like(scaled[:, :1]), scaled], dim=1)


_INPUTS: dict[type[ConditionEncoder], Any] = {
    LabelEncoder: LabelInput,
    NumberEncoder: NumberInput,
    MixedEncoder: MixedInput,
    GridEncoder: GridInput,
}


def condition_input(encoder: ConditionEncoder) -> ConditionInput:
    """The module that does what a fitted encoder does."""
    return _INPUTS[type(encoder)](encoder)


def one_hot(labels: Tensor, positions: Tensor) -> Tensor:
    """Labels (B,) as vectors (B, len(positions)); looked up, so that a runtime refuses those out of range."""
    return (positions.index_select(0, labels)[:, None] == positions).float()


def plain(values: Any) -> list[Any]:
    """Labels or names as JSON holds them: numbers, booleans and text stay, whatever else becomes text."""
    known = (str, int, float, bool)
    return [value if isinstance(value, known) else str(value) for value in np.asarray(values).tolist()]
