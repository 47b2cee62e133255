"""Names of types that many signatures share."""

from __future__ import annotations

import torch

Rng = torch.Generator | None
"""Where random values come from; None is torch's global generator."""

Device = torch.device | str | None
"""A device; None is torch's default."""

DType = torch.dtype | None
"""A floating-point type; None is torch's default."""
