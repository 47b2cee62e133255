"""Rollouts of a frozen teacher, made once, and the jumps between their states that a student is asked to match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from flowmatch.objectives import ResidualLoss

SHORT = 1 / 8
"""Share of the rows that learn jumps of any length down to 0, where a method's own do not come near it."""

Rollout = Callable[[Tensor, Tensor, Tensor, "Tensor | None", int], Tensor]
"""``(x, t, step, condition, n_substeps) -> (n_substeps + 1, B, *sample_shape)``."""


@dataclass(frozen=True)
class Rollouts:
    """States of a teacher along N intervals of time, on an even grid inside each.

    Attributes
    ----------
    states : Tensor of shape (K + 1, N, *sample_shape)
    t, step : Tensor of shape (N,)
        Start and length of each interval.
    condition : Tensor of shape (N, k) or None
    """

    states: Tensor
    t: Tensor
    step: Tensor
    condition: Tensor | None

    @classmethod
    def make(
        cls,
        rollout: Rollout,
        x: Tensor,
        t: Tensor,
        step: Tensor,
        condition: Tensor | None,
        n_substeps: int,
        rows_at_once: int,
    ) -> Rollouts:
        """Roll a teacher out from N states `x` at times `t`, a few rows at once."""
        with torch.no_grad():
            parts = [
                rollout(x[rows], t[rows], step[rows], None if condition is None else condition[rows], n_substeps)
                for rows in torch.arange(len(x), device=x.device).split(rows_at_once)
            ]
        return cls(torch.cat(parts, dim=1), t, step, condition)

    @property
    def n_substeps(self) -> int:
        """Substeps K of each interval."""
        return len(self.states) - 1

    @cached_property
    def spans(self) -> Tensor:
        """Lengths of jumps in substeps: all K, its halves as long as they are whole, and one."""
        spans = [self.n_substeps]
        while spans[-1] % 2 == 0:
            spans.append(spans[-1] // 2)
        return torch.tensor(sorted({*spans, 1}, reverse=True), device=self.t.device)

    def __len__(self) -> int:
        return len(self.t)

    def substep(self, rows: Tensor) -> Tensor:
        """Length of a substep of the given rows, (B,)."""
        return self.step[rows] / self.n_substeps

    def ends(self) -> tuple[Tensor, Tensor]:
        """First and last state of every interval, each (N, *sample_shape)."""
        return self.states[0], self.states[-1]

    def jumps(
        self, rows: Tensor, generator: torch.Generator | None, *, both_ways: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Random jumps inside the intervals of the given rows.

        A jump takes one of `spans` substeps, each equally often, from a multiple of it.

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
        span = self.spans[torch.randint(len(self.spans), (n_rows,), generator=generator, device=device)]
        u = torch.rand(n_rows, generator=generator, device=device)
        start = span * torch.floor(u * (self.n_substeps // span)).long()
        end = start + span
        if both_ways:
            turned = torch.rand(n_rows, generator=generator, device=device) < 0.5
            start, end = torch.where(turned, end, start), torch.where(turned, start, end)
        length = self.step[rows]
        t, step = (length * share.to(length) / self.n_substeps for share in (start, end - start))
        condition = None if self.condition is None else self.condition[rows]
        return self.states[start, rows], self.states[end, rows], self.t[rows] + t, step, condition


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
        wanted = (target - x) / step.view(-1, *[1] * (x.ndim - 1))
        n_short = 0 if self.velocity is None else round(self.short * len(x))
        if n_short:
            first, rest = slice(0, n_short), slice(n_short, None)
            known = None if condition is None else condition[first]
            part = torch.rand(n_short, generator=generator, device=x.device) * self.stages[0].substep(rows[first])
            part = torch.copysign(part, step[first])
            wanted = torch.cat([self._midpoint_velocity(x[first], t[first], part, known), wanted[rest]])
            step = torch.cat([part, step[rest]])
        return self.loss(network(x, t, condition, step) - wanted, t)

    def _midpoint_velocity(self, x: Tensor, t: Tensor, step: Tensor, condition: Tensor | None) -> Tensor:
        """The mean velocity of one midpoint step, which at a step of 0 is the velocity."""
        half = 0.5 * step
        halfway = x + half.view(-1, *[1] * (x.ndim - 1)) * self.velocity(x, t, condition)
        return self.velocity(halfway, t + half, condition)
