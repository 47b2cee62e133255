"""The normal distribution nearest to a table's codes, and what it makes of entries that are not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from flowmatch.core.storable import require, storable
from flowmatch.core.types import Array

_MOST_FACTORS = 32
_MOST_ROWS = 2000
_MOST_CODES = 500
"""Wider tables would need minutes for the spectrum of all their covariances."""

_SHRINKAGE = 0.05
_STEPS = 10
_MOST_REFINED = 40
"""Codes beyond this make expectation maximization slow."""

_ELEMENTS_AT_ONCE = 2**22
_SMALLEST = 1e-3
"""No code is known better than to this variance."""


@storable
@dataclass(frozen=True, eq=False)
class FactorModel:
    """A normal distribution of codes with covariance ``U U' + diag(noise)``.

    Conditional means and variances under it cost one small matrix a row, whatever the number of codes, by the
    Woodbury identity. They say where the flow starts when entries are given: at the best linear guess, not at 0. The
    flow learns what is not linear.

    Parameters
    ----------
    mean : Tensor of shape (d,)
        Means of the codes.
    loadings : Tensor of shape (d, r)
        U; r is at most 32.
    noise : Tensor of shape (d,)
        Variances that the factors leave.
    """

    mean: Tensor
    loadings: Tensor
    noise: Tensor

    @classmethod
    def fit(cls, codes: Array) -> Self:
        """Fit to codes, of which at most 2000 rows are looked at.

        With missing codes the covariance of all pairs that are there, refined by ten steps of expectation maximization
        (Little and Rubin, 2002, section 11.2) up to 40 codes; means stay those of the codes that are there. It is
        shrunk towards independence, by a twentieth of a row for each code. More than 500 codes have their 32 leading
        directions alone, found from rows with the mean in place of what is missing.

        Parameters
        ----------
        codes : ndarray of shape (n, d)
            NaN where they are missing.

        Returns
        -------
        FactorModel
            In float32 on the CPU.
        """
        if len(codes) > _MOST_ROWS:
            codes = codes[np.random.RandomState(0).permutation(len(codes))[:_MOST_ROWS]]
        seen = ~np.isnan(codes)
        count = np.maximum(seen.sum(axis=0), 1)  # a column that is hardly ever there may not be among these rows
        mean = np.where(seen, codes, 0.0).sum(axis=0) / count
        variance = np.where(seen, (codes - mean) ** 2, 0.0).sum(axis=0) / count
        variance = np.where(seen.any(axis=0), variance, 1.0)
        if len(mean) > _MOST_CODES:
            loadings, diagonal = _leading(codes - mean), variance
        else:
            covariance = _covariance(torch.from_numpy(codes - mean), torch.from_numpy(variance)).numpy()
            values, vectors = np.linalg.eigh(covariance)
            kept = min(_MOST_FACTORS, len(values))
            rest = values[:-kept].mean() if kept < len(values) else 0.5 * values[0]
            loadings = vectors[:, -kept:] * np.sqrt(np.maximum(values[-kept:] - max(rest, 0.0), 0.0))
            diagonal = np.diag(covariance)
        noise = np.maximum(diagonal - (loadings**2).sum(axis=1), _SMALLEST)
        return cls(*(torch.from_numpy(np.ascontiguousarray(part)).float() for part in (mean, loadings, noise)))

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored model do not fit each other."""
        require(self.mean.ndim == 1 and self.mean.shape == self.noise.shape, "factors")
        require(self.loadings.ndim == 2 and len(self.loadings) == len(self.mean), "factors")
        require(all(part.dtype == torch.float32 for part in (self.mean, self.loadings, self.noise)), "factors")
        require((self.noise > 0).all() and self.loadings.isfinite().all() and self.mean.isfinite().all(), "factors")
        self.guess(self.mean[None], torch.ones(1, len(self.mean)))  # raises where the covariance is beyond float32

    def to(self, device: torch.device) -> FactorModel:
        """Copy the model to a device.

        Parameters
        ----------
        device : torch.device
            Where to.

        Returns
        -------
        FactorModel
            The same one, there.
        """
        return FactorModel(self.mean.to(device), self.loadings.to(device), self.noise.to(device))

    def guess(self, codes: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Predict each code from those of its row that are given.

        Parameters
        ----------
        codes : Tensor of shape (B, d)
            Anything where they are not given.
        given : Tensor of shape (B, d)
            Ones where codes are given, zeros elsewhere.

        Returns
        -------
        mean : Tensor of shape (B, d)
            Zeros in rows of which nothing is given.
        log_scale : Tensor of shape (B, d)
            Logarithms of standard deviations; zeros in such rows, that is standard noise.
        """
        if codes.device.type == "meta":  # where no row can be picked
            return self._guess(codes, given)
        mean, log_scale = torch.zeros_like(codes), torch.zeros_like(codes)
        some = given.any(dim=1).nonzero()[:, 0]
        for rows in some.split(max(1, _ELEMENTS_AT_ONCE // (len(self.mean) + self.loadings.shape[1] ** 2))):
            mean[rows], log_scale[rows] = self._guess(codes[rows], given[rows])
        return mean, log_scale

    def _guess(self, codes: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        n_rows, n_factors = len(codes), self.loadings.shape[1]
        squares = (self.loadings[:, :, None] * self.loadings[:, None, :]).flatten(1)  # u u' of each code, (d, r * r)
        known = given / self.noise
        seen = known * torch.where(given > 0, codes - self.mean, 0.0)
        identity = torch.eye(n_factors, device=codes.device)
        inner = identity + (known @ squares).view(n_rows, n_factors, n_factors)
        root = torch.linalg.cholesky(inner)
        half = torch.linalg.solve_triangular(root, identity.expand(n_rows, -1, -1), upper=False)
        factors = (half.mT @ (half @ (seen @ self.loadings)[:, :, None]))[:, :, 0]
        variance = self.noise + (half.mT @ half).flatten(1) @ squares.T
        some = given.any(dim=1, keepdim=True)
        return some * (self.mean + factors @ self.loadings.T), some * 0.5 * variance.log()


def _leading(codes: Array) -> Array:
    """Loadings (d, r) of centered codes (n, d), shrunk as their covariance would be."""
    kept = min(_MOST_FACTORS, *codes.shape)
    _, values, vectors = randomized_svd(np.nan_to_num(codes), kept, random_state=0)
    return np.asarray(vectors.T * values / np.sqrt(len(codes) + _SHRINKAGE * codes.shape[1]))


def _covariance(codes: Tensor, variance: Tensor) -> Tensor:
    """Covariance of centered codes (n, d), shrunk a little towards their variances."""
    n_rows, n_codes = codes.shape
    prior, weight = torch.diag(variance.clamp(min=_SMALLEST)), _SHRINKAGE * n_codes
    missing = codes.isnan()
    filled = codes.nan_to_num(0.0)
    if not missing.any():
        return (filled.T @ filled + weight * prior) / (n_rows + weight)
    given = (~missing).to(codes.dtype)
    covariance = _positive((filled.T @ filled + weight * prior) / (given.T @ given + weight))
    for _ in range(_STEPS if n_codes <= _MOST_REFINED else 0):
        total = weight * prior
        for part in torch.arange(n_rows).split(256):
            seen, hidden = given[part][:, :, None], 1 - given[part]
            inner = seen * covariance * seen.mT + torch.diag_embed(hidden)
            cross = seen * covariance * hidden[:, None, :]
            slope = torch.linalg.solve(inner, cross)
            rows = filled[part] + (filled[part][:, None, :] @ slope)[:, 0]
            left = hidden[:, :, None] * covariance * hidden[:, None, :] - cross.mT @ slope
            total = total + rows.T @ rows + left.sum(dim=0)
        covariance = total / (n_rows + weight)
    return covariance


def _positive(covariance: Tensor) -> Tensor:
    """The nearest covariance without tiny or negative eigenvalues; pairs of different rows make such."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=_SMALLEST)) @ vectors.T
