"""Log-density of a flow by the instantaneous change of variables.

``log p1(x1) = log p0(x0) - int_0^1 div v(x_t, t) dt`` along the flow that leads from x0 to x1 (Chen et al., 2018,
theorem 1). The state and the running integral are solved together, by the same solver, from t = 1 down to t = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from flowmatch.flow.solvers import Velocity, integrate

Divergence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(x, t) -> (velocity, divergence)``, the latter of shape (B, n_estimates)."""


MOST_EXACT = 64
"""Numbers in a sample up to which the divergence is exact by default."""

N_PROBES = 32
"""Hutchinson probes beyond that."""


class LogLikelihood(NamedTuple):
    """Log-densities (B,), their standard errors (B,), and the latent codes x0 (B, *sample_shape)."""

    log_density: Tensor
    standard_error: Tensor
    x0: Tensor


def exact_divergence(velocity: Velocity, sample_size: int, chunk_size: int | None = None) -> Divergence:
    """The trace of the Jacobian, one derivative a coordinate, all coordinates in one batched pass.

    Parameters
    ----------
    velocity : callable ``(x, t) -> (B, *sample_shape)``
        Each row of its result may depend only on that row of `x`.
    sample_size : int
        Numbers in a sample: d for a table, C * prod(grid) for a grid.
    chunk_size : int, optional
        Most coordinates per pass; bounds the memory, which grows with B * chunk_size.
    """

    def divergence(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        basis = torch.eye(sample_size, device=x.device, dtype=x.dtype).view(sample_size, *x.shape[1:])
        trace = x.new_zeros(len(x), 1)
        for directions in basis.split(chunk_size or sample_size):
            value, diagonal = _directional_derivatives(velocity, x, t, directions)
            trace = trace + diagonal.sum(1, keepdim=True)
        return value, trace

    return divergence


def hutchinson_divergence(velocity: Velocity, probes: Tensor) -> Divergence:
    """Unbiased estimates ``e . J e`` of the trace, one a probe (Hutchinson, 1990; Grathwohl et al., 2019, eq. 7).

    Parameters
    ----------
    velocity : callable ``(x, t) -> (B, *sample_shape)``
    probes : Tensor of shape (n_probes, *sample_shape)
        Directions of zero mean and unit covariance. All rows share them, so that a row's estimate does not depend on
        its place in the batch; and they are held fixed along the path, which keeps the ODE smooth.
    """
    return lambda x, t: _directional_derivatives(velocity, x, t, probes)


def _directional_derivatives(velocity: Velocity, x: Tensor, t: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity, and ``e . J e`` of every row for each direction e, shape (B, n_directions).

    Reverse mode: one forward pass serves all directions, and every layer supports it (fused attention, for one, has
    no forward mode).
    """
    value, pull_back, *_ = vjp(lambda y: velocity(y, t), x)

    def along(direction: Tensor) -> Tensor:
        (gradient,) = pull_back(direction.expand_as(x).contiguous())
        return (gradient * direction).flatten(1).sum(1)

    return value, vmap(along, out_dims=1)(directions)


def rademacher_probes(n_probes: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Random signs of shape (n_probes, *like.shape): the probes of least variance (Hutchinson, 1990)."""
    bits = torch.randint(0, 2, (n_probes, *like.shape), generator=generator, device=like.device)
    return (2 * bits - 1).to(like.dtype)


def divergence_probes(like: Tensor, n_probes: int | None = None) -> Tensor | None:
    """Probes (n_probes, *like.shape) that are the same at every call, on every device, or None for the exact trace.

    Without `n_probes`, the trace is exact up to 64 numbers a sample and estimated with 32 probes beyond.
    """
    if n_probes is None and like.numel() > MOST_EXACT:
        n_probes = N_PROBES
    if n_probes is None:
        return None
    return rademacher_probes(n_probes, torch.ones(like.shape), torch.Generator().manual_seed(0)).to(like)


@torch.no_grad()
def log_likelihood(
    divergence: Divergence,
    x1: Tensor,
    times: Tensor,
    source_log_density: Callable[[Tensor], Tensor],
    method: str = "midpoint",
    *,
    n_estimates: int = 1,
) -> LogLikelihood:
    """Log-density of `x1` under the flow.

    Parameters
    ----------
    divergence : callable ``(x, t) -> (velocity, divergence)``
        From `exact_divergence` or `hutchinson_divergence`.
    x1 : Tensor of shape (B, *sample_shape)
        Data.
    times : Tensor of shape (n_steps + 1,)
        Increasing grid from the source to the data; it is walked backwards.
    source_log_density : callable ``x0 -> (B,)``
    method : str
        A solver of `integrate`.
    n_estimates : int
        Columns of the divergence: 1 if exact, the number of probes if estimated.

    Returns
    -------
    LogLikelihood
        The standard error is that of the mean over the probes; NaN with one probe, 0 where the trace is exact is
        for the caller to say.
    """
    shape = x1.shape

    def augmented(state: Tensor, t: Tensor) -> Tensor:
        value, estimates = divergence(state[:, :-n_estimates].reshape(shape), t)
        return torch.cat([value.flatten(1), estimates], dim=1)

    start = torch.cat([x1.flatten(1), x1.new_zeros(len(x1), n_estimates)], dim=1)
    end = integrate(augmented, start, times.flip(0), method)
    x0 = end[:, :-n_estimates].reshape(shape)
    integrals = end[:, -n_estimates:]  # minus the integral of the divergence from 0 to 1, because time ran backwards
    log_density = source_log_density(x0) + integrals.mean(1)
    standard_error = integrals.std(1) / n_estimates**0.5 if n_estimates > 1 else torch.full_like(log_density, torch.nan)
    return LogLikelihood(log_density, standard_error, x0)


@torch.no_grad()
def log_likelihood_terms(
    velocity: Velocity,
    x1: Tensor,
    times: Tensor,
    source_log_density_terms: Callable[[Tensor], Tensor],
    probes: Tensor | None = None,
    method: str = "midpoint",
) -> Tensor:
    """The log-density as a sum over the numbers of a sample.

    A number's term is its part of the source's log-density and of the divergence, whose trace has one entry a number.

    Parameters
    ----------
    velocity : callable ``(x, t) -> (B, *sample_shape)``
    x1 : Tensor of shape (B, *sample_shape)
    times : Tensor of shape (n_steps + 1,)
        Increasing grid from the source to the data.
    source_log_density_terms : callable ``x0 -> (B, *sample_shape)``
    probes : Tensor of shape (n_probes, *sample_shape), optional
        Estimate the Jacobian's diagonal by the mean of ``e * J e`` over these directions (Bekas et al., 2007, eq. 3),
        whose sum is Hutchinson's estimate. Exact without.
    method : str
        A solver of `integrate`.

    Returns
    -------
    Tensor of shape (B, *sample_shape)
        Its sum over a sample is what `log_likelihood` gives.
    """
    size = x1[0].numel()
    directions = torch.eye(size, device=x1.device, dtype=x1.dtype).view(size, *x1.shape[1:])
    directions = directions if probes is None else probes

    def augmented(state: Tensor, t: Tensor) -> Tensor:
        x = state[:, :size].reshape(x1.shape)
        value, pull_back, *_ = vjp(lambda y: velocity(y, t), x)

        def along(direction: Tensor) -> Tensor:
            (gradient,) = pull_back(direction.expand_as(x).contiguous())
            return gradient * direction

        diagonal = vmap(along)(directions).sum(0)
        if probes is not None:
            diagonal = diagonal / len(probes)
        return torch.cat([value.flatten(1), diagonal.flatten(1)], dim=1)

    start = torch.cat([x1.flatten(1), torch.zeros_like(x1).flatten(1)], dim=1)
    end = integrate(augmented, start, times.flip(0), method)
    # time ran backwards: the second half is minus the integral of the diagonal from 0 to 1
    return source_log_density_terms(end[:, :size].reshape(x1.shape)) + end[:, size:].reshape(x1.shape)
