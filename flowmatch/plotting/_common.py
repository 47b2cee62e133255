"""What the displays share."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def load_pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to get it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'flowmatch[plot]'.") from error
    return pyplot


def as_array(X: Any) -> NDArray[Any]:
    """Samples in any container as numbers."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().float()
    return np.asarray(X, dtype=np.float64)


def divide_axes(
    pyplot: Any,
    ax: Any,
    n: int,
    n_columns: int,
    of: str,
    *,
    size: tuple[float, float] = (6.0, 1.6),
    share_x: bool = True,
    share_y: bool = True,
) -> NDArray[Any]:
    """The n Axes of a display: those given, or a grid in place of the one given, or a figure's.

    `size` is a panel's in inches, in a figure made here; `of` says in errors what the panels show.
    """
    n_rows = -(-n // n_columns)
    if isinstance(ax, (list, tuple, np.ndarray)):
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n:
            raise ValueError(f"ax holds {len(axes)} Axes for {n} {of}s.")
        return axes
    if ax is not None and n_rows == n_columns == 1:
        return np.array([ax], dtype=object)
    shared = {"squeeze": False, "sharex": share_x, "sharey": share_y}
    if ax is None:
        size = (size[0] * n_columns, size[1] * n_rows + 0.6)
        _, axes = pyplot.subplots(n_rows, n_columns, figsize=size, layout="constrained", **shared)
    else:
        if ax.get_subplotspec() is None:
            raise ValueError(f"ax cannot be divided: pass one made by subplots, or an array of Axes, one a {of}.")
        ax.set_axis_off()
        axes = ax.get_subplotspec().subgridspec(n_rows, n_columns).subplots(**shared)
    axes = axes.ravel()
    for unused in axes[n:]:
        unused.set_axis_off()
    return axes[:n]


def check_labels(name: str, labels: Sequence[Any] | None, expected: int, of: str) -> None:
    """Raise a ValueError unless there are as many labels as expected."""
    if labels is not None and len(labels) != expected:
        raise ValueError(f"{name} holds {len(labels)} labels for {expected} {of}.")


def check_estimators(estimators: Any) -> None:
    """Raise a ValueError unless there are estimators by name that can be sampled."""
    if not isinstance(estimators, Mapping) or not estimators:
        what = "an empty mapping" if isinstance(estimators, Mapping) else repr(estimators)
        raise ValueError(f"estimators must map names to fitted estimators, at least one, got {what}.")
    for name, estimator in estimators.items():
        if not callable(getattr(estimator, "sample", None)):
            raise ValueError(f"estimators[{name!r}] must have a method sample, got {estimator!r}.")


def one_seed(random_state: Any) -> int:
    """One seed for all draws of a display."""
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return int(np.random.default_rng(random_state).integers(2**31 - 1))
