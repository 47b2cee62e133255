"""Generators of signals that need no training: autoregressive processes, and perturbed windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.linalg import solve_toeplitz
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from flowmatch.core.checks import check_count, check_number
from flowmatch.core.memory import check_memory
from flowmatch.core.randomness import seed_from
from flowmatch.core.types import AnyArray, Array, Index
from flowmatch.preprocessing.conditions import find_classes, positions_of
from flowmatch.preprocessing.signal_arrays import as_signals
from flowmatch.preprocessing.validation import check_lengths, check_weights
from flowmatch.synthetic.rows import check_generator, fit_clone

N_KNOTS = 6
"""Points between which the tilt is linear in frequency."""
STEEPEST = 2.0
"""Largest magnitude of the tilt at such a point, in standard deviations."""


class _SignalGenerator(BaseEstimator, ABC):
    """Signals of one or several classes: what `fit` and `sample` of all such generators do."""

    @abstractmethod
    def _learn(self, signals: Array, codes: Index, weight: Array, y: AnyArray | None) -> None:
        """Set what is learned of signals of the classes at positions `codes`, with weights (n,)."""

    @abstractmethod
    def _draw(self, codes: Index, rng: np.random.Generator) -> Array:
        """A window of each of the classes, one after the other: the first ones do not depend on their number."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn from windows.

        Parameters
        ----------
        X : array-like or tensor of shape (n, n_channels, n_times)
            Windows.
        y : array-like of shape (n,), optional
            Labels; each class is learned on its own.
        sample_weight : array-like of shape (n,), optional
            How much windows count.

        Returns
        -------
        object
            Itself.

        Raises
        ------
        ValueError
            For bad parameters or data.
        """
        signals = as_signals(X)
        check_lengths(len(signals), y=y, sample_weight=sample_weight)
        labels = np.zeros(len(signals), dtype=int) if y is None else np.asarray(y)
        if labels.ndim != 1 or (labels.dtype.kind == "f" and (labels % 1).any()):
            raise ValueError(f"y must hold labels, got an array of shape {labels.shape} and dtype {labels.dtype}.")
        weight = check_weights(sample_weight, len(signals))
        weight = np.ones(len(signals)) if weight is None else weight
        counts = weight > 0
        classes, codes = find_classes(labels[counts])
        self._learn(signals[counts], codes, weight[counts], None if y is None else labels[counts])
        self.classes_, self.shares_ = classes, np.bincount(codes, weight[counts]) / weight.sum()
        self.sample_shape_ = signals.shape[1:]
        self.dtype_ = np.dtype(np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64)
        return self

    def sample(self, n_samples: int = 1, y: Any = None, random_state: Any = None, *, return_y: bool = False) -> Any:
        """Draw new windows.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        y : scalar or array-like of shape (n_samples,), optional
            One label for all windows, or one for each. By default labels are drawn as frequent as in `fit`.
        random_state : int, RandomState or None, default=None
            Seeds the draws.
        return_y : bool, default=False
            Whether the labels are returned too.

        Returns
        -------
        X : ndarray of shape (n_samples, n_channels, n_times)
            Of float32 if the windows in `fit` were, else of float64.
        y : ndarray of shape (n_samples,), only with `return_y`

        Raises
        ------
        ValueError
            For labels that were not in `fit`.
        MemoryError
            For more windows than memory could hold.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples, 0)
        check_lengths(n_samples, y=y)
        check_memory(f"n_samples={n_samples}", 16.0 * n_samples * np.prod(self.sample_shape_))
        labels, draws = map(np.random.default_rng, np.random.SeedSequence(seed_from(random_state)).spawn(2))
        if y is None:
            codes = labels.choice(len(self.classes_), n_samples, p=self.shares_)
        else:
            codes = positions_of(np.broadcast_to(np.asarray(y), n_samples), self.classes_)
        X = self._draw(codes, draws).astype(self.dtype_)
        return (X, self.classes_[codes]) if return_y else X

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags


class _Process(NamedTuple):
    """An autoregressive process: means (n_channels,), filters (n_channels, order + 1), innovations and their shares."""

    mean: Array
    filters: Array
    innovations: Array
    shares: Array


class ARBlocks(_SignalGenerator):
    """Signals by an autoregressive filter whose innovations are resampled in blocks.

    For each class and channel, the filter is the solution of the Yule-Walker equations of the windows' mean
    autocovariance. What it leaves of the windows, the innovations, is drawn in blocks, of all channels at once, and
    filtered again. The spectrum is that of the windows, as far as the order reaches; impacts survive where a block is
    longer than them and their neighbors. Cheap, and hard to beat on vibration.

    The blocks are pieces of the real signals: with blocks of half a window, half windows are copies but for the filter,
    as `flowmatch.metrics.signals.window_copies` shows.

    Parameters
    ----------
    order : int, default=128
        Values that the filter looks back, fewer than those of a window.
    block : int, default=512
        Innovations of a block, at most ``n_times - order``; 1 draws them one by one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    processes_ : list of (mean, filters, innovations, shares)
        Of each class: mean of shape (n_channels,); filters ``[1, -a_1, ..., -a_order]`` of shape (n_channels, order +
        1); innovations of shape (n, n_channels, n_times - order); shares of shape (n,) by which windows are drawn.

    See Also
    --------
    Perturb : Windows at another speed, gain and tilt, also of this generator.

    References
    ----------
    Yule (1927) and Walker (1931) on the equations, whose biased autocovariances make the filter stable; Kuensch (1989),
    "The jackknife and the bootstrap for general stationary observations", on blocks; Buehlmann (1997), "Sieve bootstrap
    for time series", on resampled innovations of autoregressions.

    Examples
    --------
    >>> from flowmatch.datasets import make_bearing_signals
    >>> from flowmatch.synthetic import ARBlocks
    >>> signals = make_bearing_signals(40, random_state=0)
    >>> generator = ARBlocks(order=64, block=256).fit(signals.data, signals.target)
    >>> generator.sample(3, y="outer", random_state=0).shape
    (3, 1, 1024)
    """

    def __init__(self, order: int = 128, block: int = 512) -> None:
        self.order = order
        self.block = block

    def _learn(self, signals: Array, codes: Index, weight: Array, y: AnyArray | None) -> None:
        n_times = signals.shape[2]
        order = check_count("order", self.order, 1, n_times - 1, f": the windows hold {n_times} values")
        left = n_times - order
        check_count("block", self.block, 1, left, f": order={order} leaves {left} innovations of {n_times} values")
        self.processes_ = [
            _process(signals[codes == code], weight[codes == code], order) for code in range(codes.max() + 1)
        ]

    def _draw(self, codes: Index, rng: np.random.Generator) -> Array:
        out = np.empty((len(codes), *self.sample_shape_))
        for row, code in enumerate(codes):
            out[row] = self._window(self.processes_[code], rng)
        return out

    def _window(self, process: _Process, rng: np.random.Generator) -> Array:
        """As long a piece before the window lets the filter forget that it began with nothing."""
        from scipy.signal import lfilter

        n_times, (n, n_channels, left) = self.sample_shape_[1], process.innovations.shape
        n_blocks = -(-2 * n_times // self.block) + 1
        rows = rng.choice(n, n_blocks, p=process.shares)
        starts = rng.integers(left - self.block + 1, size=n_blocks)
        begin = rng.integers(self.block)  # blocks end anywhere in the window
        pieces = [process.innovations[row, :, at : at + self.block] for row, at in zip(rows, starts, strict=True)]
        innovations = np.concatenate(pieces, axis=1)[:, begin : begin + 2 * n_times]
        channels = [lfilter([1.0], process.filters[c], innovations[c])[n_times:] for c in range(n_channels)]
        return np.stack(channels) + process.mean[:, None]


class Perturb(_SignalGenerator):
    """Windows at another speed, another gain and through another transfer path.

    Each training window, or sample of another generator, is resampled by a factor between ``exp(-speed)`` and
    ``exp(speed)`` (uniform in its logarithm), so that all its frequencies move; multiplied by ``exp(gain * normal)``;
    and filtered by a gain over frequency that is linear in decibels between six points, at which it is normal of
    standard deviation `tilt` (at most two of them), for each channel on its own. What a classifier learns from such
    windows holds for other speeds, loads and sensors.

    Without a generator, windows are training windows, rotated to begin anywhere: copies, for augmentation and not for
    sharing.

    Parameters
    ----------
    generator : estimator or None, default=None
        What draws the windows, cloned: anything with ``fit(X, y, sample_weight)`` and ``sample(n, y, random_state)``,
        such as `ARBlocks` or a `FlowMatchingGenerator`. None takes training windows.
    speed : float, default=0.04
        Largest change of the speed, as a logarithm, from 0 to 0.5: 0.04 is 4 %.
    gain : float, default=0.2
        Standard deviation of the logarithm of the gain, at least 0.
    tilt : float, default=1.5
        Standard deviation of the tilt at each point, in decibels, at least 0.
    random_state : int, RandomState or None, default=None
        Seeds the training of a generator that has no seed of its own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    generator_ : estimator or None
        The fitted generator.

    See Also
    --------
    ARBlocks : A generator that it goes well with.

    References
    ----------
    Park et al. (2019), "SpecAugment", and Ko et al. (2015), "Audio augmentation for speech recognition", on perturbed
    speeds and spectra in speech.

    Examples
    --------
    >>> from flowmatch.datasets import make_bearing_signals
    >>> from flowmatch.synthetic import Perturb
    >>> signals = make_bearing_signals(40, random_state=0)
    >>> Perturb(speed=0.1).fit(signals.data, signals.target).sample(3, y="outer", random_state=0).shape
    (3, 1, 1024)
    """

    def __init__(
        self,
        generator: Any = None,
        *,
        speed: float = 0.04,
        gain: float = 0.2,
        tilt: float = 1.5,
        random_state: Any = None,
    ) -> None:
        self.generator = generator
        self.speed = speed
        self.gain = gain
        self.tilt = tilt
        self.random_state = random_state

    def _learn(self, signals: Array, codes: Index, weight: Array, y: AnyArray | None) -> None:
        check_generator(self.generator)
        check_number("speed", self.speed, 0.0, 0.5, closed_high=True)
        check_number("gain", self.gain, 0.0)
        check_number("tilt", self.tilt, 0.0)
        if self.generator is None:
            self.generator_, self._windows = None, [signals[codes == code] for code in range(codes.max() + 1)]
            self._shares = [weight[codes == code] / weight[codes == code].sum() for code in range(codes.max() + 1)]
            return
        random_state = np.random.RandomState(seed_from(self.random_state))
        self.generator_ = fit_clone(self.generator, signals, y, weight if np.ptp(weight) > 0 else None, random_state)
        self._has_labels = y is not None

    def _draw(self, codes: Index, rng: np.random.Generator) -> Array:
        out = self._unperturbed(codes, int(rng.integers(2**31)))
        for row, window in enumerate(out):
            moved = at_speed(window, float(np.exp(rng.uniform(-self.speed, self.speed))))
            out[row] = np.exp(self.gain * rng.normal()) * tilted(moved, self.tilt, rng)
        return out

    def _unperturbed(self, codes: Index, seed: int) -> Array:
        if self.generator_ is not None:
            labels = {"y": self.classes_[codes]} if self._has_labels else {}
            return as_signals(self.generator_.sample(len(codes), random_state=seed, **labels)).copy()
        rng, out = np.random.default_rng(seed), np.empty((len(codes), *self.sample_shape_))
        for row, code in enumerate(codes):
            window = self._windows[code][rng.choice(len(self._windows[code]), p=self._shares[code])]
            out[row] = np.roll(window, rng.integers(window.shape[1]), axis=1)
        return out


def at_speed(window: Array, factor: float) -> Array:
    """A window (n_channels, n_times) at `factor` times the frequencies, resampled as if it were periodic.

    A slower window ends early; a faster one begins again where it ends.
    """
    from scipy.signal import resample

    n_times = window.shape[1]
    length = round(n_times / factor)
    return np.resize(resample(window, length, axis=1).T, (n_times, len(window))).T if length != n_times else window


def tilted(window: Array, decibels: float, rng: np.random.Generator) -> Array:
    """A window (n_channels, n_times) through a random smooth gain over frequency."""
    n_channels, n_times = window.shape
    spectrum = np.fft.rfft(window)
    points = np.clip(rng.normal(size=(n_channels, N_KNOTS)), -STEEPEST, STEEPEST) * decibels
    places = np.linspace(0, N_KNOTS - 1, spectrum.shape[1])
    gains = np.stack([np.interp(places, np.arange(N_KNOTS), point) for point in points])
    return np.fft.irfft(spectrum * 10 ** (gains / 20), n_times)


def _process(signals: Array, weight: Array, order: int) -> _Process:
    """The process of windows of one class."""
    from scipy.signal import lfilter

    shares = weight / weight.sum()
    mean = np.einsum("n,nct->c", shares, signals) / signals.shape[2]
    centered = signals - mean[:, None]
    n_times = signals.shape[2]
    power = np.square(np.abs(np.fft.rfft(centered, 2 * n_times)))
    covariances = np.fft.irfft(np.einsum("n,ncf->cf", shares, power))[:, : order + 1]
    filters = np.stack([yule_walker(covariance) for covariance in covariances])
    innovations = np.stack([lfilter(a, [1.0], centered[:, c])[:, order:] for c, a in enumerate(filters)], axis=1)
    return _Process(mean, filters, innovations, shares)


def yule_walker(covariance: Array) -> Array:
    """Filter ``[1, -a_1, ..., -a_p]`` of the process of given autocovariances at the lags 0 to p."""
    if not covariance[0] > 0:
        return np.eye(1, len(covariance))[0]
    row = covariance[:-1].copy()
    row[0] *= 1 + 1e-6  # a pure tone leaves nothing, and the equations without one solution
    return np.concatenate([[1.0], -solve_toeplitz(row, covariance[1:])])
