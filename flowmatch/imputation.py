"""FlowImputer: missing entries filled with draws from their distribution, in front of any model."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mode
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from flowmatch.core.checks import check_count
from flowmatch.core.randomness import seed_from
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.preprocessing import fill_table, missing_in
from flowmatch.tables.frames import append_columns, as_table, replace_columns, take_columns


class FlowImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Fill missing entries of tables with draws from their distribution given the entries that are there.

    A flow learns the rows as they are, with gaps, and draws what is missing: a transformer around
    `FlowMatchingGenerator.impute`, for pipelines in front of models that take no gaps. Numbers, categories, booleans,
    dates and text may stand beside each other; a table comes back in the container that it came in, and entries that
    were there come back untouched.

    Parameters
    ----------
    estimator : estimator or None, default=None
        What learns and fills the rows, cloned: a `FlowMatchingGenerator`, or a `DistilledFlowMap` of one. None stands
        for the defaults of the generator.
    n_imputations : int, default=1
        How many times the entries are drawn: by `impute`, which returns all tables, and by `transform` for its best
        guesses.
    sample_posterior : bool, default=True
        Whether `transform` fills entries with a draw, so that columns keep their spread and their relations. False
        fills them with a best guess, the mean (the most frequent category) of `n_imputations` > 1 draws.
    add_indicator : bool, default=False
        Append a column for each that missed entries in `fit`, which tells where: as
        `sklearn.impute.MissingIndicator` does.
    keep_empty_features : bool, default=False
        Keep columns that had no entry at all in `fit`, as they are. Otherwise they are left out.
    random_state : int, RandomState or None, default=None
        Seeds the draws, and the training of an estimator that has no seed of its own. The draws' seed is chosen in
        `fit`: the same rows are filled with the same values every time.

    Attributes
    ----------
    estimator_ : estimator
        The fitted one.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.

    See Also
    --------
    sklearn.impute.IterativeImputer : By chained regressions, of numbers.
    FlowMatchingGenerator.impute : The same for a fitted generator, which may be given conditions.

    Notes
    -----
    For an analysis with honest errors, run it on each of several tables of `impute` and pool the results (Rubin, 1987,
    "Multiple Imputation for Nonresponse in Surveys", chapter 3); the guide to tables has the recipe. A best guess is
    for entries as such: columns of best guesses vary too little.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from flowmatch import FlowImputer, FlowMatchingGenerator
    >>> X = load_iris().data
    >>> X[::3, 2] = np.nan
    >>> imputer = FlowImputer(FlowMatchingGenerator(max_iter=200), random_state=0)
    >>> filled = imputer.fit_transform(X)
    >>> filled.shape, int(np.isnan(filled).sum())
    ((150, 4), 0)
    >>> len(imputer.set_params(n_imputations=5).impute(X))
    5
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_imputations: int = 1,
        sample_posterior: bool = True,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.n_imputations = n_imputations
        self.sample_posterior = sample_posterior
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the distribution of the rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Missing entries are NaN, None, NA or NaT.
        y : ignored
            The target of the model behind: it is not known of new rows, and filling by it would give it away.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts.
        """
        self._check_parameters()
        table = self._table(X, reset=True)
        missing = missing_in(table)
        empty, incomplete = np.asarray(missing.all(axis=0)), np.asarray(missing.any(axis=0))
        if len(missing) and empty.all():
            raise ValueError("no column of X has an entry: there is nothing to learn from.")
        random_state = np.random.RandomState(seed_from(self.random_state))
        estimator = FlowMatchingGenerator() if self.estimator is None else clone(self.estimator)
        if estimator.get_params(deep=False).get("random_state", 0) is None:
            estimator.set_params(random_state=int(random_state.randint(2**31 - 1)))
        self.estimator_ = estimator.fit(take_columns(table, ~empty) if empty.any() else table, None)
        self._empty, self._incomplete = empty, incomplete
        self._seed = int(random_state.randint(2**31 - 1))
        return self

    def transform(self, X: Any) -> Any:
        """Fill the missing entries.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, n_features)

        Returns
        -------
        X : like the argument, of shape (n_samples, n_features_out)
            A list becomes an array. `set_output` chooses another container.

        Raises
        ------
        ValueError
            For other columns than in `fit`, and categories that were not there.
        """
        check_is_fitted(self)
        self._check_parameters()
        table = self._table(X, reset=False)
        draws = self._draws(table, 1 if self.sample_posterior else self.n_imputations)
        return self._finished(table, draws[0] if self.sample_posterior else self._best_guess(table, draws))

    def impute(self, X: Any) -> list[Any]:
        """Fill the missing entries several times.

        Parameters
        ----------
        X : as in `transform`

        Returns
        -------
        list of `n_imputations` tables
            Each a draw as of `transform`, whatever `sample_posterior` says; the first is the one that it returns.
        """
        check_is_fitted(self)
        table = self._table(X, reset=False)
        return [
            self._finished(table, draw) for draw in self._draws(table, check_count("n_imputations", self.n_imputations))
        ]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str, optional
            In place of the names that X had in `fit`, or of x0, x1, ... if it had none.

        Returns
        -------
        ndarray of str
            Those of the columns of X, and ``missingindicator_`` before those of columns with gaps.
        """
        check_is_fitted(self)
        names = super().get_feature_names_out(input_features)
        kept = names if self.keep_empty_features else names[~self._empty]
        marks = [f"missingindicator_{name}" for name in names[self._incomplete]] if self.add_indicator else []
        return np.concatenate([kept, np.asarray(marks, dtype=object)])

    def _check_parameters(self) -> None:
        n_imputations = check_count("n_imputations", self.n_imputations)
        if not self.sample_posterior and n_imputations == 1:
            raise ValueError(
                "sample_posterior=False fills entries with the mean of several draws, but n_imputations=1: take ten."
            )
        if self.estimator is not None and not hasattr(self.estimator, "impute"):
            raise ValueError(f"estimator must have impute, such as a FlowMatchingGenerator; got {self.estimator!r}.")
        of_estimator = {} if self.estimator is None else self.estimator.get_params()
        if any(name.endswith("masked_share") and value == 0 for name, value in of_estimator.items()):
            raise ValueError(
                "estimator has masked_share=0, with which it does not learn to fill entries: take masked_share > 0."
            )

    def _table(self, X: Any, *, reset: bool) -> Any:
        """X as a frame, tensor or array, with the columns of `fit`."""
        table = X if hasattr(X, "dtype") else as_table(X)
        if hasattr(table, "columns") or isinstance(table, torch.Tensor):
            validate_data(self, as_table(table), reset=reset, skip_check_array=True)
            return table
        return validate_data(self, table, reset=reset, dtype=None, ensure_all_finite="allow-nan")

    def _draws(self, table: Any, n: int) -> list[Any]:
        """The columns that are not empty, filled `n` times."""
        known = take_columns(table, ~self._empty) if self._empty.any() else table
        draws = self.estimator_.impute(known, n_imputations=n, random_state=self._seed)
        return draws if n > 1 else [draws]

    def _best_guess(self, table: Any, draws: list[Any]) -> Any:
        """The columns that are not empty, filled with what the draws have in common."""
        known = take_columns(table, ~self._empty) if self._empty.any() else table
        container = self.estimator_.model_.encoder.container
        numbers = np.stack([container.read(draw) for draw in draws])
        guess = np.where(container.categorical, mode(numbers, axis=0).mode, numbers.mean(axis=0))
        return fill_table(container, known, container.read(known), guess)

    def _finished(self, table: Any, filled: Any) -> Any:
        """The filled columns with those that are empty, and with indicators."""
        if self.keep_empty_features and self._empty.any():
            filled = replace_columns(table, ~self._empty, filled)
        if not self.add_indicator:
            return filled
        return append_columns(filled, missing_in(table)[:, self._incomplete], self.get_feature_names_out())

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
