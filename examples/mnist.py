"""Class-conditional MNIST, or data in its format (Fashion-MNIST, KMNIST, ...), from a folder with the IDX files.

Run with ``python examples/mnist.py FOLDER``. The files are ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``,
with or without ``.gz``; ``--part test`` takes ``t10k-...`` instead. Without a folder a few steps on a small stand-in
show that everything works.
"""

import argparse
import gzip
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from flowmatch import FlowMatchingGenerator
from flowmatch.datasets import load_idx_folder

PICTURE = Path(__file__).with_name("mnist.png")
STAND_IN = {"max_iter": 8, "batch_size": 32}  # half a minute at most; too short for good images


def main() -> None:
    arguments = _arguments()
    if arguments.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            write_stand_in(Path(folder))
            X, y = load_idx_folder(folder)
    else:
        X, y = load_idx_folder(arguments.folder, arguments.part)
    print(f"{len(X)} images of {X.shape[2]} x {X.shape[3]} pixels, {len(np.unique(y))} classes")

    generator = FlowMatchingGenerator(random_state=0, verbose=arguments.folder is not None, **_parameters(arguments))
    generator.fit(X, y)
    seconds = generator.history_["seconds"][-1]
    print(f"trained {generator.n_parameters_} parameters for {generator.n_iter_} steps in {seconds:.0f} s")

    print("\n NFE  seconds per image")
    labels = np.resize(generator.classes_, 20)
    for steps in (1, 2, 4, 8):
        started = time.perf_counter()
        generator.sample(len(labels), labels, random_state=0, solver="euler", n_steps=steps)
        print(f"{steps:>4}  {(time.perf_counter() - started) / len(labels):.4f}")

    _plot(generator, arguments.guidance)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where the IDX files are")
    parser.add_argument("--part", choices=("train", "test"), default="train")
    parser.add_argument("--max-iter", type=int, help="optimizer steps; by default the estimator's own number")
    parser.add_argument("--batch-size", type=int, help="images per step; by default the estimator's own number")
    parser.add_argument("--guidance", type=float, default=2.0, help="guidance scale of the plot")
    return parser.parse_args()


def _parameters(arguments: argparse.Namespace) -> dict[str, int]:
    """What the user chose, over a short run for the stand-in and the estimator's defaults for real data."""
    chosen = {"max_iter": arguments.max_iter, "batch_size": arguments.batch_size}
    defaults = STAND_IN if arguments.folder is None else {}
    return defaults | {name: value for name, value in chosen.items() if value is not None}


def write_stand_in(folder: Path) -> None:
    """Scikit-learn's digits, 8 x 8 with gray levels 0 to 16, enlarged to the 28 x 28 and 0 to 255 of MNIST."""
    digits = load_digits()
    images = np.kron(digits.images[:500], np.ones((3, 3))) * 255 / 16
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).round().astype(np.uint8)
    write_idx(folder / "train-images-idx3-ubyte.gz", images)
    write_idx(folder / "train-labels-idx1-ubyte.gz", digits.target[:500].astype(np.uint8))


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes in the format of MNIST's files, compressed."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def _plot(generator: FlowMatchingGenerator, guidance: float) -> None:
    """A few images of every class, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("install matplotlib for a plot: pip install '.[plot]'")
        return
    matplotlib.use("Agg")
    from flowmatch.plotting import SampleGridDisplay

    display = SampleGridDisplay.from_estimator(
        generator, n_rows=4, random_state=0, sample_params={"guidance_scale": guidance, "n_steps": 4}
    )
    display.figure_.savefig(PICTURE, dpi=100)
    print("\nplot:", PICTURE)


if __name__ == "__main__":
    main()
