"""Names of types that many signatures share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Rng = torch.Generator | None
"""Where random values come from; None is torch's global generator."""

Device = torch.device | str | None
"""A device; None is torch's default."""

DType = torch.dtype | None
"""A floating-point type; None is torch's default."""

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]
Integers = NDArray[np.int64]
AnyArray = NDArray[Any]
