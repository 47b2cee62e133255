"""Outputs of any kind as plain arrays in one compressed file without pickle, and how two of them are compared."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

FOLDER = Path(__file__).parent / "references"
OUTPUTS = FOLDER / "outputs.npz"
EXACT = os.environ.get("FLOWMATCH_EXACT", "0") not in ("", "0")
MISSING = "<missing>"


def flatten(value):
    """Arrays by name that hold all of the value: numbers, text, dtypes, column names and what is missing."""
    if isinstance(value, pd.DataFrame):
        columns = {f".{name}{rest}": part for name in value for rest, part in flatten(value[name]).items()}
        return {".columns": np.array([str(name) for name in value.columns])} | columns
    if isinstance(value, pd.Series):
        return {".dtype": np.array(_dtype(value)), "": _column(value)}
    if isinstance(value, dict):
        return {f".{name}{rest}": part for name, item in value.items() for rest, part in flatten(item).items()}
    if isinstance(value, list | tuple) and any(np.ndim(item) or not np.isscalar(item) for item in value):
        return flatten(dict(enumerate(value)))
    if isinstance(value, torch.Tensor):
        return {".dtype": np.array(str(value.dtype)), "": value.detach().numpy()}
    array = np.asarray(value)
    return {"": _text(array.ravel()).reshape(array.shape) if array.dtype == object else array}


def _dtype(column):
    """The dtype, by one name where versions of pandas have their own for text and for the unit of dates."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "datetime64"
    return "text" if str(column.dtype) in ("object", "str") else str(column.dtype)


def _column(column):
    """Numbers as they are, nullable ones as float64, dates as whole numbers, everything else as text."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "M":
        return column.to_numpy().astype("datetime64[ns]").astype(np.int64)
    if pd.api.types.is_numeric_dtype(column.dtype):  # nullable numbers and booleans
        return column.to_numpy(np.float64, na_value=np.nan)
    return _text(column)


def _text(values):
    return np.array([MISSING if pd.isna(value) else str(value) for value in values])


def read():
    """Everything that was recorded, by name."""
    if not OUTPUTS.exists():
        return {}
    with np.load(OUTPUTS, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write(arrays):
    """Equal arrays make equal files, to the byte."""
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(OUTPUTS, **{name: arrays[name] for name in sorted(arrays)})


def part(arrays, name):
    """The arrays of one output."""
    return {key.removeprefix(name): array for key, array in arrays.items() if key == name or key.startswith(name + ".")}


def assert_same(found, recorded, tolerance, rare=0.0):
    """Text, whole numbers, shapes and dtypes exactly; floats to the tolerance; or all to the bit if asked for.

    With `rare` > 0, values are grey levels, which rounding may move to the next one: so large a share may be others.
    """
    assert recorded, "nothing is recorded: python tests/references.py record"
    assert sorted(found) == sorted(recorded)
    for name, expected in recorded.items():
        array, where = found[name], name or "values"
        assert array.dtype.kind == expected.dtype.kind, where
        assert array.shape == expected.shape, where
        if array.dtype.kind == "f":
            assert array.dtype == expected.dtype, where
        if rare and not EXACT and array.dtype.kind != "U":
            assert (~np.isclose(array, expected, tolerance, tolerance)).mean() <= rare, where
        elif EXACT or array.dtype.kind != "f":
            np.testing.assert_array_equal(array, expected, err_msg=where)
        else:
            np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance, err_msg=where)
