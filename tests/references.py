"""What the library gives for fixed seeds: one small configuration of everything, recorded as arrays and saved files.

``python tests/references.py record [name ...]`` records outputs anew, all or those whose names match a pattern:
``table``, ``table/sample``, ``format_3/table``, ``detector_*``. Record only what a change is meant to change.
``python tests/references.py write_files`` saves the configurations that have no file of `FORMAT` yet. Files that are
there are never written anew: they stand for those that users have.
``test_references.py`` compares, to 1e-6 (see `TOLERANCES`) or, with the environment variable FLOWMATCH_EXACT=1, to the bit.
"""

import fnmatch
import functools
import sys
import warnings

import reference_store as store
import torch
from reference_configurations import CONFIGURATIONS, teacher
from reference_estimators import load, save

FORMAT = 3
FILES = store.FOLDER / f"format_{FORMAT}"


def cases():
    """Names of all that is recorded: "table/sample" for what is fitted, "format_3/table/sample" for what is loaded."""
    fitted = [f"{name}/{output}" for name, case in CONFIGURATIONS.items() for output in case.outputs]
    return fitted + [
        f"format_{FORMAT}/{name}/{output}"
        for name, case in CONFIGURATIONS.items()
        if case.file
        for output in case.outputs
        if output not in ("history", "onnx") and not output.startswith("export")
    ]


@functools.cache
def model(name):
    """The fitted or loaded estimator of a configuration, one for all of its outputs."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.startswith("format_"):
            return load(store.FOLDER / f"{name}.safetensors")
        return teacher(name)


def output(case):
    """What the library gives for a case, as arrays by name."""
    name, what = case.rsplit("/", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return store.flatten(CONFIGURATIONS[name.split("/")[-1]].outputs[what](model(name)))


def record(patterns):
    chosen = [case for case in cases() if not patterns or any(_matches(case, pattern) for pattern in patterns)]
    arrays = store.read() if patterns else {}
    for case in chosen:
        for stale in store.part(arrays, case):
            del arrays[case + stale]
        arrays |= {case + rest: array for rest, array in output(case).items()}
    store.write(arrays)
    print(f"recorded {len(chosen)} outputs")


def _matches(case, pattern):
    return fnmatch.fnmatchcase(case, pattern) or fnmatch.fnmatchcase(case, pattern + "/*")


def write_files():
    FILES.mkdir(parents=True, exist_ok=True)
    for name, case in CONFIGURATIONS.items():
        path = FILES / f"{name}.safetensors"
        if case.file and not path.exists():
            save(model(name), path)
            print("wrote", path.name)


if __name__ == "__main__":
    command, *names = sys.argv[1:] or ["help"]
    if command == "record":
        record(names)
    elif command == "write_files":
        write_files()
    else:
        print(__doc__)
