"""Files of format 3, which earlier versions wrote, as those of format 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def read_format_3(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file of format 3 as format 4 has them."""
    raise ValueError("format 3 cannot be read yet.")
