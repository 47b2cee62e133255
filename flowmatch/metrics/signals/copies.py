"""Copies among signals: of a whole window, shifted, and of half a window pasted anywhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowmatch.core.types import Array, Index
from flowmatch.metrics._samples import Samples
from flowmatch.preprocessing.signal_arrays import as_signals

BLOCK_VALUES = 2**21
"""Correlations held at a time."""
SMOOTHED, FLOOR = 9, 0.01
"""Bins over which the spectrum that whitens is averaged, and the share of its mean up to which lines are lifted."""
PIECES = 9
"""Halves looked for: they begin a sixteenth of the window apart, so that most of a pasted half is in one of them."""


class WindowCopies(NamedTuple):
    """Result of `window_copies`.

    Parameters
    ----------
    shift : ndarray of shape (m,)
        Largest correlation of each window with a training window, over all training windows and circular shifts.
    half : ndarray of shape (m,)
        Largest correlation of half of each window with as long a piece of a training window.
    nearest : ndarray of shape (m,)
        Position of the training window that holds that piece.
    """

    shift: Array
    half: Array
    nearest: Index


def window_copies(train: Samples, windows: Samples) -> WindowCopies:
    """Look for training windows, and halves of them, in synthetic windows.

    A generator that pastes pieces of real signals, as block resampling does, is not found by the distances between
    windows: neither a shift nor a pasted half leaves two windows near each other.

    Parameters
    ----------
    train : array-like or tensor of shape (n, n_channels, n_times)
        The windows that the generator was fitted on, all of them.
    windows : array-like or tensor of shape (m, n_channels, n_times)
        Generated windows.

    Returns
    -------
    WindowCopies
        Named tuple (shift, half, nearest) of the magnitudes of correlations, from 0 to 1 for a copy of whatever sign,
        level and offset. Correlations are by fast Fourier transform: the time is O(n m T log T) for windows of T
        values.

    Raises
    ------
    ValueError
        If the samples are not of these shapes or not finite.

    Notes
    -----
    All windows are whitened by the training windows' mean spectrum first, so that correlations do not stem from a tone
    or a resonance that any two windows of a machine share (the generalized correlation of Knapp and Carter, 1976). What
    is left of these differs by machine: compare with the values of held-out real windows, cut from another stretch of
    the record than the training windows.

    The halves of a window that are looked for begin at multiples of a sixteenth of it; they are compared with the
    pieces of training windows at every shift. All channels count together.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import window_copies
    >>> rng = np.random.default_rng(0)
    >>> train, fresh = rng.normal(size=(2, 20, 1, 512))
    >>> pasted = fresh.copy()
    >>> pasted[:, :, 100:356] = -train[:, :, 200:456]
    >>> honest, copied = window_copies(train, fresh), window_copies(train, pasted)
    >>> print(honest.half.max().round(1), copied.half.min().round(1), copied.nearest[:4])
    0.3 1.0 [0 1 2 3]
    """
    return correlations(as_signals(train, "train"), as_signals(windows, "windows"))


def correlations(train: Array, windows: Array, own: Index | None = None) -> WindowCopies:
    """As `window_copies`; window i is not compared with the training window ``own[i]``, which it is."""
    if train.shape[1:] != windows.shape[1:]:
        raise ValueError(f"train is {train.shape} and windows {windows.shape}: other channels or lengths.")
    n_times, whiten = train.shape[2], _whitening(train)
    windows = np.fft.irfft(np.fft.rfft(windows) * whiten, n_times)
    reference = _Reference(np.fft.irfft(np.fft.rfft(train) * whiten, n_times))
    starts = np.linspace(0, n_times - n_times // 2, PIECES).astype(int)
    shift, half, nearest = np.empty(len(windows)), np.empty(len(windows)), np.empty(len(windows), dtype=np.intp)
    for i, window in enumerate(windows):
        skipped = None if own is None else own[i]
        shift[i] = reference.largest(window, skipped, circular=True)[0]
        found = [reference.largest(window[:, s : s + n_times // 2], skipped) for s in starts]
        half[i], nearest[i] = max(found)
    return WindowCopies(shift, half, nearest)


def _whitening(train: Array) -> Array:
    """Gain by channel and frequency that makes the mean spectrum of training windows flat, 0 for silent channels."""
    from scipy.ndimage import uniform_filter1d

    power = np.square(np.abs(np.fft.rfft(train))).mean(axis=0)
    level = FLOOR * power.mean(axis=-1, keepdims=True)
    smooth = uniform_filter1d(power, SMOOTHED, axis=-1, mode="nearest") + level
    return np.where(level > 0, 1 / np.sqrt(np.where(level > 0, smooth, 1.0)), 0.0)


class _Reference:
    """Training windows to be searched."""

    def __init__(self, train: Array) -> None:
        from scipy import fft

        train = train - train.mean(axis=-1, keepdims=True)
        self.train, self.fft, n_times = train, fft, train.shape[2]
        self.spectra = fft.rfft(train.astype(np.float32))
        n_half = n_times // 2
        sums = np.cumsum(np.pad(train, ((0, 0), (0, 0), (1, 0))), axis=-1)
        squares = np.cumsum(np.pad((train**2).sum(axis=1), ((0, 0), (1, 0))), axis=-1)
        means = (sums[..., n_half:] - sums[..., :-n_half]) / n_half
        energy = squares[:, n_half:] - squares[:, :-n_half] - n_half * (means**2).sum(axis=1)
        self.of_pieces = _norm(energy, squares[:, -1:])
        self.of_windows = _norm(n_times * train.var(axis=-1).sum(axis=1), squares[:, -1])[:, None]

    def largest(self, piece: Array, skipped: int | None, *, circular: bool = False) -> tuple[float, int]:
        """The largest correlation of a piece (n_channels, length), and the training window that it is with."""
        piece = piece - piece.mean(axis=-1, keepdims=True)
        size, n_times = np.linalg.norm(piece), self.train.shape[2]
        if not size > 0:
            return 0.0, 0
        spectrum = np.conj(self.fft.rfft((piece / size).astype(np.float32), n_times))
        norms = self.of_windows if circular else self.of_pieces
        best = np.empty(len(self.train))
        n_rows = max(1, BLOCK_VALUES // n_times)
        for start in range(0, len(self.train), n_rows):
            rows = slice(start, start + n_rows)
            products = self.fft.irfft((self.spectra[rows] * spectrum).sum(axis=1), n_times)
            shifts = n_times if circular else norms.shape[1]
            best[rows] = (np.abs(products[:, :shifts]) / norms[rows]).max(axis=1)
        if skipped is not None:
            best[skipped] = -1.0
        nearest = int(best.argmax())
        return float(np.clip(best[nearest], 0.0, 1.0)), nearest


def _norm(energy: Array, of_all: Array) -> Array:
    """Roots of energies; infinite where there is none but round-off, so that nothing correlates with it."""
    return np.where(energy > 1e-9 * np.maximum(of_all, np.finfo(float).tiny), np.sqrt(np.maximum(energy, 0.0)), np.inf)
