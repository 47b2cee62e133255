"""How a forecaster sees its training data: scales, the simple forecast and what it leaves, rows to train on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from flowmatch import preprocessing
from flowmatch._forecast_inputs import Layout
from flowmatch._window_data import FieldWindows, WindowRows
from flowmatch.preprocessing import Container, SampleEncoder, Standardize, WindowEncoder, Windows

Array = NDArray[np.float64]

FOLDS = 5
"""Folds of the ridge regression whose residuals a flow learns: those of its own rows would be too small."""

_FEW_ROWS = 20
_ALPHAS = np.logspace(-2, 5, 15)


def new_encoder(layout: Layout, windows: Windows) -> WindowEncoder:
    """An encoder with the scales of the training states and a base of nothing."""
    mean, scale = preprocessing.column_scale(windows.frames, preprocessing.FITTED_NUMBERS)
    targets = np.array(layout.targets, dtype=np.intp)
    assert windows.targets is not None
    if len(targets):
        target_mean, target_scale = mean[targets], scale[targets]
    else:
        target_mean, target_scale = preprocessing.column_scale(windows.targets, preprocessing.FITTED_NUMBERS)
    encoder = WindowEncoder(
        Container("numpy", (windows.targets.dtype,)),
        mean,
        scale,
        target_mean,
        target_scale,
        targets,
        np.array(layout.known, dtype=np.intp),
        np.empty((0, 0)),
        np.empty(0),
        np.array(layout.grid, dtype=np.intp),
        layout.n_lags,
        layout.horizon,
        windows.calendar.shape[1],
    )
    encoder.weights = np.zeros((encoder.n_columns, encoder.target_shape[0]))
    encoder.intercept = np.zeros(encoder.target_shape[0])
    return encoder


def fit_fields(encoder: WindowEncoder, windows: Windows, target: str) -> SampleEncoder:
    """Set the base of fields, and give the scale of what it leaves."""
    if target == "residual" and len(encoder.targets):
        encoder.weights = preprocessing.persistence(encoder)
    numbers = int(np.prod(encoder.target_shape))
    n_rows = min(len(windows), max(2, preprocessing.FITTED_NUMBERS // numbers))
    some = np.sort(np.random.RandomState(0).choice(len(windows), n_rows, replace=False))
    return _residual_encoder(encoder, residuals_of(encoder, windows, some))


def fit_table(encoder: WindowEncoder, windows: Windows, target: str) -> tuple[SampleEncoder, Array]:
    """Set the base of tables and series, and give the scale of what it leaves and the residuals (n, q) to train on.

    Ridge regression, its penalty by leave-one-out (`sklearn.linear_model.RidgeCV`). The residuals come from
    regressions that have not seen the row: folds of rows for pairs, of trajectories where there are enough, of blocks
    in time for few series.
    """
    contexts, targets = _whole(encoder, windows)
    if target == "state":
        return _residual_encoder(encoder, targets), targets
    from sklearn.linear_model import RidgeCV

    whole = RidgeCV(_ALPHAS).fit(contexts, targets)
    encoder.weights, encoder.intercept = whole.coef_.reshape(-1, contexts.shape[1]).T.copy(), np.ravel(whole.intercept_)
    expected = np.array(whole.predict(contexts)).reshape(targets.shape)
    if len(contexts) >= _FEW_ROWS:
        folds, overlap = _folds(windows.groups), encoder.n_lags + encoder.horizon - 1
        contiguous = len(np.unique(windows.groups)) < FOLDS
        for fold in range(FOLDS):
            (held_out,) = np.nonzero(folds == fold)
            kept = folds != fold
            if contiguous:  # windows beside the block share states with it
                near = np.unique(np.clip(held_out[:, None] + np.arange(-overlap, overlap + 1), 0, len(folds) - 1))
                kept[near] = False
            if kept.sum() >= 2:
                part = RidgeCV(_ALPHAS).fit(contexts[kept], targets[kept])
                expected[held_out] = part.predict(contexts[held_out]).reshape(len(held_out), -1)
    residuals = targets - expected
    return _residual_encoder(encoder, residuals), residuals


def residuals_of(encoder: WindowEncoder, windows: Windows, rows: NDArray[np.intp]) -> Array:
    """What the base leaves of targets, (B, q, *grid)."""
    targets = encoder.target_states(windows.states_ahead(rows)).flatten(1, 2)
    return (targets - encoder.base(encoder.read_contexts(windows, rows))).double().numpy()


def table_rows(
    encoder: WindowEncoder, residuals: SampleEncoder, windows: Windows, left: Array | None, device: torch.device
) -> WindowRows:
    """Rows of a table or series to train on; `left` are their residuals if they are known."""
    every = np.arange(len(windows))
    left = residuals_of(encoder, windows, every) if left is None else left
    return WindowRows(
        groups=torch.as_tensor(windows.groups, device=device),
        overlap=_overlap(encoder),
        codes=torch.as_tensor(residuals.encode(left), dtype=torch.float32, device=device),
        contexts=encoder.read_contexts(windows, every).to(device),
    )


def field_rows(
    encoder: WindowEncoder, residuals: SampleEncoder, windows: Windows, device: torch.device
) -> FieldWindows:
    """Windows of fields to train on."""
    transform = residuals.transform
    assert isinstance(transform, Standardize)
    return FieldWindows.of(windows, encoder, (transform.centre_, transform.scale_), device, _overlap(encoder))


def _residual_encoder(encoder: WindowEncoder, left: Array) -> SampleEncoder:
    return SampleEncoder.fit(left, Container("numpy", ("float64",)), Standardize(), None)


def _whole(encoder: WindowEncoder, windows: Windows) -> tuple[Array, Array]:
    """All contexts (n, m) and targets (n, q), standardised."""
    every = np.arange(len(windows))
    contexts = encoder.read_contexts(windows, every).double().numpy()
    return contexts, encoder.target_states(windows.states_ahead(every)).flatten(1).double().numpy()


def _folds(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """The fold of each row: random for pairs and for trajectories, blocks in time where those are few."""
    names, place = np.unique(groups, return_inverse=True)
    if len(names) < FOLDS:
        return np.arange(len(groups)) * FOLDS // len(groups)
    return np.random.RandomState(0).permutation(np.arange(len(names)) % FOLDS)[place]


def _overlap(encoder: WindowEncoder) -> int:
    return encoder.n_lags + encoder.horizon - 1
