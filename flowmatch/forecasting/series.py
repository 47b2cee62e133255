"""Series as users keep them: panels, and long tables with columns of times and labels, as one frame a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowmatch.core.storable import storable
from flowmatch.preprocessing import as_times, native_frame
from flowmatch.tables.frames import is_polars


@storable
@dataclass(frozen=True)
class LongForm:
    """The columns of a table that holds series one below the other.

    Attributes
    ----------
    time : str, int or None
        The column of times; None where they are the index.
    groups : tuple
        Columns that tell the series apart.
    columns : tuple
        Those of the series themselves.
    """

    time: Any = None
    groups: tuple[Any, ...] = ()
    columns: tuple[Any, ...] = ()

    @classmethod
    def of(cls, X: Any, time: Any, groups: Any, value: Any, parameters: Any) -> LongForm | None:
        """The form that `fit` was told of; None if it was told of none.

        Raises
        ------
        ValueError
            For data that are no single table, and columns that it lacks.
        """
        if time is groups is value is None:
            return None
        X = native_frame(X)
        if not hasattr(X, "columns"):
            raise ValueError(
                f"time, groups and value name columns of one DataFrame that holds all series, but X is a "
                f"{type(X).__name__}: pass such a frame, or leave them out."
            )
        keys = _listed(groups)
        used = [*keys, *([] if time is None else [time])]
        columns = [name for name in X.columns if name not in used]
        if value is not None:
            named = [*_listed(parameters.exogenous_columns), *_listed(parameters.known_columns)]
            _check_present(X, "value", _listed(value))
            columns = [name for name in columns if name in _listed(value) or name in named]
        _check_present(X, "time", [] if time is None else [time])
        _check_present(X, "groups", keys)
        if not columns:
            raise ValueError(f"no column of X is left to forecast: it has {list(X.columns)}; value names such columns.")
        return cls(time, tuple(keys), tuple(columns))

    def is_form_of(self, X: Any) -> bool:
        """Whether X is a table that has the columns of times and groups."""
        return hasattr(X, "columns") and {*self.groups, *([] if self.time is None else [self.time])} <= set(X.columns)


@dataclass(frozen=True)
class Panel:
    """Series, and what they are called.

    Attributes
    ----------
    parts : Any
        What `read_trajectories` takes.
    labels : tuple or None
        The label of each in its panel or long table.
    skipped : tuple of int
        Rows that were left out before each.
    """

    parts: Any
    labels: tuple[Any, ...] | None = None
    skipped: tuple[int, ...] = ()

    def names(self, kind: str) -> list[str]:
        """What errors call the series: by label, or as a trajectory or history by number."""
        if self.labels is not None:
            return [f"series {label!r}" for label in self.labels]
        return [f"{kind} {number}" for number in range(len(self.parts) if isinstance(self.parts, (list, tuple)) else 1)]


def read_panel(X: Any, form: LongForm | None = None, columns: Sequence[Any] | None = None) -> Panel:
    """Take a panel or a long table apart.

    Parameters
    ----------
    X : Any
        A DataFrame with the columns of `form`; a DataFrame or Series, or a list of them, with a MultiIndex of labels
        and times; anything else stays as it is.
    form : LongForm or None, default=None
        What `fit` was told of.
    columns : sequence, optional
        The columns that are wanted of a long table; those of the form if it is not given.

    Returns
    -------
    Panel
        Series in the order in which they come first.

    Raises
    ------
    ValueError
        For columns that are missing, and rows that name no series.
    """
    if form is not None and not isinstance(X, (list, tuple, np.ndarray)) and X is not None:
        X = native_frame(X)
        if form.is_form_of(X):
            return _from_long(X, form, form.columns if columns is None else columns)
        if form.time is not None and not _has_times(X):
            missing = [name for name in (form.time, *form.groups) if name not in X.columns]
            raise ValueError(
                f"X lacks the columns {missing}: the model was fitted to a table with time={form.time!r} and "
                f"groups={list(form.groups)}; pass such a one, or series with a DatetimeIndex."
            )
    parts = X if isinstance(X, (list, tuple)) else [X]
    if not any(_is_panel(part) for part in parts):
        return Panel(X)
    panels = [_from_levels(part) if _is_panel(part) else Panel([part], (number,)) for number, part in enumerate(parts)]
    labels = [label for panel in panels for label in panel.labels or ()]
    return Panel([part for panel in panels for part in panel.parts], tuple(labels))


def in_order_of(panel: Panel, labels: Sequence[Any]) -> list[Any]:
    """The parts of a panel of what is known ahead, in the order of the series that they belong to.

    Raises
    ------
    ValueError
        For series without such a part.
    """
    places = {label: place for place, label in enumerate(panel.labels or ())}
    missing = [label for label in labels if label not in places]
    if missing:
        raise ValueError(
            f"future has no rows of series {missing[0]!r} ({len(missing)} of {len(labels)} series lack them)."
        )
    return [panel.parts[places[label]] for label in labels]


def _from_long(frame: Any, form: LongForm, columns: Sequence[Any]) -> Panel:
    import pandas as pd

    _check_present(frame, "the model", columns)
    if is_polars(frame):
        wanted = [*form.groups, *([] if form.time is None else [form.time]), *columns]
        frame = pd.DataFrame({name: _polars_column(frame[name]) for name in dict.fromkeys(wanted)})
    if form.time is not None:
        times = pd.Index(frame[form.time])
        unread = np.flatnonzero(times.isna())
        if len(unread):
            raise ValueError(f"column {form.time!r}, the times, has no value in row {unread[0]}.")
        frame = frame.set_axis(_read_column(times, f"column {form.time!r}"), axis=0)
    values = frame[list(columns)]
    if not form.groups:
        return Panel([values])
    return _by_labels(values, [frame[name].to_numpy(dtype=object) for name in form.groups], form.groups)


def _from_levels(part: Any) -> Panel:
    """The series of a panel whose index has a level of times, the last one unless only another holds dates."""
    index = part.index
    dated = [k for k in range(index.nlevels) if getattr(index.levels[k].dtype, "kind", "O") == "M"]
    time = dated[0] if len(dated) == 1 else index.nlevels - 1
    others = [k for k in range(index.nlevels) if k != time]
    keys = [np.asarray(index.get_level_values(k), dtype=object) for k in others]
    times = index.get_level_values(time)
    read = as_times(times, f"level {index.names[time]!r}")
    return _by_labels(part.set_axis(times if read is None else read, axis=0), keys, [index.names[k] for k in others])


def _by_labels(values: Any, keys: list[Any], names: Sequence[Any]) -> Panel:
    import pandas as pd

    table = pd.DataFrame(dict(enumerate(keys)))
    unnamed = np.argwhere(table.isna().to_numpy())
    if len(unnamed):
        raise ValueError(f"row {unnamed[0, 0]} has no {names[unnamed[0, 1]]!r}: which series is it of?")
    found = table.groupby(0 if len(keys) == 1 else list(table), sort=False).indices
    labels = list(found)
    order = np.argsort([rows[0] for rows in found.values()], kind="stable")
    return Panel([values.iloc[np.sort(found[labels[i]])] for i in order], tuple(labels[i] for i in order))


def _is_panel(part: Any) -> bool:
    return getattr(getattr(part, "index", None), "nlevels", 1) > 1


def _has_times(X: Any) -> bool:
    """Whether a frame has times, or levels of labels and times, as its index."""
    return not hasattr(X, "columns") or _is_panel(X) or getattr(getattr(X, "index", None), "dtype", None) != np.int64


def _read_column(times: Any, name: str) -> Any:
    """A column of times, whole numbers such as 20260131 as dates.

    Raises
    ------
    ValueError
        For what is neither dates nor numbers.
    """
    import pandas as pd

    if getattr(times.dtype, "kind", "O") in "iu":
        dates = pd.to_datetime(times.astype(str), format="%Y%m%d", errors="coerce")
        return times.astype(np.float64) if (times < 19000101).any() or dates.isna().any() else dates
    read = as_times(times, name)
    if read is None:
        raise ValueError(
            f"{name} should hold times, but its first entry is {times[0]!r}: convert it by pandas.to_datetime."
        )
    return read


def _polars_column(column: Any) -> Any:
    """A column of polars as pandas holds it; dates with a zone keep it."""
    return column.to_list() if getattr(column.dtype, "time_zone", None) is not None else column.to_numpy()


def _listed(names: Any) -> list[Any]:
    if names is None:
        return []
    return list(names) if isinstance(names, (list, tuple, set, np.ndarray)) else [names]


def _check_present(frame: Any, what: str, names: Sequence[Any]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(f"{what} names the column {missing[0]!r}, but X has {list(frame.columns)}.")
