"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path

_TEMPORARY = ".flowmatch-tmp"
"""End of the names of temporary files, after the names of the host and process that write them."""


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file.

    Raises
    ------
    ValueError
        If no file system can have such a file.
    TypeError
        If it is neither text nor path-like.
    """
    path = Path(path)
    if "\0" in str(path):
        raise ValueError(f"path must be the name of a file, got {str(path)!r} with a NUL character.")
    return path


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file through a temporary one beside it: a reader sees the old file or the whole new one.

    A new file has the permissions that the process gives to any, an older one keeps its own. Where the path is a link,
    the file that it leads to is replaced.

    Raises
    ------
    ValueError
        If the path cannot be written; what stood there before is unharmed.
    """
    try:
        target = checked_path(path).resolve()
        temporary = target.with_name(f".{name_of_writer()}{_TEMPORARY}")
        mode = target.stat().st_mode & 0o7777 if target.exists() else None
        try:
            with open(
                temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o666 if mode is None else mode)
            ) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                temporary.chmod(mode)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError for links in a circle, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot write to {str(path)!r}: {reason}.") from error


def name_of_writer() -> str:
    """A part of a file's name that no other file has, and that says which process of which machine writes it."""
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(8)}"


def is_being_written(name: str) -> bool:
    """Whether the process that a name ends in may be running; another machine's may, so may one that is not named."""
    host, _, process = name.rpartition("-")[0].rpartition("-")
    if not host.endswith(_host()) or not process.isdecimal() or os.name != "posix":
        return True
    if int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)  # asks, and sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files in a folder whose writers on this machine are gone."""
    for temporary in folder.glob(f".*{_TEMPORARY}"):
        if f"-{os.getpid()}-" not in temporary.name and not is_being_written(temporary.name.removesuffix(_TEMPORARY)):
            with contextlib.suppress(OSError):
                temporary.unlink()


def _host() -> str:
    """Name of this machine, as a part of the names of files."""
    return "".join(letter if letter.isalnum() else "_" for letter in socket.gethostname())
