"""Drawing rows of a fitted flow: whole rows, rows of which some entries are given, and rows that miss entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.batches import noise_blocks
from flowmatch.core.entries import start_from, with_entries
from flowmatch.core.progress import progress
from flowmatch.core.randomness import generator_on
from flowmatch.core.user_warnings import warn
from flowmatch.model.codes import to_numpy
from flowmatch.model.conditions import condition_pieces, known_conditions, require_conditions
from flowmatch.model.flow_model import FlowModel
from flowmatch.model.given import given_entries, missing_codes
from flowmatch.model.integration import Integration, carry
from flowmatch.preprocessing import SampleRows, fill_table, plain_conditions

Array = NDArray[np.float64]

Select = str | Callable[[Any], Any]
"""How candidates are chosen: "density", or a function of a table that gives a score a row."""


@dataclass(frozen=True)
class CodeSampler:
    """Draws codes by the settings of one call.

    Attributes
    ----------
    model : FlowModel
    integration : Integration
    generator : torch.Generator
        Draws the noise, on the model's device.
    """

    model: FlowModel
    integration: Integration
    generator: torch.Generator

    @classmethod
    def seeded(cls, model: FlowModel, integration: Integration, seed: int) -> CodeSampler:
        """A sampler with a generator of its own."""
        return cls(model, integration, generator_on(model.device, seed))

    def blocks(self, n_rows: int, description: str) -> Iterable[slice]:
        """Rows whose noise is drawn together: so many that it hardly takes memory."""
        blocks = noise_blocks(n_rows, self.model.source.scale.numel())
        return progress(blocks, description, self.integration.verbose)

    def rows(self, n_rows: int, vector: Tensor | None, *, return_trajectory: bool = False) -> Tensor:
        """Codes (n_rows, *code_shape) under conditions (n_rows, k), or with all states on the way to them."""
        noise = self.model.source.draw(n_rows, self.generator)
        return carry(self.model, noise, vector, self.integration, return_trajectory=return_trajectory)

    def fill(self, vector: Tensor | None, codes: Tensor, absent: Tensor | None = None) -> Tensor:
        """Fill rows (B, d): codes that are NaN are generated given the others, but for those that are `absent`."""
        open_entries, missing = codes.isnan(), self.model.missing
        hidden = torch.zeros_like(open_entries) if absent is None else absent & open_entries
        given = (~open_entries).to(codes.dtype)
        start = None if missing is None or missing.guess is None else missing.guess.guess(codes, given)
        condition = with_entries(vector, codes, given, hidden.to(codes.dtype), start)
        noise = start_from(self.model.source.draw(len(codes), self.generator), condition)
        drawn = carry(self.model, noise, condition, self.integration)
        return torch.where(open_entries & ~hidden, drawn, codes)

    def complete(self, vector: Tensor | None, codes: Tensor, absent: Tensor) -> Tensor:
        """Fill rows (B, d) all the way: first what is there in rows that miss the `absent` entries, then those."""
        found = self.fill(vector, codes, absent)
        rows = found.isnan().any(dim=1).nonzero()[:, 0]
        if len(rows):
            found[rows] = self.fill(None if vector is None else vector[rows], found[rows])
        return found

    def given(self, X: Array) -> Tensor:
        """Codes of entries X (B, n_columns), drawn where several stand for a value; NaN where there is nothing."""
        encoder, device = self.model.encoder, self.model.device
        low, high = encoder.training_bounds(X)
        return encoder.columns.draw_codes(low.to(device), None if high is None else high.to(device), self.generator)


@dataclass(frozen=True)
class Known:
    """What is known of the samples of a call.

    Attributes
    ----------
    y : conditions, one for all or one each
    entries : ndarray of shape (n_samples, n_columns) or None
        Given entries, NaN elsewhere.
    holes : ndarray of bool, shape (n_samples, n_codes), or None
        Codes that are missing as in training.
    complete : bool
        Whether they are to be filled in the end.
    """

    y: Any
    entries: Array | None
    holes: NDArray[np.bool_] | None
    complete: bool

    def repeated(self, model: FlowModel, n_samples: int, n_times: int) -> Known:
        """The same for so many candidates of each sample, which stand together."""

        def repeat(rows: Any) -> Any:
            return None if rows is None else np.repeat(rows, n_times, axis=0)

        y = self.y if model.conditions is None else model.conditions.expand(plain_conditions(self.y), n_samples)
        return Known(repeat(y), repeat(self.entries), repeat(self.holes), self.complete)


def draw_rows(sampler: CodeSampler, n_samples: int, known: Known) -> Any:
    """Samples in the user's container."""
    model, encoder = sampler.model, sampler.model.encoder
    condition, parts = condition_pieces(model, known.y, n_samples), []
    for rows in sampler.blocks(n_samples, "blocks of samples"):
        vector, n_rows = condition(rows), rows.stop - rows.start
        if known.entries is None and known.holes is None:
            parts.append(encoder.container.narrow(encoder.restore(to_numpy(sampler.rows(n_rows, vector)))))
            continue
        shape = (n_rows, *encoder.sample_shape)
        entries = np.full(shape, np.nan) if known.entries is None else known.entries[rows]
        holes = np.zeros((n_rows, *model.code_shape), bool) if known.holes is None else known.holes[rows]
        codes = sampler.given(entries)
        fill = sampler.complete if known.complete else sampler.fill
        drawn = encoder.restore(to_numpy(fill(vector, codes, torch.as_tensor(holes, device=codes.device))))
        parts.append(encoder.container.narrow(np.where(np.isnan(entries), drawn, entries)))
    return encoder.container.wrap(np.concatenate(parts))


def draw_trajectories(sampler: CodeSampler, n_samples: int, y: Any) -> Array:
    """States of whole rows on the way from noise, (n_steps + 1, n_samples, *sample_shape)."""
    model, parts = sampler.model, []
    condition = condition_pieces(model, y, n_samples)
    for rows in sampler.blocks(n_samples, "blocks of samples"):
        codes = sampler.rows(rows.stop - rows.start, condition(rows), return_trajectory=True)
        states = model.encoder.decode(to_numpy(codes.flatten(0, 1)))
        parts.append(states.reshape(*codes.shape[:2], *model.encoder.sample_shape))
    return np.concatenate(parts, axis=1)


def draw_best_rows(
    sampler: CodeSampler, n_samples: int, known: Known, n_candidates: int, score: Callable[[Any, Any], Any]
) -> Any:
    """The best of each sample's candidates by ``score(candidates, conditions)``."""
    known = known.repeated(sampler.model, n_samples, n_candidates)
    candidates = draw_rows(sampler, n_samples * n_candidates, known)
    best = best_of(score(candidates, known.y), n_samples, n_candidates)
    if isinstance(candidates, torch.Tensor):
        return candidates[torch.as_tensor(best, device=candidates.device)]
    return candidates.iloc[best].reset_index(drop=True) if hasattr(candidates, "iloc") else candidates[best]


def best_of(scores: Any, n_samples: int, n_candidates: int) -> NDArray[np.intp]:
    """Position of the best of each sample's candidates, which stand together; NaN counts as the lowest score."""
    try:
        scores = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"select must return one number a row: {error}.") from error
    if scores.shape != (n_samples * n_candidates,):
        raise ValueError(
            f"select returned scores of shape {scores.shape}; expected ({n_samples * n_candidates},), one number a row."
        )
    table = np.nan_to_num(scores, nan=-np.inf).reshape(n_samples, n_candidates)
    return np.asarray(np.arange(n_samples) * n_candidates + table.argmax(axis=1))


def impute_rows(samplers: list[CodeSampler], X: Any, own: SampleRows, rows: SampleRows, y: Any) -> list[Any]:
    """The table X, whose rows are `own`, with the draws of each sampler in place of missing entries.

    They are drawn given `rows`, which may miss more: entries of which the model knows nothing.
    """
    model, values, tables = samplers[0].model, rows.array(), []
    incomplete = np.flatnonzero(np.isnan(values[:, model.encoder.varying]).any(axis=1))
    vectors = known_conditions(model, y, len(values))(slice(0, len(values)))
    if vectors is not None:
        vectors = vectors[torch.as_tensor(incomplete, device=vectors.device)]
    for sampler in progress(samplers, "imputations", samplers[0].integration.verbose):
        filled = values.copy()
        for part in sampler.blocks(len(incomplete), "blocks of rows to fill"):
            entries = values[incomplete[part]]
            codes = sampler.fill(None if vectors is None else vectors[part], sampler.given(entries))
            drawn = model.encoder.restore(to_numpy(codes))
            filled[incomplete[part]] = np.where(np.isnan(entries), drawn, entries)
        tables.append(fill_table(model.encoder.container, X, own.array(), filled))
    return tables


def sample_rows(
    sampler: CodeSampler,
    n_samples: int,
    y: Any,
    random: np.random.RandomState,
    *,
    given: Any = None,
    missing: str = "complete",
    n_candidates: int = 1,
    score: Callable[[Any, Any], Any] | None = None,
    return_trajectory: bool = False,
) -> tuple[Any, Any]:
    """Samples in the user's container, and their conditions; see `FlowMatchingGenerator.sample`.

    Parameters
    ----------
    sampler : CodeSampler
    n_samples : int
    y : conditions, one for all or one each; None draws them
    random : RandomState
        Draws conditions, and which entries are missing.
    given, missing, return_trajectory
        As in `FlowMatchingGenerator.sample`.
    n_candidates : int
        Of each sample.
    score : callable ``(candidates, conditions) -> scores``
        Says which candidate is the best.

    Returns
    -------
    X, y
    """
    model = sampler.model
    entries = given_entries(model, given, n_samples)
    if return_trajectory and (entries is not None or n_candidates > 1):
        raise ValueError("return_trajectory=True shows whole rows: leave given and oversample out.")
    if return_trajectory and missing == "as_trained":
        raise ValueError("return_trajectory=True shows whole rows: leave missing='as_trained' out.")
    if missing == "complete" and model.missing is not None and not model.missing.can_complete:
        warn(
            "the training rows miss entries, but with masked_share=0 the network has not learned to fill them: "
            "complete samples follow the distribution less closely. Fit with masked_share > 0, such as 0.3."
        )
    if y is None and model.conditions is not None:
        y = model.conditions.draw(n_samples, random)
    require_conditions(model, y)
    if return_trajectory:
        return draw_trajectories(sampler, n_samples, y), y
    holes = missing_codes(model, n_samples, y, entries, random)
    known = Known(y, entries, holes, complete=missing == "complete")
    if n_candidates == 1 or score is None:
        return draw_rows(sampler, n_samples, known), y
    return draw_best_rows(sampler, n_samples, known, n_candidates, score), y
