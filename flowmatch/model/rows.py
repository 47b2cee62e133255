"""Drawing rows of a fitted flow: whole rows, rows of which some entries are given, and rows that miss entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch.core.batches import noise_blocks, rows_per_tile
from flowmatch.core.checks import check_choice, check_count
from flowmatch.core.entries import start_from, with_entries
from flowmatch.core.memory import check_memory
from flowmatch.core.progress import progress
from flowmatch.core.randomness import generator_on
from flowmatch.core.user_warnings import quietly, warn
from flowmatch.model.codes import to_numpy
from flowmatch.model.condition_draws import ConditionDraws
from flowmatch.model.conditions import condition_pieces, known_conditions, require_conditions
from flowmatch.model.constrained import check_possible, keep_constraints, possible_entries
from flowmatch.model.flow_model import FlowModel
from flowmatch.model.given import Given
from flowmatch.model.integration import Integration, carry
from flowmatch.model.rejection import MOST_CANDIDATES, Places, Rejection, draw_kept
from flowmatch.model.thinning import JUDGED_BY, Thinning
from flowmatch.preprocessing import SampleRows, fill_table, plain_conditions
from flowmatch.tables.key_columns import with_gaps
from flowmatch.tables.readable import as_float64
from flowmatch.tables.table import TableContainer

Array = NDArray[np.float64]
Holes = NDArray[np.bool_] | None

WHOLE, GIVEN, REST, _, THINNED = range(5)
"""Streams of random numbers: noise, codes of what is given, noise of what is filled afterwards, what is dropped."""

Select = str | Callable[[Any], Any]
"""How candidates are chosen: "density", or a function of a table that gives a score a row."""


@dataclass(frozen=True)
class CodeSampler:
    """Draws codes by the settings of one call.

    Attributes
    ----------
    model : FlowModel
    integration : Integration
    seed : int
        Of all random numbers.
    """

    model: FlowModel
    integration: Integration
    seed: int

    def blocks(self, n_rows: int, description: str) -> Iterable[slice]:
        """Rows that are drawn together: so many that their noise hardly takes memory."""
        blocks = noise_blocks(n_rows, self.model.source.scale.numel())
        return progress(blocks, description, self.integration.verbose)

    def tiles(self, places: Places, stream: int) -> Iterator[tuple[torch.Generator, Tensor, Tensor]]:
        """Random generators, the places (k,) that draw from each, and where in what it draws these stand.

        Random numbers are drawn for a fixed number of rows at once, whoever asks for some of them: what a row gets
        depends on its number, its candidate's and the `stream` alone.
        """
        device, size = self.model.device, self.tile_size
        tiles, n_tiles = places.rows // size, int(places.rows.max(initial=0)) // size + 1
        keys, tile_of = np.unique(places.tries * n_tiles + tiles, return_inverse=True)
        order = np.argsort(tile_of, kind="stable")
        for key, chosen in zip(keys.tolist(), np.split(order, np.cumsum(np.bincount(tile_of))[:-1]), strict=True):
            entropy = np.random.SeedSequence((self.seed, stream, *divmod(key, n_tiles)))
            generator = generator_on(device, int(entropy.generate_state(1, np.uint64)[0]))
            within = torch.from_numpy(places.rows[chosen] % size)
            yield generator, torch.from_numpy(chosen).to(device), within.to(device)

    @property
    def tile_size(self) -> int:
        """Rows of a tile."""
        return rows_per_tile(self.model.source.scale.numel())

    def noise(self, places: Places, stream: int = WHOLE) -> Tensor:
        """Noise (B, *code_shape)."""
        source = self.model.source
        noise = source.scale.new_empty(len(places), *source.scale.shape)
        for generator, chosen, within in self.tiles(places, stream):
            noise[chosen] = source.draw(self.tile_size, generator)[within]
        return noise

    def uniform(self, places: Places) -> Array:
        """Random numbers (B,) in [0, 1)."""
        numbers = torch.empty(len(places), device=self.model.device)
        for generator, chosen, within in self.tiles(places, THINNED):
            numbers[chosen] = torch.rand(self.tile_size, generator=generator, device=generator.device)[within]
        return to_numpy(numbers)

    def rows(self, places: Places, vector: Tensor | None, *, return_trajectory: bool = False) -> Tensor:
        """Codes (B, *code_shape) under conditions (B, k), or with all states on the way to them."""
        return carry(self.model, self.noise(places), vector, self.integration, return_trajectory=return_trajectory)

    def fill(
        self, places: Places, vector: Tensor | None, codes: Tensor, absent: Tensor | None = None, stream: int = WHOLE
    ) -> Tensor:
        """Fill rows (B, d): codes that are NaN are generated given the others, but for those that are `absent`."""
        open_entries, missing = codes.isnan(), self.model.missing
        hidden = torch.zeros_like(open_entries) if absent is None else absent & open_entries
        given = (~open_entries).to(codes.dtype)
        start = None if missing is None or missing.guess is None else missing.guess.guess(codes, given)
        condition = with_entries(vector, codes, given, hidden.to(codes.dtype), start)
        drawn = carry(self.model, start_from(self.noise(places, stream), condition), condition, self.integration)
        return torch.where(open_entries & ~hidden, drawn, codes)

    def complete(self, places: Places, vector: Tensor | None, codes: Tensor, absent: Tensor, kept: Tensor) -> Tensor:
        """Fill rows (B, d): first what is there in rows that miss the `absent` entries, then those, but for `kept`."""
        found = self.fill(places, vector, codes, absent)
        rows = (found.isnan() & ~kept).any(dim=1).nonzero()[:, 0]
        if len(rows):
            some = places.take(rows.cpu().numpy())
            found[rows] = self.fill(some, None if vector is None else vector[rows], found[rows], kept, REST)
        return found

    def given(self, places: Places, X: Array) -> Tensor:
        """Codes of entries X (B, n_columns), drawn where several stand for a value; NaN where there is nothing."""
        encoder, device = self.model.encoder, self.model.device
        low, high = encoder.training_bounds(X)
        low, high = low.to(device), (low if high is None else high).to(device)
        codes = torch.empty_like(low)
        for generator, chosen, within in self.tiles(places, GIVEN):
            tile = low.new_zeros(2, self.tile_size, low.shape[1])
            tile[:, within] = torch.stack([low[chosen], high[chosen]])
            codes[chosen] = encoder.columns.draw_codes(tile[0], tile[1], generator)[within]
        return codes


Redraw = Callable[[slice, int], tuple[Any, Holes]]
"""Conditions and missing codes of some rows' candidates of a number; a part that there is not is None."""


@dataclass(frozen=True)
class Known:
    """What is known of the samples of a call.

    Attributes
    ----------
    y : conditions, one for all or one each
    entries : ndarray of shape (n_samples or 1, n_columns) or None
        Given entries, NaN elsewhere.
    holes : ndarray of bool, shape (n_samples, n_codes), or None
        Codes that are missing as in training.
    complete : bool
        Whether they are to be filled in the end,
    kept_holes : ndarray of bool, shape (n_codes,), or None
        but for these.
    rejection : Rejection or None
        Which rows are drawn anew,
    redraw : callable or None
        with these conditions and missing codes; None: with the same ones.
    """

    y: Any
    entries: Array | None
    holes: Holes
    complete: bool
    kept_holes: Holes = None
    rejection: Rejection | None = None
    redraw: Redraw | None = None

    def repeated(self, model: FlowModel, n_samples: int, n_times: int) -> Known:
        """The same for so many candidates of each sample, which stand together."""

        def repeat(rows: Any) -> Any:
            return None if rows is None else np.repeat(rows, n_times, axis=0)

        y = self.y if model.conditions is None else model.conditions.expand(plain_conditions(self.y), n_samples)
        entries = self.entries if self.entries is None or len(self.entries) == 1 else repeat(self.entries)
        return replace(self, y=repeat(y), entries=entries, holes=repeat(self.holes))


def draw_rows(sampler: CodeSampler, n_samples: int, known: Known) -> tuple[Any, Known]:
    """Samples in the user's container, and what is known of them once they are drawn."""
    container, parts, besides = sampler.model.encoder.container, [], []
    vectors = condition_pieces(sampler.model, known.y, n_samples)
    for rows in sampler.blocks(n_samples, "blocks of samples"):
        draw, numbers = partial(_draw_candidates, sampler, known, rows, vectors(rows)), np.arange(rows.start, rows.stop)
        drawn, *beside = draw_kept(draw, numbers, known.rejection)
        parts.append(container.narrow(drawn))
        besides.append(beside)
    if known.redraw is not None:
        y, holes = (None if part[0] is None else np.concatenate(part) for part in zip(*besides, strict=True))
        known = replace(known, y=y, holes=holes, redraw=None)
    values = np.concatenate(parts)
    free = np.ones((1, *values.shape[1:]), dtype=bool) if known.entries is None else np.isnan(known.entries)
    again = partial(_drawn_again, sampler, known, slice(0, n_samples))
    values = keep_constraints(sampler.model, values, np.broadcast_to(free, values.shape), again)
    keys = container.keys if isinstance(container, TableContainer) and not known.complete else ()
    return container.wrap(with_gaps(keys, values, sampler.seed) if keys else values), known


def _drawn_again(sampler: CodeSampler, known: Known, block: slice, rows: NDArray[np.intp], attempt: int) -> Array:
    """Other candidates for some rows."""
    vectors = condition_pieces(sampler.model, known.y, block.stop)(block)

    def draw(places: Places) -> tuple[Array, Any, Holes]:
        later = Places(places.rows, places.tries + (1 + attempt) * MOST_CANDIDATES)
        return _draw_candidates(sampler, known, block, vectors, later)

    return np.asarray(draw_kept(draw, rows, known.rejection)[0])


def _draw_candidates(
    sampler: CodeSampler, known: Known, rows: slice, vectors: Tensor | None, places: Places
) -> tuple[Array, Any, Holes]:
    """Numbers (B, *sample_shape) of candidates of a block of rows, their conditions and missing codes."""
    model, encoder = sampler.model, sampler.model.encoder
    y, holes = None, None if known.holes is None else known.holes[places.rows]
    if known.redraw is not None:
        y, holes = _redrawn(known.redraw, rows, places)
        vectors = condition_pieces(model, y, len(places))(slice(0, len(places)))
    elif vectors is not None:
        vectors = vectors[torch.from_numpy(places.rows - rows.start).to(vectors.device)]
    if known.entries is None and holes is None:
        return encoder.restore(to_numpy(sampler.rows(places, vectors))), y, holes
    entries = np.full((1, *encoder.sample_shape), np.nan) if known.entries is None else known.entries
    entries = entries[places.rows if len(entries) > 1 else np.zeros_like(places.rows)]
    codes = sampler.given(places, entries)
    absent = torch.zeros_like(codes, dtype=torch.bool) if holes is None else torch.as_tensor(holes, device=codes.device)
    if known.complete:
        kept = torch.zeros_like(absent[0]) if known.kept_holes is None else torch.as_tensor(known.kept_holes)
        codes = sampler.complete(places, vectors, codes, absent, kept.to(codes.device))
    else:
        codes = sampler.fill(places, vectors, codes, absent)
    return np.where(np.isnan(entries), encoder.restore(to_numpy(codes)), entries), y, holes


def _redrawn(redraw: Redraw, rows: slice, places: Places) -> list[Any]:
    """Conditions and missing codes of candidates of a block of rows."""
    order = np.argsort(places.tries, kind="stable")
    tries, starts = np.unique(places.tries[order], return_index=True)
    parts = []
    for attempt, chosen in zip(tries, np.split(order, starts[1:]), strict=True):
        within = places.rows[chosen] - rows.start
        parts.append([None if drawn is None else drawn[within] for drawn in redraw(rows, int(attempt))])
    back = np.argsort(order)
    return [None if part[0] is None else np.concatenate(part)[back] for part in zip(*parts, strict=True)]


def draw_trajectories(sampler: CodeSampler, n_samples: int, y: Any) -> Array:
    """States of whole rows on the way from noise, (n_steps + 1, n_samples, *sample_shape)."""
    model, parts = sampler.model, []
    condition = condition_pieces(model, y, n_samples)
    for rows in sampler.blocks(n_samples, "blocks of samples"):
        places = Places.first(np.arange(rows.start, rows.stop))
        codes = sampler.rows(places, condition(rows), return_trajectory=True)
        states = model.encoder.decode(to_numpy(codes.flatten(0, 1)))
        parts.append(states.reshape(*codes.shape[:2], *model.encoder.sample_shape))
    return np.concatenate(parts, axis=1)


def draw_best_rows(
    sampler: CodeSampler, n_samples: int, known: Known, n_candidates: int, score: Callable[[Any, Any], Any]
) -> tuple[Any, Any]:
    """The best of each sample's candidates by ``score(candidates, conditions)``, and the samples' conditions."""
    if known.redraw is not None:  # all candidates of a sample are to have the same conditions
        known = draw_rows(sampler, n_samples, known)[1]
        sampler = replace(sampler, seed=sampler.seed ^ 2**31)  # other noise than theirs
    of_samples, known = known, known.repeated(sampler.model, n_samples, n_candidates)
    candidates = draw_rows(sampler, n_samples * n_candidates, known)[0]
    with quietly():  # what is best need not be a density
        best = best_of(score(candidates, known.y), n_samples, n_candidates)
    if isinstance(candidates, torch.Tensor):
        return candidates[torch.as_tensor(best, device=candidates.device)], of_samples.y
    chosen = candidates.iloc[best].reset_index(drop=True) if hasattr(candidates, "iloc") else candidates[best]
    return chosen, of_samples.y


def best_of(scores: Any, n_samples: int, n_candidates: int) -> NDArray[np.intp]:
    """Position of the best of each sample's candidates, which stand together; NaN counts as the lowest score."""
    try:
        scores = as_float64(scores, "what select returned")
    except (TypeError, ValueError) as error:
        raise ValueError(f"select must return one number a row: {error}.") from error
    if scores.shape != (n_samples * n_candidates,):
        raise ValueError(
            f"select returned scores of shape {scores.shape}; expected ({n_samples * n_candidates},), one number a row."
        )
    table = np.nan_to_num(scores, nan=-np.inf).reshape(n_samples, n_candidates)
    return np.asarray(np.arange(n_samples) * n_candidates + table.argmax(axis=1))


def impute_rows(
    model: FlowModel,
    integration: Integration,
    X: Any,
    rows: SampleRows,
    y: Any,
    *,
    n_imputations: int,
    seed: int,
    own: SampleRows | None = None,
    rejection: Rejection | None = None,
) -> list[Any]:
    """The table X, whose rows are `own` or `rows`, so many times with draws in place of missing entries.

    They are drawn given `rows`, which may miss more: entries of which the model knows nothing.
    """
    check_memory(f"n_imputations={n_imputations}", 8.0 * n_imputations * len(rows) * math.prod(rows.sample_shape))
    seeds = np.random.RandomState(seed).randint(2**31 - 1, size=n_imputations)
    samplers = [CodeSampler(model, integration, int(seed)) for seed in seeds]
    values, tables = rows.array(), []
    there = values if own is None else own.array()
    incomplete = np.flatnonzero(np.isnan(values[:, ~model.encoder.empty]).any(axis=1))
    vectors = known_conditions(model, y, len(values))(slice(0, len(values)))

    def draw(sampler: CodeSampler, places: Places) -> tuple[Array]:
        entries = values[places.rows]
        vector = None if vectors is None else vectors[torch.from_numpy(places.rows).to(vectors.device)]
        codes = sampler.fill(places, vector, sampler.given(places, entries))
        return (np.where(np.isnan(entries), model.encoder.restore(to_numpy(codes)), entries),)

    for sampler in progress(samplers, "imputations", integration.verbose):
        filled, again = values.copy(), partial(_filled, partial(draw, sampler), rejection)
        for part in sampler.blocks(len(incomplete), "blocks of rows to fill"):
            filled[incomplete[part]] = again(incomplete[part], -1)
        filled = keep_constraints(model, filled, possible_entries(model, values), again, must=False)
        tables.append(fill_table(model.encoder.container, X, there, filled))
    return tables


def _filled(
    draw: Callable[[Places], tuple[Array]], rejection: Rejection | None, rows: NDArray[np.intp], attempt: int
) -> Array:
    """Some rows with draws in place of missing entries."""

    def later(places: Places) -> tuple[Array]:
        return draw(Places(places.rows, places.tries + (1 + attempt) * MOST_CANDIDATES))

    return np.asarray(draw_kept(later, rows, rejection)[0])


def sample_rows(
    sampler: CodeSampler,
    n_samples: int | None,
    y: Any,
    *,
    given: Any = None,
    missing: str = "complete",
    oversample: int = 1,
    select: Select = "density",
    density: Callable[[Any, Any], Any] | None = None,
    return_trajectory: bool = False,
    apart_from: Array | None = None,
) -> tuple[Any, Any, int]:
    """Samples in the user's container, their conditions, and how many; see `FlowMatchingGenerator.sample`.

    Parameters
    ----------
    sampler : CodeSampler
    n_samples : int or None
        None: as many as `given` has, or one.
    y : conditions, one for all or one each; None draws them
    given, missing, oversample, select, return_trajectory
        As in `FlowMatchingGenerator.sample`.
    density : callable ``(candidates, conditions) -> scores``, optional
        Says which candidate is the best for ``select="density"``.
    apart_from : ndarray of shape (m, d), optional
        The rows as numbers.

    Returns
    -------
    X, y, n_samples
    """
    n_samples = None if n_samples is None else check_count("n_samples", n_samples)
    n_candidates = check_count("oversample", oversample)
    check_choice("missing", missing, ("complete", "as_trained"))
    check_choice("select", "density" if callable(select) else select, ("density",))
    score = (lambda rows, _: select(rows)) if callable(select) else density
    model, complete = sampler.model, missing == "complete"
    asked = Given.read(model, given, n_samples)
    n_samples = asked.n_samples
    check_possible(model, asked.entries)
    states = sampler.integration.n_steps + 1 if return_trajectory else n_candidates
    what = f"n_samples={n_samples}" + (f" with oversample={n_candidates}" if n_candidates > 1 else "")
    check_memory(what, 8.0 * n_samples * states * math.prod(model.sample_shape))
    if return_trajectory and (not asked.is_empty or n_candidates > 1):
        raise ValueError("return_trajectory=True shows whole rows: leave given and oversample out.")
    if return_trajectory and apart_from is not None:
        raise ValueError("return_trajectory=True shows whole rows: leave apart_from out.")
    if return_trajectory and not complete:
        raise ValueError("return_trajectory=True shows whole rows: leave missing='as_trained' out.")
    if complete and model.missing is not None and not model.missing.can_complete:
        warn(
            "the training rows miss entries, but with masked_share=0 the network has not learned to fill them: "
            "complete samples follow the distribution less closely. Fit with masked_share > 0, such as 0.3."
        )
    if y is not None or model.conditions is None:
        require_conditions(model, y)
    draws = ConditionDraws.of(model, asked, y, sampler.seed, complete=complete)
    y, holes = draws(slice(0, n_samples), 0)
    if return_trajectory:
        return draw_trajectories(sampler, n_samples, y), y, n_samples
    rejection, kept_holes = asked.rejection, asked.missing[model.encoder.code_columns] if asked.missing.any() else None
    redraw = None if rejection is None or draws.is_fixed else draws
    known = Known(y, asked.entries, holes, complete, kept_holes, rejection, redraw)
    if apart_from is not None:
        known = replace(known, rejection=_apart(sampler, apart_from, rejection, draws, complete=complete))
    if n_candidates == 1 or score is None:
        X, known = draw_rows(sampler, n_samples, known)
        return X, known.y, n_samples
    return *draw_best_rows(sampler, n_samples, known, n_candidates, score), n_samples


def _apart(
    sampler: CodeSampler, rows: Array, rejection: Rejection | None, draws: ConditionDraws, *, complete: bool
) -> Rejection:
    """What else drops samples near to rows; how often, a thousand samples tell, under the same y if there is any."""
    model, asked = sampler.model, Given.read(sampler.model, None, JUDGED_BY)
    y = draws.y
    if y is not None and model.conditions is not None:
        each = model.conditions.expand(plain_conditions(y), draws.asked.n_samples)
        y = each[np.arange(JUDGED_BY) % len(each)]
    every = slice(0, JUDGED_BY)
    y, holes = ConditionDraws(model, asked, y, draws.seed)(every, 0)
    vectors, places = condition_pieces(model, y, JUDGED_BY)(every), Places.first(np.arange(JUDGED_BY))
    samples = _draw_candidates(sampler, Known(y, None, holes, complete), every, vectors, places)[0]
    container = model.encoder.container
    assert isinstance(container, TableContainer)
    drops = Thinning(container, rows, sampler.uniform).learn(samples).drops
    if rejection is None:
        return Rejection(lambda values: np.zeros(len(values), dtype=bool), "apart_from", drops)
    return replace(rejection, what=f"{rejection.what}, and apart_from", drops=drops)
