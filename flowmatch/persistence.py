"""One fitted estimator <-> one ``.safetensors`` file. No pickle: reading a file can run no code of its own.

The file holds the tensors (network weights and fitted arrays) and one metadata key with sorted JSON: format version,
class, parameters, fitted state, and library versions. Identical models give identical bytes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch import flow, networks, objectives, preprocessing, training
from flowmatch._base import FlowEstimator, build_network
from flowmatch._component import Component
from flowmatch._tensor_file import read_tensors, write_tensors
from flowmatch.generator import FlowMatchingGenerator

FORMAT_VERSION = 1
ESTIMATORS: dict[str, type[FlowEstimator]] = {"FlowMatchingGenerator": FlowMatchingGenerator}
COMPONENTS: dict[str, type[Any]] = {
    name: value
    for room in (flow, networks, objectives, preprocessing, training)
    for name, value in vars(room).items()
    if isinstance(value, type) and issubclass(value, Component)
}
_TRAINING_ONLY = ("loss_weight", "training", "callbacks", "random_state")


def save(estimator: FlowEstimator, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; see `FlowMatchingGenerator.save`."""
    tensors: dict[str, Tensor] = {f"network.{name}": value for name, value in estimator.network_.state_dict().items()}
    pack = _Packer(tensors)
    encoder, conditions = estimator._encoder, estimator._conditions
    tensors["source_scale"] = estimator._source_scale
    header = {
        "format_version": FORMAT_VERSION,
        "class": type(estimator).__name__,
        "versions": {"flowmatch": _version(), "torch": torch.__version__, "numpy": np.__version__, "sklearn": sklearn.__version__},
        "parameters": {
            name: pack.parameter(name, value) for name, value in estimator.get_params(deep=False).items()
        },
        "encoder": {
            "container": pack.container(encoder.container),
            "transform": pack.parameter("preprocessing", encoder.transform),
            "state": {name: pack.array(f"transform.{name}", value) for name, value in encoder.transform.get_state().items()},
            "varying": pack.array("encoder.varying", encoder.varying),
            "constants": pack.array("encoder.constants", encoder.constants),
        },
        "conditions": None
        if conditions is None
        else {
            "kind": type(conditions).__name__,
            **{name: pack.field(f"conditions.{name}", value) for name, value in vars(conditions).items()},
        },
        "condition_size": 0 if conditions is None else conditions.size,
        "fitted": {
            "n_features_in_": int(estimator.n_features_in_),
            "sample_shape_": list(estimator.sample_shape_),
            "n_iter_": estimator.n_iter_,
            "n_parameters_": estimator.n_parameters_,
            "history_": estimator.history_,
            "feature_names_in_": getattr(estimator, "feature_names_in_", np.empty(0)).tolist(),
        },
    }
    if type(estimator).__name__ not in ESTIMATORS:
        raise ValueError(f"{type(estimator).__name__} is not a class of flowmatch; save it with pickle or joblib.")
    write_tensors(path, tensors, header)


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
            f"{str(path)!r} has format version {version!r}; this flowmatch ({_version()}) reads version {FORMAT_VERSION}."
        )
    if header.get("class") not in ESTIMATORS:
        raise ValueError(f"{str(path)!r} holds a {header.get('class')!r}, which flowmatch does not know.")
    try:
        return _rebuild(header, tensors, device, network)
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(f"the contents of {str(path)!r} do not fit together ({type(error).__name__}: {error}).") from error


def _rebuild(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], device: Any, network: Callable[..., torch.nn.Module] | None
) -> FlowEstimator:
    unpack = _Unpacker(tensors)
    parameters = {name: unpack.parameter(value) for name, value in header["parameters"].items()}
    if network is not None:
        parameters["network"] = network
    elif parameters["network"] is None:
        raise ValueError("the model was built by a network factory, which a file cannot hold: call load(path, network=factory).")
    estimator = ESTIMATORS[header["class"]](**{**parameters, "device": device})
    encoder = header["encoder"]
    transform = unpack.parameter(encoder["transform"])
    transform.set_state({name: unpack.array(value) for name, value in encoder["state"].items()})
    fitted = dict(header["fitted"])
    sample_shape = tuple(fitted.pop("sample_shape_"))
    names = fitted.pop("feature_names_in_")
    if names:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    for name in ("n_features_in_", "n_iter_", "n_parameters_", "history_"):
        setattr(estimator, name, fitted[name])
    estimator.sample_shape_ = sample_shape
    estimator._encoder = preprocessing.SampleEncoder(
        unpack.container(encoder["container"]),
        transform,
        unpack.array(encoder["varying"]),
        unpack.array(encoder["constants"]),
        sample_shape,
    )
    estimator.preprocessing_ = transform
    estimator._conditions = _rebuild_conditions(header["conditions"], unpack)
    if isinstance(estimator._conditions, preprocessing.LabelEncoder):
        estimator.classes_ = estimator._conditions.classes
    module = build_network(estimator._resolve_network(), estimator._encoder.code_shape, header["condition_size"])
    module.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    estimator.network_ = module.eval().requires_grad_(False)
    estimator._source_scale = tensors["source_scale"]
    estimator._to_device(device)
    return estimator


def _rebuild_conditions(saved: Mapping[str, Any] | None, unpack: _Unpacker) -> Any:
    if saved is None:
        return None
    kinds = {"LabelEncoder": preprocessing.LabelEncoder, "NumberEncoder": preprocessing.NumberEncoder}
    values = {name: unpack.field(value) for name, value in saved.items() if name != "kind"}
    return kinds[saved["kind"]](**values)


class _Packer:
    """Python values to JSON; arrays go to `tensors` and leave their name."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def array(self, name: str, value: Any) -> dict[str, Any]:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            return {"list": array.tolist(), "dtype": "object" if array.dtype.kind == "O" else str(array.dtype)}
        self.tensors[name] = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
        return {"tensor": name}

    def container(self, value: preprocessing.Container) -> dict[str, Any]:
        return {"kind": value.kind, "dtypes": list(value.dtypes), "columns": [_plain(name) for name in value.columns]}

    def field(self, name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, preprocessing.Container):
            return {"container": self.container(value)}
        return self.array(name, value) if isinstance(value, np.ndarray) else {"value": value}

    def parameter(self, name: str, value: Any) -> Any:
        if isinstance(value, Component):
            kind = type(value).__name__
            if kind not in COMPONENTS:
                return self._left_out(name, value)
            return {
                "component": kind,
                "parameters": {key: self.parameter(key, inner) for key, inner in value.get_params().items()},
            }
        if isinstance(value, (tuple, list)):
            return None if name == "callbacks" and value and self._left_out(name, value) is None else list(value)
        if isinstance(value, (str, bool, int, float, type(None))):
            return value
        if isinstance(value, (np.integer, np.floating, np.bool_)):
            return value.item()
        if isinstance(value, (os.PathLike, torch.device)):
            return str(value)
        return self._left_out(name, value)

    def _left_out(self, name: str, value: Any) -> None:
        if name == "random_state":
            return
        if name != "network" and name not in _TRAINING_ONLY:
            raise ValueError(f"parameter {name}={value!r} cannot be written to a file; save with pickle or joblib.")
        hint = "pass it to load(path, network=...)" if name == "network" else "set it again before another fit"
        warnings.warn(f"parameter {name}={value!r} cannot be written to a file: {hint}.", UserWarning, stacklevel=5)


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
        return saved["value"] if "value" in saved else self.array(saved)

    def parameter(self, saved: Any) -> Any:
        if not isinstance(saved, dict):
            return saved
        if saved["component"] not in COMPONENTS:
            raise ValueError(f"the file names an unknown component {saved['component']!r}.")
        parameters = {name: self.parameter(value) for name, value in saved["parameters"].items()}
        if parameters.get("callbacks", ()) is None:
            parameters["callbacks"] = ()
        return COMPONENTS[saved["component"]](**parameters)


def _plain(value: Any) -> Any:
    """A column name as JSON can hold it."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value if isinstance(value, (str, int, float, type(None))) else str(value)


def _version() -> str:
    from flowmatch import __version__

    return __version__
