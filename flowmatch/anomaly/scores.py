"""Anomaly scores of a velocity network.

Every score is a sum over a row's elements: it gives the contribution of each, which is its explanation too. Below, z
is a row on the flow's scale (its code), v the learned velocity, and time runs from 0 (noise) to 1 (data).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowmatch import flow
from flowmatch.anomaly.field import FlowField
from flowmatch.core.checks import check_count, check_number, check_sequence, checked
from flowmatch.core.component import Component

State = dict[str, Tensor]
"""What a score keeps of the training rows."""


class Score(Component, ABC):
    """How abnormal a row is, computed from a flow that has learned normal ones.

    A subclass is a frozen dataclass with a method `contributions`; `fit` and `calibrate` are for scores that keep
    something of the rows.

    Attributes
    ----------
    is_density : bool
        Whether the score is a negative log-density, which the preprocessing's log-Jacobian belongs to.
    given_the_row : bool
        Whether the flow is trained with the row itself as its condition.
    """

    is_density = False
    given_the_row = False

    def copies(self, size: int) -> int:
        """How many times a row is held in memory while it is scored.

        Parameters
        ----------
        size : int
            Elements of a row.

        Returns
        -------
        int
            1, unless a subclass says otherwise.
        """
        return 1

    def fit(self, field: FlowField, codes: Tensor, condition: Tensor | None, previous: State) -> State:
        """What to keep of the rows that the flow was trained on.

        Parameters
        ----------
        field : FlowField
        codes : Tensor of shape (n, *code_shape)
            The rows.
        condition : Tensor of shape (n, k), or None
            Vectors of their conditions.
        previous : dict of Tensor
            What was kept in the fit that this one goes on from; empty in a first fit.

        Returns
        -------
        dict of Tensor
            `previous`, unless a subclass says otherwise.
        """
        return previous

    def check_state(self, state: State, code_shape: tuple[int, ...]) -> None:
        """Check what a file says was kept; subclasses that keep something do.

        Parameters
        ----------
        state : dict of Tensor
        code_shape : tuple of int
            Shape of a row's codes.

        Raises
        ------
        ValueError
            If the score cannot have kept that.
        """

    def calibrate(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> State:
        """What to keep once rows are known that the flow was not trained on.

        Parameters
        ----------
        field : FlowField
        state : dict of Tensor
            What `fit` has kept.
        codes : Tensor of shape (n, *code_shape)
            The rows.
        condition : Tensor of shape (n, k), or None
            Vectors of their conditions.

        Returns
        -------
        dict of Tensor
            `state`, unless a subclass says otherwise.
        """
        return state

    @abstractmethod
    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        """How much each element of each row adds to the row's score.

        Parameters
        ----------
        field : FlowField
        state : dict of Tensor
            What `fit` and `calibrate` have kept.
        codes : Tensor of shape (B, *code_shape)
            The rows.
        condition : Tensor of shape (B, k), or None
            Vectors of their conditions.

        Returns
        -------
        Tensor of shape (B, *code_shape)
            A row's must not depend on the other rows.
        """


def _check_times(name: str, times: Any) -> None:
    if not isinstance(times, (tuple, list)) or not times:
        raise ValueError(f"{name} must be a tuple of times in (0, 1], got {times!r}.")
    check_sequence(name, times, check_number, 0.0, 1.0, open_low=True, closed_high=True)


@dataclass(frozen=True)
class OneStep(Score):
    """The noise that the network still sees in a clean row: one evaluation, no integration.

    At the data's end of a path the conditional velocity is ``a' x1 + b' x0`` at the point x1, whose mean over the
    noise x0 is ``a' x1``. What the network says beyond that on a row z, ``S = |(a' z - v(a z, t)) / D|^2`` with
    ``D = a' b - a b'``, is its own error: small where it was trained. On the linear path ``S = |v(z, 1) - z|^2``.

    Parameters
    ----------
    times : tuple of float, default=(1.0,)
        The mean over these times; earlier ones look at ``a(t) z``, where the velocity is a coarser average.
    """

    times: tuple[float, ...] = checked((1.0,), _check_times)

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        velocity, path = field.velocity(condition), field.path
        total = torch.zeros_like(codes)
        for time in self.times:
            t = field.time(time)
            expected = path.data_rate(t) * codes
            residual = expected - velocity(path.data_scale(t) * codes, t)
            total = total + (residual / path.velocity_scale(t)).square()
        return total / len(self.times)


@dataclass(frozen=True)
class Latent(Score):
    """Squared norm of the noise that the flow, run backward, takes the row to: ``S = |z_0|^2``.

    With a normal source, normal rows have a squared norm of about their number of columns.
    """

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        return field.to_noise(codes, condition).square()


@dataclass(frozen=True)
class Likelihood(Score):
    """Negative log-density by the instantaneous change of variables (Chen et al., 2018, theorem 1).

    An element's contribution is its own term of the source's log-density, of the divergence along the flow, and of the
    preprocessing's log-Jacobian.

    Parameters
    ----------
    n_probes : int or None, default=None
        Estimate the divergence by so many Hutchinson probes, the same for every row. None: exact up to 64
        elements a row, 32 probes beyond.
    """

    n_probes: int | None = checked(None, check_count)

    is_density = True

    def copies(self, size: int) -> int:
        return self.n_probes or min(size, flow.MOST_EXACT)

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        terms = flow.log_likelihood_terms(
            field.velocity(condition),
            codes,
            field.times(),
            lambda x0: field.source.log_density_terms(x0, field.source_scale),
            flow.divergence_probes(field.source_scale, self.n_probes),
            field.solver,
        )
        return -terms


@dataclass(frozen=True)
class Denoising(Score):
    """Error of the velocity on noised copies of the row: ``S = E |v(x_t, t) - u_t|^2``, ``x_t = a z + b e``.

    The training loss of the row itself. The same noises e serve every row, so that rows compare.

    Parameters
    ----------
    times : tuple of float, default=(0.5, 0.7, 0.9)
        Where it is measured; the mean is taken.
    n_noises : int, default=8
        Noises at each time.
    """

    times: tuple[float, ...] = checked((0.5, 0.7, 0.9), _check_times)
    n_noises: int = checked(8, check_count)

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        velocity, path = field.velocity(condition), field.path
        total = torch.zeros_like(codes)
        for noise in field.draw_noise(self.n_noises, seed=0):
            for time in self.times:
                t = field.time(time)
                x0 = noise.expand_as(codes)
                residual = velocity(path.interpolate(x0, codes, t), t) - path.velocity(x0, codes, t)
                total = total + residual.square()
        return total / (len(self.times) * self.n_noises)


@dataclass(frozen=True)
class Rebuilding(Score):
    """Noise the row part of the way, let the flow bring it back, and compare.

    Parameters
    ----------
    time : float, default=0.8
        How far the row is noised, between 0 (nothing is left of it) and 1.
    n_noises : int, default=4
        Noises, the same for every row; the row is compared with the mean of what comes back.
    """

    time: float = checked(0.8, check_number, 0.0, 1.0)
    n_noises: int = checked(4, check_count)

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        total, t = torch.zeros_like(codes), field.time(max(self.time, field.path.first_time))
        for noise in field.draw_noise(self.n_noises, seed=0):
            noised = field.path.interpolate(noise.expand_as(codes), codes, t)
            total = total + field.to_data(noised, condition, start=self.time)
        return (total / self.n_noises - codes).square()


@dataclass(frozen=True)
class Reconstruction(Score):
    """Encode the row, sample several times given its encoding, average, and compare.

    The flow is trained with an encoder of `size` elements between the row and its condition, both at once. The mean
    of the samples is, but for the spread of few of them, what one evaluation at t = 0 gives (the conditional mean),
    so the score is that of an autoencoder; "one_step" ranks anomalies better at a fraction of the cost.

    Parameters
    ----------
    size : int or None, default=None
        Elements of an encoding; None takes a quarter of the row's, at least 1 and at most 64.
    n_samples : int, default=4
        Samples that are averaged, from the same noises for every row.
    """

    size: int | None = checked(None, check_count)
    n_samples: int = checked(4, check_count)

    given_the_row = True

    def contributions(self, field: FlowField, state: State, codes: Tensor, condition: Tensor | None) -> Tensor:
        noises = field.draw_noise(self.n_samples, seed=0)
        total = sum(field.to_data(noise.expand_as(codes), condition) for noise in noises)
        return (total / self.n_samples - codes).square()
