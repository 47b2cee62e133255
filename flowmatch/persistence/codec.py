"""Values as JSON and tensors, and back. It knows the registry of storable classes, and none of them by name.

JSON holds None, booleans, numbers and text as they are, tuples as arrays, and all else as an object with one key that
says what it is: "array" and "tensor" (names of tensors), "texts" (arrays of text and other objects, of which "entries"
says what they are), "list", "dict",
"class" (a storable dataclass), "estimator" (an unfitted one) and "left_out" (what a file cannot hold).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from flowmatch.core.storable import (
    ESTIMATORS,
    MISFITS,
    STORABLE,
    as_declared,
    fields_to_store,
    is_registered,
    rebuild,
    require,
)
from flowmatch.core.user_warnings import warn
from flowmatch.tables.entries import label_texts, labels_of

LEFT_OUT = {"left_out": True}
"""Stands for what a file cannot hold; a parameter that is left out loads as its default."""

_NETWORKS = ("network", "factory")
"""Fields that may hold code of the user's, which `load` is given again."""

_TRAINING_ONLY = ("loss", "loss_weight", "phases", "callbacks")
"""Fields that concern training alone, so that a model is whole without them."""


_MOST_LETTERS = 10_000_000
"""Of an array of text; all entries take as much memory as the longest may."""


class UnstorableError(ValueError):
    """A value that no file can hold."""


class ValueEncoder:
    """Values to JSON; arrays and tensors go to `tensors` and leave their name.

    Attributes
    ----------
    tensors : dict of Tensor
    factory : callable or None
        The network factory that was left out, if one was.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.factory: Callable[..., Any] | None = None
        self._written: list[Any] = []

    def check(self) -> None:
        """Raise an UnstorableError for a value that does not pass the check which it must pass to come back."""
        for value in reversed(self._written):  # what is inside first
            _check(value)

    def estimator(self, estimator: Any, name: str = "parameters") -> dict[str, Any]:
        """An estimator's class and parameters; it is warned of those that files cannot hold.

        Raises
        ------
        ValueError
            That names a parameter which is out of range, or which cannot be left out.
        """
        parameters, own = {}, estimator.get_params(deep=False)
        elsewhere = dict.fromkeys(own.keys() & {"device"}, "cpu")  # the device may be that of another machine
        type(estimator)(**{**own, **elsewhere}).check_parameters()  # no file that could not be read
        for key, value in own.items():
            try:
                parameters[key] = self._field(f"{name}.{key}", key, value)
            except UnstorableError as error:
                raise ValueError(
                    f"parameter {key}={value!r} cannot be written to a file ({error}); save with pickle or joblib."
                ) from error
        return {"estimator": type(estimator).__name__, "parameters": parameters}

    def value(self, name: str, value: Any) -> Any:
        """One value, under a name that its tensors get.

        Raises
        ------
        UnstorableError
            For functions, objects of classes that are not registered, and fields of other types than declared.
        """
        value = value.item() if isinstance(value, (np.bool_, np.integer, np.floating)) else value
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, np.ndarray):
            return self._array(name, value)
        if isinstance(value, Tensor):
            self.tensors[name] = value.detach()
            return {"tensor": name}
        if isinstance(value, (os.PathLike, torch.device)):
            return str(value)
        if isinstance(value, tuple):
            return [self.value(f"{name}.{i}", entry) for i, entry in enumerate(value)]
        if isinstance(value, list):
            return {"list": [self.value(f"{name}.{i}", entry) for i, entry in enumerate(value)]}
        if isinstance(value, dict):
            return {"dict": self._fields(name, value)}
        if isinstance(value, FrozenEstimator):
            return self.value(name, value.estimator)
        if is_registered(ESTIMATORS, type(value)):
            return self.estimator(value, name)
        if is_registered(STORABLE, type(value)) and is_dataclass(value):
            self._written.append(value)
            return {"class": type(value).__name__, "fields": self._fields(name, _stored(value))}
        if name.rpartition(".")[2] in _NETWORKS and callable(value):
            self.factory = value
            return LEFT_OUT
        raise UnstorableError(f"{name} is {value!r}, and {type(value).__name__} is not a class that files know")

    def _fields(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        if not all(isinstance(key, str) for key in values):
            raise UnstorableError(f"{name} has keys that are no text")
        return {key: self._field(f"{name}.{key}", key, value) for key, value in values.items()}

    def _field(self, name: str, key: str, value: Any) -> Any:
        """The value of a field or parameter, or what stands for one that can be left out, which is warned of."""
        try:
            if key == "callbacks" and value:
                raise UnstorableError("callbacks are code")
            return self.value(name, value)
        except UnstorableError:
            if key in _TRAINING_ONLY and not set(name.split(".")[:-1]) & set(_TRAINING_ONLY):  # all of a phase or none
                warn(f"parameter {key}={value!r} cannot be written to a file: set it again before another fit.")
            elif key != "random_state":
                raise
            return LEFT_OUT

    def _array(self, name: str, array: NDArray[Any]) -> dict[str, Any]:
        if array.dtype.kind in "biuf":
            self.tensors[name] = torch.from_numpy(np.array(array, order="C"))
            return {"array": name}
        if array.dtype.kind not in "OU" or not _holds_texts(array):
            try:
                texts, entry_type = label_texts(array)
            except ValueError as error:
                raise UnstorableError(f"{name} of dtype {array.dtype}, {error}") from error
            return {"texts": texts, "dtype": "object", "entries": entry_type}
        if array.dtype.kind == "U" and array.size * array.dtype.itemsize > 4 * _MOST_LETTERS:
            array = array.astype(object)
        return {"texts": array.tolist(), "dtype": "object" if array.dtype.kind == "O" else str(array.dtype)}


class ValueDecoder:
    """Undo `ValueEncoder`.

    Parameters
    ----------
    tensors : mapping of Tensor
    network : callable or None
        The network factory, where a file has left one out.
    device : "auto", str or torch.device
        Where estimators are to work.
    """

    def __init__(self, tensors: Mapping[str, Tensor], network: Callable[..., Any] | None, device: Any) -> None:
        self.tensors, self.network, self.device = tensors, network, device
        self.network_was_used = False

    def value(self, saved: Any) -> Any:
        """One value.

        Raises
        ------
        ValueError
            For unknown classes, and fields that do not fit each other.
        KeyError
            For tensors that are not there.
        """
        if isinstance(saved, list):
            return tuple(map(self.value, saved))
        if not isinstance(saved, dict):
            return saved
        if "tensor" in saved:
            tensor = self.tensors[saved["tensor"]]
            require(not tensor.is_floating_point() or bool(tensor.isfinite().all()), str(saved["tensor"]))
            return tensor
        if "array" in saved:
            return self.tensors[saved["array"]].numpy()
        if "texts" in saved:
            texts = _texts(saved["texts"], saved["dtype"])
            return labels_of(texts, saved["entries"]) if "entries" in saved else texts
        if "list" in saved:
            return list(map(self.value, saved["list"]))
        if "dict" in saved:
            return self.fields(saved["dict"])
        if "estimator" in saved:
            return self.estimator(saved)
        if "class" in saved:
            cls, fields = _look_up(STORABLE, "component", saved["class"]), self.fields(saved["fields"])
            return cls.from_store(fields) if hasattr(cls, "from_store") else rebuild(cls, fields)
        raise ValueError(f"the file holds an object that is no value: {str(saved)[:80]}.")

    def fields(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Values by name; those that were left out are, but for networks, which the user brings."""
        networks = [name for name, value in saved.items() if value == LEFT_OUT and name in _NETWORKS]
        if networks and self.network is None:
            raise ValueError(
                "the model was built by a network factory, which a file cannot hold: call load(path, network=factory)."
            )
        require(saved.get("callbacks", LEFT_OUT) in (LEFT_OUT, []), "callbacks")  # they are code, and may write files
        self.network_was_used |= bool(networks)
        values = {name: self.value(value) for name, value in saved.items() if value != LEFT_OUT}
        return {**values, **dict.fromkeys(networks, self.network)}

    def estimator(self, saved: Mapping[str, Any]) -> Any:
        """An unfitted estimator of the class and with the parameters that a file names."""
        cls, parameters = _look_up(ESTIMATORS, "estimator", saved["estimator"]), self.fields(saved["parameters"])
        if "device" in parameters:
            parameters["device"] = self.device
        estimator = cls(**parameters)
        estimator.check_parameters()
        return estimator


def _look_up(registry: Mapping[str, Any], what: str, name: Any) -> Any:
    if str(name) not in registry:
        raise ValueError(f"the file names an unknown {what} {name!r}: if it is your own, import what defines it first.")
    return registry[name]


def _stored(value: Any) -> dict[str, Any]:
    """What a file keeps of a storable value.

    Raises
    ------
    UnstorableError
        If a field is of another type than declared, so that it could not come back.
    """
    if hasattr(value, "to_store"):
        return value.to_store()
    try:
        return as_declared(type(value), fields_to_store(value))
    except ValueError as error:
        raise UnstorableError(f"of {value!r}, {error}") from error


def _check(value: Any) -> None:
    """Raise an UnstorableError for a value that does not pass the check which it must pass to come back."""
    try:
        if hasattr(value, "check") and not hasattr(value, "to_store"):
            value.check()
    except (ValueError, *MISFITS) as error:
        raise UnstorableError(f"of {value!r}, {error}") from error


def _texts(values: Any, dtype: Any) -> NDArray[Any]:
    """An array of text or objects, of no more memory than a file may claim with a few characters."""
    width = re.fullmatch(r"[<>]?U(\d{1,7})", str(dtype))
    require(isinstance(values, list) and (dtype == "object" or width), "dtype")
    require(width is None or int(width[1]) * len(values) <= _MOST_LETTERS, "dtype")
    array = np.asarray(values, dtype=dtype)
    require(_holds_texts(array), "texts")
    return array


def _holds_texts(array: NDArray[Any]) -> bool:
    return all(isinstance(entry, (str, bool, int, float)) for entry in array.ravel().tolist())
