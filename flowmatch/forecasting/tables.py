"""How a forecaster reads tables and series of mixed columns and missing entries: as numbers, up front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable
from flowmatch.forecasting.columns import check_columns, check_known_ahead, columns_named
from flowmatch.preprocessing import TableContainer, TableNumbers
from flowmatch.preprocessing.validation import check_rows, table_of

Array = NDArray[np.float64]


@storable
@dataclass(frozen=True, eq=False)
class TableReader:
    """What a forecaster makes of the columns of its tables or series.

    Attributes
    ----------
    numbers : TableNumbers
    exogenous, known : tuple of int
        Columns of a series that are read but not forecast; those that are known ahead. The others are forecast, and
        must be whole numbers.
    """

    numbers: TableNumbers
    exogenous: tuple[int, ...] = ()
    known: tuple[int, ...] = ()

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored reader do not fit each other."""
        require(all(0 <= j < self.n_columns for j in (*self.exogenous, *self.known)), "table")

    @property
    def columns(self) -> tuple[Any, ...]:
        """Names of the table's columns."""
        return self.numbers.container.columns

    @property
    def n_columns(self) -> int:
        """How many columns the table has."""
        return len(self.numbers.container.kinds)

    # -- pairs --------------------------------------------------------------------------------------------------------

    @classmethod
    def of_pairs(cls, X: Any) -> TableReader | None:
        """The reader of a table, if it is more than whole numbers."""
        container = table_of(X, identifier_columns="text")
        if container is None:
            return None
        numbers = TableNumbers.fit(container, container.read(X))
        return cls(numbers) if numbers.is_mixed else None

    def rows(self, estimator: Any, X: Any, *, reset: bool) -> Array:
        """Numbers (n, m) for the rows of a table, whose names scikit-learn checks, and with `reset` learns."""
        container = self.numbers.container
        return self.numbers.numbers(check_rows(estimator, X, reset=reset, container=container, missing=True).array())

    # -- series -------------------------------------------------------------------------------------------------------

    @classmethod
    def of_series(cls, X: Any, parameters: Any, names: Sequence[str]) -> TableReader | None:
        """The reader of series in DataFrames, which errors call by `names`, if they are more than whole numbers.

        Raises
        ------
        ValueError
            For columns to forecast that are not numbers, and what `TableContainer.fit` and `read` refuse.
        """
        frames = _frames_of(X)
        if frames is None or all(_is_plain(frame) for frame in frames):
            return None
        import pandas as pd

        if any(list(frame.columns) != list(frames[0].columns) for frame in frames):
            return None  # what reads series next says which differs
        columns, d = tuple(frames[0].columns), frames[0].shape[1]
        exogenous = columns_named(parameters.exogenous_columns, "exogenous_columns", columns, d)
        known = columns_named(parameters.known_columns, "known_columns", columns, d)
        for j in sorted(set(range(d)) - {*exogenous, *known}):
            for name, frame in zip(names, frames, strict=True):
                if getattr(dtype := frame.dtypes.iloc[j], "kind", "O") not in "biuf":
                    raise ValueError(
                        f"column {columns[j]!r} of {name} has dtype {dtype} and is to be forecast, which "
                        "takes numbers: name it in exogenous_columns or known_columns, or leave it out."
                    )
        whole = pd.concat(frames, ignore_index=True)
        container = TableContainer.fit(whole, identifier_columns="text")
        numbers = TableNumbers.fit(container, container.read(whole))
        is_read = np.isin(np.arange(d), [*exogenous, *known])  # windows do without rows that lack a target
        reader = cls(replace(numbers, holed=numbers.holed & is_read), exogenous, known)
        return reader if reader.numbers.is_mixed else None

    def parameters(self, own: Any) -> SimpleNamespace:
        """A forecaster's own parameters, with the columns of numbers where they name columns of the table."""
        positions = self.numbers.positions
        columns = {"exogenous_columns": positions(self.exogenous), "known_columns": positions(self.known)}
        return SimpleNamespace(**{**own.get_params(deep=False), **columns})

    def series(self, X: Any) -> list[Any]:
        """Series as DataFrames of numbers with the same index.

        Raises
        ------
        ValueError
            For anything but DataFrames with the columns of training, and categories that it has not seen.
        """
        import pandas as pd

        frames = _frames_of(X)
        if frames is None:
            raise ValueError(
                f"the model was fitted to DataFrames with the columns {list(self.columns)}, some of which are "
                "categories or missed entries: pass DataFrames here too."
            )
        for frame in frames:
            check_columns(frame.columns, self.columns)
        targets = [j for j in range(self.n_columns) if j not in self.exogenous and j not in self.known]
        tables = [self.numbers.numbers(self.numbers.container.read(frame), whole=targets) for frame in frames]
        names = list(self.numbers.names)
        return [pd.DataFrame(table, frame.index, names) for table, frame in zip(tables, frames, strict=True)]

    def future(self, future: Any) -> Any:
        """Columns known ahead as numbers (n, n_steps, k); what is not understood passes, and is refused later."""
        names = [self.columns[j] for j in self.known]
        parts = [future] if hasattr(future, "iloc") else future
        if not self.known or future is None or not hasattr(parts, "__len__") or len(parts) == 0:
            return future
        if hasattr(parts[0], "columns"):
            check_known_ahead(parts, names)
            ahead = [self._ahead([part[name] for name in names]) for part in parts]
            shortest = min(map(len, ahead))  # how many steps are asked for is checked later
            return np.stack([part[:shortest] for part in ahead])
        entries = np.asarray(parts, dtype=object)
        if entries.ndim != 3 or entries.shape[2] != len(names):
            return future
        return np.stack([self._ahead(list(part.T)) for part in entries])

    def _ahead(self, columns: Sequence[Any]) -> Array:
        container = self.numbers.container
        known = [(j, column) for j, column in zip(self.known, columns, strict=True) if not container.is_key[j]]
        read = [container.numbers_of(j, column) for j, column in known]
        return self.numbers.numbers(np.stack(read, axis=1), [j for j, _ in known])


def _frames_of(X: Any) -> list[Any] | None:
    """DataFrames of pandas, one or a list of them; None for anything else."""
    frames = [X] if hasattr(X, "iloc") else X
    if not isinstance(frames, (list, tuple)) or not frames:
        return None
    return list(frames) if all(hasattr(frame, "iloc") and hasattr(frame, "columns") for frame in frames) else None


def _is_plain(frame: Any) -> bool:
    """Whether a DataFrame holds numbers alone, and no entry is missing."""
    numeric = all(getattr(dtype, "kind", "O") in "biuf" for dtype in frame.dtypes)
    return numeric and not bool(frame.isna().to_numpy().any())
