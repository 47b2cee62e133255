"""Imports point down the list of rooms, and the rooms stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "flowmatch"
BOTTOM = {"_cells", "_checks", "_component", "_numerics", "_tensor_file"}
MAY_USE = {
    "flow": BOTTOM,
    "networks": BOTTOM,
    "metrics": BOTTOM,
    "preprocessing": BOTTOM,
    "objectives": BOTTOM | {"flow"},
    "distillation": BOTTOM | {"flow", "objectives"},
    "anomaly": BOTTOM | {"flow"},
    "training": BOTTOM,
    "datasets": BOTTOM,
    "plotting": BOTTOM | {"metrics"},
    "export": BOTTOM | {"flow", "networks", "preprocessing", "_parameters", "flowmatch"},  # the package's version
    "_component": set(),
    "_cells": set(),
    "_checks": {"_component"},
    "_numerics": set(),
    "_tensor_file": set(),
    "_validation": BOTTOM | {"preprocessing"},
}
ROOMS = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]


def modules():
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def imported(path, at_top_only=False):
    """Modules of the package that a file imports; functions' own imports are left out with `at_top_only`."""
    tree, known = ast.parse(path.read_text()), modules()
    nodes = tree.body if at_top_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in known else node.module for a in node.names
            }
    return {name for name in found if name.split(".")[0] == "flowmatch"}


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "flowmatch"


@pytest.mark.parametrize("name", MAY_USE)
def test_imports_point_down(name):
    files = [path for module, path in modules().items() if room(module) == name]
    assert files, f"{name} is gone"
    for path in files:
        used = {room(module) for module in imported(path)} - {name}
        assert used <= MAY_USE[name], f"{path} imports {used - MAY_USE[name]}"


def test_every_room_is_on_the_list():
    assert {path.name for path in ROOMS} <= set(MAY_USE)


def test_no_import_cycles():
    graph = {module: imported(path, at_top_only=True) - {module} for module, path in modules().items()}
    done, active = set(), []

    def visit(module):
        assert module not in active, f"cycle: {' -> '.join([*active[active.index(module) :], module])}"
        if module in done:
            return
        active.append(module)
        for other in graph.get(module, ()):
            visit(other)
        active.pop()
        done.add(module)

    for module in graph:
        visit(module)


def test_the_walk_sees_an_arrow_that_points_up(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from flowmatch.training import loop\n")
    assert {room(module) for module in imported(wrong)} == {"training"}


def test_files_and_functions_stay_small():
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        assert source.count("\n") <= 560, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                assert node.body[-1].end_lineno - first.lineno < 60, f"{path}: {node.name}"


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, torch, sklearn.base, sklearn.utils.validation\n"
        "before = set(sys.modules)\n"
        "import flowmatch\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "heavy = {'pandas', 'matplotlib', 'tqdm', 'torchdiffeq', 'torchvision', 'IPython'} & new\n"
        "deep = {'torch._dynamo', 'scipy.signal', 'sklearn.ensemble'} & (set(sys.modules) - before)\n"
        "assert not heavy | deep, heavy | deep\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scikit_learns_private_helpers_are_not_used():
    for path in PACKAGE.rglob("*.py"):
        assert "sklearn.utils._" not in path.read_text(), path
