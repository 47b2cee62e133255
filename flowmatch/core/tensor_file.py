"""One ``.safetensors`` file with one metadata key that holds sorted JSON: estimators and checkpoints are such files.

Nothing in the file can run code. Writing is atomic: a reader sees the old file or the whole new one. Reading opens the
file once and copies it, so that what happens to the file afterwards is of no account; a checksum tells damage.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from io import BufferedReader
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, contiguous_format

from flowmatch.core.files import checked_path, replace_file

METADATA_KEY = "flowmatch"

_MOST_JSON = 4_000_000
"""Characters of a header. Reading JSON takes many times its size, which a file must not decide on its own."""

_MOST_BRACKETS = 200_000
"""Objects and arrays in a header: they take most of that memory."""

_DTYPES = {
    **{f"F{8 * dtype.itemsize}": dtype for dtype in (torch.float16, torch.float32, torch.float64)},
    **{f"I{8 * dtype.itemsize}": dtype for dtype in (torch.int8, torch.int16, torch.int32, torch.int64)},
    **{f"U{8 * dtype.itemsize}": dtype for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64)},
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
}
"""By their names in safetensors."""


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to `path`.

    Raises
    ------
    ValueError
        If the path cannot be written, or the header is too long to be read again; what stood there before is unharmed.
    """
    # shared storage is not allowed in the file
    kept = {name: tensor.detach().cpu().clone(memory_format=contiguous_format) for name, tensor in tensors.items()}
    text = _json({**header, "checksum": checksum(header, kept)})
    if _is_too_long(text):
        raise ValueError(
            f"the file would hold {len(text):,} characters of names, text and categories, and more than "
            f"{_MOST_JSON:,} are not read again: leave out columns of many categories, or save with pickle or joblib."
        )
    replace_file(path, save(kept, {METADATA_KEY: text}))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, is truncated, is no safetensors file, was not written by flowmatch, or does not
        fit its checksum; whether it has one is for the caller to see.
    """
    where = repr(os.fspath(path))
    try:
        with open(checked_path(path), "rb") as file:
            tensors, metadata = _read_safetensors(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {where}.") from None
    except OSError as error:
        raise ValueError(f"cannot read {where}: {error.strerror or error}.") from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{where} is not a complete safetensors file ({error}).") from error
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"{where} is a safetensors file, but was not written by flowmatch.")
    try:
        header = _parse(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header of {where} is not valid JSON: {error}.") from error
    if not isinstance(header, dict):
        raise ValueError(f"the header of {where} is not a JSON object.")
    if "checksum" in header and header["checksum"] != checksum(header, tensors):
        raise ValueError(f"{where} is damaged: it does not hold what was written. Use another copy.")
    return tensors, header


def checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors and of a header, its own checksum apart. It tells accidents, not intentions."""
    digest = hashlib.sha256(_json({key: value for key, value in header.items() if key != "checksum"}).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(file: BufferedReader) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata as https://github.com/huggingface/safetensors#format describes them.

    Each tensor is read into memory of its own, so that the file is held once and is not mapped.
    """
    n_bytes = os.fstat(file.fileno()).st_size - 8
    length = int.from_bytes(file.read(8), "little")
    if length > n_bytes:
        raise ValueError(f"its header would have {length:,} bytes")
    entries = _parse(file.read(min(length, 3 * _MOST_JSON)).decode(), 2)  # text in text: quotes take two characters
    metadata = entries.pop("__metadata__", {})
    tensors, position = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"the tensor {name!r} has shape {shape}")
        if start != position or end - start != math.prod(shape) * dtype.itemsize or end > n_bytes - length:
            raise ValueError(f"the tensor {name!r} is not where the header says")
        content = torch.empty(end - start, dtype=torch.uint8)
        if file.readinto(content.numpy().data) != end - start:
            raise ValueError("it was cut off while it was read")
        if dtype == torch.bool and bool((content > 1).any()):
            raise ValueError(f"the tensor {name!r} holds other things than booleans")
        tensors[name], position = content.view(dtype).reshape(shape), end
    if position != n_bytes - length:
        raise ValueError(f"{n_bytes - length - position:,} bytes belong to no tensor")
    return tensors, metadata


def _json(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, allow_nan=True, default=lambda number: number.item())  # of numpy


def _is_too_long(text: str, times: int = 1) -> bool:
    return len(text) > times * _MOST_JSON or text.count("[") + text.count("{") > times * _MOST_BRACKETS


def _parse(text: str, times: int = 1) -> Any:
    """What JSON says, unless it would take much memory."""
    if _is_too_long(text, times):
        raise ValueError("it is longer than those of any model")
    return json.loads(text)
