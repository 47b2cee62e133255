"""A forecaster's data as windows: what a first fit learns of their layout, and data like those of a fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_X_y

from flowmatch.fitting import FitResult
from flowmatch.forecasting.columns import check_known_ahead
from flowmatch.forecasting.field_conditions import encoder_of, with_conditions
from flowmatch.forecasting.fitted import FittedForecaster
from flowmatch.forecasting.gaps import read_histories, rows_that_follow
from flowmatch.forecasting.holes import check_each_has_values, holed_columns, without_level
from flowmatch.forecasting.layout import Layout, layout_of_pairs, layout_of_trajectories
from flowmatch.forecasting.parameters import boundaries_of
from flowmatch.forecasting.series import LongForm, Panel, in_order_of, read_panel
from flowmatch.forecasting.tables import TableReader
from flowmatch.preprocessing import (
    SampleRows,
    Trajectories,
    Windows,
    as_plain,
    check_readable,
    native_frame,
    read_trajectories,
)
from flowmatch.preprocessing.validation import check_names_differ, check_rows, check_samples
from flowmatch.tables.readable import as_float64, unfit_entry


@dataclass(frozen=True)
class Reading:
    """The data of a first fit, and what was learned of how to read them.

    Attributes
    ----------
    windows : Windows
    layout : Layout
    reader : TableReader or None
    columns : tuple
    boundary : tuple of str
        As in `FittedForecaster`.
    target_columns : tuple of str
        As in `FittedForecaster`.
    """

    windows: Windows
    layout: Layout
    reader: TableReader | None
    columns: tuple[Any, ...]
    boundary: tuple[str, ...]
    target_columns: tuple[str, ...]

    def fitted(self, flow: FitResult) -> FittedForecaster:
        """What a forecaster has learned once its flow is fitted."""
        return FittedForecaster(flow, self.layout, self.reader, self.columns, self.boundary, self.target_columns)


def read_windows(
    estimator: Any, X: Any, y: Any, time: Any = None, groups: Any = None, value: Any = None, conditions: Any = None
) -> Reading:
    """Read trajectories, or pairs of contexts and targets, and learn how.

    Parameters
    ----------
    estimator : ConditionalForecaster
        Unfitted; scikit-learn leaves the names of a table's columns there.
    X, y, time, groups, value, conditions : data
        As in `ConditionalForecaster.fit`.

    Returns
    -------
    Reading
        The windows, and what a forecaster keeps of how they were read.

    Raises
    ------
    ValueError
        For data that are no finite real numbers or of unequal shapes, and parameters that do not suit them.
    """
    if y is None:
        windows, layout, reader, columns = _read_series(estimator, X, LongForm.of(X, time, groups, value, estimator))
        names = layout.columns
    elif time is groups is value is None:
        windows, layout, reader, columns = _read_pairs(estimator, X, y)
        names = _names_of(y)
    else:
        raise ValueError("time, groups and value name columns of series: call fit(X, ...) without y.")
    if conditions is not None:
        layout = replace(layout, conditions=encoder_of(conditions, layout.grid))
    windows = layout.trainable(with_conditions(windows, layout.conditions, conditions, X if y is None else None))
    check_each_has_values(windows, layout.targets, names)
    return Reading(windows, layout, reader, columns, boundaries_of(estimator.boundary, windows), _names_of(y))


def windows_like_fit(estimator: Any, X: Any, y: Any, conditions: Any = None) -> Windows:
    """Read windows like those that a forecaster was fitted to.

    Parameters
    ----------
    estimator : ConditionalForecaster
        Fitted; it stays as it is.
    X, y, conditions : data
        As in `ConditionalForecaster.fit`.

    Returns
    -------
    Windows
        All of them.

    Raises
    ------
    ValueError
        For states, columns or instants that are not like those of the fit.
    """
    fitted: FittedForecaster = estimator.fitted_
    if y is not None:
        flat = _is_flat(X, "X") and _is_flat(y, "y")
        pairs = _read_table(estimator, fitted.reader, X, y, reset=False) if flat else _read_states(X, y, 1)
        return with_conditions(fitted.layout.windows_of_pairs(*pairs), fitted.layout.conditions, conditions)
    windows = fitted.layout.windows_of(_trajectories(read_panel(X, fitted.layout.long), fitted.reader))
    lost = without_level(windows, fitted.window_encoder)
    windows = windows.take(np.flatnonzero(~lost)) if lost.any() else windows
    return with_conditions(windows, fitted.layout.conditions, conditions, X)


def whole_windows(estimator: Any, X: Any, y: Any) -> Windows:
    """Read the windows that `windows_like_fit` does, but those that lack a target, which are warned of."""
    windows = windows_like_fit(estimator, X, y)
    return replace(estimator.fitted_.layout, gaps_ahead=False).trainable(windows)


def contexts_like_fit(
    estimator: Any, X: Any, future: Any, n_steps: int, conditions: Any = None
) -> tuple[Windows, list[Any] | None]:
    """Read contexts alone.

    Parameters
    ----------
    estimator : ConditionalForecaster
        Fitted; it stays as it is.
    X, future, conditions : data
        As in `ConditionalForecaster.predict`.
    n_steps : int
        States to come that `future` has to tell of.

    Returns
    -------
    windows : Windows
        One for each context.
    times : list or None
        Last instants of the contexts, if the calendar is a condition.

    Raises
    ------
    ValueError
        For contexts or columns known ahead that are not like those of the fit.
    """
    fitted: FittedForecaster = estimator.fitted_
    layout, reader = fitted.layout, fitted.reader
    if layout.reads_rows and reader is not None:
        return layout.windows_of_contexts(Panel(reader.rows(estimator, X, reset=False)), future, n_steps)
    if layout.reads_rows:
        X = check_rows(estimator, native_frame(X), reset=False).array()
        return layout.windows_of_contexts(Panel(X), future, n_steps)
    panel = _ends_of(read_panel(X, layout.long), layout)
    if future is not None and layout.known:
        names = layout.known_names if reader is None else [reader.columns[j] for j in reader.known]
        future = _rows_ahead(_future_of(panel, future, layout, names), panel, layout, n_steps)
    if reader is not None:
        panel, future = replace(panel, parts=reader.series(panel.parts)), reader.future(future)
    windows, times = layout.windows_of_contexts(panel, future, n_steps)
    lost = without_level(windows, fitted.window_encoder)
    if lost.any():
        raise ValueError(
            f"context {int(np.argmax(lost))} of X lacks all {layout.n_lags} value(s) of a column that is forecast "
            "relative to its own last values: fill the gap, or fit with more n_lags."
        )
    return with_conditions(windows, layout.conditions, conditions), times


def _ends_of(panel: Panel, layout: Layout) -> Panel:
    """The ends of histories that are contexts, with their times checked; contexts in arrays stay as they are."""
    parts = panel.parts if isinstance(panel.parts, (list, tuple)) else [panel.parts]
    if not len(parts) or not all(hasattr(part, "iloc") for part in parts):
        return panel
    ends = read_histories(parts, panel.names("history"), layout.rhythm, layout.n_lags)
    return replace(
        panel, parts=ends, skipped=tuple(len(part) - len(end) for part, end in zip(parts, ends, strict=True))
    )


def _rows_ahead(future: Any, ends: Panel, layout: Layout, n_steps: int) -> Any:
    """Of what is known ahead, the rows that follow each history, where both have times."""
    parts = [future] if hasattr(future, "iloc") else future
    histories = ends.parts if isinstance(ends.parts, (list, tuple)) else [ends.parts]
    if not isinstance(parts, (list, tuple)) or len(parts) != len(histories):
        return future
    known = zip(parts, histories, ends.names("future"), strict=True)
    return [rows_that_follow(part, history, layout.rhythm, n_steps, name) for part, history, name in known]


def _future_of(panel: Panel, future: Any, layout: Layout, names: list[Any]) -> Any:
    """What is known ahead as a frame for each series; of a panel or long table in the order of the series."""
    ahead = read_panel(future, layout.long, names)
    frames = ahead.parts if isinstance(ahead.parts, (list, tuple)) else [ahead.parts]
    check_known_ahead([frame for frame in frames if hasattr(frame, "columns")], names)
    if ahead.labels is None or panel.labels is None or isinstance(future, (list, tuple)):
        return ahead.parts
    return in_order_of(ahead, panel.labels)


def _trajectories(panel: Panel, reader: TableReader | None) -> Trajectories:
    """The series of a panel laid end to end, values that lack among them."""
    parts = panel.parts if reader is None else reader.series(panel.parts)
    return read_trajectories(parts, () if panel.labels is None else panel.names("trajectory"), missing=True)


def _read_series(
    estimator: Any, X: Any, form: LongForm | None
) -> tuple[Windows, Layout, TableReader | None, tuple[Any, ...]]:
    """Trajectories of a first fit, from which windows are cut."""
    panel = read_panel(X, form)
    reader = TableReader.of_series(panel.parts, estimator, panel.names("trajectory"))
    trajectories = _trajectories(panel, reader)
    layout = layout_of_trajectories(trajectories, estimator if reader is None else reader.parameters(estimator))
    columns = trajectories.columns if reader is None else reader.columns
    return layout.windows_of(trajectories), replace(layout, long=form), reader, columns


def _read_pairs(estimator: Any, X: Any, y: Any) -> tuple[Windows, Layout, TableReader | None, tuple[Any, ...]]:
    """Contexts and targets of a first fit, row by row."""
    if not (estimator.exogenous_columns is estimator.known_columns is None):
        raise ValueError(
            "exogenous_columns and known_columns are for trajectories: call fit(X); in pairs, X may hold other columns "
            "than y as it is."
        )
    if estimator.calendar not in (None, "auto"):
        raise ValueError(f"calendar={estimator.calendar!r} is for series: call fit(X) with DataFrames, without y.")
    reader, columns = None, ()
    if _is_flat(X, "X") and _is_flat(y, "y"):
        reader = TableReader.of_pairs(X)
        pairs = _read_table(estimator, reader, X, y, reset=True)
        columns = tuple(getattr(estimator, "feature_names_in_", ()))
    else:
        pairs = _read_states(X, y)
    layout = layout_of_pairs(pairs[0].shape, pairs[1].shape, int(estimator.n_lags), int(estimator.horizon))
    if reader is not None:  # its columns of numbers are no states
        layout = replace(layout, targets=())
    windows = layout.windows_of_pairs(*pairs)
    assert windows.targets is not None
    layout = replace(layout, holed=holed_columns(windows.frames), gaps_ahead=bool(holed_columns(windows.targets)))
    return windows, layout, reader, columns


def _read_table(
    estimator: Any, reader: TableReader | None, X: Any, y: Any, *, reset: bool
) -> tuple[SampleRows, SampleRows]:
    """Rows of a table and their targets, as scikit-learn checks them."""
    X, y, least = native_frame(X), as_plain(y, "y"), 2 if reset else 1
    check_names_differ(X)
    _check_targets(y)
    if reader is None:
        table = check_rows(estimator, X, reset=reset, min_samples=least).array()
    else:
        table = reader.rows(estimator, X, reset=reset)
    checks: dict[str, Any] = {"dtype": np.float64, "multi_output": True, "y_numeric": True, "ensure_min_samples": least}
    values = as_float64(y, "y")  # which scikit-learn would refuse where entries are missing
    table, target = check_X_y(table, np.nan_to_num(values), estimator=estimator, **checks)
    known = np.asarray(target, dtype=np.float64)
    return SampleRows(table), SampleRows(np.where(np.isnan(values.reshape(known.shape)), np.nan, known))


def _read_states(X: Any, y: Any, least: int = 2) -> tuple[SampleRows, SampleRows]:
    """Contexts and targets that are windows or fields, of both of which entries may be missing."""
    known: dict[str, Any] = {"reset": True, "min_samples": least, "missing": True, "of_grids": True}
    contexts = check_samples(BaseEstimator(), X, **known)
    alone = _is_flat(y, "y") and len(np.shape(y)) == 1  # one variable, one step ahead
    try:
        targets = check_samples(BaseEstimator(), np.reshape(y, (-1, 1)) if alone else y, **known)
    except ValueError as error:
        raise ValueError(str(error).replace("X", "y", 1)) from error
    if len(contexts) != len(targets):
        raise ValueError(f"X has {len(contexts)} contexts, but y has {len(targets)} targets: inconsistent lengths.")
    return contexts, SampleRows(targets.array()[:, 0]) if alone else targets


def _names_of(y: Any) -> tuple[str, ...]:
    """Names of targets that came in a DataFrame or Series with names."""
    names = tuple(getattr(y, "columns", (getattr(y, "name", None),)))
    return names if all(isinstance(name, str) for name in names) else ()


def _check_targets(y: Any) -> None:
    """Raise a ValueError for targets of a table without columns, and for the first that is too large."""
    try:
        values = as_float64(y, "y")
    except (TypeError, ValueError) as error:
        raise ValueError(f"y must hold numbers, the targets of rows: {error}.") from error
    if 0 in values.shape[1:]:
        raise ValueError(f"y has shape {values.shape}: there are no targets in it.")
    unfit = unfit_entry(np.where(np.isnan(values), 0.0, values))
    if unfit is None or values.ndim == 0:
        return
    names, (place, what) = getattr(y, "columns", None), unfit
    column = "" if values.ndim < 2 else f", column {place[1] if names is None else names[place[1]]!r}"
    raise ValueError(f"Input y contains {what}: row {place[0]}{column}.")


def _is_flat(values: Any, name: str) -> bool:
    """Whether values are a table or a column, which scikit-learn checks, rather than windows or fields."""
    check_readable(values, name)
    if hasattr(values, "shape"):
        return len(values.shape) <= 2
    return not (isinstance(values, (list, tuple)) and len(values) and len(getattr(values[0], "shape", ())) > 1)
