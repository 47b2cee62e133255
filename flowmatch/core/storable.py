"""Fitted things as values: dataclasses that a file can hold, registered by name and checked when they come back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

STORABLE: dict[str, type] = {}
"""Classes whose instances a file can hold, by their names."""

ESTIMATORS: dict[str, type] = {}
"""Estimators that files may hold, by their names; a subclass of the user's is among them once it is defined."""

NOT_STORED = {"stored": False}
"""Metadata of a field that stays out of files; it comes back as its default."""

MISFITS = (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, RuntimeError, MemoryError)
"""What code raises when it is given values that it was not written for."""


def register(registry: dict[str, type], cls: type) -> bool:
    """Enter a class by its name, and say whether it is there now; the first of several of one name stays."""
    known = registry.get(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        return False
    registry[cls.__name__] = cls  # also when a cell of a notebook is run again
    return True


def is_registered(registry: Mapping[str, type], cls: type) -> bool:
    """Whether a class is the one that its name stands for."""
    return registry.get(cls.__name__) is cls


def storable(cls: type[T]) -> type[T]:
    """Register a dataclass whose instances a file can hold.

    Its fields are numbers, text, None, arrays, tensors, other such dataclasses, or tuples of those. Fields with
    ``init=False`` are what fitting adds. Methods ``validate`` and ``check`` without arguments, if there are such, raise
    a ValueError for parameters out of range, and where fields do not fit each other; `rebuild` calls them. That values
    are of the types that the class declares is checked before.

    Parameters
    ----------
    cls : type
        A dataclass.

    Returns
    -------
    type
        The same class.

    Raises
    ------
    TypeError
        If it is no dataclass.
    ValueError
        If another class of that name is registered.
    """
    if not is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is no dataclass: put @storable above @dataclass.")
    if not register(STORABLE, cls):
        raise ValueError(f"a storable class {cls.__name__!r} exists already, in {STORABLE[cls.__name__].__module__}.")
    return cls


def fields_to_store(value: Any) -> dict[str, Any]:
    """What a file keeps of a storable value, by name; of one that is not fitted its parameters only."""
    state = vars(value)
    here = [field for field in _stored_fields(type(value)) if field.name in state]
    return {field.name: state[field.name] for field in here if field.init or state[field.name] is not None}


def rebuild(cls: type[T], values: Mapping[str, Any], **made: Any) -> T:
    """Undo `fields_to_store`.

    Parameters
    ----------
    cls : type
        A storable class.
    values : mapping
        Its fields by name; those that have a default may be left out, and those that fitting adds all together.
    **made
        Fields that are not stored.

    Returns
    -------
    object
        An instance of the class, which has passed its `validate` and `check`.

    Raises
    ------
    ValueError
        If a field is missing, unknown or of another type than declared, or if fields do not fit each other.
    """
    stored = _stored_fields(cls)
    fitted = {field.name for field in stored if not field.init}
    needed = {field.name for field in stored if field.init and not _has_default(field)}
    if fitted & set(values):
        needed |= {field.name for field in stored if not field.init and not _has_default(field)}
    for name in sorted(needed - set(values)):
        raise ValueError(f"its {name} is missing.")
    values = as_declared(cls, values)
    try:
        built = cls(**{name: value for name, value in values.items() if name not in fitted}, **made)
        for name in fitted & set(values):
            object.__setattr__(built, name, values[name])
        for name in ("validate", "check"):  # of parameters, and of what was fitted
            getattr(built, name, lambda: None)()
    except MISFITS as error:
        raise ValueError(
            f"the fields of its {cls.__name__} do not fit together ({type(error).__name__}: {error})."
        ) from error
    return built


def as_declared(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a storable class, checked; a list is a tuple where that is what the class declares.

    Raises
    ------
    ValueError
        That names a field which is not stored, or a value that is neither of the declared type nor the default.
    """
    stored, hints, found = {field.name: field for field in _stored_fields(cls)}, declared_types(cls), {}
    for name, value in values.items():
        require(name in stored, name)
        hint = hints.get(name, Any)
        if isinstance(value, list) and not is_a(value, hint):
            value = tuple(value)
        require(value is stored[name].default or is_a(value, hint), name)
        found[name] = value
    return found


def declared_types(cls: type) -> dict[str, Any]:
    """The types that a class declares for its attributes, as far as their names mean something at run time."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        with contextlib.suppress(NameError, *MISFITS):
            found |= get_type_hints(base)
    return found


def require(condition: Any, what: str) -> None:
    """Raise a ValueError that names a field of a stored value unless the condition holds."""
    if not condition:
        raise ValueError(f"its {what} does not fit the rest.")


def _stored_fields(cls: Any) -> list[Field[Any]]:
    """Fields that a file holds."""
    return [field for field in fields(cls) if field.metadata.get("stored", True)]


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of a declared type, arrays of the declared dtype; what Python cannot tell passes."""
    origin, parts = get_origin(hint), get_args(hint)
    if isinstance(value, np.generic):
        value = value.item()
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(is_a(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        each = parts[:1] * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else parts
        return isinstance(value, tuple) and len(value) == len(each) and all(map(is_a, value, each))
    if origin in (dict, Mapping):
        return (
            isinstance(value, origin)
            and all(map(is_a, value, parts[:1] * len(value)))
            and all(is_a(entry, parts[1]) for entry in value.values())
        )
    if origin in (list, Sequence):
        return isinstance(value, origin) and all(is_a(entry, parts[0]) for entry in value)
    if origin is np.ndarray:
        dtype = next(iter(get_args(parts[1])), Any)
        return isinstance(value, np.ndarray) and (dtype is Any or np.issubdtype(value.dtype, dtype))
    if hint in (int, float, bool, str):  # True is an integer for Python, and no count
        return type(value) is hint or (hint is float and type(value) is int)
    try:
        return isinstance(value, origin or hint)
    except TypeError:
        return True
