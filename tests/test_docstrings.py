"""The examples in docstrings print what they say, and the code blocks of the guides run."""

import doctest
import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import flowmatch

MODULES = [info.name for info in pkgutil.walk_packages(flowmatch.__path__, "flowmatch.")]
DOCS = Path(__file__).parent.parent / "docs"


SLOW = ("flowmatch.detector", "flowmatch.distilled", "flowmatch.export.files")
"""Their examples train for seconds."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ("flowmatch", *MODULES)],
)
def test_examples_print_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def prose(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page):
    """Of a page's headings, as Markdown's renderers make them."""
    headings = re.findall(r"^#+ (.*)", prose(page).lower(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"], ids=lambda page: page.name)
def test_links_between_the_guides_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:X has .* rows")
def test_the_first_guide_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks("getting_started.md"))
    code = code.replace("max_iter=100_000", "max_iter=20").replace("cv=3", "cv=2")
    space = {"np": np}
    exec(compile(code, "getting_started.md", "exec"), space)
    assert list(space["synthetic"].columns) == list(space["X"].columns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("forecasting.md", "regressor.onnx"),
        ("forecast_tables.md", "forecast_tables.png"),
        ("forecast_series.md", "forecast_series.png"),
        ("forecast_fields.md", "forecast_fields.png"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* paths are made:UserWarning", "ignore:.* of 400 windows lack values")
def test_the_guides_of_forecasts_run_and_draw_their_pictures(page, made, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    code = re.sub(r"max_iter=\d+, ", "", "\n".join(blocks(page)))
    code = re.sub(r"((?:Forecaster|FlowMap)\([^()\n]*)random_state=0\)", r"\1max_iter=8, random_state=0)", code)
    exec(compile(code, page, "exec"), {})
    assert (tmp_path / made).stat().st_size > 5000
    assert (DOCS / made).exists() or not made.endswith(".png")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:by=")
def test_the_guide_to_vibration_prints_what_it_says_and_reads_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("measurements/inner/A_0.npy", "measurements/normal/B_1.npy", "cwru/12k_DE/IR007_0.npy"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        np.save(name, rng.normal(size=(2, 6000)))
    Path("log.csv").write_text("file,label,fs\nA_0,inner,12000\nB_1,normal,12 kHz\n")
    first, reading, working, few = blocks("vibration.md")
    space = {}
    exec(compile(first, "vibration.md", "exec"), space)
    printed = re.findall(r"```text\n(.*?)```", (DOCS / "vibration.md").read_text(), flags=re.DOTALL)
    assert capsys.readouterr().out == printed[0]
    exec(compile(few, "vibration.md", "exec"), {})
    assert capsys.readouterr().out == printed[1]
    exec(compile(reading, "vibration.md", "exec"), space)
    assert space["records"].column("size").tolist() == [7]
    measured = space["read_records"]("measurements", table="log.csv")
    space |= {"records": measured, "more_records": measured, "signal": rng.normal(size=(2, 300))}
    exec(compile(working, "vibration.md", "exec"), space)


@pytest.mark.slow
def test_the_guide_to_posteriors_runs():
    code = "\n".join(blocks("posteriors.md")).replace("Forecaster(", "Forecaster(max_iter=8, ")
    space = {}
    exec(compile(code, "posteriors.md", "exec"), space)
    assert space["draws"].shape == (2000, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:X has .* rows", "ignore:taken for keys")
def test_the_guide_to_tables_runs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    table = runpy.run_path(str(DOCS.parent / "examples" / "mixed_table.py"))["customers"](400)
    rng = np.random.RandomState(0)
    space = {"customers": table, "X": rng.normal(size=(200, 3)), "y": (rng.uniform(size=200) < 0.2).astype(int)}
    exec(compile("\n".join(blocks("tables.md")), "tables.md", "exec"), space)
    assert list(space["synthetic"].columns) == list(space["customers"].columns)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:max_time=1 ends training")
def test_the_guide_to_the_length_of_training_runs():
    code = "\n".join(blocks("how_long.md")).replace("None):", "200):").replace("max_time=5", "max_time=1")
    code = code.replace("max_iter=1500", "max_iter=100")
    space = {}
    exec(compile(code, "how_long.md", "exec"), space)
    assert space["again"].n_iter_ == space["hurried"].max_iter_


def test_the_opening_of_the_method_page_prints_its_table(capsys):
    text = (DOCS / "method.md").read_text()
    exec(compile(blocks("method.md")[0], "method.md", "exec"), {})
    assert capsys.readouterr().out.strip() == re.search(r"```text\n(.*?)```", text, flags=re.DOTALL)[1].strip()
