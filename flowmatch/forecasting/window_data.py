"""Training rows of a forecaster: windows cut from trajectories when they are drawn, and rows cut beforehand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowmatch.fitting import TrainingData
from flowmatch.preprocessing import SampleEncoder, Standardize, TrainingCodes, WindowEncoder, Windows

KEPT_ELEMENTS = 2**26
"""Most elements of states that are kept on the device; more are read and scaled when they are drawn."""


@dataclass(frozen=True, kw_only=True)
class GroupedData(TrainingData):
    """Rows that belong to trajectories, which are held out whole.

    Attributes
    ----------
    groups : Tensor of int, shape (n,)
        The trajectory of each row; rows of one stand together, in order of time.
    overlap : int
        So many rows after another, rows of one trajectory still share states with it.
    """

    groups: Tensor
    overlap: int
    weight: Tensor | None = None

    def order(self, n_held_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows to train on and rows to hold out: whole trajectories, or where long ones have most rows the ends of all.

        Rows of a trajectory's beginning that share states with its end are left out.
        """
        n_rows, device = len(self), self.groups.device
        names, place = torch.unique(self.groups, return_inverse=True)
        sizes = torch.bincount(place, minlength=len(names))
        some = torch.randperm(len(names), generator=generator, device=generator.device).to(device)
        if int(sizes.max()) * n_held_out > 0.5 * n_rows:  # the ends of shorter trajectories would be no row at all
            some = some[sizes[some] <= 2 * n_held_out]
        if len(names) > 1 and 2 * int(sizes[some].sum()) >= n_rows:
            misses = (sizes[some[: len(names) - 1]].cumsum(0) - n_held_out).abs()
            held_out = torch.isin(place, some[: int(misses.argmin()) + 1])
            kept = ~held_out
        else:
            first = sizes.cumsum(0) - sizes
            since, left = torch.arange(n_rows, device=device) - first[place], sizes[place]
            n_ends = (left * n_held_out / n_rows).round()
            held_out = since >= left - n_ends
            kept = (since < left - n_ends - self.overlap) | (n_ends == 0)
        if not bool(kept.any()):
            raise ValueError(
                f"holding out {n_held_out} of {n_rows} windows leaves none to train on, for each shares states with "
                f"the {self.overlap} after it: fit to longer trajectories, or with a smaller validation_fraction."
            )
        shuffled = torch.randperm(int(held_out.sum()), generator=generator, device=generator.device).to(device)
        return kept.nonzero()[:, 0], held_out.nonzero()[:, 0][shuffled]


@dataclass(frozen=True, kw_only=True)
class WindowRows(GroupedData):
    """Codes and contexts that were computed once, both on the device: tables and series."""

    codes: TrainingCodes
    contexts: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return self.codes.draw(rows, generator), self.contexts[rows]

    def take(self, rows: Tensor) -> WindowRows:
        return replace(self, groups=self.groups[rows], codes=self.codes.take(rows), contexts=self.contexts[rows])

    def tensors(self) -> dict[str, Tensor | None]:
        return {**self.codes.tensors(), "contexts": self.contexts}


@dataclass(frozen=True, kw_only=True)
class FieldWindows(GroupedData):
    """Windows of fields, gathered from the states of the trajectories when they are drawn.

    Attributes
    ----------
    windows : Windows
    encoder : WindowEncoder
    residuals : tuple of Tensor
        Mean and scale (q,) of what the base leaves.
    kept : Tensor or None
        All standardized states on the device; None where there are too many, which are read when they are drawn.
    kept_targets : Tensor or None
        Those of targets, if they are others.
    rows : Tensor
        Positions of the windows, on the CPU unless states are kept.
    index, target_index : Tensor of int, shape (n, n_lags) and (n, horizon)
        The frames of all windows.
    """

    windows: Windows
    encoder: WindowEncoder
    residuals: tuple[Tensor, Tensor]
    kept: Tensor | None
    kept_targets: Tensor | None
    rows: Tensor
    index: Tensor
    target_index: Tensor

    @classmethod
    def of(
        cls, windows: Windows, encoder: WindowEncoder, residuals: tuple[Any, Any], device: torch.device, overlap: int
    ) -> FieldWindows:
        """Windows whose states are kept on `device` if there is room."""
        frames, targets = windows.frames, windows.targets
        assert targets is not None
        assert windows.target_index is not None
        size = frames.size + (0 if targets is frames else targets.size)
        keep = frames.in_memory and targets.in_memory and size <= KEPT_ELEMENTS
        place = device if keep else torch.device("cpu")
        kept = kept_targets = None
        if keep:
            kept = torch.cat([encoder.states(chunk).to(device) for _, chunk in frames.chunks()])
            if targets is not frames:
                kept_targets = torch.cat(
                    [encoder.target_states(chunk[:, None])[:, 0].to(device) for _, chunk in targets.chunks()]
                )
        mean, scale = (torch.as_tensor(part, dtype=torch.float32, device=device) for part in residuals)
        return cls(
            groups=torch.as_tensor(windows.groups, device=place),
            overlap=overlap,
            windows=windows,
            encoder=encoder,
            residuals=(mean, scale),
            kept=kept,
            kept_targets=kept_targets,
            rows=torch.arange(len(windows), device=place),
            index=torch.as_tensor(windows.index, device=place),
            target_index=torch.as_tensor(windows.target_index, device=place),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def device(self) -> torch.device:
        return self.rows.device

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        context, targets = self._gather(self.rows[rows]) if self.kept is not None else self._read(self.rows[rows])
        mean, scale = (part.reshape(-1, *[1] * len(self.encoder.grid)) for part in self.residuals)
        codes = (targets.flatten(1, 2) - self.encoder.base(context) - mean) / scale
        return codes, context.flatten(1)

    def take(self, rows: Tensor) -> FieldWindows:
        return replace(self, groups=self.groups[rows], rows=self.rows[rows])

    def tensors(self) -> dict[str, Tensor | None]:
        frames, targets = self.windows.frames, self.windows.targets
        states = [frames] if targets is None or targets is frames else [frames, targets]
        digests = [torch.tensor(list(part.digest())) for part in states]
        return {"states": torch.cat(digests), "rows": self.rows, "index": self.index, "target_index": self.target_index}

    def _gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts (B, m, *grid) and targets (B, horizon, n_targets, *grid) of states on the device."""
        assert self.kept is not None
        encoder, ahead = self.encoder, self.target_index[rows]
        if self.kept_targets is not None:
            return encoder.join(self.kept[self.index[rows]], None, None), self.kept_targets[ahead]
        following = self.kept[ahead]
        every = len(encoder.targets) == following.shape[2]
        targets = following if every else following[:, :, encoder.targets]
        known = following[:, :, encoder.known] if len(encoder.known) else None
        return encoder.join(self.kept[self.index[rows]], known, None), targets

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of states that are read now."""
        every, device = rows.numpy(), self.residuals[0].device
        context = self.encoder.read_contexts(self.windows, every)
        targets = self.encoder.target_states(self.windows.states_ahead(every))
        return context.to(device), targets.to(device)


@dataclass(frozen=True)
class NoisyContexts(TrainingData):
    """Rows whose contexts are disturbed when they are drawn, while their targets stay the true ones.

    What the base of fields makes of the noise is taken off the codes, so that a network learns to lead disturbed states
    back: the noise injection of Sanchez-Gonzalez et al. (2020, section 3.2), which keeps rollouts stable. Of tables and
    series the network's input alone is disturbed, which keeps it from learning rows by heart.

    Attributes
    ----------
    data : TrainingData
    encoder : WindowEncoder
    residuals : SampleEncoder
        From what the base leaves to codes, standardized.
    noise : float
        Standard deviation, in units of the states' own.
    """

    data: TrainingData
    encoder: WindowEncoder
    residuals: SampleEncoder
    noise: float

    @property
    def weight(self) -> Tensor | None:  # type: ignore[override]
        return self.data.weight

    def __len__(self) -> int:
        return len(self.data)

    @property
    def device(self) -> torch.device:
        return self.data.device

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        codes, context = self.data.draw(rows, generator)
        assert context is not None
        encoder, n_lagged = self.encoder, self.encoder.n_lags * len(self.encoder.mean)
        noise = torch.zeros(len(rows), encoder.n_columns, *encoder.grid.tolist(), device=codes.device)
        drawn = torch.randn(noise[:, :n_lagged].shape, generator=generator, device=codes.device)
        noise[:, :n_lagged] = self.noise * drawn
        if self.residuals.is_table:
            return codes, context + noise
        shift = encoder.base(noise) - encoder.base(torch.zeros_like(noise[:1]))
        assert isinstance(self.residuals.transform, Standardize)
        scale = torch.as_tensor(self.residuals.transform.scale_, dtype=shift.dtype, device=shift.device)
        return codes - shift / scale.reshape(-1, *[1] * len(encoder.grid)), context + noise.flatten(1)

    def take(self, rows: Tensor) -> NoisyContexts:
        return replace(self, data=self.data.take(rows))

    def tensors(self) -> dict[str, Tensor | None]:
        return self.data.tensors()
