"""A fitted flow as anomaly scores see it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowmatch import flow
from flowmatch.core.batches import rows_per_batch
from flowmatch.flow.solvers import Velocity
from flowmatch.model import FlowModel


def scoring_dtype(model: FlowModel) -> torch.dtype:
    """Double precision, for scores are small differences; of grids on the CPU only.

    Graphics cards take up to 64 times as long in double precision, which the networks of tables do not notice.
    """
    on_card = model.device.type == "mps" or (len(model.code_shape) > 1 and model.device.type != "cpu")
    return torch.float32 if on_card else torch.float64


@dataclass(frozen=True)
class FlowField:
    """The velocity that was learned from normal rows, and how to follow it.

    Attributes
    ----------
    network : nn.Module
        ``network(x, t, condition)``; its dtype and device are those of the computation.
    path, source
        What it was trained with.
    source_scale : Tensor of shape code_shape
        In the network's dtype, on its device.
    n_steps, solver
        For scores that integrate the flow.
    rows_at_once : int
        Rows that the network is given together.
    """

    network: nn.Module
    path: flow.Path
    source: flow.Source
    source_scale: Tensor
    n_steps: int
    solver: str
    rows_at_once: int = 1024

    @classmethod
    def of(cls, model: FlowModel) -> FlowField:
        """The velocity of a fitted flow, in the precision of `scoring_dtype`."""
        network = model.precise_network() if scoring_dtype(model) == torch.float64 else model.network
        return cls(
            network,
            model.path,
            model.source.source,
            model.source.scale.to(next(network.parameters())),
            model.defaults.n_steps,
            model.defaults.solver,
            rows_per_batch(model.code_shape, model.device),
        )

    def velocity(self, condition: Tensor | None) -> Velocity:
        """The velocity ``(x, t)`` under a condition, for the solvers; `t` is 0-d."""
        if condition is None:
            return self._velocity

        def conditional(x: Tensor, t: Tensor) -> Tensor:
            parts = zip(x.split(self.rows_at_once), condition.split(self.rows_at_once), strict=True)
            return torch.cat([self.network(part, t.expand(len(part)), known) for part, known in parts])

        return conditional

    def _velocity(self, x: Tensor, t: Tensor) -> Tensor:
        parts = x.split(self.rows_at_once)
        found = [self.network(part, t.expand(len(part))) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found)

    def time(self, t: float) -> Tensor:
        """A time as a 0-d tensor."""
        return torch.full((), t, dtype=self.source_scale.dtype, device=self.source_scale.device)

    def times(self, start: float = 0.0, stop: float = 1.0) -> Tensor:
        """Steps from `start` to `stop`, as many as that part of the way needs; never before the path's first time."""
        start = max(start, self.path.first_time)
        n_steps = max(1, round(self.n_steps * (stop - start)))
        scale = self.source_scale
        return torch.linspace(start, stop, n_steps + 1, dtype=scale.dtype, device=scale.device)

    def to_data(self, x: Tensor, condition: Tensor | None, start: float = 0.0) -> Tensor:
        """Carry points at time `start` to the data."""
        return flow.integrate(self.velocity(condition), x, self.times(start), self.solver)

    def to_noise(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        """Carry codes back to the noise that they come from, in units of the source's scale."""
        x0 = flow.integrate(self.velocity(condition), codes, self.times().flip(0), self.solver)
        return x0 / self.source_scale

    def draw_noise(self, n_draws: int, seed: int) -> Tensor:
        """Noise (n_draws, *code_shape) that is the same at every call, on every device."""
        scale = self.source_scale.float().cpu()  # drawn where every machine draws alike
        return self.source.draw(n_draws, scale, torch.Generator().manual_seed(seed)).to(self.source_scale)
