"""Attack `flowmatch.load` with changed files: `python tests/fuzz_files.py --files 10000`.

Every file must load and then work, or raise a ValueError, within a CPU second and 100 MB, without a look at other files,
hosts, or modules. Two kinds of change: bytes of the file as they are (accidents), and anything in header and tensors with
the checksum made to fit (intentions). What breaks a rule is printed with the seed that makes it again.
"""

import argparse
import collections
import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zoneinfo
from pathlib import Path

import numpy as np
import reference_estimators
import torch
from damaged_files import fuzzed
from reference_configurations import CONFIGURATIONS

import flowmatch

FOLDER = Path(__file__).parent / "references" / "format_3"
KINDS = tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))
NOT_ASKED = ("attributes", "offset", "history", "export", "onnx", "rollout")
"""Outputs that ask nothing of the weights, or that write files; rollouts of a changed model may diverge and say so."""

OTHER_TABLE = (
    "training",
    "feature names",
    "in fit",
    "there is no column",
    "fit with ",
    "was fitted to",
    "set n_samples",
    "lacks the columns",
)
"""In errors that name what the questions lack: a file with another name of a column is whole, and of another table."""

SECONDS, MEGABYTES = 1.0, 100.0

_touched: list[str] = []
_watching = False


def _alarm(seconds):
    """Ends what hangs, where `main` has said how; tests depend on no clock."""
    if signal.getsignal(signal.SIGALRM) is _stop:
        signal.alarm(seconds)


def _watch(event, arguments):
    if not _watching:
        return
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        _touched.append(f"open {os.fspath(arguments[0])}")
    elif event.partition(".")[0] in ("socket", "subprocess", "urllib", "ctypes") or event in ("os.system", "os.exec"):
        _touched.append(event)
    elif event == "import" and arguments[0].partition(".")[0] not in sys.modules:
        _touched.append(f"import {arguments[0]}")


@contextlib.contextmanager
def _limits(path):
    """Note what a block takes and touches, `path` apart."""
    global _watching
    found = {"seconds": 0.0, "megabytes": 0.0, "touched": []}
    _touched.clear()
    before, start, _watching = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), True
    _alarm(20)
    try:
        yield found
    finally:
        _alarm(0)
        _watching = False
        found["seconds"] = time.process_time() - start
        found["megabytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        own = (".pyc", ".py")  # modules of packages, imported for the first time
        found["touched"] = [
            what
            for what in _touched
            if not what.endswith(own) and what != f"open {path}" and "/zoneinfo" not in what and "/tzdata/" not in what
        ]


def contents():
    """Files of formats 3 and 4, by kind and version."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in KINDS:
            found[name, 3] = (FOLDER / f"{name}.safetensors").read_bytes()
            path = Path(folder, "4")
            reference_estimators.load(FOLDER / f"{name}.safetensors").save(path)
            found[name, 4] = path.read_bytes()
    return found


def flipped(content, random):
    """A file with some bytes changed, lost or doubled."""
    position, kind = random.randint(len(content)), random.randint(4)
    if kind == 0:
        return content[:position]
    if kind == 1:
        return content[:position] + content[position : position + random.randint(64)] + content[position:]
    changed = bytearray(content)
    changed[position] ^= 1 << random.randint(8)
    return bytes(changed)


def attack(name, content, path, random):
    """Load one changed file and use it; returns how it ended, "refused" or "works" if as it should.

    Parameters
    ----------
    name : str
        Of its configuration.
    content : bytes
        Of the file before.
    path : Path
        Where to write the changed one.
    random : RandomState

    Returns
    -------
    str
    """
    accident = random.uniform() < 0.15
    path.write_bytes((flipped if accident else fuzzed)(content, random))
    problems, model = [], None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from numbers that have become infinite, and the like
        with _limits(path) as taken:
            try:
                model = flowmatch.load(path, device="cpu")
            except ValueError:
                pass
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                problems.append(f"load: {_last_line(error)}")
        if taken["seconds"] > SECONDS:
            problems.append("slow")
        if taken["megabytes"] > MEGABYTES:
            problems.append("large")
        problems += sorted({f"touched: {what}" for what in taken["touched"]})
        if model is not None:
            problems += _use(name, model)
    return "; ".join(problems) or ("refused" if model is None else "works")


def _use(name, model):
    """What goes wrong with a loaded model that is asked all that its configuration is asked."""
    problems = []
    for what, ask in CONFIGURATIONS[name].outputs.items():
        if what in NOT_ASKED:
            continue
        _alarm(20)
        try:
            answer = ask(model)
        except TimeoutError:
            pass  # a file may ask for many steps and draws, as any user may
        except Exception as error:
            if not (isinstance(error, ValueError) and any(text in str(error) for text in OTHER_TABLE)):
                problems.append(f"{what}: {_last_line(error)}")
        else:
            if not _is_finite(answer):
                problems.append(f"{what}: not finite")
        finally:
            _alarm(0)
    return problems


def _is_finite(answer):
    """Whether any number of an answer is one; densities of 0 have an infinite logarithm, and text passes."""
    with contextlib.suppress(TypeError, ValueError):
        values = np.asarray(answer, dtype=float)
        return not values.size or not np.isnan(values).all()
    return True


def _last_line(error):
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "flowmatch" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    return f"{type(error).__name__} {where} {str(error)[:110]}".replace("\n", " ")


def run(n_files, seed, kinds=KINDS, versions=(3, 4)):
    """Attack with `n_files` files and count how they end, with the seed of the first of each.

    Returns
    -------
    dict of str to (int, str)
    """
    known = {key: content for key, content in contents().items() if key[0] in kinds and key[1] in versions}
    ends, first, slowest = collections.Counter(), {}, list(known)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n_files):
            name, version = slowest[i % len(slowest)]
            end = attack(name, known[name, version], Path(folder, "model"), np.random.RandomState([seed, i]))
            ends[end] += 1
            first.setdefault(end, f"{name}, format {version}, {[seed, i]}")
    return {end: (count, first[end]) for end, count in ends.most_common()}


def _stop(*_):
    raise TimeoutError("took more than 20 s")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    zoneinfo.available_timezones()  # imports what it needs
    sys.addaudithook(_watch)
    signal.signal(signal.SIGALRM, _stop)
    with contextlib.redirect_stderr(io.StringIO()):
        ends = run(options.files, options.seed, options.kinds)
    for end, (count, where) in ends.items():
        print(f"{count:6}  {end}" + ("" if end in ("refused", "works") else f"   ({where})"))
    sys.exit(bool(set(ends) - {"refused", "works"}))


if __name__ == "__main__":
    main()
