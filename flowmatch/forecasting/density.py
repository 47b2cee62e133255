"""Log-densities of what follows contexts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from flowmatch.core.batches import BLOCK_ELEMENTS
from flowmatch.core.progress import progress
from flowmatch.core.user_warnings import warn
from flowmatch.forecasting.fitted import FittedForecaster
from flowmatch.model import ATOM, CodeDensity
from flowmatch.preprocessing import QuantileNormal, Windows

Array = NDArray[np.float64]

DENSITY_STEPS = 20
"""Steps of log-densities: narrow distributions take more than draws do, whose errors are those of a few percent."""


def score_windows(density: CodeDensity, fitted: FittedForecaster, windows: Windows) -> tuple[Array, Array]:
    """Log-density of the targets of windows given their contexts, in the data's units.

    By the change of variables from targets to their scale, to what the base leaves of them, which moves them and leaves
    volumes as they are, to codes, and along the flow to noise.

    Parameters
    ----------
    density : CodeDensity
        Of the forecaster's flow.
    fitted : FittedForecaster
        What knows scales and base.
    windows : Windows
        Contexts and targets.

    Returns
    -------
    log_density, standard_error : ndarray of shape (n,)
        The error is 0 where the divergence is exact.
    """
    _warn_of_atoms(fitted)
    model, encoder = fitted.model, fitted.window_encoder
    size = max(int(np.prod(encoder.target_shape)), encoder.size)
    blocks, parts = list(gen_batches(len(windows), max(1, BLOCK_ELEMENTS // max(1, size)))), []
    for block in progress(blocks, "log-densities of all rows", density.verbose):
        rows = np.arange(block.start, block.stop)
        context = encoder.read_contexts(windows, rows)
        known = encoder.vectors(context, windows.take(rows).conditions)
        targets = encoder.truth(windows, rows)
        level, spread = encoder.target_scales(windows.contexts(rows))
        missing = np.isnan(targets)
        if missing.any() and model.missing is None:
            first = rows[missing.reshape(len(rows), -1).any(axis=1)][0]
            raise ValueError(
                f"row {first} of what is to be scored lacks values, but the density of a part of a forecast is known "
                "only of tables and series whose targets lacked values in training: leave such rows out."
            )
        slopes = np.where(missing, 0.0, -np.log(np.broadcast_to(spread, targets.shape)))
        scale = slopes.reshape(len(rows), -1).sum(axis=1)
        targets = ((targets - level) / spread).reshape(len(rows), *encoder.target_shape)
        left = targets - encoder.base(context.double()).numpy()
        value, error = density(model.encoder.encode(left), known.to(model.device))
        parts.append((value + model.encoder.log_jacobian(left) + scale, error))
    log_density, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return log_density, errors


def _warn_of_atoms(fitted: FittedForecaster) -> None:
    """Warn of targets that often have one and the same value, where there is no density."""
    encoder, names = fitted.model.encoder, fitted.target_names
    if not isinstance(encoder.transform, QuantileNormal):
        return
    shares = [encoder.transform.most_frequent(part)[1] for part in range(int(encoder.varying.sum()))]
    found = {
        f"{share:.0%} in column {names[column % len(names)]!r}"
        for share, column in zip(shares, np.flatnonzero(encoder.varying), strict=True)
        if share >= ATOM
    }
    if found:
        warn(
            f"numbers have no log-density where many rows share one value: {', '.join(sorted(found)[:3])}. What is "
            "returned is that of a continuous stand-in, which is off by tenths of a nat to some nats."
        )
