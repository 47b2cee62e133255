"""Files of format 3, which earlier versions wrote, as those of format 4.

JSON becomes JSON: tensors keep their names, classes are text, and whatever is damaged is left to the decoder to refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Json = Any
Tensors = Mapping[str, Tensor]

_LEFT_OUT = {"left_out": True}

_NAMED = {
    "network": {"auto": "AutoNetwork", "mlp": "MLP", "unet": "UNet", "transformer": "Transformer"},
    "path": {"linear": "LinearPath", "vp": "VariancePreservingPath", "cosine": "CosinePath"},
    "source": {"normal": "NormalSource", "matched": "MatchedSource", "sparse": "SparseSource"},
    "score": {},  # "one_step" was OneStep
}
"""Components by their names in that format."""

_OF_WEIGHTS = ("network", "path", "source")
_OF_ROWS = ("objective", "masked_share", "categorical_features")
_OF_STATES = ("n_lags", "horizon", "target", "boundary", "exogenous_columns", "known_columns", "calendar")
"""Parameters that belong to the weights."""

_OF_A_MACHINE = ("checkpoint_folder", "callbacks")
"""Options that files are not to decide."""

_FEW_WINDOWS = 200
"""With fewer windows a forecaster had the smaller of two networks."""


def teacher_of_format_3(header: Mapping[str, Json]) -> dict[str, Json] | None:
    """What identifies a student's teacher, whose weights may not be in the file."""
    if "teacher_digest" not in header:
        return None
    included = "teacher" in header["weights"]
    return {"prefix": "network.velocity.", "digest": header["teacher_digest"], "included": included}


def read_format_3(tensors: Tensors, header: Mapping[str, Json]) -> dict[str, Json]:
    """The header of a file of format 3 as format 4 has it.

    Raises
    ------
    ValueError
        For an estimator that the format does not know.
    KeyError, TypeError, AttributeError, IndexError
        For what is missing, or of another kind than JSON should be.
    """
    name = str(header.get("class"))
    if name not in _READERS:
        raise ValueError(f"the file names an unknown estimator {header.get('class')!r}.")
    parameters = _value(header["parameters"])
    fitted = _READERS[name](header, parameters, tensors)
    if name == "FlowAnomalyDetector":
        parameters["method"] = parameters.pop("score")
    if name == "DistilledFlowMap":
        source = header["estimator"]
        parameters["estimator"] = {"estimator": source["class"], "parameters": _value(source["parameters"])}
    return {"estimator": name, "parameters": parameters, "fitted": fitted}


# -- estimators -------------------------------------------------------------------------------------------------------


def _generator(saved: Json, parameters: Json, tensors: Tensors) -> Json:
    factory = _component("network", parameters["network"])
    return _flow(saved, parameters, tensors, factory, _defaults(saved, parameters, 10), _OF_ROWS)


def _forecaster(saved: Json, parameters: Json, tensors: Tensors) -> Json:
    layout, reader, boundary = saved["layout"], saved["reader"], saved["boundary"]
    network, factory = parameters["network"], _component("network", parameters["network"])
    if network == "auto":
        few = saved["conditions"]["n_windows"]["value"] < _FEW_WINDOWS
        mlp = _a("MLP", width=64, depth=2, dropout=0.2) if few else _a("MLP", width=128, depth=3, dropout=0.1)
        factory = _a("UNet") if layout["state_shape"][1:] else mlp
    if isinstance(network, str) and factory["class"] == "UNet":
        factory["fields"]["boundary"] = ["zeros" if edge == "wall" else edge for edge in boundary]
    if reader is not None:
        means, holed = _value(reader["means"]), _value(reader["holed"])
        numbers = _a("TableNumbers", container=_container(reader["container"]), means=means, holed=holed)
        reader = _a("TableReader", numbers=numbers, exogenous=reader["exogenous"], known=reader["known"])
    return _a(
        "FittedForecaster",
        flow=_flow(saved, parameters, tensors, factory, _defaults(saved, parameters, 5), _OF_STATES),
        layout=_a("Layout", **layout),
        reader=reader,
        columns=saved["fitted"]["feature_names_in_"],
        boundary=boundary,
    )


def _detector(saved: Json, parameters: Json, tensors: Tensors) -> Json:
    score, factory = _component("score", parameters["score"]), _component("network", parameters["network"])
    parameters = {**parameters}
    if score["class"] == "Combined" and not isinstance(parameters["contamination"], str):
        score["fields"]["with_outliers"] = True
    if score["class"] == "Reconstruction":
        factory = _a("Bottleneck", network=factory, size=score["fields"].get("size"))
        parameters["network"] = factory
    solver, n_steps = parameters["solver"], parameters["n_steps"]
    defaults = {"solver": "midpoint" if solver == "auto" else solver, "n_steps": n_steps, "velocity_steps": n_steps}
    members, names = [], saved["fitted"]["feature_names_in_"]
    for k, part in enumerate(saved["flows"]):
        prefix = f"flows.{k}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        container = part["encoder"]["container"]
        if names and container["kind"] == "numpy":  # flows did not know what tables of numbers came in
            container |= {"kind": "dataframe", "columns": names, "dtypes": container["dtypes"] * len(names)}
        member = _a(
            "Member",
            flow=_flow(part, parameters, own, factory, defaults),
            score=score,
            surprise=part["surprise"],
            state=_tensors(own, "state."),
            gaps=_a("Gaps", reference={"array": "gaps"}) if "gaps" in own else None,
            typical={"array": "typical"} if "typical" in own else None,
        )
        members.append(_prefixed(member, prefix))
    return _a(
        "FittedDetector",
        members=members,
        offset=saved["offset_"],
        calibration=saved["calibration"] and _a("Calibration", **_value(saved["calibration"])),
        classes=_value(saved["classes_"]),
    )


def _student(saved: Json, parameters: Json, tensors: Tensors) -> Json:
    student = saved["student"]
    return _a("FittedStudent", flow=_READERS[student["class"]](student, _value(student["parameters"]), tensors))


_READERS: dict[str, Callable[[Json, Json, Tensors], Json]] = {
    "FlowMatchingGenerator": _generator,
    "ConditionalForecaster": _forecaster,
    "FlowAnomalyDetector": _detector,
    "DistilledFlowMap": _student,
}


# -- flows ------------------------------------------------------------------------------------------------------------


def _defaults(saved: Json, parameters: Json, measured: int) -> Json:
    """Solver and steps where a call does not say; those of students were parameters."""
    few, flow_map = saved.get("few_steps"), saved.get("flow_map")
    n_steps = parameters["n_steps"] if few else 1 if flow_map else measured
    solver = "flow_map" if flow_map else parameters["solver"] if few else "midpoint"
    return {"solver": solver, "n_steps": n_steps, "velocity_steps": measured}


def _flow(
    saved: Json, parameters: Json, tensors: Tensors, factory: Json, defaults: Json, more: tuple[str, ...] = ()
) -> Json:
    """A fit; `parameters` are those that its weights belong to, among others."""
    fitted = saved["fitted"]
    names = [*_OF_WEIGHTS, *more, *["guidance_scale"] * bool(saved.get("flow_map") and "guidance_scale" in parameters)]
    return _a(
        "FitResult",
        model=_model(saved, parameters, tensors, factory, defaults),
        history={"dict": {name: {"list": values} for name, values in fitted["history_"].items()}},
        n_iter=fitted["n_iter_"],
        parameters={"dict": {name: parameters[name] for name in names}},
    )


def _model(saved: Json, parameters: Json, tensors: Tensors, factory: Json, defaults: Json) -> Json:
    flow_map, is_masked = saved.get("flow_map", False), saved["has_cells"]  # the oldest files hold velocities
    missing = _a(
        "MissingValueModel",
        masked_share=parameters.get("masked_share", 0.0),
        guess=saved["factors"] and _a("FactorModel", **saved["factors"]),
        patterns=saved["patterns"] and _a("MissingPatterns", **_value(saved["patterns"])),
    )
    kind = _a(
        "FlowMap",
        guidance_scale=parameters.get("guidance_scale", 1.0),
        bidirectional=saved.get("jumps_back", False),
        grid="dyadic" if saved.get("dyadic_jumps", False) else "even",
    )
    conditions, corrects = saved["conditions"], saved.get("corrects")
    encoded = conditions and {name: _value(value) for name, value in conditions.items() if name != "kind"}
    blueprint = _a(
        "Blueprint",
        factory=factory,
        code_shape=list(tensors["source_scale"].shape),
        condition_size=saved["condition_size"],
        context_channels=_context_channels(conditions, tensors),
        flow_map=flow_map,
        is_masked=is_masked,
        correction=corrects
        and _a("Correction", guidance_scale=corrects["guidance_scale"], of_flow_map=corrects["flow_map"]),
    )
    source = _component("source", parameters["source"])
    return _a(
        "FlowModel",
        blueprint=blueprint,
        kind=kind if flow_map else _a("VelocityField"),
        path=_component("path", parameters["path"]),
        source=_a("FittedSource", source=source, scale={"tensor": "source_scale"}),
        encoder=_encoder(saved["encoder"]),
        conditions=conditions and _a(conditions["kind"], **encoded),
        condition_dropout=parameters.get("condition_dropout", 0.0),
        missing=missing if is_masked else None,
        defaults=_a("SamplingDefaults", **defaults),
        weights=_tensors(tensors, "network."),
    )


# -- encoders ---------------------------------------------------------------------------------------------------------


def _context_channels(conditions: Json, tensors: Tensors) -> Json:
    """Channels of the grid that a condition ends in."""
    kind = None if conditions is None else conditions["kind"]
    if kind == "GridEncoder":
        return conditions["grids"]["encoder"]["sample_shape"][0]
    if kind == "WindowEncoder" and len(tensors[conditions["grid"]["tensor"]]):
        return len(tensors[conditions["weights"]["tensor"]])
    return 0


def _encoder(saved: Json) -> Json:
    transform, categories = _value(saved["transform"]), saved["categories"]
    transform["fields"] |= _value(saved["state"])
    codes = categories and _a("CategoryCodes", n_levels=categories["n_levels"], shares_=_value(categories["shares"]))
    plain = ("sample_shape", "levels", "varying", "constants", "limits", "is_category")
    return _a(
        "SampleEncoder",
        container=_container(saved["container"]),
        transform=transform,
        categories=codes,
        **{name: _value(saved[name]) for name in plain},
    )


def _container(saved: Json) -> Json:
    plain = {name: saved[name] for name in ("kind", "dtypes", "columns")}
    return _a("TableContainer", **plain, **_value(saved["table"])) if "table" in saved else _a("Container", **plain)


# -- values -----------------------------------------------------------------------------------------------------------


def _a(name: str, /, **fields: Json) -> dict[str, Json]:
    """An instance of a class."""
    return {"class": name, "fields": fields}


def _component(parameter: str, value: Json) -> Json:
    """What a parameter stands for; the decoder refuses unknown names."""
    return _a(_NAMED[parameter].get(value, value.title().replace("_", ""))) if isinstance(value, str) else value


def _value(saved: Json) -> Json:
    """Parameters, components, encoders and arrays."""
    if isinstance(saved, list):
        return [_value(entry) for entry in saved]
    if not isinstance(saved, dict) or saved == _LEFT_OUT:
        return saved
    if "component" in saved:
        parameters = {key: value for key, value in saved["parameters"].items() if key not in _OF_A_MACHINE}
        return _a(saved["component"], **_value(parameters))
    if "encoder" in saved:
        return _encoder(saved["encoder"])
    if "container" in saved:
        return _container(saved["container"])
    if "arrays" in saved or "value" in saved:
        return _value(saved.get("arrays", saved.get("value")))
    if "tensor" in saved:
        return {"array": saved["tensor"]}
    if "dtype" in saved:
        return {"texts": saved["list"], "dtype": saved["dtype"]}
    return {name: _value(entry) for name, entry in saved.items()}


def _tensors(tensors: Tensors, prefix: str) -> Json:
    """A dict of the tensors whose names begin so."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {"dict": {name.removeprefix(prefix): {"tensor": name} for name in names}}


def _prefixed(value: Json, prefix: str) -> Json:
    """A value whose tensors have longer names."""
    if isinstance(value, list):
        return [_prefixed(entry, prefix) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        key: f"{prefix}{entry}" if key in ("array", "tensor") and isinstance(entry, str) else _prefixed(entry, prefix)
        for key, entry in value.items()
    }
