"""The training set, and losses over its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowmatch.core.entries import with_entries
from flowmatch.core.randomness import generator_on
from flowmatch.model import MissingValueModel
from flowmatch.preprocessing import Conditions, FactorModel, SampleEncoder, StoredCodes, TrainingCodes

BatchLoss = Callable[..., Tensor]
"""``loss(network, x1, condition, generator) -> (B,)``."""

_BANK = 4096
"""Most (row, noise, time) triples that a validation loss averages over; rows are in random order already."""

_BANK_ELEMENTS = 2**21
"""Most numbers in them; at least 256 triples are used."""

_PIECE_ELEMENTS = 2**18
"""Numbers that the network is given at once."""


class TrainingData(ABC):
    """The training rows, drawn from by number.

    Attributes
    ----------
    weight : Tensor of shape (n,) or None
        Weights of the rows.
    """

    weight: Tensor | None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where row numbers and weights live; what is drawn is on the device of training."""

    @abstractmethod
    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        """Codes (B, *code_shape) of the given rows, and the vectors (B, k) of their conditions if there are any."""

    @abstractmethod
    def take(self, rows: Tensor) -> TrainingData:
        """A subset of the rows."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor | None]:
        """What identifies the data, for fingerprints."""

    def order(self, n_held_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers of the rows to train on and of about `n_held_out` rows to hold out, in random order."""
        order = torch.randperm(len(self), generator=generator, device=generator.device).to(self.device)
        return order[n_held_out:], order[:n_held_out]

    def split(self, fraction: float, generator: torch.Generator) -> tuple[TrainingData, TrainingData | None]:
        """Hold out a random `fraction` of the rows; nothing is held out of 0.

        Raises
        ------
        ValueError
            If too few rows are left on either side.
        """
        if fraction == 0:
            return self, None
        n_rows = len(self)
        n_held_out = round(fraction * n_rows)
        if not 1 <= n_held_out <= n_rows - 2:
            raise ValueError(
                f"validation_fraction={fraction:g} of {n_rows} rows leaves {n_rows - n_held_out} to train on and "
                f"{n_held_out} to validate with; at least 2 and 1 are needed."
            )
        kept, held_out = self.order(n_held_out, generator)
        return self.take(kept), self.take(held_out)

    def loss_of(self, objective: BatchLoss) -> Callable[[nn.Module, Tensor, torch.Generator | None], Tensor]:
        """The objective as a function of row numbers, as the training loop wants it."""

        def batch_loss(network: nn.Module, rows: Tensor, generator: torch.Generator | None) -> Tensor:
            codes, condition = self.draw(rows, generator)
            return objective(network, codes, condition, generator)

        return batch_loss

    def bank_loss(self, objective: BatchLoss, device: torch.device, seed: int) -> Callable[[nn.Module], Tensor]:
        """The mean loss on a fixed bank of rows, noise and times: two calls differ by the weights alone."""
        batch_loss = self.loss_of(objective)
        every_row = torch.arange(len(self), device=self.device)
        size = self.draw(every_row[:1], generator_on(device, seed))[0].numel()
        n_triples = min(_BANK, max(256, _BANK_ELEMENTS // size))
        rows = every_row.repeat(max(1, n_triples // len(every_row)))[:n_triples]
        pieces = rows.split(max(1, _PIECE_ELEMENTS // size))

        def validation_loss(network: nn.Module) -> Tensor:
            generator = generator_on(device, seed)
            losses = torch.cat([batch_loss(network, piece, generator) for piece in pieces])
            return losses.mean() if self.weight is None else (losses * self.weight[rows].to(device)).mean()

        return validation_loss


@dataclass(frozen=True)
class EntryMasks:
    """Draws which entries of a table's rows are shown to the network instead of being generated.

    In a `share` of the rows every column is given with the row's own probability, drawn uniformly from [0, 1], so that
    all counts of given entries are equally likely; in half of these rows the other columns are absent with another such
    probability. Cells that are missing are absent in every row.

    Attributes
    ----------
    share : float
    groups : Tensor of int, shape (d,), or None
        Numbers of the columns that the codes belong to: a column is given or absent as a whole. None: one code each.
    factors : FactorModel or None
        Says where the noise of a row starts of which something is given; None: it is standard noise.
    """

    share: float
    groups: Tensor | None
    factors: FactorModel | None = None

    @classmethod
    def of(cls, encoder: SampleEncoder, missing: MissingValueModel, device: torch.device) -> EntryMasks:
        """The masks for rows of a table on a device."""
        columns, groups = np.unique(encoder.code_columns, return_inverse=True)
        factors = None if missing.guess is None else missing.guess.to(device)
        shared = None if len(columns) == len(groups) else torch.as_tensor(groups, device=device)
        return cls(missing.masked_share, shared, factors)

    def draw(self, codes: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Masks of zeros and ones for given and absent codes, (B, d) each; missing codes are NaN."""
        missing, n_rows = codes.isnan(), len(codes)
        place: dict[str, Any] = {"generator": generator, "device": codes.device}
        chance, p_given, p_absent = torch.rand(3, n_rows, 1, **place)
        u, v = torch.rand(2, *codes.shape, **place)
        if self.groups is not None:
            u, v = u[:, self.groups], v[:, self.groups]  # one draw for all codes of a column
        given = (u < torch.where(chance < self.share, p_given, 0.0)) & ~missing
        absent = missing | ((v < torch.where(chance < 0.5 * self.share, p_absent, 0.0)) & ~given)
        return given.to(codes.dtype), absent.to(codes.dtype)


@dataclass(frozen=True)
class RowData(TrainingData):
    """Rows of a table, or grids: codes, conditions and weights (n,); the last two may be absent.

    All live where ``codes.device`` says; batches are moved to the device of training. With `masks`, conditions end in
    the row's entries that are given or absent (`flowmatch.core.entries`), and codes are zero there.
    """

    codes: TrainingCodes | StoredCodes
    condition: Conditions | None
    weight: Tensor | None
    masks: EntryMasks | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor | None]:
        codes = self.codes.draw(rows, generator)
        condition = None if self.condition is None else self.condition.draw(rows).to(codes.device)
        if self.masks is None:
            return codes, condition
        given, absent = self.masks.draw(codes, generator)
        start = None if self.masks.factors is None else self.masks.factors.guess(codes, given)
        return torch.where(given + absent > 0, 0.0, codes), with_entries(condition, codes, given, absent, start)

    def take(self, rows: Tensor) -> RowData:
        condition = None if self.condition is None else self.condition.take(rows)
        weight = None if self.weight is None else self.weight[rows]
        return RowData(self.codes.take(rows), condition, weight, self.masks)

    def tensors(self) -> dict[str, Tensor | None]:
        condition = {} if self.condition is None else self.condition.tensors()
        return {**self.codes.tensors(), **condition, "weight": self.weight}
