"""FlowAnomalyDetector: learn what is normal, and tell how far other rows are from it, and where."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from flowmatch import anomaly, preprocessing
from flowmatch._score_attribute import ScoreAttribute
from flowmatch.anomaly.held_out import (
    choose_n_folds,
    in_order,
    percentile,
    split_rows,
    take,
)
from flowmatch.anomaly.members import Member, fit_member, is_auto, new_flow, short_training
from flowmatch.base import Estimator
from flowmatch.core.checks import check_count, check_number
from flowmatch.core.component import resolve_component
from flowmatch.core.randomness import seed_from
from flowmatch.core.user_warnings import warn
from flowmatch.fitting.parameters import ALIASES, resolve_components, resolve_source
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.preprocessing import SampleRows
from flowmatch.preprocessing.validation import check_layout, check_lengths, check_samples, check_weights, table_of

Floats = NDArray[np.float64]


_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Relative difference up to which scores count as equal: that of a row depends on its batch in the last digits."""


class FlowAnomalyDetector(OutlierMixin, Estimator):
    """Find rows, signals, images or fields that are unlike those of training.

    A flow learns the normal data; how far a row is from them is read off its velocity in one evaluation, off the
    row's neighbours, or off the path that the flow takes from it. The threshold comes from rows that were held out
    of training, so that the share of false alarms on new normal data is the one that was asked for.

    Parameters
    ----------
    network : {"auto", "mlp", "unet", "transformer"}, component or factory, default="auto"
        As in `FlowMatchingGenerator`.
    score : {"combined", "one_step", "latent", "likelihood", "neighbors", "denoising", "rebuilding", \
"reconstruction"} or Score, default="combined"
        How abnormal a row is. "combined" joins the one-step residual with distances to neighbours in the data and
        among latent codes (for grids, with the latent norm) and ranked best over tables; "one_step"
        is the fastest. See `flowmatch.anomaly` for each.
    contamination : "auto" or float, default="auto"
        "auto": the training data are normal, and the threshold is set for `false_alarm_rate` on rows held out of
        training. A float in (0, 0.5]: that share of the training rows is flagged, as elsewhere in scikit-learn;
        nothing is held out then.
    false_alarm_rate : float, default=0.05
        With ``contamination="auto"``, the share of new normal rows that may be flagged.
    n_folds : "auto" or int, default="auto"
        With ``contamination="auto"``, how rows are held out. 1: a random fifth (at most 1000), the flow is trained on
        the others. k > 1: k flows, each trained without one k-th of the rows, whose scores are averaged. "auto" takes
        5 for tables of less than 500 rows, and 1 for all else.
    trim : float, default=0.0
        Robust training for data that hold outliers: this share of the training rows, those with the highest scores
        after a first training, is left out of a second one.
    path, coupling, source, loss, loss_weight, training, device
        As in `FlowMatchingGenerator`.
    time_sampler : {"auto", "uniform", "stratified", "u_shaped", "logit_normal", "data_emphasis", \
"noise_emphasis"} or TimeSampler, default="auto"
        How training times are drawn. "auto" takes "uniform": anomalies are told near the data.
    max_iter, batch_size, learning_rate : default=None
        As in `FlowMatchingGenerator`; None takes the measured ones. In tables these are 200 steps for each fold of less
        than 500 rows, and 300 steps with a float `contamination`: outliers are learned late.
    preprocessing : {"auto", "standardize", "quantile", "minmax", "log1p", "none"} or ColumnTransform, default="auto"
        Scale on which rows are compared. "auto" takes "standardize", which keeps what is far away far away.
    categorical_features : "auto", None, or array-like of names, indices or bools, default="auto"
        Columns of a table that are categories. "auto" takes those of text, of booleans and of pandas' category dtype;
        a list names further ones, such as numbers that are codes. None allows no categories.
    solver : str, default="midpoint"
    n_steps : int, default=5
        Solver and steps of the scores that integrate the flow; read when `fit` is called.
    random_state : int, RandomState or None, default=None
        Seeds training and the choice of the held-out rows. Scores draw nothing: they are the same at every call.
    verbose : bool or int, default=0
        Show a progress bar for each flow.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted flows, as `partial_fit` does.

    Attributes
    ----------
    flows_ : list of FlowMatchingGenerator
        The fitted flows, one or one a fold.
    offset_ : float
        Rows of a `score_samples` below it are flagged.
    calibration_ : Calibration or None
        Anomaly scores of the held-out rows; None with a float `contamination`.
    classes_ : ndarray of shape (n_classes,)
        Labels of the normal rows, if `y` held any.
    network_ : torch.nn.Module
        That of the first flow; so are `n_iter_`, `history_` and `n_parameters_`.
    sample_shape_ : tuple of int
        Shape of one sample: (d,) for a table.
    n_features_in_ : int
        Columns of a table, channels of a grid.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.

    See Also
    --------
    sklearn.ensemble.IsolationForest, sklearn.neighbors.LocalOutlierFactor

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch import FlowAnomalyDetector
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(1000, 1))
    >>> normal = np.hstack([x, x + 0.1 * rng.normal(size=(1000, 1))])
    >>> detector = FlowAnomalyDetector(random_state=0).fit(normal)
    >>> detector.predict([[1.0, 1.0], [1.0, -1.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        network="auto",
        *,
        score="combined",
        contamination="auto",
        false_alarm_rate=0.05,
        n_folds="auto",
        trim=0.0,
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
        categorical_features="auto",
        solver="midpoint",
        n_steps=5,
        device="auto",
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.network = network
        self.score = score
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.n_folds = n_folds
        self.trim = trim
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
        self.categorical_features = categorical_features
        self.solver = solver
        self.n_steps = n_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    score = ScoreAttribute()
    _members: list[Member]
    calibration_: anomaly.Calibration | None
    classes_: NDArray[Any]

    # -- fitting ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn what is normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, *grid)
            As in `FlowMatchingGenerator.fit`, tables of text, categories, booleans, dates and missing cells included.
            Normal rows; or, with a float `contamination`, rows that hold outliers.
        y : array-like of shape (n_samples,), optional
            Classes of the normal rows (operating points, products), not their anomalies: each class is learned as
            such, and a row's score is that under the class that suits it best.
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
            If the loss or its gradient becomes non-finite.
        """
        return self._fit(X, y, sample_weight, go_on=bool(self.warm_start))

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Go on with `max_iter` more steps on new normal rows, for data that drift.

        The first call is a `fit`. Later ones go on from the fitted weights and scaling, and need at least as many rows
        as there are flows, and three. Of the rows that are searched for neighbours the oldest leave, and of the
        held-out rows' scores, which set the threshold, likewise.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`, of the same columns and classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `fit`, and for another `score`, network, path or kind of `contamination` than in the fit before.
        """
        return self._fit(X, y, sample_weight, go_on=True)

    def _fit_in_place(self, X: Any, y: Any, sample_weight: Any, *, fresh: bool) -> None:
        resolve_components(self)
        score = self._check_parameters()
        if score.is_density:
            resolve_source(self).log_density_terms(torch.zeros(1), torch.ones(1))  # raises if there is none
        self._freeze_parameters()
        if not fresh:
            self._check_same(score)
        table = table_of(X, self.categorical_features) if fresh else self._table
        samples = check_samples(self, X, reset=fresh, min_samples=2, container=table, missing=True)
        check_lengths(len(samples), y=y, sample_weight=sample_weight)
        if isinstance(sample_weight, torch.Tensor):
            sample_weight = preprocessing.as_numpy(sample_weight)
        weight = check_weights(sample_weight, len(samples))
        y = self._check_labels(y, fresh=fresh)
        samples, y, weight = in_order(samples, y, weight, sample_weight)
        if fresh:
            if isinstance(self.network, str) and self.network != "mlp":
                check_layout(samples.shape)
            self.sample_shape_ = samples.sample_shape
            if y is not None:
                self.classes_ = np.unique(y)
        random = np.random.RandomState(seed_from(self.random_state))
        if is_auto(self, "contamination"):
            n_folds = choose_n_folds(self.n_folds, samples.shape) if fresh else len(self._members)
            parts = split_rows(samples, n_folds, y, random)
        else:
            parts = [(np.arange(len(samples)), np.arange(0))]
        mixed = table if isinstance(table, preprocessing.TableContainer) and not table.plain else None
        earlier: list[Any] = [None] * len(parts) if fresh else self._members
        members, scores = [], []
        for (kept, held), before in zip(parts, earlier, strict=True):
            seed = int(random.randint(2**31 - 1))
            max_iter = short_training(self, samples.shape, len(parts))
            flow = new_flow(self, score, before, seed, max_iter=max_iter, table=mixed)
            held_out = take(samples, y, weight, held)
            member = fit_member(flow, score, take(samples, y, weight, kept), held_out, before, self.trim)
            if len(held):
                scores.append(member.scores(held_out[0]))
            members.append(member)
        self._members = members
        if scores:
            held = np.concatenate([held for _, held in parts])
            order = random.permutation(len(held))  # of those that leave later, none must be the largest in some column
            self._calibrate(np.concatenate(scores)[order], None if weight is None else weight[held[order]])
        else:
            self.calibration_ = None
            self.offset_ = self._just_below(percentile(-self._scores(samples), self.contamination, weight))

    # -- the threshold ------------------------------------------------------------------------------------------

    def _calibrate(self, scores: Floats, weight: Floats | None) -> None:
        """Set the threshold from the scores of held-out rows, those of earlier fits among them."""
        earlier = getattr(self, "calibration_", None)
        found = anomaly.Calibration.of(scores, weight)
        found = found if earlier is None else found.before(earlier)
        smallest = found.smallest_rate
        if smallest > self.false_alarm_rate:
            warn(
                f"{len(found.scores)} held-out rows cannot promise a false_alarm_rate of "
                f"{self.false_alarm_rate:g}, but only {smallest:.2g}: the threshold is their highest score."
            )
        threshold = found.threshold(self.false_alarm_rate)
        self.calibration_, self.offset_ = found, self._just_below(-threshold)

    def _just_below(self, score: Any) -> Any:
        """A score less what rounding may make of it."""
        return score - _ROUNDING[self._members[0].field.source_scale.dtype] * abs(score)

    # -- scores -------------------------------------------------------------------------------------------------

    def score_samples(self, X: Any) -> Floats:
        """How normal each row is; the negative of the anomaly score.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        ndarray of shape (n_samples,)
            Higher is more normal; the unit is that of the score: see `flowmatch.anomaly`. A row's result does not
            depend on the other rows. Cells of a table may be missing, also where none was in training: the others are
            seen beside what was to be expected there (`flowmatch.anomaly.Gaps`), and a missing cell adds what it adds
            to a normal row's score.

        Raises
        ------
        ValueError
            For rows of another shape than in training, other columns, infinity, categories that training has not
            seen, and NaN in grids; so do the methods below.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        return -self._scores(self._checked(X))

    def decision_function(self, X: Any) -> Floats:
        """``score_samples(X) - offset_``: negative for rows that are flagged.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for rows that are flagged as anomalies, 1 for the others.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        ndarray of int of shape (n_samples,)
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any) -> Floats:
        """Conformal p-values: how often a normal row is as abnormal as each row of X.

        Of new normal rows, a share of about alpha has a p-value of at most alpha (`flowmatch.anomaly.Calibration`).

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        ndarray of shape (n_samples,)
            At least ``1 / (1 + number of held-out rows)``.

        Raises
        ------
        ValueError
            If no rows were held out.
        """
        check_is_fitted(self)
        if self.calibration_ is None:
            raise ValueError(
                f"p_values need rows that were held out of training, but with contamination={self.contamination!r} "
                "there are none: fit with contamination='auto' on normal data."
            )
        return self.calibration_.p_values(self._just_below(-self.score_samples(X)))

    def explain(self, X: Any) -> Any:
        """How much each feature, channel and instant adds to a row's anomaly score.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        contributions : DataFrame, torch tensor or ndarray, like X
            One number a column, channel and instant. They add up to the row's anomaly score, ``-score_samples(X)``;
            that of a missing cell is what it adds to a normal row's.
        """
        check_is_fitted(self)
        samples = self._checked(X)
        found = np.concatenate(list(self._contributions(samples)))
        if isinstance(X, torch.Tensor):
            return torch.as_tensor(found, dtype=X.dtype if X.is_floating_point() else torch.float32, device=X.device)
        if hasattr(X, "iloc"):
            import pandas as pd

            return pd.DataFrame(found, index=X.index, columns=X.columns)
        return found

    @property
    def _table(self) -> preprocessing.Container:
        """What the numbers of the rows stand for."""
        return self._members[0].flow._encoder.container

    def _checked(self, X: Any) -> SampleRows:
        """Rows like those of `fit`."""
        return check_samples(self, X, reset=False, container=self._table, missing=True)

    def _scores(self, samples: SampleRows) -> Floats:
        """Anomaly scores, (n,)."""
        return np.concatenate([part.reshape(len(part), -1).sum(axis=1) for part in self._contributions(samples)])

    def _contributions(self, samples: SampleRows) -> Iterator[Floats]:
        """What each number adds to its row's score, the mean over the flows, a piece of the rows at a time."""
        size = int(np.prod(self.sample_shape_))
        for _, chunk in samples.chunks(size * min(member.rows_at_once for member in self._members)):
            yield np.mean([member.contributions(chunk) for member in self._members], axis=0)

    # -- parameters, files --------------------------------------------------------------------------------------

    def _check_parameters(self) -> anomaly.Score:
        """The score, resolved; raise a ValueError for parameters of the detector that are out of their range."""
        check_number("false_alarm_rate", self.false_alarm_rate, 0.0, 1.0, open_low=True)
        check_number("trim", self.trim, 0.0, 0.5, closed_high=True)
        if not is_auto(self, "contamination"):
            if isinstance(self.contamination, str):
                raise ValueError(f"contamination must be 'auto' or a number in (0, 0.5], got {self.contamination!r}.")
            check_number("contamination", self.contamination, 0.0, 0.5, open_low=True, closed_high=True)
        if not is_auto(self, "n_folds"):
            check_count("n_folds", self.n_folds)
        score = resolve_component("score", vars(self)["score"], anomaly.Score, ALIASES["score"])
        if isinstance(score, anomaly.Combined) and not is_auto(self, "contamination"):
            return replace(score, with_outliers=True)
        return copy.copy(score)  # what is set later does not reach the fitted one

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Those of components inside, too.

        Returns
        -------
        dict
        """
        return {**super().get_params(deep), "score": vars(self)["score"]}

    def _freeze_parameters(self) -> None:
        """Keep what the flows and scores will belong to; a file holds these, whatever is set later."""
        self._fitted_parameters = {name: copy.copy(value) for name, value in self.get_params(deep=False).items()}

    def _check_same(self, score: anomaly.Score) -> None:
        """Raise a ValueError unless training can go on with this score and `contamination`."""
        was_auto = self.calibration_ is not None
        if was_auto != is_auto(self, "contamination"):
            raise ValueError(
                f"contamination is {self.contamination!r}, but in the fit that this one goes on from it was "
                f"{'' if was_auto else 'not '}'auto'. Set it back, or fit anew with warm_start=False."
            )
        if score != self._members[0].score:
            raise ValueError(
                f"score was {self._members[0].score!r} in the fit that this one goes on from, and is {score!r} now. "
                "Set it back, or fit anew with warm_start=False."
            )

    def _check_labels(self, y: Any, *, fresh: bool) -> NDArray[Any] | None:
        """Classes of the normal rows, (n,)."""
        known = None if fresh else getattr(self, "classes_", None)
        if y is None and known is not None:
            raise ValueError("this detector was fitted with the classes y of normal rows; pass them here too.")
        if y is None:
            return None
        if not fresh and known is None:
            raise ValueError("y was given, but this detector was fitted without classes.")
        labels = np.asarray(preprocessing.plain_conditions(y))
        if not fresh:
            return labels.ravel()  # the flows refuse those that are new
        conditions = preprocessing.fit_conditions(y if labels.ndim == 1 else labels.ravel(), None)
        if not isinstance(conditions, preprocessing.LabelEncoder):
            raise ValueError(
                "y must hold the classes of normal rows, one label each; what came are amounts. Bin them into classes, "
                "or append them to the columns of X."
            )
        return labels.ravel()

    @property
    def flows_(self) -> list[FlowMatchingGenerator]:
        """The fitted flows."""
        return [member.flow for member in self._members]

    @property
    def network_(self) -> torch.nn.Module:
        """The network of the first flow."""
        return self._members[0].flow.network_

    @property
    def n_iter_(self) -> int:
        """Optimiser steps of the first flow."""
        return self._members[0].flow.n_iter_

    @property
    def history_(self) -> dict[str, list[float]]:
        """Training history of the first flow."""
        return self._members[0].flow.history_

    @property
    def n_parameters_(self) -> int:
        """Numbers in the network of the first flow."""
        return self._members[0].flow.n_parameters_

    def __sklearn_is_fitted__(self) -> bool:
        return "_members" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags
