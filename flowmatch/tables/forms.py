"""Tables that are neither frames, arrays nor tensors: read as a frame or an array, and made of one again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowmatch.core.types import AnyArray
from flowmatch.tables.dates import EXACT

FORMS = {"arrow": "dataframe", "dict": "dataframe", "rows": "dataframe", "records": "dataframe", "masked": "numpy"}
"""Tables of pyarrow, dicts of columns, lists of dicts, structured and masked arrays; what each is read as."""


def form_of(X: Any) -> str:
    """Which of the forms a table has, "" for none."""
    if isinstance(X, np.ma.MaskedArray):
        return "masked"
    if isinstance(X, np.ndarray) and X.dtype.names:
        return "records"
    if isinstance(X, Mapping) and not hasattr(X, "shape"):  # as some sparse arrays of scipy are
        return "dict"
    if isinstance(X, (list, tuple)) and len(X) and isinstance(X[0], Mapping):
        return "rows"
    pa = sys.modules.get("pyarrow")
    return "arrow" if pa is not None and isinstance(X, (pa.Table, pa.RecordBatch)) else ""


def formless(X: Any) -> Any:
    """A table that has one of the forms as a DataFrame of pandas or an array; all else as it is.

    Raises
    ------
    ValueError
        For columns of unequal lengths, fields that hold arrays, and grids of which something is masked.
    """
    form = form_of(X)
    if form == "masked":
        return _unmasked(X)
    if form == "arrow":
        return _from_arrow(X)
    if not form:
        return X
    import pandas as pd

    if form == "rows":
        other = next((i for i, row in enumerate(X) if not isinstance(row, Mapping)), None)
        if other is not None:
            raise ValueError(
                f"X[{other}] is a {type(X[other]).__name__}, but X[0] is a dict: rows must be of one kind."
            )
        X = {name: [row.get(name) for row in X] for name in dict.fromkeys(name for row in X for name in row)}
    names = X.dtype.names if form == "records" else list(X)
    lengths = {name: len(X[name]) if np.ndim(X[name]) == 1 else None for name in names}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise ValueError(f"X is a {type(X).__name__} of no columns of equal lengths; these are {lengths}.")
    return pd.DataFrame({name: _series(X[name]) for name in names})


def form_dtypes(X: Any, dtypes: tuple[str, ...]) -> tuple[str, ...]:
    """The dtypes of a table's columns, where its form has other ones than the frame it is read as."""
    form = form_of(X)
    if form == "masked":
        return (str(X.dtype),)
    if form == "records":
        return tuple(str(X.dtype[name]) for name in X.dtype.names)
    if form == "dict":
        columns = (X[name] for name in X)
        return tuple(
            column.dtype.str if isinstance(column, np.ndarray) and column.dtype.kind in "USOmM" else dtype
            for column, dtype in zip(columns, dtypes, strict=True)
        )
    if form == "arrow":
        views = [str(kind) == "string_view" for kind in X.schema.types]
        return tuple("string_view[pyarrow]" if view else name for name, view in zip(dtypes, views, strict=True))
    return dtypes


def in_form(form: str, frame: Any, dtypes: tuple[str, ...]) -> Any:
    """A DataFrame of pandas as a table of a form, with such dtypes; all else as it is."""
    if form not in FORMS:
        return frame
    names, columns = list(frame.columns), [frame.iloc[:, j] for j in range(frame.shape[1])]
    if form == "dict":
        return {
            name: column.tolist()
            if dtype == "object"
            else column.to_numpy(_holding(dtype, column) if dtype[0] in "<>|" else None)
            for name, column, dtype in zip(names, columns, dtypes, strict=True)
        }
    if form == "rows":
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if form == "records":
        wide = [_holding(dtype, column) for dtype, column in zip(dtypes, columns, strict=True)]
        table = np.empty(len(frame), dtype=list(zip(names, wide, strict=True)))
        for name, column in zip(names, columns, strict=True):
            table[name] = column.to_numpy()
        return table
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    for j, dtype in enumerate(dtypes):
        if dtype == "string_view[pyarrow]":
            table = table.set_column(j, names[j], table.column(j).cast(pa.string_view()))
    return table


def _holding(dtype: str, column: Any) -> np.dtype[Any]:
    """A dtype for a column, which may hold longer text or larger integers than it did: fresh keys."""
    kind = np.dtype(dtype).kind
    if kind == "U":
        return np.promote_types(dtype, np.asarray(column.tolist(), dtype=str).dtype)
    if kind in "iu" and getattr(column.dtype, "kind", "O") in "iu":
        return np.promote_types(dtype, column.dtype)
    return np.dtype(dtype)


def _from_arrow(X: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    table = pa.Table.from_batches([X]) if isinstance(X, pa.RecordBatch) else X
    fields = [field.with_type(pa.string()) if str(field.type) == "string_view" else field for field in table.schema]
    return table.cast(pa.schema(fields)).to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)


def _series(column: Any) -> Any:
    """A column of a dict or a structured array; lists are objects, as is text."""
    import pandas as pd

    if not hasattr(column, "dtype"):
        return pd.Series(np.fromiter(column, dtype=object, count=len(column)), dtype=object)
    return pd.Series(column.astype(object) if column.dtype.kind in "USO" else column)


def _unmasked(X: Any) -> AnyArray:
    """A masked array with a missing value where it is masked."""
    mask = np.ma.getmaskarray(X)
    if not mask.any():
        return np.asarray(X.data)
    if X.ndim != 2:
        raise ValueError(
            f"X is a masked array of shape {X.shape}: only tables may miss entries. Fill it, X.filled(...)."
        )
    if X.dtype.kind in "fmM":
        return np.asarray(X.filled(np.nan if X.dtype.kind == "f" else "NaT"))
    if X.dtype.kind in "iu" and max(-int(X.min()), int(X.max())) <= EXACT:
        return np.asarray(X.astype(np.float64).filled(np.nan))
    entries = np.array(X.data, dtype=object)
    entries[mask] = None
    return entries
