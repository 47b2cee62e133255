"""Ensembles of forecasts: draws of one block, and rollouts, each member its own trajectory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch._batches import BLOCK_NUMBERS
from flowmatch.preprocessing import SampleEncoder, WindowEncoder, Windows

DIVERGED = 1e3
"""A state so many standard deviations from the mean of the training data has diverged."""

Carry = Callable[[Tensor, Tensor], Tensor]
"""Noise (B, *code_shape) and vectors of conditions (B, k) to codes (B, *code_shape)."""


@dataclass(frozen=True)
class Ensemble:
    """Draws forecasts of windows.

    Attributes
    ----------
    encoder : WindowEncoder
    residuals : SampleEncoder
        From what the base leaves of targets to codes.
    carry : callable
        See `Carry`.
    draw_noise : callable ``(n, generator) -> (n, *code_shape)``
    device : torch.device
    """

    encoder: WindowEncoder
    residuals: SampleEncoder
    carry: Carry
    draw_noise: Callable[[int, torch.Generator], Tensor]
    device: torch.device

    def draw(
        self, windows: Windows, n_samples: int, generator: torch.Generator, *, shared: bool = False
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Forecasts (n_samples, B, horizon, n_targets, *grid) of a block of windows at a time.

        With `shared` noise every window gets the same draws, which come in pairs of opposite sign: forecasts of one
        window then do not depend on the others, and their mean is nearly that of many more.
        """
        numbers = int(np.prod(self.encoder.target_shape))
        noise = self._pairs(n_samples, generator) if shared else None
        for rows in _blocks(len(windows), n_samples * max(numbers, self.encoder.size)):
            every = np.arange(rows.start, rows.stop)
            context = self.encoder.read_contexts(windows, every).to(self.device)
            if noise is None:
                drawn = self.draw_noise(n_samples * len(every), generator)
            else:
                drawn = noise.repeat_interleave(len(every), dim=0)
            states = self._advance(_repeat(context, n_samples), drawn)
            forecasts = self.encoder.restore(states.cpu().double().numpy())
            yield rows, forecasts.reshape(n_samples, len(every), *forecasts.shape[1:])

    def roll(
        self,
        windows: Windows,
        n_steps: int,
        n_samples: int,
        generator: torch.Generator,
        calendar: Callable[[int], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Rollouts (n_samples, n, n_steps, n_targets, *grid); see `ConditionalForecaster.rollout`."""
        encoder, n = self.encoder, len(windows)
        every = np.arange(n)
        lags = _repeat(encoder.states(windows.contexts(every)).to(self.device), n_samples)
        ahead = None if windows.ahead is None else encoder.known_ahead(windows.ahead)
        shape = (n_samples, n, n_steps, len(encoder.target_mean), *encoder.grid.tolist())
        states = np.full(shape, np.nan)
        alive = torch.ones(len(lags), dtype=torch.bool, device=self.device)
        first_lost: int | None = None
        for start in range(0, n_steps, encoder.horizon):
            known = None if ahead is None else _padded(ahead[:, start : start + encoder.horizon], encoder.horizon)
            features = torch.from_numpy(calendar(start).astype(np.float32)).to(self.device)
            context = encoder.join(
                lags,
                None if known is None else _repeat(known.to(self.device), n_samples),
                _repeat(features, n_samples),
            )
            block = self._advance(context, self.draw_noise(len(lags), generator))
            block = block[:, : n_steps - start]
            good = (torch.nan_to_num(block, nan=torch.inf).abs() <= DIVERGED).flatten(2).all(dim=2)
            good = (good.cumprod(dim=1) * alive[:, None]).bool()
            if not bool(good.all()):
                lost = int((~good).any(dim=0).float().argmax()) + start
                first_lost = lost if first_lost is None else first_lost
                block = torch.where(good.reshape(*good.shape, *[1] * (block.ndim - 2)), block, torch.nan)
                alive = good[:, -1]
            values = encoder.restore(block.cpu().double().numpy())
            states[:, :, start : start + block.shape[1]] = values.reshape(n_samples, n, *values.shape[1:])
            if not bool(alive.any()):
                break
            if start + encoder.horizon < n_steps:
                lags = self._moved_on(lags, torch.nan_to_num(block, nan=0.0), known, n_samples)
        if first_lost is not None:
            warnings.warn(
                f"the rollout diverged: {int((~alive).sum())} of {len(alive)} trajectories left the range of the "
                f"training data {DIVERGED:g} times over, the first at step {first_lost + 1} of {n_steps}. Their states "
                "from there on are NaN. Fit with context_noise > 0, or for longer.",
                UserWarning,
                stacklevel=4,
            )
        return states

    def _advance(self, context: Tensor, noise: Tensor) -> Tensor:
        """Standardised targets (B, horizon, n_targets, *grid) for contexts (B, m, *grid)."""
        codes = self.carry(noise, context.flatten(1))
        residual = torch.from_numpy(self.residuals.decode(codes.cpu().double().numpy()).astype(np.float32))
        residual = residual.to(context.device)
        return (self.encoder.base(context) + residual).unflatten(1, (self.encoder.horizon, -1))

    def _moved_on(self, lags: Tensor, block: Tensor, known: Tensor | None, n_samples: int) -> Tensor:
        """The last states (B, n_lags, n_columns, *grid), once those of a block have come to pass."""
        encoder = self.encoder
        following = lags.new_zeros(len(lags), block.shape[1], *lags.shape[2:])
        following[:, :, torch.as_tensor(encoder.targets, device=lags.device)] = block
        if known is not None:
            following[:, :, torch.as_tensor(encoder.known, device=lags.device)] = _repeat(
                known[:, : block.shape[1]].to(lags.device), n_samples
            )
        return torch.cat([lags, following], dim=1)[:, -encoder.n_lags :]

    def _pairs(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Noise whose second half is the first with opposite sign; an odd one out stands alone."""
        half = self.draw_noise((n_samples + 1) // 2, generator)
        return torch.cat([half, -half])[:n_samples]


def _repeat(values: Tensor, n_samples: int) -> Tensor:
    """Rows once for each member, members first."""
    return values.repeat(n_samples, *[1] * (values.ndim - 1))


def _padded(known: Tensor, horizon: int) -> Tensor:
    """Columns (B, horizon, ...) of a block that reaches beyond what is asked for; its end is never looked at."""
    missing = horizon - known.shape[1]
    return known if missing == 0 else torch.cat([known, known[:, -1:].expand(-1, missing, *known.shape[2:])], dim=1)


def _blocks(n_rows: int, numbers: int) -> Iterator[slice]:
    size = max(1, BLOCK_NUMBERS // max(1, numbers))
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
