"""Time series from files and tables, and the windows of them that a forecaster learns from."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_choice, check_count

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = NDArray[np.float64]

GAPS = ("raise", "warn", "fill", "split")
"""What to do about times that are missing between two others."""


def read_series(
    source: str | os.PathLike[str] | pd.DataFrame,
    *,
    time: Hashable | None = None,
    columns: Sequence[Hashable] | None = None,
    group: Hashable | Sequence[Hashable] | None = None,
    sort: bool = False,
    gaps: str = "raise",
) -> list[pd.DataFrame]:
    """Read series from a CSV file or a DataFrame, and check that they are what a forecaster takes for granted.

    Each series comes out with its times in order and evenly spaced (in calendar terms: days, months, quarters, business
    days), and with columns of numbers only. Missing values stay what they are, NaN. Needs pandas.

    Parameters
    ----------
    source : path-like or DataFrame
        A CSV file, plain or compressed, or what `pandas.read_csv` makes of one that needs options.
    time : column name, default=None
        Where the times are, as dates or numbers. By default a DataFrame's index; the rows of a file count 0, 1, 2, ...
    columns : sequence of column names, default=None
        The variables. By default all columns but `time` and `group`.
    group : column name or sequence of them, default=None
        What tells the series apart. By default all rows are one series.
    sort : bool, default=False
        Whether to bring the rows in the order of time; otherwise rows that are not are an error. Two rows of a series
        with the same time are one in any case.
    gaps : {"raise", "warn", "fill", "split"}, default="raise"
        What to do where times are missing between two others: raise an error that names them, warn and keep the series
        as it is, put rows of NaN in, which ``interpolate`` of pandas can replace, or cut the series there, and where
        values are missing, into complete ones.

    Returns
    -------
    series : list of DataFrame
        One for each group, in the order in which groups first appear: float64, with the times as index and the group in
        ``attrs["group"]``. With ``gaps="split"`` one for each complete part.

    Raises
    ------
    ValueError
        If a column is unknown or not of numbers, a time cannot be read, times are not in order, appear twice or are not
        evenly spaced. Rows are counted from 0, without a file's header.

    See Also
    --------
    make_windows : Cut series into contexts and what followed.
    sklearn.model_selection.TimeSeriesSplit : Train on the past, test on the future.

    Examples
    --------
    >>> import pandas as pd
    >>> from flowmatch.datasets import read_series
    >>> table = pd.DataFrame({
    ...     "day": ["2024-01-01", "2024-01-02", "2024-01-03"] * 2,
    ...     "site": ["A"] * 3 + ["B"] * 3,
    ...     "wind": [4.7, 4.5, 2.3, 6.1, 2.2, 2.3],
    ... })
    >>> series = read_series(table, time="day", group="site")
    >>> series[1]
                wind
    day
    2024-01-01   6.1
    2024-01-02   2.2
    2024-01-03   2.3
    """
    from flowmatch.datasets._series_tables import read_table  # needs pandas

    check_choice("gaps", gaps, GAPS)
    keys = [] if group is None else list(group) if isinstance(group, list | tuple) else [group]
    return read_table(source, time, columns, keys, sort, gaps)


class SeriesWindows(NamedTuple):
    """What `make_windows` cuts: contexts, what followed each, and where they are from."""

    X: Floats
    y: Floats
    series: NDArray[np.intp]
    start: NDArray[np.intp]


def make_windows(series: Any, n_lags: int, horizon: int = 1, *, stride: int = 1) -> SeriesWindows:
    """Cut series into contexts and what followed, never across the border of two series.

    Parameters
    ----------
    series : list of DataFrame or array-like, each (n_steps,) or (n_steps, d)
        Of any lengths. A single DataFrame or array of one or two dimensions is one series, an array of three dimensions
        one for each entry.
    n_lags : int
        Steps of a context.
    horizon : int, default=1
        Steps that follow it.
    stride : int, default=1
        Steps from one window to the next.

    Returns
    -------
    X : ndarray of shape (n, n_lags, d)
        Contexts, the oldest step first; float64. NaN stays NaN.
    y : ndarray of shape (n, horizon, d)
        What followed.
    series : ndarray of shape (n,)
        Position of the series that a window is from.
    start : ndarray of shape (n,)
        Position in that series of the first step of y; ``frame.index[start]`` are its times.

    Raises
    ------
    ValueError
        If a series is shorter than a window, or series have different columns.

    See Also
    --------
    sklearn.model_selection.TimeSeriesSplit : Train on the first windows, test on later ones; with
        ``gap=n_lags + horizon - 1`` no number is in windows of both parts.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.datasets import make_windows
    >>> windows = make_windows([np.arange(5), np.arange(10, 14)], n_lags=2, horizon=1)
    >>> windows.X[..., 0]
    array([[ 0.,  1.],
           [ 1.,  2.],
           [ 2.,  3.],
           [10., 11.],
           [11., 12.]])
    >>> windows.y.ravel(), windows.series, windows.start
    (array([ 2.,  3.,  4., 12., 13.]), array([0, 0, 0, 1, 1]), array([2, 3, 4, 2, 3]))
    """
    n_lags, horizon, stride = (
        check_count(name, value) for name, value in (("n_lags", n_lags), ("horizon", horizon), ("stride", stride))
    )
    length = n_lags + horizon
    arrays = _as_arrays(series)
    for k, array in enumerate(arrays):
        if len(array) < length:
            raise ValueError(
                f"Series {k} has {len(array)} steps, fewer than n_lags + horizon = {n_lags} + {horizon} = {length}. "
                f"Leave it out, or take shorter windows."
            )
    # The view has the window's steps last; nothing is copied before the windows are put together.
    cut = [np.lib.stride_tricks.sliding_window_view(array, length, axis=0)[::stride] for array in arrays]
    windows = np.concatenate(cut).swapaxes(1, 2)
    counts = [len(part) for part in cut]
    start = np.concatenate([n_lags + stride * np.arange(count) for count in counts])
    return SeriesWindows(windows[:, :n_lags], windows[:, n_lags:], np.repeat(np.arange(len(arrays)), counts), start)


def _as_arrays(series: Any) -> list[Floats]:
    """Each series as (n_steps, d), all with the same columns."""
    single = hasattr(series, "columns") or (hasattr(series, "ndim") and series.ndim < 3)
    each = [series] if single else list(series)
    if not each:
        raise ValueError("series is empty. Pass at least one series.")
    arrays = []
    for k, one in enumerate(each):
        array = np.asarray(one, np.float64)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise ValueError(f"Series {k} must be (n_steps,) or (n_steps, d), got shape {array.shape}.")
        arrays.append(array)
        found, wanted = _names(one, array), _names(each[0], arrays[0])
        if found != wanted:
            raise ValueError(
                f"All series must have the same columns in the same order, got {wanted} in series 0 and {found} in "
                f"series {k}."
            )
    return arrays


def _names(one: Any, array: Floats) -> list[Any] | int:
    """A DataFrame's columns; the number of them for an array."""
    return list(one.columns) if hasattr(one, "columns") else array.shape[1]
