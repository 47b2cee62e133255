"""Log-densities of codes and rows under a fitted flow, in batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch import flow
from flowmatch.core.checks import check_count
from flowmatch.core.component import shown
from flowmatch.core.memory import Batches, check_memory
from flowmatch.core.progress import progress
from flowmatch.core.user_warnings import warn
from flowmatch.flow import FIXED_STEP
from flowmatch.model.codes import to_numpy, without_absent
from flowmatch.model.conditions import known_conditions
from flowmatch.model.flow_model import FlowModel
from flowmatch.model.integration import split_alike
from flowmatch.preprocessing import (
    LabelEncoder,
    QuantileNormal,
    SampleEncoder,
    SampleRows,
    TableContainer,
)
from flowmatch.preprocessing.categories import first_parts

Array = NDArray[np.float64]

ATOM = 0.2
"""From this share of the rows on, a single value is warned of. Columns on a grid so fine that none has as much, such as
rounded measurements, have densities as good as those of the unrounded ones: measured."""

COARSE_STEPS = 100
"""Steps of first and second order up to which single precision is enough: it adds about 1e-6 to a log-density near the
data, a hundredth of what 100 midpoint steps leave and 1e-5 of what 10 do: measured on three tables."""

_ELEMENTS_AT_ONCE = 2**20
_GRID_ELEMENTS_AT_ONCE = 2**15
"""Networks of grids hold dozens of elements for each of the sample; smaller batches are no slower."""


@dataclass(frozen=True)
class CodeDensity:
    """The density that a fitted flow gives to codes (n, *code_shape).

    Computed in double precision for grids, and where the solver is that exact: with "rk4", adaptive solvers, and more
    than `COARSE_STEPS` steps of the others.

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
    batches: Batches = field(init=False, default_factory=lambda: Batches("log-densities"), repr=False)

    def __post_init__(self) -> None:
        if self.n_probes is not None:
            check_count("n_probes", self.n_probes)
            check_memory(f"n_probes={self.n_probes}", 8.0 * self.n_probes * self.model.source.scale.numel())
        coarse = self.solver in FIXED_STEP and self.solver != "rk4" and self.n_steps <= COARSE_STEPS
        coarse &= self.model.encoder.is_table  # densities of grids add thousands of terms
        network = self.model.network if coarse else self.model.precise_network()
        object.__setattr__(self, "network", self.model.as_velocity(network))

    def __call__(self, codes: Array, condition: Tensor | None) -> tuple[Array, Array]:
        """Log-density of each row and its standard error, (n,) each; the error is 0 where the trace is exact.

        Codes of a model of missing values may be NaN; the density is that of the others.
        """
        parameter = next(self.network.parameters())
        scale = self.model.source.scale.to(parameter)
        x, condition, absent = without_absent(self.model, torch.as_tensor(codes).to(parameter), condition)
        probes = flow.divergence_probes(scale, self.n_probes)
        elements = _ELEMENTS_AT_ONCE if scale.ndim == 1 else _GRID_ELEMENTS_AT_ONCE
        rows = max(1, elements // max(64, scale.numel() * (scale.numel() if probes is None else len(probes))))
        pieces = progress(split_alike(rows, x, absent, condition), "log-densities", self.verbose)
        batch = partial(self._batch, scale=scale, probes=probes)
        parts = [part for piece in pieces for part in self.batches.run(batch, *piece)]
        density, error = (to_numpy(torch.cat(column)) for column in zip(*parts, strict=True))
        return density, error if probes is not None else np.zeros_like(density)

    def _batch(
        self, x: Tensor, absent: Tensor, condition: Tensor | None, scale: Tensor, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        def source_log_density(x0: Tensor) -> Tensor:
            terms = self.model.source.source.log_density_terms(x0, scale)
            return terms.masked_fill(absent, 0.0).flatten(1).sum(1)

        velocity = flow.guide(self.network, condition)
        if probes is None:
            divergence, n_estimates = flow.exact_divergence(velocity, scale.numel()), 1
        else:
            divergence, n_estimates = flow.hutchinson_divergence(velocity, probes), len(probes)
        result = flow.log_likelihood(
            divergence,
            x,
            self.model.times(self.n_steps, self.solver, x),
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
    _warn_of_atoms(model.encoder)
    is_mixture = y is None and isinstance(model.conditions, LabelEncoder)
    known = None if is_mixture else known_conditions(model, y, len(rows))
    for start, chunk in progress(rows.chunks(), "log-densities of all rows", density.verbose, rows.n_chunks()):
        codes = model.encoder.encode(chunk)
        if known is None:
            value, error = mixture_density(density, codes)
        else:
            value, error = density(codes, known(slice(start, start + len(chunk))))
        parts.append((value + model.encoder.log_jacobian(chunk), error))
    log_density, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return log_density, errors


def _warn_of_atoms(encoder: SampleEncoder) -> None:
    """Warn of columns of numbers in which many rows share one value, where there is no density."""
    if not isinstance(encoder.transform, QuantileNormal) or not isinstance(encoder.container, TableContainer):
        return
    found, numbers = [], np.flatnonzero(encoder.varying & ~encoder.is_category)
    for part, column in zip(first_parts(encoder.columns, len(numbers)), numbers, strict=True):
        value, share = encoder.transform.most_frequent(int(part))
        if share >= ATOM and not (encoder.rules and encoder.rules.is_split[column]):
            name, entry = encoder.container.labels[int(column)], encoder.container.entry(int(column), value)
            found.append(f"in column {name!r}, {share:.0%} of the training rows have the value {shown(entry)}")
    if found:
        warn(
            f"numbers have no log-density where many rows share one value: {'; '.join(found[:3])}. What is returned "
            "is that of a continuous stand-in, which ranks rows under this model, but is off by tenths of a nat to "
            "some nats. Name columns of few values in categorical_features, for log-probabilities."
        )


def mixture_density(density: CodeDensity, codes: Array) -> tuple[Array, Array]:
    """Log-density of codes under the mixture over classes, by their shares in training, and its standard error."""
    labels, device = density.model.conditions, density.model.device
    assert isinstance(labels, LabelEncoder)
    present = labels.shares > 0
    vectors = [torch.as_tensor(labels.encode(label, len(codes)), device=device) for label in labels.classes[present]]
    parts = [density(codes, vector) for vector in progress(vectors, "log-densities by class", density.verbose)]
    joint = np.array([part[0] for part in parts]) + np.log(labels.shares[present])[:, None]
    total = np.logaddexp.reduce(joint, axis=0)
    # all classes share the probes, so their errors may add up
    return total, (np.exp(joint - total) * np.array([part[1] for part in parts])).sum(axis=0)
