"""The examples run, as a newcomer would run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SLOW = (
    *("detect_anomalies", "digits", "forecast_ks", "forecast_series", "mnist", "monitor_vibration", "one_step"),
    *("augment_imbalanced", "clusters", "few_shot_diagnosis", "impute_pipeline", "posterior", "surrogate_fluid"),
)

BRIEF = "import flowmatch; flowmatch.FlowMatchingGenerator.__init__.__kwdefaults__['max_iter'] = 20\n"
"""Before an example: what it learns is not looked at here."""

WARNINGS = (
    *("error::DeprecationWarning", "error::PendingDeprecationWarning", "error::FutureWarning"),
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning",  # by torch itself at the first forward derivative
)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else []) for path in EXAMPLES],
)
def test_example_runs(path, tmp_path, pytestconfig):
    copy = tmp_path / path.name
    copy.write_text(BRIEF + path.read_text())
    short = {
        **os.environ,
        "FLOWMATCH_EXAMPLE_STEPS": "20",  # for those that say how long they train
        "PYTHONWARNINGS": ",".join([*WARNINGS, *(pytestconfig.getoption("pythonwarnings") or ())]),
    }
    result = subprocess.run([sys.executable, str(copy)], capture_output=True, text=True, env=short)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
