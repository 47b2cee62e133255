"""The IDX files of MNIST and its twins.

The format is described at the foot of Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten
digits" (http://yann.lecun.com/exdb/mnist, 1998), "The IDX file format": two zero bytes, one byte for the type of the
elements, one for the number of dimensions, their sizes as 4-byte integers, then the elements in C order. All numbers
have their high byte first.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_choice

ELEMENTS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Type byte -> numpy dtype."""

PARTS = {"train": ("train",), "test": ("t10k", "test")}
"""What the files of a part are called."""

_GZIP = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, plain or compressed by gzip (told by its content, not by its name).

    Parameters
    ----------
    path : path-like
        Where the file is.

    Returns
    -------
    array : ndarray
        Of the shape and element type that the file states, in the machine's byte order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not of the format, shorter or longer than its header says, or damaged.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
    >>> read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in ELEMENTS:
        known = ", ".join(f"{code:#04x}" for code in ELEMENTS)
        raise ValueError(
            f"{str(path)!r} is not an IDX file: it starts with {content[:4].hex(' ') or 'nothing'}; expected 00 00, a "
            f"type byte ({known}) and the number of dimensions."
        )
    dtype, n_dimensions = np.dtype(ELEMENTS[content[2]]), content[3]
    start = 4 + 4 * n_dimensions
    if len(content) < start:
        raise ValueError(
            f"{str(path)!r} is truncated: it ends inside its header of {start} bytes, after {len(content)}."
        )
    shape = tuple(np.frombuffer(content, ">u4", n_dimensions, offset=4).tolist())
    expected = math.prod(shape) * dtype.itemsize
    if len(content) - start != expected:
        state = "truncated" if len(content) - start < expected else "damaged"
        raise ValueError(
            f"{str(path)!r} is {state}: shape {shape} of {dtype.itemsize}-byte elements needs {expected} bytes after "
            f"the header, there are {len(content) - start}."
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def load_idx_folder(folder: str | os.PathLike[str], part: str = "train") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read images and labels from a folder with the files of MNIST, Fashion-MNIST, KMNIST or another twin.

    Parameters
    ----------
    folder : path-like
        Holds ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` (or ``t10k-...``, ``test-...``), with or
        without ``.gz``; ``train-images.idx3-ubyte``, as some archives name them, will do.
    part : {"train", "test"}, default="train"

    Returns
    -------
    X : uint8 ndarray of shape (n, 1, height, width)
        Gray levels.
    y : int64 ndarray of shape (n,)
        Labels.

    Raises
    ------
    FileNotFoundError
        If the folder or a file is not there; the message lists what is.
    ValueError
        If `part` is unknown, or the files are damaged or do not belong together.
    """
    check_choice("part", part, PARTS)
    image_path, label_path = _find(folder, part, "images", 3), _find(folder, part, "labels", 1)
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"{str(image_path)!r} holds {images.dtype} of shape {images.shape}; expected uint8 (n, H, W).")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"{str(label_path)!r} holds {labels.dtype} of shape {labels.shape}; expected integers (n,).")
    if len(images) != len(labels):
        raise ValueError(
            f"{image_path.name!r} holds {len(images)} images and {label_path.name!r} {len(labels)} labels; they do not "
            "belong together."
        )
    return images[:, None], labels.astype(np.int64)


def _content(path: str | os.PathLike[str]) -> bytes:
    """Bytes of a file, decompressed if need be."""
    content = Path(path).read_bytes()
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{str(path)!r} is truncated or damaged: {error}.") from error


def _find(folder: str | os.PathLike[str], part: str, kind: str, n_dimensions: int) -> Path:
    """The first of the usual names that is there; plain files before compressed ones."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}.")
    names = [
        f"{prefix}-{kind}{mark}idx{n_dimensions}-ubyte{suffix}"
        for prefix in PARTS[part]
        for mark in "-."
        for suffix in ("", ".gz")
    ]
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    present = sorted(path.name for path in Path(folder).iterdir())
    listed = ", ".join(present[:20]) + (" ..." if len(present) > 20 else "")
    raise FileNotFoundError(
        f"no {kind} of part {part!r} in {str(folder)!r}: expected one of {', '.join(names)}; found "
        f"{listed or 'nothing'}."
    )
