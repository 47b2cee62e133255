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
from flowmatch.preprocessing import Container, LabelEncoder, TableContainer


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
    code_shape : tuple of int
        Shape of a sample's noise.
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
        code_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.network, self.decoder, self.condition = network, decoder, condition
        self.solver, self.guidance_scale, self.code_shape = solver, guidance_scale, code_shape
        self.register_buffer("times", times)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in order."""
        return ["noise"] if self.condition is None else ["noise", "condition"]

    def examples(self, n_rows: int) -> dict[str, Any]:
        """Arguments of `forward` to capture it with.

        Parameters
        ----------
        n_rows : int

        Returns
        -------
        dict of str to Tensor, or to a tuple of them
        """
        noise = torch.zeros(n_rows, *self.code_shape)
        return (
            {"noise": noise}
            if self.condition is None
            else {"noise": noise, "condition": self.condition.example(n_rows)}
        )

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
    condition = None if model.conditions is None else condition_input(model.conditions)
    return Sampler(*sampler_parts(model, integration, Decoder(model.encoder), condition)).eval()


def sampler_parts(
    model: FlowModel, integration: Integration, decoder: Decoder, condition: ConditionInput | None
) -> tuple[Any, ...]:
    """What a `Sampler` of a fitted flow is made of.

    Raises
    ------
    ValueError
        For an adaptive solver.
    """
    solver, jumps = integration.solver, model.is_flow_map
    if solver in flow.ADAPTIVE:
        raise ValueError(
            f"solver={solver!r} chooses its steps while it runs, so it cannot be exported. Set one of fixed steps: "
            f"{', '.join(map(repr, flow.FIXED_STEP))}."
        )
    network = copy.deepcopy(model.network).cpu().float().eval().requires_grad_(False)
    return (
        network if solver == "flow_map" else model.as_velocity(network),
        decoder,
        condition,
        model.times(integration.n_steps, solver),
        solver,
        1.0 if jumps else integration.guidance_scale,  # flow maps have it inside
        model.code_shape,
    )


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
    noise, sample, facts = described(model, sampler)
    inputs, encoder, condition = [noise], model.encoder, sampler.condition
    if condition is not None:
        dtype = str(condition.dtype).removeprefix("torch.")
        shape = ["batch", *condition.shape]
        inputs.append({"name": "condition", "dtype": dtype, "shape": shape, **condition.describe()})
    sample |= describe_columns(encoder.container)
    if all(isinstance(name, str) for name in encoder.container.columns) and encoder.container.columns:
        sample["columns"] = plain(encoder.container.columns)
    classes = plain(model.conditions.classes) if isinstance(model.conditions, LabelEncoder) else None
    return {"inputs": inputs, "outputs": [sample], "classes": classes, **facts}


def described(model: FlowModel, sampler: Sampler) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What files say of noise and samples, and of steps and versions."""
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
    sample = {
        "name": "sample",
        "dtype": str(sampler.decoder.dtype).removeprefix("torch."),
        "shape": ["batch", *encoder.sample_shape],
        "dtypes_of_the_data": list(encoder.container.dtypes),
    }
    facts = {
        "n_steps": len(sampler.times) - 1,
        "solver": sampler.solver,
        "guidance_scale": model.kind.guidance_scale if isinstance(model.kind, FlowMap) else sampler.guidance_scale,
        "versions": {"flowmatch": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    return noise, sample, facts


def describe_columns(container: Container) -> dict[str, Any]:
    """What the numbers of a table's columns mean; nothing where they are themselves."""
    if not isinstance(container, TableContainer) or container.plain:
        return {}
    return {
        "kinds": list(container.kinds),
        "levels": [plain(levels) for levels in container.levels],
        "units": list(container.units),
        "origins": plain(container.origins),
        "zeros": list(container.zeros),
    }
