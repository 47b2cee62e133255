"""One fitted estimator <-> one ``.safetensors`` file. No pickle: reading a file can run no code of its own.

The file holds the tensors (network weights and fitted arrays) and one metadata key with sorted JSON: format version,
class, parameters, fitted state, and library versions. Identical models give identical bytes.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from flowmatch import anomaly, networks, preprocessing
from flowmatch._base import FlowEstimator, kept_numbers
from flowmatch.anomaly.members import Member, NormalFlow, new_flow
from flowmatch.base import Estimator
from flowmatch.core.checks import check_number
from flowmatch.core.tensor_file import read_tensors, write_tensors
from flowmatch.detector import FlowAnomalyDetector
from flowmatch.distillation import CorrectedVelocity, TeacherVelocity
from flowmatch.distilled import DistilledFlowMap
from flowmatch.fitting.parameters import build_network, resolve_components
from flowmatch.forecaster import ConditionalForecaster
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.persistence.packing import (
    Packer,
    Unpacker,
    pack_conditions,
    pack_encoder,
    pack_factors,
    pack_layout,
    pack_patterns,
    pack_reader,
    rebuild_conditions,
    rebuild_encoder,
    rebuild_factors,
    rebuild_layout,
    rebuild_patterns,
    rebuild_reader,
    require,
)
from flowmatch.preprocessing.calendar import HARMONICS

FORMAT_VERSION = 3
ESTIMATORS: dict[str, type[Estimator]] = {
    estimator.__name__: estimator
    for estimator in (FlowMatchingGenerator, ConditionalForecaster, FlowAnomalyDetector, DistilledFlowMap)
}
_KINDS = {
    "flow_map": "_predicts_jumps",
    "jumps_back": "_jumps_back",
    "dyadic_jumps": "_dyadic_jumps",
    "few_steps": "_few_steps",
}
"""What a flow's header tells of its network, and where the estimator keeps it."""

_VELOCITY = "network.velocity."
"""Names of the weights of a teacher that a student corrects begin so."""


def save(estimator: Estimator, path: str | os.PathLike[str], *, teacher: bool = True) -> None:
    """Write a fitted estimator; see `FlowMatchingGenerator.save` and, for `teacher`, `DistilledFlowMap.save`.

    The seconds in `history_` are left out (they load as NaN): two runs of one fit differ in them alone.
    """
    kind = FlowMatchingGenerator if type(estimator) is NormalFlow else type(estimator)
    if ESTIMATORS.get(kind.__name__) is not kind:
        raise ValueError(f"{type(estimator).__name__} is not a class of flowmatch; save it with pickle or joblib.")
    tensors: dict[str, Tensor] = {}
    pack = Packer(tensors)
    header = {
        "format_version": FORMAT_VERSION,
        "class": kind.__name__,
        "versions": {
            "flowmatch": _version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "sklearn": sklearn.__version__,
        },
        "parameters": _pack_parameters(pack, estimator),
    }
    if isinstance(estimator, FlowAnomalyDetector):
        header |= _pack_detector(pack, estimator)
    elif isinstance(estimator, DistilledFlowMap):
        header |= _pack_distilled(pack, estimator, teacher)
    elif isinstance(estimator, FlowEstimator):
        header |= _pack_flow(pack, estimator)
    write_tensors(path, tensors, header)


def _pack_parameters(pack: Packer, estimator: Estimator) -> dict[str, Any]:
    """An estimator's parameters: of those that the weights belong to the fitted ones, whatever was set since."""
    own = estimator.get_params(deep=False)
    parameters = {**own, **getattr(estimator, "_fitted_parameters", {})}
    packed = {name: pack.parameter(name, parameters[name]) for name in own if name != "estimator"}
    return packed


def _pack_distilled(pack: Packer, estimator: DistilledFlowMap, teacher: bool) -> dict[str, Any]:
    """The student, and the parameters of its teacher."""
    student, source = estimator.student_, estimator.unwrapped_estimator
    while isinstance(source, DistilledFlowMap):
        source = vars(source).get("student_", source.unwrapped_estimator)
    packed: dict[str, Any] = {
        "estimator": {"class": type(source).__name__, "parameters": _pack_parameters(pack, source)},
        "student": {"class": type(student).__name__, "parameters": _pack_parameters(pack, student)},
        "weights": ["student"],
    }
    packed["student"] |= _pack_flow(pack, student)
    known = {name: value for name, value in pack.tensors.items() if name.startswith(_VELOCITY)}
    if known:
        packed["teacher_digest"] = _digest(known.values())
        if teacher:
            packed["weights"].append("teacher")
        else:
            for name in known:
                del pack.tensors[name]
    return packed


def _digest(weights: Iterable[Tensor]) -> str:
    """Tells one teacher from another."""
    digest = hashlib.sha256()
    for value in weights:
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _pack_flow(pack: Packer, estimator: FlowEstimator) -> dict[str, Any]:
    """The fitted state of one flow."""
    encoder, conditions = estimator._encoder, estimator._conditions
    pack.tensors.update({f"network.{name}": value for name, value in estimator.network_.state_dict().items()})
    pack.tensors["source_scale"] = estimator._source_scale
    velocity = getattr(estimator.network_, "velocity", None)
    return {
        **{name: getattr(estimator, attribute) for name, attribute in _KINDS.items()},
        "corrects": None
        if not isinstance(velocity, TeacherVelocity)
        else {
            "guidance_scale": velocity.guidance_scale,
            "flow_map": isinstance(velocity.network, networks.InstantVelocity),
        },
        "has_cells": bool(estimator._is_masked),
        "patterns": pack_patterns(pack, getattr(estimator, "_patterns", None)),
        "factors": None if estimator._factors is None else pack_factors(pack, estimator._factors),
        "encoder": pack_encoder(pack, "", encoder),
        "conditions": None if conditions is None else pack_conditions(pack, conditions),
        "condition_size": 0 if conditions is None else conditions.size,
        "layout": pack_layout(estimator._layout) if isinstance(estimator, ConditionalForecaster) else None,
        "reader": pack_reader(pack, getattr(estimator, "_reader", None)),
        "boundary": list(getattr(estimator, "boundary_", ())),
        "fitted": {
            **_shape_of(estimator),
            "n_iter_": estimator.n_iter_,
            "n_parameters_": estimator.n_parameters_,
            "history_": {
                name: [math.nan] * len(values) if name == "seconds" else values
                for name, values in estimator.history_.items()
            },
        },
    }


def _pack_detector(pack: Packer, estimator: FlowAnomalyDetector) -> dict[str, Any]:
    """The flows of a detector, what its score keeps, and its threshold."""
    flows, calibration = [], estimator.calibration_
    for k, member in enumerate(estimator._members):
        tensors: dict[str, Tensor] = {f"state.{name}": value for name, value in member.state.items()}
        if member.gaps is not None and member.typical is not None:
            tensors["gaps"] = torch.from_numpy(member.gaps.reference)
            tensors["typical"] = torch.from_numpy(member.typical)
        flows.append({"surprise": member.surprise, **_pack_flow(Packer(tensors), member.flow)})
        pack.tensors.update({f"flows.{k}.{name}": value for name, value in tensors.items()})
    return {
        "flows": flows,
        "offset_": estimator.offset_,
        "classes_": pack.array("classes", estimator.classes_) if hasattr(estimator, "classes_") else None,
        "calibration": None
        if calibration is None
        else {name: pack.array(f"calibration.{name}", getattr(calibration, name)) for name in ("scores", "weights")},
        "fitted": _shape_of(estimator),
    }


def _shape_of(estimator: Any) -> dict[str, Any]:
    """What an estimator knows of its data's shape."""
    return {
        "n_features_in_": int(estimator.n_features_in_),
        "sample_shape_": list(estimator.sample_shape_),
        "feature_names_in_": getattr(estimator, "feature_names_in_", np.empty(0)).tolist(),
    }


def load(
    path: str | os.PathLike[str],
    device: Any = "auto",
    *,
    network: Callable[..., nn.Module] | None = None,
    teacher: Any = None,
) -> Any:
    """Read an estimator that `save` wrote, on any device.

    Parameters
    ----------
    path : path-like
    device : "auto", str or torch.device, default="auto"
        Where the estimator is to work from now on.
    network : callable, optional
        The network factory, for an estimator whose `network` parameter was one: a file holds no code.
    teacher : fitted estimator, optional
        The teacher of a student that was saved without the teacher's weights though it needs them.

    Returns
    -------
    The fitted estimator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not written by flowmatch, of a format this version does not know, or damaged; if it
        lacks its teacher's weights and `teacher` is not that teacher.

    Examples
    --------
    >>> import numpy as np, tempfile, os, flowmatch
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> generator = flowmatch.FlowMatchingGenerator(max_iter=10, random_state=0).fit(X)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> generator.save(path)
    >>> bool((flowmatch.load(path).sample(5, random_state=0) == generator.sample(5, random_state=0)).all())
    True
    """
    tensors, header = read_tensors(path)
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{str(path)!r} has format version {version!r}; this flowmatch ({_version()}) reads version "
            f"{FORMAT_VERSION}."
        )
    if str(header.get("class")) not in ESTIMATORS:
        raise ValueError(f"{str(path)!r} holds a {header.get('class')!r}, which flowmatch does not know.")
    try:
        if header["class"] != "DistilledFlowMap" and teacher is not None:
            raise ValueError(f"teacher is for students; {str(path)!r} holds a {header['class']}.")
        if header["class"] == "DistilledFlowMap":
            return _rebuild_distilled(header, tensors, device, network, teacher)
        return _rebuild(header, tensors, device, network)
    except KeyError as error:
        raise ValueError(f"the contents of {str(path)!r} are incomplete: {error} is missing.") from error
    except (TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"the contents of {str(path)!r} do not fit together ({type(error).__name__}: {error})."
        ) from error


def _rebuild(
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    device: Any,
    network: Callable[..., nn.Module] | None,
) -> Estimator:
    estimator = _new_estimator(header, tensors, device, network)
    if isinstance(estimator, FlowAnomalyDetector):
        _rebuild_detector(estimator, header, tensors)
    elif isinstance(estimator, FlowEstimator):
        _rebuild_flow(estimator, header, tensors)
    return estimator


def _new_estimator(
    saved: Mapping[str, Any], tensors: Mapping[str, Tensor], device: Any, network: Callable[..., nn.Module] | None
) -> Estimator:
    """An unfitted estimator of the class and with the parameters that a file names."""
    parameters = Unpacker(tensors).parameters(saved["parameters"])
    if network is not None:
        parameters["network"] = network
    elif "network" not in parameters:
        raise ValueError(
            "the model was built by a network factory, which a file cannot hold: call load(path, network=factory)."
        )
    return ESTIMATORS[saved["class"]](**{**parameters, "device": device})


def _rebuild_distilled(
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    device: Any,
    network: Callable[..., nn.Module] | None,
    teacher: Any,
) -> DistilledFlowMap:
    source = _new_estimator(header["estimator"], tensors, device, network)
    estimator = DistilledFlowMap(source, **Unpacker(tensors).parameters(header["parameters"]))
    estimator._check_parameters()
    student = _new_estimator(header["student"], tensors, device, network)
    require(isinstance(student, FlowEstimator), "student")
    if "teacher_digest" in header and (teacher is not None or "teacher" not in header["weights"]):
        tensors = {**tensors, **_weights_of_teacher(teacher, header["teacher_digest"])}
    elif teacher is not None:
        raise ValueError(
            "the file holds all that its student needs, and nothing to tell a teacher by: leave teacher out."
        )
    assert isinstance(student, FlowEstimator)
    _rebuild_flow(student, header["student"], tensors)
    estimator.student_, estimator.teacher_ = student, teacher
    return estimator


def _weights_of_teacher(teacher: Any, digest: str) -> dict[str, Tensor]:
    """The weights that a file was saved without."""
    if teacher is None:
        raise ValueError(
            "the file holds a student that corrects its teacher's velocity, but not the teacher (it was saved with "
            "teacher=False): call load(path, teacher=...) with the estimator it was distilled from."
        )
    if not isinstance(teacher, (FlowEstimator, DistilledFlowMap)):
        raise ValueError(f"teacher must be the estimator that the student was distilled from, got {teacher!r}.")
    check_is_fitted(teacher)
    teacher = getattr(teacher, "student_", teacher)
    if isinstance(teacher.network_, CorrectedVelocity):  # a student of such a student holds the same velocity
        known, prefix = teacher.network_.velocity, _VELOCITY
    else:
        known, prefix = teacher.network_, f"{_VELOCITY}network.{'flow_map.' if teacher._predicts_jumps else ''}"
    weights = {f"{prefix}{name}": value for name, value in known.state_dict().items()}
    if _digest(weights.values()) != digest:
        raise ValueError("this teacher's weights are not those that the student was distilled from.")
    return weights


def _rebuild_flow(estimator: FlowEstimator, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    unpack = Unpacker(tensors)
    resolve_components(estimator)
    if hasattr(estimator, "guidance_scale"):
        check_number("guidance_scale", estimator.guidance_scale, -math.inf)
    kinds = {attribute: saved.get(name, False) for name, attribute in _KINDS.items()}  # older files hold velocities
    require(all(isinstance(value, bool) for value in kinds.values()), "kind of network")
    estimator._freeze_parameters(fresh=True, jumps=kinds["_predicts_jumps"])
    for attribute, value in kinds.items():
        setattr(estimator, attribute, value)
    _set_history(estimator, saved["fitted"])
    estimator._encoder = rebuild_encoder(saved["encoder"], unpack)
    if not isinstance(estimator, ConditionalForecaster):
        _set_shape(estimator, saved["fitted"])
        require(estimator._encoder.sample_shape == estimator.sample_shape_, "sample_shape")
    estimator.preprocessing_ = estimator._encoder.transform
    estimator._conditions = rebuild_conditions(saved["conditions"], saved["condition_size"], unpack)
    if isinstance(estimator._conditions, preprocessing.LabelEncoder):
        estimator.classes_ = estimator._conditions.classes
    if isinstance(estimator, ConditionalForecaster):
        _set_layout(estimator, saved, unpack)
    require(type(saved["has_cells"]) is bool and (estimator._encoder.is_table or not saved["has_cells"]), "has_cells")
    estimator._is_masked = saved["has_cells"]
    if saved["factors"] is not None:
        estimator._factors = rebuild_factors(saved["factors"], unpack, estimator._encoder.code_shape[0])
    if isinstance(estimator, FlowMatchingGenerator):
        size, n_codes = saved["condition_size"], estimator._encoder.code_shape[0]
        estimator._patterns = rebuild_patterns(saved["patterns"], unpack, n_codes, size)
    module = _new_network(estimator, saved.get("corrects"))
    module.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    estimator._trainable = [p.requires_grad for p in module.parameters()]
    estimator.network_ = module.eval().requires_grad_(False)
    estimator._source_scale = tensors["source_scale"]
    require(estimator._source_scale.shape == estimator._encoder.code_shape, "source_scale")
    require(estimator._source_scale.dtype == torch.float32, "source_scale")
    estimator._to_device(estimator.device)


def _set_layout(estimator: ConditionalForecaster, saved: Mapping[str, Any], unpack: Unpacker) -> None:
    """What a forecaster knows of its states, which must fit its encoders."""
    layout, encoder = rebuild_layout(saved["layout"]), estimator._conditions
    reader = rebuild_reader(saved["reader"], unpack)
    n_columns = layout.state_shape[0] if reader is None else reader.n_columns
    require(reader is None or layout.state_shape == (len(reader.numbers.names),), "layout")
    require(isinstance(encoder, preprocessing.WindowEncoder), "kind of conditions")
    assert isinstance(encoder, preprocessing.WindowEncoder)
    require(encoder.target_shape == estimator._encoder.sample_shape, "layout")
    require((len(encoder.mean), *encoder.grid.tolist()) == layout.state_shape, "layout")
    require((encoder.n_lags, encoder.horizon) == (layout.n_lags, layout.horizon), "layout")
    require(tuple(encoder.targets.tolist()) == layout.targets, "layout")
    require(tuple(encoder.known.tolist()) == layout.known, "layout")
    require(math.prod(layout.forecast_shape) == encoder.target_mean.size * math.prod(layout.grid), "layout")
    require(encoder.n_calendar == 2 * HARMONICS * len(layout.cycles), "layout")
    names, boundary = saved["fitted"]["feature_names_in_"], saved["boundary"]
    require(isinstance(names, list) and len(names) in (0, n_columns), "feature_names_in_")
    require(len(boundary) == len(layout.grid) and set(boundary) <= {"periodic", "wall"}, "boundary")
    estimator._reader = reader
    estimator._set_layout(layout, tuple(names))
    estimator.boundary_ = tuple(boundary)


def _new_network(estimator: FlowEstimator, corrects: Mapping[str, Any] | None) -> nn.Module:
    """The network of a fitted estimator, before its weights are loaded."""

    def build(flow_map: bool) -> nn.Module:
        factory, shape = estimator._network_factory(), estimator._encoder.code_shape
        return build_network(factory, shape, estimator._conditions, flow_map=flow_map, is_masked=estimator._is_masked)

    network = build(estimator._predicts_jumps)
    if corrects is None:
        return network
    velocity = build(corrects["flow_map"])
    velocity = networks.InstantVelocity(velocity) if corrects["flow_map"] else velocity
    scale = check_number("guidance_scale", corrects["guidance_scale"], -math.inf)
    return CorrectedVelocity(TeacherVelocity(velocity, scale, kept_numbers(estimator)), network)


def _rebuild_detector(estimator: FlowAnomalyDetector, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    unpack, score = Unpacker(tensors), estimator._check_parameters()
    resolve_components(estimator)
    estimator._freeze_parameters()
    _set_shape(estimator, saved["fitted"])
    if saved["classes_"] is not None:
        estimator.classes_ = unpack.array(saved["classes_"])
    members = []
    for k, part in enumerate(saved["flows"]):
        prefix = f"flows.{k}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        state = {name[6:]: value for name, value in own.items() if name.startswith("state.")}
        flow = new_flow(estimator, score)
        _rebuild_flow(flow, part, own)
        require(flow.sample_shape_ == estimator.sample_shape_, "sample_shape")
        require(isinstance(part["surprise"], float), "surprise")
        members.append(Member(flow, score, state, part["surprise"], *_rebuild_gaps(flow, own)))
    require(len(members) > 0, "flows")
    require(isinstance(saved["offset_"], (int, float)), "offset_")
    estimator._members, estimator.offset_ = members, float(saved["offset_"])
    calibration = saved["calibration"]
    estimator.calibration_ = None
    if calibration is not None:
        scores, weights = (unpack.array(calibration[name]) for name in ("scores", "weights"))
        require(scores.ndim == 1 and scores.shape == weights.shape and len(scores) > 0, "calibration")
        require(scores.dtype == weights.dtype == np.float64, "calibration")
        estimator.calibration_ = anomaly.Calibration(scores, weights)
    try:
        estimator._scores(preprocessing.SampleRows(np.zeros((1, *estimator.sample_shape_))))
    except ValueError as error:
        raise ValueError(f"the file is damaged: what its score keeps does not fit the rest ({error}).") from error


def _rebuild_gaps(
    flow: NormalFlow, tensors: Mapping[str, Tensor]
) -> tuple[anomaly.Gaps | None, NDArray[np.float64] | None]:
    """What a member knows of cells that are missing."""
    if not flow._encoder.is_table:
        return None, None
    reference, typical = tensors["gaps"], tensors["typical"]
    require(reference.ndim == 2 and reference.shape[1:] == flow._encoder.code_shape, "gaps")
    require(len(reference) > 0 and reference.dtype == torch.float32, "gaps")
    require(typical.shape == flow.sample_shape_ and typical.dtype == torch.float64, "typical")
    require(bool(reference.isfinite().all() and typical.isfinite().all()), "gaps")
    return anomaly.Gaps(reference.numpy()), typical.numpy()


def _set_shape(estimator: Any, fitted: Mapping[str, Any]) -> None:
    shape, names = fitted["sample_shape_"], fitted["feature_names_in_"]
    require(isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape), "sample_shape_")
    require(type(fitted["n_features_in_"]) is int and shape[:1] == [fitted["n_features_in_"]], "n_features_in_")
    require(isinstance(names, list) and len(names) in (0, shape[0]), "feature_names_in_")
    estimator.n_features_in_, estimator.sample_shape_ = fitted["n_features_in_"], tuple(shape)
    if names:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)


def _set_history(estimator: FlowEstimator, fitted: Mapping[str, Any]) -> None:
    for name in ("n_iter_", "n_parameters_"):
        require(type(fitted[name]) is int and fitted[name] >= 0, name)
        setattr(estimator, name, fitted[name])
    history = fitted["history_"]
    require(isinstance(history, dict) and all(isinstance(values, list) for values in history.values()), "history_")
    estimator.history_ = history


def _version() -> str:
    from flowmatch import __version__

    return __version__
