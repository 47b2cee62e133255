"""Training sets that batches of codes are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowmatch.core.types import Array
from flowmatch.preprocessing.scaling import ColumnTransform
from flowmatch.tables.rows import SampleRows


@dataclass(frozen=True)
class TrainingCodes:
    """Codes of the training set on the device, or the intervals to draw them from.

    Parameters
    ----------
    transform : ColumnTransform
        Draws codes from intervals.
    low : Tensor of shape (n, *code_shape)
        Codes, or lower bounds of the intervals.
    high : Tensor of shape (n, *code_shape) or None
        Upper bounds; None where codes are fixed.
    """

    transform: ColumnTransform
    low: Tensor
    high: Tensor | None

    def __len__(self) -> int:
        return len(self.low)

    @property
    def device(self) -> torch.device:
        """Where row numbers are wanted."""
        return self.low.device

    def tensors(self) -> dict[str, Tensor | None]:
        """Return what identifies the data, for fingerprints.

        Returns
        -------
        dict of Tensor
            By name.
        """
        return {"low": self.low, "high": self.high}

    def take(self, rows: Tensor) -> TrainingCodes:
        """Take a subset of the rows.

        Parameters
        ----------
        rows : Tensor of shape (B,)
            Their numbers.

        Returns
        -------
        TrainingCodes
            The subset.
        """
        return TrainingCodes(self.transform, self.low[rows], None if self.high is None else self.high[rows])

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes of some rows.

        Parameters
        ----------
        rows : Tensor of shape (B,)
            Their numbers.
        generator : torch.Generator or None, default=None
            Where random numbers come from; None for the global generator.

        Returns
        -------
        Tensor of shape (B, *code_shape)
            Codes on the device.
        """
        high = None if self.high is None else self.high[rows]
        return self.transform.draw_codes(self.low[rows], high, generator)


@dataclass(frozen=True)
class StoredCodes:
    """A training set that stays where it is; batches are read, encoded and moved to the device.

    Parameters
    ----------
    transform : ColumnTransform
        Draws codes from intervals.
    bounds : callable
        From samples to what their codes are drawn from (`SampleEncoder.training_bounds`).
    rows : SampleRows
        The samples.
    target : torch.device
        Where batches are moved.
    """

    transform: ColumnTransform
    bounds: Callable[[Array], tuple[Tensor, Tensor | None]]
    rows: SampleRows
    target: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def device(self) -> torch.device:
        """Where row numbers are wanted."""
        return torch.device("cpu")

    def tensors(self) -> dict[str, Tensor | None]:
        """Return what identifies the data, for fingerprints.

        Returns
        -------
        dict of Tensor
            By name.
        """
        return {"rows": torch.tensor(list(self.rows.digest()))}

    def take(self, rows: Tensor) -> StoredCodes:
        """Take a subset of the rows.

        Parameters
        ----------
        rows : Tensor of shape (B,)
            Their numbers.

        Returns
        -------
        StoredCodes
            The subset.
        """
        return replace(self, rows=self.rows.take(rows.numpy()))

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw codes of some rows.

        Parameters
        ----------
        rows : Tensor of shape (B,)
            Their numbers.
        generator : torch.Generator or None, default=None
            Where random numbers come from; None for the global generator.

        Returns
        -------
        Tensor of shape (B, *code_shape)
            Codes on the device.
        """
        low, high = self.bounds(self.rows.read(rows.numpy()))
        high = None if high is None else high.to(self.target)
        return self.transform.draw_codes(low.to(self.target), high, generator)
