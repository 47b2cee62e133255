"""Checks of what users pass in: each error names the parameter or column, what came and what is expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import validate_data

from flowmatch.core.types import Array, Mask
from flowmatch.tables.containers import Container
from flowmatch.tables.frames import is_polars, native_frame
from flowmatch.tables.readable import as_float64, as_plain, check_readable, check_samples_kind, unfit_in_words
from flowmatch.tables.rows import SampleRows
from flowmatch.tables.table import TableContainer


def table_of(X: Any, categorical_features: Any = "auto", identifier_columns: Any = None) -> TableContainer | None:
    """What the columns of a table hold; None for grids, data that stay where they are, and what is no data.

    Raises
    ------
    ValueError
        As `TableContainer.fit`, and where columns are named of data that have none.
    """
    table = native_frame(X)
    check_samples_kind(table)
    if hasattr(table, "columns") or (not _stays(table) and _is_matrix(table)):
        return TableContainer.fit(X, categorical_features, identifier_columns)
    for name, value in (("categorical_features", categorical_features), ("identifier_columns", identifier_columns)):
        if value is not None and not (isinstance(value, str) and value in ("auto", "text")):
            raise ValueError(
                f"{name}={value!r}, but X is not a table in memory: pass a two-dimensional array or a DataFrame."
            )
    return None


def check_samples(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    min_samples: int = 1,
    container: Container | None = None,
    missing: Mask | bool = False,
    of_grids: bool = False,
    unknown: str = "error",
) -> SampleRows:
    """Samples (n, *sample_shape), checked and matched with those of `fit`.

    Tables become float64 arrays. Grids, memory maps and row containers stay where they are; the check reads them once,
    in pieces.

    Parameters
    ----------
    container : Container, optional
        What tables come in, if their columns may be other than numbers.
    missing : bool or ndarray of bool, shape (n_columns,)
        Whether NaN is allowed in tables, or in which columns of them.
    of_grids : bool
        Whether `missing` is about grids too.
    unknown : {"error", "flag"}
        What becomes of categories that training has not seen: an error, or -1.

    Raises
    ------
    ValueError
        For infinities, values beyond float32, complex or empty data, a wrong number of dimensions, rows or columns,
        grids of unequal size, or columns in another order than in `fit`; for NaN and text where they are not allowed.
    """
    if not isinstance(X, SampleRows):
        X = native_frame(X)
        check_samples_kind(X)
        X = _stack_grids(X)
    if isinstance(X, SampleRows) or _stays(X):
        rows = _stored_rows(estimator, X, reset, min_samples)
        _check_values(rows, None, missing=missing if of_grids or len(rows.sample_shape) == 1 else False)
    else:
        checks: dict[str, Any] = {"container": container, "missing": missing, "unknown": unknown}
        rows = check_rows(estimator, X, reset=reset, min_samples=min_samples, **checks)
    if not reset and rows.sample_shape != estimator.sample_shape_:
        raise ValueError(
            f"X has samples of shape {rows.sample_shape}, but {type(estimator).__name__} was fitted to "
            f"{estimator.sample_shape_}."
        )
    return rows


def check_rows(
    estimator: Any,
    X: Any,
    *,
    reset: bool,
    min_samples: int = 1,
    container: Container | None = None,
    missing: Mask | bool = False,
    unknown: str = "error",
) -> SampleRows:
    """Rows of a table (n, n_columns) as float64, as `check_samples`, whatever the shape of the estimator's samples."""
    names = getattr(X, "columns", None)
    if names is not None and len(names) == 0:
        raise ValueError(f"X has shape {X.shape}: there are no columns in it.")
    if names is not None and not isinstance(container, TableContainer):
        container = TableContainer.of_numbers(Container.of(X), len(names))
    if isinstance(container, TableContainer):
        expected = getattr(estimator, "feature_names_in_", None)
        X = as_numbers(container, X, reset=reset, expected=expected, unknown=unknown)
    rows = _table(estimator, X, reset, min_samples)
    _check_values(rows, names, missing=missing)
    return rows


def check_names_differ(X: Any) -> None:
    """Raise a ValueError for a DataFrame in which two columns have one name."""
    names = list(getattr(X, "columns", ()))
    if len(set(names)) < len(names):
        raise ValueError(f"X has columns of one name: {names}. Give each column a name of its own.")


def check_layout(shape: tuple[int, ...]) -> None:
    """Raise a ValueError for samples (n, C, *grid) that look like channels last, or like grids without channels.

    Likewise for a recording (C, n_times) in place of a table. The guess is made for shapes that hardly occur otherwise:
    a last axis of at most 4 behind much longer ones, as many channels as points along every axis, or a table of at most
    8 rows and thousands of columns.
    """
    n, channels, *grid = shape
    if not grid and n <= 8 and channels >= 4096:
        raise ValueError(
            f"X has shape {shape}, a table of {n} rows; this looks like one recording (n_channels, n_times). Cut "
            "windows (n, n_channels, n_times) from it: Records([Record(X, fs)]).windows(1024) of flowmatch.datasets, "
            "whose read_records reads files. If X is a table, pass network='mlp'."
        )
    names = {1: "Signals are (n_signals, n_channels, n_times)", 2: "Images are (n_images, n_channels, height, width)"}
    kind = names.get(len(grid), "Fields are (n_fields, n_channels, depth, height, width)")
    if grid and grid[-1] <= 4 and min([channels, *grid[:-1]]) >= max(8, 4 * grid[-1]):
        order = ", ".join(map(str, [0, len(grid) + 1, *range(1, len(grid) + 1)]))
        hint = f"this looks like channels last: pass X.transpose({order})"
    elif grid and channels >= 8 and all(size == channels for size in grid):
        hint = "this looks like one channel without its axis: pass X[:, None]"
    else:
        return
    raise ValueError(
        f"X has {len(shape)} dimensions {shape}. {kind}; {hint}. If the order is right, pass the network as a "
        "component, such as network=UNet()."
    )


def check_weights(sample_weight: Any, n_samples: int) -> Array | None:
    """Sample weights scaled to mean 1 over the rows that have any, or None.

    Raises
    ------
    ValueError
        For a wrong shape, negative or non-finite weights, or weights that are all 0.
    """
    if sample_weight is None:
        return None
    try:
        weight = as_float64(sample_weight, "sample_weight")
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_weight must hold finite numbers >= 0: {error}.") from error
    if weight.shape != (n_samples,):
        raise ValueError(f"sample_weight has shape {weight.shape}; expected ({n_samples},), one weight a row.")
    if not np.isfinite(weight).all() or weight.min() < 0:
        raise ValueError("sample_weight must hold finite numbers >= 0.")
    if weight.max() == 0:
        raise ValueError("sample_weight is zero for every row; at least two rows need a positive weight.")
    weight = weight / weight.max()  # no overflow in the sum
    return weight / weight[weight > 0].mean()


def drop_weightless(samples: SampleRows, y: Any, weight: Array) -> tuple[SampleRows, Any, Array | None]:
    """Leave out rows of weight 0; weights that are all equal are no weights."""
    kept = weight > 0
    if kept.sum() < 2:
        raise ValueError("sample_weight leaves fewer than 2 rows with a positive weight.")
    if not kept.all():
        samples = samples.take(np.flatnonzero(kept))
        if isinstance(y, torch.Tensor):
            y = y[torch.as_tensor(kept, device=y.device)]
        elif y is not None:
            y = y.loc[kept] if hasattr(y, "loc") else y.filter(kept) if is_polars(y) else np.asarray(y)[kept]
    weight = weight[kept]
    return samples, y, weight if np.ptp(weight) > 0 else None


def check_lengths(n_rows: int, **arrays: Any) -> None:
    """Arrays must have as many rows as X; None and scalars pass.

    Raises
    ------
    ValueError
        That names the array.
    """
    for name, array in arrays.items():
        check_readable(array, name)
        scalar = not hasattr(array, "__len__") or isinstance(array, str) or getattr(array, "shape", None) == ()
        if not scalar and len(array) != n_rows:
            raise ValueError(f"{name} has {len(array)} rows, but X has {n_rows}: inconsistent numbers of samples.")


def check_codes(Z: Any, code_shape: tuple[int, ...], *, missing: bool = False) -> Array:
    """Latent codes as a float64 array (n, *code_shape); with `missing` some may be NaN.

    Raises
    ------
    ValueError
        For another shape, no rows, or anything but finite real numbers.
    """
    codes = np.asarray(as_plain(Z, "Z"))
    wanted = f"Z must hold finite numbers of shape ({', '.join(['n_samples', *map(str, code_shape)])})"
    if codes.dtype.kind not in "biuf":
        raise ValueError(f"{wanted}, got dtype {codes.dtype}.")
    if codes.shape[1:] != code_shape or len(codes) == 0:
        raise ValueError(f"{wanted}, got shape {codes.shape}.")
    if np.isinf(codes).any() or (np.isnan(codes).any() and not missing):
        raise ValueError(f"{wanted}, but it contains NaN or infinity.")
    return codes.astype(np.float64)


def _table(estimator: Any, X: Any, reset: bool, min_samples: int) -> SampleRows:
    """Data that scikit-learn can check and convert."""
    X, names = as_plain(X, "X"), getattr(X, "columns", None)
    if names is not None and not names.is_unique:  # scikit-learn takes no column name twice
        X = X.set_axis(range(len(names)), axis=1)
    checks: dict[str, Any] = {"dtype": np.float64, "allow_nd": True, "ensure_all_finite": False}
    try:
        return SampleRows(validate_data(estimator, X, reset=reset, ensure_min_samples=min_samples, **checks))
    except ArithmeticError as error:
        raise ValueError(f"X holds a number that no float can hold: {error}.") from error


def _is_matrix(X: Any) -> bool:
    """Whether data are two-dimensional: an array or tensor of real numbers, text or objects, or a list of rows."""
    if isinstance(X, torch.Tensor):
        return X.ndim == 2 and not X.is_complex() and not X.is_sparse
    if isinstance(X, (list, tuple)):
        try:
            X = np.asarray(X, dtype=object)
        except ValueError:  # rows of unequal length
            return False
    return isinstance(X, np.ndarray) and X.ndim == 2 and X.size > 0 and X.dtype.kind in "biufOUSMm"


def as_numbers(container: Any, X: Any, *, reset: bool, expected: Any, unknown: str = "error") -> Any:
    """A mixed table as numbers, under the names of its columns; scikit-learn checks those."""
    n_columns, names = len(container.kinds), getattr(X, "columns", None)
    if names is None:
        return container.read(X, unknown) if _is_matrix(X) and np.shape(X)[1] == n_columns else X
    names, known = list(names), list(container.columns)
    # those that are text, each once, are for scikit-learn to compare
    compared = all(isinstance(name, str) for name in (*names, *known)) and len(set(known)) == len(known)
    if not reset and known and not compared and len(names) == n_columns and names != known:
        raise ValueError(f"X has the columns {names[:20]}, but in training they were {known[:20]}.")
    other = not reset and ((expected is not None and names != list(expected)) or len(names) != n_columns)
    values = np.zeros((len(X), len(names))) if other else container.read(X, unknown)  # scikit-learn says what differs
    try:
        import pandas as pd
    except ImportError:  # a frame of another library
        return values
    return pd.DataFrame(values, columns=names)


def _stays(X: Any) -> bool:
    """Whether the data are read in pieces: grids, memory maps, and objects that hand out rows."""
    if isinstance(X, (np.ndarray, torch.Tensor)):
        return X.ndim > 2 or (X.ndim == 2 and isinstance(X, np.memmap))
    foreign = isinstance(X, (str, bytes, dict, list, tuple, memoryview)) or hasattr(X, "iloc") or hasattr(X, "columns")
    return not foreign and hasattr(X, "__len__") and hasattr(X, "__getitem__") and not hasattr(X, "tocsr")


def _stored_rows(estimator: Any, X: Any, reset: bool, min_samples: int) -> SampleRows:
    """Data that are not converted; what scikit-learn would check is checked here."""
    rows = SampleRows.of(X.detach() if isinstance(X, torch.Tensor) else X)
    if len(rows) and not rows.sample_shape:
        raise ValueError(f"X gives single numbers, such as {X[0]!r}; one array a sample is expected.")
    if not rows.is_real:
        raise ValueError(f"X has dtype {rows.dtype}; real numbers are expected.")
    if len(rows) < min_samples:
        raise ValueError(
            f"Found array with {len(rows)} sample(s) (shape={rows.shape}) while a minimum of {min_samples} is required "
            f"by {type(estimator).__name__}."
        )
    validate_data(estimator, np.empty((1, *rows.sample_shape)), reset=reset, skip_check_array=True)
    return rows


def _stack_grids(X: Any) -> Any:
    """A list of arrays as one array.

    Raises
    ------
    ValueError
        If their shapes differ.
    """
    if not isinstance(X, (list, tuple)):
        return X
    if not any(hasattr(sample, "shape") for sample in X):
        lengths = [len(row) if isinstance(row, (list, tuple)) else -1 for row in X]
        other = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
        if other is not None and min(lengths) >= 0:
            raise ValueError(
                f"X is a list of rows of unequal lengths: X[0] has {lengths[0]} entries and X[{other}] has "
                f"{lengths[other]}."
            )
        return X
    shapes = [tuple(np.shape(sample)) for sample in X]
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        raise ValueError(
            f"X is a list of samples of unequal shapes: X[0] has {shapes[0]} and X[{other}] has {shapes[other]}. Crop, "
            "pad or resample them to one shape, or cut windows of equal length, as flowmatch.datasets.Records does."
        )
    return np.stack([as_plain(sample, f"X[{i}]") for i, sample in enumerate(X)])


def _check_values(rows: SampleRows, names: Any, *, missing: Mask | bool = False) -> None:
    """Name the first value that is infinite or too large for float32, or NaN unless that is allowed."""
    if rows.size == 0:
        raise ValueError(f"X has shape {rows.shape}: there are no numbers in it.")
    unfit = rows.first_unfit(missing=missing)
    if unfit is None:
        return
    index, value = unfit
    where = f"column {names[index[1]]!r}, row {index[0]}" if names is not None else f"position {index}"
    raise ValueError(f"Input X contains {unfit_in_words(value)}: {where}. Only finite values are expected.")
