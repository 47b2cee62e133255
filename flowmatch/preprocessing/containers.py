"""Remember what the user's data came in, and give generated data back in the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch.core.storable import NOT_STORED, require, storable

Array = NDArray[np.float64]


@storable
@dataclass(frozen=True)
class Container:
    """Kind and dtypes of a data set: numpy array, pandas DataFrame or Series, or torch tensor.

    Attributes
    ----------
    kind : {"numpy", "dataframe", "series", "torch"}
    dtypes : tuple of str
        One dtype a column for a DataFrame, one for all otherwise.
    columns : tuple
        Names of a DataFrame's columns, or the name of a Series.
    device : str
        Of a torch tensor.
    """

    kind: str
    dtypes: tuple[str, ...]
    columns: tuple[Any, ...] = ()
    device: str = field(default="cpu", metadata=NOT_STORED)

    @classmethod
    def of(cls, data: Any) -> Container:
        """Describe `data`; whatever is neither pandas nor torch counts as numpy."""
        if isinstance(data, torch.Tensor):
            return cls("torch", (str(data.dtype).removeprefix("torch."),), device=str(data.device))
        if hasattr(data, "columns") and hasattr(data, "dtypes"):
            return cls("dataframe", tuple(str(dtype) for dtype in data.dtypes), tuple(data.columns))
        if hasattr(data, "to_frame") and hasattr(data, "dtype"):
            return cls("series", (str(data.dtype),), (data.name,))
        return cls("numpy", (str(data.dtype if hasattr(data, "dtype") else np.asarray(data).dtype),))

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored container do not fit each other."""
        n_columns = {"numpy": 0, "torch": 0, "series": 1}.get(self.kind, len(self.dtypes))
        require(self.kind in ("numpy", "dataframe", "series", "torch", "polars"), "kind")
        require(len(self.columns) == n_columns and len(self.dtypes) == max(1, n_columns), "dtypes")
        hash(self.columns)  # raises for what can be no name

    @property
    def has_columns(self) -> bool:
        """Whether these are data frames, with a dtype for each column."""
        return self.kind in ("dataframe", "polars")

    @property
    def numpy_dtype(self) -> str:
        """The first dtype, as numpy knows it."""
        return "float32" if self.dtypes[0] == "bfloat16" else self.dtypes[0]

    def tolerance(self, n_columns: int) -> Array:
        """Relative rounding error of each column, (n_columns,): that of its floating dtype, 0 for float64."""
        coarse = ("float16", "float32", "bfloat16")
        dtypes = [dtype.lower() for dtype in self.dtypes]
        errors = [float(torch.finfo(getattr(torch, dtype)).eps) if dtype in coarse else 0.0 for dtype in dtypes]
        return np.broadcast_to(np.asarray(errors), (n_columns,))

    def narrow(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give `values` the dtype of an array or tensor; data frames wait for `wrap`."""
        return _as_dtype(values, self.dtypes[0]) if self.kind in ("numpy", "torch") else values

    def wrap(self, values: NDArray[Any]) -> Any:
        """Give float64 `values` the container and dtypes of the original."""
        if self.kind == "dataframe":
            import pandas as pd

            values = values.reshape(len(values), -1)  # one column of labels comes flat
            columns = [_as_series(values[:, j], dtype) for j, dtype in enumerate(self.dtypes)]
            frame = pd.concat(columns, axis=1)
            frame.columns = pd.Index(self.columns)
            return frame
        if self.kind == "series":
            return _as_series(values, self.dtypes[0]).rename(self.columns[0])
        if self.kind == "torch":
            tensor = torch.from_numpy(np.ascontiguousarray(_as_dtype(values, self.dtypes[0])))
            return tensor.to(self._target(), getattr(torch, self.dtypes[0]))
        return _as_dtype(values, self.dtypes[0])

    def _target(self) -> torch.device:
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError):  # written on a machine with another device
            return torch.device("cpu")


def _as_dtype(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Cast, with rounding and saturation where the target is integer or boolean."""
    if dtype == "bfloat16":
        return values.astype(np.float32)
    target = np.dtype(dtype)
    if values.dtype == target or target.kind not in "biuf":
        return values
    if target.kind == "b":
        return values >= 0.5
    if target.kind in "iu":
        limits = np.iinfo(target)
        return np.clip(np.round(values), limits.min, limits.max).astype(target)
    return values.astype(target)


def _as_series(values: NDArray[Any], dtype: str) -> Any:
    import pandas as pd

    if dtype.startswith(("Int", "UInt", "boolean", "Float")):  # pandas' nullable dtypes
        plain = "bool" if dtype == "boolean" else dtype.lower()
        return pd.Series(_as_dtype(values, plain)).astype(dtype)
    try:
        return pd.Series(_as_dtype(values, dtype))
    except TypeError:  # a pandas extension dtype
        return pd.Series(values).astype(dtype)
