"""One ``.safetensors`` file with one metadata key that holds sorted JSON: estimators and checkpoints are such files.

Nothing in the file can run code. Writing is atomic: a reader sees the old file or the whole new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, contiguous_format

from flowmatch.core.files import replace_file

METADATA_KEY = "flowmatch"


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to `path`.

    Raises
    ------
    ValueError
        If the path cannot be written; what stood there before is unharmed.
    """
    text = json.dumps(header, sort_keys=True, allow_nan=True, default=lambda number: number.item())  # of numpy
    # shared storage is not allowed in the file
    kept = {name: tensor.detach().cpu().clone(memory_format=contiguous_format) for name, tensor in tensors.items()}
    replace_file(path, save(kept, {METADATA_KEY: text}))


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
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header of {str(path)!r} is not valid JSON: {error}.") from error
    if not isinstance(header, dict):
        raise ValueError(f"the header of {str(path)!r} is not a JSON object.")
    return tensors, header
