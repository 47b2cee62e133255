"""One ``.safetensors`` file with one metadata key that holds sorted JSON: estimators and checkpoints are such files.

Nothing in the file can run code. Writing is atomic: a reader sees the old file or the whole new one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

METADATA_KEY = "flowmatch"


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to `path`, through a temporary file beside it.

    Raises
    ------
    ValueError
        If the path cannot be written; what stood there before is unharmed.
    """
    path = Path(path)
    text = json.dumps(header, sort_keys=True, allow_nan=True, default=lambda number: number.item())  # of numpy
    payload = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {METADATA_KEY: text})
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ValueError(f"cannot write to {str(path)!r}: {error.strerror or error}.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"cannot write to {str(path)!r}: {error.strerror or error}.") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, is no safetensors file, or was not written by flowmatch.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is not a complete safetensors file ({error}).") from error
    if METADATA_KEY not in metadata:
        raise ValueError(f"{str(path)!r} is a safetensors file, but was not written by flowmatch.")
    try:
        header = json.loads(metadata[METADATA_KEY])
    except json.JSONDecodeError as error:
        raise ValueError(f"the header of {str(path)!r} is not valid JSON: {error}.") from error
    if not isinstance(header, dict):
        raise ValueError(f"the header of {str(path)!r} is not a JSON object.")
    return tensors, header


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
