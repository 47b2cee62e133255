"""One fitted estimator <-> one ``.safetensors`` file. No pickle: reading a file can run no code of its own.

The file holds the tensors (network weights and fitted arrays) and one metadata key with sorted JSON: format version,
class, parameters, fitted state, and library versions. Identical models give identical bytes.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch import flow, networks, objectives, preprocessing, training
from flowmatch._base import FlowEstimator
from flowmatch._checks import check_number
from flowmatch._component import Component
from flowmatch._parameters import build_network, resolve_components, resolve_network
from flowmatch._tensor_file import read_tensors, write_tensors
from flowmatch.generator import FlowMatchingGenerator

FORMAT_VERSION = 2
ESTIMATORS: dict[str, type[FlowEstimator]] = {"FlowMatchingGenerator": FlowMatchingGenerator}
COMPONENTS: dict[str, type[Any]] = {
    name: value
    for room in (flow, networks, objectives, preprocessing, training)
    for name, value in vars(room).items()
    if isinstance(value, type) and issubclass(value, Component)
}
_TRAINING_ONLY = ("loss", "loss_weight", "phases", "callbacks")
_LEFT_OUT = {"left_out": True}
"""Stands for a parameter that a file cannot hold; it loads as the default."""


def save(estimator: FlowEstimator, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; see `FlowMatchingGenerator.save`.

    The seconds in `history_` are left out (they load as NaN): two runs of one fit differ in them alone.
    """
    if ESTIMATORS.get(type(estimator).__name__) is not type(estimator):
        raise ValueError(f"{type(estimator).__name__} is not a class of flowmatch; save it with pickle or joblib.")
    tensors: dict[str, Tensor] = {f"network.{name}": value for name, value in estimator.network_.state_dict().items()}
    pack = _Packer(tensors)
    encoder, conditions = estimator._encoder, estimator._conditions
    tensors["source_scale"] = estimator._source_scale
    # those that the weights belong to, whatever was set since
    parameters = {**estimator.get_params(deep=False), **estimator._fitted_parameters}
    header = {
        "format_version": FORMAT_VERSION,
        "class": type(estimator).__name__,
        "versions": {
            "flowmatch": _version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "sklearn": sklearn.__version__,
        },
        "parameters": {name: pack.parameter(name, value) for name, value in parameters.items()},
        "encoder": _pack_encoder(pack, "", encoder),
        "conditions": None if conditions is None else _pack_conditions(pack, conditions),
        "condition_size": 0 if conditions is None else conditions.size,
        "fitted": {
            "n_features_in_": int(estimator.n_features_in_),
            "sample_shape_": list(estimator.sample_shape_),
            "n_iter_": estimator.n_iter_,
            "n_parameters_": estimator.n_parameters_,
            "history_": {
                name: [math.nan] * len(values) if name == "seconds" else values
                for name, values in estimator.history_.items()
            },
            "feature_names_in_": getattr(estimator, "feature_names_in_", np.empty(0)).tolist(),
        },
    }
    write_tensors(path, tensors, header)


def _pack_encoder(pack: _Packer, prefix: str, encoder: preprocessing.SampleEncoder) -> dict[str, Any]:
    state = encoder.transform.get_state()
    return {
        "container": pack.container(encoder.container),
        "transform": pack.parameter("preprocessing", encoder.transform),
        "state": {name: pack.array(f"{prefix}transform.{name}", value) for name, value in state.items()},
        "varying": pack.array(f"{prefix}encoder.varying", encoder.varying),
        "constants": pack.array(f"{prefix}encoder.constants", encoder.constants),
        "levels": [pack.array(f"{prefix}encoder.levels.{i}", levels) for i, levels in enumerate(encoder.levels)],
        "limits": pack.array(f"{prefix}encoder.limits", encoder.limits),
        "sample_shape": list(encoder.sample_shape),
    }


def _pack_conditions(pack: _Packer, conditions: preprocessing.ConditionEncoder) -> dict[str, Any]:
    packed: dict[str, Any] = {"kind": type(conditions).__name__}
    for name, value in vars(conditions).items():
        if isinstance(value, preprocessing.SampleEncoder):
            packed[name] = {"encoder": _pack_encoder(pack, f"conditions.{name}.", value)}
        else:
            packed[name] = pack.field(f"conditions.{name}", value)
    return packed


def load(
    path: str | os.PathLike[str], device: Any = "auto", *, network: Callable[..., torch.nn.Module] | None = None
) -> Any:
    """Read an estimator that `save` wrote, on any device.

    Parameters
    ----------
    path : path-like
    device : "auto", str or torch.device, default="auto"
        Where the estimator is to work from now on.
    network : callable, optional
        The network factory, for an estimator whose `network` parameter was one: a file holds no code.

    Returns
    -------
    The fitted estimator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not written by flowmatch, of a format this version does not know, or damaged.

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
    network: Callable[..., torch.nn.Module] | None,
) -> FlowEstimator:
    unpack = _Unpacker(tensors)
    parameters = unpack.parameters(header["parameters"])
    if network is not None:
        parameters["network"] = network
    elif "network" not in parameters:
        raise ValueError(
            "the model was built by a network factory, which a file cannot hold: call load(path, network=factory)."
        )
    estimator = ESTIMATORS[header["class"]](**{**parameters, "device": device})
    estimator._freeze_parameters(fresh=True)
    resolve_components(estimator)
    check_number("guidance_scale", estimator.guidance_scale, -math.inf)
    _set_fitted(estimator, header["fitted"])
    estimator._encoder = _rebuild_encoder(header["encoder"], unpack)
    _require(estimator._encoder.sample_shape == estimator.sample_shape_, "sample_shape")
    estimator.preprocessing_ = estimator._encoder.transform
    estimator._conditions = _rebuild_conditions(header["conditions"], header["condition_size"], unpack)
    if isinstance(estimator._conditions, preprocessing.LabelEncoder):
        estimator.classes_ = estimator._conditions.classes
    module = build_network(resolve_network(estimator), estimator._encoder.code_shape, estimator._conditions)
    module.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    estimator._trainable = [p.requires_grad for p in module.parameters()]
    estimator.network_ = module.eval().requires_grad_(False)
    estimator._source_scale = tensors["source_scale"]
    _require(estimator._source_scale.shape == estimator._encoder.code_shape, "source_scale")
    _require(estimator._source_scale.dtype == torch.float32, "source_scale")
    estimator._to_device(device)
    return estimator


def _set_fitted(estimator: FlowEstimator, fitted: Mapping[str, Any]) -> None:
    """Set the plain fitted attributes."""
    for name in ("n_features_in_", "n_iter_", "n_parameters_"):
        _require(type(fitted[name]) is int and fitted[name] >= 0, name)
        setattr(estimator, name, fitted[name])
    shape, history, names = fitted["sample_shape_"], fitted["history_"], fitted["feature_names_in_"]
    _require(isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape), "sample_shape_")
    _require(isinstance(history, dict) and all(isinstance(values, list) for values in history.values()), "history_")
    _require(shape[:1] == [fitted["n_features_in_"]], "n_features_in_")
    _require(isinstance(names, list) and len(names) in (0, shape[0]), "feature_names_in_")
    estimator.sample_shape_, estimator.history_ = tuple(shape), history
    if names:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)


def _rebuild_encoder(saved: Mapping[str, Any], unpack: _Unpacker) -> preprocessing.SampleEncoder:
    sample_shape = tuple(saved["sample_shape"])
    _require(all(type(size) is int and size > 0 for size in sample_shape), "sample_shape")
    transform = unpack.parameter(saved["transform"])
    _require(isinstance(transform, preprocessing.ColumnTransform), "transform")
    state = {name: unpack.array(value) for name, value in saved["state"].items()}
    _require(set(state) == {field.name for field in fields(transform) if not field.init}, "state")
    transform.set_state(state)
    encoder = preprocessing.SampleEncoder(
        unpack.container(saved["container"]),
        transform,
        unpack.array(saved["varying"]),
        unpack.array(saved["constants"]),
        sample_shape,
        tuple(unpack.array(levels) for levels in saved["levels"]),
        unpack.array(saved["limits"]),
    )
    _require(encoder.limits.shape == (2, 0 if encoder.is_table else sample_shape[0]), "limits")
    for levels in encoder.levels:
        _require(levels.ndim == 1 and bool((np.diff(levels) > 0).all()), "levels")
    n_dtypes = len(encoder.container.dtypes)
    _require(n_dtypes == (sample_shape[0] if encoder.container.kind == "dataframe" else 1), "dtypes")
    _require(len(encoder.levels) == (0 if encoder.is_table else sample_shape[0]), "levels")
    _require(encoder.varying.shape == sample_shape[:1] and encoder.varying.dtype == bool, "varying")
    _require(encoder.constants.shape == sample_shape[:1], "constants")
    codes = np.zeros((1, *encoder.code_shape))
    _require(encoder.encode(encoder.decode(codes)).shape == codes.shape, "state")
    return encoder


def _rebuild_conditions(saved: Mapping[str, Any] | None, size: Any, unpack: _Unpacker) -> Any:
    if saved is None:
        _require(size == 0, "condition_size")
        return None
    kinds = ("LabelEncoder", "NumberEncoder", "MixedEncoder", "GridEncoder")
    _require(saved["kind"] in kinds, "kind of conditions")
    values = {
        name: _rebuild_encoder(value["encoder"], unpack) if "encoder" in value else unpack.field(value)
        for name, value in saved.items()
        if name != "kind"
    }
    conditions = getattr(preprocessing, saved["kind"])(**values)
    _require(conditions.size == size, "condition_size")
    if isinstance(conditions, preprocessing.GridEncoder):
        return conditions
    entries = conditions.classes if isinstance(conditions, preprocessing.LabelEncoder) else conditions.rows
    _require(conditions.shares.shape == entries.shape[:1], "shares")
    _require(conditions.encode(conditions.draw(1, np.random.RandomState(0)), 1).shape == (1, size), "conditions")
    return conditions


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"the file is damaged: its {what} does not fit the rest.")


class _Packer:
    """Python values to JSON; arrays go to `tensors` and leave their name."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def array(self, name: str, value: Any) -> dict[str, Any]:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            if not all(isinstance(entry, (str, bool, int, float)) for entry in array.ravel().tolist()):
                raise ValueError(
                    f"{name} of dtype {array.dtype} cannot be written to a file; save with pickle or joblib."
                )
            return {"list": array.tolist(), "dtype": "object" if array.dtype.kind == "O" else str(array.dtype)}
        self.tensors[name] = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
        return {"tensor": name}

    def container(self, value: preprocessing.Container) -> dict[str, Any]:
        return {"kind": value.kind, "dtypes": list(value.dtypes), "columns": [_plain(name) for name in value.columns]}

    def field(self, name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, preprocessing.Container):
            return {"container": self.container(value)}
        if isinstance(value, tuple):
            return {"arrays": [self.array(f"{name}.{i}", entry) for i, entry in enumerate(value)]}
        return self.array(name, value) if isinstance(value, np.ndarray) else {"value": value}

    def parameter(self, name: str, value: Any) -> Any:
        if isinstance(value, Component):
            if not _fits_in_a_file(value):
                return self._left_out(name, value)
            return {
                "component": type(value).__name__,
                "parameters": {key: self.parameter(key, inner) for key, inner in value.get_params(deep=False).items()},
            }
        if isinstance(value, (tuple, list)):
            unfit = any(isinstance(entry, Component) and not _fits_in_a_file(entry) for entry in value)
            if unfit or (name == "callbacks" and value):
                return self._left_out(name, value)
            return [self.parameter(name, entry) for entry in value]
        if isinstance(value, (str, bool, int, float, type(None))):
            return value
        if isinstance(value, (np.integer, np.floating, np.bool_)):
            return value.item()
        if isinstance(value, (os.PathLike, torch.device)):
            return str(value)
        return self._left_out(name, value)

    def _left_out(self, name: str, value: Any) -> dict[str, Any]:
        if name == "random_state":
            return _LEFT_OUT
        if name != "network" and name not in _TRAINING_ONLY:
            raise ValueError(f"parameter {name}={value!r} cannot be written to a file; save with pickle or joblib.")
        hint = "pass it to load(path, network=...)" if name == "network" else "set it again before another fit"
        warnings.warn(f"parameter {name}={value!r} cannot be written to a file: {hint}.", UserWarning, stacklevel=5)
        return _LEFT_OUT


class _Unpacker:
    """Undo `_Packer`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def array(self, saved: Mapping[str, Any]) -> NDArray[Any]:
        if "tensor" in saved:
            return self.tensors[saved["tensor"]].numpy()
        return np.asarray(saved["list"], dtype=saved["dtype"])

    def container(self, saved: Mapping[str, Any]) -> preprocessing.Container:
        columns = tuple(tuple(name) if isinstance(name, list) else name for name in saved["columns"])
        return preprocessing.Container(saved["kind"], tuple(saved["dtypes"]), columns)

    def field(self, saved: Mapping[str, Any]) -> Any:
        if "container" in saved:
            return self.container(saved["container"])
        if "arrays" in saved:
            return tuple(self.array(entry) for entry in saved["arrays"])
        return saved["value"] if "value" in saved else self.array(saved)

    def parameter(self, saved: Any) -> Any:
        if isinstance(saved, list):
            return tuple(map(self.parameter, saved))
        if not isinstance(saved, dict):
            return saved
        if str(saved["component"]) not in COMPONENTS:
            raise ValueError(f"the file names an unknown component {saved['component']!r}.")
        return COMPONENTS[saved["component"]](**self.parameters(saved["parameters"]))

    def parameters(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.parameter(value) for name, value in saved.items() if value != _LEFT_OUT}


def _fits_in_a_file(component: Component) -> bool:
    """Whether a component is flowmatch's own and holds no function, nor do those inside it."""
    if COMPONENTS.get(type(component).__name__) is not type(component):
        return False
    return all(
        _fits_in_a_file(value) if isinstance(value, Component) else not callable(value)
        for value in component.get_params(deep=False).values()
    )


def _plain(value: Any) -> Any:
    """A column name as JSON can hold it."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (str, int, float, type(None))):
        return value
    raise ValueError(f"the column name {value!r} cannot be written to a file; save with pickle or joblib.")


def _version() -> str:
    from flowmatch import __version__

    return __version__
