"""Training rows of a forecaster: windows cut from trajectories when they are drawn, and rows cut beforehand."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowmatch.core.entries import with_entries
from flowmatch.fitting import EntryMasks, TrainingData
from flowmatch.preprocessing import SampleEncoder, Standardize, TrainingCodes, WindowEncoder, Windows

KEPT_ELEMENTS = 2**26
"""Most elements of states that are kept on the device; more are read and scaled when they are drawn."""


def n_sharing(encoder: WindowEncoder) -> int:
    """So many windows after another, windows of one trajectory still share states with it."""
    return encoder.n_lags + encoder.horizon - 1


@dataclass(frozen=True, kw_only=True)
class GroupedData(TrainingData):
    """Rows that belong to trajectories, which are held out whole.

    With noise, contexts are disturbed when they are drawn, while their targets stay the true ones. What the base of
    fields makes of the noise is taken off the codes, so that a network learns to lead disturbed states back: the noise
    injection of Sanchez-Gonzalez et al. (2020, section 3.2), which keeps rollouts stable. Of tables and series the
    network's input alone is disturbed, which keeps it from learning rows by heart.

    Attributes
    ----------
    encoder : WindowEncoder
    groups : Tensor of int, shape (n,)
        The trajectory of each row; rows of one stand together, in order of time.
    context_noise : float
        Standard deviation of the noise on contexts, in units of the states' own.
    """

    encoder: WindowEncoder
    groups: Tensor
    context_noise: float = 0.0
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def device(self) -> torch.device:
        return self.groups.device

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        codes, context = self.draw_clean(rows, generator)
        if self.context_noise == 0:
            return codes, context
        encoder, n_lagged = self.encoder, self.encoder.n_lags * len(self.encoder.mean)
        noise = torch.zeros(len(rows), encoder.n_columns, *encoder.grid.tolist(), device=codes.device)
        drawn = torch.randn(noise[:, :n_lagged].shape, generator=generator, device=codes.device)
        noise[:, :n_lagged] = self.context_noise * drawn
        vectors = (context.shape[1] - noise[0].numel(), 0)  # which stay as they are
        return codes - self.noise_in_codes(noise), context + F.pad(noise.flatten(1), vectors)

    @abstractmethod
    def draw_clean(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Codes and contexts without noise."""

    def noise_in_codes(self, noise: Tensor) -> Tensor | float:
        """What noise on contexts (B, n_columns, *grid) adds to the codes that it is to be led back by."""
        return 0.0

    def order(self, n_held_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows to train on and rows to hold out: whole trajectories, or where long ones have most rows the ends of all.

        Rows of a trajectory's beginning that share states with its end are left out.
        """
        n_rows, device, overlap = len(self), self.device, n_sharing(self.encoder)
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
            kept = (since < left - n_ends - overlap) | (n_ends == 0)
        if not bool(kept.any()):
            raise ValueError(
                f"holding out {n_held_out} of {n_rows} windows leaves none to train on, for each shares states with "
                f"the {overlap} after it: fit to longer trajectories, or with a smaller validation_fraction."
            )
        shuffled = torch.randperm(int(held_out.sum()), generator=generator, device=generator.device).to(device)
        return kept.nonzero()[:, 0], held_out.nonzero()[:, 0][shuffled]


@dataclass(frozen=True, kw_only=True)
class WindowRows(GroupedData):
    """Codes and contexts that were computed once, both on the device: tables and series.

    With `masks`, contexts end in which codes are absent (`flowmatch.core.entries`), which is where these are missing.
    """

    codes: TrainingCodes
    contexts: Tensor
    masks: EntryMasks | None = None

    def draw(self, rows: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        codes, context = super().draw(rows, generator)
        if self.masks is None:
            return codes, context
        given, absent = self.masks.draw(codes, generator)
        return codes.nan_to_num(0.0), with_entries(context, codes, given, absent)

    def draw_clean(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        return self.codes.draw(rows, generator), self.contexts[rows]

    def take(self, rows: Tensor) -> WindowRows:
        return replace(self, groups=self.groups[rows], codes=self.codes.take(rows), contexts=self.contexts[rows])

    def tensors(self) -> dict[str, Tensor | None]:
        return {**self.codes.tensors(), "contexts": self.contexts}


@dataclass(frozen=True, kw_only=True)
class FieldWindows(GroupedData):
    """Windows of fields, gathered from the states of the trajectories when they are drawn.

    Codes are NaN where targets are missing.

    Attributes
    ----------
    windows : Windows
    mean, scale : Tensor of shape (q, 1, ..., 1)
        Of what the base leaves.
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
    mean: Tensor
    scale: Tensor
    kept: Tensor | None
    kept_targets: Tensor | None
    rows: Tensor
    index: Tensor
    target_index: Tensor

    @classmethod
    def of(
        cls, windows: Windows, encoder: WindowEncoder, residuals: SampleEncoder, device: torch.device
    ) -> FieldWindows:
        """Windows whose states are kept on `device` if there is room."""
        frames, targets, transform = windows.frames, windows.targets, residuals.transform
        assert targets is not None
        assert isinstance(transform, Standardize)
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
        moments = torch.as_tensor(np.stack([transform.centre_, transform.scale_]), dtype=torch.float32, device=device)
        mean, scale = moments.reshape(2, -1, *[1] * len(encoder.grid))
        return cls(
            encoder=encoder,
            groups=torch.as_tensor(windows.groups, device=place),
            windows=windows,
            mean=mean,
            scale=scale,
            kept=kept,
            kept_targets=kept_targets,
            rows=torch.arange(len(windows), device=place),
            index=torch.as_tensor(windows.index, device=place),
            target_index=torch.as_tensor(windows.target_index, device=place),
        )

    def draw_clean(self, rows: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        context, targets = self._gather(self.rows[rows]) if self.kept is not None else self._read(self.rows[rows])
        codes = (targets.flatten(1, 2) - self.encoder.base(context) - self.mean) / self.scale
        if self.encoder.gaps_ahead:
            context[:, -codes.shape[1] :] = codes.isnan()
        conditions = self.windows.conditions
        known = None if conditions is None else conditions[self.rows[rows].cpu().numpy()]
        return codes, self.encoder.vectors(context, known)

    def noise_in_codes(self, noise: Tensor) -> Tensor:
        return (self.encoder.base(noise) - self.encoder.base(torch.zeros_like(noise[:1]))) / self.scale

    def take(self, rows: Tensor) -> FieldWindows:
        return replace(self, groups=self.groups[rows], rows=self.rows[rows])

    def tensors(self) -> dict[str, Tensor | None]:
        frames, targets = self.windows.frames, self.windows.targets
        states = [frames] if targets is None or targets is frames else [frames, targets]
        digests = [torch.tensor(list(part.digest())) for part in states]
        found = {"rows": self.rows, "index": self.index, "target_index": self.target_index}
        conditions = self.windows.conditions
        vectors = {} if conditions is None else {"conditions": torch.from_numpy(conditions)}
        return {"states": torch.cat(digests), **found, **vectors}

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
        every, device = rows.numpy(), self.scale.device
        context = self.encoder.read_contexts(self.windows, every)
        targets = self.encoder.target_states(self.windows.states_ahead(every))
        return context.to(device), targets.to(device)
