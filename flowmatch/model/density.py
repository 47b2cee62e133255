"""Log-densities of codes under a fitted flow, in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch import flow
from flowmatch.core.entries import with_entries
from flowmatch.preprocessing import LabelEncoder

_ELEMENTS_AT_ONCE = 2**20
_GRID_ELEMENTS_AT_ONCE = 2**15
"""Networks of grids hold dozens of numbers for each of the sample; smaller batches are no slower."""


@dataclass(frozen=True)
class CodeDensity:
    """The density that a velocity network gives to codes (n, *code_shape).

    Parameters
    ----------
    network : nn.Module
        ``network(x, t, condition)``; its dtype is the dtype of the computation.
    source : Source
    source_scale : Tensor of shape code_shape
    first_time : float
        Where the path starts.
    n_steps, solver
        Of the integration.
    n_probes : int or None
        None: exact up to 64 numbers a sample, 32 probes beyond.
    is_masked : bool
        Whether the network knows of absent cells; codes may then be NaN, and the density is that of the others.
    """

    network: nn.Module
    source: flow.Source
    source_scale: Tensor
    first_time: float
    n_steps: int
    solver: str
    n_probes: int | None = None
    is_masked: bool = False

    def __call__(
        self, codes: NDArray[np.float64], condition: Tensor | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-density of each row and its standard error, (n,) each; the error is 0 where the trace is exact."""
        parameter = next(self.network.parameters())
        scale = self.source_scale.to(parameter)
        x = torch.as_tensor(codes, dtype=parameter.dtype, device=parameter.device)
        shown = None
        if self.is_masked and bool((absent := x.isnan()).any()):
            shown, x = 1 - absent.to(x), x.nan_to_num(0.0)
            condition = with_entries(None if condition is None else condition.to(x), x, torch.zeros_like(x), 1 - shown)
        probes = flow.divergence_probes(scale, self.n_probes)
        numbers = _ELEMENTS_AT_ONCE if scale.ndim == 1 else _GRID_ELEMENTS_AT_ONCE
        rows = max(1, numbers // max(64, scale.numel() * (scale.numel() if probes is None else len(probes))))
        nothing = [None] * -(-len(x) // rows)
        conditions = nothing if condition is None else condition.to(x).split(rows)
        masks = nothing if shown is None else shown.split(rows)
        parts = [self._batch(*piece, scale, probes) for piece in zip(x.split(rows), conditions, masks, strict=True)]
        density, error = (torch.cat(column).cpu().double().numpy() for column in zip(*parts, strict=True))
        return density, error if probes is not None else np.zeros_like(density)

    def _batch(
        self, x: Tensor, condition: Tensor | None, shown: Tensor | None, scale: Tensor, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        def source_log_density(x0: Tensor) -> Tensor:
            if shown is None:
                return self.source.log_density(x0, scale)
            return (shown * self.source.log_density_terms(x0, scale)).flatten(1).sum(1)

        velocity = flow.guide(self.network, condition)
        if probes is None:
            divergence, n_estimates = flow.exact_divergence(velocity, scale.numel()), 1
        else:
            divergence, n_estimates = flow.hutchinson_divergence(velocity, probes), len(probes)
        result = flow.log_likelihood(
            divergence,
            x,
            flow.time_grid(self.n_steps, self.first_time, device=x.device, dtype=x.dtype),
            source_log_density,
            self.solver,
            n_estimates=n_estimates,
        )
        return result.log_density, result.standard_error


def mixture_density(
    density: CodeDensity, labels: LabelEncoder, codes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-density of codes under the mixture over classes, by their shares in training, and its standard error."""
    present = labels.shares > 0
    device = density.source_scale.device
    vectors = [torch.as_tensor(labels.encode(label, len(codes)), device=device) for label in labels.classes[present]]
    parts = [density(codes, vector) for vector in vectors]
    joint = np.array([part[0] for part in parts]) + np.log(labels.shares[present])[:, None]
    total = np.logaddexp.reduce(joint, axis=0)
    # all classes share the probes, so their errors may add up
    return total, (np.exp(joint - total) * np.array([part[1] for part in parts])).sum(axis=0)
