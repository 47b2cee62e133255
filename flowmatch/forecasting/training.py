"""How a forecaster sees its training data: scales, the simple forecast and what it leaves, rows to train on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from sklearn.linear_model import Ridge, RidgeCV

from flowmatch.forecasting.layout import Layout
from flowmatch.forecasting.scales import errors_by_series, fit_scale, unlike_columns
from flowmatch.forecasting.window_data import FieldWindows, GroupedData, WindowRows, n_sharing
from flowmatch.preprocessing import (
    FITTED_ELEMENTS,
    CertainSpikes,
    Container,
    QuantileNormal,
    SampleEncoder,
    Standardize,
    TargetRules,
    TrainingCodes,
    WindowEncoder,
    Windows,
    certain_from,
    column_scale,
    spikes_of,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

FOLDS = 5
"""Folds of the ridge regression whose residuals a flow learns: those of its own rows would be too small."""

WELL_PREDICTED = 0.5
"""Share of a column's standard deviation that a regression may leave to be worth starting from."""

PREDICTED = 0.95
"""The same for several targets of many rows, where values thin out to both sides as those of a normal one do."""

MANY_PAIRS = 5000
"""With more rows the distribution of several targets is learned without dropout; rows held out tell when to stop."""

HARDLY_WORSE = 1.05
"""Columns that drift may have so much larger errors one block ahead, so that forecasts can leave the training range."""

_EDGE, _EDGE_SHARE = 0.02, 0.005
"""So much of a column's range at an end holds less than this share of the rows where values thin out."""

_FEW_ROWS = 20
_TINY = 1e-12
_EXPECTED_EXCEPTIONS = 10.0
_ROWS_FOR_PENALTY = 5000
_DOUBLE = Container("numpy", ("float64",))
_ALPHAS = np.logspace(-2, 5, 15)


def new_encoder(layout: Layout, windows: Windows) -> WindowEncoder:
    """An encoder with the scales of the training states and a base of nothing."""
    mean, scale = column_scale(windows.frames, FITTED_ELEMENTS)
    targets, summary = np.array(layout.targets, dtype=np.intp), windows.frames.summary
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
        limits=np.stack([summary.low, summary.high]) if len(targets) and not layout.grid else None,
    )
    n_targets = encoder.target_shape[0]
    return replace(encoder, weights=np.zeros((encoder.n_columns, n_targets)), intercept=np.zeros(n_targets))


def has_many_pairs(layout: Layout, encoder: WindowEncoder) -> bool:
    """Whether a table has rows enough for the joint distribution of several targets to be learned without dropout.

    Posteriors from simulations are such tables: where parameters are nearly settled by what is observed, dropout and
    weight decay blur them, and so does an embedding that squeezes contexts into some tens of units. Of one target with
    much noise, as in regressions, dropout is worth more than sharpness.
    """
    return layout.is_table and encoder.target_shape[0] > 1 and encoder.n_windows >= MANY_PAIRS


def fit_base(
    encoder: WindowEncoder, windows: Windows, target: str, *, many_pairs: bool = False
) -> tuple[WindowEncoder, SampleEncoder, Array | None]:
    """The encoder with its base, and the scale of what that leaves; of tables and series also the residuals.

    The base of fields is the last state or nothing. With `many_pairs` those of `has_many_pairs` are meant.
    """
    if not len(encoder.grid):
        return _fit_regression(*_with_scale(encoder, windows), windows, target, many_pairs)
    if target != "state" and len(encoder.targets):
        encoder = replace(encoder, weights=_persistence(encoder))
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
    encoder: WindowEncoder, drifting: Mask, windows: Windows, target: str, many_pairs: bool
) -> tuple[WindowEncoder, SampleEncoder, Array]:
    """The encoder of tables and series with its base, the scale of what that leaves, and the residuals (n, q).

    The base is a ridge regression, its penalty by leave-one-out, or nothing. With
    ``target="auto"`` that is settled for each column: the regression where it leaves less than half of the standard
    deviation, as of trends, walks and smooth dynamics. Where it leaves more, the values themselves are the better
    start: zeros stay zeros, and bounds stay bounds. Of many rows a regression is known so well that it takes
    little to be worth it, if there are no bounds to keep.

    The residuals come from regressions that have not seen the row: folds of rows for pairs, of trajectories where there
    are enough, of blocks in time for few series.
    """
    every, n_targets = np.arange(len(windows)), len(encoder.target_mean)
    contexts = encoder.read_contexts(windows, every).double().numpy()
    targets, truth = encoder.relative(windows, every), encoder.truth(windows, every)
    encoder, is_spiked = _with_spikes(encoder, contexts, truth, windows.groups)
    if encoder.local is not None:  # what a level is subtracted from has no frequent values
        is_spiked &= ~(encoder.local.columns & encoder.local.centered)[encoder.targets]
    linear = np.zeros(n_targets, dtype=bool)
    if target != "state":
        penalty = _penalty_of(contexts, targets)
        whole = Ridge(penalty * len(contexts)).fit(contexts, targets)
        weights, intercept = whole.coef_.reshape(-1, contexts.shape[1]).T, np.ravel(whole.intercept_)
        left = targets - unseen_predictions(contexts, targets, penalty, windows.groups, n_sharing(encoder))
        spread = np.sqrt(np.square(targets - targets.mean(axis=0)).reshape(-1, n_targets).mean(axis=0))
        share = np.sqrt(np.square(left).reshape(-1, n_targets).mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        varies = np.ptp(targets.reshape(-1, n_targets), axis=0) > 0  # what a regression leaves of others is rounding
        most = np.where(many_pairs & _thin_out(truth[:, 0]), PREDICTED, WELL_PREDICTED)
        linear = varies & ((((share < most) | drifting) & ~is_spiked) | (target == "residual"))
        chosen = np.tile(linear, encoder.horizon)
        kept_weights, kept_intercept = np.where(chosen, weights, 0.0), np.where(chosen, intercept, 0.0)
        encoder = replace(encoder, weights=kept_weights, intercept=kept_intercept)
        targets = np.where(chosen, left, targets)
    moved = linear if encoder.local is None else linear | encoder.local.columns[encoder.targets]
    if moved.any():  # values of the other columns are those of training anyway
        rules = TargetRules.find(truth[:, 0], float(encoder.container.tolerance(1)[0]))
        encoder = replace(encoder, rules=rules.of(moved))
    transform = QuantileNormal(open_gaps=False, open_spikes=bool(is_spiked.any()))
    return encoder, SampleEncoder.fit(targets, _DOUBLE, transform, None), targets


def _thin_out(values: Array) -> Mask:
    """Which columns (n, q) have few values near both ends of their range."""
    low, high = values.min(axis=0), values.max(axis=0)
    edge = _EDGE * (high - low)
    return np.maximum((values <= low + edge).mean(axis=0), (values >= high - edge).mean(axis=0)) < _EDGE_SHARE


def _with_spikes(
    encoder: WindowEncoder, contexts: Array, truth: Array, groups: NDArray[np.intp]
) -> tuple[WindowEncoder, Mask]:
    """The encoder with spikes where they are certain, and which columns have many where they are not."""
    values = spikes_of(truth[:, 0])
    is_spike = truth == values
    if np.isnan(values).all():
        return encoder, is_spike.any(axis=(0, 1))
    shares = is_spike.reshape(len(truth), -1).astype(np.float64)
    penalty = _penalty_of(contexts, shares)
    unseen = unseen_predictions(contexts, shares, penalty, groups, n_sharing(encoder)).reshape(truth.shape)
    least = _EXPECTED_EXCEPTIONS * encoder.horizon
    threshold = np.array(
        [
            certain_from(unseen[..., j].ravel(), is_spike[..., j].ravel(), least) if np.isfinite(value) else np.inf
            for j, value in enumerate(values)
        ]
    )
    open_to = [truth[..., j][unseen[..., j] < threshold[j]] for j in range(len(values))]
    is_spiked = np.array([np.isfinite(spikes_of(column[:, None])).any() for column in open_to])
    if np.isfinite(threshold).any():
        whole = Ridge(penalty * len(contexts)).fit(contexts, shares)
        weights, intercept = whole.coef_.reshape(-1, contexts.shape[1]).T, np.ravel(whole.intercept_)
        encoder = replace(encoder, spikes=CertainSpikes(values, weights, intercept, threshold))
    return encoder, is_spiked


def _with_scale(encoder: WindowEncoder, windows: Windows) -> tuple[WindowEncoder, Mask]:
    """The encoder with columns that each window scales by its own lags, and which targets of those drift.

    Looked at are columns of series that differ much and columns that drift. They are scaled so where a regression is
    then hardly worse: by the errors in the last part of one series, and the geometric mean of those of several. Other
    data stay as they are.
    """
    nowhere = np.zeros(len(encoder.target_mean), dtype=bool)
    if not len(encoder.targets):
        return encoder, nowhere
    unlike, drifting = unlike_columns(windows)
    if not (unlike | drifting)[encoder.targets].any():
        return encoder, nowhere
    drifting &= ~unlike
    local = replace(encoder, local=fit_scale(windows, unlike | drifting, drifting))
    errors = np.maximum([_unseen_errors(each, windows) for each in (encoder, local)], _TINY)
    hardly_worse = np.log(errors[1] / errors[0]).mean() <= np.log(HARDLY_WORSE)
    return (local, drifting[encoder.targets]) if hardly_worse else (encoder, nowhere)


def _unseen_errors(encoder: WindowEncoder, windows: Windows) -> Array:
    """Errors, in the data's units, of ridge regressions that have not seen the row."""
    every, n_targets = np.arange(len(windows)), len(encoder.target_mean)
    contexts, targets = encoder.read_contexts(windows, every).double().numpy(), encoder.relative(windows, every)
    penalty, overlap = _penalty_of(contexts, targets), n_sharing(encoder)
    left = targets - unseen_predictions(contexts, targets, penalty, windows.groups, overlap)
    spread = encoder.target_scales(windows.contexts(every))[1]
    left = (left.reshape(len(left), -1, n_targets) * spread).reshape(len(left), -1)
    last = slice(-(len(left) // FOLDS), None) if windows.groups[0] == windows.groups[-1] else slice(None)
    return errors_by_series(left[last], windows.groups[last], n_targets)


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

    n_rows, folds = len(contexts), folds_of(groups)
    if n_rows < 3:  # none to spare
        return predict(np.ones(n_rows, dtype=bool), np.arange(n_rows))
    expected = np.empty_like(targets)
    for fold in np.unique(folds):
        (held_out,) = np.nonzero(folds == fold)
        kept = folds != fold
        if in_blocks(groups):  # windows beside a block share states with it
            kept = ~near(~kept, overlap)
        expected[held_out] = predict(kept if kept.sum() >= 2 else folds != fold, held_out)
    return expected


def _persistence(encoder: WindowEncoder) -> Array:
    """The weights (m, q) of the base that takes the last state for all states to come; its intercept is 0."""
    n_columns, n_targets = len(encoder.mean), len(encoder.target_mean)
    weights = np.zeros((encoder.n_columns, encoder.horizon * n_targets))
    last = (encoder.n_lags - 1) * n_columns + encoder.targets
    for lead in range(encoder.horizon):
        weights[last, lead * n_targets + np.arange(n_targets)] = 1.0
    return weights


def _residuals_of(encoder: WindowEncoder, windows: Windows, rows: NDArray[np.intp]) -> Array:
    """What the base leaves of targets, (B, q, *grid)."""
    base = encoder.base(encoder.read_contexts(windows, rows).double())
    if not len(encoder.grid):
        return encoder.relative(windows, rows) - base.numpy()
    return (encoder.target_states(windows.states_ahead(rows)).flatten(1, 2) - base).double().numpy()


def near(rows: Mask, overlap: int) -> Mask:
    """Rows, and those that are no further from one."""
    return maximum_filter1d(rows, 2 * overlap + 1, mode="constant", cval=0)


def in_blocks(groups: NDArray[np.intp]) -> bool:
    """Whether folds are blocks in time, since trajectories are few, or one of them holds more rows than two folds."""
    counts = np.unique(groups, return_counts=True)[1]
    return bool(len(counts) < FOLDS or counts.max() > 2 * len(groups) / FOLDS)


def folds_of(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """The fold of each row: random for pairs and for trajectories, blocks in time where those are few.

    Of few rows each is a fold of its own.
    """
    names, place = np.unique(groups, return_inverse=True)
    if len(groups) < _FEW_ROWS:
        return np.arange(len(groups)) if len(names) < FOLDS else place
    if in_blocks(groups):
        return np.arange(len(groups)) * FOLDS // len(groups)
    return np.random.RandomState(0).permutation(np.arange(len(names)) % FOLDS)[place]
