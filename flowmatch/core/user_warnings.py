"""Warnings that point at the user's line."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

import torch

_SKIPPED = (
    str(Path(__file__).parents[1]) + os.sep,
    str(Path(torch.__file__).parent) + os.sep,  # decorators such as torch.no_grad stand between two of our frames
    contextlib.__file__,
    functools.__file__,
)


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Give no warning of ours in this block, where the package asks itself what it would warn a user of."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as if the innermost frame outside of the package had done so.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    """
    if _quiet.get():
        return
    frame: FrameType | None = sys._getframe()
    level = 1
    while frame is not None and frame.f_code.co_filename.startswith(_SKIPPED):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
