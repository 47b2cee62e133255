"""A fitted estimator's way from noise to samples as one module."""

from __future__ import annotations

import copy
import platform
from typing import Any

import torch
from torch import Tensor, nn

from flowmatch import flow
from flowmatch.core.version import __version__
from flowmatch.export.conditions import ConditionInput, condition_input, plain
from flowmatch.export.decoding import Decoder
from flowmatch.model import FlowMap, FlowModel, Integration
from flowmatch.preprocessing import LabelEncoder, TableContainer


class Sampler(nn.Module):
    """Noise (B, *code_shape), and conditions if the model has any, to samples (B, *sample_shape).

    Parameters
    ----------
    network : nn.Module
        A velocity ``network(x, t, vector)``, or a flow map ``network(x, t, vector, step)`` if it is to jump.
    decoder : Decoder
        From codes to samples in the data's own units.
    condition : ConditionInput or None
        From conditions to vectors (B, size); None for an unconditional model.
    times : Tensor of shape (n_steps + 1,)
        From 0 (noise) to 1 (data).
    solver : str
        "flow_map" (jumps) or a fixed-step solver.
    guidance_scale : float
        Of classifier-free guidance; flow maps have it inside.
    """

    times: Tensor

    def __init__(
        self,
        network: nn.Module,
        decoder: Decoder,
        condition: ConditionInput | None,
        times: Tensor,
        solver: str,
        guidance_scale: float,
    ) -> None:
        super().__init__()
        self.network, self.decoder, self.condition = network, decoder, condition
        self.solver, self.guidance_scale = solver, guidance_scale
        self.register_buffer("times", times)

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        vector = None if self.condition is None else self.condition(condition)
        return self.decoder(self.carry(noise, vector))

    def carry(self, noise: Tensor, vector: Tensor | None) -> Tensor:
        """Codes of noise, given the vectors of conditions.

        Parameters
        ----------
        noise : Tensor of shape (B, *code_shape)
        vector : Tensor of shape (B, size) or None

        Returns
        -------
        Tensor of shape (B, *code_shape)
        """
        if self.solver == "flow_map":
            return flow.follow(lambda x, t, step: self.network(x, t, vector, step), noise, self.times)
        return flow.integrate(flow.guide(self.network, vector, self.guidance_scale), noise, self.times, self.solver)


def sampler_of(model: FlowModel, integration: Integration) -> Sampler:
    """The sampler of a fitted flow, in float32 on the CPU; the model stays as it is.

    Parameters
    ----------
    model : FlowModel
    integration : Integration
        Solver, steps and guidance.

    Returns
    -------
    Sampler
        In evaluation mode.

    Raises
    ------
    ValueError
        For an adaptive solver, and a preprocessing that is a class of the user's own.
    """
    solver, jumps = integration.solver, model.is_flow_map
    if solver in flow.ADAPTIVE:
        raise ValueError(
            f"solver={solver!r} chooses its steps while it runs, so it cannot be exported. Set one of fixed steps: "
            f"{', '.join(map(repr, flow.FIXED_STEP))}."
        )
    network = copy.deepcopy(model.network).cpu().float().eval().requires_grad_(False)
    return Sampler(
        network if solver == "flow_map" else model.as_velocity(network),
        Decoder(model.encoder),
        None if model.conditions is None else condition_input(model.conditions),
        model.times(integration.n_steps, solver),
        solver,
        1.0 if jumps else integration.guidance_scale,  # flow maps have it inside
    ).eval()


def describe_sampler(model: FlowModel, sampler: Sampler) -> dict[str, Any]:
    """What the file says of itself: inputs, output, noise, steps, classes, names of columns, versions.

    Parameters
    ----------
    model : FlowModel
    sampler : Sampler
        That of the model.

    Returns
    -------
    dict
        Of what JSON can hold.
    """
    source, encoder = model.source.source, model.encoder
    is_standard = isinstance(source, flow.NormalSource)
    noise = {
        "name": "noise",
        "dtype": "float32",
        "shape": ["batch", *encoder.code_shape],
        "distribution": "independent N(0, 1)" if is_standard else repr(source),
    }
    if not is_standard:
        noise["scale"] = model.source.scale.tolist()
    inputs = [noise]
    if sampler.condition is not None:
        condition, dtype = sampler.condition, str(sampler.condition.dtype).removeprefix("torch.")
        shape = ["batch", *condition.shape]
        inputs.append({"name": "condition", "dtype": dtype, "shape": shape, **condition.describe()})
    sample = {
        "name": "sample",
        "dtype": str(sampler.decoder.dtype).removeprefix("torch."),
        "shape": ["batch", *encoder.sample_shape],
        "dtypes_of_the_data": list(encoder.container.dtypes),
    }
    container = encoder.container
    if isinstance(container, TableContainer) and not container.plain:
        sample["kinds"] = list(container.kinds)
        sample["levels"] = [plain(levels) for levels in container.levels]
        sample["units"], sample["origins"] = list(container.units), plain(container.origins)
        sample["zeros"] = list(container.zeros)
    if all(isinstance(name, str) for name in container.columns) and container.columns:
        sample["columns"] = plain(container.columns)
    return {
        "inputs": inputs,
        "outputs": [sample],
        "classes": plain(model.conditions.classes) if isinstance(model.conditions, LabelEncoder) else None,
        "n_steps": len(sampler.times) - 1,
        "solver": sampler.solver,
        "guidance_scale": model.kind.guidance_scale if isinstance(model.kind, FlowMap) else sampler.guidance_scale,
        "versions": {"flowmatch": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
