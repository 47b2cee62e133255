"""Features of signals that need no training, and the statistics that vibration is described by."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from flowmatch.core.checks import check_count
from flowmatch.core.randomness import seed_from
from flowmatch.core.types import Array
from flowmatch.metrics._samples import Samples
from flowmatch.preprocessing.signal_arrays import as_signals

LENGTHS = (7, 9, 11)
BLOCK_VALUES = 2**24
"""Values of convolved signals held at a time."""


class RandomConvolutions(TransformerMixin, BaseEstimator):
    """Features of signals by random dilated convolutions, as ROCKET (Dempster, Petitjean and Webb, 2020).

    Every kernel has 7, 9 or 11 normal weights of mean 0, a dilation between 1 and the length of the window (uniform in
    its logarithm) and a bias, and gives two features: the share of values above 0, and the largest value. Unlike
    ROCKET's, signals are not scaled one by one but as those of `fit`, so that the level counts; and of the largest
    values sign(v) log(1 + |v|) is taken.

    Parameters
    ----------
    n_kernels : int, default=400
        Number of kernels.
    random_state : int, RandomState or None, default=0
        Seeds the kernels.

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (n_channels, 1)
        Of the channels in `fit`.
    kernels_ : list of (int, ndarray, ndarray)
        Dilation, weights of shape (k, n_channels, length) and biases (k,) of the kernels alike in dilation and length.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import RandomConvolutions
    >>> X = np.random.default_rng(0).normal(size=(10, 2, 256))
    >>> RandomConvolutions(n_kernels=50).fit_transform(X).shape
    (10, 100)
    """

    def __init__(self, n_kernels: int = 400, *, random_state: Any = 0) -> None:
        self.n_kernels = n_kernels
        self.random_state = random_state

    def fit(self, X: Samples, y: Any = None) -> Self:
        """Draw the kernels, and learn the channels' scales.

        Parameters
        ----------
        X : array-like or tensor of shape (n, n_channels, n_times)
            Windows.
        y : ignored

        Returns
        -------
        RandomConvolutions
            Itself.
        """
        signals = as_signals(X)
        rng = np.random.default_rng(seed_from(self.random_state))
        found: dict[tuple[int, int], list[tuple[Array, float]]] = {}
        for _ in range(check_count("n_kernels", self.n_kernels)):
            length = int(rng.choice(LENGTHS))
            dilation = int(2 ** rng.uniform(0, np.log2((signals.shape[2] - 1) / (length - 1))))
            weights = rng.normal(size=(signals.shape[1], length))
            found.setdefault((length, dilation), []).append((weights - weights.mean(), rng.uniform(-1, 1)))
        scale = signals.std(axis=(0, 2))[:, None]
        self.mean_, self.scale_ = signals.mean(axis=(0, 2))[:, None], np.where(scale > 0, scale, 1.0)
        self.kernels_ = [
            (dilation, np.stack([w for w, _ in alike]), np.array([b for _, b in alike]))
            for (_, dilation), alike in sorted(found.items(), key=lambda item: item[0])
        ]
        return self

    def transform(self, X: Samples) -> Array:
        """Features of signals.

        Parameters
        ----------
        X : array-like or tensor of shape (n, n_channels, n_times)
            Windows with the channels of those in `fit`.

        Returns
        -------
        ndarray of shape (n, 2 * n_kernels)
        """
        check_is_fitted(self)
        signals = as_signals(X)
        if signals.shape[1] != len(self.mean_):
            raise ValueError(f"X has {signals.shape[1]} channels, and there were {len(self.mean_)} in fit.")
        scaled = torch.as_tensor((signals - self.mean_) / self.scale_, dtype=torch.float32)
        widest = max(len(biases) for _, _, biases in self.kernels_)
        blocks = scaled.split(max(1, BLOCK_VALUES // (widest * signals.shape[2])))
        return np.concatenate([self._features(block) for block in blocks])

    def _features(self, signals: torch.Tensor) -> Array:
        shares, largest = [], []
        for dilation, weights, biases in self.kernels_:
            kernels, offsets = (torch.as_tensor(values, dtype=torch.float32) for values in (weights, biases))
            with torch.no_grad():
                found = torch.nn.functional.conv1d(signals, kernels, offsets, dilation=dilation)
            shares.append((found > 0).float().mean(dim=-1))
            largest.append(found.amax(dim=-1))
        most = torch.cat(largest, dim=1)
        return torch.cat([*shares, most.sign() * most.abs().log1p()], dim=1).double().numpy()


def shape_statistics(X: Samples) -> dict[str, Array]:
    """Statistics by which vibration is commonly described.

    Parameters
    ----------
    X : array-like or tensor of shape (n, n_channels, n_times)
        Windows.

    Returns
    -------
    dict of str to ndarray of shape (n, n_channels)
        "rms", the root mean square, in units of X; "skewness" and "kurtosis", the third and the fourth standardized
        moment (3 for Gaussian noise); "crest", the largest magnitude over the rms. Those without unit are 0 for
        constant windows.

    Raises
    ------
    ValueError
        If X is not of that shape or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import shape_statistics
    >>> tone = np.sin(2 * np.pi * np.arange(800) / 8)
    >>> {name: round(float(value[0, 0]), 2) + 0.0 for name, value in shape_statistics(tone[None, None]).items()}
    {'rms': 0.71, 'skewness': 0.0, 'kurtosis': 1.5, 'crest': 1.41}
    """
    signals = as_signals(X)
    rms = np.sqrt(np.mean(signals**2, axis=-1))
    varies = np.ptp(signals, axis=-1) > 0  # what is left of a constant is round-off
    scale = np.where(varies, signals.std(axis=-1), np.inf)
    scaled = (signals - signals.mean(axis=-1, keepdims=True)) / scale[..., None]
    return {
        "rms": rms,
        "skewness": np.mean(scaled**3, axis=-1),
        "kurtosis": np.mean(scaled**4, axis=-1),
        "crest": np.abs(signals).max(axis=-1) / np.where(varies, rms, np.inf),
    }


def statistic_distances(real: Samples, synthetic: Samples) -> dict[str, float]:
    """How far the statistics of signals are distributed from those of real ones.

    Parameters
    ----------
    real, synthetic : array-like or tensor of shape (n, n_channels, n_times) and (m, n_channels, n_times)
        The two samples.

    Returns
    -------
    dict of str to float
        For each of `shape_statistics` the Wasserstein-1 distance between its distributions over windows, in standard
        deviations of the real one, the mean over channels.

    Raises
    ------
    ValueError
        If the samples are not of these shapes or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics.signals import statistic_distances
    >>> X = np.random.default_rng(0).normal(size=(100, 1, 256))
    >>> loud = statistic_distances(X, 2 * X)
    >>> loud["rms"] > 10, round(loud["kurtosis"], 6)
    (True, 0.0)
    """
    from scipy.stats import wasserstein_distance

    first, second = shape_statistics(real), shape_statistics(synthetic)

    def distance(a: Array, b: Array) -> float:
        return float(wasserstein_distance(a, b)) / max(float(a.std()), np.finfo(float).tiny)

    return {name: float(np.mean(list(map(distance, values.T, second[name].T)))) for name, values in first.items()}
