"""What the displays share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def load_pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to get it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'flowmatch[plot]'.") from error
    return pyplot


def as_array(X: Any) -> NDArray[Any]:
    """Samples in any container as numbers."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().float()
    return np.asarray(X, dtype=np.float64)


def check_labels(name: str, labels: Sequence[Any] | None, expected: int, of: str) -> None:
    """Raise a ValueError unless there are as many labels as expected."""
    if labels is not None and len(labels) != expected:
        raise ValueError(f"{name} holds {len(labels)} labels for {expected} {of}.")
