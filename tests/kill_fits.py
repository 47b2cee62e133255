"""Kill fits at random moments and let them resume: `python tests/kill_fits.py --kills 40`.

Each fit runs in a process of its own, with `checkpoint_folder` and a seed, and gets SIGKILL at a moment that is drawn
from its whole duration, also within the writing of a checkpoint. It is then fitted again, and what it saves must equal
what the fit saves that nobody killed: every tensor to the bit, and everything else but times. No file may be left over.
"""

import argparse
import collections
import json
import multiprocessing
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

KINDS = (
    "table", "mixed_with_holes", "labels", "signals", "images", "mean_flow", "detector_folds", "series", "fields",
    "progressive", "reflow",
)  # fmt: skip
STEPS = {
    "table": 300, "mixed_with_holes": 200, "labels": 200, "signals": 60, "images": 60, "mean_flow": 80,
    "detector_folds": 80, "series": 200, "fields": 50, "progressive": 60, "reflow": 150,
}  # fmt: skip
"""Optimizer steps of each flow or stage: one to three seconds of a processor."""

PERIOD = 10
"""Steps between two checkpoints: so many that kills come within the writing of one, too."""


def fit(kind, folder, share=1.0):
    """A fitted estimator of a kind; `share` of its steps are made."""
    import reference_data as data
    from reference_estimators import TINY_UNET, detector, forecaster, generator, student

    from flowmatch import TrainingOptions
    from flowmatch.networks import Transformer

    options = TrainingOptions(
        checkpoint_folder=folder, checkpoint_period=PERIOD, validation_fraction=0.2, report_period=25
    )
    usual = {"max_iter": max(1, round(share * STEPS[kind])), "training": options, "learning_rate": 0.003}
    patches = Transformer(width=8, depth=1, n_heads=2, patch_size=4, dropout=0.1)
    labelled = (data.mixed(), data.labels(), data.weights())
    makers = {
        "table": lambda: generator(**usual).fit(data.numbers()),
        "mixed_with_holes": lambda: generator(**usual).fit(data.mixed_with_holes()),
        "labels": lambda: generator(coupling="ot", **usual).fit(*labelled),
        "signals": lambda: generator(TINY_UNET, **usual).fit(data.signals()),
        "images": lambda: generator(patches, **usual).fit(data.images()),
        "mean_flow": lambda: generator(objective="mean_flow", **usual).fit(data.numbers(), data.labels()),
        "detector_folds": lambda: detector(**{**usual, "n_folds": 3}).fit(data.numbers()),
        "series": lambda: forecaster(n_lags=3, horizon=2, known_columns="price", **usual).fit(data.days()),
        "fields": lambda: forecaster(TINY_UNET, n_lags=2, context_noise=0.05, **usual).fit(data.waves()),
        "progressive": lambda: student(generator().fit(data.numbers()), n_stages=3, **usual).fit(data.numbers()),
        "reflow": lambda: student(generator().fit(data.numbers()), "reflow", **usual).fit(data.numbers()),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return makers[kind]()


def child(kind, folder, path, share, tell):
    """Fit and save; the parent is told when the fit begins and how long it took."""
    import torch

    import flowmatch  # noqa: F401  imports are no part of the fit

    torch.set_num_threads(1)
    fit(kind, None, 0.01)  # what is imported late, likewise
    tell.send("begins")
    start = time.perf_counter()
    model = fit(kind, folder, share)
    tell.send(time.perf_counter() - start)
    model.save(path)


def start(kind, folder, path, share):
    """The process of a fit which has begun, and where it tells how long that took."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flowmatch", "pandas", "reference_data", "reference_estimators"])
    listen, tell = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(kind, folder, path, share, tell))
    process.start()
    tell.close()
    assert listen.recv() == "begins"
    return process, listen


def finish(process, listen):
    """Seconds that a fit took which nobody kills."""
    process.join()
    assert process.exitcode == 0
    return listen.recv()


def content(path):
    """What a file holds but times: bytes of each tensor, and the header."""
    from damaged_files import take_apart

    def timeless(node):
        if isinstance(node, dict):
            return {key: timeless(value) for key, value in node.items() if key not in ("seconds", "checksum")}
        return list(map(timeless, node)) if isinstance(node, list) else node

    header, tensors = take_apart(path.read_bytes())
    found = {name: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items()}
    return found, json.dumps(timeless(header), sort_keys=True)


def kill_once(kind, folder, expected, seconds, random, share):
    """Kill one fit and let it resume; returns how that ended, "the same" if as it should.

    Returns
    -------
    str
        How it ended.
    str
        When it was killed: "early" (before the first checkpoint), "between" two, or "within" the writing of one.
    """
    checkpoints = folder / "checkpoints"
    while True:
        process, _ = start(kind, checkpoints, folder / "model", share)
        time.sleep(random.uniform(0, seconds))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL and not (folder / "model").exists():
            break
        seconds *= 0.9  # it had ended before
        (folder / "model").unlink(missing_ok=True)
    left = [path.name for path in checkpoints.iterdir()] if checkpoints.exists() else []
    whole = [name for name in left if name.startswith("checkpoint-")]
    when = "early" if not left else "between" if left == whole else "within"
    try:
        finish(*start(kind, checkpoints, folder / "model", share))
    except AssertionError:
        return "the fit that resumes fails", when
    if content(folder / "model") != expected:
        return "another model", when
    return ("files are left over" if any(checkpoints.iterdir()) else "the same"), when


def run(n_kills, seed=0, kinds=KINDS, share=1.0):
    """Kill so many fits, kinds in turn, and count how that ends.

    Returns
    -------
    dict of (str, str) to int
        Fits by how they ended and by when they were killed.
    """
    random, ends, known = np.random.RandomState(seed), collections.Counter(), {}
    for i in range(n_kills):
        kind = kinds[i % len(kinds)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if kind not in known:
                seconds = finish(*start(kind, folder / "unbroken", folder / "whole", share))
                known[kind] = content(folder / "whole"), seconds
            end, when = kill_once(kind, folder, *known[kind], random, share)
        ends[end, when] += 1
        print(f"{i + 1:3} {kind}: killed {when}, {end}", flush=True)
    return dict(ends)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=len(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    options = parser.parse_args()
    ends = run(options.kills, options.seed, options.kinds)
    for (end, when), count in sorted(ends.items()):
        print(f"{count:4}  {end} (killed {when})")
    sys.exit(any(end != "the same" for end, _ in ends))


if __name__ == "__main__":
    main()
