"""What a value is, in words that two processes agree on: of an interrupted fit and of one that may go on with it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import numbers
import os
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowmatch.core.component import Component

UNLIKE_ANY_OTHER = "unlike any other: "
"""Begins the description of a value that may do something else in another process, though it looks the same."""


def describe_value(value: Any, _within: tuple[int, ...] = ()) -> Any:
    """A value without memory addresses, from which another one of the same description does not differ.

    Parameters
    ----------
    value : object
        Plain values; arrays and tensors, which count by their bytes; components by their parameters; functions and
        classes by their code, and what they take from outside of it.

    Returns
    -------
    object
        Nested tuples of text, numbers and None; a text that begins with `UNLIKE_ANY_OTHER` where an object with a state
        of its own stands.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bytes, numbers.Number)):
        return value
    if id(value) in _within:  # a function that calls itself
        return "itself"

    def inner(part: Any) -> Any:
        return describe_value(part, (*_within, id(value)))

    if isinstance(value, (np.ndarray, Tensor)):
        return _describe_array(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(inner, value))
    if isinstance(value, (set, frozenset)):
        return ("set", tuple(sorted(map(repr, map(inner, value)))))
    if isinstance(value, Mapping):
        return tuple((inner(key), inner(entry)) for key, entry in value.items())
    if isinstance(value, np.random.RandomState):
        return inner(value.get_state())
    if isinstance(value, np.random.Generator):
        return inner(value.bit_generator.state)
    if isinstance(value, (os.PathLike, Enum, slice, torch.dtype, torch.device, np.dtype)):
        return str(value)
    if isinstance(value, Component):
        return inner(type(value)), inner(value.get_params(deep=False))
    if isinstance(value, functools.partial):
        return "partial", inner(value.func), inner(value.args), inner(value.keywords)
    if isinstance(value, types.ModuleType | types.BuiltinFunctionType | np.ufunc):
        return str(value.__name__)
    if isinstance(value, types.MethodType):
        return inner(value.__func__), inner(value.__self__)
    if isinstance(value, types.FunctionType):
        return _describe_function(value, inner)
    if isinstance(value, type):
        return _describe_class(value, inner)
    return f"{UNLIKE_ANY_OTHER}<a {type(value).__qualname__}>"


def _describe_array(value: Any) -> Any:
    if isinstance(value, Tensor):
        content, dtype = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes(), value.dtype
    elif value.dtype.kind == "O":
        return "objects", value.shape, tuple(map(describe_value, value.ravel().tolist()))
    else:
        content, dtype = value.tobytes(), value.dtype
    return str(dtype), tuple(value.shape), hashlib.sha256(content).hexdigest()


def _describe_function(value: types.FunctionType, inner: Any) -> Any:
    """By name, code, defaults, and what its names mean outside; functions of installed packages by their name alone."""
    name = f"{value.__module__}.{value.__qualname__}"
    if _is_installed(value.__module__) and value.__closure__ is None:
        return name
    try:
        outside = inspect.getclosurevars(value)
    except ValueError:  # a variable that has no value yet
        return f"{UNLIKE_ANY_OTHER}<function {name}>"
    taken = (value.__defaults__, value.__kwdefaults__, outside.nonlocals, outside.globals)
    return name, _describe_code(value.__code__), *map(inner, taken)


def _describe_class(value: type, inner: Any) -> Any:
    """By name, and by what stands in it where it is the user's own."""
    name = f"{value.__module__}.{value.__qualname__}"
    if _is_installed(value.__module__):
        return name
    members = [inner(member) for member in vars(value).values() if isinstance(member, types.FunctionType)]
    return name, tuple(map(inner, value.__bases__)), tuple(members)


def _describe_code(code: types.CodeType) -> Any:
    constants = [_describe_code(part) if isinstance(part, types.CodeType) else repr(part) for part in code.co_consts]
    return code.co_code.hex(), tuple(constants), code.co_names


def _is_installed(module: str) -> bool:
    """Whether a module is of a package that does not change between two runs: flowmatch's own, or one it depends on."""
    return module.partition(".")[0] in ("flowmatch", "torch", "numpy", "scipy", "sklearn", "builtins", "math")
