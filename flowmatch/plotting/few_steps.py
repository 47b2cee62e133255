"""Quality of samples in few steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from flowmatch.core.checks import check_count, check_number
from flowmatch.core.randomness import seed_from
from flowmatch.metrics import sliced_wasserstein
from flowmatch.plotting._common import Floats, arrays_by_name, check_estimators, one_axes

_DISTANCE = "sliced Wasserstein distance"
_MARKERS = "os^Dv"


@dataclass(eq=False, repr=False)
class QualityDisplay:
    """Quality of samples against the network evaluations that each of them costs, a line an estimator.

    Make one with `from_estimators`, or with `from_scores` from values at hand.

    Parameters
    ----------
    scores : mapping of str to ndarray of shape (n,)
        A value for each number of evaluations, by name of the estimator.
    n_evaluations : sequence of int, of length n
        Network evaluations a sample, increasing.
    metric_name : str, default="sliced Wasserstein distance"
        Of the scores, for the axis.
    floor : float, optional
        A score to compare with, such as the distance between two halves of the data; a dashed line.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the lines.
    figure_ : matplotlib Figure
        That holds them.
    lines_ : dict of matplotlib Line2D
        By name.
    floor_line_ : matplotlib Line2D or None
        At the floor.

    See Also
    --------
    TrajectoryDisplay : The paths of the samples.

    Examples
    --------
    >>> from flowmatch import FlowMatchingGenerator
    >>> from flowmatch.plotting import QualityDisplay
    >>> teacher = FlowMatchingGenerator().fit(X)  # doctest: +SKIP
    >>> QualityDisplay.from_estimators({"teacher": teacher}, X_test)  # doctest: +SKIP
    """

    scores: Mapping[str, Floats]
    n_evaluations: Sequence[int]
    metric_name: str = _DISTANCE
    _: KW_ONLY
    floor: float | None = None

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: Any,
        *,
        n_evaluations: Sequence[int] = (1, 2, 4, 8, 16, 32),
        n_samples: int | None = None,
        y: Any = None,
        metric: Callable[[Any, Any], float] | None = None,
        metric_name: str | None = None,
        random_state: Any = 0,
        floor: float | None = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Draw samples in few and in more steps, compare them with data, and plot.

        A velocity is sampled by Euler steps and a flow map by its own: both evaluate their network once a step.

        Parameters
        ----------
        estimators : mapping of str to fitted estimator
            By name, such as a teacher and its students.
        X : array-like, tensor or DataFrame of shape (n, *sample_shape)
            Data to compare with, better not those of training.
        n_evaluations : sequence of int, default=(1, 2, 4, 8, 16, 32)
            Network evaluations a sample, increasing; guided sampling counts as one evaluation.
        n_samples : int, optional
            How many samples are compared, by default as many as X has rows.
        y : scalar or array-like, optional
            Conditions of the samples, as in the estimators' ``sample``.
        metric : callable ``metric(samples, X) -> float``, optional
            By default `flowmatch.metrics.sliced_wasserstein`, for which grids are flattened: in the units of X,
            whose columns weigh by their scale.
        metric_name : str, optional
            For the axis; by default that of the metric's function.
        random_state : int, RandomState, Generator or None, default=0
            Seeds the samples, every time alike, so that only the estimators and their steps differ.
        floor : float, optional
            See the class.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        QualityDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If there are no estimators, one has no ``sample``, or a parameter is out of range.
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted.
        """
        check_estimators(estimators)
        counts = _check_evaluations(n_evaluations)
        n_samples = len(X) if n_samples is None else check_count("n_samples", n_samples)
        seed = seed_from(random_state)
        if metric is not None and not callable(metric):
            raise ValueError(f"metric must be a callable metric(samples, X) -> float, got {metric!r}.")

        def score(estimator: Any, n: int) -> float:
            check_is_fitted(estimator)
            solver = "flow_map" if estimator.model_.is_flow_map else "euler"  # both make a step of an evaluation
            samples = estimator.sample(n_samples, y, seed, n_steps=n, solver=solver)
            if metric is None:
                return sliced_wasserstein(X, samples, random_state=seed)  # in this order, errors name X as it is here
            return float(metric(samples, X))

        if metric_name is None:
            name = getattr(metric, "__name__", type(metric).__name__).replace("_", " ")
            metric_name = _DISTANCE if metric is None else name
        scores = {name: [score(estimator, n) for n in counts] for name, estimator in estimators.items()}
        return cls.from_scores(scores, counts, metric_name, floor=floor, ax=ax, **plot_params)

    @classmethod
    def from_scores(
        cls,
        scores: Mapping[str, ArrayLike],
        n_evaluations: Sequence[int],
        metric_name: str = _DISTANCE,
        *,
        floor: float | None = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot scores.

        Parameters
        ----------
        scores : mapping of str to array-like of shape (n,)
            A value for each number of evaluations, by name; NaN leaves a gap.
        n_evaluations : sequence of int, of length n
            Network evaluations a sample, increasing.
        metric_name : str, default="sliced Wasserstein distance"
            Of the scores, for the axis.
        floor : float, optional
            A score to compare with; a dashed line.
        ax : matplotlib Axes, optional
            By default a figure of its own.
        **plot_params
            See `plot`.

        Returns
        -------
        QualityDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If there are no scores, or not one for each of `n_evaluations`, or these are not increasing integers from 1.
        """
        counts = _check_evaluations(n_evaluations)
        found = arrays_by_name("scores", scores, "values")
        for name, values in found.items():
            if values.shape != (len(counts),):
                raise ValueError(
                    f"scores[{name!r}] has shape {values.shape}; expected ({len(counts)},), as n_evaluations."
                )
        if floor is not None:
            floor = check_number("floor", floor, -np.inf)
        return cls(found, counts, metric_name, floor=floor).plot(ax=ax, **plot_params)

    def plot(self, *, ax: Any = None, log_scale: bool = False, **line_params: Any) -> Self:
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a figure of its own.
        log_scale : bool, default=False
            Whether the scores' axis is logarithmic.
        **line_params
            Passed to every line's ``plot``.

        Returns
        -------
        QualityDisplay
            The display itself.
        """
        self.ax_ = ax = one_axes(ax)
        self.figure_ = ax.figure
        self.lines_: dict[str, Any] = {}
        for k, (name, values) in enumerate(self.scores.items()):
            params = {"marker": _MARKERS[k % len(_MARKERS)], "label": name} | line_params
            (self.lines_[name],) = ax.plot(self.n_evaluations, values, **params)
        self.floor_line_ = None
        if self.floor is not None:
            self.floor_line_ = ax.axhline(self.floor, color="0.4", linestyle="--", label=f"floor {self.floor:.3g}")
        ax.set_xscale("log", base=2)
        ax.set_xticks(self.n_evaluations, [str(n) for n in self.n_evaluations])
        if log_scale:
            ax.set_yscale("log")
        ax.set(xlabel="network evaluations a sample", ylabel=self.metric_name)
        ax.legend()
        return self


def _check_evaluations(n_evaluations: Any) -> list[int]:
    """Numbers of evaluations as increasing integers from 1."""
    values = np.asarray(n_evaluations, dtype=object).ravel().tolist()
    counts = [check_count("each of n_evaluations", value) for value in values]
    if not counts or sorted(set(counts)) != counts:
        raise ValueError(f"n_evaluations must be increasing integers, at least one, got {n_evaluations!r}.")
    return counts
