"""Memory that does not suffice: what is too large is refused by name, batches are halved."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from flowmatch.core.user_warnings import warn

Result = TypeVar("Result")

_SIGNS = ("out of memory", "allocate memory", "not enough memory", "storage size calculation overflowed")
"""What torch says in a RuntimeError where memory does not suffice, by device and operating system."""


class NotEnoughMemoryError(MemoryError):
    """Says what the memory does not suffice for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice, of whatever device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS))


def memory_of(device: torch.device | str = "cpu") -> float:
    """Bytes of memory that a device has in all; infinite where that is not known."""
    device = torch.device(device)
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # not of this operating system
        return math.inf


def check_memory(what: str, n_bytes: float, device: torch.device | str = "cpu") -> None:
    """Refuse what takes more memory than there is at all, before anything is allocated.

    Parameters
    ----------
    what : str
        What asks for it, such as "n_samples=1000".
    n_bytes : float
        How much.
    device : torch.device or str, default="cpu"
        Where.

    Raises
    ------
    MemoryError
    """
    if n_bytes > min(memory_of(device), 2.0**62):
        raise NotEnoughMemoryError(
            f"{what} asks for {n_bytes / 1e9:,.1f} GB of memory, and there are {memory_of(device) / 1e9:,.1f} GB."
        )


@contextlib.contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Say what memory did not suffice for, whatever the library or device that ran out of it.

    Parameters
    ----------
    what : str
        Names the parameters that decide.

    Raises
    ------
    MemoryError
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, NotEnoughMemoryError) or not is_out_of_memory(error):
            raise
        raise NotEnoughMemoryError(f"there is not enough memory for {what}.") from error


class Batches:
    """Runs functions on batches of rows, which are halved from where memory does not suffice.

    There is one for each call of a user's: what it has found serves all batches that follow, and it warns once.

    Parameters
    ----------
    what : str
        What is done, such as "sampling".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.most: int | None = None

    def run(self, function: Callable[..., Result], *rows: Any) -> list[Result]:
        """What a function makes of a batch, or of the parts of it that memory suffices for.

        Parameters
        ----------
        function : callable
            Its result for a row must not depend on the other rows.
        *rows : Tensor, ndarray or None
            Of one length, the first of them no None; each is cut, None stays None.

        Returns
        -------
        list
            Results of the parts, in order.

        Raises
        ------
        MemoryError
            If there is not enough memory for one row.
        """
        found: list[Result] = []
        start, n_rows = 0, len(rows[0])
        while start < n_rows or not found:
            size = n_rows - start if self.most is None else min(self.most, n_rows - start)
            part = [None if values is None else values[start : start + size] for values in rows]
            try:
                found.append(function(*part))
                start += size
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if size < 2:
                    raise NotEnoughMemoryError(
                        f"there is not enough memory for {self.what} of a single row."
                    ) from error
            self._halve(size)  # out here the failed try holds no memory any more
        return found

    def _halve(self, size: int) -> None:
        if self.most is None:
            warn(
                f"there is not enough memory for {self.what} of {size} rows at a time: batches are halved until there "
                "is. Where the method takes batch_size, set it."
            )
        self.most = size // 2
