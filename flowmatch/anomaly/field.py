"""A fitted flow as anomaly scores see it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowmatch import flow
from flowmatch.core.batches import rows_per_batch
from flowmatch.flow.solvers import Velocity
from flowmatch.model import FlowModel, split_alike


def scoring_dtype(model: FlowModel) -> torch.dtype:
    """Double precision, for scores are small differences; of grids on the CPU only.

    Graphics cards take up to 64 times as long in double precision, which the networks of tables do not notice.
    """
    on_card = model.device.type == "mps" or (len(model.code_shape) > 1 and model.device.type != "cpu")
    return torch.float32 if on_card else torch.float64


@dataclass(frozen=True)
class FlowField:
    """The velocity that was learned from normal rows, and how to follow it.

    Parameters
    ----------
    network : nn.Module
        ``network(x, t, condition)``; its dtype and device are those of the computation.
    path : Path
    source : Source
        What it was trained with.
    source_scale : Tensor of shape code_shape
        In the network's dtype, on its device.
    n_steps : int
    solver : str
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
        """The velocity of a fitted flow, in the precision of `scoring_dtype`.

        Parameters
        ----------
        model : FlowModel
            Its default solver and steps are taken.

        Returns
        -------
        FlowField
        """
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
        """The velocity under a condition, for the solvers.

        Parameters
        ----------
        condition : Tensor of shape (B, k), or None

        Returns
        -------
        callable ``(x, t) -> Tensor``
            Of points (B, *code_shape) and a 0-d time.
        """

        def of_rows(x: Tensor, t: Tensor) -> Tensor:
            parts = split_alike(self.rows_at_once, x, condition)
            return torch.cat([self.network(part, t.expand(len(part)), known) for part, known in parts])

        return of_rows

    def time(self, t: float) -> Tensor:
        """A time as the network takes it.

        Parameters
        ----------
        t : float

        Returns
        -------
        Tensor of shape ()
        """
        return torch.full((), t, dtype=self.source_scale.dtype, device=self.source_scale.device)

    def times(self, start: float = 0.0, stop: float = 1.0) -> Tensor:
        """Times of the steps over a part of the way.

        Parameters
        ----------
        start, stop : float
            From 0 to 1.

        Returns
        -------
        Tensor of shape (n + 1,)
            As many as that part needs; never before the path's first time.
        """
        start = max(start, self.path.first_time)
        n_steps = max(1, round(self.n_steps * (stop - start)))
        scale = self.source_scale
        return torch.linspace(start, stop, n_steps + 1, dtype=scale.dtype, device=scale.device)

    def to_data(self, x: Tensor, condition: Tensor | None, start: float = 0.0) -> Tensor:
        """Carry points to the data.

        Parameters
        ----------
        x : Tensor of shape (B, *code_shape)
        condition : Tensor of shape (B, k), or None
        start : float, default=0.0
            The time of the points.

        Returns
        -------
        Tensor of shape (B, *code_shape)
        """
        return flow.integrate(self.velocity(condition), x, self.times(start), self.solver)

    def to_noise(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        """Carry codes back to the noise that they come from.

        Parameters
        ----------
        codes : Tensor of shape (B, *code_shape)
        condition : Tensor of shape (B, k), or None

        Returns
        -------
        Tensor of shape (B, *code_shape)
            In units of the source's scale.
        """
        x0 = flow.integrate(self.velocity(condition), codes, self.times().flip(0), self.solver)
        return x0 / self.source_scale

    def draw_noise(self, n_draws: int, seed: int) -> Tensor:
        """Noise that is the same at every call, on every device.

        Parameters
        ----------
        n_draws, seed : int

        Returns
        -------
        Tensor of shape (n_draws, *code_shape)
        """
        scale = self.source_scale.float().cpu()  # drawn where every machine draws alike
        return self.source.draw(n_draws, scale, torch.Generator().manual_seed(seed)).to(self.source_scale)
