"""How a forecaster sees its training data: scales, the simple forecast and what it leaves, rows to train on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

from flowmatch.forecasting.layout import Layout
from flowmatch.forecasting.window_data import FieldWindows, GroupedData, WindowRows, n_sharing
from flowmatch.preprocessing import (
    FITTED_ELEMENTS,
    Container,
    QuantileNormal,
    SampleEncoder,
    Standardize,
    TrainingCodes,
    WindowEncoder,
    Windows,
    column_scale,
    persistence,
)

Array = NDArray[np.float64]

FOLDS = 5
"""Folds of the ridge regression whose residuals a flow learns: those of its own rows would be too small."""

WELL_PREDICTED = 0.5
"""Share of a column's standard deviation that a regression may leave to be worth starting from."""

_FEW_ROWS = 20
_ROWS_FOR_PENALTY = 5000
_DOUBLE = Container("numpy", ("float64",))
_ALPHAS = np.logspace(-2, 5, 15)


def new_encoder(layout: Layout, windows: Windows) -> WindowEncoder:
    """An encoder with the scales of the training states and a base of nothing."""
    mean, scale = column_scale(windows.frames, FITTED_ELEMENTS)
    targets = np.array(layout.targets, dtype=np.intp)
    assert windows.targets is not None
    if not layout.grid:  # values as they are, so that zeros and steps come back to the last bit
        n_targets = len(targets) or windows.targets.sample_shape[0]
        target_mean, target_scale = np.zeros(n_targets), np.ones(n_targets)
    elif len(targets):
        target_mean, target_scale = mean[targets], scale[targets]
    else:
        target_mean, target_scale = column_scale(windows.targets, FITTED_ELEMENTS)
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
        max(1, len(windows) // (layout.n_lags + layout.horizon - 1)),
    )
    n_targets = encoder.target_shape[0]
    return replace(encoder, weights=np.zeros((encoder.n_columns, n_targets)), intercept=np.zeros(n_targets))


def fit_base(
    encoder: WindowEncoder, windows: Windows, target: str
) -> tuple[WindowEncoder, SampleEncoder, Array | None]:
    """The encoder with its base, and the scale of what that leaves; of tables and series also the residuals.

    The base of fields is the last state or nothing.
    """
    if not len(encoder.grid):
        return _fit_regression(encoder, windows, target)
    if target != "state" and len(encoder.targets):
        encoder = replace(encoder, weights=persistence(encoder))
    numbers = int(np.prod(encoder.target_shape))
    n_rows = min(len(windows), max(2, FITTED_ELEMENTS // numbers))
    some = np.sort(np.random.RandomState(0).choice(len(windows), n_rows, replace=False))
    return encoder, SampleEncoder.fit(_residuals_of(encoder, windows, some), _DOUBLE, Standardize(), None), None


def training_rows(
    encoder: WindowEncoder,
    residuals: SampleEncoder,
    windows: Windows,
    device: torch.device,
    left: Array | None = None,
) -> GroupedData:
    """Windows as rows to train on; `left` are the residuals of tables and series if they are known."""
    if len(encoder.grid):
        return FieldWindows.of(windows, encoder, residuals, device)
    every = np.arange(len(windows))
    codes = residuals.training_codes(_residuals_of(encoder, windows, every) if left is None else left, device)
    assert isinstance(codes, TrainingCodes)
    return WindowRows(
        encoder=encoder,
        groups=torch.as_tensor(windows.groups, device=device),
        codes=codes,
        contexts=encoder.read_contexts(windows, every).to(device),
    )


def _fit_regression(
    encoder: WindowEncoder, windows: Windows, target: str
) -> tuple[WindowEncoder, SampleEncoder, Array]:
    """The encoder of tables and series with its base, the scale of what that leaves, and the residuals (n, q).

    The base is a ridge regression, its penalty by leave-one-out, or nothing. With
    ``target="auto"`` that is settled for each column: the regression where it leaves less than half of the standard
    deviation, as of trends, walks and smooth dynamics. Where it leaves more, the values themselves are the better
    start: zeros stay zeros, and bounds stay bounds.

    The residuals come from regressions that have not seen the row: folds of rows for pairs, of trajectories where there
    are enough, of blocks in time for few series.
    """
    every = np.arange(len(windows))
    contexts = encoder.read_contexts(windows, every).double().numpy()
    targets = encoder.truth(windows, every).reshape(len(every), -1)
    if target != "state":
        penalty = _penalty_of(contexts, targets)
        whole = Ridge(penalty * len(contexts)).fit(contexts, targets)
        weights, intercept = whole.coef_.reshape(-1, contexts.shape[1]).T, np.ravel(whole.intercept_)
        left = targets - unseen_predictions(contexts, targets, penalty, windows.groups, n_sharing(encoder))
        n_targets = len(encoder.target_mean)
        spread = np.sqrt(np.square(targets - targets.mean(axis=0)).reshape(-1, n_targets).mean(axis=0))
        share = np.sqrt(np.square(left).reshape(-1, n_targets).mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        varies = np.ptp(targets.reshape(-1, n_targets), axis=0) > 0  # what a regression leaves of others is rounding
        linear = np.tile(varies & ((share < WELL_PREDICTED) | (target == "residual")), encoder.horizon)
        kept_weights, kept_intercept = np.where(linear, weights, 0.0), np.where(linear, intercept, 0.0)
        encoder = replace(encoder, weights=kept_weights, intercept=kept_intercept)
        targets = np.where(linear, left, targets)
    return encoder, SampleEncoder.fit(targets, _DOUBLE, QuantileNormal(open_gaps=False), None), targets


def _penalty_of(contexts: Array, targets: Array) -> float:
    """The penalty of a ridge regression, in units of one row, by leave-one-out (`sklearn.linear_model.RidgeCV`)."""
    some = np.random.RandomState(0).permutation(len(contexts))[:_ROWS_FOR_PENALTY]
    return float(RidgeCV(_ALPHAS).fit(contexts[some], targets[some]).alpha_) / len(some)


def unseen_predictions(
    contexts: Array, targets: Array, penalty: float, groups: NDArray[np.intp], overlap: int
) -> Array:
    """Predictions (n, q) of ridge regressions with a penalty a row, fitted without the row's fold."""

    def predict(kept: NDArray[np.bool_], rows: NDArray[np.intp]) -> Array:
        fitted = Ridge(penalty * kept.sum()).fit(contexts[kept], targets[kept])
        return np.asarray(fitted.predict(contexts[rows])).reshape(len(rows), -1)

    n_rows, folds = len(contexts), _folds(groups)
    if n_rows < 3:  # none to spare
        return predict(np.ones(n_rows, dtype=bool), np.arange(n_rows))
    expected = np.empty_like(targets)
    for fold in np.unique(folds):
        (held_out,) = np.nonzero(folds == fold)
        kept = folds != fold
        if _in_blocks(groups):  # windows beside a block share states with it
            near = np.unique(np.clip(held_out[:, None] + np.arange(-overlap, overlap + 1), 0, n_rows - 1))
            kept[near] = False
        expected[held_out] = predict(kept if kept.sum() >= 2 else folds != fold, held_out)
    return expected


def _residuals_of(encoder: WindowEncoder, windows: Windows, rows: NDArray[np.intp]) -> Array:
    """What the base leaves of targets, (B, q, *grid)."""
    base = encoder.base(encoder.read_contexts(windows, rows).double())
    if not len(encoder.grid):
        return encoder.truth(windows, rows).reshape(len(rows), -1) - base.numpy()
    return (encoder.target_states(windows.states_ahead(rows)).flatten(1, 2) - base).double().numpy()


def _in_blocks(groups: NDArray[np.intp]) -> bool:
    """Whether folds are blocks in time, since trajectories are few, or one of them holds more rows than two folds."""
    counts = np.unique(groups, return_counts=True)[1]
    return bool(len(counts) < FOLDS or counts.max() > 2 * len(groups) / FOLDS)


def _folds(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """The fold of each row: random for pairs and for trajectories, blocks in time where those are few.

    Of few rows each is a fold of its own.
    """
    names, place = np.unique(groups, return_inverse=True)
    if len(groups) < _FEW_ROWS:
        return np.arange(len(groups)) if len(names) < FOLDS else place
    if _in_blocks(groups):
        return np.arange(len(groups)) * FOLDS // len(groups)
    return np.random.RandomState(0).permutation(np.arange(len(names)) % FOLDS)[place]
