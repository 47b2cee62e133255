"""What the displays share: matplotlib, Axes, arrays, and the checks and draws of estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.preprocessing import as_numpy

Floats: TypeAlias = NDArray[np.float64]


def load_pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to get it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'flowmatch[plot]'.") from error
    return pyplot


def as_array(X: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """Samples in any container as an array; with None in their own type."""
    return np.asarray(as_numpy(X) if isinstance(X, torch.Tensor) else X, dtype=dtype)


def finite_range(*arrays: Floats) -> tuple[float, float]:
    """The smallest and the largest finite value."""
    finite = np.concatenate([values[np.isfinite(values)] for values in arrays])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def one_axes(ax: Any, figsize: tuple[float, float] | None = None) -> Any:
    """The Axes given, or those of a new figure."""
    return load_pyplot().subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def divide_axes(
    ax: Any,
    n: int,
    n_columns: int,
    of: str,
    *,
    size: tuple[float, float] = (6.0, 1.6),
    share: tuple[bool, bool] = (True, True),
) -> NDArray[Any]:
    """The n Axes of a display: those given, or a grid in place of the one given, or a figure's.

    `size` is a panel's in inches, in a figure made here; `of` says in errors what the panels show; `share` whether
    they have the same x and y axis.
    """
    n_rows = -(-n // n_columns)
    if isinstance(ax, (list, tuple, np.ndarray)):
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n:
            raise ValueError(f"ax holds {len(axes)} Axes for {n} {of}s.")
        return axes
    if ax is not None and n_rows == n_columns == 1:
        return np.array([ax], dtype=object)
    shared = {"squeeze": False, "sharex": share[0], "sharey": share[1]}
    if ax is None:
        size = (size[0] * n_columns, size[1] * n_rows + 0.6)
        _, axes = load_pyplot().subplots(n_rows, n_columns, figsize=size, layout="constrained", **shared)
    else:
        if ax.get_subplotspec() is None:
            raise ValueError(f"ax cannot be divided: pass one made by subplots, or an array of Axes, one a {of}.")
        ax.set_axis_off()
        axes = ax.get_subplotspec().subgridspec(n_rows, n_columns).subplots(**shared)
    axes = axes.ravel()
    for unused in axes[n:]:
        unused.set_axis_off()
    return axes[:n]


def check_one_label_each(name: str, labels: Sequence[Any] | None, expected: int, of: str) -> None:
    """Raise a ValueError unless there are as many labels as expected."""
    if labels is not None and len(labels) != expected:
        raise ValueError(f"{name} holds {len(labels)} labels for {expected} {of}.")


def arrays_by_name(name: str, value: Any, to: str) -> dict[str, Floats]:
    """Arrays of floats by name, or an error unless `value` maps names to something."""
    _check_mapping(name, value, to)
    return {str(key): as_array(values) for key, values in value.items()}


def check_estimators(estimators: Any) -> None:
    """Raise a ValueError unless there are estimators by name that can be sampled."""
    _check_mapping("estimators", estimators, "fitted estimators")
    for name, estimator in estimators.items():
        if not callable(getattr(estimator, "sample", None)):
            raise ValueError(f"estimators[{name!r}] must have a method sample, got {estimator!r}.")


def draw_samples(
    estimator: Any, y: Any, n_each: int, n_without: int, random_state: Any, params: Mapping[str, Any] | None
) -> tuple[Any, list[Any] | None]:
    """Samples, `n_each` of every condition in turn, and the conditions: all labels by default.

    An estimator without labels gives `n_without` samples, and None.
    """
    y = getattr(estimator, "classes_", None) if y is None else y
    params = dict(params or {}, random_state=random_state)
    if y is None:
        return estimator.sample(n_without, **params), None
    conditions = np.asarray(y)
    samples = estimator.sample(n_each * len(conditions), np.concatenate([conditions] * n_each), **params)
    return samples, list(conditions)


def _check_mapping(name: str, value: Any, to: str) -> None:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{name} must map names to {to}, at least one, got {value!r}.")
