"""Files of format 3, which earlier versions wrote, as those of format 4.

JSON becomes JSON: tensors keep their names, classes are text, and whatever is damaged is left to the decoder to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

Json = Any
Tensors = Mapping[str, Tensor]

_LEFT_OUT = {"left_out": True}

_NAMED = {
    "network": {"auto": "AutoNetwork", "mlp": "MLP", "unet": "UNet", "transformer": "Transformer"},
    "path": {"linear": "LinearPath", "vp": "VariancePreservingPath", "cosine": "CosinePath"},
    "source": {"normal": "NormalSource", "matched": "MatchedSource", "sparse": "SparseSource"},
}
"""Components by their names in that format."""

_FROZEN = {
    "FlowMatchingGenerator": ("network", "path", "source", "objective", "masked_share", "categorical_features"),
}
"""Parameters that belong to the weights."""


def read_format_3(tensors: Tensors, header: Mapping[str, Json]) -> tuple[Tensors, dict[str, Json]]:
    """Tensors and header of a file of format 3 as format 4 has them.

    Raises
    ------
    ValueError
        For an estimator or component that the format does not know.
    KeyError, TypeError, AttributeError, IndexError
        For what is missing, or of another kind than JSON should be.
    """
    name, parameters = str(header.get("class")), _values(header["parameters"])
    fitted = {"FlowMatchingGenerator": _generator}
    if name not in fitted:
        raise ValueError(f"the file holds a {header.get('class')!r}, which flowmatch does not know.")
    return tensors, {"estimator": name, "parameters": parameters, "fitted": fitted[name](header, tensors)}


# -- estimators -------------------------------------------------------------------------------------------------------


def _generator(saved: Mapping[str, Json], tensors: Tensors) -> Json:
    parameters = _values(saved["parameters"])
    defaults = {"solver": "flow_map", "n_steps": 1} if saved.get("flow_map") else {}
    factory = _component("network", parameters["network"])
    model = _model(saved, parameters, tensors, factory, defaults)
    return _result(saved, model, parameters, _FROZEN["FlowMatchingGenerator"])


def _result(saved: Mapping[str, Json], model: Json, parameters: Mapping[str, Json], frozen: tuple[str, ...]) -> Json:
    fitted = saved["fitted"]
    names = [*frozen, "guidance_scale"] if saved.get("flow_map") else frozen
    return _a(
        "FitResult",
        model=model,
        history={"dict": {name: {"list": values} for name, values in fitted["history_"].items()}},
        n_iter=fitted["n_iter_"],
        parameters={"dict": {name: parameters[name] for name in names}},
    )


def _model(
    saved: Mapping[str, Json], parameters: Mapping[str, Json], tensors: Tensors, factory: Json, defaults: Json
) -> Json:
    """A flow; `parameters` are those that its weights belong to."""
    flow_map, is_masked = saved.get("flow_map", False), saved["has_cells"]  # the oldest files hold velocities
    missing = _a(
        "MissingValueModel",
        masked_share=parameters.get("masked_share", 0.0),
        guess=_optional("FactorModel", saved["factors"]),
        patterns=_optional("MissingPatterns", _arrays(saved["patterns"])),
    )
    guidance_scale = parameters.get("guidance_scale", 1.0)
    kind = _a(
        "FlowMap",
        guidance_scale=guidance_scale,
        bidirectional=saved.get("jumps_back", False),
        grid="dyadic" if saved.get("dyadic_jumps", False) else "even",
    )
    scale, conditions = tensors["source_scale"], saved["conditions"]
    blueprint = _a(
        "Blueprint",
        factory=factory,
        code_shape=list(scale.shape),
        condition_size=saved["condition_size"],
        context_channels=_context_channels(conditions, tensors),
        flow_map=flow_map,
        is_masked=is_masked,
        correction=_correction(saved.get("corrects")),
    )
    return _a(
        "FlowModel",
        blueprint=blueprint,
        kind=kind if flow_map else _a("Velocity"),
        path=_component("path", parameters["path"]),
        source=_a("FittedSource", source=_component("source", parameters["source"]), scale={"tensor": "source_scale"}),
        encoder=_encoder(saved["encoder"]),
        conditions=None if conditions is None else _conditions(conditions),
        condition_dropout=parameters.get("condition_dropout", 0.0),
        missing=missing if is_masked else None,
        defaults=_a("SamplingDefaults", **defaults),
        weights={
            "dict": {name.removeprefix("network."): {"tensor": name} for name in tensors if name.startswith("network.")}
        },
    )


def _correction(saved: Mapping[str, Json] | None) -> Json:
    if saved is None:
        return None
    return _a("Correction", guidance_scale=saved["guidance_scale"], of_flow_map=saved["flow_map"])


# -- encoders ---------------------------------------------------------------------------------------------------------


def _context_channels(conditions: Mapping[str, Json] | None, tensors: Tensors) -> Json:
    """Channels of the grid that a condition ends in."""
    if conditions is None:
        return 0
    if conditions["kind"] == "GridEncoder":
        return conditions["grids"]["encoder"]["sample_shape"][0]
    if conditions["kind"] == "WindowEncoder" and len(tensors[conditions["grid"]["tensor"]]):
        return len(tensors[conditions["weights"]["tensor"]])
    return 0


def _conditions(saved: Mapping[str, Json]) -> Json:
    return _a(saved["kind"], **{name: _field(value) for name, value in saved.items() if name != "kind"})


def _field(saved: Mapping[str, Json]) -> Json:
    if "encoder" in saved:
        return _encoder(saved["encoder"])
    if "container" in saved:
        return _container(saved["container"])
    if "arrays" in saved:
        return [_array(entry) for entry in saved["arrays"]]
    return saved["value"] if "value" in saved else _array(saved)


def _encoder(saved: Mapping[str, Json]) -> Json:
    transform, categories = _value(saved["transform"]), saved["categories"]
    transform["fields"] |= _arrays(saved["state"])
    if categories is not None:
        categories = _a("CategoryCodes", n_levels=categories["n_levels"], shares_=_array(categories["shares"]))
    return _a(
        "SampleEncoder",
        container=_container(saved["container"]),
        transform=transform,
        categories=categories,
        sample_shape=saved["sample_shape"],
        levels=[_array(levels) for levels in saved["levels"]],
        **{name: _array(saved[name]) for name in ("varying", "constants", "limits", "is_category")},
    )


def _container(saved: Mapping[str, Json]) -> Json:
    plain = {name: saved[name] for name in ("kind", "dtypes", "columns")}
    if "table" not in saved:
        return _a("Container", **plain)
    table = {
        name: _array(value)
        if isinstance(value, dict)
        else [_array(entry) if isinstance(entry, dict) else entry for entry in value]
        for name, value in saved["table"].items()
    }
    return _a("TableContainer", **plain, **table)


# -- values -----------------------------------------------------------------------------------------------------------


def _a(name: str, **fields: Json) -> dict[str, Json]:
    """An instance of a class."""
    return {"class": name, "fields": fields}


def _optional(name: str, fields: Mapping[str, Json] | None) -> Json:
    return None if fields is None else _a(name, **fields)


def _component(parameter: str, value: Json) -> Json:
    """What a parameter stands for."""
    if not isinstance(value, str):
        return value
    if value not in _NAMED[parameter]:
        raise ValueError(f"the file holds an unknown {parameter} {value!r}.")
    return _a(_NAMED[parameter][value])


def _values(saved: Mapping[str, Json]) -> dict[str, Json]:
    return {name: _value(value) for name, value in saved.items()}


def _value(saved: Json) -> Json:
    """A parameter."""
    if isinstance(saved, list):
        return [_value(entry) for entry in saved]
    if not isinstance(saved, dict) or saved == _LEFT_OUT:
        return saved
    return _a(saved["component"], **_values(saved["parameters"]))


def _arrays(saved: Mapping[str, Json] | None) -> Json:
    return None if saved is None else {name: _array(value) for name, value in saved.items()}


def _array(saved: Mapping[str, Json]) -> Json:
    return {"array": saved["tensor"]} if "tensor" in saved else {"texts": saved["list"], "dtype": saved["dtype"]}
