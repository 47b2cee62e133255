"""FlowMatchingGenerator: learn a distribution from samples, draw new ones, and tell densities."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from flowmatch import flow, preprocessing
from flowmatch._code_methods import to_numpy
from flowmatch._table_methods import TableMethods
from flowmatch.core.batches import blocks
from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.devices import resolve_device
from flowmatch.core.randomness import seed_from
from flowmatch.core.user_warnings import warn
from flowmatch.fitting.announcements import announce
from flowmatch.fitting.parameters import Components, check_objective, resolve_components, resolve_transform
from flowmatch.fitting.training_data import RowData, TrainingData
from flowmatch.model.row_sampler import RowSampler, Select, best_of
from flowmatch.preprocessing.validation import (
    check_layout,
    check_lengths,
    check_samples,
    check_weights,
    drop_weightless,
    table_of,
)


@dataclass(frozen=True)
class _Known:
    """What is known of the samples of a call.

    Attributes
    ----------
    y : conditions, one for all or one each
    cells : ndarray of shape (n_samples, n_columns) or None
        Given cells, NaN elsewhere.
    holes : ndarray of bool, shape (n_samples, n_codes), or None
        Codes that are missing as in training.
    complete : bool
        Whether they are to be filled in the end.
    """

    y: Any
    cells: NDArray[np.float64] | None
    holes: NDArray[np.bool_] | None
    complete: bool


class FlowMatchingGenerator(TableMethods):
    """Learn a distribution by flow matching and draw new samples from it.

    A network learns the velocity of a flow that carries noise to data (Lipman et al., 2023; Liu et al., 2023);
    sampling integrates that flow. Scaling, conditioning on labels or numbers, the training loop and the way back to
    the data's own columns and dtypes are part of the estimator.

    Parameters
    ----------
    network : {"auto", "mlp", "unet", "transformer"}, component or factory, default="auto"
        "auto" takes an `flowmatch.networks.MLP` for tables and a `flowmatch.networks.UNet` for signals, images and
        fields. A factory is called as ``factory(sample_shape, condition_size, flow_map)`` and returns a module with
        ``forward(x, t, condition=None)``, or ``forward(x, t, condition, step)`` where it is asked for a flow map; if
        it takes `context_channels`, it is told how many channels of a grid the condition ends in. For tables with
        `masked_share` > 0 or missing cells, conditions end in five numbers for each code of a row (which are given,
        and what they are); `condition_size` and `context_channels` count them.
    objective : {"velocity", "mean_flow"} or Objective, default="velocity"
        What the network learns. "velocity": the flow's velocity, which sampling integrates in some ten steps.
        "mean_flow": the average velocity over any stretch of time (`flowmatch.objectives.MeanFlow`), for samples in
        one evaluation or a few, at about five times the cost of training; distilling a velocity with
        `DistilledFlowMap` gives better samples for less.
    path : {"linear", "vp", "cosine"} or Path, default="linear"
        How noise and data are mixed along time.
    coupling : {"independent", "ot"} or Coupling, default="independent"
        How noise is paired with data within a batch. "ot" pairs them by exact assignment in blocks of 128, inside a
        class when `y` holds labels; it straightens the paths, so that fewer solver steps do, at about 1.4 times the
        cost of a training step. Other conditions keep independent pairs.
    source : {"normal", "matched", "sparse"} or Source, default="normal"
        The distribution of the noise.
    time_sampler : {"auto", "uniform", "stratified", "u_shaped", "logit_normal", "data_emphasis", \
"noise_emphasis"} or TimeSampler, default="auto"
        How training times are drawn. "auto" takes "logit_normal"; for grids of more than 64 points its mean moves
        towards the noise, down to a logit of -1 at 780 points.
    loss : {"l2", "huber", "sobolev", "multiscale"} or ResidualLoss, default="l2"
        Norm of the velocity's error. For grids, "sobolev" adds its gradients, "multiscale" its averages over coarser
        cells, and ``ChannelWeighted(weights, loss)`` weighs the channels.
    loss_weight : {"uniform", "snr", "min_snr", "data_end", "noise_end", "adaptive"}, LossWeight or callable, \
default="uniform"
        Weight of the loss over time; a callable is given times (B,) and returns weights (B,).
    max_iter : int or None, default=None
        Optimiser steps. None makes about 600 passes through a table, at least 300 and at most 1000 steps, and about
        130 passes through grids, at least 1000 and at most 8000 steps: right for small data; large data gain from more.
    batch_size : int or None, default=None
        Rows a step. None takes 256 of a table, and 32 signals, images or fields.
    learning_rate : float or None, default=None
        Peak learning rate. None takes 0.005 for tables and 0.004 for grids.
    training : TrainingOptions or None, default=None
        What else there is to tune about training; None stands for ``TrainingOptions()``.
    preprocessing : {"auto", "quantile", "standardize", "minmax", "log1p", "none"} or ColumnTransform, default="auto"
        Scale on which the flow works. "auto" takes "quantile" for tables and "standardize", per channel, for grids.
    condition_dropout : float, default=0.1
        Share of training rows whose condition is hidden, so that the model learns the unconditional distribution
        too; guidance needs that. No effect without conditions.
    guidance_scale : float, default=1.0
        Classifier-free guidance at sampling: 1 follows the condition as learned, larger values exaggerate it. With
        ``objective="mean_flow"`` it is learned in training and cannot be changed afterwards.
    categorical_features : "auto", None, or array-like of names, indices or bools, default="auto"
        Columns of a table that are categories. "auto" takes those of text, of booleans and of pandas' category dtype;
        a list names further ones, such as numbers that are codes. None allows no categories.
    masked_share : float, default=0.3
        Share of a table's training rows of which the network is shown some cells, as the basis of `impute` and of
        ``sample(given=...)``; 0 trains for whole rows alone. No effect on grids.
    solver : str, default="auto"
        "euler", "midpoint", "heun", "rk4" or "ab2" (fixed steps); "dopri5", "dopri8", "bosh3", "fehlberg2" or
        "adaptive_heun" (adaptive, from torchdiffeq; their step is shared by the batch); "flow_map" (the jumps of a
        model with ``objective="mean_flow"``, one evaluation each). "auto" takes "flow_map" where there is one, else
        "midpoint".
    n_steps : int or None, default=None
        Steps of the fixed-step solvers. None takes 1 for "flow_map", else 10.
    device : "auto", str or torch.device, default="auto"
        "auto" takes cuda, then mps, then cpu.
    random_state : int, RandomState or None, default=None
        Seeds initialisation, shuffling, noise and times of `fit`. Global generators are never touched.
    verbose : bool or int, default=0
        Show a progress bar with loss and learning rate, and say what "auto" picked.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted weights and scaling instead of starting anew.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network (averaged weights).
    classes_ : ndarray of shape (n_classes,)
        Labels, if `y` held any.
    preprocessing_ : ColumnTransform
        The fitted transform, "auto" resolved.
    sample_shape_ : tuple of int
        Shape of one sample: (d,) for a table.
    n_features_in_ : int
        Columns of a table, channels of a grid.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.
    n_iter_ : int
        Optimiser steps made.
    n_parameters_ : int
        Numbers in the network.
    history_ : dict of lists
        step, loss, validation_loss, gradient_norm, learning_rate, seconds; about a hundred entries a fit.

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
        network="auto",
        *,
        objective="velocity",
        path="linear",
        coupling="independent",
        source="normal",
        time_sampler="auto",
        loss="l2",
        loss_weight="uniform",
        max_iter=None,
        batch_size=None,
        learning_rate=None,
        training=None,
        preprocessing="auto",
        condition_dropout=0.1,
        guidance_scale=1.0,
        categorical_features="auto",
        masked_share=0.3,
        solver="auto",
        n_steps=None,
        device="auto",
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.network = network
        self.objective = objective
        self.path = path
        self.coupling = coupling
        self.source = source
        self.time_sampler = time_sampler
        self.loss = loss
        self.loss_weight = loss_weight
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.preprocessing = preprocessing
        self.condition_dropout = condition_dropout
        self.guidance_scale = guidance_scale
        self.categorical_features = categorical_features
        self.masked_share = masked_share
        self.solver = solver
        self.n_steps = n_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    _frozen = (*TableMethods._frozen, "masked_share", "categorical_features")

    # -- fitting ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn the distribution of X, given y if there is one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, *grid)
            A table: DataFrame (pandas, polars) or array of numbers, text, categories, booleans and dates, of which some
            cells may be missing (NaN, None, NA, NaT). Or grids of numbers: numpy array, torch tensor, or anything with
            ``__len__`` and ``__getitem__`` that gives one array a sample. Memory-mapped arrays stay on disk. At least 2
            rows.
        y : array-like of shape (n_samples,), (n_samples, k) or (n_samples, n_channels, *grid), optional
            Conditions. One-dimensional: labels of any dtype, unless they are amounts (numbers with a fraction, or of
            which more than 20 and more than a tenth of the rows are distinct). Two-dimensional: columns of numbers,
            and of labels where they hold text or categories. More dimensions: grids of the size of X's.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows; rows of weight 0 are left out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts and with whatever was fitted left as it was.
        NonFiniteTrainingError
            If the loss or its gradient becomes non-finite; the last good weights stay on the estimator.
        """
        return self._fit(X, y, sample_weight, go_on=bool(self.warm_start))

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train for `max_iter` more steps on X, from the fitted weights, scaling and labels.

        The first call is a `fit`. Later ones may bring other rows, but not other columns or labels; labels are then
        drawn in the shares of the last call. The scaling stays that of the first call: choose
        ``preprocessing="standardize"`` for data that drift, because "quantile" and "minmax" never leave the range they
        were fitted to. Each call runs through the learning rate's schedule once.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, go_on=True)

    def _fit_in_place(self, X: Any, y: Any, sample_weight: Any, *, fresh: bool) -> None:
        components = resolve_components(self)
        check_objective(self, components)
        check_number("condition_dropout", self.condition_dropout, 0.0, 1.0)
        check_number("guidance_scale", self.guidance_scale, -np.inf)
        check_number("masked_share", self.masked_share, 0.0, 1.0, closed_high=True)
        container = self._container_of(X, fresh=fresh)
        missing = fresh or self._is_masked
        samples = check_samples(self, X, reset=fresh, min_samples=2, container=container, missing=missing)
        if container is None:
            container = samples.container(X)
            if len(samples.sample_shape) == 1:  # a table on disk
                container = preprocessing.TableContainer.of_numbers(container, samples.sample_shape[0])
        check_lengths(len(samples), y=y, sample_weight=sample_weight)
        weight = check_weights(sample_weight, len(samples))
        if weight is not None:
            samples, y, weight = drop_weightless(samples, y, weight)
        if fresh:
            if isinstance(self.network, str) and self.network != "mlp":
                check_layout(samples.shape)
            self.sample_shape_ = samples.sample_shape
            transform = resolve_transform(self, self.sample_shape_)
            self._conditions = None if y is None else preprocessing.fit_conditions(y, weight, samples.sample_shape)
            self._encoder = preprocessing.SampleEncoder.fit(samples, container, transform, weight)
            self.preprocessing_ = self._encoder.transform
            has_holes = bool(samples.summary.n_missing.any())
            self._is_masked = self._encoder.is_table and (self.masked_share > 0 or has_holes)
            if isinstance(self._conditions, preprocessing.LabelEncoder):
                self.classes_ = self._conditions.classes
        else:
            self._require_conditions(y)
        if not fresh and self._conditions is not None:
            self._conditions = self._conditions.with_shares_of(preprocessing.plain_conditions(y), weight)
        self._freeze_parameters(fresh=fresh, jumps=components.objective.flow_map)
        self._check_guidance(self.guidance_scale)
        self._require_conditions(y)
        if fresh:
            self._announce(samples, components)
        known = None if y is None else preprocessing.plain_conditions(y)
        self._patterns = self._missing_patterns(samples, known, weight)
        part = samples.subset(preprocessing.FITTED_ELEMENTS)
        some_codes = functools.cache(lambda: self._encoder.encode(samples.read(part)))
        if fresh:
            # only on straight paths a row that starts where it belongs has nowhere to go
            straight = self._is_masked and isinstance(components.path, flow.LinearPath)
            self._factors = preprocessing.FactorModel.fit(some_codes()) if straight else None
        data = self._encoded(samples, known, weight, resolve_device(self.device))
        self._train(data, some_codes, components, fresh=fresh)

    def _container_of(self, X: Any, *, fresh: bool) -> preprocessing.Container | None:
        """What tables come in; data on disk and grids tell that themselves."""
        return table_of(X, self.categorical_features) if fresh else self._encoder.container

    def _missing_patterns(
        self, samples: preprocessing.SampleRows, y: Any, weight: NDArray[np.float64] | None
    ) -> preprocessing.MissingPatterns | None:
        """Which codes of the rows are missing together, given their conditions."""
        if not self._encoder.is_table or not samples.summary.n_missing.any():
            return None
        missing = np.concatenate([np.isnan(chunk) for _, chunk in samples.chunks()])[:, self._encoder.code_columns]
        vectors = None if self._conditions is None else self._conditions.encode(y, len(samples))
        return preprocessing.MissingPatterns.fit(missing, vectors, weight)

    def _announce(self, samples: preprocessing.SampleRows, components: Components) -> None:
        """Say what was picked, and warn where quality must suffer."""
        announce(self, samples, components)

    # -- sampling -----------------------------------------------------------------------------------------------

    def sample(
        self,
        n_samples: int = 1,
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
        select: Select = "density",
    ) -> Any:
        """Draw new samples.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        y : scalar or array-like, optional
            One condition for all samples, or one for each. None draws conditions as in training, each as often as
            its share there, to within one sample.
        random_state : int, RandomState or None, default=None
            Seeds the draws; None gives other samples at every call.
        n_steps, solver, guidance_scale : optional
            In place of the estimator's own.
        batch_size : int, optional
            Samples carried together, at most about four million numbers; with the fixed-step solvers the result does
            not depend on it.
        return_y : bool, default=False
            Return the conditions too.
        return_trajectory : bool, default=False
            Return the way from noise to samples instead: the states at the times of the steps, in X's units but not on
            its grids of values. Times are even (but for students of ``method="semigroup"``, whose steps are halves of
            halves). "quantile" decodes them by its smooth map: the last state is near the sample, not equal.
        given : dict or table, optional
            Columns of a table that are known, and their values, one for all samples or one for each: the other columns
            are drawn from their law given these.
        missing : {"complete", "as_trained"}, default="complete"
            After training on rows with missing cells: complete rows, or rows that miss cells in the patterns of
            training, together with those values that rows of these patterns have.
        oversample : int, default=1
            Candidates for each sample, of which the best is kept. Selection narrows the law: of two by density, samples
            crowd around its modes, and rare but true rows get lost.
        select : "density" or callable, default="density"
            What the best is: the highest density (`score_samples`), or the highest number of ``select(candidates)``,
            one a row.

        Returns
        -------
        X : as in `fit`: DataFrame, numpy array or torch tensor of shape (n_samples, *sample_shape)
            Same columns, dtypes and ranges. With `return_trajectory`, an array (n_steps + 1, n_samples, *sample_shape).
        y : only with `return_y`, of length n_samples

        Raises
        ------
        ValueError
            For columns or conditions that there are not, and for given values outside of what training has seen.
        """
        check_is_fitted(self)
        n_samples = check_count("n_samples", n_samples)
        check_count("oversample", oversample)
        check_choice("missing", missing, ("complete", "as_trained"))
        seeds = np.random.RandomState(seed_from(random_state)).randint(2**31 - 1, size=2)
        sampler = RowSampler.of(self, int(seeds[1]), n_steps, solver, guidance_scale, batch_size)
        values = self._given_values(given, n_samples)
        if return_trajectory and (values is not None or oversample > 1):
            raise ValueError("return_trajectory=True shows whole rows: leave given and oversample out.")
        if return_trajectory and missing == "as_trained":
            raise ValueError("return_trajectory=True shows whole rows: leave missing='as_trained' out.")
        if not callable(select):
            check_choice("select", select, ("density",))
        if missing == "complete" and self._patterns is not None and self._as_fitted.masked_share == 0:
            warn(
                "the training rows miss cells, but with masked_share=0 the network has not learned to fill them: "
                "complete samples follow the law less closely. Fit with masked_share > 0, such as 0.3."
            )
        random = np.random.RandomState(seeds[0])
        if y is None and self._conditions is not None:
            y = self._conditions.draw(n_samples, random)
        self._require_conditions(y)
        if return_trajectory:
            X = self._trajectories(sampler, n_samples, self._condition_pieces(y, n_samples))
        else:
            known = _Known(y, values, self._holes(n_samples, y, values, random), complete=missing == "complete")
            if oversample == 1:
                X = self._drawn(sampler, n_samples, known)
            else:
                X = self._selected(sampler, n_samples, known, oversample, select)
        return (X, self._wrap_condition(y, n_samples)) if return_y else X

    def _trajectories(self, sampler: RowSampler, n_samples: int, condition: Any) -> NDArray[np.float64]:
        """States of whole rows on the way from noise, (n_steps + 1, n_samples, *sample_shape)."""
        parts = [
            self._states(sampler.rows(rows.stop - rows.start, condition(rows), return_trajectory=True))
            for rows in blocks(n_samples, self._source_scale.numel())
        ]
        return np.concatenate(parts, axis=1)

    def _drawn(self, sampler: RowSampler, n_samples: int, known: _Known) -> Any:
        """Samples in the user's container."""
        condition, parts = self._condition_pieces(known.y, n_samples), []
        for rows in blocks(n_samples, self._source_scale.numel()):  # so large that noise hardly takes memory
            vector, n_rows = condition(rows), rows.stop - rows.start
            if known.cells is None and known.holes is None:
                parts.append(self._samples(sampler.rows(n_rows, vector)))
                continue
            cells = np.full((n_rows, *self.sample_shape_), np.nan) if known.cells is None else known.cells[rows]
            holes = np.zeros((n_rows, *self._encoder.code_shape), bool) if known.holes is None else known.holes[rows]
            codes = sampler.given(cells)
            fill = sampler.complete if known.complete else sampler.cells
            drawn = self._encoder.restore(to_numpy(fill(vector, codes, torch.as_tensor(holes, device=codes.device))))
            parts.append(self._encoder.container.narrow(np.where(np.isnan(cells), drawn, cells)))
        return self._encoder.container.wrap(np.concatenate(parts))

    def _selected(self, sampler: RowSampler, n_samples: int, known: _Known, oversample: int, select: Select) -> Any:
        """The best of each sample's candidates, which share its condition, given cells and holes."""

        def repeated(rows: Any) -> Any:
            return None if rows is None else np.repeat(rows, oversample, axis=0)

        y = known.y
        if self._conditions is not None:
            y = repeated(self._conditions.expand(preprocessing.plain_conditions(y), n_samples))
        known = _Known(y, repeated(known.cells), repeated(known.holes), known.complete)
        candidates = self._drawn(sampler, n_samples * oversample, known)
        scores = select(candidates) if callable(select) else self.score_samples(candidates, y)
        best = best_of(scores, n_samples, oversample)
        if isinstance(candidates, torch.Tensor):
            return candidates[torch.as_tensor(best, device=candidates.device)]
        return candidates.iloc[best].reset_index(drop=True) if hasattr(candidates, "iloc") else candidates[best]

    def export(
        self, path: Any, *, format: str = "torch_export", n_steps: int | None = None, quantize: str | None = None
    ) -> None:
        """Write a sampler to a file that runs without flowmatch: noise and condition in, samples out.

        Parameters
        ----------
        path : path-like
        format : {"torch_export", "onnx"}, default="torch_export"
        n_steps : int, optional
            Steps that the sampler takes, in place of the estimator's own.
        quantize : {None, "int8"}, default=None
            "int8" stores the weights of matrix products in 8 bits (ONNX only).

        See `flowmatch.export.export` for inputs, outputs and errors.
        """
        from flowmatch.export import export

        export(self, path, format=format, n_steps=n_steps, quantize=quantize)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    # -- what a student learns from -----------------------------------------------------------------------------

    def _data_of(self, X: Any, y: Any, sample_weight: Any) -> TrainingData:
        """Rows like those of `fit`, checked and encoded as there."""
        samples = self._checked(X, min_samples=2)
        check_lengths(len(samples), y=y, sample_weight=sample_weight)
        weight = check_weights(sample_weight, len(samples))
        if weight is not None:
            samples, y, weight = drop_weightless(samples, y, weight)
        self._require_conditions(y)
        return self._encoded(samples, None if y is None else preprocessing.plain_conditions(y), weight)

    def _own_data(self, n_samples: int, seed: int, *, with_samples: bool) -> TrainingData:
        """Samples of the model's own, or their conditions alone and zeros in place of the samples."""
        conditions, device = self._conditions, self._fitted_device
        if isinstance(conditions, preprocessing.GridEncoder):
            raise ValueError("this model has grids as conditions and keeps none of them: pass X and y to fit.")
        if with_samples or self._is_masked:  # what is given in them must belong together
            X, y = self.sample(n_samples, random_state=seed, return_y=True)
            return self._data_of(X, y, None)
        y = None if conditions is None else conditions.draw(n_samples, np.random.RandomState(seed))
        zeros = torch.zeros(1, device=device).expand(n_samples, *self._encoder.code_shape)
        return RowData(
            preprocessing.TrainingCodes(preprocessing.Identity(), zeros, None),
            None if conditions is None else conditions.training_vectors(y, device),
            None,
        )
