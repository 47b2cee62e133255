"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file through a temporary one beside it: a reader sees the old file or the whole new one.

    A new file has the permissions that the process gives to any, an older one keeps its own.

    Raises
    ------
    ValueError
        If the path cannot be written; what stood there before is unharmed.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    try:
        mode = path.stat().st_mode & 0o7777 if path.exists() else None
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                temporary.chmod(mode)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {str(path)!r}: {error.strerror or error}.") from error
