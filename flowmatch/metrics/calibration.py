"""Whether an ensemble's spread is right: coverage, ranks of the truth among the members, spread against error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowmatch.core.checks import check_count, check_number
from flowmatch.core.randomness import seed_from
from flowmatch.metrics._ensembles import Values, as_forecast, by_lead, mean_score, row_blocks
from flowmatch.metrics._samples import FloatArray, RandomState, Samples


class SpreadSkill(NamedTuple):
    """Spread of an ensemble and error of its mean, which should be equal; result of `spread_skill`.

    Parameters
    ----------
    spread : float or ndarray of shape (n_steps,)
        Standard deviation of the M members about their mean, times sqrt((M + 1) / M).
    error : float or ndarray of shape (n_steps,)
        Root of the mean squared error of the ensemble's mean.
    """

    spread: Values
    error: Values

    @property
    def ratio(self) -> Values:
        """Spread over error: 1 if they match, less if the ensemble is too narrow."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.divide(self.spread, self.error)
        return ratio if ratio.ndim else float(ratio)


def interval_coverage(y_true: Samples, samples: Samples, coverage: float = 0.9, *, per_lead: bool = False) -> Values:
    """Share of true values inside the central interval of the ensemble.

    The interval's ends are the order statistics of the M members at ranks (M + 1) p and (M + 1) (1 - p), where p = (1 -
    coverage) / 2. A truth drawn from the members' own distribution is as likely to fall into any of the M + 1 gaps
    between them, so that this interval holds it with probability `coverage` exactly if the ranks are whole numbers: for
    90 %, the smallest and the largest of 19 members, the 5th and the 95th of 99. Between whole ranks the ends are
    interpolated, which is nearly so (.90 to .91 for 20 to 38 members of a normal distribution). `numpy.quantile` as it
    is takes narrower intervals: those of 19 such members cover .81.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first.
    coverage : float, default=0.9
        That the interval is made for, in (0, 1).
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a value of its own.

    Returns
    -------
    float or ndarray of shape (n_steps,)
        About `coverage` if the spread is right, less if the ensemble is too narrow. Ends belong to the interval.

    Raises
    ------
    ValueError
        If the coverage is not in (0, 1), or needs more members; if the shapes do not fit, or values are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import interval_coverage
    >>> rng = np.random.default_rng(0)
    >>> truth, ensemble = rng.normal(size=10_000), rng.normal(size=(19, 10_000))
    >>> round(interval_coverage(truth, ensemble), 2), round(interval_coverage(truth, 0.5 * ensemble), 2)
    (0.9, 0.63)
    """
    check_number("coverage", coverage, 0.0, 1.0, open_low=True)
    truth, members = as_forecast(y_true, samples)
    m = len(members)
    rank = round((m + 1) * (1 - coverage) / 2, 9)  # whole ranks shall be whole in spite of round-off
    if rank < 1:
        n_needed = int(np.ceil(round(2 / (1 - coverage), 9))) - 1
        raise ValueError(
            f"coverage={coverage:g} needs {n_needed} members or more, samples has {m}, whose smallest and largest "
            f"cover {(m - 1) / (m + 1):.3g} at most."
        )
    k, share = int(rank), rank % 1

    def inside(y: FloatArray, X: FloatArray) -> FloatArray:
        X.partition([k - 1, k, m - 1 - k, m - k], axis=0)
        low, high = (1 - share) * X[k - 1] + share * X[k], (1 - share) * X[m - k] + share * X[m - 1 - k]
        return ((low <= y[0]) & (y[0] <= high)).astype(np.float64)

    return mean_score(inside, per_lead, truth[None], members)


def pit_histogram(
    y_true: Samples, samples: Samples, n_bins: int = 10, *, per_lead: bool = False, random_state: RandomState = 0
) -> FloatArray:
    """Histogram of the truth's rank among the members: flat if the ensemble is calibrated.

    The rank is put on a scale from 0 to 1, the probability integral transform (Gneiting, Balabdaoui and Raftery, 2007,
    section 3.1; rank histograms: Hamill, 2001). A histogram like a U means too little spread, a hump too much,
    a slope a bias.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first.
    n_bins : int, default=10
        Of equal width. Within its gap between two members the truth's rank is drawn at random, so that any number of
        bins is flat for a calibrated ensemble; with a divisor of n_samples + 1 nothing is random, save for ties.
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has a histogram of its own.
    random_state : int, Generator, RandomState or None, default=0
        Seeds the ranks within gaps, and among members that equal the truth.

    Returns
    -------
    ndarray of shape (n_bins,) or (n_steps, n_bins)
        Shares that add up to 1, each about 1 / n_bins if the ensemble is calibrated.

    Raises
    ------
    ValueError
        If the shapes do not fit, values are not finite, or `n_bins` is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import pit_histogram
    >>> rng = np.random.default_rng(0)
    >>> truth, ensemble = rng.normal(size=10_000), rng.normal(size=(19, 10_000))
    >>> pit_histogram(truth, 0.5 * ensemble, n_bins=5).round(2)  # too little spread
    array([0.33, 0.12, 0.1 , 0.11, 0.34])
    """
    check_count("n_bins", n_bins)
    values = by_lead(pit_values(y_true, samples, random_state=random_state), per_lead)
    bins = np.minimum((values * n_bins).astype(int), n_bins - 1)
    n_leads = bins.shape[1]
    joint = bins + n_bins * np.arange(n_leads)[:, None]
    counts = np.bincount(joint.ravel(), minlength=n_leads * n_bins).reshape(n_leads, n_bins)
    shares: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return shares if per_lead else shares[0]


def pit_values(y_true: Samples, samples: Samples, *, random_state: RandomState = 0) -> FloatArray:
    """Ranks of the truth among the members on a scale from 0 to 1: uniform if the ensemble is calibrated.

    The randomized probability integral transform (Smith, 1985; Czado, Gneiting and Held, 2009, eq. 1).

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first.
    random_state : int, Generator, RandomState or None, default=0
        Seeds the ranks within gaps between members, and among members that equal the truth.

    Returns
    -------
    ndarray of the shape of y_true
        In [0, 1).

    Raises
    ------
    ValueError
        If the shapes do not fit, or values are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import pit_values
    >>> pit_values([0.0, 5.0], [[1.0, 1.0], [2.0, 2.0]]).round(2)  # below, and above both
    array([0.21, 0.76])
    """
    truth, members = as_forecast(y_true, samples)
    rng, m, ranks = np.random.default_rng(seed_from(random_state)), len(members), []
    for y, X in row_blocks(truth[None], members):
        smaller, equal = (y > X).sum(axis=0), (y == X).sum(axis=0)
        ranks.append((smaller + (equal + 1) * rng.random(smaller.shape)) / (m + 1))
    return np.concatenate(ranks)


def spread_skill(y_true: Samples, samples: Samples, *, per_lead: bool = False) -> SpreadSkill:
    r"""Spread of an ensemble beside the error of its mean; equal, in the mean over rows, if it is calibrated.

    .. math:: E (\bar X - y)^2 = \frac{M + 1}{M} E s^2

    for a truth y drawn from the distribution of the M members, with mean :math:`\bar X` and variance :math:`s^2`
    (divided by M - 1): the mean of few members has an error of its own (Fortin et al., 2014).

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first, at least two.
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time and each has values of its own.

    Returns
    -------
    SpreadSkill
        ``spread``, factor included, ``error`` and their ``ratio``: floats, or arrays of shape (n_steps,), in the units
        of y_true.

    Raises
    ------
    ValueError
        If the shapes do not fit, values are not finite, or there is one member.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import spread_skill
    >>> rng = np.random.default_rng(0)
    >>> truth, ensemble = rng.normal(size=10_000), rng.normal(size=(3, 10_000))
    >>> round(spread_skill(truth, ensemble).ratio, 2)
    1.01
    """
    truth, members = as_forecast(y_true, samples, min_members=2, why=" to have a spread")
    m = len(members)
    variance = mean_score(lambda y, X: X.var(axis=0, ddof=1), per_lead, truth[None], members)
    error = mean_score(lambda y, X: (X.mean(axis=0) - y[0]) ** 2, per_lead, truth[None], members)
    return SpreadSkill((variance * (m + 1) / m) ** 0.5, error**0.5)
