"""Forecasts as DataFrames: the times they are for, the names of their columns, one column a quantile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_choice
from flowmatch.forecasting.fitted import FittedForecaster
from flowmatch.forecasting.series import read_panel
from flowmatch.preprocessing import as_plain, instants_of

OUTPUTS = ("numpy", "pandas")


def check_output_format(output: str, fitted: FittedForecaster) -> None:
    """Raise a ValueError for another container than there are, and for fields as columns of a DataFrame."""
    if check_choice("output", output, OUTPUTS) == "pandas" and fitted.layout.grid:
        raise ValueError(
            f"output='pandas' is for tables and series, but states here are fields of the grid {fitted.layout.grid}: "
            "take output='numpy'."
        )


def as_frame(
    forecasts: NDArray[Any],
    fitted: FittedForecaster,
    X: Any,
    *,
    n_steps: int | None = None,
    kinds: tuple[str, Sequence[Any]] | None = None,
    members: bool = False,
) -> Any:
    """Forecasts as a DataFrame of pandas.

    Parameters
    ----------
    forecasts : ndarray of shape (n, ...), with `kinds` (n_kinds, n, ...), with `members` (n_samples, n, ...)
        As the methods of a forecaster return them.
    fitted : FittedForecaster
        Whose forecasts they are.
    X : contexts
        As users pass them.
    n_steps : int, optional
        States of a forecast; by default the horizon.
    kinds : tuple of a name and labels, optional
        What stands along the first axis: "quantile" and the levels, for one.
    members : bool, default=False
        Whether draws stand along the first axis.

    Returns
    -------
    pandas.DataFrame
        Rows are instants, below the series' number where there are several, below the draw's; columns are those that
        are forecast, above the `kinds`.
    """
    import pandas as pd

    names = pd.Index(list(fitted.target_names), name="column", tupleize_cols=False)
    n_steps = fitted.layout.horizon if n_steps is None else n_steps
    n_first = len(forecasts) if kinds or members else 1
    index = _rows_of(X, fitted, forecasts[0] if kinds or members else forecasts, n_steps)
    values = forecasts.reshape(n_first, len(index), len(names))
    if members:
        index = pd.concat([pd.DataFrame(index=index)] * n_first, keys=range(n_first), names=["sample"]).index
        return pd.DataFrame(values.reshape(-1, len(names)), index, names)
    if kinds is None:
        return pd.DataFrame(values[0], index, names)
    columns = pd.MultiIndex.from_product([names, list(kinds[1])], names=["column", kinds[0]])
    return pd.DataFrame(np.moveaxis(values, 0, 2).reshape(len(index), -1), index, columns)


def _rows_of(X: Any, fitted: FittedForecaster, forecasts: NDArray[Any], n_steps: int) -> Any:
    """The rows of a DataFrame of forecasts (n, ...): of tables those of X, of series what comes after each."""
    import pandas as pd

    layout, n, X = fitted.layout, len(forecasts), as_plain(X, "X")
    if layout.reads_rows:
        rows = X.index if hasattr(X, "iloc") else pd.RangeIndex(n)
        steps = pd.RangeIndex(1, n_steps + 1)
        return rows if n_steps == 1 else pd.MultiIndex.from_product([rows, steps], names=["row", "step"])
    panel = read_panel(X, layout.long)
    if panel.labels is None and (
        hasattr(X, "iloc") or len(panel.parts) != n
    ):  # one history, without an axis for several
        return _index_ahead(panel.parts[0] if isinstance(panel.parts, list) else panel.parts, fitted, n_steps)
    ahead = [pd.DataFrame(index=_index_ahead(part, fitted, n_steps)) for part in panel.parts]
    keys = pd.Index(range(n) if panel.labels is None else panel.labels, tupleize_cols=False)
    return pd.concat(ahead, keys=keys, names=["series", "time"]).index


def _index_ahead(history: Any, fitted: FittedForecaster, n_steps: int) -> Any:
    """The index of what follows a history: instants by the model's spacing, or positions."""
    import pandas as pd

    index: Any = getattr(history, "index", None)
    if hasattr(index, "to_timestamp"):
        return pd.period_range(index[-1] + 1, periods=n_steps, name="time")
    if hasattr(index, "dtype") and index.dtype.kind not in "iuf":
        index = instants_of(index, "X")
    if getattr(getattr(index, "dtype", None), "kind", "") == "M":
        return fitted.layout.instants_ahead(index, n_steps).rename("time")
    if isinstance(index, pd.Index) and index.dtype.kind in "iu":
        step = int(index[-1] - index[-2]) if len(index) > 1 else 1
        return pd.RangeIndex(index[-1] + step, index[-1] + step * (n_steps + 1), step, name="time")
    several = fitted.layout.n_lags > 1 or np.ndim(history) > 1 or index is not None
    n_rows = len(history) if several else 1
    return pd.RangeIndex(n_rows, n_rows + n_steps, name="time")
