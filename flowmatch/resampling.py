"""FlowMatchingOverSampler: more rows or signals of rare classes, or of rare amounts; imbalanced-learn's manners."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin
from sklearn.utils import InputTags, Tags, TargetTags

from flowmatch.core.checks import check_choice, check_number
from flowmatch.core.memory import check_memory
from flowmatch.core.randomness import seed_from
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.synthetic import Perturb
from flowmatch.synthetic.class_counts import rows_to_add
from flowmatch.synthetic.rows import (
    are_signals,
    check_examples,
    check_generator,
    draw_classes,
    draw_numbers,
    join,
    keep,
)
from flowmatch.synthetic.targets import Target, holds_numbers, sparse_targets
from flowmatch.tables.forms import form_dtypes, form_of, in_form
from flowmatch.tables.frames import dtypes_of

TARGETS = ("auto", "classes", "numbers")
AUTO_RATIO = 0.5
"""New rows a row, for numeric targets."""


def default_generator(X: Any) -> Any:
    """What draws rows of classes where no generator is given: measured on six tables of 215 to 1484 rows.

    About 250 passes, less than half of what a generator makes by default: what is trained briefly draws rare rows
    widely, and a little guidance keeps them out of the other classes. Signals are perturbed, which takes no
    training.
    """
    if are_signals(X):
        return Perturb()
    steps = int(np.clip(250 * X.shape[0] // 256, 300, 1000))
    return FlowMatchingGenerator(guidance_scale=1.25, masked_share=0.0, max_iter=steps)


class FlowMatchingOverSampler(OneToOneFeatureMixin, BaseEstimator):
    """Add rows of rare classes, or with rare values of a numeric target, drawn by flow matching.

    One flow learns the rows of all classes, given the class; the rare ones are then drawn with a little guidance, and
    those that could as well be of another class are drawn anew.
    The methods, parameters and attributes are those of imbalanced-learn's samplers, and its `Pipeline` takes this one,
    but imbalanced-learn itself is not needed.

    More rows of a rare class move the operating point of a classifier that would else say "common" too often: more of
    the rare rows are found, at the price of more false alarms. They hold no information that was not in the data, so a
    ranking (average precision, AUROC) hardly gains from them.

    X may also be signals (n_samples, n_channels, n_times), of 16 times at least: windows of vibration are best
    over-sampled by `flowmatch.synthetic.Perturb`, alone or over another generator.

    Parameters
    ----------
    generator : estimator or None, default=None
        What learns and draws the rows, cloned: anything with ``fit(X, y, sample_weight)`` and
        ``sample(n, y, random_state)``. None stands for a `FlowMatchingGenerator` that is trained briefly (250 passes,
        at least 300 and at most 1000 steps) and guided (``guidance_scale=1.25``); for numeric targets, for its
        defaults; for signals of classes, for a `flowmatch.synthetic.Perturb`, which makes copies at another speed,
        gain and tilt and needs no training.
    sampling_strategy : float, str, dict or callable, default="auto"
        For classes, as in imbalanced-learn. A number in (0, 1]: rows of the rarer of two classes over those of the
        other, afterwards. "minority", "not minority", "not majority" (the same as "auto") or "all": classes that
        become as large as the largest. A dict: rows of each class afterwards. A callable: makes such a dict from y.
        For numeric targets, the number of new rows for every row, above 0; "auto" stands for 0.5.
    min_odds : float or None, default=10.0
        New rows that are not so many times likelier under their class than under any other (of the ten most common
        ones), by the generator's ``score_samples``, are drawn anew, up to three times; then the best one stays. None
        keeps all, which finds more of the rare rows, and raises more false alarms. Without effect on numeric targets,
        on signals, and on generators that compute no density.
    target : {"auto", "classes", "numbers"}, default="auto"
        What y holds. "auto" takes numbers with a fraction for amounts, and everything else for classes, as
        `sklearn.utils.multiclass.type_of_target` does; whole numbers may be either.
    random_state : int, RandomState or None, default=None
        Seeds the draws, and the training of a generator that has no seed of its own.

    Attributes
    ----------
    sampling_strategy_ : dict or int
        How many rows to draw of each class; for a numeric target, how many there are to draw.
    generator_ : estimator or None
        The fitted generator; None if there was nothing to draw.
    n_features_in_ : int
        Columns of a table, channels of signals.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.

    See Also
    --------
    AugmentedClassifier, AugmentedRegressor : The same rows inside of an estimator, for plain scikit-learn.

    Notes
    -----
    Rows for a numeric target fill up its density from below to one level, as far as their number reaches: the new
    targets have the density ``max(0, level - p(y))`` around the observed ones, where p is a kernel density estimate.
    That rare targets are over-sampled follows SMOTER (Torgo et al., 2013, "SMOTE for regression") and SMOGN (Branco et
    al., 2017); that a target's weight is the inverse of its density, DenseWeight (Steininger et al., 2021,
    "Density-based weighting for imbalanced regression").

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from flowmatch import FlowMatchingGenerator, FlowMatchingOverSampler
    >>> X, y = load_iris(return_X_y=True)
    >>> X, y = X[:110], y[:110]  # ten rows of the third class
    >>> sampler = FlowMatchingOverSampler(FlowMatchingGenerator(max_iter=200), random_state=0)
    >>> X_more, y_more = sampler.fit_resample(X, y)
    >>> np.bincount(y), np.bincount(y_more)
    (array([50, 50, 10]), array([50, 50, 50]))
    """

    _estimator_type = "sampler"
    _sampling_type = "over-sampling"

    def __init__(
        self,
        generator: Any = None,
        *,
        sampling_strategy: Any = "auto",
        min_odds: float | None = 10.0,
        target: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.generator = generator
        self.sampling_strategy = sampling_strategy
        self.min_odds = min_odds
        self.target = target
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Check X and y and count the rows to draw; nothing is learned, see `fit_resample`.

        Parameters
        ----------
        X, y : as in `fit_resample`

        Returns
        -------
        self
        """
        _, _, planned = self._plan(X, y)
        keep(self, **planned)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Learn the rows, and add new ones.

        Parameters
        ----------
        X : array-like, DataFrame, sparse matrix or tensor
            A table (n_samples, n_features), or signals (n_samples, n_channels, n_times). A sparse matrix is made dense
            to learn from.
        y : array-like of shape (n_samples,), or (n_samples, n_classes) with one 1 a row

        Returns
        -------
        X_resampled : as X, n_samples + n_new of them
            The rows or signals of X in their order, then the new ones, class by class. Signals of integers are rounded
            and clipped, as a converter does.
        y_resampled : as y, of length n_samples + n_new

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts. Missing entries of a table are the generator's
            matter.
        """
        table, target, planned = self._plan(X, y)
        wanted, random_state = planned["sampling_strategy_"], np.random.RandomState(seed_from(self.random_state))
        if isinstance(wanted, dict):
            new = draw_classes(
                default_generator(table) if self.generator is None else self.generator,
                table,
                target.values,
                wanted,
                random_state,
                min_odds=self.min_odds,
            )
        else:
            drawn = sparse_targets(target.values, wanted, random_state)
            generator = FlowMatchingGenerator() if self.generator is None else self.generator
            new = draw_numbers(generator, table, target.values, drawn, random_state)
        rows = join(table, new.X)
        labels = target.like(np.concatenate([target.values, new.y]))
        keep(self, **planned, generator_=new.generator)
        if isinstance(X, torch.Tensor):
            rows = torch.as_tensor(rows, device=X.device).to(X.dtype)
        if hasattr(rows, "iloc"):
            return in_form(form_of(X), rows, form_dtypes(X, dtypes_of(rows))), labels
        return (rows.tolist() if isinstance(X, list) else rows), labels

    def _plan(self, X: Any, y: Any) -> tuple[Any, Target, dict[str, Any]]:
        """Checked rows and targets, and what there is to be learned of them before any training, by name."""
        check_choice("target", self.target, TARGETS)
        check_generator(self.generator)
        if self.min_odds is not None:
            check_number("min_odds", self.min_odds, 0.0, open_low=True)
        table, learned = check_examples(self, X, y)
        target = Target.of(y)
        if holds_numbers(target.values, self.target):
            learned["sampling_strategy_"] = round(self._ratio() * len(target.values))
        else:
            learned["sampling_strategy_"] = rows_to_add(self.sampling_strategy, target.values)
        strategy = learned["sampling_strategy_"]
        n_new = sum(strategy.values()) if isinstance(strategy, dict) else strategy
        check_memory(f"sampling_strategy={self.sampling_strategy!r}", 8.0 * n_new * np.prod(table.shape[1:]))
        return table, target, learned

    def _ratio(self) -> float:
        """New rows a row, for a numeric target."""
        strategy = AUTO_RATIO if self.sampling_strategy == "auto" else self.sampling_strategy
        if not isinstance(strategy, numbers.Real):
            raise ValueError(
                f"sampling_strategy={strategy!r} is for classes, and y holds numbers: pass the number of new rows for "
                "every row, or 'auto'; or say target='classes'."
            )
        return check_number("sampling_strategy", strategy, 0.0, open_low=True)

    def __sklearn_tags__(self) -> Tags:
        """Tags that imbalanced-learn's tools read too."""
        return SamplerTags(
            estimator_type="sampler",
            target_tags=TargetTags(required=True),
            input_tags=TableTags(three_d_array=True, sparse=True, string=True, allow_nan=True),
            sampler_tags=ResamplingTags(),
        )


@dataclass(slots=True)
class TableTags(InputTags):
    """Scikit-learn's tags of inputs, and imbalanced-learn's own."""

    dataframe: bool = True


@dataclass(slots=True)
class ResamplingTags:
    """imbalanced-learn's tags of samplers: whether they tell which rows they chose."""

    sample_indices: bool = False


@dataclass(slots=True)
class SamplerTags(Tags):
    """Scikit-learn's tags, and imbalanced-learn's tags of samplers."""

    sampler_tags: ResamplingTags = field(default_factory=ResamplingTags)
