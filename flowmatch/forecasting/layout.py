"""What a forecaster is given, as windows: trajectories, pairs of contexts and targets, contexts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable
from flowmatch.forecasting.columns import check_columns, check_known_ahead, columns_named
from flowmatch.forecasting.gaps import learned_spacing, pieces_of
from flowmatch.forecasting.holes import check_holes, holed_columns, with_values
from flowmatch.forecasting.series import LongForm, Panel
from flowmatch.preprocessing import (
    CYCLES,
    ConditionEncoder,
    SampleRows,
    Spacing,
    Trajectories,
    Windows,
    as_plain,
    calendar_features,
    clock_of,
    find_cycles,
    learn_spacing,
    read_trajectories,
)
from flowmatch.tables.readable import as_float64, unfit_entry

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@storable
@dataclass(frozen=True)
class Layout:
    """What states look like, and which of their columns are what.

    Attributes
    ----------
    state_shape : tuple of int
        Of a context's states: (d,), or (C, *grid).
    forecast_shape : tuple of int
        Of the states that are forecast; () for a single variable that came without an axis of its own.
    n_lags, horizon : int
    columns : tuple
        Names of the state's columns, if they came in DataFrames.
    targets, known : tuple of int
        Columns that are forecast, and columns that are known ahead. Targets are empty where contexts hold other things.
    cycles : tuple of {"year", "week", "day"}
        The features of the calendar.
    spacing : Spacing, str or float
        From one instant to the next; 0.0 where there are no times. In files of earlier versions a pandas offset by
        name, or seconds, which times are not checked against.
    is_table : bool
        Whether pairs of one step are rows of a table and their targets.
    long : LongForm or None
        The columns of times and labels, where series come as one table.
    holed : tuple of int
        Columns of states that lacked values in training.
    gaps_ahead : bool
        Whether targets did.
    conditions : ConditionEncoder or None
        Of labels and numbers that fields are conditioned on.
    """

    state_shape: tuple[int, ...]
    forecast_shape: tuple[int, ...]
    n_lags: int
    horizon: int
    columns: tuple[Any, ...] = ()
    targets: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    cycles: tuple[str, ...] = ()
    spacing: Spacing | str | float = 0.0
    is_table: bool = False
    long: LongForm | None = None
    holed: tuple[int, ...] = ()
    gaps_ahead: bool = False
    conditions: ConditionEncoder | None = None

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored layout do not fit each other."""
        require(min(*self.state_shape, *self.forecast_shape, self.n_lags, self.horizon) > 0, "layout")
        require(all(0 <= j < self.state_shape[0] for j in (*self.targets, *self.known, *self.holed)), "layout")
        require(set(self.cycles) <= set(CYCLES) and len(self.columns) in (0, self.state_shape[0]), "layout")
        if self.cycles:
            self.rhythm.check()

    @property
    def grid(self) -> tuple[int, ...]:
        """Points along each axis of a field; empty for tables and series."""
        return self.state_shape[1:]

    @property
    def reads_rows(self) -> bool:
        """Whether contexts are rows of a table, as in pairs (n, d) and (n,) or, of several steps, (n, horizon)."""
        return self.is_table or (not self.forecast_shape and self.n_lags == 1 and not self.grid)

    @property
    def context_shape(self) -> tuple[int, ...]:
        """Shape of one context as users pass it."""
        return (self.n_lags, *self.state_shape) if self.n_lags > 1 else self.state_shape

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one forecast as users get it."""
        return (self.horizon, *self.forecast_shape) if self.horizon > 1 else self.forecast_shape

    @property
    def rhythm(self) -> Spacing:
        """The spacing, also of files of earlier versions."""
        return self.spacing if isinstance(self.spacing, Spacing) else Spacing(self.spacing)

    @property
    def known_names(self) -> list[Any]:
        """Names or positions of the columns that are known ahead."""
        return [self.columns[j] for j in self.known] if self.columns else list(self.known)

    # -- windows ------------------------------------------------------------------------------------------------------

    def windows_of(self, trajectories: Trajectories) -> Windows:
        """All windows of the trajectories, none across two of them, or across a gap.

        Raises
        ------
        ValueError
            That names the first trajectory of other states or times, and where none is as long as a window.
        """
        self._check_states(trajectories, "trajectory")
        if not self.targets:
            raise ValueError("the model was fitted to pairs whose y are not states like those of X: pass y as well.")
        span = self.n_lags + self.horizon
        trajectories = pieces_of(trajectories, self.rhythm, span)
        counts = np.maximum(trajectories.lengths - span + 1, 0)
        groups = np.repeat(np.arange(len(counts)), counts)
        first = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        start = (first + trajectories.starts[groups])[:, None]
        calendar = np.empty((len(groups), 0))
        if self.cycles:
            self._require_times(trajectories)
            features = [calendar_features(index, self.cycles) for index in trajectories.times]
            calendar = np.concatenate([part[self.n_lags : max(0, len(part) - self.horizon + 1)] for part in features])
        windows = Windows(
            trajectories.frames,
            start + np.arange(self.n_lags),
            trajectories.frames,
            start + self.n_lags + np.arange(self.horizon),
            calendar,
            groups,
        )
        return with_values(windows, self.targets, self.known, self.holed, trajectories.named)

    def trainable(self, windows: Windows) -> Windows:
        """Those of the windows that have something to learn from and something to learn."""
        columns = self.targets, self.known, self.holed
        return with_values(windows, *columns, lambda frame: f"row {frame // self.horizon}", whole=not self.gaps_ahead)

    def windows_of_pairs(self, contexts: SampleRows, targets: SampleRows) -> Windows:
        """One window for each pair; contexts (n, [n_lags,] *state), targets (n, [horizon,] *forecast state).

        Raises
        ------
        ValueError
            For states of other shapes, and where pairs do not tell all that contexts hold.
        """
        n, every = len(contexts), np.arange(len(contexts))
        if self.known or self.cycles:
            what = "known_columns" if self.known else "the calendar"
            raise ValueError(f"the model needs {what}, which pairs do not hold: pass trajectories X, without y.")
        given, wanted = (contexts.sample_shape, targets.sample_shape), (self.context_shape, self.sample_shape)
        if given != wanted:
            raise ValueError(
                f"X and y hold contexts of shape {given[0]} and targets of shape {given[1]}, but the model was fitted "
                f"to {wanted[0]} and {wanted[1]}."
            )
        return Windows(
            _frames(contexts, self.n_lags),
            every[:, None] * self.n_lags + np.arange(self.n_lags),
            _frames(targets, self.horizon),
            every[:, None] * self.horizon + np.arange(self.horizon),
            np.empty((n, 0)),
            every,
        )

    def windows_of_contexts(self, panel: Panel, future: Any, n_steps: int) -> tuple[Windows, list[Any] | None]:
        """Contexts alone, columns known for `n_steps` ahead, and the last instant of each context.

        Raises
        ------
        ValueError
            For contexts of another shape than in training, or columns that are missing.
        """
        contexts, times = self._contexts(panel)
        n = len(contexts)
        calendar = np.empty((n, 0)) if times is None else self.calendar_ahead(times, 0)
        windows = Windows(
            SampleRows(contexts.reshape(n * self.n_lags, *self.state_shape)),
            np.arange(n * self.n_lags).reshape(n, self.n_lags),
            None,
            None,
            calendar,
            np.arange(n),
            self._ahead(future, n, n_steps),
        )
        return windows, times

    def calendar_ahead(self, times: Sequence[Any], steps: int) -> Array:
        """Calendar features (n, k) of the instant that comes `steps` after the next one."""
        import pandas as pd

        return calendar_features(self.rhythm.after(pd.DatetimeIndex(times), steps + 1), self.cycles)

    def instants_ahead(self, index: Any, n_steps: int) -> Any:
        """The instants that come after those of a history, as an index of the same kind.

        Raises
        ------
        ValueError
            If neither the model nor the history tells how far apart they are.
        """
        spacing, last = self.rhythm, index[-1:]
        if not spacing.step and len(index) < 2:
            raise ValueError("a history of X has one row, which does not tell the time of the next: pass longer ones.")
        if not spacing.step:
            spacing = learn_spacing([index], clock_of(index, "X"))
        return last[:0].append([spacing.after(last, step) for step in range(1, n_steps + 1)])

    # -- reading ------------------------------------------------------------------------------------------------------

    def _contexts(self, panel: Panel) -> tuple[NDArray[Any], list[Any] | None]:
        """Contexts (n, n_lags, *state) of an array, a DataFrame, or a list of histories; and their last instants."""
        wanted = f"contexts of shape ({', '.join(['n', *map(str, self.context_shape)])})"
        X = as_plain(panel.parts, "X")
        X = _with_variable(X, self.n_lags, wanted) if self.state_shape == (1,) else X
        is_list, n_axes = isinstance(X, (list, tuple)) and len(X) > 0, 1 + len(self.state_shape)
        histories = is_list and (hasattr(X[0], "iloc") or len(_shape(X[0], wanted)) == n_axes)
        alone = hasattr(X, "iloc") or (self.n_lags > 1 and not histories and len(_shape(X, wanted)) == n_axes)
        if histories or alone:
            parts = X if histories else [X]
            names = Panel(parts, panel.labels).names("history")
            before = [max(0, len(part) - self.n_lags) for part in parts]  # what is there may be missing
            ends = [part[start:] for part, start in zip(parts, before, strict=True)]
            known = read_trajectories(ends, names, missing=True, skipped=panel.skipped or before)
            self._check_states(known, "history")
            short = np.flatnonzero(known.lengths < self.n_lags)
            if len(short):
                raise ValueError(
                    f"{names[short[0]]} of X has {known.lengths[short[0]]} states; a context needs {self.n_lags}."
                )
            contexts = known.frames.array().reshape(len(known), self.n_lags, *self.state_shape)
            skipped = panel.skipped or before
            check_holes(contexts, self.holed, self.columns, lambda i, lag: f"{names[i]}, frame {skipped[i] + lag}")
            if not self.cycles:
                return contexts, None
            self._require_times(known)
            return contexts, [index[-1] for index in known.times]
        if self.cycles:
            raise ValueError(
                f"the model uses the calendar ({', '.join(self.cycles)}): pass DataFrames with a DatetimeIndex, one "
                "for each context, or fit with calendar=None."
            )
        return self._array_of_contexts(X, wanted), None

    def _array_of_contexts(self, X: Any, wanted: str) -> NDArray[Any]:
        """Contexts (n, [n_lags,] *state) of an array, of which errors say what is `wanted`."""
        _shape(X, wanted)
        array = np.asarray(X)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"X has dtype {array.dtype}; expected real numbers, {wanted}.")
        if array.shape[1:] == (1, *self.state_shape) and self.n_lags == 1:
            array = array[:, 0]
        longer = array.ndim == 2 + len(self.state_shape) and array.shape[1] > self.n_lags > 1
        if longer and array.shape[2:] == self.state_shape:
            array = array[:, -self.n_lags :]
        if array.shape[1:] != self.context_shape or len(array) == 0:
            raise ValueError(f"X has shape {array.shape}; expected {wanted}.")
        bad = unfit_entry(np.where(np.isnan(array), 0, array))
        if bad is not None:
            raise ValueError(f"X contains {bad[1]}: context {bad[0][0]}, position {bad[0][1:]}.")
        lags = array.reshape(len(array), self.n_lags, *self.state_shape)
        check_holes(lags, self.holed, self.columns, lambda i, lag: f"context {i}, lag {lag - self.n_lags}")
        return array

    def _ahead(self, future: Any, n: int, n_steps: int) -> Array | None:
        """Columns known ahead, (n, n_steps, n_known, *grid)."""
        if not self.known:
            if future is not None:
                raise ValueError("future was given, but the model was fitted without known_columns.")
            return None
        names = self.known_names
        if future is None:
            raise ValueError(
                f"future is missing: the columns {names} are known ahead; pass them for {n_steps} step(s)."
            )
        parts = [future] if hasattr(future, "iloc") else future
        if isinstance(parts, (list, tuple)) and len(parts) and hasattr(parts[0], "columns"):
            check_known_ahead(parts, names)
            parts = [part[names].to_numpy()[:n_steps] for part in parts]
        wanted = (n, n_steps, len(self.known), *self.grid)
        asked = f"expected finite numbers of shape {wanted}: {n_steps} step(s) of the columns {names} for each context."
        try:
            values = as_float64(parts, "future")
        except (TypeError, ValueError) as error:
            raise ValueError(f"future cannot be read ({error}); {asked}") from error
        if values.ndim == 2 + len(self.state_shape) and values.shape[1] > n_steps:
            values = values[:, :n_steps]
        if values.shape != wanted:
            raise ValueError(f"future has shape {values.shape}; {asked}")
        bad = unfit_entry(values)
        if bad is not None:
            raise ValueError(f"future contains {bad[1]}; {asked}")
        return values

    def _check_states(self, trajectories: Trajectories, what: str) -> None:
        if self.columns and trajectories.columns:
            check_columns(trajectories.columns, self.columns)
        if trajectories.state_shape != self.state_shape:
            raise ValueError(
                f"each {what} of X has states of shape {trajectories.state_shape}, but the model was fitted to "
                f"{self.state_shape}."
            )

    def _require_times(self, trajectories: Trajectories) -> None:
        for index, name in zip(trajectories.times, trajectories.names, strict=True):
            if index is None or index.dtype.kind != "M":
                raise ValueError(
                    f"the model uses the calendar ({', '.join(self.cycles)}), but {name} of X has no DatetimeIndex. "
                    "Pass DataFrames that have one, or fit with calendar=None."
                )


def layout_of_trajectories(trajectories: Trajectories, parameters: Any) -> Layout:
    """The layout that trajectories and an estimator's parameters ask for."""
    shape, columns = trajectories.state_shape, trajectories.columns
    exogenous = columns_named(parameters.exogenous_columns, "exogenous_columns", columns, shape[0])
    known = columns_named(parameters.known_columns, "known_columns", columns, shape[0])
    both = sorted(set(exogenous) & set(known))
    if both:
        name = columns[both[0]] if columns else both[0]
        raise ValueError(f"column {name!r} is in exogenous_columns and in known_columns; name it in one of them.")
    targets = tuple(j for j in range(shape[0]) if j not in exogenous and j not in known)
    if not targets:
        raise ValueError("exogenous_columns and known_columns name all columns: none is left to forecast.")
    if len(shape) > 1 and parameters.calendar not in (None, "auto"):
        raise ValueError(f"calendar={parameters.calendar!r} is for series, but states of X have the shape {shape}.")
    cycles = _cycles(parameters.calendar, trajectories) if len(shape) == 1 else ()
    holed = holed_columns(trajectories.frames)
    return Layout(
        shape,
        (len(targets), *shape[1:]),
        int(parameters.n_lags),
        int(parameters.horizon),
        columns,
        targets,
        known,
        cycles,
        learned_spacing(trajectories) if len(shape) == 1 else 0.0,
        holed=holed,
        gaps_ahead=not set(targets).isdisjoint(holed),
    )


def layout_of_pairs(X_shape: tuple[int, ...], y_shape: tuple[int, ...], n_lags: int, horizon: int) -> Layout:
    """The layout of contexts (n, [n_lags,] *state) and targets (n, [horizon,] *state).

    Raises
    ------
    ValueError
        If the shapes do not go together.
    """
    state = X_shape[2:] if n_lags > 1 else X_shape[1:]
    target = y_shape[2:] if horizon > 1 else y_shape[1:]
    fits = (n_lags == 1 or X_shape[1:2] == (n_lags,)) and (horizon == 1 or y_shape[1:2] == (horizon,))
    flat = not target
    if not fits or not state or (state[1:] and (flat or state[1:] != target[1:])):
        lags = "" if n_lags == 1 else f"{n_lags}, "
        steps = "" if horizon == 1 else f"{horizon}, "
        raise ValueError(
            f"X has shape {X_shape} and y has shape {y_shape}; with n_lags={n_lags} and horizon={horizon}, X must be "
            f"(n, {lags}*state) and y (n, {steps}*state), fields on one grid."
        )
    carried = (target or (1,)) == state
    is_table = len(state) == 1 and n_lags == 1 and horizon == 1
    targets = tuple(range(state[0])) if carried else ()
    return Layout(state, target, n_lags, horizon, targets=targets, is_table=is_table)


def _shape(X: Any, wanted: str) -> tuple[int, ...]:
    """The shape of what is to be an array."""
    try:
        return np.shape(X)
    except ValueError as error:
        raise ValueError(f"X is a list of unequal parts; expected {wanted}.") from error


def _with_variable(X: Any, n_lags: int, wanted: str) -> Any:
    """Numbers of one variable that came without an axis for it, as `fit` takes them too, with that axis."""
    if hasattr(X, "iloc"):
        return X
    if isinstance(X, (list, tuple)) and X and np.ndim(X[0]) > 0:
        bare = all(not hasattr(part, "iloc") and len(_shape(part, wanted)) == 1 for part in X)
        return [np.asarray(part)[:, None] for part in X] if bare else X
    shape = _shape(X, wanted)
    return np.asarray(X)[..., None] if n_lags > 1 and (len(shape) == 1 or shape[1:] == (n_lags,)) else X


def _frames(rows: SampleRows, n_states: int) -> SampleRows:
    """Rows (n, n_states, *state) as (n * n_states, *state)."""
    if n_states == 1:
        return rows if rows.sample_shape else SampleRows(rows.array()[:, None])
    data = rows.array()
    flat = data.reshape(len(data) * n_states, *data.shape[2:])
    return SampleRows(flat if flat.ndim > 1 else flat[:, None])


def _cycles(calendar: Any, trajectories: Trajectories) -> tuple[str, ...]:
    """The cycles that the calendar is to tell."""
    found = find_cycles(trajectories.times)
    if isinstance(calendar, str) and calendar == "auto":
        return found
    if calendar is None:
        return ()
    if any(index is None or index.dtype.kind != "M" for index in trajectories.times):
        raise ValueError(f"calendar={calendar!r} needs DataFrames with a DatetimeIndex.")
    return (calendar,) if isinstance(calendar, str) else tuple(calendar)
