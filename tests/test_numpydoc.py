"""Docstrings of public names are complete, as numpydoc judges; `python tests/test_numpydoc.py` prints those that are not."""

import dataclasses
import importlib
import inspect
import tomllib
from functools import cached_property
from pathlib import Path

import pytest

import flowmatch

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
CHECKS = PROJECT["tool"]["numpydoc_validation"]["checks"]
LAZY = ("datasets.fluids", "export", "metrics.signals", "plotting", "synthetic", "testing")
"""Public rooms that `import flowmatch` does not load, or does not name."""

MEMBERS = (property, cached_property, classmethod, staticmethod)


def public_names():
    """Public functions and classes, and the methods and properties of these classes where they are defined, each once.

    A method that overrides a documented one and has no docstring of its own is left out: it has that one's.
    """
    rooms = [flowmatch, *(importlib.import_module(f"flowmatch.{name}") for name in LAZY)]
    rooms += [value for name in flowmatch.__all__ if inspect.ismodule(value := getattr(flowmatch, name))]
    found = {}
    for room in rooms:
        for name in room.__all__ if hasattr(room, "__all__") else own_names(room):
            value = getattr(room, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                found.setdefault(value, f"{room.__name__}.{name}")
            for parent in value.__mro__ if inspect.isclass(value) else ():
                if parent.__module__.startswith("flowmatch"):
                    for method, member in own_members(parent):
                        found.setdefault(member, f"{parent.__module__}.{parent.__qualname__}.{method}")
    return sorted(found.values())


def own_names(module):
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return [name for name in own if not name.startswith("_")]


def own_members(owner):
    for name, member in vars(owner).items():
        is_member = inspect.isfunction(member) or isinstance(member, MEMBERS)
        if not name.startswith("_") and is_member and (member.__doc__ or not inspect.getdoc(getattr(owner, name))):
            yield name, member


def failures():
    """What numpydoc finds missing, by public name; examples are asked for at the top of the package only."""
    validate = pytest.importorskip("numpydoc.validate")
    found = {}
    for name in public_names():
        codes = set(CHECKS) - ({"EX01"} if name.count(".") > 1 else set())
        if fields_are_attributes(validate.Validator._load_obj(name)):
            codes -= {"PR01"}
        found[name] = [f"{code} {message}" for code, message in validate.validate(name)["errors"] if code in codes]
    return found


def fields_are_attributes(value):
    """Whether it is a record, a dataclass or named tuple, whose fields all stand under "Attributes"."""
    from numpydoc.docscrape import get_doc_object

    if not inspect.isclass(value):
        return False
    if dataclasses.is_dataclass(value):
        fields = {field.name for field in dataclasses.fields(value) if field.init}
    elif issubclass(value, tuple) and hasattr(value, "_fields"):
        fields = set(value._fields)
    else:
        return False
    own = [parent for parent in value.__mro__ if parent.__module__.startswith("flowmatch")]
    entries = [entry.name for parent in own for entry in get_doc_object(parent)["Attributes"]]
    return fields <= {name for entry in entries for name in entry.split(", ")}


def test_public_docstrings_are_complete():
    found = failures()
    incomplete = [name for name, errors in found.items() if errors]
    assert len(incomplete) <= 0.01 * len(found), (
        f"{len(incomplete)} of {len(found)} are incomplete, as {incomplete[:5]}"
    )


def test_public_names_are_found():
    names = public_names()
    assert len(names) == len(set(names))
    assert {
        "flowmatch.FlowMatchingGenerator",
        "flowmatch.load",
        "flowmatch.flow.Path",
        "flowmatch.metrics.report",
        "flowmatch.plotting.MarginalsDisplay",
    } <= set(names)
    assert any(name.endswith(".Path.data_scale") for name in names)
    assert not any(name.endswith(".LinearPath.data_scale") for name in names)  # as that of Path says
    assert any(name.endswith(".MarginalsDisplay.from_samples") for name in names)


if __name__ == "__main__":
    found = failures()
    for name, errors in found.items():
        for error in errors:
            print(f"{name}: {error}")
    complete = sum(not errors for errors in found.values())
    print(f"{complete} of {len(found)} public docstrings are complete, {complete / len(found):.1%}")
