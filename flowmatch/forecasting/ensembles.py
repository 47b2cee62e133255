"""Ensembles of forecasts: draws of one block, and rollouts, each member its own trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.batches import BLOCK_ELEMENTS
from flowmatch.core.checks import check_count
from flowmatch.core.user_warnings import warn
from flowmatch.fitting.parameters import resolve_source
from flowmatch.flow import NormalSource
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
    stratified : bool
        Whether the noise of predictions is drawn evenly: standard normal noise of tables and series.
    """

    encoder: WindowEncoder
    residuals: SampleEncoder
    carry: Carry
    draw_noise: Callable[[int, torch.Generator], Tensor]
    device: torch.device
    stratified: bool

    def draw(
        self, windows: Windows, n_samples: int, generator: torch.Generator, *, shared: bool = False
    ) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Forecasts (n_samples, B, horizon, n_targets, *grid) of a block of windows at a time.

        With `shared` noise every window gets the same draws, in pairs or even (see `_pairs`): forecasts of one window
        then do not depend on the others, and their mean, of tables also the quantiles, are nearly those of many more.
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
            forecasts = self._advance(_repeat(context, n_samples), drawn)
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
        alive = torch.ones(len(lags), dtype=torch.bool)
        first_lost: int | None = None
        for start in range(0, n_steps, encoder.horizon):
            known = None if ahead is None else _padded(ahead[:, start : start + encoder.horizon], encoder.horizon)
            features = torch.from_numpy(calendar(start).astype(np.float32)).to(self.device)
            context = encoder.join(
                lags,
                None if known is None else _repeat(known.to(self.device), n_samples),
                _repeat(features, n_samples),
            )
            block = self._advance(context, self.draw_noise(len(lags), generator))[:, : n_steps - start]
            # what has no scale among the contexts' columns is not carried on, and need only be finite
            following = encoder.carried_on(block) if len(encoder.targets) else torch.from_numpy(0.0 * block)
            good = (torch.nan_to_num(following, nan=torch.inf).abs() <= DIVERGED).flatten(2).all(dim=2)
            good = (good.cumprod(dim=1) * alive[:, None]).bool()
            if not bool(good.all()):
                lost = int((~good).any(dim=0).float().argmax()) + start
                first_lost = lost if first_lost is None else first_lost
                block[~good.numpy()] = np.nan
                alive = good[:, -1]
            states[:, :, start : start + block.shape[1]] = block.reshape(n_samples, n, *block.shape[1:])
            if not bool(alive.any()):
                break
            if start + encoder.horizon < n_steps:
                following = torch.where(good.reshape(*good.shape, *[1] * (following.ndim - 2)), following, 0.0)
                lags = self._moved_on(lags, following, known, n_samples)
        if first_lost is not None:
            warn(
                f"the rollout diverged: {int((~alive).sum())} of {len(alive)} trajectories became non-finite, or went "
                f"beyond {DIVERGED:g} standard deviations of the training data, the first at step {first_lost + 1} of "
                f"{n_steps}. Their states from there on are NaN. Fit with context_noise > 0, or for longer."
            )
        return states

    def _advance(self, context: Tensor, noise: Tensor) -> NDArray[np.float64]:
        """Forecasts (B, horizon, n_targets, *grid) in the data's units, for contexts (B, m, *grid)."""
        codes = self.carry(noise, context.flatten(1)).cpu().double().numpy()
        residual = self.residuals.restore(codes) if self.residuals.is_table else self.residuals.decode(codes)
        base = self.encoder.base(context.cpu().double())  # of large values float32 would lose the small changes
        targets = base.numpy() + residual
        horizon = self.encoder.horizon
        return self.encoder.restore(targets.reshape(len(targets), horizon, -1, *targets.shape[2:]))

    def _moved_on(self, lags: Tensor, block: Tensor, known: Tensor | None, n_samples: int) -> Tensor:
        """The last states (B, n_lags, n_columns, *grid), once those of a block have come to pass."""
        encoder = self.encoder
        following = torch.zeros(len(lags), block.shape[1], *lags.shape[2:])
        following[:, :, encoder.targets] = block
        if known is not None:
            following[:, :, encoder.known] = _repeat(known[:, : block.shape[1]], n_samples)
        return torch.cat([lags, following.to(lags.device)], dim=1)[:, -encoder.n_lags :]

    def _pairs(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Noise whose second half is the first with opposite sign; of an odd number the last is the centre.

        Normal noise is stratified, each coordinate on its own: its values are the quantiles k / (n_samples + 1), so
        that quantiles and means of forecasts do not hang on the draw. (Latin hypercube sampling; McKay et al., 1979.)
        Those of fields are not: a number of a smooth field mixes the noise of many points, and since the quantiles have
        less variance than the normal law, .87 of it for 50, its intervals would be too narrow.
        """
        half = self.draw_noise(n_samples // 2, generator)
        if self.stratified:
            levels = torch.arange(n_samples // 2, device=half.device, dtype=half.dtype) + 1 + (n_samples + 1) // 2
            sizes = torch.special.ndtri(levels / (n_samples + 1))
            half = half.sign() * sizes[half.abs().argsort(dim=0).argsort(dim=0)]
        centre = half.new_zeros(n_samples % 2, *half.shape[1:])
        return torch.cat([half, -half, centre])


def ensemble_of(
    forecaster: Any, n_steps: int | None = None, solver: str | None = None, batch_size: int | None = None
) -> Ensemble:
    """What draws the forecasts of a fitted forecaster; arguments stand in place of its own parameters."""
    steps, method = forecaster._steps_and_solver(n_steps, solver)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    source, scale = resolve_source(forecaster._as_fitted), forecaster._source_scale

    def carry(noise: Tensor, condition: Tensor) -> Tensor:
        return forecaster._integrate(noise, condition, n_steps=steps, solver=method, batch_size=batch_size)

    def draw_noise(n: int, generator: torch.Generator) -> Tensor:
        return source.draw(n, scale, generator)

    return Ensemble(
        forecaster._conditions,
        forecaster._encoder,
        carry,
        draw_noise,
        forecaster._fitted_device,
        isinstance(source, NormalSource) and not forecaster._layout.grid,
    )


def _repeat(values: Tensor, n_samples: int) -> Tensor:
    """Rows once for each member, members first."""
    return values.repeat(n_samples, *[1] * (values.ndim - 1))


def _padded(known: Tensor, horizon: int) -> Tensor:
    """Columns (B, horizon, ...) of a block that reaches beyond what is asked for; its end is never looked at."""
    missing = horizon - known.shape[1]
    return known if missing == 0 else torch.cat([known, known[:, -1:].expand(-1, missing, *known.shape[2:])], dim=1)


def _blocks(n_rows: int, numbers: int) -> Iterator[slice]:
    size = max(1, BLOCK_ELEMENTS // max(1, numbers))
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
