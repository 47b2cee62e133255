"""Synthetic rows, or signals, that have a target: a generator fitted to both, and rows drawn for chosen targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.validation import check_consistent_length, validate_data

from flowmatch.core.randomness import seed_from
from flowmatch.core.types import AnyArray
from flowmatch.core.user_warnings import quietly
from flowmatch.preprocessing import as_plain, check_readable, native_frame
from flowmatch.preprocessing.signal_arrays import as_signals
from flowmatch.preprocessing.validation import check_names_differ
from flowmatch.tables.frames import is_polars

MIN_ODDS = 10.0
"""So many times likelier under its own class than under any other is a row that is kept: measured, as below."""

_REDRAWS = 3
_RIVALS = 10
_DENSITY_STEPS, _EXACT_COLUMNS, _PROBES = 4, 20, 16


@dataclass(frozen=True)
class SyntheticRows:
    """What was drawn: rows in the container of X, their targets (n,), and the generator; None where none was needed."""

    X: Any
    y: NDArray[Any]
    generator: Any


def check_generator(generator: Any) -> None:
    """Raise a ValueError for what can neither learn nor draw."""
    if generator is not None and not all(callable(getattr(generator, name, None)) for name in ("fit", "sample")):
        raise ValueError(
            f"generator must be None or have fit and sample, such as a FlowMatchingGenerator; got {generator!r}."
        )
    if getattr(generator, "identifiers", "fresh") != "fresh":
        raise ValueError(
            f"a generator with identifiers={generator.identifiers!r} draws no whole rows to add: set it to 'fresh'."
        )


def are_signals(X: Any) -> bool:
    """Whether what `check_examples` returns are windows (n, n_channels, n_times) and no table."""
    return len(X.shape) == 3


def check_examples(estimator: Any, X: Any, y: Any) -> tuple[Any, dict[str, Any]]:
    """X as a frame of pandas or polars, a sparse matrix or an array, and what an estimator knows of it by name.

    What the entries of a table may hold is for the generator to say.
    """
    reader = type(estimator)(**estimator.get_params(deep=False))  # a refused X may not reach the estimator
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
    X = X if sparse.issparse(X) else as_plain(native_frame(X), "X")
    check_readable(y, "y")
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        check_names_differ(X)
        validate_data(reader, X, y, skip_check_array=True)
        if len(X) == 0 or len(X.columns) == 0:
            raise ValueError(f"X has shape {X.shape}: there are no entries in it (0 sample(s) or 0 feature(s)).")
    elif np.asarray(X).ndim > 2:
        X = _numeric_signals(X)
        validate_data(reader, X, skip_check_array=True)
    else:
        X = validate_data(reader, X, accept_sparse=["csr", "csc"], dtype=None, ensure_all_finite="allow-nan")
    check_consistent_length(X, y)
    return X, {name: getattr(reader, name, None) for name in ("n_features_in_", "feature_names_in_")}


def _numeric_signals(X: Any) -> AnyArray:
    """Signals, checked, in their own dtype if it is one of numbers."""
    signals, own = as_signals(X), np.asarray(X)
    return own if own.dtype.kind in "iuf" else signals


def keep(estimator: Any, **learned: Any) -> None:
    """Make what was learned the attributes of an estimator; None for what there is not."""
    for name, value in learned.items():
        vars(estimator).pop(name, None)
        if value is not None or name == "generator_":
            setattr(estimator, name, value)


def draw_classes(
    generator: Any,
    X: Any,
    y: NDArray[Any],
    wanted: Mapping[Any, int],
    random_state: np.random.RandomState,
    sample_weight: NDArray[np.float64] | None = None,
    min_odds: float | None = None,
) -> SyntheticRows:
    """Learn all classes together and draw the wanted numbers of rows.

    The rare classes borrow from the common ones what rows look like. Their rows have no more weight than others: what
    is seen seldom is learned in its outlines, and drawn widely (measured: see the benchmarks page).
    """
    wanted = {label: count for label, count in wanted.items() if count > 0}
    if not wanted:
        return SyntheticRows(None, y[:0], None)
    labels = y if y.dtype.kind in "US" else y.astype(object)  # whole numbers stay labels, however many there are
    fitted = fit_clone(generator, X, labels, sample_weight, random_state)
    drawn = np.repeat(np.array(list(wanted), dtype=labels.dtype), list(wanted.values()))
    rows = _sample(fitted, drawn, random_state)
    # of signals, whose densities are rough, a comparison takes many times as long as drawing them
    if min_odds is not None and not are_signals(X) and hasattr(fitted, "score_samples"):
        classes, counts = np.unique(labels, return_counts=True)
        with quietly():  # a comparison need not be a density
            rows = _clearer(fitted, rows, drawn, classes[np.argsort(-counts, kind="stable")], min_odds, random_state)
    return SyntheticRows(rows, drawn.astype(y.dtype), fitted)


def _clearer(
    fitted: Any, rows: Any, y: NDArray[Any], classes: NDArray[Any], min_odds: float, random_state: np.random.RandomState
) -> Any:
    """Draw rows that could as well be of another class anew, up to three times, and keep the best of each."""
    first, chosen, odds = rows, np.arange(len(y)), _log_odds(fitted, rows, y, classes)
    for _ in range(_REDRAWS):
        unclear = np.flatnonzero(odds < np.log(min_odds))
        if len(unclear) == 0:
            break
        drawn = _sample(fitted, y[unclear], random_state)
        found = _log_odds(fitted, drawn, y[unclear], classes)
        better = found > odds[unclear]
        chosen[unclear[better]] = len(rows) + np.flatnonzero(better)
        odds[unclear] = np.maximum(odds[unclear], found)
        rows = join(rows, drawn)
    keys = getattr(fitted, "identifier_columns_", [])
    if is_polars(rows):
        return rows[chosen].with_columns([first[key] for key in keys])
    if not hasattr(rows, "iloc"):
        rows = rows[chosen]
        rows[:, keys] = first[:, keys]
        return rows
    return rows.iloc[chosen].assign(**{key: first[key].to_numpy() for key in keys}) if keys else rows.iloc[chosen]


def _log_odds(fitted: Any, X: Any, y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Log of how many times likelier rows are under their class than under any of the ten most common others."""
    # a comparison need not be as good as a density
    n_probes = None if X.shape[1] <= _EXACT_COLUMNS else _PROBES
    options = _understood(fitted.score_samples, n_steps=_DENSITY_STEPS, n_probes=n_probes)
    own = fitted.score_samples(X, y, **options)
    others = np.full(len(y), -np.inf)
    for label in classes[: _RIVALS + 1]:
        rivals = np.flatnonzero(y != label)
        if len(rivals):
            rows = X.iloc[rivals] if hasattr(X, "iloc") else X[rivals]
            found = fitted.score_samples(rows, np.full(len(rivals), label, dtype=y.dtype), **options)
            others[rivals] = np.maximum(others[rivals], found)
    return np.nan_to_num(own - others, nan=-np.inf)


def draw_numbers(
    generator: Any,
    X: Any,
    y: NDArray[Any],
    drawn: NDArray[np.float64],
    random_state: np.random.RandomState,
    sample_weight: NDArray[np.float64] | None = None,
) -> SyntheticRows:
    """Learn rows given a numeric target, and draw one for each of the targets (n,)."""
    if len(drawn) == 0:
        return SyntheticRows(None, y[:0], None)
    fitted = fit_clone(generator, X, y[:, None].astype(np.float64), sample_weight, random_state)
    rows = _sample(fitted, drawn[:, None], random_state)
    return SyntheticRows(rows, (np.round(drawn) if y.dtype.kind in "biu" else drawn).astype(y.dtype), fitted)


def fit_clone(generator: Any, X: Any, y: Any, weight: Any, random_state: np.random.RandomState) -> Any:
    """A fitted clone of the generator; one without a seed gets ours."""
    fitted = clone(generator)
    if fitted.get_params(deep=False).get("random_state", 0) is None:
        fitted.set_params(random_state=seed_from(random_state))
    return fitted.fit(_dense(X), y, sample_weight=weight)


def _sample(fitted: Any, y: NDArray[Any], random_state: np.random.RandomState) -> Any:
    """A row for each target, with missing entries as the real rows have them: else a model would tell them by that."""
    options = _understood(fitted.sample, missing="as_trained")
    return fitted.sample(len(y), y=y, random_state=random_state, **options)


def _understood(method: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """The options that a method has a parameter for."""
    return {name: value for name, value in options.items() if name in signature(method).parameters}


def _dense(X: Any) -> Any:
    """The same rows without sparse storage, of a matrix or of a DataFrame's columns."""
    if sparse.issparse(X):
        return X.toarray()
    kinds = dict(X.dtypes) if hasattr(X, "iloc") else {}
    return X.astype(dense) if (dense := {n: k.subtype for n, k in kinds.items() if hasattr(k, "fill_value")}) else X


def join(X: Any, new: Any) -> Any:
    """The rows of X and the new ones below, in X's container and dtypes; rows of a DataFrame are numbered anew."""
    if is_polars(X):
        import polars as pl

        new = X.clear() if new is None else new if is_polars(new) else pl.DataFrame(new, schema=X.columns)
        return pl.concat([X, new.cast(dict(X.schema))])
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        import pandas as pd

        if new is None:
            return X.reset_index(drop=True)
        new = new if hasattr(new, "columns") else pd.DataFrame(new, columns=X.columns)
        own = {name: dtype for name, dtype in zip(X.columns, X.dtypes, strict=True) if _holds(dtype, new[name])}
        return pd.concat([X, new.astype(own)], ignore_index=True)
    if new is None:
        return X.copy()
    if sparse.issparse(X):
        return sparse.vstack([X, sparse.csr_matrix(new, dtype=X.dtype)], format=X.format)
    new = np.asarray(new)
    if are_signals(X):
        return np.concatenate([X, _as_recorded(new, X.dtype)])
    return np.concatenate([X, new.astype(X.dtype) if _holds(X.dtype, new) else new])


def _as_recorded(signals: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Signals in a dtype; of integers as a converter gives them, rounded and clipped."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        signals = np.clip(np.rint(signals), limits.min, limits.max)
    return signals.astype(dtype)


def _holds(dtype: Any, values: Any) -> bool:
    """Whether a dtype is not one of integers that are too small for fresh keys among values, which are not missing."""
    kind = getattr(dtype, "kind", "O")
    return kind not in "iu" or not bool((values > 2 ** (8 * dtype.itemsize - (kind == "i")) - 1).any())
