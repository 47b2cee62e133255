"""The house: an import points down the list of rooms, files and functions stay small, nobody reads another's privates."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "flowmatch"
ROOMS = (
    *(
        "__init__",
        "testing",
        "augmentation",
        "resampling",
        "imputation",
        "distilled",
        "detector",
        "forecaster",
        "generator",
        "scored",
        "predictor",
        "base",
    ),
    *("forecasting", "anomaly", "distillation", "synthetic", "export", "persistence", "fitting", "model"),
    *(
        "plotting",
        "metrics",
        "datasets",
        "objectives",
        "training",
        "networks",
        "flow",
        "preprocessing",
        "constraints",
        "rules",
        "tables",
        "records",
        "core",
    ),
)
"""From the roof down; docs/contributing.md shows the same list."""

MOST_LINES, MOST_LINES_OF_A_BODY = 450, 45


def modules(folder=PACKAGE):
    return {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(folder.rglob("*.py"))
    }


def imported(path, known):
    """Modules of the package that a file imports anywhere, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
    return parts[1] if len(parts) > 1 else "__init__"


def arrows_up(files):
    """Imports that point up the list, or that no room of the list is the start or the end of."""
    for module, path in files.items():
        for other in imported(path, files):
            start, end = room(module), room(other)
            if start not in ROOMS or end not in ROOMS or ROOMS.index(end) < ROOMS.index(start):
                yield f"{module} imports {other}"


def cycles(files):
    """Circles of modules that import each other."""
    graph = {module: imported(path, files) - {module} for module, path in files.items()}
    done, active = set(), []

    def visit(module):
        if module in active:
            return [[*active[active.index(module) :], module]]
        if module in done:
            return []
        active.append(module)
        found = [circle for other in sorted(graph.get(module, ())) for circle in visit(other)]
        active.pop()
        done.add(module)
        return found

    return [" -> ".join(circle) for module in graph for circle in visit(module)]


def body_lines(function):
    """Lines of a function's body, its docstring apart."""
    body = function.body
    if ast.get_docstring(function) is not None and len(body) > 1:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1


def reads_of_private_attributes(tree):
    """Attributes with a leading underscore of anything but an object's own self or class, or a module.

    Those of named tuples are public in spite of it.
    """
    modules = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        if node.attr in ("_asdict", "_replace", "_fields"):
            continue
        owner = node.value
        own = isinstance(owner, ast.Name) and (owner.id in ("self", "cls") or owner.id in modules)
        above = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id in ("super", "type")
        if not own and not above:
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_imports_point_down():
    assert not list(arrows_up(modules()))


def test_every_module_is_on_the_list():
    assert {room(module) for module in modules()} == set(ROOMS)


def test_no_module_imports_itself_by_way_of_others():
    assert not cycles(modules())


def test_the_guards_see_what_they_look_for(tmp_path):
    house = tmp_path / "flowmatch"
    (house / "flow").mkdir(parents=True)
    (house / "core").mkdir()
    (house / "core" / "one.py").write_text("def f():\n    from flowmatch.flow import two\n")
    (house / "flow" / "two.py").write_text("from flowmatch.core.one import f\n\n\ndef g(x):\n    return x._y\n")
    files = modules(house)
    assert list(arrows_up(files)) == ["flowmatch.core.one imports flowmatch.flow.two"]
    assert cycles(files) == ["flowmatch.core.one -> flowmatch.flow.two -> flowmatch.core.one"]
    tree = ast.parse((house / "flow" / "two.py").read_text())
    assert list(reads_of_private_attributes(tree)) == ["5: x._y"]


def test_the_public_files_alone_lie_at_the_top():
    names = {path.stem for path in PACKAGE.glob("*.py")}
    assert not {name for name in names if name.startswith("_") and name != "__init__"}
    assert names <= set(ROOMS)


@pytest.mark.parametrize("path", modules().values(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small_and_private_names_private(path):
    source = path.read_text()
    assert source.count("\n") <= MOST_LINES
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert {f.name: body_lines(f) for f in functions if body_lines(f) > MOST_LINES_OF_A_BODY} == {}
    assert list(reads_of_private_attributes(tree)) == []
    assert "sklearn.utils._" not in source


def test_classes_and_functions_of_different_rooms_have_names_of_their_own():
    homes = {}
    for module, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                homes.setdefault(node.name, set()).add(room(module))
    assert {name: rooms for name, rooms in homes.items() if len(rooms) > 1} == {}


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


@pytest.mark.parametrize("call", ["sample(3)", "score_samples(X)", "impute(X)"])
def test_neither_fits_nor_densities_import_torchs_compiler(call):
    """It takes longer than the fit of a small table."""
    code = (
        "import sys, numpy as np\n"
        "from flowmatch import FlowMatchingGenerator\n"
        "X = np.random.default_rng(0).normal(size=(50, 2))\n"
        f"FlowMatchingGenerator(max_iter=5, device='cpu', random_state=0).fit(X).{call}\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rooms_that_are_not_imported_at_the_start_are_found_as_attributes():
    code = (
        "import sys, flowmatch\n"
        "assert not {'flowmatch.plotting', 'flowmatch.testing'} & set(sys.modules)\n"
        "for name in ('plotting', 'testing', 'export', 'anomaly', 'preprocessing'):\n"
        "    assert name in dir(flowmatch) and getattr(flowmatch, name).__name__ == f'flowmatch.{name}'\n"
        "try:\n    flowmatch.nonsense\n"
        "except AttributeError as error:\n    assert 'nonsense' in str(error)\n"
        "else:\n    raise SystemExit('an attribute that is not there was found')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
