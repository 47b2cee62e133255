"""A forecaster's own parameters, and pairs of contexts and targets, checked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_X_y, validate_data

from flowmatch import preprocessing
from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.forecasting.layout import layout_of_pairs, layout_of_trajectories
from flowmatch.forecasting.tables import TableReader
from flowmatch.preprocessing.validation import check_samples

TARGETS = ("auto", "residual", "state")
BOUNDARIES = ("auto", "periodic", "wall")

_LOOKED_AT = 2**20


def check_forecast_parameters(forecaster: Any) -> None:
    """Raise a ValueError for the first parameter of its own that is out of range."""
    for name in ("n_lags", "horizon"):
        check_count(name, getattr(forecaster, name))
    check_count("n_samples", forecaster.n_samples, 2)
    check_choice("target", forecaster.target, TARGETS)
    check_number("context_noise", forecaster.context_noise, 0.0)
    _check_each("boundary", forecaster.boundary, BOUNDARIES)
    if forecaster.calendar is not None:
        _check_each("calendar", forecaster.calendar, ("auto", *preprocessing.CYCLES))


def check_coverage(coverage: float, n_samples: int) -> None:
    """Raise a ValueError for intervals that are no share of the truth, or wider than so many draws can tell."""
    check_number("coverage", coverage, 0.0, 1.0, open_low=True)
    if (1 - coverage) * (n_samples + 1) < 2 - 1e-9:
        raise ValueError(
            f"coverage={coverage:g} needs ends beyond the outermost of n_samples={n_samples} draws: set n_samples="
            f"{math.ceil(2 / (1 - coverage) - 1e-9) - 1} or more."
        )


def read_windows(forecaster: Any, X: Any, y: Any, *, reset: bool) -> preprocessing.Windows:
    """Windows of trajectories, or of pairs; with `reset` their layout, and how tables are read, is learned first."""
    if y is not None:
        contexts, targets = read_pairs(forecaster, X, y, reset=reset)
        if reset:
            n_lags, horizon = int(forecaster.n_lags), int(forecaster.horizon)
            layout = layout_of_pairs(contexts.shape, targets.shape, n_lags, horizon)
            mixed = forecaster._reader is not None  # its columns of numbers are no states
            forecaster._set_layout(replace(layout, targets=()) if mixed else layout)
        return forecaster._layout.windows_of_pairs(contexts, targets)
    if reset:
        forecaster._reader = TableReader.of_series(X, forecaster)
    reader = forecaster._reader
    trajectories = preprocessing.read_trajectories(X if reader is None else reader.series(X))
    if reset:
        layout = layout_of_trajectories(trajectories, forecaster if reader is None else reader.parameters(forecaster))
        forecaster._set_layout(layout, trajectories.columns if reader is None else reader.columns)
    return forecaster._layout.windows_of(trajectories)


def read_contexts(forecaster: Any, X: Any, future: Any, n_steps: int) -> tuple[preprocessing.Windows, list[Any] | None]:
    """Contexts alone, as `Layout.windows_of_contexts` gives them."""
    layout, reader = forecaster._layout, forecaster._reader
    if layout.is_table:
        X = _rows_of(forecaster, X)
    elif reader is not None:
        X, future = reader.series(X), reader.future(future)
    return layout.windows_of_contexts(X, future, n_steps)


def _rows_of(forecaster: Any, X: Any) -> Any:
    """Rows of a table as numbers, as scikit-learn checks them."""
    if forecaster._reader is not None:
        return forecaster._reader.rows(forecaster, X, reset=False)
    return validate_data(forecaster, X, reset=False, dtype=np.float64)


def read_pairs(
    forecaster: Any, X: Any, y: Any, *, reset: bool
) -> tuple[preprocessing.SampleRows, preprocessing.SampleRows]:
    """Contexts and targets, row by row; tables as scikit-learn checks them.

    Raises
    ------
    ValueError
        For values that are not finite real numbers, and unequal lengths.
    """
    if reset and not (forecaster.exogenous_columns is forecaster.known_columns is None):
        raise ValueError(
            "exogenous_columns and known_columns are for trajectories: call fit(X); in pairs, X may hold other columns "
            "than y as it is."
        )
    if reset and forecaster.calendar not in (None, "auto"):
        raise ValueError(f"calendar={forecaster.calendar!r} is for series: call fit(X) with DataFrames, without y.")
    if _is_flat(X) and _is_flat(y):
        _check_whole(y)
        if reset:
            forecaster._reader = TableReader.of_pairs(X)
        reader = forecaster._reader
        checks: dict[str, Any] = {"dtype": np.float64, "multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        if reader is None:
            table, target = validate_data(forecaster, X, y, reset=reset, **checks)
        else:
            table, target = check_X_y(reader.rows(forecaster, X, reset=reset), y, estimator=forecaster, **checks)
        return preprocessing.SampleRows(table), preprocessing.SampleRows(np.asarray(target, dtype=np.float64))
    if reset:
        forecaster._reader = None
    contexts = check_samples(BaseEstimator(), X, reset=True, min_samples=2)
    alone = _is_flat(y) and len(np.shape(y)) == 1  # one variable, one step ahead
    try:
        targets = check_samples(BaseEstimator(), np.reshape(y, (-1, 1)) if alone else y, reset=True, min_samples=2)
    except ValueError as error:
        raise ValueError(str(error).replace("X", "y", 1)) from error
    if len(contexts) != len(targets):
        raise ValueError(f"X has {len(contexts)} contexts, but y has {len(targets)} targets: inconsistent lengths.")
    return contexts, preprocessing.SampleRows(targets.array()[:, 0]) if alone else targets


def boundaries_of(boundary: Any, windows: preprocessing.Windows) -> tuple[str, ...]:
    """What lies beyond the edge of each axis; "auto" looks at the states.

    Raises
    ------
    ValueError
        If another number of axes is named.
    """
    grid = windows.frames.sample_shape[1:]
    if not isinstance(boundary, str):
        if len(boundary) != len(grid):
            raise ValueError(f"boundary={boundary!r} names {len(boundary)} axes, but states have the grid {grid}.")
        return tuple(boundary)
    if boundary != "auto":
        return (boundary,) * len(grid)
    return preprocessing.find_boundaries(windows.frames.read(windows.frames.subset(_LOOKED_AT))) if grid else ()


def _check_whole(y: Any) -> None:
    """Raise a ValueError for the first target of a table that is missing."""
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):  # scikit-learn says what it is
        return
    missing = np.argwhere(np.isnan(values))
    if len(missing):
        names = getattr(y, "columns", None)
        column = "" if values.ndim < 2 else f", column {missing[0, 1] if names is None else names[missing[0, 1]]!r}"
        raise ValueError(
            f"Input y contains NaN: row {missing[0, 0]}{column}. Cells of X may be missing, but what is to be forecast "
            "must be known: leave such rows out."
        )


def _is_flat(values: Any) -> bool:
    """Whether values are a table or a column, which scikit-learn checks, rather than windows or fields."""
    if hasattr(values, "shape"):
        return len(values.shape) <= 2
    return not (isinstance(values, (list, tuple)) and len(values) and len(getattr(values[0], "shape", ())) > 1)


def _check_each(name: str, value: Any, known: tuple[str, ...]) -> None:
    """One of the known names, or a sequence of those but the first, "auto"."""
    if isinstance(value, str):
        check_choice(name, value, known)
        return
    if not isinstance(value, (tuple, list)):
        raise ValueError(f"{name} must be one of {known} or a sequence of {known[1:]}, got {value!r}.")
    for entry in value:
        check_choice(name, entry, known[1:])
