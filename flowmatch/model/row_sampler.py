"""Drawing rows' codes: whole rows, rows of which some cells are given, and rows that miss cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowmatch._base import FlowEstimator
from flowmatch.core.checks import check_count, check_number
from flowmatch.core.entries import start_from, with_entries
from flowmatch.core.randomness import generator_on
from flowmatch.fitting.parameters import resolve_source


@dataclass(frozen=True)
class RowSampler:
    """Carries noise to codes, by the settings of one call.

    Attributes
    ----------
    estimator : FlowEstimator
    settings : dict
        Arguments of the integration.
    generator : torch.Generator
        Draws the noise, on the estimator's device.
    """

    estimator: FlowEstimator
    settings: dict[str, Any]
    generator: torch.Generator

    @classmethod
    def of(
        cls,
        estimator: Any,
        seed: int,
        n_steps: int | None,
        solver: str | None,
        guidance_scale: float | None,
        batch_size: int | None,
    ) -> RowSampler:
        """Check a call's arguments; None stands for the estimator's own."""
        if batch_size is not None:
            check_count("batch_size", batch_size)
        scale = estimator.guidance_scale
        if guidance_scale is not None:
            scale = check_number("guidance_scale", guidance_scale, -np.inf)
        estimator._check_guidance(scale)
        steps, method = estimator._steps_and_solver(n_steps, solver)
        settings = {"n_steps": steps, "solver": method, "guidance_scale": scale, "batch_size": batch_size}
        return cls(estimator, settings, generator_on(estimator._fitted_device, seed))

    def rows(self, n_rows: int, vector: Tensor | None, *, return_trajectory: bool = False) -> Tensor:
        """Codes (n_rows, *code_shape) under conditions (n_rows, k), or with all states on the way to them."""
        return self.estimator._integrate(
            self._noise(n_rows), vector, return_trajectory=return_trajectory, **self.settings
        )

    def cells(self, vector: Tensor | None, codes: Tensor, absent: Tensor | None = None) -> Tensor:
        """Fill rows (B, d): codes that are NaN are generated given the others, but for those that are `absent`."""
        open_cells = codes.isnan()
        hidden = torch.zeros_like(open_cells) if absent is None else absent & open_cells
        given = (~open_cells).to(self._dtype)
        factors = self.estimator._factors
        start = None if factors is None else factors.to(codes.device).guess(codes, given)
        condition = with_entries(vector, codes, given, hidden.to(self._dtype), start)
        noise = start_from(self._noise(len(codes)), condition)
        drawn = self.estimator._integrate(noise, condition, **self.settings)
        return torch.where(open_cells & ~hidden, drawn, codes)

    def complete(self, vector: Tensor | None, codes: Tensor, absent: Tensor) -> Tensor:
        """Fill rows (B, d) all the way: first what is there in rows that miss the `absent` cells, then those."""
        found = self.cells(vector, codes, absent)
        rows = found.isnan().any(dim=1).nonzero()[:, 0]
        if len(rows):
            found[rows] = self.cells(None if vector is None else vector[rows], found[rows])
        return found

    def given(self, X: Any) -> Tensor:
        """Codes of cells X (B, n_columns), drawn where several stand for a value; NaN where there is nothing."""
        encoder, device = self.estimator._encoder, self.estimator._fitted_device
        low, high = encoder.training_bounds(X)
        return encoder.columns.draw_codes(low.to(device), None if high is None else high.to(device), self.generator)

    @property
    def _dtype(self) -> torch.dtype:
        return self.estimator._source_scale.dtype

    def _noise(self, n_rows: int) -> Tensor:
        source = resolve_source(self.estimator._as_fitted)
        return source.draw(n_rows, self.estimator._source_scale, self.generator)


def best_of(scores: Any, n_samples: int, n_candidates: int) -> Any:
    """Number of the best of each sample's candidates, which stand together; NaN counts as the lowest score."""
    try:
        scores = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"select must return one number a row: {error}.") from error
    if scores.shape != (n_samples * n_candidates,):
        raise ValueError(
            f"select returned scores of shape {scores.shape}; expected ({n_samples * n_candidates},), one number a row."
        )
    table = np.nan_to_num(scores, nan=-np.inf).reshape(n_samples, n_candidates)
    return np.arange(n_samples) * n_candidates + table.argmax(axis=1)


Select = str | Callable[[Any], Any]
"""How candidates are chosen: "density", or a function of a table that gives a score a row."""
