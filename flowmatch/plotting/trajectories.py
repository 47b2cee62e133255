"""Paths of samples from noise to data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_count
from flowmatch.core.randomness import seed_from
from flowmatch.metrics import straightness
from flowmatch.plotting._common import Floats, arrays_by_name, check_estimators, check_one_label_each, divide_axes


@dataclass(eq=False, repr=False)
class TrajectoryDisplay:
    """Paths of samples from noise to data in two columns of a table, a panel an estimator.

    Make one with `from_estimators`, or with `from_trajectories` from paths at hand. A title shows the straightness of
    the paths in all columns, see `flowmatch.metrics.straightness`: 0 for straight lines of constant speed.

    Parameters
    ----------
    trajectories : mapping of str to ndarray of shape (n_steps + 1, n_samples, n_features)
        States at even times, by name of the estimator.
    columns : pair of int, default=(0, 1)
        Columns for the two axes.
    column_names : pair of str, optional
        Their names.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_estimators,)
        One an estimator.
    figure_ : matplotlib Figure
        That holds them.
    lines_ : ndarray of matplotlib Line2D, shape (n_estimators, n_samples)
        The paths.
    starts_, ends_ : list of matplotlib Line2D
        Markers of the first and the last states, a panel each.
    straightness_ : dict of float
        By name, in squared units of the data.

    See Also
    --------
    QualityDisplay : Quality against network evaluations.

    Notes
    -----
    Paths are drawn in the data's units. Where the preprocessing is not linear ("quantile", the default for tables,
    and "log1p"), paths that the network keeps straight look bent, and their straightness is not 0; fit with
    ``preprocessing="standardize"`` to see the flow itself.

    Examples
    --------
    >>> from flowmatch import FlowMatchingGenerator
    >>> from flowmatch.plotting import TrajectoryDisplay
    >>> teacher = FlowMatchingGenerator(preprocessing="standardize").fit(X)  # doctest: +SKIP
    >>> TrajectoryDisplay.from_estimators({"teacher": teacher})  # doctest: +SKIP
    """

    trajectories: Mapping[str, Floats]
    columns: Sequence[int] = (0, 1)
    _: KW_ONLY
    column_names: Sequence[Any] | None = None

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        *,
        n_samples: int = 100,
        n_steps: int = 32,
        columns: Sequence[int] = (0, 1),
        column_names: Sequence[Any] | None = None,
        y: Any = None,
        random_state: Any = 0,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Follow samples along their paths and plot these.

        Parameters
        ----------
        estimators : mapping of str to fitted estimator of a table
            By name, such as a teacher and its students.
        n_samples : int, default=100
            Paths in a panel.
        n_steps : int, default=32
            Steps of every path; with one step any path is a straight line. Take a power of two for students of
            ``method="semigroup"``, whose steps are uneven otherwise: straightness takes that for curvature.
        columns : pair of int, default=(0, 1)
            Columns for the two axes.
        column_names : pair of str, optional
            Their names, by default those of the data that the first estimator was fitted to.
        y : scalar or array-like, optional
            Conditions of the samples, as in the estimators' ``sample``.
        random_state : int, RandomState, Generator or None, default=0
            Seeds the samples, those of every estimator alike.
        ax : matplotlib Axes or array of Axes, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        TrajectoryDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If there are no estimators, one has no ``sample`` or is not of a table, or a parameter is out of range.
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted.
        """
        check_estimators(estimators)
        check_count("n_samples", n_samples)
        check_count("n_steps", n_steps)
        seed = seed_from(random_state)
        trajectories = {
            name: estimator.sample(n_samples, y, seed, n_steps=n_steps, return_trajectory=True)
            for name, estimator in estimators.items()
        }
        names = getattr(next(iter(estimators.values())), "feature_names_in_", None)
        pair = _check_columns(columns, trajectories)
        if column_names is None and names is not None:
            column_names = [names[column] for column in pair]
        return cls.from_trajectories(trajectories, pair, column_names=column_names, ax=ax, **plot_params)

    @classmethod
    def from_trajectories(
        cls,
        trajectories: Mapping[str, ArrayLike],
        columns: Sequence[int] = (0, 1),
        *,
        column_names: Sequence[Any] | None = None,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot paths.

        Parameters
        ----------
        trajectories : mapping of str to array-like of shape (n_steps + 1, n_samples, n_features)
            States at even times, by name.
        columns : pair of int, default=(0, 1)
            Columns for the two axes.
        column_names : pair of str, optional
            Their names.
        ax : matplotlib Axes or array of Axes, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        TrajectoryDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If there are no trajectories, one has another shape, or the columns are not two that all have.
        """
        found = arrays_by_name("trajectories", trajectories, "paths")
        pair = _check_columns(columns, found)
        check_one_label_each("column_names", column_names, 2, "columns")
        return cls(found, pair, column_names=column_names).plot(ax=ax, **plot_params)

    def plot(self, *, ax: Any = None, n_columns: int | None = None, **line_params: Any) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, optional
            One an estimator; one Axes is divided where several are needed. By default a figure of its own.
        n_columns : int, optional
            Panels in a row; by default at most 3, in as even rows as can be.
        **line_params
            Passed to the ``plot`` of the paths.

        Returns
        -------
        TrajectoryDisplay
            The display itself.
        """
        n = len(self.trajectories)
        n_columns = -(-n // -(-n // 3)) if n_columns is None else min(n, check_count("n_columns", n_columns))
        self.axes_ = divide_axes(ax, n, n_columns, "estimator", size=(3.6, 3.6))
        self.figure_ = self.axes_[0].figure
        self.straightness_ = {name: straightness(states) for name, states in self.trajectories.items()}
        lines, self.starts_, self.ends_ = [], [], []
        params = {"color": "0.6", "linewidth": 0.6, "alpha": 0.7} | line_params
        dots = {"linestyle": "none", "marker": "o", "markersize": 3.0}
        for panel, (name, states) in zip(self.axes_, self.trajectories.items(), strict=True):
            across, up = states[:, :, self.columns[0]], states[:, :, self.columns[1]]
            lines.append(panel.plot(across, up, **params))
            self.starts_ += panel.plot(across[0], up[0], color="C0", alpha=0.6, label="start: noise", **dots)
            self.ends_ += panel.plot(across[-1], up[-1], color="C3", label="end: samples", **dots)
            panel.set_title(f"{name}\nstraightness {self.straightness_[name]:.3g}")
        self.lines_ = np.array(lines, dtype=object)
        self._label(n_columns)
        handles = [self.starts_[0], self.ends_[0]]
        if ax is None:  # a figure of its own has room beneath
            self.figure_.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        else:
            self.axes_[0].legend(handles=handles)
        return self

    def _label(self, n_columns: int) -> None:
        """Axis labels at the rim."""
        labels = [f"x{column}" for column in self.columns] if self.column_names is None else self.column_names
        for panel in self.axes_[-n_columns:]:
            panel.set_xlabel(str(labels[0]))
            panel.tick_params(labelbottom=True)  # above an empty position of the last row too
        for panel in self.axes_[::n_columns]:
            panel.set_ylabel(str(labels[1]))


def _check_columns(columns: Any, trajectories: Mapping[str, Any]) -> tuple[int, int]:
    """Two columns that all trajectories have; these must be of tables."""
    for name, states in trajectories.items():
        shape = np.shape(states)
        if len(shape) != 3:
            grids = f": samples are grids of shape {shape[2:]}" if len(shape) > 3 else ""
            raise ValueError(
                f"the trajectory of {name!r} has shape {shape}{grids}; paths are drawn for tables, "
                "(n_steps + 1, n_samples, n_features)."
            )
    if np.shape(columns) != (2,):
        raise ValueError(f"columns must be two columns of the table, got {columns!r}.")
    width = min(np.shape(states)[2] for states in trajectories.values())
    why = f" for tables of {width} columns"
    across, up = (check_count("each of columns", column, 0, width - 1, why) for column in columns)
    return across, up
