"""AugmentedClassifier and AugmentedRegressor: any model of scikit-learn's, fitted to real and synthetic rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from flowmatch.core.checks import check_choice, check_number
from flowmatch.core.randomness import seed_from
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.preprocessing.conditions import systematic_sample
from flowmatch.preprocessing.validation import check_lengths, check_weights
from flowmatch.resampling import default_generator
from flowmatch.synthetic.rows import (
    MIN_ODDS,
    SyntheticRows,
    are_signals,
    check_examples,
    check_generator,
    draw_classes,
    draw_numbers,
    join,
    keep,
)
from flowmatch.synthetic.targets import check_target, sparse_targets

STRATEGIES = ("balance", "all")
_SIGNALS_NOTE = (
    "X are signals (n_signals, n_channels, n_times) of shape {}, passed to {} as they are. A model of rows needs a "
    "step that makes features of them: make_pipeline(FunctionTransformer(log_spectrum, kw_args={{'fs': 12_000}}), "
    "StandardScaler(), LogisticRegression()), with log_spectrum from flowmatch.metrics.signals."
)


def _inner_has(method: str) -> Any:
    """Whether the model inside has a method; if not, its own AttributeError says so."""

    def check(augmented: Any) -> bool:
        getattr(getattr(augmented, "estimator_", augmented.estimator), method)
        return True

    return check


class _Augmented(MetaEstimatorMixin, BaseEstimator, ABC):
    """What both share: rows are added in `fit`, and everything else is the inner model's."""

    def __init__(
        self,
        estimator: Any,
        generator: Any = None,
        ratio: float = 0.5,
        strategy: str = "balance",
        *,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.generator = generator
        self.ratio = ratio
        self.strategy = strategy
        self.random_state = random_state

    @abstractmethod
    def _draw(
        self, X: Any, y: NDArray[Any], weight: NDArray[np.float64], random_state: np.random.RandomState
    ) -> tuple[SyntheticRows, NDArray[np.float64]]:
        """New rows, and the weight of each if the real ones have `weight`."""

    @abstractmethod
    def _checked_target(self, y: Any) -> NDArray[Any]:
        """The target as an array, checked."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn to draw rows, draw some, and fit the model to all.

        Parameters
        ----------
        X : array-like, DataFrame, sparse matrix or tensor
            A table (n_samples, n_features), or signals (n_samples, n_channels, n_times), that both the generator and
            the model can read. Signals reach the model as an array of that shape.
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional
            Goes to the generator and, where synthetic rows have the mean weight of the real rows of their class, to
            the model, if it takes weights.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts.
        """
        if not hasattr(self.estimator, "fit") or isinstance(self.estimator, type):
            raise ValueError(
                f"estimator must be a model with fit, such as RandomForestClassifier(); got {self.estimator!r}."
            )
        check_choice("strategy", self.strategy, STRATEGIES)
        check_number("ratio", self.ratio, 0.0, 1.0 if self.strategy == "balance" else np.inf, closed_high=True)
        check_generator(self.generator)
        table, columns = check_examples(self, X, y)
        target = self._checked_target(y)
        check_lengths(len(target), sample_weight=sample_weight)
        weight = check_weights(sample_weight, len(target))
        weighted = self._passes_on_weights(sample_weight)
        random_state = np.random.RandomState(seed_from(self.random_state))
        new, new_weight = self._draw(table, target, np.ones(len(target)) if weight is None else weight, random_state)
        every = {"sample_weight": np.concatenate([weight, new_weight])} if weighted and weight is not None else {}
        fitted = clone(self.estimator)
        try:
            fitted.fit(join(table, new.X), np.concatenate([target, new.y]), **every)
        except ValueError as error:
            if are_signals(table):
                error.add_note(_SIGNALS_NOTE.format(table.shape, type(self.estimator).__name__))
            raise
        keep(self, **columns, generator_=new.generator, n_synthetic_=len(new.y), estimator_=fitted)
        return self

    def _passes_on_weights(self, sample_weight: Any) -> bool:
        if sample_weight is None:
            return False
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", sample_weight=sample_weight)
            return "sample_weight" in routed.estimator.fit
        if not has_fit_parameter(self.estimator, "sample_weight"):
            raise ValueError(
                f"sample_weight was passed, but {type(self.estimator).__name__}.fit takes none. For a Pipeline, turn "
                "on scikit-learn's metadata routing and request it for the step that does."
            )
        return True

    def get_metadata_routing(self) -> MetadataRouter:
        """Where `sample_weight` goes, in scikit-learn's metadata routing: to the generator, and to the model.

        Returns
        -------
        MetadataRouter
        """
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        )

    def predict(self, X: Any) -> NDArray[Any]:
        """What the model predicts for rows X; no row is synthetic here.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels of a classifier, numbers of a regressor.
        """
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict(X))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Tags:
        """Tags: the model's, as to what X may be."""
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__") and not isinstance(self.estimator, type):
            tags.input_tags = get_tags(self.estimator).input_tags
        return tags


class AugmentedClassifier(ClassifierMixin, _Augmented):
    """A classifier fitted to real rows and to synthetic ones of a flow matching generator.

    The generator is fitted in `fit`, to the rows given there, and predictions see no synthetic row: cross-validation
    and searches over parameters need no care. See `FlowMatchingOverSampler` for what such rows can and cannot do.

    X may also be signals (n_samples, n_channels, n_times), of 16 times at least. They reach the model as they are: most
    need a step before them that makes features, as below. Where few windows of a class are known, and the machine will
    run at other speeds and loads, ``strategy="all"`` with a ratio of 5 or more and `flowmatch.synthetic.Perturb` help.

    Parameters
    ----------
    estimator : classifier
        What is fitted, cloned.
    generator : estimator or None, default=None
        What learns and draws the rows, cloned; None as in `FlowMatchingOverSampler`.
    ratio : float, default=0.5
        How many rows are added, see `strategy`; 0 adds none.
    strategy : {"balance", "all"}, default="balance"
        "balance" brings each class up to `ratio` times the size of the largest, where the size of a class is the sum
        of its weights; so 1 makes all classes equal. "all" adds `ratio` times its own rows to each class.
    random_state : int, RandomState or None, default=None
        Seeds the draws, and the training of a generator that has no seed of its own. The model has its own seed.

    Attributes
    ----------
    estimator_ : classifier
        The fitted model.
    generator_ : estimator or None
        The fitted generator; None if there was nothing to draw.
    n_synthetic_ : int
        Rows that were drawn.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Columns of a table, channels of signals.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.

    See Also
    --------
    FlowMatchingOverSampler : The same rows for imbalanced-learn's `Pipeline`.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from flowmatch import AugmentedClassifier, FlowMatchingGenerator
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X, y = X[19:219], y[19:219]
    >>> model = make_pipeline(StandardScaler(), LogisticRegression())
    >>> augmented = AugmentedClassifier(model, FlowMatchingGenerator(max_iter=100), ratio=1.0, random_state=0)
    >>> augmented.fit(X, y).predict_proba(X[:3]).shape
    (3, 2)

    Vibration, five windows of each fault; every window is added twenty times, at other speeds, gains and tilts:

    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from flowmatch.datasets import make_bearing_signals
    >>> from flowmatch.metrics.signals import log_spectrum
    >>> from flowmatch.synthetic import Perturb
    >>> few = make_bearing_signals(20, random_state=0)
    >>> spectra = FunctionTransformer(log_spectrum, kw_args={"fs": few.sampling_rate})
    >>> model = make_pipeline(spectra, StandardScaler(), LogisticRegression())
    >>> augmented = AugmentedClassifier(model, Perturb(), ratio=20, strategy="all", random_state=0)
    >>> augmented.fit(few.data, few.target).predict(few.data[::5])
    array(['normal', 'inner', 'outer', 'ball'], dtype='<U6')
    """

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, in the order of the columns of `predict_proba`."""
        return np.asarray(self.estimator_.classes_)

    @available_if(_inner_has("predict_proba"))
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """The model's probabilities (n_samples, n_classes), for the shares of the classes that it was fitted to."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict_proba(X))

    @available_if(_inner_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """The logarithm of `predict_proba`."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.predict_log_proba(X))

    @available_if(_inner_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray[Any]:
        """The model's decision function."""
        check_is_fitted(self)
        return np.asarray(self.estimator_.decision_function(X))

    def _checked_target(self, y: Any) -> NDArray[Any]:
        target = check_target(y, warn=True)
        check_classification_targets(target)
        return target

    def _draw(
        self, X: Any, y: NDArray[Any], weight: NDArray[np.float64], random_state: np.random.RandomState
    ) -> tuple[SyntheticRows, NDArray[np.float64]]:
        classes, codes = np.unique(y, return_inverse=True)
        sizes, counts = np.bincount(codes, weights=weight), np.bincount(codes, weights=weight > 0)
        if self.strategy == "balance":
            missing = (self.ratio * sizes.max() - sizes) * counts / np.maximum(sizes, np.finfo(float).tiny)
            n_new = np.floor(np.maximum(missing, 0) + 1e-9)
        else:
            n_new = np.round(self.ratio * counts)
        wanted = dict(zip(classes, n_new.astype(int), strict=True))
        rows = draw_classes(
            default_generator(X) if self.generator is None else self.generator,
            X,
            y,
            wanted,
            random_state,
            weight if np.ptp(weight) > 0 else None,
            MIN_ODDS if self.strategy == "balance" else None,
        )
        means = sizes / np.maximum(counts, 1)
        return rows, means[np.searchsorted(classes, rows.y)]


class AugmentedRegressor(RegressorMixin, _Augmented):
    """A regressor fitted to real rows and to synthetic ones of a flow matching generator.

    The generator is fitted in `fit`, to the rows given there, and predictions see no synthetic row: cross-validation
    and searches over parameters need no care.

    Parameters
    ----------
    estimator : regressor
        What is fitted, cloned.
    generator : estimator or None, default=None
        What learns and draws the rows, cloned; None as in `FlowMatchingOverSampler`.
    ratio : float, default=0.5
        Synthetic rows for every real one; 0 adds none.
    strategy : {"balance", "all"}, default="balance"
        "balance" draws rows where the target is sparse, as `FlowMatchingOverSampler` does. "all" draws targets as they
        occur.
    random_state : int, RandomState or None, default=None
        Seeds the draws, and the training of a generator that has no seed of its own. The model has its own seed.

    Attributes
    ----------
    estimator_ : regressor
        The fitted model.
    generator_ : estimator or None
        The fitted generator; None if there was nothing to draw.
    n_synthetic_ : int
        Rows that were drawn.
    n_features_in_ : int
        Columns of a table, channels of signals.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.

    See Also
    --------
    FlowMatchingOverSampler : The rule by which sparse targets are filled up.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> from flowmatch import AugmentedRegressor, FlowMatchingGenerator
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = RandomForestRegressor(n_estimators=10, random_state=0)
    >>> augmented = AugmentedRegressor(model, FlowMatchingGenerator(max_iter=100), random_state=0).fit(X, y)
    >>> augmented.n_synthetic_, augmented.predict(X[:3]).shape
    (221, (3,))
    """

    def _checked_target(self, y: Any) -> NDArray[Any]:
        target = check_target(y, warn=True)
        try:
            return target.astype(np.float64)  # whole numbers too: new ones lie between
        except (TypeError, ValueError) as error:
            raise ValueError(f"y must hold numbers, got dtype {target.dtype}: {error}.") from error

    def _draw(
        self, X: Any, y: NDArray[Any], weight: NDArray[np.float64], random_state: np.random.RandomState
    ) -> tuple[SyntheticRows, NDArray[np.float64]]:
        n_new = round(self.ratio * len(y))
        if self.strategy == "balance":
            drawn = sparse_targets(y, n_new, random_state, weight)
        else:
            drawn = y[systematic_sample(weight / weight.sum(), n_new, random_state)].astype(np.float64)
        generator = FlowMatchingGenerator() if self.generator is None else self.generator
        rows = draw_numbers(generator, X, y, drawn, random_state, weight if np.ptp(weight) > 0 else None)
        return rows, np.full(n_new, weight[weight > 0].mean())
