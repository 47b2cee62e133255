"""What a fitted generator does with tables of which some cells are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from flowmatch import preprocessing
from flowmatch._code_methods import CodeMethods, to_numpy
from flowmatch.core.batches import blocks
from flowmatch.core.checks import check_count
from flowmatch.core.randomness import seed_from
from flowmatch.model.row_sampler import RowSampler
from flowmatch.preprocessing.validation import check_lengths


class TableMethods(CodeMethods):
    """Imputation and sampling with given cells, methods of `FlowMatchingGenerator`."""

    _patterns: preprocessing.MissingPatterns | None = None

    def impute(
        self,
        X: Any,
        y: Any = None,
        n_imputations: int = 1,
        random_state: Any = None,
        *,
        n_steps: int | None = None,
        solver: str | None = None,
        guidance_scale: float | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """Fill missing cells with draws from their law given the cells that are there.

        The network was trained for it with random cells given (`masked_share`), in the spirit of CSDI (Tashiro et al.,
        2021, section 4.3). A draw is one plausible table, not the best guess of each cell: means of many draws are
        that, and several draws tell how uncertain an analysis is (multiple imputation; Rubin, 1987).

        Parameters
        ----------
        X : table as in `fit`
            Missing cells are NaN, None, NA or NaT.
        y : array-like, optional
            Conditions of the rows; a conditional model needs them unless it was trained with ``condition_dropout > 0``.
        n_imputations : int, default=1
            Number of draws.
        random_state : int, RandomState or None, default=None
            Seeds the draws.
        n_steps, solver, guidance_scale, batch_size : optional
            As in `sample`.

        Returns
        -------
        X : like the argument, or a list of `n_imputations` of them if that is more than one
            Cells that were there are untouched, to the last bit.

        Raises
        ------
        ValueError
            For grids, and for a model that was trained with ``masked_share=0``.
        """
        check_is_fitted(self)
        self._require_cells("impute fills")
        n_imputations = check_count("n_imputations", n_imputations)
        samples = self._checked(X)
        check_lengths(len(samples), y=y)
        values = samples.array()
        rows = np.flatnonzero(np.isnan(values).any(axis=1))
        known = self._known_condition(y, len(values))
        vectors = known(slice(0, len(values)))
        vectors = None if vectors is None else vectors[torch.as_tensor(rows, device=vectors.device)]
        seeds = np.random.RandomState(seed_from(random_state)).randint(2**31 - 1, size=n_imputations)
        tables = []
        for seed in seeds:
            sampler = RowSampler.of(self, int(seed), n_steps, solver, guidance_scale, batch_size)
            filled = values.copy()
            for part in blocks(len(rows), self._source_scale.numel()):
                cells = values[rows[part]]
                codes = sampler.cells(None if vectors is None else vectors[part], sampler.given(cells))
                drawn = self._encoder.restore(to_numpy(codes))
                filled[rows[part]] = np.where(np.isnan(cells), drawn, cells)
            tables.append(preprocessing.fill_table(self._encoder.container, X, values, filled))
        return tables[0] if n_imputations == 1 else tables

    # -- how `sample` knows what is given -------------------------------------------------------------------------

    def _given_values(self, given: Any, n_samples: int) -> NDArray[np.float64] | None:
        """The given cells as a table (n_samples, n_columns) of numbers, NaN elsewhere; None without any."""
        if given is None or (hasattr(given, "__len__") and len(given) == 0):
            return None
        self._require_cells("given fixes")
        if not isinstance(given, Mapping) and not hasattr(given, "columns"):
            raise ValueError(
                f"given must be a dict of columns and their values, such as {{'age': 40}}, or a table of them, got "
                f"{type(given).__name__}."
            )
        container = self._encoder.container
        assert isinstance(container, preprocessing.TableContainer)
        values = np.full((n_samples, *self.sample_shape_), np.nan)
        for name in given.keys() if isinstance(given, Mapping) else given.columns:
            column = container.position(name)
            cells = container.cells(column, given[name])
            if len(cells) not in (1, n_samples):
                raise ValueError(
                    f"given[{name!r}] has {len(cells)} values; expected one, or one for each of {n_samples} samples."
                )
            self._check_given(name, column, cells)
            values[:, column] = cells
        return values

    def _holes(
        self, n_samples: int, y: Any, values: NDArray[np.float64] | None, random: np.random.RandomState
    ) -> NDArray[np.bool_] | None:
        """Which codes of the samples are missing, as in training rows of like conditions; None after whole rows."""
        if self._patterns is None:
            return None
        vectors = None
        if self._conditions is not None:
            vectors = self._conditions.encode(preprocessing.plain_conditions(y), n_samples)
        columns = self._encoder.code_columns
        present = np.zeros(len(columns), dtype=bool) if values is None else ~np.isnan(values[0])[columns]
        return self._patterns.draw(n_samples, vectors, present, random)

    def _check_given(self, name: Any, column: int, cells: NDArray[np.float64]) -> None:
        """Raise a ValueError for values that training has not come near."""
        encoder, container = self._encoder, self._encoder.container
        assert isinstance(container, preprocessing.TableContainer)

        def shown(number: float) -> Any:
            return preprocessing.entry_of(container, column, number)

        if np.isnan(cells).any():
            raise ValueError(f"given[{name!r}] has a missing value; leave the column out to have it generated.")
        if encoder.is_category[column]:
            shares = encoder.category_shares(column)
            lacking = cells[shares[cells.astype(np.intp)] == 0]
            if len(lacking):
                raise ValueError(
                    f"given[{name!r}] is {shown(lacking[0])!r}, which does not occur in the training data."
                )
            return
        table = np.zeros((len(cells), len(container.kinds)))
        table[:, column] = cells
        kept = container.read(container.wrap(table))[:, column]
        lost = np.abs(kept - cells) > container.tolerance(len(container.kinds))[column] * np.abs(cells)
        if lost.any():
            raise ValueError(
                f"given[{name!r}] is {shown(cells[lost][0])}, which the column cannot hold: {shown(kept[lost][0])} "
                "would come back."
            )
        low, high = encoder.limits[:, column]
        beyond = cells[(cells < low) | (cells > high)]
        if len(beyond):
            raise ValueError(
                f"given[{name!r}] is {shown(beyond[0])}, outside the range of the training data, {shown(low)} to "
                f"{shown(high)}."
            )

    def _require_cells(self, what: str) -> None:
        if not self._encoder.is_table:
            raise ValueError(
                f"{what} cells of tables, but this model was fitted to samples of shape {self.sample_shape_}."
            )
        if not self._is_masked or self._as_fitted.masked_share == 0:
            raise ValueError(f"{what} cells, which this model has not learned: fit with masked_share > 0, such as 0.3.")
