"""Conditions and missing entries of rows to be drawn, given what is known of the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch import flow
from flowmatch.core.checks import listed
from flowmatch.model.codes import to_numpy, without_absent
from flowmatch.model.flow_model import FlowModel
from flowmatch.model.given import Given
from flowmatch.model.integration import split_alike
from flowmatch.preprocessing import MissingPatterns, TableContainer, plain_conditions, spread_sample

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CONDITIONS = 3
"""Stream of random numbers, beside those of `flowmatch.model.rows`."""

MOST_CONDITIONS = 1000
"""Training conditions that are weighed against each other, where they are numbers."""

_DENSITIES = 2**14
"""Densities that are computed for it, if rows are given different entries."""

_DENSITY_STEPS = 4
_ELEMENTS_AT_ONCE = 2**16


@dataclass(frozen=True)
class Posterior:
    """Conditions, and how probable each is given the known entries of a row.

    Attributes
    ----------
    values : ndarray of shape (m, ...)
    shares : ndarray of shape (k, m)
        Probabilities, for each of the different rows of known entries.
    which : ndarray of int, shape (n_samples,) or (1,)
        Which of these each row has.
    """

    values: NDArray[Any]
    shares: Array
    which: NDArray[np.intp]

    def draw(self, rows: slice, random: np.random.RandomState) -> NDArray[Any]:
        """Conditions (n, ...) of some rows; of rows with the same known entries, any first ones have the shares."""
        n, (k, m) = rows.stop - rows.start, self.shares.shape
        if k == 1:
            return self.values[spread_sample(self.shares[0], n, random)]
        ends = np.cumsum(self.shares, axis=1)
        ends = (ends / ends[:, -1:] + np.arange(k)[:, None]).ravel()  # one staircase after the other
        which = self.which[rows]
        found = np.searchsorted(ends, which + random.uniform(size=n), side="right") - m * which
        return self.values[found.clip(0, m - 1)]


@dataclass(frozen=True)
class ConditionDraws:
    """Draws conditions and missing entries of rows: of their first candidates, and of later ones.

    Attributes
    ----------
    model : FlowModel
    asked : Given
    y : conditions, one for all rows or one each; None to draw them
    seed : int
    posterior : Posterior or None
        Of conditions given a row's known entries; None draws them as in training.
    """

    model: FlowModel
    asked: Given
    y: Any
    seed: int
    posterior: Posterior | None = None

    @classmethod
    def of(cls, model: FlowModel, asked: Given, y: Any, seed: int, *, complete: bool) -> ConditionDraws:
        """The draws of a call; `complete` ones are of rows whose missing entries are filled.

        Raises
        ------
        ValueError
            If no training row misses what is to be missing, and has what is known; if there is no density to weigh
            conditions by.
        """
        draws = cls(model, asked, y, seed)
        if asked.missing.any():
            draws.check_patterns()
        if y is not None or model.conditions is None or (asked.entries is None and not asked.missing.any()):
            return draws
        return replace(draws, posterior=draws.weighed(complete=complete))

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to draw."""
        return (self.y is not None or self.model.conditions is None) and self._patterns is None

    @property
    def _patterns(self) -> MissingPatterns | None:
        return None if self.model.missing is None else self.model.missing.patterns

    @property
    def _masks(self) -> tuple[Mask, Mask]:
        """Which codes (n_codes,) are known, and which are to be missing."""
        columns = self.model.encoder.code_columns
        return self.asked.present[columns], self.asked.missing[columns]

    def check_patterns(self) -> None:
        """Raise a ValueError if no training row misses what is to be missing, and has what is known."""
        assert self._patterns is not None
        if not self._patterns.fits(*self._masks).any():
            container = self.asked.container
            assert isinstance(container, TableContainer)
            names = [container.labels[column] for column in np.flatnonzero(self.asked.missing).tolist()]
            raise ValueError(
                f"given: no training row misses {listed(names)} at once, and has all of the entries that are given."
            )

    def __call__(self, rows: slice, attempt: int) -> tuple[Any, Mask | None]:
        """Conditions and missing codes of candidates of a block of rows; None where there are none."""
        state = np.random.SeedSequence((self.seed, CONDITIONS, attempt, rows.start)).generate_state(8)
        y = self._conditions(rows, np.random.RandomState(state[:4]))
        if self._patterns is None:
            return y, None
        known, n, (present, absent) = self.model.conditions, rows.stop - rows.start, self._masks
        vectors = None if known is None else known.encode(plain_conditions(y), n)
        return y, self._patterns.draw(n, vectors, present, np.random.RandomState(state[4:]), absent)

    def _conditions(self, rows: slice, random: np.random.RandomState) -> Any:
        conditions, n = self.model.conditions, rows.stop - rows.start
        if conditions is None:
            return None
        if self.y is not None:  # grids stay what they are, and are not read yet
            is_table = self.model.encoder.is_table
            return conditions.expand(plain_conditions(self.y), self.asked.n_samples)[rows] if is_table else self.y
        if self.posterior is None:
            return conditions.draw(n, random)
        return self.posterior.draw(rows, random)

    def weighed(self, *, complete: bool) -> Posterior:
        """The distribution of conditions by Bayes' rule.

        ``p(y | entries) ~ p(y) p(missing | y) p(entries | y)``: the share of y in training, the share of its rows that
        miss what is to be missing, and the density of the known entries under it.
        """
        model, entries = self.model, self.asked.entries
        conditions = model.conditions
        assert conditions is not None
        distinct, which = np.zeros((1, 0)), np.zeros(1, dtype=np.intp)
        if entries is not None:
            distinct, which = np.unique(entries, axis=0, return_inverse=True)
        values, prior = conditions.likely(max(32, min(MOST_CONDITIONS, _DENSITIES // len(distinct))))
        vectors = conditions.encode(values, len(values))
        weights = prior.copy()
        if self._patterns is not None:
            present, absent = self._masks
            weights *= self._patterns.share_of_like_rows(vectors, present & (not complete), absent)
        if not weights.any():
            raise ValueError("given: no training row of any condition misses these entries.")
        log_weights = np.log(weights, where=weights > 0, out=np.full(len(weights), -np.inf))
        if entries is None:
            return Posterior(values, (weights / weights.sum())[None], which)
        joint = log_weights + self._log_densities(distinct, vectors, weights > 0)
        shares = np.exp(joint - joint.max(axis=1, keepdims=True))
        return Posterior(values, shares / shares.sum(axis=1, keepdims=True), which.reshape(-1))

    def _log_densities(self, entries: Array, vectors: NDArray[np.float32], chosen: Mask) -> Array:
        """Log-density (k, m) of known entries (k, n_columns) under each of the chosen conditions; elsewhere 0."""
        codes = np.repeat(self.model.encoder.encode(entries), chosen.sum(), axis=0)
        known = torch.as_tensor(np.tile(vectors[chosen], (len(entries), 1)), device=self.model.device)
        found = np.zeros((len(entries), len(vectors)))
        try:
            found[:, chosen] = partial_log_density(self.model, codes, known).reshape(len(entries), -1)
        except ValueError as error:
            raise ValueError(f"given: y cannot be drawn given these entries, so pass it too: {error}") from error
        return found


def partial_log_density(model: FlowModel, codes: Array, condition: Tensor) -> Array:
    """Log-density (n,) of the codes (n, d) that rows have, which are the same ones for all: the others are NaN.

    As that of `CodeDensity`, but in few steps, and with derivatives by these codes alone: a comparison need not be as
    good as a density, and this one takes many.
    """
    network = model.as_velocity(model.precise_network())
    like = next(network.parameters())
    x, known, absent = without_absent(model, torch.as_tensor(codes).to(like), condition)
    shown = torch.eye(x.shape[1]).to(like)[~absent[0]]
    if len(shown) == 0:
        return np.zeros(len(x))
    source, scale = model.source.source, model.source.scale.to(like) @ shown.T
    times, parts = model.times(_DENSITY_STEPS, "midpoint", x), []
    for part, of_part in split_alike(max(1, _ELEMENTS_AT_ONCE // len(shown) ** 2), x @ shown.T, known):
        velocity = flow.guide(network, of_part)
        divergence = flow.exact_divergence(partial(_of_shown, velocity, shown), len(shown))
        result = flow.log_likelihood(
            divergence, part, times, lambda x0: source.log_density_terms(x0, scale).sum(1), "midpoint"
        )
        parts.append(result.log_density)
    return to_numpy(torch.cat(parts))


def _of_shown(velocity: flow.Velocity, shown: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """A velocity as a function of the codes that are shown alone; the others are zero, and stay so."""
    return velocity(x @ shown, t) @ shown.T
