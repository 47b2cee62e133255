"""Ensembles of forecasts: draws of one block, and rollouts, each member its own trajectory."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from torch import Tensor

from flowmatch.core.batches import BLOCK_ELEMENTS
from flowmatch.core.checks import check_count
from flowmatch.core.devices import normal_quantile
from flowmatch.core.memory import check_memory
from flowmatch.core.progress import progress
from flowmatch.core.randomness import generator_on
from flowmatch.core.types import Array32
from flowmatch.core.user_warnings import warn
from flowmatch.flow import MatchedSource, NormalSource
from flowmatch.forecasting.fitted import FittedForecaster
from flowmatch.forecasting.holes import determination_of_seen
from flowmatch.model import FlowModel, Integration, carry, sampling_steps, to_numpy
from flowmatch.preprocessing import WindowEncoder, Windows
from flowmatch.preprocessing.validation import check_weights
from flowmatch.tables.readable import as_float64

Array = NDArray[np.float64]

Summarize = Callable[[NDArray[Any]], NDArray[Any]]
"""``summarize(members)`` for members (n_samples, B, *sample_shape)."""

Draws = Iterator[tuple[slice, NDArray[Any]]]
"""Windows of a block, and members (n_samples, B, *sample_shape) of their forecasts."""

PREDICTION_SEED = 0
"""Of the draws behind predictions, whatever `random_state` is: a prediction is no game of chance."""

SAMPLES_PER_NODE = 6
"""Draws that a node of Gauss and Legendre's rule stands for in the mean of a single element."""

DIVERGED = 1e3
"""A state so many standard deviations from the mean of the training data has diverged."""


STRANGE = 1.0
"""Contexts further beyond the training range, in standard deviations of the training data, are warned of."""


@dataclass(frozen=True)
class Ensemble:
    """Draws forecasts of windows by the settings of one call.

    Attributes
    ----------
    fitted : FittedForecaster
    integration : Integration
    """

    fitted: FittedForecaster
    integration: Integration

    @classmethod
    def of(cls, forecaster: Any, **call: Any) -> Ensemble:
        """What draws the forecasts of a call of a fitted forecaster, whose arguments replace the parameters."""
        fitted: FittedForecaster = forecaster.fitted_
        own = forecaster.solver, forecaster.n_steps, 1.0
        return cls(fitted, sampling_steps(fitted.model, own, **call, verbose=forecaster.verbose))

    def of_model(self, model: FlowModel) -> Ensemble:
        """The same with another flow."""
        return replace(self, fitted=self.fitted.with_flow(replace(self.fitted.flow, model=model)))

    @property
    def encoder(self) -> WindowEncoder:
        """From windows to vectors of conditions."""
        return self.fitted.window_encoder

    def draw(
        self, windows: Windows, n_samples: int, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Draws:
        """Forecasts (n_samples, B, *sample_shape) of a block of B windows at a time, in the dtype that users get.

        Of given `noise` (n_samples, *code_shape) every window gets the same draws: forecasts of one window then do not
        depend on the others. Without, each has its own, of the generator.
        """
        encoder, device = self.encoder, self.fitted.model.device
        self._check_memory(n_samples)
        size = n_samples * max(int(np.prod(encoder.target_shape)), encoder.size)
        blocks = list(gen_batches(len(windows), max(1, BLOCK_ELEMENTS // max(1, size))))
        for rows in progress(blocks, "forecasts", self.integration.verbose):
            every = np.arange(rows.start, rows.stop)
            context, scales = (
                encoder.read_contexts(windows, every).to(device),
                self._scales_of(windows, every, n_samples),
            )
            if noise is None:
                drawn = self.fitted.model.source.draw(n_samples * len(every), generator)
            else:
                drawn = noise.repeat_interleave(len(every), dim=0)
            conditions = windows.take(every).conditions
            forecasts = self._advance(_repeat(context, n_samples), drawn, scales, conditions)
            shape = (n_samples, len(every), *self.fitted.layout.sample_shape)
            yield rows, self.fitted.in_own_dtype(forecasts.reshape(shape))

    def sample(self, windows: Windows, n_samples: int, generator: torch.Generator) -> NDArray[Any]:
        """Forecasts (n_samples, n, *sample_shape) of all windows."""
        self._check_memory(n_samples, len(windows))
        self._warn_of_strangers(windows)
        return np.concatenate([part for _, part in self.draw(windows, n_samples, generator)], axis=1)

    def summary(self, windows: Windows, n_samples: int, summarize: Summarize, axis: int = 0) -> NDArray[Any]:
        """What `summarize` makes of the draws of predictions, which are the same at every call.

        Windows run along `axis` of what it returns.
        """
        self._check_memory(check_count("n_samples", n_samples, 2))
        noise = self.paired_noise(n_samples, generator_on(self.fitted.model.device, PREDICTION_SEED))
        return self._summary_of(windows, noise, summarize, axis)

    def mean(self, windows: Windows, n_samples: int) -> NDArray[Any]:
        """Means (n, *sample_shape) of the draws of predictions.

        A single element's mean is the integral of its quantile function, here by Gauss and Legendre's rule of a sixth
        of `n_samples` nodes, which is nearer to the mean of many draws where the flow is smooth.
        """
        if not self._is_monotone:
            return self.summary(windows, n_samples, lambda members: members.mean(axis=0))
        self._check_memory(n_samples)
        nodes, weights = np.polynomial.legendre.leggauss(max(2, round(n_samples / SAMPLES_PER_NODE)))

        def integrate(members: NDArray[Any]) -> NDArray[Any]:  # not by a product, which rounds as the batch is
            return np.asarray((0.5 * weights.reshape(-1, *[1] * (members.ndim - 1)) * members).sum(axis=0))

        return self._summary_of(windows, self._noise_at(0.5 + 0.5 * nodes), integrate)

    def quantiles(self, windows: Windows, n_samples: int, levels: Sequence[float]) -> NDArray[Any]:
        """Quantiles (n_levels, n, *sample_shape): order statistics ``(n_samples + 1) q`` of the draws, interpolated.

        Of a single element only the draws are made that these are, since a flow keeps the order of its noise.
        """
        if not self._is_monotone:
            quantile = functools.partial(np.quantile, q=levels, axis=0, method="weibull")
            return self.summary(windows, n_samples, quantile, axis=1)
        place = np.clip((n_samples + 1) * np.asarray(levels), 1, n_samples)
        below = np.floor(place)
        ranks, position = np.unique([below, np.ceil(place)], return_inverse=True)
        left, right = position.reshape(2, -1)

        def interpolate(members: NDArray[Any]) -> NDArray[Any]:
            members = np.sort(members, axis=0)  # solvers of few steps keep the order nearly
            share = (place - below).reshape(-1, *[1] * (members.ndim - 1))
            return members[left] + share * (members[right] - members[left])

        return self._summary_of(windows, self._noise_at(ranks / (n_samples + 1)), interpolate, axis=1)

    @property
    def _is_monotone(self) -> bool:
        """Whether forecasts are one element of normal noise, of which paths on the line never cross."""
        is_normal = isinstance(self.fitted.model.source.source, (NormalSource, MatchedSource))
        return is_normal and self.fitted.model.code_shape == (1,)

    def _noise_at(self, ranks: Array) -> Tensor:
        """Noise (k, 1) that has these ranks."""
        scale = self.fitted.model.source.scale
        return normal_quantile(torch.as_tensor(ranks[:, None], dtype=scale.dtype, device=scale.device)) * scale

    def _summary_of(self, windows: Windows, noise: Tensor, summarize: Summarize, axis: int = 0) -> NDArray[Any]:
        """What `summarize` makes of the draws that noise (m, *code_shape) becomes, the same for every window."""
        self._warn_of_strangers(windows)
        parts = [summarize(members) for _, members in self.draw(windows, len(noise), noise=noise)]
        return self.fitted.in_own_dtype(np.concatenate(parts, axis=axis))

    def determination(self, windows: Windows, n_samples: int, sample_weight: Any = None) -> float:
        """R2 of the mean, for what is there of the truth: of tables the mean over columns, else by their variances."""
        check_weights(sample_weight, len(windows))
        weight = None if sample_weight is None else as_float64(sample_weight, "sample_weight")
        truth = self.encoder.truth(windows).reshape(len(windows), -1)
        mean = self.mean(windows, n_samples).reshape(truth.shape)
        multioutput = "uniform_average" if self.fitted.layout.is_table else "variance_weighted"
        return determination_of_seen(truth, mean, weight, multioutput)

    def mean_score(self, windows: Windows, n_samples: int, score: Callable[..., Any]) -> float:
        """The mean over windows of ``score(truth, members)``, with draws of each window's own.

        The score returns a mean, and the number of windows that it stands for.
        """
        truth = self.encoder.truth(windows).reshape(len(windows), *self.fitted.layout.sample_shape)
        generator = generator_on(self.fitted.model.device, PREDICTION_SEED)
        draws = self.draw(windows, check_count("n_samples", n_samples, 2), generator)
        values, counts = np.array([score(truth[rows], members) for rows, members in draws]).T
        return float(sum(values * counts) / sum(counts)) if counts.any() else math.nan

    def _check_memory(self, n_samples: int, n_windows: int = 1, n_steps: int | None = None) -> None:
        """Raise a MemoryError for more draws, of blocks or of rollouts of so many steps, than memory could hold."""
        layout = self.fitted.layout
        states = layout.horizon if n_steps is None else n_steps
        what = f"n_samples={n_samples}" + ("" if n_steps is None else f" and n_steps={n_steps}")
        check_memory(what, 8.0 * n_samples * n_windows * states * math.prod(layout.forecast_shape))

    def _warn_of_strangers(self, windows: Windows) -> None:
        """Warn of the column whose contexts lie the furthest beyond the training range, if that is far."""
        encoder, layout = self.encoder, self.fitted.layout
        if encoder.limits is None or windows.targets is not None:  # scored, not forecast
            return
        states, (low, high) = windows.contexts(np.arange(len(windows))), encoder.limits
        beyond = np.nan_to_num(np.fmax.reduce(np.maximum(low - states, states - high), axis=(0, 1)) / encoder.scale)
        if encoder.local is not None:  # they are seen by what they differ from their own level
            beyond[encoder.local.columns] = 0.0
        j = int(beyond.argmax())
        if beyond[j] > STRANGE:
            name = layout.columns[j] if layout.columns else j
            warn(
                f"contexts reach {beyond[j]:.3g} standard deviations beyond the training range of column {name!r}, "
                f"[{low[j]:.6g}, {high[j]:.6g}]: forecasts from there are guesses. Fit to data that hold such values."
            )

    def _scales_of(self, windows: Windows, rows: NDArray[np.intp], n_samples: int) -> tuple[Array, Array]:
        """What the targets of windows are scaled by, members first; of most data the same for all."""
        encoder = self.encoder
        if encoder.local is None:
            return encoder.target_scales(windows.contexts(rows[:1]))
        level, spread = encoder.target_scales(windows.contexts(rows))
        return _repeat_states(level, n_samples), _repeat_states(spread, n_samples)

    def paired_noise(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Noise whose second half is the first with opposite sign; of an odd number the last is the center.

        Normal noise is stratified, each coordinate on its own: its values are the quantiles k / (n_samples + 1), so
        that quantiles and means of forecasts do not hang on the draw. (Latin hypercube sampling; McKay et al., 1979.)
        That of fields is not: an element of a smooth field mixes the noise of many points, and since the quantiles have
        less variance than the normal distribution, .87 of it for 50, its intervals would be too narrow.
        """
        source = self.fitted.model.source
        half = source.draw(n_samples // 2, generator)
        if isinstance(source.source, (NormalSource, MatchedSource)) and not self.fitted.layout.grid:
            levels = torch.arange(n_samples // 2, device=half.device, dtype=half.dtype) + 1 + (n_samples + 1) // 2
            sizes = normal_quantile(levels / (n_samples + 1))
            half = half.sign() * sizes[half.abs().argsort(dim=0).argsort(dim=0)] * source.scale
        center = half.new_zeros(n_samples % 2, *half.shape[1:])
        return torch.cat([half, -half, center])

    def roll(
        self, windows: Windows, times: list[Any] | None, n_steps: int, n_samples: int, generator: torch.Generator
    ) -> NDArray[Any]:
        """Rollouts (n_samples, n, n_steps, *forecast_shape); see `ConditionalForecaster.rollout`.

        `times` are the last instants of the contexts, if the calendar is a condition.
        """
        encoder, n, device = self.encoder, len(windows), self.fitted.model.device
        self._check_memory(n_samples, n, n_steps)
        self._warn_of_strangers(windows)
        lags = _repeat_states(windows.contexts(np.arange(n)), n_samples)
        first = encoder.target_scales(lags)
        ahead = windows.ahead
        if ahead is not None:  # the last block may reach beyond what is known; its end is never looked at
            steps = np.minimum(np.arange(n_steps + encoder.horizon), n_steps - 1)
            ahead = _repeat_states(ahead[:, steps], n_samples)
        states = np.full((n_samples, n, n_steps, len(encoder.target_mean), *encoder.grid.tolist()), np.nan)
        alive = np.ones(len(lags), dtype=bool)
        for start in progress(range(0, n_steps, encoder.horizon), "rollout", self.integration.verbose):
            known = None if ahead is None else ahead[:, start : start + encoder.horizon]
            calendar = windows.calendar if times is None else self.fitted.layout.calendar_ahead(times, start)
            context = encoder.contexts_of(lags, known, _repeat_states(calendar, n_samples)).to(device)
            noise = self.fitted.model.source.draw(len(lags), generator)
            block = self._advance(context, noise, encoder.target_scales(lags), windows.conditions)
            block = block[:, : n_steps - start]
            good = self._alive(block, alive, first)
            block[~good] = np.nan
            alive = good[:, -1]
            states[:, :, start : start + block.shape[1]] = block.reshape(n_samples, n, *block.shape[1:])
            if not alive.any():
                break
            if start + encoder.horizon < n_steps:
                lags = self._moved_on(lags, block, known)
        if not alive.all():
            first_lost = int(np.isnan(states.reshape(n_samples * n, n_steps, -1)).any(axis=(0, 2)).argmax())
            warn(
                f"the rollout diverged: {int((~alive).sum())} of {len(alive)} trajectories became non-finite, or went "
                f"beyond {DIVERGED:g} standard deviations of the training data, the first at step {first_lost + 1} of "
                f"{n_steps}. Their states from there on are NaN. Fit with context_noise > 0, or for longer."
            )
        return self.fitted.in_own_dtype(states.reshape(n_samples, n, n_steps, *self.fitted.layout.forecast_shape))

    def _advance(
        self, context: Tensor, noise: Tensor, scales: tuple[Array, Array], conditions: Array32 | None
    ) -> Array:
        """Forecasts (B, horizon, n_targets, *grid) in the data's units, for contexts (B, m, *grid), members first.

        `conditions` are those of one member.
        """
        model, encoder = self.fitted.model, self.encoder
        known = None if conditions is None else np.tile(conditions, (len(context) // len(conditions), 1))
        codes = to_numpy(carry(model, noise, encoder.vectors(context, known), self.integration))
        residual = model.encoder.restore(codes) if model.encoder.is_table else model.encoder.decode(codes)
        exact = context.cpu().double()  # of large values float32 would lose the small changes
        targets = encoder.base(exact).numpy() + residual
        targets = targets.reshape(len(targets), encoder.horizon, -1, *targets.shape[2:])
        return encoder.restore(targets, scales, exact.numpy())

    def _alive(self, block: Array, alive: NDArray[np.bool_], first: tuple[Array, Array]) -> NDArray[np.bool_]:
        """Which states (B, horizon) of a block are not lost, nor come after one that is."""
        encoder = self.encoder
        # what has no scale among the contexts' columns is not carried on, and need only be finite
        size = np.abs(encoder.carried_on(block).numpy() if len(encoder.targets) else 0.0 * block)
        if encoder.local is not None:  # series that training has not seen may lie anywhere
            size = np.minimum(size, np.abs((block - first[0]) / first[1]))
        good = (np.nan_to_num(size, nan=np.inf) <= DIVERGED).reshape(*block.shape[:2], -1).all(axis=2)
        return np.logical_and.accumulate(good, axis=1) & alive[:, None]

    def _moved_on(self, lags: Array, block: Array, known: Array | None) -> Array:
        """The last states (B, n_lags, n_columns, *grid), after those of a block; lost ones are means."""
        encoder = self.encoder
        mean = encoder.mean.reshape(-1, *[1] * len(encoder.grid))
        following = np.broadcast_to(mean, (*block.shape[:2], *lags.shape[2:])).copy()
        following[:, :, encoder.targets] = np.where(np.isnan(block), following[:, :, encoder.targets], block)
        if known is not None:
            following[:, :, encoder.known] = known[:, : block.shape[1]]
        return np.concatenate([lags, following], axis=1)[:, -encoder.n_lags :]


def _repeat_states(states: Array, n_samples: int) -> Array:
    return np.tile(states, (n_samples, *[1] * (states.ndim - 1)))


def _repeat(values: Tensor, n_samples: int) -> Tensor:
    """Rows once for each member, members first."""
    return values.repeat(n_samples, *[1] * (values.ndim - 1))
