"""What an anomaly score does with the entries that a row of a table misses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.storable import require, storable

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

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

    @cached_property
    def _precision(self) -> Floats:
        return np.asarray(np.linalg.inv(self.spread))

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
        filled, missing = codes.copy(), np.isnan(codes)
        size = max(1, _ELEMENTS_AT_ONCE // max(self._rows.size, self.spread.size))
        counts = missing.sum(axis=1)
        for count in np.unique(counts[counts > 0]):  # systems of one size are solved together
            rows = np.flatnonzero(counts == count)
            for part in np.split(rows, range(size, len(rows), size)):
                filled[part] = np.where(missing[part], self._expected(codes[part], missing[part]), codes[part])
        return filled

    def _expected(self, codes: Floats, missing: Mask) -> Floats:
        """What is expected of the missing codes of rows that miss equally many; anything for the others.

        The regression on the known codes is ``C_mo C_oo^-1 = -P_mm^-1 P_mo`` with ``P = C^-1``: the smaller system is
        solved.
        """
        near = self._near(np.where(missing, 0.0, codes), (~missing).astype(np.float64))
        off, few = np.where(missing, 0.0, codes - near), 2 * missing[0].sum() <= missing.shape[1]
        matrix, right = (self._precision, off @ self._precision) if few else (self.spread, off)
        chosen = np.nonzero(missing if few else ~missing)[1].reshape(len(codes), -1)
        systems = matrix[chosen[:, :, None], chosen[:, None, :]]
        solved = np.linalg.solve(systems, np.take_along_axis(right, chosen, axis=1)[:, :, None])[:, :, 0]
        weights = np.zeros_like(codes)
        np.put_along_axis(weights, chosen, solved, axis=1)
        return near - weights if few else near + weights @ self.spread

    def _near(self, codes: Floats, known: Floats, *, itself: bool = False) -> Floats:
        """The mean (B, k) of the nearest reference rows by the codes that are `known` (1, else 0, with codes of 0).

        With `itself`, rows are the reference rows, and pass themselves over.
        """
        reference = self._rows
        distances = np.round(known @ np.square(reference).T - 2 * codes @ reference.T, _DECIMALS)
        if itself:
            np.fill_diagonal(distances, np.inf)
        k = min(NEAREST, len(reference) - (1 if itself and len(reference) > 1 else 0))
        return reference[_smallest(distances, k)].mean(axis=1)


def _smallest(values: Floats, k: int) -> NDArray[np.intp]:
    """Positions (B, k) of the smallest of each row's values, in order; of equal ones, the first are taken."""
    found = np.sort(np.argpartition(values, k - 1, axis=1)[:, :k], axis=1)
    there = np.take_along_axis(values, found, axis=1)
    tied = (values <= there.max(axis=1, keepdims=True)).sum(axis=1) > k  # any of those at the border was taken
    found = np.take_along_axis(found, np.argsort(there, axis=1, kind="stable"), axis=1)
    found[tied] = np.argsort(values[tied], axis=1, kind="stable")[:, :k]
    return found
