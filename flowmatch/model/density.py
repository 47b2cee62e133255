"""Log-densities of codes and rows under a fitted flow, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch import flow
from flowmatch.core.checks import check_count
from flowmatch.core.entries import with_entries
from flowmatch.core.progress import progress
from flowmatch.model.conditions import known_conditions
from flowmatch.model.flow_model import FlowModel
from flowmatch.preprocessing import LabelEncoder, SampleRows

Array = NDArray[np.float64]

_ELEMENTS_AT_ONCE = 2**20
_GRID_ELEMENTS_AT_ONCE = 2**15
"""Networks of grids hold dozens of elements for each of the sample; smaller batches are no slower."""


@dataclass(frozen=True)
class CodeDensity:
    """The density that a fitted flow gives to codes (n, *code_shape), computed in double precision.

    Parameters
    ----------
    model : FlowModel
    solver, n_steps
        Of the integration.
    n_probes : int or None
        None: exact up to 64 elements a sample, 32 probes beyond.
    verbose : bool or int
        Show a progress bar.
    """

    model: FlowModel
    solver: str
    n_steps: int
    n_probes: int | None = None
    verbose: bool | int = False
    network: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        if self.n_probes is not None:
            check_count("n_probes", self.n_probes)
        object.__setattr__(self, "network", self.model.as_velocity(self.model.precise_network()))

    def __call__(self, codes: Array, condition: Tensor | None) -> tuple[Array, Array]:
        """Log-density of each row and its standard error, (n,) each; the error is 0 where the trace is exact.

        Codes of a model of missing values may be NaN; the density is that of the others.
        """
        parameter = next(self.network.parameters())
        scale = self.model.source.scale.to(parameter)
        x = torch.as_tensor(codes, dtype=parameter.dtype, device=parameter.device)
        shown = None
        if self.model.missing is not None and bool((absent := x.isnan()).any()):
            shown, x = 1 - absent.to(x), x.nan_to_num(0.0)
            condition = with_entries(None if condition is None else condition.to(x), x, torch.zeros_like(x), 1 - shown)
        probes = flow.divergence_probes(scale, self.n_probes)
        elements = _ELEMENTS_AT_ONCE if scale.ndim == 1 else _GRID_ELEMENTS_AT_ONCE
        rows = max(1, elements // max(64, scale.numel() * (scale.numel() if probes is None else len(probes))))
        nothing = [None] * -(-len(x) // rows)
        conditions = nothing if condition is None else condition.to(x).split(rows)
        masks = nothing if shown is None else shown.split(rows)
        batches = list(zip(x.split(rows), conditions, masks, strict=True))
        pieces = progress(batches, "log-densities", self.verbose)
        parts = [self._batch(*piece, scale, probes) for piece in pieces]
        density, error = (torch.cat(column).cpu().double().numpy() for column in zip(*parts, strict=True))
        return density, error if probes is not None else np.zeros_like(density)

    def _batch(
        self, x: Tensor, condition: Tensor | None, shown: Tensor | None, scale: Tensor, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        source = self.model.source.source

        def source_log_density(x0: Tensor) -> Tensor:
            if shown is None:
                return source.log_density(x0, scale)
            return (shown * source.log_density_terms(x0, scale)).flatten(1).sum(1)

        velocity = flow.guide(self.network, condition)
        if probes is None:
            divergence, n_estimates = flow.exact_divergence(velocity, scale.numel()), 1
        else:
            divergence, n_estimates = flow.hutchinson_divergence(velocity, probes), len(probes)
        result = flow.log_likelihood(
            divergence,
            x,
            flow.time_grid(self.n_steps, self.model.path.first_time, device=x.device, dtype=x.dtype),
            source_log_density,
            self.solver,
            n_estimates=n_estimates,
        )
        return result.log_density, result.standard_error


def score_rows(density: CodeDensity, rows: SampleRows, y: Any) -> tuple[Array, Array]:
    """Log-density of rows in the data's own units and its standard error, (n,) each.

    Without conditions, a model of labels gives the density of the mixture over its classes.
    """
    model, parts = density.model, []
    labels = model.conditions if y is None and isinstance(model.conditions, LabelEncoder) else None
    known: Callable[[slice], Tensor | None] | None = None
    if labels is None:
        known = known_conditions(model, y, len(rows))
    for start, chunk in progress(rows.chunks(), "log-densities of all rows", density.verbose, rows.n_chunks()):
        codes = model.encoder.encode(chunk)
        if labels is not None:
            value, error = mixture_density(density, labels, codes)
        else:
            assert known is not None
            value, error = density(codes, known(slice(start, start + len(chunk))))
        parts.append((value + model.encoder.log_jacobian(chunk), error))
    log_density, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return log_density, errors


def mixture_density(density: CodeDensity, labels: LabelEncoder, codes: Array) -> tuple[Array, Array]:
    """Log-density of codes under the mixture over classes, by their shares in training, and its standard error."""
    present = labels.shares > 0
    device = density.model.device
    vectors = [torch.as_tensor(labels.encode(label, len(codes)), device=device) for label in labels.classes[present]]
    parts = [density(codes, vector) for vector in progress(vectors, "log-densities by class", density.verbose)]
    joint = np.array([part[0] for part in parts]) + np.log(labels.shares[present])[:, None]
    total = np.logaddexp.reduce(joint, axis=0)
    # all classes share the probes, so their errors may add up
    return total, (np.exp(joint - total) * np.array([part[1] for part in parts])).sum(axis=0)
