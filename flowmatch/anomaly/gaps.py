"""What an anomaly score does with the entries that a row of a table misses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable

Floats = NDArray[np.float64]

NEAREST = 10
MOST_REFERENCE = 1024

_RIDGE = 1e-3
"""Share of each code's own variance that is added to it in the regression."""

_ELEMENTS_AT_ONCE = 2**22
_DECIMALS = 9
"""Distances that agree so far are equal: which row is nearest must not be a matter of rounding."""


@storable
@dataclass(frozen=True, eq=False)
class Gaps:
    """Expected values for the codes that a row misses, given those that it has.

    The codes of the ten nearest training rows, compared where the row has codes, are a first guess; what they leave
    of the row's own codes is carried over to the missing ones by a ridge regression, whose covariance is that of
    training rows about their own nearest ten: ``z_m = n_m + C_mo C_oo^-1 (z_o - n_o)``, the mean of a normal
    distribution given a part of it, about the local mean instead of the whole one.

    Parameters
    ----------
    reference : ndarray of float32, shape (n_reference, k)
        Codes of training rows without gaps, at most 1024.
    """

    reference: NDArray[np.float32]

    @classmethod
    def fit(cls, codes: Floats, earlier: Gaps | None = None) -> Gaps:
        """Learn from rows.

        Parameters
        ----------
        codes : ndarray of shape (n, k)
            NaN where they are missing; those are filled from the nearest rows that have them.
        earlier : Gaps, optional
            Its rows are kept as far as there is room.

        Returns
        -------
        Gaps
        """
        reference = codes[np.random.RandomState(0).permutation(len(codes))[:MOST_REFERENCE]]
        if np.isnan(reference).any():
            from sklearn.impute import KNNImputer

            reference = KNNImputer(n_neighbors=NEAREST, keep_empty_features=True).fit_transform(reference)
        if earlier is not None:
            reference = np.concatenate([reference, earlier.reference])[:MOST_REFERENCE]
        return cls(reference.astype(np.float32))

    def check(self) -> None:
        """Raise a ValueError for reference rows that a file cannot mean."""
        require(self.reference.ndim == 2 and len(self.reference) and np.isfinite(self.reference).all(), "reference")

    @cached_property
    def _rows(self) -> Floats:
        return self.reference.astype(np.float64)

    @cached_property
    def spread(self) -> Floats:
        """Covariance (k, k) of codes about the mean of the nearest rows."""
        left = self._rows - self._near(self._rows, np.ones(self._rows.shape), itself=True)
        covariance = left.T @ left / len(left)
        own = np.diag(covariance)
        return covariance + np.diag(_RIDGE * (own + max(float(own.mean()), _RIDGE)))

    def fill(self, codes: Floats) -> Floats:
        """Codes with expected values in place of NaN.

        Parameters
        ----------
        codes : ndarray of shape (B, k)

        Returns
        -------
        ndarray of shape (B, k)
            A row's result does not depend on the others.
        """
        filled = codes.copy()
        rows = np.flatnonzero(np.isnan(codes).any(axis=1))
        size = max(1, _ELEMENTS_AT_ONCE // max(self._rows.size, self.spread.size))
        for part in np.split(rows, range(size, len(rows), size)):
            there = ~np.isnan(codes[part])
            known = there.astype(np.float64)
            near = self._near(np.where(there, codes[part], 0.0), known)
            off = np.where(there, codes[part] - near, 0.0)
            covariance = known[:, :, None] * self.spread * known[:, None, :]
            places = np.arange(codes.shape[1])
            covariance[:, places, places] += 1.0 - known  # an equation 1 w = 0 for each code that is missing
            weights = np.linalg.solve(covariance, off[:, :, None])[:, :, 0]
            filled[part] = np.where(there, codes[part], near + weights @ self.spread)
        return filled

    def _near(self, codes: Floats, known: Floats, *, itself: bool = False) -> Floats:
        """The mean (B, k) of the nearest reference rows by the codes that are `known` (1, else 0, with codes of 0).

        With `itself`, rows are the reference rows, and pass themselves over.
        """
        reference = self._rows
        distances = np.round(known @ np.square(reference).T - 2 * codes @ reference.T, _DECIMALS)
        if itself:
            np.fill_diagonal(distances, np.inf)
        k = min(NEAREST, len(reference) - (1 if itself and len(reference) > 1 else 0))
        return reference[np.argsort(distances, axis=1, kind="stable")[:, :k]].mean(axis=1)
