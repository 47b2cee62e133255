"""FlowMatchingGenerator: learn a distribution from samples, draw new ones, and compute densities."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from flowmatch import fitting, model
from flowmatch.base import Estimator, Fitted
from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.randomness import seed_from
from flowmatch.export import export
from flowmatch.preprocessing.validation import check_codes, check_lengths
from flowmatch.training import TrainingOptions

_FROZEN = ("network", "path", "source", "objective", "masked_share", "categorical_features", "identifier_columns")


class FlowMatchingGenerator(DensityMixin, Estimator):
    """Learn a distribution by flow matching and draw new samples from it.

    A network learns the velocity of a flow that carries noise to data (Lipman et al., 2023; Liu et al., 2023);
    sampling integrates that flow. Scaling, conditioning on labels or numbers, the training loop and the way back to
    the data's own columns and dtypes are part of the estimator.

    Parameters
    ----------
    [shared: network]
    objective : {"velocity", "mean_flow"} or Objective, default="velocity"
        What the network learns: the flow's velocity, which sampling integrates in some ten steps, or the mean velocity
        over any stretch of time (`flowmatch.objectives.MeanFlow`), for samples in one evaluation or a few at about
        five times the cost of training. `DistilledFlowMap` gives better samples for less.
    [shared: path, coupling, source, time_sampler, loss, loss_weight]
    max_iter : int or None, default=None
        Optimizer steps. None: for tables 600 passes in 300 to 1000 steps up to 1000 rows, beyond as the root of their
        number up to 7000; for grids 130 passes in 1000 to 8000 steps. Large data gain from more.
    [shared: max_time, batch_size, learning_rate, training]
    preprocessing : {"auto", "quantile", "standardize", "minmax", "log1p", "none"} or ColumnTransform, default="auto"
        Scale on which the flow works. "auto" takes "quantile" for tables and "standardize", per channel, for grids.
    [shared: conditions, categorical_features, identifiers, unknown_categories, constraints, masked_share, solver]
    [shared: n_steps, device, random_state, verbose, warm_start]

    Attributes
    ----------
    model_ : FlowModel
        All that was learned; the other attributes are parts of it.
    network_ : torch.nn.Module
        The trained network (averaged weights), of `n_parameters_` elements.
    classes_ : ndarray of shape (n_classes,)
        Labels, if `y` held any.
    preprocessing_, columns_ : ColumnTransform, dict of str
        The fitted transform, "auto" resolved; kind, range and rule of each column of a table.
    sample_shape_, n_features_in_, feature_names_in_ : tuple of int, int, ndarray of str
        Shape of one sample, (d,) for a table; its first entry; column names, if X had any that are strings.
    identifier_columns_, constraints_ : list, list
        Columns of a table that hold keys; what all drawn rows keep.
    n_iter_, max_iter_, history_ : int, int, dict of lists
        Steps made; those the last fit was to make; step, loss, validation_loss, gradient_norm, learning_rate, seconds.

    See Also
    --------
    sklearn.neighbors.KernelDensity, sklearn.mixture.GaussianMixture

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from flowmatch import FlowMatchingGenerator
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> generator = FlowMatchingGenerator(max_iter=200, random_state=0).fit(X, y)
    >>> generator.sample(3, y=1, random_state=0).shape
    (3, 4)
    >>> generator.score_samples(X.head(2), y.head(2)).shape
    (2,)
    """

    def __init__(
        self,
        network: Any = "auto",
        *,
        objective: Any = "velocity",
        path: Any = "linear",
        coupling: Any = "independent",
        source: Any = "normal",
        time_sampler: Any = "auto",
        loss: Any = "l2",
        loss_weight: Any = "uniform",
        max_iter: int | None = None,
        max_time: float | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        training: TrainingOptions | None = None,
        preprocessing: Any = "auto",
        condition_dropout: float = 0.1,
        guidance_scale: float = 1.0,
        categorical_features: Any = "auto",
        identifier_columns: Any = "auto",
        identifiers: str = "fresh",
        unknown_categories: str = "error",
        constraints: Any = None,
        masked_share: float = 0.3,
        solver: str = "auto",
        n_steps: int | None = None,
        device: Any = "auto",
        random_state: Any = None,
        verbose: bool | int = 0,
        warm_start: bool = False,
    ) -> None:
        self.network = network
        self.objective = objective
        self.path = path
        self.coupling = coupling
        self.source = source
        self.time_sampler = time_sampler
        self.loss = loss
        self.loss_weight = loss_weight
        self.max_iter = max_iter
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.preprocessing = preprocessing
        self.condition_dropout = condition_dropout
        self.guidance_scale = guidance_scale
        self.categorical_features = categorical_features
        self.identifier_columns = identifier_columns
        self.identifiers = identifiers
        self.unknown_categories = unknown_categories
        self.constraints = constraints
        self.masked_share = masked_share
        self.solver = solver
        self.n_steps = n_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    fitted_: fitting.FitResult
    model_, network_, n_parameters_ = Fitted("model"), Fitted("model.network"), Fitted("model.n_parameters")
    preprocessing_, sample_shape_ = Fitted("model.encoder.transform"), Fitted("model.sample_shape")
    n_features_in_, feature_names_in_ = Fitted("model.n_features"), Fitted("model.feature_names")
    classes_, constraints_ = Fitted("model.classes"), Fitted("model.constraints")
    columns_, identifier_columns_ = Fitted("model.encoder.described"), Fitted("model.encoder.container.key_names")
    n_iter_, max_iter_, history_ = Fitted("n_iter"), Fitted("max_iter"), Fitted("history")

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn the distribution of X, given y if there is one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, *grid)
            A table: DataFrame or array of numbers, text, categories, booleans, dates and missing entries. Or grids of
            numbers: numpy array, torch tensor, or a sequence of one array a sample; memory maps stay on disk.
        y : array-like of shape (n_samples,), (n_samples, k) or (n_samples, n_channels, *grid), optional
            Conditions: labels of any dtype, amounts (numbers with a fraction, or of which more than 20 and more than a
            tenth of the rows are distinct), columns of numbers and labels, or grids of the size of X's.
        sample_weight : array-like of shape (n_samples,), optional
            Weights; rows of weight 0 are left out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts; whatever was fitted stays.
        NonFiniteTrainingError
            If the loss or its gradient becomes non-finite; the last good weights stay on the estimator.
        """
        return self._fit(X, y, sample_weight, getattr(self, "fitted_", None) if self.warm_start else None)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train for `max_iter` more steps on X, from the fitted weights, scaling and labels.

        The first call is a `fit`. Later ones may bring other rows, but not other columns or labels; labels are then
        drawn in the shares of the last call. The scaling stays: choose ``preprocessing="standardize"`` for data that
        drift, since "quantile" and "minmax" never leave the range they were fitted to.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, getattr(self, "fitted_", None))

    def check_parameters(self) -> fitting.FitSettings:
        check_choice("unknown_categories", self.unknown_categories, ("error", "missing"))
        check_number("masked_share", self.masked_share, 0.0, 1.0, closed_high=True)
        check_choice("identifiers", self.identifiers, ("fresh", "drop", "empty"))
        own = (self.objective, self.condition_dropout, self.guidance_scale)
        return fitting.resolve_settings(self, *own, frozen=_FROZEN)

    def _fit(self, X: Any, y: Any, sample_weight: Any, start: fitting.FitResult | None) -> Self:
        settings = self.check_parameters()
        if start is None:
            reader = type(self)(**self.get_params(deep=False))  # what is read of X may not reach what is fitted
            rows = fitting.read_rows(reader, X, y, sample_weight, self.categorical_features, self.identifier_columns)
            transform = fitting.resolve_transform(self.preprocessing, rows.samples.sample_shape)
            own = {"masked_share": self.masked_share, "constraints": self.constraints, "grows": True}
            task = fitting.row_task(settings, rows, transform, **own)
            fitting.announce(task, settings, rows.samples)
        else:
            task = fitting.row_task_from(settings, start, fitting.read_rows_like(self, X, y, sample_weight), grows=True)
        fitting.fit_and_assign(self, task, settings, start)
        return self

    def sample(
        self,
        n_samples: int | None = None,
        y: Any = None,
        random_state: Any = None,
        *,
        n_steps: int | None = None,
        solver: str | None = None,
        guidance_scale: float | None = None,
        batch_size: int | None = None,
        return_y: bool = False,
        return_trajectory: bool = False,
        given: Any = None,
        missing: str = "complete",
        oversample: int = 1,
        select: model.Select = "density",
        apart_from: Any = None,
    ) -> Any:
        """Draw new samples.

        Parameters
        ----------
        n_samples : int or None, default=None
            None stands for the rows of `given`, or for 1.
        y : scalar or array-like, optional
            One condition for all samples, or one for each. None draws conditions given what is `given`; without it as
            in training, so that any first n hold each label n times its share, to within four.
        random_state : int, RandomState or None, default=None
            Seeds the draws; None gives other samples at every call. The first samples do not depend on `n_samples`.
        n_steps, solver, guidance_scale, batch_size : optional
            In place of the estimator's own; samples carried together (fixed-step solvers give the same for any).
        return_y : bool, default=False
            Return the conditions too.
        return_trajectory : bool, default=False
            Return the states at the times of the steps, from noise to samples, in X's units.
        given : dict or table, optional
            What is known of a table's columns; all else is drawn from its distribution given that. A value for all
            samples or a list of one each, a range ``(30, 40)`` or ``slice(30, None)`` (both ends included), a set of
            values, a function that tells which of an array of entries are allowed, or None: the entry is missing.
        missing : {"complete", "as_trained"}, default="complete"
            After training on rows with missing entries: complete rows, or rows that miss entries as in training.
        oversample, select : int, default=1; "density" or callable, default="density"
            Candidates for each sample, of which the best is kept (rare but true rows get lost): by `score_samples`, or
            by ``select(candidates)``, one value a row.
        apart_from : table as in `fit`, optional
            Real rows, such as those of training: samples nearer to one than that is to its nearest other one are
            dropped at random until they are as frequent as among real rows.

        Returns
        -------
        X : as in `fit`: DataFrame, numpy array or torch tensor of shape (n_samples, *sample_shape)
            Same columns, dtypes and ranges. With `return_trajectory`, an array (n_steps + 1, n_samples, *sample_shape).
        y : array-like of length n_samples, only with `return_y`

        Raises
        ------
        ValueError
            For columns or conditions that there are not, and what is given outside of what training has seen, or rare.
        MemoryError
            For more samples than memory could hold.
        """
        check_is_fitted(self)
        integration = self._integration(n_steps, solver, guidance_scale, batch_size)
        X, y, n_samples = model.sample_rows(
            model.CodeSampler(model.with_keys(self.model_, self.identifiers), integration, seed_from(random_state)),
            n_samples,
            y,
            given=given,
            missing=missing,
            oversample=oversample,
            select=select,
            density=self.score_samples,
            return_trajectory=return_trajectory,
            apart_from=fitting.rows_to_keep_from(self, apart_from),
        )
        X = X if return_trajectory else model.without_dropped(self.model_, self.identifiers, X)
        return (X, model.conditions_in_their_container(self.model_, y, n_samples)) if return_y else X

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
        """Fill missing entries with draws from their distribution given the entries that are there.

        The network was trained for it with random entries given (`masked_share`), in the spirit of CSDI (Tashiro et
        al., 2021, section 4.3). A draw is one plausible table; the mean of many is the best guess (Rubin, 1987).

        Parameters
        ----------
        X : table as in `fit`
            Missing entries are NaN, None, NA or NaT.
        y : array-like, optional
            Conditions of the rows; a conditional model needs them unless it was trained with ``condition_dropout > 0``.
        n_imputations : int, default=1
        random_state, n_steps, solver, guidance_scale, batch_size : as in `sample`

        Returns
        -------
        X : like the argument, or a list of `n_imputations` of them if that is more than one
            Entries that were there are untouched, to the last bit.

        Raises
        ------
        ValueError
            For grids, and for a model that was trained with ``masked_share=0``.
        """
        check_is_fitted(self)
        model.require_masked_training(self.model_, "impute fills")
        n_imputations = check_count("n_imputations", n_imputations)
        own, rows = fitting.rows_to_fill(self, X, self.unknown_categories)
        check_lengths(len(rows), y=y)
        integration = self._integration(n_steps, solver, guidance_scale, batch_size)
        known, seed = model.with_keys(self.model_, self.identifiers), seed_from(random_state)
        tables = model.impute_rows(known, integration, X, rows, y, n_imputations=n_imputations, seed=seed, own=own)
        return tables[0] if n_imputations == 1 else tables

    def export(
        self, path: Any, *, format: str | None = None, n_steps: int | None = None, quantize: str | None = None
    ) -> None:
        """Write a sampler to a file that runs without flowmatch; see `flowmatch.export.export`.

        Parameters
        ----------
        path, format, n_steps, quantize : as there, but `n_steps` as in `sample`
        """
        check_is_fitted(self)
        export(self.model_, path, self._integration(n_steps), format=format, quantize=quantize)

    def score_samples(
        self,
        X: Any,
        y: Any = None,
        *,
        n_steps: int | None = None,
        solver: str | None = None,
        n_probes: int | None = None,
        return_error: bool = False,
    ) -> Any:
        """Log-density of each row of X, in X's own units.

        The change of variables along the flow (Chen et al., 2018) plus the log-Jacobian of the preprocessing. A row
        depends on others by rounding alone, to single precision; to double with "rk4", adaptive solvers or > 100 steps.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        y : array-like, optional
            Conditions, one for all rows or one each. Without them, a model of labels gives the density of the mixture
            over its classes, and a model of numbers its unconditional density (needs ``condition_dropout > 0``).
        n_steps, solver : optional, in place of the estimator's own
        n_probes : int, optional
            Hutchinson probes of the divergence, the same for every row. By default it is exact up to 64 elements a
            sample, and estimated with 32 probes beyond.
        return_error : bool, default=False
            Return the standard error of the estimate too: 0 where exact, NaN with one probe.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Numbers add log-densities, categories approximate log-probabilities (to some tenths of a nat each), missing
            entries nothing: the density is that of the entries that are there. Minus infinity where a column that was
            constant in training has another value.
        standard_error : ndarray of shape (n_samples,), only with `return_error`
        """
        check_is_fitted(self)
        rows = fitting.rows_like_fit(self, X, unknown=self.unknown_categories)
        steps = model.choose_steps(self.model_, (self.solver, self.n_steps), solver, n_steps, velocity=True)
        log_density, error = model.score_rows(model.CodeDensity(self.model_, *steps, n_probes, self.verbose), rows, y)
        return (log_density, error) if return_error else log_density

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of X given y.

        Parameters
        ----------
        X, y : as in `score_samples`

        Returns
        -------
        float, in nats
        """
        return float(self.score_samples(X, y).mean())

    def encode(self, X: Any, y: Any = None, *, n_steps: int | None = None, solver: str | None = None) -> Any:
        """Latent codes of X: where the flow, run backward, takes each row.

        Parameters
        ----------
        X : as in `score_samples`
        y : array-like, optional
            Conditions; a conditional model needs them unless it was trained with ``condition_dropout > 0``.
        n_steps, solver : as in `score_samples`

        Returns
        -------
        Z : ndarray of shape (n_samples, *code_shape)
            For data like those of `fit` they follow the source. Constant columns have no code, a category has as many
            as it has values (two values have one); those of missing entries are NaN.
        """
        check_is_fitted(self)
        rows = fitting.rows_like_fit(self, X, unknown=self.unknown_categories)
        return model.encode_rows(self.model_, rows, y, self._coding(solver, n_steps, backward=True))

    def decode(self, Z: Any, y: Any = None, *, n_steps: int | None = None, solver: str | None = None) -> Any:
        """Samples of latent codes, the inverse of `encode` to the accuracy of the solver.

        Parameters
        ----------
        Z : array-like of shape (n_samples, *code_shape)
        y, n_steps, solver : as in `encode`

        Returns
        -------
        X : as in `fit`, of shape (n_samples, *sample_shape)
            Unlike `sample`, floating point columns are not put on the grid of the training values.
        """
        check_is_fitted(self)
        codes = check_codes(Z, self.model_.code_shape, missing=self.model_.missing is not None)
        known, steps = model.with_keys(self.model_, self.identifiers), self._coding(solver, n_steps, backward=False)
        return model.without_dropped(known, self.identifiers, model.decode_codes(known, codes, y, steps))

    def check_fitted(self) -> None:
        super().check_fitted()
        self._integration()

    def _coding(self, *call: Any, **way: Any) -> model.Integration:
        return model.coding_steps(self.model_, (self.solver, self.n_steps), *call, verbose=self.verbose, **way)

    def _integration(self, *call: Any) -> model.Integration:
        own = (self.solver, self.n_steps, self.guidance_scale)
        return model.sampling_steps(self.model_, own, *call, verbose=self.verbose)
