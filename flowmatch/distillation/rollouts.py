"""Rollouts of a frozen teacher, made once, and the jumps between their states that a student is asked to match."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flowmatch.core.checks import check_output
from flowmatch.core.progress import progress
from flowmatch.flow import expand_time
from flowmatch.objectives import ResidualLoss, VelocityObjective

SHORT = 1 / 8
"""Share of the rows that learn jumps of any length down to 0, where a method's own do not come near it."""

WHOLE = 1 / 8
"""Share of the jumps that take the whole interval, beside those that do so by chance."""

JITTER = 0.8
"""How far a time between two ends may be from its place on the even grid, in half intervals of the grid."""

Rollout = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""``(x, times, condition) -> states`` with `times` (K + 1, B) and `states` (K + 1, B, *sample_shape)."""


def midpoint_rollout(velocity: Any, x: Tensor, times: Tensor, condition: Tensor | None) -> Tensor:
    """States along a velocity, by one midpoint step between any two times, which are each row's own.

    Parameters
    ----------
    velocity : callable ``(x, t, condition) -> (B, *sample_shape)``
    x : Tensor of shape (B, *sample_shape)
        Where to start.
    times : Tensor of shape (n_substeps + 1, B)
        Decreasing times go back.
    condition : Tensor of shape (B, k), optional

    Returns
    -------
    Tensor of shape (n_substeps + 1, B, *sample_shape)
    """
    return jump_rollout(functools.partial(midpoint_velocity, velocity), x, times, condition)


def midpoint_velocity(velocity: Any, x: Tensor, t: Tensor, condition: Tensor | None, step: Tensor) -> Tensor:
    """The mean velocity of one midpoint step from time t to t + step of each row; at a step of 0 the velocity."""
    half = 0.5 * step
    return velocity(x + expand_time(half, x) * velocity(x, t, condition), t + half, condition)


def jump_rollout(flow_map: Any, x: Tensor, times: Tensor, condition: Tensor | None) -> Tensor:
    """States along a flow map ``(x, t, condition, step)``, by jumps; otherwise as `midpoint_rollout`."""
    states = [x]
    for t, t_next in itertools.pairwise(times):
        x = x + expand_time(t_next - t, x) * flow_map(x, t, condition, t_next - t)
        states.append(x)
    return torch.stack(states)


@dataclass(frozen=True)
class Rollouts:
    """States of a teacher at K + 1 times, which are each row's own.

    Attributes
    ----------
    states : Tensor of shape (K + 1, N, *sample_shape)
    times : Tensor of shape (K + 1, N)
    condition : Tensor of shape (N, k) or None
    """

    states: Tensor
    times: Tensor
    condition: Tensor | None

    @classmethod
    def make(
        cls,
        rollout: Rollout,
        x: Tensor,
        times: Tensor,
        condition: Tensor | None,
        rows_at_once: int,
        *,
        ends_only: bool = False,
        verbose: bool | int = False,
    ) -> Rollouts:
        """Roll a teacher out from N states `x` over times (K + 1, N), a few rows at once; keep all states or two."""
        kept = [0, -1] if ends_only else slice(None)
        batches = torch.arange(len(x), device=x.device).split(rows_at_once)
        with torch.no_grad():
            parts = [
                rollout(x[rows], times[:, rows], None if condition is None else condition[rows])[kept]
                for rows in progress(batches, "teacher's paths", verbose)
            ]
        return cls(torch.cat(parts, dim=1), times[kept], condition)

    @property
    def n_substeps(self) -> int:
        """Substeps K of each row."""
        return len(self.states) - 1

    def __len__(self) -> int:
        return self.times.shape[1]

    def jumps(
        self, rows: Tensor, generator: torch.Generator | None, *, both_ways: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Random jumps between states of the given rows: a share of them over all substeps, the others over any number.

        Parameters
        ----------
        rows : Tensor of int, shape (B,)
        generator : torch.Generator, optional
        both_ways : bool
            Turn every second jump round, on average.

        Returns
        -------
        x, target : Tensor of shape (B, *sample_shape)
            States before and after the jump.
        t, step : Tensor of shape (B,)
        condition : Tensor of shape (B, k) or None
        """
        n_rows, device = len(rows), rows.device
        span = torch.randint(1, self.n_substeps + 1, (n_rows,), generator=generator, device=device)
        u, chance = torch.rand(2, n_rows, generator=generator, device=device)
        span = torch.where(chance < WHOLE, self.n_substeps, span)
        start = torch.floor(u * (self.n_substeps + 1 - span)).long()
        end = start + span
        if both_ways:
            turned = torch.rand(n_rows, generator=generator, device=device) < 0.5
            start, end = torch.where(turned, end, start), torch.where(turned, start, end)
        t = self.times[start, rows]
        condition = None if self.condition is None else self.condition[rows]
        return self.states[start, rows], self.states[end, rows], t, self.times[end, rows] - t, condition


def rollout_times(
    t: Tensor, step: Tensor, n_substeps: int, jitter: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Times (n_substeps + 1, B) from t to t + step of each row, the inner ones moved at random by `jitter`.

    On an even grid a student would learn the jumps between its points only, and be lost at other numbers of steps.

    Parameters
    ----------
    t, step : Tensor of shape (B,)
    n_substeps : int
    jitter : float
        Largest distance from the even grid, in half intervals; below 1, times stay in order.
    generator : torch.Generator on the device of `t`, optional
    """
    places = torch.arange(n_substeps + 1, device=t.device, dtype=t.dtype)[:, None].expand(-1, len(t)).clone()
    u = torch.rand(n_substeps - 1, len(t), generator=generator, device=t.device, dtype=t.dtype)
    places[1:-1] += jitter * (u - 0.5)
    times = t + step * (places / n_substeps)
    times[-1] = t + step  # to the last bit
    return times


@dataclass(frozen=True)
class RolloutLoss:
    """The loss of a flow map on a teacher's rollouts: ``|U(x, t, d) - (F - x) / d|`` in the norm of `loss`.

    One jump of the student against all substeps that the teacher takes for it: progressive distillation (Salimans and
    Ho, 2022, section 3, for velocities and any length of jump). With l2 it is the squared error of the states, which
    is d^2 times as large, weighted by ``1/d^2``.

    Parameters
    ----------
    stages : sequence of Rollouts
        Those of all stages so far, all of N rows; each jump comes from one of them. Earlier stages teach shorter
        jumps, which a student would forget if it saw the last ones only.
    loss : ResidualLoss
    both_ways : bool
        Whether the student also learns to go back.
    velocity : callable ``(x, t, condition) -> (B, *sample_shape)``, optional
        The teacher's. A share of the rows then asks for jumps shorter than a substep, of which one midpoint step of
        the velocity is the target.
    short : float
        That share.
    """

    stages: Sequence[Rollouts]
    loss: ResidualLoss
    both_ways: bool = False
    velocity: Any = None
    short: float = SHORT

    def __call__(self, network: nn.Module, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Loss of each of the given rows, shape (B,)."""
        pieces = [
            stage.jumps(part, generator, both_ways=self.both_ways)
            for stage, part in zip(self.stages, rows.tensor_split(len(self.stages)), strict=True)
        ]
        x, target, t, step = (torch.cat([piece[i] for piece in pieces]) for i in range(4))  # type: ignore[misc]
        conditions = [piece[4] for piece in pieces if piece[4] is not None]
        condition = torch.cat(conditions) if conditions else None
        wanted = (target - x) / expand_time(step, x)
        n_short = 0 if self.velocity is None else round(self.short * len(x))
        if n_short:
            first, rest = slice(0, n_short), slice(n_short, None)
            known = None if condition is None else condition[first]
            longest = torch.minimum(step[first].abs(), self._mean_substep(rows[first]))
            part = torch.rand(n_short, generator=generator, device=x.device, dtype=x.dtype) * longest
            part = torch.copysign(part, step[first])
            wanted = torch.cat([midpoint_velocity(self.velocity, x[first], t[first], known, part), wanted[rest]])
            step = torch.cat([part, step[rest]])
        return self.loss(check_output(network, network(x, t, condition, step), wanted) - wanted, t)

    def _mean_substep(self, rows: Tensor) -> Tensor:
        """Mean length of a substep of the given rows, (B,), on the finest grid, that of the first stage."""
        times = self.stages[0].times[:, rows]
        return (times[-1] - times[0]) / self.stages[0].n_substeps


@dataclass(frozen=True)
class PairLoss:
    """Flow matching on fixed pairs (Liu, Gong and Liu, 2023, "Flow Straight and Fast", procedure 1).

    Paths that join noise with what the teacher makes of it do not cross, so the velocity learned on straight lines
    between them is nearly constant along each: one Euler step does.

    Parameters
    ----------
    pairs : Rollouts
        Their first and last states are the pairs.
    problem : VelocityObjective
        Path (linear, for straight lines), times and loss; its coupling and source are not used.
    """

    pairs: Rollouts
    problem: VelocityObjective

    def __call__(self, network: nn.Module, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Loss of each of the given rows, shape (B,)."""
        x0, x1 = self.pairs.states[0, rows], self.pairs.states[-1, rows]
        condition = None if self.pairs.condition is None else self.pairs.condition[rows]
        t = self.problem.draw_times(len(rows), generator)
        return self.problem.residual_loss(network, x0, x1, t, condition)
