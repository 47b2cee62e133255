"""Log-density of a flow by the instantaneous change of variables.

``log p1(x1) = log p0(x0) - int_0^1 div v(x_t, t) dt`` along the flow that leads from x0 to x1 (Chen et al., 2018,
theorem 1). The state and the running integral are solved together, by the same solver, from t = 1 down to t = 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flowmatch.core.types import Rng
from flowmatch.flow.solvers import Velocity, integrate


@dataclass(frozen=True)
class Divergence:
    """A velocity and its divergence.

    Parameters
    ----------
    velocity : callable
        ``(x, t) -> (B, *sample_shape)``.
    both : callable
        ``(x, t) -> (velocity, divergence)``, the latter of shape (B, n_estimates); so can the object be called.
    """

    velocity: Velocity
    both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity and its divergence."""
        return self.both(x, t)


MOST_EXACT = 64
"""Elements of a sample up to which the divergence is exact by default."""

N_PROBES = 32
"""Hutchinson probes beyond that."""


class LogLikelihood(NamedTuple):
    """Log-densities with their errors, and latent codes.

    Parameters
    ----------
    log_density : Tensor of shape (B,)
        Log-density of each sample.
    standard_error : Tensor of shape (B,)
        Its error where the divergence is estimated.
    x0 : Tensor of shape (B, *sample_shape)
        The noise that the flow leads to each sample.
    """

    log_density: Tensor
    standard_error: Tensor
    x0: Tensor


def exact_divergence(velocity: Velocity, sample_size: int, chunk_size: int | None = None) -> Divergence:
    """The trace of the Jacobian, one derivative a coordinate, all coordinates in one batched pass.

    Parameters
    ----------
    velocity : callable
        A field ``(x, t) -> (B, *sample_shape)``; each row of its result may depend only on that row of `x`.
    sample_size : int
        Elements of a sample: d for a table, C * prod(grid) for a grid.
    chunk_size : int, optional
        Most coordinates per pass; bounds the memory, which grows with B * chunk_size.

    Returns
    -------
    Divergence
        Of shape (B, 1).

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import exact_divergence
    >>> divergence = exact_divergence(lambda x, t: -x, sample_size=3)
    >>> divergence(torch.ones(1, 3), torch.tensor(0.0))[1]
    tensor([[-3.]])
    """

    def divergence(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        trace = x.new_zeros(len(x), 1)
        for directions in _basis(x).split(chunk_size or sample_size):
            value, diagonal = _directional_derivatives(velocity, x, t, directions)
            trace = trace + diagonal.sum(1, keepdim=True)
        return value, trace

    return Divergence(velocity, divergence)


def hutchinson_divergence(velocity: Velocity, probes: Tensor) -> Divergence:
    """Unbiased estimates ``e . J e`` of the trace, one a probe (Hutchinson, 1990; Grathwohl et al., 2019, eq. 7).

    Parameters
    ----------
    velocity : callable
        A field ``(x, t) -> (B, *sample_shape)``.
    probes : Tensor of shape (n_probes, *sample_shape)
        Directions of zero mean and unit covariance. All rows share them, so that a row's estimate does not depend on
        its position in the batch; and they are held fixed along the path, which keeps the ODE smooth.

    Returns
    -------
    Divergence
        Of shape (B, n_probes).

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import hutchinson_divergence, rademacher_probes
    >>> divergence = hutchinson_divergence(lambda x, t: -x, rademacher_probes(2, torch.ones(3)))
    >>> divergence(torch.ones(1, 3), torch.tensor(0.0))[1]
    tensor([[-3., -3.]])
    """
    return Divergence(velocity, lambda x, t: _directional_derivatives(velocity, x, t, probes))


def _basis(x: Tensor) -> Tensor:
    """Unit vectors (d, *sample_shape) of the elements of a sample of `x`."""
    size = x[0].numel()
    return torch.eye(size, device=x.device, dtype=x.dtype).view(size, *x.shape[1:])


def _products(velocity: Velocity, x: Tensor, t: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity, and ``e * J^T e`` for each direction e, (n_directions, B, *sample_shape).

    Reverse mode: one forward pass serves all directions, and every layer supports it (fused attention, for one, has
    no forward mode).
    """
    along = directions[:, None]
    if x.ndim > 2:  # convolutions, of which autograd alone runs no batches of directions
        from torch.func import vjp, vmap

        value, pull_back, *_ = vjp(lambda y: velocity(y, t), x)
        (gradients,) = vmap(pull_back)(along.expand(len(directions), *value.shape))
        return value, gradients * along
    is_recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        start = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
        value = velocity(start, t)
        pulled = along.expand(len(directions), *value.shape)
        (gradients,) = torch.autograd.grad(value, start, pulled, create_graph=is_recorded, is_grads_batched=True)
    return value if is_recorded else value.detach(), gradients * along


def _directional_derivatives(velocity: Velocity, x: Tensor, t: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity, and ``e . J e`` of every row for each direction e, shape (B, n_directions)."""
    value, products = _products(velocity, x, t, directions)
    return value, products.flatten(2).sum(2).T


def rademacher_probes(n_probes: int, like: Tensor, generator: Rng = None) -> Tensor:
    """Draw random signs, the probes of least variance (Hutchinson, 1990).

    Parameters
    ----------
    n_probes : int
        How many.
    like : Tensor of shape sample_shape
        Gives shape, device and dtype.
    generator : torch.Generator, optional
        On the device of `like`.

    Returns
    -------
    Tensor of shape (n_probes, *sample_shape)
        Of -1 and 1.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import rademacher_probes
    >>> rademacher_probes(4, torch.ones(3)).abs().unique()
    tensor([1.])
    """
    bits = torch.randint(0, 2, (n_probes, *like.shape), generator=generator, device=like.device)
    return (2 * bits - 1).to(like.dtype)


def divergence_probes(like: Tensor, n_probes: int | None = None) -> Tensor | None:
    """Draw probes that are the same at every call, on every device.

    Parameters
    ----------
    like : Tensor of shape sample_shape
        Gives shape, device and dtype.
    n_probes : int, optional
        How many. Without, the trace is exact up to 64 elements of a sample and estimated with 32 probes beyond.

    Returns
    -------
    Tensor of shape (n_probes, *sample_shape), or None
        None for the exact trace.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import divergence_probes
    >>> divergence_probes(torch.ones(3)) is None
    True
    >>> divergence_probes(torch.ones(1, 28, 28)).shape
    torch.Size([32, 1, 28, 28])
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
    """Log-density of data under the flow.

    Parameters
    ----------
    divergence : Divergence
        From `exact_divergence` or `hutchinson_divergence`.
    x1 : Tensor of shape (B, *sample_shape)
        Data.
    times : Tensor of shape (n_steps + 1,)
        Increasing grid from the source to the data; it is walked backwards.
    source_log_density : callable
        Log-density of the noise, ``x0 -> (B,)``.
    method : str, default="midpoint"
        A solver of `integrate`.
    n_estimates : int, default=1
        Columns of the divergence: 1 if exact, the number of probes if estimated.

    Returns
    -------
    LogLikelihood
        The standard error is that of the mean over the probes; NaN with one probe, 0 where the trace is exact is
        for the caller to say.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import NormalSource, exact_divergence, log_likelihood, time_grid
    >>> still = exact_divergence(lambda x, t: 0 * x, sample_size=2)
    >>> log_density = lambda x0: NormalSource().log_density(x0, torch.ones(2))
    >>> log_likelihood(still, torch.zeros(1, 2), time_grid(4), log_density).log_density
    tensor([-1.8379])
    """
    x0, integrals = _solve_back(divergence, x1, times, method, n_estimates)
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
    """The log-density as a sum over the elements of a sample.

    An element's term is its part of the source's log-density and of the divergence, whose trace has one entry an
    element.

    Parameters
    ----------
    velocity : callable
        A field ``(x, t) -> (B, *sample_shape)``.
    x1 : Tensor of shape (B, *sample_shape)
        Data.
    times : Tensor of shape (n_steps + 1,)
        Increasing grid from the source to the data.
    source_log_density_terms : callable
        Terms of the noise's log-density, ``x0 -> (B, *sample_shape)``.
    probes : Tensor of shape (n_probes, *sample_shape), optional
        Estimate the Jacobian's diagonal by the mean of ``e * J e`` over these directions (Bekas et al., 2007, eq. 3),
        whose sum is Hutchinson's estimate. Exact without.
    method : str, default="midpoint"
        A solver of `integrate`.

    Returns
    -------
    Tensor of shape (B, *sample_shape)
        Its sum over a sample is what `log_likelihood` gives.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import NormalSource, log_likelihood_terms, time_grid
    >>> terms = lambda x0: NormalSource().log_density_terms(x0, torch.ones(2))
    >>> log_likelihood_terms(lambda x, t: 0 * x, torch.zeros(1, 2), time_grid(4), terms)
    tensor([[-0.9189, -0.9189]])
    """

    def diagonal(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        value, products = _products(velocity, x, t, _basis(x) if probes is None else probes)
        return value, (products.sum(0) if probes is None else products.mean(0)).flatten(1)

    x0, integrals = _solve_back(Divergence(velocity, diagonal), x1, times, method, x1[0].numel())
    return source_log_density_terms(x0) + integrals.reshape(x1.shape)


def _solve_back(rates: Divergence, x1: Tensor, times: Tensor, method: str, n_integrals: int) -> tuple[Tensor, Tensor]:
    """The noise (B, *sample_shape) that leads to `x1`, and minus the integrals (B, n_integrals) of rates on the way.

    `rates` gives the velocity and what is integrated. The sign is minus because time runs backwards. The first half of
    a midpoint step leads to where the second one looks, for which the velocity suffices.
    """
    shape, size = x1.shape, x1[0].numel()
    if method == "midpoint":
        x, total = x1, x1.new_zeros(len(x1), n_integrals)
        for t, t_next in itertools.pairwise(times.flip(0)):
            dt = t_next - t
            value, rate = rates(x + 0.5 * dt * rates.velocity(x, t), t + 0.5 * dt)
            x, total = x + dt * value, total + dt * rate
        return x, total

    def augmented(state: Tensor, t: Tensor) -> Tensor:
        value, rate = rates(state[:, :size].reshape(shape), t)
        return torch.cat([value.flatten(1), rate], dim=1)

    start = torch.cat([x1.flatten(1), x1.new_zeros(len(x1), n_integrals)], dim=1)
    end = integrate(augmented, start, times.flip(0), method)
    return end[:, :size].reshape(shape), end[:, size:]
