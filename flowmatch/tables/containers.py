"""Remember what the user's data came in, and give generated data back in the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from flowmatch.core.storable import NOT_STORED, require, storable
from flowmatch.core.types import AnyArray, Array
from flowmatch.tables.dtype_names import check_dtypes
from flowmatch.tables.frames import as_dtype, dtypes_of, is_polars, pandas_series, polars_series


@storable
@dataclass(frozen=True)
class Container:
    """Kind and dtypes of a data set: numpy array, pandas DataFrame or Series, or torch tensor.

    Parameters
    ----------
    kind : {"numpy", "dataframe", "series", "torch", "polars", "polars_series", "arrow", "dict", "rows", "records", \
"masked"}
        What the data came in; the last five are tables of pyarrow, dicts of columns, lists of dicts, and structured and
        masked arrays.
    dtypes : tuple of str
        One dtype a column for a DataFrame, one for all otherwise.
    columns : tuple, default=()
        Names of a DataFrame's columns, or the name of a Series.
    device : str, default="cpu"
        Of a torch tensor.
    level_names : tuple, default=()
        Names of the levels of a DataFrame's columns, such as their ``name``, if there are any.
    """

    kind: str
    dtypes: tuple[str, ...]
    columns: tuple[Any, ...] = ()
    device: str = field(default="cpu", metadata=NOT_STORED)
    level_names: tuple[Any, ...] = ()

    @classmethod
    def of(cls, data: Any) -> Container:
        """Describe data.

        Parameters
        ----------
        data : array-like
            Whatever is neither of pandas, polars nor torch counts as numpy.

        Returns
        -------
        Container
            What the data came in.
        """
        if isinstance(data, torch.Tensor):
            return cls("torch", (str(data.dtype).removeprefix("torch."),), device=str(data.device))
        if is_polars(data) and hasattr(data, "columns"):
            return cls("polars", dtypes_of(data), tuple(data.columns))
        if is_polars(data):
            return cls("polars_series", dtypes_of(data.to_frame()), (data.name,))
        if hasattr(data, "columns") and hasattr(data, "dtypes"):
            names = tuple(getattr(data.columns, "names", ()))
            levels = names if any(name is not None for name in names) else ()
            return cls("dataframe", dtypes_of(data), tuple(data.columns), level_names=levels)
        if hasattr(data, "to_frame") and hasattr(data, "dtype"):
            return cls("series", (str(data.dtype),), (data.name,))
        return cls("numpy", (str(data.dtype if hasattr(data, "dtype") else np.asarray(data).dtype),))

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored container do not fit each other."""
        n_columns = {"numpy": 0, "torch": 0, "masked": 0}.get(self.kind, len(self.dtypes))
        require(self.kind in ("numpy", "torch", "masked", "series", "polars_series") or self.has_columns, "kind")
        require(not self.kind.endswith("series") or n_columns == 1, "dtypes")
        require(len(self.columns) == n_columns and len(self.dtypes) == max(1, n_columns), "dtypes")
        check_dtypes(self.kind, self.dtypes)
        hash((self.columns, self.level_names))  # raises for what can be no name

    @property
    def has_columns(self) -> bool:
        """Whether these are tables with a dtype for each column."""
        return self.kind in ("dataframe", "polars", "arrow", "dict", "rows", "records")

    @property
    def numpy_dtype(self) -> str:
        """The first dtype, as numpy knows it."""
        return "float32" if self.dtypes[0] == "bfloat16" else self.dtypes[0]

    def tolerance(self, n_columns: int) -> Array:
        """Look up the relative rounding error of each column.

        Parameters
        ----------
        n_columns : int
            Number of columns.

        Returns
        -------
        ndarray of shape (n_columns,)
            That of its floating dtype, 0 for float64.
        """
        coarse = ("float16", "float32", "bfloat16")
        aliases = {"float[pyarrow]": "float32", "halffloat[pyarrow]": "float16"}
        dtypes = [aliases.get(dtype, dtype.lower()) for dtype in self.dtypes]
        errors = [float(torch.finfo(getattr(torch, dtype)).eps) if dtype in coarse else 0.0 for dtype in dtypes]
        return np.broadcast_to(np.asarray(errors), (n_columns,))

    def narrow(self, values: AnyArray) -> AnyArray:
        """Give values the dtype of an array or tensor, if it can hold them.

        Parameters
        ----------
        values : ndarray of float64
            Data.

        Returns
        -------
        ndarray
            Of the same shape; those of data frames wait for `wrap`.
        """
        return as_dtype(values, self.numpy_dtype) if self.kind in ("numpy", "torch") and self._holds(values) else values

    def wrap(self, values: AnyArray) -> Any:
        """Give values the container and dtypes of the original.

        Parameters
        ----------
        values : ndarray
            Data.

        Returns
        -------
        ndarray, Tensor, DataFrame or Series
            The same in the container. Where an array's or tensor's dtype cannot hold NaN and there is one, it is
            float64, or objects with None for booleans in an array.
        """
        if self.columns:
            parts = zip(values.reshape(len(values), -1).T, self.dtypes, self.columns, strict=True)
            if self.kind.startswith("polars"):
                columns = [polars_series(column, dtype, name) for column, dtype, name in parts]
            else:
                columns = [pandas_series(column, dtype).rename(name) for column, dtype, name in parts]
            return columns[0] if self.kind.endswith("series") else self.framed(columns)
        holds = self._holds(values)
        if self.kind == "torch":
            tensor = torch.from_numpy(np.ascontiguousarray(as_dtype(values, self.numpy_dtype) if holds else values))
            return tensor.to(self._target(), getattr(torch, self.dtypes[0]) if holds else None)
        if not holds and self.dtypes[0] == "bool":
            return np.where(np.isnan(values), None, values >= 0.5)  # type: ignore[call-overload]
        return as_dtype(values, self.dtypes[0]) if holds else values

    def framed(self, columns: Sequence[Any]) -> Any:
        """Join columns to a frame.

        Parameters
        ----------
        columns : sequence of Series
            Of the library that the data came in.

        Returns
        -------
        DataFrame
            Under the names of the original.
        """
        if self.kind == "polars":
            import polars as pl

            return pl.DataFrame(columns)
        import pandas as pd

        frame = pd.DataFrame(dict(enumerate(columns)))  # names may occur twice
        frame.columns = pd.Index(self.columns)
        if self.level_names:
            frame.columns.names = list(self.level_names)
        return frame

    def _holds(self, values: AnyArray) -> bool:
        """Whether an array or tensor of the dtype can hold values, which may be NaN."""
        is_whole = values.dtype.kind == "f" and np.dtype(self.numpy_dtype).kind in "biu"
        return not (is_whole and np.isnan(values).any())

    def _target(self) -> torch.device:
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError):  # written on a machine with another device
            return torch.device("cpu")
